"""Signed identity tokens: a shop's own server vouches for the user id that its page sends.

A token is a JWT (RFC 7519) signed with HS256 and a key that the shop's backend shares with Penstock:
header `{"alg": "HS256", "kid": "2026-11"}`, claims `sub` (the user id), `exp` (seconds since 1970)
and, if events carry an address, `email`. It comes in an event's `context.identityToken`, where
every SDK of Segment's kind can put it. No other algorithm is accepted, whatever the header says.

An event is vouched for if all that it says of who it is stands in the token. Anything else, such as a
token that is forged, expired, or another user's, leaves the event what every event under a public
key is: a claim. Nothing is lost by it, and nothing is gained.
"""

import base64
import binascii
import hmac
from collections.abc import Mapping
from typing import Final

import msgspec

MEMBER: Final = "identityToken"
"""Where in an event's context it stands."""

TOKEN_CHARS_MAX: Final = 2_048
KEYS_MAX: Final = 8
KEY_CHARS_MIN: Final = 32
LEEWAY_MS: Final = 60_000
"""Two servers' clocks may differ by this much."""

LIFETIME_MS_MAX: Final = 31 * 86_400_000
"""A token that holds for longer than a month proves too little to be believed."""

VOUCHED: Final = "vouched"


class _Head(msgspec.Struct, frozen=True):
    alg: str = ""
    kid: str = ""


class Claims(msgspec.Struct, frozen=True):
    """What a token says: whose it is, until when, and their address."""

    sub: str
    exp: float
    email: str = ""


_head = msgspec.json.Decoder(_Head)
_claims = msgspec.json.Decoder(Claims)


def read_token(token: object, keys: Mapping[str, str], now_ms: int) -> tuple[Claims | None, str]:
    """Return the claims of a token, or None with the reason: `malformed`, `forged` or `expired`.

    Args:
        token: What stands in the event.
        keys: The keys that hold now, by `kid`: for a rotation the new one beside the old one.
        now_ms: The present instant.
    """
    if not isinstance(token, str) or len(token) > TOKEN_CHARS_MAX or token.count(".") != 2:
        return None, "malformed"
    signed, _, shown = token.rpartition(".")
    head_text, _, claims_text = signed.partition(".")
    try:
        message = signed.encode()  # half a surrogate pair has no bytes
        signature = _decoded(shown)
        head = _head.decode(_decoded(head_text))
    except (ValueError, msgspec.MsgspecError):
        return None, "malformed"
    named = [keys[head.kid]] if head.kid in keys else [] if head.kid else [*keys.values()]
    good = [hmac.compare_digest(signature, hmac.digest(key.encode(), message, "sha256"))
            for key in named]  # fmt: skip
    if head.alg != "HS256" or not any(good):
        return None, "forged"
    try:
        claims = _claims.decode(_decoded(claims_text))
    except (ValueError, msgspec.MsgspecError):
        return None, "malformed"
    left_ms = claims.exp * 1_000 - now_ms
    if not -LEEWAY_MS < left_ms <= LIFETIME_MS_MAX + LEEWAY_MS:
        return None, "expired"
    return claims, VOUCHED


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, UnicodeEncodeError) as error:
        raise ValueError("no base64url") from error
