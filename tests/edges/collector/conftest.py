"""A collector over memory adapters, asked over ASGI without a socket."""

import base64
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, NamedTuple

import httpx
import pytest
from litestar import Litestar
from litestar.exceptions import HTTPException
from litestar.openapi import OpenAPIConfig

from penstock.adapters.accelerator.native import accelerate_intake
from penstock.adapters.log.memory import MemoryLog
from penstock.adapters.metrics.memory import MemoryMetrics
from penstock.adapters.suppressions.memory import MemorySuppressions
from penstock.core.catalog.schema import Catalog
from penstock.core.consent.purpose import ConsentRules
from penstock.core.errors import Unavailable
from penstock.core.identity.identifier import IdentityRules
from penstock.core.protect import Protector
from penstock.core.record import DeadLetter, Record, decode_record
from penstock.dsl.events import event, integer, money, string
from penstock.edges.collector.edge import CollectorEdge, collector_edge
from penstock.edges.collector.keys import write_key
from penstock.edges.collector.routes import collector_handlers
from penstock.edges.framework import refuse, refuse_fault
from penstock.flows.collect import Collector
from penstock.runtimes.appender import GroupAppender
from penstock.testing.clock import HandClock

NOW_MS = 1_795_406_400_000
BROWSER_KEY, SERVER_KEY, PINNED_KEY = "wk-browser", "wk-server", "wk-pinned"
BASIS = {"personalisation": "legitimate_interest"}

CATALOG = Catalog(
    [
        event(
            "Product Viewed",
            product_id=string(required=True),
            price=money(),
            quantity=integer(),
            label=string(),
        ),
        event("Unsubscribed", topic=string()),
    ],
    {},
    undeclared="keep",
    default_currency="EUR",
)


class GatedLog(MemoryLog):
    """A log whose commits wait until the gate is opened, and fail as often as it is told."""

    def __init__(self, clock: HandClock) -> None:
        super().__init__(clock)
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()
        self.failures = 0

    def append(self, partition, values, letters=()):
        self.entered.set()
        self.gate.wait(20)
        if self.failures:
            self.failures -= 1
            raise Unavailable("E401", "the log did not answer", fix="retry")
        return super().append(partition, values, letters)


class Shop(NamedTuple):
    """What a test of the collector holds in its hands."""

    client: httpx.AsyncClient
    log: GatedLog
    suppressions: MemorySuppressions
    metrics: MemoryMetrics
    clock: HandClock
    app: Litestar
    edge: CollectorEdge

    async def send(
        self, path: str, body: Any, key: str = SERVER_KEY, **more: Any
    ) -> httpx.Response:
        """Post a body (bytes as they are, anything else as JSON) under a write key."""
        headers = {**(basic(key) if key else {}), **more.pop("headers", {})}
        part = {"content": body} if isinstance(body, bytes) else {"json": body}
        return await self.client.post(path, headers=headers, **part, **more)

    def records(self) -> list[Record]:
        return [decode_record(entry.value) for entry in self.log.read(0, 0, 100_000)]

    def letters(self) -> list[DeadLetter]:
        return list(self.log.dead_letters())


Collecting = Callable[..., AbstractAsyncContextManager[Shop]]


def basic(key: str) -> dict[str, str]:
    return {"authorization": "Basic " + base64.b64encode(f"{key}:".encode()).decode()}


def track(message_id: str = "m-1", name: str = "Product Viewed", **more: Any) -> dict[str, Any]:
    """Return a good event."""
    return {
        "type": "track", "event": name, "userId": "u-1", "messageId": message_id,
        "properties": {"product_id": "sku-1"}, **more,
    }  # fmt: skip


@asynccontextmanager
async def _collecting(
    wrap: Callable[[Any], Any] = lambda part: part, **limits: Any
) -> AsyncIterator[Shop]:
    clock = HandClock(NOW_MS)
    log, metrics, suppressions = GatedLog(clock), MemoryMetrics(), MemorySuppressions()
    appender = GroupAppender(log, clock, metrics, lambda partition, records: None)
    collector = wrap(
        Collector(
            catalog=CATALOG, protector=Protector(b"p" * 32), identity=IdentityRules(),
            consent=ConsentRules(), identifier_key=b"k" * 32, tenant="default", appender=appender,
            suppressions=suppressions, clock=clock, metrics=metrics,
            accelerate=accelerate_intake(),
        )
    )  # fmt: skip
    keys = [
        write_key(BROWSER_KEY, "site", "browser", basis=BASIS),
        write_key(SERVER_KEY, "backend", "server", 5, basis=BASIS),
        write_key(PINNED_KEY, "pinned", "browser", basis=BASIS, origins=["https://shop.example"]),
    ]
    edge = collector_edge(collector, keys, clock=clock, metrics=metrics, **limits)
    handlers = collector_handlers(edge)
    app = Litestar(
        handlers, openapi_config=OpenAPIConfig("Penstock", "1"), logging_config=None,
        exception_handlers={HTTPException: refuse, Exception: refuse_fault},
    )  # fmt: skip
    transport = httpx.ASGITransport(app, raise_app_exceptions=True)  # type: ignore[arg-type]
    async with httpx.AsyncClient(transport=transport, base_url="http://events.example") as client:
        yield Shop(client, log, suppressions, metrics, clock, app, edge)
    log.gate.set()
    await appender.close()


@pytest.fixture(scope="session")
def collecting() -> Collecting:
    """Open a collector: `async with collecting(requests_max=1) as shop`."""
    return _collecting
