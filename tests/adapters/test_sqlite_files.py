"""What all SQLite adapters share: file kinds, durability settings, and what a failure is called."""

import sqlite3

import pytest

from penstock.adapters.decisions.sqlite import SqliteDecisions
from penstock.adapters.log.sqlite import SqliteLog
from penstock.adapters.sqlite import chunked
from penstock.adapters.store.sqlite import SqliteStore
from penstock.adapters.suppressions.sqlite import SqliteSuppressions
from penstock.core.errors import DataCorrupt, Unavailable
from penstock.testing.clock import HandClock

OPEN = {
    "log": lambda path: SqliteLog(path, HandClock(1)),
    "store": SqliteStore,
    "suppressions": SqliteSuppressions,
    "decisions": SqliteDecisions,
}
CODES = {"log": "E401", "store": "E402", "suppressions": "E403", "decisions": "E404"}
SYNCHRONOUS = {"log": 2, "store": 1, "suppressions": 2, "decisions": 2}


@pytest.mark.parametrize("kind", OPEN)
def test_a_file_says_what_it_is_and_no_other_adapter_takes_it(tmp_path, kind):
    path = tmp_path / "file.db"
    OPEN[kind](path).close()
    for other in OPEN.keys() - {kind}:
        with pytest.raises(DataCorrupt, match="E707: this file is not the"):
            OPEN[other](path)
    OPEN[kind](path).close()


@pytest.mark.parametrize("kind", OPEN)
def test_a_file_of_a_newer_version_is_refused(tmp_path, kind):
    path = tmp_path / "file.db"
    OPEN[kind](path).close()
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 7")
    connection.close()
    with pytest.raises(DataCorrupt, match=r"E706.*format 7"):
        OPEN[kind](path)


@pytest.mark.parametrize("kind", OPEN)
def test_promises_are_fsynced_and_the_copy_is_not(tmp_path, kind):
    adapter = OPEN[kind](tmp_path / "file.db")
    with adapter._writer.use() as connection:
        assert "wal" == connection.execute("PRAGMA journal_mode").fetchone()[0]
        assert SYNCHRONOUS[kind] == connection.execute("PRAGMA synchronous").fetchone()[0]
    adapter.close()


@pytest.mark.parametrize("kind", OPEN)
def test_a_folder_that_is_not_there_is_said_to_be_unavailable(tmp_path, kind):
    with pytest.raises(Unavailable, match=CODES[kind]) as raised:
        OPEN[kind](tmp_path / "nowhere" / "file.db")
    assert str(tmp_path / "nowhere" / "file.db") == raised.value.where


@pytest.mark.parametrize("kind", OPEN)
def test_a_damaged_file_is_said_to_be_damaged(tmp_path, kind):
    path = tmp_path / "file.db"
    OPEN[kind](path).close()
    raw = bytearray(path.read_bytes())
    raw[4096:] = b"\xa5" * (len(raw) - 4096)
    path.write_bytes(raw)
    with pytest.raises(DataCorrupt, match="E707"):
        touch(OPEN[kind](path))


def touch(adapter) -> None:
    """Read every table that the adapter has."""
    try:
        with adapter._reader.use() as connection:
            for (table,) in connection.execute(
                "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite%'"
            ).fetchall():
                connection.execute(f"SELECT * FROM {table}").fetchall()
    finally:
        adapter.close()


def test_a_session_that_failed_opens_afresh(tmp_path):
    store = SqliteStore(tmp_path / "file.db")
    store.put_meta("a", "1")
    with pytest.raises(Unavailable, match="E402"), store._writer.use() as connection:
        connection.execute("SELECT * FROM no_such_table")
    assert store._writer._connection is None
    store.put_meta("a", "2")
    assert "2" == store.get_meta("a")
    store.close()


@pytest.mark.parametrize("count", [0, 1, 2, 16, 17, 255, 256, 257, 600])
def test_chunks_have_few_sizes_and_hold_every_key(count):
    keys = [b"%04d" % i for i in range(count)]
    chunks = list(chunked(keys))
    assert {len(chunk) for chunk in chunks} <= {1, 16, 256}
    assert keys == sorted({key for chunk in chunks for key in chunk})
