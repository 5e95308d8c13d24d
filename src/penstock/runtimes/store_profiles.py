"""The read path of a process that does not fold: leaves from the store, with the age that the log gives them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from penstock.core.errors import Unavailable
from penstock.core.ids import LeafId
from penstock.core.leaf import Leaf, decode_leaf
from penstock.core.record import NO_VERSION
from penstock.core.step import Step
from penstock.ports.clock import Clock
from penstock.ports.log import Log
from penstock.ports.profiles import LeafRead
from penstock.ports.store import Store
from penstock.runtimes.embedded import LIVE_LAG_MS

STANDING_MS = 50
"""How long is answered from one look at how far the leaves have come."""

THREADS = 8
"""Reads under way at once; more wait for one of them."""


class Standing(NamedTuple):
    """How far the leaves have come, of one look."""

    looked_at_ms: int
    """Of the monotonic clock."""
    as_of_ms: int
    era: int


class StoreProfiles:
    """Reads what others fold; implements `penstock.ports.profiles.Profiles`.

    Leaves are read in one round trip, after a look at the applied offsets and the log's heads that many
    reads share, for a moment. Nothing is cached between reads: what is answered is what the store had when
    it was asked. `as_of_ms` is that of the earlier look, which leaves cannot be older than.

    Args:
        store: The leaves.
        log: Says how far they could have come; only heads and single records are read.
        step: The step of the definitions that the leaves were made by.
        epoch: Their epoch.
        clock: For ages.
    """

    def __init__(self, store: Store, log: Log, step: Step, epoch: int, clock: Clock) -> None:
        self.store = store
        self.log = log
        self.step = step
        self.epoch = epoch
        self.clock = clock
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="penstock-profiles")
        self._standing: Standing | None = None
        self._looking: asyncio.Future[Standing] | None = None

    async def read(self, leaves: Sequence[LeafId]) -> LeafRead:
        """Return leaves in the order asked. See `ports.profiles.Profiles`."""
        loop = asyncio.get_running_loop()
        # The look first: leaves that are read after it are at least as new as it says.
        standing = await self._look(loop)
        found = await loop.run_in_executor(self._threads, self._fetch, leaves)
        if standing.era != self.store.era:
            # What was read may be of the server that lost something, and the look of the one before.
            self._standing = None
            raise Unavailable("E450", "the store may lack what it had acknowledged",
                              fix="ask again; serving falls back")  # fmt: skip
        now_ms = self.clock.now_ms()
        return LeafRead(found, standing.as_of_ms, now_ms - standing.as_of_ms <= LIVE_LAG_MS)

    async def close(self) -> None:
        """End the threads; store and log stay open."""
        await asyncio.to_thread(self._threads.shutdown)

    def _fetch(self, leaves: Sequence[LeafId]) -> list[Leaf | None]:
        plan = self.step.plan
        read = zip(leaves, self.store.read(self.epoch, leaves), strict=True)
        return [
            None if stored is None else decode_leaf(leaf, stored.version, stored.parts[0], plan)
            for leaf, stored in read
        ]

    def _look(self, loop: asyncio.AbstractEventLoop) -> asyncio.Future[Standing]:
        """Return the look that is under way or fresh enough, or begin one: many readers share it."""
        standing, looking = self._standing, self._looking
        if looking is not None and not looking.done():
            return looking
        now_ms = self.clock.monotonic_ms()
        if standing is not None and now_ms - standing.looked_at_ms < STANDING_MS:
            fresh: asyncio.Future[Standing] = loop.create_future()
            fresh.set_result(standing)
            return fresh
        self._looking = loop.run_in_executor(self._threads, self._look_now)
        return self._looking

    def _look_now(self) -> Standing:
        looked_at_ms, now_ms = self.clock.monotonic_ms(), self.clock.now_ms()
        era = self.store.era
        as_of_ms = now_ms
        for partition in range(self.log.partitions):
            # The head first: what is appended after it is not missing from an answer about now.
            head = self.log.head(partition)
            applied = self.store.applied(self.epoch, partition)
            after = applied.offset + 1 if applied.generation == self.log.generation else 0
            if applied == NO_VERSION:
                after = self.log.first(partition)
            if after < head:
                waiting = self.log.read(partition, after, 1)
                as_of_ms = min(as_of_ms, waiting[0].logged_at_ms if waiting else 0)
        self._standing = Standing(looked_at_ms, as_of_ms, era)
        return self._standing
