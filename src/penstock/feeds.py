"""A project's feeds: what `[feed]` declares becomes what tells other systems of decisions and profiles."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import closing

import msgspec

from penstock.compose import Node
from penstock.core.catalog.published import Published
from penstock.core.catalog.told import DECISIONS, PROFILES, as_avro
from penstock.core.errors import SettingsError
from penstock.core.wire import frame
from penstock.flows.feeding import (
    DecisionSource,
    ProfileRules,
    ProfileSource,
    Source,
    Telling,
)
from penstock.logs import connection_of
from penstock.ports.feed import Feed
from penstock.ports.registry import Schema
from penstock.project import Project
from penstock.registries import make_registry, told
from penstock.runtimes.feeder import Feeder, Write

STOP_S = 10.0
"""How long a feed may take to end what it is telling; what it did not tell is told by the next start."""


def make_feeders(node: Node) -> list[Feeder]:
    """Return what tells other systems what a running project declares; nothing by default.

    Raises:
        SettingsError: Kafka needs an extra that is not installed (E287).
    """
    declared, log = node.project.settings.feed, node.stores.log
    if not declared.any or not log.shared:
        return []
    connection = connection_of(node.project)

    def feeder(name: str, topic: str, source: Callable[[], Source]) -> Feeder:
        return Feeder(
            name, log=log, source=source, open_feed=_opener(node, topic), clock=node.clock, metrics=node.metrics,
            every_ms=declared.every_ms, writing=_writing(node.project, name),
        )  # fmt: skip

    made: list[Feeder] = []
    if declared.decisions:
        decisions = DecisionSource(log)
        made.append(feeder(DECISIONS, connection.decisions_topic, lambda: decisions))
    if declared.profiles:
        made.append(feeder(PROFILES, connection.profiles_topic, _profiles(node)))
    return made


def _writing(project: Project, name: str) -> Callable[[], Write]:
    """Return what finds out how values are written: as JSON, or by the schema that the registry has."""

    def writing() -> Write:
        one = told(project).get(name)
        registry = make_registry(project)
        if one is None or registry is None:
            return bytes
        with closing(registry):
            found = registry.find(one.subject, Schema(one.kind, one.text))
        if found is None:
            raise SettingsError("E238", f"the registry has no schema of subject {one.subject} as this version writes it",
                                where="registry", fix="run `penstock schemas publish`")  # fmt: skip
        encode = _encoder(name, one)
        return lambda value: frame(found.schema_id, encode(value))

    return writing


def _encoder(name: str, one: Published) -> Write:
    if one.kind != "AVRO":
        return bytes
    try:
        from penstock.adapters.encoder.avro import compile_avro  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise SettingsError("E235", "Avro needs an extra that is not installed", where="feed.format",
                            fix="pip install 'penstock[registry]'") from error  # fmt: skip
    encode = compile_avro(one.text)
    return lambda value: encode(as_avro(name, msgspec.json.decode(value)))


def _opener(node: Node, topic: str) -> Callable[[], Feed]:
    connection = connection_of(node.project)
    from penstock.adapters.log.kafka.feeds import KafkaFeed  # noqa: PLC0415 - an extra

    log = node.stores.log

    def open_feed() -> Feed:
        return KafkaFeed(
            connection, topic, topic, generations=log.generations,
        )  # fmt: skip

    return open_feed


def _profiles(node: Node) -> Callable[[], Source]:
    """Return what tells profiles by the definitions that serve, which change while a project runs."""
    declared = node.project.settings.feed
    rules = ProfileRules(declared.purpose, frozenset(declared.traits), declared.format)
    made: dict[int, ProfileSource] = {}

    def source() -> Source:
        edition = node.editions.active
        if edition.number not in made:
            made.clear()
            made[edition.number] = ProfileSource(
                log=node.stores.log, store=node.stores.store, suppressions=node.stores.suppressions,
                telling=Telling(edition.epoch, edition.plan, edition.serving.definitions), rules=rules,
                clock=node.clock,
            )  # fmt: skip
        return made[edition.number]

    return source


def stop_feeders(feeders: Sequence[Feeder], threads: Sequence[threading.Thread]) -> None:
    """Let feeds end what they are telling."""
    for one in feeders:
        one.stop()
    for thread in threads:
        thread.join(STOP_S)
