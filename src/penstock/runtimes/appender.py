"""Group commit: many async callers, one writing thread, any Log."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from penstock.core.errors import Overloaded, PenstockError, Unavailable
from penstock.core.record import DeadLetter, LogRecord, Record, encode_record, leaf_of
from penstock.ports.clock import Clock
from penstock.ports.log import Log
from penstock.ports.metrics import Metrics
from penstock.ports.spool import Spool
from penstock.runtimes.spooling import PASSING, Spooler

GROUP_RECORDS_MAX = 20_000
QUEUE_RECORDS_MAX = 50_000
QUEUE_BYTES_MAX = 64 * 1024 * 1024
SOJOURN_MS_MAX = 2_000
"""A queue whose head has waited longer takes no more, so that waiting never grows without bound."""

FOLD_WAITING_MAX = 100_000
"""Records that may wait to be folded; beyond it none are taken in, except what is never shed."""

URGENT_FACTOR = 2
"""What is never shed may wait in so many times the room of the rest; beyond that its callers wait."""

WOKEN_MAX = 256
"""Callers that are let go on at once when there is room again."""

FAILING_MS = 5_000
"""How long the process says that it is not ready after a commit failed."""

LEAD_MS_MAX = 5 * 60 * 1000
"""How far the wall clock may depart from the monotonic clock, or from the log's last stamp."""

APPENDS_AT_ONCE = 16
"""Batches that a shared log is given at once, each of another partition."""

OnAppended = Callable[[int, Sequence[LogRecord]], None]


class _Call(NamedTuple):
    values: list[bytes]
    letters: Sequence[DeadLetter]
    waiter: asyncio.Future[None]
    queued_at_ms: int
    value_bytes: int
    owed: bool
    """Leaves wait for it: it is in the log, or it failed."""


class _Lane:
    """The queue of one partition: whatever arrived while a commit ran becomes the next commit."""

    __slots__ = ("busy", "bytes", "committing_since_ms", "queue", "records")

    def __init__(self) -> None:
        self.queue: deque[_Call] = deque()
        self.records = 0
        self.bytes = 0
        self.busy = False
        self.committing_since_ms: int | None = None
        """When the oldest call of the commit that runs was queued."""


