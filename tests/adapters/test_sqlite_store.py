"""What is SQLite's own in the store: damage, tenants, and reads that do not wait for the writer."""

import sqlite3
import threading

import pytest

from penstock.adapters.store.sqlite import DROP_SLICE, SqliteStore
from penstock.core.errors import DataCorrupt, Unavailable
from penstock.core.record import NO_VERSION
from penstock.ports.store import LeafWrite, StoredLeaf, Verdict
from penstock.testing.conformance.store import EPOCH, a_leaf, a_write, at


@pytest.fixture
def path(tmp_path):
    return tmp_path / "store.db"


def with_one_leaf(path):
    store = SqliteStore(path)
    store.write(EPOCH, [a_write(1, NO_VERSION, at(5)), a_write(2, NO_VERSION, at(6))],
                partition=0, applied=at(6))  # fmt: skip
    store.close()


@pytest.mark.parametrize(
    "change",
    [
        "parts = x'91c40361626d'",
        "parts = x''",
        "generation = 2",
        '"offset" = 7',
        "leaf = x'00035a5a5a5a5a5a5a5a5a5a5a5a5a5a'",
    ],
)
def test_a_changed_leaf_is_found_and_the_others_are_read(path, change):
    with_one_leaf(path)
    with sqlite3.connect(path) as connection:
        connection.execute(f"UPDATE leaves SET {change} WHERE leaf = ?", (a_leaf(1),))
    connection.close()
    store = SqliteStore(path)
    with pytest.raises(DataCorrupt, match="E704"):
        store.read(EPOCH, [a_leaf(1), a_leaf(3)])
    assert at(6) == store.read(EPOCH, [a_leaf(2)])[0].version
    store.close()


def test_a_reader_sees_the_state_before_a_transaction_that_is_under_way(path):
    with_one_leaf(path)
    store = SqliteStore(path)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    other.execute("DELETE FROM leaves")
    assert at(5) == store.read(EPOCH, [a_leaf(1)])[0].version
    assert at(6) == store.applied(EPOCH, 0)
    other.execute("ROLLBACK")
    other.close()
    store.close()


def test_reads_and_writes_from_threads_agree(path):
    store = SqliteStore(path)
    leaves = [a_leaf(n) for n in range(300)]
    torn = []
    done = threading.Event()

    def read():
        while not done.is_set():
            versions = {leaf and leaf.version for leaf in store.read(EPOCH, leaves)}
            if len(versions) != 1:
                torn.append(versions)

    reader = threading.Thread(target=read)
    reader.start()
    base = NO_VERSION
    for offset in range(40):
        writes = [LeafWrite(leaf, base, at(offset), (b"%d" % offset,)) for leaf in leaves]
        assert {Verdict.ACCEPTED} == set(
            store.write(EPOCH, writes, partition=0, applied=at(offset))
        )
        base = at(offset)
    done.set()
    reader.join()
    assert [] == torn, "a read of several chunks is one snapshot"
    store.close()


def test_tenants_share_a_file_and_nothing_else(path):
    one, other = SqliteStore(path, tenant="one"), SqliteStore(path, tenant="other")
    one.write(EPOCH, [a_write(1, NO_VERSION, at(5), b"one")], partition=0, applied=at(5))
    one.put_meta("live_epoch", "1")
    assert ([None], NO_VERSION, [], None) == (
        other.read(EPOCH, [a_leaf(1)]), other.applied(EPOCH, 0), other.epochs(),
        other.get_meta("live_epoch"),
    )  # fmt: skip
    other.write(EPOCH, [a_write(1, NO_VERSION, at(9), b"other")], partition=0, applied=at(9))
    other.drop(EPOCH)
    assert [StoredLeaf(at(5), (b"one",))] == one.read(EPOCH, [a_leaf(1)])
    one.close()
    other.close()


def test_an_epoch_of_several_slices_is_dropped(path):
    store = SqliteStore(path)
    count = DROP_SLICE + 7
    writes = [a_write(n, NO_VERSION, at(n + 1)) for n in range(count)]
    store.write(EPOCH, writes, partition=0, applied=at(count))
    store.drop(EPOCH)
    assert ([], []) == (store.epochs(), store.scan(EPOCH, None, 5))
    store.close()


def test_the_writer_is_set_back_to_normal_after_meta(path):
    store = SqliteStore(path)
    store.put_meta("live_epoch", "3")
    assert 1 == store._writer._connection.execute("PRAGMA synchronous").fetchone()[0]
    store.close()


def test_a_store_opened_for_reading_does_not_write(path):
    with_one_leaf(path)
    store = SqliteStore(path, read_only=True)
    assert at(5) == store.read(EPOCH, [a_leaf(1)])[0].version
    with pytest.raises(Unavailable, match="E402"):
        store.write(EPOCH, [a_write(1, at(5), at(6))], partition=0, applied=at(6))
    store.close()


def test_the_mistakes_of_a_caller_are_told(path):
    store = SqliteStore(path)
    with pytest.raises(AssertionError, match="one write a leaf"):
        store.write(EPOCH, [a_write(1, NO_VERSION, at(5)), a_write(1, NO_VERSION, at(6))],
                    partition=0, applied=at(6))  # fmt: skip
    with pytest.raises(AssertionError, match="moves a leaf on"):
        store.write(EPOCH, [a_write(1, at(5), at(5))], partition=0, applied=at(6))
    assert [None] == store.read(EPOCH, [a_leaf(1)])
    store.close()
