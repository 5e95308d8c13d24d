"""The engine of a process that does not fold: it appends, and reads what workers have written."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from penstock.core.errors import DamagedLeaf, PenstockError, Unavailable
from penstock.core.ids import LeafId
from penstock.core.leaf import Leaf, decode_leaf
from penstock.core.step import Step
from penstock.ports.appender import Waits
from penstock.ports.clock import Clock
from penstock.ports.log import Log
from penstock.ports.metrics import Metrics
from penstock.ports.profiles import LeafRead, Profiles, VersionRead
from penstock.ports.store import LeafCache, Store, StoredLeaf
from penstock.runtimes.appender import GroupAppender
from penstock.runtimes.embedded import LIVE_LAG_MS
from penstock.runtimes.engine import Commit
from penstock.runtimes.grouping import Grouper

AWAY = "E402"

WATCH_MS = 100
"""How often it is asked how far the workers are."""

CHECK_MS = 1_000
"""How often it is looked whether a store on a server may still be used."""

HEADS_MAX = 600
"""Looks at the end of a partition that are remembered: about a minute of them."""

DECODED_MAX = 20_000
"""Decoded leaves that are kept; one is used again where the store still has that version of it."""

FOUND_MS = 1_000
"""How long an item is used for stamping as it was found."""

FOUND_MAX = 50_000

SETTLE_S = 10.0
"""How long `settled` waits for workers: there may be none."""

CLOSE_RECORDS = 1_000
"""A set of leaves this close behind what serves can take over."""


class _Partition:
    """How far a partition is written, and up to when that reflects the log."""

    __slots__ = ("applied", "heads", "reflects_ms")

    def __init__(self) -> None:
        self.applied = -1
        self.reflects_ms: int | None = None
        """Up to when, by the monotonic clock: one that is set wrong and put right again changes no age."""
        self.heads: deque[tuple[int, int]] = deque(maxlen=HEADS_MAX)
        """When the end was looked at, by the monotonic clock, and where it was: what was there then is reflected once it is applied."""


def _least(partitions: Sequence[_Partition]) -> int | None:
    """Return up to when all of them reflect the log; None if of one it is not known."""
    known = [one.reflects_ms for one in partitions]
    return None if None in known else min(known, default=None)  # type: ignore[type-var] - none is None


class WrittenLeaves(Profiles):
    """The leaves of one epoch as workers have written them; implements `ports.profiles.Profiles`.

    Args:
        engine: Whose log and store they are of.
        step: What folds them.
        epoch: Where they are kept.
    """

    records = 0
    cpu_s = 0.0

    def __init__(self, engine: ReadingEngine, step: Step, epoch: int) -> None:
        self.engine = engine
        self.step = step
        self.epoch = epoch
        self._partitions: list[_Partition] = []
        self._era = engine.store.era
        """Of the store, in which it was looked how far they are: in another one that says nothing."""
        self._decoded: dict[LeafId, Leaf] = {}
        self._reads: Grouper[LeafId, Leaf | DamagedLeaf | None] = Grouper(
            self._fetch, name=f"penstock-read-{epoch}"
        )

    async def read(self, leaves: Sequence[LeafId]) -> LeafRead:
        """Return leaves as they are written, in one round trip for all who ask meanwhile.

        Raises:
            Unavailable: The store did not answer (E402), or may lack what was written, and nobody has looked
                since how far they are (E450).
            DamagedLeaf: One does not read back (E704).
        """
        # What was applied before it was read is in what is read, if the store was the same throughout.
        self._require_era()
        as_of_ms, live = self.standing()
        found: list[Leaf | None] = []
        kept = self._at_hand(leaves)
        for leaf in await self._reads.submit(leaves) if kept is None else kept:
            if isinstance(leaf, DamagedLeaf):
                raise leaf
            found.append(leaf)
        self._require_era()
        return LeafRead(found, as_of_ms, live)

    def at_hand(self, leaves: Sequence[LeafId]) -> VersionRead | None:
        """Return the versions of leaves that are cached; see `read`."""
        as_of_ms, live = self.standing()
        cache = self.engine.cache
        stored = None if cache is None else cache.at_hand(self.epoch, leaves)
        if stored is None or self._era != self.engine.store.era:
            return None
        return VersionRead([None if one is None else one.version for one in stored], as_of_ms, live)

    def _at_hand(self, leaves: Sequence[LeafId]) -> list[Leaf | None] | None:
        cache = self.engine.cache
        stored = None if cache is None else cache.at_hand(self.epoch, leaves)
        if stored is None:
            return None
        return [self._leaf(leaf, one) for leaf, one in zip(leaves, stored, strict=True)]

    def _require_era(self) -> None:
        if self._era != self.engine.store.era:
            raise Unavailable("E450", "the store may lack leaves that were written",
                              fix="nothing: it is looked how far they are, a moment later")  # fmt: skip

    def _fetch(self, leaves: Sequence[LeafId]) -> list[Leaf | DamagedLeaf | None]:
        wanted = list(dict.fromkeys(leaves))
        try:
            stored = self.engine.source.read(self.epoch, wanted)
            found = {leaf: self._leaf(leaf, one) for leaf, one in zip(wanted, stored, strict=True)}
        except DamagedLeaf:
            # It is one person's; those who asked at the same time get what is theirs.
            found = {leaf: self._alone(leaf) for leaf in wanted}
        return [found[leaf] for leaf in leaves]

    def _alone(self, leaf: LeafId) -> Leaf | DamagedLeaf | None:
        try:
            return self._leaf(leaf, self.engine.source.read(self.epoch, [leaf])[0])
        except DamagedLeaf as error:
            return error

    def _leaf(self, leaf_id: LeafId, stored: StoredLeaf | None) -> Leaf | None:
        if stored is None:
            return None
        # Of one epoch the same version is the same leaf.
        leaf = self._decoded.get(leaf_id)
        if leaf is None or leaf.version != stored.version:
            leaf = decode_leaf(leaf_id, stored.version, stored.parts[0], self.step.plan)
            if len(self._decoded) >= DECODED_MAX:
                self._decoded.clear()
            self._decoded[leaf_id] = leaf
        return leaf

    # -- how far they are

    @property
    def partitions(self) -> list[_Partition]:
        """How far each partition is, those of a generation just opened too."""
        known = self._partitions
        while len(known) < self.engine.log.partitions:
            known.append(one := _Partition())
            # Of a new generation nothing is older than what was just known of the others.
            one.reflects_ms = _least(known[:-1])
        return known

    def look(self) -> None:
        """Ask the store how far the workers are; on any thread, one at a time.

        Raises:
            Unavailable: The store or the log did not answer (E401, E402), or the store may lack what was
                written (E450); what was known stays.
        """
        log, clock, era = self.engine.log, self.engine.clock, self.engine.store.era
        for number, one in enumerate(self.partitions):
            # The end and the instant before the question: what is applied later only says more.
            at_ms, head = clock.monotonic_ms(), log.head(number)
            one.heads.append((at_ms, head))
            applied = self.engine.source.applied(self.epoch, number)
            ours = applied.generation == log.generations.generation(number)
            one.applied = applied.offset if ours else -1
            if one.applied + 1 >= head:
                one.reflects_ms = at_ms
                one.heads.clear()
                continue
            while len(one.heads) > 1 and one.heads[1][1] <= one.applied + 1:
                one.heads.popleft()
            at_ms, then = one.heads[0]
            if then <= one.applied + 1:
                one.reflects_ms = at_ms
            else:
                # Behind for longer than is remembered: the first record that is not applied says since when.
                first = log.read(number, max(one.applied + 1, log.first(number)), 1)
                if first:
                    one.reflects_ms = clock.monotonic_ms() - (
                        clock.now_ms() - first[0].logged_at_ms
                    )
        self._era = era

    def standing(self) -> tuple[int, bool]:
        """Return `as_of_ms` and `live`, of one instant."""
        clock, reflects_ms = self.engine.clock, _least(self.partitions)
        if reflects_ms is None:
            return 0, False
        age_ms = clock.monotonic_ms() - reflects_ms
        fresh = age_ms <= LIVE_LAG_MS and self._era == self.engine.store.era
        return clock.now_ms() - age_ms, fresh

    def applied(self) -> list[int]:
        """Return, by partition, the last offset that is written, -1 for none."""
        return [one.applied for one in self.partitions]

    def folded(self) -> int:
        """Return how many records of the log they reflect."""
        return sum(one.applied + 1 for one in self.partitions)

    def serves(self) -> bool:
        """Return whether these are the leaves that serve."""
        return self.engine.leaves is self

    def lag(self) -> int:
        """Return how many records they are behind what serves."""
        pairs = zip(self.engine.leaves.partitions, self.partitions, strict=True)
        return sum(max(first.applied - one.applied, 0) for first, one in pairs)

    async def close(self) -> None:
        """End the thread."""
        await self._reads.close()


class ReadingEngine:
    """Takes records in for workers to fold, and reads what they have written.

    Implements `runtimes.engine.Engine`. Whether an answer is `live` is judged by how far the workers'
    applied offsets are behind the log's end.

    Args:
        log: The canonical log; workers read it.
        store: Where workers write leaves.
        step: The step of the definitions that serve.
        epoch: Their epoch.
        clock: For stamps and ages.
        metrics: Where to count.
        cache: What keeps leaves of the store in memory, if anything does; closed with the engine.
    """

    folds_here = False

    def __init__(
        self, *, log: Log, store: Store, step: Step, epoch: int, clock: Clock, metrics: Metrics,
        cache: LeafCache | None = None,
    ) -> None:  # fmt: skip
        self.log = log
        self.store = store
        self.clock = clock
        self.metrics = metrics
        self.cache = cache
        self.source: LeafCache | Store = store if cache is None else cache
        """What leaves are read from, and how far they are: in this order neither says more than the other."""
        self._counted = (0, 0)
        self.appender = GroupAppender(log, clock, metrics, lambda *_: None)
        self.leaves = WrittenLeaves(self, step, epoch)
        self.beside: list[WrittenLeaves] = []
        self._threads = ThreadPoolExecutor(1, thread_name_prefix="penstock-watch")
        self._looked = asyncio.Condition()
        self._found: dict[LeafId, tuple[int, Leaf | None]] = {}
        self._check_at_ms = 0
        self._away = False
        """Whether the store did not answer when it was asked last."""
        self._watching: asyncio.Task[None] | None = None
        self._closing = False

    @property
    def step(self) -> Step:
        """The step of what serves."""
        return self.leaves.step

    @property
    def epoch(self) -> int:
        """The epoch of what serves."""
        return self.leaves.epoch

    # -- life

    async def start(self) -> None:
        """Begin to watch how far the workers are."""
        await self._look()
        self._watching = asyncio.create_task(self._watch(), name="penstock-watch")

    async def close(self) -> None:
        """Commit what waits, and end the threads."""
        self._closing = True
        await self.appender.close()
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)
        for leaves in (self.leaves, *self.beside):
            await leaves.close()
        self._threads.shutdown(wait=True)
        self.publish()
        if self.cache is not None:
            self.cache.close()

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(WATCH_MS / 1000)
            await self._look()

    async def _look(self) -> None:
        loop, away = asyncio.get_running_loop(), False
        for ask in (self._check, *(leaves.look for leaves in (self.leaves, *self.beside))):
            try:
                await loop.run_in_executor(self._threads, ask)
            except PenstockError as error:  # what was known ages, and is not `live` soon
                away = away or error.code == AWAY
        self._away = away
        async with self._looked:
            self._looked.notify_all()

    def _check(self) -> None:
        """Look whether the store may still be used: one that has come to evict serves nothing more."""
        now_ms = self.clock.monotonic_ms()
        if self.store.remote and now_ms >= self._check_at_ms:
            self._check_at_ms = now_ms + CHECK_MS
            self.store.check()

    async def looked(self) -> None:
        """Wait until it was asked once more how far the workers are."""
        async with self._looked:
            await self._looked.wait()

    # -- reads

    async def read(self, leaves: Sequence[LeafId]) -> LeafRead:
        """Return leaves as workers have written them. See `ports.profiles.Profiles`."""
        return await self.leaves.read(leaves)

    def at_hand(self, leaves: Sequence[LeafId]) -> VersionRead | None:
        """Return the versions of leaves that are cached. See `ports.profiles.Profiles`."""
        return self.leaves.at_hand(leaves)

    def find(self, leaf: LeafId) -> Leaf | None:
        """Return an item's leaf as it was at most a second ago.

        While the store is away, or is filled again after it was emptied, as it was found last; None if never.
        """
        now_ms = self.clock.monotonic_ms()
        until_ms, found = self._found.get(leaf, (0, None))
        if now_ms < until_ms or self._away:
            return found
        known = found
        try:
            stored = self.store.read(self.epoch, [leaf])[0]
            found = None if stored is None else decode_leaf(
                leaf, stored.version, stored.parts[0], self.step.plan
            )  # fmt: skip
        except PenstockError:
            # Not asked again before somebody has looked: who asks here waits on the loop.
            self._away = True
            return known
        if found is None and not self.live():
            found = known
        if len(self._found) >= FOUND_MAX:
            self._found.clear()
        self._found[leaf] = (now_ms + FOUND_MS, found)
        return found

    def standing(self) -> tuple[int, bool]:
        """Return `as_of_ms` and `live`, of one instant."""
        return self.leaves.standing()

    def live(self) -> bool:
        """Return whether reads reflect everything up to a second ago."""
        return self.standing()[1]

    def lag(self) -> int:
        """Return how many records of the log are not applied, as far as is known."""
        heads = (self.log.head(number) for number in range(self.log.partitions))
        return sum(
            max(head - one.applied - 1, 0)
            for head, one in zip(heads, self.leaves.partitions, strict=True)
        )

    async def settled(self) -> None:
        """Wait until workers have written all that is in the log, links included; not for ever."""
        try:
            async with asyncio.timeout(SETTLE_S):
                await self.looked()
                while self.lag():
                    await self.looked()
        except TimeoutError:
            pass

    # -- how it is

    def waits(self) -> Waits:
        """Return how long the oldest has waited to be on disk; nobody waits here to be folded."""
        return Waits(self.appender.waited_ms(), 0)

    def ready(self) -> tuple[bool, str]:
        """Return whether events can be taken, and if not, why."""
        if self._closing:
            return False, "the engine is draining"
        refused = self.appender.refuses()
        return not refused, refused

    def publish(self) -> None:
        """Bring the metrics up to date."""
        for number, one in enumerate(self.leaves.partitions):
            lag = max(self.log.head(number) - one.applied - 1, 0)
            self.metrics.gauge("penstock_fold_lag_records", lag, partition=str(number))
        if self.cache is not None:
            told = (self.cache.hits, self.cache.misses)
            for outcome, now, before in zip(("hit", "miss"), told, self._counted, strict=True):
                self.metrics.count("penstock_leaf_cache_reads_total", now - before, outcome=outcome)
            self._counted = told
            self.metrics.gauge("penstock_leaf_cache_bytes", self.cache.size_bytes)


class ReadingSets:
    """The sets of leaves that workers write; implements `runtimes.engine.Sets`.

    Who folds a set that is to take over is decided by starting workers with its definitions.

    Args:
        engine: What serves.
    """

    def __init__(self, engine: ReadingEngine) -> None:
        self.engine = engine
        self.on_failure: Callable[[BaseException], None] = lambda _: None

    @property
    def sets(self) -> list[WrittenLeaves]:
        """Those beside what serves."""
        return self.engine.beside

    def serving(self) -> WrittenLeaves:
        """Return the leaves that serve."""
        return self.engine.leaves

    def beside(self, step: Step, epoch: int, cached_max: int) -> WrittenLeaves:
        """Return leaves that workers write, or will."""
        return WrittenLeaves(self.engine, step, epoch)

    def add(self, leaves: WrittenLeaves) -> None:
        """Watch how far a set is."""
        self.engine.beside.append(leaves)

    async def remove(self, leaves: WrittenLeaves) -> None:
        """Stop to watch a set."""
        self.engine.beside = [one for one in self.engine.beside if one is not leaves]
        if not leaves.serves():
            await leaves.close()

    async def settled(self, leaves: WrittenLeaves) -> None:
        """Wait until a set has caught up."""
        await self._until(lambda: not leaves.lag())

    async def close_behind(self, leaves: WrittenLeaves) -> None:
        """Wait until a set is close behind what serves; workers with its definitions bring it there."""
        await self._until(lambda: leaves.lag() <= CLOSE_RECORDS)

    async def switch(self, leaves: WrittenLeaves, commit: Commit, swapped: Callable[[], None]) -> None:  # fmt: skip
        """Let a set serve, once it reflects all that the one that serves now reflects: no read goes back.

        Both are written on meanwhile, and the one that served goes on for as long as workers fold it.
        """
        engine = self.engine
        reached = engine.leaves.applied()
        await self._until(
            lambda: all(a >= b for a, b in zip(leaves.applied(), reached, strict=True))
        )
        await commit(reached)
        engine.leaves = leaves
        swapped()

    async def close(self) -> None:
        """Nothing is folded here; the engine closes what reads."""

    async def _until(self, reached: Callable[[], bool]) -> None:
        while not reached():
            await self.engine.looked()
