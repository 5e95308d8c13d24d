"""What every store of leaves does: a write counts from its base only, and never lets a leaf go back."""

# ruff: noqa: SIM300 - asserts read `expected == actual`

import itertools
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import ClassVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from penstock.core.errors import Unavailable
from penstock.core.ids import LeafId
from penstock.core.record import NO_VERSION, Version
from penstock.ports.store import LeafWrite, Store, StoredLeaf, Verdict

EPOCH = 3


def a_leaf(n: int) -> LeafId:
    """Return the n-th leaf id, ascending with n."""
    return LeafId(n.to_bytes(2, "big") + b"\x5a" * 14)


def at(offset: int, generation: int = 1) -> Version:
    """Return a version."""
    return Version(generation, offset)


def a_write(n: int, base: Version, new: Version, body: bytes = b"") -> LeafWrite:
    """Return a write of the n-th leaf; its body names leaf and version unless it is given."""
    return LeafWrite(a_leaf(n), base, new, (body or b"leaf %d at %d.%d" % (n, *new),))


class StoreConformance:
    """Subclass it as `Test…` and say how to make the store."""

    def make(self, folder: Path) -> Store:
        """Return a store in a folder: a new one, or the one that is there."""
        raise NotImplementedError

    @pytest.fixture
    def store(self, tmp_path: Path) -> Iterator[Store]:
        store = self.make(tmp_path)
        yield store
        store.close()

    def test_an_empty_store_has_nothing(self, store: Store):
        assert store.read(EPOCH, [a_leaf(1), a_leaf(2)]) == [None, None]
        assert store.read(EPOCH, []) == []
        assert store.applied(EPOCH, 0) == NO_VERSION
        assert store.scan(EPOCH, None, 10) == []
        assert store.epochs() == []
        assert store.get_meta("live_epoch") is None

    def test_leaves_are_read_in_the_order_asked(self, store: Store):
        writes = [a_write(n, NO_VERSION, at(n)) for n in range(1, 4)]
        assert [Verdict.ACCEPTED] * 3 == store.write(EPOCH, writes, partition=0, applied=at(3))
        stored = [StoredLeaf(write.new, write.parts) for write in writes]
        asked = [a_leaf(3), a_leaf(9), a_leaf(1), a_leaf(3), a_leaf(2)]
        assert [stored[2], None, stored[0], stored[2], stored[1]] == store.read(EPOCH, asked)

    def test_a_leaf_may_have_several_parts_or_an_empty_one(self, store: Store):
        parts = (b"head", b"", bytes(range(256)) * 300)
        write = LeafWrite(a_leaf(1), NO_VERSION, at(5), parts)
        store.write(EPOCH, [write], partition=0, applied=at(5))
        assert [StoredLeaf(at(5), parts)] == store.read(EPOCH, [a_leaf(1)])

    @pytest.mark.parametrize(
        ("stored", "base", "new", "expected"),
        [
            # stored == base: the usual write
            (None, NO_VERSION, at(5), Verdict.ACCEPTED),
            (at(5), at(5), at(6), Verdict.ACCEPTED),
            (at(5), at(5), at(0, generation=2), Verdict.ACCEPTED),
            # stored >= new: a late repetition, or what another worker has passed
            (at(5), NO_VERSION, at(5), Verdict.ALREADY),
            (at(5), at(4), at(5), Verdict.ALREADY),
            (at(9), at(4), at(5), Verdict.ALREADY),
            (at(9), NO_VERSION, at(5), Verdict.ALREADY),
            (at(0, generation=2), at(4), at(5), Verdict.ALREADY),
            # a higher version from a stale base: a check of versions alone would let it through
            (at(5), at(4), at(9), Verdict.REFUSED),
            (at(5), NO_VERSION, at(9), Verdict.REFUSED),
            (at(5), at(4), at(0, generation=2), Verdict.REFUSED),
            # a base that this store has never seen: it was set back, or the writer is lost
            (None, at(4), at(5), Verdict.REFUSED),
            (at(3), at(4), at(5), Verdict.REFUSED),
            (at(9), at(3, generation=2), at(4, generation=2), Verdict.REFUSED),
        ],
    )
    def test_a_write_is_judged_by_what_is_stored(
        self, store: Store, stored: Version | None, base: Version, new: Version, expected: Verdict
    ):
        if stored is not None:
            first = a_write(1, NO_VERSION, stored, b"stored")
            store.write(EPOCH, [first], partition=0, applied=at(0))
        before = store.read(EPOCH, [a_leaf(1)])
        applied_before = store.applied(EPOCH, 0)

        write = a_write(1, base, new, b"written")
        assert [expected] == store.write(EPOCH, [write], partition=0, applied=at(2))

        after = [StoredLeaf(new, (b"written",))] if expected is Verdict.ACCEPTED else before
        assert after == store.read(EPOCH, [a_leaf(1)])
        applied_after = applied_before if expected is Verdict.REFUSED else at(2)
        assert applied_after == store.applied(EPOCH, 0)

    def test_each_write_of_a_call_is_judged_alone_and_one_refusal_keeps_the_offset(
        self, store: Store
    ):
        firsts = [a_write(n, NO_VERSION, at(5)) for n in range(1, 4)]
        store.write(EPOCH, firsts, partition=0, applied=at(5))
        writes = [
            a_write(1, at(5), at(8)),
            a_write(2, at(2), at(4)),
            a_write(3, at(4), at(9)),
            a_write(4, NO_VERSION, at(7)),
        ]
        expected = [Verdict.ACCEPTED, Verdict.ALREADY, Verdict.REFUSED, Verdict.ACCEPTED]
        assert expected == store.write(EPOCH, writes, partition=0, applied=at(9))
        versions = [leaf and leaf.version for leaf in store.read(EPOCH, [w.leaf for w in writes])]
        assert [at(8), at(5), at(5), at(7)] == versions
        assert at(5) == store.applied(EPOCH, 0)

    def test_many_leaves_are_written_and_read_at_once(self, store: Store):
        writes = [a_write(n, NO_VERSION, at(n + 1)) for n in range(1_500)]
        verdicts = store.write(EPOCH, writes[::-1], partition=0, applied=at(1_500))
        assert [Verdict.ACCEPTED] * 1_500 == verdicts
        stored = [StoredLeaf(write.new, write.parts) for write in writes]
        assert stored == store.read(EPOCH, [write.leaf for write in writes])

    def test_writing_again_is_safe(self, store: Store):
        writes = [a_write(n, NO_VERSION, at(n)) for n in range(1, 4)]
        store.write(EPOCH, writes, partition=0, applied=at(3))
        assert [Verdict.ALREADY] * 3 == store.write(EPOCH, writes, partition=0, applied=at(3))
        assert at(3) == store.applied(EPOCH, 0)

    def test_the_applied_offset_moves_without_leaves_and_never_back(self, store: Store):
        assert [] == store.write(EPOCH, [], partition=0, applied=at(7))
        store.write(EPOCH, [], partition=0, applied=at(4))
        assert at(7) == store.applied(EPOCH, 0)
        store.write(EPOCH, [], partition=0, applied=at(0, generation=2))
        store.write(EPOCH, [], partition=0, applied=at(99))
        assert at(0, generation=2) == store.applied(EPOCH, 0)

    def test_partitions_have_applied_offsets_of_their_own(self, store: Store):
        store.write(EPOCH, [], partition=0, applied=at(7))
        store.write(EPOCH, [], partition=3, applied=at(2))
        applied = [store.applied(EPOCH, partition) for partition in (0, 1, 3)]
        assert [at(7), NO_VERSION, at(2)] == applied

    def test_epochs_share_nothing(self, store: Store):
        store.write(1, [a_write(1, NO_VERSION, at(5), b"old")], partition=0, applied=at(5))
        store.write(2, [a_write(1, NO_VERSION, at(3), b"new")], partition=0, applied=at(3))
        assert [StoredLeaf(at(5), (b"old",))] == store.read(1, [a_leaf(1)])
        assert [StoredLeaf(at(3), (b"new",))] == store.read(2, [a_leaf(1)])
        assert (at(5), at(3)) == (store.applied(1, 0), store.applied(2, 0))
        assert [1, 2] == store.epochs()

    def test_the_snapshot_of_an_epoch_is_beside_it_and_shares_nothing_with_it(self, store: Store):
        store.write(1, [a_write(1, NO_VERSION, at(5), b"live")], partition=0, applied=at(5))
        store.write(-1, [a_write(1, NO_VERSION, at(3), b"then")], partition=0, applied=at(3))
        assert [StoredLeaf(at(3), (b"then",))] == store.read(-1, [a_leaf(1)])
        assert [(a_leaf(1), StoredLeaf(at(3), (b"then",)))] == store.scan(-1, None, 9)
        assert (at(5), at(3)) == (store.applied(1, 0), store.applied(-1, 0))
        assert [-1, 1] == store.epochs()
        store.drop(-1)
        assert ([1], [StoredLeaf(at(5), (b"live",))]) == (
            store.epochs(),
            store.read(1, [a_leaf(1)]),
        )

    def test_a_dropped_epoch_is_gone_and_the_others_stay(self, store: Store):
        store.write(1, [a_write(1, NO_VERSION, at(5))], partition=0, applied=at(5))
        store.write(2, [a_write(1, NO_VERSION, at(5))], partition=0, applied=at(5))
        store.write(7, [], partition=1, applied=at(5))
        store.drop(1)
        store.drop(7)
        store.drop(99)
        assert [2] == store.epochs()
        assert [None] == store.read(1, [a_leaf(1)])
        assert NO_VERSION == store.applied(1, 0)
        again = store.write(1, [a_write(1, NO_VERSION, at(2))], partition=0, applied=at(2))
        assert [Verdict.ACCEPTED] == again
        assert at(5) == store.applied(2, 0)

    def test_pages_visit_each_leaf_once_in_order(self, store: Store):
        writes = [a_write(n, NO_VERSION, at(n + 1)) for n in range(25)]
        store.write(EPOCH, writes[::-1], partition=0, applied=at(25))
        store.write(EPOCH + 1, [a_write(99, NO_VERSION, at(1))], partition=0, applied=at(1))
        seen: list[tuple[LeafId, StoredLeaf]] = []
        after = None
        while page := store.scan(EPOCH, after, 10):
            assert len(page) <= 10
            seen += page
            after = page[-1][0]
        assert [(w.leaf, StoredLeaf(w.new, w.parts)) for w in writes] == seen

    def test_ids_are_those_that_a_scan_visits(self, store: Store):
        assert store.ids(EPOCH, None, 10) == []
        writes = [a_write(n, NO_VERSION, at(n + 1)) for n in range(25)]
        store.write(EPOCH, writes[::-1], partition=0, applied=at(25))
        store.write(EPOCH + 1, [a_write(99, NO_VERSION, at(1))], partition=0, applied=at(1))
        for after in (None, a_leaf(3), a_leaf(24)):
            for limit in (0, 1, 10, 100):
                scanned = [leaf for leaf, _ in store.scan(EPOCH, after, limit)]
                assert scanned == store.ids(EPOCH, after, limit)

    def test_a_scan_goes_on_past_leaves_that_move_meanwhile(self, store: Store):
        writes = [a_write(n, NO_VERSION, at(n + 1)) for n in range(0, 20, 2)]
        store.write(EPOCH, writes, partition=0, applied=at(20))
        first = store.scan(EPOCH, None, 5)
        moved = [
            a_write(2, at(3), at(30)),
            a_write(3, NO_VERSION, at(31)),
            a_write(13, NO_VERSION, at(32)),
        ]
        store.write(EPOCH, moved, partition=0, applied=at(32))
        rest = store.scan(EPOCH, first[-1][0], 100)
        assert [a_leaf(n) for n in (10, 12, 13, 14, 16, 18)] == [leaf for leaf, _ in rest]

    def test_meta_is_kept_and_replaced(self, store: Store):
        store.put_meta("live_epoch", "3")
        store.put_meta("fingerprint", "abc")
        store.put_meta("live_epoch", "4")
        assert ("4", "abc") == (store.get_meta("live_epoch"), store.get_meta("fingerprint"))

    def test_two_writers_from_one_base_one_is_accepted(self, store: Store):
        store.write(
            EPOCH, [a_write(n, NO_VERSION, at(1)) for n in range(50)], partition=0, applied=at(1)
        )
        start = Barrier(4)

        def write(worker: int) -> list[Verdict]:
            start.wait()
            mine = [a_write(n, at(1), at(10 + worker)) for n in range(50)]
            return [store.write(EPOCH, [w], partition=worker, applied=at(1))[0] for w in mine]

        with ThreadPoolExecutor(4) as pool:
            verdicts = list(pool.map(write, range(4)))
        for n, of_leaf in enumerate(zip(*verdicts, strict=True)):
            assert 1 == of_leaf.count(Verdict.ACCEPTED), f"leaf {n}"
            winner = of_leaf.index(Verdict.ACCEPTED)
            stored = store.read(EPOCH, [a_leaf(n)])[0]
            assert stored is not None
            assert at(10 + winner) == stored.version

    @settings(max_examples=40, suppress_health_check=[HealthCheck.differing_executors])
    @given(
        calls=st.lists(
            st.tuples(
                st.dictionaries(
                    st.integers(0, 4),
                    st.tuples(st.integers(-1, 8), st.integers(1, 4)),
                    max_size=4,
                ),
                st.integers(0, 12),
            ),
            max_size=12,
        )
    )
    def test_any_history_of_writes_follows_the_one_rule(
        self, calls: list[tuple[dict[int, tuple[int, int]], int]]
    ):
        held: dict[int, tuple[Version, bytes]] = {}
        applied = NO_VERSION
        with tempfile.TemporaryDirectory() as folder:
            store = self.make(Path(folder))
            for turn, (asked, offset) in enumerate(calls):
                writes: list[LeafWrite] = []
                expected: list[Verdict] = []
                for n, (base_offset, step) in asked.items():
                    base = NO_VERSION if base_offset < 0 else at(base_offset)
                    write = a_write(n, base, at(base_offset + step), b"turn %d" % turn)
                    writes.append(write)
                    version = held[n][0] if n in held else NO_VERSION
                    if version == base:
                        expected.append(Verdict.ACCEPTED)
                        held[n] = (write.new, write.parts[0])
                    else:
                        late = version >= write.new
                        expected.append(Verdict.ALREADY if late else Verdict.REFUSED)
                if Verdict.REFUSED not in expected:
                    applied = max(applied, at(offset))
                assert expected == store.write(EPOCH, writes, partition=0, applied=at(offset))
            leaves = [(a_leaf(n), StoredLeaf(v, (body,))) for n, (v, body) in sorted(held.items())]
            assert leaves == store.scan(EPOCH, None, 100)
            assert applied == store.applied(EPOCH, 0)
            store.close()

    def test_a_closed_store_says_so(self, store: Store):
        store.close()
        store.close()
        with pytest.raises(Unavailable, match="E402"):
            store.read(EPOCH, [a_leaf(1)])
        with pytest.raises(Unavailable, match="E402"):
            store.write(EPOCH, [], partition=0, applied=at(1))


