import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.consent.suppression import PERMISSION_EVENTS
from penstock.edges.collector.admission import (
    RESERVE_FACTOR,
    Admission,
    never_shed,
    over_quota,
)
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
    limits, _ = admission()
    hints = {limits.overloaded().retry_after_s for _ in range(9)}
    assert {1, 2, 3} == hints
    assert 4 == over_quota(4).retry_after_s
    assert "E431" == over_quota(1).code


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
    limits.in_flight = 8
    assert (True, False) == (limits.full(), limits.full_for_all())
    limits.in_flight = 8 * RESERVE_FACTOR
    assert (True, True) == (limits.full(), limits.full_for_all())
