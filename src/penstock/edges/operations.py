"""What operators' tools ask: health, readiness, metrics; each tells the truth or nothing."""

from __future__ import annotations

from collections.abc import Callable

from litestar import get
from litestar.handlers import HTTPRouteHandler

from penstock.edges.asgi import Answer, json_answer
from penstock.ports.metrics import Metrics

PROMETHEUS = (b"content-type", b"text/plain; version=0.0.4; charset=utf-8")

Ready = Callable[[], tuple[bool, str]]


def operations_handlers(
    ready: Ready, metrics: Metrics, publish: Callable[[], None]
) -> list[HTTPRouteHandler]:
    """Return the routes `/health`, `/ready` and `/metrics`.

    Args:
        ready: Whether events can be taken and folded, and if not, why.
        metrics: What to expose.
        publish: Brings the metrics up to date before they are read.
    """

    @get("/health", tags=["operations"], summary="Whether the process answers")
    async def health() -> Answer:
        return json_answer(200, {"ok": True})

    @get("/ready", tags=["operations"], summary="Whether events can be taken, and if not, why")
    async def readiness() -> Answer:
        ok, reason = ready()
        return json_answer(200 if ok else 503, {"ok": ok, "reason": reason})

    @get(
        "/metrics",
        tags=["operations"],
        summary="Metrics in the Prometheus text format",
        media_type="text/plain",
    )
    async def exposition() -> Answer:
        publish()
        return Answer(200, metrics.exposition(), (PROMETHEUS,))

    return [health, readiness, exposition]
