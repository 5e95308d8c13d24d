"""A connection to a Redis server that says unasked what changes, in one order with its answers."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Sequence
from typing import Any, Final

import hiredis
import redis
from redis.connection import DefaultParser

RECEIVE_BYTES: Final = 1 << 16

_NOTHING: Final = object()


class Stream:
    """A connection on which answers and what the server says unasked come in one order.

    Args:
        connection: Made and greeted; nothing else reads from it.
        changed: Is given the keys that changed, None for all of them.
        timeout_s: How long an answer may take.
    """

    def __init__(
        self, connection: Any, changed: Callable[[list[bytes] | None], None], timeout_s: float
    ) -> None:
        self._connection = connection
        self._socket = connection._sock  # noqa: SLF001 - the client's own reader waits for messages that came in half
        self._changed = changed
        self._timeout_s = timeout_s
        self._reader = hiredis.Reader(
            replyError=DefaultParser.parse_error, protocolError=redis.InvalidResponse, notEnoughData=_NOTHING
        )  # fmt: skip
        self._waits = True

    def send_packed_command(self, packed: Sequence[bytes]) -> None:
        """Send commands."""
        self._socket.settimeout(self._timeout_s)
        self._waits = True
        for one in packed:
            self._socket.sendall(one)

    def read_response(self) -> Any:
        """Return the next answer, once what was said before it is taken in."""
        while (told := self._next()) is _NOTHING:
            self._feed(self._socket.recv(RECEIVE_BYTES))
        if isinstance(told, redis.ResponseError):
            raise told
        return told

    def drain(self) -> bool:
        """Take in what was said until now, waiting for nothing; return whether the connection is still there."""
        if self._waits:
            self._socket.settimeout(0)
            self._waits = False
        try:
            while True:
                self._feed(self._socket.recv(RECEIVE_BYTES))
        except (BlockingIOError, ssl.SSLWantReadError):
            # An answer that nobody had asked for would be taken for the next.
            return self._next() is _NOTHING
        except (redis.RedisError, OSError):
            return False

    def close(self) -> None:
        """End the connection."""
        self._connection.disconnect()

    def _feed(self, data: bytes) -> None:
        if not data:
            raise redis.ConnectionError("it closed the connection")
        self._reader.feed(data)

    def _next(self) -> Any:
        """Return the next answer that is here; `_NOTHING` if none is."""
        while isinstance(told := self._reader.gets(), hiredis.PushNotification):
            if told[0] == b"invalidate":
                self._changed(told[1])
        return told
