"""One function per hot route, whoever serves it: what it is asked, what it may answer, how it is mounted.

A hot route is a plain function `(Request) -> Answer | Pending | awaitable of Answer`, registered once
as a `Route`. `penstock up` calls it from the HTTP parser (`edges/fast.py`); every other server, and
every test client, calls the same function through the Litestar handler that `mounted` (`edges/framework.py`) makes. A
differential test sends the same bytes to both.

    def profile(request: Request) -> Answer:
        return json_answer(200, read(request.param, parse_qs(request.query.decode("latin-1"))))

    route = Route("GET", "/v1/profiles/{identifier}", profile, clock=clock, metrics=metrics,
                  seconds="penstock_serve_seconds")
    handlers = [mounted(route, summary="A person", tags=["serving"])]   # on Litestar, documented
    server = FastServer([route, …], metrics=metrics)                     # uvicorn.Config(http=server)

What the function may rely on, and must keep:

- It is called on the event loop with the whole body, which is at most `body_bytes_max`. It must not
  block. An answer at once costs least; a `Pending` that a group completes costs a call; a coroutine
  costs a task.
- A `PenstockError` that it raises is answered by `refuse`; anything else is a 503 without its message.
- `Route` counts and logs every request by its template. The function does neither.
- A template has at most one parameter, and it is the last segment: `/v1/decide/{campaign}`.
- Who needs the client's address or the scheme is no hot route: proxies' headers are read by uvicorn,
  for ordinary handlers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterable
from typing import Any, Final, NamedTuple, Protocol, cast
from urllib.parse import unquote

import msgspec

from penstock.core.errors import PenstockError
from penstock.edges.asgi import (
    Answer,
    access,
    error_answer,
    fault_answer,
    log_access,
    log_fault,
)
from penstock.ports.clock import Clock
from penstock.ports.metrics import MetricName, Metrics

BODY_BYTES_MAX = 64 * 1024
"""A hot route's body, unless it says otherwise."""

INFO = 20


class Request(msgspec.Struct, gc=False):
    """What a hot route is asked.

    Attributes:
        headers: By lower-case name; of several of one name the last.
        query: What follows the `?`, as sent.
        body: As sent, whole.
        param: The template's parameter, percent-decoded; empty if the template has none.
    """

    headers: dict[bytes, bytes]
    query: bytes = b""
    body: bytes = b""
    param: str = ""


Done = Callable[[Answer], None]


class Pending:
    """An answer that comes later, handed over by a plain call: no future, no turn of the loop.

    Whoever makes it calls `set` once, on the event loop; whoever serves it calls `then` once.
    """

    __slots__ = ("_answer", "_done")

    def __init__(self) -> None:
        self._answer: Answer | None = None
        self._done: Done | None = None

    def set(self, answer: Answer) -> None:
        """Give the answer. What goes wrong with one waiter is no business of its group: it is logged."""
        if self._done is None:
            self._answer = answer
            return
        try:
            self._done(answer)
        except Exception as error:  # noqa: BLE001 - the others of the group must be answered
            log_fault(error)

    def then(self, done: Done) -> None:
        """Name who is to be called with the answer; at once if it is there already."""
        if self._answer is None:
            self._done = done
        else:
            done(self._answer)

    def __await__(self) -> Generator[Any, Any, Answer]:
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self.then(lambda answer: None if future.done() else future.set_result(answer))
        return future.__await__()


Hot = Callable[[Request], Answer | Pending | Awaitable[Answer]]


class Refuse(Protocol):
    """Makes the answer to an error that a route raised, or that its server found."""

    def __call__(self, request: Request, error: PenstockError) -> Answer:
        """Return the answer; the request may lack its body."""
        ...


STATUS: Final = {"E372": 413, "E377": 408, "E383": 431}
"""By code, of what never was a whole request."""


def refuse(request: Request, error: PenstockError) -> Answer:
    """Return the usual answer to an error: 408, 413 and 431 for what never was a whole request."""
    return error_answer(error, STATUS.get(error.code, 0))


class Shed(NamedTuple):
    """How a route turns requests away while it takes no more of them, at the least cost."""

    pressed: Callable[[], bool]
    """Whether any may be turned away now: asked of every request, before it is parsed."""
    answer: Callable[[Request], Answer | None]
    """The answer to one that is, or None. It may be asked twice: with the whole request, and before it is
    parsed, with its body and of its headers the origin alone, if nothing else matters."""


class _Eager:
    """Runs a coroutine that waits for futures, as a task of Python 3.12 that is made eager does."""

    __slots__ = ("_coroutine",)

    def __init__(self, coroutine: Coroutine[Any, Any, None]) -> None:
        self._coroutine = coroutine

    def step(self, _: object = None) -> None:
        """Go on until it waits again, or ends."""
        try:
            waits_for = self._coroutine.send(None)
        except StopIteration:
            return
        except asyncio.CancelledError:
            return  # the server stops
        except Exception as error:  # noqa: BLE001 - nobody else hears of it
            log_fault(error)
            return
        if waits_for is None:  # `asyncio.sleep(0)`
            asyncio.get_running_loop().call_soon(self.step)
            return
        waits_for._asyncio_future_blocking = False  # noqa: SLF001 - how a future knows that it was awaited
        waits_for.add_done_callback(self.step)


