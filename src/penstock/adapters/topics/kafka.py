"""Topics of other producers on Kafka, read by a consumer group."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Final

from confluent_kafka import (
    OFFSET_BEGINNING,
    OFFSET_END,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient

from penstock.core.errors import PenstockError, SettingsError, Unavailable
from penstock.core.foreign import Foreign, Place
from penstock.ports.topics import Positions

COPIED: Final = ".copied"
"""The group that holds what was copied a second time: nobody is a member, and no reset of offsets finds it."""
ANSWER_S: Final = 10.0
READ_S: Final = 5.0
READ_ON_MAX: Final = 1_000
"""How many records are read over to the next that is wanted, before a new place is begun from."""
FETCHED_KIB_MAX: Final = 16 * 1024
SESSION_MS: Final = 10_000
"""How long nobody copies a partition after its member was killed; librdkafka's own 45 s are a long gap."""

_SILENT: Final = logging.getLogger("penstock.kafka")
_SILENT.addHandler(logging.NullHandler())
_SILENT.propagate = False

_LET_IN: Final = frozenset({
    KafkaError._AUTHENTICATION, KafkaError.SASL_AUTHENTICATION_FAILED, KafkaError._SSL,  # noqa: SLF001 - its names
    KafkaError.UNSUPPORTED_SASL_MECHANISM, KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.GROUP_AUTHORIZATION_FAILED, KafkaError.CLUSTER_AUTHORIZATION_FAILED,
    KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC,  # noqa: SLF001
})  # fmt: skip
"""What does not pass by itself."""
_ANOTHERS: Final = frozenset({
    KafkaError.ILLEGAL_GENERATION, KafkaError.UNKNOWN_MEMBER_ID, KafkaError.REBALANCE_IN_PROGRESS,
    KafkaError.STALE_MEMBER_EPOCH, KafkaError.FENCED_INSTANCE_ID, KafkaError._NO_OFFSET,  # noqa: SLF001
    KafkaError._STATE,  # noqa: SLF001
})  # fmt: skip
"""What a commit is told of a partition that is another's by now: who has it copies it again."""

_GONE: Final = frozenset({
    KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC, KafkaError._UNKNOWN_PARTITION,  # noqa: SLF001
})  # fmt: skip

_Key = tuple[str, int]


