"""Where an event goes: its primary leaf, the edges it states, and the links that other leaves get."""

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Final, NamedTuple

import msgspec

from penstock.core.errors import EventRejected
from penstock.core.identity.edges import ALIAS, would_change
from penstock.core.identity.identifier import (
    ANONYMOUS,
    CLAIMED_USER,
    DEVICE_TYPES,
    EMAIL,
    ENTITY_TYPES,
    GROUP,
    ITEM,
    USER,
    IdentityRules,
    blocked_by,
    is_type,
    normalise,
)
from penstock.core.ids import LeafId, derived_message_id, event_id
from penstock.core.record import Edge, Evidence, Identifier, Kind, Record

EXTERNAL_IDS_MAX: Final = 16
"""External ids of one event that are looked at; the rest are counted as blocked."""

JUDGED_MAX: Final = 100_000

MakeLeaf = Callable[[str, str], LeafId]
EdgeKey = tuple[bytes, bytes]


class Routing(NamedTuple):
    """Where an event goes and what it says about identity.

    `identifiers` has the primary first, then the others by type and value. `edges` all touch the
    primary's leaf. `blocked` names what was left out, as `type:reason`, never a value; the reasons
    are `junk`, `malformed`, `reserved`, `too_many` and `unverified`.
    """

    primary: Identifier
    identifiers: tuple[Identifier, ...]
    edges: tuple[Edge, ...]
    blocked: tuple[str, ...]


class _Sorter:
    """Collects an event's usable identifiers by type, and the reasons for what it leaves out."""

    def __init__(self, rules: IdentityRules) -> None:
        self.rules = rules
        self.found: dict[str, list[str]] = {}
        self.left_out: list[str] = []

    def add(self, id_type: str, value: object) -> str | None:
        if value is None or value == "":
            return None
        if value.__class__ is str:
            text, reason = _judged(id_type, value, self.rules.blocked)
        else:
            text, reason = _judge(id_type, value, self.rules.blocked)
        if text is None:
            self.left_out.append(reason)
            return None
        values = self.found.setdefault(id_type, [])
        if text not in values:
            values.append(text)
        return text

    def add_external(self, external_ids: Sequence[tuple[str, object]]) -> None:
        for number, (name, value) in enumerate(external_ids):
            id_type = name.strip().lower()
            if number >= EXTERNAL_IDS_MAX:
                self.left_out.append("external:too_many")
            elif not is_type(id_type):
                self.left_out.append("external:malformed")
            elif id_type in DEVICE_TYPES or id_type == GROUP:
                self.left_out.append(f"{id_type}:reserved")
            else:
                self.add(id_type, value)


def _judge(id_type: str, value: object, junk: frozenset[str]) -> tuple[str | None, str]:
    """Return an identifier's one spelling, or None and why it is left out."""
    text = normalise(id_type, value)
    if text is None:
        return None, f"{id_type}:malformed"
    if id_type not in ENTITY_TYPES and blocked_by(text, junk):
        return None, f"{id_type}:junk"
    return text, ""


# The same people send again and again: remembering saves a tenth of what an event costs at the edge.
_judged = lru_cache(JUDGED_MAX)(_judge)


