"""An open-loop client process: requests go out when they are due, whatever becomes of those before.

    python -m benchmarks.open_loop PORT FILE TAG CONNECTIONS RATE:SECONDS[,RATE:SECONDS…] OUT

FILE holds a JSON object a line, `{"kind", "weight", "head", "lines"}`: requests of one kind, drawn by
weight, their bodies in turn. `@@` in a body is replaced by what makes its message ids fresh:
`TAG-KIND-NUMBER-`. The rates are requests a second, one phase after the other without a pause. A
request that cannot be sent within `GIVE_UP_S` of when it was due, since every connection waits for an
answer, is given up; its time counts from when it was due. `Retry-After` is noted and not heeded: this
is the client that overloads.

It writes JSON to OUT: of each phase what was offered, by kind what came of it, and of each second the events
accepted, the requests refused or lost, and the 99th percentile of the waits of requests with events.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from collections import Counter, deque
from pathlib import Path
from typing import Any

import uvloop

TICK_S = 0.001
GIVE_UP_S = 5.0
SETTLE_S = 3.0
"""After the last phase, for answers that are under way."""


class Kind:
    """Requests of one kind.

    Args:
        name: Its name.
        head: Request line and headers, `%s` standing for what follows the path of a GET.
        lines: Bodies, or the ends of paths if the head has no body.
    """

    def __init__(self, name: str, head: str, lines: list[str]) -> None:
        self.name = name
        self.get = "%s" in head
        self.head = head.encode()
        self.lines = [[part.encode() for part in line.split("@@")] for line in lines]
        self.events = [max(len(parts) - 1, 0) for parts in self.lines]
        self.number = 0

    def next_request(self, tag: str) -> tuple[bytes, int, int]:
        """Return the bytes of the next request, its number and the events in it."""
        number = self.number
        self.number += 1
        place = number % len(self.lines)
        fresh = f"{tag}-{self.name}-{number}-".encode()
        body = fresh.join(self.lines[place])
        if self.get:
            return self.head % body, number, 0
        return b"%scontent-length: %d\r\n\r\n%s" % (self.head, len(body), body), number, self.events[place]  # fmt: skip


class Tally:
    """What came of the requests of one kind in one phase."""

    def __init__(self) -> None:
        self.statuses: Counter[int] = Counter()
        self.accepted_events = 0
        self.sent = 0
        self.given_up = 0
        self.cut_off = 0
        self.without_hint = 0
        """Refusals that did not say when to come again."""
        self.took: list[float] = []
        """Seconds of those that were answered 2xx."""
        self.refused_took: list[float] = []
        self.words: Counter[str] = Counter()
        """How content was served."""

    def told(self) -> dict[str, Any]:
        """Return it as JSON."""
        return {
            "sent": self.sent, "given_up": self.given_up, "cut_off": self.cut_off,
            "statuses": {str(status): count for status, count in sorted(self.statuses.items())},
            "without_hint": self.without_hint, "accepted_events": self.accepted_events,
            "served": dict(self.words), **_percentiles("", self.took), **_percentiles("refused_", self.refused_took),
        }  # fmt: skip


def _percentiles(prefix: str, took: list[float]) -> dict[str, float]:
    ascending = sorted(took) or [0.0]
    return {
        f"{prefix}p{percent}_ms": round(
            1000 * ascending[min(len(ascending) * percent // 100, len(ascending) - 1)], 2
        )
        for percent in (50, 99)
    }


class Phase:
    """A span of time at one rate."""

    def __init__(self, rate: float, seconds: float, kinds: list[Kind]) -> None:
        self.rate = rate
        self.seconds = seconds
        self.started = 0.0
        self.started_at_s = 0.0
        """On the wall clock, for whoever watches the server."""
        self.offered = 0
        self.tallies = {kind.name: Tally() for kind in kinds}
        self.by_second: list[list[Any]] = [[0, 0, []] for _ in range(max(int(seconds), 1))]
        """Of each second of due times: events accepted, requests refused or lost, the waits of accepted ones."""

    def told(self) -> dict[str, Any]:
        """Return it as JSON."""
        return {
            "rate": self.rate, "started_at_s": self.started_at_s, "seconds": self.seconds, "offered": self.offered,
            "kinds": {name: tally.told() for name, tally in self.tallies.items()},
            "by_second": [
                [events, lost, _percentiles("", took)["p99_ms"]]
                for events, lost, took in self.by_second
            ],
        }  # fmt: skip


class Request:
    """One request that was sent."""

    __slots__ = ("due", "events", "kind", "number", "phase")

    def __init__(self, phase: Phase, kind: Kind, due: float) -> None:
        self.phase = phase
        self.kind = kind
        self.due = due
        self.number = self.events = 0


class Connection(asyncio.Protocol):
    """One connection with one request in flight; answers carry `Content-Length`."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.seen = b""
        self.request: Request | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self.transport: Any = transport

    def data_received(self, data: bytes) -> None:
        """Gather an answer and tell the client when it is whole."""
        seen = self.seen + data if self.seen else data
        split = seen.find(b"\r\n\r\n")
        if split >= 0:
            place = seen.lower().find(b"content-length:", 0, split)
            end = seen.find(b"\r\n", place)
            length = int(seen[place + 15 : end]) if place >= 0 else 0
            if len(seen) >= split + 4 + length:
                self.seen = b""
                self.client.answered(self, int(seen[9:12]), seen, split)
                return
        self.seen = seen

    def connection_lost(self, exc: Exception | None) -> None:
        """Open another in its place."""
        self.client.lost(self)


