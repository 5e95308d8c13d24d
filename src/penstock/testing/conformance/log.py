"""What every log does: offsets without gaps, letters beside them; and what one of a single process promises more."""

# ruff: noqa: SIM300 - asserts read `expected == actual`

import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import ClassVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from penstock.core.errors import SettingsError, Unavailable
from penstock.core.record import DeadLetter, LogRecord
from penstock.ports.clock import Clock
from penstock.ports.log import Appended, Archived, Log, Truncation
from penstock.testing.clock import HandClock

NOW_MS = 1_795_000_000_000
MIB = 1024 * 1024


def a_letter(name: str, reason: str = "E301", replayed_at_ms: int = 0) -> DeadLetter:
    """Return a dead letter of that id."""
    return DeadLetter(
        letter_id=name,
        source="web",
        received_at_ms=NOW_MS,
        reason=reason,
        path="$.properties",
        what="a field has another type",
        message_id=f"message-{name}",
        body=b'{"type":"track"}\x00\xff',
        replayed_at_ms=replayed_at_ms,
    )


def read(log: Log, partition: int, offset: int, limit: int) -> list[LogRecord]:
    """Read on until the limit or the head: a log may return less than was asked at a time."""
    found = _read_on(lambda at, left: [log.read(partition, at, left)], offset, limit)
    by_batches = _read_on(lambda at, left: log.batches(partition, at, left), offset, limit)
    assert found == by_batches, "batches are what is read"
    return found


def _read_on(
    ask: Callable[[int, int], Sequence[Sequence[LogRecord]]], offset: int, limit: int
) -> list[LogRecord]:
    found: list[LogRecord] = []
    while pieces := [one for one in ask(offset + len(found), limit - len(found)) if one]:
        for piece in pieces:
            assert list(piece) == [piece[place] for place in range(len(piece))]
            assert list(piece[1:]) == list(piece)[1:]
            found += piece
        assert len(found) <= limit, "more than was asked"
        if len(found) == limit:
            break
    return found


