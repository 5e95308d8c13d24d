"""What is to be cut so that two identifiers are two people: a pure function of the set of edges."""

from collections.abc import Collection, Mapping
from typing import NamedTuple

from penstock.core.identity.edges import merge_edges
from penstock.core.identity.identifier import USER, IdentityRules
from penstock.core.identity.resolution import Resolution, resolve
from penstock.core.ids import LeafId
from penstock.core.record import Edge

NOTHING = "cut"
"""The rule of an edge that nobody has stated, and that is cut before anybody does."""


class Named(NamedTuple):
    """A leaf and the type of its identifier."""

    leaf: LeafId
    id_type: str


class Apart(NamedTuple):
    """What a cut does: the weaker of two identifiers leaves the person of the stronger.

    Attributes:
        undone: Edges that join the two, now cut.
        kept_apart: Pairs that nothing joins, cut so that no claim to come joins them: the leaf that
            leaves, and those that the person is found by.
        known: Whether the two were cut before.
    """

    undone: list[Edge]
    kept_apart: list[Edge]
    known: bool


def weaker_first(one: Named, other: Named, rules: IdentityRules) -> tuple[Named, Named]:
    """Return who leaves and who stays: the weaker type leaves; of equals, the first named."""

    def strength(who: Named) -> tuple[int, str]:
        return rules.rule(who.id_type).priority, who.id_type

    return (one, other) if strength(one) >= strength(other) else (other, one)


def apart(
    leaving: Named, staying: Named, known: Mapping[LeafId, Collection[Edge]], rules: IdentityRules
) -> Apart:
    """Return what to cut so that one leaf is no part of another's person.

    Every edge from the leaf that leaves to the rest of the person is cut, or it would come back by an
    address that both have used. What is joined to the leaf alone leaves with it. Two users are cut
    from each other only: a device that both have used goes on belonging to neither.

    Args:
        leaving: The leaf that leaves.
        staying: The leaf whose person stays.
        known: The edges of the leaves that were read; see `frontier`, with the leaving leaf blocked.
        rules: As for `resolve`.

    Laws:
        Once cut, neither leaf is in the other's person, and cutting again finds nothing to undo.
        What is not in the person of either stays as it was.
    """
    rest = resolve(staying.leaf, known, rules, (leaving.leaf,))
    types = {staying.leaf: staying.id_type} | _types(rest)
    two_users = leaving.id_type == staying.id_type == USER
    others = [staying.leaf] if two_users else sorted(rest.leaves)
    rank = rules.rule(leaving.id_type).priority
    undone: list[Edge] = []
    kept_apart: list[Edge] = []
    before = False
    for other in others:
        edges = _between(leaving.leaf, other, known)
        joined = joining(edges)
        before = before or (other == staying.leaf and bool(edges) and not joined)
        undone.extend(joined)
        found_by = other not in rest.claims and rules.rule(types[other]).priority < rank
        if found_by and not any(edge.verified for edge in edges) and not joined:
            kept_apart.append(
                Edge(leaving.id_type, leaving.leaf, types[other], other, 1, 0, NOTHING, verified=True)
            )  # fmt: skip
    return Apart(undone, kept_apart, before)


def joining(edges: Collection[Edge]) -> list[Edge]:
    """Return those of the edges between two leaves that join them: none if a cut came after them.

    What a claim says does not count beside what a server says.
    """
    counted = [edge for edge in edges if edge.verified] or edges
    cut_ms = max((edge.cut_ms for edge in counted), default=0)
    return [edge for edge in counted if edge.joined and edge.seen_ms > cut_ms]


def _between(one: LeafId, other: LeafId, known: Mapping[LeafId, Collection[Edge]]) -> list[Edge]:
    """Return the edges of two leaves as both know them: at most one in each direction."""
    found: dict[bytes, Edge] = {}
    for leaf in (one, other):
        for edge in known.get(leaf, ()):
            if {edge.a, edge.b} == {one, other}:
                standing = found.get(edge.a)
                found[edge.a] = edge if standing is None else merge_edges(standing, edge)
    return [found[a] for a in sorted(found)]


def _types(person: Resolution) -> dict[LeafId, str]:
    types: dict[LeafId, str] = {}
    for edge in person.edges:
        types[LeafId(edge.a)], types[LeafId(edge.b)] = edge.a_type, edge.b_type
    return types
