"""What every member of a group does: it is told what it owns, reads it in order, and commits what it says."""

# ruff: noqa: SIM300 - asserts read `expected == actual`

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager

import pytest

from penstock.core.record import LogRecord
from penstock.ports.consumer import Consumer
from penstock.ports.log import Log

PARTITIONS = 4
DEADLINE_S = 30.0
"""How long a group may take to come to rest."""


class Keeper:
    """An owner that notes what it is told, and begins each partition where it is said to."""

    def __init__(self, begin: Mapping[int, int] | None = None) -> None:
        self.begin = begin
        """Where to begin; those left out are held. None begins all at 0."""
        self.owned: set[int] = set()
        self.told: list[tuple[str, tuple[int, ...]]] = []
        self.read: list[tuple[int, LogRecord]] = []
        self.on_revoked: Callable[[Sequence[int]], None] = lambda _: None

    def assigned(self, partitions: Sequence[int]) -> Mapping[int, int]:
        self.told.append(("assigned", tuple(sorted(partitions))))
        self.owned.update(partitions)
        if self.begin is None:
            return dict.fromkeys(partitions, 0)
        return {one: self.begin[one] for one in partitions if one in self.begin}

    def revoked(self, partitions: Sequence[int]) -> None:
        self.told.append(("revoked", tuple(sorted(partitions))))
        self.on_revoked(partitions)
        self.owned.difference_update(partitions)

    def lost(self, partitions: Sequence[int]) -> None:
        self.told.append(("lost", tuple(sorted(partitions))))
        self.owned.difference_update(partitions)

    def astray(self, partitions: Sequence[int]) -> None:
        self.told.append(("astray", tuple(sorted(partitions))))

    def offsets(self, partition: int) -> list[int]:
        return [record.offset for one, record in self.read if one == partition]


class Group:
    """A log and how to become a member of a group that shares it out.

    Args:
        log: With `PARTITIONS` partitions.
        member: Returns a member that has not joined.
    """

    def __init__(self, log: Log, member: Callable[[], Consumer]) -> None:
        self.log = log
        self._member = member
        self.members: list[tuple[Consumer, Keeper]] = []

    def join(self, keeper: Keeper | None = None) -> tuple[Consumer, Keeper]:
        member, keeper = self._member(), keeper or Keeper()
        member.join(keeper)
        self.members.append((member, keeper))
        return member, keeper

    def leave(self, member: Consumer) -> None:
        self.members = [one for one in self.members if one[0] is not member]
        member.close()

    def fill(self, count: int) -> None:
        for partition in range(PARTITIONS):
            self.log.append(partition, [b"%d-%d" % (partition, n) for n in range(count)])

    def until(self, done: Callable[[], bool]) -> None:
        """Poll all members until something is so."""
        until = time.monotonic() + DEADLINE_S
        while not done():
            assert time.monotonic() < until, "it never came to be"
            for member, keeper in self.members:
                self.poll(member, keeper)

    def settled(self) -> bool:
        """Return whether every partition has one owner."""
        owned = [one for _, keeper in self.members for one in keeper.owned]
        return sorted(owned) == list(range(PARTITIONS))

    @staticmethod
    def poll(member: Consumer, keeper: Keeper, limit: int = 500) -> None:
        for batch in member.poll(limit, 20):
            keeper.read.extend((batch.partition, record) for record in batch.records)


