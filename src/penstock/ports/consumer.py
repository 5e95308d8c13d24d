"""A worker's place in a group that shares the partitions of the log out among its members."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from penstock.core.generations import Generations
from penstock.core.record import LogRecord


class Batch(NamedTuple):
    """Consecutive records of one partition."""

    partition: int
    records: Sequence[LogRecord]


class Owner(Protocol):
    """Who is told what it owns. Called inside `Consumer.poll` and `Consumer.close`, and never raises."""

    def assigned(self, partitions: Sequence[int]) -> Mapping[int, int]:
        """Begin to own partitions.

        Returns:
            By partition, the offset to read from. One that is left out is held until `seek` and `resume`.
        """
        ...

    def revoked(self, partitions: Sequence[int]) -> None:
        """End to own partitions. They are still its own until this returns: it writes what it has folded."""
        ...

    def lost(self, partitions: Sequence[int]) -> None:
        """Learn that partitions have been another's for a while: nothing of them is to be written."""
        ...

    def astray(self, partitions: Sequence[int]) -> None:
        """Learn that the log has nothing where partitions are to be read: seek, or pause them."""
        ...


class Consumer(Protocol):
    """One member of a group. Synchronous; one thread.

    The group gives each partition to one member at a time, as far as it can know: a member that was
    taken for dead may still believe that it owns what another has by now. That it harms nothing is the
    store's business (base and new), not the group's. Committed offsets are a hint for operators and for
    the next owner; where to read from, the owner says.

    Conformance: `penstock.testing.conformance.consumer`.
    """

    def join(self, owner: Owner) -> None:
        """Ask the group for a share of the partitions; `poll` brings it."""
        ...

    def grow(self, generations: Generations) -> None:
        """Ask the group for a share of the partitions of more generations, too; `poll` brings it."""
        ...

    def poll(self, limit: int, wait_ms: int) -> list[Batch]:
        """Return records of the partitions owned, in the log's order.

        Args:
            limit: Records at most.
            wait_ms: How long to wait if there are none.

        Raises:
            Unavailable: The group does not have this member any more (E470, E473): end the process.
        """
        ...

    def seek(self, partition: int, offset: int) -> None:
        """Read on from an offset; what was fetched of the partition is dropped."""
        ...

    def pause(self, partition: int) -> None:
        """Bring no records of a partition, and fetch none, until `resume`; it stays owned."""
        ...

    def resume(self, partition: int) -> None:
        """Bring records of a partition again."""
        ...

    def commit(self, offsets: Mapping[int, int]) -> None:
        """Note, by partition, the offset that the next owner may begin from; it may get lost."""
        ...

    def committed(self, partition: int) -> int:
        """Return what was committed last, by any member; -1 if nothing was or it is not known."""
        ...

    def head(self, partition: int) -> int:
        """Return the offset that the next record gets, as far as this member has heard; -1 if it has not.

        Any thread may ask, while another polls.
        """
        ...

    def close(self) -> None:
        """Give back what is owned, through `Owner.revoked`, and leave the group."""
        ...
