"""Two sets of leaves, compared where their definitions agree: there they have the same bytes."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from penstock.core.feature.plan import Plan
from penstock.core.ids import LeafId
from penstock.core.leaf import Leaf, decode_leaf
from penstock.ports.store import Store, StoredLeaf

PAGE = 250


class Agreement(NamedTuple):
    """How two sets compare: leaves looked at, states compared in them, and leaves that differ."""

    leaves: int
    states: int
    different: list[LeafId]


def agree(
    store: Store, first: tuple[int, Plan], second: tuple[int, Plan], *, after: LeafId | None = None,
    limit: int = PAGE,
) -> tuple[Agreement, LeafId | None]:  # fmt: skip
    """Compare a page of leaves: what both definitions compute alike, byte for byte.

    A leaf's id is a hash, so the first pages are a fair sample. Leaves that the two sets have not
    written at the same record are passed over, and so are those that either has quarantined: what it
    holds ends at the record that made it too large, and its limit and other features say which.

    Args:
        store: Holds both.
        first: An epoch and its plan.
        second: Another.
        after: Where the page begins.
        limit: Leaves at most.

    Returns:
        What was found, and where the next page begins; None at the end.
    """
    one, other = first[1], second[1]
    shared = [(one.keys.index(key), other.keys.index(key)) for key in one.keys if key in other.keys]
    page = store.scan(second[0], after, limit)
    beside = store.read(first[0], [leaf for leaf, _ in page])
    leaves = states = 0
    different: list[LeafId] = []
    for (leaf_id, stored), old in zip(page, beside, strict=True):
        if old is None or old.version != stored.version:
            continue
        before, after_ = _decoded(leaf_id, old, one), _decoded(leaf_id, stored, other)
        if before.quarantined or after_.quarantined:
            continue
        raw, raw_other = _encoded(before, one), _encoded(after_, other)
        leaves += 1
        states += len(shared)
        # What is beside the features depends on the rules of the step as well, which may differ.
        if any(raw[left] != raw_other[right] for left, right in shared):
            different.append(leaf_id)
    return Agreement(leaves, states, different), page[-1][0] if len(page) == limit else None


def _decoded(leaf: LeafId, stored: StoredLeaf, plan: Plan) -> Leaf:
    return decode_leaf(leaf, stored.version, stored.parts[0], plan)


def _encoded(leaf: Leaf, plan: Plan) -> list[bytes]:
    return [
        msgspec.msgpack.encode(state)
        for state in plan.encode(leaf.states, leaf.clock_ms, leaf.purged)
    ]


def measure(store: Store, epoch: int) -> tuple[int, int]:
    """Return how many leaves an epoch has, and how many bytes they take."""
    leaves = size = 0
    after: LeafId | None = None
    while page := store.scan(epoch, after, 1_000):
        leaves += len(page)
        size += sum(len(part) for _, stored in page for part in stored.parts)
        after = page[-1][0]
    return leaves, size
