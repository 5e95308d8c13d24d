"""What mail clients fetch: the unsubscribe page, the click redirect and the open pixel."""

from __future__ import annotations

import base64
from contextlib import suppress
from typing import Any
from urllib.parse import parse_qs

from litestar import Request as LitestarRequest
from litestar import get, route
from litestar.enums import HttpMethod
from litestar.handlers import HTTPRouteHandler
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import FromPath, FromQuery

from penstock.core.errors import EventRejected, PenstockError
from penstock.core.tokens import ALL_TOPICS
from penstock.edges.asgi import Answer, ErrorBody, log_fault
from penstock.edges.route import Request, Route
from penstock.edges.serving.hot import answered
from penstock.edges.serving.unsubscribing import NO_STORE, button, named, page, standing
from penstock.flows.feedback import Feedback, Fetch, require_url

PIXEL = base64.b64decode("R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7")
"""A transparent GIF of one pixel."""

_NO_LINK = "The link is not one of ours, or was changed"
_MEDIA = {"html": "text/html", "gif": "image/gif", "json": "application/json"}


def mail_handlers(feedback: Feedback, unsubscribing: Route) -> list[HTTPRouteHandler]:
    """Return the routes that links in emails lead to. None needs a key: each link is signed.

    Args:
        feedback: Where opens and clicks go.
        unsubscribing: The hot route.
    """
    return [*_unsubscribe_handlers(feedback, unsubscribing), *_tracking_handlers(feedback)]


def _unsubscribe_handlers(feedback: Feedback, unsubscribing: Route) -> list[HTTPRouteHandler]:
    @get(
        "/v1/unsubscribe/{token:str}",
        summary="Show the unsubscribe page; changes nothing",
        tags=["mail"],
        responses={200: _says("html", "A page with a button"), 400: _says("html", _NO_LINK)},
    )
    async def unsubscribe_page(token: FromPath[str]) -> Answer:
        try:
            wish = feedback.read_unsubscribe(token)
        except EventRejected as error:
            return page(400, "This link does not work", error.fix)
        form = button(token, "Unsubscribe")
        if wish.topic != ALL_TOPICS:
            form += button(feedback.all_topics(wish), "Unsubscribe from all emails")
        asked = f"Do you want to stop getting {named(wish.topic)}?"
        return page(200, "Unsubscribe", f"{asked} {standing(feedback, wish)}", form)

    @route(
        "/v1/unsubscribe/{token:str}", http_method=[HttpMethod.POST], status_code=200, tags=["mail"],
        summary="Unsubscribe with one click (RFC 8058)",
        responses={
            200: _says("html", "Done, and durable"), 400: _says("json", _NO_LINK),
            503: _says("json", "Not durable; retry after `Retry-After` seconds"),
        },
    )  # fmt: skip
    async def unsubscribe(token: FromPath[str]) -> Answer:
        return await answered(unsubscribing, Request({}, param=token))

    return [unsubscribe_page, unsubscribe]


def _tracking_handlers(feedback: Feedback) -> list[HTTPRouteHandler]:
    @route(
        "/c/{token:str}", http_method=[HttpMethod.GET, HttpMethod.HEAD], status_code=302, tags=["mail"],
        summary="Record a click and go to what was shown",
        responses={
            302: ResponseSpec(None, description="To `u`, whether the click could be kept or not"),
            400: _says("html", _NO_LINK),
        },
    )  # fmt: skip
    async def click(
        request: LitestarRequest[Any, Any, Any],
        token: FromPath[str],
        u: FromQuery[str | None] = None,
    ) -> Answer:
        # `u` is for the document: of several the first counts.
        asked = parse_qs(request.scope["query_string"].decode("latin-1")).get("u", [""])[0]
        try:
            url = require_url(asked)
            await feedback.click(token, url, _fetch(request))
        except EventRejected as error:
            return page(400, "This link does not work", error.fix)
        except Exception as error:  # noqa: BLE001 - whatever fails, a person follows the link
            # The signature held: the person goes where they wanted, the click alone is lost.
            if not isinstance(error, PenstockError):
                log_fault(error)
            url = asked
        location = (b"location", url.encode("utf-8", "replace"))
        return Answer(302, b"", (location, NO_STORE))

    @route(
        "/o/{name:str}", http_method=[HttpMethod.GET, HttpMethod.HEAD], status_code=200, tags=["mail"],
        summary="Record an open; always a pixel",
        responses={200: _says("gif", "A transparent image")},
    )  # fmt: skip
    async def open_pixel(request: LitestarRequest[Any, Any, Any], name: FromPath[str]) -> Answer:
        # An image that fails is shown to a person; a pixel never does.
        with suppress(Exception):
            await feedback.open(name.removesuffix(".gif"), _fetch(request))
        return Answer(200, PIXEL, ((b"content-type", b"image/gif"), NO_STORE))

    return [click, open_pixel]


def _says(kind: str, what: str) -> ResponseSpec:
    """Return a response for the OpenAPI document: of kind `html`, `gif` or `json`, an error's."""
    body = ErrorBody if kind == "json" else str
    return ResponseSpec(body, description=what, generate_examples=False, media_type=_MEDIA[kind])


def _fetch(request: LitestarRequest[Any, Any, Any]) -> Fetch:
    return Fetch(request.headers.get("user-agent", "")[:512], request.method)
