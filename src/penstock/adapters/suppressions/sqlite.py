"""The register of suppressions on SQLite: fsynced before it returns, merged by one statement."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from penstock.adapters.sqlite import FileKind, Session, chunked
from penstock.core.ids import LeafId
from penstock.ports.suppressions import Suppression, SuppressionKey

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

EVENT_ID_BYTES: Final = 8
"""Event ids are unsigned 64-bit; SQLite's integers are signed. Big-endian bytes keep the order."""


class SqliteSuppressions:
    """The register in one SQLite file, which several processes may open.

    Args:
        path: The file; its folder exists.
        tenant: Part of every key.

    Raises:
        Unavailable: The file can't be opened (E403).
        DataCorrupt: The file is damaged or of another kind (E707), or newer (E706).
    """

    def __init__(self, path: Path, *, tenant: str = "default") -> None:
        self._tenant = tenant
        self._reader = Session(path, KIND)
        self._writer = Session(path, KIND)
        with self._writer.use():
            pass

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
        with self._writer.transaction() as connection:
            connection.executemany(_MERGE, rows)

    def get(self, leaves: Sequence[LeafId]) -> dict[SuppressionKey, Suppression]:
        """Return every entry of the leaves."""
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

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        self._reader.close()
        self._writer.close()
