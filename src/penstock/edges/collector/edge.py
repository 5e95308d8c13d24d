"""The collector's edge: one table of paths, and the functions that serve them; no framework."""

from __future__ import annotations

import logging
import secrets
import traceback
from collections.abc import Awaitable, Callable, Iterable
from itertools import cycle

from penstock.core.errors import EventRejected, PenstockError, Unavailable
from penstock.edges.asgi import Answer, Scope, error_answer, json_answer, log_access
from penstock.edges.collector.admission import HINTS_S, Admission, overloaded
from penstock.edges.collector.cors import cors_headers
from penstock.edges.collector.door import Door, Row, Watch
from penstock.edges.collector.jitsu import JITSU_ROWS
from penstock.edges.collector.keys import KeyRing, WriteKey
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
from penstock.edges.route import Request, Route, Shed
from penstock.flows.collect import Collector
from penstock.ports.appender import NO_WAITS, Waits
from penstock.ports.clock import Clock
from penstock.ports.metrics import Metrics

SETTINGS_TEMPLATE = "/v1/projects/{write_key}/settings"

ROWS: tuple[Row, ...] = (*SEGMENT_ROWS, *RUDDERSTACK_ROWS, *JITSU_ROWS)
"""The collector's one table of paths that events are posted to."""

_IMAGE = ((b"content-type", b"image/gif"), (b"cache-control", b"no-store"))

log = logging.getLogger("penstock.collector")


class CollectorEdge:
    """Makes answers of the door's decisions, and of what browsers ask beside them.

    Args:
        door: What decides.
        rows: The table of paths.
        clock: For the access log.
        metrics: Where requests are counted.
        public_url: How clients reach this server; empty takes what each request says.
    """

    def __init__(
        self, door: Door, rows: Iterable[Row], clock: Clock, metrics: Metrics, public_url: str = ""
    ) -> None:
        self.door = door
        self.rows = list(rows)
        self.clock = clock
        self.metrics = metrics
        self.public_url = public_url
        self._busy = cycle([error_answer(overloaded(seconds)) for seconds in HINTS_S])
        self.posts = [self._post_route(row) for row in self.rows]
        """The hot routes of the rows, in their order."""
        self.pixels = [self._pixel_route(row) for row in PIXEL_ROWS]

    @property
    def routes(self) -> list[Route]:
        """All hot routes."""
        return [*self.posts, *self.pixels]

    def _post_route(self, row: Row) -> Route:
        def collect(request: Request) -> Awaitable[Answer]:
            return self._taken(request, self._take(row, request))

        def refuse_post(request: Request, error: PenstockError) -> Answer:
            self._tell(row.path, error)
            return refuse(request, error)

        def shed(request: Request) -> Answer | None:
            return self._overloaded(row, request) if self.door.turns_away(row, request) else None

        return Route("POST", row.path, collect, clock=self.clock, metrics=self.metrics,
                     body_bytes_max=row.body_bytes_max, refuse=refuse_post,
                     shed=Shed(self.door.pressed, shed), eager=True)  # fmt: skip

    def _pixel_route(self, row: Row) -> Route:
        """Return the route of an event in an image's query: the image, and a status that is true."""

        def image(request: Request, status: int) -> Answer:
            return with_cors(request, Answer(status, PIXEL, _IMAGE))

        def refuse_pixel(request: Request, error: PenstockError) -> Answer:
            self._tell(row.path, error)
            return image(request, refuse(request, error).status)

        def pixel(request: Request) -> Awaitable[Answer]:
            body = pixel_body(request.query, f"pixel-{secrets.token_hex(16)}")
            asked = Request(pixel_headers(request.headers), request.query, body)
            if self.door.turns_away(row, asked):
                raise overloaded(HINTS_S[0])
            return shown(request, self._take(row, asked))

        async def shown(request: Request, taking: Awaitable[Answer]) -> Answer:
            return image(request, (await self._taken(request, taking)).status)

        return Route("GET", row.path, pixel, clock=self.clock, metrics=self.metrics,
                     refuse=refuse_pixel)  # fmt: skip

    def _overloaded(self, row: Row, request: Request) -> Answer:
        """Return the answer to a request that is not let in: made once, since it is to cost little."""
        if self.door.watch is not None:
            self._tell(row.path, overloaded(HINTS_S[0]))
        return with_cors(request, next(self._busy))

    def _take(self, row: Row, request: Request) -> Awaitable[Answer]:
        try:
            return self.door.take(row, request)
        except PenstockError:
            raise
        except Exception as error:  # noqa: BLE001 - an SDK must always hear what to do next
            raise _unforeseen(error) from None

    async def _taken(self, request: Request, taking: Awaitable[Answer]) -> Answer:
        try:
            return with_cors(request, await taking)
        except PenstockError:
            raise
        except Exception as error:  # noqa: BLE001 - an SDK must always hear what to do next
            raise _unforeseen(error) from None

    def _tell(self, route: str, error: PenstockError) -> None:
        if self.door.watch is not None:
            self.door.watch.refused(route, error)

    def _refused(self, route: str, error: PenstockError, status: int = 0) -> Answer:
        self._tell(route, error)
        return error_answer(error, status)

    def source_config(self, scope: Scope) -> Answer:
        """Return what RudderStack's SDKs must load before they start."""
        headers = dict(scope["headers"])
        started = self.clock.monotonic_ms()
        try:
            key = self.door.ring.of_request(headers, scope["query_string"])
            # 400, not 404: its SDKs give up on that, and ask again after any other refusal.
            answer = (
                self._refused(SOURCE_CONFIG_PATH, _no_browser_key())
                if key is None or not key.browser
                else json_answer(200, source_config(key), ((b"cache-control", b"no-store"),))
            )
        except EventRejected as error:
            answer = self._refused(SOURCE_CONFIG_PATH, error)
        return self.finish("GET", SOURCE_CONFIG_PATH, answer, headers, started)

    def settings(self, key_text: str, scope: Scope) -> Answer:
        """Return what Segment's browser SDK must load before it starts."""
        headers = dict(scope["headers"])
        started = self.clock.monotonic_ms()
        key = self.door.ring.find(key_text)
        if key is None or not key.browser:
            answer = self._refused(SETTINGS_TEMPLATE, _no_browser_key(), 404)
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
        return with_cors(Request(headers), answer)


