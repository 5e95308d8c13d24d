"""The spool: batches that the log did not acknowledge, kept on this machine until it does."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from penstock.core.record import DeadLetter


class Spooled(NamedTuple):
    """A batch that waits, as it was to be appended."""

    number: int
    """Its place among all; the lowest of a partition is the next."""
    values: list[bytes]
    letters: list[DeadLetter]


class SpoolCounts(NamedTuple):
    """How much waits."""

    batches: int
    records: int
    size_bytes: int
    oldest_ms: int
    """When the oldest was kept, ms UTC; 0 for none."""
    damaged: int
    """Batches that do not read back: they stay, and are not appended."""


class Spool(Protocol):
    """Keeps batches in their order, up to a size. Synchronous; any thread.

    Conformance: `penstock.testing.conformance.spool`.
    """

    def put(
        self, partition: int, values: Sequence[bytes], letters: Sequence[DeadLetter], at_ms: int
    ) -> None:
        """Keep a batch; durable on return.

        Raises:
            Unavailable: There is no room for it (E460), or the disk did not take it (E461).
        """
        ...

    def next(self, partition: int) -> Spooled | None:
        """Return the batch of a partition that was kept first, or None.

        Raises:
            DataCorrupt: It does not read back (E761): it is set aside, and the next one is another.
            Unavailable: The disk did not answer (E461).
        """
        ...

    def done(self, number: int) -> None:
        """Forget a batch, which is in the log; durable some time later.

        Raises:
            Unavailable: The disk did not answer (E461).
        """
        ...

    def partitions(self) -> list[int]:
        """Return the partitions of which something waits, ascending."""
        ...

    def counts(self) -> SpoolCounts:
        """Return how much waits."""
        ...

    def close(self) -> None:
        """Release the file; a second call does nothing."""
        ...
