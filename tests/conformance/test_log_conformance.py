"""The logs that ship, against the suite of the port."""

from penstock.adapters.log.memory import MemoryLog
from penstock.adapters.log.sqlite import SqliteLog
from penstock.testing.conformance.log import DurableLogConformance, SoleLogConformance


class TestMemoryLog(SoleLogConformance):
    def make(self, folder, clock, *, partitions=1):
        return MemoryLog(clock, partitions=partitions)


class TestSqliteLog(DurableLogConformance):
    opened_by = """
from penstock.adapters.log.sqlite import SqliteLog
log = SqliteLog(folder / "log.db", clock)
"""

    def make(self, folder, clock, *, partitions=1):
        return SqliteLog(folder / "log.db", clock, partitions=partitions)
