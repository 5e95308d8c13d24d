"""The registers of suppressions that ship, against the suite of the port."""

from penstock.adapters.suppressions.memory import MemorySuppressions
from penstock.adapters.suppressions.sqlite import SqliteSuppressions
from penstock.testing.conformance.suppressions import (
    DurableSuppressionsConformance,
    SuppressionsConformance,
)


class TestMemorySuppressions(SuppressionsConformance):
    def make(self, folder):
        return MemorySuppressions()


class TestSqliteSuppressions(DurableSuppressionsConformance):
    def make(self, folder):
        return SqliteSuppressions(folder / "suppressions.db")
