"""The store on SQLite: versioned leaves and applied offsets, committed together."""

import sqlite3
from collections.abc import Sequence
from operator import itemgetter
from pathlib import Path
from typing import Final, NamedTuple
from zlib import crc32

import msgspec

from penstock.adapters.sqlite import FileKind, Session, chunked
from penstock.core.errors import DamagedLeaf
from penstock.core.ids import LeafId
from penstock.core.record import NO_VERSION, Version
from penstock.ports.store import LeafWrite, StoredLeaf, Verdict

DROP_SLICE: Final = 10_000
"""Leaves removed in one transaction; a whole epoch at once would fill the write-ahead log."""

KIND: Final = FileKind(
    what="the store",
    remedy="move the file away and start `penstock up`, which rebuilds it from the log",
    application_id=0x50535354,  # PSST
    format=1,
    schema=(
        """CREATE TABLE leaves (
            tenant TEXT NOT NULL,
            epoch INTEGER NOT NULL,
            leaf BLOB NOT NULL,
            generation INTEGER NOT NULL,
            "offset" INTEGER NOT NULL,
            crc INTEGER NOT NULL,
            parts BLOB NOT NULL,
            UNIQUE (tenant, epoch, leaf)
        ) STRICT""",
        """CREATE TABLE applied (
            tenant TEXT NOT NULL,
            epoch INTEGER NOT NULL,
            partition INTEGER NOT NULL,
            generation INTEGER NOT NULL,
            "offset" INTEGER NOT NULL,
            PRIMARY KEY (tenant, epoch, partition)
        ) STRICT, WITHOUT ROWID""",
        """CREATE TABLE meta (
            tenant TEXT NOT NULL,
            name TEXT NOT NULL,
            value TEXT NOT NULL,
            PRIMARY KEY (tenant, name)
        ) STRICT, WITHOUT ROWID""",
    ),
    code="E402",
    synchronous="NORMAL",
    cache_bytes=64 * 1024 * 1024,
    checkpoint_bytes=32 * 1024 * 1024,
)

_INSERT = "INSERT INTO leaves VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"
_UPDATE = """UPDATE leaves SET generation = ?, "offset" = ?, crc = ?, parts = ?
    WHERE tenant = ? AND epoch = ? AND leaf = ? AND generation = ? AND "offset" = ?"""
_READ = """SELECT leaf, generation, "offset", crc, parts FROM leaves
    WHERE tenant = ? AND epoch = ? AND leaf IN ({})"""
_VERSIONS = """SELECT leaf, generation, "offset" FROM leaves
    WHERE tenant = ? AND epoch = ? AND leaf IN ({})"""
_SCAN = """SELECT leaf, generation, "offset", crc, parts FROM leaves
    WHERE tenant = ? AND epoch = ? AND leaf > ? ORDER BY leaf LIMIT ?"""
_IDS = "SELECT leaf FROM leaves WHERE tenant = ? AND epoch = ? AND leaf > ? ORDER BY leaf LIMIT ?"
_APPLIED = """SELECT generation, "offset" FROM applied
    WHERE tenant = ? AND epoch = ? AND partition = ?"""
_APPLY = """INSERT INTO applied VALUES (?, ?, ?, ?, ?)
    ON CONFLICT DO UPDATE SET generation = excluded.generation, "offset" = excluded."offset"
    WHERE (excluded.generation, excluded."offset") > (generation, "offset")"""
_NEXT_EPOCH = """SELECT min(epoch) FROM (
    SELECT min(epoch) AS epoch FROM leaves WHERE tenant = ?1 AND epoch > ?2
    UNION ALL SELECT min(epoch) FROM applied WHERE tenant = ?1 AND epoch > ?2)"""
_DROP_SLICE = """DELETE FROM leaves WHERE tenant = ?1 AND epoch = ?2 AND leaf <= (
    SELECT max(leaf) FROM (
        SELECT leaf FROM leaves WHERE tenant = ?1 AND epoch = ?2 ORDER BY leaf LIMIT ?3))"""

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(tuple[bytes, ...]).decode

_leaf_of = itemgetter(0)

_BEFORE_ALL: Final = -(1 << 63)
"""Below every epoch."""


class _Row(NamedTuple):
    """What a write stores beside its key."""

    generation: int
    offset: int
    crc: int
    parts: bytes