class DurableStoreConformance(StoreConformance):
    """For stores that outlive their process: also opens them again and kills their writer.

    Attributes:
        opened_by: Python source that sets `store` to the store in `folder`, given `folder`.
    """

    opened_by: ClassVar[str]

    def test_everything_is_there_after_opening_again(self, tmp_path: Path):
        store = self.make(tmp_path)
        write = a_write(1, NO_VERSION, at(5))
        store.write(EPOCH, [write], partition=2, applied=at(6))
        store.put_meta("live_epoch", "3")
        store.close()

        store = self.make(tmp_path)
        assert [StoredLeaf(at(5), write.parts)] == store.read(EPOCH, [a_leaf(1)])
        assert at(6) == store.applied(EPOCH, 2)
        assert "3" == store.get_meta("live_epoch")
        assert [EPOCH] == store.epochs()
        store.close()

    def test_killed_in_the_middle_leaves_and_applied_offset_agree(self, tmp_path: Path):
        for kill_after in (1, 9, 30):
            acknowledged = self._write_until_killed(tmp_path, kill_after)
            store = self.make(tmp_path)
            applied = store.applied(EPOCH, 0).offset
            assert acknowledged <= applied, "an acknowledged write was lost"
            for stored in store.read(EPOCH, KILLED_LEAVES):
                assert stored is not None, "a leaf that the applied offset covers is missing"
                self.require_covered(stored, at(applied))
                assert (b"at %d" % stored.version.offset,) == stored.parts
            store.close()

    def require_covered(self, stored: StoredLeaf, applied: Version) -> None:
        """Require what a leaf's version may be, after a stop, beside the applied offset."""
        assert applied == stored.version, "a leaf and the applied offset are torn"

    def _write_until_killed(self, folder: Path, kill_after: int) -> int:
        """Run a writer, kill -9 it after some acknowledgements; return the last offset it acked."""
        child = subprocess.Popen(  # noqa: S603 - our own source
            [sys.executable, "-c", _WRITER.format(opened_by=self.opened_by), str(folder)],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert child.stdout is not None
        lines = list(itertools.islice(child.stdout, kill_after))
        child.kill()
        lines += child.stdout.read().splitlines(keepends=True)
        child.wait()
        child.stdout.close()
        return max(int(line) for line in lines if line.endswith("\n"))


class RemoteStoreConformance(DurableStoreConformance):
    """For stores that decide leaf by leaf: after a stop leaves may be ahead of the applied offset, never behind."""

    def require_covered(self, stored: StoredLeaf, applied: Version) -> None:
        assert applied <= stored.version, "the applied offset is ahead of a leaf that it covers"


KILLED_LEAVES = [a_leaf(n * 7) for n in range(200)]

_WRITER = """
import sys
from pathlib import Path
from penstock.core.record import NO_VERSION
from penstock.ports.store import LeafWrite, Verdict
from penstock.testing.conformance.store import EPOCH, KILLED_LEAVES, at

folder = Path(sys.argv[1])
{opened_by}
base = store.applied(EPOCH, 0)
while True:
    new = at(base.offset + 1)
    writes = [LeafWrite(leaf, base, new, (b"at %d" % new.offset,)) for leaf in KILLED_LEAVES]
    verdicts = store.write(EPOCH, writes, partition=0, applied=new)
    # Of a store that decides leaf by leaf some are there already, from before the kill.
    assert Verdict.REFUSED not in verdicts
    base = new
    print(new.offset, flush=True)
"""
