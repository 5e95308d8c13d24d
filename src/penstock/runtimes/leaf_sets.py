"""Sets of leaves that are folded beside the one that serves: built, kept, and read by who pins them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from penstock.core.errors import Fenced, PenstockError, Unavailable
from penstock.core.ids import LeafId
from penstock.core.step import Step
from penstock.flows.native import new_fold
from penstock.flows.process import PartitionFold
from penstock.ports.log import LogRecord
from penstock.ports.profiles import LeafRead, VersionRead
from penstock.runtimes.embedded import FLUSH_LEAVES, LIVE_LAG_MS, SLICE_RECORDS, EmbeddedEngine
from penstock.runtimes.engine import Commit
from penstock.runtimes.lane import held

READ_RECORDS = 2_000
DIRTY_MAX = 20_000
"""Changed leaves of a set that is being built before they are written: they change again."""

CLOSE_RECORDS = 1_000
"""A set this close behind can take over: what is left is folded while the other is held."""

BUILDING_PACE = 5
"""How much longer than `flush_ms` leaves wait while their set is built: what a crash costs of it."""

AWAY_S = 0.25
"""How long a follower rests when the store did not answer."""

IDLE_S = 0.02
"""How long a follower rests when it has caught up."""


class LeafSet:
    """The leaves of one epoch, whoever folds them now; implements `penstock.ports.profiles.Profiles`.

    Args:
        engine: What serves, and whose log this is of.
        folds: By partition.
    """

    def __init__(self, engine: EmbeddedEngine, folds: Sequence[PartitionFold]) -> None:
        self.engine = engine
        self.folds = [*folds]
        self.step, self.epoch = folds[0].step, folds[0].epoch
        self.writing = asyncio.Lock()
        """Held by whoever feeds or writes the folds, while they do not serve."""
        self.cpu_s = 0.0
        """What folding it beside the other has cost, since the process started."""
        self.records = 0
        """Records folded beside the other, since the process started."""
        self.flushed_s = 0.0

    @classmethod
    def beside(cls, engine: EmbeddedEngine, step: Step, epoch: int, cached_max: int) -> LeafSet:
        """Return a set of an epoch that nobody folds yet."""
        log = engine.log
        return cls(engine, [
            new_fold(step=step, store=engine.store, epoch=epoch, partition=partition,
                     generation=log.generation, cached_max=cached_max)
            for partition in range(log.partitions)
        ])  # fmt: skip

    def serves(self) -> bool:
        """Return whether these are the leaves that the engine folds first."""
        return self.engine.serves(self.folds[0])

    def lag(self) -> int:
        """Return how many records it is behind what serves."""
        pairs = zip(self.engine.folds, self.folds, strict=True)
        return sum(first.next_offset - fold.next_offset for first, fold in pairs)

    def folded(self) -> int:
        """Return how many records of the log it reflects."""
        return sum(fold.next_offset for fold in self.folds)

    async def read(self, leaves: Sequence[LeafId]) -> LeafRead:
        """Return leaves as this set has them; behind what serves it says how far."""
        found = await self.engine.peek(self.folds, leaves)
        return LeafRead(found, *self._standing())

    def at_hand(self, leaves: Sequence[LeafId]) -> VersionRead | None:
        """Return the versions of leaves that this set holds; see `read`."""
        found = held(self.folds, leaves)
        return None if found is None else VersionRead(found, *self._standing())

    def _standing(self) -> tuple[int, bool]:
        engine, folds = self.engine, self.folds
        as_of_ms, live = engine.standing()
        if not engine.serves(folds[0]) and self.lag():
            behind = [fold.last_logged_at_ms for first, fold in zip(engine.folds, folds, strict=True)
                      if fold.next_offset < first.next_offset]  # fmt: skip
            as_of_ms = min(as_of_ms, *behind)
            live = live and engine.clock.now_ms() - as_of_ms <= LIVE_LAG_MS
        return as_of_ms, live


class Follower:
    """Folds sets of leaves behind the one that serves, with a bounded share of the event loop.

    Implements `runtimes.engine.Sets`.

    What the records ask for besides is left to the set that serves. A set never gets ahead of it.

    Args:
        engine: What serves.
        share: The most of the loop's time that folding beside takes while anything else waits, in (0, 1].
    """

    def __init__(self, engine: EmbeddedEngine, *, share: float) -> None:
        self.engine = engine
        self.share = share
        self.sets: list[LeafSet] = []
        self.on_failure: Callable[[BaseException], None] = lambda _: None
        """Told of what stopped it; sets then stay as they are."""
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="penstock-beside")
        self._task: asyncio.Task[None] | None = None

    def serving(self) -> LeafSet:
        """Return the leaves that serve."""
        return LeafSet(self.engine, self.engine.folds)

    def beside(self, step: Step, epoch: int, cached_max: int) -> LeafSet:
        """Return a set of an epoch that nobody folds yet."""
        return LeafSet.beside(self.engine, step, epoch, cached_max)

    def add(self, leaves: LeafSet) -> None:
        """Begin to fold a set."""
        self.sets.append(leaves)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run(), name="penstock-beside")

    async def remove(self, leaves: LeafSet) -> None:
        """Stop to fold a set; what it lacks in the store it goes on lacking."""
        self.sets = [one for one in self.sets if one is not leaves]
        async with leaves.writing:
            pass

    async def close(self) -> None:
        """Write what is folded, and end."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        for leaves in self.sets:
            async with leaves.writing:
                for fold in leaves.folds:
                    await self._flush(leaves, fold)
        self._thread.shutdown(wait=True)

    async def _run(self) -> None:
        try:
            while self.sets:
                worked = 0
                for leaves in self.sets:
                    async with leaves.writing:
                        # A set that has just begun to serve is not folded here any more.
                        if leaves in self.sets and not leaves.serves():
                            worked += await self.advance(leaves)
                if not worked:
                    await asyncio.sleep(IDLE_S)
        except Exception as error:
            self.on_failure(error)
            raise

    async def advance(self, leaves: LeafSet) -> int:
        """Fold some records of each partition, and write what is due; `writing` is held.

        Returns:
            How many records were folded.
        """
        worked = 0
        loop = asyncio.get_running_loop()
        # While it builds leaves change again and again; caught up, they wait as those that serve do.
        pace = 1 if leaves.lag() < READ_RECORDS else BUILDING_PACE
        due = (time.monotonic() - leaves.flushed_s) * 1000 >= self.engine.flush_ms * pace
        if due:
            leaves.flushed_s = time.monotonic()
        for first, fold in zip(self.engine.folds, leaves.folds, strict=True):
            wanted = min(READ_RECORDS, first.next_offset - fold.next_offset)
            if wanted > 0:
                batch = await loop.run_in_executor(
                    self._thread, self.engine.log.read, fold.partition, fold.next_offset, wanted
                )
                await self._fold(leaves, fold, batch)
                worked += len(batch)
            if len(fold.dirty) > DIRTY_MAX or (due and fold.owes()):
                await self._flush(leaves, fold)
        return worked

    async def _fold(self, leaves: LeafSet, fold: PartitionFold, batch: Sequence[LogRecord]) -> None:
        for start in range(0, len(batch), SLICE_RECORDS):
            some = batch[start : start + SLICE_RECORDS]
            began = time.thread_time()
            try:
                fold.feed(some)
            except (Fenced, Unavailable):
                await self._restart(fold)
                return
            leaves.records += len(some)
            await self._rest(leaves, time.thread_time() - began)

    async def _rest(self, leaves: LeafSet, took_s: float) -> None:
        """Leave the loop to the others for as long as their share of it lasts; idle, for a moment."""
        leaves.cpu_s += took_s
        asked = time.monotonic()
        await asyncio.sleep(0)
        # Nobody wanted the loop: it was back at once, so going on starves nobody.
        if time.monotonic() - asked > took_s / 10:
            await asyncio.sleep(took_s * (1 - self.share) / self.share)

    async def _flush(self, leaves: LeafSet, fold: PartitionFold) -> None:
        loop = asyncio.get_running_loop()
        try:
            while True:
                began = time.thread_time()
                flush = fold.take(FLUSH_LEAVES)
                took_s = time.thread_time() - began
                if flush is None:
                    return
                verdicts = await loop.run_in_executor(self._thread, fold.write, flush)
                fold.written(flush, verdicts)
                await self._rest(leaves, took_s)
        except (Fenced, Unavailable):
            # It is not known what the store holds: go by its own record, from the log.
            await self._restart(fold)

    async def _restart(self, fold: PartitionFold) -> None:
        """Go by the store's own record; while it does not say, the fold is adrift, and asked again."""
        try:
            await asyncio.get_running_loop().run_in_executor(self._thread, fold.restart)
        except Unavailable:
            await asyncio.sleep(AWAY_S)

    async def switch(self, leaves: LeafSet, commit: Commit, swapped: Callable[[], None]) -> None:
        """Let a set serve that is close behind; see `EmbeddedEngine.switch`."""
        async with leaves.writing:
            await self.engine.switch(leaves.folds, commit, swapped)

    # -- ask

    async def settled(self, leaves: LeafSet) -> None:
        """Wait until a set has caught up and is written, all of it."""
        await self.close_behind(leaves, 0)
        async with leaves.writing:
            if not leaves.serves():
                for fold in leaves.folds:
                    await self._flush(leaves, fold)

    async def close_behind(self, leaves: LeafSet, records: int = CLOSE_RECORDS) -> None:
        """Wait until a set is so few records behind what serves: close enough to take over.

        Raises:
            PenstockError: It is not folded any more, and why.
        """
        while leaves.lag() > records:
            if self._task is not None and self._task.done():
                error = None if self._task.cancelled() else self._task.exception()
                if isinstance(error, PenstockError):
                    raise error
                raise Unavailable("E420", "the new leaves are not folded any more",
                                  fix="look at what `penstock up` printed, restart it, and apply again")  # fmt: skip
            await asyncio.sleep(IDLE_S)
