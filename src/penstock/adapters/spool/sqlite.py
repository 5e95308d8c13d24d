"""The spool in one SQLite file, fsynced with every batch."""

from collections.abc import Sequence
from pathlib import Path
from threading import Lock
from typing import Final, NamedTuple
from zlib import crc32

import msgspec

from penstock.adapters.sqlite import FileKind, Session
from penstock.core.errors import DataCorrupt, Unavailable
from penstock.core.record import DeadLetter
from penstock.ports.spool import SpoolCounts, Spooled

KIND: Final = FileKind(
    what="the spool",
    remedy="move the file away, and keep it: what it holds was acknowledged and is in no log",
    application_id=0x50535350,  # PSSP
    format=1,
    schema=(
        """CREATE TABLE batches (
            number INTEGER PRIMARY KEY AUTOINCREMENT,
            partition INTEGER NOT NULL,
            kept_at_ms INTEGER NOT NULL,
            records INTEGER NOT NULL,
            damaged INTEGER NOT NULL,
            crc INTEGER NOT NULL,
            body BLOB NOT NULL
        ) STRICT""",
        "CREATE INDEX by_partition ON batches (partition, damaged, number)",
    ),
    code="E461",
    synchronous="FULL",
)

_INSERT = "INSERT INTO batches (partition, kept_at_ms, records, damaged, crc, body) VALUES (?, ?, ?, 0, ?, ?)"
_NEXT = "SELECT number, crc, body FROM batches WHERE partition = ? AND damaged = 0 ORDER BY number LIMIT 1"
_DONE = "DELETE FROM batches WHERE number = ? RETURNING records, length(body)"
_OLDEST = "SELECT kept_at_ms FROM batches ORDER BY number LIMIT 1"
_COUNTS = """SELECT count(*), coalesce(sum(records), 0), coalesce(sum(length(body)), 0), coalesce(sum(damaged), 0)
    FROM batches"""


class _Body(NamedTuple):
    values: list[bytes]
    letters: list[DeadLetter]


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Body).decode


class SqliteSpool:
    """The spool in one SQLite file. Implements `ports.spool.Spool`.

    What was acknowledged has been fsynced, so a loss of power takes at most a batch that nobody was
    told of: SQLite finds the torn end of its write-ahead log by its checksums. What rots later is found by the
    checksum of its batch.

    Args:
        path: The file; its folder exists.
        bytes_max: How many bytes of batches it keeps.
        read_only: Only look, beside whoever writes.

    Raises:
        Unavailable: The file can't be opened (E461).
        DataCorrupt: It is damaged or of another kind (E707), or newer (E706).
    """

    def __init__(self, path: Path, bytes_max: int, *, read_only: bool = False) -> None:
        self._path = path
        self._bytes_max = bytes_max
        self._session = Session(path, KIND, read_only=read_only)
        self._lock = Lock()
        with self._session.use() as connection:
            counts = connection.execute(_COUNTS).fetchone()
        self._batches, self._records, self._bytes, self._damaged = counts

    def put(
        self, partition: int, values: Sequence[bytes], letters: Sequence[DeadLetter], at_ms: int
    ) -> None:
        """Keep a batch; durable on return."""
        body = _encode(_Body([*values], [*letters]))
        with self._session.transaction() as connection:
            if self._bytes + len(body) > self._bytes_max:
                raise Unavailable("E460", "the log did not answer, and the spool is full", where="log.kafka.spool_mb",
                                  fix="retry; look at the brokers, and give the spool more room")  # fmt: skip
            connection.execute(_INSERT, (partition, at_ms, len(values), crc32(body), body))
        with self._lock:
            self._batches += 1
            self._records += len(values)
            self._bytes += len(body)

    def next(self, partition: int) -> Spooled | None:
        """Return the batch of a partition that was kept first, or None."""
        with self._session.use() as connection:
            row = connection.execute(_NEXT, (partition,)).fetchone()
        if row is None:
            return None
        number, crc, raw = row
        try:
            if crc32(raw) != crc:
                raise ValueError
            body = _decode(raw)
        except (ValueError, msgspec.MsgspecError) as error:
            with self._lock:
                self._damaged += 1
            with self._session.transaction() as connection:
                connection.execute("UPDATE batches SET damaged = 1 WHERE number = ?", (number,))
            raise DataCorrupt("E761", f"batch {number} of the spool does not read back", where=str(self._path),
                              fix="keep the file: what is left of the batch is in it; the others are appended") from error  # fmt: skip
        return Spooled(number, body.values, body.letters)

    def done(self, number: int) -> None:
        """Forget a batch."""
        with self._session.transaction() as connection:
            gone = connection.execute(_DONE, (number,)).fetchall()
        with self._lock:
            for records, size_bytes in gone:
                self._batches -= 1
                self._records -= records
                self._bytes -= size_bytes

    def partitions(self) -> list[int]:
        """Return the partitions of which something waits."""
        with self._session.use() as connection:
            rows = connection.execute("SELECT DISTINCT partition FROM batches WHERE damaged = 0 ORDER BY partition").fetchall()  # fmt: skip
        return [row[0] for row in rows]

    def counts(self) -> SpoolCounts:
        """Return how much waits."""
        with self._session.use() as connection:
            oldest = connection.execute(_OLDEST).fetchone()
        with self._lock:
            return SpoolCounts(
                self._batches, self._records, self._bytes, oldest[0] if oldest else 0, self._damaged
            )

    def close(self) -> None:
        """Release the file."""
        self._session.close()
