"""What a caller asks: who they are, whom they ask about, and as of when."""

from __future__ import annotations

import hmac
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from difflib import get_close_matches
from operator import attrgetter
from typing import Any
from urllib.parse import unquote

import msgspec

from penstock.core import tokens
from penstock.core.catalog.normalise import OTHER_NAME, shown_name
from penstock.core.errors import EventRejected
from penstock.core.identity.cutting import Named
from penstock.core.identity.identifier import (
    CLAIMED_USER,
    EMAIL,
    ENTITY_TYPES,
    PHONE,
    IdentityRules,
    is_type,
    normalise,
)
from penstock.core.ids import LeafId
from penstock.edges.asgi import UNKNOWN, not_taken, shown_place, unknown_field
from penstock.flows.serve import Who

MakeLeaf = Callable[[str, str], LeafId]

RECIPIENTS_MAX = 1_000
YES = ("true", "1", "yes")
NO = ("false", "0", "no")
"""What a parameter that is on or off may say, in any case."""

HEADERS_MAX = 64
"""Spellings of good `Authorization` headers kept: nobody fills memory with blanks around a key."""


class Recipient(msgspec.Struct, frozen=True):
    """Whom a request is about: exactly one of these.

    Other fields are passed over: one bad recipient must not cost the others their content.
    """

    user_id: str | None = None
    anonymous_id: str | None = None
    email: str | None = None
    email_token: str | None = None


