"""What every spool does: it keeps batches in their order, over restarts, and not more than it may."""

# ruff: noqa: SIM300 - asserts read `expected == actual`

from pathlib import Path

import pytest

from penstock.core.errors import Unavailable
from penstock.core.record import DeadLetter
from penstock.ports.spool import Spool, Spooled

ROOM = 1_000_000
NOW_MS = 1_795_000_000_000


def a_letter(number: int) -> DeadLetter:
    """Return a dead letter."""
    return DeadLetter(letter_id=f"l{number}", source="web", received_at_ms=number, reason="E310", path="$",
                      what="it is wrong", message_id="m", body=b"{}")  # fmt: skip


class SpoolConformance:
    """Subclass it as `Test…` and say how to make the spool."""

    def make(self, folder: Path, bytes_max: int = ROOM) -> Spool:
        """Return a spool in a folder: a new one, or the one that is there."""
        raise NotImplementedError

    def test_batches_of_a_partition_come_in_their_order_whole(self, tmp_path: Path) -> None:
        spool = self.make(tmp_path)
        assert [] == spool.partitions()
        assert None is spool.next(0)
        spool.put(1, [b"a", b"b"], [a_letter(1)], NOW_MS)
        spool.put(0, [b"c"], [], NOW_MS + 1)
        spool.put(1, [], [a_letter(2), a_letter(3)], NOW_MS + 2)
        assert [0, 1] == spool.partitions()
        assert (3, 3, NOW_MS, 0) == self.counted(spool)
        first = spool.next(1)
        assert (
            first
            == spool.next(1)
            == Spooled(first.number if first else 0, [b"a", b"b"], [a_letter(1)])
        )
        assert first is not None
        spool.done(first.number)
        second = spool.next(1)
        assert second is not None
        assert ([], [a_letter(2), a_letter(3)]) == (second.values, second.letters)
        spool.done(second.number)
        spool.done(second.number)
        assert [0] == spool.partitions()
        assert (1, 1, NOW_MS + 1, 0) == self.counted(spool)
        spool.close()
        spool.close()

    def test_what_was_put_is_there_after_a_restart_and_what_is_done_is_not(
        self, tmp_path: Path
    ) -> None:
        spool = self.make(tmp_path)
        for number in range(5):
            spool.put(0, [b"%d" % number], [], NOW_MS)
        done = spool.next(0)
        assert done is not None
        spool.done(done.number)
        spool.close()
        again = self.make(tmp_path)
        assert (4, 4, NOW_MS, 0) == self.counted(again)
        again.put(0, [b"5"], [], NOW_MS)
        found: list[bytes] = []
        while (batch := again.next(0)) is not None:
            found += batch.values
            again.done(batch.number)
        assert [b"1", b"2", b"3", b"4", b"5"] == found
        assert (0, 0, 0, 0) == self.counted(again)
        again.close()

    def test_it_takes_no_more_than_it_may_until_there_is_room_again(self, tmp_path: Path) -> None:
        spool = self.make(tmp_path, bytes_max=3_000)
        for _ in range(2):
            spool.put(0, [bytes(1_000)], [], NOW_MS)
        with pytest.raises(Unavailable) as raised:
            spool.put(1, [bytes(1_000)], [], NOW_MS)
        assert "E460" == raised.value.code
        assert [0] == spool.partitions()
        first = spool.next(0)
        assert first is not None
        spool.done(first.number)
        spool.put(1, [bytes(1_000)], [], NOW_MS)
        assert [0, 1] == spool.partitions()
        spool.close()

    def test_closed_it_takes_nothing(self, tmp_path: Path) -> None:
        spool = self.make(tmp_path)
        spool.close()
        with pytest.raises(Unavailable):
            spool.put(0, [b"a"], [], NOW_MS)

    def counted(self, spool: Spool) -> tuple[int, int, int, int]:
        """Return batches, records, the oldest and those that are damaged."""
        counts = spool.counts()
        assert (counts.size_bytes > 0) == (counts.batches > 0)
        return counts.batches, counts.records, counts.oldest_ms, counts.damaged
