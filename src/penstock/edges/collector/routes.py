"""The collector's routes as Litestar serves and documents them; the hot ones are `edge.py`'s."""

from __future__ import annotations

from typing import Any

from litestar import Request as LitestarRequest
from litestar import get, post, route
from litestar.enums import HttpMethod
from litestar.handlers import HTTPRouteHandler
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import FromPath

from penstock.edges.asgi import Answer, ErrorBody, json_answer
from penstock.edges.collector.cors import preflight
from penstock.edges.collector.door import Row
from penstock.edges.collector.edge import CollectorEdge
from penstock.edges.collector.openapi import (
    Accepted,
    BatchOperation,
    PixelOperation,
    SingleOperation,
    SourceConfigOperation,
)
from penstock.edges.collector.rudderstack import PIXEL_ROWS, SOURCE_CONFIG_PATH
from penstock.edges.framework import mounted
from penstock.edges.route import Route

SETTINGS_PATH = "/v1/projects/{write_key:str}/settings"
METRICS_PATH = "/v1/m"


def collector_handlers(edge: CollectorEdge) -> list[HTTPRouteHandler]:
    """Return the collector's route handlers, to be put on one Litestar application."""
    return [
        # First: a path that is registered without OPTIONS gets one of Litestar's own.
        _preflight_handler(
            [row.path for row in edge.rows] + [METRICS_PATH, SETTINGS_PATH, SOURCE_CONFIG_PATH]
        ),
        *map(_post_handler, edge.rows, edge.posts),
        _discard_handler(edge),
        _settings_handler(edge),
        _source_config_handler(edge),
        *map(_pixel_handler, PIXEL_ROWS, edge.pixels),
    ]


RESPONSES = {
    200: ResponseSpec(
        Accepted,
        description="All events are durable, in the log or as dead letters",
        generate_examples=False,
    ),
    400: ResponseSpec(
        ErrorBody,
        description="Nothing in it can be read or kept; do not retry",
        generate_examples=False,
    ),
    408: ResponseSpec(
        ErrorBody,
        description="The body did not arrive in time; send it again",
        generate_examples=False,
    ),
    429: ResponseSpec(
        ErrorBody,
        description="Overloaded; retry after `Retry-After` seconds",
        generate_examples=False,
    ),
    503: ResponseSpec(
        ErrorBody,
        description="Not durable; retry after `Retry-After` seconds",
        generate_examples=False,
    ),
}


def _post_handler(row: Row, hot: Route) -> HTTPRouteHandler:
    name = row.path.strip("/").replace("/", "_")
    return mounted(
        hot, name=f"collect_{name}", operation_id=f"collect_{name}", summary=row.summary,
        tags=["collector"], responses=RESPONSES,
        operation_class=BatchOperation if row.batch else SingleOperation,
    )  # fmt: skip


def _discard_handler(edge: CollectorEdge) -> HTTPRouteHandler:
    async def discard(request: LitestarRequest[Any, Any, Any]) -> Answer:
        answer = json_answer(200, {"success": True})
        return edge.finish(
            "POST", METRICS_PATH, answer, dict(request.scope["headers"]), edge.clock.monotonic_ms()
        )

    return post(
        METRICS_PATH, name="collect_v1_m", operation_id="collect_v1_m", tags=["collector"],
        summary="Metrics of Segment's SDK about itself; discarded", status_code=200,
    )(discard)  # fmt: skip


def _configured(refused: int) -> dict[int, ResponseSpec]:
    """Return the responses of a configuration, and of its refusal."""
    return {
        200: ResponseSpec(dict[str, Any], description="The configuration", generate_examples=False),
        refused: ResponseSpec(
            ErrorBody, description="No browser source has this key", generate_examples=False
        ),
    }


def _settings_handler(edge: CollectorEdge) -> HTTPRouteHandler:
    async def settings(request: LitestarRequest[Any, Any, Any], write_key: FromPath[str]) -> Answer:
        return edge.settings(write_key, request.scope)

    return get(
        SETTINGS_PATH, name="sdk_settings", operation_id="sdk_settings", tags=["collector"],
        summary="What Segment's browser SDK loads before it starts",
        responses=_configured(404),
    )(settings)  # fmt: skip


def _source_config_handler(edge: CollectorEdge) -> HTTPRouteHandler:
    async def config(request: LitestarRequest[Any, Any, Any]) -> Answer:
        return edge.source_config(request.scope)

    return get(
        SOURCE_CONFIG_PATH, name="source_config", operation_id="source_config", tags=["collector"],
        summary="What RudderStack's SDKs load before they start",
        responses=_configured(400), operation_class=SourceConfigOperation,
    )(config)  # fmt: skip


def _pixel_handler(row: Row, hot: Route) -> HTTPRouteHandler:
    name = row.path.strip("/").replace("/", "_")
    return mounted(
        hot, name=name, operation_id=name, tags=["collector"], media_type="image/gif",
        summary=f"{row.summary} from the query of an image", operation_class=PixelOperation,
    )  # fmt: skip


def _preflight_handler(paths: list[str]) -> HTTPRouteHandler:
    async def allow(request: LitestarRequest[Any, Any, Any]) -> Answer:
        headers = dict(request.scope["headers"])
        return preflight(
            headers.get(b"origin", b""), headers.get(b"access-control-request-headers", b"")
        )

    return route(
        paths, http_method=[HttpMethod.OPTIONS], include_in_schema=False, name="collect_preflight"
    )(allow)
