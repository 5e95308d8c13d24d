"""The clock of the machine and the clock of tests."""

import pytest

from penstock.adapters.clock import SystemClock
from penstock.testing.clock import HandClock


def test_the_system_clock_tells_ms_and_its_monotonic_one_does_not_go_back():
    clock = SystemClock()
    first, second = clock.monotonic_ms(), clock.monotonic_ms()
    assert first <= second
    assert 1_700_000_000_000 < clock.now_ms() < 253_402_300_799_999


def test_a_hand_clock_stands_until_it_is_turned():
    clock = HandClock(1_000)
    assert (1_000, 0) == (clock.now_ms(), clock.monotonic_ms())
    clock.advance(5, seconds=1, hours=1, days=1)
    passed_ms = 5 + 1_000 + 3_600_000 + 86_400_000
    assert (1_000 + passed_ms, passed_ms) == (clock.now_ms(), clock.monotonic_ms())


def test_setting_the_wall_clock_back_leaves_the_monotonic_one():
    clock = HandClock(1_000)
    clock.advance(500)
    clock.set_back(1_200)
    assert (300, 500) == (clock.now_ms(), clock.monotonic_ms())
    with pytest.raises(ValueError, match="set_back"):
        clock.advance(-1)
