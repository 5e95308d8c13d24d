"""Records of the log by the batch, as they were appended: most of them are never looked at one by one in Python."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import repeat
from typing import overload

from penstock.core.record import LogRecord


class Batch(Sequence[LogRecord]):
    """Consecutive records that were logged together, without an object for each until it is asked for.

    Args:
        first_offset: Of `values[0]`.
        logged_at_ms: Of all of them.
        values: Encoded records; never changed.
        start: The first of them that is meant.
        stop: The end of those that are.
    """

    __slots__ = ("first_offset", "logged_at_ms", "start", "stop", "values")

    def __init__(
        self, first_offset: int, logged_at_ms: int, values: list[bytes], start: int, stop: int
    ) -> None:
        self.first_offset = first_offset
        self.logged_at_ms = logged_at_ms
        self.values = values
        self.start = start
        self.stop = stop

    def __len__(self) -> int:
        return self.stop - self.start

    @overload
    def __getitem__(self, place: int) -> LogRecord: ...

    @overload
    def __getitem__(self, place: slice) -> Batch: ...

    def __getitem__(self, place: int | slice) -> LogRecord | Batch:
        places = range(self.start, self.stop)[place]
        if isinstance(places, range):
            assert places.step == 1, "consecutive records"
            return Batch(self.first_offset, self.logged_at_ms, self.values, places.start, max(places.start, places.stop))  # fmt: skip
        return LogRecord(self.first_offset + places, self.logged_at_ms, self.values[places])

    def __iter__(self) -> Iterator[LogRecord]:
        offsets = range(self.first_offset + self.start, self.first_offset + self.stop)
        # A slice of the list: to skip what is before it would cost as much for every piece of a long one.
        values = self.values[self.start : self.stop]
        return map(LogRecord, offsets, repeat(self.logged_at_ms), values)
