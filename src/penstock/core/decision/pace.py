"""How often and when somebody is written to: frequency caps, and quiet hours where they live."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final, NamedTuple
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from penstock.core.errors import DefinitionError
from penstock.core.time import DAY_MS, EPOCH, MINUTE_MS

NONE: Final = "none"
"""What a campaign writes that is exempt from the project's cap or quiet hours."""

CAP_MAX: Final = 1_000
DAYS_MAX: Final = 366


class Cap(NamedTuple):
    """At most `limit` emails of a class in `days` times 24 hours."""

    name: str
    limit: int
    days: int

    @property
    def span_ms(self) -> int:
        """How long an email counts after it was sent."""
        return self.days * DAY_MS


class QuietHours(NamedTuple):
    """From one minute of the local day, up to another; over midnight if it ends before it starts."""

    start: int
    end: int


def parse_caps(texts: Mapping[str, str], where: str = "penstock.toml") -> dict[str, Cap]:
    """Return caps of texts such as `"3 in 7 days"`, by name.

    Raises:
        DefinitionError: A text is none (E166).
    """
    caps: dict[str, Cap] = {}
    for name, text in texts.items():
        found = re.fullmatch(r"(\d{1,4}) in (\d{1,3}) days?", text.strip())
        limit, days = (int(found[1]), int(found[2])) if found else (0, 0)
        if not 1 <= limit <= CAP_MAX or not 1 <= days <= DAYS_MAX or name == NONE:
            raise DefinitionError("E166", f"cap `{name}` is no number of emails in a number of days",
                                  fix='write it as "3 in 7 days"', where=where)  # fmt: skip
        caps[name] = Cap(name, limit, days)
    return caps


def parse_quiet_hours(text: str, where: str = "penstock.toml") -> QuietHours | None:
    """Return quiet hours of a text such as `"21:00-08:00"`; None of an empty one or of `none`.

    Raises:
        DefinitionError: It is neither (E166).
    """
    if text in ("", NONE):
        return None
    found = re.fullmatch(r"(\d\d):(\d\d)\s*-\s*(\d\d):(\d\d)", text.strip())
    if found:
        one, two, three, four = map(int, found.groups())
        start, end = one * 60 + two, three * 60 + four
        if one < 24 and three < 24 and two < 60 and four < 60 and start != end:
            return QuietHours(start, end)
    raise DefinitionError("E166", "`quiet_hours` is no span of the day",
                          fix='write it as "21:00-08:00"', where=where)  # fmt: skip


@lru_cache(maxsize=1024)
def zone_of(name: str) -> ZoneInfo | None:
    """Return a time zone by its IANA name; None if there is none, whatever the text is."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return None


def quiet_until_ms(quiet: QuietHours, zone: ZoneInfo, now_ms: int) -> int | None:
    """Return when quiet hours end that an instant is in, or None: the clock on the wall decides.

    When the clocks change within them they last an hour longer or shorter; an end that the clocks
    skip is the moment after the change.
    """
    local = (EPOCH + timedelta(milliseconds=now_ms)).astimezone(zone)
    minute = local.hour * 60 + local.minute
    if not _within(quiet, minute):
        return None
    day = local.date() + timedelta(days=1 if quiet.end <= minute else 0)
    end = datetime(day.year, day.month, day.day, quiet.end // 60, quiet.end % 60, tzinfo=zone)
    end_ms = (end.astimezone(UTC) - EPOCH) // timedelta(milliseconds=1)
    # In the hour that is repeated in autumn the end may lie behind.
    return max(end_ms, now_ms + MINUTE_MS)


def _within(quiet: QuietHours, minute: int) -> bool:
    if quiet.start < quiet.end:
        return quiet.start <= minute < quiet.end
    return minute >= quiet.start or minute < quiet.end
