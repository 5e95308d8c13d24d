"""Small files of each kind, with values chosen by hand, are opened, read and written on: v1/files is never changed."""

import shutil

import pytest

from penstock.adapters.decisions.sqlite import SqliteDecisions
from penstock.adapters.keys.file import FileKeys
from penstock.adapters.log.sqlite import SqliteLog
from penstock.adapters.store.sqlite import SqliteStore
from penstock.adapters.suppressions.sqlite import SqliteSuppressions
from penstock.core.record import NO_VERSION, LogRecord
from penstock.ports.decisions import DecisionKey, SendState
from penstock.ports.store import StoredLeaf
from penstock.ports.suppressions import Suppression, SuppressionKey
from penstock.testing.clock import HandClock
from penstock.testing.conformance.store import a_leaf, a_write, at

NOW_MS = 1_795_000_000_000
VERSIONS = ("v1",)
KEY = DecisionKey("default", b"r" * 16, "spring", "v1", "")


@pytest.fixture(params=VERSIONS)
def folder(request, tmp_path):
    """A copy of the files that a version wrote."""
    stored = request.path.parent / request.param / "files"
    shutil.copytree(stored, tmp_path / "data")
    (tmp_path / "data" / "keys.json").chmod(0o600)
    return tmp_path / "data"


def test_the_log_is_read_and_appended_to(folder):
    for again in range(2):
        log = SqliteLog(folder / "log.db", HandClock(NOW_MS + 10), partitions=2)
        values = [b"first", b"second", b"third", *[b"new"] * again]
        found = [one.value for one in log.read(0, 0, 9)]
        assert values == found
        assert [
            LogRecord(i, NOW_MS, value) for i, value in enumerate([b"a" * 40, b"", b"\x00\xff"])
        ] == log.read(1, 0, 9)
        assert ["edge-1"] == [one.letter_id for one in log.dead_letters()]
        assert [0, NOW_MS + 5] == [
            one.replayed_at_ms for one in log.dead_letters(pending_only=False)
        ]
        assert {"appended": 6 + again, "dead_letters": 2, "replayed": 1} == log.counts()
        if not again:
            assert 3 == log.append(0, [b"new"]).first_offset
        log.close()


def test_the_log_is_read_beside_its_owner(folder):
    log = SqliteLog(folder / "log.db", HandClock(NOW_MS), read_only=True)
    assert [b"first", b"second", b"third"] == [one.value for one in log.read(0, 0, 9)]
    assert ["edge-1"] == [one.letter_id for one in log.dead_letters()]
    log.close()


def test_the_store_is_read_and_written(folder):
    store = SqliteStore(folder / "store.db")
    stored = [StoredLeaf(at(n), (b"leaf %d at 1.%d" % (n, n),)) for n in range(1, 4)]
    assert stored == store.read(3, [a_leaf(n) for n in range(1, 4)])
    assert (at(3), NO_VERSION) == (store.applied(3, 0), store.applied(3, 1))
    assert ("3", "f") == (store.get_meta("live_epoch"), store.get_meta("fingerprint:3"))
    store.write(3, [a_write(1, at(1), at(7))], partition=0, applied=at(7))
    assert [StoredLeaf(at(7), (b"leaf 1 at 1.7",))] == store.read(3, [a_leaf(1)])
    store.close()


def test_decisions_stand(folder):
    decisions = SqliteDecisions(folder / "decisions.db")
    assert [b"record"] == decisions.get([KEY])
    assert [(1, b"record")] == decisions.outbox(9)
    assert [(KEY, SendState("accepted", NOW_MS + 1, "250"))] == decisions.sends("spring", "v1")
    limits = {"limit": 2, "until_ms": NOW_MS + 9, "now_ms": NOW_MS}
    assert [True, False] == [
        decisions.reserve(b"r" * 16, "weekly", token=one, **limits) for one in "uw"
    ]
    assert not decisions.put_if_absent([(KEY, b"other")])[0].created
    decisions.close()


def test_suppressions_stand_and_merge(folder):
    register = SqliteSuppressions(folder / "suppressions.db")
    denied = SuppressionKey(a_leaf(1), "email", "*")
    granted = SuppressionKey(a_leaf(2), "purpose", "personalisation")
    expected = {
        denied: Suppression(NOW_MS, True, 2**63 + 5, "unsubscribed"),
        granted: Suppression(NOW_MS + 1, False, 7, "granted"),
    }
    assert expected == register.get([a_leaf(1), a_leaf(2)])
    register.put([(denied, Suppression(NOW_MS - 1, False, 1, "late"))])
    later = Suppression(NOW_MS + 2, True, 1, "withdrawal")
    register.put([(granted, later)])
    assert {denied: expected[denied], granted: later} == register.get([a_leaf(1), a_leaf(2)])
    register.close()


def test_keys_stand(folder):
    keys = FileKeys(folder / "keys.json")
    assert bytes(range(32)) == keys.get("identifier")
    assert bytes(range(32)) == keys.put_if_absent("identifier", bytes(32))
