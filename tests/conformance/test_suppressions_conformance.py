"""The registers of suppressions that ship, against the suite of the port."""

import sqlite3
import threading

import pytest

from penstock.adapters.suppressions.memory import MemorySuppressions
from penstock.adapters.suppressions.sqlite import SqliteSuppressions
from penstock.core.errors import Unavailable
from penstock.core.ids import LeafId
from penstock.ports.suppressions import Suppression, SuppressionKey
from penstock.testing.conformance.suppressions import (
    DurableSuppressionsConformance,
    SuppressionsConformance,
)


class TestMemorySuppressions(SuppressionsConformance):
    def make(self, folder):
        return MemorySuppressions()


class TestSqliteSuppressions(DurableSuppressionsConformance):
    def make(self, folder):
        return SqliteSuppressions(folder / "suppressions.db")


class TestOwnedSqliteSuppressions(SuppressionsConformance):
    def make(self, folder):
        return SqliteSuppressions(folder / "suppressions.db", owned=True)

    def test_only_one_may_own_it(self, tmp_path):
        register = self.make(tmp_path)
        with pytest.raises(Unavailable, match="E407"):
            self.make(tmp_path)
        register.close()
        self.make(tmp_path).close()

    def test_what_is_read_while_others_are_written_is_remembered(self, tmp_path):
        register = self.make(tmp_path)
        mine, other = (SuppressionKey(LeafId(letter * 16), "email", "*") for letter in (b"m", b"o"))
        old, new = (Suppression(at_ms, True, 1, "unsubscribe") for at_ms in (1, 2))
        register.put([(mine, old), (other, old)])
        beside = sqlite3.connect(tmp_path / "suppressions.db", isolation_level=None)
        beside.execute("BEGIN IMMEDIATE")  # so that the write below is under way until the commit
        writer = threading.Thread(target=register.put, args=([(other, new)],))
        writer.start()
        try:
            while not register.writing():
                threading.Event().wait(0.001)
            assert register.get([mine.leaf, other.leaf]) == {mine: old, other: old}
            beside.execute("DELETE FROM register WHERE leaf = ?", (mine.leaf,))
        finally:
            beside.execute("COMMIT")
            writer.join()
            beside.close()
        assert register.get([other.leaf]) == {other: new}, "what was written is read"
        assert register.get([mine.leaf]) == {mine: old}, "the other from memory"
        register.close()

    def test_what_was_answered_is_read_whatever_was_remembered(self, tmp_path):
        register = self.make(tmp_path)
        leaf = LeafId(b"l" * 16)
        key = SuppressionKey(leaf, "email", "*")
        read: list[int] = []
        stop = threading.Event()

        def reader() -> None:
            while not stop.is_set():
                read.extend(entry.at_ms for entry in register.get([leaf]).values())

        thread = threading.Thread(target=reader)
        thread.start()
        for at_ms in range(1, 40):
            register.put([(key, Suppression(at_ms, True, 1, "unsubscribe"))])
            assert {key: Suppression(at_ms, True, 1, "unsubscribe")} == register.get([leaf])
        stop.set()
        thread.join()
        assert sorted(read) == read
        register.close()
