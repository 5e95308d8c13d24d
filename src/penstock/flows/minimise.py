"""A refused event without what the edge would not let into the log, in a form that can go in again.

A dead letter is an event that nobody has accepted, so it keeps less than was sent, and never more
than an accepted event would hold:

- Of the event's own members those of the Segment spec that a record is made of; never its write key.
- Of properties, traits and the items of a list the declared ones, by their protection: `drop` and
  `pseudonym` leave nothing (a replay would make a pseudonym of a pseudonym), `truncate` leaves what
  truncates to the same once more.
- Of the context what says who it is and what they consent to.
- Where something nests that no declaration describes: an empty object, list or text in its place, so
  that a replay by the same definitions is refused for the same reason.
- Of what cannot be read without doubt (no JSON, no object, a key twice): nothing.

What is kept stays as it was written, digit by digit.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Final

import msgspec

from penstock.core.catalog.catalog import Catalog
from penstock.core.catalog.fields import Field
from penstock.core.consent.suppression import PERMISSION_EVENTS, PERMISSION_PROPERTIES
from penstock.core.errors import EventRejected
from penstock.core.event import RUDDERSTACK
from penstock.core.identity.identifier import ANONYMOUS, CLAIMED_USER, EMAIL, GROUP, USER
from penstock.core.json_faults import check_text
from penstock.core.literal import Literal
from penstock.core.protect import truncated_instant, truncated_text
from penstock.core.time import format_instant, parse_instant

NOTHING: Final = b""
"""What is left of an event that can't be read without doubt; a replay is refused by E300."""

_TEXTS: Final = (
    "type", "event", "messageId", "userId", "anonymousId", "groupId", "previousId", "timestamp",
    "originalTimestamp", "sentAt",
)  # fmt: skip
_IDENTIFIES: Final = {
    "userId": (USER, CLAIMED_USER),
    "previousId": (USER,),
    "anonymousId": (ANONYMOUS,),
    "groupId": (GROUP,),
}
_EXTERNAL: Final = ("id", "type", "encoding", "collection")
_NOTED_BY_EDGE: Final = "_gpc"

_Raws = dict[str, msgspec.Raw]

_members = msgspec.json.Decoder(_Raws).decode
_items = msgspec.json.Decoder(list[msgspec.Raw]).decode
_value = msgspec.json.Decoder(float_hook=Literal).decode
_encode = msgspec.json.Encoder().encode

_OBJECT: Final = msgspec.Raw(b"{}")
_LIST: Final = msgspec.Raw(b"[]")
_TEXT: Final = msgspec.Raw(b'""')


def minimised(body: bytes, catalog: Catalog, *, bare: bool = False) -> bytes:
    """Return a refused event's bytes as a dead letter keeps them.

    Args:
        body: JSON, completed with what stood beside the event in its request.
        catalog: What is declared now; of anything else nothing is kept.
        bare: Consent permits nothing but the word about permission itself.
    """
    try:
        members = _members(body)
        check_text(body, depth_max=RUDDERSTACK.depth_max, unique_keys=True)
        return _encode(_event(members, catalog, bare=bare))
    except (msgspec.MsgspecError, UnicodeError, RecursionError, EventRejected):
        return NOTHING


def _event(members: _Raws, catalog: Catalog, *, bare: bool) -> _Raws:
    guarded = {name for name, one in catalog.traits.items() if one.privacy.protection != "plain"}
    kept = {name: _plain(members[name]) for name in _TEXTS
            if name in members and guarded.isdisjoint(_IDENTIFIES.get(name, ()))}  # fmt: skip
    type_name, name = _text(kept.get("type")), _text(kept.get("event"))
    declared = catalog.event_types.get(name if type_name == "track" else type_name)
    fields = declared.fields if declared is not None and not bare else {}
    if type_name in ("page", "screen"):
        # Server SDKs send a page's name and category beside the properties.
        beside = {one: members[one] for one in ("name", "category") if one in members}
        kept |= _declared(beside, fields)
    spoken = PERMISSION_PROPERTIES if name in PERMISSION_EVENTS else ()
    traits = _traits_of(type_name, catalog, bare=bare)
    if "properties" in members:
        kept["properties"] = _object(
            members["properties"], lambda one: _declared(one, fields, spoken)
        )
    if "traits" in members:
        kept["traits"] = _object(members["traits"], traits)
    if "context" in members:
        kept["context"] = _object(members["context"], lambda one: _context(one, traits, guarded))
    if members.get(_NOTED_BY_EDGE) == b"true":
        kept[_NOTED_BY_EDGE] = members[_NOTED_BY_EDGE]
    return _as_sent(kept, members)


def _traits_of(type_name: str, catalog: Catalog, *, bare: bool) -> Callable[[_Raws], _Raws]:
    """Return what keeps an event's traits: those that it can set, and the address that it names."""
    fields: Mapping[str, Field] = {}
    if not bare:
        fields = {"identify": catalog.traits, "group": catalog.group_traits}.get(type_name, {})
    email = catalog.traits.get(EMAIL)
    hidden = email is not None and email.privacy.protection != "plain"
    keep_scalars = type_name in ("identify", "group") and catalog.traits_undeclared == "keep"

    def keep(traits: _Raws) -> _Raws:
        kept = _declared(traits, fields)
        for name, one in traits.items():
            named = name == EMAIL and not hidden
            if name not in fields and (named or (keep_scalars and not bare)):
                kept[name] = _plain(one)
        return kept

    return keep


