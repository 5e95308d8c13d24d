"""A node's front: the edges whose hot routes answer at once, before the application is loaded."""

from __future__ import annotations

from typing import NamedTuple

from penstock.adapters.clock import thread_us
from penstock.adapters.content.html_to_text import html_to_text
from penstock.compose import Node, make_links
from penstock.core.errors import SettingsError
from penstock.edges.collector.edge import CollectorEdge, collector_edge
from penstock.edges.collector.keys import write_key
from penstock.edges.operations import Operations, operations
from penstock.edges.route import Route
from penstock.edges.serving.asks import ReadKeys
from penstock.edges.serving.edge import ServingEdge, ServingParts
from penstock.edges.serving.unsubscribing import unsubscribe_route
from penstock.edges.test_api.journal import Journal
from penstock.flows.feedback import Feedback
from penstock.flows.render import Links

LOOPBACK_HOSTS = frozenset({"127.0.0.1", "::1", "localhost"})


class Front(NamedTuple):
    """What answers without a framework; the application serves it too, and documents it."""

    links: Links
    feedback: Feedback
    collecting: CollectorEdge
    serving: ServingEdge
    unsubscribing: Route
    operations: Operations
    journal: Journal | None
    """What the test endpoints tell of requests; None if there are none."""

    @property
    def hot(self) -> list[Route]:
        """The routes that are answered from the parser."""
        return [
            *self.collecting.routes, *self.serving.hot, self.unsubscribing, self.operations.health,
            self.operations.ready,
        ]  # fmt: skip


def make_front(node: Node, base_url: str) -> Front:
    """Return the front of a node.

    Args:
        node: The node; it is started and closed by whoever made it.
        base_url: Where this process listens, for links if the settings name no public URL.

    Raises:
        SettingsError: What shows people without a key is on, and the server's address is not loopback,
            or a folder of it does not exist (E219).
    """
    settings, clock, metrics = node.project.settings, node.clock, node.metrics
    _check_development(node)
    links = make_links(node, base_url)
    write_keys = [
        write_key(source.write_key, name, source.kind, source.rank, basis=source.basis,
                  origins=source.origins, identity_keys=source.identity_keys)
        for name, source in settings.sources.items() if source.write_key
    ]  # fmt: skip
    journal = Journal() if settings.development.test_api else None
    collecting = collector_edge(
        node.collector, write_keys, clock=clock, metrics=metrics,
        requests_max=settings.server.requests_max,
        requests_per_s_per_key=settings.server.requests_per_s_per_key,
        public_url=settings.server.public_url, watch=journal, waits=node.engine.waits,
        spent_us=thread_us,
    )  # fmt: skip
    feedback = Feedback(
        decisions=node.stores.decisions, appender=node.engine.appender,
        suppressions=node.stores.suppressions, token_key=links.token_key,
        tenant=settings.project.tenant, clock=clock, metrics=metrics,
        put_suppressions=node.collector.put_suppressions,
    )  # fmt: skip
    serving = ServingEdge(ServingParts(
        serving=node.editions, make_leaf=node.collector.make_leaf, links=links,
        read_keys=ReadKeys([*settings.server.read_keys, settings.server.admin_key]),
        text_of_html=html_to_text, clock=clock, metrics=metrics, past=node.past,
        hurried=collecting.door.admission.hurried,
    ))  # fmt: skip
    asked = operations(node.engine.ready, metrics, node.engine.publish, clock)
    return Front(
        links, feedback, collecting, serving, unsubscribe_route(feedback, clock, metrics), asked, journal
    )  # fmt: skip


def _check_development(node: Node) -> None:
    """Refuse what shows people without a key where strangers could ask for it, or lacks its pictures."""
    project = node.project
    server, development = project.settings.server, project.settings.development
    if development.preview:
        _require_loopback(server.host, "development.preview", "the preview shows shoppers' emails")
        for prefix, folder in development.images.items():
            if not (project.root / folder).is_dir():
                raise SettingsError("E219", "the folder of a preview's pictures does not exist", where=prefix,
                                    fix="make it, or remove the line from development.images")  # fmt: skip
    if development.test_api:
        _require_loopback(server.host, "development.test_api", "the test endpoints show people")


def _require_loopback(host: str, setting: str, why: str) -> None:
    if host not in LOOPBACK_HOSTS:
        raise SettingsError("E219", f"{why} without a key, and the server's address is not loopback",
                            where=setting, fix='set it to false, or server.host to "127.0.0.1"')  # fmt: skip
