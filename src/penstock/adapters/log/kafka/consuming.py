"""A member of a consumer group on the log's topic: cooperative, static if it is named, committed by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from penstock.adapters.log.kafka.connection import Connection, Heard, client, refused, told_by
from penstock.core.errors import SettingsError, Unavailable
from penstock.core.generations import Generations
from penstock.core.record import LogRecord
from penstock.ports.consumer import Batch, Owner

FETCH_BYTES: Final = 1024 * 1024
"""Of a partition at a time."""

BUFFER_KIB: Final = 16 * 1024
"""What is fetched ahead, of all partitions together: more is not prefetched, however slow the fold is."""

BUFFER_RECORDS: Final = 20_000
COMMITTED_S: Final = 5.0
"""How long the coordinator may take to say what was committed."""

HEARTBEATS: Final = 4
"""Heartbeats in the time after which a silent member counts as dead."""

POLL_MS_MAX: Final = 300_000
"""How long a member may go without asking for records before others get its partitions."""

_REFUSED: Final = frozenset({
    KafkaError.GROUP_AUTHORIZATION_FAILED, KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError._AUTHENTICATION, KafkaError.SASL_AUTHENTICATION_FAILED,  # noqa: SLF001 - its names
})  # fmt: skip
_ASTRAY: Final = frozenset({KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE})  # noqa: SLF001


class Membership(NamedTuple):
    """In which group a member is, and how."""

    group: str
    member: str = ""
    """A name of its own makes it static: started again within `session_ms` it gets back what it had."""
    protocol: str = "classic"
    """`classic`, or `consumer`: the brokers share out, since Kafka 4.0."""
    session_ms: int = 10_000
    """How long a member may be silent before others get its partitions; `consumer` goes by the brokers'."""


