"""A feed in memory: the port's contract in its plainest form, for tests."""

from __future__ import annotations

from collections.abc import Sequence

from penstock.core.errors import Unavailable
from penstock.core.ids import LeafId
from penstock.ports.feed import Message, fenced


class MemoryTopic:
    """What was put, by whomever, and who may put.

    Args:
        name: As errors name it.
        partitions: Of the log.
    """

    def __init__(self, name: str = "feed", partitions: int = 1) -> None:
        self.name = name
        self.messages: list[Message] = []
        self.positions = [0] * partitions
        self.mark = ""
        self.writer: MemoryFeed | None = None

    def compacted(self) -> dict[LeafId, bytes]:
        """Return what is left of each leaf: the newest, if that says anything."""
        newest = {one.leaf: one.value for one in self.messages}
        return {leaf: value for leaf, value in newest.items() if value is not None}


class MemoryFeed:
    """One process's way into a topic. Implements `ports.feed.Feed`.

    Args:
        topic: The topic.
    """

    def __init__(self, topic: MemoryTopic) -> None:
        self._topic = topic
        self._closed = False

    def take_over(self, mark: str) -> list[int] | None:
        """Become the writer."""
        self._require_open()
        self._topic.writer = self
        return [*self._topic.positions] if self._topic.mark == mark else None

    def positions(self) -> list[int]:
        """Return where to go on."""
        self._require_open()
        return [*self._topic.positions]

    def put(self, messages: Sequence[Message], positions: Sequence[int], mark: str) -> None:
        """Say these, and note where to go on."""
        self._require_open()
        if self._topic.writer is not self:
            raise fenced(self._topic.name)
        self._topic.messages += messages
        self._topic.positions, self._topic.mark = [*positions], mark

    def close(self) -> None:
        """Put nothing more."""
        self._closed = True

    def _require_open(self) -> None:
        if self._closed:
            raise Unavailable("E401", f"{self._topic.name} is closed", fix="open it again")
