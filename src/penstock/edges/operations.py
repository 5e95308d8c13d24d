"""What operators' tools ask: health, readiness, metrics; each tells the truth or nothing."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
from litestar import get
from litestar.handlers import HTTPRouteHandler
from litestar.openapi.datastructures import ResponseSpec

from penstock.edges.asgi import Answer, json_answer
from penstock.ports.metrics import Metrics

PROMETHEUS = (b"content-type", b"text/plain; version=0.0.4; charset=utf-8")

Ready = Callable[[], tuple[bool, str]]


class HealthView(msgspec.Struct, frozen=True):
    """The process answers."""

    ok: bool


class ReadyView(msgspec.Struct, frozen=True):
    """Whether events can be taken and folded."""

    ok: bool
    reason: str
    """Why not; empty if they can."""


def operations_handlers(
    ready: Ready, metrics: Metrics, publish: Callable[[], None]
) -> list[HTTPRouteHandler]:
    """Return the routes `/health`, `/ready` and `/metrics`.

    Args:
        ready: Whether events can be taken and folded, and if not, why.
        metrics: What to expose.
        publish: Brings the metrics up to date before they are read.
    """

    @get(
        "/health", tags=["operations"], summary="Whether the process answers",
        responses={200: ResponseSpec(HealthView, description="It does", generate_examples=False)},
    )  # fmt: skip
    async def health() -> Answer:
        return json_answer(200, HealthView(ok=True))

    @get(
        "/ready", tags=["operations"], summary="Whether events can be taken, and if not, why",
        responses={
            200: ResponseSpec(ReadyView, description="They can", generate_examples=False),
            503: ResponseSpec(ReadyView, description="They can't", generate_examples=False),
        },
    )  # fmt: skip
    async def readiness() -> Answer:
        ok, reason = ready()
        return json_answer(200 if ok else 503, ReadyView(ok, reason))

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
