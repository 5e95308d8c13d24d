"""Records of other producers become events: which record is which event, and where its fields are.

A record is named by its place (topic, partition, offset), and so is the event that is made of it: read
again, it is the same event. Only what is declared is taken over, so that nothing else of a record comes
as far as the edge.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from decimal import Decimal
from difflib import get_close_matches
from hashlib import blake2b
from typing import Any, Final, NamedTuple, cast

import msgspec

from penstock.core.catalog.catalog import Catalog
from penstock.core.catalog.fields import Field
from penstock.core.errors import EventRejected, SettingsError
from penstock.core.event import MESSAGE_ID_CHARS_MAX, TYPES
from penstock.core.literal import Literal
from penstock.core.time import format_instant

SEGMENT_JSON: Final = "segment-json"
PLAIN_JSON: Final = "json"
KINDS: Final = {"json-schema": "JSON", "avro": "AVRO", "protobuf": "PROTOBUF"}
"""The formats that need a registry, as registries name them."""
FORMATS: Final = (SEGMENT_JSON, PLAIN_JSON, *KINDS)

UNITS: Final = {"s": 1_000, "ms": 1, "us": Decimal("0.001"), "ns": Decimal("0.000001")}
"""Milliseconds of each unit that a number may count instants in."""

NAME_CHARS_MAX: Final = 30
PLACE: Final = "connect"
"""How the id of a dead letter begins that tells the place of a record."""
AGAIN: Final = "again"
"""How it ends, of a letter about a record that was parked first."""

_PLACE_PARTS: Final = 6
_FARTHEST_MS: Final = 10**15


class Foreign(NamedTuple):
    """A record as another producer wrote it.

    Attributes:
        topic: Its topic.
        topic_id: Of this topic and no later one of the same name; empty if nobody tells.
        partition: Its partition.
        offset: Its offset.
        at_ms: When it was written, as the record or its broker says, ms since 1970 UTC.
        key: As it was written.
        value: As it was written; None is a tombstone.
        headers: As they were written.
    """

    topic: str
    topic_id: str
    partition: int
    offset: int
    at_ms: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...] = ()


class Place(NamedTuple):
    """Where a record is, and for which connector it was read."""

    connector: str
    topic: str
    topic_id: str
    partition: int
    offset: int


def place_of(connector: str, record: Foreign) -> Place:
    """Return the place of a record."""
    return Place(connector, record.topic, record.topic_id, record.partition, record.offset)


def letter_id_of(place: Place, *, again: bool = False) -> str:
    """Return the id of a dead letter about the record of a place; a topic's name has no slash.

    Laws:
        place_in(letter_id_of(place)) == place
    """
    told = (
        PLACE,
        place.connector,
        place.topic,
        place.topic_id,
        str(place.partition),
        str(place.offset),
    )
    return "/".join((*told, AGAIN) if again else told)


def place_in(letter_id: str) -> Place | None:
    """Return the place that the id of a dead letter tells; None if it tells none."""
    parts = letter_id.split("/")
    if len(parts) == _PLACE_PARTS + 1 and parts[-1] == AGAIN:
        parts.pop()
    if len(parts) != _PLACE_PARTS or parts[0] != PLACE or not all(map(str.isdecimal, parts[4:])):
        return None
    return Place(parts[1], parts[2], parts[3], int(parts[4]), int(parts[5]))


def message_id_of(place: Place) -> str:
    """Return the message id of an event that has none of its own: a function of its record's place.

    Laws:
        Two places have two message ids; one place has one, whenever it is read.
    """
    told = f"{place.connector}:{place.topic_id or place.topic}:{place.partition}:{place.offset}"
    if len(told) <= MESSAGE_ID_CHARS_MAX:
        return told
    topic = blake2b(place.topic.encode(), digest_size=16).hexdigest()
    return f"{place.connector}:{topic}:{place.partition}:{place.offset}"


class EventMapping(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which records are this event, and where in a record its fields are: `[connect.NAME.events.EVENT]`."""

    when: dict[str, str | int | bool | list[str | int]] = {}
    user_id: str = ""
    anonymous_id: str = ""
    email: str = ""
    external_ids: dict[str, str] = {}
    group_id: str = ""
    previous_id: str = ""
    message_id: str = ""
    timestamp: str = ""
    timestamp_unit: str = "ms"
    fields: dict[str, str] = {}
    constants: dict[str, str | int | float | bool] = {}
    consent: dict[str, str] = {}


