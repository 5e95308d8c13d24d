"""Authors declare events and traits in keywords, and are told at once what they got wrong."""

from typing import Any, cast

import pytest

from penstock.core.catalog.categories import CATEGORIES
from penstock.core.catalog.fields import EventType, Field, Privacy
from penstock.core.errors import DefinitionError
from penstock.dsl.events import (
    FieldSpec,
    boolean,
    datetime,
    decimal,
    event,
    group_traits,
    integer,
    items,
    money,
    objects,
    one_of,
    private,
    string,
    strings,
    traits,
)
from penstock.dsl.features import days

EMAIL = private(category="user.contact.email", data_class="confidential", retention=days(400))


def test_keywords_become_fields() -> None:
    declared = event(
        "Product Viewed",
        version=2,
        description="d",
        product_id=string(required=True, chars_max=9, description="x"),
        price=money(currency="GBP"),
        email=string(privacy=EMAIL),
    )
    assert ("Product Viewed", 2, "d") == (declared.name, declared.version, declared.description)
    assert {
        "product_id": Field(
            name="product_id", kind="string", required=True, chars_max=9, description="x"
        ),
        "price": Field(name="price", kind="money", currency="GBP"),
        "email": Field(
            name="email",
            kind="string",
            privacy=Privacy(
                category="user.contact.email", data_class="confidential", retention_days=400
            ),
        ),
    } == dict(declared.fields)


@pytest.mark.parametrize(
    ("spec", "kind"),
    [
        (string(), "string"), (integer(), "integer"), (decimal(scale=1), "decimal"), (money(), "money"),
        (boolean(), "boolean"), (datetime(), "datetime"), (one_of("a"), "enum"), (strings(), "strings"),
        (objects({"a": string()}), "objects"),
    ],
)  # fmt: skip
def test_each_kind_has_its_word(spec: FieldSpec, kind: str) -> None:
    assert kind == event("E", a=spec).fields["a"].kind


def test_the_parts_of_a_list_have_its_annotation_unless_they_have_their_own() -> None:
    own = private(purpose="analytics")
    declared = event("E", a=objects({"b": string(), "c": string(privacy=own)}, privacy=EMAIL))
    assert (EMAIL, own) == tuple(part.privacy for part in declared.fields["a"].fields)


def test_fields_are_named_with_a_dot_or_in_brackets() -> None:
    declared = event("E", price=money(currency="GBP"), size=one_of("S"), name=string())
    assert ("E", "price", "money", "GBP") == (
        declared.price.event, declared.price.field, declared.price.kind, declared.price.currency
    )  # fmt: skip
    assert ("S",) == declared.size.values
    assert "E" == declared.name
    assert "name" == declared["name"].field


def test_a_reference_is_typed_as_the_value_is_kept() -> None:
    secret = private(protection="pseudonym", purpose="analytics")
    declared = event("E", a=integer(privacy=secret), b=one_of("x", privacy=secret))
    assert ("string", "analytics", "pseudonym") == (
        declared.a.kind, declared.a.purpose, declared.a.protection
    )  # fmt: skip
    assert ("string", ()) == (declared.b.kind, declared.b.values)


def test_a_field_that_is_not_there_is_named_with_the_nearest() -> None:
    declared = event("E", category=string())
    with pytest.raises(DefinitionError) as caught:
        _ = declared.catgory
    assert "E102" == caught.value.code
    assert "did you mean `category`?" == caught.value.fix
    assert not hasattr(declared, "zzz")
    assert not hasattr(declared, "__wrapped__")


def test_names_that_clash_are_given_in_a_mapping() -> None:
    declared = event("E", fields={"version": string(), "description": string(), "a b": string()})
    assert ["version", "description", "a b"] == list(declared.fields)
    with pytest.raises(DefinitionError) as caught:
        event("E", version=string())  # type: ignore[arg-type]
    assert "E103" == caught.value.code


def test_tables_know_whose_they_are() -> None:
    people, groups, goods = traits(a=string()), group_traits(a=string()), items(a=string())
    assert ["traits", "group_traits", "items"] == [
        table.belongs_to for table in (people, groups, goods)
    ]
    assert {"a": Field(name="a", kind="string")} == people


special = private(data_class="special")


WRONG: list[tuple[Any, str]] = [
    (lambda: event(""), "E103"),
    (lambda: event("a\nb"), "E103"),
    (lambda: event("E", version=0), "E103"),
    (lambda: event("E", a=cast("Any", "string")), "E103"),
    (lambda: event("E", a=string(), fields={"a": string()}), "E103"),
    (lambda: event("E", fields={"a\n": string()}), "E103"),
    (lambda: event("E", fields={f"f{n}": string() for n in range(201)}), "E103"),
    (lambda: event("E", a=string(chars_max=0)), "E103"),
    (lambda: event("E", a=strings(items_max=0)), "E103"),
    (lambda: event("E", a=one_of()), "E103"),
    (lambda: event("E", a=one_of("x", "x")), "E103"),
    (lambda: event("E", a=objects({})), "E103"),
    (lambda: event("E", a=objects({"b": one_of()})), "E103"),
    (lambda: event("E", a=FieldSpec({"kind": "blob"}, None)), "E103"),
    (lambda: traits(a=string(required=True)), "E103"),
    (lambda: event("E", a=string(privacy=private(protection="encrypt"))), "E104"),
    (lambda: event("E", a=string(privacy=private(protection="rot13"))), "E105"),
    (lambda: event("E", a=money(privacy=private(protection="truncate"))), "E105"),
    (lambda: event("E", a=money(privacy=private(protection="pseudonym"))), "E105"),
    (lambda: event("E", a=string(required=True, privacy=private(protection="drop"))), "E105"),
    (lambda: event("E", a=string(privacy=special)), "E105"),
    (lambda: event("E", a=string(privacy=private(category="user.contact.emial"))), "E106"),
    (lambda: private(data_class="secret"), "E106"),
    (lambda: event("E", a=string(privacy=Privacy(data_class="secret"))), "E106"),
    (lambda: event("E", a=string(privacy=private(retention=0))), "E106"),
    (lambda: private(retention=days(1).__class__(3_600_000)), "E106"),
    (lambda: event("E", a=string(privacy=private(purpose="any thing"))), "E106"),
    (lambda: event("E", a=decimal(scale=10)), "E107"),
    (lambda: event("E", a=FieldSpec({"kind": "decimal"}, None)), "E107"),
    (lambda: event("E", a=money(currency="pounds")), "E107"),
    (lambda: event("E", a=money(currency="XYZ")), "E107"),
    (lambda: event("E", a=money(scale=-1)), "E107"),
]  # fmt: skip


@pytest.mark.parametrize(("declare", "code"), WRONG, ids=range(len(WRONG)))
def test_a_wrong_declaration_is_refused(declare: Any, code: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        declare()
    assert code == caught.value.code
    assert "" != caught.value.fix


def test_a_category_that_is_misspelt_is_named_with_the_nearest() -> None:
    with pytest.raises(DefinitionError) as caught:
        event("E", a=string(privacy=private(category="user.contact.emial")))
    assert "did you mean `user.contact.email`?" == caught.value.fix
    assert "event `E`, field `a`" == caught.value.where


def test_the_categories_are_those_of_fideslang() -> None:
    assert 85 == len(CATEGORIES)
    assert {"user", "system", "user.behavior.purchase_history"} <= CATEGORIES


def test_an_event_type_can_be_a_key() -> None:
    declared = event("E", a=string())
    assert isinstance(declared, EventType)
    assert 1 == {declared: 1}[declared]
