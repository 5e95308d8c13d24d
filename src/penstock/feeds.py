"""A project's feeds: what `[feed]` declares becomes what tells other systems of decisions and profiles."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from penstock.compose import Node
from penstock.flows.feeding import (
    DecisionSource,
    ProfileRules,
    ProfileSource,
    Source,
    Telling,
)
from penstock.logs import connection_of
from penstock.ports.feed import Feed
from penstock.runtimes.feeder import Feeder

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
            every_ms=declared.every_ms,
        )  # fmt: skip

    made: list[Feeder] = []
    if declared.decisions:
        decisions = DecisionSource(log)
        made.append(feeder("decisions", connection.decisions_topic, lambda: decisions))
    if declared.profiles:
        made.append(feeder("profiles", connection.profiles_topic, _profiles(node)))
    return made


def _opener(node: Node, topic: str) -> Callable[[str], Feed]:
    connection = connection_of(node.project)
    from penstock.adapters.log.kafka.feeds import KafkaFeed  # noqa: PLC0415 - an extra

    def open_feed(name: str) -> Feed:
        return KafkaFeed(
            connection, topic, f"{connection.prefix}{name}", generations=node.stores.log.generations,
        )  # fmt: skip

    return open_feed


def _profiles(node: Node) -> Callable[[], Source]:
    """Return what tells profiles by the definitions that serve, which change while a project runs."""
    declared = node.project.settings.feed
    rules = ProfileRules(declared.purpose, frozenset(declared.traits))
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
