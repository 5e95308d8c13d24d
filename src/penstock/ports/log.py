"""The log: append-only, partitioned, with offsets; it also keeps the dead letters."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

from penstock.core.record import DeadLetter, LogRecord


class Appended(NamedTuple):
    """Where a batch landed: offsets `first_offset … first_offset + n - 1`, all stamped alike."""

    first_offset: int
    logged_at_ms: int


class Log(Protocol):
    """The one canonical log of a tenant. Synchronous and batched; one writer.

    The log is the promise: when `append` returns, its records and dead letters are durable, all of
    them or none. An offset names a record; it starts at 0 in every partition and grows by one a
    record, without gaps. `logged_at_ms` is stamped once, at append, and never decreases within a
    partition, even if the wall clock is set back. Partitions are fixed for a generation.

    Conformance: `penstock.testing.conformance.log`.
    """

    generation: int
    partitions: int

    def append(
        self, partition: int, values: Sequence[bytes], letters: Sequence[DeadLetter] = ()
    ) -> Appended:
        """Append records and dead letters in one atomic, durable step.

        Args:
            partition: 0 ≤ partition < partitions.
            values: Encoded records, in order; may be empty when only letters are kept.
            letters: Dead letters; one with a `letter_id` that is already kept changes nothing.

        Raises:
            Unavailable: Nothing of the batch is kept (E401); a retry is safe.
        """
        ...

    def read(self, partition: int, offset: int, limit: int) -> list[LogRecord]:
        """Return up to `limit` records from `offset` on, in order; empty at the head.

        Raises:
            DataCorrupt: A stored batch does not read back (E703).
        """
        ...

    def head(self, partition: int) -> int:
        """Return the offset that the next record will get."""
        ...

    def last_logged_at_ms(self, partition: int) -> int:
        """Return the stamp of the newest record, or 0 if there is none."""
        ...

    def dead_letters(self, *, reason: str = "", pending_only: bool = True) -> Iterator[DeadLetter]:
        """Yield dead letters, oldest first; with a reason, only those."""
        ...

    def mark_replayed(self, letter_ids: Sequence[str], at_ms: int) -> None:
        """Note that letters were replayed; durable on return. Unknown ids change nothing."""
        ...

    def counts(self) -> dict[str, int]:
        """Return `{"appended": records, "dead_letters": letters, "replayed": letters}`, durable totals."""
        ...

    def close(self) -> None:
        """Release files and connections; a second call does nothing."""
        ...
