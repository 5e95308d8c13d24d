"""Laws of the plan: order, batches, splits, expiry and purges never change bytes; reads match the oracle."""

from __future__ import annotations

from random import Random
from typing import Any, NamedTuple

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from penstock.core.feature.algebra import REGISTRY
from penstock.core.feature.plan import Plan, plan_of
from penstock.core.feature.window import Sliding
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
GROUPS = [viewed.category, viewed.gift, viewed.product, lines.product, lines.quantity]

SPANS = [
    f.days(7), f.days(1), f.hours(6), f.minutes(30), f.days(3, tile=f.days(1)), f.hours(6, tile=f.hours(1)),
    f.days(2, tile=f.hours(7)),
]  # fmt: skip


def a_window(rng: Random) -> Any:
    """A lifetime, a sliding or a calendar window."""
    period = f.tumbling(
        rng.choice(["hour", "day", "week", "month"]), previous=rng.choice([0, 0, 1, 2])
    )
    return rng.choice(
        [f.lifetime(), f.lifetime(tile=f.hours(1)), rng.choice(SPANS), rng.choice(SPANS), period]
    )


def _event_of(source: Any) -> str:
    event, items, _ = f._source(source, (), "")
    return event + items


def a_feature(rng: Random) -> f.Feature:
    """Any feature that passes the checks."""
    name = rng.choice(sorted(REGISTRY))
    options: dict[str, Any] = {}
    if name in ("sum", "min", "max", "mean", "variance", "quantile"):
        source: Any = rng.choice(NUMBERS)
    elif name == "decay_sum":
        source = rng.choice([*NUMBERS[:2], lines.quantity])
    elif name in ("first", "last", "last_k"):
        source = rng.choice(VALUES)
    elif name in ("top_k", "distinct"):
        source = rng.choice(KEYS)
        options["cap"] = rng.choice([1, 2, 100])
    else:
        source = rng.choice(EVENTS)
    mine = _event_of(source)
    if rng.random() < 0.4:
        options["where"] = rng.choice([c for c in CONDITIONS if mine.startswith(_event_of(c))])
    groups = [g for g in GROUPS if mine.startswith(_event_of(g))]
    if groups and rng.random() < 0.4:
        options["by"] = rng.choice(groups)
        options["groups_max"] = rng.choice([1, 2, 100])
    if name in ("last_k", "top_k", "instants"):
        options["k"] = rng.randrange(1, 5)
    if name == "quantile":
        options["percent"] = rng.choice([1, 50, 75, 99])
    if name in ("decay", "decay_sum"):
        options["half_life_ms"] = rng.choice([HOUR_MS, 36 * HOUR_MS, 7 * DAY_MS])
    if "session" in name:
        options["gap_ms"] = rng.choice([30 * 60_000, HOUR_MS, 7 * HOUR_MS, DAY_MS])
    if name == "last_k":
        if mine == "Product Viewed" and rng.random() < 0.5:
            options["distinct_by"] = viewed.product
        elif not isinstance(source, tuple) and source.kind == "string":
            options["distinct"] = rng.random() < 0.7
    purpose = rng.choice(sorted(BOTH))
    return f.aggregate(name, source, over=a_window(rng), purpose=purpose, **options)


def a_profile(rng: Random) -> tuple[f.Feature, ...]:
    """A profile class's features, with a ratio of two of them."""
    declared = [a_feature(rng) for _ in range(rng.randrange(2, 10))]
    numeric = [one for one in declared if one.aggregate in ("count", "sum", "mean", "recency")]
    attributes = {f"feature_{i}": one for i, one in enumerate(declared)}
    followed = [one for one in declared if one.aggregate == "instants"]
    if followed:
        within = f.hours(rng.choice([1, 8, 30]))
        attributes["followed"] = f.sequence(followed[0], followed[-1], within=within)
    if numeric:
        attributes["quotient"] = f.ratio(numeric[0], numeric[-1])
    return type("Shopper", (f.Profile,), attributes).features


JUNK = [None, "x", 7, True, [], {}, [7], ["GBP", 7], [1, 2, 3]]


