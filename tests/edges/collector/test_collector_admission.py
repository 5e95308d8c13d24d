import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.consent.suppression import PERMISSION_EVENTS
from penstock.edges.collector.admission import (
    BURST_MS_MAX,
    CALM_MS,
    DURABLE_MS_MAX,
    ENTRY_MS_MAX,
    HINTS_S,
    LOOK_BYTES_PER_S,
    LOOK_FREE_BYTES,
    PLAIN_BYTES_MAX,
    RESERVE_FACTOR,
    STANDING_MS_MAX,
    TURN_MS_MAX,
    Admission,
    never_shed,
    over_quota,
    overloaded,
)
from penstock.ports.appender import NO_WAITS, Waits
from penstock.testing.clock import HandClock


def admission(**limits) -> tuple[Admission, HandClock]:
    clock = HandClock(1_700_000_000_000)
    return Admission(clock, **{"requests_max": 10, **limits}), clock


def test_without_a_rate_there_is_no_limit():
    limits, _ = admission()
    assert [0] * 1000 == [limits.spend("k") for _ in range(1000)]


def test_a_key_may_spend_one_seconds_worth_at_once_and_then_its_rate():
    limits, clock = admission(per_key_per_s=5)
    assert [0] * 5 + [1] == [limits.spend("k") for _ in range(6)]
    clock.advance(200)
    assert [0, 1] == [limits.spend("k") for _ in range(2)]
    clock.advance(199)
    assert 1 == limits.spend("k")
    clock.advance(1)
    assert 0 == limits.spend("k")
    clock.advance(seconds=60)
    assert [0] * 5 + [1] == [limits.spend("k") for _ in range(6)]


def test_each_key_has_a_bucket_of_its_own():
    limits, _ = admission(per_key_per_s=1)
    assert [0, 1] == [limits.spend("a"), limits.spend("a")]
    assert 0 == limits.spend("b")


def test_a_clock_set_back_neither_gives_nor_takes_tokens():
    limits, clock = admission(per_key_per_s=1)
    limits.spend("k")
    clock.set_back(3_600_000)
    assert 1 == limits.spend("k")
    clock.advance(seconds=1)
    assert 0 == limits.spend("k")


@given(st.integers(1, 50), st.lists(st.integers(0, 400), max_size=120))
def test_law_a_bucket_never_gives_more_than_its_rate_and_one_seconds_saving(rate, pauses_ms):
    limits, clock = admission(per_key_per_s=rate)
    granted, passed_ms = 0, 0
    for pause_ms in pauses_ms:
        clock.advance(pause_ms)
        passed_ms += pause_ms
        granted += limits.spend("k") == 0
        assert granted <= rate + rate * passed_ms // 1000


def test_refusals_say_in_whole_seconds_when_to_come_again():
    assert [1, 2, 3] == [overloaded(seconds).retry_after_s for seconds in HINTS_S]
    assert 4 == over_quota(4).retry_after_s
    assert ("E430", "E431") == (overloaded(1).code, over_quota(1).code)


@pytest.mark.parametrize("name", sorted(PERMISSION_EVENTS))
@pytest.mark.parametrize("separators", [(",", ":"), (", ", ": ")])
def test_consent_and_unsubscribe_are_recognised_without_parsing(name, separators):
    event = {"type": "track", "event": name, "userId": "u-1", "properties": {"a": 1}}
    other = {"type": "track", "event": "Product Viewed", "userId": "u-2"}
    assert never_shed(json.dumps(event, separators=separators).encode())
    assert never_shed(
        json.dumps({"batch": [other, event]}, separators=separators, indent=2).encode()
    )


@pytest.mark.parametrize(
    "event",
    [
        {"type": "track", "event": "Product Viewed"},
        {"type": "track", "event": "Unsubscribed From Push"},
        {"type": "track", "event": "Product Viewed", "properties": {"label": "Unsubscribed"}},
        {"type": "identify", "traits": {"state": "Unsubscribed"}},
    ],
)
def test_other_events_are_not_let_in_for_a_word_in_them(event):
    assert not never_shed(json.dumps(event).encode())


