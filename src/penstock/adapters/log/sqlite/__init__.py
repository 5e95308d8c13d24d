"""The log on SQLite: one row of compressed records per group commit, fsynced before it returns."""

import contextlib
import sqlite3
import threading
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple
from zlib import crc32

import msgspec
import zstandard

from penstock.adapters.log.sqlite import truncation as marks
from penstock.adapters.log.sqlite.rows import Row, cut, pieces, records, split
from penstock.adapters.log.sqlite.truncation import PARTITION_SHIFT, position_of
from penstock.adapters.sqlite import FileKind, Ownership, Session
from penstock.core.batch import Batch
from penstock.core.errors import DataCorrupt, Unavailable
from penstock.core.generations import Generations
from penstock.core.record import DeadLetter, LogRecord
from penstock.ports.clock import Clock
from penstock.ports.log import Appended, Archived, Truncation, truncated

PLAIN_BYTES_MAX: Final = 256 * 1024 * 1024
"""Of a batch before it is compressed: no damaged length makes a reader ask for more memory."""


TAIL_BYTES: Final = 8 * 1024 * 1024
"""The newest records are kept decoded up to this size a partition, for the fold right behind."""

LETTERS_A_PAGE: Final = 500
CODEC_ZSTD: Final = 1
"""The blob is one zstd frame of a msgpack list of byte strings."""

KIND: Final = FileKind(
    what="the log",
    application_id=0x50534C47,  # PSLG
    format=1,
    schema=(
        """CREATE TABLE batches (
            position INTEGER PRIMARY KEY,
            count INTEGER NOT NULL,
            logged_at_ms INTEGER NOT NULL,
            codec INTEGER NOT NULL,
            crc INTEGER NOT NULL,
            blob BLOB NOT NULL
        ) STRICT""",
        """CREATE TABLE letters (
            sequence INTEGER PRIMARY KEY AUTOINCREMENT,
            letter_id TEXT NOT NULL UNIQUE,
            source TEXT NOT NULL,
            received_at_ms INTEGER NOT NULL,
            reason TEXT NOT NULL,
            path TEXT NOT NULL,
            what TEXT NOT NULL,
            message_id TEXT NOT NULL,
            body BLOB NOT NULL,
            replayed_at_ms INTEGER NOT NULL
        ) STRICT""",
        "CREATE TABLE totals (name TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT, WITHOUT ROWID",
        """INSERT INTO totals VALUES
            ('dead_letters', 0), ('replayed', 0), ('generation', 0), ('partitions', 0)""",
    ),
    code="E401",
    synchronous="FULL",
    remedy="stop `penstock up` and run `penstock repair --from BACKUP`",
)

_INSERT = "INSERT INTO batches VALUES (?, ?, ?, ?, ?, ?)"
_NEWEST = """SELECT position, count, logged_at_ms FROM batches
    WHERE position < ? ORDER BY position DESC LIMIT 1"""
_FROM = """SELECT position, count, logged_at_ms, codec, crc, blob FROM batches
    WHERE position >= coalesce(
            (SELECT max(position) FROM batches WHERE position BETWEEN ?1 AND ?2), ?2)
        AND position < ?3
    ORDER BY position"""
_LETTER = "INSERT OR IGNORE INTO letters VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_LETTERS = """SELECT sequence, letter_id, source, received_at_ms, reason, path, what, message_id,
    body, replayed_at_ms FROM letters
    WHERE sequence > ?1 AND (?2 = '' OR reason = ?2) AND NOT (?3 AND replayed_at_ms)
    ORDER BY sequence LIMIT ?4"""
_REPLAYED = "UPDATE letters SET replayed_at_ms = ? WHERE letter_id = ? AND replayed_at_ms = 0"
_ADD = "UPDATE totals SET value = value + ? WHERE name = ?"

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[bytes]).decode


class _End(NamedTuple):
    """Where a partition stands: the next offset and the newest stamp."""

    head: int
    logged_at_ms: int


class _Good(NamedTuple):
    """What is known to be durable: each partition's end and the newest dead letter."""

    ends: list[_End]
    letter: int


