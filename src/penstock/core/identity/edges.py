"""Edges as registers: how what was said about two leaves merges, in any order, any number of times."""

from collections.abc import Mapping
from typing import Final

from penstock.core.identity.identifier import DEVICE_TYPES
from penstock.core.record import Edge

EdgeKey = tuple[bytes, bytes]

CLAIMS_MAX: Final = 64
"""Devices whose claims a leaf keeps: those with the smallest leaf ids. Leaf ids are keyed hashes, so
nobody can choose to be among them, and a stranger who claims a thousand times does not fill the leaf."""

ALIAS: Final = "alias"
"""The rule of an edge that may join two users. A mere identify never absorbs an identified person."""


def fold_edge(edges: dict[EdgeKey, Edge], edge: Edge) -> bool:
    """Merge a statement or a register into a leaf's edges; return whether the leaf holds one more.

    Laws:
        Any order and any duplication of the same edges gives the same registers.
    """
    key = (edge.a, edge.b)
    standing = edges.get(key)
    if standing is not None:
        if not _settled(standing, edge):
            edges[key] = merge_edges(standing, edge)
        elif edge.at_ms > standing.seen_ms and edge.verified == standing.verified:
            edges[key] = _seen(standing, edge.at_ms)
        return False
    edges[key] = as_register(edge)
    return edge.a_type not in DEVICE_TYPES or not _evicts(edges, edge.b)


def would_change(held: Mapping[EdgeKey, Edge], edge: Edge) -> bool:
    """Return whether an edge would tell a leaf more than a later sight of a pair it holds as joined.

    A leaf that holds the pair the other way round, said by a verified sender, holds it too.
    """
    standing = held.get((edge.a, edge.b))
    if standing is not None and _settled(standing, edge):
        return False
    reverse = held.get((edge.b, edge.a))
    if reverse is not None and reverse.verified:
        standing = reverse if standing is None else merge_edges(standing, reverse)
    if standing is None:
        return True
    merged = merge_edges(standing, edge)
    if standing.verified and not edge.verified:
        return False
    return (
        merged.verified != standing.verified
        or merged.joined != standing.joined
        or merged.cut_ms != standing.cut_ms
        or _provenance(merged) != _provenance(standing)
    )


def merge_edges(one: Edge, other: Edge) -> Edge:
    """Return the register of two statements or registers about the same two leaves.

    A verified register outranks an unverified one altogether, so a claim can neither undo an
    operator's cut nor change what a server said. Between equals the latest join and the latest cut
    are kept, and the provenance of the earliest join, or of an alias if there is one.

    Laws:
        Commutative, associative and idempotent.
    """
    if one.verified != other.verified:
        return as_register(one if one.verified else other)
    one, other = as_register(one), as_register(other)
    seen_ms = max(one.seen_ms, other.seen_ms)
    cut_ms = max(one.cut_ms, other.cut_ms)
    told = min(one, other, key=_provenance)
    joined = seen_ms > cut_ms
    if told.seen_ms == seen_ms and told.cut_ms == cut_ms:
        return told
    return Edge(told.a_type, told.a, told.b_type, told.b, told.at_ms, told.event_id, told.rule,
                told.verified, joined, seen_ms, cut_ms)  # fmt: skip


def _settled(standing: Edge, edge: Edge) -> bool:
    # Nearly every event repeats a join that is known: a statement later than the first, of a pair
    # that was never cut, by a sender of the same trust or less, can change `seen_ms` alone.
    return (
        edge.joined
        and standing.joined
        and not standing.cut_ms
        and not edge.cut_ms
        and edge.at_ms > standing.at_ms
        and (edge.rule == standing.rule or edge.rule != ALIAS)
        and standing.verified >= edge.verified
        and not edge.seen_ms
    )


def _seen(standing: Edge, at_ms: int) -> Edge:
    return Edge(standing.a_type, standing.a, standing.b_type, standing.b, standing.at_ms,
                standing.event_id, standing.rule, standing.verified, True, at_ms, 0)  # fmt: skip


def as_register(edge: Edge) -> Edge:
    """Return a statement as the register of this one statement; a register as it is."""
    if edge.seen_ms or edge.cut_ms:
        return edge
    seen_ms, cut_ms = (edge.at_ms, 0) if edge.joined else (0, edge.at_ms)
    return Edge(edge.a_type, edge.a, edge.b_type, edge.b, edge.at_ms, edge.event_id, edge.rule,
                edge.verified, edge.joined, seen_ms, cut_ms)  # fmt: skip


def _provenance(edge: Edge) -> tuple[bool, bool, int, int, str, bytes]:
    # Joins before cuts, an alias before other rules, then the earliest. An edge that is cut and
    # joined again keeps the provenance of its first join: one register cannot hold both.
    return (not edge.seen_ms, edge.rule != ALIAS, edge.at_ms, edge.event_id, edge.rule, edge.a)


def _evicts(edges: dict[EdgeKey, Edge], claimed: bytes) -> bool:
    # A device's edge to `claimed` is kept if it is verified or among the CLAIMS_MAX smallest of all
    # such edges, verified or not: that set depends on no order, even if a claim is verified later.
    keys = sorted(key for key, held in edges.items()
                  if key[1] == claimed and held.a_type in DEVICE_TYPES)  # fmt: skip
    evicted = [key for key in keys[CLAIMS_MAX:] if not edges[key].verified]
    for key in evicted:
        del edges[key]
    return bool(evicted)
