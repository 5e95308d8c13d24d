"""Windows: the span a feature looks back over, the tiles that keep it, and which of them live.

Tiles are absolute: a tile's index is a pure function of an instant, never of when the state was
made. What a window reads and what expiry drops are both ranges of tile indices, so that expiry
can be a projection:

    Sliding    the last `window_ms` before `as_of`, in aligned tiles of `tile_ms`
    Tumbling   a calendar hour, day, week or month in the project's time zone
    Lifetime   everything, in tiles of a day so that a withdrawal of consent can cut it

Rules, mirrored by `penstock.testing.oracle`:

- *Tail.* A sliding window reads every tile that ends after `as_of - window_ms`: its oldest tile
  counts whole, so a read covers at most one tile more than the window (`tail_error_ms`).
  Accumulators that carry their own time (last, last_k, exists, recency) are exact instead.
- *Head.* Nothing is cut at `as_of`, because `as_of` is never before T: everything that was logged
  has happened. An event that a fast clock places up to 5 min ahead counts at once; in a calendar
  period it counts in the period it claims.
- *Expiry.* A tile is dead when no `as_of >= T` can read it.
- *Purge.* A tile is dead for a purpose when it starts before `purged_before`: deny wins.
"""

from bisect import bisect_right
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final, TypeAlias
from zoneinfo import ZoneInfo

from penstock.core.time import DAY_MS, EPOCH, HOUR_MS, MINUTE_MS, SECOND_MS

FOREVER: Final = -(1 << 62)
"""Before every tile and every instant: the floor of what never expires."""

TILES_PER_WINDOW: Final = 168
"""A sliding window has at least this many tiles, so its tail error is at most 1/168 (0.6 %)."""

PERIODS: Final = ("hour", "day", "week", "month")

TILE_WIDTHS_MS: Final = (
    *(n * SECOND_MS for n in (1, 2, 5, 10, 15, 20, 30)),
    *(n * MINUTE_MS for n in (1, 2, 5, 10, 15, 20, 30)),
    *(n * HOUR_MS for n in (1, 2, 3, 4, 6, 8, 12)),
    *(n * DAY_MS for n in (1, 2, 7)),
)
"""The widths that are chosen from: each divides a day, or is whole days."""

WINDOW_MS_MIN: Final = MINUTE_MS
TILES_MAX: Final = 4096
"""A window of more tiles than this is refused: a leaf could not hold it."""


@dataclass(frozen=True, slots=True)
class Sliding:
    """The last `window_ms`; `tile_ms` 0 chooses the width."""

    window_ms: int
    tile_ms: int = 0


@dataclass(frozen=True, slots=True)
class Tumbling:
    """One calendar period: the current one at `as_of`, or the `previous`-th before it."""

    period: str
    previous: int = 0


@dataclass(frozen=True, slots=True)
class Lifetime:
    """Everything since the first event."""

    tile_ms: int = DAY_MS


Window: TypeAlias = Sliding | Tumbling | Lifetime