def route(  # noqa: PLR0913 - an event mentions this many things, and callers name each
    *,
    user_id: object,
    anonymous_id: object,
    previous_id: object,
    group_id: object,
    external_ids: Sequence[tuple[str, object]],
    email: object,
    type_name: str,
    message_id: str,
    occurred_at_ms: int,
    verified: bool,
    make_leaf: MakeLeaf,
    rules: IdentityRules,
    tenant: str = "",
) -> Routing:
    """Return where an event goes and which edges it states.

    With a verified sender the primary is the user, else the anonymous id, else the email, else the
    first external id, else the item or group; edges are verified and lead from the primary to each
    other identifier. Under a public key it is the anonymous id, else a `claimed_user_id`, and all
    edges are claims. `group` goes to its group's leaf if the sender is verified, and joins nobody;
    under a public key it is an event of the person, since a stranger must not set a group's traits.
    `alias` goes to the new id with an edge to the previous one, which may be a user or an anonymous
    id, so it states both; under a public key the previous id is left out.

    Args:
        user_id: `userId`, as it came.
        anonymous_id: `anonymousId`, as it came.
        previous_id: `previousId` of an alias.
        group_id: `groupId`.
        external_ids: `context.externalIds` as (type, value), in their order; `item_id` is a thing.
        email: The address that traits give, if any.
        type_name: `identify`, `track`, `page`, `screen`, `group` or `alias`; the edges' rule.
        message_id: The event's message id.
        occurred_at_ms: When it happened.
        verified: Sent under a server key.
        make_leaf: Makes a leaf id of (type, normalised value).
        rules: The project's identity rules.
        tenant: Not used; the leaf ids carry it.

    Raises:
        EventRejected: Nothing usable names anybody (E340), the key is public and neither
            `anonymousId` nor `userId` is usable (E341), a group event without a usable `groupId`
            (E342), or an alias without a usable `previousId` (E343).
    """
    alone = user_id is None and email is None and group_id is None and not external_ids
    if alone and anonymous_id.__class__ is str and type_name not in ("group", ALIAS):
        # The commonest case, decided without a table: a browser that nobody has signed in on.
        text, _ = _judged(ANONYMOUS, anonymous_id, rules.blocked)
        if text is not None and anonymous_id != "":
            primary = _identifier(ANONYMOUS, text, make_leaf)
            return Routing(primary, (primary,), (), ())
    ids = _Sorter(rules)
    ids.add(USER, user_id)
    ids.add(ANONYMOUS, anonymous_id)
    if email is not None:
        ids.add(EMAIL, email)
    if group_id is not None:
        ids.add(GROUP, group_id)
    if external_ids:
        ids.add_external(external_ids)
    if type_name == "group" and GROUP not in ids.found:
        raise EventRejected("E342", "a group event has no usable group id", where="$.groupId",
                            fix="send the group's id in `groupId`")  # fmt: skip
    previous = _previous(ids, previous_id, verified=verified) if type_name == ALIAS else ()
    primary_type = _primary_type(ids, type_name, verified=verified)
    primary = _identifier(primary_type, ids.found[USER if primary_type == CLAIMED_USER
                                                  else primary_type][0], make_leaf)  # fmt: skip
    if len(ids.found) == 1 and len(ids.found.get(primary_type, ())) == 1 and not previous:
        # The common case: an event of one identifier, which states no edge.
        return Routing(primary, (primary,), (), tuple(ids.left_out))
    others = _others(ids, primary, make_leaf, rules)
    state = _Statement(
        primary, max(1, occurred_at_ms), event_id(primary.leaf, message_id), verified
    )
    edges: list[Edge] = []
    if primary_type not in ENTITY_TYPES:
        edges = [state.edge(other, type_name) for other in others
                 if other.id_type not in ENTITY_TYPES]  # fmt: skip
        for id_type, value in previous:
            other = _identifier(id_type, value, make_leaf)
            if other.leaf not in {primary.leaf, *(edge.b for edge in edges)}:
                edges.append(state.edge(other, ALIAS))
                others.append(other)
    return Routing(primary, (primary, *others), tuple(edges), tuple(ids.left_out))


class _Statement(NamedTuple):
    primary: Identifier
    at_ms: int
    event_id: int
    verified: bool

    def edge(self, other: Identifier, rule: str) -> Edge:
        return Edge(self.primary.id_type, self.primary.leaf, other.id_type, other.leaf,
                    self.at_ms, self.event_id, rule, self.verified)  # fmt: skip


def _previous(ids: _Sorter, value: object, *, verified: bool) -> Sequence[tuple[str, str]]:
    text = normalise(USER, value)
    if text is None or blocked_by(text, ids.rules.blocked):
        raise EventRejected("E343", "an alias has no usable previous id", where="$.previousId",
                            fix="send the former id in `previousId`")  # fmt: skip
    if text in ids.found.get(ANONYMOUS, ()):
        return ()  # the edge between the two ids of the event already says it
    if not verified:
        ids.left_out.append("previous_id:unverified")
        return ()
    return ((USER, text), (ANONYMOUS, text))


def _primary_type(ids: _Sorter, type_name: str, *, verified: bool) -> str:
    found = ids.found
    if not verified:
        if ANONYMOUS in found:
            return ANONYMOUS
        if USER in found:
            return CLAIMED_USER
        raise EventRejected("E341", "an event under a public key has no usable anonymousId or userId",
                            where="$.anonymousId",
                            fix="send `anonymousId`, or use a server source's key")  # fmt: skip
    if type_name == "group":
        return GROUP
    for id_type in (USER, ANONYMOUS, EMAIL):
        if id_type in found:
            return id_type
    for id_type in found:  # external ids, in the order of the event
        if id_type not in ENTITY_TYPES:
            return id_type
    for id_type in (ITEM, GROUP):
        if id_type in found:
            return id_type
    raise EventRejected("E340", "an event has no usable identifier", where="$.userId",
                        fix="send a `userId`, an `anonymousId`, an email or an external id "
                        "that is no placeholder such as `null` or `guest`")  # fmt: skip


