"""The bytes of a whole answer, written at once: heads are rendered once and kept."""

from __future__ import annotations

from collections.abc import Iterable
from http import HTTPStatus

from penstock.edges.asgi import Answer

Headers = Iterable[tuple[bytes, bytes]]

HEADS_MAX = 512
"""Rendered heads of answers kept; origins of pages vary them."""


class Renderer:
    """Renders answers. One for all connections of a server."""

    def __init__(self) -> None:
        self._heads: dict[tuple[int, tuple[tuple[bytes, bytes], ...]], bytes] = {}
        self._defaults: list[tuple[bytes, bytes]] = []
        self._default_head = b"content-length: "

    def render(self, answer: Answer, defaults: list[tuple[bytes, bytes]], *, last: bool) -> bytes:
        """Return the bytes of an answer.

        Args:
            answer: What is said.
            defaults: The headers of every answer; another list whenever they change.
            last: The connection closes after it.
        """
        status, body, headers = answer
        head = self._heads.get((status, headers))
        if head is None:
            head = _head(status, headers)
            if len(self._heads) < HEADS_MAX:
                self._heads[status, headers] = head
        if defaults is not self._defaults:  # uvicorn makes new ones each second
            self._defaults = defaults
            self._default_head = _lines(defaults) + b"content-length: "
        if status == 204:
            end = b"connection: close\r\n\r\n" if last else b"\r\n"
            return head + _lines(defaults) + end
        end = b"%d\r\nconnection: close\r\n\r\n" if last else b"%d\r\n\r\n"
        return b"".join((head, self._default_head, end % len(body), body))


def _head(status: int, headers: Headers) -> bytes:
    return b"HTTP/1.1 %d %s\r\n%s" % (status, HTTPStatus(status).phrase.encode(), _lines(headers))


def _lines(headers: Headers) -> bytes:
    return b"".join(b"%s: %s\r\n" % header for header in headers)
