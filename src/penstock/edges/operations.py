"""What operators' tools ask: health, readiness, metrics; each tells the truth or nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import msgspec

from penstock.edges.asgi import Answer, json_answer
from penstock.edges.route import Request, Route
from penstock.ports.clock import Clock
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


class Operations(NamedTuple):
    """What operators' tools ask: the hot routes, which answer before the application is loaded."""

    health: Route
    ready: Route
    exposition: Callable[[], Answer]


def operations(
    ready: Ready, metrics: Metrics, publish: Callable[[], None], clock: Clock
) -> Operations:
    """Return what answers `/health`, `/ready` and `/metrics`.

    Args:
        ready: Whether events can be taken and folded, and if not, why.
        metrics: What to expose.
        publish: Brings the metrics up to date before they are read.
        clock: For the access log.
    """

    def health(_: Request) -> Answer:
        return json_answer(200, HealthView(ok=True))

    def readiness(_: Request) -> Answer:
        ok, reason = ready()
        return json_answer(200 if ok else 503, ReadyView(ok, reason))

    def exposition() -> Answer:
        publish()
        return Answer(200, metrics.exposition(), (PROMETHEUS,))

    return Operations(
        Route("GET", "/health", health, clock=clock, metrics=metrics),
        Route("GET", "/ready", readiness, clock=clock, metrics=metrics),
        exposition,
    )