class _Tail:
    """The newest batches of one partition, decoded, without gaps up to the head."""

    def __init__(self) -> None:
        self._firsts: list[int] = []
        self._batches: list[Row] = []
        self._sizes: list[int] = []
        self._size_bytes = 0
        self._lock = threading.Lock()

    def add(self, batch: Row, size_bytes: int) -> None:
        """Add the batch that follows the newest one."""
        with self._lock:
            self._firsts.append(batch.first_offset)
            self._batches.append(batch)
            self._sizes.append(size_bytes)
            self._size_bytes += size_bytes
            if self._size_bytes > TAIL_BYTES:
                self._cut()

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._firsts, self._batches, self._sizes, self._size_bytes = [], [], [], 0

    def read(self, offset: int, limit: int) -> list[Row] | None:
        """Return the batches that hold `limit` records from `offset` on; None if it is not here."""
        with self._lock:
            if not self._firsts or offset < self._firsts[0]:
                return None
            start = bisect_right(self._firsts, offset) - 1
            stop = bisect_left(self._firsts, offset + limit)
            return self._batches[start:stop]

    def _cut(self) -> None:
        # Down to a half at once: cutting a list's front one by one would cost its length each time.
        cut = 0
        while self._size_bytes > TAIL_BYTES // 2 and cut < len(self._sizes) - 1:
            self._size_bytes -= self._sizes[cut]
            cut += 1
        del self._firsts[:cut], self._batches[:cut], self._sizes[:cut]


