"""A server process to be killed: a project folder on a port, whole or with one planted bug.

    python shop_process.py FOLDER PORT [PLANT]
    python shop_process.py --nursery FOLDER PORT

It says on standard output, a JSON line each, that its files are open and that it is ready. The bugs
are made by composition: a faulty log or store stands between the engine and the real one. A nursery
has imported everything, and forks a server for every line it is sent: a thousand can be killed
while one is imported a hundred times.

Where the folder holds a file `clock-ms`, the wall clock is off by as many ms as it says.
"""

import asyncio
import faulthandler
import json
import os
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

STARTED = time.perf_counter()

import uvicorn  # noqa: E402 - the imports are part of what is measured
import uvloop  # noqa: E402

from penstock.adapters.clock import SystemClock  # noqa: E402
from penstock.application import make_http  # noqa: E402
from penstock.compose import Node, Stores, make_node, open_stores  # noqa: E402
from penstock.edges.fast import FastServer  # noqa: E402
from penstock.ports.log import Appended, Log  # noqa: E402
from penstock.ports.store import Store, StoredLeaf, Verdict  # noqa: E402
from penstock.project import load_project  # noqa: E402


class HastyLog:
    """Answers that a batch is durable, and appends it when the next one comes."""

    def __init__(self, inner: Log) -> None:
        self._inner = inner
        self._held: tuple[int, list[bytes], tuple] | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def append(self, partition, values, letters=()):
        self.write()
        first = self._inner.head(partition)
        self._held = (partition, list(values), tuple(letters))
        return Appended(first, SystemClock().now_ms())

    def head(self, partition):
        held = self._held
        return self._inner.head(partition) + (len(held[1]) if held else 0)

    def write(self) -> None:
        if self._held is not None:
            self._inner.append(*self._held)
            self._held = None

    def close(self) -> None:
        self.write()
        self._inner.close()


class HastyStore:
    """Notes the applied offset at once, and writes the leaves when the next ones come."""

    def __init__(self, inner: Store) -> None:
        self._inner = inner
        self._held: tuple[int, list, int, Any] | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def write(self, epoch, writes, *, partition, applied):
        self.flush()
        self._inner.write(epoch, [], partition=partition, applied=applied)
        self._held = (epoch, list(writes), partition, applied)
        return [Verdict.ACCEPTED] * len(writes)

    def read(self, epoch, leaves):
        held = self._held[1] if self._held else ()
        newest = {write.leaf: StoredLeaf(write.new, write.parts) for write in held}
        stored = self._inner.read(epoch, leaves)
        return [newest.get(leaf, old) for leaf, old in zip(leaves, stored, strict=True)]

    def flush(self) -> None:
        if self._held is not None:
            epoch, writes, partition, applied = self._held
            self._held = None
            self._inner.write(epoch, writes, partition=partition, applied=applied)

    def close(self) -> None:
        self.flush()
        self._inner.close()


def planted(stores: Stores, plant: str) -> Stores:
    """Return the stores, one of them faulty if a bug is named."""
    match plant:
        case "acknowledge-before-append":
            return replace(stores, log=HastyLog(stores.log))
        case "commit-before-write":
            return replace(stores, store=HastyStore(stores.store))
        case "":
            return stores
    raise ValueError(plant)


class ShopClock(SystemClock):
    """The system's clock, off by what the file `clock-ms` says: an operator sets it while it runs."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "clock-ms"

    def now_ms(self) -> int:
        try:
            return super().now_ms() + int(self._file.read_text())
        except (OSError, ValueError):
            return super().now_ms()


class Server(uvicorn.Server):
    """Says when it listens."""

    said: dict[str, Any]

    async def startup(self, sockets=None):
        await super().startup(sockets)
        say(self.said)


def say(what: dict[str, Any]) -> None:
    # One write: of a process that is killed a line is said whole, or not at all.
    os.write(1, json.dumps({**what, "by": os.getpid()}).encode() + b"\n")


def since(start: float) -> float:
    return round((time.perf_counter() - start) * 1000, 1)


async def serve(folder: Path, port: int, plant: str) -> None:
    imported_ms = since(STARTED)
    opening = time.perf_counter()
    project = load_project(folder)
    clock = ShopClock(folder)
    stores = planted(open_stores(project, clock), plant)
    node: Node = make_node(project, stores, clock=clock)
    say({"event": "open", "log_records": stores.log.head(0)})
    opened_ms = since(opening)
    catching_up = time.perf_counter()
    behind = node.engine.lag()
    await node.start()
    caught_up_ms = since(catching_up)
    http = make_http(node, f"http://127.0.0.1:{port}")
    fast = FastServer(http.hot, metrics=node.metrics)
    config = uvicorn.Config(
        http.app, port=port, http=fast, ws="none", lifespan="off", access_log=False,
        log_level="warning",
    )  # fmt: skip
    server = Server(config)
    server.said = {
        "event": "ready", "imported_ms": imported_ms, "opened_ms": opened_ms,
        "caught_up_ms": caught_up_ms, "behind": behind,
    }  # fmt: skip
    await server.serve()
    await node.close()
    stores.close()
    say({"event": "closed"})


def run(folder: Path, port: int, plant: str) -> None:
    # uvicorn raises the signal once more when it has stopped serving; there is still work to do.
    signal.signal(signal.SIGTERM, lambda *_: None)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(folder, port, plant))


def nursery(folder: Path, port: int) -> None:
    """Fork a server for every line on standard input, and say its process id."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the dead
    for _ in sys.stdin:
        child = os.fork()
        if not child:
            os.setsid()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            sys.stdin.close()
            run(folder, port, "")
            os._exit(0)
        say({"event": "born", "pid": child})


if __name__ == "__main__":
    faulthandler.enable()  # a process that does not end is aborted, and says where it stood
    if sys.argv[1] == "--nursery":
        nursery(Path(sys.argv[2]), int(sys.argv[3]))
    else:
        run(Path(sys.argv[1]), int(sys.argv[2]), (sys.argv[3:] or [""])[0])
