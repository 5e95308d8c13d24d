"""Laws of the algebra, for every registered aggregate: registering one is enough to be tested here."""

from __future__ import annotations

import random
from itertools import pairwise
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.core.feature import aggregates
from penstock.core.feature.algebra import REGISTRY, Aggregate, ValueType

assert aggregates.__name__, "importing it registers every aggregate"

VARIANTS = [
    pytest.param(bound, value_type, id=f"{name}-{place}")
    for name, kind in sorted(REGISTRY.items())
    for place, (bound, value_type) in enumerate(kind.variants())
]
SCALARS: dict[str, st.SearchStrategy[Any]] = {
    "string": st.sampled_from([*"abcdefgh", "", "é€"]),
    "enum": st.sampled_from(["red", "green"]),
    "integer": st.integers(-5, 5) | st.integers(-(2**53) + 1, 2**53 - 1),
    "decimal": st.integers(-5_000, 5_000),
    "datetime": st.integers(0, 10**13),
    "boolean": st.booleans(),
    "money": st.tuples(
        st.integers(-(10**6), 10**6), st.sampled_from(["GBP", "EUR", "JPY", *(f"X{c}{c}" for c in "ABCDEFGHIJKLMNOPQ")])
    ).map(list),
}  # fmt: skip


def values_of(value_type: ValueType | None) -> st.SearchStrategy[Any]:
    """Values of a type."""
    if value_type is None:
        return st.none()
    if value_type.kind == "record":
        return st.tuples(*(values_of(part) for _, part in value_type.parts)).map(list)
    return SCALARS[value_type.kind]


@st.composite
def events_of(draw: st.DrawFn, value_type: ValueType | None) -> list[tuple[Any, int, int]]:
    """De-duplicated events: (value, at_ms, event_id)."""
    values = draw(st.lists(values_of(value_type), max_size=20))
    ids = draw(
        st.lists(st.integers(0, 2**64 - 1), min_size=len(values), max_size=len(values), unique=True)
    )
    times = draw(
        st.lists(
            st.integers(0, 9) | st.integers(0, 2**42), min_size=len(values), max_size=len(values)
        )
    )
    return list(zip(values, times, ids, strict=True))


def added(aggregate: Aggregate, events: list[tuple[Any, int, int]]) -> Any:
    """The accumulator of some events, in the order given."""
    acc = None
    for value, at_ms, event_id in events:
        acc = aggregate.add(acc, value, at_ms, event_id)
    return acc


def merged(aggregate: Aggregate, one: Any, other: Any) -> Any:
    """Merge, where None is the zero."""
    if one is None or other is None:
        return other if one is None else one
    return aggregate.merge(one, other)


def raw(aggregate: Aggregate, acc: Any) -> bytes:
    """The bytes of an accumulator."""
    return msgspec.msgpack.encode(None if acc is None else aggregate.encode(acc))


def parts_of(stored: Any) -> list[Any]:
    """Everything in nested lists."""
    if isinstance(stored, list):
        return [part for item in stored for part in parts_of(item)]
    return [stored]