class SqliteLog:
    """The log in one SQLite file, owned by one process; other processes may open it `read_only`.

    A commit that failed leaves nothing behind: the connection is dropped, the file is opened afresh
    and whatever lies beyond the last acknowledged batch is removed before the next append. A
    failed fsync is never repeated on the same bytes, because the kernel may have thrown them away
    and would answer that all is well.

    Args:
        path: The file; its folder exists.
        clock: Stamps the batches.
        generation: Of the whole log; fixed when the file is made.
        partitions: 1 ≤ partitions; fixed when the file is made.
        read_only: Open beside the owner; generation and partitions are the file's own.

    Raises:
        Unavailable: Another process owns the file (E407), or it can't be opened (E401).
        DataCorrupt: The file is damaged (E707), newer (E706) or of another shape (E708).
    """

    shared = False
    identity = ""

    def __init__(
        self,
        path: Path,
        clock: Clock,
        *,
        generation: int = 1,
        partitions: int = 1,
        read_only: bool = False,
    ) -> None:
        assert generation >= 1, "generations count from 1"
        assert 1 <= partitions < 1 << 15, "partitions fit the position of a row"
        self.generation = generation
        self.partitions = partitions
        self.generations = Generations((partitions,), generation)
        self._path = path
        self._clock = clock
        self._read_only = read_only
        self._closed = False
        self._owner = None if read_only else Ownership(path, KIND)
        self._good: _Good | None = None
        self._totals: dict[str, int] = {}
        self._compress = zstandard.ZstdCompressor(level=1).compress
        self._decompress = zstandard.ZstdDecompressor().decompress
        self._tails = [_Tail() for _ in range(partitions)]
        self._last_read: tuple[int, Row] | None = None
        self._reader = Session(path, KIND, read_only=read_only)
        self._writer = self._reader if read_only else Session(path, KIND, on_open=self._settle)
        try:
            if read_only:
                self._adopt_shape()
            else:
                with self._writer.use():
                    pass
        except BaseException:
            self.close()
            raise

    # ------------------------------------------------------------------------------------ writing

    def append(
        self, partition: int, values: Sequence[bytes], letters: Sequence[DeadLetter] = ()
    ) -> Appended:
        """Append records and dead letters in one fsynced transaction."""
        assert 0 <= partition < self.partitions, "a partition of this log"
        self._check_writable()
        with self._writer.use():
            good = self._known_good()
            end = good.ends[partition]
            stamp_ms = max(self._clock.now_ms(), end.logged_at_ms)
            chunks = self._chunks(partition, end.head, stamp_ms, values)
            newest = good.letter
            totals = self._totals
            if chunks or letters:
                with self._writer.transaction() as connection:
                    connection.executemany(_INSERT, (row for row, _, _ in chunks))
                    if letters:
                        newest, totals = _keep(connection, letters, totals)
            # Only now is the batch durable: from here on it is the last good state.
            for _, batch, size_bytes in chunks:
                self._tails[partition].add(batch, size_bytes)
            self._totals = totals
            if values:
                good.ends[partition] = _End(end.head + len(values), stamp_ms)
            self._good = _Good(good.ends, newest)
        return Appended(end.head, stamp_ms)

    def mark_replayed(self, letter_ids: Sequence[str], at_ms: int) -> None:
        """Note that letters were replayed; fsynced."""
        assert at_ms > 0, "an instant of replay"
        self._check_writable()
        with self._writer.transaction() as connection:
            marks = connection.executemany(_REPLAYED, ((at_ms, name) for name in letter_ids))
            connection.execute(_ADD, (marks.rowcount, "replayed"))
            totals = _totals(connection)
        self._totals = totals

    def truncate(
        self, partition: int, truncation: Truncation, segments: Sequence[Archived] = ()
    ) -> int:
        """Give up whole batches below an offset, in one fsynced transaction."""
        assert 0 <= partition < self.partitions, "a partition of this log"
        self._check_writable()
        with self._writer.use():
            with self._writer.transaction() as connection:
                gone = marks.truncate(connection, partition, truncation, segments)
            self._tails[partition].clear()  # what is in memory is no more than what is in the file
            self._last_read = None
        return gone

    # ------------------------------------------------------------------------------------ reading

    def read(self, partition: int, offset: int, limit: int) -> list[LogRecord]:
        """Return up to `limit` records from `offset` on."""
        return records(self._batches(partition, offset, limit))

    def batches(self, partition: int, offset: int, limit: int) -> list[Sequence[LogRecord]]:
        """Return what `read` does, by the batch where batches are large."""
        return pieces(self._batches(partition, offset, limit))

    def _batches(self, partition: int, offset: int, limit: int) -> list[Batch]:
        assert 0 <= partition < self.partitions, "a partition of this log"
        assert offset >= 0, "offsets count from 0"
        if self._closed:
            raise Unavailable("E401", "the log is closed", fix="open it again")
        if self._good is not None:
            # What lies beyond the last acknowledged batch does not exist, whatever the file says.
            limit = min(limit, self._good.ends[partition].head - offset)
        if limit <= 0:
            return []
        found = self._tails[partition].read(offset, limit)
        if found is None:
            found = self._read_rows(partition, offset, limit)
        return cut(found, offset, limit)

    def first(self, partition: int) -> int:
        """Return the lowest offset that can be read."""
        with self._reader.use() as connection:
            return marks.first_of(connection, partition)

    def truncation(self, partition: int) -> Truncation:
        """Return how far a partition was truncated."""
        with self._reader.use() as connection:
            return marks.truncation_of(connection, partition)

    def archived(self, partition: int) -> list[Archived]:
        """Return the segments named at truncation."""
        with self._reader.use() as connection:
            return marks.archived_of(connection, partition)

    def head(self, partition: int) -> int:
        """Return the offset that the next record will get."""
        return self._end(partition).head

    def last_logged_at_ms(self, partition: int) -> int:
        """Return the stamp of the newest record, or 0."""
        return self._end(partition).logged_at_ms

    def dead_letters(self, *, reason: str = "", pending_only: bool = True) -> Iterator[DeadLetter]:
        """Yield dead letters, oldest first, a page at a time."""
        after = 0
        while True:
            with self._reader.use() as connection:
                rows = connection.execute(
                    _LETTERS, (after, reason, pending_only, LETTERS_A_PAGE)
                ).fetchall()
            for row in rows:
                yield _letter(row)
            if len(rows) < LETTERS_A_PAGE:
                return
            after = rows[-1][0]

    def counts(self) -> dict[str, int]:
        """Return the totals: kept in memory by the owner, read from the file by others."""
        totals = self._totals
        if self._read_only or self._good is None:
            with self._writer.use() as connection:
                totals = _totals(connection)
        appended = sum(self.head(partition) for partition in range(self.partitions))
        return {
            "appended": appended,
            "dead_letters": totals["dead_letters"],
            "replayed": totals["replayed"],
        }

    def close(self) -> None:
        """Close the file and let another process own it; a second call does nothing."""
        self._closed = True
        self._reader.close()
        self._writer.close()
        if self._owner is not None:
            self._owner.release()

    # ----------------------------------------------------------------------------------- the rest

    def _check_writable(self) -> None:
        if self._read_only:
            raise Unavailable(
                "E401", "the log is open for reading only", fix="append in the process that owns it"
            )

    def _known_good(self) -> _Good:
        assert self._good is not None, "an open log has settled"
        return self._good

    def _end(self, partition: int) -> _End:
        assert 0 <= partition < self.partitions, "a partition of this log"
        good = self._good
        if good is not None:
            return good.ends[partition]
        with self._reader.use() as connection:
            return _end_of(connection, partition)

    def _adopt_shape(self) -> None:
        with self._reader.use() as connection:
            totals = _totals(connection)
        self.generation, self.partitions = totals["generation"], totals["partitions"]
        self.generations = Generations((self.partitions,), self.generation)
        self._tails = [_Tail() for _ in range(self.partitions)]

    def _settle(self, connection: sqlite3.Connection) -> None:
        """Bring a freshly opened file to the last good state, for certain on the disk.

        Opening may have brought back a commit whose fsync had failed or was never reached: its
        bytes were in the kernel's memory, and SQLite's own recovery can't know that. If this
        process was told that the commit failed, the batch is removed, as promised. If an earlier
        process wrote it, nobody was promised anything, and it stays. Either way a checkpoint copies
        everything into the main file under a new fsync, so that nothing rests on an fsync that
        failed before.
        """
        good = self._good
        connection.execute("BEGIN IMMEDIATE")
        _claim_shape(connection, self._path, self.generation, self.partitions)
        if good is not None:
            for partition, end in enumerate(good.ends):
                first, beyond = position_of(partition, end.head), position_of(partition + 1, 0)
                connection.execute(
                    "DELETE FROM batches WHERE position >= ? AND position < ?", (first, beyond)
                )
            connection.execute("DELETE FROM letters WHERE sequence > ?", (good.letter,))
            recount(connection)
        connection.execute("COMMIT")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        for tail in self._tails:
            tail.clear()
        newest = connection.execute("SELECT coalesce(max(sequence), 0) FROM letters").fetchone()[0]
        self._totals = _totals(connection)
        self._good = _Good([_end_of(connection, p) for p in range(self.partitions)], newest)

    def _chunks(
        self, partition: int, first: int, stamp_ms: int, values: Sequence[bytes]
    ) -> list[tuple[tuple[int, int, int, int, int, bytes], Row, int]]:
        """Return a row, the decoded batch and its size for every chunk of some records."""
        chunks: list[tuple[tuple[int, int, int, int, int, bytes], Row, int]] = []
        for part in split(values):
            framed = _encode(part)
            blob = self._compress(framed)
            position = position_of(partition, first)
            crc = checksum(position, len(part), stamp_ms, CODEC_ZSTD, blob)
            row = (position, len(part), stamp_ms, CODEC_ZSTD, crc, blob)
            chunks.append((row, Row(first, stamp_ms, part), len(framed)))
            first += len(part)
        return chunks

    def _read_rows(self, partition: int, offset: int, limit: int) -> list[Row]:
        batches: list[Row] = []
        with self._reader.use() as connection:
            wanted = offset
            cached = self._last_read
            if cached is not None and cached[0] == partition:
                batch = cached[1]
                if batch.first_offset <= offset < batch.first_offset + len(batch.values):
                    batches.append(batch)
                    wanted = batch.first_offset + len(batch.values)
            if wanted >= offset + limit:
                return batches
            bounds = (
                position_of(partition, 0),
                position_of(partition, wanted),
                position_of(partition + 1, 0),
            )
            with contextlib.closing(connection.execute(_FROM, bounds)) as rows:
                for row in rows:
                    batch = self._decode_row(row, partition)
                    last = batch.first_offset + len(batch.values)
                    if last <= wanted and not batches:
                        continue  # the head was asked: the newest batch ends before it
                    if batch.first_offset > wanted:
                        first = marks.first_of(connection, partition)
                        if wanted < first:
                            raise truncated(partition, first)
                        raise self._corrupt(partition, wanted, "is missing")
                    batches.append(batch)
                    self._last_read = (partition, batch)
                    wanted = last
                    if wanted >= offset + limit:
                        break
        return batches

    def _decode_row(self, row: tuple[int, int, int, int, int, bytes], partition: int) -> Row:
        position, count, stamp_ms, codec, crc, blob = row
        first = position & ((1 << PARTITION_SHIFT) - 1)
        if crc != checksum(position, count, stamp_ms, codec, blob):
            raise self._corrupt(partition, first, "does not match its checksum")
        if codec != CODEC_ZSTD:
            raise self._corrupt(partition, first, f"has codec {codec}, which is not one of ours")
        try:
            if zstandard.frame_content_size(blob) > PLAIN_BYTES_MAX:
                raise self._corrupt(partition, first, "says that it holds more than any batch does")
            values = _decode(self._decompress(blob))
        except (zstandard.ZstdError, msgspec.MsgspecError) as error:
            raise self._corrupt(partition, first, "does not decode") from error
        if len(values) != count:
            raise self._corrupt(partition, first, "holds another number of records than it says")
        return Row(first, stamp_ms, values)

    def _corrupt(self, partition: int, first: int, what: str) -> DataCorrupt:
        return DataCorrupt(
            "E703",
            f"the batch at offset {first} of partition {partition} {what}",
            fix="stop `penstock up` and run `penstock repair --from BACKUP`",
            where=str(self._path),
        )


