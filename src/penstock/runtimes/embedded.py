"""The embedded runtime: folds the log on the event loop, in slices, and writes leaves behind it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack

from penstock.core.errors import Fenced, Unavailable
from penstock.core.ids import LeafId, partition_of
from penstock.core.leaf import Leaf
from penstock.core.record import Kind, LogRecord, kind_of
from penstock.core.step import Step
from penstock.flows.generations import gone_on
from penstock.flows.native import new_fold
from penstock.flows.process import Folded, PartitionFold
from penstock.ports.appender import Waits
from penstock.ports.clock import Clock
from penstock.ports.log import Log
from penstock.ports.metrics import Metrics
from penstock.ports.profiles import LeafRead, VersionRead
from penstock.ports.store import Store
from penstock.ports.suppressions import Suppressions
from penstock.runtimes.appender import GroupAppender
from penstock.runtimes.lane import READ_RECORDS, Lane, away, held, peek, without_gaps

SLICE_RECORDS = 250
"""Records folded before the loop may serve a request: about 2 ms."""

FOLD_TURN_MS_MAX = 50
"""While records wait, folding takes as long of a turn of the loop as everything else took of the last, and
at most this: else a busy edge, whose turns are long, would leave the fold a slice of each."""

FLUSH_LEAVES = 250
"""Leaves encoded before the loop may serve a request: about 4 ms."""

CLOSE_REFUSALS_MAX = 10
"""How often the store may refuse before a draining engine ends without it."""

LIVE_LAG_MS = 1_000
"""A read is `live` while the oldest record waiting to be folded was logged at most this long ago."""


class EmbeddedEngine:
    """Folds every partition in this process and answers `live` reads from memory.

    All state is touched on one event loop; only commits run on other threads. `start` catches up
    with the log; after that records come from the appender in the log's order.

    Args:
        log: The canonical log.
        store: Where leaves are written.
        suppressions: The register, which the fold writes too: that heals a kill between the append
            and the edge's own write.
        step: The step of the live definitions.
        epoch: Their epoch.
        clock: For stamps and waiting times.
        metrics: Where to count.
        flush_ms: How long a changed leaf may wait to be written.
        cached_max: Decoded leaves held a partition.
        covered: By partition, the last offset that the leaves of the epoch before covered: the links
            of records up to there are in the log, so folding them anew appends none. Empty for none.
    """

    def __init__(  # noqa: PLR0913 - the one place where an engine's parts meet
        self, *, log: Log, store: Store, suppressions: Suppressions, step: Step, epoch: int, clock: Clock,
        metrics: Metrics, flush_ms: int = 1_000, cached_max: int = 200_000, covered: Sequence[int] = (),
    ) -> None:  # fmt: skip
        self.log, self.folds_here = log, True
        self.store = store
        self.suppressions = suppressions
        self.step = step
        self.epoch = epoch
        self.clock = clock
        self.metrics = metrics
        self.flush_ms = flush_ms
        self.appender = GroupAppender(log, clock, metrics, self._on_appended, self._waiting)
        self._lanes = [
            Lane(
                new_fold(step=step, store=store, epoch=epoch, partition=partition,
                         generation=log.generation, cached_max=cached_max)
            )
            for partition in range(log.partitions)
        ]  # fmt: skip
        self._covered = [*covered] or [-1] * log.partitions
        self._unkept = [Folded([], [], [], []) for _ in self._lanes]
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="penstock-store")
        # Only of a remote store: reads need not wait for what is written.
        self._reads = ThreadPoolExecutor(4, thread_name_prefix="penstock-read")
        self._wake = asyncio.Event()
        self._owing = asyncio.Event()
        self._folded = asyncio.Condition()
        self._tasks: list[asyncio.Task[None]] = []
        self._caught_up = False
        self._closing = False
        self._held = False
        self._failure: BaseException | None = None
        self._tallied = [0] * 4

    # -- life

    async def start(self) -> None:
        """Catch up with the log in slices, then fold what the appender appends."""
        # The links that one partition asks for land in others, which may have been read to their end.
        while [lane for lane in self._lanes if await self._catch_up(lane)]:
            pass
        self._caught_up = True
        for lane in self._lanes:
            # Appended while another partition was read, and handed over to nobody.
            lane.behind = True
            await lane.read_on(self.log, self._thread)
        self._wake.set()
        self._tasks = [
            asyncio.create_task(self._fold_loop(), name="penstock-fold"),
            asyncio.create_task(self._keep_loop(), name="penstock-links"),
            asyncio.create_task(self._flush_loop(), name="penstock-flush"),
        ]

    async def _catch_up(self, lane: Lane) -> bool:
        """Fold a partition to its end; return whether there was anything to fold."""
        loop = asyncio.get_running_loop()
        found = False
        while batch := await loop.run_in_executor(
            self._thread, self.log.read, lane.fold.partition, lane.fold.next_offset, READ_RECORDS
        ):
            found = True
            lane.take(batch)
            while lane.waiting:
                await self._fold_slice(lane)
                await asyncio.sleep(0)
            await self._flush(lane)
        return found

    async def close(self) -> None:
        """Drain: commit what waits, fold it, write every leaf, end the threads.

        A store that goes on refusing does not hold the process: the log has what it did not take.
        """
        self._closing = True
        await self.appender.drained()
        self._wake.set()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for lane in self._lanes:
            async with lane.flushing:
                pass  # the flush that the loop above had begun
        if self._failure is None:
            for lane in self._lanes:
                await self._write_all(lane)
        await self.appender.close()
        self._thread.shutdown(wait=True)
        self._reads.shutdown(wait=True)
        self.publish()

    async def _write_all(self, lane: Lane) -> None:
        # A disk that is full stays full: what is not written is in the log, and folded at the start.
        refused = 0
        while refused < CLOSE_REFUSALS_MAX:
            if lane.astray:
                await self._seek_back(lane)
            while lane.waiting and not lane.astray:
                await self._fold_or_seek(lane)
            # Far behind, as after the store was emptied, the next start goes on.
            if not (lane.astray or lane.fold.owes() or self._owes(lane)):
                return
            if not await self._flush(lane):
                refused += 1

    # -- fold

    def _waiting(self) -> int:
        return sum(lane.waiting.size for lane in self._lanes)

    def waits(self) -> Waits:
        """Return how long the oldest has waited to be on disk, and to be folded."""
        logged = [lane.waiting.oldest().logged_at_ms for lane in self._lanes if lane.waiting.size]
        folded_ms = max(self.clock.now_ms() - min(logged), 0) if logged else 0
        return Waits(self.appender.waited_ms(), folded_ms)

    def _on_appended(self, partition: int, records: Sequence[LogRecord]) -> None:
        lane = self._lanes[partition]
        if self._caught_up:
            if not lane.behind:
                lane.take(without_gaps(records))
            self._wake.set()
        # Else they are read from the log: before them there may be others that nobody has read yet.

    async def _fold_loop(self) -> None:
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                left_at_ms = self.clock.monotonic_ms()
                busy = True
                while busy:
                    now_ms = self.clock.monotonic_ms()
                    until_ms = now_ms + min(now_ms - left_at_ms, FOLD_TURN_MS_MAX)
                    busy = await self._fold_for_a_turn(until_ms)
                    self.appender.make_room()
                    left_at_ms = self.clock.monotonic_ms()
                    await asyncio.sleep(0)
                if any(self._owes(lane) for lane in self._lanes):
                    self._owing.set()
                async with self._folded:
                    self._folded.notify_all()
        except Exception as error:
            self._fail(error)
            raise

    async def _fold_for_a_turn(self, until_ms: int) -> bool:
        """Fold a slice of each partition, and more until an instant; return whether records still wait."""
        while True:
            busy = False
            for lane in self._lanes:
                if lane.behind and not (lane.waiting or lane.astray):
                    busy = await lane.read_on(self.log, self._thread) or busy
                if lane.waiting and not (self._held or lane.astray):
                    await self._fold_or_seek(lane)
                    busy = busy or bool(lane.waiting) or lane.behind
            if not busy or self.clock.monotonic_ms() >= until_ms:
                return busy

    async def _fold_or_seek(self, lane: Lane) -> None:
        try:
            await self._fold_slice(lane)
        except (Fenced, Unavailable):
            # Records came from elsewhere too: what is in the log decides. Or the store is away.
            await self._seek_back(lane)

    async def _fold_slice(self, lane: Lane) -> None:
        fold, batch = lane.fold, lane.waiting.take(SLICE_RECORDS)
        if self.store.remote and (absent := fold.absent(batch)):
            starts = fold.starts
            loop = asyncio.get_running_loop()
            fold.take_in(
                absent, await loop.run_in_executor(self._reads, fold.look_up, absent), starts
            )
            if starts != fold.starts:
                return
        folded = fold.feed(batch)
        if folded.late:
            # Workers go on from the seal: nothing behind it may come to count as applied.
            fold.restart()
            raise gone_on()
        unkept = self._unkept[fold.partition]
        # A register that was lost is made again with the leaves, and merging twice changes nothing.
        unkept.suppressions.extend(folded.suppressions)
        if batch[-1].offset <= self._covered[fold.partition]:
            return
        unkept.links.extend(folded.links)
        unkept.letters.extend(folded.letters)
        if self._caught_up:
            age_ms = self.clock.now_ms() - batch[-1].logged_at_ms
            self.metrics.observe("penstock_freshness_seconds", max(age_ms, 0) / 1000)

    # -- write behind

    def _owes(self, lane: Lane) -> bool:
        unkept = self._unkept[lane.fold.partition]
        return bool(unkept.links or unkept.letters or unkept.suppressions)

    async def _keep_loop(self) -> None:
        """Append links as soon as they are known: the other side of an edge waits for nothing else."""
        try:
            while True:
                await self._owing.wait()
                self._owing.clear()
                for lane in self._lanes:
                    async with lane.flushing:
                        try:
                            await self._keep(lane.fold.partition)
                        except (Fenced, Unavailable):
                            await self._seek_back(lane)
        except Exception as error:
            self._fail(error)
            raise

    async def _flush_loop(self) -> None:
        try:
            while True:
                await asyncio.sleep(self.flush_ms / 1000)
                await self._look_after_the_store()
                self._look_after_the_log()
                for lane in self._lanes:
                    if lane.fold.owes() or self._owes(lane):
                        await self._flush(lane)
                self.publish()
        except Exception as error:
            self._fail(error)
            raise

    def _look_after_the_log(self) -> None:
        """Read on what others appended, or what is there though it was not acknowledged."""
        behind = [lane.fall_behind(self.log) for lane in self._lanes] if self.log.shared else []
        if any(behind):
            self._wake.set()

    async def _look_after_the_store(self) -> None:
        """Find out that the store is away, back, or not what it was, also while nothing is written."""
        found = True
        if self.store.remote:
            try:
                await asyncio.get_running_loop().run_in_executor(self._reads, self.store.check)
            except Unavailable:
                found = False
        for lane in self._lanes:
            if lane.astray or not found or lane.fold.adrift():
                async with lane.flushing:
                    await self._seek_back(lane)

    async def _flush(self, lane: Lane) -> bool:
        """Make links, letters and suppressions durable, then write the leaves that cover them.

        Return whether all that was asked for is written; if not, the fold was sought back.

        One flush at a time: two would write a leaf from one base, and while the second is being
        refused the first could go on and note an applied offset beyond what was refused. A caller
        that goes away does not stop it between taking leaves and knowing what became of them.
        """
        return await asyncio.shield(asyncio.create_task(self._flush_alone(lane)))

    async def _flush_alone(self, lane: Lane) -> bool:
        async with lane.flushing:
            return not lane.astray and await self._flush_all(lane)

    async def _flush_all(self, lane: Lane) -> bool:
        loop = asyncio.get_running_loop()
        fold = lane.fold
        # What changes while this flush runs waits for the next one: it mostly changes again.
        until = fold.next_offset
        while True:
            try:
                flush = fold.take(FLUSH_LEAVES, before=until)
                lane.writing = 0 if flush is None else len(flush.writes)
                # All links of the primaries that the leaves taken cover, before any of the leaves.
                await self._keep(fold.partition)
                if flush is None:
                    return True
                started = self.clock.monotonic_ms()
                verdicts = await loop.run_in_executor(self._thread, fold.write, flush)
                fold.written(flush, verdicts)
                self.metrics.observe(
                    "penstock_store_write_seconds", (self.clock.monotonic_ms() - started) / 1000
                )
            except (Fenced, Unavailable):
                # It is not known what the store holds: go by its own record, from the log.
                await self._seek_back(lane)
                return False
            finally:
                lane.writing = 0

    async def _keep(self, partition: int) -> None:
        unkept = self._unkept[partition]
        lane = self._lanes[partition]
        folded = lane.fold.next_offset - 1
        if not (unkept.links or unkept.letters or unkept.suppressions):
            lane.kept = max(lane.kept, folded)
            return
        self._unkept[partition] = Folded([], [], [], [])
        try:
            if unkept.suppressions:
                await asyncio.get_running_loop().run_in_executor(
                    self._thread, self.suppressions.put, unkept.suppressions
                )
            if unkept.links or unkept.letters:
                await self.appender.append_owed(unkept.links, unkept.letters)
        except BaseException:
            # Cancelled too, by `close`: it is not known what is in the log, and appending twice is
            # harmless, while a leaf that is written without its links loses an edge for good.
            fresh = self._unkept[partition]
            self._unkept[partition] = Folded(
                unkept.links + fresh.links,
                unkept.letters + fresh.letters,
                unkept.suppressions + fresh.suppressions,
                [],
            )
            raise
        lane.kept = max(lane.kept, folded)
        self.metrics.count("penstock_links_appended_total", len(unkept.links))

    async def _seek_back(self, lane: Lane) -> None:
        """Go on from the store's own record; if it does not say, nothing is folded until it does."""
        partition = lane.fold.partition
        lane.astray = lane.behind = True
        lane.waiting.clear()
        try:
            if self.store.remote:
                # Asked on another thread first: here it would hold the loop for as long as it is away.
                await asyncio.get_running_loop().run_in_executor(
                    self._reads, self.store.applied, self.epoch, partition
                )
            lane.fold.restart()
        except Unavailable:
            return
        # What was read or folded while the store was asked is of before. Folded again records ask for
        # the same again, beyond what is durable.
        lane.waiting.clear()
        self._unkept[partition] = Folded([], [], [], [])
        self._covered[partition] = max(self._covered[partition], lane.kept)
        lane.astray, lane.behind = False, True
        self._wake.set()

    def _fail(self, error: BaseException) -> None:
        self._failure = error

    # -- another set of leaves

    @property
    def folds(self) -> list[PartitionFold]:
        """The folds that serve, by partition."""
        return [lane.fold for lane in self._lanes]

    def serves(self, fold: PartitionFold) -> bool:
        """Return whether a first partition's fold is the one that serves."""
        return fold is self._lanes[0].fold

    async def switch(
        self, folds: Sequence[PartitionFold], commit: Callable[[list[int]], Awaitable[None]],
        swapped: Callable[[], None] = lambda: None,
    ) -> None:  # fmt: skip
        """Let other folds of this log serve from now on, between two batches.

        All that the records folded so far ask for is made durable first, then the folds are brought
        to the very same offset, then the switch is committed, then they change places. A stop at any
        point leaves one of the two sets serving, and neither lacks anything.

        Args:
            folds: By partition; close behind, and fed and written by nobody else meanwhile.
            commit: Makes the switch durable, given the offset by partition up to which all that
                records ask for is. If it raises, nothing is switched.
            swapped: Told in the very step in which they change places: no read comes in between.
        """
        async with AsyncExitStack() as held:
            for lane in self._lanes:
                await held.enter_async_context(lane.flushing)
            self._held = True
            try:
                for lane in self._lanes:
                    await self._keep(lane.fold.partition)
                for lane, fold in zip(self._lanes, folds, strict=True):
                    await self._level(fold, lane.fold.next_offset)
                covered = [lane.fold.next_offset - 1 for lane in self._lanes]
                await commit(covered)
                self.publish()
                for lane, fold, offset in zip(self._lanes, folds, covered, strict=True):
                    lane.fold = fold
                    self._covered[fold.partition] = max(self._covered[fold.partition], offset)
                self.step, self.epoch = folds[0].step, folds[0].epoch
                self._tallied = self._tallies()
                swapped()
            finally:
                self._held = False
                self._wake.set()

    async def _level(self, fold: PartitionFold, end: int) -> None:
        loop = asyncio.get_running_loop()
        while fold.next_offset < end:
            limit = min(SLICE_RECORDS, end - fold.next_offset)
            fold.feed(
                await loop.run_in_executor(
                    self._thread, self.log.read, fold.partition, fold.next_offset, limit
                )
            )
        assert fold.next_offset == end, "nobody folds beyond what serves"

    def _tallies(self) -> list[int]:
        tallies = [lane.fold.tally for lane in self._lanes]
        return [
            sum(tally.applied for tally in tallies),
            sum(tally.deduplicated for tally in tallies),
            sum(tally.dropped for tally in tallies),
            sum(tally.dead for tally in tallies),
        ]

    # -- reads

    async def read(self, leaves: Sequence[LeafId]) -> LeafRead:
        """Return leaves as of now, from memory or the store. See `ports.profiles.Profiles`."""
        return LeafRead(await self.peek(self.folds, leaves), *self.standing())

    def at_hand(self, leaves: Sequence[LeafId]) -> VersionRead | None:
        """Return the versions of leaves that are held. See `ports.profiles.Profiles`."""
        found = held(self.folds, leaves)
        return None if found is None else VersionRead(found, *self.standing())

    async def peek(
        self, folds: Sequence[PartitionFold], leaves: Sequence[LeafId]
    ) -> list[Leaf | None]:
        """Return leaves as some folds of this log have them, by partition; see `lane.peek`."""
        astray = any(lane.astray for lane in self._lanes)
        return await peek(folds, leaves, self._reads, astray=astray)

    def standing(self) -> tuple[int, bool]:
        """Return `as_of_ms` and `live`, of one instant."""
        now_ms = self.clock.now_ms()
        as_of_ms = self._as_of_ms(now_ms)
        return as_of_ms, self._live(as_of_ms, now_ms)

    def find(self, leaf: LeafId) -> Leaf | None:
        """Return one leaf as it is now, for the edge in this process."""
        lane = self._lanes[partition_of(leaf, len(self._lanes))]
        if lane.astray and leaf not in lane.fold.cache:
            raise away()
        return lane.fold.peek([leaf])[0]

    def as_of_ms(self) -> int:
        """Return the instant up to which the log is reflected in memory."""
        return self._as_of_ms(self.clock.now_ms())

    def _as_of_ms(self, now_ms: int) -> int:
        if not self._caught_up:
            return min((lane.fold.last_logged_at_ms for lane in self._lanes), default=0)
        as_of_ms = now_ms
        for lane in self._lanes:
            if lane.waiting.size:
                as_of_ms = min(as_of_ms, lane.waiting.oldest().logged_at_ms)
            elif lane.behind:
                as_of_ms = min(as_of_ms, lane.fold.last_logged_at_ms)
        return as_of_ms

    def live(self) -> bool:
        """Return whether reads reflect everything up to a second ago."""
        return self.standing()[1]

    def _live(self, as_of_ms: int, now_ms: int) -> bool:
        return self._caught_up and self._failure is None and now_ms - as_of_ms <= LIVE_LAG_MS

    def lag(self) -> int:
        """Return how many records of the log are not folded yet."""
        return sum(
            self.log.head(lane.fold.partition) - lane.fold.next_offset for lane in self._lanes
        )

    async def folded(self) -> None:
        """Wait until everything that is in the log now is folded."""
        self._look_after_the_log()
        heads = [self.log.head(lane.fold.partition) for lane in self._lanes]

        def reached() -> bool:
            return self._failure is not None or all(
                lane.fold.next_offset >= head for lane, head in zip(self._lanes, heads, strict=True)
            )

        async with self._folded:
            self._wake.set()
            await self._folded.wait_for(reached)

    async def settled(self) -> None:
        """Wait until everything is folded and written, links included."""
        await self.folded()
        while self._failure is None and any(
            lane.fold.owes() or self._owes(lane) for lane in self._lanes
        ):
            for lane in self._lanes:
                await self._flush(lane)
            await self.folded()

    def ready(self) -> tuple[bool, str]:
        """Return whether events can be taken and folded, and if not, why."""
        if self._failure is not None:
            return False, f"the fold stopped: {type(self._failure).__name__}"
        if self._closing:
            return False, "the engine is draining"
        refused = self.appender.refuses()
        return not refused, refused

    def publish(self) -> None:
        """Bring the metrics up to date with the folds' own counts."""
        sums = self._tallies()
        before, self._tallied = self._tallied, sums
        count: Callable[..., None] = self.metrics.count
        count("penstock_events_applied_total", sums[0] - before[0])
        count("penstock_events_deduplicated_total", sums[1] - before[1])
        count("penstock_events_policy_dropped_total", sums[2] - before[2])
        if sums[3] > before[3]:
            count("penstock_events_dead_lettered_total", sums[3] - before[3], reason="E360")
        self.metrics.gauge(
            "penstock_leaves_dirty",
            sum(len(lane.fold.dirty) + lane.writing for lane in self._lanes),
        )
        self.metrics.gauge(
            "penstock_leaves_cached", sum(len(lane.fold.cache) for lane in self._lanes)
        )
        self.metrics.gauge(
            "penstock_events_in_flight",
            sum(
                kind_of(entry.value) == Kind.PRIMARY
                for lane in self._lanes
                for entry in lane.waiting
            ),
        )
        for lane in self._lanes:
            lag = self.log.head(lane.fold.partition) - lane.fold.next_offset
            self.metrics.gauge("penstock_fold_lag_records", lag, partition=str(lane.fold.partition))
