"""What is SQLite's own in the log: ownership, damage, full disks, and reading beside the owner."""

import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

import pytest

from penstock.adapters.log.sqlite import TAIL_BYTES, SqliteLog
from penstock.adapters.sqlite import OWNER_POLL_S
from penstock.core.errors import DataCorrupt, Unavailable
from penstock.core.record import DeadLetter
from penstock.testing.clock import HandClock
from penstock.testing.conformance.log import a_letter

CLOCK = HandClock(1_795_000_000_000)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log.db"


def values_of(log: SqliteLog, partition: int = 0, offset: int = 0) -> list[bytes]:
    return [record.value for record in log.read(partition, offset, 1_000_000)]


def change(path: Path, statement: str, *values: object) -> None:
    with sqlite3.connect(path) as connection:
        assert connection.execute(statement, values).rowcount != 0
    connection.close()


# --------------------------------------------------------------------------------------- ownership


def test_a_second_owner_is_refused_until_the_first_is_gone(path):
    first = SqliteLog(path, CLOCK)
    with pytest.raises(Unavailable, match="E407: another process owns this data folder"):
        SqliteLog(path, CLOCK)
    first.close()
    second = SqliteLog(path, CLOCK)
    first.close()
    with pytest.raises(Unavailable, match="E407"):
        SqliteLog(path, CLOCK)
    second.close()


def test_who_comes_while_a_command_looks_waits_for_it(path):
    looks = SqliteLog(path, CLOCK)
    with ThreadPoolExecutor() as pool:
        comes = pool.submit(SqliteLog, path, CLOCK)
        # Held until the other has had time to be refused, if it would be.
        assert not wait([comes], timeout=5 * OWNER_POLL_S).done
        looks.close()
        comes.result().close()