_IDS: Final = {
    "user_id": "userId", "anonymous_id": "anonymousId", "group_id": "groupId", "previous_id": "previousId",
    "message_id": "messageId",
}  # fmt: skip

_encode = msgspec.json.Encoder(enc_hook=lambda value: msgspec.Raw(str(value).encode())).encode

Mapper = Callable[[Foreign, Any], bytes | None]
"""Return the event that a record is, in the Segment spec; None if it is none that is mapped.

Raises `EventRejected` if a value is not what its field needs (E334).
"""


def compile_mapper(mappings: Mapping[str, EventMapping], catalog: Catalog, where: str) -> Mapper:
    """Return what makes events of records; the first mapping that fits a record counts.

    Args:
        mappings: By the event's name, or by `identify`, `page`, `screen`, `group` or `alias`.
        catalog: What is declared.
        where: The settings they come from, such as `connect.orders`.

    Raises:
        SettingsError: A mapping names what is not declared (E233).
    """
    compiled = [
        _compile(name, one, catalog, f"{where}.events.{name}") for name, one in mappings.items()
    ]

    def to_event(record: Foreign, value: Any) -> bytes | None:
        for one in compiled:
            if one.fits(record, value):
                return _encode(one.event(record, value))
        return None

    return to_event


class _Compiled(NamedTuple):
    """One mapping, with what is declared of its event."""

    mapping: EventMapping
    type: str
    name: str
    taken: tuple[tuple[str, str], ...]
    """Declared names, each with the path of its value."""

    def fits(self, record: Foreign, value: Any) -> bool:
        """Return whether a record is this event."""
        for path, wanted in self.mapping.when.items():
            found = find(record, value, path)
            if found not in wanted if isinstance(wanted, list) else found != wanted:
                return False
        return True

    def event(self, record: Foreign, value: Any) -> dict[str, Any]:
        """Return the event that a record is."""
        mapping = self.mapping
        event: dict[str, Any] = {"type": self.type, "timestamp": _instant(record, value, mapping)}
        if self.type == "track":
            event["event"] = self.name
        for ours, theirs in _IDS.items():
            path: str = getattr(mapping, ours)
            found = find(record, value, path) if path else None
            if found is not None:
                event[theirs] = found
        kept: dict[str, Any] = dict(mapping.constants)
        for name, path in self.taken:
            found = find(record, value, path)
            if found is not None:
                kept[name] = found
        event["traits" if self.type in ("identify", "group") else "properties"] = kept
        context = self._context(record, value)
        if context:
            event["context"] = context
        return event

    def _context(self, record: Foreign, value: Any) -> dict[str, Any]:
        """Return who else it is, and what they consent to."""
        mapping, context = self.mapping, dict[str, Any]()
        email = find(record, value, mapping.email) if mapping.email else None
        if email is not None:
            context["traits"] = {"email": email}
        named = [(kind, find(record, value, path)) for kind, path in mapping.external_ids.items()]
        external = [
            {"type": kind, "id": found, "collection": "users", "encoding": "none"}
            for kind, found in named if found is not None
        ]  # fmt: skip
        if external:
            context["externalIds"] = external
        said = {one: find(record, value, path) for one, path in mapping.consent.items()}
        if said:
            context["consent"] = {"categoryPreferences": said}
        return context


def _compile(name: str, mapping: EventMapping, catalog: Catalog, where: str) -> _Compiled:
    kind = name if name in TYPES and name != "track" else "track"
    fields = _fields_of(name, kind, catalog)
    if fields is None:
        raise _unknown("event", name, catalog.event_types, where, "declare it in events.py")
    known = set(fields) | {one.currency_field for one in fields.values() if one.kind == "money"}
    for one in (*mapping.fields, *mapping.constants):
        if one not in known:
            raise _unknown("field", one, known, where, "declare it, or remove the line")
    if mapping.timestamp_unit not in UNITS:
        raise _unknown(
            "unit", mapping.timestamp_unit, UNITS, where, f"use one of {', '.join(UNITS)}"
        )
    taken = tuple(
        (one, mapping.fields.get(one, one)) for one in sorted(known - set(mapping.constants))
    )
    return _Compiled(mapping, kind, name, taken)


