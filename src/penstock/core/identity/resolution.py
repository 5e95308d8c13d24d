"""Who is one person: a pure function of the set of edges, from whichever leaf one starts."""

from collections.abc import Collection, Iterable, Mapping
from typing import Final, NamedTuple

from penstock.core.identity.edges import ALIAS, EdgeKey, as_register, merge_edges
from penstock.core.identity.identifier import (
    DEVICE_TYPES,
    EMAIL,
    ENTITY_TYPES,
    USER,
    IdentityRules,
)
from penstock.core.ids import LeafId
from penstock.core.record import Edge

HOPS_MAX: Final = 3
"""How many edges away from the leaf asked another leaf of the person may lie."""


class Excluded(NamedTuple):
    """A leaf that an edge names and that is no part of the person, with the reason.

    The reason is `shared_anonymous` (a device of two people), `limit` (too many of a type),
    `other_person` (it belongs to somebody else), `identified` (a user whom no alias joins),
    `blocked` (the caller said so) or `bound` (more leaves than one person may have).
    """

    leaf: LeafId
    reason: str


class Resolution(NamedTuple):
    """Who a leaf's person is.

    Attributes:
        leaves: All leaves of the person: strongest type first, then by leaf id; claims at the end.
        claims: Those of `leaves` that only an unverified edge joins; their word counts for less.
        edges: The edges that join them, with provenance, sorted.
        email_leaf: The leaf of the winning verified email: the address that was stated last. It may
            belong to another person if two users share an address.
        excluded: What was left out and why, sorted.
        bounded: True if leaves that matter are not known or do not fit: reason `identity_bound`.
    """

    leaves: tuple[LeafId, ...]
    claims: frozenset[LeafId]
    edges: tuple[Edge, ...]
    email_leaf: LeafId | None
    excluded: tuple[Excluded, ...]
    bounded: bool


def resolve(
    start: LeafId,
    known: Mapping[LeafId, Collection[Edge]],
    rules: IdentityRules,
    blocked: Collection[bytes] = (),
) -> Resolution:
    """Return the person a leaf belongs to, judged by the edges of the leaves that are known.

    The rules, in order:

    1. Verified edges made by an alias join users, earliest first, up to the limit of users. No
       other edge joins two users: an identified person is never absorbed.
    2. Every other leaf attaches, over verified edges, to one neighbour of a stronger type: of the
       strongest type, the one it was joined to first. So an address belongs to one person, even if
       two users share it, and an email is the hub of devices that have no user.
    3. A device (anonymous id, claimed user id) whose edges of any trust lead to two people, by
       users or, if it has none, by emails, belongs to neither (or to the first, by policy).
    4. Of each type a person keeps the newest up to its limit, counted before rules 2 and 3.
    5. A device that claims a leaf of the person without proof is included in the person's read,
       unless it verifiably belongs to somebody else. Read by itself it is alone.

    Args:
        start: The leaf that was asked for.
        known: The edges of each leaf that was read, in any order; also those of leaves without any.
        rules: Limits, priorities and the policy for shared devices.
        blocked: Leaves of values that are junk by today's rules: they join nobody.

    Laws:
        The result does not depend on the order of leaves or edges. Every leaf of `leaves` that is
        no claim resolves to the same person, unless `bounded`.
    """
    if not known.get(start) or start in blocked:
        lost = start not in known
        return Resolution((start,), frozenset(), (), None, (), bounded=lost)
    solver = _Solver(start, known, rules, blocked)
    return solver.solve()


def frontier(
    start: LeafId,
    known: Mapping[LeafId, Collection[Edge]],
    rules: IdentityRules,
    blocked: Collection[bytes] = (),
) -> list[LeafId]:
    """Return the leaves to read next to resolve a person; empty when nothing more may matter.

    Only leaves within `HOPS_MAX` edges of the start are asked for, and no more in all than twice
    what one person may have. A caller reads, adds to `known` (an empty collection for a leaf that
    does not exist) and asks again, at most `HOPS_MAX` times after the start itself; what is then
    still wanted makes the resolution `bounded`.
    """
    return explore(start, known, rules, blocked)[0]


def explore(
    start: LeafId,
    known: Mapping[LeafId, Collection[Edge]],
    rules: IdentityRules,
    blocked: Collection[bytes] = (),
) -> tuple[list[LeafId], Resolution]:
    """Return what `frontier` and what `resolve` return, worked out once."""
    if start not in known:
        return [start], resolve(start, known, rules, blocked)
    if not known[start] or start in blocked:
        return [], resolve(start, known, rules, blocked)
    solver = _Solver(start, known, rules, blocked)
    resolution = solver.solve()
    room = max(0, 2 * rules.leaves_max - len(known))
    near = [leaf for leaf in solver.wanted if solver.distance(leaf) <= HOPS_MAX]
    near.sort(key=lambda leaf: (solver.distance(leaf), *solver.rank(leaf), leaf))
    return [LeafId(leaf) for leaf in near[:room]], resolution


