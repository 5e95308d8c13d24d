"""Workers with a bug, each of which the simulation of workers must find."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any, Final

from msgspec import structs

from penstock.core.errors import PenstockError, Unavailable
from penstock.core.ids import event_id
from penstock.core.record import DeadLetter, Kind, LogRecord, Record, Version, encode_record
from penstock.flows.process import Late, PartitionFold
from penstock.ports.store import Verdict
from penstock.runtimes.worker import Worker


class WorkerBug(Enum):
    """Protocol bugs to plant, each of which some history must show."""

    NONE = "none"
    COMMIT_BEFORE_WRITE = "the applied offset is noted before the leaves are written"
    RESUME_FROM_COMMIT = (
        "offsets are committed when records are read, and a worker goes on from there"
    )
    NO_BASE_CHECK = "the store takes whatever is written last"
    CACHE_OVER_REVOKED = "cached leaves are kept while a partition is another's, and the store refuses older ones only"
    ALTERNATING_WORKERS = "two workers take turns on a partition without being told, and the store refuses older ones only"
    LINK_AFTER_LEAF = "leaves are written before the links of their primaries are in the log"
    LINKS_FORGOTTEN = "links that the log did not take are forgotten, and the leaves are written"
    UNANSWERED_IS_WRITTEN = "a write that was not answered counts as written"
    REFUSED_IS_WRITTEN = (
        "a write that was refused counts as written, and the applied offset is noted"
    )
    REVOKED_UNWRITTEN = "what is revoked is noted as applied, and not written"
    LOST_LEAVES_NO_TRACE = (
        "a rewound partition is read on from where it was, not from what is written"
    )
    UNDRAINED = "a generation is folded before the one before is drained"
    LATE_NOT_COPIED = "what came behind a seal is not copied"
    LATE_RENAMED = "what came behind a seal is copied with a message id of its own"
    LATE_NOTED_FIRST = "what came behind a seal is noted as applied before it is copied"
    LINK_TO_SEALED = "links go to the generation of their primaries"
    SEAL_FORGOTTEN = "one partition is not sealed"
    SEAL_NOT_KNOWN_AGAIN = "a fold that begins behind the seal does not know of it"
    REGISTER_NOT_HEALED = "what a person said of permission is left to the edge alone"
    COMMIT_BEFORE_CONFIRMED = (
        "what is written is committed before it is known to outlast the server"
    )
    WAIT_SKIPPED = "the store confirms what no replica has"
    CACHE_OVER_ERA = "cached leaves are kept when the store has lost what was written"
    NOTED_OVER_ERA = "the applied offset is noted of leaves that were lost since they were written"
    ERA_NOT_SEEN = "a store that has lost leaves is taken for one that never had them"


class _ResumesFromCommit(Worker):
    """Commits when it reads, and goes on from the commit."""

    def _fold(self, lane: Any, fold: PartitionFold, records: Sequence[LogRecord]) -> int:
        self.consumer.commit({lane.partition: records[-1].offset + 1})
        return super()._fold(lane, fold, records)

    def _open(self, lane: Any) -> int | None:
        offset = super()._open(lane)
        if offset is not None:
            offset = max(self.consumer.committed(lane.partition), 0)
            lane.fold.next_offset = lane.fold.noted = offset
        return offset


class _KeepsCaches(Worker):
    """Keeps what it had cached of a partition that it gets back."""

    def _forget(self, partitions: Sequence[int]) -> None:
        self._kept = getattr(self, "_kept", {})
        self._kept.update({p: self._lanes[p].fold for p in partitions if p in self._lanes})
        super()._forget(partitions)

    def _open(self, lane: Any) -> int | None:
        offset = super()._open(lane)
        before = getattr(self, "_kept", {}).pop(lane.partition, None)
        if offset is not None and before is not None:
            lane.fold.cache.update(before.cache)
            for leaf in lane.fold.cache.values():
                leaf.dirty_from = -1
        return offset


class _Alternates(Worker):
    """Believes that every batch follows on what it has, whoever had the partition meanwhile."""

    def assigned(self, partitions: Sequence[int]) -> Mapping[int, int]:
        fresh = [one for one in partitions if one not in self._lanes]
        begun = dict(super().assigned(fresh))
        for partition in set(partitions) - set(fresh):
            fold = self._lanes[partition].fold
            if fold is not None:
                fold.next_offset = fold.noted = begun[partition] = fold.resume_offset()
        return begun

    def _forget(self, partitions: Sequence[int]) -> None:
        """Is not told."""


class _LinksLast(Worker):
    """Appends links when the leaves are written."""

    def _keep(self, lane: Any) -> None:
        if lane.fold.dirty:
            return
        super()._keep(lane)

    def _flush(self, lane: Any) -> None:
        super()._flush(lane)
        if lane.fault is None and lane.asks:
            try:
                super()._keep(lane)
            except PenstockError as error:
                self._rest(lane, error)


class _ForgetsLinks(Worker):
    """Goes on without the links that the log did not take."""

    def _keep(self, lane: Any) -> None:
        try:
            super()._keep(lane)
        except PenstockError:
            lane.asks.clear()


class _TakesSilenceForYes(Worker):
    """Counts as written what the store did not answer."""

    def _flush(self, lane: Any) -> None:
        write = lane.fold.write

        def hopeful(flush: Any) -> list[Verdict]:
            try:
                return write(flush)
            except Unavailable:
                return [Verdict.ACCEPTED] * len(flush.writes)

        lane.fold.write = hopeful
        super()._flush(lane)


class _RevokesUnwritten(Worker):
    """Notes as applied what it has folded, when a partition is revoked, and writes none of it."""

    def revoked(self, partitions: Sequence[int]) -> None:
        for partition in partitions:
            fold = self._lanes[partition].fold if partition in self._lanes else None
            if fold is not None:
                applied = Version(fold.generation, fold.next_offset - 1)
                self.store.write(self.epoch, [], partition=partition, applied=applied)
        self._forget(partitions)


class _CommitsUnconfirmed(Worker):
    """Commits what it has written."""

    def _commit(self, lanes: Sequence[Any]) -> None:
        self.consumer.commit({
            lane.partition: lane.fold.noted for lane in lanes if lane.fold is not None and lane.fold.noted
        })  # fmt: skip


class _KeepsCacheOverEras(Worker):
    """Goes back to what the store has, and keeps the leaves that it had written there."""

    def _go_back(self, lane: Any) -> None:
        written = {
            leaf_id: leaf for leaf_id, leaf in lane.fold.cache.items() if leaf.base == leaf.version
        }
        super()._go_back(lane)
        lane.fold.cache.update(written)


class _ReadsOn(Worker):
    """After a fault it begins anew from what is written, and reads on from where it was."""

    def _open(self, lane: Any) -> int | None:
        before = None if lane.fold is None else lane.fold.next_offset
        offset = super()._open(lane)
        if offset is None or before is None or lane.fold is None:
            return offset
        lane.fold.next_offset = lane.fold.noted = before
        return before


class _Undrained(Worker):
    """Begins with every generation at once."""

    def _may_begin(self, generation: int) -> bool:
        return True


class _CopiesNothing(Worker):
    """Goes past what came behind a seal."""

    def _copy(self, partition: int, late: Sequence[Late]) -> None:
        """Forget it."""


class _Renames(Worker):
    """Copies as if an event were another one there."""

    def _copy(self, partition: int, late: Sequence[Late]) -> None:
        renamed: list[Late] = []
        for offset, record in late:
            message_id = f"{record.message_id}#copy"
            other = structs.replace(
                record, message_id=message_id, event_id=event_id(record.leaf, message_id)
            )
            renamed.append(Late(offset, other if record.kind == Kind.PRIMARY else record))
        super()._copy(partition, renamed)


class _CopiesLast(Worker):
    """Copies when the applied offset is noted."""

    def _keep(self, lane: Any) -> None:
        late = [one for ask in lane.asks for one in ask.folded.late]
        self._owed = [*getattr(self, "_owed", []), *late]
        for ask in lane.asks:
            ask.folded.late.clear()
        super()._keep(lane)

    def _flush(self, lane: Any) -> None:
        super()._flush(lane)
        owed, self._owed = getattr(self, "_owed", []), []
        if owed and lane.fault is None:
            try:
                self._copy(lane.partition, owed)
            except PenstockError as error:
                self._rest(lane, error)


class _LinksBack(Worker):
    """Appends links beside their primaries."""

    def _append(
        self, partition: int, links: Sequence[Record], letters: Sequence[DeadLetter]
    ) -> None:
        known = self.log.generations
        before = known.generation(partition)
        for link in links:
            to = known.partition(link.leaf, before if link.kind == Kind.LINK else 0)
            self.log.append(to, [encode_record(link)])


class _ForgetsASeal(Worker):
    """Never seals the first partition."""

    def _seal(self, lane: Any) -> None:
        if lane.partition:
            super()._seal(lane)


class _FoldsOn(Worker):
    """Looks for the seal only in what it reads."""

    def _open(self, lane: Any) -> int | None:
        offset = super()._open(lane)
        if lane.fold is not None:
            lane.fold.seal = None
        return offset


WORKERS: Final[dict[WorkerBug, type[Worker]]] = {
    WorkerBug.RESUME_FROM_COMMIT: _ResumesFromCommit,
    WorkerBug.CACHE_OVER_REVOKED: _KeepsCaches,
    WorkerBug.ALTERNATING_WORKERS: _Alternates,
    WorkerBug.LINK_AFTER_LEAF: _LinksLast,
    WorkerBug.LINKS_FORGOTTEN: _ForgetsLinks,
    WorkerBug.UNANSWERED_IS_WRITTEN: _TakesSilenceForYes,
    WorkerBug.REVOKED_UNWRITTEN: _RevokesUnwritten,
    WorkerBug.LOST_LEAVES_NO_TRACE: _ReadsOn,
    WorkerBug.COMMIT_BEFORE_CONFIRMED: _CommitsUnconfirmed,
    WorkerBug.CACHE_OVER_ERA: _KeepsCacheOverEras,
    WorkerBug.UNDRAINED: _Undrained,
    WorkerBug.LATE_NOT_COPIED: _CopiesNothing,
    WorkerBug.LATE_RENAMED: _Renames,
    WorkerBug.LATE_NOTED_FIRST: _CopiesLast,
    WorkerBug.LINK_TO_SEALED: _LinksBack,
    WorkerBug.SEAL_FORGOTTEN: _ForgetsASeal,
    WorkerBug.SEAL_NOT_KNOWN_AGAIN: _FoldsOn,
}
"""The worker that has a bug; bugs that are not listed are the store's or the register's."""

OF_A_SERVER: Final = frozenset({
    WorkerBug.COMMIT_BEFORE_CONFIRMED, WorkerBug.WAIT_SKIPPED, WorkerBug.CACHE_OVER_ERA,
    WorkerBug.NOTED_OVER_ERA, WorkerBug.ERA_NOT_SEEN,
})  # fmt: skip
"""Those that only a store shows that may lose what it had acknowledged."""

OF_GENERATIONS: Final = frozenset({
    WorkerBug.UNDRAINED, WorkerBug.LATE_NOT_COPIED, WorkerBug.LATE_RENAMED, WorkerBug.LATE_NOTED_FIRST,
    WorkerBug.LINK_TO_SEALED, WorkerBug.SEAL_FORGOTTEN, WorkerBug.SEAL_NOT_KNOWN_AGAIN,
})  # fmt: skip
"""Those that only show where the log gets another generation."""
