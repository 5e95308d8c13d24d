"""Permission to send: a register of unsubscribes, complaints and bounces, apart from use of data."""

from collections.abc import Mapping
from typing import Final, NamedTuple

import msgspec

from penstock.core.consent.ledger import PREFERENCE_UPDATED, entries_of
from penstock.core.record import Kind, Record

UNSUBSCRIBED: Final = "Unsubscribed"
SUBSCRIBED: Final = "Subscribed"
COMPLAINED: Final = "Email Marked as Spam"
BOUNCED: Final = "Email Bounced"

PERMISSION_EVENTS: Final = frozenset(
    {PREFERENCE_UPDATED, UNSUBSCRIBED, SUBSCRIBED, COMPLAINED, BOUNCED}
)
"""Events about permission itself: kept whatever the load and whatever consent says."""

EMAIL_CHANNEL: Final = "email"
PURPOSE_PLANE: Final = "purpose"
ALL_TOPICS: Final = "*"
NAME_BYTES_MAX: Final = 128

# How ESPs say that an address is dead for good: SendGrid and Segment, Mailgun, SES, Postmark, Braze.
_HARD = frozenset({"hard", "permanent", "hardbounce", "hard_bounce", "suppressed"})
_HARD_FIELDS = ("bounce_type", "bounceType", "type", "severity", "classification")

PERMISSION_PROPERTIES: Final = ("channel", "topic", *_HARD_FIELDS)
"""What such an event says of which channel and topic is meant, and of a bounce whether it is for good."""


class Suppression(msgspec.Struct, frozen=True, array_like=True, order=True):
    """One entry of the register. Of two with the same key the greatest (at_ms, denied, event_id) wins.

    Two kinds share the register: permission to send, keyed by channel and topic (`email`, `*` for
    all topics), and withdrawals of a purpose, keyed by `purpose` and the purpose's name.
    """

    at_ms: int
    denied: bool
    event_id: int
    reason: str
    """`unsubscribe`, `complaint`, `bounce`, `withdrawal`, `resubscribe` or `grant`."""


class SuppressionKey(msgspec.Struct, frozen=True, array_like=True, order=True):
    """Whose entry, and for what: (leaf, plane, name). An address is its email leaf."""

    leaf: bytes
    plane: str
    """A channel such as `email`, or `purpose`."""
    name: str
    """A topic, `*` for all topics of the channel, or a purpose."""


Entries = list[tuple[SuppressionKey, Suppression]]


class _Word(NamedTuple):
    """What an event says about permission, before it is known whose leaves it may reach."""

    plane: str
    name: str
    entry: Suppression


def merge(one: Suppression, other: Suppression) -> Suppression:
    """Return the entry that stands of two with the same key; a denial wins a tie in time.

    Laws:
        Commutative, associative and idempotent.
    """
    return max(one, other)


def fold(register: dict[SuppressionKey, Suppression], entries: Entries) -> None:
    """Merge entries into a register, in place."""
    for key, entry in entries:
        standing = register.get(key)
        register[key] = entry if standing is None else merge(standing, entry)


def suppression_of(record: Record) -> Entries:
    """Return the register's entries that a record makes; empty for nearly every record.

    `Unsubscribed` denies a channel (`properties.channel`, `email` if absent) for a topic
    (`properties.topic`, all topics if absent: an ESP's list id narrows nothing); `Subscribed`
    grants it again; a complaint or a hard bounce denies all topics; a changed preference withdraws
    or grants purposes. Entries go to the record's own leaf and to every email it names.

    Trust is lopsided on purpose. A stranger who unsubscribes somebody does harm, but the safe kind,
    and refusing would mean to go on sending to people who did ask us to stop by way of a public
    key. So a denial is taken from anyone. What lifts a suppression is taken from verified senders
    only, except on the sender's own anonymous leaf; complaints and bounces are known to ESPs only,
    so they too are taken from verified senders only.

    Laws:
        A pure function of the record.
    """
    if record.name not in PERMISSION_EVENTS or record.kind != Kind.PRIMARY:
        return []
    emails = [one.leaf for one in record.identifiers if one.id_type == EMAIL_CHANNEL]
    leaves = tuple(dict.fromkeys([record.leaf, *emails]))
    entries: Entries = []
    for word in _words(record):
        for leaf in leaves:
            trusted = record.verified or (leaf == record.leaf and word.plane == PURPOSE_PLANE)
            if word.entry.denied or trusted:
                entries.append((SuppressionKey(leaf, word.plane, word.name), word.entry))
    return entries


