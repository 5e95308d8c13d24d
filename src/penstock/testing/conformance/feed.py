"""What every feed does: one writes at a time, and what it said and where it is become visible together."""

# ruff: noqa: SIM300 - asserts read `expected == actual`

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

import pytest

from penstock.core.errors import Fenced, Unavailable
from penstock.core.ids import LeafId
from penstock.ports.feed import Feed, Message

PARTITIONS = 3
"""Of the log."""


def leaf(number: int) -> LeafId:
    """Return a leaf."""
    return LeafId(number.to_bytes(16, "big"))


def say(number: int, value: bytes | None) -> Message:
    """Return what is said of a leaf."""
    return Message(leaf(number), value)


class Topic:
    """A topic and how to open ways into it.

    Args:
        open_feed: Returns a feed that has not taken over.
        read: Returns what a reader of the topic sees, the messages of a leaf in their order.
    """

    def __init__(
        self, open_feed: Callable[[], Feed], read: Callable[[], Sequence[Message]]
    ) -> None:
        self.open_feed = open_feed
        self._read = read

    def of(self, number: int) -> list[bytes | None]:
        """Return what was said of a leaf, in order."""
        return [one.value for one in self._read() if one.leaf == leaf(number)]


class FeedConformance:
    """Subclass with `make`."""

    def make(self) -> AbstractContextManager[Topic]:
        raise NotImplementedError

    def test_what_is_put_is_read_in_its_order_and_the_place_is_kept(self) -> None:
        with self.make() as topic:
            feed = topic.open_feed()
            assert None is feed.take_over("a")
            assert [0, 0, 0] == feed.positions()
            feed.put([say(1, b"a"), say(2, b"b"), say(1, b"c"), say(2, None)], [4, 0, 7], "a")
            feed.put([say(1, b"d")], [5, 1, 7], "a")
            feed.put([], [6, 1, 7], "a")
            assert [6, 1, 7] == feed.positions()
            feed.close()
            assert [b"a", b"c", b"d"] == topic.of(1)
            assert [b"b", None] == topic.of(2)

    def test_by_another_mark_all_is_told_anew_also_if_it_was_told_by_it_before(self) -> None:
        with self.make() as topic:
            feed = topic.open_feed()
            assert None is feed.take_over("a")
            feed.put([say(1, b"a")], [3, 0, 1], "a")
            assert None is feed.take_over("b")
            assert [3, 0, 1] == feed.positions()
            feed.put([say(1, b"b")], [1, 0, 0], "b")
            assert [1, 0, 0] == feed.positions() == feed.take_over("b")
            assert None is feed.take_over("a")
            feed.close()

    def test_who_takes_over_goes_on_where_the_last_was(self) -> None:
        with self.make() as topic:
            first = topic.open_feed()
            first.take_over("a")
            first.put([say(1, b"a")], [1, 0, 0], "a")
            first.close()
            second = topic.open_feed()
            assert [1, 0, 0] == second.take_over("a")
            second.put([say(1, b"b")], [2, 0, 0], "a")
            second.close()
            assert [b"a", b"b"] == topic.of(1)

    def test_a_writer_that_wakes_after_another_took_over_says_nothing(self) -> None:
        with self.make() as topic:
            sleeper, other = topic.open_feed(), topic.open_feed()
            sleeper.take_over("a")
            sleeper.put([say(1, b"a")], [1, 0, 0], "a")
            other.take_over("a")
            other.put([say(1, b"new")], [2, 0, 0], "a")
            with pytest.raises(Fenced) as raised:
                sleeper.put([say(1, b"old")], [2, 0, 0], "a")
            assert "E607" == raised.value.code
            assert [2, 0, 0] == sleeper.positions() == other.positions()
            assert [b"a", b"new"] == topic.of(1)
            assert [2, 0, 0] == sleeper.take_over("a")
            sleeper.put([say(1, b"newer")], [3, 0, 0], "a")
            with pytest.raises(Fenced):
                other.put([say(1, b"old")], [3, 0, 0], "a")
            sleeper.close()
            other.close()
            assert [b"a", b"new", b"newer"] == topic.of(1)

    def test_closed_it_says_nothing(self) -> None:
        with self.make() as topic:
            feed = topic.open_feed()
            feed.take_over("a")
            feed.close()
            feed.close()
            with pytest.raises(Unavailable):
                feed.put([say(1, b"a")], [1, 0, 0], "a")
            assert [] == topic.of(1)
