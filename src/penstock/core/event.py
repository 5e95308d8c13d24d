"""The Segment spec on the wire becomes frozen events: decoding, limits, times, and what is refused.

One bad event never rejects the others of its batch, and no error quotes a value. What a sender may
rely on:

- Nulls, missing objects and fields we do not know are fine; whole numbers as ids become texts.
- Decimal numbers keep their digits (`Literal`) until the catalog types them.
- An event without `messageId` gets one derived from the bytes of its request, so that a retry of
  the same bytes is the same event. Two requests that are equal byte for byte are one event, too:
  who means two sends a `messageId` or a `timestamp`.
- An unreadable `sentAt` only costs the correction of clock skew; an unreadable `timestamp` is an
  error, because the event would land at a wrong instant.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from typing import Any, Final, NamedTuple, cast

import msgspec
from msgspec.structs import force_setattr

from penstock.core.errors import EventRejected
from penstock.core.json_faults import (
    check_text,
    decode_loosely,
    shown_path,
    split_batch,
    syntax_fault,
)
from penstock.core.literal import Literal
from penstock.core.time import MINUTE_MS, SECOND_MS, parse_instant

TYPES: Final = ("identify", "track", "page", "screen", "group", "alias")
MESSAGE_ID_CHARS_MAX: Final = 100
IDENTIFIER_CHARS_MAX: Final = 512
EVENT_NAME_CHARS_MAX: Final = 200

SKEW_MS_MIN: Final = 30 * SECOND_MS
"""A smaller difference between sending and receiving is delay, not a wrong clock."""
FUTURE_MS_MAX: Final = 5 * MINUTE_MS
"""How far after its reception an event may claim to have happened."""
_YEAR_9999_MS: Final = parse_instant("9999-01-01T00:00:00Z")


class Limits(NamedTuple):
    """How much one request may hold.

    Attributes:
        event_bytes_max: Of one event.
        batch_bytes_max: Of a whole batch, decompressed.
        batch_events_max: Events of a batch; those beyond are rejected one by one, and a batch of
            more than four times as many as a whole.
        depth_max: How deep objects and lists may nest.
        unique_keys: Reject an event that has a key twice in one object. It costs about 3 µs an
            event; without it the last of the two counts.
    """

    event_bytes_max: int = 32 * 1024
    batch_bytes_max: int = 500 * 1024
    batch_events_max: int = 2_500
    depth_max: int = 32
    unique_keys: bool = True


SEGMENT: Final = Limits()
RUDDERSTACK: Final = Limits(batch_bytes_max=4 * 1024 * 1024)


class Event(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """One event of the Segment spec, as it was sent; the catalog has not seen it yet."""

    type: str = ""
    event: str | None = None
    """The event's name, for `track`."""
    name: str | None = None
    """The page's or screen's name."""
    category: str | None = None
    message_id: str = ""
    user_id: str | None = None
    anonymous_id: str | None = None
    group_id: str | None = None
    previous_id: str | None = None
    properties: dict[str, Any] = {}
    traits: dict[str, Any] = {}
    """`traits`, or `context.traits` where an SDK sends them there."""
    context: dict[str, Any] = {}
    timestamp: str | None = None
    original_timestamp: str | None = None
    sent_at: str | None = None


class ExternalId(NamedTuple):
    """An identifier of a person from `context.externalIds`; the id is as it was sent."""

    type: str
    id: Any


@dataclass(frozen=True, slots=True)
class Rejected:
    """An event that was refused: its place in the batch, why, and its bytes for the dead letter."""

    index: int
    message_id: str | None
    error: EventRejected
    raw: bytes


class Decoded(NamedTuple):
    """What a request held: events and rejected ones by their index, and what was beside them."""

    events: list[tuple[int, Event]]
    rejected: list[Rejected]
    bodies: list[bytes]
    """The bytes of every event, by index."""
    type_name: str | None = None
    """The type that the path said, of events whose bytes need not."""
    shared: Mapping[str, Any] | None = None
    """Of a batch: `context` and `sentAt`, for all events that have none of their own."""
    places: Sequence[str] = ()
    """By index, the id of the dead letter of an event that is refused: where it came from. An event that
    has a place leaves a letter in any case, for its sender is never told."""

    def raw(self, index: int) -> bytes:
        """Return the bytes of an event, for the dead letter of one that is refused later."""
        return self.bodies[index]


