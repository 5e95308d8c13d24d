"""What every register of suppressions does: merge in any order to the same, and keep what it took."""

# ruff: noqa: SIM300 - asserts read `expected == actual`

import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from penstock.core.errors import Unavailable
from penstock.core.ids import LeafId
from penstock.ports.suppressions import Suppression, SuppressionKey, Suppressions

Entry = tuple[SuppressionKey, Suppression]

LEAVES = [LeafId(bytes([n]) * 16) for n in range(3)]
EMAIL = SuppressionKey(LEAVES[0], "email", "*")
LAW = settings(max_examples=30, suppress_health_check=[HealthCheck.differing_executors])

ENTRIES = st.lists(
    st.tuples(
        st.builds(
            SuppressionKey,
            st.sampled_from(LEAVES),
            st.sampled_from(["email", "purpose"]),
            st.sampled_from(["*", "offers"]),
        ),
        st.builds(
            Suppression,
            st.integers(0, 3),
            st.booleans(),
            # Both sides of where a signed 64-bit integer would turn negative.
            st.sampled_from([0, 1, (1 << 63) - 1, 1 << 63, (1 << 64) - 1]),
            st.sampled_from(["bounce", "resubscribe", "ünsubscribe", "\U0001f6ab", "\uff5e"]),
        ),
    ),
    max_size=12,
)


def an_entry(
    at_ms: int, *, denied: bool = True, event_id: int = 7, reason: str = "unsubscribe"
) -> Suppression:
    """Return an entry."""
    return Suppression(at_ms, denied, event_id, reason)


