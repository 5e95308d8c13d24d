"""The log in the archive: closed segments are copied to it, read back, and found there again."""

from __future__ import annotations

import re
from collections.abc import Callable
from hashlib import sha256
from typing import Final, NamedTuple
from urllib.parse import quote

from penstock.core.errors import Conflict, DataCorrupt
from penstock.core.record import LogRecord
from penstock.core.segment import Fetch, Pack, Segment, Span, encode_segment, next_segment
from penstock.ports.archive import Archive
from penstock.ports.log import Archived, Log

_NAME: Final = re.compile(r"g(\d{6})/p(\d{5})/(\d{14})-(\d{14})-([0-9a-f]{16})\.seg")


class Kept(NamedTuple):
    """A segment in the archive, as far as its name tells."""

    name: str
    size: int
    """In bytes."""
    span: Span
    digest: str
    """Of its bytes: the first 16 hexadecimal digits of their SHA-256."""


class ArchivedLog:
    """The segments of one tenant's log in an archive.

    A segment's name says which records it holds and what its bytes are, so that a log that was put
    back to an earlier state and went on otherwise has segments of its own beside the older ones:
    nothing is written over, and none is taken for the other's.

    Args:
        archive: Where the segments are.
        tenant: Whose log it is.
        pack: Compresses a frame.
        unpack: Expands one.
    """

    def __init__(self, archive: Archive, tenant: str, *, pack: Pack, unpack: Pack) -> None:
        self.archive = archive
        self.tenant = tenant
        self._pack = pack
        self._unpack = unpack
        self._prefix = f"log/t={quote(tenant, safe='').replace('~', '%7E')}/"
        self._covered: dict[int, int] = {}

    def segments(self) -> list[Kept]:
        """Return all segments of the tenant, by generation, partition and offset.

        Raises:
            Unavailable: The archive did not answer (E419).
        """
        found: list[Kept] = []
        for stored in self.archive.list(self._prefix):
            told = _NAME.fullmatch(stored.name[len(self._prefix) :])
            if told is not None:
                span = Span(*(int(told[group]) for group in range(1, 5)))
                found.append(Kept(stored.name, stored.size, span, told[5]))
        return found

    def covered(self, log: Log, partition: int) -> int:
        """Return up to which offset the archive holds a partition of this very log, without gaps.

        What the log names was proven when it was truncated. Beyond that it is the newest segment whose
        last record is the log's own: stamps and ids make records unlike, so that two logs that share one
        share all before it. One that does not read back tells nothing.

        Raises:
            DataCorrupt: The log does not read back (E703).
            Unavailable: The archive did not answer (E419).
        """
        kept = [
            one
            for one in self.segments()
            if one.span[:2] == (log.generations.generation(partition), partition)
        ]
        named = log.archived(partition)
        start = named[-1].end if named else log.first(partition)
        reached = {start}
        for one in kept:  # by offset
            if one.span.first in reached:
                reached.add(one.span.end)
        for one in sorted(kept, key=lambda one: one.span.end, reverse=True):
            if one.span.first in reached and one.span.end in reached and self._is_of(log, one):
                return one.span.end
        return start

    def _is_of(self, log: Log, kept: Kept) -> bool:
        last = kept.span.end - 1
        if log.head(kept.span.partition) <= last:
            return False
        try:
            told = self.open(kept).read(last, 1)
        except DataCorrupt:
            return False
        return told == log.read(kept.span.partition, last, 1)

    def archive_closed(
        self, log: Log, *, closed: Callable[[int], int] | None = None, segments_max: int = 1_000_000
    ) -> int:
        """Archive closed segments that are not there yet; return how many records they have.

        Each is read back before the next; stopped anywhere, it goes on where it was.

        Args:
            log: Only read.
            closed: By partition, the offset up to which segments are known to be closed, such as that
                which the index covers; without it the open segment is read to see that it is open.
            segments_max: How many at most.

        Raises:
            DataCorrupt: What was written reads back otherwise (E730) and was removed again, or the log
                does not read back (E703).
            Unavailable: The archive did not answer (E419).
        """
        count = 0
        for partition in range(log.partitions):
            while segments_max > 0:

                def read(offset: int, limit: int, partition: int = partition) -> list[LogRecord]:
                    return log.read(partition, offset, limit)

                if partition not in self._covered:
                    self._covered[partition] = self.covered(log, partition)
                first = self._covered[partition]
                records = next_segment(read, first, (closed or log.head)(partition))
                if records is None:
                    break
                self._put(log.generations.generation(partition), partition, records)
                self._covered[partition] = first + len(records)
                count += len(records)
                segments_max -= 1
        return count

    def behind(self, log: Log) -> int:
        """Return how many records of the log are not known to be in the archive."""
        return sum(
            log.head(partition) - self._covered.get(partition, log.first(partition))
            for partition in range(log.partitions)
        )

    def before(
        self, generation: int, partition: int, first: int, after: LogRecord
    ) -> list[LogRecord]:
        """Return what the log of a record held just before it: offsets up to its own, from `first` on.

        Only what is proven to be of that log: segments that hold the record itself, and below them those
        that have no other of their range beside them. What is not proven, or damaged, ends the list.

        Raises:
            Unavailable: The archive did not answer (E419).
        """
        kept = [one for one in self.segments() if one.span[:2] == (generation, partition)]
        holds = [one for one in kept if one.span.first <= after.offset < one.span.end]
        found: list[LogRecord] = []
        try:
            ours = [one for one in holds if self.open(one).read(after.offset, 1) == [after]]
            end = after.offset
            while ours and end > first:
                start = max(first, ours[0].span.first)
                found[:0] = self.open(ours[0]).read(start, end - start)
                end = start
                ours = [one for one in kept if one.span.first < end <= one.span.end]
                if len(ours) > 1:
                    break
        except DataCorrupt:
            pass  # doctor names it; what lies above it is proven without it
        return found

    def open(self, kept: Kept) -> Segment:
        """Open a segment; only its footer is read.

        Raises:
            DataCorrupt: It does not read back, or holds other records than its name says (E730).
        """
        return self._opened(kept, lambda start, size: self.archive.read(kept.name, start, size))

    def _opened(self, kept: Kept, fetch: Fetch) -> Segment:
        segment = Segment(kept.name, kept.size, fetch, self._unpack)
        if segment.footer.span != kept.span or segment.footer.tenant != self.tenant:
            raise _corrupt("it holds other records than its name says", kept.name)
        return segment

    def open_named(self, one: Archived) -> Segment:
        """Open a segment that the log named when it was truncated; errors as `open`."""
        told = _NAME.fullmatch(one.name[len(self._prefix) :])
        if told is None or not one.name.startswith(self._prefix):
            raise _corrupt("it is not named as one of this tenant", one.name)
        span = Span(*(int(told[group]) for group in range(1, 5)))
        return self.open(Kept(one.name, one.size, span, told[5]))

    def load(self, kept: Kept) -> list[LogRecord]:
        """Read a whole segment back, and return its records.

        Raises:
            DataCorrupt: A part of it does not read back (E730), or it is not there (E731).
            Unavailable: The archive did not answer (E419).
        """
        data = self.archive.get(kept.name)
        segment = self._opened(
            kept._replace(size=len(data)), lambda start, size: data[start : start + size]
        )
        segment.check()
        if len(data) != kept.size or _digest(data) != kept.digest:
            raise _corrupt("its bytes are not those that were written", kept.name)
        return segment.read(kept.span.first, kept.span.end - kept.span.first)

    def check(self, kept: Kept) -> None:
        """Read a whole segment back.

        Raises:
            DataCorrupt: A part of it does not read back (E730).
        """
        if _digest(self.archive.get(kept.name)) != kept.digest:
            self.open(kept).check()  # names the part
            raise _corrupt("its bytes are not those that were written", kept.name)
        self.open(kept)

    def _put(self, generation: int, partition: int, records: list[LogRecord]) -> None:
        data = encode_segment(self.tenant, generation, partition, records, pack=self._pack)
        first, end = records[0].offset, records[-1].offset + 1
        name = f"{self._prefix}g{generation:06}/p{partition:05}/{first:014}-{end:014}-{_digest(data)}.seg"
        try:
            self.archive.put(name, data)
        except Conflict:
            # The name says what the bytes are: those that stand there are damaged.
            self.archive.delete(name)
            self.archive.put(name, data)
        if self.archive.get(name) != data:
            self.archive.delete(name)  # the log has it all: it is written again
            raise _corrupt("what was written reads back otherwise", name)


def _digest(data: bytes) -> str:
    return sha256(data).hexdigest()[:16]


def _corrupt(what: str, name: str) -> DataCorrupt:
    return DataCorrupt("E730", f"a segment of the archive is damaged: {what}", where=name,
                       fix="remove it while the log holds its records, and it is written again; "
                       "else put a copy of it in its place")  # fmt: skip
