"""The topics of a project: as they are declared, as they are found, and what makes the one of the other."""

# pyright: reportPrivateImportUsage=false
# confluent_kafka.admin offers what it imports.

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, Final, NamedTuple, TypeVar

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    NewTopic,
    ResourceType,
)

from penstock.adapters.log.kafka.connection import (
    Connection,
    Heard,
    asked,
    client,
    refused,
    told_by,
)
from penstock.core.errors import SettingsError

T = TypeVar("T")

STAMPS: Final = "message.timestamp.type"
APPEND_TIME: Final = "LogAppendTime"
CLEANUP: Final = "cleanup.policy"
SIZE: Final = "max.message.bytes"
RECORD_BYTES_MAX: Final = 1024 * 1024
"""What the topic of the log takes at least: an event has 32 KiB at most, and a decision far less than this."""

NEW_TOPIC_S: Final = 2.0
"""A topic that was made a moment ago is not known to all brokers yet: so long it is looked for."""


class Topic(NamedTuple):
    """A topic as the project declares it."""

    name: str
    what: str
    """What is in it, for people."""
    partitions: int
    replication: int
    settings: Mapping[str, str]
    fixed: bool = False
    """Whether its number of partitions is a promise: what is in them would be looked for elsewhere."""


class Found(NamedTuple):
    """A topic as it is."""

    topic_id: str
    partitions: int
    replication: int
    settings: Mapping[str, str]


class TopicChange(NamedTuple):
    """What is to become of a topic."""

    topic: Topic
    how: str
    """`new` or `changed`."""
    details: tuple[str, ...] = ()
    partitions: int = 0
    """To be added up to this number; 0 for none."""
    settings: Mapping[str, str] = {}
    fault: str = ""
    """What can't be changed, and is to be."""
    opens: bool = False
    """Whether it is made to go on in: another generation of a log that is there."""


