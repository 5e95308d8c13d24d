"""What every HTTP route shares: an answer that sends itself, errors as JSON, and the access log."""

from __future__ import annotations

import logging
import re
import traceback
from collections.abc import Awaitable, Callable, Mapping
from difflib import get_close_matches
from typing import Any, NamedTuple

import msgspec

from penstock.core.catalog.normalise import OTHER_NAME, shown_name
from penstock.core.errors import (
    Conflict,
    DefinitionError,
    EventRejected,
    Overloaded,
    PenstockError,
    Unavailable,
)
from penstock.core.time import parse_instant

Scope = Mapping[str, Any]
Receive = Callable[[], Awaitable[Mapping[str, Any]]]
Send = Callable[[Mapping[str, Any]], Awaitable[None]]

JSON = (b"content-type", b"application/json")
UNAVAILABLE_RETRY_S = 1
"""What `Retry-After` says on a 503; clients back off on their own after that."""

UNKNOWN = re.compile(r"Object contains unknown field `(.*)`", re.DOTALL)
"""How msgspec tells of a field that a struct does not have."""

access = logging.getLogger("penstock.access")
encode_json = msgspec.json.Encoder().encode


class Answer(NamedTuple):
    """A finished response: status, body and headers. It is an ASGI application that sends itself."""

    status: int
    body: bytes
    headers: tuple[tuple[bytes, bytes], ...] = (JSON,)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the response: one start, one body, so that the server writes once."""
        headers = list(self.headers)
        if self.status != 204:
            headers.append((b"content-length", b"%d" % len(self.body)))
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        await send({"type": "http.response.body", "body": self.body, "more_body": False})


def json_answer(status: int, body: Any, headers: tuple[tuple[bytes, bytes], ...] = ()) -> Answer:
    """Return an answer whose body is JSON."""
    return Answer(status, encode_json(body), (JSON, *headers))


class ErrorBody(msgspec.Struct, frozen=True):
    """Why a request was refused. SDKs look at `code` and `message`; people also at `fix`."""

    code: str
    message: str
    fix: str
    path: str = ""
    success: bool = False
    ok: bool = False


def status_of(error: PenstockError) -> int:
    """Return the HTTP status of an error: what the client is to do next decides it."""
    if isinstance(error, EventRejected):
        return 400
    if isinstance(error, Overloaded):
        return 429
    if isinstance(error, Unavailable):
        return 503
    # Definitions that stand in the way of a good request: it may be repeated once they are mended.
    return 409 if isinstance(error, Conflict | DefinitionError) else 500


def error_answer(error: PenstockError, status: int = 0) -> Answer:
    """Return the answer to an error; 429 and 503 say in whole seconds when to retry.

    The place of what is wrong with a request or a template is named; one on our disk is not.

    Args:
        error: What went wrong; its texts hold no personal value.
        status: The HTTP status, if it is not the usual one of this kind of error.
    """
    path = error.where if isinstance(error, EventRejected | DefinitionError) else ""
    body = ErrorBody(error.code, error.what, error.fix, path)
    if not isinstance(error, Unavailable):
        return json_answer(status or status_of(error), body)
    seconds = error.retry_after_s if isinstance(error, Overloaded) else UNAVAILABLE_RETRY_S
    return json_answer(
        status or status_of(error), body, ((b"retry-after", b"%d" % max(seconds, 1)),)
    )


def instant(text: str, name: str = "as_of") -> int:
    """Return an instant that a request names, ms UTC.

    Args:
        text: ISO 8601; without a zone it is UTC.
        name: The parameter, for the message.

    Raises:
        EventRejected: It is no instant (E396).
    """
    try:
        return parse_instant(text)
    except ValueError:
        raise EventRejected("E396", f"`{name}` is no ISO 8601 instant", where=name,
                            fix="write it like 2026-11-25T10:00:00Z") from None  # fmt: skip


def log_access(method: str, route: str, status: int, took_ms: int) -> None:
    """Write one line of the access log: the route's template, never the path that was asked for."""
    if access.isEnabledFor(logging.INFO):
        access.info("%s %s %d %dms", method, route, status, took_ms)


faults = logging.getLogger("penstock.faults")


def log_fault(error: Exception) -> None:
    """Log where an exception that nobody foresaw was raised; never its message, which may quote a value."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f"{frames[-1].filename}:{frames[-1].lineno}" if frames else "nowhere"
    faults.error("%s at %s", type(error).__name__, place)


def fault_answer(error: Exception) -> Answer:
    """Return the answer to an exception that nobody foresaw: a 503, so that clients retry."""
    log_fault(error)
    return error_answer(Unavailable("E433", "the server failed on this request",
                                    fix="retry; the log of the server says where it failed"))  # fmt: skip


def not_taken(where: str) -> EventRejected:
    """Return the refusal of a request that is not what its route takes.

    Args:
        where: The path of what is wrong with it; `$` for all of it.
    """
    return EventRejected("E397", "the request is not what this route takes", where=where,
                         fix="see docs/reference/http.md for the fields")  # fmt: skip


def unknown_field(kind: type[msgspec.Struct], name: str) -> EventRejected:
    """Return the refusal of a body that has a field its route does not know.

    Args:
        kind: What the route takes.
        name: The field, as sent.
    """
    known = [field.encode_name for field in msgspec.structs.fields(kind)]
    plain = shown_name(name)
    if plain == OTHER_NAME:
        shown, where = "a field of that name", "$"
    else:
        shown, where = f"the field `{plain}`", plain
    near = get_close_matches(plain, known, 1)
    fix = f"use only {', '.join(known)}"
    return EventRejected("E397", f"this route does not take {shown}", where=where,
                         fix=f"did you mean `{near[0]}`? Or {fix}" if near else fix)  # fmt: skip


def shown_place(key: object) -> str:
    """Return a place within a body as a message may name it: a field of its own, or all of it."""
    plain = isinstance(key, str) and len(key) <= 64 and key.replace("_", "").isidentifier()
    return str(key) if plain else "$"
