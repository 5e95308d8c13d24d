"""Who may come in: how long others wait, a token bucket per write key, and what is never refused.

The queue that matters is the whole way in: from a request's admission until its events are on disk, and
from there until they are folded. It is watched by the age of its head, as CoDel does, since age is what
people feel and what a fast and a slow machine have in common; a limit on lengths is only the last
resort. A burst may wait for a second; a queue that does not empty is a standing one, and is held to a
quarter of that. Refusing costs a look at the clock, before anything is inflated, decoded or looked up.

Sources: Nichols and Jacobson, Controlling Queue Delay, ACM Queue 10(5), 2012; Maurer, Fail at Scale, ACM
Queue 13(8), 2015 (two limits, told apart by when the queue was last empty).
"""

from __future__ import annotations

import re
from collections.abc import Callable

from penstock.core.consent.suppression import PERMISSION_EVENTS
from penstock.core.errors import Overloaded
from penstock.ports.appender import NO_WAITS, Waits
from penstock.ports.clock import Clock

RESERVE_FACTOR = 8
"""Consent, unsubscribe and complaint are taken in up to this many times the requests in flight."""

ENTRY_MS_MAX = 100
"""While a request that was let in has waited longer for its turn to be decoded, none are let in."""

TURN_MS_MAX = 50
"""How long requests are decoded in one turn of the loop; for a burst, ten times as long. Who has no turn
by then is refused after all: what one turn decodes is what everybody in the next one waits for."""

DURABLE_MS_MAX = 500
"""While the oldest events have waited longer to be on disk, none are let in."""

CALM_MS = 50
"""A fold so little behind is up to date."""

STANDING_MS_MAX = 250
"""How far the fold may be behind if it has not been up to date for as long as a burst may last."""

BURST_MS_MAX = 1_000
"""How far the fold may be behind for a burst, and how long a burst lasts."""

PLAIN_BYTES_MAX = 64 * 1024 * 1024
"""Of the bodies of all requests in flight, in plain; those never refused may have as much again."""

HINTS_S = (1, 2, 3)
"""What refused clients are told in turn, so that they spread."""

LOOK_BYTES_PER_S = 32 * 1024 * 1024
"""While requests are refused, compressed bodies are inflated at this rate to look for what is never
refused: a tenth of a core. One event (`LOOK_FREE_BYTES`) is always looked into."""

LOOK_FREE_BYTES = 32 * 1024

_NAMES = tuple(name.encode() for name in sorted(PERMISSION_EVENTS))

_NEVER_SHED = re.compile(
    rb'"event"\s*:\s*"(?:'
    + b"|".join(re.escape(name.encode()) for name in sorted(PERMISSION_EVENTS))
    + rb')"'
)


def never_shed(body: bytes) -> bool:
    """Return whether a body holds an event that is kept whatever the load.

    A scan of bytes, hundreds of times cheaper than parsing. An event named so in a nested object, or
    spelt with escapes, may be told wrongly: the first is let in for nothing, the second is asked to
    come again, as any other event is.
    """
    return any(name in body for name in _NAMES) and _NEVER_SHED.search(body) is not None


class Place:
    """A request that was let in: since when it waits for its turn, and how large it is."""

    __slots__ = ("plain_bytes", "since_ms")

    def __init__(self, since_ms: int, plain_bytes: int) -> None:
        self.since_ms = since_ms
        self.plain_bytes = plain_bytes


