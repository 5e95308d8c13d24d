"""The admin API's routes for definitions: apply, roll back, and what the kept versions cost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any, NamedTuple

import msgspec
from litestar import Request, get, post
from litestar.handlers import HTTPRouteHandler
from litestar.params import JSONBody
from litestar.response import Stream

from penstock.core.definitions.versions import Version
from penstock.core.errors import DefinitionError, PenstockError
from penstock.core.time import format_instant
from penstock.edges.admin.answers import NDJSON, Answering, documented, failure
from penstock.edges.admin.bodies import (
    ApplyReport,
    RollBack,
    StartApply,
    VersionsView,
    VersionView,
)
from penstock.edges.asgi import Answer
from penstock.flows.editions import Candidate, Cost, Progress, SideBySide

Load = Callable[[StartApply], Candidate]
"""Loads what the project's folder holds now, and refuses what was not allowed; called on a thread."""

Measure = Callable[[int], tuple[int, int]]
"""How many leaves an epoch has, and how many bytes they take; called on a thread."""


class DefinitionsParts(NamedTuple):
    """What the routes for definitions call."""

    versions: SideBySide
    load: Load
    measure: Measure


class DefinitionsEdge:
    """Applies definitions, rolls back, and shows what is kept.

    Args:
        parts: What it calls.
    """

    def __init__(self, parts: DefinitionsParts) -> None:
        self.parts = parts

    async def applying(self, data: StartApply) -> AsyncIterator[bytes]:
        """Yield the progress of an apply, a JSON line each; it goes on if nobody listens any more."""
        versions = self.parts.versions
        try:
            candidate = await asyncio.to_thread(self.parts.load, data)
            versions.begin(candidate, republish=data.republish)
            progress: Progress | None = None
            while progress is None or not progress.done:
                latest = await versions.moved()
                if latest is not None and latest is not progress:
                    progress = latest
                    yield msgspec.json.encode(_report(progress)) + b"\n"
        except PenstockError as error:
            report = ApplyReport(True, 0, "failed", 0, 0, 0, None, error=failure(error))
            yield msgspec.json.encode(report) + b"\n"

    async def roll_back(self, data: RollBack) -> VersionsView:
        """Roll back and return what is kept then."""
        await self.parts.versions.roll_back(data.version)
        return await self.list()

    async def give_up(self) -> VersionsView:
        """Stop applying, and return what is kept then.

        Raises:
            DefinitionError: Nothing is being applied (E194).
        """
        if not await self.parts.versions.give_up():
            raise DefinitionError("E194", "no definitions are being applied",
                                  fix="`penstock versions` lists what is kept")  # fmt: skip
        return await self.list()

    async def list(self) -> VersionsView:
        """Return the versions that are kept, with what they cost."""
        versions = self.parts.versions
        active = versions.table.active
        costs = {cost.version.number: cost for cost in versions.costs()}
        shown: list[VersionView] = []
        measured: dict[int, tuple[int, int]] = {}
        for version in versions.table.versions:
            if version.state == "dropped":
                continue
            if version.epoch not in measured:
                measured[version.epoch] = await asyncio.to_thread(self.parts.measure, version.epoch)
            pins = sorted(
                name for name, number in versions.table.pins.items() if number == version.number
            )
            shown.append(_view(version, costs.get(version.number), pins, *measured[version.epoch]))
        return VersionsView(0 if active is None else active.number, shown)


def _view(
    version: Version, cost: Cost | None, pins: list[str], leaves: int, size: int
) -> VersionView:
    per_1000 = cost.cpu_s * 1_000_000 / cost.records if cost and cost.records else 0.0
    share = cost.cpu_s / cost.since_s if cost and cost.since_s else 0.0
    return VersionView(
        number=version.number, state=version.state, epoch=version.epoch,
        created_at=format_instant(version.created_at_ms),
        keep_until=format_instant(version.keep_until_ms) if version.keep_until_ms else "",
        campaigns=pins, lag=cost.lag if cost else 0, cpu_ms_per_1000=round(per_1000, 2),
        cpu_share=round(share, 4), leaves=leaves, bytes=size,
    )  # fmt: skip


def _report(progress: Progress) -> ApplyReport:
    return ApplyReport(
        progress.done, progress.number, progress.state, progress.folded, progress.total, progress.per_s,
        progress.remaining_s, progress.agreed_leaves, progress.agreed_states,
        error=None if progress.error is None else failure(progress.error),
    )  # fmt: skip


def definitions_handlers(
    parts: DefinitionsParts, answering: Answering, shared: dict[str, Any]
) -> list[HTTPRouteHandler]:
    """Return the route handlers.

    Args:
        parts: What they call.
        answering: Makes an answer of some work, counted and logged.
        shared: What all admin routes have.
    """
    edge = DefinitionsEdge(parts)

    @post("/v1/admin/definitions/apply", status_code=200,
          responses=documented(ApplyReport, "One JSON object a line, the last of them `done`", NDJSON),
          summary="Apply what the project's folder holds now; progress as JSON lines", **shared)  # fmt: skip
    async def apply(request: Request[Any, Any, Any], data: JSONBody[StartApply]) -> Stream:
        return Stream(edge.applying(data), media_type=NDJSON)

    return [apply, *_small_handlers(edge, answering, shared)]


def _small_handlers(
    edge: DefinitionsEdge, answering: Answering, shared: dict[str, Any]
) -> list[HTTPRouteHandler]:
    responses = documented(VersionsView, "The versions that are kept")

    @get("/v1/admin/definitions", responses=responses,
         summary="The versions that are kept, and what they cost", **shared)  # fmt: skip
    async def versions(request: Request[Any, Any, Any]) -> Answer:
        return await answering(request, edge.list)

    @post("/v1/admin/definitions/rollback", status_code=200, responses=responses,
          summary="Let earlier definitions serve again, at once", **shared)  # fmt: skip
    async def roll_back(request: Request[Any, Any, Any], data: JSONBody[RollBack]) -> Answer:
        return await answering(request, lambda: edge.roll_back(data))

    @post("/v1/admin/definitions/give-up", status_code=200, responses=responses,
          summary="Stop applying definitions", **shared)  # fmt: skip
    async def give_up(request: Request[Any, Any, Any]) -> Answer:
        return await answering(request, edge.give_up)

    return [versions, roll_back, give_up]
