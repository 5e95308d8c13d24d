"""The HTTP/1.1 connections of `penstock up`: hot routes answered from the parser, all others over ASGI.

uvicorn accepts, starts and drains; `uvicorn.Config(app, http=FastServer(routes, …))` has its
connections be these. A request of a hot route (`edges/route.py`) is a function call inside the
parser's callback, written in one piece; any other becomes an ordinary ASGI request of the app
(`edges/exchange.py`). Measured, the ASGI call and the framework above it cost ten times the parser.

One request of a connection is worked on at a time, so that answers come in the order of the requests
and a request sees what the one before it did. What a connection may cost is bounded: bytes of the
head and of the body, of all requests together, time to arrive, time to be read, requests ahead, and how
many there are (`edges/limits.py`, `edges/crowd.py`). Whoever goes over is told so, in the shape of every
other error, before the connection is closed.

Sources: RFC 9112 §9.3.2 (pipelining), §9.6 (closing so that the last answer can be read).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable
from typing import Any, Final, NamedTuple

import httptools
from uvicorn.config import Config
from uvicorn.server import ServerState

from penstock.core.errors import PenstockError
from penstock.edges.asgi import Answer, log_access
from penstock.edges.body import too_late
from penstock.edges.crowd import Crowd, Standing
from penstock.edges.exchange import Exchange, scope_of
from penstock.edges.heads import Again, Heads
from penstock.edges.limits import (
    Limits,
    head_too_large,
    no_memory,
    not_http,
    too_large,
    too_many_connections,
    too_much_ahead,
)
from penstock.edges.rendering import Renderer
from penstock.edges.route import Request, Route, Table, refuse
from penstock.edges.turnstile import Turnstile
from penstock.ports.metrics import Metrics

UNROUTED: Final = "(none)"
"""Stands for a route in metrics and logs where a request ended before it had one."""

SLICE_BYTES = 64 * 1024
"""Looked at for limits at least so often: what the kernel hands over at once may be more."""

_IDLE, _HEAD, _BODY = 0, 1, 2


class FastServer:
    """Makes the connections of one uvicorn server, and holds what they share.

    Args:
        routes: The hot routes.
        metrics: Where requests that reach no route are counted.
        limits: What a connection may cost.
    """

    def __init__(
        self, routes: Iterable[Route], *, metrics: Metrics, limits: Limits | None = None
    ) -> None:
        routes = tuple(routes)
        self.metrics = metrics
        self.limits = limits or Limits()
        self.crowd = Crowd(self.limits, metrics)
        self.held_bytes = 0
        """Of requests that arrive, or that are large and not yet answered."""
        self.routes = Table(routes)
        self.turnstile = Turnstile(routes)
        self.heads = Heads(self.limits)
        self.render = Renderer().render

    def __call__(
        self, config: Config, server_state: ServerState, app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> Connection:  # fmt: skip
        """Return the protocol of a new connection; uvicorn calls it."""
        return Connection(
            self, config, server_state, app_state, _loop or asyncio.get_running_loop()
        )


class _Hot(NamedTuple):
    """A request of a hot route that waits for its turn."""

    route: Route
    request: Request


class Connection(asyncio.Protocol):
    """One connection. Ten thousand idle ones cost some megabytes and a millisecond each second."""

    __slots__ = (
        "_ahead", "_app_state", "_body", "_body_bytes", "_body_bytes_max", "_busy", "_chunk_bytes", "_closing",
        "_config", "_deaf", "_draining", "_ended", "_exchange", "_fed", "_fresh", "_going", "_headers", "_held",
        "_keep_alive_s", "_kept", "_lingering", "_owes_continue", "_parser", "_phase", "_reading", "_request",
        "_route", "_server", "_state", "_transport", "_unread", "_url", "_write_stuck", "loop", "since",
    )  # fmt: skip

    def __init__(
        self, server: FastServer, config: Config, state: ServerState, app_state: dict[str, Any],
        loop: asyncio.AbstractEventLoop,
    ) -> None:  # fmt: skip
        self._server = server
        self._config = config
        self._state = state
        self._app_state = app_state
        self.loop = loop
        self._parser: Any = httptools.HttpRequestParser(self)
        self._transport: Any = None
        self._keep_alive_s = config.timeout_keep_alive
        # The connection.
        self.since = server.crowd.tick
        """The second in which what is waited for began."""
        self._ahead: deque[Answer | _Hot | Exchange] = deque()
        self._busy = False
        self._going = False
        self._exchange: Exchange | None = None
        self._deaf = False
        """Nothing that arrives is looked at any more."""
        self._closing = False
        """The answer to the last request that was read is the last."""
        self._draining = False
        self._unread = False
        """Something that the client sent was, or will be, thrown away."""
        self._lingering = False
        self._reading = True
        self._write_stuck = False
        self._kept = 0
        """Bytes of large requests that have arrived and are not answered."""
        # The request that is arriving.
        self._phase = _IDLE
        self._fresh = False
        """Its first byte came in the bytes that were read last."""
        self._ended = False
        """A request ended in the bytes that were read last."""
        self._fed = 0
        self._chunk_bytes = 0
        self._url = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._route: Route | None = None
        self._request: Request | None = None
        self._body: bytes | bytearray = b""
        self._body_bytes = 0
        self._body_bytes_max = 0
        self._held = 0
        self._owes_continue = False

    # ------------------------------------------------------------------------- the transport's calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = transport
        self._state.connections.add(self)  # type: ignore[arg-type]
        if not self._server.crowd.join(self):
            self._server.metrics.count("penstock_requests_shed_total", reason="connections")
            self._end_with(self._unrouted(too_many_connections()))
            if not self._server.crowd.watches(self):
                self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Let go of everything; an answer that comes later finds a closed transport."""
        self._state.connections.discard(self)
        self._server.crowd.leave(self)
        self._server.held_bytes -= self._held + self._kept
        self._held = self._kept = 0
        self._deaf = True
        self._ahead.clear()
        if self._exchange is not None:
            self._exchange.client_left()
        self._parser = None  # it holds this object

    def data_received(self, data: bytes) -> None:
        """Answer what need not be parsed for it; parse the rest, and hold it to its limits."""
        if len(data) <= SLICE_BYTES:
            if self._phase != _IDLE or self._busy or self._ahead or self._deaf or self._draining:
                self._read(data)
            elif data := self._turn_away(data):
                again = self._server.heads.find(data)
                if again is None or not self._begin_again(again):
                    self._read(data)
                    self._learn(data)
            return
        view = memoryview(data)
        for start in range(0, len(data), SLICE_BYTES):
            self._read(view[start : start + SLICE_BYTES])

    def _turn_away(self, data: bytes) -> bytes:
        """Answer what is not let in at the front of some bytes; return the rest."""
        away = self._server.turnstile.turn_away(data)
        if away is None:
            return data
        defaults, render = self._state.default_headers, self._server.render
        self._transport.write(
            b"".join([render(answer, defaults, last=False) for answer in away.answers])
        )
        self._state.total_requests += len(away.answers)
        self.since = self._server.crowd.tick
        return data[away.size :]

    def _begin_again(self, again: Again) -> bool:
        """Begin a request that was not parsed; False if it is of no hot route."""
        route, param = self._server.routes.find(again.key)
        if route is None:
            return False
        self.since = self._server.crowd.tick
        self._busy = True
        route.begin(Request(again.headers, again.query, b"", param), self.answered)
        return True

    def _learn(self, data: bytes) -> None:
        """Remember the head of a hot route's request that ended with these bytes, and lives on."""
        if (
            self._ended
            and self._request
            and self._route
            and not (self._closing or self._body_bytes)
        ):
            self._server.heads.learn(data, self._url, self._request.headers)

    def _read(self, data: bytes | memoryview) -> None:
        if self._deaf:
            return
        self._chunk_bytes = len(data)
        self._ended = False
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._closing = self._deaf = True  # answered as if it had not asked to upgrade
        except httptools.HttpParserError:
            if not self._deaf:
                self._end_with(self._unrouted(not_http()))
        if self._phase != _IDLE and not self._deaf:
            self._hold_to_limits()

    def eof_received(self) -> bool:
        """Let a client that has only ended its own side have its answers."""
        waits = (self._busy or bool(self._ahead)) and self._exchange is None
        if waits and not self._lingering and self._transport.can_write_eof():
            self._closing = self._deaf = True
            return True
        return False

    def pause_writing(self) -> None:
        """Read no more from a client that does not take its answers."""
        self._write_stuck = True
        self.since = self._server.crowd.tick
        self._stop_reading()

    def resume_writing(self) -> None:
        """Go on."""
        self._write_stuck = False
        if self._exchange is not None:
            self._exchange.may_write.set()
        self._read_on()

    def shutdown(self) -> None:
        """Close once everything that was begun is answered. uvicorn calls it to drain."""
        self._draining = True
        if self._phase == _IDLE:
            self._deaf = self._closing = True
            if not (self._busy or self._ahead):
                self._transport.close()

    # ------------------------------------------------------------------------------ what a crowd asks

    def standing(self) -> Standing:
        """Return what is waited for."""
        if self._lingering:
            return Standing.REFUSED
        if self._write_stuck:
            return Standing.SLOW
        if self._busy or self._ahead:
            return Standing.AT_WORK
        return Standing.IDLE if self._phase == _IDLE else Standing.SLOW

    def give_way(self, *, told: bool) -> bool:
        """End, for others; return whether it is left to read why, since it sent a request slowly."""
        if self._lingering or self._write_stuck:
            self._transport.abort()
            return False
        if self._phase != _IDLE:
            self._refuse(too_late(self._server.crowd.tick - self.since))
            if told and self._lingering:
                return True
        self._transport.close()
        return False

    def look(self, tick: int) -> None:
        """End what has waited for too long."""
        waited_s = tick - self.since
        limits = self._server.limits
        if self._lingering:
            if waited_s > limits.linger_s:
                self._transport.abort()
        elif self._write_stuck:
            if waited_s > limits.write_s:
                self._transport.abort()
        elif self._phase == _IDLE:
            if not self._busy and not self._ahead and waited_s > self._keep_alive_s:
                self._transport.close()
        elif waited_s > (limits.head_s if self._phase == _HEAD else limits.request_s):
            self._refuse(too_late(waited_s))

    # ---------------------------------------------------------------------------- the parser's calls

    def on_message_begin(self) -> None:
        """Begin a request."""
        if self._deaf:
            return
        self._phase, self._fresh, self._fed = _HEAD, True, 0
        self.since = self._server.crowd.tick
        self._url, self._headers, self._route, self._request = b"", [], None, None
        self._body, self._body_bytes = b"", 0

    def on_url(self, url: bytes) -> None:
        """Keep the target; it may come in pieces."""
        self._url = self._url + url if self._url else url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header; what follows a chunked body is none."""
        if self._phase == _HEAD:
            self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """Find the route, and refuse now what would be refused anyway."""
        if self._deaf:
            return
        self._phase = _BODY
        server = self._server
        path, _, query = self._url.partition(b"?")
        key = self._parser.get_method() + b" " + path
        route, param = server.routes.find(key)
        headers = dict(self._headers)
        self._route = route
        self._request = Request(headers, query, b"", param)
        bytes_max = server.limits.cold_body_bytes if route is None else route.body_bytes_max
        self._body_bytes_max = bytes_max
        if self._fed + self._chunk_bytes > server.limits.head_bytes and self._head_is_too_large():
            self._refuse(head_too_large(server.limits.head_bytes))
        elif b"content-length" in headers and int(headers[b"content-length"]) > bytes_max:
            self._refuse(too_large(bytes_max))
        elif b"expect" in headers and headers[b"expect"].lower() == b"100-continue":
            self._owes_continue = True
            self._continue()

    def on_body(self, body: bytes) -> None:
        """Gather the body under its cap."""
        if self._deaf:
            return
        self._body_bytes += len(body)
        if self._body_bytes > self._body_bytes_max:
            self._refuse(too_large(self._body_bytes_max))
        elif not self._body:
            self._body = body
        elif type(self._body) is bytearray:
            self._body += body
        else:
            self._body = bytearray(self._body) + body

    def on_message_complete(self) -> None:
        """Begin the work, or queue it behind what the connection asked before."""
        if self._deaf:
            return
        self._phase = _IDLE
        self._ended = True
        self._owes_continue = False
        if self._held:
            self._server.held_bytes -= self._held
            self._held = 0
        request, route = self._request, self._route
        assert request is not None, "headers come before the end"
        if self._body:
            request.body = bytes(self._body)
            self._body = b""
            if self._body_bytes > self._server.limits.small_body_bytes:
                self._server.held_bytes += self._body_bytes
                self._kept += self._body_bytes
        if self._draining or not self._keeps_alive(request.headers):
            self._closing = self._deaf = True
        if self._busy or self._ahead or route is None:
            turn = self._open_exchange(request) if route is None else _Hot(route, request)
            if turn is not None:
                self._take(turn)
        else:
            self._busy = True
            route.begin(request, self.answered)

    # -------------------------------------------------------------------------------------- the work

    def _take(self, turn: _Hot | Exchange) -> None:
        if not (self._busy or self._ahead):
            self._begin(turn)
        elif len(self._ahead) < self._server.limits.ahead:
            self._ahead.append(turn)
            self._stop_reading()
        else:
            self._end_with(self._unrouted(too_much_ahead()))

    def _begin(self, turn: Answer | _Hot | Exchange) -> None:
        self._busy = True
        if isinstance(turn, _Hot):
            turn.route.begin(turn.request, self.answered)
        elif isinstance(turn, Answer):
            self.answered(turn)
        else:
            self._exchange = turn
            task = self.loop.create_task(turn.run(self._config.loaded_app))
            self._state.tasks.add(task)
            task.add_done_callback(self._state.tasks.discard)

    def answered(self, answer: Answer) -> None:
        """Write the answer to the request that is worked on, in one piece."""
        transport = self._transport
        if not transport.is_closing():
            last = self._closing and not self._ahead
            transport.write(self._server.render(answer, self._state.default_headers, last=last))
        self.done()

    def done(self) -> None:
        """Go on after an answer: with the next request, or to the end."""
        self._busy = False
        self._exchange = None
        self._state.total_requests += 1
        if self._kept and not self._ahead:
            self._server.held_bytes -= self._kept
            self._kept = 0
        self.since = self._server.crowd.tick
        if not (self._ahead or self._closing or self._owes_continue):
            return
        if self._transport.is_closing():
            return
        if self._ahead:
            self._go_on()
        elif self._closing:
            self._close()
        elif self._owes_continue:
            self._continue()

    # ------------------------------------------------------------- what an exchange asks of its wire

    def send_part(self, data: bytes) -> bool:
        """Write a part of an answer; return False while the client does not take it."""
        if not self._transport.is_closing():
            self._transport.write(data)
        return not self._write_stuck

    def default_headers(self) -> Iterable[tuple[bytes, bytes]]:
        """Return the headers that every answer has."""
        return self._state.default_headers

    def is_last(self) -> bool:
        """Return whether the connection closes after this answer."""
        return self._closing and not self._ahead

    def finish(self, *, whole: bool) -> None:
        """Go on after an answer that was sent in parts, or give the connection up if it is not whole."""
        if whole:
            self.done()
        else:
            self._transport.abort()

    def _go_on(self) -> None:
        if self._going:
            return  # the loop below was called for the request before, and goes on by itself
        self._going = True
        try:
            while self._ahead and not self._busy:
                self._begin(self._ahead.popleft())
        finally:
            self._going = False
        if not self._ahead:
            self._read_on()

    def _open_exchange(self, request: Request) -> Exchange | None:
        try:
            scope = scope_of(
                self._config, self._transport, self._app_state, self._parser.get_method(),
                self._parser.get_http_version(), self._url, self._headers,
            )  # fmt: skip
        except (httptools.HttpParserError, UnicodeDecodeError):
            self._end_with(self._unrouted(not_http()))
            return None
        return Exchange(self, scope, request.body)

    # --------------------------------------------------------------------------- limits and endings

    def _keeps_alive(self, headers: dict[bytes, bytes]) -> bool:
        if not self._parser.should_keep_alive() or b"upgrade" in headers:
            return False
        # HTTP/1.0 may ask for it, and would have to be told so in the answer: it is closed instead.
        return b"connection" not in headers or self._parser.get_http_version() != "1.0"

    def _continue(self) -> None:
        """Tell a client that waits for it to send its body, once everything before is answered."""
        if not (self._busy or self._ahead) and not self._transport.is_closing():
            self._owes_continue = False
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _hold_to_limits(self) -> None:
        """Look at a request that has not arrived whole: its head, its body, and all bodies together."""
        server, limits = self._server, self._server.limits
        if not (
            self._fresh and self._ended
        ):  # what came before it in the same bytes is not its own
            self._fed += self._chunk_bytes
        self._fresh = False
        if self._phase == _HEAD:
            if self._fed > limits.head_bytes:
                self._refuse(head_too_large(limits.head_bytes))
                return
            held, small = self._fed, limits.small_head_bytes
        elif self._fed > 8 * self._body_bytes_max + limits.head_bytes:
            # Chunks of a byte, or trailers without end.
            self._refuse(too_large(self._body_bytes_max))
            return
        else:
            held, small = self._body_bytes, limits.small_body_bytes
        server.held_bytes += held - self._held
        self._held = held
        if server.held_bytes > limits.held_bytes and held > small:
            self._refuse(no_memory())

    def _head_is_too_large(self) -> bool:
        size = len(self._url) + sum(len(name) + len(value) + 4 for name, value in self._headers)
        return size > self._server.limits.head_bytes

    def _refuse(self, error: PenstockError) -> None:
        """Answer the request that is arriving, without the rest of it, and close."""
        if self._deaf:
            return
        if self._route is not None and self._request is not None:
            answer = self._route.refused(self._request, error)
        else:
            answer = self._unrouted(error)
        self._end_with(answer)

    def _unrouted(self, error: PenstockError) -> Answer:
        """Return the answer to what is no request of any route."""
        answer = refuse(Request({}), error)
        status = str(answer.status)
        self._server.metrics.count("penstock_requests_total", route=UNROUTED, status=status)
        log_access("-", UNROUTED, answer.status, 0)
        return answer

    def _end_with(self, answer: Answer) -> None:
        """Answer after everything before it, listen no more, and close so that it can be read."""
        self._deaf = self._closing = self._unread = True
        self._phase = _IDLE
        self._body = b""
        self._server.held_bytes -= self._held
        self._held = 0
        if self._busy or self._ahead:
            self._ahead.append(answer)
            return
        if not self._transport.is_closing():
            self._transport.write(
                self._server.render(answer, self._state.default_headers, last=True)
            )
            self._linger()

    def _close(self) -> None:
        if self._unread:
            self._linger()
        else:
            self._transport.close()

    def _linger(self) -> None:
        """End our side and let the client end its own: a reset would take the answer from it."""
        self.since = self._server.crowd.tick
        if self._transport.can_write_eof():
            self._lingering = True
            self._transport.write_eof()
            self._read_on()
        else:
            self._transport.close()

    def _stop_reading(self) -> None:
        if self._reading and not self._transport.is_closing():
            self._reading = False
            self._transport.pause_reading()

    def _read_on(self) -> None:
        if not self._reading and not self._write_stuck and not self._transport.is_closing():
            self._reading = True
            self._transport.resume_reading()
