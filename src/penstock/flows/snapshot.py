"""The leaves at the offset that a log without an archive was truncated at: what it folds to is state.

State is a fold of a snapshot and of the log from its offset on. Each set of leaves that is kept has a
snapshot of its own, in the same store, which moves on just before records go. Whatever would read the
log from its beginning begins there: a replay, a build of other definitions, the past of one person.
Other definitions take from it what both compute alike; what is new in them is complete from then on.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Final, NamedTuple

import msgspec

from penstock.core.errors import SettingsError
from penstock.core.feature.plan import Plan
from penstock.core.ids import LeafId
from penstock.core.leaf import Leaf, decode_leaf, encode_leaf
from penstock.core.record import NO_VERSION, Version
from penstock.ports.log import Log, truncated
from penstock.ports.store import LeafWrite, Store, StoredLeaf

PAGE: Final = 1_000


def snapshot_epoch(epoch: int) -> int:
    """Return under which number the store keeps the snapshot of a set of leaves."""
    return -epoch


class Snapshot(NamedTuple):
    """The snapshot of one set of leaves; empty where nothing was truncated, or an archive has it."""

    store: Store
    epoch: int
    plan: Plan

    def leaves(self, leaves: Iterable[LeafId]) -> dict[LeafId, Leaf]:
        """Return those of some leaves that are in it, decoded.

        Raises:
            DataCorrupt: One does not decode (E704), or was made by other definitions (E705).
        """
        found: dict[LeafId, Leaf] = {}
        wanted = iter(leaves)
        while some := [*islice(wanted, PAGE)]:
            read = self.store.read(snapshot_epoch(self.epoch), some)
            for leaf, stored in zip(some, read, strict=True):
                if stored is not None:
                    found[leaf] = decode_leaf(leaf, stored.version, stored.parts[0], self.plan)
        return found

    def end(self, log: Log, partition: int) -> int:
        """Return the offset that it goes up to: records below it are in it; 0 if there is none."""
        applied = self.store.applied(snapshot_epoch(self.epoch), partition)
        return (
            applied.offset + 1 if applied.generation == log.generations.generation(partition) else 0
        )


def begin(log: Log, store: Store, epoch: int, plan: Plan, source: Snapshot | None) -> None:
    """Let a new set of leaves begin where the log does, from the snapshot of another set.

    Does nothing if the log can be read from its beginning, or the set was begun before. Stopped
    anywhere, it is done again: the offsets come last.

    Args:
        log: Says where it begins.
        store: Holds both sets.
        epoch: The new set's.
        plan: What it is folded by.
        source: The snapshot of the set that serves; None if there is none that these definitions read.

    Raises:
        SettingsError: There is no snapshot to begin from (E275), since an archive has it that is not named
            any more (E271).
    """
    partitions = [one for one in range(log.partitions) if log.first(one) > 0]
    if all(store.applied(epoch, one) != NO_VERSION for one in partitions):
        return
    if source is None or any(source.end(log, one) < log.first(one) for one in partitions):
        for one in partitions:
            if log.archived(one):
                raise truncated(one, log.first(one))
        raise SettingsError("E275", "the log was truncated without an archive, and there is no snapshot that these leaves "
                            "could begin from", where="log.forget", fix="restore a backup of the store, or go back to the version "
                            "of Penstock that made the leaves")  # fmt: skip
    store.drop(epoch)
    store.drop(snapshot_epoch(epoch))
    shared = {key: source.plan.keys.index(key) for key in plan.keys if key in source.plan.keys}
    after: LeafId | None = None
    while page := store.scan(snapshot_epoch(source.epoch), after, PAGE):
        after = page[-1][0]
        writes = [_grafted(leaf, stored, source.plan, plan, shared) for leaf, stored in page]
        for one in (snapshot_epoch(epoch), epoch):
            store.write(one, writes, partition=0, applied=NO_VERSION)
    since = since_from(log, source, plan)
    store.put_meta(_name(epoch), msgspec.json.encode(since).decode())
    for one in (snapshot_epoch(epoch), epoch):
        for partition in range(log.partitions):
            if end := source.end(log, partition):
                applied = Version(log.generations.generation(partition), end - 1)
                store.write(one, [], partition=partition, applied=applied)


def since_from(log: Log, source: Snapshot, plan: Plan) -> dict[str, int]:
    """Return what `since_of` will be of leaves that begin from a snapshot.

    A state that was computed before is as complete as it was; a new one is from the snapshot on.

    Args:
        log: Says where it begins, and when that was.
        source: The snapshot.
        plan: What the new leaves are folded by.
    """
    partitions = [one for one in range(log.partitions) if log.first(one) > 0]
    if not partitions:
        return {}
    before, shared = since_of(source.store, source.epoch), {*source.plan.keys}
    now_ms = max(_since_ms(log, source, one) for one in partitions)
    found = {key: before.get(key, 0) if key in shared else now_ms for key in plan.keys}
    return {key: at_ms for key, at_ms in found.items() if at_ms}


def since_of(store: Store, epoch: int) -> dict[str, int]:
    """Return the states that lack history, by their keys, with the instant from which they have it, ms UTC."""
    raw = store.get_meta(_name(epoch))
    return msgspec.json.decode(raw, type=dict[str, int]) if raw else {}


def since_by_feature(plan: Plan, since: Mapping[str, int]) -> dict[str, int]:
    """Return the same by feature: from when all that it is read from is complete."""
    found: dict[str, int] = {}
    for feature in plan.features:
        late = [since[key] for key in plan.keys_of(feature.name) if key in since]
        if late:
            found[feature.name] = max(late)
    return found


def _name(epoch: int) -> str:
    return f"since:{epoch}"


def _since_ms(log: Log, source: Snapshot, partition: int) -> int:
    """Return the stamp from which a partition's records are all there."""
    kept = log.read(partition, source.end(log, partition), 1)
    return kept[0].logged_at_ms if kept else log.last_logged_at_ms(partition)


def _grafted(
    leaf_id: LeafId, stored: StoredLeaf, old: Plan, new: Plan, shared: Mapping[str, int]
) -> LeafWrite:
    leaf = decode_leaf(leaf_id, stored.version, stored.parts[0], old)
    leaf.states = [leaf.states[shared[key]] if key in shared else None for key in new.keys]
    return LeafWrite(leaf_id, NO_VERSION, stored.version, (encode_leaf(leaf, new),))
