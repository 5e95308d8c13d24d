"""A request's body under ASGI: refused by its length, read under a cap and within a time."""

from __future__ import annotations

import asyncio
from typing import NoReturn

from penstock.core.errors import EventRejected
from penstock.edges.asgi import Receive

READ_S_MAX = 30
"""A request that takes longer to arrive is given up, so that slow senders hold nothing for long."""


def require_length(headers_length: bytes, bytes_max: int) -> None:
    """Refuse a body by its Content-Length, before any of it is read.

    Raises:
        EventRejected: It is larger than the route takes (E372).
    """
    if headers_length.isdigit() and int(headers_length) > bytes_max:
        too_large(bytes_max)


async def read_body(receive: Receive, bytes_max: int, read_s_max: float = READ_S_MAX) -> bytes:
    """Return the body as sent, at most `bytes_max` bytes of it ever in memory.

    Raises:
        EventRejected: It is larger (E372), or did not arrive whole in time (E377).
    """
    try:
        async with asyncio.timeout(read_s_max):
            return await _read(receive, bytes_max)
    except TimeoutError:
        raise too_late(read_s_max) from None


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
            too_large(bytes_max)
        if not message.get("more_body"):
            return b"".join((*chunks, chunk)) if chunks else chunk
        chunks.append(chunk)


def too_late(seconds: float) -> EventRejected:
    """Return the refusal of a request that does not arrive."""
    return EventRejected("E377", f"the request did not arrive whole within {seconds:g} s",
                         fix="send smaller batches, or look at the network", where="$")  # fmt: skip


def too_large(bytes_max: int) -> NoReturn:
    """Refuse a body.

    Raises:
        EventRejected: Always (E372).
    """
    raise EventRejected("E372", f"the body is larger than {bytes_max} bytes",
                        fix="send fewer events a batch, and less in each", where="$")  # fmt: skip
