"""The generations of a log: how many partitions each has, and which of all of them a leaf's records are in.

Partitions are numbered through: those of the first generation from 0 on, then those of the next. A number
means the same partition for good, also when there are more. A generation that has a next one ends, in each
partition, with a seal: what stands behind it is not folded there, and is copied into the newest one.
"""

from __future__ import annotations

from itertools import accumulate
from typing import Final

from penstock.core.ids import partition_of
from penstock.core.record import RECORD_FORMAT, Evidence, Kind, Record, encode_record

COPIED: Final = "copied"


class Generations:
    """How many partitions each generation of a log has, oldest first; never changed once it is made.

    Args:
        counts: Of each generation, from the first.
        first: The number of the first.
    """

    __slots__ = ("_starts", "counts", "first", "newest", "partitions")

    def __init__(self, counts: tuple[int, ...], first: int = 1) -> None:
        assert counts, "a log has a generation"
        assert min(counts) >= 1, "a generation has a partition"
        self.counts = counts
        self.first = first
        self._starts = (0, *accumulate(counts))
        self.partitions = self._starts[-1]
        """Of all generations together."""
        self.newest = first + len(counts) - 1
        """The number of the generation that is appended to."""

    def partition(self, leaf: bytes, generation: int = 0) -> int:
        """Return the partition of a leaf in a generation; by default the newest, where it is appended to."""
        place = (generation or self.newest) - self.first
        return self._starts[place] + partition_of(leaf, self.counts[place])

    def places(self, leaf: bytes) -> list[int]:
        """Return the partitions that hold a leaf's records, in the order in which they are folded."""
        return [self.partition(leaf, one) for one in range(self.first, self.newest + 1)]

    def of(self, generation: int) -> range:
        """Return the partitions of a generation."""
        return range(self._starts[generation - self.first], self._starts[generation])

    def generation(self, partition: int) -> int:
        """Return the generation that a partition is of."""
        place = 0
        while partition >= self._starts[place + 1]:
            place += 1
        return place + self.first

    def number(self, partition: int) -> int:
        """Return which partition of its generation one is, from 0."""
        return partition - self._starts[self.generation(partition) - self.first]

    def ended(self, partition: int) -> bool:
        """Return whether a partition is of a generation that has a next one."""
        return partition < self._starts[-2]

    def __eq__(self, other: object) -> bool:
        """Return whether both have the same partitions."""
        return isinstance(other, Generations) and (self.first, self.counts) == (
            other.first,
            other.counts,
        )

    def __hash__(self) -> int:
        """Return a hash of the partitions."""
        return hash((self.first, self.counts))


def seal_record(copied: int = 0) -> bytes:
    """Return the bytes of a seal. The first one in a partition ends it.

    Args:
        copied: The offset below which what stands behind the first seal is in the newest generation, too.
    """
    return encode_record(
        Record(RECORD_FORMAT, Kind.SEAL, "", bytes(16), "", 0, "", "", "", 0, 0, "", 0, False,
               Evidence("unknown"), properties={COPIED: copied} if copied else {})
    )  # fmt: skip


def copied_below(record: Record) -> int:
    """Return the offset that a seal names; 0 if it names none."""
    return int(record.properties.get(COPIED, 0))
