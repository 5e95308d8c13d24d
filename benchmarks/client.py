"""A small HTTP/1.1 client process: as fast as it can over keep-alive connections, or at a rate.

    python -m benchmarks.client PORT METHOD PATH FILE AUTHORIZATION TAG SECONDS CONNECTIONS RATE

It prints one JSON line. `wrk` takes its place for closed loops where it is installed: it costs the
client's core less. RATE 0 means as fast as possible.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import deque
from contextlib import suppress
from pathlib import Path

import uvloop

TICK_S = 0.002
WAIT_S = 20.0
GZIP = "POST-gzip"
"""The method of a file whose lines are bodies that are compressed already, as hex digits."""

Parts = tuple[list[bytes], list[bytes]]


class Connection(asyncio.Protocol):
    """One connection with one request in flight; answers carry `Content-Length`."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.seen = b""
        self.sent_at = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self.transport = transport

    def send(self, request: bytes, due: float) -> None:
        """Send a request; its time counts from when it was due."""
        self.sent_at = due
        self.transport.write(request)  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        """Gather an answer and tell the client when it is whole."""
        self.seen += data
        head, split, rest = self.seen.partition(b"\r\n\r\n")
        if not split:
            return
        place = head.lower().find(b"content-length:")
        length = int(head[place + 15 :].split(b"\r\n", 1)[0]) if place >= 0 else 0
        if len(rest) >= length:
            self.seen = b""
            self.client.answered(self, head.startswith(b"HTTP/1.1 200"))

    def connection_lost(self, exc: Exception | None) -> None:
        """Count a connection that ends while the load runs as a failure."""
        self.client.failed += self.client.running


class Client:
    """Sends the requests of a file in turn.

    Args:
        requests: Parts of the head, and of the body; the tag goes between the parts.
        tag: Makes message ids fresh.
        rate: Requests a second; 0 is as fast as possible.
    """

    def __init__(self, requests: list[Parts], tag: str, rate: float) -> None:
        self.requests = requests
        self.tag = tag
        self.rate = rate
        self.number = self.answers = self.failed = 0
        self.took: list[float] = []
        self.idle: list[Connection] = []
        self.due: deque[float] = deque()
        self.running = False
        self.answered_one = asyncio.Event()

    def next_request(self) -> bytes:
        """Return the bytes of the next request."""
        heads, bodies = self.requests[self.number % len(self.requests)]
        self.number += 1
        fresh = f"{self.tag}{self.number}-".encode()
        head, body = fresh.join(heads), fresh.join(bodies)
        return head + (b"Content-Length: %d\r\n\r\n" % len(body) if body else b"\r\n") + body

    def answered(self, connection: Connection, ok: bool) -> None:
        """Note an answer and let the connection send again."""
        self.answers += 1
        self.answered_one.set()
        self.failed += not ok
        self.took.append(time.perf_counter() - connection.sent_at)
        if not self.running:
            return
        if self.rate == 0:
            connection.send(self.next_request(), time.perf_counter())
        elif self.due:
            connection.send(self.next_request(), self.due.popleft())
        else:
            self.idle.append(connection)

    async def run(self, port: int, connections: int, seconds: float) -> None:
        """Send for some seconds."""
        loop = asyncio.get_running_loop()
        for _ in range(connections):
            _, made = await loop.create_connection(lambda: Connection(self), "127.0.0.1", port)
            self.idle.append(made)
        self.running = True
        started = time.perf_counter()
        if self.rate == 0:
            idle, self.idle = self.idle, []
            for one in idle:
                one.send(self.next_request(), time.perf_counter())
            await asyncio.sleep(seconds)
        else:
            issued = 0
            while (passed := time.perf_counter() - started) < seconds:
                now = time.perf_counter()
                for _ in range(int(passed * self.rate) - issued):
                    issued += 1
                    if self.idle:
                        self.idle.pop().send(self.next_request(), now)
                    else:
                        self.due.append(now)
                await asyncio.sleep(TICK_S)
        # A load that is shorter than an answer takes has a figure too.
        with suppress(TimeoutError):
            await asyncio.wait_for(self.answered_one.wait(), WAIT_S)
        self.running = False


def requests_of(method: str, path: str, file: Path, authorization: str) -> list[Parts]:
    """Return the parts of the head and of the body of every line of a file."""
    packed = method == GZIP
    found: list[Parts] = []
    for line in file.read_text(encoding="utf-8").splitlines():
        target, body = (line, "") if method == "GET" else (path, line)
        head = (
            f"{method.partition('-')[0]} {target} HTTP/1.1\r\nHost: 127.0.0.1\r\n"
            f"Authorization: {authorization}\r\n"
        )
        if body:
            head += "Content-Type: application/json\r\n"
        if packed:
            head += "Content-Encoding: gzip\r\n"
        bodies = [bytes.fromhex(body)] if packed else body.encode().split(b"@@")
        found.append((head.encode().split(b"@@"), bodies))
    return found


def main(arguments: list[str]) -> None:
    """Run one load and print what came of it."""
    port, method, path, file, authorization, tag, seconds, connections, rate = arguments
    requests = requests_of(method, path, Path(file), authorization)
    client = Client(requests, tag, float(rate))
    started = time.perf_counter()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(client.run(int(port), int(connections), float(seconds)))
    took = sorted(client.took) or [0.0]
    print("RESULT " + json.dumps({
        "requests": client.answers, "duration_us": int(1e6 * (time.perf_counter() - started)),
        "failed": client.failed, "p50_us": int(1e6 * took[len(took) // 2]),
        "p99_us": int(1e6 * took[min(len(took) * 99 // 100, len(took) - 1)]),
    }))  # fmt: skip


if __name__ == "__main__":
    main(sys.argv[1:])
