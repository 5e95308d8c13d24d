"""A remembered person as JSON: encoded once, with gaps for what moves; the bytes of `ProfileView`."""

from __future__ import annotations

from functools import lru_cache

import msgspec

from penstock.core import tokens
from penstock.core.profile import Profile
from penstock.core.time import format_instant
from penstock.edges.serving.views import complete_since, freshness_of, unread_view
from penstock.flows.recall import Look, Recalled, Seen, Unread

_encode = msgspec.json.Encoder().encode

# The last few instants: in a busy millisecond many answers share one.
instant_text = lru_cache(maxsize=64)(format_instant)


class Shown:
    """The parts of a person's JSON that stay: after each of `before` stands what moves with `as_of`.

    After `last` stands how fresh it all is, then comes `after`.

    Args:
        recalled: The person.
        token_key: Signs the email token.
    """

    __slots__ = ("after", "before", "last")

    def __init__(self, recalled: Recalled, token_key: bytes) -> None:
        profile = recalled.profile
        moving = {name for name, _ in recalled.moving}
        before: list[bytes] = []
        piece = b'{"found":%s,"features":{' % (b"true" if recalled.found else b"false")
        for place, (name, value) in enumerate(profile.features.items()):
            piece += (b"," if place else b"") + _encode(name) + b":"
            if name in moving:
                before.append(piece)
                piece = b""
            else:
                piece += _encode(value)
        self.before = tuple(before)
        self.last = piece + b"}" + _tail_of_features(profile, token_key)
        late = complete_since(profile)
        self.after = b',"definitions":%s,"withheld":%s%s}' % (
            _encode(profile.definitions), _encode(list(profile.withheld)),
            b',"complete_since":' + _encode(late) if late else b"",
        )  # fmt: skip


def _tail_of_features(profile: Profile, token_key: bytes) -> bytes:
    token = tokens.email_token(token_key, profile.email_leaf) if profile.email_leaf else ""
    parts = {
        "traits": profile.traits,
        "consent": profile.consent,
        "permitted": sorted(profile.permitted),
        "identifiers": profile.identifiers,
        "email_token": token,
    }
    return b"".join(b',"%s":%s' % (name.encode(), _encode(value)) for name, value in parts.items())


def shown(seen: Seen, token_key: bytes) -> Shown:
    """Return what is made of a person once, and kept with them.

    Args:
        seen: The person.
        token_key: Signs the email token.
    """
    person = seen.person
    made: Shown | None = person.shown
    if made is None:
        made = person.shown = Shown(person, token_key)
    return made


def people_json(look: Look, token_key: bytes) -> bytes:
    """Return the people of a look as JSON, a `ProfileView` each, byte for byte, with commas between."""
    now_ms, line, shared = look.now_ms, b"", (False, -1)
    pieces: list[bytes] = []
    for one in look.people:
        if isinstance(one, Unread):
            pieces += (_unread_json(one.reason, now_ms), b",")
            continue
        person, as_of_ms, moved, stale, then_ms = one
        made: Shown = person.shown or shown(one, token_key)
        if stale:
            shared = (False, -1)
            line = _freshness("stale", stale, as_of_ms, then_ms, now_ms)
        elif shared != (person.bounded, as_of_ms):  # nearly all people of a look share one
            shared = (person.bounded, as_of_ms)
            line = _fresh(look.live, *shared, look.log_as_of_ms, now_ms)
        for before, value in zip(made.before, moved, strict=False):
            pieces += (before, b"%d" % value if value.__class__ is int else _encode(value))
        pieces += (made.last, line, made.after, b",")
    return b"".join(pieces[:-1])


# Of the last few instants: in a busy millisecond many answers share one.
@lru_cache(maxsize=64)
def _fresh(live: bool, bounded: bool, as_of_ms: int, log_as_of_ms: int, now_ms: int) -> bytes:
    served, reason = freshness_of(live=live, bounded=bounded)
    return _freshness(served, reason, as_of_ms, log_as_of_ms, now_ms)


def _freshness(served: str, reason: str, as_of_ms: int, log_as_of_ms: int, now_ms: int) -> bytes:
    text = (
        f',"served":"{served}","reason":"{reason}","as_of":"{instant_text(as_of_ms)}",'
        f'"profile_as_of":"{instant_text(log_as_of_ms)}","age_ms":{max(0, now_ms - log_as_of_ms)}'
    )
    return text.encode()


def _unread_json(reason: str, now_ms: int) -> bytes:
    """Return the JSON of a person of whom nothing is at hand: the fallback of a profile."""
    return _encode(unread_view(reason, now_ms))
