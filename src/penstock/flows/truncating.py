"""The log is truncated: segment by segment, below what leaves have applied and what the archive holds.

Before a segment's records go, three things are looked at, each time: every leaf has what the segment
holds of it; a sample of those leaves folds, from all their records, to the bytes that are stored; and
the archive gives the segment back, record by record what the log has. Then one transaction of the log
removes the records and names the segment: it never lacks what it does not say where to find.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from hashlib import blake2b
from typing import Final, NamedTuple

from penstock.core.errors import DataCorrupt
from penstock.core.ids import LeafId
from penstock.core.record import NO_VERSION, Kind, LogRecord, Version, kind_of, leaf_of
from penstock.core.step import Step
from penstock.flows.archiving import ArchivedLog, Kept
from penstock.flows.history import READ_RECORDS, History, Known
from penstock.flows.refold import REPAIR, refold
from penstock.ports.clock import Clock
from penstock.ports.leaf_index import LeafIndex
from penstock.ports.log import Archived, Log, Truncation
from penstock.ports.store import Store, StoredLeaf

SAMPLE_LEAVES: Final = 8
"""Leaves of each segment that are folded again before its records go."""

SAMPLE_RECORDS: Final = 2_000
"""A leaf of more records is not chosen: each may be in a segment of its own."""

READ_LEAVES: Final = 256


class Cut(NamedTuple):
    """What can go of a partition: offsets `[first, end)`, the last of them logged at `until_ms`."""

    partition: int
    first: int
    end: int
    until_ms: int


class Serves(NamedTuple):
    """The set of leaves that serves: its epoch, and the step that folds it."""

    epoch: int
    step: Step


class Truncator:
    """Truncates one log. One a process, in the process that owns the log.

    Args:
        log: In two tiers, so that a leaf's records are found wherever they are.
        archived: Where the segments are; None only for `Forgetter`.
        index: Says which segments are closed, and finds a leaf's records.
        store: The leaves.
        serves: Which of them serve.
        epochs: All sets of leaves that are kept or built: none lacks what goes.
        clock: Says what is old.
        keep_ms: Records younger than this stay.
    """

    def __init__(
        self, log: Log, archived: ArchivedLog | None, index: LeafIndex, *, store: Store,
        serves: Callable[[], Serves], epochs: Callable[[], Iterable[int]], clock: Clock, keep_ms: int,
    ) -> None:  # fmt: skip
        self.log = log
        self._archived = archived
        self.index = index
        self.store = store
        self.serves = serves
        self.epochs = epochs
        self.clock = clock
        self.keep_ms = keep_ms
        self._listed: list[Kept] = []

    def due(self) -> list[Cut]:
        """Return what could be truncated now, by partition; nothing is compared or changed.

        Raises:
            Unavailable: The archive did not answer (E419).
        """
        found: list[Cut] = []
        for partition in range(self.log.partitions):
            first = end = self._start(partition)
            while candidates := self._candidates(partition, end):
                end = candidates[0].span.end
            if end > first:
                found.append(Cut(partition, first, end, self._logged_at_ms(partition, end - 1)))
        return found

    def once(self) -> int:
        """Truncate a partition of one segment, if one can go; return how many records it has.

        Raises:
            DataCorrupt: Leaves lack what they have applied (E711) or are not what their records fold to
                (E752), or the log (E703) or a segment (E730) does not read back: nothing went.
            Unavailable: The archive (E419), the store (E402) or the log (E401) did not answer.
        """
        for partition in range(self.log.partitions):
            start = self._start(partition)
            # Mostly there is nothing to do, and then the archive is not asked.
            if self.index.covered(partition) <= start or not self._is_old(partition, start):
                continue
            for kept in self._candidates(partition, start):
                records = self._proven(kept)
                if records:
                    self._verify(partition, records)
                    self._give_up(partition, kept, records)
                    return len(records)
        return 0

    # -- what can go

    @property
    def archived(self) -> ArchivedLog:
        """Where the segments are."""
        assert self._archived is not None, "what truncates into an archive has one"
        return self._archived

    def _start(self, partition: int) -> int:
        named = self.log.archived(partition)
        return named[-1].end if named else self.log.first(partition)

    def _limit(self, partition: int) -> int:
        """Return the lowest offset that some set of leaves has yet to apply."""
        applied = [self.store.applied(epoch, partition) for epoch in self.epochs()]
        return min(
            (one.offset + 1 if one.generation == self.log.generation else 0 for one in applied),
            default=0,
        )

    def _logged_at_ms(self, partition: int, offset: int) -> int:
        return self.log.read(partition, offset, 1)[0].logged_at_ms

    def _is_old(self, partition: int, offset: int) -> bool:
        return self._logged_at_ms(partition, offset) < self.clock.now_ms() - self.keep_ms

    def _candidates(self, partition: int, first: int) -> list[Kept]:
        """Return the segments that may be the log's own from an offset on, and may go."""

        def found() -> list[Kept]:
            place = (self.log.generation, partition, first)
            return [one for one in self._listed if one.span[:3] == place]

        if not found():
            self._listed = self.archived.segments()
        limit = self._limit(partition)
        return [
            one
            for one in found()
            if one.span.end <= limit and self._is_old(partition, one.span.end - 1)
        ]

    # -- whether it may

    def _proven(self, kept: Kept) -> list[LogRecord]:
        """Return a segment's records if they are the log's, read back from the archive; else none."""
        records = self.archived.load(kept)
        for start in range(0, len(records), READ_RECORDS):
            some = records[start : start + READ_RECORDS]
            if some != self.log.read(kept.span.partition, some[0].offset, len(some)):
                return []
        return records

    def _verify(self, partition: int, records: Sequence[LogRecord]) -> None:
        serves = self.serves()
        # Before the leaves are read: what is applied meanwhile is no fault of theirs.
        applied = [self.store.applied(serves.epoch, one) for one in range(self.log.partitions)]
        newest = {
            LeafId(leaf_of(one.value)): one.offset
            for one in records
            if kind_of(one.value) == Kind.PRIMARY
        }
        stored = self._stored(serves.epoch, [*newest])
        lacking = sum(
            _version(stored.get(leaf)) < (self.log.generation, offset)
            for leaf, offset in newest.items()
        )
        if lacking:
            raise DataCorrupt("E711", f"{lacking} leaves lack events that the store says it applied; the log is not "
                              "truncated", fix=REPAIR)  # fmt: skip
        chosen = self._sample(partition, stored, records[0].offset)
        entries = History(self.log, self.index).entries(chosen, Known())
        refold(entries, self.log, self.store, serves.step, serves.epoch, chosen, applied=applied)

    def _stored(self, epoch: int, leaves: Sequence[LeafId]) -> dict[LeafId, StoredLeaf]:
        found: dict[LeafId, StoredLeaf] = {}
        for start in range(0, len(leaves), READ_LEAVES):
            some = leaves[start : start + READ_LEAVES]
            read = zip(some, self.store.read(epoch, some), strict=True)
            found.update((leaf, one) for leaf, one in read if one is not None)
        return found

    def _sample(
        self, partition: int, stored: dict[LeafId, StoredLeaf], seed: int
    ) -> dict[LeafId, StoredLeaf]:
        """Return some leaves: ids are hashes, so those after a place chosen blindly are a fair sample."""
        begin = blake2b(seed.to_bytes(8, "big"), digest_size=16, person=b"truncate").digest()
        chosen: dict[LeafId, StoredLeaf] = {}
        for leaf in sorted(stored, key=lambda one: (one < begin, one)):
            if len(self.index.find(partition, leaf)) <= SAMPLE_RECORDS:
                chosen[leaf] = stored[leaf]
            if len(chosen) == SAMPLE_LEAVES:
                break
        return chosen

    # -- and it goes

    def _give_up(self, partition: int, kept: Kept, records: Sequence[LogRecord]) -> None:
        before = self.log.truncation(partition)
        counted = counts_of(record for record in records if record.offset >= before.end)
        truncation = Truncation(
            kept.span.end, before.primaries + counted.primaries, before.links + counted.links
        )
        named = Archived(kept.span.first, kept.span.end, kept.name, kept.size)
        self.log.truncate(partition, truncation, [named])


class Counted(NamedTuple):
    """How many records of each kind that a law counts."""

    primaries: int
    links: int


def counts_of(records: Iterable[LogRecord]) -> Counted:
    """Count records as the law of conservation does."""
    primaries = links = 0
    for record in records:
        kind = kind_of(record.value)
        primaries += kind == Kind.PRIMARY
        links += kind not in (Kind.PRIMARY, Kind.LOST)
    return Counted(primaries, links)


def _version(stored: StoredLeaf | None) -> Version:
    return NO_VERSION if stored is None else stored.version
