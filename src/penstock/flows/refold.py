"""A sample of leaves, folded again from their own records of the log, and compared byte for byte."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from hashlib import blake2b

from penstock.core.errors import DamagedLeaf, DataCorrupt
from penstock.core.ids import LeafId
from penstock.core.leaf import Leaf, encode_leaf
from penstock.core.record import NO_VERSION, Version, decode_record, leaf_of
from penstock.core.step import Step
from penstock.flows.generations import seal_of
from penstock.flows.history import READ_RECORDS, Entry
from penstock.flows.snapshot import Snapshot
from penstock.ports.log import Log
from penstock.ports.store import Store, StoredLeaf

SAMPLE_LEAVES = 200
REPAIR = "copy the data folder and report it; `penstock replay --accept` goes over to the leaves of the log"


def sample(store: Store, epoch: int, count: int, seed: int) -> dict[LeafId, StoredLeaf]:
    """Return some leaves of an epoch, chosen by a seed alone.

    Leaf ids are keyed hashes, so that those which follow a place chosen blindly are a fair sample:
    one read, however many leaves there are.

    Args:
        store: Only read.
        epoch: Whose leaves.
        count: How many, or all there are.
        seed: Says where to begin.

    Raises:
        DataCorrupt: One of them does not read back (E752), named by its id.
    """
    begin = LeafId(blake2b(seed.to_bytes(8, "big"), digest_size=16, person=b"sample").digest())
    try:
        chosen = dict(store.scan(epoch, begin, count))
        if len(chosen) < count:
            chosen.update(store.scan(epoch, None, count - len(chosen)))
    except DamagedLeaf as error:
        raise _differs(LeafId(error.leaf), "does not match its checksum") from error
    return chosen


def reread(log: Log, leaves: Container[bytes]) -> Iterator[Entry]:
    """Yield the records of some leaves, each partition in order, by reading the whole log back.

    Raises:
        DataCorrupt: A batch of it does not read back (E703).
    """
    for partition in range(log.partitions):
        offset = log.first(partition)
        while batch := log.read(partition, offset, READ_RECORDS):
            offset = batch[-1].offset + 1
            yield from (Entry(partition, one) for one in batch if leaf_of(one.value) in leaves)


def refold(
    entries: Iterable[Entry],
    log: Log,
    store: Store,
    step: Step,
    epoch: int,
    leaves: Mapping[LeafId, StoredLeaf],
    *,
    applied: Sequence[Version] | None = None,
) -> None:
    """Fold leaves again from their records, and compare them with what was stored.

    A leaf was stored at the version of its last record. It is folded up to there, or up to what the
    partition has applied if that is further: a record in between is one that the leaf lacks. Where the
    log was truncated without an archive it is folded on from its snapshot.

    Args:
        entries: All records of these leaves, by `reread` or found by an index.
        log: Where they are from.
        store: Says how far each partition has been applied.
        step: The step of the definitions that the leaves were made by.
        epoch: Whose leaves they are.
        leaves: As they are stored.
        applied: By partition, what the store had applied before the leaves were read, if it is written
            to meanwhile.

    Raises:
        DataCorrupt: A leaf differs (E752), named by its id, which is a keyed hash.
    """
    if applied is None:
        applied = [store.applied(epoch, partition) for partition in range(log.partitions)]
    generations = log.generations
    until = {
        (partition, leaf): _until(log, applied[partition], partition, stored)
        for leaf, stored in leaves.items()
        for partition in generations.places(leaf)
    }
    seals = {one: seal_of(store, one) for one, _ in until if generations.ended(one)}
    folded = {leaf: Leaf(leaf, step.plan.new_states()) for leaf in leaves}
    folded |= Snapshot(store, epoch, step.plan).leaves(leaves)
    for partition, (offset, logged_at_ms, value) in entries:
        record = decode_record(value)
        leaf_id = LeafId(record.leaf)
        seal = seals.get(partition)
        if offset <= until[partition, leaf_id] and (seal is None or offset < seal):
            generation = generations.generation(partition)
            step.fold(folded[leaf_id], record, generation, offset, logged_at_ms, [])
    for leaf_id, stored in leaves.items():
        leaf = folded[leaf_id]
        if leaf.version != stored.version:
            raise _differs(leaf_id, f"is stored at {_said(stored.version)} and folds to {_said(leaf.version)}")  # fmt: skip
        if (encode_leaf(leaf, step.plan),) != stored.parts:
            raise _differs(leaf_id, f"at {_said(stored.version)} has other bytes than its records fold to")  # fmt: skip


def _until(log: Log, applied: Version, partition: int, stored: StoredLeaf) -> int:
    generation = log.generations.generation(partition)
    return max((one.offset for one in (applied, stored.version) if one.generation == generation
               or one == NO_VERSION), default=-1)  # fmt: skip


def _said(version: Version) -> str:
    return "nothing" if version == NO_VERSION else f"offset {version.offset}"


def _differs(leaf: LeafId, how: str) -> DataCorrupt:
    return DataCorrupt("E752", f"leaf {leaf.hex()} {how}", fix=REPAIR)