class _Beside(msgspec.Struct, rename="camel"):
    """What stands beside the events of a batch."""

    sent_at: Any = None
    context: Any = None


class _Batch(_Beside, kw_only=True, rename="camel"):
    batch: list[msgspec.Raw]


class _MessageId(msgspec.Struct, rename="camel"):
    message_id: Any = None


_event_decoder = msgspec.json.Decoder(Event, float_hook=Literal)
_beside_decoder = msgspec.json.Decoder(_Beside, float_hook=Literal)
_batch_decoder = msgspec.json.Decoder(_Batch, float_hook=Literal)
_members_decoder = msgspec.json.Decoder(dict[str, msgspec.Raw])
_message_id_decoder = msgspec.json.Decoder(_MessageId)

_TEXTS: Final = frozenset((
    "type", "event", "name", "category", "messageId", "userId", "anonymousId", "groupId",
    "previousId", "timestamp", "originalTimestamp", "sentAt",
))  # fmt: skip
_OBJECTS: Final = frozenset(("properties", "traits", "context"))
_IDS: Final = frozenset(("messageId", "userId", "anonymousId", "groupId", "previousId"))

_NOTHING_BESIDE: Final = _Beside()

_NOT_AN_EVENT: Final = ("E300", "E301", "E314")
"""Faults that leave no event to keep: a single request with one of them is refused as a whole."""


def decode_single(
    body: bytes, type_name: str | None, limits: Limits, *, source: str = "", message_id: str = ""
) -> Decoded:
    """Return the one event of a request body, or the one that was refused.

    Args:
        body: JSON, decompressed.
        type_name: The event's type if the path says it, such as `track`; else the body's `type`.
        limits: How much the body may hold.
        source: Distinguishes the derived message ids of different sources.
        message_id: For an event that has none; by default it is derived from the body.

    Raises:
        EventRejected: The body is not JSON, not an object, or too big (E300 to E302, E314).
    """
    if len(body) > limits.event_bytes_max:
        raise _too_big(len(body), limits.event_bytes_max)
    try:
        event = _decode_event(body, type_name, limits)
        _settle(event, _NOTHING_BESIDE)
        if not event.message_id:
            given = message_id or f"{_derived_id(source, body)}-0"
            force_setattr(event, "message_id", given)
        _check(event)
    except EventRejected as error:
        if error.code in _NOT_AN_EVENT:
            raise
        refused = Rejected(0, _message_id(body), error, body)
        return Decoded([], [refused], [body], type_name)
    return Decoded([(0, event)], [], [body], type_name)


def decode_batch(
    body: bytes, limits: Limits, *, source: str = "", only: Sequence[int] | None = None
) -> Decoded:
    """Return the events of a batch, and those that were refused, each by itself.

    Args:
        body: JSON, decompressed: an object with a list `batch`; `context` and `sentAt` beside it
            are for all events that have none of their own.
        limits: How much the body may hold.
        source: Distinguishes the derived message ids of different sources.
        only: Places of the events to decode, in their order; None for all.

    Raises:
        EventRejected: The body is not JSON, not an object with `batch`, or too big (E300 to E304,
            E308, E309, E314).
    """
    if len(body) > limits.batch_bytes_max:
        raise _too_big(len(body), limits.batch_bytes_max)
    beside, bodies = _open_batch(body)
    if len(bodies) > 4 * limits.batch_events_max:
        # `[1,1,1,…]` must not become hundreds of thousands of dead letters.
        raise _too_many(limits.batch_events_max)
    events: list[tuple[int, Event]] = []
    rejected: list[Rejected] = []
    derived_id = ""
    for index in range(len(bodies)) if only is None else only:
        raw = bodies[index]
        try:
            if index >= limits.batch_events_max:
                raise _too_many(limits.batch_events_max)
            if len(raw) > limits.event_bytes_max:
                raise _too_big(len(raw), limits.event_bytes_max)
            event = _decode_event(raw, None, limits)
            _settle(event, beside)
            if not event.message_id:
                # Hashed once a batch: it may hold thousands of events without an id.
                derived_id = derived_id or _derived_id(source, body)
                force_setattr(event, "message_id", f"{derived_id}-{index}")
            _check(event)
        except EventRejected as error:
            rejected.append(Rejected(index, _message_id(raw), error, raw))
        else:
            events.append((index, event))
    shared = {"context": beside.context, "sentAt": beside.sent_at}
    return Decoded(events, rejected, bodies, None, shared)


