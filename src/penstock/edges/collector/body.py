"""A request's body in plain: inflated under a cap, whatever its headers say."""

from __future__ import annotations

import zlib
from typing import NoReturn

from penstock.core.errors import EventRejected
from penstock.edges.body import too_large

_GZIP_MAGIC = b"\x1f\x8b"
_GZIP = 16 + zlib.MAX_WBITS
_ENCODINGS = frozenset({b"", b"identity", b"gzip", b"x-gzip", b"deflate"})


def inflate(raw: bytes, encoding: bytes, bytes_max: int) -> bytes:
    """Return the body in plain: by its Content-Encoding, then by its first bytes.

    A proxy may have inflated a body and left the header, and an SDK may compress and say nothing.
    JSON begins with neither gzip's nor zlib's first bytes, so the bytes decide.

    Args:
        raw: The body as sent.
        encoding: The value of Content-Encoding; empty if there is none.
        bytes_max: Cap of the plain body; inflating stops there, whatever the body claims.

    Raises:
        EventRejected: The encoding is another (E374), the plain body is larger (E372), or the
            compressed one is damaged or cut short (E373).
    """
    if not encoding and raw[:1] == b"{" and len(raw) <= bytes_max:
        return raw  # nearly every body of one event: neither gzip nor zlib begins so
    if encoding and encoding.strip().lower() not in _ENCODINGS:
        raise EventRejected("E374", "the body has a Content-Encoding that is not read here",
                            fix="send gzip, deflate or no encoding", where="Content-Encoding")  # fmt: skip
    if raw.startswith(_GZIP_MAGIC):
        return _inflate(raw, _GZIP, bytes_max)
    if _starts_as_zlib(raw):
        return _inflate(raw, zlib.MAX_WBITS, bytes_max)
    if encoding.strip().lower() == b"deflate" and raw and not raw.lstrip().startswith((b"{", b"[")):
        return _inflate(raw, -zlib.MAX_WBITS, bytes_max)
    if encoding.strip().lower().endswith(b"gzip") and not raw.lstrip().startswith((b"{", b"[")):
        _damaged()
    if len(raw) > bytes_max:
        too_large(bytes_max)
    return raw


def _starts_as_zlib(raw: bytes) -> bool:
    return (
        len(raw) > 1
        and raw[0] & 0x0F == 8
        and raw[0] >> 4 <= 7
        and (raw[0] << 8 | raw[1]) % 31 == 0
    )


def _inflate(raw: bytes, window: int, bytes_max: int) -> bytes:
    plain: list[bytes] = []
    left = bytes_max
    rest = raw
    while True:
        stream = zlib.decompressobj(window)
        try:
            # One byte over the cap is enough to know; nothing beyond it is ever inflated.
            part = stream.decompress(rest, left + 1)
        except zlib.error:
            _damaged()
        left -= len(part)
        if left < 0:
            too_large(bytes_max)
        if not stream.eof:
            _damaged()
        plain.append(part)
        rest = stream.unused_data.lstrip(b"\x00")
        if not rest:
            return plain[0] if len(plain) == 1 else b"".join(plain)
        if window != _GZIP or not rest.startswith(_GZIP_MAGIC):
            _damaged()


def _damaged() -> NoReturn:
    raise EventRejected("E373", "the compressed body is damaged or cut short",
                        fix="send it again; check what stands between the SDK and here", where="$")  # fmt: skip
