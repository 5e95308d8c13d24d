"""The past: a person's records found by the index, and what was known at an offset or an instant."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from penstock.core.ids import LeafId
from penstock.core.leaf import Leaf
from penstock.core.record import LogRecord, decode_record, leaf_of, version_at
from penstock.core.segment import buckets_of, next_segment
from penstock.core.step import Step
from penstock.ports.leaf_index import LeafIndex
from penstock.ports.log import Log
from penstock.ports.profiles import LeafRead, Profiles

READ_RECORDS = 5_000


class Known(NamedTuple):
    """Up to where the log is asked: the records at or below `offset`, logged at or before `at_ms`.

    Either may be None, for no bound. An offset bounds every partition; an instant says the same of
    several partitions, because stamps never go back within one. In a log of several generations the offset
    is a position (`position_of`): all of the generations before is known, and nothing of those after.
    """

    offset: int | None = None
    at_ms: int | None = None

    def within(self, generation: int) -> Known:
        """Return the same bound for the offsets of one generation."""
        if self.offset is None or self.offset < 0:
            return self
        at = version_at(self.offset)
        if generation == at.generation:
            return self._replace(offset=at.offset)
        return self._replace(offset=None if generation < at.generation else -1)

    def holds(self, record: LogRecord) -> bool:
        """Return whether a record was known."""
        return (self.offset is None or record.offset <= self.offset) and (
            self.at_ms is None or record.logged_at_ms <= self.at_ms
        )


class Entry(NamedTuple):
    """A record of a leaf, with the partition that it is in."""

    partition: int
    record: LogRecord


def index_closed(log: Log, index: LeafIndex, *, segments_max: int = 1_000_000) -> int:
    """Index the closed segments that are not indexed yet; return how many records they have.

    Off the durable path: it reads what was committed, a segment at a time, and may be stopped
    between two and go on later.

    Args:
        log: Only read.
        index: Where the indexes go.
        segments_max: How many at most.

    Raises:
        DataCorrupt: A batch of the log does not read back (E703) or is no record (E701).
    """
    count = 0
    for partition in range(log.partitions):
        while segments_max > 0:

            def read(offset: int, limit: int, partition: int = partition) -> list[LogRecord]:
                return log.read(partition, offset, limit)

            first = max(index.covered(partition), log.first(partition))
            records = next_segment(read, first, log.head(partition))
            if records is None:
                break
            index.put(partition, first, first + len(records), buckets_of(records))
            count += len(records)
            segments_max -= 1
    return count


class History:
    """Finds the records of leaves in the log, by the index and by reading the tail beyond it.

    Args:
        log: Only read.
        index: The index of its closed segments.
        seal: The offset of the seal of a partition, if that is known; what is behind it is found where it was
            copied to.
    """

    def __init__(
        self, log: Log, index: LeafIndex, seal: Callable[[int], int | None] = lambda _: None
    ) -> None:
        self.log = log
        self.index = index
        self._seal = seal

    def entries(self, leaves: Iterable[LeafId], known: Known) -> list[Entry]:
        """Return the records of some leaves up to a bound, in each partition's order.

        Reads the leaves' own records and the tail that is not indexed yet, which is shorter than a
        segment once `index_closed` has run.
        """
        by_partition: dict[int, set[LeafId]] = {}
        generations = self.log.generations
        ended = [one for one in range(generations.partitions) if generations.ended(one)]
        for leaf in leaves:
            for partition in generations.places(leaf):
                by_partition.setdefault(partition, set()).add(leaf)
        found = {one: self._seal(one) for one in ended if one in by_partition}
        seals = {partition: seal for partition, seal in found.items() if seal is not None}
        return [
            Entry(partition, record)
            for partition, wanted in sorted(by_partition.items())
            for record in self._records(
                partition, wanted, known.within(generations.generation(partition))
            )
            if partition not in seals or record.offset < seals[partition]
        ]

    def _records(self, partition: int, leaves: set[LeafId], known: Known) -> Iterator[LogRecord]:
        first = self.log.first(partition)
        covered = max(self.index.covered(partition), first)
        found = {one for leaf in leaves for one in self.index.find(partition, leaf)}
        offsets = sorted(one for one in found if one >= first)
        for offset in offsets:
            record = self.log.read(partition, offset, 1)[0]
            if not known.holds(record):
                return
            if leaf_of(record.value) in leaves:
                yield record
        offset = covered
        while batch := self.log.read(partition, offset, READ_RECORDS):
            offset = batch[-1].offset + 1
            for record in batch:
                if leaf_of(record.value) in leaves and known.holds(record):
                    yield record
            if not known.holds(batch[-1]):
                return


class PastProfiles(Profiles):
    """The read path as it was at a point of the log: leaves folded from their own records.

    Implements `ports.profiles.Profiles`, so that whatever reads the present can read the past. A
    leaf is folded by the one step, so that it has the bytes that it had then.

    Args:
        history: Where records are found.
        step: The step of the definitions that are asked.
        known: Up to where the log is known.
        as_of_ms: The instant that it is known as of.
        snapshot: What the leaves began from, if the log does not have their beginning.
    """

    def __init__(
        self, history: History, step: Step, known: Known, as_of_ms: int,
        snapshot: Callable[[Sequence[LeafId]], dict[LeafId, Leaf]] = lambda _: {},
    ) -> None:  # fmt: skip
        self.history = history
        self.step = step
        self.known = known
        self.as_of_ms = as_of_ms
        self.snapshot = snapshot

    async def read(self, leaves: Sequence[LeafId]) -> LeafRead:
        """Return the leaves as they were; None where nothing was known. Reads on another thread."""
        found = await asyncio.to_thread(self.fold, leaves)
        return LeafRead([found.get(leaf) for leaf in leaves], self.as_of_ms, live=True)

    def fold(self, leaves: Sequence[LeafId]) -> dict[LeafId, Leaf]:
        """Return the leaves of which anything was known, folded from their records."""
        step, generations = self.step, self.history.log.generations
        folded = self.snapshot(leaves)
        for partition, (offset, logged_at_ms, value) in self.history.entries(leaves, self.known):
            record = decode_record(value)
            leaf_id = LeafId(record.leaf)
            leaf = folded.get(leaf_id)
            if leaf is None:
                leaf = folded[leaf_id] = Leaf(leaf_id, step.plan.new_states())
            generation = generations.generation(partition)
            step.fold(leaf, record, generation, offset, logged_at_ms, [])
        return folded
