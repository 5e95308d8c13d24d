"""A feed as a topic: each put is a transaction with where to go on, and a transactional id lets one write."""

# pyright: reportPrivateImportUsage=false
# confluent_kafka.admin offers what it imports.

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition

from penstock.adapters.log.kafka.connection import (
    Connection,
    Heard,
    away,
    client,
    refused,
    told_by,
)
from penstock.adapters.log.kafka.examining import lacking_of_group
from penstock.adapters.log.kafka.producing import GRACE_S, MESSAGE_OVERHEAD, QUEUE_KIB_MAX
from penstock.adapters.log.kafka.topics import (
    CLEANUP,
    NEW_TOPIC_S,
    RECORD_BYTES_MAX,
    SIZE,
    Admin,
    Topic,
)
from penstock.core.errors import PenstockError, SettingsError, Unavailable
from penstock.core.generations import Generations
from penstock.core.ids import partition_of
from penstock.core.time import DAY_MS
from penstock.ports.feed import Message, fenced

OPEN_S: Final = 10.0
"""How much longer than an append a transaction may be open, before the brokers end it: who reads what is
committed waits for it, if its writer was killed."""

_FENCED: Final = frozenset({
    KafkaError._FENCED, KafkaError.INVALID_PRODUCER_EPOCH,  # noqa: SLF001 - its names
    KafkaError.PRODUCER_FENCED,
})  # fmt: skip
_REFUSED: Final = frozenset({
    KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED, KafkaError.GROUP_AUTHORIZATION_FAILED,
    KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.CLUSTER_AUTHORIZATION_FAILED,
})  # fmt: skip