class _Device(NamedTuple):
    """What the edges of a device say, whatever their trust."""

    hub: bytes | None
    """The neighbour it attaches to, if it verifiably belongs to anybody."""
    shared: bool
    first: bytes | None
    """Where the earliest edge leads: a user, or a leaf without user."""
    hubs: frozenset[bytes]
    """The leaves without user that its edges lead to."""


class _Solver:
    """One resolution: the graph of what is known, answers already found, and what is missing."""

    def __init__(
        self,
        start: bytes,
        known: Mapping[LeafId, Collection[Edge]],
        rules: IdentityRules,
        blocked: Collection[bytes],
    ) -> None:
        self.start = start
        self.known = known
        self.rules = rules
        self.types: dict[bytes, str] = {}
        self.strong: dict[bytes, dict[bytes, Edge]] = {}
        self.claims_of: dict[bytes, dict[bytes, Edge]] = {}
        self.claims_on: dict[bytes, dict[bytes, Edge]] = {}
        self.wanted: set[bytes] = set()
        self.excluded: dict[bytes, str] = {}
        self._cut: dict[bytes, set[bytes]] = {}
        self._components: dict[bytes, frozenset[bytes]] = {}
        self._hubs: dict[bytes, bytes | None] = {}
        self._devices: dict[bytes, _Device] = {}
        self._within: dict[tuple[bytes, str], frozenset[bytes]] = {}
        self._distances: dict[bytes, int] = {}
        self._build(known.values(), blocked)

    # ---------------------------------------------------------------------------------- the graph

    def _build(self, held: Iterable[Collection[Edge]], blocked: Collection[bytes]) -> None:
        pairs: dict[EdgeKey, Edge] = {}
        claims: dict[EdgeKey, Edge] = {}
        for edges in held:
            for edge in edges:
                if edge.a_type in ENTITY_TYPES or edge.b_type in ENTITY_TYPES:
                    continue
                if edge.a in blocked or edge.b in blocked:
                    self.excluded[edge.a if edge.a in blocked else edge.b] = "blocked"
                    continue
                self.types[edge.a], self.types[edge.b] = edge.a_type, edge.b_type
                if edge.verified:
                    key = (edge.a, edge.b) if edge.a < edge.b else (edge.b, edge.a)
                    into = pairs
                else:
                    key, into = (edge.a, edge.b), claims
                standing = into.get(key)
                into[key] = as_register(edge) if standing is None else merge_edges(standing, edge)
        for (one, other), edge in pairs.items():
            if edge.joined:
                self.strong.setdefault(one, {})[other] = edge
                self.strong.setdefault(other, {})[one] = edge
            else:
                self._cut.setdefault(one, set()).add(other)
                self._cut.setdefault(other, set()).add(one)
        for (device, claimed), edge in claims.items():
            if edge.joined and (min(device, claimed), max(device, claimed)) not in pairs:
                self.claims_of.setdefault(device, {})[claimed] = edge
                self.claims_on.setdefault(claimed, {})[device] = edge

    def rank(self, leaf: bytes) -> tuple[int, str]:
        """Return how strong a leaf's type is; smaller is stronger."""
        id_type = self.types.get(leaf, "")
        return self.rules.rule(id_type).priority, id_type

    def distance(self, leaf: bytes) -> int:
        """Return how many edges away from the start a leaf lies."""
        if not self._distances:
            self._distances[self.start] = 0
            ring, steps = [self.start], 0
            while ring:
                steps += 1
                reached = {other for one in ring for other in self._neighbours(one)}
                ring = [other for other in reached if other not in self._distances]
                self._distances.update(dict.fromkeys(ring, steps))
        return self._distances.get(leaf, HOPS_MAX + 1)

    def _neighbours(self, leaf: bytes) -> Iterable[bytes]:
        for edges in (self.strong, self.claims_of, self.claims_on):
            yield from edges.get(leaf, ())
        yield from self._cut.get(leaf, ())

    def _want(self, leaf: bytes) -> None:
        if leaf not in self.known:
            self.wanted.add(leaf)

    # ------------------------------------------------------------------------------- the person

    def solve(self) -> Resolution:
        root = self._root(self.start)
        members: dict[bytes, Edge | None] = {}
        aliases: list[Edge] = []
        if self.types.get(root) == USER:
            members.update(dict.fromkeys(self._component(root)))
            aliases = self._aliases(self._component(root))
        else:
            members[root] = None
        for leaf in sorted(members):
            self._attach(leaf, members)
        claims = self._claims(root, members)
        incomplete = bool(self.wanted)
        # A cut may have reached one side only: the other may know of a later join.
        for leaf in [self.start, *members]:
            for other in self._cut.get(leaf, ()):
                self._want(other)
        return self._resolution(root, members, claims, aliases, incomplete=incomplete)

    def _resolution(
        self, root: bytes, members: dict[bytes, Edge | None], claims: dict[bytes, Edge],
        aliases: list[Edge], *, incomplete: bool,
    ) -> Resolution:  # fmt: skip
        order = sorted(members, key=lambda leaf: (*self.rank(leaf), leaf))
        order += sorted(claims, key=lambda leaf: (*self.rank(leaf), leaf))
        kept = order[: self.rules.leaves_max]
        for leaf in order[self.rules.leaves_max :]:
            self.excluded[leaf] = "bound"
        joins = {leaf: members.get(leaf) or claims.get(leaf) for leaf in kept}
        edges = {edge for edge in (*joins.values(), *aliases) if edge is not None}
        excluded = [Excluded(LeafId(leaf), reason) for leaf, reason in self.excluded.items()
                    if leaf not in joins]  # fmt: skip
        return Resolution(
            leaves=tuple(LeafId(leaf) for leaf in kept),
            claims=frozenset(LeafId(leaf) for leaf in kept if leaf in claims),
            edges=tuple(sorted(edges)),
            email_leaf=self._email(root, members),
            excluded=tuple(sorted(excluded)),
            bounded=incomplete or len(order) > len(kept),
        )

    def _root(self, leaf: bytes) -> bytes:
        while self.types.get(leaf) != USER:
            hub = self._hub(leaf)
            if hub is None or leaf not in self._kept(hub, self.types[leaf]):
                return leaf
            leaf = hub
        return leaf

    def _aliases(self, group: frozenset[bytes]) -> list[Edge]:
        used: list[Edge] = []
        for one in group:
            for other, edge in self.strong.get(one, {}).items():
                if self.types[other] != USER:
                    continue
                if other not in group:
                    self.excluded[other] = "limit" if edge.rule == ALIAS else "identified"
                elif edge.rule == ALIAS:
                    used.append(edge)
        return used

    def _attach(self, hub: bytes, members: dict[bytes, Edge | None]) -> None:
        # Depth first; it ends because ranks rise along a path.
        self._want(hub)
        for leaf, edge in sorted(self.strong.get(hub, {}).items()):
            if self.rank(leaf) <= self.rank(hub) or leaf in members:
                continue
            if leaf not in self._kept(hub, self.types[leaf]):
                self.excluded[leaf] = "limit"
                continue
            chosen = self._hub(leaf)
            if chosen is not None and self._peer(chosen) == self._peer(hub):
                members[leaf] = self.strong[leaf].get(chosen, edge)
                self._attach(leaf, members)
            elif leaf in self._devices and self._devices[leaf].shared:
                self.excluded[leaf] = "shared_anonymous"
            else:
                self.excluded.setdefault(leaf, "other_person")

    def _peer(self, hub: bytes) -> frozenset[bytes]:
        # Users joined by aliases are one hub.
        return self._component(hub) if self.types[hub] == USER else frozenset((hub,))

    def _claims(self, root: bytes, members: Mapping[bytes, Edge | None]) -> dict[bytes, Edge]:
        found: dict[bytes, Edge] = {}
        for leaf in sorted(members):
            for device, edge in self.claims_on.get(leaf, {}).items():
                if device not in members and (device not in found or edge < found[device]):
                    found[device] = edge
        newest = sorted(found, key=lambda one: (-found[one].at_ms, -found[one].event_id, one))
        claims: dict[bytes, Edge] = {}
        counts: dict[str, int] = {}
        for device in newest:
            id_type = self.types[device]
            counts[id_type] = counts.get(id_type, 0) + 1
            if counts[id_type] > self.rules.rule(id_type).limit:
                self.excluded[device] = "limit"
                continue
            reason = self._refusal(device, root, members)
            if reason:
                self.excluded.setdefault(device, reason)
            else:
                claims[device] = found[device]
        return claims

    def _refusal(self, device: bytes, root: bytes, members: Mapping[bytes, Edge | None]) -> str:
        said = self._device(device)
        if said.shared:
            mine = (
                self.rules.shared_anonymous == "first"
                and said.hub is None
                and said.first in members
            )
            return "" if mine else "shared_anonymous"
        if said.hub is not None:
            return "other_person"
        # A device with one user may name several addresses; one address must not read the others'.
        rivals = {hub for hub in said.hubs if self.types[hub] == self.types[root]} - {root}
        return "shared_anonymous" if rivals and self.types[root] != USER else ""

    def _email(self, root: bytes, members: Mapping[bytes, Edge | None]) -> LeafId | None:
        if self.types.get(root) == EMAIL:
            return LeafId(root)
        stated = [
            (edge.seen_ms, edge.event_id, other)
            for leaf in members
            if self.types.get(leaf) == USER
            for other, edge in self.strong.get(leaf, {}).items()
            if self.types[other] == EMAIL
        ]
        return LeafId(max(stated)[2]) if stated else None

    # --------------------------------------------------------------------------------- the rules

    def _component(self, user: bytes) -> frozenset[bytes]:
        """Return the users whom aliases join to this one, itself among them."""
        found = self._components.get(user)
        if found is not None:
            return found
        aliases: dict[EdgeKey, Edge] = {}
        reached, ring = {user}, [user]
        while ring:
            one = ring.pop()
            self._want(one)
            for other, edge in self.strong.get(one, {}).items():
                if self.types[other] != USER:
                    continue
                if edge.rule != ALIAS:
                    continue
                aliases[(min(one, other), max(one, other))] = edge
                if other not in reached:
                    reached.add(other)
                    ring.append(other)
        groups = {one: {one} for one in reached}
        limit = self.rules.rule(USER).limit
        for (one, other), _ in sorted(
            aliases.items(), key=lambda item: (item[1].at_ms, item[1].event_id, item[0])
        ):
            left, right = groups[one], groups[other]
            if left is not right and len(left) + len(right) <= limit:
                left |= right
                groups.update(dict.fromkeys(right, left))
        for one, group in groups.items():
            self._components[one] = frozenset(group)
        return self._components[user]

    def _kept(self, hub: bytes, id_type: str) -> frozenset[bytes]:
        """Return the leaves of a type that a hub keeps: the newest up to the limit."""
        found = self._within.get((hub, id_type))
        if found is not None:
            return found
        peers = self._peer(hub)
        joined: dict[bytes, tuple[int, int]] = {}
        for peer in peers:
            self._want(peer)
            for leaf, edge in self.strong.get(peer, {}).items():
                if self.types[leaf] == id_type:
                    at = (edge.at_ms, edge.event_id)
                    joined[leaf] = min(at, joined.get(leaf, at))
        newest = sorted(joined, key=lambda leaf: (-joined[leaf][0], -joined[leaf][1], leaf))
        kept = frozenset(newest[: self.rules.rule(id_type).limit])
        for peer in peers:
            self._within[(peer, id_type)] = kept
        return kept

    def _hub(self, leaf: bytes) -> bytes | None:
        """Return the one neighbour of a stronger type that a leaf attaches to, if there is any."""
        if leaf in self._hubs:
            return self._hubs[leaf]
        if self.types.get(leaf) in DEVICE_TYPES:
            hub = self._device(leaf).hub
        else:
            self._want(leaf)
            hub = self._strongest(leaf)
        self._hubs[leaf] = hub
        return hub

    def _strongest(self, leaf: bytes) -> bytes | None:
        rank = self.rank(leaf)
        stronger = [(*self.rank(other), edge.at_ms, edge.event_id, other)
                    for other, edge in self.strong.get(leaf, {}).items()
                    if self.rank(other) < rank]  # fmt: skip
        return min(stronger)[-1] if stronger else None

    def _top(self, leaf: bytes) -> bytes:
        hub = None if self.types[leaf] == USER else self._hub(leaf)
        return leaf if hub is None else self._top(hub)

    def _device(self, leaf: bytes) -> _Device:
        found = self._devices.get(leaf)
        if found is not None:
            return found
        self._want(leaf)
        rank = self.rank(leaf)
        links = sorted(
            (edge.at_ms, edge.event_id, other, edge.verified)
            for edges in (self.strong, self.claims_of)
            for other, edge in edges.get(leaf, {}).items()
            if self.rank(other) < rank
        )
        tops = {other: self._top(other) for _, _, other, _ in links}
        users = {top for top in tops.values() if self.types[top] == USER}
        if leaf == self.start and len(users) > 1:
            for user in users:  # all in one read, rather than one after the other
                self._want(user)
        hubs = frozenset(tops.values()) - users
        hub_types = {self.types[hub] for hub in hubs}
        shared = self._two_people(users) if users else len(hub_types) < len(hubs)
        # Users decide where there are any: an address typed on the way names nobody else.
        decisive = [link for link in links if tops[link[2]] in users] or links
        first = tops[decisive[0][2]] if decisive else None
        if not shared:
            hub = self._strongest(leaf)
        elif self.rules.shared_anonymous == "first" and decisive[0][3]:
            hub = decisive[0][2]
        else:
            hub = None
        device = _Device(hub, shared, first, hubs)
        self._devices[leaf] = device
        return device

    def _two_people(self, users: set[bytes]) -> bool:
        if len(users) < 2:
            return False
        # Any of them will do to compare with: prefer one whose leaf need not be read for it.
        nearest = min(
            users, key=lambda one: (one not in self._components, one not in self.known, one)
        )
        return not users <= self._component(nearest)
