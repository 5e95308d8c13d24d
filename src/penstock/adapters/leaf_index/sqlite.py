"""The index of the log by leaf on SQLite: a row a bucket, so that a look-up is one range of rows."""

import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Final
from zlib import crc32

from penstock.adapters.sqlite import FileKind, Session
from penstock.core import leaf_index
from penstock.core.errors import DataCorrupt
from penstock.core.ids import LeafId

KIND: Final = FileKind(
    what="the index of the log by leaf",
    remedy="remove the file; it is made again from the log",
    application_id=0x50534C49,  # PSLI
    format=1,
    schema=(
        # By bucket before segment: a leaf's rows of every segment lie side by side.
        """CREATE TABLE buckets (
            partition INTEGER NOT NULL,
            bucket INTEGER NOT NULL,
            first INTEGER NOT NULL,
            crc INTEGER NOT NULL,
            entries BLOB NOT NULL,
            PRIMARY KEY (partition, bucket, first)
        ) STRICT, WITHOUT ROWID""",
        """CREATE TABLE segments (
            partition INTEGER NOT NULL,
            first INTEGER NOT NULL,
            "end" INTEGER NOT NULL,
            PRIMARY KEY (partition, first)
        ) STRICT, WITHOUT ROWID""",
    ),
    code="E418",
    synchronous="NORMAL",
)

_COVERED = 'SELECT coalesce(max("end"), 0) FROM segments WHERE partition = ?'
_SEGMENT = "INSERT OR IGNORE INTO segments VALUES (?, ?, ?)"
_BUCKET = "INSERT OR IGNORE INTO buckets VALUES (?, ?, ?, ?, ?)"
_FIND = "SELECT first, crc, entries FROM buckets WHERE partition = ? AND bucket = ? ORDER BY first"


class SqliteLeafIndex:
    """The index in one SQLite file. A file that is damaged is thrown away and begun anew.

    Args:
        path: The file; its folder exists.

    Raises:
        Unavailable: The file can't be opened (E418).
        DataCorrupt: The file is of another kind (E707), or newer (E706).
    """

    def __init__(self, path: Path) -> None:
        self._reader = Session(path, KIND)
        self._writer = Session(path, KIND)
        with self._writer.use():
            pass

    def covered(self, partition: int) -> int:
        """Return the offset up to which a partition is indexed."""
        with self._reader.use() as connection:
            return connection.execute(_COVERED, (partition,)).fetchone()[0]

    def put(self, partition: int, first: int, end: int, buckets: Sequence[bytes]) -> None:
        """Keep the index of a segment, in one transaction."""
        rows = [
            (partition, number, first, _crc(partition, number, first, entries), entries)
            for number, entries in enumerate(buckets)
            if entries
        ]
        with self._writer.transaction() as connection:
            connection.executemany(_BUCKET, rows)
            connection.execute(_SEGMENT, (partition, first, end))

    def find(self, partition: int, leaf: LeafId) -> list[int]:
        """Return the offsets of a leaf's records, ascending."""
        number = leaf_index.bucket_of(leaf)
        with self._reader.use() as connection:
            rows: list[tuple[int, int, bytes]] = _rows(connection, partition, number)
        offsets: list[int] = []
        for first, crc, entries in rows:
            if crc != _crc(partition, number, first, entries):
                raise DataCorrupt("E732", "an index of the log by leaf does not match its checksum",
                                  fix="remove `index.db` from the data folder; it is made again")  # fmt: skip
            offsets += [first + place for place in leaf_index.find(entries, leaf)]
        return offsets

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        self._reader.close()
        self._writer.close()


def _rows(
    connection: sqlite3.Connection, partition: int, number: int
) -> list[tuple[int, int, bytes]]:
    return connection.execute(_FIND, (partition, number)).fetchall()


def _crc(partition: int, number: int, first: int, entries: bytes) -> int:
    return crc32(entries, crc32(b"%d %d %d" % (partition, number, first)))
