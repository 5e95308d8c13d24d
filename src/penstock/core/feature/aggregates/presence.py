"""Aggregates of when something last happened: exists, last_at, recency. All keep one instant."""

from dataclasses import dataclass
from typing import Any, ClassVar

from penstock.core.feature.algebra import SCALARS, Aggregate, ValueType, register


@dataclass(frozen=True)
class _Latest(Aggregate):
    """The greatest time of an event: a max register."""

    state: ClassVar[str] = "latest"
    takes: ClassVar[frozenset[str]] = SCALARS
    value: ClassVar[str] = "optional"
    own_time: ClassVar[bool] = True
    moves: ClassVar[bool] = False

    @classmethod
    def variants(cls) -> tuple[tuple[Aggregate, ValueType | None], ...]:
        """Return the one there is."""
        return ((cls(), None),)

    def inline(self) -> tuple[str, str]:
        """Return `add` as expressions."""
        return ("at", "at if at > acc else acc")

    def add(self, acc: int | None, value: Any, at_ms: int, event_id: int) -> int:
        """Return the later instant."""
        del value, event_id
        return at_ms if acc is None or at_ms > acc else acc

    def merge(self, one: int, other: int) -> int:
        """Return the later instant."""
        return max(one, other)

    def since(self, acc: int, floor_ms: int) -> int | None:
        """Return the instant if it is recent enough."""
        return acc if acc >= floor_ms else None

    def oldest_ms(self, acc: int) -> int:
        """Return the instant."""
        return acc


@register
@dataclass(frozen=True)
class Exists(_Latest):
    """Whether there was an event."""

    name: ClassVar[str] = "exists"

    def finish(self, acc: int | None, as_of_ms: int) -> bool:
        """Return whether there is an instant."""
        del as_of_ms
        return acc is not None


@register
@dataclass(frozen=True)
class LastAt(_Latest):
    """When the last event occurred, in milliseconds since 1970 UTC; None if never."""

    name: ClassVar[str] = "last_at"

    def finish(self, acc: int | None, as_of_ms: int) -> int | None:
        """Return the instant."""
        del as_of_ms
        return acc


@register
@dataclass(frozen=True)
class Recency(_Latest):
    """Milliseconds since the last event, at least 0; None if there was none."""

    name: ClassVar[str] = "recency"
    moves: ClassVar[bool] = True

    def finish(self, acc: int | None, as_of_ms: int) -> int | None:
        """Return the time from the instant to `as_of`."""
        return None if acc is None else max(as_of_ms - acc, 0)
