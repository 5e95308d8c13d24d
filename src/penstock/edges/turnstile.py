"""Requests that are not let in and need not be parsed to see it: a refusal that costs as little as it can.

While more arrives than can be taken, whoever is let in pays for those who are not. Parsed and called, a
refusal costs three times what the kernel takes to receive the request and send the answer; here it is a look
at the head, by one pattern, and at the body, for what is never refused. That is enough for a request whose
framing is plain: one length, no coding, no continuation, no other wish about the connection. Any other is the
parser's, and so is everything behind it on the connection.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final, NamedTuple

from penstock.edges.asgi import Answer
from penstock.edges.route import Request, Route

LINE_END: Final = b" HTTP/1.1\r\n"
TARGET_BYTES_MAX: Final = 64
"""Of method and path; a longer one, or one with a query, is parsed."""

_TELLING = re.compile(
    rb"""\r\n(?:
        content-length:[ \t]*(\d{1,9})(?=[ \t]*\r\n)
      | origin:[ \t]*([^\r\n]*?)(?=[ \t]*\r\n)
      | (content-length | transfer-encoding | content-encoding | expect | upgrade | origin | [ \t]
         | connection:(?![ \t]*keep-alive[ \t]*\r\n))
    )""",
    re.IGNORECASE | re.VERBOSE,
)
"""What framing, coding and an answer depend on: the length, the origin, and whatever asks for the parser."""


class TurnedAway(NamedTuple):
    """The requests at the front of some bytes that are answered already."""

    answers: list[Answer]
    size: int
    """Of their bytes."""


class Turnstile:
    """Stands before the parser of every connection.

    Args:
        routes: The hot routes; those that shed nothing are never looked at here.
    """

    def __init__(self, routes: Iterable[Route]) -> None:
        self._routes = {
            f"{route.method} {route.fixed}".encode(): route
            for route in routes
            if route.shed is not None and not route.parameter
        }

    def turn_away(self, data: bytes) -> TurnedAway | None:
        """Return the answers to requests at the front that are not let in; None if the first must be parsed.

        Args:
            data: What a connection sent while nothing of it was being read or worked on.
        """
        answers: list[Answer] = []
        start = 0
        while start < len(data):
            line = data.find(LINE_END, start, start + TARGET_BYTES_MAX)
            route = self._routes.get(data[start:line]) if line > 0 else None
            if route is None or route.shed is None or not route.shed.pressed():
                break
            split = data.find(b"\r\n\r\n", line)
            if split < 0:
                break
            request, end = _framed(data, line + len(LINE_END) - 2, split + 2)
            if request is None or end > len(data) or len(request.body) > route.body_bytes_max:
                break
            answer = route.turned_away(request)
            if answer is None:
                break
            answers.append(answer)
            start = end
        return TurnedAway(answers, start) if answers else None


def _framed(data: bytes, start: int, split: int) -> tuple[Request | None, int]:
    """Return a request with its body and of its headers the origin, and where it ends; None if it is to be parsed.

    Args:
        data: Where it is in.
        start: Of the line end before its headers.
        split: Behind the line end after the last.
    """
    head = data[start:split]
    length = -1
    headers: dict[bytes, bytes] = {}
    for size, origin, odd in _TELLING.findall(head):
        if odd or (size and length >= 0):
            return None, 0
        if size:
            length = int(size)
        else:
            headers[b"origin"] = origin
    if length < 0 or head.count(b"\n") != head.count(b"\r\n"):
        return None, 0
    body = split + 2
    return Request(headers, b"", data[body : body + length]), body + length