class Admin:
    """What the brokers are asked about their topics, and told to make of them."""

    def __init__(self, connection: Connection, heard: Heard | None = None) -> None:
        self.connection = connection
        self.heard = heard or Heard()
        self.timeout_s = connection.open_timeout_s
        self.client = AdminClient(client(connection, self.heard))

    def ask(
        self, work: Callable[..., Mapping[Any, Future[T]]], asking: Any, *, where: str = ""
    ) -> dict[Any, T]:  # fmt: skip
        """Return the answers to a question about several things, each by what was asked about.

        Raises:
            SettingsError: The brokers do not let us in, or do not allow it (E282).
            Unavailable: They do not answer, or go on having no leader (E401).
        """
        answers: dict[Any, Any] = self.ask_or(frozenset(), work, asking, where=where)
        return answers

    def ask_or(
        self, known: frozenset[int], work: Callable[..., Mapping[Any, Future[T]]], asking: Any, *, where: str = ""
    ) -> dict[Any, T | KafkaError]:  # fmt: skip
        """Return the answers as `ask` does, where some errors are answers too.

        Args:
            known: The codes of those errors.
            work: Asks.
            asking: About what.
            where: The setting or topic that it is about.

        Raises:
            SettingsError: The brokers do not let us in, or do not allow it (E282).
            Unavailable: They do not answer, or go on having no leader (E401).
        """
        until = time.monotonic() + self.timeout_s

        def answer(future: Future[T], turn_s: float) -> T | KafkaError:
            try:
                return future.result(turn_s + 1)
            except KafkaException as exception:
                if told_by(exception).code() in known:
                    return told_by(exception)
                raise

        def answers() -> dict[Any, T | KafkaError]:
            while True:
                turn_s = min(max(until - time.monotonic(), TURN_S), ATTEMPT_S)
                futures = work(asking, request_timeout=turn_s)
                try:
                    return {one: answer(future, turn_s) for one, future in futures.items()}
                except KafkaException as exception:
                    if told_by(exception).code() not in _PASSING:
                        raise
                    self.learn()
                    if time.monotonic() > until:
                        raise
                    time.sleep(TURN_S)

        return asked(
            answers,
            self.heard,
            "the topics",
            listen=self.listen,
            where=where or "log.kafka.brokers",
        )

    def learn(self) -> None:
        """Learn anew who is there and who leads: a client goes on asking whom it was told of, dead or not."""
        with suppress(KafkaException):
            self.client.list_topics(timeout=LEARN_S)

    def listen(self) -> None:
        """Let the client tell what it was told of its connections."""
        self.client.poll(0)

    def cluster_id(self) -> str:
        """Return the id of the cluster.

        Raises:
            SettingsError: It does not let us in (E282).
            Unavailable: It does not answer (E401).
        """

        def work() -> str:
            described = self.client.describe_cluster(request_timeout=self.timeout_s)
            return described.result(self.timeout_s + 1).cluster_id or ""

        return asked(work, self.heard, "the cluster", listen=self.listen)

    def look(self, names: Iterable[str]) -> dict[str, Found]:
        """Return those of some topics that are there.

        Raises:
            SettingsError: We may not look (E282).
            Unavailable: Brokers do not answer (E401).
        """
        futures = self.client.describe_topics(
            TopicCollection([*names]), request_timeout=self.timeout_s
        )
        there: dict[str, Any] = {}
        for name, future in futures.items():
            try:
                there[name] = future.result(self.timeout_s + 1)
            except KafkaException as exception:
                error = told_by(exception)
                if error.code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
                    self.listen()
                    raise refused(self.heard.error or error, f"the topic {name}") from exception
        if not there:
            return {}
        resources = [ConfigResource(ResourceType.TOPIC, name) for name in there]
        settings = self.ask(self.client.describe_configs, resources)
        return {
            resource.name: Found(
                str(there[resource.name].topic_id), len(there[resource.name].partitions),
                len(there[resource.name].partitions[0].replicas),
                {name: str(entry.value) for name, entry in entries.items()},
            )
            for resource, entries in settings.items()
        }  # fmt: skip

    def change(self, changes: Sequence[TopicChange]) -> None:
        """Make and alter topics.

        Raises:
            SettingsError: Brokers refuse it (E289), or do not let us (E282).
            Unavailable: They do not answer (E401); doing it again is safe.
        """
        new = [one.topic for one in changes if one.how == "new"]
        if new:
            self._do(
                self.client.create_topics,
                [NewTopic(one.name, one.partitions, one.replication, config=dict(one.settings)) for one in new],
                done=KafkaError.TOPIC_ALREADY_EXISTS,  # by another node, a moment ago
            )  # fmt: skip
        more = [NewPartitions(one.topic.name, one.partitions) for one in changes if one.partitions]
        if more:
            self._do(self.client.create_partitions, more)
        altered = [
            ConfigResource(
                ResourceType.TOPIC, one.topic.name,
                incremental_configs=[
                    ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET)
                    for name, value in one.settings.items()
                ],
            )
            for one in changes if one.settings
        ]  # fmt: skip
        if altered:
            self._do(self.client.incremental_alter_configs, altered)

    def _do(
        self, work: Callable[..., Mapping[Any, Future[None]]], asking: list[Any], *, done: int | None = None
    ) -> None:  # fmt: skip
        futures = work(asking, request_timeout=self.timeout_s)
        for one, future in futures.items():
            try:
                future.result(self.timeout_s + 1)
            except KafkaException as exception:
                error = told_by(exception)
                if error.code() == done:
                    continue
                name = one if isinstance(one, str) else one.name
                if error.code() in REFUSALS:
                    raise SettingsError("E289", f"the brokers refuse topic {name} as it is declared: {error.name()}", where="log.kafka",
                                        fix="change what `[log.kafka]` says of partitions, replication and retention") from exception  # fmt: skip
                raise refused(self.heard.error or error, f"the topic {name}") from exception


TURN_S: Final = 0.05

GENERATIONS_AT_ONCE: Final = 4
"""Topics of generations that are asked for together; mostly there are one or two."""

ATTEMPT_S: Final = 3.0
"""How long one broker is waited for, before it is asked who else is there."""

LEARN_S: Final = 1.0