class Admission:
    """Decides who comes in, by how long others wait, and counts. Lives on one event loop.

    Consent, unsubscribe and complaint have places of their own, eight times as many: memory has an
    end even for them.

    Args:
        clock: Its monotonic side refills the buckets and tells how long others wait.
        requests_max: Requests in flight, beyond which new ones are refused.
        per_key_per_s: Requests a second of each write key; 0 is no limit. A key may save up one
            second's worth.
        waits: How long others wait, in the engine.
    """

    def __init__(
        self, clock: Clock, *, requests_max: int, per_key_per_s: int = 0,
        waits: Callable[[], Waits] = lambda: NO_WAITS,
    ) -> None:  # fmt: skip
        self._clock = clock
        self.requests_max = requests_max
        self.per_key_per_s = per_key_per_s
        self.plain_bytes = 0
        self.in_flight = 0
        """Requests that were let in and have no answer."""
        self._turn_at_ms: int | None = None
        self._waits = waits
        self._unbegun: dict[Place, None] = {}  # in the order of their coming
        self._calm_at_ms = clock.monotonic_ms()
        self._buckets: dict[str, tuple[int, int]] = {}
        self._looked = (0, 0)
        """Bytes looked into and not yet paid for, and when that was so."""

    def enter(self, plain_bytes: int) -> Place:
        """Take a place."""
        place = Place(self._clock.monotonic_ms(), plain_bytes)
        self._unbegun[place] = None
        self.in_flight += 1
        self.plain_bytes += plain_bytes
        return place

    def begin(self, place: Place) -> bool:
        """Say that a request has its turn; return whether it is the first of a turn of the loop."""
        self._unbegun.pop(place, None)
        if self._turn_at_ms is not None:
            return False
        self._turn_at_ms = self._clock.monotonic_ms()
        return True

    def end_turn(self) -> None:
        """Say that a turn of the loop is over."""
        self._turn_at_ms = None

    def turn_is_over(self) -> bool:
        """Return whether requests have been decoded for so long that the rest must come again."""
        if self._turn_at_ms is None:
            return False
        now = self._clock.monotonic_ms()
        longer = 10 if now - self._calm_at_ms < BURST_MS_MAX else 1
        return now - self._turn_at_ms > longer * TURN_MS_MAX

    def leave(self, place: Place) -> None:
        """Give a place back."""
        self._unbegun.pop(place, None)
        self.in_flight -= 1
        self.plain_bytes -= place.plain_bytes

    def pressed(self, plain_bytes: int = 0) -> str:
        """Return why nothing ordinary is taken in now, a reason for metrics; empty if it is.

        Args:
            plain_bytes: Of the request that wants in.
        """
        if self.in_flight >= self.requests_max:
            return "in_flight"
        now = self._clock.monotonic_ms()
        if self._unbegun and now - next(iter(self._unbegun)).since_ms > ENTRY_MS_MAX:
            return "slow_loop"
        durable_ms, folded_ms = self._waits()
        if folded_ms <= CALM_MS:
            self._calm_at_ms = now
        elif folded_ms > self._folded_ms_max(now):
            return "slow_fold"
        if durable_ms > DURABLE_MS_MAX:
            return "slow_append"
        return "memory" if self.plain_bytes + plain_bytes > PLAIN_BYTES_MAX else ""

    def _folded_ms_max(self, now: int) -> int:
        return BURST_MS_MAX if now - self._calm_at_ms < BURST_MS_MAX else STANDING_MS_MAX

    def full_for_all(self, plain_bytes: int = 0) -> bool:
        """Return whether even the places of what is never shed are taken."""
        return (
            self.in_flight >= self.requests_max * RESERVE_FACTOR
            or self.plain_bytes + plain_bytes > 2 * PLAIN_BYTES_MAX
        )

    def may_look(self, plain_bytes: int) -> bool:
        """Return whether a compressed body may be inflated to see what is in it, though others are refused."""
        if plain_bytes <= LOOK_FREE_BYTES:
            return True
        looked, since = self._looked
        now = self._clock.monotonic_ms()
        looked = max(looked - (now - since) * LOOK_BYTES_PER_S // 1000, 0)
        self._looked = (looked, now)
        if looked:
            return False
        self._looked = (plain_bytes, now)
        return True

    def spend(self, key: str) -> int:
        """Take a token of a key's bucket; return 0, or in how many whole seconds there is one.

        Whole numbers only: a bucket holds thousandths of a request, and refills by its rate in each
        millisecond.
        """
        rate = self.per_key_per_s
        if rate <= 0:
            return 0
        now = self._clock.monotonic_ms()
        held, since = self._buckets.get(key, (rate * 1000, now))
        held = min(rate * 1000, held + (now - since) * rate)
        if held >= 1000:
            self._buckets[key] = (held - 1000, now)
            return 0
        self._buckets[key] = (held, now)
        return -(-(1000 - held) // (rate * 1000)) or 1


def overloaded(retry_after_s: int) -> Overloaded:
    """Return the refusal of a request that others wait for."""
    return Overloaded("E430", "more arrives than this collector takes in",
                      fix="retry after the time in Retry-After", retry_after_s=retry_after_s)  # fmt: skip


def over_quota(seconds: int) -> Overloaded:
    """Return the refusal of a request over its key's rate."""
    return Overloaded("E431", "this write key sends more requests a second than it may",
                      fix="send batches, or raise `server.requests_per_s_per_key`",
                      retry_after_s=seconds)  # fmt: skip
