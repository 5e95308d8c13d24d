"""What is refused before it is parsed: the very answers that it would get parsed, and nothing else."""

import json
import re
from contextlib import AsyncExitStack
from typing import Any

import httptools
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.adapters.metrics.memory import MemoryMetrics
from penstock.edges.asgi import Answer, json_answer
from penstock.edges.collector.admission import BURST_MS_MAX
from penstock.edges.fast import FastServer
from penstock.edges.route import Request, Route, Shed
from penstock.edges.turnstile import Turnstile
from penstock.ports.appender import Waits
from penstock.testing.clock import HandClock
from tests.edges.collector.conftest import _collecting, track
from tests.edges.fast.test_fast_differential import (
    AUTH,
    ORIGIN,
    REQUESTS,
    _kept,
    _requests,
    chunked,
    post,
)


def behind() -> Waits:
    """A fold so far behind that nothing ordinary is let in."""
    return Waits(0, BURST_MS_MAX + 1)


@pytest.mark.anyio
async def test_under_pressure_both_servers_give_the_same_answers_and_count_the_same(listening):
    async with AsyncExitStack() as stack:
        ours = await stack.enter_async_context(_collecting(waits=behind))
        theirs = await stack.enter_async_context(_collecting(waits=behind))
        fast = FastServer(ours.edge.routes, metrics=ours.metrics)
        served = [
            await stack.enter_async_context(listening(ours.app, fast)),
            await stack.enter_async_context(listening(theirs.app)),
        ]
        refused = 0
        for name, raw in REQUESTS.items():
            mine, other = [
                await _answer(server, raw, raw.split(b" ", 1)[0].decode()) for server in served
            ]
            assert (other.status, other.body) == (mine.status, mine.body), name
            assert _kept(other) == _kept(mine), name
            refused += mine.status == 429
        assert refused > 30
        assert theirs.records() == ours.records()
        assert _requests(theirs) == _requests(ours)


async def _answer(server: Any, raw: bytes, method: str) -> Any:
    wire = await server.open()
    wire.send(raw)
    return await wire.answer(method)


@pytest.mark.anyio
async def test_requests_sent_ahead_are_answered_in_order_whoever_answers_them(listening):
    gone = post("/v1/track", track("gone", "Unsubscribed", properties={}), AUTH)
    ahead = [post("/v1/track", track(f"m-{n}"), AUTH, ORIGIN) for n in range(3)]
    many = [*ahead, gone, chunked("/v1/track", b"{}"), *ahead]
    async with _collecting(waits=behind) as shop:
        fast = FastServer(shop.edge.routes, metrics=shop.metrics)
        async with listening(shop.app, fast) as server:
            wire = await server.open()
            wire.send(b"".join(many))
            answers = [await wire.answer() for _ in many]
        assert [429] * 3 + [200] + [429] * 4 == [answer.status for answer in answers]
        assert ["gone"] == [record.message_id for record in shop.records()]
        hints = {int(answer.headers["retry-after"]) for answer in answers if answer.status == 429}
        assert len(hints) > 3, "they do not all come again at once"
        assert 8 == server.state.total_requests


@pytest.mark.anyio
async def test_a_request_that_comes_in_pieces_is_refused_all_the_same(listening):
    raw = post("/v1/track", track("m-1"), AUTH)
    async with _collecting(waits=behind) as shop:
        fast = FastServer(shop.edge.routes, metrics=shop.metrics)
        async with listening(shop.app, fast) as server:
            for cut in (1, 40, len(raw) - 1):
                wire = await server.open()
                wire.send(raw[:cut])
                await wire.writer.drain()
                await server.until(lambda: any(one._phase for one in server.connections))
                wire.send(raw[cut:], raw)
                assert [429, 429] == [(await wire.answer()).status for _ in range(2)]


REFUSAL = json_answer(429, {})
CLOCK = HandClock(0)


def turnstile(*, pressed: bool = True, body_bytes_max: int = 100) -> Turnstile:
    """A turnstile before two routes that refuse whatever does not hold `consent`."""

    def taken(request: Request) -> Answer:
        return json_answer(200, {})

    def shed(request: Request) -> Answer | None:
        return None if b"consent" in request.body else REFUSAL

    routes = [
        Route("POST", path, taken, clock=CLOCK, metrics=MemoryMetrics(), body_bytes_max=body_bytes_max,
              shed=Shed(lambda: pressed, shed))
        for path in ("/v1/track", "/v1/batch")
    ]  # fmt: skip
    return Turnstile([*routes, Route("GET", "/x", taken, clock=CLOCK, metrics=MemoryMetrics())])


PLAIN = b"POST /v1/track HTTP/1.1\r\nhost: h\r\nContent-Length: 3\r\n\r\nabc"


