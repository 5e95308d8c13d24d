"""The log on Apache Kafka: a topic of records, a topic of dead letters, and brokers that stamp."""

# pyright: reportPrivateImportUsage=false
# confluent_kafka.admin offers what it imports.

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any, Final, NoReturn

from confluent_kafka import KafkaException, TopicPartition
from confluent_kafka.admin import OffsetSpec

from penstock.adapters.log.kafka.connection import Connection, Heard, away
from penstock.adapters.log.kafka.cursors import Cursors, Gap, Gone
from penstock.adapters.log.kafka.letters import Letters, letter_record, replayed_record
from penstock.adapters.log.kafka.producing import MESSAGE_OVERHEAD, Delivery, Writer
from penstock.adapters.log.kafka.topics import (
    APPEND_TIME,
    CLEANUP,
    NEW_TOPIC_S,
    RECORD_BYTES_MAX,
    SIZE,
    STAMPS,
    Admin,
    Found,
    log_topics,
)
from penstock.core.errors import DataCorrupt, PenstockError, SettingsError, Unavailable
from penstock.core.generations import Generations
from penstock.core.record import DeadLetter, LogRecord, leaf_of
from penstock.ports.log import Appended, Archived, Truncation, truncated

WATCH_S: Final = 1.0
"""How often the ends of the partitions are asked for: others append too."""

WATCH_TIMEOUT_S: Final = 2.0

SHORT_LOOKS: Final = 5
"""A leader that was just elected may not know yet how far the records go that all have."""

__all__ = ["Connection", "KafkaLog"]


class _Ends:
    """Where a partition begins and ends, as far as is known."""

    __slots__ = ("acknowledged", "first", "head", "logged_at_ms", "short")

    def __init__(self) -> None:
        self.first = self.head = self.logged_at_ms = 0
        self.short = 0
        """How often in a row the brokers said that it ends before what was acknowledged."""
        self.acknowledged = 0
        """Below it records were acknowledged to this process: brokers that end before have lost them."""


