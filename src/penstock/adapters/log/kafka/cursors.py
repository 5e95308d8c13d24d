"""Reading anywhere in a topic: a few consumers, each where it last read, that are moved when need be."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from penstock.adapters.log.kafka.connection import Connection, Heard, away, client, told_by
from penstock.core.errors import Unavailable

CURSORS_MAX: Final = 8
"""Consumers that stay open; each has threads and a buffer of its own."""

BUFFER_KIB: Final = 8 * 1024
"""What a consumer fetches ahead of its reader."""

FETCH_BYTES: Final = 128 * 1024
"""Of a partition at a time. A reader of single records throws the rest away: measured, it waits 1 ms for
one with 64 KiB and 40 ms with 1 MiB, while who reads on and on is as fast with either."""

CONSUMED_AT_ONCE: Final = 5_000


class Gone(Exception):
    """A topic no longer holds an offset."""


class Gap(Exception):
    """A topic has no records between two offsets, which are its arguments."""


class _Cursor:
    """One consumer, and the offset that it returns next."""

    def __init__(self, consumer: Consumer) -> None:
        self.consumer = consumer
        self.topic, self.partition, self.position = "", -1, -1

    def at(self, topic: str, partition: int, offset: int) -> bool:
        """Return whether it stands there."""
        return (self.topic, self.partition, self.position) == (topic, partition, offset)

    def move(self, topic: str, partition: int, offset: int) -> None:
        """Go somewhere else."""
        place = TopicPartition(topic, partition, offset)
        if (self.topic, self.partition) == (topic, partition):
            self.consumer.seek(place)
        else:
            self.consumer.assign([place])
        self.topic, self.partition, self.position = topic, partition, offset


class Cursors:
    """Reads ranges of records, from several threads.

    Args:
        connection: The cluster.
        heard: Told why brokers do not answer.
        what: What is read, for messages, such as `the log`.
    """

    def __init__(self, connection: Connection, heard: Heard, what: str) -> None:
        self._connection = connection
        self._heard = heard
        self._what = what
        self._lock = threading.Lock()
        self._idle: list[_Cursor] = []
        """Least recently used first."""
        self._closed = False

    def read(self, topic: str, partition: int, offset: int, limit: int) -> list[Message]:
        """Return `limit` records from an offset on, all of which were appended.

        Raises:
            Gone: The topic no longer holds the offset.
            Gap: It holds what follows, and not what is asked for.
            Unavailable: Brokers did not answer in time, or this is closed (E401).
        """
        until = time.monotonic() + self._connection.read_timeout_s
        found: list[Message] = []
        with self._cursor(topic, partition, offset) as cursor:
            while len(found) < limit:
                left_s = until - time.monotonic()
                if left_s <= 0:
                    raise away(self._heard.error, self._what)
                wanted = min(limit - len(found), CONSUMED_AT_ONCE)
                # It waits for all that is asked for: a short turn, since there may be gaps after it.
                for message in cursor.consumer.consume(wanted, min(left_s, 1.0)):
                    self._take(message, cursor, found)
        self._heard.forget()
        return found

    def _take(self, message: Message, cursor: _Cursor, found: list[Message]) -> None:
        error = message.error()
        if error is not None:
            if error.code() in (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE):  # noqa: SLF001
                raise Gone
            self._heard.hear(error)
            return
        offset = message.offset()
        if offset is None or offset < cursor.position:
            return  # fetched before a move
        if offset > cursor.position:
            raise Gap(cursor.position, offset)
        cursor.position += 1
        found.append(message)

    @contextmanager
    def _cursor(self, topic: str, partition: int, offset: int) -> Iterator[_Cursor]:
        with self._lock:
            if self._closed:
                raise Unavailable("E401", f"{self._what} is closed", fix="open it again")
            cursor = self._choose(topic, partition, offset)
        try:
            if not cursor.at(topic, partition, offset):
                cursor.move(topic, partition, offset)
            yield cursor
        except BaseException as error:
            # Where it stands is not known: another is opened next time.
            cursor.consumer.close()
            if isinstance(error, KafkaException):
                raise away(told_by(error), self._what) from error
            raise
        with self._lock:
            closing = self._closed or len(self._idle) >= CURSORS_MAX
            if not closing:
                self._idle.append(cursor)
        if closing:
            cursor.consumer.close()

    def _choose(self, topic: str, partition: int, offset: int) -> _Cursor:
        """Take the cursor that stands there, else another of two there, a new one, or the one used longest ago."""
        near: list[int] = []
        for place, one in enumerate(self._idle):
            if one.at(topic, partition, offset):
                return self._idle.pop(place)
            if (one.topic, one.partition) == (topic, partition):
                near.append(place)
        if len(near) > 1:
            return self._idle.pop(near[0])
        if len(self._idle) < CURSORS_MAX:
            return _Cursor(Consumer(self._configuration()))
        return self._idle.pop(0)

    def _configuration(self) -> dict[str, Any]:
        return client(
            self._connection, self._heard, group_id=f"{self._connection.prefix}readers",
            enable_auto_commit=False, enable_auto_offset_store=False, auto_offset_reset="error",
            fetch_wait_max_ms=100, fetch_queue_backoff_ms=10, fetch_message_max_bytes=FETCH_BYTES,
            queued_max_messages_kbytes=BUFFER_KIB, check_crcs=True,
        )  # fmt: skip

    def close(self) -> None:
        """Close the consumers; a second call does nothing."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for one in idle:
            one.consumer.close()
