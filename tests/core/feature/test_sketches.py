"""Decay, distinct beyond its cap, quantiles, sessions and sequences: worked examples, bounds, golden bytes."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal, localcontext
from random import Random
from statistics import fmean, pstdev
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.errors import DefinitionError
from penstock.core.feature.aggregates import decay, quantile
from penstock.core.feature.aggregates.distinct import Distinct
from penstock.core.feature.aggregates.sessions import Sessions
from penstock.core.leaf import LEAF_BYTES_MAX
from penstock.core.record import Evidence, Record
from penstock.dsl import events as dsl
from penstock.dsl import features as f

MINUTE_MS = 60_000
HOUR_MS = 60 * MINUTE_MS
DAY_MS = 24 * HOUR_MS
T0 = 1_774_224_000_000
"""2026-03-23T00:00:00Z, a Monday."""
PERSONALISATION = frozenset({"personalisation"})

viewed = dsl.event(
    "Product Viewed",
    product=dsl.string(),
    price=dsl.money(),
    weight=dsl.decimal(scale=2),
    position=dsl.integer(),
)
ordered = dsl.event("Order Completed", total=dsl.money(), product=dsl.string())


def record(number: int, name: str, at_ms: int, **properties: Any) -> Record:
    """A primary record."""
    return Record(
        1, 1, "shop", b"l" * 16, "user_id", number << 20, f"m{number}", "track", name, at_ms, at_ms, "site",
        0, True, Evidence("context", ("personalisation",)), (), (), properties,
    )  # fmt: skip


def view(number: int, at_ms: int, **properties: Any) -> Record:
    """A record of a view."""
    return record(number, "Product Viewed", at_ms, **properties)


def noted(feature: f.Feature, records: list[Record], as_of_ms: int) -> tuple[Any, bool]:
    """The value of one feature, and whether it was truncated."""
    plan = f.compile_plan(type("Shopper", (f.Profile,), {"one": feature}))
    states = plan.new_states()
    for one in records:
        plan.fold(states, one, plan.mask(PERSONALISATION))
    values, truncated = plan.read_noted(states, as_of_ms, as_of_ms, {}, PERSONALISATION)
    return values["one"], bool(truncated)


def value_of(feature: f.Feature, records: list[Record], as_of_ms: int) -> Any:
    """The value of one feature."""
    return noted(feature, records, as_of_ms)[0]


def test_a_decayed_count_halves_with_every_half_life() -> None:
    one = f.decay(viewed, half_life=f.days(2))
    views = [view(1, T0), view(2, T0)]
    assert [2.0, 1.0, 0.5, 0.25] == [value_of(one, views, T0 + d * DAY_MS) for d in (0, 2, 4, 6)]
    assert 1.414214 == value_of(one, views, T0 + DAY_MS)
    assert 0.0 == value_of(one, views, T0 + 65 * DAY_MS)
    assert 0.0 == value_of(one, [], T0)


def test_a_decayed_sum_weighs_values_and_groups() -> None:
    views = [
        view(1, T0, product="a", weight=150, position=-8),
        view(2, T0 + 7 * DAY_MS, product="b", weight=250, position=3),
    ]
    now_ms = T0 + 7 * DAY_MS
    assert 3.25 == value_of(f.decay(viewed.weight), views, now_ms)
    assert -1.0 == value_of(f.decay(viewed.position), views, now_ms)
    affinity = f.decay(viewed, by=viewed.product)
    assert {"a": 0.5, "b": 1.0} == value_of(affinity, views, now_ms)


def test_what_a_fast_clock_sends_weighs_at_most_twice() -> None:
    ahead = [view(1, T0 + 5 * MINUTE_MS)]
    assert 1.0 <= value_of(f.decay(viewed, half_life=f.hours(1)), ahead, T0) <= 2.0


@given(
    st.lists(st.tuples(st.integers(0, 40 * DAY_MS), st.integers(-(2**40), 2**40)), min_size=1),
    st.integers(0, 40 * DAY_MS),
    st.sampled_from([HOUR_MS, 5 * HOUR_MS + 1, 7 * DAY_MS, 366 * DAY_MS]),
)
def test_decay_is_within_its_stated_error_of_the_real_sum(
    events: list[tuple[int, int]], after_ms: int, half_life_ms: int
) -> None:
    aggregate = decay.DecaySum(half_life_ms)
    acc = None
    for number, (at_ms, value) in enumerate(events):
        acc = aggregate.add(acc, value, T0 + at_ms, number)
    as_of_ms = T0 + max(at_ms for at_ms, _ in events) + after_ms
    with localcontext(prec=60):
        shares = [
            value * Decimal(2) ** (Decimal(T0 + at_ms - as_of_ms) / half_life_ms)
            for at_ms, value in events
        ]
        bound = sum(map(abs, shares)) * Decimal("1e-9") + Decimal("5e-7")
        shown = Decimal(aggregate.finish(acc, as_of_ms))
        # A float holds 53 bits of what is shown.
        assert abs(shown - sum(shares)) <= bound + abs(shown) * Decimal(2) ** -52


def test_weights_are_the_powers_of_two_to_forty_bits() -> None:
    with localcontext(prec=60):
        for phase in (0, 1, 1023, 1024, 2**20, 2**29, 2**30 - 1, 123_456_789):
            exact = Decimal(2) ** (Decimal(phase) / 2**30) * 2**40
            assert 0 <= exact - decay.weight(phase) < 9


def test_distinct_is_exact_to_its_cap_and_an_estimate_beyond() -> None:
    views = [view(n, T0, product=f"p{n}") for n in range(1_000)]
    exactly = f.distinct(viewed.product, cap=1_000)
    assert (1_000, False) == noted(exactly, views + views, T0)
    count, truncated = noted(f.distinct(viewed.product), views, T0)
    assert truncated
    assert abs(count - 1_000) < 3 * 0.023 * 1_000
    # Tiles within the cap stay exact together.
    spread = [view(n, T0 + n % 7 * DAY_MS, product=f"p{n}") for n in range(1_000)]
    assert (1_000, False) == noted(f.distinct(viewed.product), spread, T0 + 7 * DAY_MS)


@pytest.mark.parametrize("precision", [7, 11])
@pytest.mark.parametrize("values", [300, 2_000, 20_000])
def test_estimates_of_distinct_have_the_stated_error(precision: int, values: int) -> None:
    aggregate = Distinct(cap=10, precision=precision)
    rng = Random(values)
    errors: list[float] = []
    for _ in range(12):
        registers = aggregate.add(aggregate.decode(bytes(1 << precision)), "first", 0, 0)
        for _ in range(values - 1):
            aggregate._raise(registers, rng.getrandbits(64))
        errors.append(aggregate.finish(registers, 0) / values - 1)
    stated = 1.04 / 2 ** (precision / 2)
    assert abs(fmean(errors)) < 3 * stated / len(errors) ** 0.5
    assert pstdev(errors) < 1.8 * stated
    assert max(map(abs, errors)) < 4 * stated


def test_registers_of_any_fill_come_back_and_are_never_larger_than_the_set_was() -> None:
    aggregate = Distinct(cap=3)
    acc: Any = None
    for number in range(4_000):
        acc = aggregate.add(acc, number, 0, number)
        if number % 97 == 0 or number < 12:
            raw = msgspec.msgpack.encode(aggregate.encode(acc))
            assert acc == aggregate.decode(msgspec.msgpack.decode(raw))
            assert len(raw) <= aggregate.size_bytes(acc) + 5
            assert aggregate.size_bytes(acc) <= 9 * (number + 1)


def test_quantiles_are_at_a_rank_and_within_a_64th() -> None:
    small = [view(n, T0, position=n) for n in range(1, 61)]
    assert [1, 30, 54, 60] == [
        value_of(f.quantile(viewed.position, percent=p), small, T0) for p in (1, 50, 90, 99)
    ]
    assert value_of(f.quantile(viewed.position), [], T0) is None
    prices = [view(n, T0, price=[n * 100, "GBP"]) for n in range(1, 101)]
    prices.append(view(101, T0, price=[5, "EUR"]))
    shown = value_of(f.quantile(viewed.price, percent=95), prices, T0)
    assert {"EUR", "GBP"} == shown.keys()
    assert 5 == shown["EUR"]
    assert abs(shown["GBP"] - 9_500) <= 9_500 / 64
    weights = [view(n, T0, weight=-n) for n in range(1, 10)]
    assert -0.05 == value_of(f.quantile(viewed.weight), weights, T0)


@given(st.integers(-(2**63) + 1, 2**63 - 1))
def test_a_bucket_shows_its_numbers_within_the_stated_error(number: int) -> None:
    index = quantile.bucket(number)
    shown = quantile.middle(index)
    assert index == quantile.bucket(shown)
    assert 64 * abs(shown - number) <= abs(number)
    assert abs(index) < 1_920


def test_buckets_are_in_the_order_of_their_numbers() -> None:
    numbers = sorted(
        n for power in range(62) for n in (2**power - 1, 2**power, 2**power + 2, -(2**power))
    )
    assert sorted(map(quantile.bucket, numbers)) == list(map(quantile.bucket, numbers))
    assert quantile.bucket(2**80) == quantile.bucket(quantile.GREATEST)


def test_sessions_are_runs_closer_than_the_gap() -> None:
    minutes = [0, 29, 58, 88, 200, 201]
    views = [view(n, T0 + m * MINUTE_MS) for n, m in enumerate(minutes)]
    now_ms = T0 + 5 * HOUR_MS
    assert 3 == value_of(f.sessions(viewed, over=f.days(1)), views, now_ms)
    assert 1 == value_of(f.sessions(viewed, gap=f.hours(2)), views, now_ms)
    assert (58 + 0 + 1) * MINUTE_MS / 3 == value_of(f.session_length(viewed), views, now_ms)
    assert {
        "started_at": T0 + 200 * MINUTE_MS, "ended_at": T0 + 201 * MINUTE_MS, "length_ms": MINUTE_MS,
        "events": 2,
    } == value_of(f.last_session(viewed), views, now_ms)  # fmt: skip
    assert [0, None, None] == [
        value_of(one(viewed), [], now_ms) for one in (f.sessions, f.session_length, f.last_session)
    ]


def test_a_session_over_the_horizon_begins_within_it() -> None:
    # One event every 20 minutes for two days: one session, of which a day and a tile is kept.
    views = [view(n, T0 + n * 20 * MINUTE_MS) for n in range(145)]
    now_ms = T0 + 2 * DAY_MS
    whole = value_of(f.last_session(viewed, over=f.days(3)), views, now_ms)
    day = value_of(f.last_session(viewed, over=f.days(1)), views, now_ms)
    assert (2 * DAY_MS, DAY_MS) == (whole["length_ms"], day["length_ms"])
    assert 1 == value_of(f.sessions(viewed, over=f.days(1)), views, now_ms)


def test_a_late_event_joins_two_sessions() -> None:
    aggregate = Sessions(gap_ms=10)
    acc = None
    for at_ms in (0, 18, 9):
        acc = aggregate.add(acc, None, at_ms, at_ms)
    assert [(0, 18, 3)] == acc


def test_a_sequence_counts_what_follows_in_time() -> None:
    log = [
        view(1, T0), record(2, "Order Completed", T0 + 30 * MINUTE_MS),
        record(3, "Order Completed", T0 + 90 * MINUTE_MS),
        view(4, T0 + 5 * HOUR_MS), record(5, "Order Completed", T0 + 6 * HOUR_MS),
        view(6, T0 + 9 * HOUR_MS), record(7, "Order Completed", T0 + 9 * HOUR_MS),
    ]  # fmt: skip
    now_ms = T0 + DAY_MS
    assert 2 == value_of(f.sequence(viewed, ordered, within=f.hours(1)), log, now_ms)
    assert 3 == value_of(f.sequence(viewed, ordered, within=f.hours(2)), log, now_ms)
    assert 3 == value_of(f.sequence(ordered, ordered, within=f.hours(5)), log, now_ms)
    assert 0 == value_of(f.sequence(viewed, ordered, within=f.hours(1)), [], now_ms)
    recent = f.sequence(viewed, ordered, within=f.hours(1), over=f.hours(20))
    assert 1 == value_of(recent, log, now_ms)


def test_a_sequence_can_be_counted_per_group_and_says_when_it_is_cut() -> None:
    log = [
        view(1, T0, product="a"), view(2, T0 + 1, product="b"), view(3, T0 + 2, product="c"),
        record(4, "Order Completed", T0 + MINUTE_MS, product="a"),
        record(5, "Order Completed", T0 + MINUTE_MS, product="d"),
    ]  # fmt: skip
    first = f.instants(viewed, by=viewed.product)
    then = f.instants(ordered, by=ordered.product)
    assert ({"a": 1}, False) == noted(f.sequence(first, then, within=f.hours(1)), log, T0 + HOUR_MS)
    some = f.sequence(f.instants(viewed, k=2), ordered, within=f.hours(1))
    assert (2, True) == noted(some, log, T0 + HOUR_MS)
    per_group = f.sequence(viewed, then, within=f.hours(1))
    assert {"a": 1, "d": 1} == value_of(per_group, log, T0 + HOUR_MS)


@pytest.mark.parametrize(
    ("declare", "code"),
    [
        pytest.param(lambda: f.decay(viewed, half_life=f.minutes(1)), "E113", id="half_life-short"),
        pytest.param(lambda: f.decay(viewed, half_life=7), "E112", id="half_life-type"),
        pytest.param(lambda: f.decay(viewed.product), "E114", id="decay-text"),
        pytest.param(lambda: f.distinct(viewed.product, precision=20), "E113", id="precision"),
        pytest.param(lambda: f.quantile(viewed.position, percent=100), "E113", id="percent"),
        pytest.param(lambda: f.quantile(viewed.product), "E114", id="quantile-text"),
        pytest.param(lambda: f.sessions(viewed, gap=f.minutes(0)), "E113", id="gap"),
        pytest.param(
            lambda: f.sessions(viewed, gap=f.minutes(1), over=f.tumbling("month")),
            "E112",
            id="sessions-tile",
        ),
        pytest.param(
            lambda: f.sequence(viewed, 7, within=f.hours(1)), "E117", id="sequence-source"
        ),
        pytest.param(
            lambda: f.sequence(viewed, f.count(ordered), within=f.hours(1)),
            "E117",
            id="sequence-count",
        ),
        pytest.param(lambda: f.sequence(viewed, ordered, within=60), "E112", id="within"),
    ],
)
def test_a_wrong_definition_is_refused(declare: Callable[[], f.Feature], code: str) -> None:
    with pytest.raises(DefinitionError) as raised:
        f.compile_plan(type("P", (f.Profile,), {"wrong": declare()}))
    assert code == raised.value.code
    assert raised.value.where.startswith("test_sketches.py:")


def test_parameters_of_a_view_are_in_the_fingerprint_and_states_are_shared() -> None:
    def plan(**features: f.Feature) -> Any:
        return f.compile_plan(type("P", (f.Profile,), features))

    median, ninety = f.quantile(viewed.price), f.quantile(viewed.price, percent=90)
    assert 1 == len(plan(a=median, b=ninety).new_states())
    assert plan(a=median).fingerprint != plan(a=ninety).fingerprint
    hour, day = (f.sequence(viewed, ordered, within=f.hours(n)) for n in (1, 24))
    assert plan(a=hour).fingerprint != plan(a=day).fingerprint
    visits = plan(a=f.sessions(viewed), b=f.session_length(viewed), c=f.last_session(viewed))
    assert 1 == len(visits.new_states())


class Visitor(f.Profile):
    """One feature of each kind."""

    affinity = f.decay(viewed, half_life=f.days(7), by=viewed.product)
    weighed = f.decay(viewed.weight, half_life=f.hours(12))
    products = f.distinct(viewed.product, cap=2)
    price = f.quantile(viewed.price, percent=90, over=f.days(30))
    visits = f.sessions(viewed, over=f.days(30))
    last_visit = f.last_session(viewed, over=f.days(30))
    bought_soon = f.sequence(viewed, ordered, within=f.hours(1), over=f.days(30))


def test_stored_states_do_not_change_unnoticed(golden: Callable[[str, object], None]) -> None:
    history = [
        view(1, T0, product="a", price=[1_099, "GBP"], weight=150),
        view(2, T0 + 10 * MINUTE_MS, product="b", price=[2_500, "GBP"], weight=2**53 - 1),
        view(3, T0 + HOUR_MS, product="c", price=[700, "EUR"], weight=-3),
        record(4, "Order Completed", T0 + 70 * MINUTE_MS, product="c"),
        view(5, T0 + 3 * DAY_MS, product="a", price=[90_000, "GBP"]),
    ]
    plan = f.compile_plan(Visitor)
    states = plan.new_states()
    for one in history:
        plan.fold(states, one, plan.mask(PERSONALISATION))
    now_ms = T0 + 4 * DAY_MS
    raw = plan.encode(states, now_ms, {})
    golden(
        "leaf_states_sketches.json",
        {
            "fingerprint": plan.fingerprint,
            "states_hex": msgspec.msgpack.encode(raw).hex(" ", 32).split(" "),
            "values": plan.read(states, now_ms, now_ms, {}, PERSONALISATION),
        },
    )


def test_a_busy_shopper_stays_far_below_a_leafs_limit() -> None:
    plan = f.compile_plan(Visitor)
    states = plan.new_states()
    rng = Random(5)
    charged = 0
    for number in range(3_000):
        at_ms = T0 + rng.randrange(30 * DAY_MS)
        product, price = f"p{rng.randrange(500)}", [rng.randrange(100, 50_000), "GBP"]
        one = view(number, at_ms, product=product, price=price, weight=rng.randrange(10_000))
        charged += plan.fold(states, one, plan.mask(PERSONALISATION))
    stored = len(msgspec.msgpack.encode(plan.encode(states, T0 + 30 * DAY_MS, {})))
    assert stored <= plan.measure(states) <= charged
    assert stored < LEAF_BYTES_MAX