def test_another_process_is_refused_and_takes_over_after_a_kill(path):
    source = f"""
import sys
from pathlib import Path
from penstock.adapters.log.sqlite import SqliteLog
from penstock.adapters.clock import SystemClock
log = SqliteLog(Path({str(path)!r}), SystemClock())
log.append(0, [b"from the other process"])
print("owns it", flush=True)
sys.stdin.read()
"""
    other = subprocess.Popen(
        [sys.executable, "-c", source], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert "owns it\n" == other.stdout.readline()
    with pytest.raises(Unavailable, match="E407"):
        SqliteLog(path, CLOCK)
    beside = SqliteLog(path, CLOCK, read_only=True)
    assert [b"from the other process"] == values_of(beside)
    beside.close()
    other.kill()
    other.communicate()
    log = SqliteLog(path, CLOCK)
    assert [b"from the other process"] == values_of(log)
    log.close()


def test_a_failed_opening_gives_the_ownership_back(path):
    SqliteLog(path, CLOCK, partitions=2).close()
    with pytest.raises(DataCorrupt, match="E708"):
        SqliteLog(path, CLOCK, partitions=4)
    SqliteLog(path, CLOCK, partitions=2).close()


# ------------------------------------------------------------------------------- beside the owner


def test_a_reader_beside_the_owner_sees_what_is_appended_and_cannot_append(path):
    owner = SqliteLog(path, CLOCK, partitions=3)
    reader = SqliteLog(path, CLOCK, read_only=True)
    assert (1, 3) == (reader.generation, reader.partitions)
    owner.append(2, [b"a", b"b"], [a_letter("x")])
    assert [b"a", b"b"] == values_of(reader, 2)
    assert (2, CLOCK.now_ms()) == (reader.head(2), reader.last_logged_at_ms(2))
    owner.append(2, [b"c"])
    assert [b"c"] == values_of(reader, 2, 2)
    assert [] == values_of(reader, 2, 3)
    assert {"appended": 3, "dead_letters": 1, "replayed": 0} == reader.counts()
    assert [a_letter("x")] == list(reader.dead_letters())
    with pytest.raises(Unavailable, match="reading only"):
        reader.append(2, [b"d"])
    with pytest.raises(Unavailable, match="reading only"):
        reader.mark_replayed(["x"], 1)
    reader.close()
    owner.close()


def test_a_log_left_by_a_kill_is_read_without_owning_it(path):
    source = f"""
import os
from pathlib import Path
from penstock.adapters.log.sqlite import SqliteLog
from penstock.adapters.clock import SystemClock
SqliteLog(Path({str(path)!r}), SystemClock()).append(0, [b"kept"])
os._exit(9)
"""
    assert 9 == subprocess.run([sys.executable, "-c", source], check=False).returncode
    reader = SqliteLog(path, CLOCK, read_only=True)
    assert [b"kept"] == values_of(reader)
    reader.close()


def test_reading_what_is_not_there_makes_nothing(path):
    with pytest.raises(Unavailable, match="E401"):
        SqliteLog(path, CLOCK, read_only=True)
    assert not path.exists()


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(Unavailable, match=r"E401.*could not be opened") as raised:
        SqliteLog(tmp_path / "nowhere" / "log.db", CLOCK)
    assert str(tmp_path / "nowhere" / "log.db") == raised.value.where


# ------------------------------------------------------------------------------------------- damage


def three_batches(path: Path) -> None:
    log = SqliteLog(path, CLOCK)
    for first in (0, 10, 20):
        log.append(0, [b"record %d" % (first + i) for i in range(10)])
    log.close()


def damaged_at(log: SqliteLog, offset: int) -> str:
    with pytest.raises(DataCorrupt) as raised:
        log.read(0, offset, 5)
    assert "E703" == raised.value.code
    return raised.value.what


def test_a_flipped_bit_names_its_batch_and_the_others_are_read(path):
    three_batches(path)
    with sqlite3.connect(path) as connection:
        blob = bytearray(
            connection.execute("SELECT blob FROM batches WHERE position = 10").fetchone()[0]
        )
        blob[len(blob) // 2] ^= 0x10
        connection.execute("UPDATE batches SET blob = ? WHERE position = 10", (bytes(blob),))
    connection.close()
    log = SqliteLog(path, CLOCK)
    expected = "the batch at offset 10 of partition 0 does not match its checksum"
    assert expected == damaged_at(log, 10)
    assert expected == damaged_at(log, 19)
    assert [b"record 9"] == [record.value for record in log.read(0, 9, 1)]
    assert [b"record %d" % i for i in range(20, 30)] == values_of(log, 0, 20)
    log.close()


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE batches SET count = 9 WHERE position = 10",
        "UPDATE batches SET logged_at_ms = logged_at_ms + 1 WHERE position = 10",
        "UPDATE batches SET codec = 2 WHERE position = 10",
        "UPDATE batches SET blob = x'' WHERE position = 10",
        "UPDATE batches SET blob = (SELECT blob FROM batches WHERE position = 0) WHERE position = 10",
    ],
)
def test_whatever_is_changed_in_a_row_is_found(path, statement):
    three_batches(path)
    change(path, statement)
    log = SqliteLog(path, CLOCK)
    assert "the batch at offset 10 of partition 0 does not match its checksum" == damaged_at(
        log, 10
    )
    log.close()


def test_a_missing_batch_is_found(path):
    three_batches(path)
    change(path, "DELETE FROM batches WHERE position = 10")
    log = SqliteLog(path, CLOCK)
    assert "the batch at offset 12 of partition 0 is missing" == damaged_at(log, 12)
    assert [b"record 9"] == [record.value for record in log.read(0, 9, 1)]
    log.close()


def test_a_log_of_a_newer_version_is_refused(path):
    three_batches(path)
    change(path, "PRAGMA user_version = 2")
    with pytest.raises(DataCorrupt, match="E706: the log has format 2; this version reads up to 1"):
        SqliteLog(path, CLOCK)


@pytest.mark.parametrize("content", [b"This is a letter, not a database.\n" * 100, b""])
def test_a_file_that_is_no_database_is_refused_or_made(path, content):
    path.write_bytes(content)
    if content:
        with pytest.raises(DataCorrupt, match="E707"):
            SqliteLog(path, CLOCK)
        assert content == path.read_bytes()
    else:
        SqliteLog(path, CLOCK).close()


def test_the_file_of_another_store_is_refused(path):
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE orders (id INTEGER)")
    connection.close()
    with pytest.raises(DataCorrupt, match="E707: this file is not the log"):
        SqliteLog(path, CLOCK)


# ------------------------------------------------------------------------------------- a full disk

