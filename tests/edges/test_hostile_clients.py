"""Hostile clients against `penstock up` as a real process: slow, huge, many; good ones go on meanwhile.

The small versions run always; those with thousands of connections are slow tests.
"""

import asyncio
import base64
import gzip
import json
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.edges.conftest import ROOT
from tests.edges.fast.conftest import Reply, Wire

pytestmark = pytest.mark.anyio

LINUX = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read in /proc")
KEY = "wk-hostile-server"
BASIC = base64.b64encode(f"{KEY}:".encode()).decode()
SETTINGS = f"""
[server]
read_keys = ["rk-hostile"]
head_timeout_s = {{head_s}}
request_timeout_s = {{request_s}}
connections_max = {{connections}}
idle_connections_max = {{idle}}
[sources.backend]
kind = "server"
write_key = "{KEY}"
basis = {{{{personalisation = "contract"}}}}
"""


class Shop(NamedTuple):
    port: int
    pid: int

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Wire]:
        wire = Wire(*await asyncio.open_connection("127.0.0.1", self.port))
        try:
            yield wire
        finally:
            wire.writer.close()
            with suppress(OSError):
                await wire.writer.wait_closed()

    async def ask(self, request: bytes | str) -> Reply:
        """Return the answer to one request on a connection of its own; status 0 if it was cut off."""
        try:
            async with self.open() as wire:
                return await wire.ask(request)
        except (ConnectionError, asyncio.IncompleteReadError):
            return Reply(0, {}, b"")

    def memory_kib(self, what: str = "VmRSS") -> int:
        text = Path(f"/proc/{self.pid}/status").read_text(encoding="utf-8")
        found = re.search(rf"{what}:\s+(\d+) kB", text)
        assert found is not None
        return int(found[1])

    async def metric(self, name: str) -> float:
        said = (await self.ask("GET /metrics HTTP/1.1\r\nhost: h\r\n\r\n")).body.decode()
        found = re.search(rf"^{re.escape(name)} (\S+)$", said, re.MULTILINE)
        return float(found[1]) if found else 0.0


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Shop]]:
    """Start `penstock up` on a shop of its own."""
    started: list[subprocess.Popen[str]] = []

    def begin(
        connections: int = 16_000, idle: int = 12_000, head_s: int = 15, request_s: int = 30
    ) -> Shop:
        folder = tmp_path / f"shop{len(started)}"
        folder.mkdir()
        for name in ("events.py", "features.py"):
            shutil.copy(ROOT / "examples" / "shop" / name, folder)
        settings = SETTINGS.format(
            connections=connections, idle=idle, head_s=head_s, request_s=request_s
        )
        (folder / "penstock.toml").write_text(settings, encoding="utf-8")
        process = subprocess.Popen(
            [sys.executable, "-c", "from penstock.cli.main import main; main()", "up", str(folder), "--port", "0"],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )  # fmt: skip
        started.append(process)
        assert process.stdout is not None
        said = []
        for line in process.stdout:
            said.append(line)
            if line.startswith("Penstock is up at "):
                return Shop(int(line.rpartition(":")[2]), process.pid)
        raise AssertionError("it never came up: " + "".join(said))

    yield begin
    for process in started:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)


def event(number: int) -> bytes:
    body = json.dumps({"type": "track", "event": "Product Viewed", "userId": f"u-{number % 50}",
                       "messageId": f"good-{number}", "properties": {"product_id": "p1"}}).encode()  # fmt: skip
    return post("/v1/track", body)


def post(path: str, body: bytes, *headers: str, length: int | None = None) -> bytes:
    lines = "".join(f"{one}\r\n" for one in (f"authorization: Basic {BASIC}", *headers))
    size = len(body) if length is None else length
    return (
        f"POST {path} HTTP/1.1\r\nhost: h\r\n{lines}content-length: {size}\r\n\r\n".encode() + body
    )


@asynccontextmanager
async def good_client(shop: Shop) -> AsyncIterator[list[int]]:
    """Send events, one at a time, on two connections and on new ones; yield their statuses."""
    statuses: list[int] = []
    ending = asyncio.Event()

    async def pause() -> bool:
        with suppress(TimeoutError):  # a client like many, not a load
            await asyncio.wait_for(ending.wait(), 0.01)
        return ending.is_set()

    async def stay() -> None:
        kept = True
        while not ending.is_set():
            async with shop.open() as wire:
                while kept and not await pause():
                    try:
                        answer = await wire.ask(event(len(statuses)))
                    except (ConnectionError, asyncio.IncompleteReadError):
                        statuses.append(0)
                        break
                    statuses.append(answer.status)
                    kept = "connection" not in answer.headers
            kept = True

    async def come_and_go() -> None:
        while not await pause():
            statuses.append((await shop.ask(event(len(statuses)))).status)

    async with asyncio.TaskGroup() as group:
        group.create_task(stay())
        group.create_task(come_and_go())
        try:
            yield statuses
        finally:
            ending.set()


def went_on(statuses: list[int]) -> bool:
    """Return whether good clients were answered: taken, or on a machine that stalls told to come again."""
    return {200, 429} >= set(statuses) and statuses.count(200) > statuses.count(429)


async def all_of(count: int, make: Callable[[int], Coroutine[Any, Any, Any]]) -> list[Any]:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(make(number)) for number in range(count)]
    return [task.result() for task in tasks]