_PASSING: Final = frozenset({
    KafkaError._TIMED_OUT, KafkaError._TRANSPORT,  # noqa: SLF001 - their names
    KafkaError.NOT_LEADER_FOR_PARTITION, KafkaError.LEADER_NOT_AVAILABLE, KafkaError.OFFSET_NOT_AVAILABLE,
    KafkaError.FENCED_LEADER_EPOCH, KafkaError.UNKNOWN_LEADER_EPOCH, KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError.NOT_CONTROLLER, KafkaError.BROKER_NOT_AVAILABLE, KafkaError.NOT_COORDINATOR,
    KafkaError.COORDINATOR_NOT_AVAILABLE, KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
})  # fmt: skip
"""What is told while a topic, a leader or a coordinator is new, and is another answer a moment later."""

REFUSALS: Final = frozenset({
    KafkaError.INVALID_REPLICATION_FACTOR, KafkaError.INVALID_PARTITIONS, KafkaError.INVALID_CONFIG,
    KafkaError.POLICY_VIOLATION, KafkaError.TOPIC_EXCEPTION, KafkaError.INVALID_REQUEST,
    KafkaError.INVALID_REPLICA_ASSIGNMENT,
})  # fmt: skip
"""What is told of a topic that can't be as it is declared."""


def log_topic(
    connection: Connection, generation: int, partitions: int, *, replication: int, in_sync: int, retention_ms: int
) -> Topic:  # fmt: skip
    """Return the topic of a generation of the log."""
    return Topic(
        connection.log_topic(generation), "the log", partitions, replication,
        {
            CLEANUP: "delete",
            STAMPS: APPEND_TIME,
            "retention.ms": str(retention_ms or -1),
            "retention.bytes": "-1",
            "min.insync.replicas": str(in_sync),
            "unclean.leader.election.enable": "false",
            SIZE: str(RECORD_BYTES_MAX + 64 * 1024),
        },
        fixed=True,
    )  # fmt: skip


def log_topics(admin: Admin, connection: Connection) -> dict[str, Found]:
    """Return the topics of the log's generations that are there, the oldest first."""
    found: dict[str, Found] = {}
    while True:
        begin = len(found) + 1
        names = [connection.log_topic(one) for one in range(begin, begin + GENERATIONS_AT_ONCE)]
        there = admin.look(names)
        for name in names:
            if name not in there:
                return found
            found[name] = there[name]


def letters_topic(connection: Connection, *, replication: int, in_sync: int, retention_ms: int) -> Topic:  # fmt: skip
    """Return the topic of dead letters; one partition, so that they have an order."""
    return Topic(
        connection.letters_topic, "dead letters", 1, replication,
        {
            CLEANUP: "delete",
            "retention.ms": str(retention_ms or -1),
            "min.insync.replicas": str(in_sync),
            SIZE: str(RECORD_BYTES_MAX + 64 * 1024),
        },
        fixed=True,
    )  # fmt: skip


def changes_of(topics: Sequence[Topic], found: Mapping[str, Found]) -> list[TopicChange]:
    """Return what is to be done so that topics are as they are declared."""
    changes: list[TopicChange] = []
    for topic in topics:
        there = found.get(topic.name)
        if there is None:
            copies = f"{topic.partitions} partitions, {topic.replication} copies"
            changes.append(TopicChange(topic, "new", (copies,)))
            continue
        settings = {
            name: value for name, value in topic.settings.items() if there.settings.get(name) != value
        }  # fmt: skip
        details = [
            f"{name}: {there.settings.get(name, 'unset')} -> {value}" for name, value in settings.items()
        ]  # fmt: skip
        fault, more = "", 0
        if there.partitions != topic.partitions:
            details.insert(0, f"partitions: {there.partitions} -> {topic.partitions}")
            if topic.fixed or there.partitions > topic.partitions:
                fault = f"it has {there.partitions} partitions, which is for good"
            else:
                more = topic.partitions
        if there.replication != topic.replication:
            details.append(f"copies: {there.replication} -> {topic.replication}")
            fault = fault or f"it has {there.replication} copies; brokers change that by a reassignment, which is yours to run"  # fmt: skip
        if details:
            changes.append(TopicChange(topic, "changed", tuple(details), more, settings, fault))
    return changes
