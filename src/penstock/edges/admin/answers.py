"""What the admin API's routes share: how an answer is made and documented, and how a fault is told."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from litestar import Request
from litestar.openapi.datastructures import ResponseSpec

from penstock.core.errors import PenstockError
from penstock.edges.asgi import Answer, ErrorBody, encode_json, error_answer

NDJSON = "application/x-ndjson"

Answering = Callable[[Request[Any, Any, Any], Callable[[], Awaitable[Any]]], Awaitable[Answer]]
"""Makes an answer of some work, counted and logged by its route."""


def documented(
    kind: type[Any], what: str, media_type: str = "application/json"
) -> dict[int, ResponseSpec]:
    """Return the responses of a route for its OpenAPI description."""
    return {
        200: ResponseSpec(kind, description=what, generate_examples=False, media_type=media_type),
        400: ResponseSpec(ErrorBody, description="The request is wrong", generate_examples=False),
        401: ResponseSpec(ErrorBody, description="No admin key", generate_examples=False),
        409: ResponseSpec(
            ErrorBody,
            description="The definitions, or work under way, stand in its way",
            generate_examples=False,
        ),
        503: ResponseSpec(
            ErrorBody,
            description="Nothing is changed; retry after `Retry-After` seconds",
            generate_examples=False,
        ),
    }


def operator_answer(error: PenstockError) -> Answer:
    """Return the answer to an error for whoever runs the engine, who may know of its files."""
    body = ErrorBody(error.code, error.what, error.fix, error.where)
    return error_answer(error)._replace(body=encode_json(body))


def failure(error: PenstockError) -> dict[str, str]:
    """Return an error as a report carries it."""
    return {"code": error.code, "what": error.what, "fix": error.fix, "where": error.where}