def checksum(position: int, count: int, stamp_ms: int, codec: int, blob: bytes) -> int:
    """Return the checksum of a batch: over its place, stamp and bytes."""
    return crc32(blob, crc32(b"%d %d %d %d" % (position, count, stamp_ms, codec)))


def _end_of(connection: sqlite3.Connection, partition: int) -> _End:
    row = connection.execute(_NEWEST, (position_of(partition + 1, 0),)).fetchone()
    if row is None or row[0] < position_of(partition, 0):
        return _End(0, 0)
    position, count, stamp_ms = row
    return _End((position & ((1 << PARTITION_SHIFT) - 1)) + count, stamp_ms)


def _totals(connection: sqlite3.Connection) -> dict[str, int]:
    return dict(connection.execute("SELECT name, value FROM totals WHERE name NOT LIKE '%:%'").fetchall())  # fmt: skip


def _keep(
    connection: sqlite3.Connection, letters: Sequence[DeadLetter], totals: dict[str, int]
) -> tuple[int, dict[str, int]]:
    """Insert letters; return the newest sequence and the new totals."""
    rows = ((letter.letter_id, letter.source, letter.received_at_ms, letter.reason, letter.path,
             letter.what, letter.message_id, letter.body, letter.replayed_at_ms)
            for letter in letters)  # fmt: skip
    kept = connection.executemany(_LETTER, rows).rowcount
    connection.execute(_ADD, (kept, "dead_letters"))
    newest = connection.execute("SELECT coalesce(max(sequence), 0) FROM letters").fetchone()[0]
    return newest, {**totals, "dead_letters": totals["dead_letters"] + kept}