def _identifier(id_type: str, value: str, make_leaf: MakeLeaf) -> Identifier:
    return Identifier(id_type, make_leaf(id_type, value), value)


def _others(
    ids: _Sorter, primary: Identifier, make_leaf: MakeLeaf, rules: IdentityRules
) -> list[Identifier]:
    # Sorted, so that two equal copies of an event state the same edges in the same order.
    pairs = sorted(
        (rules.rule(id_type).priority, id_type, value)
        for id_type, values in ids.found.items()
        for value in values
    )
    identifiers = [_identifier(id_type, value, make_leaf) for _, id_type, value in pairs]
    return [other for other in identifiers if other.leaf != primary.leaf]


def link_records(primary: Record) -> list[Record]:
    """Return the links that a primary gives to other leaves: one an edge, in the edges' order.

    A link has the primary's times and an id derived from the primary's; it is an element of a set,
    so that its leaf needs no memory of ids for it.

    Laws:
        A link is a pure function of its primary.
    """
    raw = {identifier.leaf: identifier.value for identifier in primary.identifiers}
    links: list[Record] = []
    for number, edge in enumerate(primary.edges):
        if edge.a == primary.leaf:
            id_type, leaf = edge.b_type, edge.b
        else:
            id_type, leaf = edge.a_type, edge.a
        message_id = derived_message_id(primary.message_id, f"link.{number}")
        links.append(
            Record(
                format=primary.format,
                kind=Kind.LINK,
                tenant=primary.tenant,
                leaf=leaf,
                id_type=id_type,
                event_id=event_id(leaf, message_id),
                message_id=message_id,
                type="",
                name="",
                occurred_at_ms=primary.occurred_at_ms,
                received_at_ms=primary.received_at_ms,
                source=primary.source,
                source_rank=primary.source_rank,
                verified=primary.verified,
                evidence=Evidence("unknown", regime=primary.evidence.regime),
                identifiers=(Identifier(id_type, leaf, raw.get(leaf)),),
                edges=(edge,),
            )
        )
    return links


def missing_links(primary: Record, held: Mapping[EdgeKey, Edge]) -> list[Record]:
    """Return the links of a primary that would tell another leaf something its own does not hold.

    Args:
        primary: A primary whose edges are not yet folded into `held`.
        held: The registers of the primary's leaf.

    Laws:
        After all links are folded, both leaves of a pair hold the same earliest join and trust.
    """
    for edge in primary.edges:
        if would_change(held, edge):
            break
    else:
        return []  # the common case: an event of somebody who is already known
    links = link_records(primary)
    return [link for link in links if would_change(held, link.edges[0])]


def cut_records(
    edge: Edge, *, tenant: str, message_id: str, at_ms: int, source: str, rule: str = "cut"
) -> tuple[Record, Record]:
    """Return the two records that undo an edge, one for each of its leaves; both must be appended.

    Args:
        edge: The edge, as either leaf holds it.
        tenant: The tenant's id.
        message_id: The id of the wish to cut; the records' ids are derived from it.
        at_ms: When the cut takes effect: joins up to and at it are undone.
        source: Who cuts, such as `operator`.
        rule: The provenance kept with the cut.
    """
    first, second = (
        Record(
            format=1,
            kind=Kind.CUT,
            tenant=tenant,
            leaf=leaf,
            id_type=id_type,
            event_id=event_id(leaf, derived_message_id(message_id, part)),
            message_id=derived_message_id(message_id, part),
            type="",
            name="",
            occurred_at_ms=at_ms,
            received_at_ms=at_ms,
            source=source,
            source_rank=0,
            verified=True,
            evidence=Evidence("unknown"),
            identifiers=(Identifier(id_type, leaf),),
            edges=(cut_of(edge, at_ms=at_ms, event_id=event_id(edge.a, message_id), rule=rule),),
        )
        for part, id_type, leaf in (("cut.a", edge.a_type, edge.a), ("cut.b", edge.b_type, edge.b))
    )
    return first, second


def cut_of(edge: Edge, *, at_ms: int, event_id: int, rule: str) -> Edge:
    """Return the statement that cuts an edge; it is verified, so no claim can undo it."""
    return msgspec.structs.replace(
        edge, at_ms=at_ms, event_id=event_id, rule=rule, verified=True, joined=False, seen_ms=0, cut_ms=0
    )  # fmt: skip