class Lookup(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A profile asked for by what must not stand in a URL."""

    email: str | None = None
    user_id: str | None = None
    anonymous_id: str | None = None
    email_token: str | None = None
    as_of: str | None = None
    known_at: str | None = None
    """An offset of the log or an instant: from what was known then."""


class LookUpMany(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Many people whose profiles are asked for, as of now."""

    people: list[Recipient]


class DecideMany(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Many recipients of one campaign."""

    recipients: list[Recipient]
    send: str | None = None
    preview: bool = False


_decode_people = msgspec.json.Decoder(LookUpMany).decode
_PLACE = re.compile(r"`\$\.(.+)`$")
"""How msgspec tells where in a body a value is not of its type."""


def people_of(body: bytes) -> LookUpMany:
    """Return whom a batch asks about.

    Raises:
        EventRejected: It is no such batch (E397).
    """
    try:
        if not body.isascii():
            body.decode()  # fields that are passed over are not looked at below
        return _decode_people(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise _no_people(body) from None


def _no_people(body: bytes) -> EventRejected:
    """Return the refusal of a body that is no batch: of what is no JSON at all, or of a field."""
    try:
        msgspec.convert(msgspec.json.decode(body), LookUpMany)
    except msgspec.ValidationError as error:
        told = UNKNOWN.fullmatch(str(error))
        if told is not None:
            return unknown_field(LookUpMany, told[1])
        place = _PLACE.search(str(error))
        return not_taken(shown_place(place[1]) if place else "data")
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        pass
    return not_taken("$" if body else "data")


def require_room(count: int, name: str) -> None:
    """Refuse a batch that is too long.

    Raises:
        EventRejected: More than `RECIPIENTS_MAX` are named (E398).
    """
    if count > RECIPIENTS_MAX:
        raise EventRejected("E398", f"more than {RECIPIENTS_MAX} recipients in one request",
                            where=name, fix="split them over several requests")  # fmt: skip


class ReadKeys:
    """The Bearer keys that may read; compared in constant time.

    Args:
        keys: From the settings; none means that nothing is served.
    """

    def __init__(self, keys: Sequence[str]) -> None:
        self._keys = [key.encode() for key in keys if key]
        self._good: set[bytes] = set()
        """Headers that were found good; their hashes are seeded, so time says nothing of the keys."""

    def require(self, headers: Mapping[bytes, bytes]) -> None:
        """Refuse whoever shows no read key.

        Raises:
            EventRejected: No key, or not one of ours (E391); answered 401.
        """
        said = headers.get(b"authorization", b"")
        if said in self._good:
            return
        kind, _, shown = said.partition(b" ")
        found = False
        for key in self._keys:
            found = hmac.compare_digest(key, shown.strip()) or found
        if kind.lower() != b"bearer" or not found:
            shows = kind.lower() == b"bearer" and shown.strip()
            what = (
                "the key that the request shows is no read key of this server"
                if shows
                else "the request shows no read key"
            )
            raise EventRejected("E391", what, where="Authorization",
                                fix="send `Authorization: Bearer KEY`, a key of `server.read_keys`")  # fmt: skip
        if len(self._good) < HEADERS_MAX:
            self._good.add(said)


_NAMES = ("user_id", "anonymous_id", "email", "email_token")
_named = attrgetter(*_NAMES)


def who_of(asked: Any, make_leaf: MakeLeaf, token_key: bytes) -> Who:
    """Return the leaf that a request names.

    Args:
        asked: Anything with `user_id`, `anonymous_id`, `email` and `email_token`, one of them set.
        make_leaf: Makes leaf ids.
        token_key: Verifies an email token.

    Raises:
        EventRejected: None or several are named (E392), the value can be no identifier (E393), or
            the token is not ours (E350 to E352).
    """
    named = [
        (name, value)
        for name, value in zip(_NAMES, _named(asked), strict=True)
        if value is not None
    ]
    if len(named) != 1:
        raise EventRejected("E392", f"the request names {len(named)} identifiers, not one",
                            fix="name one of user_id, anonymous_id, email_token (or email in a POST)")  # fmt: skip
    name, value = named[0]
    if name == "email_token":
        return Who(tokens.verify_email(token_key, value), EMAIL)
    return who(name, value, make_leaf)


def who(id_type: str, value: str, make_leaf: MakeLeaf) -> Who:
    """Return the leaf of an identifier.

    Raises:
        EventRejected: The type is none, or the value can be no identifier of it (E393).
    """
    text = normalise(id_type, value) if is_type(id_type) else None
    if text is None or id_type == CLAIMED_USER or id_type in ENTITY_TYPES:
        raise EventRejected("E393", "this can be no identifier of a person", where=_shown(id_type),
                            fix=_meant(id_type, _NAMES[:2], "name a type such as user_id and a value without blanks around it"))  # fmt: skip
    return Who(make_leaf(id_type, text), id_type)


def named_leaf(id_type: str, value: str, *, make_leaf: MakeLeaf, token_key: bytes) -> Named:
    """Return the leaf of an identifier of any type, also of one that only claims to be a user.

    Raises:
        EventRejected: The value can be no identifier of this type (E393), or no token is ours (E350 to
            E352).
    """
    if id_type == "email_token":
        return Named(tokens.verify_email(token_key, value), EMAIL)
    text = normalise(id_type, value)
    if id_type == CLAIMED_USER and text is not None:
        return Named(make_leaf(id_type, text), id_type)
    return Named(*who(id_type, value, make_leaf))


def require_parameters(said: Mapping[str, str], known: Collection[str]) -> None:
    """Refuse a parameter that a route does not take: a misspelt one would name nobody, for everybody.

    Raises:
        EventRejected: An email address stands in a URL (E395), or it is none of the route's (E397).
    """
    for name in said:
        if name in known:
            continue
        if name == EMAIL:
            raise EventRejected("E395", "an email address does not go into a URL, which logs keep", where=name,
                                fix="name its `email_token`, or POST the address")  # fmt: skip
        plain = shown_name(name)
        shown = "a parameter" if plain == OTHER_NAME else f"the parameter `{plain}`"
        raise EventRejected("E397", f"this route does not take {shown}", where="query",
                            fix=_meant(plain, known, f"use only {', '.join(known)}"))  # fmt: skip


def says_yes(text: str | None, name: str) -> bool:
    """Return what a parameter says that is on or off; off where it is not named.

    A word that is neither is no answer: read as no, `preview=on` would decide for good.

    Raises:
        EventRejected: It is none of the words for yes and no (E397).
    """
    if text is None:
        return False
    word = text.lower()
    if word not in YES and word not in NO:
        raise EventRejected("E397", f"`{name}` says neither yes nor no", where=name,
                            fix=f"write {', '.join(YES)} for yes, or {', '.join(NO)} for no, which it is without one")  # fmt: skip
    return word in YES


def require_type(id_type: str, rules: IdentityRules) -> None:
    """Refuse a type of which nothing is known, for somebody of whom nothing is known.

    Raises:
        EventRejected: The type is neither one that every project has nor one of `identity.limits` (E393).
    """
    if id_type in rules.types or id_type == PHONE:
        return
    known = [name for name in (*rules.types, PHONE) if name not in (EMAIL, CLAIMED_USER)]
    raise EventRejected("E393", f"nobody is known by an identifier of type `{_shown(id_type)}`", where="path",
                        fix=_meant(id_type, known, "give types that your own events send a limit in `identity.limits`"))  # fmt: skip


def _meant(name: str, known: Collection[str], otherwise: str) -> str:
    near = get_close_matches(name, list(known), 1)
    return f"did you mean `{near[0]}`? Or {otherwise}" if near else otherwise


def last_segment(scope: Mapping[str, Any], before: str, decoded: str) -> str:
    """Return what follows a route's fixed part in a path, as it was sent and decoded once.

    Frameworks decode a path first and normalise it after: `a%2F%2Fb` arrives as `a/b`.

    Args:
        scope: The ASGI scope; its `raw_path` is optional.
        before: The fixed part, such as `/v1/profiles/`.
        decoded: The framework's own reading, for servers that keep no raw path.
    """
    raw: bytes = scope.get("raw_path") or b""
    _, found, segment = raw.partition(b"?")[0].decode("latin-1").partition(before)
    return unquote(segment) if found else decoded.removeprefix("/")


def path_identifier(text: str) -> tuple[str, str]:
    """Return (type, value) of a path's `type:value`.

    Raises:
        EventRejected: It has no colon (E394), or names an email, which never goes into a URL (E395).
    """
    id_type, colon, value = text.partition(":")
    if not colon or not value:
        raise EventRejected("E394", "the path names no identifier", where="path",
                            fix="write it as user_id:VALUE or anonymous_id:VALUE")  # fmt: skip
    if id_type == EMAIL:
        raise EventRejected("E395", "an email address does not go into a URL, which logs keep",
                            where="path", fix='POST {"email": …} to /v1/profiles/lookup')  # fmt: skip
    return id_type, value


def _shown(id_type: str) -> str:
    return id_type if is_type(id_type) else "type"