class ConsumerConformance:
    """Subclass it as `Test…` and say how to make a group."""

    def make(self) -> AbstractContextManager[Group]:
        """Return an empty log and a new group; left, all are closed."""
        raise NotImplementedError

    @pytest.fixture
    def group(self) -> Iterator[Group]:
        with self.make() as group:
            yield group
            for member, _ in group.members:
                member.close()

    def test_a_member_alone_owns_all_and_reads_all_in_order(self, group: Group):
        group.fill(10)
        _, keeper = group.join()
        group.until(lambda: len(keeper.read) >= 10 * PARTITIONS)
        assert set(range(PARTITIONS)) == keeper.owned
        for partition in range(PARTITIONS):
            assert list(range(10)) == keeper.offsets(partition)
        values = {(one, record.offset): record.value for one, record in keeper.read}
        assert b"2-7" == values[(2, 7)]
        logged = group.log.read(2, 7, 1)[0]
        assert logged in [record for one, record in keeper.read if one == 2]

    def test_it_reads_from_where_its_owner_says(self, group: Group):
        group.fill(10)
        _, keeper = group.join(Keeper({0: 3, 1: 0, 2: 9, 3: 10}))
        group.until(lambda: len(keeper.read) >= 7 + 10 + 1)
        assert [*range(3, 10)] == keeper.offsets(0)
        assert [*range(10)] == keeper.offsets(1)
        assert [9] == keeper.offsets(2)
        assert [] == keeper.offsets(3)

    def test_an_offset_that_the_log_has_not_come_to_is_told(self, group: Group):
        group.fill(3)
        _, keeper = group.join(Keeper({0: 3, 1: 7}))
        group.until(lambda: ("astray", (1,)) in keeper.told)
        assert ("astray", (0,)) not in keeper.told

    def test_what_its_owner_leaves_out_is_held_until_it_is_resumed(self, group: Group):
        group.fill(5)
        member, keeper = group.join(Keeper({1: 0, 2: 0, 3: 0}))
        group.until(lambda: len(keeper.read) >= 15)
        assert 0 in keeper.owned
        assert [] == keeper.offsets(0)
        member.seek(0, 2)
        member.resume(0)
        group.until(lambda: len(keeper.read) >= 18)
        assert [2, 3, 4] == keeper.offsets(0)

    def test_seeking_back_reads_again_and_drops_what_was_fetched(self, group: Group):
        group.fill(20)
        member, keeper = group.join()
        group.until(lambda: len(keeper.offsets(1)) >= 5)
        seen = len(keeper.offsets(1))
        member.seek(1, 2)
        group.until(lambda: len(keeper.offsets(1)) >= seen + 18)
        assert [*range(2, 20)] == keeper.offsets(1)[seen:]

    def test_what_is_paused_stays_owned_and_the_others_go_on(self, group: Group):
        member, keeper = group.join()
        group.until(group.settled)
        member.pause(0)
        group.fill(5)
        group.until(lambda: len(keeper.read) >= 15)
        for _ in range(5):
            group.poll(member, keeper)
        assert [] == keeper.offsets(0)
        assert 0 in keeper.owned
        member.resume(0)
        group.until(lambda: len(keeper.read) >= 20)
        assert [*range(5)] == keeper.offsets(0)

    def test_a_second_member_gets_a_share_and_gives_it_back(self, group: Group):
        _, first = group.join()
        group.until(group.settled)
        member, second = group.join()
        group.until(lambda: group.settled() and len(second.owned) > 0)
        assert 2 == len(first.owned) == len(second.owned)
        # Cooperative: only what moves is revoked, all else goes on.
        revoked = [told for told in first.told if told[0] == "revoked"]
        assert [2] == [len(partitions) for _, partitions in revoked]
        group.leave(member)
        assert "revoked" == second.told[-1][0]
        group.until(group.settled)
        assert set(range(PARTITIONS)) == first.owned

    def test_what_is_revoked_may_still_be_committed(self, group: Group):
        group.fill(5)
        first, keeper = group.join()
        group.until(lambda: len(keeper.read) >= 20)
        keeper.on_revoked = lambda gone: first.commit(dict.fromkeys(gone, 5))
        second, other = group.join()
        group.until(lambda: group.settled() and len(other.owned) > 0)
        group.until(lambda: all(second.committed(partition) == 5 for partition in other.owned))

    def test_commits_are_kept_by_the_group(self, group: Group):
        group.fill(5)
        member, keeper = group.join()
        group.until(lambda: len(keeper.read) >= 20)
        assert -1 == member.committed(3)
        member.commit({3: 4})
        group.until(lambda: member.committed(3) == 4)
        member.commit({3: 5, 1: 2})
        group.leave(member)
        later, other = group.join()
        group.until(lambda: len(other.owned) == PARTITIONS)
        assert (5, 2, -1) == (later.committed(3), later.committed(1), later.committed(0))

    def test_it_knows_how_far_the_log_goes(self, group: Group):
        group.fill(7)
        member, keeper = group.join()
        group.until(lambda: len(keeper.read) >= 28)
        assert [7] * PARTITIONS == [member.head(partition) for partition in range(PARTITIONS)]

    def test_another_thread_is_answered_while_it_polls(self, group: Group):
        group.fill(7)
        member, keeper = group.join()
        group.until(lambda: len(keeper.read) == 7 * PARTITIONS)
        stopped = threading.Event()

        def poll() -> None:
            while not stopped.is_set():
                group.poll(member, keeper)

        polling = threading.Thread(target=poll)
        polling.start()
        try:
            for _ in range(10):
                assert member.head(0) == 7
        finally:
            stopped.set()
            polling.join()

    def test_it_brings_no_more_than_was_asked_for(self, group: Group):
        group.fill(50)
        member, keeper = group.join()
        group.until(group.settled)
        until = time.monotonic() + DEADLINE_S
        while len(keeper.read) < 200:
            assert time.monotonic() < until, "it never came to be"
            before = len(keeper.read)
            group.poll(member, keeper, limit=7)
            assert len(keeper.read) - before <= 7

    def test_closing_twice_is_harmless(self, group: Group):
        member, _ = group.join()
        group.until(group.settled)
        member.close()
        member.close()
        group.members.clear()
