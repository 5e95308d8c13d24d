"""What a connection of ours does with requests that are odd, slow, large, many or half."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

import pytest
from litestar import Litestar, get

from penstock.adapters.metrics.memory import MemoryMetrics
from penstock.core.errors import EventRejected, Overloaded
from penstock.edges.asgi import Answer, json_answer
from penstock.edges.fast import FastServer
from penstock.edges.framework import mounted
from penstock.edges.limits import Limits
from penstock.edges.route import Pending, Request, Route
from penstock.testing.clock import HandClock
from tests.edges.fast.conftest import Listening, Wire

pytestmark = pytest.mark.anyio

GET = "GET /echo/x HTTP/1.1\r\nhost: h\r\n\r\n"


def post(body: str, *headers: str, path: str = "/echo") -> str:
    lines = "".join(f"{header}\r\n" for header in headers)
    return f"POST {path} HTTP/1.1\r\nhost: h\r\n{lines}content-length: {len(body)}\r\n\r\n{body}"


class Served(NamedTuple):
    server: FastServer
    listening: Listening
    metrics: MemoryMetrics
    pending: list[Pending]

    async def open(self) -> Wire:
        return await self.listening.open()


@asynccontextmanager
async def serving(listening, **limits) -> AsyncIterator[Served]:
    clock, metrics = HandClock(0), MemoryMetrics()
    waiting: list[Pending] = []

    def echo(request: Request) -> Answer:
        return json_answer(200, {"body": request.body.decode("latin-1"), "param": request.param,
                                 "query": request.query.decode()})  # fmt: skip

    def later(request: Request) -> Pending:
        waiting.append(Pending())
        return waiting[-1]

    async def soon(request: Request) -> Answer:
        await asyncio.sleep(0)
        return json_answer(200, {"soon": request.param})

    def fail(request: Request) -> Answer:
        if request.query == b"bug":
            raise ValueError("bob@example.com")
        if request.query == b"busy":
            raise Overloaded("E430", "too many", fix="retry", retry_after_s=2)
        raise EventRejected("E300", "no JSON", fix="send some", where="$")

    hot = [
        Route(method, path, function, clock=clock, metrics=metrics, body_bytes_max=100_000)
        for method, path, function in (
            ("POST", "/echo", echo), ("GET", "/echo/{what}", echo), ("GET", "/later", later),
            ("POST", "/later", later), ("GET", "/soon/{what}", soon), ("GET", "/fail", fail),
        )
    ]  # fmt: skip

    @get("/cold")
    async def cold() -> dict[str, str]:
        return {"cold": "yes"}

    app = Litestar([*map(mounted, hot), cold], openapi_config=None, logging_config=None)
    server = FastServer(hot, metrics=metrics, limits=Limits(**limits))
    async with listening(app, server) as open_server:
        try:
            yield Served(server, open_server, metrics, waiting)
        finally:
            for one in waiting:
                one.set(json_answer(200, {}))


async def test_a_hot_and_an_ordinary_route_answer_on_one_connection(listening):
    async with serving(listening) as served:
        wire = await served.open()
        assert {"body": "hi", "param": "", "query": ""} == json.loads(
            (await wire.ask(post("hi"))).body
        )
        assert {"cold": "yes"} == json.loads(
            (await wire.ask("GET /cold HTTP/1.1\r\nhost: h\r\n\r\n")).body
        )
        answer = await wire.ask("GET /echo/a%3Ab?x=%20 HTTP/1.1\r\nhost: h\r\n\r\n")
        assert {"body": "", "param": "a:b", "query": "x=%20"} == json.loads(answer.body)
        assert {"soon": "s"} == json.loads(
            (await wire.ask("GET /soon/s HTTP/1.1\r\nhost: h\r\n\r\n")).body
        )


async def test_requests_sent_ahead_are_answered_in_their_order(listening):
    async with serving(listening) as served:
        wire = await served.open()
        wire.send(
            "GET /later HTTP/1.1\r\nhost: h\r\n\r\n", GET, "GET /cold HTTP/1.1\r\nhost: h\r\n\r\n",
            "GET /soon/2 HTTP/1.1\r\nhost: h\r\n\r\n", "GET /fail HTTP/1.1\r\nhost: h\r\n\r\n",
            post("last", "connection: close"), GET,
        )  # fmt: skip
        await served.listening.until(lambda: bool(served.pending))
        served.pending[0].set(json_answer(200, {"later": 1}))
        bodies = [json.loads((await wire.answer()).body) for _ in range(6)]
        assert [{"later": 1}, "x", {"cold": "yes"}, {"soon": "2"}, "E300", "last"] == [
            bodies[0], bodies[1]["param"], bodies[2], bodies[3], bodies[4]["code"], bodies[5]["body"],
        ]  # fmt: skip
        # What came after `Connection: close` is not looked at.
        assert b"" == await wire.rest()


async def test_too_many_requests_sent_ahead_are_cut_off_with_a_word(listening):
    async with serving(listening, ahead=3) as served:
        wire = await served.open()
        wire.send("GET /later HTTP/1.1\r\nhost: h\r\n\r\n", GET * 50)
        await served.listening.until(lambda: bool(served.pending))
        served.pending[0].set(json_answer(200, {}))
        assert [200] * 4 + [429] == [(await wire.answer()).status for _ in range(5)]
        assert b"" == await wire.rest()
        assert 1 == served.metrics.value("penstock_requests_total", route="(none)", status="429")


@pytest.mark.parametrize("pieces", [1, 2, 7])
async def test_a_request_may_arrive_in_any_pieces(listening, pieces):
    async with serving(listening) as served:
        wire = await served.open()
        raw = post("in pieces", "x-long: " + "v" * 50).encode()
        for start in range(0, len(raw), pieces):
            wire.send(raw[start : start + pieces])
            await wire.writer.drain()
            await asyncio.sleep(0)
        assert "in pieces" == json.loads((await wire.answer()).body)["body"]


async def test_a_chunked_body_is_read_whole_and_its_trailers_are_no_headers(listening):
    async with serving(listening) as served:
        wire = await served.open()
        head = "POST /echo HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n"
        answer = await wire.ask(head, "3\r\nabc\r\n2;ext=1\r\nde\r\n0\r\norigin: x\r\n\r\n")
        assert "abcde" == json.loads(answer.body)["body"]
        assert 200 == (await wire.ask(GET)).status


@pytest.mark.parametrize(
    ("raw", "status", "code"),
    [
        ("POST /echo HTTP/1.1\r\ncontent-length: 100001\r\n\r\n", 413, "E372"),
        ("POST /cold HTTP/1.1\r\ncontent-length: 99999999999\r\n\r\n", 413, "E372"),
        ("POST /echo HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n186a1\r\n" + "x" * 100_001, 413, "E372"),
        ("POST /echo HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n" + "1;" + "e" * 40_000 + "\r\nx\r\n", 200, ""),
        ("GET /echo/x HTTP/1.1\r\nx: " + "v" * 40_000 + "\r\n\r\n", 431, "E383"),
        ("GET /cold?" + "q" * 40_000 + " HTTP/1.1\r\nhost: h\r\n\r\n", 431, "E383"),
        ("GET /echo/x HTTP/1.1\r\n" + "".join(f"h{n}: v\r\n" for n in range(5_000)) + "\r\n", 431, "E383"),
        ("nonsense\r\n\r\n", 400, "E384"),
        ("GET /echo/x HTTP/1.1\r\nno colon\r\n\r\n", 400, "E384"),
        ("GET /cold\xff HTTP/1.1\r\nhost: h\r\n\r\n", 400, "E384"),
        ("POST /echo HTTP/1.1\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n", 400, "E384"),
        ("POST /echo HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n", 400, "E384"),
        ("POST /echo HTTP/1.1\r\ncontent-length: -1\r\n\r\n", 400, "E384"),
        ("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400, "E384"),
    ],
)  # fmt: skip
async def test_what_is_refused_is_told_why_and_closed(listening, raw, status, code):
    async with serving(listening) as served:
        wire = await served.open()
        wire.send(raw.encode("latin-1"), "0\r\n\r\n" if status == 200 else "")
        answer = await wire.answer()
        assert status == answer.status
        if code:
            body = json.loads(answer.body)
            assert (code, False) == (body["code"], body["success"])
            assert body["fix"]
            assert "close" == answer.headers["connection"]
            assert b"" == await wire.rest()


async def test_headers_that_never_end_are_cut_off(listening):
    async with serving(listening) as served:
        wire = await served.open()
        wire.send("GET /echo/x HTTP/1.1\r\n")
        answer = asyncio.create_task(wire.answer())
        while not answer.done():
            wire.send("a: " + "b" * 1000 + "\r\n")
            await asyncio.sleep(0)
        assert 431 == answer.result().status


async def test_trailers_that_never_end_are_cut_off(listening):
    async with serving(listening) as served:
        wire = await served.open()
        wire.send("POST /echo HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n")
        answer = asyncio.create_task(wire.answer())
        while not answer.done():
            wire.send("a: " + "b" * 60_000 + "\r\n")
            await asyncio.sleep(0)
        assert 413 == answer.result().status


@pytest.mark.parametrize(
    "part",
    [
        "POST /echo HTTP/1.1\r\nhost: h\r\n",  # slow-loris
        "POST /echo HTTP/1.1\r\nhost: h\r\ncontent-length: 10\r\n\r\nabc",
        "POST /cold HTTP/1.1\r\nhost: h\r\ncontent-length: 10\r\n\r\nabc",
    ],
)
async def test_a_request_that_does_not_arrive_is_408(listening, part):
    async with serving(listening) as served:
        wire = await served.open()
        wire.send(part)
        await served.listening.until(lambda: served.listening.connections[0]._phase != 0)
        served.server.crowd.pass_time(31)
        answer = await wire.answer()
        assert (408, "E377") == (answer.status, json.loads(answer.body)["code"])
        assert b"" == await wire.rest()


async def test_a_drip_of_bytes_does_not_renew_the_time_for_a_head(listening):
    async with serving(listening) as served:
        wire = await served.open()
        wire.send("GET /echo/x HTTP/1.1\r\n")
        for second in range(20):
            wire.send(f"h{second}: v\r\n")
            await wire.writer.drain()
            await asyncio.sleep(0)
            served.server.crowd.pass_time(1)
        assert 408 == (await wire.answer()).status


async def test_an_idle_connection_is_closed_after_the_keep_alive_and_not_before(listening):
    async with serving(listening) as served:
        wire = await served.open()
        assert 200 == (await wire.ask(GET)).status
        served.server.crowd.pass_time(5)
        assert 200 == (await wire.ask(GET)).status
        served.server.crowd.pass_time(6)
        assert b"" == await wire.rest()


async def test_an_answer_that_takes_long_is_waited_for(listening):
    async with serving(listening) as served:
        wire = await served.open()
        wire.send("GET /later HTTP/1.1\r\nhost: h\r\n\r\n")
        await served.listening.until(lambda: bool(served.pending))
        served.server.crowd.pass_time(1_000)
        served.pending[0].set(json_answer(200, {"late": True}))
        assert {"late": True} == json.loads((await wire.answer()).body)


async def test_a_refused_client_that_goes_on_sending_can_read_why_and_is_then_cut_off(listening):
    async with serving(listening) as served:
        wire = await served.open()
        wire.send("POST /echo HTTP/1.1\r\ncontent-length: 1000000\r\n\r\n", b"x" * 300_000)
        assert 413 == (await wire.answer()).status
        assert served.listening.state.connections
        served.server.crowd.pass_time(3)
        await served.listening.until(lambda: not served.listening.state.connections)


async def test_a_client_that_takes_no_answer_is_cut_off(listening):
    async with serving(listening) as served:
        wire = await served.open()
        wire.writer.transport.pause_reading()
        connection = None
        while connection is None or not connection._write_stuck:
            wire.send(post("x" * 90_000))
            await asyncio.sleep(0)
            connection = served.listening.connections[0]
        served.server.crowd.pass_time(31)
        await served.listening.until(lambda: not served.listening.state.connections)


async def test_a_client_that_left_takes_nothing_from_the_others(listening, caplog):
    async with serving(listening) as served:
        wires = [await served.open() for _ in range(3)]
        for wire in wires:
            wire.send("POST /later HTTP/1.1\r\nhost: h\r\ncontent-length: 0\r\n\r\n")
        await served.listening.until(lambda: len(served.pending) == 3)
        wires[1].writer.transport.abort()
        await served.listening.until(lambda: served.listening.connections[1]._closing)
        for number, pending in enumerate(served.pending):
            pending.set(json_answer(200, {"n": number}))
        assert {"n": 0} == json.loads((await wires[0].answer()).body)
        assert {"n": 2} == json.loads((await wires[2].answer()).body)
        await served.listening.until(lambda: len(served.listening.state.connections) == 2)
    assert "" == caplog.text


async def test_a_client_that_ends_its_own_side_gets_its_answer(listening):
    async with serving(listening) as served:
        wire = await served.open()
        wire.send("GET /later HTTP/1.1\r\nhost: h\r\n\r\n", GET)
        wire.writer.write_eof()
        await served.listening.until(lambda: bool(served.pending))
        await asyncio.sleep(0)
        served.pending[0].set(json_answer(200, {"n": 1}))
        assert [200, 200] == [(await wire.answer()).status for _ in range(2)]
        assert b"" == await wire.rest()


async def test_expect_100_continue_is_told_to_go_on_or_why_not(listening):
    async with serving(listening) as served:
        wire = await served.open()
        head = (
            "POST /echo HTTP/1.1\r\nhost: h\r\nexpect: 100-continue\r\ncontent-length: {}\r\n\r\n"
        )
        assert 100 == (await wire.ask(head.format(2))).status
        assert "ok" == json.loads((await wire.ask("ok")).body)["body"]
        assert 413 == (await wire.ask(head.format(200_000))).status


async def test_the_word_to_go_on_comes_after_the_answers_before_it(listening):
    async with serving(listening) as served:
        wire = await served.open()
        wire.send(
            "GET /later HTTP/1.1\r\nhost: h\r\n\r\n",
            "POST /echo HTTP/1.1\r\nhost: h\r\nexpect: 100-continue\r\ncontent-length: 2\r\n\r\n",
        )
        await served.listening.until(lambda: bool(served.pending))
        served.pending[0].set(json_answer(200, {}))
        assert [200, 100] == [(await wire.answer()).status for _ in range(2)]
        assert "ok" == json.loads((await wire.ask("ok")).body)["body"]


@pytest.mark.parametrize(
    ("raw", "closes"),
    [
        ("GET /echo/x HTTP/1.0\r\n\r\n", True),
        ("GET /echo/x HTTP/1.0\r\nconnection: keep-alive\r\n\r\n", True),
        ("GET /echo/x HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n", True),
        ("GET /cold HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n", True),
        ("GET /echo/x HTTP/1.1\r\nhost: h\r\nconnection: keep-alive\r\n\r\n", False),
        ("GET /echo/x HTTP/1.1\r\nhost: h\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n", True),
    ],
)  # fmt: skip
async def test_a_connection_is_kept_or_closed_as_was_asked(listening, raw, closes):
    async with serving(listening) as served:
        wire = await served.open()
        answer = await wire.ask(raw)
        assert (200, closes) == (answer.status, answer.headers.get("connection") == "close")
        if closes:
            assert b"" == await wire.rest()
        else:
            assert 200 == (await wire.ask(GET)).status


async def test_head_and_options_go_to_the_application(listening):
    async with serving(listening) as served:
        wire = await served.open()
        wire.send("HEAD /cold HTTP/1.1\r\nhost: h\r\n\r\n")
        assert 405 == (await wire.answer("HEAD")).status
        assert 204 == (await wire.ask("OPTIONS /echo HTTP/1.1\r\nhost: h\r\n\r\n")).status
        assert 200 == (await wire.ask(GET)).status


async def test_errors_and_bugs_are_answered_in_one_shape(listening, caplog):
    async with serving(listening) as served:
        wire = await served.open()
        answers = [
            await wire.ask(f"GET /fail{query} HTTP/1.1\r\nhost: h\r\n\r\n")
            for query in ("", "?busy", "?bug")
        ]
        assert [(400, "E300"), (429, "E430"), (503, "E433")] == [
            (answer.status, json.loads(answer.body)["code"]) for answer in answers
        ]
        assert "2" == answers[1].headers["retry-after"]
        count = served.metrics.value
        for status in ("400", "429", "503"):
            assert 1 == count("penstock_requests_total", route="/fail", status=status)
        assert 0 == count("penstock_requests_total", route="/echo/{what}", status="200")
    assert "bob@" not in caplog.text


async def test_bodies_that_fill_the_memory_are_refused_and_a_single_event_never_is(listening):
    async with serving(listening, held_bytes=40_000, small_body_bytes=1_000) as served:
        slow = [await served.open() for _ in range(3)]
        head = "POST /echo HTTP/1.1\r\ncontent-length: 50000\r\n\r\n"
        for wire, size in ((slow[0], 39_000), (slow[2], 500)):
            held = served.server.held_bytes
            wire.send(head, "x" * size)
            await served.listening.until(lambda held=held: served.server.held_bytes > held)
        slow[1].send(head, "x" * 20_000)
        refused = await slow[1].answer()
        assert (429, "E435") == (refused.status, json.loads(refused.body)["code"])
        small = await served.open()
        assert 200 == (await small.ask(post("one event"))).status
        slow[2].send("x" * 300)
        slow[0].writer.transport.abort()
        await served.listening.until(lambda: served.server.held_bytes < 30_000)


async def test_a_drain_answers_what_was_begun_and_closes_what_is_idle(listening):
    async with serving(listening) as served:
        idle, busy, half = [await served.open() for _ in range(3)]
        assert 200 == (await idle.ask(GET)).status
        busy.send("GET /later HTTP/1.1\r\nhost: h\r\n\r\n")
        half.send("POST /echo HTTP/1.1\r\nhost: h\r\ncontent-length: 4\r\n\r\nha")
        await served.listening.until(
            lambda: bool(served.pending) and served.listening.connections[2]._phase != 0
        )
        for connection in list(served.listening.state.connections):
            connection.shutdown()
        assert b"" == await idle.rest()
        served.pending[0].set(json_answer(200, {"n": 1}))
        half.send("lf")
        for wire in (busy, half):
            answer = await wire.answer()
            assert (200, "close") == (answer.status, answer.headers["connection"])
            assert b"" == await wire.rest()
