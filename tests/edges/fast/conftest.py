"""Servers on real sockets in the test's own loop: the fast one, and uvicorn's own beside it."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

ASKED_S = 10
"""How long a test waits for an answer that never comes; none depends on it."""


class Wire:
    """One client connection: raw bytes out, parsed answers in."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, *parts: bytes | str) -> None:
        for part in parts:
            self.writer.write(part if isinstance(part, bytes) else part.encode())

    async def answer(self, method: str = "") -> "Reply":
        """Return the next answer."""
        async with asyncio.timeout(ASKED_S):
            head = await self.reader.readuntil(b"\r\n\r\n")
            first, *lines = head.decode("latin-1").split("\r\n")
            headers = {}
            for line in lines:
                name, colon, value = line.partition(": ")
                if colon:
                    headers[name.lower()] = value
            status = int(first.split()[1])
            body = b""
            if headers.get("transfer-encoding") == "chunked":
                while size := int(await self.reader.readline(), 16):
                    body += (await self.reader.readexactly(size + 2))[:-2]
                await self.reader.readexactly(2)
            elif method != "HEAD" and status >= 200:
                body = await self.reader.readexactly(int(headers.get("content-length", 0)))
            return Reply(status, headers, body)

    async def rest(self) -> bytes:
        """Return what comes until the server closes."""
        async with asyncio.timeout(ASKED_S):
            return await self.reader.read()

    async def ask(self, *parts: bytes | str) -> "Reply":
        self.send(*parts)
        return await self.answer()


class Reply:
    """A parsed answer."""

    def __init__(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body

    def __repr__(self) -> str:
        return f"{self.status} {self.headers} {self.body!r}"


class Listening:
    """A server, and how to reach it."""

    def __init__(self, port: int, state: ServerState, connections: list[Any]) -> None:
        self.port = port
        self.state = state
        self.connections = connections
        self._wires: list[Wire] = []

    async def open(self) -> Wire:
        wire = Wire(*await asyncio.open_connection("127.0.0.1", self.port))
        self._wires.append(wire)
        return wire

    async def until(self, true: Callable[[], bool]) -> None:
        """Let the loop turn until something holds."""
        async with asyncio.timeout(ASKED_S):
            while not true():  # noqa: ASYNC110 - sockets turn with the loop, no event tells
                await asyncio.sleep(0)

    async def close_wires(self) -> None:
        for wire in self._wires:
            wire.writer.close()


Listen = Callable[..., AbstractAsyncContextManager[Listening]]


@asynccontextmanager
async def _listening(app: Any, http: Any = HttpToolsProtocol) -> AsyncIterator[Listening]:
    loop = asyncio.get_running_loop()
    config = uvicorn.Config(app, http=http, ws="none", lifespan="off", log_config=None)
    config.load()
    state = ServerState()
    made: list[Any] = []

    def make() -> Any:
        made.append(http(config=config, server_state=state, app_state={}, _loop=loop))
        return made[-1]

    server = await loop.create_server(make, "127.0.0.1", 0)
    listening = Listening(server.sockets[0].getsockname()[1], state, made)
    try:
        yield listening
    finally:
        await listening.close_wires()
        server.close()
        await listening.until(lambda: not state.connections)


@pytest.fixture(scope="session")
def listening() -> Listen:
    """Open a server: `async with listening(app, FastServer(…)) as served`."""
    return _listening
