"""What the edge does to a value before it is logged: drop, truncate, pseudonym or plain.

A protection is applied once, before the log, and its result is carried verbatim after that.

    drop       nothing is kept
    truncate   an IPv4 address keeps 24 bits, an IPv6 address 48; an email address its domain; any
               other text its first 3 characters; an instant its month
    pseudonym  a keyed hash: equal values stay equal, and nobody without the key gets them back
    plain      the value itself
"""

import hmac
from base64 import urlsafe_b64encode
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import Any, Final

from penstock.core.errors import DefinitionError
from penstock.core.time import EPOCH

PSEUDONYM_BYTES: Final = 16
PSEUDONYM_KEY_BYTES_MIN: Final = 16
PSEUDONYMS_MAX: Final = 50_000
TEXT_CHARS_KEPT: Final = 3
"""How much of a text `truncate` keeps: the area of most postal codes, the start of a name."""

Protect = Callable[[Any], Any]


class Protector:
    """Applies protections under one project's pseudonym key.

    Args:
        pseudonym_key: 16 bytes or more, secret, made at `init`. Another key gives other pseudonyms.
    """

    __slots__ = ("_key", "_remembered")

    def __init__(self, pseudonym_key: bytes) -> None:
        assert len(pseudonym_key) >= PSEUDONYM_KEY_BYTES_MIN, "a pseudonym key has 16 bytes or more"
        self._key = pseudonym_key
        # A device sends its id with every event. Typed: True, 1 and 1.0 are one key but three values.
        self._remembered = lru_cache(PSEUDONYMS_MAX, typed=True)(self.pseudonym)

    @property
    def key(self) -> bytes:
        """The key of pseudonyms, for whoever makes them beside this."""
        return self._key

    def apply(self, protection: str, value: Any, path: str, *, kind: str = "string") -> Any:
        """Return a normalised value as it is kept; None for `drop`.

        Args:
            protection: `plain`, `truncate`, `pseudonym` or `drop`.
            value: A value as the catalog normalises it: a datetime is milliseconds.
            path: Where it comes from, for the error.
            kind: The field's kind; `truncate` of a `datetime` keeps the month.

        Raises:
            DefinitionError: The protection does not exist (E104, E105).
        """
        return self.function(protection, kind, path)(value)

    def function(self, protection: str, kind: str, path: str) -> Protect:
        """Return a protection as a function of a normalised value, for the hot path.

        Raises:
            DefinitionError: The protection does not exist (E104, E105).
        """
        if protection == "plain":
            return _same
        if protection == "drop":
            return _nothing
        if protection == "truncate":
            one = truncated_instant if kind == "datetime" else truncated_text
        elif protection == "pseudonym":
            one = self._remembered
        elif protection == "encrypt":
            raise DefinitionError("E104", "the protection `encrypt` does not exist yet",
                                  fix="use `pseudonym` or `drop` until it does", where=path)  # fmt: skip
        else:
            raise DefinitionError("E105", f"`{protection}` is not a protection",
                                  fix="use plain, truncate, pseudonym or drop", where=path)  # fmt: skip
        if kind == "strings":
            return lambda values: [one(value) for value in values]
        return one

    def pseudonym(self, value: str | int) -> str:
        """Return a value's pseudonym: HMAC-SHA256 cut to 16 bytes, 22 characters of base64url.

        A number and its digits have the same pseudonym, because SDKs send ids as both.
        """
        digest = hmac.digest(self._key, str(value).encode(), "sha256")[:PSEUDONYM_BYTES]
        return urlsafe_b64encode(digest)[:-2].decode("ascii")


def truncated_text(value: str) -> str:
    """Return a text with what singles out a person cut off; the module's first lines say how."""
    text = value.strip()
    if "@" in text:
        # "a@b@c" is no address, and what follows the last @ may still be personal.
        local, _, domain = text.rpartition("@")
        return domain.lower() if "@" not in local and "." in domain else text[:TEXT_CHARS_KEPT]
    if ":" in text:
        return _truncated_ipv6(text)
    if text.count(".") == 3:
        return _truncated_ipv4(text)
    return text[:TEXT_CHARS_KEPT]


def truncated_instant(value: int) -> int:
    """Return the first millisecond of an instant's month in UTC."""
    moment = EPOCH + timedelta(milliseconds=value)
    month = datetime(moment.year, moment.month, 1, tzinfo=UTC)
    return (month - EPOCH) // timedelta(milliseconds=1)


def _truncated_ipv4(text: str) -> str:
    try:
        kept = int(IPv4Address(text)) & ~0xFF
    except AddressValueError:
        return text[:TEXT_CHARS_KEPT]
    return str(IPv4Address(kept))


def _truncated_ipv6(text: str) -> str:
    try:
        address = IPv6Address(text.partition("%")[0])
    except AddressValueError:
        return text[:TEXT_CHARS_KEPT]
    if address.ipv4_mapped is not None:
        return str(IPv4Address(int(address.ipv4_mapped) & ~0xFF))
    return str(IPv6Address(int(address) >> 80 << 80))


def _same(value: Any) -> Any:
    return value


def _nothing(value: Any) -> None:
    return None
