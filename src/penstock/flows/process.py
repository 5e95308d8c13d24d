"""A batch from the log becomes updated leaves: the fold of one partition, whatever the runtime.

The order that keeps every promise: records are folded into leaves held in memory; the links that
this yields are appended to the log; only then are leaves written whose version covers the
primaries, oldest change first, together with the applied offset.
"""

from __future__ import annotations

from collections.abc import Callable, Container, MutableMapping, Sequence
from itertools import islice
from typing import Any, NamedTuple

from penstock.core.consent.suppression import (
    PERMISSION_EVENTS,
    Suppression,
    SuppressionKey,
    suppression_of,
)
from penstock.core.errors import Fenced, Unavailable
from penstock.core.generations import copied_below
from penstock.core.ids import LeafId, as_hex
from penstock.core.leaf import Leaf, decode_leaf, encode_leaf
from penstock.core.record import (
    DeadLetter,
    Kind,
    LogRecord,
    Record,
    Version,
    decode_record,
    decode_records,
    leaf_of,
)
from penstock.core.step import Outcome, Step
from penstock.flows.generations import note_seal, seal_of
from penstock.ports.profiles import Versions, versions_of
from penstock.ports.store import LeafWrite, Store, Verdict

QUARANTINE_CODE = "E360"
PLACE_PARTS = 3
"""Of a letter's id: the log's generation, the partition and the offset; see `place_of`."""

SLICE_RECORDS = 32
"""Records decoded before they are folded: few enough to stay in the processor's cache. Measured, a
fold in slices of 5,000 is 1.8 times slower, and in slices of 64 by a twentieth."""

_SEAL = int(Kind.SEAL)
_SKIPPED, _DEDUPLICATED, _DEAD = Outcome.SKIPPED, Outcome.DEDUPLICATED, Outcome.DEAD


class Tally:
    """Primaries by what became of them, since this fold started."""

    __slots__ = ("applied", "dead", "deduplicated", "dropped", "linked", "skipped")

    def __init__(self) -> None:
        self.applied = self.deduplicated = self.dropped = self.dead = self.linked = self.skipped = 0


class Late(NamedTuple):
    """A record behind the seal of its partition: it is not folded there, and is to be copied."""

    offset: int
    record: Record


class Folded(NamedTuple):
    """What a batch asks of the runtime besides leaf writes."""

    links: list[Record]
    letters: list[DeadLetter]
    suppressions: list[tuple[SuppressionKey, Suppression]]
    late: list[Late]


class Flush(NamedTuple):
    """Leaves encoded for one store transaction, and the applied offset that goes with them."""

    writes: list[LeafWrite]
    applied: Version
    leaves: list[Leaf]