def with_cors(request: Request, answer: Answer) -> Answer:
    """Return the answer as the page that sent the request may read it."""
    if b"origin" not in request.headers:
        return answer
    cors = cors_headers(request.headers[b"origin"])
    return answer._replace(headers=(*answer.headers, *cors)) if cors else answer


def refuse(request: Request, error: PenstockError) -> Answer:
    """Return the answer to an error: 400, 408, 429, 431 or 503, and nothing else.

    A body that is too large is a 400, not a 413: of the answers that end an SDK's attempts, it is
    the one that all of them take as final. One that did not arrive is a 408, which they repeat.
    """
    return with_cors(request, error_answer(error, {"E377": 408, "E383": 431}.get(error.code, 0)))


def collector_edge(  # noqa: PLR0913 - all that a collector may be told
    collector: Collector, keys: Iterable[WriteKey], *, clock: Clock, metrics: Metrics,
    requests_max: int = 1024, requests_per_s_per_key: int = 0, public_url: str = "",
    watch: Watch | None = None, waits: Callable[[], Waits] = lambda: NO_WAITS,
    spent_us: Callable[[], int] | None = None,
) -> CollectorEdge:  # fmt: skip
    """Return the collector's edge, whose hot routes are `.routes`.

    Args:
        collector: Takes events in.
        keys: Write keys of all declared sources.
        clock: For quotas and the access log.
        metrics: Where to count.
        requests_max: Requests in flight, beyond which new ones are answered 429.
        requests_per_s_per_key: Requests a second of each write key; 0 is no limit.
        public_url: How clients reach this server, such as `https://events.example.com`.
        watch: Told of every request, if anybody is.
        waits: How long others wait, in the engine.
        spent_us: The CPU time that the loop's thread has used, in µs; the clock if nobody tells.
    """
    admission = Admission(
        clock, requests_max=requests_max, per_key_per_s=requests_per_s_per_key, waits=waits,
        spent_us=spent_us,
    )  # fmt: skip
    door = Door(collector, KeyRing(keys), admission, metrics, watch)
    return CollectorEdge(door, ROWS, clock, metrics, public_url)


def _base_url(scope: Scope, headers: dict[bytes, bytes]) -> str:
    host = headers.get(b"host", b"localhost").decode("latin-1")
    return f"{scope.get('scheme', 'http')}://{host}"


def _no_browser_key() -> EventRejected:
    return EventRejected("E378", "no browser source has this write key",
                         fix="give pages the key of a source of kind `browser`; "
                         "a server's key is secret")  # fmt: skip


def _unforeseen(error: Exception) -> Unavailable:
    """Log where a bug is, never its message, which may quote an event; the client retries."""
    place = traceback.extract_tb(error.__traceback__)[-1]
    log.error("%s at %s:%d", type(error).__name__, place.filename, place.lineno)
    return Unavailable("E432", "the collector failed on this request; nothing is known to be kept",
                       fix="retry; the log of the server says where it failed")  # fmt: skip
