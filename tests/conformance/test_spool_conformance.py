"""The spool in a file, against the suite of the port; and what it finds of its file when it is damaged."""

from pathlib import Path

import pytest

from penstock.adapters.spool.sqlite import SqliteSpool
from penstock.core.errors import DataCorrupt
from penstock.ports.spool import Spool
from penstock.testing.conformance.spool import NOW_MS, ROOM, SpoolConformance

MARK = b"here is what was acknowledged"


class TestSqliteSpool(SpoolConformance):
    def make(self, folder: Path, bytes_max: int = ROOM) -> Spool:
        return SqliteSpool(folder / "spool.db", bytes_max)


def filled(folder: Path, count: int) -> Path:
    path = folder / "spool.db"
    spool = SqliteSpool(path, ROOM)
    for number in range(count):
        spool.put(0, [MARK + b" %d" % number], [], NOW_MS)
    spool.close()
    return path


def test_a_batch_that_rots_is_told_and_set_aside_and_the_others_come(tmp_path: Path) -> None:
    path = filled(tmp_path, 3)
    raw = path.read_bytes()
    assert raw.count(MARK + b" 1") == 1
    path.write_bytes(raw.replace(MARK + b" 1", MARK.upper() + b" 1"))
    spool = SqliteSpool(path, ROOM)
    first = spool.next(0)
    assert first is not None
    assert [MARK + b" 0"] == first.values
    spool.done(first.number)
    with pytest.raises(DataCorrupt) as raised:
        spool.next(0)
    assert raised.value.code == "E761"
    assert MARK.decode() not in str(raised.value)
    last = spool.next(0)
    assert last is not None
    assert [MARK + b" 2"] == last.values
    spool.done(last.number)
    assert (1, 1) == (spool.counts().batches, spool.counts().damaged)
    assert [] == spool.partitions()
    spool.close()


def test_a_torn_end_of_the_write_ahead_log_costs_what_was_being_written_and_no_more(
    tmp_path: Path,
) -> None:
    path = tmp_path / "spool.db"
    spool = SqliteSpool(path, ROOM)
    for number in range(3):
        spool.put(0, [b"%d" % number], [], NOW_MS)
    torn = tmp_path / "torn"
    torn.mkdir()
    copy = torn / "spool.db"
    copy.write_bytes(path.read_bytes())
    ahead = Path(f"{path}-wal").read_bytes()
    spool.put(0, [b"3"], [], NOW_MS)
    longer = Path(f"{path}-wal").read_bytes()
    assert len(longer) > len(ahead)
    Path(f"{copy}-wal").write_bytes(longer[: len(ahead) + (len(longer) - len(ahead)) // 2])
    spool.close()
    again = SqliteSpool(copy, ROOM)
    assert 3 == again.counts().batches
    again.put(0, [b"4"], [], NOW_MS)
    assert 4 == again.counts().batches
    again.close()


def test_a_file_that_is_no_spool_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "spool.db"
    path.write_bytes(b"x" * 8192)
    with pytest.raises(DataCorrupt) as raised:
        SqliteSpool(path, ROOM)
    assert raised.value.code == "E707"
