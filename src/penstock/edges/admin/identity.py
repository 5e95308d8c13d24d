"""The admin API's route for identity: two identifiers that were joined wrongly are cut apart."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from litestar import Request, post
from litestar.handlers import HTTPRouteHandler
from litestar.params import JSONBody

from penstock.core.identity.cutting import Named
from penstock.core.record import Edge
from penstock.core.time import format_instant
from penstock.edges.admin.answers import Answering, documented
from penstock.edges.admin.bodies import CutEdge, CutIdentifiers, CutReport
from penstock.edges.asgi import Answer
from penstock.flows.cut import cut
from penstock.flows.editions import Editions
from penstock.ports.appender import Appender


class IdentityParts(NamedTuple):
    """What the route for identity calls."""

    editions: Editions
    appender: Appender
    find_leaf: Callable[[str, str], Named]
    """The leaf of a (type, value); raises EventRejected."""


class IdentityEdge:
    """Cuts identifiers apart.

    Args:
        parts: What it calls.
    """

    def __init__(self, parts: IdentityParts) -> None:
        self.parts = parts

    async def cut(self, data: CutIdentifiers) -> CutReport:
        """Cut, and return what was undone."""
        find = self.parts.find_leaf
        one = find(data.one.id_type, data.one.value)
        other = find(data.other.id_type, data.other.value)
        serving = self.parts.editions.active.serving
        undone = await cut(
            serving.profiles, serving.definitions, self.parts.appender, one, other,
            tenant=serving.rules.tenant, now_ms=serving.clock.now_ms(),
        )  # fmt: skip
        return CutReport([_shown(edge) for edge in undone])


def _shown(edge: Edge) -> CutEdge:
    return CutEdge(edge.a_type, edge.b_type, edge.rule, edge.verified, format_instant(edge.at_ms))


def identity_handlers(
    parts: IdentityParts, answering: Answering, shared: dict[str, Any]
) -> list[HTTPRouteHandler]:
    """Return the route handlers.

    Args:
        parts: What they call.
        answering: Makes an answer of some work, counted and logged.
        shared: What all admin routes have.
    """
    edge = IdentityEdge(parts)

    @post("/v1/admin/cut", status_code=200, responses=documented(CutReport, "What was undone"),
          summary="Cut two identifiers apart that were joined wrongly", **shared)  # fmt: skip
    async def cut_apart(request: Request[Any, Any, Any], data: JSONBody[CutIdentifiers]) -> Answer:
        return await answering(request, lambda: edge.cut(data))

    return [cut_apart]
