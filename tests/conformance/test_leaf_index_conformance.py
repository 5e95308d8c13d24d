"""The indexes that ship, against the suite of the port."""

from penstock.adapters.leaf_index.memory import MemoryLeafIndex
from penstock.adapters.leaf_index.sqlite import SqliteLeafIndex
from penstock.testing.conformance.leaf_index import (
    DurableLeafIndexConformance,
    LeafIndexConformance,
)


class TestMemoryLeafIndex(LeafIndexConformance):
    def make(self, folder):
        return MemoryLeafIndex()


class TestSqliteLeafIndex(DurableLeafIndexConformance):
    def make(self, folder):
        return SqliteLeafIndex(folder / "index.db")
