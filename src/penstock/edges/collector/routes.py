"""The collector's routes: one table of paths, and the handlers that Litestar documents and serves."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Iterable
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
from penstock.edges.collector.door import Door, Row, Ticket
from penstock.edges.collector.keys import KeyRing, WriteKey
from penstock.edges.collector.openapi import Accepted, BatchOperation, SingleOperation
from penstock.edges.collector.segment import SEGMENT_ROWS, settings_body
from penstock.flows.collect import Collector
from penstock.ports.clock import Clock
from penstock.ports.metrics import Metrics

RESERVE_READ_S = 5
"""Time for a body over the limit to arrive, while it holds a place of the reserve."""

SETTINGS_PATH = "/v1/projects/{write_key:str}/settings"
SETTINGS_TEMPLATE = "/v1/projects/{write_key}/settings"
METRICS_PATH = "/v1/m"

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
        try:
            answer = await self._collect(row, headers, scope["query_string"], receive)
        except PenstockError as error:
            answer = error_answer(error)
        except Exception as error:  # noqa: BLE001 - an SDK must always hear what to do next
            answer = error_answer(_unforeseen(error))
        return self.finish("POST", row.path, answer, headers, started)

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

    def settings(self, key_text: str, scope: Scope) -> Answer:
        """Return what Segment's browser SDK must load before it starts."""
        headers = dict(scope["headers"])
        started = self.clock.monotonic_ms()
        key = self.door.ring.find(key_text)
        if key is None or not key.browser:
            error = EventRejected("E378", "no browser source has this write key",
                                  fix="give pages the key of a source of kind `browser`; "
                                  "a server's key is secret")  # fmt: skip
            answer = error_answer(error, status=404)
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
    rows: Iterable[Row] = SEGMENT_ROWS,
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
        rows: The table of paths. Other vendors' rows are added to Segment's.
    """
    table = list(rows)
    admission = Admission(clock, requests_max=requests_max, per_key_per_s=requests_per_s_per_key)
    edge = CollectorEdge(
        Door(collector, KeyRing(keys), admission, metrics), clock, metrics, public_url
    )
    return [
        # First: a path that is registered without OPTIONS gets one of Litestar's own.
        _preflight_handler([row.path for row in table] + [METRICS_PATH, SETTINGS_PATH]),
        *(_post_handler(edge, row) for row in table),
        _discard_handler(edge),
        _settings_handler(edge),
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


def _unforeseen(error: Exception) -> Unavailable:
    """Log where a bug is, never its message, which may quote an event; the client retries."""
    place = traceback.extract_tb(error.__traceback__)[-1]
    log.error("%s at %s:%d", type(error).__name__, place.filename, place.lineno)
    return Unavailable("E432", "the collector failed on this request; nothing is known to be kept",
                       fix="retry; the log of the server says where it failed")  # fmt: skip