class SqliteStore:
    """The store in one SQLite file. Reads have a connection of their own and never wait for a write.

    Commits are `synchronous=NORMAL`: they are atomic and ordered but not fsynced one by one, so a
    loss of power may take back the newest ones, whole. That is safe here and only here, because the
    store is a copy: an applied offset and the leaves it covers are in the same transaction and are
    taken back together, and the fsynced log still has every record above that offset. A crash of
    the process alone takes nothing back. `put_meta` promises more and is fsynced.

    Args:
        path: The file; its folder exists.
        tenant: Part of every key.
        read_only: Open beside a writer.

    Raises:
        Unavailable: The file can't be opened (E402).
        DataCorrupt: The file is damaged or of another kind (E707), or newer (E706).
    """

    era = 0
    remote = False

    def __init__(self, path: Path, *, tenant: str = "default", read_only: bool = False) -> None:
        self._path = path
        self._tenant = tenant
        self._reader = Session(path, KIND, read_only=read_only)
        self._writer = self._reader if read_only else Session(path, KIND)
        with self._writer.use():
            pass

    def read(self, epoch: int, leaves: Sequence[LeafId]) -> list[StoredLeaf | None]:
        """Return the leaves in the order asked; from one snapshot of the file."""
        found: dict[bytes, StoredLeaf] = {}
        with self._reader.use() as connection:
            for row in _select(connection, _READ, self._tenant, epoch, leaves):
                found[row[0]] = self._stored(*row)
        return [found.get(leaf) for leaf in leaves]

    def write(
        self, epoch: int, writes: Sequence[LeafWrite], *, partition: int, applied: Version
    ) -> list[Verdict]:
        """Write leaves and note the partition's applied offset, in one transaction."""
        assert len({write.leaf for write in writes}) == len(writes), "one write a leaf"
        assert all(write.base < write.new for write in writes), "a write moves a leaf on"
        with self._writer.transaction() as connection:
            # The usual case, every write from its base, needs no look before: the statements carry
            # the condition, and their count of changed rows says whether it held for all.
            if self._put(connection, epoch, writes) == len(writes):
                verdicts = [Verdict.ACCEPTED] * len(writes)
            else:
                # Not a savepoint: SQLite would copy every page for it, in the usual case too.
                connection.execute("ROLLBACK")
                connection.execute("BEGIN IMMEDIATE")
                verdicts = self._judge(connection, epoch, writes)
                accepted = [write for write, verdict in zip(writes, verdicts, strict=True)
                            if verdict is Verdict.ACCEPTED]  # fmt: skip
                changed = self._put(connection, epoch, accepted)
                assert changed == len(accepted), "what was judged in this transaction holds in it"
            if Verdict.REFUSED not in verdicts and applied > NO_VERSION:
                connection.execute(_APPLY, (self._tenant, epoch, partition, *applied))
        return verdicts

    def applied(self, epoch: int, partition: int) -> Version:
        """Return the applied offset of a partition."""
        with self._reader.use() as connection:
            row = connection.execute(_APPLIED, (self._tenant, epoch, partition)).fetchone()
        return NO_VERSION if row is None else Version(*row)

    def confirmed(self, epoch: int, partition: int) -> Version:
        """Return the applied offset: what a loss of power takes back is taken back with it."""
        return self.applied(epoch, partition)

    def check(self) -> None:
        """Do nothing: a file that fails says so at the next call."""

    def scan(self, epoch: int, after: LeafId | None, limit: int) -> list[tuple[LeafId, StoredLeaf]]:
        """Return up to `limit` leaves with id > `after`, ascending."""
        with self._reader.use() as connection:
            rows = connection.execute(
                _SCAN, (self._tenant, epoch, after or b"", max(limit, 0))
            ).fetchall()
        return [(LeafId(row[0]), self._stored(*row)) for row in rows]

    def ids(self, epoch: int, after: LeafId | None, limit: int) -> list[LeafId]:
        """Return up to `limit` ids > `after`, ascending; the index alone is read."""
        with self._reader.use() as connection:
            rows = connection.execute(
                _IDS, (self._tenant, epoch, after or b"", max(limit, 0))
            ).fetchall()
        return [LeafId(row[0]) for row in rows]

    def epochs(self) -> list[int]:
        """Return the definitions epochs that hold anything, ascending."""
        found: list[int] = []
        with self._reader.use() as connection:
            after = _BEFORE_ALL
            while True:
                # One seek an epoch; DISTINCT would walk over every leaf.
                row = connection.execute(_NEXT_EPOCH, (self._tenant, after)).fetchone()
                if row[0] is None:
                    return found
                after = row[0]
                found.append(after)

    def drop(self, epoch: int) -> None:
        """Remove everything of an epoch: the applied offsets first, then leaves in slices.

        If it is cut short, leaves remain without an applied offset. A fold from the log's start
        skips what they hold already, so they are never wrong; dropping again removes them.
        """
        with self._writer.transaction() as connection:
            connection.execute(
                "DELETE FROM applied WHERE tenant = ? AND epoch = ?", (self._tenant, epoch)
            )
        while True:
            with self._writer.transaction() as connection:
                gone = connection.execute(_DROP_SLICE, (self._tenant, epoch, DROP_SLICE)).rowcount
            if gone < DROP_SLICE:
                return

    def get_meta(self, name: str) -> str | None:
        """Return a small named value."""
        with self._reader.use() as connection:
            row = connection.execute(
                "SELECT value FROM meta WHERE tenant = ? AND name = ?", (self._tenant, name)
            ).fetchone()
        return None if row is None else row[0]

    def put_meta(self, name: str, value: str) -> None:
        """Keep a small named value; fsynced, and with it every commit before."""
        with self._writer.use() as connection:
            connection.execute("PRAGMA synchronous=FULL")
            try:
                with self._writer.transaction():
                    connection.execute(
                        "INSERT OR REPLACE INTO meta VALUES (?, ?, ?)", (self._tenant, name, value)
                    )
            finally:
                connection.execute(f"PRAGMA synchronous={KIND.synchronous}")

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        self._reader.close()
        self._writer.close()

    def _put(self, connection: sqlite3.Connection, epoch: int, writes: Sequence[LeafWrite]) -> int:
        """Write each leaf if its version is the base; return how many were."""
        tenant = self._tenant
        # A leaf's id is a hash, so a table in the order of the ids would touch a page for every leaf
        # and keep few of them on it. Rows stand in the order they came, ids in an index beside them:
        # 2.5 times the inserts at 300 B a leaf, 5 times at 1.2 KB, in a third of the space.
        inserts: list[tuple[object, ...]] = []
        updates: list[tuple[object, ...]] = []
        for leaf, base, (generation, offset), parts in sorted(writes, key=_leaf_of):
            blob = _blob(parts)
            crc = _crc(leaf, generation, offset, blob)
            if base == NO_VERSION:
                inserts.append((tenant, epoch, leaf, generation, offset, crc, blob))
            else:
                updates.append((generation, offset, crc, blob, tenant, epoch, leaf, *base))
        changed = 0
        if inserts:
            changed += connection.executemany(_INSERT, inserts).rowcount
        if updates:
            changed += connection.executemany(_UPDATE, updates).rowcount
        return changed

    def _judge(
        self, connection: sqlite3.Connection, epoch: int, writes: Sequence[LeafWrite]
    ) -> list[Verdict]:
        rows = _select(connection, _VERSIONS, self._tenant, epoch, [w.leaf for w in writes])
        held = {row[0]: Version(row[1], row[2]) for row in rows}
        return [_verdict(held.get(write.leaf, NO_VERSION), write) for write in writes]

    def _stored(
        self, leaf: bytes, generation: int, offset: int, crc: int, blob: bytes
    ) -> StoredLeaf:
        if crc != _crc(leaf, generation, offset, blob):
            raise DamagedLeaf(
                "E704",
                f"leaf {leaf.hex()} of the store does not match its checksum",
                fix="rebuild the store from the log with `penstock replay --accept`",
                leaf=leaf,
                where=str(self._path),
            )
        return StoredLeaf(Version(generation, offset), _decode(blob))