class KafkaLog:
    """The log as a topic for each generation. Several processes may append; one record is one message.

    Which generations there are, the brokers say: the topic of the next one is made, and every process
    hears of it within a second or two, and appends to it from then on.

    Records are keyed by their leaf, and this process says which partition that is; stamps are those of
    the broker that leads the partition. A batch is not one step: of one that was not acknowledged some
    records may be kept, in order.

    Args:
        connection: The cluster, and the prefix of the topics.
        partitions: How many the topic of one of the generations must have; 0 for any.
        read_only: Only read; nothing is ever written.
        follow: Whether to go over to generations that are opened later. Who folds in this process does not:
            it is started anew.

    Raises:
        SettingsError: A topic does not exist (E280), has another number of partitions (E281) or settings that
            the log can't rely on (E283), or the brokers do not let us in (E282).
        Unavailable: They do not answer (E401).
    """

    shared = True

    def __init__(
        self, connection: Connection, *, partitions: int = 1, read_only: bool = False, follow: bool = True
    ) -> None:  # fmt: skip
        self._connection = connection
        self._follows = follow
        self._letters_topic = connection.letters_topic
        self._heard = Heard()
        self._admin = Admin(connection, self._heard)
        self.generations, self.identity = self._require_topics(partitions)
        self._ends = [_Ends() for _ in range(self.partitions)]
        self._letters_bounds = (0, 0)
        self._lock = threading.Lock()
        self._lost: DataCorrupt | None = None
        self._closing = threading.Event()
        self._look()
        self._admin.timeout_s = WATCH_TIMEOUT_S
        self._cursors = Cursors(connection, self._heard, "the log")
        self._letters = Letters(self._cursors, self._letters_topic, self._bounds_of_letters)
        self._writer = (
            None
            if read_only
            else Writer(connection, self._heard, RECORD_BYTES_MAX + MESSAGE_OVERHEAD)
        )
        self._watcher = threading.Thread(target=self._watch, name="penstock-kafka-ends", daemon=True)  # fmt: skip
        self._watcher.start()

    # ------------------------------------------------------------------------------------ opening

    def _require_topics(self, partitions: int) -> tuple[Generations, str]:
        """Check all topics, and return which generations there are and which log this is."""
        cluster = self._admin.cluster_id()
        until_s = time.monotonic() + NEW_TOPIC_S
        while True:
            logs = log_topics(self._admin, self._connection)
            found = self._admin.look([self._letters_topic])
            wanted = (self._connection.log_topic(1), self._letters_topic)
            missing = [name for name in wanted if name not in found and name not in logs]
            if not missing:
                break
            if time.monotonic() >= until_s:
                raise SettingsError("E280", f"there is no topic {missing[0]}", where="log.kafka.prefix",
                                    fix="run `penstock apply`, which makes it; or correct the prefix")  # fmt: skip
            time.sleep(0.1)
        letters, (newest, log) = found[self._letters_topic], [*logs.items()][-1]
        # A process that has the settings of before a generation was opened goes on with it.
        if partitions not in (0, *(one.partitions for one in logs.values())):
            raise SettingsError("E281", f"topic {newest} has {log.partitions} partitions, and {partitions} are declared",
                                where="log.partitions", fix=f"run `penstock apply`, which opens a generation of the log with "
                                f"{partitions}; or set it to {log.partitions}")  # fmt: skip
        if letters.partitions != 1:
            raise SettingsError("E281", f"topic {self._letters_topic} has {letters.partitions} partitions, and dead letters "
                                "need one, which gives them an order", where="log.kafka.prefix",
                                fix="give this project another prefix, or make the topic anew")  # fmt: skip
        for name, one in logs.items():
            self._require_settings(name, one, {STAMPS: APPEND_TIME})
        self._require_settings(self._letters_topic, letters, {})
        first = next(iter(logs.values()))
        return Generations(tuple(one.partitions for one in logs.values())), f"{cluster}/{first.topic_id}"  # fmt: skip

    def _require_settings(self, name: str, found: Found, wanted: dict[str, str]) -> None:
        have = found.settings
        wrong = [
            f"{key}={have.get(key)}" for key, value in wanted.items() if have.get(key) != value
        ]
        if "compact" in have.get(CLEANUP, ""):
            wrong.append(f"{CLEANUP}={have[CLEANUP]}")
        if int(have.get(SIZE, 0)) < RECORD_BYTES_MAX:
            wrong.append(f"{SIZE}={have.get(SIZE)}")
        if wrong:
            raise SettingsError("E283", f"topic {name} is set up so that the log can't rely on it: {', '.join(wrong)}",
                                where="log.kafka", fix="run `penstock plan` to see how it is to be, and `penstock apply`")  # fmt: skip

    @property
    def generation(self) -> int:
        """The newest one's number."""
        return self.generations.newest

    @property
    def partitions(self) -> int:
        """How many partitions there are, those of all generations."""
        return self.generations.partitions

    @property
    def topic(self) -> str:
        """The topic that is appended to."""
        return self._connection.log_topic(self.generation)

    def _place(self, partition: int) -> tuple[str, int]:
        """Return the topic of a partition, and its number there."""
        known = self.generations
        return self._connection.log_topic(known.generation(partition)), known.number(partition)

    def _hear(self) -> None:
        """Ask whether there is another generation; one that can't be relied on is nobody's."""
        name = self._connection.log_topic(self.generation + 1)
        found = self._admin.look([name]).get(name) if self._follows else None
        if found is None:
            return
        self._require_settings(name, found, {STAMPS: APPEND_TIME})
        with self._lock:
            self._ends += [_Ends() for _ in range(found.partitions)]
        self.generations = Generations((*self.generations.counts, found.partitions))

    # ------------------------------------------------------------------------------------ the ends

    def _look(self) -> None:
        """Ask where all partitions begin and end, and note it."""
        ours = [TopicPartition(*self._place(one)) for one in range(self.partitions)]
        letters = TopicPartition(self._letters_topic, 0)
        places = [*ours, letters]
        with self._lock:
            # As of before the brokers are asked: what is acknowledged meanwhile they may not count yet.
            acknowledged = [ends.acknowledged for ends in self._ends]
        firsts = self._offsets(places, OffsetSpec.earliest())
        heads = self._offsets(places, OffsetSpec.latest())
        newest = self._admin.ask(
            self._admin.client.list_offsets, dict.fromkeys(ours, OffsetSpec.max_timestamp())
        )
        with self._lock:
            self._letters_bounds = (
                firsts[self._letters_topic, 0],
                max(heads[self._letters_topic, 0], self._letters_bounds[1]),
            )
            stamps = {
                (place.topic, place.partition): one.timestamp for place, one in newest.items()
            }
            for partition, place in enumerate(ours):
                ends, key = self._ends[partition], (place.topic, place.partition)
                head, known = heads[key], acknowledged[partition]
                ends.short = ends.short + 1 if head < known else 0
                if ends.short >= SHORT_LOOKS:
                    self._lost = _lost_records(partition, head, known)
                ends.first = firsts[key]
                ends.head = max(ends.head, head)
                ends.logged_at_ms = max(ends.logged_at_ms, stamps[key])

    def _offsets(self, places: list[TopicPartition], spec: Any) -> dict[tuple[str, int], int]:  # fmt: skip
        asked = self._admin.ask(self._admin.client.list_offsets, dict.fromkeys(places, spec))
        if any(one.offset < 0 for one in asked.values()):
            # Of a leader that has died a client says neither an offset nor an error, and goes on asking it.
            self._admin.learn()
            raise away(self._heard.error, "the leader of a partition")
        return {(place.topic, place.partition): one.offset for place, one in asked.items()}

    def _watch(self) -> None:
        while not self._closing.wait(WATCH_S):
            self._admin.listen()
            try:
                self._look()
                self._hear()
            except (PenstockError, KafkaException, TimeoutError):
                continue  # whoever appends or reads is told; it is asked again

    def _bounds_of_letters(self) -> tuple[int, int]:
        with self._lock:
            return self._letters_bounds

    # ------------------------------------------------------------------------------------ writing

    def append(
        self, partition: int, values: Sequence[bytes], letters: Sequence[DeadLetter] = ()
    ) -> Appended:
        """Append records and dead letters; when it returns, all in-sync replicas have them."""
        assert 0 <= partition < self.partitions, "a partition of this log"
        writer = self._require_writer()
        asked = [] if not letters else [
            writer.send(self._letters_topic, 0, [_message(*letter_record(one)) for one in letters], "the topic of dead letters")
        ]  # fmt: skip
        if not values:
            self._await_letters(asked)
            with self._lock:
                ends = self._ends[partition]
                return Appended(ends.head, ends.logged_at_ms)
        messages = [{"value": value, "key": _key(value)} for value in values]
        offsets, stamps = writer.send(*self._place(partition), messages, "the log").wait()
        self._await_letters(asked)
        with self._lock:
            ends = self._ends[partition]
            ends.head = ends.acknowledged = max(ends.head, offsets[-1] + 1)
            ends.logged_at_ms = max(ends.logged_at_ms, stamps[-1])
        if offsets[-1] - offsets[0] == len(offsets) - 1 and stamps[0] == stamps[-1]:
            return Appended(offsets[0], stamps[0])
        return Appended(offsets[0], stamps[0], tuple(zip(offsets, stamps, strict=True)))

    def mark_replayed(self, letter_ids: Sequence[str], at_ms: int) -> None:
        """Note that letters were replayed."""
        assert at_ms > 0, "an instant of replay"
        writer = self._require_writer()
        pending = self._letters.pending(letter_ids)
        if pending:
            notes = [_message(*replayed_record(one, at_ms)) for one in pending]
            self._await_letters([writer.send(self._letters_topic, 0, notes, "the topic of dead letters")])  # fmt: skip

    def _await_letters(self, asked: Sequence[Delivery]) -> None:
        for one in asked:
            offsets, _ = one.wait()
            with self._lock:
                first, head = self._letters_bounds
                self._letters_bounds = (first, max(head, offsets[-1] + 1))

    def _require_writer(self) -> Writer:
        if self._closing.is_set():
            raise Unavailable("E401", "the log is closed", fix="open it again")
        if self._lost is not None:
            raise self._lost
        if self._writer is None:
            raise Unavailable("E401", "the log is open for reading only", fix="append in a process that opened it to write")  # fmt: skip
        return self._writer

    def truncate(
        self, partition: int, truncation: Truncation, segments: Sequence[Archived] = ()
    ) -> NoReturn:
        """Refuse: brokers remove what is older than the topic's retention."""
        raise SettingsError("E284", "a log on Kafka is not truncated: its topic's retention removes what is old",
                            where="log.kafka.retention", fix="set how long the topic keeps records, and run `penstock apply`")  # fmt: skip

    # ------------------------------------------------------------------------------------ reading

    def read(self, partition: int, offset: int, limit: int) -> list[LogRecord]:
        """Return up to `limit` records from `offset` on."""
        assert 0 <= partition < self.partitions, "a partition of this log"
        assert offset >= 0, "offsets count from 0"
        if self._closing.is_set():
            raise Unavailable("E401", "the log is closed", fix="open it again")
        with self._lock:
            first, head = self._ends[partition].first, self._ends[partition].head
        if offset < first:
            raise truncated(partition, first)
        limit = min(limit, head - offset)
        if limit <= 0:
            return []
        try:
            messages = self._cursors.read(*self._place(partition), offset, limit)
        except Gone as gone:
            self._look()
            raise truncated(partition, self.first(partition)) from gone
        except Gap as gap:
            raise DataCorrupt("E703", f"partition {partition} of the log has nothing between offsets {gap.args[0]} and {gap.args[1]}",
                              where=self._place(partition)[0], fix="nobody may write to the topic in transactions, and it must not be "
                              "compacted; copy what is left into a new one") from gap  # fmt: skip
        return [
            LogRecord(offset + index, message.timestamp()[1], message.value() or b"")
            for index, message in enumerate(messages)
        ]

    def batches(self, partition: int, offset: int, limit: int) -> list[Sequence[LogRecord]]:
        """Return what `read` does, in one piece."""
        records = self.read(partition, offset, limit)
        return [records] if records else []

    def first(self, partition: int) -> int:
        """Return the lowest offset that can be read."""
        with self._lock:
            return self._ends[partition].first

    def truncation(self, partition: int) -> Truncation:
        """Return how far retention has come; what went was not counted."""
        return Truncation(self.first(partition))

    def archived(self, partition: int) -> list[Archived]:
        """Return nothing: brokers name no segments of an archive."""
        return []

    def head(self, partition: int) -> int:
        """Return the offset that the next record will get, as far as this process knows."""
        with self._lock:
            return self._ends[partition].head

    def last_logged_at_ms(self, partition: int) -> int:
        """Return the newest stamp, or 0."""
        with self._lock:
            return self._ends[partition].logged_at_ms

    def dead_letters(self, *, reason: str = "", pending_only: bool = True) -> Iterator[DeadLetter]:
        """Yield dead letters, oldest first."""
        return self._letters.listed(reason=reason, pending_only=pending_only)

    def counts(self) -> dict[str, int]:
        """Return the totals."""
        letters, replayed = self._letters.counts()
        with self._lock:
            appended = sum(ends.head for ends in self._ends)
        return {"appended": appended, "dead_letters": letters, "replayed": replayed}

    def close(self) -> None:
        """Write what was handed over, and end every client; a second call does nothing."""
        if self._closing.is_set():
            return
        self._closing.set()
        self._watcher.join()
        if self._writer is not None:
            self._writer.close()
        self._cursors.close()


def _message(key: bytes, value: bytes) -> dict[str, bytes]:
    return {"key": key, "value": value}


def _key(value: bytes) -> bytes | None:
    """Return the key of a record, which is its leaf; what is no record has none."""
    try:
        return leaf_of(value)
    except DataCorrupt:
        return None


def _lost_records(partition: int, head: int, acknowledged: int) -> DataCorrupt:
    return DataCorrupt("E760", f"partition {partition} of the log ends at offset {head}, and {acknowledged - head} records "
                       "beyond it had been acknowledged: the brokers lost them", where="log.kafka",
                       fix="stop; bring back the broker that has them. If none has, replay the leaves with "
                       "`penstock replay --accept`, and keep more copies: `log.kafka.replication`")  # fmt: skip