class GroupAppender:
    """Gathers callers and appends for them on threads of its own. Lives on one event loop.

    Args:
        log: Where to append.
        clock: For waiting times and readiness.
        metrics: Where to count.
        on_appended: Called on the loop with (partition, records) after each durable commit and
            before its callers wake, so that whoever folds sees the log's order.
        fold_waiting: How many records wait to be folded; beyond a bound no more are taken.
    """

    def __init__(
        self, log: Log, clock: Clock, metrics: Metrics, on_appended: OnAppended,
        fold_waiting: Callable[[], int] = lambda: 0,
    ) -> None:  # fmt: skip
        self._log = log
        self._clock = clock
        self._metrics = metrics
        self._on_appended = on_appended
        self._fold_waiting = fold_waiting
        self._lanes = [_Lane() for _ in range(log.partitions)]
        # One file has one writer. Brokers take a batch of each partition at a time, and all wait together.
        threads = APPENDS_AT_ONCE if log.shared else 1
        self._thread = ThreadPoolExecutor(threads, thread_name_prefix="penstock-append")
        self._spooler: Spooler | None = None
        self._commits: set[asyncio.Task[None]] = set()
        self._outside: deque[asyncio.Future[None]] = deque()
        """Urgent callers that wait until there is room, in the order of their coming."""
        self._wall_less_monotonic_ms = clock.now_ms() - clock.monotonic_ms()
        self._closed = False
        self._failed_at_ms: int | None = None

    def spool_into(self, spool: Spool) -> None:
        """Keep in a spool what the log does not acknowledge, but for what the fold owes; see `resume`."""
        self._spooler = Spooler(
            spool, log=self._log, appends=self._thread, clock=self._clock, metrics=self._metrics,
            on_appended=self._on_appended, full=lambda: self._fold_waiting() > FOLD_WAITING_MAX,
        )  # fmt: skip

    def resume(self) -> None:
        """Append what was kept in the spool before this process started."""
        if self._spooler is not None:
            self._spooler.begin()

    async def append(
        self,
        records: Sequence[Record | bytes],
        letters: Sequence[DeadLetter] = (),
        *,
        urgent: bool = False,
    ) -> None:
        """Append records and dead letters; durable on return. See `ports.appender.Appender`.

        What is urgent is never refused for want of room: its caller waits for it, and whoever asked the
        caller with it. So memory is bounded by how many may ask at once.
        """
        if urgent and (self._outside or self._full_for_urgent()):
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._outside.append(waiter)
            await waiter
        await self._append(records, letters, urgent=urgent)

    async def append_owed(
        self, records: Sequence[Record], letters: Sequence[DeadLetter] = ()
    ) -> None:
        """Append what the fold owes the log: links and letters, of which there are no more than it folds."""
        await self._append(records, letters, urgent=True, owed=True)

    def make_room(self) -> None:
        """Let urgent callers go on, as far as there is room; whoever folds says when there may be."""
        woken = 0
        while self._outside and woken < WOKEN_MAX and not self._full_for_urgent():
            waiter = self._outside.popleft()
            if not waiter.done():
                waiter.set_result(None)
                woken += 1

    def _full_for_urgent(self) -> bool:
        return self._fold_waiting() > URGENT_FACTOR * FOLD_WAITING_MAX or any(
            lane.records > URGENT_FACTOR * QUEUE_RECORDS_MAX
            or lane.bytes > URGENT_FACTOR * QUEUE_BYTES_MAX
            for lane in self._lanes
        )

    async def _append(
        self, records: Sequence[Record | bytes], letters: Sequence[DeadLetter], *, urgent: bool, owed: bool = False
    ) -> None:  # fmt: skip
        if self._closed:
            raise Unavailable("E401", "the log is closing", fix="retry; another process takes over")
        if self._log.partitions == 1:
            values = [one if isinstance(one, bytes) else encode_record(one) for one in records]
            await self._enqueue(0, values, letters, urgent, owed)
            return
        shares: dict[int, list[bytes]] = {}
        known = self._log.generations
        while len(self._lanes) < known.partitions:
            self._lanes.append(_Lane())
        for record in records:
            value = record if isinstance(record, bytes) else encode_record(record)
            partition = known.partition(leaf_of(value))
            shares.setdefault(partition, []).append(value)
        if letters and not shares:
            shares[0] = []
        first = next(iter(shares), 0)
        await asyncio.gather(
            *(
                self._enqueue(
                    partition, values, letters if partition == first else (), urgent, owed
                )
                for partition, values in shares.items()
            )
        )

    def require_clock(self) -> None:
        """Refuse to stamp while the wall clock is off.

        Raises:
            Unavailable: The wall clock departs more than 5 min from the monotonic clock or from
                the log's last stamp (E411); an operator mends it.
        """
        now = self._clock.now_ms()
        drift = now - self._clock.monotonic_ms() - self._wall_less_monotonic_ms
        behind = max(self._log.last_logged_at_ms(p) for p in range(len(self._lanes))) - now
        if abs(drift) > LEAD_MS_MAX or behind > LEAD_MS_MAX:
            raise Unavailable("E411", "the wall clock of this machine moved by more than 5 min",
                              fix="set the clock (NTP) and restart `penstock up`")  # fmt: skip

    def failing(self) -> bool:
        """Return whether a commit failed lately and none has succeeded since."""
        failed_at_ms = self._failed_at_ms
        return failed_at_ms is not None and self._clock.monotonic_ms() - failed_at_ms < FAILING_MS

    def refuses(self) -> str:
        """Return why nothing would be appended now; empty if it would."""
        if self.failing():
            return "the log did not take the last batch; see the disk of the data folder, or the brokers"
        try:
            self.require_clock()
        except Unavailable as error:
            return error.what
        return ""

    def waited_ms(self) -> int:
        """Return how long the oldest call has waited for its commit; 0 if none waits."""
        since = [
            lane.queue[0].queued_at_ms
            if lane.committing_since_ms is None
            else lane.committing_since_ms
            for lane in self._lanes
            if lane.queue or lane.committing_since_ms is not None
        ]
        return self._clock.monotonic_ms() - min(since) if since else 0

    def backlog(self) -> int:
        """Return how many records wait for a commit."""
        return sum(lane.records for lane in self._lanes)

    def _enqueue(
        self, partition: int, values: list[bytes], letters: Sequence[DeadLetter], urgent: bool, owed: bool
    ) -> asyncio.Future[None]:  # fmt: skip
        lane = self._lanes[partition]
        now = self._clock.monotonic_ms()
        size = sum(map(len, values))
        if not urgent and lane.queue and (
            lane.records + len(values) > QUEUE_RECORDS_MAX
            or lane.bytes + size > QUEUE_BYTES_MAX
            or now - lane.queue[0].queued_at_ms > SOJOURN_MS_MAX
        ):  # fmt: skip
            self._metrics.count("penstock_requests_shed_total", reason="append_queue")
            raise Overloaded("E410", "more events arrive than the log can keep",
                             fix="retry after the time in Retry-After", retry_after_s=1)  # fmt: skip
        if not urgent and self._fold_waiting() > FOLD_WAITING_MAX:
            self._metrics.count("penstock_requests_shed_total", reason="fold_lag")
            raise Overloaded("E410", "more events arrive than can be folded",
                             fix="retry after the time in Retry-After", retry_after_s=2)  # fmt: skip
        waiter = asyncio.get_running_loop().create_future()
        lane.queue.append(_Call(values, letters, waiter, now, size, owed))
        lane.records += len(values)
        lane.bytes += size
        if not lane.busy:
            lane.busy = True
            task = asyncio.create_task(self._commit(partition, lane))
            self._commits.add(task)
            task.add_done_callback(self._commits.discard)
        return waiter

    async def _commit(self, partition: int, lane: _Lane) -> None:
        try:
            while lane.queue:
                calls = self._next_group(lane)
                lane.committing_since_ms = calls[0].queued_at_ms
                try:
                    self.require_clock()
                    await self._append_group(partition, calls)
                except PenstockError as error:
                    _fail(calls, error)
                    continue
                for call in calls:
                    # A caller that went away must not take the group's answers with it.
                    if not call.waiter.done():
                        call.waiter.set_result(None)
                lane.committing_since_ms = None
                self.make_room()
        finally:
            lane.busy = False
            lane.committing_since_ms = None
            self.make_room()

    async def _append_group(self, partition: int, calls: Sequence[_Call]) -> None:
        values = [value for call in calls for value in call.values]
        letters = [letter for call in calls for letter in call.letters]
        spooler, fault = self._spooler, None
        if spooler is not None and spooler.holds(partition):
            if not calls[0].owed:
                await self._spool(spooler, partition, values, letters, None)
                return
            if (fault := spooler.away(partition)) is not None:
                raise fault
        started = self._clock.monotonic_ms()
        try:
            landed = await asyncio.get_running_loop().run_in_executor(
                self._thread, self._log.append, partition, values, letters
            )
        except Exception as error:  # a waiter must always be answered
            fault = error if isinstance(error, PenstockError) else Unavailable(
                "E401", f"the log failed: {type(error).__name__}", fix="retry; see `penstock doctor`"
            )  # fmt: skip
            if spooler is not None and not calls[0].owed and isinstance(fault, Unavailable) and fault.code in PASSING:  # fmt: skip
                await self._spool(spooler, partition, values, letters, fault)
                return
            self._failed_at_ms = self._clock.monotonic_ms()
            raise fault from error
        self._failed_at_ms = None
        self._metrics.observe(
            "penstock_append_seconds", (self._clock.monotonic_ms() - started) / 1000
        )
        self._metrics.observe("penstock_append_records", len(values))
        self._on_appended(partition, landed.records(values))

    async def _spool(
        self, spooler: Spooler, partition: int, values: Sequence[bytes], letters: Sequence[DeadLetter],
        fault: Unavailable | None,
    ) -> None:  # fmt: skip
        try:
            await spooler.keep(partition, values, letters, fault)
        except PenstockError:
            self._failed_at_ms = self._clock.monotonic_ms()
            raise
        self._failed_at_ms = None

    def _next_group(self, lane: _Lane) -> list[_Call]:
        calls: list[_Call] = []
        taken = 0
        while lane.queue and (
            not calls
            or (
                taken + len(lane.queue[0].values) <= GROUP_RECORDS_MAX
                # What is owed does not wait in a spool with the rest.
                and (self._spooler is None or lane.queue[0].owed == calls[0].owed)
            )
        ):
            call = lane.queue.popleft()
            calls.append(call)
            taken += len(call.values)
            lane.bytes -= call.value_bytes
        lane.records -= taken
        return calls

    async def drained(self) -> None:
        """Wait until nothing waits for a commit."""
        while self._commits:
            await asyncio.gather(*self._commits, return_exceptions=True)
            self.make_room()

    async def close(self) -> None:
        """Take no more, finish the commits under way, and end the thread."""
        self._closed = True
        for waiter in self._outside:
            if not waiter.done():
                waiter.set_result(None)  # to hear that the log is closing
        self._outside.clear()
        await self.drained()
        if self._spooler is not None:
            await self._spooler.close()
        self._thread.shutdown(wait=True)


def _fail(calls: Sequence[_Call], error: PenstockError) -> None:
    for call in calls:
        if not call.waiter.done():
            call.waiter.set_exception(error)
