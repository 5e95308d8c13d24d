"""An application that is loaded while hot routes answer: who needs it waits, and nobody is forgotten."""

import asyncio
import subprocess
import sys
from threading import Event

import pytest

from penstock.adapters.metrics.memory import MemoryMetrics
from penstock.edges.asgi import Answer
from penstock.edges.fast import FastServer
from penstock.edges.later import LaterApp
from penstock.edges.route import Request, Route
from penstock.testing.clock import HandClock

pytestmark = pytest.mark.anyio

LATEST = """
import sys
import penstock.cli.main, penstock.cli.up
print([name for name in ("litestar", "penstock.application") if name in sys.modules])
"""


def get(path: str) -> str:
    return f"GET {path} HTTP/1.1\r\nhost: h\r\n\r\n"


async def cold(scope, receive, send) -> None:
    await Answer(200, b"cold")(scope, receive, send)


async def test_a_hot_route_does_not_wait_for_the_application_and_a_cold_one_does(listening):
    may_load = Event()

    def make():
        may_load.wait(10)
        return cold

    def hot(_: Request) -> Answer:
        return Answer(200, b"hot")

    metrics = MemoryMetrics()
    later = LaterApp(make)
    route = Route("GET", "/hot", hot, clock=HandClock(), metrics=metrics)
    async with listening(later, FastServer([route], metrics=metrics)) as server:
        loading = asyncio.create_task(later.load())
        gone, waiting, wire = [await server.open() for _ in range(3)]
        gone.send(get("/cold"))
        waiting.send(get("/cold"))
        assert b"hot" == (await wire.ask(get("/hot"))).body
        gone.writer.close()  # whoever gives up takes it from nobody
        await server.until(lambda: len(server.state.connections) == 2)
        may_load.set()
        assert b"cold" == (await waiting.answer()).body
        await loading
        assert b"cold" == (await wire.ask(get("/cold"))).body


async def test_an_application_that_cannot_be_loaded_fails_for_all_who_ask(listening):
    def make():
        raise ValueError("a value that nobody is to read")

    later = LaterApp(make)
    async with listening(later, FastServer([], metrics=MemoryMetrics())) as server:
        waiting = await server.open()
        waiting.send(get("/cold"))
        with pytest.raises(ValueError, match="nobody"):
            await later.load()
        for wire in (waiting, await server.open()):
            if wire is not waiting:
                wire.send(get("/cold"))
            answer = await wire.answer()
            assert (503, False) == (answer.status, b"nobody" in answer.body)


def test_a_start_imports_no_framework_before_it_answers():
    done = subprocess.run(
        [sys.executable, "-c", LATEST], capture_output=True, text=True, check=True, timeout=60
    )
    assert "[]" == done.stdout.strip()