def a_value(rng: Random, kind: str) -> Any:
    """A value of a kind; one in twelve is missing or of another kind, as in an older record."""
    if rng.random() < 1 / 12:
        return rng.choice(JUNK)
    match kind:
        case "money":
            return [rng.randrange(-200, 400), rng.choice(["GBP", "GBP", "EUR"])]
        case "text":
            return rng.choice(["a", "b", "c", "d", "é", ""])
        case "category":
            return rng.choice(["shoes", "hats", "bags"])
        case "integer":
            return rng.choice([-3, -1, 0, 1, 2, 3, 2**53 - 1])
        case "decimal":
            return rng.choice([-3_000, 0, 999, 1_000, 2_000, 2_500])
        case "boolean":
            return rng.random() < 0.5
        case _:
            return T0 + rng.randrange(-DAY_MS, 9 * DAY_MS)


def some(rng: Random, kinds: dict[str, str]) -> dict[str, Any]:
    """Properties of some kinds, now and then without one."""
    return {name: a_value(rng, kind) for name, kind in kinds.items() if rng.random() < 0.9}


VIEW = {
    "product": "text", "category": "category", "price": "money", "shipping": "money", "gift": "boolean",
    "quantity": "integer", "weight": "decimal", "until": "datetime",
}  # fmt: skip
LINE = {"product": "text", "quantity": "integer", "price": "money", "gift": "boolean"}


def an_event(rng: Random) -> tuple[str, dict[str, Any]]:
    """A name and properties."""
    if rng.random() < 0.6:
        return "Product Viewed", some(rng, VIEW)
    lines = [
        some(rng, LINE) if rng.random() < 0.9 else rng.choice(JUNK) for _ in range(rng.randrange(5))
    ]
    return "Order Completed", some(rng, {"total": "money", "coupon": "text"}) | {"products": lines}


class Logged(NamedTuple):
    """A record, its stamp and what its evidence permits."""

    record: Record
    logged_at_ms: int
    permitted: frozenset[str]


def a_record(
    event_id: int, at_ms: int, name: str, properties: dict[str, Any], leaf: bytes = b"l"
) -> Record:
    """A primary record of an event."""
    return Record(
        1, 1, "shop", leaf, "user_id", event_id, f"m{event_id}", "track", name, at_ms, at_ms, "site", 0,
        True, Evidence("context", ("personalisation",)), (), (), properties,
    )  # fmt: skip


def a_log(rng: Random) -> list[Logged]:
    """A leaf's part of the log: late and early events, in the order of their stamps."""
    count = rng.choice([0, 1, 2, 8, 8, 20, 40])
    steps_ms = rng.choice(
        [[0, 1, 1_000, 60_000], [HOUR_MS // 3, HOUR_MS], [0, 7 * HOUR_MS, DAY_MS, 1]]
    )
    late_ms = [0] * 9 + [1, -300_000, 59_999, HOUR_MS, 2 * DAY_MS, 8 * DAY_MS, 40 * DAY_MS]
    logged_at_ms = T0 + rng.randrange(8 * DAY_MS)
    log: list[Logged] = []
    # Ids that differ in more than the bits that line items use.
    for number in rng.sample(range(2**50), count):
        logged_at_ms += rng.choice(steps_ms)
        record = a_record(number << 10 | 5, logged_at_ms - rng.choice(late_ms), *an_event(rng))
        permitted = rng.choice([BOTH] * 6 + [frozenset({"personalisation"}), frozenset()])
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


def near(rng: Random, at_ms: int) -> int:
    """An instant at, just beside, or at a tile's edge near another."""
    width_ms = rng.choice([1, 1, HOUR_MS, DAY_MS, 2 * 60_000, 10_000])
    edge_ms = at_ms // width_ms * width_ms + rng.choice([0, 0, width_ms])
    return edge_ms + rng.choice([-1, 0, 0, 1, 59])


def purges_of(rng: Random, log: list[Logged]) -> dict[str, int]:
    """What was withdrawn when, often just when something occurred; half of the time nothing."""
    instants = [T0, *(entry.record.occurred_at_ms for entry in log)]
    purposes = rng.choice([[], [], ["measurement"], sorted(BOTH)])
    return {purpose: near(rng, rng.choice(instants)) for purpose in purposes}


def reads_of(rng: Random, log: list[Logged], declared: tuple[f.Feature, ...]) -> int:
    """An instant to read at, often just when something leaves a window."""
    clock_ms = max(clock_of(log), T0)
    if not log or rng.random() < 0.4:
        return clock_ms + rng.choice([0, 1, rng.randrange(HOUR_MS), rng.randrange(40 * DAY_MS)])
    entry = rng.choice(log)
    mine = [one.window for one in declared if isinstance(one.window, Sliding)]
    span = rng.choice(mine or SPANS)
    tile_ms = rng.choice([0, 0, 1, HOUR_MS, 7 * HOUR_MS, DAY_MS])
    return max(near(rng, entry.record.occurred_at_ms + span.window_ms + tile_ms), clock_ms)


seeds = st.integers(0, 2**32)
"""Worlds are drawn from seeds: drawn part by part they are too sparse to fill a window or a cap."""
zones = st.sampled_from(["UTC", "Europe/London", "Asia/Kolkata", "America/New_York"])
laws = settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])


