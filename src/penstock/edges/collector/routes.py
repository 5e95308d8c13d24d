"""The collector's routes: one table of paths, and the handlers that Litestar documents and serves."""

from __future__ import annotations

import logging
import secrets
import traceback
from collections.abc import Awaitable, Iterable
from typing import Any

from litestar import Request, get, post, route
from litestar.enums import HttpMethod
from litestar.handlers import HTTPRouteHandler
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import FromPath

from penstock.core.errors import EventRejected, PenstockError, Unavailable
from penstock.edges.asgi import (
    Answer,
    ErrorBody,
    Receive,
    Scope,
    error_answer,
    json_answer,
    log_access,
)
from penstock.edges.collector.admission import Admission
from penstock.edges.collector.body import read_body
from penstock.edges.collector.cors import cors_headers, preflight
from penstock.edges.collector.door import Door, Headers, Row, Ticket
from penstock.edges.collector.jitsu import JITSU_ROWS
from penstock.edges.collector.keys import KeyRing, WriteKey
from penstock.edges.collector.openapi import (
    Accepted,
    BatchOperation,
    PixelOperation,
    SingleOperation,
)
from penstock.edges.collector.rudderstack import (
    PIXEL,
    PIXEL_ROWS,
    RUDDERSTACK_ROWS,
    SOURCE_CONFIG_PATH,
    pixel_body,
    pixel_headers,
    source_config,
)
from penstock.edges.collector.segment import SEGMENT_ROWS, settings_body
from penstock.flows.collect import Collector
from penstock.ports.clock import Clock
from penstock.ports.metrics import Metrics

RESERVE_READ_S = 5
"""Time for a body over the limit to arrive, while it holds a place of the reserve."""

SETTINGS_PATH = "/v1/projects/{write_key:str}/settings"
SETTINGS_TEMPLATE = "/v1/projects/{write_key}/settings"
METRICS_PATH = "/v1/m"

ROWS: tuple[Row, ...] = (*SEGMENT_ROWS, *RUDDERSTACK_ROWS, *JITSU_ROWS)
"""The collector's one table of paths that events are posted to."""

_IMAGE = ((b"content-type", b"image/gif"), (b"cache-control", b"no-store"))

log = logging.getLogger("penstock.collector")


