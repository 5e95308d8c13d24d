"""What a log file says of its truncation: rows of `totals`, so that every log has the same tables.

first:P                 the offset that partition P begins at
truncated:P:end         how far it was truncated; `primaries` and `links` count what went
segment:P:FIRST:NAME    the size of a segment that holds what went, from offset FIRST on
"""

import sqlite3
from collections.abc import Iterable, Sequence
from typing import Final

from penstock.ports.log import Archived, Truncation

PARTITION_SHIFT: Final = 48
"""A row's position is `partition << 48 | first offset`: one tree, no index beside it."""

_VALUE = "SELECT value FROM totals WHERE name = ?"
_PUT = "INSERT OR REPLACE INTO totals VALUES (?, ?)"
_SEGMENTS = "SELECT name, value FROM totals WHERE name >= ? AND name < ? ORDER BY name"
_BOUNDARY = """SELECT max(position) FROM batches WHERE position BETWEEN ?1 AND min(?2,
    (SELECT max(position) FROM batches WHERE position < ?3))"""
_DELETE = "DELETE FROM batches WHERE position >= ? AND position < ?"


def position_of(partition: int, offset: int) -> int:
    """Return the key of the batch that begins at an offset."""
    return partition << PARTITION_SHIFT | offset


def first_of(connection: sqlite3.Connection, partition: int) -> int:
    """Return the offset that a partition begins at."""
    return _value(connection, f"first:{partition}")


def truncation_of(connection: sqlite3.Connection, partition: int) -> Truncation:
    """Return how far a partition was truncated."""
    return Truncation(
        *(_value(connection, f"truncated:{partition}:{name}") for name in Truncation._fields)
    )


def archived_of(connection: sqlite3.Connection, partition: int) -> list[Archived]:
    """Return the segments named at truncation, ascending."""
    prefix = f"segment:{partition}:"
    found: list[Archived] = []
    for name, size in connection.execute(_SEGMENTS, (prefix, f"{prefix}~")):
        first, end, path = name[len(prefix) :].split(":", 2)
        found.append(Archived(int(first), int(end), path, size))
    return found


def truncate(
    connection: sqlite3.Connection, partition: int, truncation: Truncation, segments: Sequence[Archived]
) -> int:  # fmt: skip
    """Delete the batches that end below an offset, and say so; return how many records they had.

    In the transaction that the caller has begun: a log never lacks what it does not say that it lacks.
    """
    before = first_of(connection, partition)
    start, beyond = position_of(partition, 0), position_of(partition + 1, 0)
    at = position_of(partition, truncation.end)
    boundary = connection.execute(_BOUNDARY, (start, at, beyond)).fetchone()[0]
    first = before if boundary is None else max(boundary - start, before)
    connection.execute(_DELETE, (start, start + first))
    values = {f"first:{partition}": first}
    values |= {f"truncated:{partition}:{name}": value for name, value in truncation._asdict().items()}  # fmt: skip
    values |= {f"segment:{partition}:{one.first:014}:{one.end:014}:{one.name}": one.size for one in segments}  # fmt: skip
    connection.executemany(_PUT, values.items())
    return first - before


def put_marks(connection: sqlite3.Connection, marks: Iterable[tuple[str, int]]) -> None:
    """Let a file say of its truncation what another does."""
    connection.executemany(_PUT, marks)


def _value(connection: sqlite3.Connection, name: str) -> int:
    row = connection.execute(_VALUE, (name,)).fetchone()
    return 0 if row is None else row[0]