class PartitionFold:
    """Folds one partition into leaves and says what to write. One thread at a time.

    A cached leaf is usable only while this fold has seen every offset since it was loaded: a batch
    that does not start at the next offset drops the cache (the contiguity rule).

    A seal ends the partition: what comes behind it is not folded, and asked to be copied. Where it is, is
    noted in the store before an applied offset is that says the same.

    Args:
        step: The step of the definitions.
        store: Where leaves are loaded from.
        epoch: The definitions epoch.
        partition: Which partition this is.
        generation: The partition's.
        cached_max: How many decoded leaves to hold; dirty ones are held beyond it.
        empty: The store holds no leaf of this epoch yet, so none is looked up before one is dropped
            from the cache.
    """

    slice_records = SLICE_RECORDS

    def __init__(
        self, *, step: Step, store: Store, epoch: int, partition: int, generation: int, cached_max: int = 200_000,
        empty: bool = False,
    ) -> None:  # fmt: skip
        self.step = step
        self.store = store
        self.epoch = epoch
        self.partition = partition
        self.generation = generation
        self.cached_max = cached_max
        self._empty = empty
        self.tally = Tally()
        self.asks_from = 0
        """Links of records before it may be left out: they are in the log."""
        self.cache: MutableMapping[LeafId, Leaf] = {}
        self.dirty: MutableMapping[LeafId, int] = {}
        """Leaf -> first offset not in the store, ascending because offsets are."""
        self.starts = 0
        """How often it has begun anew: what was fetched before is not taken in after."""
        self.seal: int | None = None
        """The offset of the seal that ends the partition, once it is known."""
        self.copied = 0
        """Below it what came behind the seal is in the newest generation, too."""
        self._seal_noted = False
        self.next_offset = self.noted = self.resume_offset()
        self.last_logged_at_ms = 0

    def resume_offset(self) -> int:
        """Return the lowest offset not covered by a written leaf, from the store's own record."""
        # The era first: one that ends meanwhile is found to have ended. Not told, this is adrift.
        era, self._era = self.store.era, -1
        applied = self.store.applied(self.epoch, self.partition)
        self.seal = seal_of(self.store, self.partition)
        self._seal_noted = self.seal is not None
        self._era = era
        return applied.offset + 1 if applied.generation == self.generation else 0

    def restart(self) -> int:
        """Forget everything that is not written and return the offset to read from.

        Raises:
            Unavailable: The store did not say (E402, E450); nothing is forgotten, and it is still adrift.
        """
        resume = self.resume_offset()
        self.starts += 1
        self._empty = False
        self.cache.clear()
        self.dirty.clear()
        self.next_offset = self.noted = resume
        self.last_logged_at_ms = 0
        return self.next_offset

    def adrift(self) -> bool:
        """Return whether the store may lack what this fold believes to be in it: it must restart."""
        return self.store.era != self._era

    def feed(self, batch: Sequence[LogRecord]) -> Folded:
        """Fold a batch of consecutive records.

        Raises:
            DataCorrupt: A record or a stored leaf does not decode; the slices before it are folded.
            Fenced: The batch starts beyond the next offset: seek to `next_offset` (E602).
            Unavailable: The store did not answer (E402), or may lack what was written (E450); the caller
                restarts before it goes on.
        """
        folded = Folded([], [], [], [])
        if not batch:
            return folded
        self._require_era()
        if batch[0].offset != self.next_offset and batch[0].offset > self.restart():
            raise Fenced("E602", f"partition {self.partition} was fed from offset {batch[0].offset}, "
                         f"but is applied only up to {self.next_offset - 1}",
                         fix="the worker seeks to its applied offset")  # fmt: skip
        for start in range(0, len(batch), self.slice_records):
            self._feed_slice(batch[start : start + self.slice_records], folded)
        return folded

    def _feed_slice(self, batch: Sequence[LogRecord], folded: Folded) -> None:
        first = batch[0].offset
        within = batch if self.seal is None else batch[: max(self.seal + 1 - first, 0)]
        if within:
            self._fold_slice(within, folded)
        if self.seal is not None and batch[-1].offset > self.seal:
            self._pass(batch[max(self.seal + 1 - first, 0) :], folded)
        self.next_offset = batch[-1].offset + 1
        self.last_logged_at_ms = batch[-1].logged_at_ms

    def _pass(self, batch: Sequence[LogRecord], folded: Folded) -> None:
        """Go over what is behind the seal: it counts where it is copied to."""
        for entry in batch:
            record = decode_record(entry.value)
            if record.kind == Kind.SEAL:
                self.copied = max(self.copied, copied_below(record))
            elif record.kind != Kind.LOST and entry.offset >= self.noted:
                folded.late.append(Late(entry.offset, record))

    def _fold_slice(self, batch: Sequence[LogRecord], folded: Folded) -> None:
        records = decode_records([entry.value for entry in batch])
        self._load(records)
        cache, dirty, fold, generation = self.cache, self.dirty, self.step.fold, self.generation
        links = folded.links
        outcomes: list[Outcome] = []
        for entry, record in zip(batch, records, strict=True):
            offset = entry.offset
            leaf = cache[record.leaf]  # type: ignore[index] - LeafId is bytes
            outcome = fold(leaf, record, generation, offset, entry.logged_at_ms, links)
            outcomes.append(outcome)
            if outcome is _SKIPPED:
                if record.kind == _SEAL:
                    self.seal = offset if self.seal is None else self.seal
                    break
                continue
            if leaf.dirty_from < 0:
                leaf.dirty_from = offset
                dirty[leaf.leaf] = offset
            if outcome is _DEAD:
                folded.letters.append(letter_of(record, entry, self.partition, generation))
            # What a person says of permission counts, quarantined or not.
            if record.name in PERMISSION_EVENTS and outcome is not _DEDUPLICATED:
                folded.suppressions.extend(suppression_of(record))
        self._count(outcomes)

    def _require_era(self) -> None:
        if self.adrift():
            raise Unavailable("E450", "the store may lack leaves that were written",
                              fix="nothing: the worker drops its cache and goes back to the applied offset")  # fmt: skip

    def absent(self, batch: Sequence[LogRecord]) -> list[LeafId]:
        """Return the leaves of a batch that would have to be looked up."""
        if self._empty:
            return []
        cache = self.cache
        leaves = dict.fromkeys(leaf_of(entry.value) for entry in batch)
        return [LeafId(leaf) for leaf in leaves if leaf not in cache]

    def look_up(self, leaves: Sequence[LeafId]) -> Sequence[Any]:
        """Return leaves from the store as `take_in` takes them; on any thread."""
        return self.fetch(leaves)

    def take_in(self, leaves: Sequence[LeafId], found: Sequence[Any], starts: int) -> None:
        """Hold what was looked up beforehand, so that no look-up is left for `feed`.

        Args:
            leaves: From `absent`.
            found: From `look_up`, on any thread; nothing was fed to this fold meanwhile.
            starts: `starts` from before they were fetched. If it has begun anew since, they are let go.
        """
        if starts != self.starts:
            return
        for leaf_id, leaf in zip(leaves, found, strict=True):
            self.cache[leaf_id] = leaf or Leaf(leaf_id, self.step.plan.new_states())
        if len(self.cache) > self.cached_max:
            self._evict({*leaves})

    def _count(self, outcomes: list[Outcome]) -> None:
        tally, count = self.tally, outcomes.count
        applied = count(Outcome.APPLIED)
        tally.applied += applied
        if applied < len(outcomes):
            tally.skipped += count(Outcome.SKIPPED)
            tally.deduplicated += count(Outcome.DEDUPLICATED)
            tally.dropped += count(Outcome.DROPPED)
            tally.dead += count(Outcome.DEAD)
            tally.linked += count(Outcome.LINKED)

    def _load(self, records: Sequence[Record]) -> None:
        cache = self.cache
        absent = [record.leaf for record in records if record.leaf not in cache]
        if absent:
            missing = list(map(LeafId, dict.fromkeys(absent)))
            stored: list[Leaf | None] = (
                [None] * len(missing) if self._empty else self.fetch(missing)
            )
            # What was read may be older than what this fold has written.
            self._require_era()
            for leaf_id, leaf in zip(missing, stored, strict=True):
                cache[leaf_id] = leaf or Leaf(leaf_id, self.step.plan.new_states())
            if len(cache) > self.cached_max:
                self._evict({record.leaf for record in records})

    def fetch(self, leaves: Sequence[LeafId]) -> list[Leaf | None]:
        """Return leaves from the store, decoded; None where there is none."""
        plan = self.step.plan
        return [
            None if stored is None else decode_leaf(leaf_id, stored.version, stored.parts[0], plan)
            for leaf_id, stored in zip(leaves, self.store.read(self.epoch, leaves), strict=True)
        ]

    def peek(self, leaves: Sequence[LeafId]) -> list[Leaf | None]:
        """Return leaves for reading: the cached one where there is one, else the stored one."""
        cache = self.cache
        found: list[Leaf | None] = [*map(cache.get, leaves)]
        if None in found:
            cold = [leaf_id for leaf_id, leaf in zip(leaves, found, strict=True) if leaf is None]
            stored = iter(self.fetch(cold))
            found = [leaf if leaf is not None else next(stored) for leaf in found]
        return found

    def versions(self, leaves: Sequence[LeafId]) -> Versions:
        """Return the versions of leaves that are held; None of the others, which may be in the store."""
        return versions_of([*map(self.cache.get, leaves)])

    def _evict(self, keep: Container[LeafId]) -> None:
        # Oldest loaded first; a dirty leaf was used lately, so it goes to the back instead.
        self._empty = False
        cache = self.cache
        for leaf_id in list(cache)[: len(cache) - self.cached_max + self.cached_max // 20]:
            leaf = cache[leaf_id]
            if leaf_id in keep:
                continue
            if leaf.dirty_from >= 0 or leaf.base != leaf.version:
                del cache[leaf_id]
                cache[leaf_id] = leaf
            else:
                del cache[leaf_id]

    def take(self, limit: int, before: int | None = None) -> Flush | None:
        """Encode up to `limit` changed leaves, oldest change first; None if the store has it all.

        Records that changed no leaf move the applied offset too: then nothing but it is written.

        The caller makes every link and letter yielded so far durable before it writes what it took,
        and calls `written` or `restart` before it takes again.

        Args:
            limit: Leaves at most.
            before: Only leaves first changed by a record before this offset; None for all.

        Raises:
            Unavailable: The store may lack what was written (E450), and the caller restarts.
        """
        self._require_era()
        if not self.dirty and self.noted == self.next_offset:
            return None
        chosen = [
            leaf_id
            for leaf_id, first in islice(self.dirty.items(), limit)
            if before is None or first < before
        ]
        if self.dirty and not chosen:
            return None
        writes: list[LeafWrite] = []
        leaves: list[Leaf] = []
        plan, cache = self.step.plan, self.cache
        for leaf_id in chosen:
            leaf = cache[leaf_id]
            del self.dirty[leaf_id]
            leaf.dirty_from = -1
            writes.append(LeafWrite(leaf_id, leaf.base, leaf.version, (encode_leaf(leaf, plan),)))
            leaves.append(leaf)
        oldest = next(iter(self.dirty.values()), self.next_offset)
        return Flush(writes, Version(self.generation, oldest - 1), leaves)

    def write(self, flush: Flush) -> list[Verdict]:
        """Write a flush to the store; may run on another thread than the fold."""
        if not self._seal_noted and self.seal is not None and flush.applied.offset >= self.seal:
            note_seal(self.store, self.partition, self.seal)
            self._seal_noted = True
        return self.store.write(
            self.epoch, flush.writes, partition=self.partition, applied=flush.applied
        )

    def written(self, flush: Flush, verdicts: Sequence[Verdict]) -> None:
        """Take note of what the store decided.

        Raises:
            Fenced: A write was refused: another worker wrote this leaf. The caller restarts from
                the applied offset (E601).
        """
        for leaf, write, verdict in zip(flush.leaves, flush.writes, verdicts, strict=True):
            if verdict is Verdict.REFUSED:
                raise Fenced("E601", "another worker has written a leaf of this partition",
                             fix="the worker drops its cache and seeks to its applied offset")  # fmt: skip
            leaf.base = write.new
        self.noted = flush.applied.offset + 1

    def drained(self) -> bool:
        """Return whether all up to the seal is in the store."""
        return self.seal is not None and self.noted > self.seal

    def owes(self) -> bool:
        """Return whether the store lacks anything that was folded."""
        return bool(self.dirty) or self.noted != self.next_offset


def flush_all(fold: PartitionFold, limit: int = 5_000) -> None:
    """Write every changed leaf now, in bounded transactions."""
    while (flush := fold.take(limit)) is not None:
        fold.written(flush, fold.write(flush))


def catch_up(
    fold: PartitionFold, read: Callable[[int, int], Sequence[Sequence[LogRecord]]], *, keep: Callable[[Folded], None],
    batch: int = 5_000, dirty_max: int = 50_000,
) -> int:  # fmt: skip
    """Fold from the fold's next offset to the head; return how many records were read.

    Args:
        fold: The partition's fold.
        read: `batches(offset, limit)` of the partition.
        keep: Makes links, letters and suppressions of a batch durable, or drops them on replay.
        batch: Records a read.
        dirty_max: Changed leaves held before they are written.
    """
    count = 0
    while pieces := read(fold.next_offset, batch):
        for records in pieces:
            keep(fold.feed(records))
            count += len(records)
        if len(fold.dirty) > dirty_max:
            flush_all(fold)
    return count


def place_of(letter_id: str) -> Version | None:
    """Return where in its partition the record of a fold's letter is; None for another's letter."""
    kind, _, place = letter_id.partition("-")
    numbers = place.split("-")
    if kind != "fold" or len(numbers) != PLACE_PARTS or not all(map(str.isdecimal, numbers)):
        return None
    generation, _, offset = map(int, numbers)
    return Version(generation, offset)


def letter_of(record: Record, entry: LogRecord, partition: int, generation: int) -> DeadLetter:
    """Return the letter of an event whose identifier is quarantined."""
    return DeadLetter(
        letter_id=f"fold-{generation}-{partition}-{entry.offset}",
        source=record.source,
        received_at_ms=record.received_at_ms,
        reason=QUARANTINE_CODE,
        path="$",
        what=f"the identifier's leaf {as_hex(record.leaf)} is over its size limit and quarantined",
        message_id=record.message_id,
        body=entry.value,
    )
