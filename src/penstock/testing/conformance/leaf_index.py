"""What every index of the log by leaf does: it finds all of a leaf's records, and says how far it goes."""

# ruff: noqa: SIM300 - asserts read `expected == actual`

from collections.abc import Iterator
from pathlib import Path

import pytest

from penstock.core.ids import LeafId
from penstock.core.leaf_index import index_of
from penstock.ports.leaf_index import LeafIndex


def a_leaf(n: int) -> LeafId:
    """Return the n-th leaf id; ids that differ by 256 share a bucket."""
    return LeafId(bytes([n % 256]) + n.to_bytes(4, "big") + b"\x5a" * 11)


class LeafIndexConformance:
    """Subclass it as `Test…` and say how to make the index."""

    def make(self, folder: Path) -> LeafIndex:
        """Return an index in a folder: a new one, or the one that is there."""
        raise NotImplementedError

    @pytest.fixture
    def index(self, tmp_path: Path) -> Iterator[LeafIndex]:
        index = self.make(tmp_path)
        yield index
        index.close()

    def test_an_empty_index_covers_nothing(self, index: LeafIndex):
        assert 0 == index.covered(0)
        assert [] == index.find(0, a_leaf(1))

    def test_a_leafs_offsets_ascend_over_all_segments(self, index: LeafIndex):
        leaves = [a_leaf(n % 3) for n in range(10)]
        index.put(0, 0, 10, index_of(leaves))
        index.put(0, 10, 14, index_of([a_leaf(1), a_leaf(9), a_leaf(1), a_leaf(257)]))
        assert 14 == index.covered(0)
        assert [1, 4, 7, 10, 12] == index.find(0, a_leaf(1))
        assert [11] == index.find(0, a_leaf(9))
        assert [13] == index.find(0, a_leaf(257))
        assert [] == index.find(0, a_leaf(513))

    def test_partitions_share_nothing(self, index: LeafIndex):
        index.put(0, 0, 1, index_of([a_leaf(1)]))
        index.put(3, 0, 2, index_of([a_leaf(2), a_leaf(1)]))
        assert (1, 0, 2) == (index.covered(0), index.covered(1), index.covered(3))
        assert [1] == index.find(3, a_leaf(1))
        assert [] == index.find(1, a_leaf(1))

    def test_a_segment_that_is_there_stays_as_it_is(self, index: LeafIndex):
        index.put(0, 0, 2, index_of([a_leaf(1), a_leaf(2)]))
        index.put(0, 0, 2, index_of([a_leaf(2), a_leaf(1)]))
        assert [0] == index.find(0, a_leaf(1))

    def test_it_may_begin_after_the_logs_start(self, index: LeafIndex):
        index.put(0, 500, 502, index_of([a_leaf(1), a_leaf(2)]))
        assert 502 == index.covered(0)
        assert [501] == index.find(0, a_leaf(2))


class DurableLeafIndexConformance(LeafIndexConformance):
    """Also for an index that outlives its process."""

    def test_everything_is_there_after_opening_again(self, tmp_path: Path):
        index = self.make(tmp_path)
        index.put(0, 0, 2, index_of([a_leaf(1), a_leaf(2)]))
        index.close()
        again = self.make(tmp_path)
        assert (2, [1]) == (again.covered(0), again.find(0, a_leaf(2)))
        again.close()