class SuppressionsConformance:
    """Subclass it as `Test…` and say how to make the register."""

    def make(self, folder: Path) -> Suppressions:
        """Return a register in a folder: a new one, or the one that is there."""
        raise NotImplementedError

    @pytest.fixture
    def register(self, tmp_path: Path) -> Iterator[Suppressions]:
        register = self.make(tmp_path)
        yield register
        register.close()

    def test_an_empty_register_has_nothing(self, register: Suppressions):
        register.put([])
        assert register.get(LEAVES) == {}
        assert register.get([]) == {}

    def test_every_entry_of_the_leaves_asked_and_of_no_other(self, register: Suppressions):
        entries = {
            EMAIL: an_entry(1),
            SuppressionKey(LEAVES[0], "email", "offers"): an_entry(
                2, denied=False, reason="resubscribe"
            ),
            SuppressionKey(LEAVES[0], "purpose", "analytics"): an_entry(3, reason="withdrawal"),
            SuppressionKey(LEAVES[1], "email", "*"): an_entry(4, reason="bounce"),
        }
        register.put(list(entries.items()))
        assert entries == register.get(LEAVES)
        of_first = {key: entry for key, entry in entries.items() if key.leaf == LEAVES[0]}
        assert of_first == register.get([LEAVES[0], LEAVES[2], LEAVES[0]])

    @pytest.mark.parametrize(
        ("winner", "loser"),
        [
            (an_entry(2, denied=False, event_id=0), an_entry(1, event_id=9)),  # the later
            (an_entry(1, event_id=0), an_entry(1, denied=False, event_id=9)),  # then the denial
            (an_entry(1, event_id=(1 << 64) - 1), an_entry(1, event_id=1)),  # then the greater id
        ],
    )
    def test_of_two_entries_the_greatest_wins_in_either_order(
        self, register: Suppressions, winner: Suppression, loser: Suppression
    ):
        other = SuppressionKey(LEAVES[1], "email", "*")
        register.put([(EMAIL, winner)])
        register.put([(EMAIL, loser)])
        register.put([(other, loser), (other, winner)])
        assert {EMAIL: winner, other: winner} == register.get(LEAVES)

    @LAW
    @given(entries=ENTRIES, data=st.data())
    def test_any_order_any_batching_and_any_repetition_give_the_same(
        self, entries: list[Entry], data: st.DataObject
    ):
        shuffled = data.draw(st.permutations(entries + entries[: len(entries) // 2]))
        cut = data.draw(st.integers(0, len(shuffled)))
        ways = [[entries], [shuffled[:cut], shuffled[cut:]], [[entry] for entry in shuffled]]
        with tempfile.TemporaryDirectory() as folder:
            register = self.make(Path(folder))
            for n, way in enumerate(ways):
                for batch in way:
                    register.put(moved(batch, n))
                leaves = [moved_leaf(leaf, n) for leaf in LEAVES]
                assert merged(moved(entries, n)) == register.get(leaves)
            register.close()

    def test_threads_that_write_at_once_lose_nothing(self, register: Suppressions):
        def put(n: int) -> None:
            register.put(
                [(EMAIL, an_entry(n)), (SuppressionKey(LEAVES[1], "email", str(n)), an_entry(n))]
            )

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(put, range(40)))
        found = register.get(LEAVES)
        assert an_entry(39) == found[EMAIL]
        assert 41 == len(found)

    def test_many_leaves_are_read_at_once(self, register: Suppressions):
        leaves = [LeafId(n.to_bytes(16, "big")) for n in range(600)]
        entries = {SuppressionKey(leaf, "email", "*"): an_entry(1) for leaf in leaves}
        register.put(list(entries.items()))
        assert entries == register.get(leaves)

    def test_it_is_whole_and_is_made_whole_without_harm(self, register: Suppressions):
        other = SuppressionKey(LEAVES[1], "email", "*")
        register.put([(EMAIL, an_entry(2))])
        assert register.whole()
        register.make_whole(iter([[(EMAIL, an_entry(1))], [], [(other, an_entry(3))]]))
        assert register.whole()
        assert {EMAIL: an_entry(2), other: an_entry(3)} == register.get(LEAVES)

    def test_a_closed_register_says_so(self, register: Suppressions):
        register.close()
        register.close()
        with pytest.raises(Unavailable, match="E403"):
            register.get(LEAVES)
        with pytest.raises(Unavailable, match="E403"):
            register.put([(EMAIL, an_entry(1))])


class DurableSuppressionsConformance(SuppressionsConformance):
    """For registers that outlive their process."""

    def test_everything_is_there_after_opening_again(self, tmp_path: Path):
        register = self.make(tmp_path)
        register.put([(EMAIL, an_entry(5, event_id=(1 << 64) - 1))])
        register.close()
        register = self.make(tmp_path)
        register.put([(EMAIL, an_entry(4))])
        assert {EMAIL: an_entry(5, event_id=(1 << 64) - 1)} == register.get(LEAVES)
        register.close()

    def test_two_processes_share_it(self, tmp_path: Path):
        one, other = self.make(tmp_path), self.make(tmp_path)
        one.put([(EMAIL, an_entry(1))])
        other.put([(EMAIL, an_entry(2))])
        one.put([(EMAIL, an_entry(1, event_id=99))])
        assert {EMAIL: an_entry(2)} == one.get(LEAVES) == other.get(LEAVES)
        one.close()
        other.close()


def merged(entries: Sequence[Entry]) -> dict[SuppressionKey, Suppression]:
    """Return the greatest entry of each key: the rule, as plainly as it can be said."""
    found: dict[SuppressionKey, Suppression] = {}
    for key, entry in entries:
        found[key] = max(found.get(key, entry), entry)
    return found


def moved(entries: Sequence[Entry], n: int) -> list[Entry]:
    """Return the entries for other leaves, so that one register holds several histories."""
    return [
        (SuppressionKey(moved_leaf(key.leaf, n), key.plane, key.name), entry)
        for key, entry in entries
    ]


def moved_leaf(leaf: bytes, n: int) -> LeafId:
    """Return the n-th stand-in of a leaf."""
    return LeafId(bytes([n]) + leaf[1:])
