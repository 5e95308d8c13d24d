"""A version that breaks an older one is told from one that does not, with the place of the break."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.catalog.compat import MODES, Break, check, check_all
from penstock.core.catalog.fields import EventType
from penstock.core.errors import DefinitionError
from penstock.dsl.events import (
    FieldSpec,
    boolean,
    datetime,
    decimal,
    event,
    integer,
    money,
    objects,
    one_of,
    private,
    string,
    strings,
)
from penstock.dsl.segment import ALL


def versions(old: FieldSpec | None, new: FieldSpec | None) -> tuple[EventType, EventType]:
    return (
        event("E", fields={} if old is None else {"a": old}),
        event("E", version=2, fields={} if new is None else {"a": new}),
    )


BREAKS: list[Any] = [
    # old, new, what breaks backward, what breaks forward
    (string(), integer(), "was string, is integer", "was string, is integer"),
    (decimal(scale=2), decimal(scale=3), "had scale 2, has 3", "had scale 2, has 3"),
    (money(), money(scale=4), "had scale None, has 4", "had scale None, has 4"),
    (
        money(),
        money(currency="EUR"),
        "has its currency from elsewhere",
        "has its currency from elsewhere",
    ),
    (
        money(),
        money(currency_field="c"),
        "has its currency from elsewhere",
        "has its currency from elsewhere",
    ),
    (
        string(),
        string(privacy=private(protection="pseudonym")),
        "was protected by plain, is by pseudonym",
        "was protected by plain, is by pseudonym",
    ),
    (
        string(),
        string(required=True),
        "is required, and events of old senders may be without it",
        "",
    ),
    (None, string(required=True), "is required, and events of old senders may be without it", ""),
    (
        string(required=True),
        string(),
        "",
        "is required, and events of new senders may be without it",
    ),
    (string(required=True), None, "", "is required, and events of new senders may be without it"),
    (string(chars_max=9), string(chars_max=8), "takes 8 characters where 9 are sent", ""),
    (string(chars_max=8), string(chars_max=9), "", "takes 8 characters where 9 are sent"),
    (strings(items_max=9), strings(items_max=8), "takes 8 items where 9 are sent", ""),
    (strings(chars_max=8), strings(chars_max=9), "", "takes 8 characters where 9 are sent"),
    (one_of("a", "b"), one_of("a"), "does not take `b`", ""),
    (one_of("a"), one_of("a", "b"), "", "does not take `b`"),
    (None, string(), "", ""),
    (string(), None, "", ""),
    (string(), string(description="said otherwise", privacy=private(retention=3)), "", ""),
]


@pytest.mark.parametrize(("old", "new", "backward", "forward"), BREAKS)
def test_a_planted_break_is_found_where_it_is(
    old: FieldSpec | None, new: FieldSpec | None, backward: str, forward: str
) -> None:
    before, after = versions(old, new)

    def found(mode: str) -> list[Break]:
        return check(before, after, mode)

    expected = {
        "backward": [backward] if backward else [],
        "forward": [forward] if forward else [],
        "full": [what for what in dict.fromkeys([backward, forward]) if what],
    }
    for mode in MODES:
        assert [Break("$.properties.a", what) for what in expected[mode]] == found(mode)


def test_a_break_inside_a_list_has_its_path() -> None:
    before, after = versions(objects({"b": string()}), objects({"b": integer()}))
    assert [Break("$.properties.a[*].b", "was string, is integer")] == check(before, after, "full")


def test_another_name_or_an_older_version_breaks() -> None:
    breaks = check(event("E", version=2), event("F"), "backward")
    assert ["was called `E`", "version 1 comes after version 2"] == [one.what for one in breaks]


def test_whole_catalogs_are_compared() -> None:
    old = {"A": event("A"), "B": event("B", a=string())}
    new = {"B": event("B", a=integer()), "C": event("C")}
    gone = Break("event `A`", "is no longer declared")
    changed = Break("event `B`, $.properties.a", "was string, is integer")
    come = Break("event `C`", "is not declared in the old version")
    assert [gone, changed] == check_all(old, new, "backward")
    assert [changed, come] == check_all(old, new, "forward")
    assert [gone, changed, come] == check_all(old, new, "full")


@pytest.mark.parametrize("mode", ["", "backwards"])
def test_a_mode_that_does_not_exist_is_refused(mode: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        check(event("E"), event("E"), mode)
    assert "E109" == caught.value.code


specs = st.sampled_from(
    [string(), string(required=True), integer(), decimal(scale=2), money(), boolean(), datetime(),
     one_of("a", "b"), strings(), objects({"x": string(), "y": money()})]
)  # fmt: skip
fields = st.dictionaries(st.sampled_from("abcdefgh"), specs, max_size=6)


@given(fields, st.sampled_from(MODES))
def test_a_version_never_breaks_itself(declared: dict[str, FieldSpec], mode: str) -> None:
    assert [] == check(event("E", fields=declared), event("E", fields=declared), mode)


@given(fields, fields, st.sampled_from(MODES))
def test_an_optional_field_more_breaks_nothing(
    declared: dict[str, FieldSpec], more: dict[str, FieldSpec], mode: str
) -> None:
    added = {f"new_{name}": spec for name, spec in more.items() if not spec.options["required"]}
    before, after = event("E", fields=declared), event("E", version=2, fields=declared | added)
    assert [] == check(before, after, mode)
    assert [] == check(after, event("E", version=3, fields=declared), mode)


@given(fields, fields)
def test_full_is_backward_and_forward(
    one: dict[str, FieldSpec], other: dict[str, FieldSpec]
) -> None:
    before, after = event("E", fields=one), event("E", fields=other)
    both = set(check(before, after, "backward")) | set(check(before, after, "forward"))
    assert both == set(check(before, after, "full"))


@pytest.mark.parametrize("mode", MODES)
def test_no_shipped_event_breaks_itself(mode: str) -> None:
    shipped = {declared.name: declared for declared in ALL}
    assert [] == check_all(shipped, shipped, mode)