class CollectorEdge:
    """Serves the door's decisions over ASGI: reads bodies, sends answers, counts and logs them.

    Args:
        door: What decides.
        clock: For the access log.
        metrics: Where requests are counted.
        public_url: How clients reach this server; empty takes what each request says.
    """

    def __init__(self, door: Door, clock: Clock, metrics: Metrics, public_url: str = "") -> None:
        self.door = door
        self.clock = clock
        self.metrics = metrics
        self.public_url = public_url

    async def collect(self, row: Row, scope: Scope, receive: Receive) -> Answer:
        """Return the answer to one POST of events: 200, 400, 429 or 503, and nothing else."""
        headers = dict(scope["headers"])
        started = self.clock.monotonic_ms()
        answer = await _heard(self._collect(row, headers, scope["query_string"], receive))
        return self.finish("POST", row.path, answer, headers, started)

    async def pixel(self, row: Row, scope: Scope) -> Answer:
        """Return the answer to an event in an image's query: the image, and a status that is true."""
        headers = dict(scope["headers"])
        started = self.clock.monotonic_ms()
        answer = await _heard(self._pixel(row, pixel_headers(headers), scope["query_string"]))
        image = Answer(answer.status, PIXEL, _IMAGE)
        return self.finish("GET", row.path, image, headers, started)

    async def _pixel(self, row: Row, headers: Headers, query: bytes) -> Answer:
        ticket = self.door.admit(row, headers, query)
        try:
            body = pixel_body(query, f"pixel-{secrets.token_hex(16)}")
            return await self.door.take(row, ticket, headers, query, body)
        finally:
            self.door.leave(ticket)

    async def _collect(
        self, row: Row, headers: dict[bytes, bytes], query: bytes, receive: Receive
    ) -> Answer:
        door = self.door
        ticket = door.admit(row, headers, query)
        if not ticket.placed:
            return await self._look(row, ticket, headers, query, receive)
        try:
            raw = await read_body(receive, row.body_bytes_max)
            return await door.take(row, ticket, headers, query, raw)
        finally:
            door.leave(ticket)

    async def _look(
        self, row: Row, ticket: Ticket, headers: dict[bytes, bytes], query: bytes, receive: Receive
    ) -> Answer:
        """Look into a request over the limit from a place of the reserve before it is refused."""
        admission = self.door.admission
        admission.require_room_to_wait()
        admission.waiting += 1
        try:
            await admission.reserve.acquire()
        finally:
            admission.waiting -= 1
        try:
            raw = await read_body(receive, row.body_bytes_max, RESERVE_READ_S)
            return await self.door.take(row, ticket, headers, query, raw)
        finally:
            admission.reserve.release()

    def source_config(self, scope: Scope) -> Answer:
        """Return what RudderStack's SDKs must load before they start."""
        headers = dict(scope["headers"])
        started = self.clock.monotonic_ms()
        try:
            key = self.door.ring.of_request(headers, scope["query_string"])
            # 400, not 404: its SDKs give up on that, and ask again after any other refusal.
            answer = (
                error_answer(_no_browser_key())
                if key is None or not key.browser
                else json_answer(200, source_config(key), ((b"cache-control", b"no-store"),))
            )
        except EventRejected as error:
            answer = error_answer(error)
        return self.finish("GET", SOURCE_CONFIG_PATH, answer, headers, started)

    def settings(self, key_text: str, scope: Scope) -> Answer:
        """Return what Segment's browser SDK must load before it starts."""
        headers = dict(scope["headers"])
        started = self.clock.monotonic_ms()
        key = self.door.ring.find(key_text)
        if key is None or not key.browser:
            answer = error_answer(_no_browser_key(), status=404)
        else:
            base = self.public_url or _base_url(scope, headers)
            answer = json_answer(
                200, settings_body(key.key, base), ((b"cache-control", b"public, max-age=300"),)
            )
        return self.finish("GET", SETTINGS_TEMPLATE, answer, headers, started)

    def finish(
        self, method: str, template: str, answer: Answer, headers: dict[bytes, bytes], started: int
    ) -> Answer:
        """Count and log a request, and let the page that sent it read the answer."""
        self.metrics.count("penstock_requests_total", route=template, status=str(answer.status))
        log_access(method, template, answer.status, self.clock.monotonic_ms() - started)
        cors = cors_headers(headers.get(b"origin", b""))
        return answer._replace(headers=(*answer.headers, *cors)) if cors else answer


