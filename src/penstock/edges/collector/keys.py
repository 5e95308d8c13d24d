"""Write keys: how a request proves which source it comes from, and from where a key may be used.

A key that no source has is answered 400, not 401: measured with each SDK, 400 with `code` and
`message` is the one refusal that all of them take as final. @segment/analytics-node 1.3 and 2.3
retry a 401 to exhaustion.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Mapping
from typing import NamedTuple
from urllib.parse import parse_qs

from penstock.core.errors import EventRejected
from penstock.flows.collect import Source, source_of

MASK = "***"
"""Jitsu's SDK puts `keyId:***` into the body: a masked key proves nothing."""


class WriteKey(NamedTuple):
    """A write key and what it stands for."""

    key: str
    source: Source
    browser: bool
    """A public key, that anybody can read in the page's source."""
    origins: frozenset[str] = frozenset()
    """Web origins it may be used from; empty is any."""


def write_key(
    key: str, name: str, kind: str, rank: int = 0, *, basis: Mapping[str, str] | None = None,
    origins: Iterable[str] = (), identity_keys: Mapping[str, str] | None = None,
) -> WriteKey:  # fmt: skip
    """Return a write key of a declared source.

    Args:
        key: The key its SDK is given.
        name: The source's name in `penstock.toml`.
        kind: `browser` or `server`.
        rank: Of two values of a trait the one from the higher rank wins.
        basis: Lawful basis by purpose, where the source's events carry no consent.
        origins: Web origins a browser key may be used from; none is any.
        identity_keys: Keys of signed identity tokens, by `kid`.
    """
    source = source_of(name, kind, rank, basis or {}, identity_keys)
    return WriteKey(
        key, source, kind == "browser", frozenset(origin.rstrip("/") for origin in origins)
    )


class KeyRing:
    """All write keys, found by what a request shows.

    Args:
        keys: The keys of all declared sources.
    """

    def __init__(self, keys: Iterable[WriteKey]) -> None:
        self._by_key = {key.key: key for key in keys if key.key}
        # What nearly every SDK sends, so that the common request needs one look-up and no decoding.
        self._by_authorization: dict[bytes, WriteKey] = {}
        for key in self._by_key.values():
            for text in (f"{key.key}:", key.key):
                encoded = base64.b64encode(text.encode())
                self._by_authorization[b"Basic " + encoded] = key

    def find(self, key: str) -> WriteKey | None:
        """Return the write key of that text, or None."""
        return self._by_key.get(key)

    def of_request(self, headers: Mapping[bytes, bytes], query: bytes) -> WriteKey | None:
        """Return the key that headers or query show; None if the body must be asked.

        In order: Bearer, Basic (with or without a colon), `X-Write-Key`, query `writeKey`. A Bearer
        token that is no write key may be Segment's OAuth, which puts the key elsewhere.

        Raises:
            EventRejected: A key is shown that no source has (E371).
        """
        authorization = headers.get(b"authorization", b"")
        found = self._by_authorization.get(authorization)
        if found is not None:
            return found
        scheme, _, credentials = authorization.partition(b" ")
        scheme = scheme.lower()
        if scheme == b"bearer":
            found = self._by_key.get(_text(credentials.strip()))
            if found is not None:
                return found
        elif scheme == b"basic":
            return self._require(_basic_user(credentials.strip()))
        if b"x-write-key" in headers:
            return self._require(_text(headers[b"x-write-key"].strip()))
        if query and (shown := _query_key(query)):
            return self._require(shown)
        return None

    def of_body(self, shown: object) -> WriteKey:
        """Return the key that a body's `writeKey` shows.

        Raises:
            EventRejected: There is none, it is masked (E370), or no source has it (E371).
        """
        if not isinstance(shown, str) or not shown or MASK in shown:
            raise EventRejected("E370", "the request shows no write key",
                                fix="send it as the user of Basic authentication, as `X-Write-Key`, "
                                "or as `writeKey` in the body", where="$.writeKey")  # fmt: skip
        return self._require(shown)

    def _require(self, shown: str) -> WriteKey:
        found = self._by_key.get(shown)
        if found is None and shown.endswith(":"):
            found = self._by_key.get(shown[:-1])
        if found is None and ":" in shown:
            found = self._by_key.get(shown.partition(":")[0])
        if found is None:
            raise EventRejected("E371", "no source has this write key",
                                fix="copy `write_key` of the source from penstock.toml into the SDK",
                                where="writeKey")  # fmt: skip
        return found


def require_origin(key: WriteKey, origin: bytes) -> None:
    """Refuse a browser key outside the origins it is for.

    Raises:
        EventRejected: The request's origin is not among those of the key (E375).
    """
    if key.origins and _text(origin) not in key.origins:
        raise EventRejected("E375", "this write key may not be used from this web origin",
                            fix=f"add the origin to `sources.{key.source.name}.origins` in penstock.toml, "
                            "scheme and port included", where="Origin")  # fmt: skip


def _text(raw: bytes) -> str:
    return raw.decode("latin-1")


def _basic_user(credentials: bytes) -> str:
    try:
        return base64.b64decode(credentials, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return ""


def _query_key(query: bytes) -> str:
    if b"write" not in query:
        return ""
    fields = parse_qs(_text(query))
    for name in ("writeKey", "writekey"):
        if fields.get(name):
            return fields[name][0]
    return ""
