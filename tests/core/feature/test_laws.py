"""Laws of the plan: order, batches, splits, expiry and purges never change bytes; reads match the oracle."""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from penstock.core.feature.plan import Plan, plan_of
from penstock.core.record import Evidence, Record
from penstock.dsl import events as dsl
from penstock.dsl import features as f
from penstock.testing.oracle import Oracle

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
T0 = 1_774_224_000_000
"""2026-03-23, a Monday, six days before Europe's clocks change."""

BOTH = frozenset({"personalisation", "measurement"})

viewed = dsl.event(
    "Product Viewed",
    product=dsl.string(),
    category=dsl.one_of("shoes", "hats", "bags"),
    price=dsl.money(),
    shipping=dsl.money(),
    quantity=dsl.integer(),
    weight=dsl.decimal(scale=3),
    gift=dsl.boolean(),
    until=dsl.datetime(),
)
ordered = dsl.event(
    "Order Completed",
    total=dsl.money(),
    coupon=dsl.string(privacy=dsl.private(purpose="measurement")),
    products=dsl.objects(
        {
            "product": dsl.string(),
            "quantity": dsl.integer(),
            "price": dsl.money(),
            "gift": dsl.boolean(),
        }
    ),
)
lines = f.each(ordered, "products")

NUMBERS = [
    viewed.quantity, viewed.weight, viewed.price, ordered.total, lines.quantity,
    viewed.quantity * 2 + viewed.quantity, viewed.weight * viewed.quantity - 1,
    lines.price * lines.quantity, viewed.price - viewed.shipping, -viewed.price,
]  # fmt: skip
KEYS = [
    viewed.product,
    viewed.category,
    viewed.quantity,
    viewed.gift,
    lines.product,
    ordered.coupon,
]
VALUES = [
    viewed.product, viewed.price, viewed.weight, viewed.until, ordered.coupon, lines.product,
    (viewed.product, viewed.price, viewed.weight), (lines.product, lines.quantity),
]  # fmt: skip
EVENTS = [viewed, ordered, lines]
CONDITIONS = [
    None,
    viewed.quantity > 1,
    (viewed.price >= f.amount("1.50", "GBP")) | viewed.gift,
    ~((viewed.category == "shoes") & (viewed.quantity < 2)),
    viewed.category.in_("shoes", "hats") & viewed.product.known(),
    (viewed.weight < 1) | (viewed.weight == viewed.quantity),
    ~(viewed.until > "2026-03-25T00:00:00Z"),
    viewed.price > viewed.shipping,
    ordered.total > f.amount(2, "EUR"),
    lines.gift == True,  # noqa: E712 - an expression, not a comparison
    lines.quantity * 2 != 4,
]
GROUPS = [None, viewed.category, viewed.gift, viewed.product, lines.product, lines.quantity]

windows = st.one_of(
    st.sampled_from(
        [f.lifetime(), f.days(7), f.days(1), f.hours(6), f.minutes(30), f.days(3, tile=f.days(1))]
    ),
    st.builds(
        lambda period, previous: f.tumbling(period, previous=previous),
        st.sampled_from(["hour", "day", "week", "month"]),
        st.integers(0, 2),
    ),
)


def _event_of(source: Any) -> str:
    event, items, _ = f._source(source, (), "")
    return event + items


@st.composite
def features(draw: st.DrawFn) -> f.Feature:
    """Any feature that passes the checks."""
    name = draw(st.sampled_from(
        ["count", "sum", "min", "max", "mean", "variance", "first", "last", "last_k", "top_k",
         "distinct", "exists", "recency", "last_at"]
    ))  # fmt: skip
    options: dict[str, Any] = {}
    if name in ("sum", "min", "max", "mean", "variance"):
        source: Any = draw(st.sampled_from(NUMBERS))
    elif name in ("first", "last", "last_k"):
        source = draw(st.sampled_from(VALUES))
    elif name in ("top_k", "distinct"):
        source = draw(st.sampled_from(KEYS))
        options["cap"] = draw(st.sampled_from([1, 2, 100]))
    else:
        source = draw(st.sampled_from(EVENTS))
    mine = _event_of(source)
    fits = [c for c in CONDITIONS if c is None or mine.startswith(_event_of(c))]
    options["where"] = draw(st.sampled_from(fits))
    fits = [g for g in GROUPS if g is None or mine.startswith(_event_of(g))]
    options["by"] = draw(st.sampled_from(fits))
    options["groups_max"] = draw(st.sampled_from([1, 2, 100]))
    if name in ("last_k", "top_k"):
        options["k"] = draw(st.integers(1, 4))
    if name == "last_k":
        if mine == "Product Viewed" and draw(st.booleans()):
            options["distinct_by"] = viewed.product
        elif not isinstance(source, tuple) and source.kind in ("string", "integer"):
            options["distinct"] = draw(st.booleans())
    return f.aggregate(
        name, source, over=draw(windows), purpose=draw(st.sampled_from(sorted(BOTH))), **options
    )


