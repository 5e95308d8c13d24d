"""The catalog keeps declarations by name, checks its options, and has a fingerprint of its meaning."""

from typing import Any

import pytest

from penstock.core.catalog.schema import Catalog
from penstock.core.errors import DefinitionError
from penstock.dsl.events import event, integer, private, string, traits
from penstock.dsl.segment import ALL

VIEWED = event("Product Viewed", description="d", product_id=string(description="x"))


def test_pages_and_screens_are_always_there() -> None:
    catalog = Catalog([VIEWED])
    assert {"Product Viewed", "page", "screen"} == set(catalog.event_types)
    assert (True, True, False) == (
        catalog.declares("Product Viewed"),
        catalog.declares("page"),
        catalog.declares("Product Bought"),
    )


def test_an_event_declared_twice_is_refused_unless_it_is_the_same() -> None:
    assert Catalog([VIEWED]).fingerprint() == Catalog([VIEWED, VIEWED]).fingerprint()
    with pytest.raises(DefinitionError) as caught:
        Catalog([VIEWED, event("Product Viewed", product_id=integer())])
    assert "E108" == caught.value.code


@pytest.mark.parametrize(
    "options",
    [{"undeclared": "ignore"}, {"traits_undeclared": "reject"}, {"default_currency": "pounds"}],
)
def test_an_option_that_is_none_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(DefinitionError) as caught:
        Catalog([], **options)
    assert "E109" == caught.value.code


def test_the_fingerprint_is_of_the_meaning() -> None:
    one = Catalog(ALL, traits(a=string(), b=integer()))
    assert (
        one.fingerprint()
        == Catalog(
            reversed(ALL), traits(b=integer(), a=string(description="said otherwise"))
        ).fingerprint()
    )
    assert 32 == len(one.fingerprint())


@pytest.mark.parametrize(
    "other",
    [
        Catalog([event("Product Viewed", version=2, product_id=string())]),
        Catalog([event("Product Viewed", product_id=string(required=True))]),
        Catalog([event("Product Viewed", product_id=integer())]),
        Catalog([event("Product Viewed", product_id=string(chars_max=9))]),
        Catalog([event("Product Viewed", product_id=string(privacy=private(retention=9)))]),
        Catalog([event("Product Viewed", product_id=string(privacy=private(purpose="analytics")))]),
        Catalog([VIEWED], traits(a=string())),
        Catalog([VIEWED], group_traits=traits(a=string())),
        Catalog([VIEWED], items=traits(a=string())),
        Catalog([VIEWED], undeclared="keep"),
        Catalog([VIEWED], traits_undeclared="keep"),
        Catalog([VIEWED], default_currency="GBP"),
    ],
)
def test_every_change_of_meaning_changes_the_fingerprint(other: Catalog) -> None:
    assert Catalog([VIEWED]).fingerprint() != other.fingerprint()


def test_the_shipped_events_are_all_there_and_none_twice() -> None:
    names = [declared.name for declared in ALL]
    assert len(names) == len(set(names)) == 37
    assert all(declared.description for declared in ALL)