class KafkaFeed:
    """One process's way into a topic of a feed. Implements `ports.feed.Feed`.

    The transactional id is the topic's name: whoever takes over has the brokers refuse what those before
    still send. Where to go on are offsets of the log's topic, committed by a group without members, with
    what was told by as their metadata.

    Args:
        connection: The cluster.
        topic: The feed's.
        group: Under which it is kept where to go on.
        generations: Of the log.
    """

    def __init__(
        self, connection: Connection, topic: str, group: str, *, generations: Generations
    ) -> None:
        self._connection = connection
        self._topic = topic
        self._group = group
        self._places = [
            TopicPartition(
                connection.log_topic(generations.generation(one)), generations.number(one)
            )
            for one in range(generations.partitions)
        ]
        self._heard = Heard()
        self._producer: Producer | None = None
        self._partitions = 0
        self._allowed = False
        """Whether it was told once where to go on: then it may ask."""
        self._closed = False
        self._consumer = Consumer(client(
            connection, self._heard, group_id=group, enable_auto_commit=False, isolation_level="read_committed",
        ))  # fmt: skip

    def take_over(self, mark: str) -> list[int] | None:
        """Become the writer; those before are refused from now on."""
        self._require_open()
        self._partitions = self._partitions or self._found()
        self._end_producer()
        producer = Producer(self._configuration())
        try:
            producer.init_transactions(self._connection.open_timeout_s)
        except KafkaException as exception:
            raise self._told(exception, "log.kafka.brokers") from exception
        self._producer = producer
        places = self._committed()
        # A generation that the log has got meanwhile has none yet.
        marks = {place.metadata or "" for place in places if place.offset >= 0}
        return [max(place.offset, 0) for place in places] if marks == {mark} else None

    def _found(self) -> int:
        admin, until_s = Admin(self._connection, self._heard), time.monotonic() + NEW_TOPIC_S
        while (found := admin.look([self._topic]).get(self._topic)) is None:
            if time.monotonic() >= until_s:
                raise SettingsError("E280", f"there is no topic {self._topic}", where="feed",
                                    fix="run `penstock apply`, which makes it")  # fmt: skip
            time.sleep(0.1)
        return found.partitions

    def positions(self) -> list[int]:
        """Return where to go on, as it was committed."""
        self._require_open()
        return [max(place.offset, 0) for place in self._committed()]

    def _committed(self) -> list[TopicPartition]:
        try:
            places = self._consumer.committed(self._places, timeout=self._connection.read_timeout_s)
        except KafkaException as exception:
            if not self._allowed:
                self._require_allowed()
            raise self._told(exception, "log.kafka.brokers") from exception
        for place in places:
            if place.error is not None:
                raise refused(place.error, f"group {self._group}")
        self._allowed = True
        return places

    def _require_allowed(self) -> None:
        """Find out whether it is not allowed to ask where to go on: that shows as silence, for good.

        Asked only of brokers that answer, and never once it is known: librdkafka 2.16 ends the process if the
        coordinator goes away while a group is described (confluentinc/librdkafka, pull request 5397).
        """
        self._found()
        if lacking := lacking_of_group(Admin(self._connection, self._heard), self._group):
            raise SettingsError("E282", f"this user may not {', '.join(lacking)} group {self._group}", where="log.kafka.username",
                                fix="allow it; the guide on Kafka lists the ACLs that feeds need")  # fmt: skip

    def put(self, messages: Sequence[Message], positions: Sequence[int], mark: str) -> None:
        """Say these, and note where to go on, in one transaction."""
        self._require_open()
        producer = self._producer
        if producer is None:
            raise away(self._heard.error, f"the topic {self._topic}")
        timeout_s = self._connection.append_timeout_s
        offsets = [
            TopicPartition(place.topic, place.partition, offset, mark)
            for place, offset in zip(self._places, positions, strict=True)
        ]
        try:
            producer.begin_transaction()
            for one in messages:
                partition = partition_of(one.leaf, self._partitions)
                producer.produce(
                    self._topic, value=one.value, key=one.leaf.hex(), partition=partition
                )
                producer.poll(0)
            producer.send_offsets_to_transaction(
                offsets, self._consumer.consumer_group_metadata(), timeout_s
            )
            producer.commit_transaction(timeout_s)
        except KafkaException as exception:
            self._producer = None
            error = self._told(exception, self._topic)
            _end(producer)
            raise error from exception
        except BufferError as error:
            self._end_producer()
            raise away(self._heard.error, f"the topic {self._topic}") from error
        self._heard.forget()

    def _told(self, exception: KafkaException, where: str) -> PenstockError:
        error, heard = told_by(exception), self._heard.error
        if error.code() in _FENCED or (heard is not None and heard.code() in _FENCED):
            self._heard.forget()
            return fenced(self._topic)
        if error.code() in _REFUSED:
            return refused(error, f"the topic {self._topic}", where=where)
        known = heard if heard is not None and not error.fatal() else error
        return refused(known, f"the topic {self._topic}", where=where)

    def _configuration(self) -> dict[str, object]:
        timeout_ms = round(self._connection.append_timeout_s * 1000)
        return client(
            self._connection, self._heard, transactional_id=self._topic, enable_idempotence=True, acks="all",
            transaction_timeout_ms=timeout_ms + round(OPEN_S * 1000), linger_ms=5, message_timeout_ms=timeout_ms,
            request_timeout_ms=timeout_ms, retry_backoff_ms=50, retry_backoff_max_ms=500,
            compression_type=self._connection.compression, message_max_bytes=RECORD_BYTES_MAX + MESSAGE_OVERHEAD,
            queue_buffering_max_kbytes=QUEUE_KIB_MAX,
        )  # fmt: skip

    def _require_open(self) -> None:
        if self._closed:
            raise Unavailable("E401", f"{self._topic} is closed", fix="open it again")

    def _end_producer(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            _end(producer)

    def close(self) -> None:
        """End both clients; a second call does nothing."""
        if self._closed:
            return
        self._closed = True
        self._end_producer()
        self._consumer.close()


def _end(producer: Producer) -> None:
    with suppress(KafkaException):
        producer.abort_transaction(GRACE_S)
    producer.purge()
    with suppress(KafkaException):  # one that was fenced says so once more
        producer.flush(GRACE_S)


def decisions_topic(
    connection: Connection, partitions: int, *, replication: int, in_sync: int, retention_ms: int
) -> Topic:  # fmt: skip
    """Return the topic of decisions."""
    return Topic(
        connection.decisions_topic, "decisions, for other systems", partitions, replication,
        {
            CLEANUP: "delete",
            "retention.ms": str(retention_ms or -1),
            "min.insync.replicas": str(in_sync),
            SIZE: str(RECORD_BYTES_MAX + 64 * 1024),
        },
        fixed=True,
    )  # fmt: skip


def profiles_topic(connection: Connection, partitions: int, *, replication: int, in_sync: int) -> Topic:  # fmt: skip
    """Return the topic of profiles: the newest of each, and what was before goes within a day."""
    return Topic(
        connection.profiles_topic, "profiles, for other systems", partitions, replication,
        {
            CLEANUP: "compact",
            "max.compaction.lag.ms": str(DAY_MS),
            "min.insync.replicas": str(in_sync),
            SIZE: str(RECORD_BYTES_MAX + 64 * 1024),
        },
        fixed=True,
    )  # fmt: skip
