"""A node over HTTP: the routes of all edges on one application, documented."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any, NamedTuple

from litestar import Litestar, get
from litestar.exceptions import HTTPException
from litestar.handlers import HTTPRouteHandler
from litestar.openapi import OpenAPIConfig
from litestar.openapi.datastructures import ResponseSpec
from litestar.openapi.plugins import JsonRenderPlugin

from penstock import __version__
from penstock.adapters.content.html_to_text import html_to_text
from penstock.adapters.suppressions.memory import MemorySuppressions
from penstock.candidates import incomplete
from penstock.compose import Node, make_campaigning
from penstock.core.definitions.changes import changes_of, require_compatible
from penstock.edges.admin.bodies import StartApply, Status
from penstock.edges.admin.definitions import DefinitionsParts
from penstock.edges.admin.identity import IdentityParts
from penstock.edges.admin.routes import AdminParts, admin_handlers
from penstock.edges.asgi import Answer
from penstock.edges.collector.routes import collector_handlers
from penstock.edges.framework import JsonRequest, mounted, refuse, refuse_fault
from penstock.edges.operations import HealthView, Operations, ReadyView
from penstock.edges.preview.routes import PreviewParts, preview_handlers
from penstock.edges.route import Route
from penstock.edges.serving.asks import named_leaf, who_of
from penstock.edges.serving.mail import mail_handlers
from penstock.edges.serving.routes import serving_handlers
from penstock.edges.test_api.journal import Journal
from penstock.edges.test_api.routes import TestApiParts, test_api_handlers
from penstock.flows.agree import measure
from penstock.flows.recording import Recording
from penstock.flows.render import Links
from penstock.flows.serve import Who
from penstock.flows.shelf import ShelfItem, shelf
from penstock.flows.status import conservation
from penstock.front import Front, make_front
from penstock.project import load_project
from penstock.runtimes.side_by_side import Candidate

PREVIEW_ITEMS_MAX = 200


class Http(NamedTuple):
    """A node over HTTP: an ASGI application, and those of its routes that are served without it."""

    app: Litestar
    hot: list[Route]


def make_app(node: Node, base_url: str = "http://127.0.0.1:8080") -> Litestar:
    """Return the HTTP application of a node, for any ASGI server."""
    return make_http(node, base_url).app


def make_http(node: Node, base_url: str) -> Http:
    """Return the HTTP side of a node.

    Args:
        node: The node; it is started and closed by whoever made it.
        base_url: Where this process listens, for links if the settings name no public URL.

    Raises:
        SettingsError: What is for development alone is on, and must not be; see `make_front`.
    """
    front = make_front(node, base_url)
    return Http(app_of(node, front), front.hot)


def app_of(node: Node, front: Front) -> Litestar:
    """Return the application of a node's front: all of its routes, documented, and those that are not hot.

    Args:
        node: The node.
        front: What answers its hot routes.
    """
    settings, links = node.project.settings, front.links
    testing = test_api_parts(node, links, front.journal) if front.journal else None
    return Litestar(
        route_handlers=[
            *collector_handlers(front.collecting),
            *serving_handlers(front.serving),
            *mail_handlers(front.feedback, front.unsubscribing),
            *admin_handlers(admin_parts(node, links)),
            *operations_handlers(front.operations),
            *(preview_handlers(preview_parts(node, links)) if settings.development.preview else ()),
            *(test_api_handlers(testing) if testing else ()),
        ],
        # As JSON alone: a page to read it in would load its scripts from a third party.
        openapi_config=OpenAPIConfig(
            title="Penstock",
            version=__version__,
            path="/schema",
            render_plugins=[JsonRenderPlugin()],
        ),
        request_class=JsonRequest,
        exception_handlers={HTTPException: refuse, Exception: refuse_fault},
        logging_config=None,
    )


def make_operations_app(asked: Operations) -> Litestar:
    """Return the application of a process that has no other routes."""
    return Litestar(
        route_handlers=operations_handlers(asked), openapi_config=None, logging_config=None
    )


def operations_handlers(asked: Operations) -> list[HTTPRouteHandler]:
    """Return the routes `/health`, `/ready` and `/metrics`."""

    @get(
        "/metrics",
        tags=["operations"],
        summary="Metrics in the Prometheus text format",
        media_type="text/plain",
    )
    async def exposition() -> Answer:
        return asked.exposition()

    return [
        mounted(
            asked.health, name="health", tags=["operations"], summary="Whether the process answers",
            responses={200: ResponseSpec(HealthView, description="It does", generate_examples=False)},
        ),
        mounted(
            asked.ready, name="readiness", tags=["operations"],
            summary="Whether events can be taken, and if not, why",
            responses={
                200: ResponseSpec(ReadyView, description="They can", generate_examples=False),
                503: ResponseSpec(ReadyView, description="They can't", generate_examples=False),
            },
        ),
        exposition,
    ]  # fmt: skip


def admin_parts(node: Node, links: Links) -> AdminParts:
    """Return what the admin routes call."""
    stores, engine, project = node.stores, node.engine, node.project

    async def status() -> Status:
        await engine.settled()
        epoch, plan = engine.epoch, engine.step.plan
        law = await asyncio.to_thread(conservation, stores.log, stores.store, epoch, plan)
        ready, reason = engine.ready()
        return Status(
            ready=ready, reason=reason, live=engine.live(), epoch=epoch,
            head=sum(stores.log.head(partition) for partition in range(stores.log.partitions)),
            lag=engine.lag(), accepted=law.accepted, applied=law.applied,
            deduplicated=law.deduplicated, policy_dropped=law.policy_dropped,
            dead_lettered=law.dead_lettered, in_flight=law.in_flight, conserved=law.holds,
            links=law.links, leaves=law.leaves,
        )  # fmt: skip

    def find_who(asked: Any) -> Who:
        return who_of(asked, node.collector.make_leaf, links.token_key)

    return AdminParts(
        admin_key=project.settings.server.admin_key, collector=node.collector,
        campaigning=lambda edition: make_campaigning(node, links, edition), editions=node.editions,
        log=stores.log, history=node.history, past=node.past, sources=node.sources, find_who=find_who,
        find_leaf=engine.find, status=status, waits=engine.waits,
        definitions=DefinitionsParts(
            node.versions,
            partial(_changed, node),
            partial(measure, stores.store),
        ),
        identity=IdentityParts(
            node.editions, engine.appender,
            partial(named_leaf, make_leaf=node.collector.make_leaf, token_key=links.token_key),
        ),
    )  # fmt: skip


def _changed(node: Node, allowed: StartApply) -> Candidate:
    """Return what the project's folder holds now.

    Raises:
        DefinitionError: It is wrong (E1xx), and not allowed: it breaks events (E195), or has features
            that look back further than the log is kept (E122).
    """
    project = load_project(node.project.root)
    serves, declared = node.versions.declared(), project.declared()
    mode = project.settings.definitions.compatibility
    if not allowed.allow_breaks:
        require_compatible(serves, declared, mode)
    if not allowed.allow_incomplete:
        for error in incomplete(project, changes_of(serves, declared, mode)):
            raise error
    return node.load(project)


def preview_parts(node: Node, links: Links) -> PreviewParts:
    """Return what the preview's routes call."""
    project, store = node.project, node.stores.store
    settings = project.settings
    images = {
        prefix: project.root / folder for prefix, folder in settings.development.images.items()
    }

    async def items() -> list[ShelfItem]:
        return await asyncio.to_thread(
            shelf, store, node.engine.epoch, node.engine.step.plan, PREVIEW_ITEMS_MAX
        )

    return PreviewParts(
        name=settings.project.name,
        write_key=next(
            (one.write_key for one in settings.sources.values() if one.kind == "browser" and one.write_key), ""
        ),
        consent=sorted({*settings.consent.categories} or {*project.consent_rules().purposes}),
        serving=lambda: node.serving, links=links, text_of_html=html_to_text,
        find_who=lambda asked: who_of(asked, node.collector.make_leaf, links.token_key),
        history=node.history, shelf=items, images=images,
    )  # fmt: skip


def test_api_parts(node: Node, links: Links, journal: Journal) -> TestApiParts:
    """Return what the test endpoints call. They tell of what comes in from now on."""
    return TestApiParts(
        recording=Recording(
            node.stores.log, edition=lambda: node.editions.active, new_register=MemorySuppressions
        ),
        journal=journal,
        find_who=lambda asked: who_of(asked, node.collector.make_leaf, links.token_key),
    )
