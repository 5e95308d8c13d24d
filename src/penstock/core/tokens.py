"""Signed, compact, URL-safe tokens: who an address is, what to unsubscribe, which click, which open.

A token is base64url of one format byte, an id of 16 bytes, a MAC of 12 bytes and, for two kinds, a
short name. It says nothing about a person to whoever cannot read the store, and holds for the life
of the mail that carries it: there is no expiry, because a link in a mail of last year must still
unsubscribe. Each kind is signed under its own key, derived from the token key by a label, so that a
token of one kind is never accepted as another.
"""

import base64
import binascii
import hmac
from typing import Final, NamedTuple

from penstock.core.errors import EventRejected
from penstock.core.ids import LEAF_ID_BYTES, LeafId

TOKEN_FORMAT: Final = 1
"""The first byte of every token; version n accepts n-1."""

MAC_BYTES: Final = 12
"""96 bits: a guess succeeds once in 8·10²⁸, and a token stays short."""

TOKEN_CHARS_MAX: Final = 256
"""Longer texts are refused before they are decoded."""

NAME_BYTES_MAX: Final = 128
"""The longest topic or slot name; up to 19 bytes keep a token within 64 characters."""

ALL_TOPICS: Final = "*"
"""The topic that stands for every topic of the channel."""

_EMAIL: Final = b"penstock email token"
_UNSUBSCRIBE: Final = b"penstock unsubscribe token"
_CLICK: Final = b"penstock click token"
_OPEN: Final = b"penstock open token"

_ID_BYTES: Final = LEAF_ID_BYTES
_HEAD_BYTES: Final = 1 + _ID_BYTES
_WEB: Final = ("http://", "https://")


class Unsubscribe(NamedTuple):
    """What an unsubscribe token says: which email leaf, and which topic (`*` for all)."""

    recipient: LeafId
    topic: str


class Click(NamedTuple):
    """What a click token says: the decision it belongs to, and the slot the link was in."""

    decision_id: str
    slot: str
    """Empty for a link outside every slot."""


def email_token(key: bytes, recipient: bytes) -> str:
    """Return the token that stands for an address: 39 characters.

    Args:
        key: The token key, 32 bytes.
        recipient: The email leaf, 16 bytes.
    """
    return _sign(key, _EMAIL, recipient, b"")


def verify_email(key: bytes, token: str) -> LeafId:
    """Return the email leaf of an email token.

    Raises:
        EventRejected: The token is not one (E350), was not signed here (E351), or is newer (E352).
    """
    recipient, _ = _verify(key, _EMAIL, token, b"")
    return LeafId(recipient)


def sign_unsubscribe(key: bytes, recipient: bytes, topic: str = ALL_TOPICS) -> str:
    """Return the token of a one-click unsubscribe link; it names the recipient and the topic.

    Args:
        key: The token key, 32 bytes.
        recipient: The email leaf, 16 bytes.
        topic: A topic, or `*` for all of them; at most 128 bytes of UTF-8.
    """
    return _sign(key, _UNSUBSCRIBE, recipient, topic.encode())


def verify_unsubscribe(key: bytes, token: str) -> Unsubscribe:
    """Return whom and what a token unsubscribes.

    Raises:
        EventRejected: The token is not one (E350), was not signed here (E351), or is newer (E352).
    """
    recipient, topic = _verify(key, _UNSUBSCRIBE, token, b"")
    return Unsubscribe(LeafId(recipient), topic.decode())


def sign_click(key: bytes, decision_id: str, url: str, slot: str = "") -> str:
    """Return the token of one link; the target is signed with it, so it opens no other page.

    Args:
        key: The token key, 32 bytes.
        decision_id: The decision's id: 16 bytes as 32 hexadecimal digits.
        url: The target, `http` or `https`, exactly as it is given back to `verify_click`.
        slot: The slot that holds the link; empty outside slots. At most 128 bytes of UTF-8.
    """
    assert is_web_url(url), "only http and https links are tracked"
    return _sign(key, _CLICK, _decision_bytes(decision_id), slot.encode(), url.encode())