class Route:
    """A hot route: its function, its limit, and how its requests are counted.

    Args:
        method: `GET` or `POST`.
        template: Its path, such as `/v1/profiles/{identifier}`; also its label in metrics and logs.
        function: Answers; see the module.
        clock: For the access log and the time taken.
        metrics: Where requests are counted.
        body_bytes_max: Beyond it a request is refused before it is all read (E372).
        refuse: Makes answers of errors.
        seconds: A histogram with the label `route` that gets the time to each answer, in seconds.
        shed: Asked before the function.
        eager: A coroutine that the function returns has its first step at once, not at the loop's next
            turn, and is no task: it must not ask for the current one, as `asyncio.timeout` does.
    """

    def __init__(  # noqa: PLR0913 - all that a route may be told
        self, method: str, template: str, function: Hot, *, clock: Clock, metrics: Metrics,
        body_bytes_max: int = BODY_BYTES_MAX, refuse: Refuse = refuse, seconds: MetricName | None = None,
        shed: Shed | None = None, eager: bool = False,
    ) -> None:  # fmt: skip
        assert method in {"GET", "POST"}, "a hot route is asked by GET or POST"
        head, brace, name = template.partition("{")
        assert head.startswith("/"), "a template is an absolute path"
        assert not brace or (head.endswith("/") and name.endswith("}") and "/" not in name), (
            "a template's one parameter is its last segment"
        )
        self.method = method
        self.template = template
        self.function = function
        self.body_bytes_max = body_bytes_max
        self.refuse = refuse
        self.shed = shed
        self.eager = eager
        self.parameter = name.removesuffix("}")
        self.fixed = head
        """The template without its parameter."""
        self._now_ms = clock.monotonic_ms
        self._metrics = metrics
        self._observe = metrics.bound(seconds, route=template) if seconds else None
        self._counts: dict[int, Callable[[float], None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def begin(self, request: Request, done: Done) -> None:
        """Answer a request: `done` is called once with the answer, now or later, on the loop."""
        started_ms = self._now_ms()
        try:
            result = None if self.shed is None else self.shed.answer(request)
            if result is None:
                result = self.function(request)
        except PenstockError as error:
            result = self.refuse(request, error)
        except Exception as error:  # noqa: BLE001 - whoever asks must hear what to do next
            result = fault_answer(error)
        if result.__class__ is Answer:
            answer = cast("Answer", result)
            self.finish(answer, started_ms)
            done(answer)
        elif result.__class__ is Pending:

            def settle(answer: Answer) -> None:
                self.finish(answer, started_ms)
                done(answer)

            cast("Pending", result).then(settle)
        else:
            waiting = self._settle(request, cast("Awaitable[Answer]", result), started_ms, done)
            if self.eager:
                _Eager(waiting).step()
                return
            task = asyncio.get_running_loop().create_task(waiting)
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _settle(
        self, request: Request, result: Awaitable[Answer], started_ms: int, done: Done
    ) -> None:
        try:
            answer = await result
        except PenstockError as error:
            answer = self.refuse(request, error)
        except Exception as error:  # noqa: BLE001 - whoever asks must hear what to do next
            answer = fault_answer(error)
        self.finish(answer, started_ms)
        done(answer)

    def turned_away(self, request: Request) -> Answer | None:
        """Return the answer to a request that is not let in, before it is parsed; None if it is to be."""
        assert self.shed is not None, "a route that sheds"
        try:
            answer = self.shed.answer(request)
        except Exception:  # noqa: BLE001 - whatever is wrong with it is told once it is parsed
            return None
        if answer is not None:
            self.finish(answer, self._now_ms())
        return answer

    def refused(self, request: Request, error: PenstockError) -> Answer:
        """Return the answer to a request that its server refused before the function saw it."""
        answer = self.refuse(request, error)
        self.finish(answer, self._now_ms())
        return answer

    def finish(self, answer: Answer, started_ms: int) -> None:
        """Count a request, and log it if anybody reads the log."""
        status = answer.status
        count = self._counts.get(status)
        if count is None:
            count = self._metrics.bound(
                "penstock_requests_total", route=self.template, status=str(status)
            )
            self._counts[status] = count
        count(1)
        if self._observe is not None:
            self._observe((self._now_ms() - started_ms) / 1000)
        if access.isEnabledFor(INFO):
            log_access(self.method, self.template, status, self._now_ms() - started_ms)


class Table:
    """Hot routes by method and path.

    Args:
        routes: Each registered once.
    """

    def __init__(self, routes: Iterable[Route]) -> None:
        self._exact: dict[bytes, Route] = {}
        self._with_parameter: dict[bytes, Route] = {}
        for route in routes:
            table = self._with_parameter if route.parameter else self._exact
            key = f"{route.method} {route.fixed}".encode()
            assert key not in table, "a hot route is registered once"
            table[key] = route

    def find(self, key: bytes) -> tuple[Route | None, str]:
        """Return the hot route of `METHOD /path` and its parameter; None if the app must be asked."""
        route = self._exact.get(key)
        if route is not None:
            return route, ""
        cut = key.rfind(b"/") + 1
        route = self._with_parameter.get(key[:cut])
        if route is None:
            return None, ""
        try:
            value = key[cut:].decode("ascii")
        except UnicodeDecodeError:
            return None, ""
        if "%" in value:
            value = unquote(value)
        # An encoded slash makes another path of it, and frameworks differ about what; the app decides.
        return (route, value) if value and "/" not in value and "#" not in value else (None, "")
