"""The feeds that need no server, against the suite of the port."""

from collections.abc import Iterator
from contextlib import contextmanager

from penstock.adapters.feed.memory import MemoryFeed, MemoryTopic
from penstock.testing.conformance.feed import PARTITIONS, FeedConformance, Topic


class TestMemoryFeed(FeedConformance):
    @contextmanager
    def make(self) -> Iterator[Topic]:
        kept = MemoryTopic(partitions=PARTITIONS)
        yield Topic(lambda: MemoryFeed(kept), lambda: kept.messages)
