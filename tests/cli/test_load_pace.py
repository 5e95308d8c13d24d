"""How `penstock load` makes way for live events."""

from penstock.cli.load import PAUSE_S_MAX, PAUSE_S_MIN, REFUSALS_MAX, Pace


def test_it_waits_as_long_as_it_is_told_and_then_goes_on_slower() -> None:
    pace = Pace()
    assert pace.refused(3)
    assert 3.0 == pace.pause_s
    pace.taken()
    assert 0 < pace.pause_s < PAUSE_S_MIN


def test_refused_again_and_again_it_slows_down_within_bounds_and_ends() -> None:
    pace = Pace()
    for _ in range(REFUSALS_MAX - 1):
        assert pace.refused(1)
    assert not pace.refused(1)
    pace.taken()
    assert PAUSE_S_MAX * 0.8 < pace.pause_s <= PAUSE_S_MAX


def test_left_alone_it_goes_at_full_speed_again() -> None:
    pace = Pace()
    for _ in range(20):
        pace.refused(1)
    pace.taken()
    before = pace.pause_s
    for _ in range(100):
        pace.taken()
        assert pace.pause_s <= before
        before = pace.pause_s
    assert 0.0 == pace.pause_s