class KafkaTopics:
    """A member of the group `group` that reads `topics`.

    Args:
        client: What every client is told to reach the brokers, as librdkafka names it.
        topics: Their names.
        group: The consumer group's id.
        from_beginning: Where a partition begins that was never copied: at its first record, or at its end.

    Raises:
        SettingsError: The brokers do not let us in, or lack a topic (E237).
        Unavailable: They do not answer (E494).
    """

    def __init__(
        self, client: Mapping[str, Any], topics: Sequence[str], group: str, *, from_beginning: bool = True
    ) -> None:  # fmt: skip
        self._error: KafkaError | None = None
        self._first = OFFSET_BEGINNING if from_beginning else OFFSET_END
        self._client = {"log_level": 0, "logger": _SILENT, "error_cb": self._hear, **client}
        self._topics = list(topics)
        self._holding = False
        self._owned: set[_Key] = set()
        self._next: dict[_Key, int] = {}
        self._ends: dict[_Key, int] = {}
        self._closed = False
        self._admin = AdminClient(self._client)
        self._ids = self._topic_ids()
        self._copied = self._consumer(f"{group}{COPIED}")
        self._reader: Consumer | None = None
        self._consumer_of_group = self._consumer(group, **{"auto.offset.reset": "earliest" if from_beginning else "latest"})  # fmt: skip
        self._consumer_of_group.subscribe(self._topics, on_assign=self._assigned, on_revoke=self._revoked, on_lost=self._revoked)  # fmt: skip

    def poll(self, limit: int, wait_ms: int) -> list[Foreign]:
        """Return records that follow the last ones."""
        if self._holding:
            self._holding = False
            self._pause(resume=True)
        messages = self._asked(lambda: self._consumer_of_group.consume(limit, wait_ms / 1_000))
        found: list[Foreign] = []
        for message in messages:
            error = message.error()
            if error is None:
                record = self._foreign(message)
                found.append(record)
                self._next[record.topic, record.partition] = record.offset + 1
            elif not error.retriable() and error.code() != KafkaError._PARTITION_EOF:  # noqa: SLF001
                raise self._told(error)
        return found

    def hold(self) -> None:
        """Stay in the group without records."""
        self._holding = True
        self._pause()
        message = self._consumer_of_group.poll(0)
        if message is not None and message.error() is None:
            # It came before the pause: it is read again after it.
            at = TopicPartition(
                _str(message.topic()), _int(message.partition()), _int(message.offset())
            )
            self._asked(lambda: self._consumer_of_group.seek(at))

    def commit(self, positions: Positions) -> None:
        """Note that all records before some offsets were copied, in both places, the second one first."""
        noted = [TopicPartition(topic, partition, offset, metadata=self._ids.get(topic, ""))
                 for (topic, partition), offset in positions.items()]  # fmt: skip
        if not noted:
            return
        for consumer in (self._copied, self._consumer_of_group):
            try:
                consumer.commit(offsets=noted, asynchronous=False)
            except KafkaException as exception:
                if _error_of(exception).code() not in _ANOTHERS:
                    raise self._told(_error_of(exception)) from exception

    def read(self, places: Sequence[Place]) -> list[Foreign | None]:
        """Read records again at their places, those of a partition in one go."""
        found: dict[Place, Foreign] = {}
        for topic, partition, topic_id in {
            (one.topic, one.partition, one.topic_id) for one in places
        }:
            if topic_id != self._ids.get(topic, topic_id):
                continue  # that topic is gone, and another has its name
            here = (topic, partition, topic_id)
            asked = {
                one.offset: one
                for one in places
                if (one.topic, one.partition, one.topic_id) == here
            }
            for offset, record in self._read(topic, partition, sorted(asked)):
                found[asked[offset]] = record._replace(topic_id=topic_id)
        return [found.get(place) for place in places]

    def _read(
        self, topic: str, partition: int, offsets: list[int]
    ) -> Iterator[tuple[int, Foreign]]:
        """Yield the records that are there of some offsets; compaction may have taken others."""
        reader = self._reader = self._reader or self._consumer("penstock-reader")
        try:
            low, high = reader.get_watermark_offsets(
                TopicPartition(topic, partition), timeout=ANSWER_S
            )
        except KafkaException as exception:
            if _error_of(exception).code() in _GONE:
                return
            raise self._told(_error_of(exception)) from exception
        waiting = [offset for offset in reversed(offsets) if low <= offset < high]
        position = -1
        try:
            while waiting:
                if not 0 <= waiting[-1] - position < READ_ON_MAX or position < 0:
                    position = waiting[-1]
                    at = TopicPartition(topic, partition, position)
                    self._asked(partial(reader.assign, [at]))
                message = self._asked(lambda: reader.poll(READ_S))
                error = self._error if message is None else message.error()
                if message is None or error is not None:
                    raise self._told(error)
                position = _int(message.offset()) + 1
                while waiting and waiting[-1] < position:
                    if waiting.pop() == position - 1:
                        yield position - 1, self._foreign(message)
        finally:
            reader.unassign()

    def lag(self) -> int:
        """Return how many records of the partitions owned are still to be polled."""
        lag = 0
        for key in self._owned:
            _, end = self._consumer_of_group.get_watermark_offsets(
                TopicPartition(*key), cached=True
            )
            if end > 0:
                lag += max(end - self._next.get(key, 0), 0)
        return lag

    def close(self) -> None:
        """Leave the group."""
        if not self._closed:
            self._closed = True
            for consumer in (self._consumer_of_group, self._copied, self._reader):
                if consumer is not None:
                    consumer.close()

    def _consumer(self, group: str, **more: Any) -> Consumer:
        return Consumer({
            "group.id": group, "enable.auto.commit": False, "enable.auto.offset.store": False,
            "isolation.level": "read_committed", "partition.assignment.strategy": "cooperative-sticky",
            "queued.max.messages.kbytes": FETCHED_KIB_MAX, "session.timeout.ms": SESSION_MS,
            **self._client, **more,
        })  # fmt: skip

    def _topic_ids(self) -> dict[str, str]:
        """Return the id of each topic: one of the same name that is made later has another."""
        asked = self._asked(lambda: self._admin.describe_topics(TopicCollection(self._topics), request_timeout=ANSWER_S))  # fmt: skip
        ids: dict[str, str] = {}
        for topic, future in asked.items():
            described = self._asked(future.result)
            ids[topic] = _id(described.topic_id)
        return ids

    def _assigned(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        """Begin where the group or the second place is, whichever is further."""
        wanted = [TopicPartition(one.topic, one.partition) for one in partitions]
        mine = self._committed(consumer, wanted)
        copied = self._committed(self._copied, wanted)
        begin: list[TopicPartition] = []
        for one in wanted:
            key = (one.topic, one.partition)
            offsets = [offset for offset, told in (mine[key], copied[key]) if offset >= 0 and self._ids.get(one.topic, "") in (told, "")]  # fmt: skip
            if offsets:
                self._next[key] = max(offsets)
            begin.append(TopicPartition(one.topic, one.partition, max(offsets) if offsets else self._first))  # fmt: skip
            self._owned.add(key)
        consumer.incremental_assign(begin)
        if self._holding:
            self._pause()

    def _committed(
        self, consumer: Consumer, partitions: list[TopicPartition]
    ) -> dict[_Key, tuple[int, str]]:
        found = self._asked(lambda: consumer.committed(partitions, timeout=ANSWER_S))
        return {(one.topic, one.partition): (one.offset, one.metadata or "") for one in found}

    def _revoked(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        for one in partitions:
            self._owned.discard((one.topic, one.partition))
            self._next.pop((one.topic, one.partition), None)
        consumer.incremental_unassign(partitions)

    def _pause(self, *, resume: bool = False) -> None:
        consumer = self._consumer_of_group
        (consumer.resume if resume else consumer.pause)(consumer.assignment())

    def _foreign(self, message: Message) -> Foreign:
        topic = _str(message.topic())
        headers = tuple((name, value.encode() if isinstance(value, str) else value) for name, value in message.headers() or ())  # fmt: skip
        return Foreign(
            topic, self._ids.get(topic, ""), _int(message.partition()), _int(message.offset()),
            max(message.timestamp()[1], 0), _bytes(message.key()), _bytes(message.value()), headers,
        )  # fmt: skip

    def _hear(self, error: KafkaError) -> None:
        if self._error is None or self._error.code() not in _LET_IN:
            self._error = error

    def _asked(self, work: Callable[[], Any]) -> Any:
        try:
            return work()
        except KafkaException as exception:
            raise self._told(_error_of(exception)) from exception

    def _told(self, error: KafkaError | None) -> PenstockError:
        """Return what an error means: what the operator sets, or that nobody answers."""
        heard = self._error
        if heard is not None and heard.code() in _LET_IN:
            error = heard
        name = error.name() if error is not None else "no answer"
        if error is not None and error.code() in _LET_IN:
            return SettingsError("E237", f"the topics {', '.join(self._topics)} can't be read: {name}", where="connect",
                                 fix="check that they exist, and what the user of this project may read")  # fmt: skip
        return Unavailable("E494", f"the brokers of {', '.join(self._topics)} do not answer: {name}", where="connect",
                           fix="retry; if it lasts, look at the brokers")  # fmt: skip


def _id(topic_id: Any) -> str:
    """Return a topic's id as text; empty if the brokers have none for it."""
    if topic_id is None:
        return ""
    halves = (topic_id.get_most_significant_bits(), topic_id.get_least_significant_bits())
    told = "".join(f"{half & 0xFFFF_FFFF_FFFF_FFFF:016x}" for half in halves)
    return told if told.strip("0") else ""


def _error_of(exception: KafkaException) -> KafkaError:
    found = exception.args[0]
    assert isinstance(found, KafkaError), "their exceptions carry their errors"
    return found


def _str(value: str | None) -> str:
    assert value is not None, "a message that is no error has it"
    return value


def _int(value: int | None) -> int:
    assert value is not None, "a message that is no error has it"
    return value


def _bytes(value: str | bytes | None) -> bytes | None:
    return value.encode() if isinstance(value, str) else value
