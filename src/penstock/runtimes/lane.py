"""One partition of a runtime: its fold, what waits for it, and how its leaves are read beside it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import Executor

from penstock.core.errors import Unavailable
from penstock.core.ids import LeafId, partition_of
from penstock.core.leaf import Leaf
from penstock.flows.process import PartitionFold
from penstock.ports.log import Log, LogRecord
from penstock.ports.profiles import Versions
from penstock.runtimes.waiting import Waiting

READ_RECORDS = 2_000
"""Records read from the log at once, where they are not handed over by who appended them."""


class Lane:
    """One partition: the fold that serves, what waits for it, and who may write its leaves.

    Attributes:
        behind: What is to be folded next is read from the log, and not taken from who appended it.
        astray: The store has not yet said where to go on; nothing is folded or written until it does.
        kept: The offset up to which all that records ask for is durable.
        writing: Leaves that the store was given and has not yet answered for.
    """

    __slots__ = ("astray", "behind", "flushing", "fold", "kept", "waiting", "writing")

    def __init__(self, fold: PartitionFold) -> None:
        self.fold = fold
        self.waiting = Waiting()
        self.flushing = asyncio.Lock()
        self.behind = False
        self.astray = False
        self.kept = -1
        self.writing = 0

    def take(self, records: Sequence[LogRecord]) -> None:
        """Let records wait; while it catches up the same one may come from the log and from the appender."""
        if records and records[0].offset < (expected := self._expected()):
            records = [record for record in records if record.offset >= expected]
        self.waiting.extend(records)

    def _expected(self) -> int:
        return self.waiting.newest().offset + 1 if self.waiting.size else self.fold.next_offset

    def fall_behind(self, log: Log) -> bool:
        """Note whether the log has more than was handed over; return whether it is to be read.

        In a shared log others append, too, and of a batch that was not acknowledged records may be there.
        """
        self.behind = self.behind or log.head(self.fold.partition) > self._expected()
        return self.behind

    async def read_on(self, log: Log, thread: Executor) -> bool:
        """Read on in the log, until what is appended can be taken from who appends it.

        Returns:
            Whether there is something to do at once; a log that does not answer is asked again later.
        """
        fold, loop = self.fold, asyncio.get_running_loop()
        starts, offset = fold.starts, fold.next_offset
        try:
            batch = await loop.run_in_executor(
                thread, log.read, fold.partition, offset, READ_RECORDS
            )
        except Unavailable:
            return False
        if self.waiting.size or self.astray or (starts, offset) != (fold.starts, fold.next_offset):
            return not self.astray
        self.waiting.extend(batch)
        # What was appended meanwhile is in the log before anybody is told.
        self.behind = bool(batch) or log.head(fold.partition) > offset
        return self.behind


def away() -> Unavailable:
    """Return what is told while the store is known not to answer, without asking it."""
    return Unavailable(
        "E402", "the store does not answer", fix="look at the store; it is tried again"
    )


async def peek(
    folds: Sequence[PartitionFold], leaves: Sequence[LeafId], reads: Executor, *, astray: bool
) -> list[Leaf | None]:
    """Return leaves as the folds of a log have them, by partition; what is not held, in one round trip.

    Args:
        folds: By partition, of one store.
        leaves: Which.
        reads: Where a remote store is asked: on the loop it would hold everybody.
        astray: Whether the store is known not to answer; then it is not asked.

    Raises:
        Unavailable: The store does not answer (E402).
    """
    if not folds[0].store.remote:
        if len(folds) == 1:
            return folds[0].peek(leaves)
        return [folds[partition_of(leaf, len(folds))].peek([leaf])[0] for leaf in leaves]
    caches = [folds[partition_of(leaf, len(folds))].cache for leaf in leaves]
    cold = [leaf for leaf, cache in zip(leaves, caches, strict=True) if leaf not in cache]
    stored: dict[LeafId, Leaf | None] = {}
    if cold:
        if astray:
            raise away()
        loop = asyncio.get_running_loop()
        found = await loop.run_in_executor(reads, folds[0].fetch, cold)
        stored = dict(zip(cold, found, strict=True))
    # What was folded meanwhile is newer than what was read.
    return [
        cache[leaf] if leaf in cache else stored.get(leaf)
        for leaf, cache in zip(leaves, caches, strict=True)
    ]


def held(folds: Sequence[PartitionFold], leaves: Sequence[LeafId]) -> Versions | None:
    """Return the versions of leaves as the folds of a log hold them; None if one is not held."""
    try:
        if len(folds) == 1:
            found = folds[0].versions(leaves)
        else:
            found = [folds[partition_of(leaf, len(folds))].versions([leaf])[0] for leaf in leaves]
    except RuntimeError:
        return None  # the accelerator has failed: to peek says so
    return None if None in found else found


def without_gaps(records: Sequence[LogRecord]) -> Sequence[LogRecord]:
    """Return records up to where others stand between them, as in a log that others append to as well.

    The next ones do not follow on then, which is found when they are folded, and all are read from the log.
    """
    first = records[0].offset if records else 0
    if not records or records[-1].offset - first == len(records) - 1:
        return records
    return [record for place, record in enumerate(records, first) if record.offset == place]