def test_a_plain_request_is_turned_away_and_only_under_pressure():
    assert ([REFUSAL], len(PLAIN)) == turnstile().turn_away(PLAIN)
    assert ([REFUSAL] * 2, 2 * len(PLAIN)) == turnstile().turn_away(PLAIN * 2 + PLAIN[:-1])
    assert turnstile(pressed=False).turn_away(PLAIN) is None
    assert turnstile(body_bytes_max=2).turn_away(PLAIN) is None
    assert turnstile().turn_away(PLAIN.replace(b"abc", b"consent").replace(b": 3", b": 7")) is None


@pytest.mark.parametrize(
    "line",
    [
        "Transfer-Encoding: chunked", "content-encoding: gzip", "Expect: 100-continue", "Connection: close",
        "connection: keep-alive, upgrade", "Upgrade: h2c", "content-length: 3", "Content-Length : 3",
        "x: y\n z: w", "x: y\r\n folded", "origin",
    ],
)  # fmt: skip
def test_whoever_wants_more_than_a_plain_request_is_parsed(line):
    raw = PLAIN.replace(b"host: h", b"host: h\r\n" + line.encode())
    assert turnstile().turn_away(raw) is None


@pytest.mark.parametrize(
    "raw",
    [
        b"", b"POST", PLAIN[:-1], PLAIN[:40], PLAIN.replace(b"1.1", b"1.0"), PLAIN.replace(b"POST", b"PUT"),
        PLAIN.replace(b"track", b"track?a=b"), PLAIN.replace(b"track", b"nothing"), PLAIN.replace(b": 3", b": -3"),
        PLAIN.replace(b": 3", b": x"), PLAIN.replace(b"Content-Length: 3\r\n", b""), b"\r\n" + PLAIN,
        PLAIN.replace(b"\r\n", b"\n"), b"GET /x HTTP/1.1\r\nhost: h\r\ncontent-length: 0\r\n\r\n",
    ],
)  # fmt: skip
def test_what_is_not_whole_or_plain_is_parsed(raw):
    assert turnstile().turn_away(raw) is None


_NO_NAME = re.compile(rb"\r\n(?!content-length|transfer-encoding)[\w-]+ :", re.IGNORECASE)


class Whole:
    """Counts the requests that the parser finds whole."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.body = b""

    def on_message_begin(self) -> None:
        self.body = b""

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.bodies.append(self.body)


NAMES = st.sampled_from(
    ["host", "Origin", "connection", "CONTENT-LENGTH", "accept", "transfer-encoding", "content-type", "x"]
)  # fmt: skip
VALUES = st.sampled_from(
    ["h", "keep-alive", "close", "0", "3", "5", " 3 ", "chunked", "https://shop.example", "application/json", ""]
)  # fmt: skip
HEADERS = st.lists(st.tuples(NAMES, st.sampled_from([": ", ":", " :", ":\t"]), VALUES), max_size=4)
BODIES = st.sampled_from([b"", b"abc", b"hello", b"\r\n\r\n", b"POST ", b"consent"])
PATHS = st.sampled_from(["/v1/track", "/v1/batch", "/v1/nothing"])


@st.composite
def streams(draw) -> bytes:
    parts: list[bytes] = []
    for _ in range(draw(st.integers(1, 4))):
        body = draw(BODIES)
        lines = [f"{name}{colon}{value}" for name, colon, value in draw(HEADERS)]
        if draw(st.booleans()):
            lines.insert(draw(st.integers(0, len(lines))), f"content-length: {len(body)}")
        head = "\r\n".join([f"POST {draw(PATHS)} HTTP/1.1", *lines])
        parts.append(head.encode() + b"\r\n\r\n" + body)
    raw = b"".join(parts)
    return raw[: draw(st.integers(0, len(raw)))]


@given(streams())
def test_law_what_is_turned_away_is_what_the_parser_finds_whole(raw):
    """Where one request ends and the next begins is the same for both, whatever is sent."""
    away = turnstile().turn_away(raw)
    if away is None:
        return
    whole = Whole()
    parser: Any = httptools.HttpRequestParser(whole)
    why = ""
    try:
        parser.feed_data(raw[: away.size])
    except httptools.HttpParserError as error:
        why = str(error)
    if why:
        # A name that is none, such as "host ", would be told so; turned away it is told to come again.
        assert why.startswith("Invalid header"), why
        assert _NO_NAME.search(raw[: away.size])
        return
    assert len(away.answers) == len(whole.bodies)
    assert parser.should_keep_alive()
    assert not any(b"consent" in body for body in whole.bodies)


def test_an_answer_is_for_the_page_that_asked():
    seen: list[Request] = []

    def shed(request: Request) -> Answer | None:
        seen.append(request)
        return REFUSAL

    route = Route("POST", "/v1/track", lambda request: REFUSAL, clock=CLOCK, metrics=MemoryMetrics(),
                  shed=Shed(lambda: True, shed))  # fmt: skip
    raw = PLAIN.replace(b"host: h", b"host: h\r\nOrigin:  https://shop.example ")
    assert Turnstile([route]).turn_away(raw) is not None
    assert [({b"origin": b"https://shop.example"}, b"abc")] == [
        (one.headers, one.body) for one in seen
    ]
    assert json.loads(REFUSAL.body) == {}
