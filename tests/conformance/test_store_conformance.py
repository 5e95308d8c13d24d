"""The stores that ship, against the suite of the port."""

from penstock.adapters.store.memory import MemoryStore
from penstock.adapters.store.sqlite import SqliteStore
from penstock.testing.conformance.store import DurableStoreConformance, StoreConformance


class TestMemoryStore(StoreConformance):
    def make(self, folder):
        return MemoryStore()


class TestSqliteStore(DurableStoreConformance):
    opened_by = """
from penstock.adapters.store.sqlite import SqliteStore
store = SqliteStore(folder / "store.db")
"""

    def make(self, folder):
        return SqliteStore(folder / "store.db")