@pytest.mark.parametrize("count", [40, pytest.param(3_000, marks=pytest.mark.slow)])
async def test_slow_clients_are_told_408_and_good_ones_go_on(start, count):
    shop = start(head_s=1, request_s=2)

    async def drip(number: int) -> int:
        async with shop.open() as wire:
            if number % 2:
                wire.send("POST /v1/track HTTP/1.1\r\nhost: h\r\nx: ")
            else:
                wire.send(post("/v1/track", b"{", length=10_000))
            told = asyncio.create_task(wire.answer())
            while not (await asyncio.wait([told], timeout=0.2))[0]:
                wire.send("a")
            return told.result().status

    async with good_client(shop) as statuses:
        assert {408} == set(await all_of(count, drip))
    assert went_on(statuses)


HUGE: dict[str, tuple[list[bytes], int, str]] = {
    "one long header": ([b"GET /v1/p HTTP/1.1\r\nx: " + b"a" * 1_000_000], 431, "E383"),
    "many headers": ([b"GET /v1/p HTTP/1.1\r\n" + b"x: 1\r\n" * 100_000], 431, "E383"),
    "a long target": ([b"GET /" + b"a" * 1_000_000], 431, "E383"),
    "a body as long as it says": ([post("/v1/track", b"", length=10**9)], 400, "E372"),
    "a body without end": (
        [b"POST /v1/batch HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n",
         *[b"10000\r\n" + b"a" * 65_536 + b"\r\n"] * 100],
        400, "E372",
    ),
    "a gzip bomb": (
        [post("/v1/batch", gzip.compress(bytes(50_000_000)), "content-encoding: gzip")], 400, "E372",
    ),
    "a gzip bomb of many members": (
        [post("/v1/batch", gzip.compress(bytes(300_000)) * 400, "content-encoding: gzip")], 400, "E372",
    ),
}  # fmt: skip


@LINUX
@pytest.mark.parametrize("count", [3, pytest.param(60, marks=pytest.mark.slow)])
async def test_huge_requests_are_refused_in_bounded_memory_and_good_ones_go_on(start, count):
    shop = start()
    kinds = list(HUGE.values())
    at_once = asyncio.Semaphore(70)

    async def send(number: int) -> tuple[int, str]:
        parts, _, _ = kinds[number % len(kinds)]
        async with at_once, shop.open() as wire:
            try:
                for part in parts:
                    wire.send(part)
                    with suppress(ConnectionError):
                        await wire.writer.drain()
                answer = await wire.answer()
            except (ConnectionError, asyncio.IncompleteReadError):
                return 0, ""
            return answer.status, json.loads(answer.body)["code"]

    async with good_client(shop) as statuses:
        assert 200 == (await shop.ask(event(-1))).status
        before = shop.memory_kib()
        answers = await all_of(count * len(kinds), send)
        grown = shop.memory_kib("VmHWM") - before
    for number, answer in enumerate(answers):
        _, status, code = kinds[number % len(kinds)]
        # Cut off in the middle, or told that others fill the memory: never taken, never a bug.
        assert answer in {(status, code), (0, ""), (429, "E435")}
    assert {(431, "E383"), (400, "E372")} <= set(answers)
    assert went_on(statuses)
    assert grown < 128 * 1024, "what is sent at once, however many are sent"


def allow_files(count: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < count:
        pytest.skip(f"needs {count} open files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, count), hard))


@LINUX
@pytest.mark.parametrize("count", [500, pytest.param(10_000, marks=pytest.mark.slow)])
async def test_idle_connections_cost_little_and_good_clients_go_on(start, count, record_property):
    allow_files(count + 512)
    shop = start()
    assert 200 == (await shop.ask(event(-1))).status
    await shop.metric(
        "penstock_connections"
    )  # waits for the application, which takes memory of its own
    before = shop.memory_kib()
    # Half have asked something before; their ports are those of several addresses of this machine.
    idle = []
    for number in range(count):
        one = socket.create_connection(
            ("127.0.0.1", shop.port), source_address=(f"127.0.0.{2 + number % 8}", 0)
        )
        idle.append(one)
        if number % 2:
            one.sendall(b"GET /v1/projects/none/settings HTTP/1.1\r\nhost: h\r\n\r\n")
    try:
        for one in idle[1::2]:
            assert one.recv(12) == b"HTTP/1.1 404"
        async with good_client(shop) as statuses:
            async with asyncio.timeout(60):
                while await shop.metric("penstock_connections") < count:
                    pass
            kib = (shop.memory_kib() - before) / count
        record_property("kib_per_idle_connection", round(kib, 1))
        print(f"{kib:.1f} KiB per idle connection, {count} of them")
        assert went_on(statuses)
        assert kib < 24
    finally:
        for one in idle:
            one.close()


@pytest.mark.parametrize("count", [150, pytest.param(5_000, marks=pytest.mark.slow)])
async def test_more_connections_than_allowed_keep_nobody_out(start, count):
    """Idle ones and slow ones give way to those who ask something."""
    allow_files(count + 512)
    shop = start(connections=100, idle=50)
    enough = asyncio.Event()

    async def stand_about(number: int) -> None:
        async with shop.open() as wire:
            if number % 2:
                wire.send("GET /v1/p HTTP/1.1\r\nx: ")
            await enough.wait()

    async with good_client(shop) as statuses, asyncio.TaskGroup() as group:
        for number in range(count):
            group.create_task(stand_about(number))
        answered = len(statuses) + 50
        while len(statuses) < answered or 200 != statuses[-1]:
            assert await shop.metric("penstock_connections") <= 200
        enough.set()
    # In the very second in which all are new nobody gives way: a newcomer is told to come again, or
    # cut off where too many are told so at once.
    assert set(statuses) <= {200, 429, 0}
