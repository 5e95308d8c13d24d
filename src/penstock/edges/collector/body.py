"""A request's body: read under a cap, inflated under a cap, whatever its headers say."""

from __future__ import annotations

import asyncio
import zlib
from typing import NoReturn

from penstock.core.errors import EventRejected
from penstock.edges.asgi import Receive

READ_S_MAX = 30
"""A body that takes longer to arrive is given up, so that slow senders cannot hold every place."""

_GZIP_MAGIC = b"\x1f\x8b"
_GZIP = 16 + zlib.MAX_WBITS
_ENCODINGS = frozenset({b"", b"identity", b"gzip", b"x-gzip", b"deflate"})


def require_length(headers_length: bytes, bytes_max: int) -> None:
    """Refuse a body by its Content-Length, before any of it is read.

    Raises:
        EventRejected: It is larger than the route takes (E372).
    """
    if headers_length.isdigit() and int(headers_length) > bytes_max:
        _too_large(bytes_max)


async def read_body(receive: Receive, bytes_max: int, read_s_max: float = READ_S_MAX) -> bytes:
    """Return the body as sent, at most `bytes_max` bytes of it ever in memory.

    Raises:
        EventRejected: It is larger (E372), or did not arrive whole in time (E377).
    """
    try:
        async with asyncio.timeout(read_s_max):
            return await _read(receive, bytes_max)
    except TimeoutError:
        raise EventRejected("E377", f"the body did not arrive within {read_s_max:g} s",
                            fix="send smaller batches, or look at the network", where="$") from None  # fmt: skip


async def _read(receive: Receive, bytes_max: int) -> bytes:
    chunks: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise EventRejected("E377", "the client went away before the body was complete",
                                fix="send the request again", where="$")  # fmt: skip
        chunk = message.get("body", b"")
        size += len(chunk)
        if size > bytes_max:
            _too_large(bytes_max)
        if not message.get("more_body"):
            return b"".join((*chunks, chunk)) if chunks else chunk
        chunks.append(chunk)


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
        _too_large(bytes_max)
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
            _too_large(bytes_max)
        if not stream.eof:
            _damaged()
        plain.append(part)
        rest = stream.unused_data.lstrip(b"\x00")
        if not rest:
            return plain[0] if len(plain) == 1 else b"".join(plain)
        if window != _GZIP or not rest.startswith(_GZIP_MAGIC):
            _damaged()


def _too_large(bytes_max: int) -> NoReturn:
    raise EventRejected("E372", f"the body is larger than {bytes_max} bytes",
                        fix="send fewer events a batch, and less in each", where="$")  # fmt: skip


def _damaged() -> NoReturn:
    raise EventRejected("E373", "the compressed body is damaged or cut short",
                        fix="send it again; check what stands between the SDK and here", where="$")  # fmt: skip
