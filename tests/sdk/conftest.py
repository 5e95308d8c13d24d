"""A real server on a real port: uvicorn, the collector and the embedded engine on SQLite files."""

import asyncio
import json
import socket
import sys
import threading
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AbstractContextManager, contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import uvicorn
import uvloop
from litestar import Litestar

from penstock.adapters.clock import SystemClock
from penstock.adapters.log.sqlite import SqliteLog
from penstock.adapters.metrics.memory import MemoryMetrics
from penstock.adapters.store.sqlite import SqliteStore
from penstock.adapters.suppressions.sqlite import SqliteSuppressions
from penstock.core.catalog.schema import Catalog
from penstock.core.consent.purpose import ConsentRules
from penstock.core.errors import Unavailable
from penstock.core.identity.identifier import IdentityRules
from penstock.core.leaf import Leaf
from penstock.core.protect import Protector
from penstock.core.record import Kind, Record, decode_record
from penstock.core.step import Rules, Step
from penstock.dsl.events import event, money, string, traits
from penstock.dsl.features import Profile, compile_plan, count, last_k
from penstock.edges.collector.edge import collector_edge
from penstock.edges.collector.keys import write_key
from penstock.edges.collector.routes import collector_handlers
from penstock.edges.fast import FastServer
from penstock.flows.collect import Collector
from penstock.runtimes.embedded import EmbeddedEngine

sys.path.insert(0, str(Path(__file__).parent))

from sdk_shop import JITSU_KEY, SERVER_KEY, WEB_JITSU_KEY, WEB_KEY, KilledShop, Taken, taken

EPOCH = 1

product_viewed = event("Product Viewed", product_id=string(required=True), price=money())
people = traits(email=string(), firstName=string())


class Shopper(Profile):
    views = count(product_viewed)
    seen = last_k(product_viewed.product_id, k=5)


class StumblingLog(SqliteLog):
    """A log that fails as often as it is told before it answers again."""

    failures = 0

    def append(self, partition, values, letters=()):
        if self.failures:
            self.failures -= 1
            raise Unavailable("E401", "the log did not answer", fix="retry")
        return super().append(partition, values, letters)


class StumblingSuppressions(SqliteSuppressions):
    """A register that fails as often as it is told: after the append, before the 200."""

    failures = 0

    def put(self, entries):
        if self.failures:
            self.failures -= 1
            raise Unavailable("E403", "the register did not answer", fix="retry")
        super().put(entries)


class AheadClock(SystemClock):
    """The system's clock, so many milliseconds ahead of that of the SDKs."""

    def __init__(self, ahead_ms: int) -> None:
        self.ahead_ms = ahead_ms

    def now_ms(self) -> int:
        return super().now_ms() + self.ahead_ms


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, started: threading.Event) -> None:
        super().__init__(config)
        self.up = started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.up.set()


