"""One instant of several files that are being written to: what was written before it, and nothing after."""

import sqlite3
import threading
from contextlib import closing
from itertools import permutations

import pytest

from penstock.adapters.backup.cut import cut
from penstock.adapters.decisions.sqlite import KIND as DECISIONS
from penstock.adapters.decisions.sqlite import SqliteDecisions
from penstock.adapters.keys.file import FileKeys
from penstock.adapters.log.sqlite import KIND as LOG
from penstock.adapters.log.sqlite import SqliteLog
from penstock.adapters.sqlite import FileKind
from penstock.adapters.store.sqlite import KIND as STORE
from penstock.adapters.store.sqlite import SqliteStore
from penstock.adapters.suppressions.sqlite import KIND as SUPPRESSIONS
from penstock.adapters.suppressions.sqlite import SqliteSuppressions
from penstock.core.errors import DataCorrupt, SettingsError, Unavailable
from penstock.core.record import NO_VERSION
from penstock.ports.decisions import DecisionKey
from penstock.ports.store import LeafWrite
from penstock.ports.suppressions import Suppression, SuppressionKey
from penstock.testing.clock import HandClock
from penstock.testing.conformance.store import a_leaf, at

KINDS = {"store.db": STORE, "decisions.db": DECISIONS, "suppressions.db": SUPPRESSIONS, "log.db": LOG}  # fmt: skip
COUNTS = {
    "log.db": "SELECT coalesce(sum(count), 0) FROM batches",
    "store.db": 'SELECT coalesce(max("offset"), -1) + 1 FROM applied',
    "suppressions.db": "SELECT count(*) FROM register",
    "decisions.db": "SELECT count(*) FROM decisions",
}
CHAIN = ("log.db", "store.db", "suppressions.db", "decisions.db")
"""Each is written after the one before it, so that at any instant none has more than it."""


class Writer:
    """Takes steps: one record, then its leaf, then a suppression, then a decision. And a key, first."""

    def __init__(self, folder):
        self.keys = FileKeys(folder / "keys.json")
        self.log = SqliteLog(folder / "log.db", HandClock(1))
        self.store = SqliteStore(folder / "store.db")
        self.suppressions = SqliteSuppressions(folder / "suppressions.db", owned=True)
        self.decisions = SqliteDecisions(folder / "decisions.db")
        self.steps = 0

    def step(self):
        n = self.steps
        if n % 10 == 0:
            self.keys.put_if_absent(f"key-{n // 10:04}", bytes(32))
        self.log.append(0, [b"record %d" % n])
        base = at(n - 1) if n else NO_VERSION
        self.store.write(1, [LeafWrite(a_leaf(1), base, at(n), (bytes(500),))], partition=0, applied=at(n))  # fmt: skip
        key = SuppressionKey(a_leaf(n), "email", "*")
        self.suppressions.put([(key, Suppression(1, True, 1, "unsubscribed"))])
        self.decisions.put_if_absent([(DecisionKey("default", b"r", "c", str(n)), b"decided")])
        self.steps += 1

    def close(self):
        for one in (self.log, self.store, self.suppressions, self.decisions):
            one.close()


@pytest.fixture
def writer(tmp_path):
    (tmp_path / "data").mkdir()
    made = Writer(tmp_path / "data")
    made.step()
    yield made
    made.close()


def counted(path):
    with closing(sqlite3.connect(path)) as file:
        assert "ok" == file.execute("PRAGMA integrity_check").fetchone()[0]
        return file.execute(COUNTS[path.name]).fetchone()[0]


def violations(copies):
    """Return what says that the copies are not of one instant."""
    log, store, suppressions, decisions = (counted(copies / name) for name in CHAIN)
    return [] if log >= store >= suppressions >= decisions >= log - 1 else [(log, store, suppressions, decisions)]  # fmt: skip


def test_copies_made_while_a_writer_goes_on_are_of_one_instant(tmp_path, writer):
    stop, begun = threading.Event(), threading.Barrier(2)

    def go_on():
        begun.wait()
        while not stop.is_set():
            writer.step()

    thread = threading.Thread(target=go_on)
    thread.start()
    begun.wait()
    seen = []
    try:
        for turn in range(12):
            copies = tmp_path / f"copies-{turn}"
            copies.mkdir()
            before = writer.steps
            with cut(tmp_path / "data", KINDS, ["keys.json"]) as held:
                during = writer.steps
                # The copies are made while it goes on, the last one long after the instant.
                for name in KINDS:
                    held.copy(name, copies / name)
                keys = held.small["keys.json"]
            assert [] == violations(copies)
            records = counted(copies / "log.db")
            assert before <= records <= during + 1
            # Each key that a record needs is there, for it was before the record; and one more at most.
            assert (records - 1) // 10 + 1 <= keys.count(b"key-") <= records // 10 + 1
            seen.append(records)
    finally:
        stop.set()
        thread.join(30)
    assert seen == sorted(seen)
    assert seen[0] < seen[-1]