def kept_body(raw: bytes, decoded: Decoded, message_id: str, *, gpc: bool) -> bytes:
    """Return an event's bytes for a dead letter: with all that is needed to take it in by itself.

    That is the type its path said, the batch's `context` (a denial of consent may stand there) and
    `sentAt`, the message id it was given, and `"_gpc": true` if its request carried `Sec-GPC: 1`.
    What the event says itself is kept as it was written. Bytes that are no object are returned.
    """
    try:
        members = _members(raw)
        said = len(members)
        if decoded.type_name is not None:
            members["type"] = _raw(decoded.type_name)
        if message_id and "messageId" not in members:
            members["messageId"] = _raw(message_id)
        shared = decoded.shared or {}
        if type(shared.get("sentAt")) is str and "sentAt" not in members:
            members["sentAt"] = _raw(shared["sentAt"])
        beside = object_or_none(shared.get("context"))
        if beside:
            own = _members(bytes(members.get("context", b"{}")))
            members["context"] = _raw({name: _raw(one) for name, one in beside.items()} | own)
        if gpc:
            members["_gpc"] = _raw(True)
        changed = len(members) > said or beside or decoded.type_name is not None
        return msgspec.json.encode(members) if changed else raw
    except (msgspec.MsgspecError, UnicodeError, RecursionError, TypeError):
        return raw


def _members(raw: bytes) -> dict[str, msgspec.Raw]:
    return _members_decoder.decode(raw)


def _raw(value: Any) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(value, enc_hook=_number))


def _number(value: Any) -> msgspec.Raw:
    # A decimal keeps its digits as they were written.
    return msgspec.Raw(str(value).encode())


def occurred_at_ms(event: Event, received_at_ms: int) -> int:
    """Return when an event happened, corrected for the sender's clock, in ms since 1970 UTC.

    Args:
        event: Any event.
        received_at_ms: When the edge got it.

    Returns:
        `timestamp`, else `originalTimestamp`, else the instant of reception. If sending and
        receiving differ by more than 30 s, the sender's clock is wrong by that difference, and it
        is taken off. Never more than 5 min after the reception, never before 1970.

    Raises:
        EventRejected: `timestamp` or `originalTimestamp` is no instant (E311); an event that came
            through `decode_single` or `decode_batch` has been checked.

    Source: Segment spec, common fields, "timestamps".
    """
    claimed_ms = _claimed_at_ms(event)
    if claimed_ms is None:
        return received_at_ms
    sent_ms = instant_or_none(event.sent_at)
    at_ms = claimed_ms
    if sent_ms is not None and abs(received_at_ms - sent_ms) > SKEW_MS_MIN:
        at_ms = received_at_ms - (sent_ms - claimed_ms)
    return max(0, min(at_ms, received_at_ms + FUTURE_MS_MAX))


