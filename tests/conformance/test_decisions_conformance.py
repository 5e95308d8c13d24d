"""The decision stores that ship, against the suite of the port."""

from penstock.adapters.decisions.memory import MemoryDecisions
from penstock.adapters.decisions.sqlite import SqliteDecisions
from penstock.testing.conformance.decisions import DecisionsConformance, DurableDecisionsConformance


class TestMemoryDecisions(DecisionsConformance):
    def make(self, folder):
        return MemoryDecisions()


class TestSqliteDecisions(DurableDecisionsConformance):
    def make(self, folder):
        return SqliteDecisions(folder / "decisions.db")