def verify_click(key: bytes, token: str, url: str) -> Click:
    """Return the decision and slot of a click, if the token was made for this very target.

    Raises:
        EventRejected: The token is not one (E350), was not signed here for this target (E351), is
            newer (E352), or the target is no web address (E353).
    """
    if not is_web_url(url):
        raise EventRejected(
            "E353", "a click's target is not an http or https address",
            fix="follow the link as it stands in the email",
        )  # fmt: skip
    decision, slot = _verify(key, _CLICK, token, url.encode("utf-8", "surrogatepass"))
    return Click(decision.hex(), slot.decode())


def sign_open(key: bytes, decision_id: str) -> str:
    """Return the token of an open pixel: 39 characters; `decision_id` as in `sign_click`."""
    return _sign(key, _OPEN, _decision_bytes(decision_id), b"")


def verify_open(key: bytes, token: str) -> str:
    """Return the decision id of an open pixel's token.

    Raises:
        EventRejected: The token is not one (E350), was not signed here (E351), or is newer (E352).
    """
    decision, _ = _verify(key, _OPEN, token, b"")
    return decision.hex()


def is_web_url(url: str) -> bool:
    """Return whether a text may be a link's target: http or https, without blanks or controls."""
    return url.lower().startswith(_WEB) and not any(char <= " " or char == "\x7f" for char in url)


def _decision_bytes(decision_id: str) -> bytes:
    raw = bytes.fromhex(decision_id)
    assert len(raw) == _ID_BYTES, "a decision id is 16 bytes as hexadecimal digits"
    assert raw.hex() == decision_id, "a decision id is written in lower case"
    return raw


def _mac(key: bytes, label: bytes, head: bytes, name: bytes, extra: bytes) -> bytes:
    subkey = hmac.digest(key, label, "sha256")
    # Each part after the fixed-size head is preceded by its length: no two inputs look alike.
    message = b"".join((head, len(name).to_bytes(2, "big"), name, extra))
    return hmac.digest(subkey, message, "sha256")[:MAC_BYTES]


def _sign(key: bytes, label: bytes, identity: bytes, name: bytes, extra: bytes = b"") -> str:
    assert len(identity) == _ID_BYTES, "an id in a token has 16 bytes"
    assert len(name) <= NAME_BYTES_MAX, "a topic or slot in a token has at most 128 bytes"
    head = bytes((TOKEN_FORMAT,)) + identity
    raw = head + _mac(key, label, head, name, extra) + name
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _verify(key: bytes, label: bytes, token: str, extra: bytes) -> tuple[bytes, bytes]:
    raw = _decode(token)
    head, mac, name = (
        raw[:_HEAD_BYTES],
        raw[_HEAD_BYTES:][:MAC_BYTES],
        raw[_HEAD_BYTES + MAC_BYTES :],
    )
    if head[0] > TOKEN_FORMAT:
        raise EventRejected(
            "E352", "a token was made by a newer version", fix="upgrade Penstock on this server"
        )
    if not hmac.compare_digest(mac, _mac(key, label, head, name, extra)):
        raise EventRejected(
            "E351", "a token was not signed by this installation for this use",
            fix="use the link as it stands in the email; if keys were lost, restore them",
        )  # fmt: skip
    return head[1:], name


def _decode(token: str) -> bytes:
    raw = b""
    if len(token) <= TOKEN_CHARS_MAX and token.isascii():
        try:
            raw = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
        except (binascii.Error, ValueError):
            raw = b""
    # One token has one spelling: what does not encode back was altered (unused bits, stray signs).
    spelling = base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
    if len(raw) < _HEAD_BYTES + MAC_BYTES or spelling != token:
        raise EventRejected(
            "E350", "a token is cut short or altered",
            fix="use the whole link as it stands in the email",
        )  # fmt: skip
    return raw
