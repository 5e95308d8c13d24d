"""A request's body in plain: inflated under a cap, whatever its headers say.

What a body will be is asked before it is inflated (`plain_bytes_of`): gzip says it in its last four bytes,
and deflate makes no more than a thousand of one byte. Real events shrink to a tenth; beyond a hundredth, what
was sent is made to cost time. Apache's limit is 200 (mod_deflate, DeflateInflateRatioLimit).

Sources: RFC 1952 §2.3.1 (ISIZE).
"""

from __future__ import annotations

import zlib
from typing import NoReturn

from penstock.core.errors import EventRejected
from penstock.edges.body import too_large

RATIO_MAX = 100
"""A body is inflated to at most so many times its size."""

DEFLATE_MAX = 1_032
"""No byte of deflate makes more: two bits are a copy of 258."""

FREE_BYTES = 64 * 1024
"""Whatever its size, a body may be inflated to so many bytes."""

_JSON_STARTS = (b"{", b"[")
_GZIP_MAGIC = b"\x1f\x8b"
_GZIP = 16 + zlib.MAX_WBITS
_ENCODINGS = frozenset({b"", b"identity", b"gzip", b"x-gzip", b"deflate"})


def plain_bytes_of(raw: bytes, encoding: bytes, bytes_max: int) -> int:
    """Return how many bytes to set aside for the plain body: what it says, or the most that it can be.

    Raises:
        EventRejected: It says that it is larger than is taken (E372), or than it can be (E373).
    """
    if not is_packed(raw, encoding):
        return len(raw)
    most = _most(raw, bytes_max)
    if not raw.startswith(_GZIP_MAGIC):
        return most
    said = int.from_bytes(raw[-4:], "little")
    if said > DEFLATE_MAX * len(raw):
        _damaged()
    if said > most:
        too_large(most)
    # Less than was sent: of several members, or followed by padding, or a lie.
    return said if said >= len(raw) else most


def is_packed(raw: bytes, encoding: bytes) -> bool:
    """Return whether `inflate` would inflate it; an encoding that is not read counts as none."""
    if raw[:1] in _JSON_STARTS:
        return False  # as nearly always: neither gzip nor zlib begins so
    if raw.startswith(_GZIP_MAGIC) or _starts_as_zlib(raw):
        return True
    is_json = raw.lstrip().startswith((b"{", b"["))
    return bool(raw) and not is_json and encoding.strip().lower() == b"deflate"


def _most(raw: bytes, bytes_max: int) -> int:
    return min(bytes_max, max(FREE_BYTES, RATIO_MAX * len(raw)))


def inflate(raw: bytes, encoding: bytes, bytes_max: int) -> bytes:
    """Return the body in plain: by its Content-Encoding, then by its first bytes.

    A proxy may have inflated a body and left the header, and an SDK may compress and say nothing.
    JSON begins with neither gzip's nor zlib's first bytes, so the bytes decide.

    Args:
        raw: The body as sent.
        encoding: The value of Content-Encoding; empty if there is none.
        bytes_max: Cap of the plain body; inflating stops there, or at a hundred times what was sent,
            whatever the body claims.

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
    left = most = _most(raw, bytes_max)
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
            too_large(most)
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