class Served:
    """A running server, and what its files hold."""

    def __init__(self, folder: Path, ahead_ms: int, limits: dict[str, Any]) -> None:
        self.clock, self.metrics = AheadClock(ahead_ms), MemoryMetrics()
        self.log = StumblingLog(folder / "log.sqlite", self.clock)
        self.store = SqliteStore(folder / "store.sqlite")
        self.suppressions = StumblingSuppressions(folder / "suppressions.sqlite")
        self.plan = compile_plan(Shopper)
        self.limits = limits
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.socket.getsockname()[1]}"
        self.up = threading.Event()
        self.server: _Server | None = None
        self.thread = threading.Thread(target=self._run, name="server")

    def _run(self) -> None:
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                self.loop = runner.get_loop()
                runner.run(self._serve())
        finally:
            # A server that died before it was up must not keep its test waiting.
            self.up.set()

    async def _serve(self) -> None:
        consent = ConsentRules()
        self.engine = EmbeddedEngine(
            log=self.log, store=self.store, suppressions=self.suppressions,
            step=Step(self.plan, Rules(consent, {})), epoch=EPOCH, clock=self.clock,
            metrics=self.metrics, flush_ms=20,
        )  # fmt: skip
        await self.engine.start()
        collector = Collector(
            catalog=Catalog([product_viewed], people), protector=Protector(b"p" * 32),
            identity=IdentityRules(), consent=consent, identifier_key=b"k" * 32, tenant="default",
            appender=self.engine.appender, suppressions=self.suppressions, clock=self.clock,
            metrics=self.metrics,
        )  # fmt: skip
        basis = {"personalisation": "contract"}
        keys = [write_key(SERVER_KEY, "backend", "server", basis=basis),
                write_key(WEB_KEY, "web", "browser", basis=basis),
                write_key(JITSU_KEY, "jitsu", "server", basis=basis),
                write_key(WEB_JITSU_KEY, "web-jitsu", "browser", basis=basis)]  # fmt: skip
        edge = collector_edge(
            collector, keys, clock=self.clock, metrics=self.metrics, **self.limits
        )
        app = Litestar(collector_handlers(edge), openapi_config=None, logging_config=None)
        fast = FastServer(edge.routes, metrics=self.metrics)
        config = uvicorn.Config(
            app,
            http=fast,
            ws="none",
            lifespan="off",
            access_log=False,
            log_level="warning",  # type: ignore[arg-type]
        )
        self.server = _Server(config, self.up)
        await self.server.serve(sockets=[self.socket])
        await self.engine.close()

    def ask(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Run a coroutine on the server's loop and wait for it."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(30)

    def primaries(self) -> list[Record]:
        """Return every primary record of the log, in order."""
        records = [decode_record(entry.value) for entry in self.log.read(0, 0, 100_000)]
        return [record for record in records if record.kind == Kind.PRIMARY]

    def message_ids(self) -> Counter[str]:
        return Counter(record.message_id for record in self.primaries())

    def leaves(self) -> dict[bytes, Leaf]:
        """Return the leaf of every primary record, once everything is folded and written."""
        self.ask(self.engine.settled())
        wanted = list({record.leaf: None for record in self.primaries()})
        read = self.ask(self.engine.read(wanted))
        return dict(zip(wanted, read.leaves, strict=True))

    def applied(self) -> int:
        return sum(leaf.applied for leaf in self.leaves().values())

    def deduplicated(self) -> int:
        return sum(leaf.deduplicated for leaf in self.leaves().values())

    def taken(self) -> Taken:
        """Return what was taken in, once everything is folded and written."""
        return taken(self.primaries(), self.leaves().values(), self.plan, self.clock.now_ms())

    def answers(self, status: int, route: str = "") -> int:
        """Return how many requests were answered with a status; of one route, or of all."""
        lines = self.metrics.exposition().decode().splitlines()
        return sum(
            int(float(line.rsplit(" ", 1)[1]))
            for line in lines
            if line.startswith("penstock_requests_total{")
            and f'status="{status}"' in line
            and route in line
        )


Serve = Callable[..., AbstractContextManager[Served]]


@pytest.fixture
def serve(tmp_path: Path) -> Serve:
    """Start a server: `with serve(requests_per_s_per_key=1) as served`."""

    @contextmanager
    def start(ahead_ms: int = 0, **limits: Any) -> Iterator[Served]:
        served = Served(tmp_path, ahead_ms, limits)
        served.thread.start()
        try:
            assert served.up.wait(20), "the server did not start"
            assert served.server is not None, "the server failed; its traceback is above"
            yield served
        finally:
            if served.server is not None:
                served.server.should_exit = True
            served.thread.join(20)
            for part in (served.log, served.store, served.suppressions):
                part.close()

    return start


@pytest.fixture
def killed_shop(tmp_path: Path) -> Iterator[KilledShop]:
    """A shop in a process of its own, not started yet."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    shop = KilledShop(tmp_path, port)
    yield shop
    shop.stop()


@pytest.fixture
def site() -> Iterator[str]:
    """The URL of a site of another origin, whose page loads an SDK."""
    folder = str(Path(__file__).parent)

    class Files(SimpleHTTPRequestHandler):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments, directory=folder)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Files) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


TABLE = Path(__file__).with_name("behaviours.json")
"""SDK -> behaviour -> the test that shows it; `docs/reference/sdks.md` is written from it."""


@pytest.fixture
def shows(request: pytest.FixtureRequest) -> Iterator[Callable[[str, str], None]]:
    """Say that the test at hand shows a behaviour of an SDK: the table in the docs must have it.

    `pytest --update-golden tests/sdk` writes the table anew, of what was shown; without `-n`.
    """
    said: list[tuple[str, str]] = []
    yield lambda sdk, behaviour: said.append((sdk, behaviour))
    test = f"{request.path.name}::{getattr(request.node, 'originalname', '')}"
    if request.config.getoption("--update-golden"):
        for sdk, behaviour in said:
            _seen.setdefault(sdk, {})[behaviour] = test
        return
    table = json.loads(TABLE.read_text())
    missing = [one for one in said if test != table.get(one[0], {}).get(one[1])]
    assert [] == missing, "the table is stale; fix: pytest --update-golden tests/sdk"


_seen: dict[str, dict[str, str]] = {}


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Write the table of what was shown, if asked to."""
    if _seen and session.config.getoption("--update-golden") and not session.testsfailed:
        TABLE.write_text(json.dumps(_seen, indent=2) + "\n")
