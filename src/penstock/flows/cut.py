"""Two identifiers that were joined wrongly are cut apart: what joins them is undone on both leaves."""

from __future__ import annotations

from penstock.core.errors import EventRejected
from penstock.core.identity import routing
from penstock.core.identity.cutting import Apart, Named, apart, weaker_first
from penstock.core.identity.resolution import Resolution, frontier
from penstock.core.ids import LeafId
from penstock.core.leaf import Leaf
from penstock.core.record import Edge, Record
from penstock.flows.person import READS_MAX, Definitions, edges_of, find_person
from penstock.ports.appender import Appender
from penstock.ports.profiles import Profiles

OPERATOR = "operator"
"""The source of the records of a cut."""


async def cut(
    profiles: Profiles, definitions: Definitions, appender: Appender, one: Named, other: Named, *,
    tenant: str, now_ms: int,
) -> list[Edge]:  # fmt: skip
    """Cut two identifiers apart; durable on return. Cutting again changes nothing.

    The weaker of the two leaves the person of the other: see `core.identity.cutting`. A cut undoes every
    join up to its instant, also one whose record is still to come or comes once more; a later verified
    join counts again, and no claim under a public key does.

    Args:
        profiles: The read path.
        definitions: Whose limits hold.
        appender: The way into the log.
        one: One identifier.
        other: The other; of two of a type, the one who stays.
        tenant: Part of every record.
        now_ms: The present instant.

    Returns:
        The edges that were undone, as they stood; none if the two were cut before.

    Raises:
        EventRejected: Both are one leaf (E345), or nothing that is known joins the two (E344).
        Unavailable: It is not known whether the log has the cut (E401, E402); a retry is safe.
    """
    if one.leaf == other.leaf:
        raise EventRejected("E345", "both identifiers are the same", where="other",
                            fix="name the two that were joined")  # fmt: skip
    leaving, staying = weaker_first(one, other, definitions.identity)
    known: dict[LeafId, Leaf | None] = {}
    await find_person(profiles, leaving.leaf, definitions, known)
    person = (await find_person(profiles, staying.leaf, definitions, known)).resolution
    await _read_rest(profiles, definitions, leaving, staying, known)
    found = apart(leaving, staying, edges_of(known), definitions.identity)
    if found.undone:
        await appender.append(_records(found, tenant, now_ms), urgent=True)
    elif not found.known or leaving.leaf in person.leaves:
        raise EventRejected("E344", "no edge joins these two identifiers", where="other",
                            fix=_way(person, leaving.leaf))  # fmt: skip
    return found.undone


async def _read_rest(
    profiles: Profiles, definitions: Definitions, leaving: Named, staying: Named,
    known: dict[LeafId, Leaf | None],
) -> None:  # fmt: skip
    """Read what the person who stays is made of without the leaf that leaves."""
    for _ in range(READS_MAX):
        wanted = frontier(
            staying.leaf, edges_of(known), definitions.identity, blocked=(leaving.leaf,)
        )
        if not wanted:
            return
        read = await profiles.read(wanted)
        known.update(zip(wanted, read.leaves, strict=True))


def _records(found: Apart, tenant: str, now_ms: int) -> list[Record]:
    # An edge may have been seen by a clock that is ahead: it is cut all the same.
    at_ms = max(now_ms, *(edge.seen_ms for edge in found.undone))
    return [
        record
        for edge in (*found.undone, *found.kept_apart)
        for record in routing.cut_records(
            edge, tenant=tenant, message_id=f"cut:{edge.a.hex()}:{edge.b.hex()}:{at_ms}", at_ms=at_ms, source=OPERATOR
        )
    ]  # fmt: skip


def _way(person: Resolution, leaving: LeafId) -> str:
    """Return what to do about two leaves that nothing joins; never a value."""
    if leaving in person.leaves:  # only users hang together by somebody else: by aliases
        return "they are one person through another user id: cut one of them from that"
    return "check how both are spelt: as far as is known they are not one person"
