"""The log is truncated without an archive: what is older is gone, and snapshots of the leaves stand for it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from penstock.core.errors import SettingsError
from penstock.core.record import LogRecord
from penstock.core.segment import next_segment
from penstock.core.step import Step
from penstock.flows.history import READ_RECORDS
from penstock.flows.native import new_fold
from penstock.flows.process import flush_all
from penstock.flows.snapshot import snapshot_epoch
from penstock.flows.truncating import Cut, Serves, Truncator, counts_of
from penstock.ports.clock import Clock
from penstock.ports.leaf_index import LeafIndex
from penstock.ports.log import Log, Truncation
from penstock.ports.store import Store


class Forgetter(Truncator):
    """Truncates a log that has no archive. One a process, in the process that owns the log.

    The snapshots of all sets of leaves move on first; then a sample of the leaves that serve is folded
    again from their snapshot and what follows; then the snapshots are fsynced; then the records go.

    Args:
        log: The log itself.
        index: Says which segments are closed, and finds a leaf's records.
        store: The leaves and their snapshots.
        serves: Which leaves serve.
        steps: What folds each set of leaves that is loaded, by epoch.
        epochs: All sets of leaves that are kept or built; if one is not loaded, nothing goes.
        clock: Says what is old.
        keep_ms: Records younger than this stay.
    """

    def __init__(
        self, log: Log, index: LeafIndex, *, store: Store, serves: Callable[[], Serves],
        steps: Callable[[], Mapping[int, Step]], epochs: Callable[[], Iterable[int]], clock: Clock, keep_ms: int,
    ) -> None:  # fmt: skip
        super().__init__(
            log, None, index, store=store, serves=serves, epochs=epochs, clock=clock, keep_ms=keep_ms
        )  # fmt: skip
        self.steps = steps

    def due(self) -> list[Cut]:
        """Return what could be truncated now, by partition; nothing is changed."""
        found: list[Cut] = []
        for partition in range(self.log.partitions):
            first = end = self.log.truncation(partition).end
            until_ms = 0
            while records := self._closed(partition, end):
                end, until_ms = records[-1].offset + 1, records[-1].logged_at_ms
            if end > first:
                found.append(Cut(partition, first, end, until_ms))
        return found

    def once(self) -> int:
        """Truncate a partition by as much as a segment, if it can go; return how many records it has.

        Raises:
            DataCorrupt: Leaves lack what they have applied (E711) or are not what snapshot and records
                fold to (E752), or the log does not read back (E703): nothing went.
            SettingsError: An archive has what went before (E276).
            Unavailable: The store (E402) or the log (E401) did not answer.
        """
        for partition in range(self.log.partitions):
            start = self.log.truncation(partition).end
            if self.index.covered(partition) <= start or not self._is_old(partition, start):
                continue
            records = self._closed(partition, start)
            if records and self.steps().keys() >= {*self.epochs()}:
                self._give_up_all(partition, start, records)
                return len(records)
        return 0

    def _closed(self, partition: int, start: int) -> list[LogRecord]:
        """Return the records that go next: as many as a segment of an archive would have; or none."""

        def read(offset: int, limit: int) -> list[LogRecord]:
            return self.log.read(partition, offset, limit)

        if self.log.archived(partition):
            raise SettingsError("E276", "the log goes on in an archive, which is not named any more", where="archive.place",
                                fix="set `archive.place` back, or remove `log.keep`")  # fmt: skip
        records = next_segment(read, start, self._limit(partition))
        return records if records and self._is_old(partition, records[-1].offset) else []

    def _give_up_all(self, partition: int, start: int, records: list[LogRecord]) -> None:
        end = records[-1].offset + 1
        steps = self.steps()
        for epoch in self.epochs():
            self._advance(epoch, steps[epoch], partition, start, end)
        self._verify(partition, records)
        # The store's commits are durable in order, but not at once: those of the snapshots are from here.
        self.store.put_meta(f"snapshot:{partition}", str(end))
        before, counted = self.log.truncation(partition), counts_of(records)
        self.log.truncate(
            partition,
            Truncation(end, before.primaries + counted.primaries, before.links + counted.links),
        )

    def _advance(self, epoch: int, step: Step, partition: int, start: int, end: int) -> None:
        fold = new_fold(
            step=step, store=self.store, epoch=snapshot_epoch(epoch), partition=partition,
            generation=self.log.generation,
        )  # fmt: skip
        if fold.next_offset < start:
            raise SettingsError("E275", "a set of leaves lacks the snapshot that it began from", where="log.forget",
                                fix="restore a backup of the store")  # fmt: skip
        while fold.next_offset < end:
            limit = min(READ_RECORDS, end - fold.next_offset)
            fold.feed(self.log.read(partition, fold.next_offset, limit))
        flush_all(fold)