class KafkaConsumer:
    """One member of a group. Implements `ports.consumer.Consumer`.

    Args:
        connection: The cluster.
        generations: Those whose partitions are shared out.
        membership: Which group.

    Raises:
        SettingsError: A setting of the client is refused (E285).
    """

    def __init__(
        self, connection: Connection, generations: Generations, membership: Membership
    ) -> None:
        self._connection = connection
        self._generations = generations
        self._topics = _topics_of(connection, generations)
        self._membership = membership
        self._heard = Heard()
        self._owner: Owner | None = None
        self._next: dict[int, int] = {}
        """Of what is owned: the offset that comes next."""
        self._heads: dict[int, int] = {}
        """Of what is owned: where the log ends, as of the last poll."""
        self._seeking: set[int] = set()
        """Where a seek could not be made yet."""
        self._leaving = False
        self._closed = False
        try:
            self._consumer = Consumer(_configuration(connection, self._heard, membership))
        except KafkaException as error:
            raise SettingsError("E285", f"the consumer can't be made: {told_by(error).name()}", where="fold",
                                fix="check `fold.protocol` and `log.kafka.client`") from error  # fmt: skip

    def join(self, owner: Owner) -> None:
        """Ask the group for a share of the partitions."""
        self._owner = owner
        self._subscribe()

    def grow(self, generations: Generations) -> None:
        """Ask for a share of the partitions of more generations, too; those that are owned stay."""
        self._generations = generations
        self._topics = _topics_of(self._connection, generations)
        if self._owner is not None:
            self._subscribe()

    def _subscribe(self) -> None:
        self._consumer.subscribe(
            [*self._topics],
            on_assign=self._on_assign,
            on_revoke=self._on_revoke,
            on_lost=self._on_lost,
        )

    def poll(self, limit: int, wait_ms: int) -> list[Batch]:
        """Return records of the partitions owned."""
        for partition in [*self._seeking]:
            self.seek(partition, self._next[partition])
        try:
            # The first as soon as it is there, and what came with it: `consume` alone would wait for all.
            first = self._consumer.poll(wait_ms / 1000)
            self._look()
            if first is None:
                return []
            messages = [first, *(self._consumer.consume(limit - 1, 0) if limit > 1 else ())]
        except KafkaException as error:
            raise self._gone(told_by(error)) from error
        found: dict[int, list[LogRecord]] = {}
        for message in messages:
            self._take(message, found)
        return [Batch(partition, records) for partition, records in found.items()]

    def _take(self, message: Message, found: dict[int, list[LogRecord]]) -> None:
        error = message.error()
        partition = self._numbered(message)
        if error is not None:
            self._hear(error, partition)
            return
        offset = message.offset()
        assert partition is not None, "a record has a place"
        assert offset is not None, "a record has a place"
        expected = self._next.get(partition, -1)
        if expected < 0 or offset < expected or (offset > expected and partition in self._seeking):
            return  # fetched before it was given back, or sought elsewhere
        self._next[partition] = offset + 1
        record = LogRecord(offset, message.timestamp()[1], message.value() or b"")
        records = found.get(partition)
        if records is None:
            found[partition] = [record]
        elif records[-1].offset + 1 == offset:
            records.append(record)

    def _hear(self, error: KafkaError, partition: int | None) -> None:
        if error.code() in _ASTRAY and partition in self._next and self._owner is not None:
            self._owner.astray([partition])
            return
        if error.fatal() or error.code() in _REFUSED:
            raise self._gone(error)
        self._heard.hear(error)

    def _gone(self, error: KafkaError) -> Exception:
        if error.code() in _REFUSED:
            return refused(error, f"group {self._membership.group}", where="fold.group")
        if error.code() == KafkaError.FENCED_INSTANCE_ID:
            return Unavailable("E473", f"another process has joined as member {self._membership.member}", where="fold.member",
                               fix="give every worker a name of its own, or none; end one of the two")  # fmt: skip
        return Unavailable("E470", f"the group of workers can't be reached: {error.name()}", where="log.kafka",
                           fix="look at the brokers; the worker is to be started again")  # fmt: skip

    # -- what is owned

    def _on_assign(self, consumer: Consumer, places: list[TopicPartition]) -> None:
        partitions = [self._number(one.topic, one.partition) for one in places]
        begun = self._require_owner().assigned(partitions)
        self._next.update({one: begun.get(one, 0) for one in partitions})
        consumer.incremental_assign([self._place(one, begun.get(one, 0)) for one in partitions])
        held = [self._place(one) for one in partitions if one not in begun]
        if held:
            consumer.pause(held)
        going = [self._place(one) for one in partitions if one in begun]
        if going:
            consumer.resume(going)  # it may have been held when it was here before

    def _on_revoke(self, consumer: Consumer, places: list[TopicPartition]) -> None:
        partitions = [self._number(one.topic, one.partition) for one in places]
        self._leaving = True
        try:
            self._require_owner().revoked(partitions)
        finally:
            self._leaving = False
        self._give_back(consumer, partitions)

    def _on_lost(self, consumer: Consumer, places: list[TopicPartition]) -> None:
        partitions = [self._number(one.topic, one.partition) for one in places]
        self._require_owner().lost(partitions)
        self._give_back(consumer, partitions)

    def _give_back(self, consumer: Consumer, partitions: Sequence[int]) -> None:
        for partition in partitions:
            self._next.pop(partition, None)
            self._heads.pop(partition, None)
            self._seeking.discard(partition)
        if not self._closed:
            consumer.incremental_unassign([self._place(one) for one in partitions])

    def _require_owner(self) -> Owner:
        assert self._owner is not None, "it has joined"
        return self._owner

    def _place(self, partition: int, offset: int | None = None) -> TopicPartition:
        known = self._generations
        topic = self._connection.log_topic(known.generation(partition))
        if offset is None:
            return TopicPartition(topic, known.number(partition))
        return TopicPartition(topic, known.number(partition), offset)

    def _number(self, topic: str, number: int) -> int:
        return self._topics[topic] + number

    def _numbered(self, message: Message) -> int | None:
        topic, number = message.topic(), message.partition()
        return None if topic not in self._topics or number is None else self._number(topic, number)

    # -- what the owner asks

    def seek(self, partition: int, offset: int) -> None:
        """Read on from an offset."""
        if partition not in self._next:
            return
        self._next[partition] = offset
        try:
            self._consumer.seek(self._place(partition, offset))
        except KafkaException:
            # It is not read from yet, as just after it came: tried again at the next poll.
            self._seeking.add(partition)
        else:
            self._seeking.discard(partition)

    def pause(self, partition: int) -> None:
        """Bring no records of a partition."""
        if partition in self._next:
            self._consumer.pause([self._place(partition)])

    def resume(self, partition: int) -> None:
        """Bring records of a partition again."""
        if partition in self._next:
            self._consumer.resume([self._place(partition)])

    def commit(self, offsets: Mapping[int, int]) -> None:
        """Note offsets; waited for only while partitions are given back."""
        places = [self._place(partition, offset) for partition, offset in offsets.items()]
        try:
            if self._leaving:
                self._consumer.commit(offsets=places, asynchronous=False)
            else:
                self._consumer.commit(offsets=places, asynchronous=True)
        except KafkaException as error:
            self._heard.hear(told_by(error))  # where to go on, the store says

    def committed(self, partition: int) -> int:
        """Return what was committed last; -1 if nothing was or it is not known."""
        try:
            (place,) = self._consumer.committed([self._place(partition)], timeout=COMMITTED_S)
        except KafkaException as error:
            self._heard.hear(told_by(error))
            return -1
        return max(place.offset, -1)

    def head(self, partition: int) -> int:
        """Return the offset that the next record gets, as the last fetch before the last poll said."""
        return self._heads.get(partition, -1)

    def _look(self) -> None:
        # While one thread polls, another that asks the client waits, and may wait for ever: what others
        # ask, metrics above all, is answered from here.
        for partition in self._next:
            bounds = self._consumer.get_watermark_offsets(self._place(partition), cached=True)
            if bounds is not None:
                self._heads[partition] = max(bounds[1], -1)

    def close(self) -> None:
        """Give back what is owned, and leave the group; a second call does nothing."""
        if self._closed:
            return
        # Once here: while it closes no partition can be given back one by one.
        held = sorted(self._next)
        if held and self._owner is not None:
            self._leaving = True
            try:
                self._owner.revoked(held)
            finally:
                self._leaving = False
        self._next.clear()
        self._heads.clear()
        self._owner = _Nobody()
        self._closed = True
        self._consumer.close()


