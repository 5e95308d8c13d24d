"""A network that can be cut: TCP proxies on one thread, each before a server, which is told to others by it."""

import asyncio
import contextlib
import threading
from collections.abc import Coroutine
from typing import Any

from tools.services.service import LOOPBACK, free_ports

CHUNK_BYTES = 256 * 1024
DONE_S = 10.0


class Network:
    """The loop that all proxies of a test run on."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, name="proxies", daemon=True)
        self._thread.start()
        self._proxies: list[Proxy] = []

    def proxy(self, target: int = 0) -> "Proxy":
        """Return a proxy that listens; to what it leads may be said later."""
        (port,) = free_ports(1)
        made = Proxy(self, port, target)
        self.do(made.listen())
        self._proxies.append(made)
        return made

    def do(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self.loop).result(DONE_S)

    def close(self) -> None:
        for proxy in self._proxies:
            self.do(proxy.close())
        self.do(asyncio.sleep(0))
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(DONE_S)
        self.loop.close()


class Proxy:
    """A port that leads to a server, until it is cut or frozen."""

    def __init__(self, network: Network, port: int, target: int) -> None:
        self.port = port
        self.target = target
        self._network = network
        self._cut = False
        self._flows = asyncio.Event()
        self._flows.set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    @property
    def address(self) -> str:
        return f"{LOOPBACK}:{self.port}"

    def cut(self) -> None:
        """End every connection, and accept none that lasts."""
        self._network.do(self._set(cut=True, flows=True))

    def freeze(self) -> None:
        """Let nothing through, either way, and end nothing: packets that nobody answers."""
        self._network.do(self._set(cut=False, flows=False))

    def heal(self) -> None:
        self._network.do(self._set(cut=False, flows=True))

    def lead_to(self, port: int) -> None:
        """Lead elsewhere from now on; connections to where it led before are ended."""
        self.target = port
        self._network.do(self._end())

    async def _set(self, *, cut: bool, flows: bool) -> None:
        self._cut = cut
        if flows:
            self._flows.set()
        else:
            self._flows.clear()
        if cut:
            await self._end()

    async def _end(self) -> None:
        for writer in [*self._writers]:
            writer.transport.abort()

    async def listen(self) -> None:
        self._server = await asyncio.start_server(self._accept, LOOPBACK, self.port)

    async def close(self) -> None:
        assert self._server is not None
        self._server.close()
        self._flows.set()
        await self._end()
        for task in [*self._tasks]:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        self._writers.add(writer)
        try:
            await self._flows.wait()
            if not self._cut:
                await self._join(reader, writer)
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            self._writers.discard(writer)
            writer.transport.abort()

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(LOOPBACK, self.target)
        self._writers.add(back)
        try:
            flows = [
                asyncio.create_task(self._pump(reader, back)),
                asyncio.create_task(self._pump(there, writer)),
            ]
            try:
                await asyncio.wait(flows, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for flow in flows:
                    flow.cancel()
                await asyncio.gather(*flows, return_exceptions=True)
        finally:
            self._writers.discard(back)
            back.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(CHUNK_BYTES):
                await self._flows.wait()
                writer.write(data)
                await writer.drain()
