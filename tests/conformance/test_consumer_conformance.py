"""The consumers that ship, against the suite of the port."""

from collections.abc import Iterator
from contextlib import contextmanager

from penstock.adapters.consumer.memory import MemoryGroup
from penstock.adapters.log.memory import MemoryLog
from penstock.testing.clock import HandClock
from penstock.testing.conformance.consumer import PARTITIONS, ConsumerConformance, Group


class TestMemoryConsumer(ConsumerConformance):
    @contextmanager
    def make(self) -> Iterator[Group]:
        log = MemoryLog(HandClock(1_795_000_000_000), partitions=PARTITIONS)
        yield Group(log, MemoryGroup(log).member)
