"""A project's schema registry: what `[registry]` names becomes an adapter, and what events become there."""

from __future__ import annotations

from penstock.adapters.registry.confluent import ConfluentRegistry
from penstock.core.catalog.builtin import BUILTIN
from penstock.core.catalog.fields import EventType
from penstock.core.catalog.published import Naming, Published, publish_all
from penstock.core.catalog.told import DECISIONS, PROFILES, told_schema
from penstock.core.errors import SettingsError
from penstock.ports.registry import Registry
from penstock.project import Project


def make_registry(project: Project) -> Registry | None:
    """Return the project's schema registry, or None if it has none.

    Raises:
        SettingsError: Its certificates can't be read (E230).
    """
    named = project.settings.registry
    if not named.url:
        return None
    ca = project.root / named.ca if named.ca else None
    return ConfluentRegistry(named.url, username=named.username, password=named.password, ca=ca)


def published(project: Project) -> list[Published]:
    """Return the project's declared events as they are to be published, and what other systems are told.

    Raises:
        DefinitionError: Two of them can't be told apart there (E198).
        SettingsError: Subjects are named by a topic that is not named (E231).
    """
    named = project.settings.registry
    if named.subjects != "record" and not named.topic:
        raise SettingsError("E231", "setting `registry.subjects` names subjects by topic, and no topic is named",
                            where="registry.topic", fix='set it, such as "shop-events", or with `topic` "shop.{event}"')  # fmt: skip
    naming = Naming(named.subjects, named.namespace, named.topic)
    return [*publish_all(declared(project), named.format, naming), *told(project).values()]


def told(project: Project) -> dict[str, Published]:
    """Return the schemas of what other systems are told, by feed; empty if it is told without any."""
    settings = project.settings
    feed, prefix = settings.feed, settings.log.kafka.prefix
    if feed.format == "json":
        return {}
    names = [name for name, is_told in ((DECISIONS, feed.decisions), (PROFILES, feed.profiles)) if is_told]  # fmt: skip
    return {name: told_schema(name, feed.format, f"{prefix}{name}", settings.registry.namespace) for name in names}  # fmt: skip


def declared(project: Project) -> list[EventType]:
    """Return the events that the project declares, without those that every project has."""
    builtin = {one.name for one in BUILTIN}
    return [one for name, one in project.catalog.event_types.items() if name not in builtin]