def _letter(row: tuple[int, str, str, int, str, str, str, str, bytes, int]) -> DeadLetter:
    return DeadLetter(
        letter_id=row[1],
        source=row[2],
        received_at_ms=row[3],
        reason=row[4],
        path=row[5],
        what=row[6],
        message_id=row[7],
        body=row[8],
        replayed_at_ms=row[9],
    )


def recount(connection: sqlite3.Connection) -> None:
    """Count the dead letters anew."""
    for name, where in (("dead_letters", "1"), ("replayed", "replayed_at_ms > 0")):
        connection.execute(
            f"UPDATE totals SET value = (SELECT count(*) FROM letters WHERE {where}) WHERE name = ?",  # noqa: S608
            (name,),
        )


def _claim_shape(
    connection: sqlite3.Connection, path: Path, generation: int, partitions: int
) -> None:
    """Write the shape of a new log, or check that an existing one has it."""
    totals = _totals(connection)
    if totals["generation"] == 0:
        connection.execute("UPDATE totals SET value = ? WHERE name = 'generation'", (generation,))
        connection.execute("UPDATE totals SET value = ? WHERE name = 'partitions'", (partitions,))
        return
    have = (totals["generation"], totals["partitions"])
    if have != (generation, partitions):
        raise DataCorrupt(
            "E708",
            f"the log has generation {have[0]} with {have[1]} partitions, "
            f"not generation {generation} with {partitions}",
            fix="set both back to those of the log",
            where=str(path),
        )
