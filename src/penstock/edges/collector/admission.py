"""Who may come in: how long others wait, a token bucket per write key, and what is never refused.

The queue that matters is the whole way in: from a request's admission until its events are on disk, and
from there until they are folded. It is watched by the age of its head, as CoDel does, since age is what
people feel and what a fast and a slow machine have in common; a limit on lengths is only the last
resort. What is let in at each turn of the loop bounds how long a turn is, and so how long answers take
(`Pace`). The fold may be behind for a second in a burst; a queue that does not empty is a standing one,
and is held to a quarter of that. Refusing costs a look at the clock, before anything is inflated, decoded
or looked up.

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
"""With so many times the requests in flight nothing more is inflated to look for consent, unsubscribe and
complaint in it. What holds them in plain is let in whatever the load."""

TURN_US = 20_000
"""Of the loop's time: what is let in at one of its turns. Measured, longer turns cost less for each event, and
answers take about five of them."""

BURST_TURNS = 3
"""What turns that let in less leave to a later one, in turns: for a burst, and for what has gathered while the
loop was kept waiting."""

TURNS_MAX = 8
"""Under way at once, in turns: while a commit stalls, those behind it are told to come again."""

FEW = 64
"""So many requests under way are let in however large they are: who waits for answers before sending more is
no overload."""

PACE_MS = 100
"""How often the rate of work is looked at."""

REQUEST_WORK = 512
"""A request costs as much time as so many bytes of it: measured, 80 µs beside 0.14 µs a byte."""

WORK_MIN = 16 * 1024
WORK_FIRST = 128 * 1024
"""Of the work of a turn, in bytes: never less, and assumed until it is known."""

DURABLE_MS_MAX = 500
"""While the oldest events have waited longer to be on disk, none are let in."""

CALM_MS = 50
"""A fold so little behind is up to date."""

STANDING_MS_MAX = 250
"""How far the fold may be behind if it has not been up to date for as long as a burst may last."""

BURST_MS_MAX = 1_000
"""How far the fold may be behind for a burst, and how long a burst lasts."""

PLAIN_BYTES_MAX = 64 * 1024 * 1024
"""Of the bodies of all requests in flight, in plain; to look into compressed ones there is as much again."""

HINTS_S = (1, 4, 2, 5, 3)
"""What refused clients are told in turn, so that they spread, and a burst does not come again as one."""

HURRY_MS = 1_000
"""For so long after the last refusal others are to spare the loop what they can."""

LOOK_BYTES_PER_S = 32 * 1024 * 1024
"""While requests are refused, compressed bodies are inflated at this rate to look for what is never
refused: a tenth of a core. One event (`LOOK_FREE_BYTES`) is always looked into."""

LOOK_FREE_BYTES = 32 * 1024

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
    return _NEVER_SHED.search(body) is not None


class Pace:
    """How much is let in at each turn of the loop: what it does in so much of its own time.

    Whoever is let in waits for some turns: to be read, to be on disk, to be answered. So a short turn has
    nobody wait long, and where more arrives than a turn takes, the next one follows at once: no time is
    lost, whatever the rate is thought to be. It is the loop's CPU time that counts, not the clock: where a
    slow disk or a busy neighbour keeps the loop waiting, letting in fewer would have nobody wait less.

    Work is counted in bytes, with so many for each request as cost as much time as its handling.

    Args:
        clock: Tells when to look at the rate again.
        spent_us: The CPU time that the loop's thread has used, in µs.
    """

    def __init__(self, clock: Clock, spent_us: Callable[[], int]) -> None:
        self._clock = clock
        self._spent_us = spent_us
        self.turn_work = WORK_FIRST
        """Let in at a turn."""
        self.left = self.turn_work * BURST_TURNS
        """Of it, at this turn."""
        self._looked_at_ms = clock.monotonic_ms()
        self._used_us = spent_us()
        # Lately, the further back the less: what was let in, and the time that the loop took meanwhile.
        self._done = WORK_FIRST
        self._took_us = TURN_US

    def spend(self, work: int) -> None:
        """Take note of work that is let in."""
        self.left -= work
        self._done += work

    def next_turn(self) -> None:
        """Begin a turn: what those before it have left is added to it, up to a limit."""
        now = self._clock.monotonic_ms()
        if now - self._looked_at_ms >= PACE_MS:
            self._looked_at_ms = now
            self._settle()
        self.left = min(max(self.left, 0) + self.turn_work, BURST_TURNS * self.turn_work)

    def _settle(self) -> None:
        used_us = self._spent_us()
        self._took_us += used_us - self._used_us
        self._used_us = used_us
        self.turn_work = max(self._done * TURN_US // max(self._took_us, 1), WORK_MIN)
        if self._took_us > TURN_US:  # the last turns are not forgotten for want of newer ones
            self._done = self._done * 3 // 4
            self._took_us = self._took_us * 3 // 4


class Admission:
    """Decides who comes in, by how long others wait, and counts. Lives on one event loop.

    Consent, unsubscribe and complaint are let in whatever the load: of each connection one at a time, whose
    body is in memory by then. What becomes of them beyond that waits for room, and with it the connection.

    Args:
        clock: Its monotonic side refills the buckets and tells how long others wait.
        requests_max: Requests in flight, beyond which new ones are refused.
        per_key_per_s: Requests a second of each write key; 0 is no limit. A key may save up one
            second's worth.
        waits: How long others wait, in the engine.
        spent_us: The CPU time that the loop's thread has used, in µs; the clock if nobody tells.
    """

    def __init__(
        self, clock: Clock, *, requests_max: int, per_key_per_s: int = 0,
        waits: Callable[[], Waits] = lambda: NO_WAITS, spent_us: Callable[[], int] | None = None,
    ) -> None:  # fmt: skip
        self._clock = clock
        self.requests_max = requests_max
        self.per_key_per_s = per_key_per_s
        self.plain_bytes = 0
        self.in_flight = 0
        """Requests that were let in and have no answer."""
        self._pace = Pace(clock, spent_us or (lambda: 1_000 * clock.monotonic_ms()))
        self._in_turn = False
        self._under_way = 0
        """Work that was let in and has no answer."""
        self._refused_at_ms = clock.monotonic_ms() - HURRY_MS - 1
        self._asked_at_ms = -1
        self._waited = ""
        """For what others wait too long, as of then."""
        self._waits = waits
        self._calm_at_ms = clock.monotonic_ms()
        self._buckets: dict[str, tuple[int, int]] = {}
        self._looked = (0, 0)
        """Bytes looked into and not yet paid for, and when that was so."""

    def enter(self, plain_bytes: int) -> int:
        """Take a place; return the work of it. What is let in though others are not takes nothing of theirs."""
        work = 0 if self.pressed() else plain_bytes + REQUEST_WORK
        self._pace.spend(work)
        self._under_way += work
        self.in_flight += 1
        self.plain_bytes += plain_bytes
        return work

    def begins_turn(self) -> bool:
        """Return whether this is the first of a turn of the loop, whose end is to be told."""
        first, self._in_turn = not self._in_turn, True
        return first

    def end_turn(self) -> None:
        """Say that a turn of the loop is over."""
        self._in_turn = False
        self._pace.next_turn()

    def leave(self, plain_bytes: int, work: int) -> None:
        """Give a place back, as it was taken."""
        self._under_way -= work
        self.in_flight -= 1
        self.plain_bytes -= plain_bytes

    def pressed(self, plain_bytes: int = 0) -> str:
        """Return why nothing ordinary is taken in now, a reason for metrics; empty if it is.

        Args:
            plain_bytes: Of the request that wants in.
        """
        if self.in_flight >= self.requests_max:
            return "in_flight"
        if self.in_flight >= FEW:
            if self._pace.left <= 0:
                return "full_turn"
            if self._under_way >= TURNS_MAX * self._pace.turn_work:
                return "slow_answers"
        if self.plain_bytes + plain_bytes > PLAIN_BYTES_MAX:
            return "memory"
        now = self._clock.monotonic_ms()
        if now != self._asked_at_ms:  # a refusal is to cost little: ages are looked at once in a ms
            self._asked_at_ms, self._waited = now, self._wait(now)
        return self._waited

    def _wait(self, now: int) -> str:
        durable_ms, folded_ms = self._waits()
        if folded_ms <= CALM_MS:
            self._calm_at_ms = now
        elif folded_ms > self._folded_ms_max(now):
            return "slow_fold"
        return "slow_append" if durable_ms > DURABLE_MS_MAX else ""

    def _folded_ms_max(self, now: int) -> int:
        return BURST_MS_MAX if now - self._calm_at_ms < BURST_MS_MAX else STANDING_MS_MAX

    def refused(self) -> None:
        """Take note that somebody was turned away."""
        self._refused_at_ms = self._clock.monotonic_ms()

    def hurried(self) -> bool:
        """Return whether somebody was turned away lately."""
        return self._clock.monotonic_ms() - self._refused_at_ms <= HURRY_MS

    def may_inflate(self, plain_bytes: int) -> bool:
        """Return whether a compressed body may be inflated to see what is in it, though others are refused."""
        if (
            self.in_flight >= self.requests_max * RESERVE_FACTOR
            or self.plain_bytes + plain_bytes > 2 * PLAIN_BYTES_MAX
        ):
            return False
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
