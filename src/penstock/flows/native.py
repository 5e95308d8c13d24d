"""The fold of a partition by the native accelerator: the same leaves, byte for byte, at a fraction of the cost.

`penstock_native` holds the leaves and folds what it knows from the log's bytes. What it does not know, a
record or a leaf, is folded here by the step that `process.py` calls, on the leaf's bytes: so the codec of
leaves is all that the two have in common.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, MutableMapping, Sequence
from contextlib import contextmanager
from typing import Any

import msgspec

from penstock.core.batch import Batch
from penstock.core.consent.suppression import PERMISSION_EVENTS, suppression_of
from penstock.core.errors import DataCorrupt, Fenced, Unavailable
from penstock.core.feature.window import QUARTER_MS
from penstock.core.identity.routing import link_records
from penstock.core.ids import LeafId
from penstock.core.leaf import Leaf, decode_leaf, encode_leaf
from penstock.core.record import NO_VERSION, Kind, LogRecord, Record, Version, decode_record
from penstock.core.step import Outcome, Step
from penstock.flows.process import Flush, Folded, PartitionFold, letter_of
from penstock.ports.accelerator import Accelerator
from penstock.ports.profiles import Versions
from penstock.ports.store import LeafWrite, Store, StoredLeaf, Verdict

SLICE_RECORDS = 128
"""Records that are looked at together before the first is folded."""

MASK = (1 << 64) - 1
"""Of purposes that the accelerator knows: what needs further ones is folded in Python."""

SHOWN_MAX = 4_000
"""Leaves that were read and are remembered decoded, until they change."""

_OUTCOMES = ("skipped", "applied", "deduplicated", "dropped", "dead", "linked")


def new_fold(
    *, step: Step, store: Store, epoch: int, partition: int, generation: int, cached_max: int = 200_000,
    empty: bool = False,
) -> PartitionFold:  # fmt: skip
    """Return the fold of a partition: the native one if the step has an accelerator, else that in Python.

    Args:
        step: As the others, as `PartitionFold` has them.
        store: Where leaves are loaded from.
        epoch: The definitions epoch.
        partition: Which partition this is.
        generation: The log's generation.
        cached_max: How many leaves to hold.
        empty: The store holds no leaf of this epoch yet.
    """
    native = _accelerated(step)
    if native is None:
        return PartitionFold(step=step, store=store, epoch=epoch, partition=partition, generation=generation,
                             cached_max=cached_max, empty=empty)  # fmt: skip
    return NativeFold(native, step=step, store=store, epoch=epoch, partition=partition, generation=generation,
                      cached_max=cached_max, empty=empty)  # fmt: skip


def _accelerated(step: Step) -> Accelerator | None:
    if step.rules.accelerate is None:
        return None
    rules = {
        "trait_purposes": dict(step.rules.trait_purposes),
        "leaf_bytes_max": step.rules.leaf_bytes_max,
        "permission_events": sorted(PERMISSION_EVENTS),
    }
    try:
        return step.rules.accelerate(step.plan.handed_over(), msgspec.msgpack.encode(rules))
    except (ValueError, OverflowError):
        return None  # definitions that it does not read


class NativeFold(PartitionFold):
    """As `PartitionFold`, with leaves that the accelerator holds.

    Args:
        native: The accelerator's part.
        others: As `PartitionFold` has them.
    """

    slice_records = SLICE_RECORDS

    def __init__(self, native: Accelerator, **others: Any) -> None:
        super().__init__(**others)
        self.native = native
        self.tell([0])  # the clock of a leaf into which nothing was folded
        self.in_python = False
        """The accelerator has failed, and is not used any more."""
        self.kept: dict[LeafId, Leaf] = {}
        """Leaves that only Python knows, decoded."""
        self._held = _Cache(self)
        self.cache = self._held
        self.dirty = _Dirty(self)

    # -- fold

    def feed(self, batch: Sequence[LogRecord]) -> Folded:
        """Fold a batch of consecutive records, as `PartitionFold.feed` does.

        Raises:
            Unavailable: And if the accelerator failed (E475); the caller restarts, and it goes on in Python.
        """
        with self.guarded():
            return super().feed(batch)

    @contextmanager
    def guarded(self) -> Iterator[None]:
        """Say of a failure of the accelerator what to do: nothing that it holds is written."""
        try:
            yield
        except RuntimeError as error:
            if self.in_python or not self.native.broken:
                raise
            raise Unavailable("E475", "the native fold failed",
                              fix="nothing now: the leaves go on in Python, from what is written; report it, and set "
                              "`fold.accelerated = false` until it is mended") from error  # fmt: skip

    def restart(self) -> int:
        """Begin anew, as `PartitionFold.restart` does; in Python if the accelerator has failed."""
        resume = super().restart()
        if self.native.broken and not self.in_python:
            self.in_python, self.cache, self.dirty = True, {}, {}
        return resume

    def _fold_slice(self, batch: Sequence[LogRecord], folded: Folded) -> None:
        if self.in_python:
            super()._fold_slice(batch, folded)
            return
        native = self.native
        if type(batch) is Batch:
            at = (batch.first_offset, batch.logged_at_ms)
            scanned = native.scan(batch.values, batch.start, batch.stop, at)
        else:
            batch = batch if type(batch) is list else [*batch]
            scanned = native.scan(batch, 0, len(batch))
        missing, unread, judged, quarters = scanned
        records = {place: decode_record(batch[place].value) for place in unread}
        for place in judged:
            verdict = self.step.verdict(decode_record(batch[place].value).evidence)
            native.judge(place, verdict.mask & MASK, [*verdict.permitted], verdict.words)
        self.tell(quarters)
        if records:
            others = dict.fromkeys(record.leaf for record in records.values())
            missing += [leaf for leaf in native.absent([*others]) if leaf not in missing]
        if missing:
            self._bring(missing)
        place = 0
        while True:
            place, links, letters, spoken = native.run(place, self.generation)
            self._note(batch, folded, links, letters, spoken)
            if place == len(batch):
                break
            record = records.get(place) or decode_record(batch[place].value)
            self._fold_here(record, batch[place], folded)
            if record.kind == Kind.SEAL:
                self.seal = batch[place].offset if self.seal is None else self.seal
                break
            place += 1
        self._tally()
        if len(native) > self.cached_max:
            self._let_go()

    def decoded(self, leaf_id: LeafId) -> Leaf:
        """Return a leaf that the accelerator has, as it is now."""
        found = self.native.leaf(leaf_id)
        assert found is not None, "it is held"
        version, base, raw = found
        assert raw is not None, "Python does not keep it"
        leaf = decode_leaf(leaf_id, Version(*version), raw, self.step.plan)
        leaf.base = Version(*base)
        return leaf

    def tell(self, quarters: Iterable[int]) -> None:
        """Tell the offsets of the project's time zone, where calendar periods are folded."""
        if self.native.calendar:
            for quarter in quarters:
                self.native.tell(quarter, self.step.plan.zone.quarter_ms(quarter))

    def _note(
        self, batch: Sequence[LogRecord], folded: Folded, links: list[tuple[int, list[int]]],
        letters: list[int], spoken: list[int],
    ) -> None:  # fmt: skip
        for place, edges in links:
            if batch[place].offset < self.asks_from:
                continue
            given = link_records(decode_record(batch[place].value))
            folded.links.extend(given[edge] for edge in edges)
        for place in letters:
            entry = batch[place]
            folded.letters.append(
                letter_of(decode_record(entry.value), entry, self.partition, self.generation)
            )
        for place in spoken:
            folded.suppressions.extend(suppression_of(decode_record(batch[place].value)))

    def _fold_here(self, record: Record, entry: LogRecord, folded: Folded) -> None:
        """Fold a record in Python, into its leaf as its bytes say it is."""
        leaf_id, plan = LeafId(record.leaf), self.step.plan
        leaf = self.kept.get(leaf_id)
        stays = leaf is not None
        if leaf is None:
            leaf = self.decoded(leaf_id)
        outcome = self.step.fold(
            leaf, record, self.generation, entry.offset, entry.logged_at_ms, folded.links
        )
        self._count([outcome])
        dirty = None if outcome is Outcome.SKIPPED else entry.offset
        raw = None if stays else encode_leaf(leaf, plan)
        self.tell([leaf.clock_ms // QUARTER_MS])
        if not self.native.replace(leaf_id, (leaf.generation, leaf.offset), raw, dirty):
            self.kept[leaf_id] = leaf
        if outcome is Outcome.DEAD:
            folded.letters.append(letter_of(record, entry, self.partition, self.generation))
        if (
            dirty is not None
            and record.name in PERMISSION_EVENTS
            and outcome is not Outcome.DEDUPLICATED
        ):
            folded.suppressions.extend(suppression_of(record))

    def _tally(self) -> None:
        for name, count in zip(_OUTCOMES, self.native.counted(), strict=True):
            if count:
                setattr(self.tally, name, getattr(self.tally, name) + count)

    # -- leaves

    def _bring(self, leaves: Sequence[LeafId]) -> None:
        """Hold leaves that were not held, from the store or new."""
        if self._empty:
            self._hold(leaves, [None] * len(leaves))
            return
        found = self.store.read(self.epoch, leaves)
        # What was read may be older than what this fold has written.
        self._require_era()
        self._hold(leaves, found)

    def _hold(self, leaves: Sequence[LeafId], found: Sequence[StoredLeaf | None]) -> None:
        put = self.native.put
        for leaf_id, stored in zip(leaves, found, strict=True):
            if stored is None:
                put(leaf_id, NO_VERSION, None)
            elif not put(leaf_id, stored.version, stored.parts[0]):
                self._keep_or_put(leaf_id, stored)

    def _keep_or_put(self, leaf_id: LeafId, stored: StoredLeaf) -> None:
        try:
            leaf = decode_leaf(leaf_id, stored.version, stored.parts[0], self.step.plan)
        except DataCorrupt:
            self.native.drop([leaf_id])
            raise
        # What it lacked may have been the offset of its clock.
        self.tell([leaf.clock_ms // QUARTER_MS])
        if not self.native.put(leaf_id, stored.version, stored.parts[0]):
            self.kept[leaf_id] = leaf

    def peek(self, leaves: Sequence[LeafId]) -> list[Leaf | None]:
        """Return leaves for reading, as `PartitionFold.peek` does; nearly all of them have been shown before."""
        if self.in_python or self.kept:
            return super().peek(leaves)
        find = self._held.find
        try:
            found = [find(leaf_id) for leaf_id in leaves]
        except RuntimeError:
            return super().peek(leaves)  # which says what has failed
        if None in found:
            return super().peek(leaves)
        return found

    def versions(self, leaves: Sequence[LeafId]) -> Versions:
        """Return the versions of leaves that are held, as `PartitionFold.versions` does."""
        return super().versions(leaves) if self.in_python else self.native.versions(leaves)

    def look_up(self, leaves: Sequence[LeafId]) -> Sequence[Any]:
        """Return leaves from the store as their bytes, which the accelerator reads."""
        return super().look_up(leaves) if self.in_python else self.store.read(self.epoch, leaves)

    def take_in(self, leaves: Sequence[LeafId], found: Sequence[Any], starts: int) -> None:
        """Hold what was looked up beforehand, as `PartitionFold.take_in` does."""
        if self.in_python:
            super().take_in(leaves, found, starts)
        elif starts == self.starts:
            with self.guarded():
                self._hold(leaves, found)

    def _let_go(self) -> None:
        self._empty = False
        for leaf_id in self.native.evict(self.cached_max):
            del self.kept[leaf_id]

    # -- write

    def take(self, limit: int, before: int | None = None) -> Flush | None:
        """Encode up to `limit` changed leaves, as `PartitionFold.take` does."""
        if self.in_python:
            return super().take(limit, before)
        self._require_era()
        with self.guarded():
            return self._take(limit, before)

    def _take(self, limit: int, before: int | None) -> Flush | None:
        native = self.native
        owed = native.dirty_count()
        if not owed and self.noted == self.next_offset:
            return None
        taken = native.take(limit, before)
        if owed and not taken:
            return None
        writes: list[LeafWrite] = []
        new = tuple.__new__
        for leaf, base, version, raw in taken:
            parts = (raw if raw is not None else self._encoded(leaf),)
            # As the named tuples' own constructors, which cost as much as all else here.
            writes.append(new(LeafWrite, (leaf, new(Version, base), new(Version, version), parts)))
        oldest = native.oldest()
        applied = (self.next_offset if oldest is None else oldest) - 1
        return Flush(writes, Version(self.generation, applied), [])

    def _encoded(self, leaf_id: LeafId) -> bytes:
        """Return the bytes of a leaf that Python keeps; the other side may know it by now."""
        leaf = self.kept[leaf_id]
        raw = encode_leaf(leaf, self.step.plan)
        self.tell([leaf.clock_ms // QUARTER_MS])
        if self.native.replace(leaf_id, (leaf.generation, leaf.offset), raw, None):
            del self.kept[leaf_id]
        return raw

    def written(self, flush: Flush, verdicts: Sequence[Verdict]) -> None:
        """Take note of what the store decided, as `PartitionFold.written` does."""
        if self.in_python:
            super().written(flush, verdicts)
            return
        if Verdict.REFUSED in verdicts:
            raise Fenced("E601", "another worker has written a leaf of this partition",
                         fix="the worker drops its cache and seeks to its applied offset")  # fmt: skip
        with self.guarded():
            self.native.written([(write.leaf, write.new) for write in flush.writes])
        self.noted = flush.applied.offset + 1


class _Cache(MutableMapping[LeafId, Leaf]):
    """The leaves of a native fold as readers see them: decoded when they are asked for."""

    def __init__(self, fold: NativeFold) -> None:
        self._fold = fold
        self._shown: dict[LeafId, Leaf] = {}

    def __getitem__(self, leaf_id: LeafId) -> Leaf:
        fold = self._fold
        kept = fold.kept.get(leaf_id)
        if kept is not None:
            return kept
        with fold.guarded():
            found = self.find(leaf_id)
        if found is None:
            raise KeyError(leaf_id)
        return found

    def find(self, leaf_id: LeafId) -> Leaf | None:
        """Return a leaf that the accelerator has; None if it holds none of that id."""
        fold = self._fold
        version = fold.native.version(leaf_id)
        if version is None:
            return None
        shown = self._shown.get(leaf_id)
        if shown is None or (shown.generation, shown.offset) != version:
            shown = fold.decoded(leaf_id)
            if len(self._shown) >= SHOWN_MAX:
                self._shown.clear()
            self._shown[leaf_id] = shown
        return shown

    def __setitem__(self, leaf_id: LeafId, leaf: Leaf) -> None:
        fold = self._fold
        raw = encode_leaf(leaf, fold.step.plan)
        fold.tell([leaf.clock_ms // QUARTER_MS])
        if fold.native.put(leaf_id, (leaf.generation, leaf.offset), raw):
            fold.kept.pop(leaf_id, None)
        else:
            fold.kept[leaf_id] = leaf
        fold.native.written([(leaf_id, leaf.base)])

    def __delitem__(self, leaf_id: LeafId) -> None:
        raise NotImplementedError("leaves are let go of by age")

    def __contains__(self, leaf_id: object) -> bool:
        return leaf_id in self._fold.native

    def __iter__(self) -> Iterator[LeafId]:
        return iter(self._fold.native.leaves())

    def __len__(self) -> int:
        return len(self._fold.native)

    def clear(self) -> None:
        """Let go of all."""
        self._shown.clear()
        self._fold.kept.clear()
        self._fold.native.clear()


class _Dirty(MutableMapping[LeafId, int]):
    """Leaf -> first offset that is not in the store, of a native fold."""

    def __init__(self, fold: NativeFold) -> None:
        self._fold = fold

    def __getitem__(self, leaf_id: LeafId) -> int:
        return dict(self._fold.native.dirty())[leaf_id]

    def __setitem__(self, leaf_id: LeafId, offset: int) -> None:
        raise NotImplementedError("a leaf changes when it is folded into")

    def __delitem__(self, leaf_id: LeafId) -> None:
        raise NotImplementedError("a leaf is taken to be written")

    def __iter__(self) -> Iterator[LeafId]:
        return (leaf_id for leaf_id, _ in self._fold.native.dirty())

    def __len__(self) -> int:
        return self._fold.native.dirty_count()

    def clear(self) -> None:
        """Forget what is not written."""
        self._fold.native.clear_dirty()
