"""What Litestar is told: how a hot route is mounted on it, and what it answers where none of our code did."""

from __future__ import annotations

from typing import Any, TypeAlias

from litestar import Request as _Request
from litestar import Response, get, post
from litestar.exceptions import HTTPException, SerializationException
from litestar.handlers import HTTPRouteHandler

from penstock.core.errors import EventRejected
from penstock.edges.asgi import (
    UNKNOWN,
    Answer,
    Receive,
    Scope,
    error_answer,
    fault_answer,
    not_taken,
    shown_place,
    unknown_field,
)
from penstock.edges.body import read_body, require_length
from penstock.edges.route import Pending, Request, Route

LitestarRequest: TypeAlias = _Request[Any, Any, Any]


async def through(route: Route, scope: Scope, receive: Receive) -> Answer:
    """Return the route's answer to a request that came over ASGI."""
    parameters = scope.get("path_params") or {}
    request = Request(
        dict(scope["headers"]),
        scope["query_string"],
        param=str(parameters.get(route.parameter, "")),
    )
    try:
        require_length(request.headers.get(b"content-length", b""), route.body_bytes_max)
        request.body = await read_body(receive, route.body_bytes_max)
    except EventRejected as error:
        return route.refused(request, error)
    pending = Pending()
    route.begin(request, pending.set)
    return await pending


def mounted(route: Route, **documented: Any) -> HTTPRouteHandler:
    """Return the Litestar handler of a hot route.

    Args:
        route: What it calls.
        documented: What Litestar's `get` and `post` take: `summary`, `tags`, `responses`, `name`,
            `operation_class` (for parameters and bodies that the handler's signature does not show).
    """

    async def answer(request: LitestarRequest) -> Answer:
        return await through(route, request.scope, request.receive)

    path = f"{route.fixed}{{{route.parameter}:str}}" if route.parameter else route.fixed
    if route.method == "GET":
        return get(path, **documented)(answer)
    return post(path, **{"status_code": 200, **documented})(answer)


def refuse_fault(_: Any, error: Exception) -> Response[bytes]:
    """Return the response to an exception that no route caught."""
    return _response(fault_answer(error))


def refuse(request: LitestarRequest, error: HTTPException) -> Response[bytes]:
    """Return the response to what Litestar itself refuses; no value of the request is quoted.

    Args:
        request: The request.
        error: Why it was refused before any of our code saw it.
    """
    return _response(_unknown_field(request, error) or _refusal(error))


class JsonRequest(_Request[Any, Any, Any]):
    """A request whose body may be no UTF-8 within a text, which the decoder tells by another exception."""

    async def json(self) -> Any:
        """Return the body's JSON.

        Raises:
            SerializationException: It is no JSON; answered 400.
        """
        try:
            return await super().json()
        except (UnicodeDecodeError, RecursionError):
            raise SerializationException("the body is no JSON") from None


def _response(answer: Answer) -> Response[bytes]:
    headers = {name.decode(): value.decode() for name, value in answer.headers}
    return Response(answer.body, status_code=answer.status, headers=headers)


def _refusal(error: HTTPException) -> Answer:
    if error.status_code in (404, 405):
        what = EventRejected("E380", "there is no such route, or it takes another method",
                             fix="see docs/reference/http.md for the routes")  # fmt: skip
        return error_answer(what, error.status_code)
    if error.status_code < 500:
        return error_answer(not_taken(_place(error)), 400)
    return fault_answer(error)


def _unknown_field(request: LitestarRequest, error: HTTPException) -> Answer | None:
    """Return the answer to a body that has a field its route does not know; None for anything else."""
    notes = error.extra if isinstance(error.extra, list) else ()
    for note in notes:
        told = UNKNOWN.fullmatch(str(note.get("message"))) if isinstance(note, dict) else None
        if told is None or note.get("key") != "data":
            continue
        kind = request.route_handler.parsed_fn_signature.parameters["data"].annotation
        return error_answer(unknown_field(kind, told[1]), 400)
    return None


def _place(error: HTTPException) -> str:
    """Return the JSON path that a validation names; its message may quote a value, so it is cut."""
    for note in error.extra if isinstance(error.extra, list) else ():
        key = note.get("key") if isinstance(note, dict) else None
        if (place := shown_place(key)) != "$":
            return place
    return "$"
