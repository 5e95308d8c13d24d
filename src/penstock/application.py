"""A node over HTTP: the routes of all edges on one application, and who may reach which."""

from __future__ import annotations

import asyncio
from typing import NamedTuple

from litestar import Litestar
from litestar.exceptions import HTTPException
from litestar.openapi import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin

from penstock import __version__
from penstock.adapters.clock import thread_us
from penstock.adapters.content.html_to_text import html_to_text
from penstock.adapters.suppressions.memory import MemorySuppressions
from penstock.compose import Node, admin_parts, make_links
from penstock.core.errors import SettingsError
from penstock.edges.admin.routes import admin_handlers
from penstock.edges.asgi import JsonRequest, refuse, refuse_fault
from penstock.edges.collector.keys import write_key
from penstock.edges.collector.routes import collector_edge, collector_handlers
from penstock.edges.operations import operations_handlers
from penstock.edges.preview.routes import PreviewParts, preview_handlers
from penstock.edges.route import Route
from penstock.edges.serving.asks import ReadKeys, who_of
from penstock.edges.serving.mail import mail_handlers, unsubscribe_route
from penstock.edges.serving.routes import ServingEdge, ServingParts, serving_handlers
from penstock.edges.test_api.journal import Journal
from penstock.edges.test_api.routes import TestApiParts, test_api_handlers
from penstock.flows.feedback import Feedback
from penstock.flows.recording import Recording
from penstock.flows.render import Links
from penstock.flows.shelf import ShelfItem, shelf

LOOPBACK_HOSTS = frozenset({"127.0.0.1", "::1", "localhost"})
PREVIEW_ITEMS_MAX = 200


class Http(NamedTuple):
    """A node over HTTP: an ASGI application, and those of its routes that are served without it."""

    app: Litestar
    hot: list[Route]


def make_app(node: Node, base_url: str = "http://127.0.0.1:8080") -> Litestar:
    """Return the HTTP application of a node, for any ASGI server."""
    return make_http(node, base_url).app


def make_http(node: Node, base_url: str) -> Http:
    """Return the HTTP side of a node: collector, serving, mail links, operations, admin.

    Args:
        node: The node; it is started and closed by whoever made it.
        base_url: Where this process listens, for links if the settings name no public URL.
    """
    settings, clock, metrics = node.project.settings, node.clock, node.metrics
    links = make_links(node, base_url)
    feedback = Feedback(
        decisions=node.stores.decisions, appender=node.engine.appender,
        suppressions=node.stores.suppressions, token_key=links.token_key,
        tenant=settings.project.tenant, clock=clock, metrics=metrics,
        put_suppressions=node.collector.put_suppressions,
    )  # fmt: skip
    write_keys = [
        write_key(source.write_key, name, source.kind, source.rank, basis=source.basis,
                  origins=source.origins, identity_keys=source.identity_keys)
        for name, source in settings.sources.items() if source.write_key
    ]  # fmt: skip
    development = settings.development
    testing = test_api_parts(node, links) if development.test_api else None
    collecting = collector_edge(
        node.collector, write_keys, clock=clock, metrics=metrics,
        requests_max=settings.server.requests_max,
        requests_per_s_per_key=settings.server.requests_per_s_per_key,
        public_url=settings.server.public_url, watch=testing.journal if testing else None,
        waits=node.engine.waits, spent_us=thread_us,
    )  # fmt: skip
    unsubscribing = unsubscribe_route(feedback, clock, metrics)
    parts = ServingParts(
        serving=node.editions, make_leaf=node.collector.make_leaf, links=links,
        read_keys=ReadKeys([*settings.server.read_keys, settings.server.admin_key]),
        text_of_html=html_to_text, clock=clock, metrics=metrics, past=node.past,
        hurried=collecting.door.admission.hurried,
    )  # fmt: skip
    serving = ServingEdge(parts)
    app = Litestar(
        route_handlers=[
            *collector_handlers(collecting),
            *serving_handlers(serving),
            *mail_handlers(feedback, unsubscribing),
            *admin_handlers(admin_parts(node, links)),
            *operations_handlers(node.engine.ready, metrics, node.engine.publish),
            *(preview_handlers(preview_parts(node, links)) if development.preview else ()),
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
    return Http(app, [*collecting.routes, *serving.hot, unsubscribing])


def preview_parts(node: Node, links: Links) -> PreviewParts:
    """Return what the preview's routes call.

    Raises:
        SettingsError: The server's address is not loopback, or a folder does not exist (E219).
    """
    project, store = node.project, node.stores.store
    settings = project.settings
    _require_loopback(
        settings.server.host, "development.preview", "the preview shows shoppers' emails"
    )
    images = {
        prefix: project.root / folder for prefix, folder in settings.development.images.items()
    }
    for prefix, folder in images.items():
        if not folder.is_dir():
            raise SettingsError("E219", "the folder of a preview's pictures does not exist", where=prefix,
                                fix="make it, or remove the line from development.images")  # fmt: skip

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


def test_api_parts(node: Node, links: Links) -> TestApiParts:
    """Return what the test endpoints call. They tell of what comes in from now on.

    Raises:
        SettingsError: The server's address is not loopback (E219).
    """
    _require_loopback(
        node.project.settings.server.host, "development.test_api", "the test endpoints show people"
    )
    return TestApiParts(
        recording=Recording(
            node.stores.log, edition=lambda: node.editions.active, new_register=MemorySuppressions
        ),
        journal=Journal(),
        find_who=lambda asked: who_of(asked, node.collector.make_leaf, links.token_key),
    )


def _require_loopback(host: str, setting: str, why: str) -> None:
    """Refuse what shows people without a key where strangers could ask for it."""
    if host not in LOOPBACK_HOSTS:
        raise SettingsError("E219", f"{why} without a key, and the server's address is not loopback",
                            where=setting, fix='set it to false, or server.host to "127.0.0.1"')  # fmt: skip