def tile_width_ms(window_ms: int) -> int:
    """Return the widest width of `TILE_WIDTHS_MS` that is at most 1/168 of a window."""
    at = bisect_right(TILE_WIDTHS_MS, window_ms // TILES_PER_WINDOW)
    return TILE_WIDTHS_MS[max(at - 1, 0)]


class FixedGrid:
    """Tiles of one width, aligned to 1970 UTC, read over a sliding window or over everything.

    Args:
        width_ms: The width of a tile.
        window_ms: How far a read looks back; None for ever.
    """

    __slots__ = ("canonical", "shape", "tail_error_ms", "tiles_max", "width_ms", "window_ms")

    def __init__(self, width_ms: int, window_ms: int | None) -> None:
        self.width_ms = width_ms
        self.window_ms = window_ms
        self.shape: tuple[Any, ...] = ("fixed", width_ms)
        """What decides an index; grids of one shape share it in the compiled fold."""
        self.canonical: list[Any] = [
            "sliding" if window_ms else "lifetime",
            width_ms,
            window_ms or 0,
        ]
        self.tail_error_ms = width_ms if window_ms else 0
        self.tiles_max = window_ms // width_ms + 2 if window_ms else None

    def index(self, at_ms: int) -> int:
        """Return the tile that holds an instant."""
        return at_ms // self.width_ms

    def index_source(self) -> str:
        """Return the Python expression of `index` for an instant named `at`."""
        return f"at // {self.width_ms}"

    def start_ms(self, index: int) -> int:
        """Return a tile's first instant."""
        return index * self.width_ms

    def live_from(self, clock_ms: int) -> int:
        """Return the oldest tile that some `as_of >= clock_ms` can read."""
        if self.window_ms is None:
            return FOREVER
        return (clock_ms - self.window_ms) // self.width_ms

    def kept_from(self, purged_ms: int) -> int:
        """Return the oldest tile that starts at or after a purge."""
        return -(-purged_ms // self.width_ms)

    def read_range(self, as_of_ms: int) -> tuple[int, int | None]:
        """Return the first and the last tile a read counts; None: no last one."""
        return self.live_from(as_of_ms), None

    def since_ms(self, as_of_ms: int) -> int:
        """Return the first instant that an accumulator with its own time counts."""
        return FOREVER if self.window_ms is None else as_of_ms - self.window_ms


class CalendarGrid:
    """Calendar periods in a time zone; a tile is a period.

    Args:
        period: One of `PERIODS`.
        previous: How many periods before the current one a read counts.
        zone: Offsets of the project's time zone.
    """

    __slots__ = ("canonical", "period", "previous", "shape", "tail_error_ms", "tiles_max", "zone")

    def __init__(self, period: str, previous: int, zone: "Zone") -> None:
        self.period = period
        self.previous = previous
        self.zone = zone
        self.shape: tuple[Any, ...] = ("calendar", period)
        self.canonical: list[Any] = ["tumbling", period, previous]
        self.tail_error_ms = 0
        self.tiles_max = previous + 2

    def index(self, at_ms: int) -> int:
        """Return the period that holds an instant, counted from 1970."""
        return self.zone.period(self.period, at_ms)

    def index_source(self) -> str:
        """Return the Python expression of `index` for an instant named `at`."""
        return f"period({self.period!r}, at)"

    def start_ms(self, index: int) -> int:
        """Return a period's first instant."""
        return self.zone.start_ms(self.period, index)

    def live_from(self, clock_ms: int) -> int:
        """Return the oldest period that some `as_of >= clock_ms` can read."""
        return self.index(clock_ms) - self.previous

    def kept_from(self, purged_ms: int) -> int:
        """Return the oldest period that starts at or after a purge."""
        index = self.index(purged_ms)
        return index if self.start_ms(index) >= purged_ms else index + 1

    def read_range(self, as_of_ms: int) -> tuple[int, int | None]:
        """Return the one period that a read counts, twice."""
        index = self.live_from(as_of_ms)
        return index, index

    def since_ms(self, as_of_ms: int) -> int:
        """Return `FOREVER`: a period is exact without a look inside it."""
        return FOREVER

    def steady_until(self, as_of_ms: int) -> int:
        """Return an instant until which a read counts the same period, or `as_of_ms` for not known.

        At most a quarter of an hour on: within one, a zone keeps its offset.
        """
        until_ms = (as_of_ms // QUARTER_MS + 1) * QUARTER_MS
        return until_ms if self.index(until_ms - 1) == self.index(as_of_ms) else as_of_ms


Grid: TypeAlias = FixedGrid | CalendarGrid


def grid_of(window: Window, zone: "Zone") -> Grid:
    """Return the grid of a window."""
    match window:
        case Sliding(window_ms, tile_ms):
            return FixedGrid(tile_ms or tile_width_ms(window_ms), window_ms)
        case Lifetime(tile_ms):
            return FixedGrid(tile_ms, None)
        case Tumbling(period, previous):
            return CalendarGrid(period, previous, zone)


def window_fault(window: Window) -> str | None:
    """Return what is wrong with a window, or None."""
    match window:
        case Sliding(window_ms, tile_ms):
            if window_ms < WINDOW_MS_MIN:
                return "its window is shorter than a minute"
            width_ms = tile_ms or tile_width_ms(window_ms)
            if width_ms < SECOND_MS or width_ms > window_ms:
                return "its tile is shorter than a second or longer than the window"
            if window_ms // width_ms > TILES_MAX:
                return f"its window has more than {TILES_MAX} tiles"
        case Lifetime(tile_ms):
            if tile_ms < HOUR_MS:
                return "its tile is shorter than an hour"
        case Tumbling(period, previous):
            if period not in PERIODS:
                return f"its period is none of {', '.join(PERIODS)}"
            if not 0 <= previous <= TILES_MAX:
                return f"`previous` is not within 0 and {TILES_MAX}"
    return None


QUARTER_MS: Final = 15 * MINUTE_MS
_QUARTERS_MAX: Final = 8192


class Zone:
    """A time zone's offsets, remembered by the quarter of an hour.

    The zone's rules come from the tz database of the machine: two workers that fold one log need
    the same release of it for periods that a new rule moves.

    Args:
        name: IANA name, such as `Europe/London`.

    Raises:
        ZoneInfoNotFoundError: There is no such zone.
        ValueError: The name is malformed.
    """

    __slots__ = ("_offsets", "_zone", "name")

    def __init__(self, name: str) -> None:
        self.name = name
        self._zone = UTC if name == "UTC" else ZoneInfo(name)
        self._offsets: dict[int, int | None] = {}

    def offset_ms(self, at_ms: int) -> int:
        """Return the offset of local time at an instant, to add to UTC."""
        offset = self.quarter_ms(at_ms // QUARTER_MS)
        return self._offset(at_ms) if offset is None else offset

    def quarter_ms(self, quarter: int) -> int | None:
        """Return the offset in a quarter of an hour, counted from 1970; None if it changes within it."""
        try:
            return self._offsets[quarter]
        except KeyError:
            first = self._offset(quarter * QUARTER_MS)
            last = self._offset(quarter * QUARTER_MS + QUARTER_MS - 1)
            # Before standard time a zone may change within a quarter: not remembered.
            offset = first if first == last else None
            if len(self._offsets) >= _QUARTERS_MAX:
                self._offsets.clear()
            self._offsets[quarter] = offset
            return offset

    def _offset(self, at_ms: int) -> int:
        try:
            moment = (EPOCH + timedelta(milliseconds=at_ms)).astimezone(self._zone)
        except (OverflowError, ValueError):
            return 0  # outside the calendar
        offset = moment.utcoffset()
        return 0 if offset is None else offset // timedelta(milliseconds=1)

    def period(self, period: str, at_ms: int) -> int:
        """Return the index of the calendar period that holds an instant.

        Days and hours count from 1970-01-01, weeks (from Monday) from 1969-12-29, months from
        the year 0.
        """
        if period == "hour":
            # Only the part of the offset below an hour matters, so the hour that a zone repeats
            # in autumn is two periods.
            return (at_ms + self.offset_ms(at_ms) % HOUR_MS) // HOUR_MS
        day = (at_ms + self.offset_ms(at_ms)) // DAY_MS
        if period == "day":
            return day
        if period == "week":
            return (day + 3) // 7
        local = _date_of(day)
        return local.year * 12 + local.month - 1

    def start_ms(self, period: str, index: int) -> int:
        """Return the first instant of a calendar period."""
        if period == "hour":
            near = index * HOUR_MS
            return near - self.offset_ms(near) % HOUR_MS
        if period == "day":
            local = _date_of(index)
        elif period == "week":
            local = _date_of(index * 7 - 3)
        else:
            year = min(max(index // 12, 1), 9999)
            local = date(year, index % 12 + 1, 1)
        midnight = datetime(local.year, local.month, local.day, tzinfo=self._zone)
        offset = midnight.utcoffset() or timedelta()
        return (midnight.replace(tzinfo=UTC) - EPOCH - offset) // timedelta(milliseconds=1)


_EPOCH_DAY: Final = date(1970, 1, 1).toordinal()


def _date_of(day: int) -> date:
    return date.fromordinal(min(max(day + _EPOCH_DAY, 1), date.max.toordinal()))