def _select(
    connection: sqlite3.Connection, query: str, tenant: str, epoch: int, leaves: Sequence[LeafId]
) -> list[tuple[bytes, int, int, int, bytes]]:
    """Return the rows of some leaves, in any order, from one snapshot."""
    rows: list[tuple[bytes, int, int, int, bytes]] = []
    chunks = list(chunked(sorted(set(leaves))))
    snapshot = len(chunks) > 1 and not connection.in_transaction
    if snapshot:
        connection.execute("BEGIN")
    try:
        for chunk in chunks:
            statement = query.format(",".join("?" * len(chunk)))
            rows += connection.execute(statement, (tenant, epoch, *chunk)).fetchall()
    finally:
        if snapshot:
            connection.execute("COMMIT")
    return rows


def _blob(parts: tuple[bytes, ...]) -> bytes:
    """Return parts as msgpack; the commonest, one of some hundred bytes, without an encoder's buffer."""
    if len(parts) == 1 and 256 <= len(parts[0]) < 65_536:
        return b"\x91\xc5" + len(parts[0]).to_bytes(2, "big") + parts[0]
    return _encode(parts)


def _crc(leaf: bytes, generation: int, offset: int, blob: bytes) -> int:
    return crc32(blob, crc32(leaf, (generation << 20 ^ offset) & 0xFFFFFFFF))


def _verdict(stored: Version, write: LeafWrite) -> Verdict:
    if stored == write.base:
        return Verdict.ACCEPTED
    return Verdict.ALREADY if stored >= write.new else Verdict.REFUSED