def external_ids(event: Event) -> tuple[ExternalId, ...]:
    """Return the identifiers of people in `context.externalIds`, in their order.

    RudderStack's `context.externalId` is read too. Ids of another `collection` than `users`, and
    encoded ones, are left out.

    Raises:
        EventRejected: It is not a list of objects whose `type` is a text (E306).
    """
    key = "externalIds" if "externalIds" in event.context else "externalId"
    listed = event.context.get(key)
    if not listed:
        return ()
    path = f"$.context.{key}"
    if type(listed) is not list:
        raise wrong_type(path, "a list of objects")
    found: list[ExternalId] = []
    for index, entry in enumerate(cast("list[Any]", listed)):
        named = object_or_none(entry)
        if named is None:
            raise wrong_type(f"{path}[{index}]", "an object")
        if type(named.get("type")) is not str:
            raise wrong_type(f"{path}[{index}].type", "a text")
        plain = named.get("encoding") in (None, "", "none")
        if plain and named.get("collection") in (None, "", "users"):
            found.append(ExternalId(named["type"], named.get("id")))
    return tuple(found)


def person_email(event: Event) -> Any:
    """Return the email address of the person, as it was sent in the traits, or None.

    The traits of a `group` event are the group's: there only `context.traits` is asked.
    """
    if event.type != "group" and event.traits.get("email"):
        return event.traits["email"]
    beside = object_or_none(event.context.get("traits"))
    return beside.get("email") if beside else None


def instant_or_none(text: str | None) -> int | None:
    """Return a text's instant in ms since 1970 UTC; None if it is none, or not from 1970 to 9998."""
    if not text or len(text) > 40:
        return None
    return _instant(text)


@lru_cache(maxsize=1024)
def _instant(text: str) -> int | None:
    # All events of a batch have one `sentAt`, and often one `timestamp`.
    try:
        at_ms = parse_instant(text)
    except ValueError:
        return None
    return at_ms if 0 <= at_ms < _YEAR_9999_MS else None


