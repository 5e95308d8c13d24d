"""What a log that several processes append to does: `ports.log.Log` says how little it can promise."""

# ruff: noqa: SIM300 - asserts read `expected == actual`

import threading
from pathlib import Path
from typing import ClassVar

import pytest

from penstock.core.errors import SettingsError
from penstock.ports.log import Log, Truncation
from penstock.testing.clock import HandClock
from penstock.testing.conformance.log import (
    WRITER,
    LogConformance,
    a_letter,
    append_until_killed,
    killed_batch,
    read,
)

BATCHES = 30
ROUNDS = (1, 6, 23)


class SharedLogConformance(LogConformance):
    """For logs of several processes: their batches mix, and one that was not acknowledged may be there in part.

    Attributes:
        opened_by: Python source that sets `log` to the log in `folder`, given `folder` and `clock`.
    """

    durable = True
    opened_by: ClassVar[str]

    def test_it_says_that_others_append(self, log: Log):
        assert log.shared is True

    def test_it_refuses_to_be_truncated(self, log: Log):
        log.append(0, [b"a", b"b"])
        with pytest.raises(SettingsError, match="E284"):
            log.truncate(0, Truncation(1, 1))
        assert (0, Truncation()) == (log.first(0), log.truncation(0))

    def test_two_who_append_at_once_know_where_each_of_their_records_is(
        self, tmp_path: Path, clock: HandClock
    ):
        logs = [self.make(tmp_path, clock) for _ in range(2)]
        landed: list[list] = [[], []]

        def append(writer: int) -> None:
            for batch in range(BATCHES):
                values = [b"%d %d %d" % (writer, batch, i) for i in range(1 + batch * 37 % 400)]
                landed[writer] += logs[writer].append(0, values).records(values)

        threads = [threading.Thread(target=append, args=(writer,)) for writer in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        fresh = self.make(tmp_path, clock)
        every = read(fresh, 0, 0, 1 << 20)
        assert sorted(landed[0] + landed[1]) == every
        assert [*range(len(every))] == [record.offset for record in every]
        for writer in range(2):
            offsets = [record.offset for record in landed[writer]]
            assert sorted(offsets) == offsets, "what one appends stays in order"
        for log in (*logs, fresh):
            log.close()

    def test_partitions_are_appended_to_from_threads_of_their_own(self, log: Log):
        def append(partition: int) -> None:
            for batch in range(BATCHES):
                log.append(partition, [b"%d %d" % (partition, batch)])

        threads = [threading.Thread(target=append, args=(partition,)) for partition in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for partition in range(2):
            expected = [b"%d %d" % (partition, batch) for batch in range(BATCHES)]
            assert expected == [record.value for record in read(log, partition, 0, 100)]

    def test_what_others_append_is_seen(self, tmp_path: Path, clock: HandClock):
        ours, theirs = self.make(tmp_path, clock), self.make(tmp_path, clock)
        ours.append(0, [b"a"])
        landed = theirs.append(0, [b"b"], [a_letter("b")])
        assert 1 == landed.first_offset
        ours.append(0, [b"c"])
        assert [b"a", b"b", b"c"] == [record.value for record in read(ours, 0, 0, 9)]
        seen = threading.Event()
        for _ in range(200):
            if theirs.head(0) == 3 and ours.counts()["dead_letters"] == 1:
                break
            seen.wait(0.05)
        assert [b"a", b"b", b"c"] == [record.value for record in read(theirs, 0, 0, 9)]
        assert [a_letter("b")] == list(ours.dead_letters())
        ours.close()
        theirs.close()

    def test_a_letter_that_two_keep_is_one_and_is_replayed_once(
        self, tmp_path: Path, clock: HandClock
    ):
        for _ in range(2):
            log = self.make(tmp_path, clock)
            log.append(0, [], [a_letter("a")])
            log.close()
        logs = [self.make(tmp_path, clock) for _ in range(2)]
        for at_ms, log in enumerate(logs, 1):
            log.mark_replayed(["a"], at_ms)
            log.close()
        log = self.make(tmp_path, clock)
        assert {"appended": 0, "dead_letters": 1, "replayed": 1} == log.counts()
        assert [a_letter("a", replayed_at_ms=1)] == list(log.dead_letters(pending_only=False))
        log.close()

    def test_killed_in_the_middle_nothing_acknowledged_is_lost_and_every_record_is_whole(
        self, tmp_path: Path, clock: HandClock
    ):
        self.make(tmp_path, clock).close()
        acknowledged: list[int] = []
        for kill_after in ROUNDS:
            acknowledged += append_until_killed(WRITER, self.opened_by, tmp_path, kill_after)
            log = self.make(tmp_path, clock)
            values = [record.value for record in read(log, 0, 0, 1 << 20)]
            assert len(values) == log.head(0) == log.counts()["appended"]
            letters = {letter.letter_id for letter in log.dead_letters()}
            log.close()
            # A writer prints how many batches it has appended: the last of them is one less.
            assert {str(number - 1) for number in acknowledged} <= letters
            written = iter(values)
            for number in acknowledged:
                batch = killed_batch(number - 1)
                assert all(value in written for value in batch), "lost, or out of order"
            known = {
                value for number in range(acknowledged[-1] + 2) for value in killed_batch(number)
            }
            assert set(values) <= known, "a record is torn"
        assert len(acknowledged) >= sum(ROUNDS)