def _topics_of(connection: Connection, generations: Generations) -> dict[str, int]:
    """Return the topics of generations, with the number of the first partition of each."""
    known = range(generations.first, generations.newest + 1)
    return {connection.log_topic(one): generations.of(one)[0] for one in known}


class _Nobody:
    """Who owns nothing: it has given all back before it leaves."""

    def assigned(self, partitions: Sequence[int]) -> Mapping[int, int]:
        """Begin nothing."""
        return {}

    def revoked(self, partitions: Sequence[int]) -> None:
        """It has been given back."""

    lost = astray = revoked


def _configuration(connection: Connection, heard: Heard, membership: Membership) -> dict[str, Any]:
    own: dict[str, Any] = {
        "group_id": membership.group,
        "enable_auto_commit": False,
        "enable_auto_offset_store": False,
        # What is not there any more is said, and never passed over.
        "auto_offset_reset": "error",
        "fetch_wait_max_ms": 100,
        "fetch_queue_backoff_ms": 10,
        "fetch_message_max_bytes": FETCH_BYTES,
        "queued_min_messages": BUFFER_RECORDS,
        "queued_max_messages_kbytes": BUFFER_KIB,
        "max_poll_interval_ms": POLL_MS_MAX,
        "check_crcs": True,
    }
    if membership.member:
        own["group_instance_id"] = membership.member
    if membership.protocol == "classic":
        own["partition_assignment_strategy"] = "cooperative-sticky"
        own["session_timeout_ms"] = membership.session_ms
        own["heartbeat_interval_ms"] = max(membership.session_ms // HEARTBEATS, 100)
    else:
        own["group_protocol"] = "consumer"
    return client(connection, heard, **own)