def _declared(values: _Raws, fields: Mapping[str, Field], spoken: Collection[str] = ()) -> _Raws:
    """Return the declared values as protected as they are declared.

    Args:
        values: By name, as they were sent.
        fields: What is declared of them.
        spoken: Names that say which channel and topic is meant; they are kept whatever is declared.
    """
    kept = {name: _plain(values[name]) for name in spoken if name in values}
    for name in _currencies(fields):
        if name in values:
            kept[name] = _currency(values[name])
    for name, field in fields.items():
        if name in values and not field.stamp and field.privacy.protection in ("plain", "truncate"):
            kept[name] = _protected(values[name], field)
    return _as_sent(kept, values)


def _as_sent(kept: _Raws, sent: _Raws) -> _Raws:
    return {name: kept[name] for name in sent if name in kept}


def _currencies(fields: Mapping[str, Field]) -> set[str]:
    """Return the names under which amounts and those of their items look for a currency."""
    parts = [part for field in fields.values() for part in (field, *field.fields)]
    return {part.currency_field for part in parts if part.kind == "money"} - fields.keys()


def _currency(raw: msgspec.Raw) -> msgspec.Raw:
    value = _value(raw)
    return raw if value is None or (isinstance(value, str) and len(value) == 3) else _TEXT


def _protected(raw: msgspec.Raw, field: Field) -> msgspec.Raw:
    if field.kind == "objects":
        parts = {part.name: part for part in field.fields}
        return _list(raw, lambda one: _object(one, lambda item: _declared(item, parts)), _TEXT)
    if field.privacy.protection == "plain":
        return _list(raw, _plain, _plain(raw))
    return _list(raw, lambda one: _truncated(one, field.kind), _truncated(raw, field.kind))


def _truncated(raw: msgspec.Raw, kind: str) -> msgspec.Raw:
    value = _value(raw)
    if value is None or isinstance(value, bool | dict | list):
        return _plain(raw)
    text = str(value)
    if kind == "datetime":
        try:
            return msgspec.Raw(_encode(format_instant(truncated_instant(parse_instant(text)))))
        except (ValueError, OverflowError):
            pass  # no instant: as short as any other text
    return msgspec.Raw(_encode(truncated_again(text)))


def truncated_again(text: str) -> str:
    """Return a text that holds no more than its truncation, and truncates to it once more.

    Laws:
        truncated_text(truncated_again(t)) == truncated_text(t)
    """
    kept = truncated_text(text)
    # An address is its domain, and a domain alone is its first letters; blanks at the end would go.
    forms = (kept, f"@{kept}", f"{kept}…", f"{kept}@@")
    return next((one for one in forms if truncated_text(one) == kept), kept)


def _context(values: _Raws, traits: Callable[[_Raws], _Raws], guarded: set[str]) -> _Raws:
    kept: _Raws = {}
    if "consent" in values:
        kept["consent"] = _object(values["consent"], _consent)
    if "consentManagement" in values:
        kept["consentManagement"] = _object(values["consentManagement"], _consent_lists)
    for name in ("externalIds", "externalId"):
        if name in values:
            kept[name] = _external_ids(values[name], guarded)
    if "traits" in values:
        kept["traits"] = _object(values["traits"], traits)
    return kept


def _consent(values: _Raws) -> _Raws:
    def preferences(said: _Raws) -> _Raws:
        words = (b"true", b"false", b"null", b'"true"', b'"false"')
        return {name: one if bytes(one) in words else _TEXT for name, one in said.items()}

    return {name: _object(values[name], preferences)
            for name in ("categoryPreferences",) if name in values}  # fmt: skip


def _consent_lists(values: _Raws) -> _Raws:
    return {name: _list(values[name], _plain, _plain(values[name]))
            for name in ("allowedConsentIds", "deniedConsentIds") if name in values}  # fmt: skip


def _external_ids(raw: msgspec.Raw, guarded: set[str]) -> msgspec.Raw:
    """Return the identifiers as sent, but for those of a type whose trait is protected."""

    def open_(members: _Raws) -> bool:
        return _text(members.get("type")).strip().lower() not in guarded

    if not _is(raw, b"["):
        return (
            raw if bytes(raw) in (b"null", b"false", b'""', b"0", b"{}") else msgspec.Raw(b'[""]')
        )
    kept: list[msgspec.Raw] = []
    for one in _items(raw):
        if not _is(one, b"{"):
            kept.append(_TEXT)
            continue
        members = _members(one)
        if open_(members):
            named = {name: _plain(members[name]) for name in _EXTERNAL if name in members}
            kept.append(msgspec.Raw(_encode(named)))
    return msgspec.Raw(_encode(kept))


def _object(raw: msgspec.Raw, keep: Callable[[_Raws], _Raws]) -> msgspec.Raw:
    """Return what is kept of an object; of anything else an empty list or text, as wrong as it was."""
    if bytes(raw) == b"null":
        return raw
    if not _is(raw, b"{"):
        return _LIST if _is(raw, b"[") else _TEXT
    return msgspec.Raw(_encode(keep(_members(raw))))


def _list(
    raw: msgspec.Raw, keep: Callable[[msgspec.Raw], msgspec.Raw], otherwise: msgspec.Raw
) -> msgspec.Raw:
    """Return a list with what is kept of each item, or what stands for a value that is no list."""
    if bytes(raw) == b"null":
        return raw
    return msgspec.Raw(_encode([keep(one) for one in _items(raw)])) if _is(raw, b"[") else otherwise


def _plain(raw: msgspec.Raw) -> msgspec.Raw:
    """Return a plain value as it was written, an empty object or list in place of one that nests."""
    return _OBJECT if _is(raw, b"{") else _LIST if _is(raw, b"[") else raw


def _is(raw: msgspec.Raw, opening: bytes) -> bool:
    return bytes(raw).lstrip().startswith(opening)


def _text(raw: msgspec.Raw | None) -> str:
    value = _value(raw) if raw is not None else ""
    return value if isinstance(value, str) else ""
