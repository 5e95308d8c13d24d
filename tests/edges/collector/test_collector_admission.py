import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.consent.suppression import PERMISSION_EVENTS
from penstock.edges.collector.admission import (
    BURST_MS_MAX,
    BURST_TURNS,
    CALM_MS,
    DURABLE_MS_MAX,
    FEW,
    HINTS_S,
    HURRY_MS,
    LOOK_BYTES_PER_S,
    LOOK_FREE_BYTES,
    PACE_MS,
    PLAIN_BYTES_MAX,
    REQUEST_WORK,
    RESERVE_FACTOR,
    STANDING_MS_MAX,
    TURN_US,
    TURNS_MAX,
    WORK_FIRST,
    WORK_MIN,
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
    assert [1, 2, 3, 4, 5] == sorted(overloaded(seconds).retry_after_s for seconds in HINTS_S)
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


def test_with_too_many_in_flight_nobody_is_let_in_and_nothing_is_inflated_to_look_into_it():
    limits, _ = admission(requests_max=8)
    for _ in range(8):
        limits.enter(10)
    assert ("in_flight", True) == (limits.pressed(), limits.may_inflate(10))
    for _ in range(8 * (RESERVE_FACTOR - 1)):
        limits.enter(10)
    assert ("in_flight", False) == (limits.pressed(), limits.may_inflate(10))


def test_memory_is_set_aside_before_a_body_is_inflated_and_given_back():
    limits, clock = admission()
    works = [limits.enter(PLAIN_BYTES_MAX // 2) for _ in range(2)]
    assert ("", "memory") == (limits.pressed(0), limits.pressed(1))
    assert limits.may_inflate(LOOK_FREE_BYTES)
    assert not limits.may_inflate(PLAIN_BYTES_MAX + 1)
    limits.leave(PLAIN_BYTES_MAX // 2, works[0])
    clock.advance(1)
    assert "" == limits.pressed(PLAIN_BYTES_MAX // 2)


class Loop:
    """A loop whose every byte of work takes so many ns of its time, whatever the clock says.

    There are always a few requests under way; the others are answered at the turn after their own.
    """

    def __init__(self, ns_a_byte: int) -> None:
        self.spent_us = 0
        self.ns_a_byte = ns_a_byte
        self.limits, self.clock = admission(requests_max=100_000, spent_us=lambda: self.spent_us)
        for _ in range(FEW):
            self.limits.enter(0)
        self.before: list[int] = []

    def turn(self, plain_bytes: int, wait_ms: int = PACE_MS) -> int:
        """Let in what is let in at a turn, and return the work of it."""
        works: list[int] = []
        while not self.limits.pressed():
            works.append(self.limits.enter(plain_bytes))
        for work in self.before:
            self.limits.leave(plain_bytes, work)
        self.before = works
        work = sum(works)
        self.spent_us += work * self.ns_a_byte // 1_000
        self.clock.advance(wait_ms)
        self.limits.end_turn()
        return work


@given(st.integers(20, 2_000), st.integers(0, 8_000), st.integers(0, 3_000))
def test_law_a_turn_takes_its_time_on_a_loop_of_any_speed_and_however_long_it_is_kept_waiting(
    ns_a_byte, plain_bytes, wait_ms
):
    loop = Loop(ns_a_byte)
    for _ in range(40):
        work = loop.turn(plain_bytes, PACE_MS + wait_ms)
    wanted = max(TURN_US * 1_000 // ns_a_byte, WORK_MIN)
    one = plain_bytes + REQUEST_WORK
    assert 0.8 * wanted - one <= work <= 1.25 * wanted + one


def test_what_turns_have_left_is_there_for_a_burst_and_no_more_than_that():
    loop = Loop(TURN_US * 1_000 // WORK_FIRST)
    usual = [loop.turn(512) for _ in range(20)][-1]
    for turns in (1, 2, BURST_TURNS - 1, 3 * BURST_TURNS):
        for _ in range(turns):
            loop.limits.end_turn()
        assert min(turns + 1, BURST_TURNS) == round(loop.turn(512) / usual)
        loop.turn(512)


def test_a_few_who_wait_for_answers_are_let_in_however_large_their_requests_are():
    limits, _ = admission(requests_max=100)
    for _ in range(FEW):
        assert "" == limits.pressed()
        work = limits.enter(1_000_000)
    assert "full_turn" == limits.pressed()
    limits.leave(1_000_000, work)
    assert "" == limits.pressed()


def test_while_nothing_is_answered_a_few_turns_are_let_in_and_no_more():
    loop = Loop(100)
    usual = [loop.turn(512) for _ in range(20)][-1]
    let_in = 0
    for _ in range(3 * TURNS_MAX):
        loop.before = []
        let_in += loop.turn(512)
    assert "slow_answers" == loop.limits.pressed()
    assert TURNS_MAX - 2 <= let_in / usual <= TURNS_MAX + 1


def test_what_is_let_in_though_others_are_refused_takes_nothing_of_theirs():
    loop = Loop(100)
    usual = [loop.turn(0) for _ in range(20)][-1]
    while not loop.limits.pressed():
        loop.limits.enter(0)
    for _ in range(1_000):
        loop.limits.enter(32_000)
    loop.limits.end_turn()
    assert usual * 0.8 < loop.turn(0) < usual * 1.25


def test_the_first_of_a_turn_tells_when_it_ends():
    limits, _ = admission()
    assert [True, False] == [limits.begins_turn(), limits.begins_turn()]
    limits.end_turn()
    assert [True, False] == [limits.begins_turn(), limits.begins_turn()]


def test_others_are_to_hurry_for_a_while_after_somebody_was_turned_away():
    limits, clock = admission()
    assert not limits.hurried()
    limits.refused()
    assert limits.hurried()
    clock.advance(HURRY_MS)
    assert limits.hurried()
    clock.advance(1)
    assert not limits.hurried()


def test_while_the_oldest_events_wait_too_long_to_be_on_disk_none_are_let_in():
    waits = [Waits(DURABLE_MS_MAX, 0)]
    limits, clock = admission(waits=lambda: waits[0])
    assert "" == limits.pressed()
    clock.advance(1)
    waits[0] = Waits(DURABLE_MS_MAX + 1, 0)
    assert "slow_append" == limits.pressed()


def test_a_burst_may_wait_longer_for_the_fold_than_a_standing_queue():
    waits = [NO_WAITS]
    limits, clock = admission(waits=lambda: waits[0])

    def behind(ms: int) -> str:
        clock.advance(1)
        waits[0] = Waits(0, ms)
        return limits.pressed()

    assert "" == behind(0)
    clock.advance(BURST_MS_MAX - 3)
    assert ["", "slow_fold"] == [behind(BURST_MS_MAX), behind(BURST_MS_MAX + 1)]
    assert ["slow_fold", ""] == [behind(STANDING_MS_MAX + 1), behind(STANDING_MS_MAX)]
    assert ["", ""] == [behind(CALM_MS), behind(STANDING_MS_MAX + 1)], "a burst after a calm"


def test_how_long_others_wait_is_asked_once_in_a_millisecond():
    asked = []
    limits, clock = admission(waits=lambda: asked.append(1) or NO_WAITS)
    for _ in range(100):
        limits.pressed()
    assert 1 == len(asked)
    clock.advance(1)
    limits.pressed()
    assert 2 == len(asked)


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(1, 4_000_000)), max_size=200))
def test_law_what_is_looked_into_is_at_most_the_rate_and_one_body(asked):
    """While others are refused, inflating costs a bounded share, whatever is sent."""
    limits, clock = admission()
    looked = passed_ms = 0
    for pause_ms, plain_bytes in asked:
        clock.advance(pause_ms)
        passed_ms += pause_ms
        if plain_bytes > LOOK_FREE_BYTES and limits.may_inflate(plain_bytes):
            looked += plain_bytes
        assert looked <= 4_000_000 + LOOK_BYTES_PER_S * passed_ms // 1000
        assert limits.may_inflate(LOOK_FREE_BYTES)
