"""A leaf becomes a person: fetch what its edges lead to, resolve, and merge into one profile."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from penstock.core.consent import ledger
from penstock.core.consent.purpose import PERSONALISATION, ConsentRules
from penstock.core.consent.suppression import (
    EMAIL_CHANNEL,
    PURPOSE_PLANE,
    Suppression,
    SuppressionKey,
)
from penstock.core.errors import EventRejected
from penstock.core.feature.lasting import Lasting
from penstock.core.feature.plan import Plan
from penstock.core.identity import graph
from penstock.core.identity.identifier import ITEM, IdentityRules
from penstock.core.identity.traits import NEVER, standing_of
from penstock.core.ids import LeafId
from penstock.core.leaf import Leaf
from penstock.core.profile import Profile
from penstock.ports.profiles import Profiles

READS_MAX = 4
"""The leaf asked for and at most three hops from it; beyond is `identity_bound`."""


class Since(NamedTuple):
    """A feature that was built when the log had been truncated: from when it is complete."""

    since_ms: int
    until_ms: int
    """From this `as_of` on its window begins at `since_ms` or later: nothing is missing any more."""


class Definitions(NamedTuple):
    """What a read needs to know: the plan and the rules, all of one epoch."""

    plan: Plan
    identity: IdentityRules
    consent: ConsentRules
    trait_purposes: Mapping[str, str]
    since: Mapping[str, Since] = {}
    """The features whose leaves lack history."""


class Person(NamedTuple):
    """The leaves of one person, resolved, and how fresh they are."""

    start: LeafId
    leaves: list[Leaf]
    resolution: graph.Resolution
    as_of_ms: int
    """The instant up to which the log is reflected."""
    live: bool
    bounded: bool
    """True if the identity bound cut the person short: the answer is `stale`."""

    @property
    def found(self) -> bool:
        """Whether anything is known of this person."""
        return bool(self.leaves)


async def find_person(
    profiles: Profiles, start: LeafId, definitions: Definitions,
    known: dict[LeafId, Leaf | None] | None = None,
) -> Person:  # fmt: skip
    """Return the person that a leaf belongs to: one read, and at most three hops more.

    Args:
        profiles: The read path.
        start: The leaf asked for.
        definitions: Whose limits hold.
        known: An empty dictionary, to be filled with every leaf that was read on the way.

    Raises:
        Unavailable: The store did not answer (E402).
    """
    known = {} if known is None else known
    as_of_ms, live = 0, True
    wanted, resolution = graph.explore(start, {}, definitions.identity)
    for _ in range(READS_MAX):
        read = await profiles.read(wanted)
        known.update(zip(wanted, read.leaves, strict=True))
        as_of_ms = min(as_of_ms, read.as_of_ms) if as_of_ms else read.as_of_ms
        live = live and read.live
        wanted, resolution = graph.explore(start, edges_of(known), definitions.identity)
        if not wanted:
            break
    leaves = [leaf for leaf_id in resolution.leaves if (leaf := known.get(leaf_id)) is not None]
    return Person(start, leaves, resolution, as_of_ms, live, bool(wanted) or resolution.bounded)


def register_leaves(person: Person) -> list[LeafId]:
    """Return the leaves whose entries in the register of suppressions concern a person."""
    leaves = dict.fromkeys([person.start, *person.resolution.leaves])
    if person.resolution.email_leaf is not None:
        leaves[person.resolution.email_leaf] = None
    return list(leaves)


def edges_of(known: Mapping[LeafId, Leaf | None]) -> dict[LeafId, list[graph.Edge]]:
    """Return the edges of the leaves that were read, as resolution takes them."""
    return {
        leaf_id: list(leaf.edges.values()) if leaf is not None else []
        for leaf_id, leaf in known.items()
    }


def profile_of(
    person: Person, definitions: Definitions, as_of_ms: int | None, now_ms: int,
    withdrawals: Mapping[SuppressionKey, Suppression] | None = None,
) -> Profile:  # fmt: skip
    """Return a person's profile as of an instant; what consent forbids is left out.

    Args:
        person: The resolved person.
        definitions: What their leaves were folded by.
        as_of_ms: The end of every window; None for now. Never before the leaves' T.
        now_ms: The present instant.
        withdrawals: The synchronous register's entries of the person's leaves, if it was read.

    Raises:
        EventRejected: `as_of` is before what the leaves already know (E390).
    """
    known = _known(person, definitions, withdrawals)
    if as_of_ms is None:
        as_of_ms = max(now_ms, known.clock_ms)
    elif as_of_ms < known.clock_ms:
        raise EventRejected("E390", "`as_of` is before the newest record of this person", where="as_of",
                            fix="ask for a later instant; earlier knowledge needs a replay")  # fmt: skip
    plan = definitions.plan
    features = plan.read(known.states, as_of_ms, known.clock_ms, known.purged, known.permitted)
    return _assembled(person, definitions, known, features, as_of_ms)


def lasting_profile_of(
    person: Person, definitions: Definitions, now_ms: int,
    withdrawals: Mapping[SuppressionKey, Suppression],
) -> tuple[Profile, Lasting]:  # fmt: skip
    """Return the profile as of now as `profile_of` does, and until when it stays true."""
    known = _known(person, definitions, withdrawals)
    as_of_ms = max(now_ms, known.clock_ms)
    lasting = definitions.plan.read_lasting(
        known.states, as_of_ms, known.clock_ms, known.purged, known.permitted
    )
    ends = [one.until_ms for one in definitions.since.values() if one.until_ms > as_of_ms]
    if ends:
        lasting = lasting._replace(until_ms=min(lasting.until_ms, *ends))
    return _assembled(person, definitions, known, lasting.values, as_of_ms), lasting


class _Known(NamedTuple):
    """What the leaves of a person say, before any window is read."""

    clock_ms: int
    purged: dict[str, int]
    consent: dict[str, str]
    permitted: frozenset[str]
    states: list[Any]


def _known(
    person: Person, definitions: Definitions,
    withdrawals: Mapping[SuppressionKey, Suppression] | None,
) -> _Known:  # fmt: skip
    claims = person.resolution.claims
    purged: dict[str, int] = {}
    for leaf in person.leaves:
        for purpose, before in leaf.purged.items():
            purged[purpose] = max(before, purged.get(purpose, before))
    for purpose, before in _withdrawn_before(person, withdrawals or {}):
        purged[purpose] = max(before, purged.get(purpose, before))
    entries = ledger.over_leaves(
        [leaf.consent for leaf in person.leaves if leaf.leaf not in claims],
        [leaf.consent for leaf in person.leaves if leaf.leaf in claims],
    )
    status = {
        purpose: ledger.status(entry, definitions.consent) for purpose, entry in entries.items()
    }
    permitted = ledger.permitted_purposes(entries, definitions.consent)
    permitted -= _withdrawn(entries, withdrawals or {})
    many = [leaf.states for leaf in person.leaves if leaf.id_type != ITEM]
    # A read changes nothing, so the states of one leaf need not be copied.
    states = many[0] if len(many) == 1 else definitions.plan.merge(many)
    clock_ms = max((leaf.clock_ms for leaf in person.leaves), default=0)
    return _Known(clock_ms, purged, status, permitted, states)


def _assembled(
    person: Person, definitions: Definitions, known: _Known, features: dict[str, Any], as_of_ms: int
) -> Profile:
    traits, told = _traits(person, definitions, known.permitted, known.purged)
    withheld = {*told, *withheld_of(definitions, known.permitted)}
    email_leaf = _email_leaf(person)
    identifiers: dict[str, list[str]] = {}
    for leaf in person.leaves:
        if leaf.value is not None:
            identifiers.setdefault(leaf.id_type, []).append(leaf.value)
    return Profile(
        leaves=tuple(person.resolution.leaves),
        identifiers={id_type: sorted(values) for id_type, values in sorted(identifiers.items())},
        features=features,
        traits=traits,
        consent=known.consent,
        permitted=known.permitted,
        email=next((leaf.value for leaf in person.leaves if leaf.leaf == email_leaf), None),
        email_leaf=email_leaf,
        clock_ms=known.clock_ms,
        as_of_ms=as_of_ms,
        definitions=definitions.plan.fingerprint,
        withheld=tuple(sorted(withheld)),
        complete_since={
            name: one.since_ms
            for name, one in definitions.since.items()
            if name in features and as_of_ms < one.until_ms
        },
    )


def withheld_of(definitions: Definitions, permitted: frozenset[str]) -> Iterator[str]:
    """Yield the features and declared traits that need a purpose which is not permitted.

    By what is declared, and not by what is there: a name in the list says nothing of the person but
    their consent. Most of it is not there, since the step computes nothing that is denied.
    """
    yield from definitions.plan.withheld(permitted)
    for name, purpose in definitions.trait_purposes.items():
        if purpose not in permitted:
            yield name


def _withdrawn(
    entries: Mapping[str, ledger.ConsentEntry], register: Mapping[SuppressionKey, Suppression]
) -> frozenset[str]:
    # The register is written before the 200, the ledger when the fold comes to it: until then a
    # withdrawal counts if nothing later in the ledger grants again.
    return frozenset(
        key.name
        for key, entry in register.items()
        if key.plane == PURPOSE_PLANE
        and entry.denied
        and not ledger.granted_after(entries.get(key.name), entry.at_ms)
    )


def _withdrawn_before(
    person: Person, register: Mapping[SuppressionKey, Suppression]
) -> Iterator[tuple[str, int]]:
    """Yield the purposes that were withdrawn, and when: what was computed before it is not shown.

    As the leaf says it once the withdrawal is folded; until then a later grant, folded before it, would
    have all shown that came earlier. Of an address the register has what anybody said, and its leaf alone
    says what counts.
    """
    if not register:
        return
    own = {leaf.leaf for leaf in person.leaves if leaf.id_type != EMAIL_CHANNEL}
    for key, entry in register.items():
        if key.plane == PURPOSE_PLANE and entry.denied and key.leaf in own:
            yield key.name, entry.at_ms


def _email_leaf(person: Person) -> LeafId | None:
    """Return the leaf of the person's verified address, if there is one.

    A verified edge leads to it, or a record under a server key had it as its primary. An address
    that only a public key named is a claim: whoever typed it may not be who reads it.
    """
    winning = person.resolution.email_leaf
    for leaf in person.leaves:
        if leaf.id_type != "email" or leaf.leaf not in {winning, person.start}:
            continue
        joined = any(edge.verified and edge.joined for edge in leaf.edges.values())
        if joined and leaf.leaf == winning:
            return winning
        if (
            winning in {None, leaf.leaf}
            and leaf.leaf == person.start
            # Only a verified primary sets traits on an address's leaf. Its counts prove nothing: our
            # own record of a decision about a claimed address is a primary too.
            and leaf.traits
        ):
            return leaf.leaf
    known = {leaf.leaf for leaf in person.leaves}
    return winning if winning not in known else None


def _traits(
    person: Person, definitions: Definitions, permitted: frozenset[str], purged: Mapping[str, int],
) -> tuple[dict[str, object], list[str]]:  # fmt: skip
    claims = person.resolution.claims
    purposes = definitions.trait_purposes

    def standing(leaf: Leaf) -> dict[str, graph.Trait]:
        # What a withdrawal purged must not outrank what another leaf was told after it.
        found: dict[str, graph.Trait] = {}
        for name, trait in leaf.traits.items():
            before = purged.get(purposes.get(name, PERSONALISATION), NEVER)
            kept = standing_of(trait, leaf.beneath.get(name, ()), before)
            if kept is not None:
                found[name] = kept
        return found

    merged = graph.merge_traits(
        [standing(leaf) for leaf in person.leaves if leaf.leaf not in claims],
        [standing(leaf) for leaf in person.leaves if leaf.leaf in claims],
    )
    traits: dict[str, object] = {}
    withheld: list[str] = []
    for name, (_, _, _, value) in sorted(merged.items(), key=lambda item: item[0]):
        if purposes.get(name, PERSONALISATION) not in permitted:
            withheld.append(name)
        else:
            traits[name] = value
    return traits, withheld