def _words(record: Record) -> list[_Word]:
    at_ms = max(0, min(record.occurred_at_ms, record.received_at_ms))
    if record.name == PREFERENCE_UPDATED:
        return [
            _Word(PURPOSE_PLANE, purpose, Suppression(
                at_ms, entry.denied, record.event_id, "withdrawal" if entry.denied else "grant"))
            for purpose, entry, _ in entries_of(record) if entry.source
        ]  # fmt: skip
    channel = _name(record.properties.get("channel"), EMAIL_CHANNEL)
    topic = _name(record.properties.get("topic"), ALL_TOPICS)
    if record.name == UNSUBSCRIBED:
        return [_Word(channel, topic, Suppression(at_ms, True, record.event_id, "unsubscribe"))]
    if record.name == SUBSCRIBED:
        if _widened(record, "channel", channel) or _widened(record, "topic", topic):
            return []
        return [_Word(channel, topic, Suppression(at_ms, False, record.event_id, "resubscribe"))]
    if not record.verified:
        return []
    if record.name == COMPLAINED:
        reason = "complaint"
    elif _hard(record):
        reason = "bounce"
    else:
        return []
    return [_Word(EMAIL_CHANNEL, ALL_TOPICS, Suppression(at_ms, True, record.event_id, reason))]


def _name(value: object, default: str) -> str:
    if not isinstance(value, str):
        return default
    name = value.strip()
    # A channel or a topic that cannot be a name must not shrink what is denied.
    if not name or not name.isprintable() or len(name.encode()) > NAME_BYTES_MAX:
        return default
    return default if name == PURPOSE_PLANE else name


def _widened(record: Record, field: str, read: str) -> bool:
    # For a grant it is the other way round: what cannot be read must not open everything.
    said = record.properties.get(field)
    return said is not None and (not isinstance(said, str) or said.strip() != read)


def _hard(record: Record) -> bool:
    said = [record.properties.get(field) for field in _HARD_FIELDS]
    return any(isinstance(one, str) and one.strip().lower() in _HARD for one in said)


def may_send(
    entries: Mapping[SuppressionKey, Suppression], channel: str, topic: str
) -> tuple[bool, str]:
    """Return whether a message of a topic may go out on a channel, and the reason if not.

    A denial of the topic holds until that topic, or the channel, is granted again later. A denial
    of the whole channel is lifted for one topic only if it was an unsubscribe and the person
    subscribed to that topic afterwards; a complaint or a bounce is lifted by nothing less than a
    grant of the whole channel.

    Args:
        entries: The register's entries of the recipient's leaf, or of all leaves of the person: a
            denial on any of them counts.
        channel: Such as `email`.
        topic: The campaign's topic.

    Returns:
        (True, "") or (False, reason), a reason as in `Suppression.reason`.
    """
    everything = _latest(entries, channel, ALL_TOPICS)
    narrow = _latest(entries, channel, topic)
    if everything is not None and everything.denied:
        lifted = (
            everything.reason == "unsubscribe"
            and narrow is not None
            and not narrow.denied
            and narrow.at_ms > everything.at_ms
        )
        return (True, "") if lifted else (False, everything.reason)
    if narrow is not None and narrow.denied:
        lifted = everything is not None and everything.at_ms > narrow.at_ms
        return (True, "") if lifted else (False, narrow.reason)
    return True, ""


def _latest(
    entries: Mapping[SuppressionKey, Suppression], channel: str, topic: str
) -> Suppression | None:
    found = [entry for key, entry in entries.items() if key.plane == channel and key.name == topic]
    return max(found) if found else None
