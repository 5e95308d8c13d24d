"""Files written by format 1 are read for ever: rows as they were first written, byte for byte."""

import sqlite3

from penstock.adapters.keys.file import FileKeys
from penstock.adapters.log.sqlite import SqliteLog
from penstock.adapters.store.sqlite import SqliteStore
from penstock.core.record import LogRecord
from penstock.ports.store import StoredLeaf
from penstock.testing.clock import HandClock
from penstock.testing.conformance.store import a_leaf, at

NOW_MS = 1_795_000_000_000


def insert(path, table, *rows):
    with sqlite3.connect(path) as connection:
        marks = ", ".join("?" * len(rows[0]))
        connection.executemany(f"INSERT INTO {table} VALUES ({marks})", rows)
    connection.close()


def test_batches_of_the_log(tmp_path):
    path = tmp_path / "log.db"
    SqliteLog(path, HandClock(), partitions=2).close()
    partition_1 = 1 << 48
    insert(
        path,
        "batches (position, count, logged_at_ms, codec, crc, blob)",
        (partition_1, 1, NOW_MS, 1, 471167339, bytes.fromhex("28B52FFD200841000091C4056669727374")),
        (partition_1 + 1, 3, NOW_MS, 1, 4278679285,
         bytes.fromhex("28B52FFD20318500005093C42861C400C40200FF01004A4004")),
    )  # fmt: skip
    log = SqliteLog(path, HandClock(), partitions=2)
    expected = [b"first", b"a" * 40, b"", b"\x00\xff"]
    assert [LogRecord(i, NOW_MS, value) for i, value in enumerate(expected)] == log.read(1, 0, 9)
    assert (0, 4) == (log.head(0), log.head(1))
    log.close()


def test_leaves_of_the_store(tmp_path):
    path = tmp_path / "store.db"
    SqliteStore(path).close()
    blob = bytes.fromhex("91C40D6C656166203120617420322E35")
    insert(
        path,
        'leaves (tenant, epoch, leaf, generation, "offset", crc, parts)',
        ("default", 3, a_leaf(1), 2, 5, 2545976599, blob),
    )
    store = SqliteStore(path)
    expected = StoredLeaf(at(5, generation=2), (b"leaf 1 at 2.5",))
    assert [expected] == store.read(3, [a_leaf(1)])
    store.close()


def test_the_key_file(tmp_path):
    path = tmp_path / "keys.json"
    secret = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"
    path.write_text(
        f'{{"format": 1, "keys": {{"identifier": "{secret}"}}, "check": "8790c3cdf7c45812"}}'
    )
    path.chmod(0o600)
    assert bytes(range(32)) == FileKeys(path).get("identifier")
