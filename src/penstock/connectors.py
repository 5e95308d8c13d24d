"""A project's connectors: what `[connect.NAME]` says becomes what copies topics of other producers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from hashlib import blake2b
from typing import Any, Final

from penstock.adapters.registry.folder import FolderRegistry
from penstock.compose import Node
from penstock.connect_settings import ConnectSettings, connector_faults
from penstock.core.errors import SettingsError
from penstock.core.foreign import KINDS, SEGMENT_JSON, EventMapping, Foreign, Mapper, compile_mapper
from penstock.flows.copying import Copier, PlainReader, Reader
from penstock.flows.decoding import Schemas, compile_json
from penstock.logs import client_of, default_begin
from penstock.ports.decoder import Compile
from penstock.ports.registry import Registry
from penstock.ports.topics import Topics
from penstock.project import Project
from penstock.registries import make_registry
from penstock.runtimes.connector import Connector

SCHEMAS_FOLDER: Final = "schemas"
STOP_S: Final = 10.0
"""How long connectors may take to copy what they have polled."""
AGAIN_S: Final = 30.0
"""How long a connector that lacks something waits before it looks again."""


def make_connectors(node: Node, names: Sequence[str] = ()) -> list[Connector]:
    """Return the connectors of a running project: those that are named, or all.

    Raises:
        SettingsError: There is none of a name (E236), one lacks something (E234), maps to what is not declared
            (E233), or needs an extra that is not installed (E235).
    """
    connect = node.project.settings.connect
    for name in names:
        if name not in connect:
            raise SettingsError("E236", f"there is no connector `{name}`", where="connect",
                                fix=f"use one of {', '.join(connect)}" if connect else f"add [connect.{name}] to penstock.toml")  # fmt: skip
    chosen = names or list(connect)
    for name in chosen:
        require_whole(node.project, name)
    registry = _registry(node.project) if any(connect[name].format in KINDS for name in chosen) else None  # fmt: skip
    return [_connector(node, name, connect[name], registry) for name in chosen]


def require_whole(project: Project, name: str) -> None:
    """Refuse a connector that lacks something, or whose settings do not go together.

    Raises:
        SettingsError: It does (E234).
    """
    settings = project.settings
    for fault in connector_faults(
        name, settings.connect[name], url=settings.registry.url, sources=settings.sources,
        on_kafka=settings.log.kind == "kafka",
    ):  # fmt: skip
        raise SettingsError(fault.code, f"setting `{'.'.join(fault.path)}` {fault.what}", where="penstock.toml", fix=fault.fix)  # fmt: skip


def _connector(
    node: Node, name: str, settings: ConnectSettings, registry: Registry | None
) -> Connector:
    reader: Reader | None = PlainReader()
    if settings.format == SEGMENT_JSON:
        reader = None
    elif registry is not None and settings.format in KINDS:
        kind = KINDS[settings.format]
        reader = Schemas(registry, kind, _compiler(kind), park_after_ms=settings.park_after_ms,
                         clock=node.clock, metrics=node.metrics)  # fmt: skip
    copier = Copier(
        name, node.sources[settings.source or name], reader=reader,
        mapper=None if reader is None else _mapper(node, name, settings.events),
        collector=node.collector, metrics=node.metrics, job=settings.job,
    )  # fmt: skip
    return Connector(copier, topics_of(node.project, name, settings), log=node.stores.log, clock=node.clock,
                     metrics=node.metrics)  # fmt: skip


def _mapper(node: Node, name: str, mappings: Mapping[str, EventMapping]) -> Mapper:
    """Return a mapper that goes by what is declared now: definitions change while a project runs."""
    where = f"connect.{name}"
    catalog = node.collector.catalog
    mapper = compile_mapper(mappings, catalog, where)

    def to_event(record: Foreign, value: Any) -> bytes | None:
        nonlocal catalog, mapper
        if node.collector.catalog is not catalog:
            catalog = node.collector.catalog
            with suppress(
                SettingsError
            ):  # an event that is gone is treated as any that nothing declares
                mapper = compile_mapper(mappings, catalog, where)
        return mapper(record, value)

    return to_event


def _registry(project: Project) -> Registry | None:
    """Return the project's registry, with what was read of it kept in the data folder."""
    registry = make_registry(project)
    if registry is None or project.settings.log.kind == "memory":
        return registry
    mark = blake2b(project.settings.registry.url.encode(), digest_size=8).hexdigest()
    return FolderRegistry(registry, project.data_dir / SCHEMAS_FOLDER / mark)


def _compiler(kind: str) -> Compile:
    if kind == "JSON":
        return compile_json
    try:
        if kind == "AVRO":
            from penstock.adapters.decoder.avro import compile_avro  # noqa: PLC0415 - an extra

            return compile_avro
        from penstock.adapters.decoder.protobuf import compile_protobuf  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise SettingsError("E235", "records of Avro and Protobuf need an extra that is not installed", where="connect",
                            fix="pip install 'penstock[registry]'") from error  # fmt: skip
    return compile_protobuf


def topics_of(project: Project, name: str, settings: ConnectSettings) -> Callable[[], Topics]:
    """Return what joins the group that reads a connector's topics.

    Raises:
        SettingsError: Kafka needs an extra that is not installed (E235).
    """
    try:
        from penstock.adapters.topics.kafka import KafkaTopics  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise SettingsError("E235", "Kafka needs an extra that is not installed", where=f"connect.{name}",
                            fix="pip install 'penstock[kafka]'") from error  # fmt: skip
    return partial(KafkaTopics, client_for(project, settings), settings.topics, group_of(project, name),
                   from_beginning=settings.begin == "earliest")  # fmt: skip


def client_for(project: Project, settings: ConnectSettings) -> dict[str, Any]:
    """Return how the brokers of a connector's topics are reached, as librdkafka names it."""
    # Other brokers are never told how this project's own are reached: they need no password of theirs.
    if settings.brokers:
        return {"bootstrap.servers": ",".join(settings.brokers), **settings.client}
    return {**client_of(project), **settings.client}


def group_of(project: Project, name: str) -> str:
    """Return the group that reads a connector's topics: no other project's, whose topics have another prefix."""
    settings = project.settings
    return settings.connect[name].group or f"{default_begin(settings.log.kafka.prefix)}-{name}"


async def stop_all(connectors: Sequence[Connector], running: Sequence[asyncio.Task[None]]) -> None:
    """Let connectors copy and commit what they have, and leave their groups."""
    for one in connectors:
        one.stop()
    if running:
        _, late = await asyncio.wait(running, timeout=STOP_S)
        for one in late:
            one.cancel()


async def keep_running(connector: Connector, tell: Callable[[SettingsError], None]) -> None:
    """Run a connector beside other work: what it lacks is told, and looked for again."""
    while not connector.stopping:
        try:
            await connector.run()
        except SettingsError as error:
            tell(error)
            await connector.pause(AGAIN_S)
