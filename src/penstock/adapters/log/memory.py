"""The log in memory: the port's contract in its plainest form, for tests and trials."""

import threading
from collections.abc import Iterator, Sequence

from msgspec import structs

from penstock.core.errors import Unavailable
from penstock.core.generations import Generations
from penstock.core.record import DeadLetter, LogRecord
from penstock.ports.clock import Clock
from penstock.ports.log import Appended, Archived, Truncation, truncated


class MemoryLog:
    """Keeps records and dead letters in lists; gone with the process."""

    shared = False
    identity = ""

    def __init__(self, clock: Clock, *, generation: int = 1, partitions: int = 1) -> None:
        self.generations = Generations((partitions,), generation)
        self._clock = clock
        self._records: list[list[LogRecord]] = [[] for _ in range(partitions)]
        self._firsts = [0] * partitions
        self._truncations = [Truncation()] * partitions
        self._archived: list[list[Archived]] = [[] for _ in range(partitions)]
        self._letters: dict[str, DeadLetter] = {}
        self._lock = threading.Lock()
        self._closed = False

    @property
    def generation(self) -> int:
        """The newest one's number."""
        return self.generations.newest

    @property
    def partitions(self) -> int:
        """How many partitions there are, those of all generations."""
        return self.generations.partitions

    def open_generation(self, partitions: int) -> None:
        """Open another generation, which is appended to from now on."""
        with self._lock:
            self._records += [[] for _ in range(partitions)]
            self._firsts += [0] * partitions
            self._truncations += [Truncation()] * partitions
            self._archived += [[] for _ in range(partitions)]
            known = self.generations
            self.generations = Generations((*known.counts, partitions), known.first)

    def append(
        self, partition: int, values: Sequence[bytes], letters: Sequence[DeadLetter] = ()
    ) -> Appended:
        """Append records and dead letters in one step."""
        assert 0 <= partition < self.partitions, "a partition of this log"
        with self._lock:
            self._check_open()
            records = self._records[partition]
            last_ms = records[-1].logged_at_ms if records else 0
            stamp_ms = max(self._clock.now_ms(), last_ms)
            first = self._firsts[partition] + len(records)
            records.extend(LogRecord(first + i, stamp_ms, value) for i, value in enumerate(values))
            for letter in letters:
                self._letters.setdefault(letter.letter_id, letter)
            return Appended(first, stamp_ms)

    def read(self, partition: int, offset: int, limit: int) -> list[LogRecord]:
        """Return up to `limit` records from `offset` on."""
        assert 0 <= partition < self.partitions, "a partition of this log"
        with self._lock:
            self._check_open()
            first = self._firsts[partition]
            if offset < first:
                raise truncated(partition, first)
            return self._records[partition][offset - first : offset - first + limit]

    def batches(self, partition: int, offset: int, limit: int) -> list[Sequence[LogRecord]]:
        """Return what `read` does, in one piece."""
        records = self.read(partition, offset, limit)
        return [records] if records else []

    def first(self, partition: int) -> int:
        """Return the lowest offset that can be read."""
        return self._firsts[partition]

    def truncation(self, partition: int) -> Truncation:
        """Return how far a partition was truncated."""
        return self._truncations[partition]

    def archived(self, partition: int) -> list[Archived]:
        """Return the segments named at truncation."""
        return [*self._archived[partition]]

    def truncate(
        self, partition: int, truncation: Truncation, segments: Sequence[Archived] = ()
    ) -> int:
        """Give up records below an offset; every record is a batch of its own."""
        with self._lock:
            self._check_open()
            records = self._records[partition]
            gone = max(min(truncation.end - self._firsts[partition], len(records) - 1), 0)
            del records[:gone]
            self._firsts[partition] += gone
            self._truncations[partition] = max(truncation, self._truncations[partition])
            known = {one.first for one in self._archived[partition]}
            self._archived[partition] += [one for one in segments if one.first not in known]
            return gone

    def head(self, partition: int) -> int:
        """Return the offset that the next record will get."""
        return self._firsts[partition] + len(self._records[partition])

    def last_logged_at_ms(self, partition: int) -> int:
        """Return the stamp of the newest record, or 0."""
        records = self._records[partition]
        return records[-1].logged_at_ms if records else 0

    def dead_letters(self, *, reason: str = "", pending_only: bool = True) -> Iterator[DeadLetter]:
        """Yield dead letters, oldest first."""
        with self._lock:
            self._check_open()
            letters = list(self._letters.values())
        for letter in letters:
            if (not reason or letter.reason == reason) and not (
                pending_only and letter.replayed_at_ms
            ):
                yield letter

    def mark_replayed(self, letter_ids: Sequence[str], at_ms: int) -> None:
        """Note that letters were replayed."""
        assert at_ms > 0, "an instant of replay"
        with self._lock:
            self._check_open()
            for letter_id in letter_ids:
                letter = self._letters.get(letter_id)
                if letter is not None and not letter.replayed_at_ms:
                    self._letters[letter_id] = structs.replace(letter, replayed_at_ms=at_ms)

    def counts(self) -> dict[str, int]:
        """Return the totals."""
        with self._lock:
            self._check_open()
            return {
                "appended": sum(map(self.head, range(self.partitions))),
                "dead_letters": len(self._letters),
                "replayed": sum(1 for letter in self._letters.values() if letter.replayed_at_ms),
            }

    def close(self) -> None:
        """End the log."""
        self._closed = True

    def _check_open(self) -> None:
        if self._closed:
            raise Unavailable("E401", "the log is closed", fix="open it again")
