"""Rows of the log's table, decoded: how records are laid into them, and taken out again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from penstock.core.batch import Batch
from penstock.core.record import LogRecord

CHUNK_BYTES: Final = 4 * 1024 * 1024
"""A batch of more bytes becomes several rows of one transaction: a reader decodes a row at a time."""

SMALL_BATCH: Final = 64
"""Smaller ones are read as records: a batch costs as much as so many."""


class Row(NamedTuple):
    """One row of the log, decoded."""

    first_offset: int
    logged_at_ms: int
    values: list[bytes]


def split(values: Sequence[bytes]) -> Iterator[list[bytes]]:
    """Yield values in chunks of at most CHUNK_BYTES, or of one larger value."""
    total = sum(map(len, values))
    if total <= CHUNK_BYTES:
        if values:
            yield list(values)
        return
    chunk: list[bytes] = []
    size = 0
    for value in values:
        if chunk and size + len(value) > CHUNK_BYTES:
            yield chunk
            chunk, size = [], 0
        chunk.append(value)
        size += len(value)
    yield chunk


def cut(rows: list[Row], offset: int, limit: int) -> list[Batch]:
    """Return of consecutive rows the records from `offset` on, at most `limit`."""
    found: list[Batch] = []
    for first, stamp_ms, values in rows:
        start = max(offset - first, 0)
        stop = min(offset + limit - first, len(values))
        if start < stop:
            found.append(Batch(first, stamp_ms, values, start, stop))
    return found


def records(batches: list[Batch]) -> list[LogRecord]:
    """Return the records of consecutive batches."""
    return [record for batch in batches for record in batch]


def pieces(batches: list[Batch]) -> list[Sequence[LogRecord]]:
    """Return batches where they are large, and the records of small ones that follow on each other."""
    found: list[Sequence[LogRecord]] = []
    small: list[Batch] = []
    for batch in batches:
        if len(batch) < SMALL_BATCH:
            small.append(batch)
            continue
        if small:
            found.append(records(small))
            small = []
        found.append(batch)
    if small:
        found.append(records(small))
    return found
