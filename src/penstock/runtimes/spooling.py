"""What the log did not acknowledge goes to the spool, and from there to the log, in its order."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import suppress
from typing import Final

from penstock.core.errors import DataCorrupt, PenstockError, Unavailable
from penstock.core.record import DeadLetter, LogRecord, leaf_of
from penstock.ports.clock import Clock
from penstock.ports.log import Log
from penstock.ports.metrics import Metrics
from penstock.ports.spool import Spool

log_spool = logging.getLogger("penstock.spool")

AGAIN_S: Final = 0.5
"""How long after the log did not answer it is asked again: an append waits for it by itself."""

CLOSE_S: Final = 10.0
"""How long whoever ends goes on appending what waits: the machine may be gone after it."""

ROOM_S: Final = 0.02

PASSING: Final = frozenset({"E401", "E438"})
"""Brokers do not answer, or too few of them: what a batch can wait for. What they refuse is refused."""


class Spooler:
    """The spool of one appender. Lives on its event loop.

    While batches of a partition wait, all that come later wait behind them: their order stays.

    Args:
        spool: Where they wait.
        log: Where they are appended in the end.
        appends: The threads on which that is done.
        clock: Stamps what is kept.
        metrics: Where to count.
        on_appended: Told of what was appended, as whoever folds is of everything else.
        full: Whether as much waits to be folded as may.
    """

    def __init__(
        self, spool: Spool, *, log: Log, appends: Executor, clock: Clock, metrics: Metrics,
        on_appended: Callable[[int, Sequence[LogRecord]], None], full: Callable[[], bool] = lambda: False,
    ) -> None:  # fmt: skip
        self._full = full
        self._spool = spool
        self._log = log
        self._appends = appends
        self._clock = clock
        self._metrics = metrics
        self._on_appended = on_appended
        # One thread: a file has one writer, and what is put waits for no look of another.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="penstock-spool")
        self._holding = {partition: asyncio.Lock() for partition in spool.partitions()}
        """The partitions of which something waits, or may; while one is held, neither is changed."""
        self._drains: dict[int, asyncio.Task[None]] = {}
        self._away: dict[int, Unavailable] = {}
        """By partition, why the last batch of it that waits was not appended."""
        self._closing = False
        self._gauge()

    def holds(self, partition: int) -> bool:
        """Return whether what comes now has to wait behind others."""
        return partition in self._holding

    def away(self, partition: int) -> Unavailable | None:
        """Return why the log is known not to take anything of a partition, without asking it."""
        return self._away.get(partition)

    def begin(self) -> None:
        """Append what waits since before this process started."""
        for partition in self._holding:
            self._drain_soon(partition)

    async def keep(
        self, partition: int, values: Sequence[bytes], letters: Sequence[DeadLetter], fault: Unavailable | None = None
    ) -> None:  # fmt: skip
        """Keep a batch; durable on return.

        Args:
            partition: Its own.
            values: Records.
            letters: Dead letters that go with them.
            fault: Why the log did not take it, if it was asked.

        Raises:
            Unavailable: There is no room, or the disk did not take it (E460, E461).
        """
        if fault is not None:
            self._away[partition] = fault
        lock = self._holding.setdefault(partition, asyncio.Lock())
        try:
            async with lock:
                await self._do(self._spool.put, partition, values, letters, self._clock.now_ms())
        finally:
            # Also if it was not kept: whoever drains finds out whether anything waits.
            self._holding.setdefault(partition, lock)
            self._drain_soon(partition)
        self._metrics.count("penstock_spooled_records_total", len(values))
        await self._do(self._gauge)

    async def _do(self, work: Callable[..., object], *args: object) -> object:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work, *args)

    def _drain_soon(self, partition: int) -> None:
        if partition not in self._drains and not self._closing:
            task = asyncio.create_task(self._drain(partition), name=f"penstock-drain-{partition}")
            self._drains[partition] = task

    async def _drain(self, partition: int) -> None:
        """Append what waits of a partition, until nothing does."""
        try:
            while not self._closing and await self._goes_on(partition):
                pass
        finally:
            # In the very step in which nothing was found: what is kept after it begins another.
            del self._drains[partition]

    async def _goes_on(self, partition: int) -> bool:
        try:
            return await self._drain_one(partition)
        except DataCorrupt as error:
            log_spool.warning(
                "%s: %s (%s); fix: %s", error.code, error.what, error.where, error.fix
            )
            await self._do(self._gauge)
        except PenstockError as error:
            self._say(partition, error)
            if isinstance(error, Unavailable):
                self._away[partition] = error
            await asyncio.sleep(AGAIN_S)
        return True

    async def _drain_one(self, partition: int) -> bool:
        """Append the next batch of a partition; return whether there was one."""
        async with self._holding[partition]:
            batch = await asyncio.get_running_loop().run_in_executor(
                self._thread, self._spool.next, partition
            )
            if batch is None:
                del self._holding[partition]
                self._away.pop(partition, None)
                return False
        if self._full():
            await asyncio.sleep(ROOM_S)  # what waits on disk waits for whoever folds, not in memory
            return True
        for place, (to, values) in enumerate(self._shares(batch.values).items()):
            landed = await asyncio.get_running_loop().run_in_executor(
                self._appends, self._log.append, to, values, batch.letters if place == 0 else ()
            )
            self._on_appended(to, landed.records(values))
        if self._away.pop(partition, None) is not None:
            log_spool.warning(
                "partition %d: the log answers again; what waited is appended", partition
            )
        # Killed before this it is appended again: the step knows it by its message ids.
        await self._do(self._spool.done, batch.number)
        self._metrics.count("penstock_spool_drained_records_total", len(batch.values))
        await self._do(self._gauge)
        return True

    def _shares(self, values: Sequence[bytes]) -> dict[int, list[bytes]]:
        """Return a batch by the partitions of the log as it is now: it may have others than when it was kept."""
        known = self._log.generations
        shares: dict[int, list[bytes]] = {}
        for value in values:
            shares.setdefault(known.partition(leaf_of(value)), []).append(value)
        return shares or {known.of(known.newest)[0]: []}

    def _say(self, partition: int, error: PenstockError) -> None:
        known = self._away.get(partition)
        if known is None or known.code != error.code:
            log_spool.warning(
                "partition %d: %s: %s; events wait on this machine's disk",
                partition,
                error.code,
                error.what,
            )

    def _gauge(self) -> None:
        with suppress(PenstockError):
            counts = self._spool.counts()
            self._metrics.gauge("penstock_spool_records", counts.records)
            self._metrics.gauge("penstock_spool_bytes", counts.size_bytes)
            self._metrics.gauge("penstock_spool_since_seconds", counts.oldest_ms / 1000)
            self._metrics.gauge("penstock_spool_damaged_batches", counts.damaged)

    async def close(self) -> None:
        """Append what waits if the log answers, for a while; what stays is appended after the next start."""
        answering = [
            task for partition, task in self._drains.items() if partition not in self._away
        ]
        if answering:
            await asyncio.wait(answering, timeout=CLOSE_S)
        self._closing = True
        drains = [*self._drains.values()]
        for task in drains:
            task.cancel()
        await asyncio.gather(*drains, return_exceptions=True)
        self._thread.shutdown(wait=True)
