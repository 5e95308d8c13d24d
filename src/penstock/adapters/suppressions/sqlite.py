"""The register of suppressions on SQLite: fsynced before it returns, merged by one statement."""

import threading
from collections import Counter
from collections.abc import Container, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

from penstock.adapters.sqlite import FileKind, Ownership, Session, chunked
from penstock.core.ids import LeafId
from penstock.ports.suppressions import Entries, Suppression, SuppressionKey

KIND: Final = FileKind(
    what="the register of suppressions",
    application_id=0x50535355,  # PSSU
    format=1,
    schema=(
        """CREATE TABLE register (
            tenant TEXT NOT NULL,
            leaf BLOB NOT NULL,
            plane TEXT NOT NULL,
            name TEXT NOT NULL,
            at_ms INTEGER NOT NULL,
            denied INTEGER NOT NULL,
            event_id BLOB NOT NULL,
            reason TEXT NOT NULL,
            PRIMARY KEY (tenant, leaf, plane, name)
        ) STRICT, WITHOUT ROWID""",
    ),
    code="E403",
    synchronous="FULL",
)

# Of two equal in (at_ms, denied, event_id) the greater reason wins, so that no order of arrival
# shows. SQLite compares text by its UTF-8 bytes, which is the order of Python's strings.
_MERGE = """INSERT INTO register VALUES (?, ?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT DO UPDATE SET at_ms = excluded.at_ms, denied = excluded.denied,
        event_id = excluded.event_id, reason = excluded.reason
    WHERE (excluded.at_ms, excluded.denied, excluded.event_id, excluded.reason)
        > (at_ms, denied, event_id, reason)"""
_READ = """SELECT leaf, plane, name, at_ms, denied, event_id, reason FROM register
    WHERE tenant = ? AND leaf IN ({})"""

_ALL = """SELECT tenant, leaf, plane, name, at_ms, denied, event_id, reason FROM register
    WHERE tenant = ?"""

MERGE_ROWS: Final = 1_000

EVENT_ID_BYTES: Final = 8
"""Event ids are unsigned 64-bit; SQLite's integers are signed. Big-endian bytes keep the order."""


KNOWN_MAX: Final = 200_000
"""Leaves whose entries an owner keeps in memory; most have none, and cost a place in a dictionary."""

_Known = tuple[tuple[SuppressionKey, Suppression], ...]


class _Reading:
    """A read under way, and the leaves that were written meanwhile."""

    __slots__ = ("all_written", "written")

    def __init__(self, written: set[bytes]) -> None:
        self.written = written
        self.all_written = False