class LogConformance:
    """What every log does. Subclass one of those below as `Test…` and say how to make the log.

    Attributes:
        record_bytes_max: The largest record that the log takes, as far as it is tried.
        durable: Whether what was appended is there when the log is opened again.
    """

    record_bytes_max: ClassVar[int] = 5 * MIB
    durable: ClassVar[bool] = False

    def make(self, folder: Path, clock: Clock, *, partitions: int = 1) -> Log:
        """Return a log of generation 1 in a folder: a new one, or the one that is there."""
        raise NotImplementedError

    @pytest.fixture
    def clock(self) -> HandClock:
        return HandClock(NOW_MS)

    @pytest.fixture
    def log(self, tmp_path: Path, clock: HandClock) -> Iterator[Log]:
        log = self.make(tmp_path, clock, partitions=2)
        yield log
        log.close()

    def test_an_empty_log_has_nothing(self, log: Log):
        assert log.head(0) == 0
        assert log.last_logged_at_ms(0) == 0
        assert read(log, 0, 0, 10) == []
        assert list(log.dead_letters()) == []
        assert log.counts() == {"appended": 0, "dead_letters": 0, "replayed": 0}
        assert (log.generation, log.partitions) == (1, 2)

    def test_offsets_start_at_0_and_have_no_gaps(self, log: Log):
        assert log.append(0, [b"a", b"b"]).first_offset == 0
        assert log.append(0, [b"c"]).first_offset == 2
        assert log.append(0, [b"d", b"e"]).first_offset == 3
        assert log.head(0) == 5
        expected = list(enumerate([b"a", b"b", b"c", b"d", b"e"]))
        assert expected == [(record.offset, record.value) for record in read(log, 0, 0, 100)]

    def test_a_batch_is_read_as_its_append_said_that_it_landed(self, log: Log):
        values = [b"%d" % i + b"." * (i % 50) for i in range(3_000)]
        landed: list[LogRecord] = []
        for start, end in ((0, 1), (1, 2_001), (2_001, 3_000)):
            batch = values[start:end]
            landed += log.append(0, batch).records(batch)
        assert landed == read(log, 0, 0, 5_000)
        assert log.last_logged_at_ms(0) == max(record.logged_at_ms for record in landed)
        assert 0 < min(record.logged_at_ms for record in landed)
        assert log.last_logged_at_ms(1) == 0
        assert landed == read(log, 0, 0, 5_000), "a record is stamped once"

    def test_a_read_starts_anywhere_and_stops_at_its_limit(self, log: Log):
        log.append(0, [b"a", b"b", b"c"])
        log.append(0, [b"d", b"e"])
        assert [b"b", b"c", b"d"] == [record.value for record in read(log, 0, 1, 3)]
        assert [b"e"] == [record.value for record in read(log, 0, 4, 3)]
        assert [] == read(log, 0, 5, 3)
        assert [] == read(log, 0, 6, 3)
        assert [] == read(log, 0, 0, 0)

    def test_partitions_have_offsets_of_their_own(self, log: Log):
        log.append(1, [b"x", b"y"])
        assert log.append(0, [b"a"]).first_offset == 0
        log.append(1, [b"z"])
        assert (log.head(0), log.head(1)) == (1, 3)
        assert [b"a"] == [record.value for record in read(log, 0, 0, 10)]
        assert [b"x", b"y", b"z"] == [record.value for record in read(log, 1, 0, 10)]
        assert [] == read(log, 0, 1, 10)
        assert log.counts()["appended"] == 4

    def test_records_are_kept_as_they_are(self, log: Log):
        values = [b"", b"\x00", bytes(range(256)), b"\xff" * 70_000]
        log.append(0, values)
        assert values == [record.value for record in read(log, 0, 0, 10)]

    def test_a_batch_of_many_mib_is_one_batch(self, log: Log):
        largest = b"\x07" * self.record_bytes_max
        values = [bytes([i % 251]) * (MIB // 2) for i in range(21)] + [largest, b"end"]
        assert log.append(0, values, [a_letter("a")]).first_offset == 0
        assert log.head(0) == 23
        assert values == [record.value for record in read(log, 0, 0, 100)]
        assert values[9:12] == [record.value for record in read(log, 0, 9, 3)]

    def test_letters_are_kept_beside_the_records(self, log: Log):
        letters = [a_letter("a"), a_letter("b", "E302")]
        assert log.append(0, [b"r"], letters).first_offset == 0
        assert letters == list(log.dead_letters())
        assert log.counts() == {"appended": 1, "dead_letters": 2, "replayed": 0}

    def test_letters_alone_move_no_offset(self, log: Log):
        log.append(0, [b"r"])
        assert log.append(0, [], [a_letter("a")]).first_offset == 1
        assert log.head(0) == 1
        assert log.counts() == {"appended": 1, "dead_letters": 1, "replayed": 0}

    def test_a_letter_that_is_kept_already_changes_nothing(self, log: Log):
        log.append(0, [], [a_letter("a"), a_letter("a", "E305")])
        log.append(0, [b"r"], [a_letter("a", "E306"), a_letter("b")])
        assert [a_letter("a"), a_letter("b")] == list(log.dead_letters())
        assert log.counts()["dead_letters"] == 2

    def test_letters_are_listed_oldest_first_and_by_reason(self, log: Log):
        log.append(0, [], [a_letter("z", "E301"), a_letter("a", "E302")])
        log.append(1, [], [a_letter("m", "E301")])
        assert ["z", "a", "m"] == [letter.letter_id for letter in log.dead_letters()]
        assert ["z", "m"] == [letter.letter_id for letter in log.dead_letters(reason="E301")]
        assert [] == list(log.dead_letters(reason="E399"))

    def test_replayed_letters_are_listed_only_when_asked(self, log: Log):
        log.append(0, [], [a_letter("a"), a_letter("b")])
        log.mark_replayed(["a", "unknown"], NOW_MS + 7)
        assert ["b"] == [letter.letter_id for letter in log.dead_letters()]
        expected = [a_letter("a", replayed_at_ms=NOW_MS + 7), a_letter("b")]
        assert expected == list(log.dead_letters(pending_only=False))
        assert log.counts() == {"appended": 0, "dead_letters": 2, "replayed": 1}

    def test_a_letter_is_counted_as_replayed_once(self, log: Log):
        log.append(0, [], [a_letter("a")])
        log.mark_replayed(["a", "a"], NOW_MS)
        log.mark_replayed(["a"], NOW_MS + 1)
        assert log.counts()["replayed"] == 1

    def test_many_letters_are_listed_while_they_are_replayed(self, log: Log):
        names = [f"letter-{i:04d}" for i in range(1_203)]
        log.append(0, [], [a_letter(name) for name in names])
        seen: list[str] = []
        for letter in log.dead_letters():
            seen.append(letter.letter_id)
            if len(seen) % 40 == 0:
                log.mark_replayed(seen[-40:], NOW_MS)
        assert names == seen
        assert log.counts()["replayed"] == 1_200

    @settings(
        max_examples=25,
        suppress_health_check=[
            HealthCheck.differing_executors,
            HealthCheck.function_scoped_fixture,
        ],
    )
    @given(
        sizes=st.lists(st.integers(0, 30), max_size=12),
        reads=st.lists(st.tuples(st.integers(0, 200), st.integers(0, 60)), max_size=10),
    )
    def test_any_batches_read_in_any_pieces_are_one_sequence(
        self, log: Log, sizes: list[int], reads: list[tuple[int, int]]
    ):
        start = log.head(0)  # one log for all examples: each goes on where the last one ended
        every: list[bytes] = []
        for size in sizes:
            batch = [b"%d" % (len(every) + i) for i in range(size)]
            assert log.append(0, batch).first_offset == start + len(every)
            every += batch
        for offset, limit in reads:
            expected = every[offset : offset + limit]
            assert expected == [record.value for record in read(log, 0, start + offset, limit)]

    def test_a_closed_log_says_so(self, log: Log):
        log.close()
        log.close()
        with pytest.raises(Unavailable, match="E401"):
            log.append(0, [b"a"])
        with pytest.raises(Unavailable, match="E401"):
            log.read(0, 0, 1)

    def test_a_log_that_was_never_truncated_begins_at_0(self, log: Log):
        log.append(0, [b"a"])
        assert (0, Truncation(), []) == (log.first(0), log.truncation(0), log.archived(0))

    def test_everything_is_there_after_opening_again(self, tmp_path: Path, clock: HandClock):
        if not self.durable:
            return
        log = self.make(tmp_path, clock, partitions=2)
        landed = [
            *log.append(0, [b"a", b"b"], [a_letter("a"), a_letter("b")]).records([b"a", b"b"])
        ]
        clock.advance(seconds=1)
        other = [*log.append(1, [b"x"]).records([b"x"])]
        log.mark_replayed(["a"], NOW_MS + 9)
        log.close()

        log = self.make(tmp_path, clock, partitions=2)
        assert landed == read(log, 0, 0, 9)
        assert other == read(log, 1, 0, 9)
        assert (2, 1) == (log.head(0), log.head(1))
        assert other[0].logged_at_ms == log.last_logged_at_ms(1)
        assert {"appended": 3, "dead_letters": 2, "replayed": 1} == log.counts()
        expected = [a_letter("a", replayed_at_ms=NOW_MS + 9), a_letter("b")]
        assert expected == list(log.dead_letters(pending_only=False))
        assert log.append(0, [b"c"]).first_offset == 2
        assert [b"a", b"b", b"c"] == [record.value for record in read(log, 0, 0, 9)]
        log.close()


class SoleLogConformance(LogConformance):
    """For logs of one process: stamped by its clock, told what to give up, all of a batch or nothing."""

    def test_it_says_that_nobody_else_appends(self, log: Log):
        assert log.shared is False

    def test_a_batch_is_stamped_alike_with_the_clock(self, log: Log, clock: HandClock):
        log.append(0, [b"a", b"b"])
        clock.advance(seconds=5)
        log.append(0, [b"c"])
        assert [NOW_MS, NOW_MS, NOW_MS + 5_000] == [r.logged_at_ms for r in read(log, 0, 0, 3)]
        assert log.last_logged_at_ms(0) == NOW_MS + 5_000
        assert log.last_logged_at_ms(1) == 0

    def test_stamps_never_go_back_when_the_clock_does(self, log: Log, clock: HandClock):
        log.append(0, [b"a"])
        clock.set_back(60_000)
        assert log.append(0, [b"b"]).logged_at_ms == NOW_MS
        clock.advance(seconds=61)
        assert log.append(0, [b"c"]).logged_at_ms == NOW_MS + 1_000
        assert [NOW_MS, NOW_MS, NOW_MS + 1_000] == [r.logged_at_ms for r in read(log, 0, 0, 3)]

    def test_a_truncated_log_begins_later_and_says_so(self, log: Log, clock: HandClock):
        for value in (b"a", b"b", b"c", b"d"):
            log.append(0, [value])
        log.append(1, [b"x"])
        clock.advance(seconds=1)
        assert 2 == log.truncate(0, Truncation(2, 1, 1), [Archived(0, 2, "a/b:c", 7)])
        assert (2, Truncation(2, 1, 1)) == (log.first(0), log.truncation(0))
        assert [Archived(0, 2, "a/b:c", 7)] == log.archived(0)
        assert [(2, b"c"), (3, b"d")] == [(one.offset, one.value) for one in read(log, 0, 2, 9)]
        for offset in (0, 1):
            with pytest.raises(SettingsError) as caught:
                log.read(0, offset, 9)
            assert caught.value.code == "E271"
        assert (0, [b"x"]) == (log.first(1), [one.value for one in read(log, 1, 0, 9)])
        assert Appended(4, NOW_MS + 1_000) == log.append(0, [b"e"])
        assert log.counts()["appended"] == 6

    def test_the_newest_record_always_stays(self, log: Log):
        log.append(0, [b"a"])
        log.append(0, [b"b"])
        assert 1 == log.truncate(0, Truncation(2, 2))
        assert (1, 2, NOW_MS) == (log.first(0), log.head(0), log.last_logged_at_ms(0))
        assert [b"b"] == [one.value for one in read(log, 0, 1, 9)]
        assert 0 == log.truncate(0, Truncation(2, 2))

    def test_an_empty_partition_can_be_truncated_of_nothing(self, log: Log):
        assert 0 == log.truncate(0, Truncation())
        assert (0, 0) == (log.first(0), log.head(0))

    def test_a_batch_that_ends_beyond_the_offset_stays_whole(self, log: Log):
        log.append(0, [b"a"])
        log.append(0, [b"b", b"c", b"d"])
        log.append(0, [b"e"])
        log.truncate(0, Truncation(2, 2), [Archived(0, 2, "one", 1)])
        assert log.first(0) <= 2
        assert [b"c", b"d", b"e"] == [one.value for one in read(log, 0, 2, 9)]
        log.truncate(0, Truncation(4, 4), [Archived(2, 4, "two", 1)])
        assert 4 == log.first(0)
        assert ["one", "two"] == [one.name for one in log.archived(0)]


class DurableLogConformance(SoleLogConformance):
    """For logs that outlive their process: also opens them again and kills their writer.

    Attributes:
        opened_by: Python source that sets `log` to the log in `folder`, given `folder` and `clock`.
    """

    durable = True
    opened_by: ClassVar[str]

    def test_a_truncation_is_there_after_opening_again(self, tmp_path: Path, clock: HandClock):
        log = self.make(tmp_path, clock)
        for value in (b"a", b"b", b"c"):
            log.append(0, [value])
        log.truncate(0, Truncation(2, 2), [Archived(0, 2, "one", 5)])
        log.close()
        log = self.make(tmp_path, clock)
        assert (2, Truncation(2, 2)) == (log.first(0), log.truncation(0))
        assert [Archived(0, 2, "one", 5)] == log.archived(0)
        assert [b"c"] == [one.value for one in read(log, 0, 2, 9)]
        assert log.append(0, [b"d"]).first_offset == 3
        assert log.counts()["appended"] == 4
        log.close()

    def test_stamps_never_go_back_over_opening_again(self, tmp_path: Path, clock: HandClock):
        log = self.make(tmp_path, clock)
        log.append(0, [b"a"])
        log.close()
        clock.set_back(3_600_000)
        log = self.make(tmp_path, clock)
        assert log.append(0, [b"b"]).logged_at_ms == NOW_MS
        log.close()

    def test_killed_in_the_middle_nothing_acknowledged_is_lost_and_nothing_is_torn(
        self, tmp_path: Path, clock: HandClock
    ):
        batches = 0
        for kill_after in (1, 6, 23):
            acknowledged = max(append_until_killed(WRITER, self.opened_by, tmp_path, kill_after))
            log = self.make(tmp_path, clock)
            batches = len(list(log.dead_letters()))
            assert acknowledged <= batches, "an acknowledged batch was lost"
            expected = [value for batch in range(batches) for value in killed_batch(batch)]
            assert expected == [record.value for record in read(log, 0, 0, 1 << 20)]
            assert len(expected) == log.head(0), "a batch is torn"
            assert {
                "appended": len(expected),
                "dead_letters": batches,
                "replayed": 0,
            } == log.counts()
            log.close()
        assert batches >= 30, "every round went on from where the last one stopped"

    def test_killed_while_it_is_truncated_it_lacks_only_what_it_says_it_lacks(
        self, tmp_path: Path, clock: HandClock
    ):
        for kill_after in (1, 4, 9, 15):
            acknowledged = max(
                append_until_killed(_TRUNCATING, self.opened_by, tmp_path, kill_after)
            )
            log = self.make(tmp_path, clock)
            first, truncation, head = log.first(0), log.truncation(0), log.head(0)
            assert acknowledged <= truncation.end, "an acknowledged truncation was lost"
            assert 0 < first <= truncation.end < head
            assert truncation.primaries == truncation.end
            assert [(0, truncation.end)] == [(log.archived(0)[0].first, log.archived(0)[-1].end)]
            kept = read(log, 0, first, 1 << 20)
            assert [b"%d" % offset for offset in range(first, head)] == [one.value for one in kept]
            log.close()


def append_until_killed(writer: str, opened_by: str, folder: Path, kill_after: int) -> list[int]:
    """Run a writer, kill -9 it after some acknowledgements; return the numbers that it acknowledged.

    Args:
        writer: Its source, such as `WRITER`.
        opened_by: What opens the log in it; see `DurableLogConformance`.
        folder: Of the log.
        kill_after: How many acknowledgements are waited for.
    """
    child = subprocess.Popen(  # noqa: S603 - our own source
        [sys.executable, "-c", writer.format(opened_by=opened_by), str(folder)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    said = [child.stdout.readline() for _ in range(kill_after)]
    # It is appending at this moment. What it printed before it died was acknowledged, too.
    child.kill()
    said += child.stdout.read().splitlines(keepends=True)
    child.wait()
    child.stdout.close()
    assert all(said[:kill_after]), "the writer ended by itself"
    return [int(line) for line in said if line.endswith("\n")]


def killed_batch(batch: int) -> list[bytes]:
    """Return the records of the n-th batch that the killed writer appends: 1 to 400 of them."""
    return [
        b"batch %d record %d " % (batch, i) + b"." * (i % 300) for i in range(1 + batch * 37 % 400)
    ]


WRITER = """
import sys
from pathlib import Path
from penstock.adapters.clock import SystemClock
from penstock.testing.conformance.log import a_letter, killed_batch

folder, clock = Path(sys.argv[1]), SystemClock()
{opened_by}
batch = log.counts()["dead_letters"]
while True:
    log.append(0, killed_batch(batch), [a_letter(str(batch))])
    batch += 1
    print(batch, flush=True)
"""

_TRUNCATING = """
import sys
from pathlib import Path
from penstock.adapters.clock import SystemClock
from penstock.ports.log import Archived, Truncation

folder, clock = Path(sys.argv[1]), SystemClock()
{opened_by}
while True:
    head, gone = log.head(0), log.truncation(0).end
    for place in range(head, head + 60, 3):
        log.append(0, [b"%d" % offset for offset in range(place, place + 3)])
    end = head + 50
    log.truncate(0, Truncation(end, end), [Archived(gone, end, "segment", 1)])
    print(end, flush=True)
"""
