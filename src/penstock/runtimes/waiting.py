"""What waits to be folded of one partition: the log's records in their order, by the batch they were appended in."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence

from penstock.core.record import LogRecord


class Waiting:
    """A queue of records that follow on, without an object for each as long as they are taken by the batch.

    Attributes:
        size: How many wait.
    """

    __slots__ = ("_pieces", "_start", "size")

    def __init__(self) -> None:
        self.size = 0
        self._pieces: deque[Sequence[LogRecord]] = deque()
        self._start = 0
        """Of the first piece, where what is left of it begins."""

    def extend(self, records: Sequence[LogRecord]) -> None:
        """Let records wait behind the others; they follow on from them, and are not changed any more."""
        if records:
            self._pieces.append(records)
            self.size += len(records)

    def take(self, limit: int) -> Sequence[LogRecord]:
        """Return the next records, at most `limit`, which is at least 1; those of several batches in one list."""
        pieces = self._pieces
        taken = self._next(limit)
        if len(taken) < limit and pieces:
            taken = [*taken]
            while len(taken) < limit and pieces:
                taken += self._next(limit - len(taken))
        self.size -= len(taken)
        return taken

    def _next(self, limit: int) -> Sequence[LogRecord]:
        first, start = self._pieces[0], self._start
        end = start + limit
        if end < len(first):
            self._start = end
            return first[start:end]
        self._pieces.popleft()
        self._start = 0
        return first[start:] if start else first

    def oldest(self) -> LogRecord:
        """Return the next record; there is one."""
        return self._pieces[0][self._start]

    def newest(self) -> LogRecord:
        """Return the last record; there is one."""
        return self._pieces[-1][-1]

    def clear(self) -> None:
        """Forget all."""
        self._pieces.clear()
        self._start = self.size = 0

    def __len__(self) -> int:
        return self.size

    def __iter__(self) -> Iterator[LogRecord]:
        start = self._start
        for piece in self._pieces:
            yield from piece[start:]
            start = 0
