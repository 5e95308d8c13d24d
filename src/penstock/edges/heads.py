"""A request that is the one before it but for its target need not be parsed again: an ESP's are, by the thousand.

A mailer asks for each recipient over a few connections, with the same headers. What follows the target is
then byte for byte what the parser has read before, and means the same.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from penstock.edges.limits import Limits

HEADS_MAX = 256
"""Remembered; all are forgotten together beyond that, as where headers differ at every request."""

METHOD = b"GET "
VERSION = b" HTTP/1.1\r\n"

_SAFE = rb"A-Za-z0-9/._~%:@!$&'()*+,;="
_LINE = re.compile(rb"(GET /[%s-]*)(?:\?([%s?-]*))?" % (_SAFE, _SAFE))

_TELLING = frozenset((b"content-length", b"transfer-encoding", b"upgrade", b"expect"))
"""Headers that say how a message ends; one with those is parsed, as one whose connection is to end."""


class Again(NamedTuple):
    """A request that was recognised."""

    key: bytes
    """`GET /path`."""
    query: bytes
    headers: dict[bytes, bytes]
    """Shared with all requests of that head: nobody changes them."""


class Heads:
    """What followed the target of plain GET requests that the parser has read.

    Args:
        limits: Of a head's bytes.
    """

    def __init__(self, limits: Limits) -> None:
        self._bytes_max = limits.head_bytes
        self._known: dict[bytes, dict[bytes, bytes]] = {}

    def find(self, data: bytes) -> Again | None:
        """Return the request that some bytes are; None if they must be parsed.

        Args:
            data: What a connection sent while nothing of it was being read or worked on.
        """
        if len(data) > self._bytes_max or not data.startswith(METHOD):
            return None
        cut = data.find(VERSION)
        headers = self._known.get(data[cut:]) if cut > 0 else None
        if headers is None:
            return None
        line = _LINE.fullmatch(data, 0, cut)
        return None if line is None else Again(line[1], line[2] or b"", headers)

    def learn(self, data: bytes, url: bytes, headers: dict[bytes, bytes]) -> None:
        """Note the head of a request, if what is like it but for its target can be told by it.

        Args:
            data: All that was sent; a request ended with it.
            url: The target of that one, as the parser says.
            headers: As the parser says.
        """
        cut = data.find(VERSION)
        whole = data.endswith(b"\r\n\r\n") and data.find(b"\r\n\r\n") == len(data) - 4
        if (
            not whole
            or data[:cut] != METHOD + url
            or data.count(b"\n") != data.count(b"\r\n")
            or not _TELLING.isdisjoint(headers)
            or headers.get(b"connection", b"keep-alive").lower() != b"keep-alive"
        ):
            return
        if len(self._known) >= HEADS_MAX:
            self._known.clear()
        self._known[data[cut:]] = headers