def collector_handlers(
    collector: Collector, keys: Iterable[WriteKey], *, clock: Clock, metrics: Metrics,
    requests_max: int = 1024, requests_per_s_per_key: int = 0, public_url: str = "",
    rows: Iterable[Row] = ROWS,
) -> list[HTTPRouteHandler]:  # fmt: skip
    """Return the collector's route handlers, to be put on one Litestar application.

    Args:
        collector: Takes events in.
        keys: Write keys of all declared sources.
        clock: For quotas and the access log.
        metrics: Where to count.
        requests_max: Requests in flight, beyond which new ones are answered 429.
        requests_per_s_per_key: Requests a second of each write key; 0 is no limit.
        public_url: How clients reach this server, such as `https://events.example.com`.
        rows: The table of paths.
    """
    table = list(rows)
    admission = Admission(clock, requests_max=requests_max, per_key_per_s=requests_per_s_per_key)
    edge = CollectorEdge(
        Door(collector, KeyRing(keys), admission, metrics), clock, metrics, public_url
    )
    return [
        # First: a path that is registered without OPTIONS gets one of Litestar's own.
        _preflight_handler(
            [row.path for row in table] + [METRICS_PATH, SETTINGS_PATH, SOURCE_CONFIG_PATH]
        ),
        *(_post_handler(edge, row) for row in table),
        _discard_handler(edge),
        _settings_handler(edge),
        _source_config_handler(edge),
        *(_pixel_handler(edge, row) for row in PIXEL_ROWS),
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


def _post_handler(edge: CollectorEdge, row: Row) -> HTTPRouteHandler:
    async def collect(request: Request[Any, Any, Any]) -> Answer:
        return await edge.collect(row, request.scope, request.receive)

    name = row.path.strip("/").replace("/", "_")
    return post(
        row.path, name=f"collect_{name}", operation_id=f"collect_{name}", summary=row.summary,
        tags=["collector"], status_code=200, responses=RESPONSES,
        operation_class=BatchOperation if row.batch else SingleOperation,
    )(collect)  # fmt: skip


def _discard_handler(edge: CollectorEdge) -> HTTPRouteHandler:
    async def discard(request: Request[Any, Any, Any]) -> Answer:
        answer = json_answer(200, {"success": True})
        return edge.finish(
            "POST", METRICS_PATH, answer, dict(request.scope["headers"]), edge.clock.monotonic_ms()
        )

    return post(
        METRICS_PATH, name="collect_v1_m", operation_id="collect_v1_m", tags=["collector"],
        summary="Metrics of Segment's SDK about itself; discarded", status_code=200,
    )(discard)  # fmt: skip


def _settings_handler(edge: CollectorEdge) -> HTTPRouteHandler:
    async def settings(request: Request[Any, Any, Any], write_key: FromPath[str]) -> Answer:
        return edge.settings(write_key, request.scope)

    return get(
        SETTINGS_PATH, name="sdk_settings", operation_id="sdk_settings", tags=["collector"],
        summary="What Segment's browser SDK loads before it starts",
    )(settings)  # fmt: skip


def _source_config_handler(edge: CollectorEdge) -> HTTPRouteHandler:
    async def config(request: Request[Any, Any, Any]) -> Answer:
        return edge.source_config(request.scope)

    return get(
        SOURCE_CONFIG_PATH, name="source_config", operation_id="source_config", tags=["collector"],
        summary="What RudderStack's SDKs load before they start",
    )(config)  # fmt: skip


def _pixel_handler(edge: CollectorEdge, row: Row) -> HTTPRouteHandler:
    async def pixel(request: Request[Any, Any, Any]) -> Answer:
        return await edge.pixel(row, request.scope)

    name = row.path.strip("/").replace("/", "_")
    return get(
        row.path, name=name, operation_id=name, tags=["collector"], media_type="image/gif",
        summary=f"{row.summary} from the query of an image", operation_class=PixelOperation,
    )(pixel)  # fmt: skip


def _preflight_handler(paths: list[str]) -> HTTPRouteHandler:
    async def allow(request: Request[Any, Any, Any]) -> Answer:
        headers = dict(request.scope["headers"])
        return preflight(
            headers.get(b"origin", b""), headers.get(b"access-control-request-headers", b"")
        )

    return route(
        paths, http_method=[HttpMethod.OPTIONS], include_in_schema=False, name="collect_preflight"
    )(allow)


def _base_url(scope: Scope, headers: dict[bytes, bytes]) -> str:
    host = headers.get(b"host", b"localhost").decode("latin-1")
    return f"{scope.get('scheme', 'http')}://{host}"


def _no_browser_key() -> EventRejected:
    return EventRejected("E378", "no browser source has this write key",
                         fix="give pages the key of a source of kind `browser`; "
                         "a server's key is secret")  # fmt: skip


async def _heard(work: Awaitable[Answer]) -> Answer:
    """Return an answer, or that of what went wrong: an SDK must always hear what to do next."""
    try:
        return await work
    except PenstockError as error:
        return error_answer(error)
    except Exception as error:  # noqa: BLE001 - what nobody foresaw is an answer, too
        return error_answer(_unforeseen(error))


def _unforeseen(error: Exception) -> Unavailable:
    """Log where a bug is, never its message, which may quote an event; the client retries."""
    place = traceback.extract_tb(error.__traceback__)[-1]
    log.error("%s at %s:%d", type(error).__name__, place.filename, place.lineno)
    return Unavailable("E432", "the collector failed on this request; nothing is known to be kept",
                       fix="retry; the log of the server says where it failed")  # fmt: skip
