"""Caps and quiet hours: how they are written, and when a night ends where somebody lives."""

import pytest

from penstock.core.decision.pace import (
    Cap,
    QuietHours,
    parse_caps,
    parse_quiet_hours,
    quiet_until_ms,
    zone_of,
)
from penstock.core.errors import DefinitionError
from penstock.core.time import format_instant, parse_instant

NIGHT = QuietHours(21 * 60, 8 * 60)


def until(zone: str, now: str, quiet: QuietHours = NIGHT) -> str:
    found = zone_of(zone)
    assert found is not None
    end_ms = quiet_until_ms(quiet, found, parse_instant(now))
    return "" if end_ms is None else format_instant(end_ms)[:16]


def test_how_they_are_written() -> None:
    assert {"marketing": Cap("marketing", 3, 7)} == parse_caps({"marketing": "3 in 7 days"})
    assert {"a": Cap("a", 1, 1)} == parse_caps({"a": "1 in 1 day"})
    assert parse_quiet_hours("21:00-08:00") == NIGHT == parse_quiet_hours(" 21:00 - 08:00 ")
    assert None is parse_quiet_hours("") is parse_quiet_hours("none")


@pytest.mark.parametrize("text", ["", "3", "0 in 7 days", "3 in 0 days", "3 in 7 weeks", "9999 in 1 day"])  # fmt: skip
def test_a_wrong_cap_is_refused(text: str) -> None:
    with pytest.raises(DefinitionError, match="E166"):
        parse_caps({"marketing": text})


@pytest.mark.parametrize("text", ["night", "21-8", "24:00-08:00", "21:60-08:00", "08:00-08:00"])
def test_wrong_quiet_hours_are_refused(text: str) -> None:
    with pytest.raises(DefinitionError, match="E166"):
        parse_quiet_hours(text)


def test_a_night_goes_over_midnight_where_somebody_lives() -> None:
    assert until("Europe/Berlin", "2026-11-25T20:00:00Z") == "2026-11-26T07:00"
    assert until("Europe/Berlin", "2026-11-26T06:59:59Z") == "2026-11-26T07:00"
    assert until("Europe/Berlin", "2026-11-26T07:00:00Z") == ""
    assert until("Europe/Berlin", "2026-11-25T19:59:59Z") == ""
    assert until("Asia/Tokyo", "2026-11-25T20:00:00Z") == "2026-11-25T23:00"
    noon = QuietHours(12 * 60, 13 * 60 + 30)
    assert until("Asia/Kolkata", "2026-11-25T07:00:00Z", noon) == "2026-11-25T08:00"
    assert until("Asia/Kolkata", "2026-11-25T08:00:00Z", noon) == ""


def test_the_clock_on_the_wall_decides_when_clocks_change() -> None:
    # Forward at 2:00 on 29 March: the night is an hour shorter. Back at 3:00 on 25 October: longer.
    assert until("Europe/Berlin", "2026-03-28T20:00:00Z") == "2026-03-29T06:00"
    assert until("Europe/Berlin", "2026-10-24T19:00:00Z") == "2026-10-25T07:00"
    # An end that the clocks skip is the moment after the change, at 3:30.
    skipped = QuietHours(60, 2 * 60 + 30)
    assert until("Europe/Berlin", "2026-03-29T00:30:00Z", skipped) == "2026-03-29T01:30"


@pytest.mark.parametrize(
    "name", ["", "Mars/Base", "../../etc/passwd", "/etc/passwd", "Europe", "a" * 999]
)
def test_what_is_no_time_zone_is_none_and_raises_nothing(name: str) -> None:
    assert zone_of(name) is None
