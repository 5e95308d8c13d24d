"""The log in two tiers: what it was truncated of is read from the archive, and nobody sees where one ends."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Final

from penstock.core.errors import SettingsError
from penstock.core.generations import Generations
from penstock.core.record import DeadLetter, LogRecord
from penstock.core.segment import Segment
from penstock.flows.archiving import ArchivedLog
from penstock.ports.log import Appended, Archived, Log, Truncation

OPENED_MAX: Final = 8
"""Segments that stay open: a reader of one person's records goes from one to the next."""


class TieredLog:
    """A log whose older part may be in an archive alone. Implements `ports.log.Log`.

    It reads only segments that the log itself named when it was truncated, whatever else is in the
    archive: each was compared with the log, record by record, before its records went.

    Args:
        inner: The log; owned by this from now on.
        archive: Where its segments are.
    """

    def __init__(self, inner: Log, archive: ArchivedLog) -> None:
        self.inner = inner
        self.archive = archive
        self.shared, self.identity = inner.shared, inner.identity
        self._named: dict[int, list[Archived]] = {}
        self._open: Callable[[Archived], Segment] = lru_cache(OPENED_MAX)(archive.open_named)

    @property
    def generations(self) -> Generations:
        """The generations of the log itself."""
        return self.inner.generations

    @property
    def generation(self) -> int:
        """The newest one's number."""
        return self.inner.generation

    @property
    def partitions(self) -> int:
        """How many partitions there are, those of all generations."""
        return self.inner.partitions

    def append(
        self, partition: int, values: Sequence[bytes], letters: Sequence[DeadLetter] = ()
    ) -> Appended:
        """Append records and dead letters."""
        return self.inner.append(partition, values, letters)

    def read(self, partition: int, offset: int, limit: int) -> list[LogRecord]:
        """Return up to `limit` records from `offset` on, from both tiers if need be.

        Raises:
            SettingsError: Neither holds them (E271).
            DataCorrupt: A batch (E703) or a segment (E730, E731) does not read back.
            Unavailable: The archive did not answer (E419).
        """
        found: list[LogRecord] = []
        while len(found) < limit:
            start, wanted = offset + len(found), limit - len(found)
            try:
                return found + self.inner.read(partition, start, wanted)
            except SettingsError:
                batch = self._from_archive(partition, start, wanted)
                if not batch:
                    raise
                found += batch
        return found

    def batches(self, partition: int, offset: int, limit: int) -> list[Sequence[LogRecord]]:
        """Return what `read` does; of the log itself as it gives it."""
        try:
            return self.inner.batches(partition, offset, limit)
        except SettingsError:
            return [self.read(partition, offset, limit)]

    def first(self, partition: int) -> int:
        """Return the lowest offset that can be read, from either tier."""
        named = self.inner.archived(partition)
        return named[0].first if named else self.inner.first(partition)

    def truncation(self, partition: int) -> Truncation:
        """Return how far the log itself was truncated."""
        return self.inner.truncation(partition)

    def archived(self, partition: int) -> list[Archived]:
        """Return the segments that hold what it was truncated of."""
        return self.inner.archived(partition)

    def truncate(
        self, partition: int, truncation: Truncation, segments: Sequence[Archived] = ()
    ) -> int:
        """Give up records below an offset in the log itself."""
        return self.inner.truncate(partition, truncation, segments)

    def head(self, partition: int) -> int:
        """Return the offset that the next record will get."""
        return self.inner.head(partition)

    def last_logged_at_ms(self, partition: int) -> int:
        """Return the stamp of the newest record, or 0."""
        return self.inner.last_logged_at_ms(partition)

    def dead_letters(self, *, reason: str = "", pending_only: bool = True) -> Iterator[DeadLetter]:
        """Yield dead letters, oldest first; they are in the log itself."""
        return self.inner.dead_letters(reason=reason, pending_only=pending_only)

    def mark_replayed(self, letter_ids: Sequence[str], at_ms: int) -> None:
        """Note that letters were replayed."""
        self.inner.mark_replayed(letter_ids, at_ms)

    def counts(self) -> dict[str, int]:
        """Return the totals."""
        return self.inner.counts()

    def close(self) -> None:
        """Close the log; the archive is its owner's."""
        self.inner.close()

    def _from_archive(self, partition: int, offset: int, limit: int) -> list[LogRecord]:
        """Return records from the one segment that holds an offset; none if none does."""
        segment = self._find(partition, offset)
        if segment is None:
            return []
        return segment.read(offset, min(limit, segment.footer.end - offset))

    def _find(self, partition: int, offset: int) -> Segment | None:
        named = self._named.get(partition, [])
        if not named or named[-1].end <= offset:
            named = self._named[partition] = self.inner.archived(partition)
        place = bisect_right(named, offset, key=lambda one: one.first) - 1
        return self._open(named[place]) if place >= 0 and offset < named[place].end else None
