"""The index of the log by leaf: which offsets hold a leaf's records. It can be thrown away and made again."""

from collections.abc import Sequence
from typing import Protocol

from penstock.core.ids import LeafId


class LeafIndex(Protocol):
    """Indexes of closed segments of the log, a bucket a row. One writer, many readers.

    It grows segment by segment, off the durable path; what is beyond `covered` is found by reading
    the log's tail. It holds nothing that the log does not say, so losing it costs time alone.

    Conformance: `penstock.testing.conformance.leaf_index`.
    """

    def covered(self, partition: int) -> int:
        """Return the offset up to which a partition is indexed, from its first indexed one on."""
        ...

    def put(self, partition: int, first: int, end: int, buckets: Sequence[bytes]) -> None:
        """Keep the index of a segment `[first, end)`; one that is there already stays as it is.

        Args:
            partition: Whose.
            first: Where the segment begins.
            end: Where it ends.
            buckets: From `core.segment.buckets_of`.
        """
        ...

    def find(self, partition: int, leaf: LeafId) -> list[int]:
        """Return the offsets of a leaf's records below `covered`, ascending.

        A few may be records of another leaf whose id begins alike: look at the record.

        Raises:
            DataCorrupt: A bucket does not match its checksum (E732).
        """
        ...

    def close(self) -> None:
        """Release files and connections; a second call does nothing."""
        ...