@st.composite
def declarations(draw: st.DrawFn) -> tuple[f.Feature, ...]:
    """A profile class's features, with a ratio of two of them."""
    declared = draw(st.lists(features(), min_size=1, max_size=5))
    numeric = [one for one in declared if one.aggregate in ("count", "sum", "mean", "recency")]
    attributes = {f"feature_{i}": one for i, one in enumerate(declared)}
    if numeric:
        attributes["quotient"] = f.ratio(numeric[0], numeric[-1])
    return type("Shopper", (f.Profile,), attributes).features


money = st.lists(st.one_of(st.integers(-3, 300), st.sampled_from(["GBP", "EUR"])), max_size=3) | (
    st.tuples(st.integers(-200, 400), st.sampled_from(["GBP", "GBP", "EUR"])).map(list)
)
texts = st.sampled_from(["a", "b", "c", "d", "é"])
junk = st.sampled_from([None, "x", 7, True, [], {}])
views = st.fixed_dictionaries(
    {},
    optional={
        "product": texts | junk,
        "category": st.sampled_from(["shoes", "hats", "bags"]) | junk,
        "price": money,
        "shipping": money,
        "quantity": st.integers(-3, 3) | st.just(2**53 - 1) | junk,
        "weight": st.integers(-3000, 3000) | junk,
        "gift": st.booleans() | junk,
        "until": st.integers(T0 - DAY_MS, T0 + 9 * DAY_MS) | junk,
    },
)
line = st.fixed_dictionaries(
    {},
    optional={
        "product": texts,
        "quantity": st.integers(0, 3),
        "price": money,
        "gift": st.booleans(),
    },
)
orders = st.fixed_dictionaries(
    {},
    optional={
        "total": money,
        "coupon": texts | junk,
        "products": st.lists(line | junk, max_size=4),
    },
)


class Logged(NamedTuple):
    """A record, its stamp and what its evidence permits."""

    record: Record
    logged_at_ms: int
    permitted: frozenset[str]


def a_record(
    event_id: int, name: str, at_ms: int, properties: dict[str, Any], leaf: bytes = b"l"
) -> Record:
    """A primary record of an event."""
    return Record(
        1, 1, "shop", leaf, "user_id", event_id, f"m{event_id}", "track", name, at_ms, at_ms, "site", 0,
        True, Evidence("context", ("personalisation",)), (), (), properties,
    )  # fmt: skip


@st.composite
def logs(draw: st.DrawFn) -> list[Logged]:
    """A leaf's part of the log: late and early events, in the order of their stamps."""
    count = draw(st.integers(0, 25))
    # Ids that differ in more than the bits that line items use.
    ids = draw(st.lists(st.integers(0, 2**53), min_size=count, max_size=count, unique=True))
    logged_at_ms = T0
    log: list[Logged] = []
    for number in ids:
        logged_at_ms += draw(
            st.sampled_from([0, 1, 1_000, HOUR_MS // 3, HOUR_MS, 7 * HOUR_MS, DAY_MS])
        )
        lateness = draw(
            st.sampled_from(
                [0, 0, 1, -300_000, 59_999, HOUR_MS, 2 * DAY_MS, 8 * DAY_MS, 70 * DAY_MS]
            )
        )
        name, properties = draw(
            st.tuples(st.just("Product Viewed"), views)
            | st.tuples(st.just("Order Completed"), orders)
        )
        permitted = draw(
            st.sampled_from([BOTH, BOTH, BOTH, frozenset({"personalisation"}), frozenset()])
        )
        record = a_record(number * 1024 + 5, name, logged_at_ms - lateness, properties)
        log.append(Logged(record, logged_at_ms, permitted))
    return log


def clock_of(log: list[Logged]) -> int:
    """T: the greatest stamp."""
    return max((entry.logged_at_ms for entry in log), default=0)


def folded(plan: Plan, log: list[Logged]) -> list[Any]:
    """The states of a log, folded in the order given, without any expiry."""
    states = plan.new_states()
    for entry in log:
        plan.fold(states, entry.record, plan.mask(entry.permitted))
    return states


def stored(raw: list[Any]) -> list[Any]:
    """Encoded states as they come back from a store."""
    return msgspec.msgpack.decode(msgspec.msgpack.encode(raw))


purges = st.dictionaries(
    st.sampled_from(sorted(BOTH)),
    st.integers(T0 - 9 * DAY_MS, T0 + 9 * DAY_MS) | st.sampled_from([T0, T0 + DAY_MS]),
    max_size=2,
)
zones = st.sampled_from(["UTC", "Europe/London", "Asia/Kolkata", "America/New_York"])
laws = settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])


