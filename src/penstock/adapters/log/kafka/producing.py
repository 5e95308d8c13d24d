"""Writing to topics: batches that are acknowledged by all replicas in sync, or it is not known what was kept."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from penstock.adapters.log.kafka.connection import Connection, Heard, away, client
from penstock.core.errors import Unavailable

QUEUE_MESSAGES_MAX: Final = 1_000_000
QUEUE_KIB_MAX: Final = 512 * 1024
"""Far beyond what the appender lets wait: a queue that is full is told as such, and not waited for."""

GRACE_S: Final = 2.0
"""How much later than a batch may take its callbacks must have come: they come of themselves."""

TURN_S: Final = 0.1
MESSAGE_OVERHEAD: Final = 1024
"""What the brokers' limit on a batch has to hold besides the value of its one record."""


class _Batch:
    """What became of the messages of one call: told by callbacks, in order, on the poller's thread."""

    __slots__ = ("count", "done", "error", "offsets", "stamps")

    def __init__(self, count: int) -> None:
        self.count = count
        self.offsets: list[int] = []
        self.stamps: list[int] = []
        self.error: KafkaError | None = None
        self.done = threading.Event()

    def delivered(self, error: KafkaError | None, message: Message) -> None:
        """Note one message."""
        if error is not None:
            self.error = self.error or error
        self.offsets.append(message.offset() or 0)
        self.stamps.append(message.timestamp()[1])
        if len(self.offsets) == self.count:
            self.done.set()


class Delivery:
    """A batch that was handed over, and is waited for."""

    def __init__(self, batch: _Batch, heard: Heard, what: str, wait_s: float) -> None:
        self._batch = batch
        self._heard = heard
        self._what = what
        self._wait_s = wait_s

    def wait(self) -> tuple[list[int], list[int]]:
        """Return the offsets and stamps of the messages, in order.

        Raises:
            Unavailable: Some or all of it may not have been kept (E401).
        """
        batch = self._batch
        if not batch.done.wait(self._wait_s):
            raise away(self._heard.error, self._what)
        if batch.error is not None:
            raise unkept(batch.error, self._heard, self._what)
        self._heard.forget()
        return batch.offsets, batch.stamps


class Writer:
    """An idempotent producer: retries double nothing, and what it writes to a partition stays in order.

    A fatal error, which a producer does not survive, ends it; the next batch has a new one.

    Args:
        connection: The cluster.
        heard: Told why brokers do not answer.
        message_bytes_max: The largest batch of one record that the topics take.
    """

    def __init__(self, connection: Connection, heard: Heard, message_bytes_max: int) -> None:
        self._connection = connection
        self._heard = heard
        self._message_bytes_max = message_bytes_max
        self._lock = threading.Lock()
        self._producer = self._make()
        self._closing = threading.Event()
        self._poller = threading.Thread(target=self._poll, name="penstock-kafka", daemon=True)
        self._poller.start()

    def send(
        self, topic: str, partition: int, messages: Sequence[dict[str, Any]], what: str
    ) -> Delivery:
        """Hand messages over, to be written in this order.

        Raises:
            Unavailable: There is no room for them, or this is closed (E401).
        """
        if self._closing.is_set():
            raise Unavailable("E401", f"{what} is closed", fix="open it again")
        batch = _Batch(len(messages))
        with self._lock:  # two batches of a partition do not mix
            given = [*messages]
            taken = self._producer.produce_batch(
                topic, given, partition=partition, on_delivery=batch.delivered
            )
        if taken != len(given):
            # Those that were taken may be kept. The caller comes again, and the step knows them.
            error = next((one["_error"] for one in given if "_error" in one), None)
            raise unkept(error, self._heard, what)
        return Delivery(batch, self._heard, what, self._connection.append_timeout_s + GRACE_S)

    def _make(self) -> Producer:
        timeout_ms = round(self._connection.append_timeout_s * 1000)
        return Producer(client(
            self._connection, self._heard, enable_idempotence=True, acks="all", linger_ms=0,
            compression_type=self._connection.compression, message_timeout_ms=timeout_ms,
            request_timeout_ms=timeout_ms, retry_backoff_ms=50, retry_backoff_max_ms=500,
            message_max_bytes=self._message_bytes_max, batch_num_messages=100_000,
            queue_buffering_max_messages=QUEUE_MESSAGES_MAX, queue_buffering_max_kbytes=QUEUE_KIB_MAX,
        ))  # fmt: skip

    def _poll(self) -> None:
        while not self._closing.is_set():
            self._producer.poll(TURN_S)
            error = self._heard.error
            if error is not None and error.fatal():
                with self._lock:
                    ended, self._producer = self._producer, self._make()
                    self._heard.forget()
                ended.purge()
                ended.flush(GRACE_S)

    def close(self) -> None:
        """Write what was handed over, and end; a second call does nothing."""
        if self._closing.is_set():
            return
        self._closing.set()
        self._poller.join()
        with self._lock:
            self._producer.flush(self._connection.append_timeout_s)
            self._producer.purge()
            self._producer.flush(GRACE_S)


def unkept(error: KafkaError | None, heard: Heard, what: str) -> Unavailable:
    """Return why a batch was not acknowledged, with what an operator changes if it is a setting of theirs."""
    told: dict[int | None, Callable[[], Unavailable]] = {
        KafkaError.MSG_SIZE_TOO_LARGE: lambda: Unavailable(
            "E436", f"{what} takes no record of that size", where="max.message.bytes",
            fix="give the topic the size that `penstock plan` names, or run `penstock apply`"),
        KafkaError.TOPIC_AUTHORIZATION_FAILED: lambda: Unavailable(
            "E437", f"the brokers no longer let this user write to {what}", where="log.kafka.security",
            fix="let it write to the topics of the prefix; the guide on Kafka lists the ACLs"),
        KafkaError.NOT_ENOUGH_REPLICAS: lambda: Unavailable(
            "E438", f"too few replicas of {what} are in sync", where="min.insync.replicas",
            fix="bring the brokers back that are away; what was sent is to be sent again"),
    }  # fmt: skip
    code = error.code() if error is not None else None
    if code == KafkaError.NOT_ENOUGH_REPLICAS_AFTER_APPEND:
        code = KafkaError.NOT_ENOUGH_REPLICAS
    found = told.get(code)
    if found is not None:
        return found()
    known = heard.error or error
    return away(known if isinstance(known, KafkaError) else None, what)


def raised(exception: KafkaException) -> KafkaError | None:
    """Return the error that an exception of a producer carries, if any."""
    found = exception.args[0] if exception.args else None
    return found if isinstance(found, KafkaError) else None