def _decode_event(raw: bytes, type_name: str | None, limits: Limits) -> Event:
    try:
        event = _event_decoder.decode(raw)
    except msgspec.ValidationError as error:
        if str(error).startswith("Integer value out of range"):
            raise syntax_fault(raw, error) from None
        event = _repair(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise syntax_fault(raw, error) from None
    check_text(raw, depth_max=limits.depth_max, unique_keys=limits.unique_keys)
    if type_name is not None:
        force_setattr(event, "type", type_name)
    return event


def _repair(raw: bytes) -> Event:
    """Decode an event that is not typed as it should be: nulls go, numeric ids become texts.

    Raises:
        EventRejected: It is no object (E301), or a field has a type that nothing explains (E306).
    """
    values = decode_loosely(raw)
    if not isinstance(values, dict):
        raise EventRejected("E301", "an event is not a JSON object",
                            fix='send an object such as `{"type": "track", …}`', where="$")  # fmt: skip
    kept: dict[str, Any] = {}
    for name, value in cast("dict[str, Any]", values).items():
        if value is None:
            continue
        one = str(value) if name in _IDS and type(value) is int else value
        if name in _TEXTS and type(one) is not str:
            raise wrong_type(f"$.{name}", "a text")
        if name in _OBJECTS and type(one) is not dict:
            raise wrong_type(f"$.{name}", "an object")
        kept[name] = one
    return msgspec.convert(kept, Event)


def _settle(event: Event, beside: _Beside) -> None:
    """Complete a freshly decoded event, which nobody else holds yet, in place."""
    if event.user_id == "":
        force_setattr(event, "user_id", None)
    if event.anonymous_id == "":
        force_setattr(event, "anonymous_id", None)
    if not event.sent_at and type(beside.sent_at) is str:
        force_setattr(event, "sent_at", beside.sent_at)
    shared = object_or_none(beside.context) if beside.context else None
    if shared:
        force_setattr(event, "context", {**shared, **event.context})
    if not event.traits and event.type != "group" and "traits" in event.context:
        traits = object_or_none(event.context["traits"])
        if traits:
            force_setattr(event, "traits", traits)


def _check(event: Event) -> None:
    """Raise if an event misses what its type needs, or has an id or a name that is too long."""
    if event.type == "track":
        if not event.event:
            raise EventRejected("E312", "a `track` event has no name",
                                fix="send `event`", where="$.event")  # fmt: skip
        if len(event.event) > EVENT_NAME_CHARS_MAX:
            raise _too_long("event", EVENT_NAME_CHARS_MAX)
    elif event.type not in TYPES:
        raise EventRejected("E305", "the event's type is missing or not one of the Segment spec's",
                            fix=f"send one of {', '.join(TYPES)}", where="$.type")  # fmt: skip
    if len(event.message_id) > MESSAGE_ID_CHARS_MAX:
        raise _too_long("messageId", MESSAGE_ID_CHARS_MAX)
    if event.user_id is not None and len(event.user_id) > IDENTIFIER_CHARS_MAX:
        raise _too_long("userId", IDENTIFIER_CHARS_MAX)
    if event.anonymous_id is not None and len(event.anonymous_id) > IDENTIFIER_CHARS_MAX:
        raise _too_long("anonymousId", IDENTIFIER_CHARS_MAX)
    if event.group_id is not None and len(event.group_id) > IDENTIFIER_CHARS_MAX:
        raise _too_long("groupId", IDENTIFIER_CHARS_MAX)
    if event.previous_id is not None and len(event.previous_id) > IDENTIFIER_CHARS_MAX:
        raise _too_long("previousId", IDENTIFIER_CHARS_MAX)
    _claimed_at_ms(event)


def _claimed_at_ms(event: Event) -> int | None:
    text, name = event.timestamp, "timestamp"
    if not text:
        text, name = event.original_timestamp, "originalTimestamp"
    if not text:
        return None
    at_ms = instant_or_none(text)
    if at_ms is None:
        raise EventRejected("E311", f"`{name}` is not an ISO 8601 instant of the years 1970 to 9998",
                            fix="send a text such as `2026-11-25T10:00:00Z`, or leave it out",
                            where=f"$.{name}")  # fmt: skip
    return at_ms


def _open_batch(body: bytes) -> tuple[_Beside, list[bytes]]:
    """Return what stands beside the events, and each event's bytes."""
    try:
        batch = _batch_decoder.decode(body)
    except msgspec.ValidationError as error:
        raise EventRejected("E301", "a batch is not a JSON object with a list `batch`",
                            fix='send an object such as `{"batch": [{"type": "track", …}]}`',
                            where=shown_path(error)) from None  # fmt: skip
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        # One event may hold what no decoder takes; find where events begin and end without one.
        rest, items = split_batch(body, syntax_fault(body, error))
        try:
            return _beside_decoder.decode(rest), items
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as fault:
            raise syntax_fault(rest, fault) from None
    return batch, [bytes(item) for item in batch.batch]


def _derived_id(source: str, body: bytes) -> str:
    digest = blake2b(body, digest_size=16, key=source.encode()[:64])
    return f"body-{digest.hexdigest()}"


def _message_id(raw: bytes) -> str | None:
    """Return the message id of an event that was refused, if it can be read."""
    try:
        found = _message_id_decoder.decode(raw).message_id
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    usable = isinstance(found, str) and 0 < len(found) <= MESSAGE_ID_CHARS_MAX
    return found if usable and found.isprintable() else None


def object_or_none(value: Any) -> dict[str, Any] | None:
    """Return a value that is a JSON object, or None."""
    return cast("dict[str, Any]", value) if type(value) is dict else None


def _too_big(size_bytes: int, bytes_max: int) -> EventRejected:
    return EventRejected("E302", f"{size_bytes} bytes are more than the {bytes_max} that are taken",
                         fix="send less: shorten properties, or split the batch", where="$")  # fmt: skip


def _too_many(events_max: int) -> EventRejected:
    return EventRejected("E303", f"a batch has more than {events_max} events",
                         fix="send fewer events in one batch", where="$.batch")  # fmt: skip


def wrong_type(path: str, expected: str) -> EventRejected:
    """Return the error of a field that is not what the spec says it is (E306)."""
    return EventRejected("E306", f"a field of the Segment spec is not {expected}",
                         fix=f"send {expected} here, or null", where=path)  # fmt: skip


def _too_long(name: str, chars_max: int) -> EventRejected:
    return EventRejected("E310", f"`{name}` is longer than {chars_max} characters",
                         fix="send a shorter one", where=f"$.{name}")  # fmt: skip
