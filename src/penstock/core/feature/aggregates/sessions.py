"""Aggregates of visits: how many sessions there were, how long they are, and the last one.

A session is a run of events of which each follows the one before it within the gap. The state is
a set of disjoint intervals, one per session: a union that joins intervals closer than the gap is
commutative and associative, whatever the order in which events arrive.

Sessions are kept by tile and joined across tiles when read, so that expiry drops whole tiles: a
session that reaches back over the window's horizon begins at its first event within the live tiles.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar, Final, TypeAlias

from penstock.core.feature.algebra import SCALARS, Aggregate, ValueType, in_range, register
from penstock.core.feature.window import FixedGrid, Grid
from penstock.core.time import DAY_MS, HOUR_MS, MINUTE_MS

GAP_MS_MIN: Final = MINUTE_MS
GAP_MS_MAX: Final = DAY_MS
TILE_SESSIONS_MAX: Final = 1_500
"""A tile that could hold more sessions than this is refused: so much for a cap."""

PERIODS_MS: Final = {
    "hour": HOUR_MS, "day": DAY_MS + HOUR_MS, "week": 7 * DAY_MS + HOUR_MS, "month": 31 * DAY_MS + HOUR_MS,
}  # fmt: skip

Session: TypeAlias = tuple[int, int, int]
"""(when the first event occurred, when the last one did, how many events)."""


@dataclass(frozen=True)
class _Sessions(Aggregate):
    """Disjoint sessions of a tile, ascending."""

    gap_ms: int = 30 * MINUTE_MS

    state: ClassVar[str] = "sessions"
    takes: ClassVar[frozenset[str]] = SCALARS
    value: ClassVar[str] = "optional"
    charge_bytes: ClassVar[int] = 19

    @classmethod
    def bind(cls, value_type: ValueType | None, params: dict[str, Any]) -> Aggregate:
        """Return the sessions that a gap ends."""
        del value_type
        in_range("gap_ms", params.get("gap_ms", 30 * MINUTE_MS), GAP_MS_MIN, GAP_MS_MAX)
        return cls(**params)

    @classmethod
    def variants(cls) -> tuple[tuple[Aggregate, ValueType | None], ...]:
        """Return a tiny gap, for the laws, and the usual one."""
        return ((cls(gap_ms=2), None), (cls(), None))

    def misfit(self, grid: Grid) -> str | None:
        """Return what is wrong with tiles that could hold too many sessions."""
        tile_ms = grid.width_ms if isinstance(grid, FixedGrid) else PERIODS_MS[grid.period]
        if tile_ms // self.gap_ms + 1 > TILE_SESSIONS_MAX:
            return f"one of its tiles could hold more than {TILE_SESSIONS_MAX} sessions of that gap"
        return None

    def add(
        self, acc: list[Session] | None, value: Any, at_ms: int, event_id: int
    ) -> list[Session]:
        """Lengthen a session, begin one, or join two."""
        del value, event_id
        if acc is None:
            return [(at_ms, at_ms, 1)]
        start_ms, end_ms, count = acc[-1]
        if end_ms <= at_ms:
            if at_ms - end_ms < self.gap_ms:
                acc[-1] = (start_ms, at_ms, count + 1)
            else:
                acc.append((at_ms, at_ms, 1))
            return acc
        acc[:] = self._coalesced((*acc, (at_ms, at_ms, 1)))
        return acc

    def merge(self, one: list[Session], other: list[Session]) -> list[Session]:
        """Return the union, joined where it is closer than the gap."""
        return self._coalesced((*one, *other))

    def join(self, accs: Any) -> list[Session]:
        """Return the union, joined where it is closer than the gap."""
        return self._coalesced(session for acc in accs for session in acc)

    def _coalesced(self, sessions: Iterable[Session]) -> list[Session]:
        joined: list[Session] = []
        for start_ms, end_ms, count in sorted(sessions):
            if joined and start_ms - joined[-1][1] < self.gap_ms:
                first_ms, last_ms, counted = joined[-1]
                joined[-1] = (first_ms, max(last_ms, end_ms), counted + count)
            else:
                joined.append((start_ms, end_ms, count))
        return joined

    def copy(self, acc: list[Session]) -> list[Session]:
        """Return a copy."""
        return acc.copy()

    def encode(self, acc: list[Session]) -> list[int]:
        """Return start, length and events of each session, ascending."""
        return [part for start_ms, end_ms, count in acc for part in (start_ms, end_ms - start_ms, count)]  # fmt: skip

    def decode(self, raw: list[int]) -> list[Session]:
        """Return the sessions of their encoding."""
        return [(raw[i], raw[i] + raw[i + 1], raw[i + 2]) for i in range(0, len(raw), 3)]

    def size_bytes(self, acc: list[Session]) -> int:
        """Return the bytes of an instant, a length and a count a session."""
        return self.charge_bytes * len(acc)


@register
@dataclass(frozen=True)
class Sessions(_Sessions):
    """How many sessions: runs of events of which each follows the one before within `gap`."""

    name: ClassVar[str] = "sessions"

    def finish(self, acc: list[Session] | None, as_of_ms: int) -> int:
        """Return how many there are."""
        del as_of_ms
        return len(acc) if acc else 0


@register
@dataclass(frozen=True)
class SessionLength(_Sessions):
    """How long a session is on average, in milliseconds, from first to last event; None of none."""

    name: ClassVar[str] = "session_length"

    def finish(self, acc: list[Session] | None, as_of_ms: int) -> float | None:
        """Return the mean length, divided once."""
        del as_of_ms
        return sum(end_ms - start_ms for start_ms, end_ms, _ in acc) / len(acc) if acc else None


@register
@dataclass(frozen=True)
class LastSession(_Sessions):
    """The last session: when it began and ended, its length and its events; None if there is none."""

    name: ClassVar[str] = "last_session"

    def finish(self, acc: list[Session] | None, as_of_ms: int) -> dict[str, int] | None:
        """Return `{"started_at": …, "ended_at": …, "length_ms": …, "events": …}`."""
        del as_of_ms
        if not acc:
            return None
        start_ms, end_ms, count = acc[-1]
        return {"started_at": start_ms, "ended_at": end_ms, "length_ms": end_ms - start_ms, "events": count}  # fmt: skip
