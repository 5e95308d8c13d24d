"""The index of the log by leaf in memory: the port's contract in its plainest form, for tests and trials."""

from collections.abc import Sequence

from penstock.core import leaf_index
from penstock.core.ids import LeafId


class MemoryLeafIndex:
    """Keeps buckets in dictionaries; gone with the process."""

    def __init__(self) -> None:
        self._segments: dict[int, dict[int, tuple[int, list[bytes]]]] = {}

    def covered(self, partition: int) -> int:
        """Return the offset up to which a partition is indexed."""
        ends = [end for end, _ in self._segments.get(partition, {}).values()]
        return max(ends, default=0)

    def put(self, partition: int, first: int, end: int, buckets: Sequence[bytes]) -> None:
        """Keep the index of a segment."""
        self._segments.setdefault(partition, {}).setdefault(first, (end, list(buckets)))

    def find(self, partition: int, leaf: LeafId) -> list[int]:
        """Return the offsets of a leaf's records, ascending."""
        number = leaf_index.bucket_of(leaf)
        return [
            first + place
            for first, (_, buckets) in sorted(self._segments.get(partition, {}).items())
            for place in leaf_index.find(buckets[number], leaf)
        ]

    def close(self) -> None:
        """Nothing to release."""
