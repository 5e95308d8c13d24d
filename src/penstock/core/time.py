"""Instants as integer milliseconds UTC: parsing, printing and durations; there is no "now" here."""

from datetime import UTC, datetime, timedelta

SECOND_MS = 1_000
MINUTE_MS = 60_000
HOUR_MS = 3_600_000
DAY_MS = 86_400_000

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MS = timedelta(milliseconds=1)

INSTANT_MS_MAX = 253_402_300_799_999
"""The last millisecond of the year 9999, beyond which no calendar can print an instant."""


def parse_instant(text: str) -> int:
    """Return milliseconds since 1970 UTC of an ISO 8601 instant; without a zone it is UTC.

    Raises:
        ValueError: The text is not an ISO 8601 instant.
    """
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    try:
        return (moment - EPOCH) // _MS
    except OverflowError as error:
        raise ValueError("an instant outside the calendar") from error


def format_instant(at_ms: int) -> str:
    """Return an instant as ISO 8601 in UTC with milliseconds, such as `2026-11-25T10:00:00.000Z`."""
    moment = EPOCH + timedelta(milliseconds=at_ms)
    # Not strftime: its %Y writes the year 999 with three digits.
    return moment.replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"