class Client:
    """Sends requests as they fall due.

    Args:
        port: Where to.
        kinds: What, with weights.
        tag: Makes message ids fresh.
        phases: Pairs of rate and seconds.
    """

    def __init__(
        self, port: int, kinds: list[tuple[Kind, float]], tag: str, phases: list[tuple[float, float]]
    ) -> None:  # fmt: skip
        self.port = port
        self.tag = tag
        names = [kind for kind, _ in kinds]
        self.phases = [Phase(rate, seconds, names) for rate, seconds in phases]
        dice = random.Random(20261125)
        self.order = dice.choices(names, [weight for _, weight in kinds], k=10_007)
        self.issued = 0
        self.idle: list[Connection] = []
        self.due: deque[Request] = deque()
        self.accepted: dict[str, list[int]] = {kind.name: [] for kind in names}
        self.refused: dict[str, list[int]] = {kind.name: [] for kind in names}
        self.running = True
        self._opening: set[asyncio.Task[None]] = set()

    async def connect(self) -> None:
        """Open one connection."""
        while self.running:
            try:
                _, made = await asyncio.get_running_loop().create_connection(
                    lambda: Connection(self), "127.0.0.1", self.port
                )
            except OSError:
                await asyncio.sleep(0.05)
                continue
            self.free(made)
            return

    def issue(self, phase: Phase, due: float) -> None:
        """Send a request, now if a connection is free."""
        kind = self.order[self.issued % len(self.order)]
        self.issued += 1
        phase.offered += 1
        request = Request(phase, kind, due)
        if self.idle:
            self.send(self.idle.pop(), request)
        else:
            self.due.append(request)

    def send(self, connection: Connection, request: Request) -> None:
        """Send a request."""
        data, request.number, request.events = request.kind.next_request(self.tag)
        request.phase.tallies[request.kind.name].sent += 1
        connection.request = request
        connection.transport.write(data)

    def free(self, connection: Connection) -> None:
        """Let a connection send what is due, or wait."""
        now = time.perf_counter()
        while self.due:
            request = self.due.popleft()
            if now - request.due < GIVE_UP_S:
                self.send(connection, request)
                return
            request.phase.tallies[request.kind.name].given_up += 1
            self._note(request, lost=True)
        self.idle.append(connection)

    def answered(self, connection: Connection, status: int, seen: bytes, split: int) -> None:
        """Note an answer, and let the connection go on."""
        request, connection.request = connection.request, None
        assert request is not None, "an answer to a request"
        tally = request.phase.tallies[request.kind.name]
        took = time.perf_counter() - request.due
        tally.statuses[status] += 1
        if status < 300:
            tally.took.append(took)
            tally.accepted_events += request.events
            self.accepted[request.kind.name].append(request.number)
            self._note(request, took=took)
            place = seen.find(b'"served":"', split)
            if place >= 0:
                tally.words[seen[place + 10 : seen.find(b'"', place + 10)].decode()] += 1
        else:
            tally.refused_took.append(took)
            self.refused[request.kind.name].append(request.number)
            if b"retry-after: " not in seen[:split].lower():
                tally.without_hint += 1
            self._note(request, lost=True)
        if not connection.transport.is_closing():
            self.free(connection)

    def lost(self, connection: Connection) -> None:
        """Count a request that was cut off, and open another connection."""
        if connection in self.idle:
            self.idle.remove(connection)
        if connection.request is not None:
            connection.request.phase.tallies[connection.request.kind.name].cut_off += 1
            self._note(connection.request, lost=True)
        if self.running:
            task = asyncio.get_running_loop().create_task(self.connect())
            self._opening.add(task)
            task.add_done_callback(self._opening.discard)

    @staticmethod
    def _note(request: Request, *, took: float = 0.0, lost: bool = False) -> None:
        phase = request.phase
        second = phase.by_second[min(int(request.due - phase.started), len(phase.by_second) - 1)]
        second[1] += lost
        if not lost:
            second[0] += request.events
            if request.events:
                second[2].append(took)

    async def run(self, connections: int) -> None:
        """Run all phases."""
        await asyncio.gather(*(self.connect() for _ in range(connections)))
        for phase in self.phases:
            phase.started, phase.started_at_s = time.perf_counter(), time.time()
            while (passed := time.perf_counter() - phase.started) < phase.seconds:
                for number in range(phase.offered, int(passed * phase.rate)):
                    self.issue(phase, phase.started + number / phase.rate)
                await asyncio.sleep(TICK_S)
        ending = time.perf_counter() + SETTLE_S
        while len(self.idle) < connections and time.perf_counter() < ending:  # noqa: ASYNC110 - it is a client
            await asyncio.sleep(TICK_S)
        self.running = False


def kinds_of(file: Path) -> list[tuple[Kind, float]]:
    """Return what a file names, with weights."""
    return [
        (Kind(one["kind"], one["head"], one["lines"]), one["weight"])
        for one in map(json.loads, file.read_text(encoding="utf-8").splitlines())
    ]


def main(arguments: list[str]) -> None:
    """Run one load and write what came of it."""
    port, file, tag, connections, phases, out = arguments
    spans = [(float(rate), float(seconds)) for rate, _, seconds in
             (one.partition(":") for one in phases.split(","))]  # fmt: skip
    client = Client(int(port), kinds_of(Path(file)), tag, spans)
    started = time.process_time()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(client.run(int(connections)))
    found = {
        "phases": [phase.told() for phase in client.phases], "cpu_s": time.process_time() - started,
        "accepted": client.accepted, "refused": client.refused,
    }  # fmt: skip
    Path(out).write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