def _fields_of(name: str, kind: str, catalog: Catalog) -> Mapping[str, Field] | None:
    if kind in ("identify", "group"):
        return catalog.traits if kind == "identify" else catalog.group_traits
    declared = catalog.event_types.get(name)
    return {} if kind == "alias" else declared.fields if declared is not None else None


def _unknown(what: str, name: str, known: Any, where: str, otherwise: str) -> SettingsError:
    near = get_close_matches(name, list(known), 1)
    return SettingsError("E233", f"there is no {what} `{name}` that records could be mapped to", where=where,
                         fix=f"did you mean `{near[0]}`? Or {otherwise}" if near else otherwise)  # fmt: skip


def find(record: Foreign, value: Any, path: str) -> Any:
    """Return what is at a path of a record; None if there is nothing.

    A path leads through the value: `customer.id`, `items.0.sku`. `$key` is the record's key, and
    `$key.id` a member of one that is JSON; `$headers.NAME` is a header; `$topic` and `$timestamp` are
    the record's own. A key or a header is read as text.
    """
    if not path.startswith("$"):
        return _walk(value, path)
    root, _, rest = path[1:].partition(".")
    match root:
        case "key":
            return _walk(_members(record.key), rest) if rest else _text(record.key)
        case "headers":
            return next(
                (_text(one) for name, one in reversed(record.headers) if name == rest), None
            )
        case "topic":
            return record.topic
        case "timestamp":
            return record.at_ms
        case _:
            return None


def _walk(value: Any, path: str) -> Any:
    while path:
        if isinstance(value, dict):
            members = cast("dict[str, Any]", value)
            if path in members:  # a name may have dots in it
                return members[path]
            name, _, path = path.partition(".")
            value = members.get(name)
        elif isinstance(value, list):
            items = cast("list[Any]", value)
            name, _, path = path.partition(".")
            value = (
                items[int(name)]
                if name.isdecimal() and len(name) < 6 and int(name) < len(items)
                else None
            )
        else:
            return None
    return value


def _text(raw: bytes | None) -> str | None:
    if raw is None:
        return None
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise EventRejected("E334", "a key or a header of a record is no text", where="$key",
                            fix="map a field of its value instead") from None  # fmt: skip


def _members(raw: bytes | None) -> Any:
    try:
        return msgspec.json.decode(raw or b"null")
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def _instant(record: Foreign, value: Any, mapping: EventMapping) -> str:
    """Return when it happened: as it says itself, else when its record was written."""
    found = find(record, value, mapping.timestamp) if mapping.timestamp else None
    if found is None:
        return _told(max(record.at_ms, 0), "$timestamp")
    number = isinstance(found, int | float | Literal) and not isinstance(found, bool)
    if isinstance(found, str) and not number:
        return found
    if not number:
        raise _no_instant(mapping.timestamp)
    try:
        exact = Decimal(str(found)) * UNITS[mapping.timestamp_unit]
        at_ms = (
            int(exact) if abs(exact) < _FARTHEST_MS else -1
        )  # no instant, and maybe a long number
    except (ArithmeticError, ValueError):
        raise _no_instant(mapping.timestamp) from None
    if at_ms < 0:
        raise _no_instant(mapping.timestamp)
    return _told(at_ms, mapping.timestamp)


def _told(at_ms: int, path: str) -> str:
    try:
        return format_instant(at_ms)
    except OverflowError:
        raise _no_instant(path) from None


def _no_instant(path: str) -> EventRejected:
    return EventRejected("E334", "a record's timestamp is no instant", where=f"$.{path}",
                         fix="map a text as of ISO 8601, or a number and its `timestamp_unit`")  # fmt: skip
