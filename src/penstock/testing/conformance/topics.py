"""What every reader of other producers' topics does: each record once to the group, and again by place."""

# ruff: noqa: SIM300 - asserts read `expected == actual`

import time
from collections.abc import Callable, Iterator, Sequence

import pytest

from penstock.core.foreign import Foreign, Place, place_of
from penstock.ports.topics import Topics


def positions(records: Sequence[Foreign]) -> dict[tuple[str, int], int]:
    """Return the positions after some records."""
    return {(one.topic, one.partition): one.offset + 1 for one in records}


class TopicsConformance:
    """Subclass it as `Test…` and say how to make topics, write to them and join a group."""

    patience_s = 30.0
    """How long a group may take to hand out what is there."""

    def new_topic(self, partitions: int) -> str:
        """Make a topic and return its name."""
        raise NotImplementedError

    def write(self, topic: str, partition: int, values: Sequence[bytes | None]) -> None:
        """Append records with the key `k`, the header `h` = `v` and the timestamp 1,700,000,000,000."""
        raise NotImplementedError

    def join(self, topic: str, group: str) -> Topics:
        """Return a member of a group that begins at the first record."""
        raise NotImplementedError

    def collect(self, topics: Topics, count: int) -> list[Foreign]:
        """Poll until so many records came, and once more for those that should not."""
        found: list[Foreign] = []
        until = time.monotonic() + self.patience_s
        while len(found) < count and time.monotonic() < until:
            found += topics.poll(100, 200)
        return found + topics.poll(100, 200)

    @pytest.fixture
    def member(self) -> Iterator[Callable[[str], Topics]]:
        """Join the group of the topic's name; whoever joined leaves in the end."""
        joined: list[Topics] = []

        def join(topic: str) -> Topics:
            joined.append(self.join(topic, f"group-{topic}"))
            return joined[-1]

        yield join
        for one in joined:
            one.close()

    def test_a_record_comes_as_it_was_written(self, member: Callable[[str], Topics]):
        topic = self.new_topic(1)
        self.write(topic, 0, [b"a", None])
        first, second = self.collect(member(topic), 2)
        assert (
            Foreign(topic, first.topic_id, 0, 0, 1_700_000_000_000, b"k", b"a", (("h", b"v"),))
            == first
        )
        assert (1, None) == (second.offset, second.value)

    def test_each_partition_in_its_order(self, member: Callable[[str], Topics]):
        topic = self.new_topic(3)
        for partition in range(3):
            self.write(topic, partition, [b"%d" % number for number in range(50)])
        found = self.collect(member(topic), 150)
        for partition in range(3):
            assert [(number, b"%d" % number) for number in range(50)] == [
                (one.offset, one.value) for one in found if one.partition == partition
            ]

    def test_what_was_committed_is_not_read_again_and_what_was_not_is(
        self, member: Callable[[str], Topics]
    ):
        topic = self.new_topic(1)
        self.write(topic, 0, [b"0", b"1", b"2", b"3"])
        one = member(topic)
        found = self.collect(one, 4)
        one.commit(positions(found[:2]))
        one.close()
        assert [b"2", b"3"] == [record.value for record in self.collect(member(topic), 2)]

    def test_committing_nothing_does_nothing(self, member: Callable[[str], Topics]):
        topic = self.new_topic(1)
        self.write(topic, 0, [b"0"])
        one = member(topic)
        one.commit({})
        assert 1 == len(self.collect(one, 1))

    def test_who_holds_misses_nothing(self, member: Callable[[str], Topics]):
        topic = self.new_topic(2)
        self.write(topic, 0, [b"0"])
        one = member(topic)
        self.collect(one, 1)
        one.hold()
        self.write(topic, 0, [b"1"])
        self.write(topic, 1, [b"2"])
        for _ in range(20):
            one.hold()
        assert {b"1", b"2"} == {record.value for record in self.collect(one, 2)}

    def test_records_are_read_again_at_their_places(self, member: Callable[[str], Topics]):
        topic = self.new_topic(2)
        self.write(topic, 0, [b"0", b"1", b"2"])
        self.write(topic, 1, [b"x"])
        one = member(topic)
        found = self.collect(one, 4)
        one.commit(positions(found))
        places = [place_of("c", record) for record in reversed(found)]
        absent = [places[0]._replace(offset=99), Place("c", topic, "another", 0, 0)]
        assert [*reversed(found), None, None] == one.read([*places, *absent])
        assert [] == one.poll(10, 0)

    def test_lag_is_what_is_still_to_come(self, member: Callable[[str], Topics]):
        topic = self.new_topic(1)
        self.write(topic, 0, [b"%d" % number for number in range(30)])
        one = member(topic)
        found = one.poll(10, 200)
        while len(found) < 10:
            found += one.poll(10 - len(found), 200)
        assert 20 == one.lag()
        self.collect(one, 20)
        assert 0 == one.lag()

    def test_leaving_twice_does_nothing(self, member: Callable[[str], Topics]):
        one = member(self.new_topic(1))
        one.close()
        one.close()