def test_files_copied_one_after_the_other_are_not_and_it_shows(tmp_path, writer):
    """In whatever order: a writer that takes two steps between any two copies is found out."""
    for turn, order in enumerate([*permutations(KINDS)][::5]):
        copies = tmp_path / f"copies-{turn}"
        copies.mkdir()
        for name in order:
            with (
                closing(sqlite3.connect(tmp_path / "data" / name)) as source,
                closing(sqlite3.connect(copies / name)) as target,
            ):
                source.backup(target)
            writer.step()
            writer.step()
        assert [] != violations(copies)


def test_a_copy_is_what_its_kind_opens_and_writes_on(tmp_path, writer):
    writer.step()
    with cut(tmp_path / "data", KINDS, []) as held:
        sizes = {name: held.size(name) for name in KINDS}
        for name, kind in KINDS.items():
            told = []
            held.copy(name, tmp_path / name, told.append)
            assert sizes[name] == sum(told) == (tmp_path / name).stat().st_size
            assert 0o600 == (tmp_path / name).stat().st_mode & 0o777
            assert kind.format == held.format(name)
    assert {"data", *KINDS} == {path.name for path in tmp_path.iterdir()}
    again = Writer(tmp_path)
    again.steps = writer.steps
    again.step()
    assert 3 == again.log.head(0)
    again.close()
    with closing(sqlite3.connect(tmp_path / "log.db")) as file:
        assert "wal" == file.execute("PRAGMA journal_mode").fetchone()[0]


def test_a_writer_in_the_middle_of_a_transaction_is_waited_for(tmp_path, writer):
    with closing(sqlite3.connect(tmp_path / "data" / "store.db", isolation_level=None, check_same_thread=False)) as other:  # fmt: skip
        other.execute("BEGIN IMMEDIATE")
        other.execute("DELETE FROM leaves")
        done = threading.Thread(target=lambda: other.execute("COMMIT"))
        done.start()
        with cut(tmp_path / "data", KINDS, []) as held:
            held.copy("store.db", tmp_path / "store.db")
        done.join()
    with closing(sqlite3.connect(tmp_path / "store.db")) as file:
        assert 0 == file.execute("SELECT count(*) FROM leaves").fetchone()[0]


def test_a_file_that_is_never_still_is_named_and_the_others_are_let_go(tmp_path, writer):
    with closing(sqlite3.connect(tmp_path / "data" / "log.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(Unavailable) as caught, cut(tmp_path / "data", KINDS, [], patience_s=0.1):  # fmt: skip
            pass
        assert "E440" == caught.value.code
        assert "the log" in str(caught.value)
        writer.store.put_meta("a", "b")  # whose file was held a moment ago
        other.execute("ROLLBACK")


def test_a_file_that_is_not_there_is_named_and_not_made(tmp_path, writer):
    (tmp_path / "data" / "decisions.db").rename(tmp_path / "moved")
    with pytest.raises(SettingsError) as caught, cut(tmp_path / "data", KINDS, []):
        pass
    assert "E241" == caught.value.code
    assert not (tmp_path / "data" / "decisions.db").exists()


def test_a_file_of_another_kind_or_a_later_format_is_refused(tmp_path, writer):
    later: FileKind = LOG._replace(format=0)
    for kinds, code in (({"log.db": STORE}, "E707"), ({"log.db": later}, "E706")):
        with pytest.raises(DataCorrupt) as caught, cut(tmp_path / "data", kinds, []):
            pass
        assert code == caught.value.code


def test_a_copy_that_has_no_room_says_where_it_was_written(tmp_path, writer):
    with cut(tmp_path / "data", KINDS, []) as held, pytest.raises(Unavailable) as caught:
        held.copy("log.db", tmp_path / "nowhere" / "log.db")
    assert "E441" == caught.value.code
    assert str(tmp_path / "nowhere" / "log.db") == caught.value.where