def test_what_is_never_shed_has_more_places_and_they_have_an_end():
    limits, _ = admission(requests_max=8)
    for _ in range(8):
        limits.enter(10)
    assert ("in_flight", False) == (limits.pressed(), limits.full_for_all())
    for _ in range(8 * (RESERVE_FACTOR - 1)):
        limits.enter(10)
    assert ("in_flight", True) == (limits.pressed(), limits.full_for_all())


def test_memory_is_set_aside_before_a_body_is_inflated_and_given_back():
    limits, _ = admission()
    places = [limits.enter(PLAIN_BYTES_MAX // 2) for _ in range(2)]
    assert ("", "memory") == (limits.pressed(0), limits.pressed(1))
    assert not limits.full_for_all(PLAIN_BYTES_MAX)
    assert limits.full_for_all(PLAIN_BYTES_MAX + 1)
    limits.leave(places[0])
    assert "" == limits.pressed(PLAIN_BYTES_MAX // 2)


def test_while_a_request_waits_too_long_for_its_turn_none_are_let_in():
    limits, clock = admission()
    oldest = limits.enter(0)
    clock.advance(ENTRY_MS_MAX)
    second = limits.enter(0)
    assert "" == limits.pressed()
    clock.advance(1)
    assert "slow_loop" == limits.pressed()
    limits.begin(oldest)
    assert "" == limits.pressed()
    limits.leave(oldest)
    clock.advance(ENTRY_MS_MAX)
    assert "slow_loop" == limits.pressed()
    limits.leave(second)
    assert ("", 0) == (limits.pressed(), limits.in_flight)


def test_a_turn_decodes_for_so_long_and_for_longer_after_a_calm():
    waits = [NO_WAITS]
    limits, clock = admission(waits=lambda: waits[0])

    def over_after(ms: int) -> bool:
        limits.begin(limits.enter(0))
        clock.advance(ms)
        over = limits.turn_is_over()
        limits.end_turn()
        return over

    assert "" == limits.pressed()
    assert [False, True] == [over_after(10 * TURN_MS_MAX), over_after(10 * TURN_MS_MAX + 1)]
    waits[0] = Waits(0, STANDING_MS_MAX)
    clock.advance(BURST_MS_MAX)
    assert [False, True] == [over_after(TURN_MS_MAX), over_after(TURN_MS_MAX + 1)]
    assert not limits.turn_is_over()
    first, second = limits.enter(0), limits.enter(0)
    assert [True, False] == [limits.begin(first), limits.begin(second)]


def test_while_the_oldest_events_wait_too_long_to_be_on_disk_none_are_let_in():
    waits = [Waits(DURABLE_MS_MAX, 0)]
    limits, _ = admission(waits=lambda: waits[0])
    assert "" == limits.pressed()
    waits[0] = Waits(DURABLE_MS_MAX + 1, 0)
    assert "slow_append" == limits.pressed()


def test_a_burst_may_wait_longer_for_the_fold_than_a_standing_queue():
    waits = [NO_WAITS]
    limits, clock = admission(waits=lambda: waits[0])

    def behind(ms: int) -> str:
        waits[0] = Waits(0, ms)
        return limits.pressed()

    assert "" == behind(0)
    clock.advance(BURST_MS_MAX - 1)
    assert ["", "slow_fold"] == [behind(BURST_MS_MAX), behind(BURST_MS_MAX + 1)]
    clock.advance(1)
    assert ["slow_fold", ""] == [behind(STANDING_MS_MAX + 1), behind(STANDING_MS_MAX)]
    assert ["", ""] == [behind(CALM_MS), behind(STANDING_MS_MAX + 1)], "a burst after a calm"


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(1, 4_000_000)), max_size=200))
def test_law_what_is_looked_into_is_at_most_the_rate_and_one_body(asked):
    """While others are refused, inflating costs a bounded share, whatever is sent."""
    limits, clock = admission()
    looked = passed_ms = 0
    for pause_ms, plain_bytes in asked:
        clock.advance(pause_ms)
        passed_ms += pause_ms
        if plain_bytes > LOOK_FREE_BYTES and limits.may_look(plain_bytes):
            looked += plain_bytes
        assert looked <= 4_000_000 + LOOK_BYTES_PER_S * passed_ms // 1000
        assert limits.may_look(LOOK_FREE_BYTES)