FULL_DISK = """
import resource, sys
from pathlib import Path
from penstock.adapters.log.sqlite import SqliteLog
from penstock.core.errors import Unavailable
from penstock.testing.clock import HandClock
from penstock.testing.conformance.log import a_letter

def disk_bytes(size):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

path = Path(sys.argv[1])
log = SqliteLog(path, HandClock(1_000))
log.append(0, [b"first"], [a_letter("first")])
wal = Path(f"{path}-wal")
for attempt, room in enumerate((0, 100, 5_000, 40_000, 0)):
    # Random bytes do not compress: the batch needs more than there is room for.
    batch = [(b"%08d" % i) * 40 + bytes((i * j * 7919) % 256 for j in range(200)) for i in range(2_000)]
    disk_bytes(wal.stat().st_size + room if wal.exists() else room)
    try:
        log.append(0, batch, [a_letter(f"lost-{attempt}")])
        raise SystemExit("a full disk took a batch")
    except Unavailable as error:
        assert error.code == "E401", error
    assert log.head(0) == 1 + attempt, log.head(0)
    disk_bytes(resource.RLIM_INFINITY)
    appended = log.append(0, [b"after %d" % attempt], [a_letter(f"kept-{attempt}")])
    assert appended.first_offset == 1 + attempt, appended
values = [record.value for record in log.read(0, 0, 100)]
assert values == [b"first"] + [b"after %d" % i for i in range(5)], values
assert [one.letter_id for one in log.dead_letters()] == ["first"] + [f"kept-{i}" for i in range(5)]
assert log.counts() == {"appended": 6, "dead_letters": 6, "replayed": 0}, log.counts()
log.close()
"""


def test_a_full_disk_keeps_nothing_of_the_batch_and_the_log_goes_on(path):
    run = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(path)], capture_output=True, text=True, check=False
    )
    assert (0, "") == (run.returncode, run.stderr)
    log = SqliteLog(path, CLOCK)
    assert [b"first", *(b"after %d" % i for i in range(5))] == values_of(log)
    log.close()


def test_a_commit_that_failed_and_came_back_is_removed(path):
    """After a failed fsync SQLite may find the commit whole in the kernel's memory when it reopens."""
    log = SqliteLog(path, CLOCK)
    log.append(0, [b"first"], [a_letter("first")])
    log.append(0, [b"told to have failed"], [a_letter("failed")])
    # Set back to what was known before, as if the second append had raised after its write.
    log._good = log._good._replace(ends=[log._good.ends[0]._replace(head=1)], letter=1)
    log._writer._drop()
    assert 1 == log.head(0)
    assert [b"first"] == values_of(log)
    assert 1 == log.append(0, [b"second"], [a_letter("second")]).first_offset
    assert [b"first", b"second"] == values_of(log)
    assert ["first", "second"] == [letter.letter_id for letter in log.dead_letters()]
    assert {"appended": 2, "dead_letters": 2, "replayed": 0} == log.counts()
    log.close()


# ------------------------------------------------------------------------------------------- memory


def test_the_newest_records_come_from_memory_and_the_oldest_from_the_file(path):
    log = SqliteLog(path, CLOCK)
    record = b"x" * 400_000
    count = 3 * TAIL_BYTES // len(record)
    for i in range(count):
        log.append(0, [record + b"%d" % i])
    assert len(log._tails[0]._batches) < count / 2
    assert [record + b"%d" % i for i in range(count)] == values_of(log)
    newest = log.read(0, count - 3, 2)
    assert [record + b"%d" % (count - 3), record + b"%d" % (count - 2)] == [r.value for r in newest]
    assert log._tails[0]._batches[-3].values[0] is newest[0].value
    log.close()


def test_reading_by_small_steps_decodes_each_batch_once(path):
    three_batches(path)
    log = SqliteLog(path, CLOCK)
    seen = []
    while step := log.read(0, len(seen), 3):
        seen += [record.value for record in step]
        assert len(log._last_read[1].values) == 10
    assert [b"record %d" % i for i in range(30)] == seen
    log.close()


def test_letters_hold_what_was_put_in(path):
    log = SqliteLog(path, CLOCK)
    letter = DeadLetter(
        letter_id="ü", source="", received_at_ms=-5, reason="E300", path="$", what="", message_id="",
        body=b"",
    )  # fmt: skip
    log.append(0, [], [letter])
    assert [letter] == list(log.dead_letters())
    log.close()
