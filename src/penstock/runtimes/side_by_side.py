"""Definitions versions in one running engine: built beside, switched, rolled back to, and dropped."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial

from penstock.core.definitions import versions as table_of
from penstock.core.definitions.changes import Declared
from penstock.core.definitions.versions import Table, Version
from penstock.core.errors import Conflict, DataCorrupt, PenstockError
from penstock.core.feature.plan import Plan
from penstock.core.ids import LeafId
from penstock.flows.agree import PAGE, agree
from penstock.flows.editions import Candidate, Cost, Edition, Editions, Progress
from penstock.flows.replay import LIVE_EPOCH, fingerprint_name, tell_epochs
from penstock.ports.clock import Clock
from penstock.ports.metrics import Metrics
from penstock.ports.versions import Versions
from penstock.runtimes.engine import Engine, Leaves, Sets

AGREE_LEAVES = 2_000
"""Leaves that a new set is compared in with the one that serves, before it takes over."""

TEND_S = 5.0
"""How often it is looked whether a version's time is over."""

RATE_S = 2.0
"""Over how long the rate of a build is taken."""


class SideBySide:
    """Keeps the versions of one project's definitions. Lives on the engine's event loop.

    Args:
        engine: Answers for the version that serves.
        sets: The leaves that serve, and those that are built and kept beside them.
        versions: Where the table and the files are kept.
        table: The table as it stands.
        editions: What requests go by.
        load: Loads the kept files of a version; called on a thread.
        clock: Tells now.
        metrics: Where to count.
        keep_ms: How long a version can be rolled back to.
        cached_max: Decoded leaves held a partition, of each set beside.
        begin: Lets a set of leaves begin where the log does, if that is not at its first record.
    """

    def __init__(  # noqa: PLR0913 - the one place where its parts meet
        self, *, engine: Engine, sets: Sets, versions: Versions, table: Table, active: Candidate,
        load: Callable[[Version], Candidate], clock: Clock, metrics: Metrics, keep_ms: int,
        cached_max: int, begin: Callable[[int, Plan], None] = lambda *_: None,
    ) -> None:  # fmt: skip
        self.engine = engine
        self.versions = versions
        self.table = table
        self.load = load
        self.clock = clock
        self.metrics = metrics
        self.keep_ms = keep_ms
        self.cached_max = cached_max
        self._begin = begin
        self.follower = sets
        sets.on_failure = self._note_failure
        serving = table.active
        assert serving is not None, "one version serves from the start"
        leaves = sets.serving()
        self.sets: dict[int, Leaves] = {serving.epoch: leaves}
        """By epoch."""
        self._candidates: dict[int, Candidate] = {serving.number: active}
        self._since_ms: dict[int, int] = {}
        self.editions = Editions(
            active.edition(serving.number, leaves, serving.epoch), lambda: self.table, self.publish
        )
        self._changing = asyncio.Lock()
        """Held while one version takes the place of another."""
        self._writing = asyncio.Lock()
        self._cleaned: set[int] = set()
        self._work: asyncio.Task[None] | None = None
        self._tending: asyncio.Task[None] | None = None
        self.progress: Progress | None = None
        self.failure: BaseException | None = None
        self._moved = asyncio.Event()

    # -- life

    async def start(self) -> None:
        """Take up what stood beside when the last process ended, and go on with what it was building."""
        self._mark_live()
        self._tell_workers()
        for version in self.table.retiring:
            try:
                await self._keep(version)
            except PenstockError:
                # Its files do not load with this version of Penstock, so it can't be rolled back to.
                await self._change(partial(table_of.give_up, number=version.number))
        standing = self.table.candidate
        if standing is not None:
            try:
                candidate = await asyncio.to_thread(self.load, standing)
                self.begin(candidate)
            except PenstockError:
                await self._change(table_of.give_up)
        await self._sweep()
        self._tending = asyncio.create_task(self._tend(), name="penstock-versions")

    async def stop(self) -> None:
        """Stop building; what was built so far is kept, and the next start goes on from there."""
        for task in (self._work, self._tending):
            if task is not None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

    async def close(self) -> None:
        """Write what was folded beside, and end; the engine has ended."""
        await self.follower.close()

    async def _keep(self, version: Version) -> None:
        candidate = await asyncio.to_thread(self.load, version)
        self._candidates[version.number] = candidate
        await asyncio.to_thread(self._begin, version.epoch, candidate.step.plan)
        leaves = self._beside(version, candidate)
        self.editions.keep(candidate.edition(version.number, leaves, version.epoch))

    def _beside(self, version: Version, candidate: Candidate) -> Leaves:
        leaves = self.sets.get(version.epoch)
        if leaves is None:
            leaves = self.follower.beside(candidate.step, version.epoch, self.cached_max)
            self.sets[version.epoch] = leaves
        if not leaves.serves() and leaves not in self.follower.sets:
            self._since_ms[version.epoch] = self.clock.monotonic_ms()
            self.follower.add(leaves)
        return leaves

    # -- apply

    def begin(self, candidate: Candidate, *, republish: bool = False) -> asyncio.Task[None]:
        """Begin to apply definitions, or join in applying them; see `progress`.

        Args:
            candidate: The definitions.
            republish: Whether published campaigns go over to them.

        Raises:
            Conflict: Other definitions are being applied (E502).
        """
        if self._work is not None and not self._work.done():
            standing = self.table.candidate
            if standing is not None and standing.digest == candidate.digest:
                return self._work
            raise Conflict("E502", "other definitions are being applied",
                           fix="wait until they serve; `penstock versions` shows how far they are")  # fmt: skip
        self.progress = None
        self._work = asyncio.create_task(
            self._apply(candidate, republish=republish), name="penstock-apply"
        )
        return self._work

    async def replace(self, candidate: Candidate, *, republish: bool = False) -> None:
        """Begin to apply definitions; others that were being applied are given up."""
        standing = self.table.candidate
        if standing is not None and standing.digest != candidate.digest:
            await self.give_up()
        self.begin(candidate, republish=republish)

    async def ended(self) -> Progress | None:
        """Wait until what is being applied has ended, and return how; None if nothing is."""
        if self._work is not None:
            await asyncio.gather(self._work, return_exceptions=True)
        return self.progress

    async def give_up(self) -> bool:
        """Stop applying definitions and drop what was built; return whether there was anything."""
        if self._work is not None and not self._work.done():
            self._work.cancel()
            await asyncio.gather(self._work, return_exceptions=True)
        standing = self.table.candidate
        if standing is None:
            return False
        await self._change(table_of.give_up)
        await self._sweep()
        return True

    async def moved(self) -> Progress | None:
        """Wait for news of an apply, at most a moment, and return how far it is."""
        self._moved.clear()
        try:
            async with asyncio.timeout(0.5):
                await self._moved.wait()
        except TimeoutError:
            pass
        return self.progress

    async def _apply(self, candidate: Candidate, *, republish: bool) -> None:
        number = 0
        try:
            async with self._changing:
                version = await self._stand(candidate)
                number = version.number
                if version.state == "active":
                    self._say(Progress(number, "active", *self._extent(None), 0, 0))
                    return
                await asyncio.to_thread(self._begin, version.epoch, candidate.step.plan)
                leaves = self._beside(version, candidate)
                await self._build(version, leaves)
                agreed = await self._agreed(version, candidate)
                await self._change(partial(table_of.built, number=number))
                await self._serve(
                    number, partial(table_of.switch, number=number, republish=republish)
                )
                self._say(Progress(number, "active", *self._extent(leaves), 0, 0, *agreed))
            await self._sweep()
        except PenstockError as error:
            if isinstance(error, DataCorrupt):
                await self._change(table_of.give_up)  # it would come out the same another time
            self._say(Progress(number, "failed", *self._extent(None), 0, None, error=error))
        except Exception as error:
            self.failure = error
            fault = DataCorrupt("E743", f"applying the definitions failed: {type(error).__name__}",
                                fix="report it; what served before goes on serving")  # fmt: skip
            self._say(Progress(number, "failed", *self._extent(None), 0, None, error=fault))
            raise

    async def _stand(self, candidate: Candidate) -> Version:
        """Put the candidate into the table, its files first: a table never names files that are not kept."""
        active = self.table.active
        if active is not None and (active.digest, active.fingerprint) == (
            candidate.digest,
            candidate.fingerprint,
        ):
            return active
        taken = await asyncio.to_thread(self.engine.store.epochs)
        begin = partial(
            table_of.begin, digest=candidate.digest, fingerprint=candidate.fingerprint,
            now_ms=self.clock.now_ms(), taken=taken,
        )  # fmt: skip
        _, version = begin(self.table)
        await asyncio.to_thread(self.versions.put_files, version.number, candidate.files)
        await asyncio.to_thread(
            self.engine.store.put_meta, fingerprint_name(version.epoch), candidate.fingerprint
        )
        await self._change(lambda table: begin(table)[0])
        self._candidates[version.number] = candidate
        return version

    async def _build(self, version: Version, leaves: Leaves) -> None:
        waiting = asyncio.create_task(self.follower.close_behind(leaves))
        first, began = leaves.folded(), self.clock.monotonic_ms()
        marks = [(began, first)]
        try:
            while True:
                now = self.clock.monotonic_ms()
                marks = [mark for mark in marks if now - mark[0] <= RATE_S * 1000] or marks[-1:]
                marks.append((now, leaves.folded()))
                took_ms = now - marks[0][0]
                per_s = (marks[-1][1] - marks[0][1]) * 1000 // took_ms if took_ms > 0 else 0
                folded, total = self._extent(leaves)
                remaining = (total - folded) // per_s if per_s > 0 else None
                self._say(Progress(version.number, "building", folded, total, per_s, remaining))
                self.metrics.gauge("penstock_definitions_lag_records", total - folded)
                done, _ = await asyncio.wait([waiting], timeout=0.2)
                if done:
                    await waiting
                    return
        finally:
            waiting.cancel()

    async def _agreed(self, version: Version, candidate: Candidate) -> tuple[int, int]:
        """Compare the new leaves with those that serve, where their definitions agree.

        Raises:
            DataCorrupt: They differ (E742): nothing is switched.
        """
        active = self.table.active
        assert active is not None, "one version serves"
        if version.epoch == active.epoch:
            return 0, 0
        for epoch in (version.epoch, active.epoch):
            leaves = self.sets[epoch]
            await (self.engine.settled() if leaves.serves() else self.follower.settled(leaves))
        self._say(Progress(version.number, "checking", *self._extent(None), 0, 0))
        first = (active.epoch, self.engine.step.plan)
        second = (version.epoch, candidate.step.plan)
        after: LeafId | None = None
        seen = states = 0
        while seen < AGREE_LEAVES:
            found, after = await asyncio.to_thread(
                agree, self.engine.store, first, second, after=after, limit=PAGE
            )
            seen, states = seen + found.leaves, states + found.states
            if found.different:
                raise DataCorrupt("E742", f"the new leaves differ from those that serve in {len(found.different)} of "
                                  f"{seen} leaves, in features that both define alike",
                                  fix="report it with the data folder; what served before goes on serving")  # fmt: skip
            if after is None:
                break
        return seen, states

    async def _serve(self, number: int, change: Callable[..., Table]) -> None:
        """Switch to a version: the leaves, the table, what requests go by and how events are shaped."""
        version, before = self.table.version(number), self.table.active
        assert before is not None, "one version serves"
        candidate, leaves = self._candidates[number], self.sets[version.epoch]
        edition = candidate.edition(number, leaves, version.epoch)
        outgoing = self.sets[before.epoch]

        def swapped() -> None:
            self.editions.serve(edition)
            candidate.adopt()
            self._moved.set()

        async def commit(covered: Sequence[int]) -> None:
            await self._change(partial(
                change, now_ms=self.clock.now_ms(), keep_ms=self.keep_ms,
                generation=self.engine.log.generation, covered=covered,
            ))  # fmt: skip

        if leaves is outgoing:
            await commit(self.table.covered)
            swapped()
        else:
            await self.follower.close_behind(leaves)
            await self.follower.switch(leaves, commit, swapped)
            await self.follower.remove(leaves)
            if before.epoch in self.table.epochs():
                self._since_ms[before.epoch] = self.clock.monotonic_ms()
                self.follower.add(outgoing)
        self._mark_live()
        self.metrics.count("penstock_definitions_switches_total")
        self.metrics.gauge("penstock_definitions_version", number)

    # -- roll back, pins

    async def roll_back(self, number: int = 0) -> Version:
        """Let an earlier version serve again, at once.

        Args:
            number: Which; 0 for the one that served before.

        Raises:
            DefinitionError: There is none (E191), or it is gone (E190).
            Conflict: Definitions are being applied (E502).
        """
        if self._work is not None and not self._work.done():
            raise Conflict("E502", "other definitions are being applied",
                           fix="wait until they serve, or give them up with `penstock apply --give-up`")  # fmt: skip
        async with self._changing:
            target = table_of.rollback_target(self.table, number)
            await self._serve(target.number, partial(table_of.roll_back, number=target.number))
        await self._sweep()
        return self.table.version(target.number)

    async def publish(self, campaign: str, version: int) -> None:
        """Pin a campaign to the definitions that serve, unless it is pinned already."""
        await self._change(partial(table_of.pin, campaign=campaign, version=version))

    async def publish_again(self, campaign: str, version: int) -> None:
        """Pin a campaign to the definitions that serve, whatever it was pinned to."""
        await self._change(partial(table_of.publish_again, campaign=campaign, version=version))

    async def settled(self, edition: Edition) -> None:
        """Wait until all that is in the log is folded and written, for an edition too."""
        await self.engine.settled()
        leaves = self.sets.get(edition.epoch)
        if leaves is not None and not leaves.serves():
            await self.follower.settled(leaves)

    def declared(self) -> Declared:
        """Return what the definitions that serve define."""
        return self._candidates[self.editions.active.number].declared

    # -- tend

    def costs(self) -> list[Cost]:
        """Return what each version that is kept or built beside costs."""
        found = []
        active = self.table.active
        for version in self.table.versions:
            leaves = self.sets.get(version.epoch)
            if version.state in ("active", "dropped") or leaves is None:
                continue
            if active is not None and version.epoch == active.epoch:
                found.append(Cost(version, 0, 0, 0.0, 0.0))
                continue
            since_ms = self._since_ms.get(version.epoch, self.clock.monotonic_ms())
            took_s = (self.clock.monotonic_ms() - since_ms) / 1000
            found.append(Cost(version, leaves.lag(), leaves.records, leaves.cpu_s, took_s))
        return found

    async def _tend(self) -> None:
        while True:
            await asyncio.sleep(TEND_S)
            try:
                await self.tend()
            except PenstockError as error:
                self.failure = error  # tried again: nobody waits for room to be made

    async def tend(self) -> None:
        """Drop the versions whose time is over, and remove what nobody needs."""
        before = self.table
        await self._change(partial(table_of.expire, now_ms=self.clock.now_ms()))
        if self.table is not before:
            await self._sweep()

    async def _sweep(self) -> None:
        """Remove the leaves and the files of versions that are gone."""
        needed = self.table.epochs()
        for epoch in [one for one in self.sets if one not in needed]:
            await self.follower.remove(self.sets.pop(epoch))
        for version in self.table.versions:
            if version.state == "dropped" and version.number not in self._cleaned:
                self.editions.forget(version.number)
                self._candidates.pop(version.number, None)
                await asyncio.to_thread(self.versions.drop_files, version.number)
                self._cleaned.add(version.number)
        store = self.engine.store
        for epoch in await asyncio.to_thread(store.epochs):
            if abs(epoch) not in self.table.epochs():  # a snapshot goes with its leaves
                await asyncio.to_thread(store.drop, epoch)

    # -- parts

    async def _change(self, change: Callable[[Table], Table]) -> None:
        """Change the table: durable first, then seen; one change at a time."""
        async with self._writing:
            table = change(self.table)
            if table != self.table:
                await asyncio.to_thread(self.versions.put, table)
                self.table = table
                await asyncio.to_thread(self._tell_workers)

    def _tell_workers(self) -> None:
        """Say in the store which sets of leaves are to be folded: workers go by it."""
        if not self.engine.folds_here:
            kept = [one for one in self.table.versions if one.state != "dropped"]
            tell_epochs(self.engine.store, {one.epoch: one.fingerprint for one in kept})

    def _mark_live(self) -> None:
        active = self.table.active
        assert active is not None, "one version serves"
        self.engine.store.put_meta(LIVE_EPOCH, str(active.epoch))

    def _extent(self, leaves: Leaves | None) -> tuple[int, int]:
        total = self.follower.serving().folded()
        return (total if leaves is None else leaves.folded()), total

    def _say(self, progress: Progress) -> None:
        self.progress = progress
        self._moved.set()

    def _note_failure(self, error: BaseException) -> None:
        self.failure = error
