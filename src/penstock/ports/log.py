"""The log: append-only, partitioned, with offsets; it also keeps the dead letters."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

from penstock.core.batch import Batch
from penstock.core.errors import SettingsError
from penstock.core.generations import Generations
from penstock.core.record import DeadLetter, LogRecord


class Appended(NamedTuple):
    """Where a batch landed: offsets `first_offset … first_offset + n - 1`, all stamped alike, or as placed."""

    first_offset: int
    logged_at_ms: int
    placed: tuple[tuple[int, int], ...] = ()
    """The offset and the stamp of each record, ascending, if they are not all in one row: others append to
    the log too, or it stamped them apart. Empty otherwise."""

    def records(self, values: list[bytes]) -> Sequence[LogRecord]:
        """Return the records as they are read from the log, given the values that were appended."""
        if self.placed:
            return [LogRecord(*place, value) for place, value in zip(self.placed, values, strict=True)]  # fmt: skip
        return Batch(self.first_offset, self.logged_at_ms, values, 0, len(values))


class Truncation(NamedTuple):
    """How far a partition was truncated, and what the law of conservation counts of what went."""

    end: int = 0
    """Records below it were given up; what of them still stands in the log is read as before."""
    primaries: int = 0
    links: int = 0
    """Every other record that is no mark of a lost one."""


class Archived(NamedTuple):
    """A segment of an archive that has what a partition was truncated of: offsets `[first, end)`."""

    first: int
    end: int
    name: str
    size: int
    """In bytes."""


class Log(Protocol):
    """The one canonical log of a tenant. Synchronous and batched.

    The log is the promise: when `append` returns, its records and dead letters are durable, all of
    them. An offset names a record; it starts at 0 in every partition and grows by one a record,
    without gaps. `logged_at_ms` is stamped once, at append. Partitions are fixed for a generation. A
    shared log may get another one while it is open: it is then appended to (`generations.partition`), and
    its partitions are numbered after those of the ones before. What is appended to an earlier generation
    behind its seal, by a process that had not heard, is copied by whoever folds that partition.

    A log of one process (`shared` is False) promises more. A batch that was not acknowledged is not
    there at all. Its stamps are those of the process's clock, and never decrease within a partition,
    even if the wall clock is set back. `head` is exact. Several threads may call, one at a time appends.

    A shared log is one that several processes append to, such as a topic of Kafka. Of a batch that was
    not acknowledged any part may be there, each record whole, and in order; a retry appends them again,
    which the step knows by their message ids. Records of others may stand between those of a batch.
    Stamps are the log's own: one clock a partition, whoever appends; where several machines take turns
    to lead it, they may go back by as much as those differ. `head` is what this process knows: its own
    appends at once, those of others within seconds. Batches of different partitions may be appended
    from several threads at once.

    A log may begin later than at 0: it then begins at `first`. Either it is told to give records up
    (`truncate`), and names the segments of an archive that hold them; or it has a retention of its own,
    and refuses to be told. The newest record of a log that is told always stays.

    Conformance: `penstock.testing.conformance.log`.
    """

    @property
    def generations(self) -> Generations:
        """The generations there are, as far as this process has heard; a new object when there are more."""
        ...

    @property
    def generation(self) -> int:
        """The newest one's number."""
        ...

    @property
    def partitions(self) -> int:
        """How many partitions there are, those of all generations."""
        ...

    shared: bool
    """Whether other processes may append, too."""
    identity: str
    """Which log this is, for as long as it is; empty if its place says so, such as its file."""

    def append(
        self, partition: int, values: Sequence[bytes], letters: Sequence[DeadLetter] = ()
    ) -> Appended:
        """Append records and dead letters; all are durable on return.

        Args:
            partition: 0 ≤ partition < partitions.
            values: Encoded records, in order; may be empty when only letters are kept.
            letters: Dead letters; one with a `letter_id` that is already kept changes nothing.

        Raises:
            Unavailable: The batch is not acknowledged (E401, E436, E437, E438): nothing of it is kept, or in a
                shared log it is not known what is. A retry is safe, for the step knows what it has seen.
        """
        ...

    def read(self, partition: int, offset: int, limit: int) -> list[LogRecord]:
        """Return up to `limit` records from `offset` on, in order; empty at the head.

        Raises:
            SettingsError: The log was truncated beyond `offset` (E271).
            DataCorrupt: A stored batch does not read back (E703).
            Unavailable: The log did not answer (E401).
        """
        ...

    def batches(self, partition: int, offset: int, limit: int) -> list[Sequence[LogRecord]]:
        """Return what `read` does, in pieces that may be cheaper to have: at least one record, or none at the head.

        Raises:
            As `read`.
        """
        ...

    def first(self, partition: int) -> int:
        """Return the lowest offset that can be read; 0 in a log that was never truncated."""
        ...

    def truncation(self, partition: int) -> Truncation:
        """Return how far a partition was truncated. What a retention took was not counted."""
        ...

    def archived(self, partition: int) -> list[Archived]:
        """Return the segments named at truncation, ascending and without gaps between them."""
        ...

    def truncate(
        self, partition: int, truncation: Truncation, segments: Sequence[Archived] = ()
    ) -> int:
        """Give up records below an offset, and name the segments that hold them, in one durable step.

        Whole batches go, and never the newest: some records below the offset may stay for now.

        Args:
            partition: 0 ≤ partition < partitions.
            truncation: From now on; never less than before.
            segments: What is to be added to those named before.

        Returns:
            How many records are no longer there.

        Raises:
            SettingsError: A log with a retention of its own is not told (E284).
            Unavailable: It is not known whether it was done (E401); doing it again is safe.
        """
        ...

    def head(self, partition: int) -> int:
        """Return the offset that the next record will get; in a shared log, as far as is known."""
        ...

    def last_logged_at_ms(self, partition: int) -> int:
        """Return the stamp of the newest record, or 0 if there is none; of a shared log, the greatest."""
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


def truncated(partition: int, first: int) -> SettingsError:
    """Return what a reader is told who asks for what a log no longer holds."""
    return SettingsError("E271", f"partition {partition} of the log was truncated, and begins at offset {first}",
                         where="archive.place", fix="name the archive that holds what was before; without one, that "
                         "is gone")  # fmt: skip