@laws
@given(seeds, seeds, zones, st.data())
def test_any_order_and_any_batching_give_the_same_bytes(
    profile_seed: int, log_seed: int, tz: str, data: st.DataObject
) -> None:
    declared, log = a_profile(Random(profile_seed)), a_log(Random(log_seed))
    purged = purges_of(Random(data.draw(seeds)), log)
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
@given(seeds, seeds, st.data())
def test_any_split_into_leaves_and_any_merge_order_give_the_same_bytes(
    profile_seed: int, log_seed: int, data: st.DataObject
) -> None:
    declared, log = a_profile(Random(profile_seed)), a_log(Random(log_seed))
    purged = purges_of(Random(data.draw(seeds)), log)
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


@settings(laws, max_examples=4 * laws.max_examples)
@given(seeds, seeds, zones, seeds)
def test_reads_equal_the_oracle(profile_seed: int, log_seed: int, tz: str, seed: int) -> None:
    declared, log = a_profile(Random(profile_seed)), a_log(Random(log_seed))
    rng = Random(seed)
    plan = plan_of(declared, tz=tz)
    oracle = Oracle(declared, tz=tz)
    for entry in log:
        oracle.push(entry.record, entry.permitted)
    clock_ms = clock_of(log)
    for _ in range(6):
        purged = purges_of(rng, log)
        as_of_ms = reads_of(rng, log, declared)
        expected = oracle.read(as_of_ms, purged, BOTH)

        states = folded(plan, log)
        assert expected == plan.read_noted(states, as_of_ms, clock_ms, purged, BOTH)
        assert list(expected[0]) == list(plan.read(states, as_of_ms, clock_ms, purged, BOTH))
        plan.expire(states, clock_ms, purged)
        assert expected == plan.read_noted(states, as_of_ms, clock_ms, {}, BOTH)


@laws
@given(seeds, seeds)
def test_a_leaf_never_grows_by_more_than_it_was_charged(profile_seed: int, log_seed: int) -> None:
    declared, log = a_profile(Random(profile_seed)), a_log(Random(log_seed))
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
@given(seeds, seeds)
def test_what_is_not_permitted_is_neither_computed_nor_served(
    profile_seed: int, log_seed: int
) -> None:
    declared, log = a_profile(Random(profile_seed)), a_log(Random(log_seed))
    plan = plan_of(declared)
    clock_ms = clock_of(log)
    none = frozenset[str]()
    assert {} == plan.read(folded(plan, log), clock_ms, clock_ms, {}, none)
    assert tuple(one.name for one in declared) == plan.withheld(none)
    refused = [entry._replace(permitted=none) for entry in log]
    assert plan.new_states() == folded(plan, refused)


@settings(laws, max_examples=4 * laws.max_examples)
@given(seeds, seeds, zones, seeds)
def test_what_a_read_says_will_last_is_what_later_reads_give(
    profile_seed: int, log_seed: int, tz: str, seed: int
) -> None:
    declared, log = a_profile(Random(profile_seed)), a_log(Random(log_seed))
    rng = Random(seed)
    plan = plan_of(declared, tz=tz)
    states, clock_ms = folded(plan, log), clock_of(log)
    for _ in range(4):
        purged = purges_of(rng, log)
        as_of_ms = reads_of(rng, log, declared)
        lasting = plan.read_lasting(states, as_of_ms, clock_ms, purged, BOTH)
        assert lasting.values == plan.read(states, as_of_ms, clock_ms, purged, BOTH)
        assert lasting.until_ms > as_of_ms
        last_ms = min(lasting.until_ms, as_of_ms + 90 * DAY_MS) - 1
        for later_ms in (as_of_ms, last_ms, rng.randint(as_of_ms, last_ms)):
            expected = plan.read(states, later_ms, clock_ms, purged, BOTH)
            then = {name: later(later_ms) for name, later in lasting.moving.items()}
            assert expected == {**lasting.values, **then}
            assert list(expected) == list(lasting.values)
