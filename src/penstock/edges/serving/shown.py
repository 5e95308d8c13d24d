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
    """The parts of a person's JSON that stay: gaps between `before` are for what moves with `as_of`.

    Args:
        recalled: The person.
        token_key: Signs the email token.
    """

    __slots__ = ("after", "before", "whole")

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
        self.before = (*before, piece + b"}" + _tail_of_features(profile, token_key))
        self.whole = self.before[0] if not moving else b""
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


def shown(seen: Seen, token_key: bytes) -> tuple[bytes, bytes]:
    """Return a person's JSON up to `served`, and from `definitions` on.

    Args:
        seen: The person.
        token_key: Signs the email token.
    """
    person = seen.person
    made = person.shown
    if made is None:
        made = person.shown = Shown(person, token_key)
    if made.whole:
        return made.whole, made.after
    pieces: list[bytes] = []
    for before, value in zip(made.before, seen.moved, strict=False):
        pieces.append(before)
        pieces.append(b"%d" % value if value.__class__ is int else _encode(value))
    pieces.append(made.before[-1])
    return b"".join(pieces), made.after


def people_json(look: Look, token_key: bytes) -> list[bytes]:
    """Return each person of a look as the JSON of a `ProfileView`, byte for byte."""
    lines: dict[tuple[bool, int], bytes] = {}
    answers: list[bytes] = []
    for one in look.people:
        if isinstance(one, Unread):
            answers.append(unread_json(one.reason, look.now_ms))
            continue
        start, end = shown(one, token_key)
        if one.stale:
            since_ms = one.person.log_as_of_ms
            line = _freshness("stale", one.stale, one.as_of_ms, since_ms, look.now_ms)
        else:
            key = (one.person.bounded, one.as_of_ms)
            line = lines.get(key, b"")
            if not line:
                served, reason = freshness_of(live=look.live, bounded=one.person.bounded)
                line = lines[key] = _freshness(
                    served, reason, one.as_of_ms, look.log_as_of_ms, look.now_ms
                )
        answers.append(start + line + end)
    return answers


def _freshness(served: str, reason: str, as_of_ms: int, log_as_of_ms: int, now_ms: int) -> bytes:
    text = (
        f',"served":"{served}","reason":"{reason}","as_of":"{instant_text(as_of_ms)}",'
        f'"profile_as_of":"{instant_text(log_as_of_ms)}","age_ms":{max(0, now_ms - log_as_of_ms)}'
    )
    return text.encode()


def unread_json(reason: str, now_ms: int) -> bytes:
    """Return the JSON of a person of whom nothing is at hand: the fallback of a profile."""
    return _encode(unread_view(reason, now_ms))