class SqliteSuppressions:
    """The register in one SQLite file, which several processes may open unless one owns it.

    An owner remembers what it read: nobody else can write, and what it writes itself it forgets
    before the write returns. So a read never misses an entry whose write was answered.

    Args:
        path: The file; its folder exists.
        tenant: Part of every key.
        owned: Keep all others from opening it as owners, and remember what was read.

    Raises:
        Unavailable: The file can't be opened (E403), or another process owns it (E407).
        DataCorrupt: The file is damaged or of another kind (E707), or newer (E706).
    """

    def __init__(self, path: Path, *, tenant: str = "default", owned: bool = False) -> None:
        self._tenant = tenant
        self._reader = Session(path, KIND)
        self._writer = Session(path, KIND)
        with self._writer.use():
            pass
        self._ownership = Ownership(path, KIND) if owned else None
        self._lock = threading.Lock()
        self._known: dict[bytes, _Known] | None = {} if owned else None
        self._writing: Counter[bytes] = Counter()
        """Leaves whose entries are being written: what is read of them meanwhile is not remembered."""
        self._reading: list[_Reading] = []

    def put(self, entries: Sequence[tuple[SuppressionKey, Suppression]]) -> None:
        """Merge entries into the register in one fsynced transaction."""
        if not entries:
            return
        rows = [
            (
                self._tenant,
                key.leaf,
                key.plane,
                key.name,
                entry.at_ms,
                int(entry.denied),
                entry.event_id.to_bytes(EVENT_ID_BYTES, "big"),
                entry.reason,
            )
            for key, entry in entries
        ]
        leaves = {key.leaf for key, _ in entries}
        with self._lock:
            self._writing.update(leaves)
        try:
            with self._writer.transaction() as connection:
                connection.executemany(_MERGE, rows)
        finally:
            with self._lock:
                for leaf in leaves:
                    self._writing[leaf] -= 1
                    if not self._writing[leaf]:
                        del self._writing[leaf]
                    if self._known is not None:
                        self._known.pop(leaf, None)
                for reading in self._reading:
                    reading.written |= leaves

    def merge_file(self, path: Path) -> int:
        """Merge another file's register into this one, durable on return; return how many entries it has.

        Args:
            path: The other file, which stays as it is.

        Raises:
            Unavailable: One of the two does not answer (E403).
            DataCorrupt: The other is damaged, of another kind (E707) or newer (E706).
        """
        other = Session(path, KIND, read_only=True)
        try:
            with other.use() as source, self._writer.transaction() as connection:
                rows = source.execute(_ALL, (self._tenant,))
                count = 0
                while some := rows.fetchmany(MERGE_ROWS):
                    connection.executemany(_MERGE, some)
                    count += len(some)
            return count
        finally:
            other.close()
            with self._lock:
                if self._known is not None:
                    self._known.clear()
                for reading in self._reading:
                    reading.all_written = True

    def get(self, leaves: Sequence[LeafId]) -> dict[SuppressionKey, Suppression]:
        """Return every entry of the leaves."""
        known = self._known
        if known is None:
            return self._read(leaves)
        found: dict[SuppressionKey, Suppression] = {}
        for leaf in leaves:
            entries = known.get(leaf)
            if entries is None:
                return self._read_and_remember(leaves)
            if entries:
                found.update(entries)
        return found

    def writing(self) -> bool:
        """Return whether a write is under way."""
        return bool(self._writing)

    def _read_and_remember(self, leaves: Sequence[LeafId]) -> dict[SuppressionKey, Suppression]:
        with self._lock:
            reading = _Reading(set(self._writing))
            self._reading.append(reading)
        try:
            found = self._read(leaves)
            with self._lock:
                if not reading.all_written:
                    self._remember(leaves, found, reading.written)
        finally:
            with self._lock:
                self._reading.remove(reading)
        return found

    def _remember(
        self, leaves: Sequence[LeafId], found: Mapping[SuppressionKey, Suppression], written: Container[bytes]
    ) -> None:  # fmt: skip
        known = self._known
        if known is None:
            return
        if len(known) >= KNOWN_MAX:
            known.clear()
        by_leaf: dict[bytes, list[tuple[SuppressionKey, Suppression]]] = {
            leaf: [] for leaf in leaves if leaf not in written
        }
        for key, entry in found.items():
            if key.leaf in by_leaf:
                by_leaf[key.leaf].append((key, entry))
        for leaf, entries in by_leaf.items():
            known[leaf] = tuple(entries)

    def _read(self, leaves: Sequence[LeafId]) -> dict[SuppressionKey, Suppression]:
        found: dict[SuppressionKey, Suppression] = {}
        with self._reader.use() as connection:
            for chunk in chunked(sorted(set(leaves))):
                statement = _READ.format(",".join("?" * len(chunk)))
                for row in connection.execute(statement, (self._tenant, *chunk)):
                    leaf, plane, name, at_ms, denied, event_id, reason = row
                    found[SuppressionKey(leaf, plane, name)] = Suppression(
                        at_ms, bool(denied), int.from_bytes(event_id, "big"), reason
                    )
        return found

    def whole(self) -> bool:
        """Return that it is: what was kept is there or the register does not answer."""
        return True

    def make_whole(self, everything: Iterable[Entries]) -> None:
        """Put what is given; it lacks nothing."""
        for entries in everything:
            self.put(entries)

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        self._known = None
        self._reader.close()
        self._writer.close()
        if self._ownership is not None:
            self._ownership.release()