laws = settings(max_examples=settings.default.max_examples // 2)
"""There are some 150 pairs of law and aggregate, and each example holds up to 20 events."""


@pytest.mark.parametrize(("aggregate", "value_type"), VARIANTS)
class TestLaws:
    """Each law, for each aggregate and set of parameters."""

    @laws
    @given(data=st.data())
    def test_any_order_of_events_gives_the_same_bytes(
        self, aggregate: Aggregate, value_type: ValueType | None, data: st.DataObject
    ) -> None:
        events = data.draw(events_of(value_type))
        shuffled = data.draw(st.permutations(events))
        assert raw(aggregate, added(aggregate, events)) == raw(
            aggregate, added(aggregate, shuffled)
        )

    @laws
    @given(data=st.data())
    def test_any_split_merges_to_the_whole_and_leaves_its_arguments_alone(
        self, aggregate: Aggregate, value_type: ValueType | None, data: st.DataObject
    ) -> None:
        events = data.draw(events_of(value_type))
        places = data.draw(st.lists(st.integers(0, 2), min_size=len(events), max_size=len(events)))
        one, two, three = (
            added(aggregate, [e for e, p in zip(events, places, strict=True) if p == part])
            for part in range(3)
        )
        before = [raw(aggregate, part) for part in (one, two, three)]
        whole = raw(aggregate, added(aggregate, events))
        left = merged(aggregate, merged(aggregate, one, two), three)
        right = merged(aggregate, three, merged(aggregate, two, one))
        outer = merged(aggregate, one, merged(aggregate, two, three))
        assert [whole] * 3 == [raw(aggregate, acc) for acc in (left, right, outer)]
        assert before == [raw(aggregate, part) for part in (one, two, three)]

    @laws
    @given(data=st.data())
    def test_encoding_comes_back(
        self, aggregate: Aggregate, value_type: ValueType | None, data: st.DataObject
    ) -> None:
        acc = added(aggregate, data.draw(events_of(value_type)))
        if acc is None:
            return
        stored = raw(aggregate, acc)
        back = aggregate.decode(msgspec.msgpack.decode(stored))
        assert stored == raw(aggregate, back)
        assert aggregate.finish(acc, 2**43) == aggregate.finish(back, 2**43)
        assert aggregate.truncated(acc) == aggregate.truncated(back)
        assert aggregate.size_bytes(acc) == aggregate.size_bytes(back)
        # Whatever is folded into it later, a decoded accumulator goes on as the first would have.
        more = data.draw(events_of(value_type))
        for value, at_ms, event_id in more:
            acc = aggregate.add(acc, value, at_ms, event_id)
            back = aggregate.add(back, value, at_ms, event_id)
        assert raw(aggregate, acc) == raw(aggregate, back)

    @laws
    @given(data=st.data())
    def test_a_copy_shares_nothing(
        self, aggregate: Aggregate, value_type: ValueType | None, data: st.DataObject
    ) -> None:
        acc = added(aggregate, data.draw(events_of(value_type)))
        if acc is None:
            return
        before = raw(aggregate, acc)
        copy = aggregate.copy(acc)
        for value, at_ms, event_id in data.draw(events_of(value_type)):
            copy = aggregate.add(copy, value, at_ms, event_id)
        assert before == raw(aggregate, acc)

    @laws
    @given(data=st.data())
    def test_inlined_source_and_adder_equal_add(
        self, aggregate: Aggregate, value_type: ValueType | None, data: st.DataObject
    ) -> None:
        events = data.draw(events_of(value_type))
        expected = raw(aggregate, added(aggregate, events))
        adder, acc = aggregate.adder(), None
        for value, at_ms, event_id in events:
            acc = adder(acc, value, at_ms, event_id)
        assert expected == raw(aggregate, acc)
        inlined = aggregate.inline()
        if inlined is None:
            return
        acc = None
        for value, at_ms, event_id in events:
            names = {"acc": acc, "value": value, "at": at_ms, "event": event_id}
            acc = eval(inlined[0 if acc is None else 1], names)
        assert expected == raw(aggregate, acc)

    @laws
    @given(data=st.data())
    def test_joined_tiles_finish_as_one(
        self, aggregate: Aggregate, value_type: ValueType | None, data: st.DataObject
    ) -> None:
        events = data.draw(events_of(value_type))
        cuts = sorted(data.draw(st.lists(st.integers(0, len(events)), max_size=4)))
        tiles = [
            added(aggregate, events[low:high])
            for low, high in pairwise([0, *cuts, len(events)])
            if low < high
        ]
        if not tiles or any(aggregate.truncated(tile) for tile in tiles):
            return
        whole = added(aggregate, events)
        if aggregate.truncated(whole):
            return
        before = [raw(aggregate, tile) for tile in tiles]
        assert aggregate.finish(whole, 2**43) == aggregate.finish(aggregate.join(tiles), 2**43)
        assert before == [raw(aggregate, tile) for tile in tiles]

    @laws
    @given(data=st.data())
    def test_since_is_a_projection(
        self, aggregate: Aggregate, value_type: ValueType | None, data: st.DataObject
    ) -> None:
        if not aggregate.own_time:
            return
        events = data.draw(events_of(value_type))
        floor_ms = data.draw(st.integers(0, 12) | st.integers(0, 2**42))
        cut = data.draw(st.integers(0, len(events)))
        one, other = added(aggregate, events[:cut]), added(aggregate, events[cut:])

        def since(acc: Any) -> Any:
            return None if acc is None else aggregate.since(acc, floor_ms)

        expected = raw(aggregate, since(merged(aggregate, one, other)))
        assert expected == raw(aggregate, since(merged(aggregate, since(one), since(other))))
        assert expected == raw(aggregate, added(aggregate, [e for e in events if e[1] >= floor_ms]))

    @laws
    @given(data=st.data())
    def test_what_does_not_move_is_the_same_at_any_instant(
        self, aggregate: Aggregate, value_type: ValueType | None, data: st.DataObject
    ) -> None:
        if aggregate.moves:
            return
        acc = added(aggregate, data.draw(events_of(value_type)))
        instants = data.draw(st.lists(st.integers(0, 2**43), min_size=2, max_size=4))
        assert 1 == len({repr(aggregate.finish(acc, as_of_ms)) for as_of_ms in instants})

    @laws
    @given(data=st.data())
    def test_since_takes_nothing_up_to_the_oldest_instant(
        self, aggregate: Aggregate, value_type: ValueType | None, data: st.DataObject
    ) -> None:
        acc = added(aggregate, data.draw(events_of(value_type)))
        oldest_ms = None if acc is None or not aggregate.own_time else aggregate.oldest_ms(acc)
        if oldest_ms is None:
            return
        assert raw(aggregate, acc) == raw(aggregate, aggregate.since(acc, oldest_ms))

    def test_no_float_is_in_an_accumulator(
        self, aggregate: Aggregate, value_type: ValueType | None
    ) -> None:
        draw = random.Random(7)
        kind = "" if value_type is None else value_type.kind
        samples = {
            "": [None], "string": ["a", "b"], "integer": [1, 2], "decimal": [1_500, 7],
            "money": [[5, "GBP"], [7, "EUR"]], "record": [["a", "x"], ["b", "y"]],
        }[kind]  # fmt: skip
        events = [(draw.choice(samples), at_ms, at_ms) for at_ms in range(20)]
        stored = msgspec.msgpack.decode(raw(aggregate, added(aggregate, events)))
        assert not [part for part in parts_of(stored) if isinstance(part, float)]
        assert None is not aggregate.finish(added(aggregate, events), 20)


def test_every_aggregate_documents_itself() -> None:
    for name, kind in REGISTRY.items():
        assert name == kind.name
        assert (kind.__doc__ or "").strip(), name
        assert kind.variants(), name