@laws
@given(declarations(), logs(), purges, zones, st.data())
def test_any_order_and_any_batching_give_the_same_bytes(
    declared: tuple[f.Feature, ...],
    log: list[Logged],
    purged: dict[str, int],
    tz: str,
    data: st.DataObject,
) -> None:
    plan = plan_of(declared, tz=tz)
    clock_ms = clock_of(log)
    expected = plan.encode(folded(plan, log), clock_ms, purged)

    states = plan.new_states()
    now_ms = 0
    known: dict[str, int] = {}
    for entry in data.draw(st.permutations(log)):
        now_ms = max(now_ms, entry.logged_at_ms)
        plan.fold(states, entry.record, entry.permitted)
        action = data.draw(st.sampled_from(["", "expire", "store", "purge"]))
        if action == "purge":
            known = purged
        if action == "expire":
            plan.expire(states, now_ms, known)
        if action == "store":
            states = plan.decode(stored(plan.encode(states, now_ms, known)))

    assert msgspec.msgpack.encode(expected) == msgspec.msgpack.encode(
        plan.encode(states, clock_ms, purged)
    )


@laws
@given(declarations(), logs(), purges, st.data())
def test_any_split_into_leaves_and_any_merge_order_give_the_same_bytes(
    declared: tuple[f.Feature, ...], log: list[Logged], purged: dict[str, int], data: st.DataObject
) -> None:
    plan = plan_of(declared)
    clock_ms = clock_of(log)
    expected = plan.encode(folded(plan, log), clock_ms, purged)

    places = data.draw(st.lists(st.integers(0, 3), min_size=len(log), max_size=len(log)))
    leaves = []
    for leaf in range(4):
        part = [entry for entry, place in zip(log, places, strict=True) if place == leaf]
        # Each leaf is projected by its own, earlier clock.
        leaves.append(plan.decode(stored(plan.encode(folded(plan, part), clock_of(part), purged))))
    leaves = data.draw(st.permutations(leaves))
    before = [stored(plan.encode(leaf, 0, {})) for leaf in leaves]
    flat = plan.merge(leaves)
    nested = plan.merge(
        [plan.merge(leaves[:2]), plan.merge([leaves[2]]), plan.merge(leaves[3:]), plan.merge([])]
    )

    assert expected == plan.encode(flat, clock_ms, purged)
    assert expected == plan.encode(nested, clock_ms, purged)
    for entry in log:
        plan.fold(flat, entry.record, entry.permitted)
    assert before == [stored(plan.encode(leaf, 0, {})) for leaf in leaves]


@settings(laws, max_examples=3 * laws.max_examples)
@given(declarations(), logs(), purges, zones, st.integers(0, 12 * DAY_MS) | st.just(0))
def test_reads_equal_the_oracle(
    declared: tuple[f.Feature, ...],
    log: list[Logged],
    purged: dict[str, int],
    tz: str,
    later_ms: int,
) -> None:
    plan = plan_of(declared, tz=tz)
    oracle = Oracle(declared, tz=tz)
    for entry in log:
        oracle.push(entry.record, entry.permitted)
    clock_ms = max(clock_of(log), T0)
    as_of_ms = clock_ms + later_ms
    expected, truncated = oracle.read(as_of_ms, purged, BOTH)

    states = folded(plan, log)
    assert (expected, truncated) == plan.read_noted(states, as_of_ms, clock_ms, purged, BOTH)
    assert list(expected) == list(plan.read(states, as_of_ms, clock_ms, purged, BOTH))
    plan.expire(states, clock_ms, purged)
    assert (expected, truncated) == plan.read_noted(states, as_of_ms, clock_ms, purged, BOTH)
    assert (expected, truncated) == plan.read_noted(states, as_of_ms, clock_ms, {}, BOTH) or purged


@laws
@given(declarations(), logs())
def test_a_leaf_never_grows_by_more_than_it_was_charged(
    declared: tuple[f.Feature, ...], log: list[Logged]
) -> None:
    plan = plan_of(declared)
    states = plan.new_states()
    limit = plan.measure(states)
    for entry in log:
        cold = plan.fold(plan.new_states(), entry.record, entry.permitted)
        charged = plan.fold(states, entry.record, entry.permitted)
        limit += charged
        assert cold == charged
        assert limit >= plan.measure(states)


@laws
@given(declarations(), logs(), purges)
def test_what_is_not_permitted_is_neither_computed_nor_served(
    declared: tuple[f.Feature, ...], log: list[Logged], purged: dict[str, int]
) -> None:
    plan = plan_of(declared)
    clock_ms = clock_of(log)
    none = frozenset[str]()
    assert {} == plan.read(folded(plan, log), clock_ms, clock_ms, purged, none)
    assert tuple(one.name for one in declared) == plan.withheld(none)
    refused = [entry._replace(permitted=none) for entry in log]
    assert plan.new_states() == folded(plan, refused)
