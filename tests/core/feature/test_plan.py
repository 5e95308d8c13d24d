"""What a plan answers: values over windows, golden bytes, fingerprints, and errors with their place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import msgspec
import pytest

from penstock.core.errors import DataCorrupt, DefinitionError
from penstock.core.feature import algebra
from penstock.core.feature.plan import Plan, plan_of
from penstock.core.record import Evidence, Record
from penstock.dsl import events as dsl
from penstock.dsl import features as f

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
T0 = 1_774_224_000_000
"""2026-03-23T00:00:00Z, a Monday."""
PERSONALISATION = frozenset({"personalisation"})

viewed = dsl.event(
    "Product Viewed",
    product=dsl.string(),
    category=dsl.one_of("shoes", "hats"),
    price=dsl.money(),
    weight=dsl.decimal(scale=2),
    position=dsl.integer(),
    email=dsl.string(privacy=dsl.private(protection="drop")),
    tags=dsl.strings(),
)
ordered = dsl.event(
    "Order Completed",
    total=dsl.money(),
    affiliation=dsl.string(privacy=dsl.private(purpose="advertising")),
    products=dsl.objects(
        {"product": dsl.string(), "quantity": dsl.integer(), "price": dsl.money()}
    ),
)
lines = f.each(ordered, "products")


class Shopper(f.Profile):
    """One feature of each kind."""

    views_7d = f.count(viewed, over=f.days(7))
    views_by_category = f.count(viewed, by=viewed.category, over=f.days(30))
    spent = f.sum_(ordered.total)
    orders_this_month = f.count(ordered, over=f.tumbling("month"))
    orders_last_month = f.count(ordered, over=f.tumbling("month", previous=1))
    cheapest = f.min_(viewed.price)
    heaviest = f.max_(viewed.weight)
    average_order = f.mean(ordered.total)
    spread = f.variance(viewed.weight)
    first_product = f.first(viewed.product)
    last_view = f.last((viewed.product, viewed.price))
    seen = f.last_k(viewed.product, k=3, distinct=True)
    favourites = f.top_k(viewed.category, k=2)
    products_bought = f.distinct(lines.product)
    units = f.sum_(lines.quantity)
    line_value = f.sum_(lines.price * lines.quantity)
    ever_ordered = f.exists(ordered)
    since_view = f.recency(viewed)
    last_order_at = f.last_at(ordered)
    dear_views = f.count(viewed, where=viewed.price > f.amount("9.99", "GBP"))
    order_rate = f.ratio(orders_this_month, views_7d)


def view(number: int, at_ms: int, **properties: Any) -> Record:
    """A record of a view."""
    return record(number, "Product Viewed", at_ms, properties)


def record(number: int, name: str, at_ms: int, properties: dict[str, Any]) -> Record:
    """A primary record."""
    return Record(
        1, 1, "shop", b"l" * 16, "user_id", number << 20, f"m{number}", "track", name, at_ms, at_ms, "site",
        0, True, Evidence("context", ("personalisation",)), (), (), properties,
    )  # fmt: skip


HISTORY = [
    view(1, T0, product="p1", category="shoes", price=[1_000, "GBP"], weight=150, position=1),
    view(2, T0 + HOUR_MS, product="p2", category="hats", price=[700, "EUR"], weight=50),
    view(3, T0 + 2 * HOUR_MS, product="p1", category="shoes", price=[900, "GBP"]),
    record(
        4, "Order Completed", T0 + 3 * HOUR_MS,
        {"total": [2_600, "GBP"], "affiliation": "shop", "products": [
            {"product": "p1", "quantity": 2, "price": [900, "GBP"]},
            {"product": "p3", "quantity": 1, "price": [800, "GBP"]},
        ]},
    ),
    record(5, "Order Completed", T0 - 25 * DAY_MS, {"total": [400, "GBP"], "products": []}),
    view(6, T0 + 3 * DAY_MS, product="p4", category="shoes"),
]  # fmt: skip


def folded(plan: Plan, records: list[Record]) -> list[Any]:
    """States of records."""
    states = plan.new_states()
    for one in records:
        plan.fold(states, one, plan.mask(PERSONALISATION))
    return states


def one_value(feature: f.Feature, records: list[Record], as_of_ms: int, *, tz: str = "UTC") -> Any:
    """The value of one feature."""
    plan = f.compile_plan(type("Shopper", (f.Profile,), {"one": feature}), tz=tz)
    return plan.read(folded(plan, records), as_of_ms, as_of_ms, {}, PERSONALISATION)["one"]


def test_each_kind_of_feature_has_its_value() -> None:
    plan = f.compile_plan(Shopper)
    now_ms = T0 + 4 * DAY_MS
    assert {
        "views_7d": 4,
        "views_by_category": {"hats": 1, "shoes": 3},
        "spent": {"GBP": 3_000},
        "orders_this_month": 1,
        "orders_last_month": 1,
        "cheapest": {"EUR": 700, "GBP": 900},
        "heaviest": 1.5,
        "average_order": {"GBP": 1_500.0},
        "spread": 0.25,
        "first_product": "p1",
        "last_view": {"product": "p4", "price": None},
        "seen": ["p4", "p1", "p2"],
        "favourites": [{"value": "shoes", "count": 3}, {"value": "hats", "count": 1}],
        "products_bought": 2,
        "units": 3,
        "line_value": {"GBP": 2_600},
        "ever_ordered": True,
        "since_view": DAY_MS,
        "last_order_at": T0 + 3 * HOUR_MS,
        "dear_views": 1,
        "order_rate": 0.25,
    } == plan.read(folded(plan, HISTORY), now_ms, now_ms, {}, PERSONALISATION)


def test_nothing_folded_has_values_too() -> None:
    plan = f.compile_plan(Shopper)
    assert {
        "views_7d": 0, "views_by_category": {}, "spent": {}, "orders_this_month": 0,
        "orders_last_month": 0, "cheapest": {}, "heaviest": None, "average_order": {}, "spread": None,
        "first_product": None, "last_view": None, "seen": [], "favourites": [], "products_bought": 0,
        "units": 0, "line_value": {}, "ever_ordered": False, "since_view": None, "last_order_at": None,
        "dear_views": 0, "order_rate": None,
    } == plan.read(plan.new_states(), T0, T0, {}, PERSONALISATION)  # fmt: skip


def test_an_aggregate_that_needs_no_value_only_asks_whether_a_field_is_known() -> None:
    known = [view(1, T0, weight=1), view(2, T0 + 1), view(3, T0 + HOUR_MS, weight=2)]
    assert [T0, T0 + HOUR_MS] == one_value(f.instants(viewed.weight), known, T0 + DAY_MS)
    assert 2 == one_value(f.sessions(viewed.weight), known, T0 + DAY_MS)


def test_stored_states_do_not_change_unnoticed(golden: Callable[[str, object], None]) -> None:
    plan = f.compile_plan(Shopper, tz="Europe/London")
    raw = plan.encode(folded(plan, HISTORY), T0 + 4 * DAY_MS, {})
    golden(
        "leaf_states.json",
        {
            "fingerprint": plan.fingerprint,
            "states_hex": msgspec.msgpack.encode(raw).hex(" ", 32).split(" "),
            "states": raw,
        },
    )


def test_the_fold_is_readable_source(golden: Callable[[str, object], None]) -> None:
    golden("fold_source.txt", f.compile_plan(Shopper).source())


def test_a_sliding_window_reads_whole_tiles_and_is_exact_for_registers() -> None:
    events = [view(1, T0 + 1, product="a"), view(2, T0 + HOUR_MS, product="b")]
    end_ms = T0 + 7 * DAY_MS
    # The window starts within the first event's tile, which counts whole.
    assert 2 == one_value(f.count(viewed, over=f.days(7)), events, end_ms + HOUR_MS - 1)
    assert 1 == one_value(f.count(viewed, over=f.days(7)), events, end_ms + HOUR_MS)
    assert ["b", "a"] == one_value(f.last_k(viewed.product, over=f.days(7)), events, end_ms + 1)
    assert ["b"] == one_value(f.last_k(viewed.product, over=f.days(7)), events, end_ms + 2)
    assert ["b"] == one_value(f.last_k(viewed.product, over=f.days(7)), events, end_ms + HOUR_MS)
    assert [] == one_value(f.last_k(viewed.product, over=f.days(7)), events, end_ms + HOUR_MS + 1)


def test_what_a_fast_clock_sends_counts_at_once() -> None:
    events = [view(1, T0 + 300_000, product="a")]
    assert 1 == one_value(f.count(viewed, over=f.hours(1)), events, T0)
    assert "a" == one_value(f.last(viewed.product, over=f.hours(1)), events, T0)
    assert 0 == one_value(f.recency(viewed), events, T0)
    late = [view(1, T0 - 1, product="a"), view(2, T0 + 1, product="b")]
    # A calendar period keeps to its own: the event of tomorrow is not of today.
    assert 1 == one_value(f.count(viewed, over=f.tumbling("day")), late, T0 - 1)
    assert "a" == one_value(f.last(viewed.product, over=f.tumbling("day")), late, T0 - 1)


def test_a_day_is_a_day_of_the_projects_time_zone() -> None:
    midnight_ms = T0 + 4 * HOUR_MS  # New York in summer time
    events = [view(1, midnight_ms - 1), view(2, midnight_ms)]
    today = f.count(viewed, over=f.tumbling("day"))
    assert 1 == one_value(today, events, midnight_ms + HOUR_MS, tz="America/New_York")
    assert 2 == one_value(today, events, midnight_ms + HOUR_MS)
    assert 0 == one_value(today, events, midnight_ms + DAY_MS, tz="America/New_York")


def test_a_withdrawal_cuts_what_was_computed_before_it() -> None:
    plan = f.compile_plan(Shopper)
    states = folded(plan, HISTORY)
    now_ms = T0 + 4 * DAY_MS
    purged = {"personalisation": T0 + 2 * HOUR_MS}
    values = plan.read(states, now_ms, now_ms, purged, PERSONALISATION)
    # Hourly tiles of the week; the lifetime's tile of that day goes whole; registers are exact.
    assert (2, {}, ["p4", "p1"]) == (values["views_7d"], values["spent"], values["seen"])
    assert "p4" == values["first_product"]
    assert values == plan.read(
        states, now_ms, now_ms, purged | {"measurement": now_ms}, PERSONALISATION
    )
    plan.expire(states, now_ms, purged)
    assert values == plan.read(states, now_ms, now_ms, {}, PERSONALISATION)


def test_a_feature_needs_the_purposes_of_its_fields() -> None:
    plan = f.compile_plan(type("P", (f.Profile,), {
        "by_shop": f.count(ordered, by=ordered.affiliation, purpose="measurement"),
        "orders": f.count(ordered, purpose="measurement"),
        "rate": f.ratio(f.count(viewed), f.count(ordered, purpose="measurement")),
    }))  # fmt: skip
    assert ("advertising", "measurement", "personalisation") == plan.purposes
    assert ("advertising", "measurement") == plan.needs("by_shop")
    assert ("measurement", "personalisation") == plan.needs("rate")
    measurement = frozenset({"measurement"})
    states = plan.new_states()
    plan.fold(states, HISTORY[3], measurement)
    every = frozenset(plan.purposes)
    assert {"by_shop": {}, "orders": 1, "rate": 0.0} == plan.read(states, T0, T0, {}, every)
    assert ("by_shop", "rate") == plan.withheld(measurement)
    assert {"orders": 1} == plan.read(states, T0, T0, {}, measurement)


def test_equal_definitions_share_a_cell_and_a_fingerprint() -> None:
    def plan(**features: f.Feature) -> Plan:
        return f.compile_plan(type("P", (f.Profile,), features))

    one = plan(a=f.mean(viewed.weight), b=f.count(viewed))
    same = plan(b=f.count(viewed), a=f.mean(viewed.weight, description="told otherwise"))
    assert one.fingerprint == same.fingerprint
    assert 2 == len(one.new_states())
    assert 2 == len(
        plan(a=f.mean(viewed.weight), c=f.variance(viewed.weight), b=f.count(viewed)).new_states()
    )
    others = [
        plan(a=f.mean(viewed.weight), c=f.count(viewed)),
        plan(a=f.mean(viewed.weight), b=f.count(viewed, over=f.days(1))),
        plan(a=f.mean(viewed.weight), b=f.count(viewed, where=viewed.weight > 1)),
        plan(a=f.mean(viewed.weight), b=f.count(viewed, where=viewed.weight > 2)),
        plan(a=f.mean(viewed.weight), b=f.count(viewed, purpose="measurement")),
        plan(a=f.variance(viewed.weight), b=f.count(viewed)),
        plan(a=f.mean(viewed.weight * 2), b=f.count(viewed)),
        plan(a=f.mean(viewed.weight), b=f.count(viewed, by=viewed.category)),
        f.compile_plan(type("P", (f.Profile,), {"a": f.mean(viewed.weight), "b": f.count(viewed)}), tz="Asia/Tokyo"),
    ]  # fmt: skip
    assert 1 + len(others) == len({one.fingerprint, *(other.fingerprint for other in others)})


def test_notes_say_how_far_a_read_may_look_back() -> None:
    notes = {note.name: note for note in f.compile_plan(Shopper).notes()}
    assert (HOUR_MS, HOUR_MS) == (notes["views_7d"].tile_ms, notes["views_7d"].tail_error_ms)
    assert HOUR_MS / (7 * DAY_MS) < 0.006
    assert (DAY_MS, 0) == (notes["spent"].tile_ms, notes["spent"].tail_error_ms)
    assert (0, 0) == (notes["seen"].tile_ms, notes["seen"].tail_error_ms)


def test_integers_beyond_64_bits_are_stored() -> None:
    greatest = 2**53 - 1
    plan = f.compile_plan(
        type("P", (f.Profile,), {"v": f.variance(viewed.position), "s": f.sum_(viewed.position)})
    )
    states = folded(plan, [view(n, T0, position=greatest - n) for n in range(3)])
    stored = msgspec.msgpack.decode(msgspec.msgpack.encode(plan.encode(states, T0, {})))
    assert states == plan.decode(stored)
    assert {"v": 2 / 3, "s": 3 * greatest - 3} == plan.read(
        plan.decode(stored), T0, T0, {}, PERSONALISATION
    )


@pytest.mark.parametrize("raw", [[], [1], [[1]], [None] * 99, [{"a": 1}] * 19, ["x"] * 19])
def test_damaged_states_are_named(raw: list[Any]) -> None:
    plan = f.compile_plan(Shopper)
    with pytest.raises(DataCorrupt, match="E704"):
        plan.decode(raw)


def bad(declare: Callable[[], f.Feature]) -> DefinitionError:
    """The error of a feature that is wrong."""
    with pytest.raises(DefinitionError) as raised:
        f.compile_plan(type("P", (f.Profile,), {"wrong": declare()}))
    return raised.value


@pytest.mark.parametrize(
    ("declare", "code", "words"),
    [
        (lambda: f.count(viewed, where=viewed.price > 10), "E115", "amount("),
        (lambda: f.count(viewed, where=viewed.price > viewed.weight), "E115", "do not compare"),
        (lambda: f.count(viewed, where=viewed.weight > "1"), "E115", "decimal stands beside"),
        (lambda: f.count(viewed, where=viewed.weight > 0.001), "E115", "decimal digits"),
        (
            lambda: f.count(viewed, where=viewed.category == "shoos"),
            "E115",
            "use one of shoes, hats",
        ),
        (lambda: f.count(viewed, where=viewed.category.in_("shoos")), "E115", "never has a value"),
        (lambda: f.count(viewed, where=viewed.product < "a"), "E115", "by order"),
        (lambda: f.count(viewed, where=viewed.product), "E115", "where a condition should"),
        (lambda: f.count(viewed, where=viewed.product == None), "E115", "known()"),  # noqa: E711
        (
            lambda: f.count(viewed, where=viewed.price > f.amount("1.001", "GBP")),
            "E115",
            "round it",
        ),
        (lambda: f.count(viewed, where=(viewed.weight > 1) == True), "E115", "negate it"),  # noqa: E712
        (lambda: f.sum_(viewed.price * viewed.weight), "E114", "do not multiply"),
        (lambda: f.sum_(viewed.product), "E114", "fold one of kind decimal, integer, money"),
        (lambda: f.sum_(viewed), "E114", "name a field"),
        (lambda: f.last(viewed.weight * 2), "E114", "result of a calculation"),
        (lambda: f.last(viewed.tags), "E114", "`strings`"),
        (lambda: f.last_k(viewed.price, distinct=True), "E114", "distinct_by="),
        (lambda: f.last_k(viewed.product, k=51), "E113", "`k` must be a whole number from 1 to 50"),
        (lambda: f.last_k(viewed.product, n=5), "E113", "does not take: n"),
        (lambda: f.count(viewed, k=5), "E113", "does not take: k"),
        (lambda: f.top_k(viewed.category, cap=0), "E113", "`cap`"),
        (lambda: f.count(viewed, by=viewed.weight), "E116", "use a field that is a string"),
        (lambda: f.count(viewed, by=viewed.position + 1), "E116", "use a field"),
        (lambda: f.count(viewed, by=viewed.category, groups_max=0), "E116", "groups_max"),
        (
            lambda: f.count(viewed, where=ordered.total.known()),
            "E117",
            "reads a field of `Order Completed`",
        ),
        (lambda: f.last(viewed.email), "E117", "dropped before the log"),
        (lambda: f.count(7), "E117", "name an event"),
        (lambda: f.count(viewed, where=True), "E117", "no expression"),
        (lambda: f.count(viewed, over=7), "E112", "days(7)"),
        (lambda: f.count(viewed, over=f.minutes(0)), "E112", "shorter than a minute"),
        (
            lambda: f.count(viewed, over=f.days(900, tile=f.minutes(1))),
            "E112",
            "more than 4096 tiles",
        ),
        (
            lambda: f.count(viewed, over=f.tumbling("year")),
            "E112",
            "none of hour, day, week, month",
        ),
        (lambda: f.aggregate("coutn", viewed), "E111", "did you mean `count`?"),
        (lambda: f.ratio(f.sum_(viewed.product), f.count(viewed)), "E114", "a part"),
        (lambda: f.ratio(1, f.count(viewed)), "E117", "ratio(count"),
    ],
)
def test_a_wrong_definition_is_refused_with_its_place(
    declare: Callable[[], f.Feature], code: str, words: str
) -> None:
    error = bad(declare)
    assert code == error.code
    assert words in str(error)
    assert error.where.startswith("test_plan.py:"), error.where


def test_names_are_checked() -> None:
    with pytest.raises(DefinitionError, match=r"E102.*\n.*did you mean `price`"):
        f.count(viewed, where=viewed.prise > 1)
    with pytest.raises(DefinitionError, match=r"E102.*\n.*did you mean `quantity`"):
        f.sum_(lines.quantiti)
    with pytest.raises(
        DefinitionError, match=r"E110.*`Product Viewed`.*\n.*did you mean `Product Viewd`"
    ):
        f.compile_plan(Shopper, declared=["Product Viewd", "Order Completed"])
    with pytest.raises(DefinitionError, match=r"E118.*declared twice"):
        f.compile_plan([Shopper, type("Other", (f.Profile,), {"spent": f.count(viewed)})])
    with pytest.raises(DefinitionError, match=r"E119.*\n.*did you mean `views_7d`"):
        f.compile_plan(Shopper).feature("views_7")
    with pytest.raises(DefinitionError, match="E120"):
        plan_of(Shopper.features, tz="Europe/Londonn")
    with pytest.raises(DefinitionError, match="E117"):
        f.each(viewed, "product")


def test_an_aggregate_registered_elsewhere_needs_no_other_file() -> None:
    @dataclass(frozen=True)
    class Parity(algebra.Aggregate):
        """Whether the number of events is odd."""

        name: ClassVar[str] = "parity"

        def add(self, acc: int | None, value: Any, at_ms: int, event_id: int) -> int:
            return (acc or 0) ^ 1

        def merge(self, one: int, other: int) -> int:
            return one ^ other

        def finish(self, acc: int | None, as_of_ms: int) -> bool:
            return bool(acc)

    algebra.register(Parity)
    try:
        assert False is one_value(f.parity(viewed, over=f.days(7)), HISTORY, T0 + 4 * DAY_MS)
        assert {"shoes": True, "hats": True} == one_value(
            f.parity(viewed, by=viewed.category), HISTORY, T0 + 4 * DAY_MS
        )
    finally:
        del algebra.REGISTRY["parity"]


def test_profiles_inherit_features() -> None:
    child = type("Child", (Shopper,), {"extra": f.count(viewed)})
    assert [*(one.name for one in Shopper.features), "extra"] == [
        one.name for one in child.features
    ]
    assert len(child.features) == len(f.compile_plan([Shopper, child]).features)
