"""The step: what becomes of a record, and of a withdrawal, a claim, a crawler."""

import random
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from step_records import (
    DENIED,
    GRANTED,
    NOW,
    PLAN,
    RULES,
    UPDATED,
    Folding,
    folded,
    make_leaf,
    record,
    without_size,
)

from penstock.core.consent.purpose import ConsentRules
from penstock.core.identity.routing import cut_records, link_records
from penstock.core.ids import LeafId
from penstock.core.leaf import ID_TILE_MS, ID_TILES
from penstock.core.record import (
    Evidence,
    Identifier,
    Record,
    Version,
)
from penstock.core.step import SMALL_BYTES, Outcome
from penstock.core.time import DAY_MS, HOUR_MS

# ------------------------------------------------------------------------------------- examples


def test_each_record_has_one_outcome() -> None:
    folding = Folding(RULES._replace(leaf_bytes_max=3_000))
    outcomes = [
        folding.log(record("a")),
        folding.log(record("a")),
        folding.log(record("b", evidence=DENIED, bare=True)),
        folding.log(link_records(record("c", user="u9", device="a9"))[0]),
    ]
    assert outcomes == [Outcome.APPLIED, Outcome.DEDUPLICATED, Outcome.DROPPED, Outcome.LINKED]


def test_a_record_at_or_below_the_version_is_skipped_and_changes_nothing() -> None:
    folding = Folding()
    for name in "abc":
        folding.log(record(name))
    before = folding.stored()
    for offset in range(3):
        again = folding.step.fold(folding.leaf, record("z"), 1, offset, NOW + DAY_MS, [])
        assert again is Outcome.SKIPPED
    assert folding.stored() == before


def test_versions_compare_as_generation_then_offset() -> None:
    folding = Folding()
    folding.log(record("a"), generation=1)
    folding.next_offset = 0
    assert folding.log(record("b"), generation=2) is Outcome.APPLIED
    folding.next_offset = 50
    # A late reader of the sealed generation must not be believed, whatever its offset.
    assert folding.log(record("c"), generation=1) is Outcome.SKIPPED
    assert folding.leaf.version == Version(2, 0)


@pytest.mark.parametrize(
    ("later_ms", "outcome"),
    [
        (0, Outcome.DEDUPLICATED),
        (72 * HOUR_MS, Outcome.DEDUPLICATED),
        (ID_TILES * ID_TILE_MS - 1, Outcome.DEDUPLICATED),
        (ID_TILES * ID_TILE_MS, Outcome.APPLIED),
    ],
)
@pytest.mark.parametrize("crash", [False, True])
def test_a_copy_is_remembered_for_at_least_72_hours(
    later_ms: int, outcome: Outcome, crash: bool
) -> None:
    folding = Folding()
    folding.log(record("a"), NOW)
    if crash:
        folding.crash()
    assert folding.log(record("a"), NOW + later_ms) is outcome


def test_even_the_last_instant_of_a_tile_is_remembered_for_72_hours() -> None:
    folding = Folding()
    folding.log(record("a"), NOW + ID_TILE_MS - 1)
    # Other records make the clock turn the tiles over.
    folding.log(record("b"), NOW + ID_TILE_MS - 1 + 71 * HOUR_MS)
    assert folding.log(record("a"), NOW + ID_TILE_MS - 1 + 72 * HOUR_MS) is Outcome.DEDUPLICATED


@pytest.mark.parametrize("crash", [False, True])
def test_a_job_is_remembered_for_ever(crash: bool) -> None:
    folding = Folding()
    folding.log(record("row", job="import"), NOW)
    folding.log(record("z"), NOW + 400 * DAY_MS)
    if crash:
        folding.crash()
    assert folding.log(record("row", job="import"), NOW + 400 * DAY_MS) is Outcome.DEDUPLICATED
    # Another job is another memory, and the live one is gone by then.
    assert folding.log(record("row", job="another"), NOW + 401 * DAY_MS) is Outcome.APPLIED


def test_an_event_that_came_live_first_counts_once_however_late_its_job_is_run_again() -> None:
    folding = Folding()
    folding.log(record("row"), NOW)
    assert folding.log(record("row", job="import"), NOW + HOUR_MS) is Outcome.DEDUPLICATED
    folding.log(record("z"), NOW + 30 * DAY_MS)
    assert folding.log(record("row", job="import"), NOW + 30 * DAY_MS) is Outcome.DEDUPLICATED


def test_an_event_that_a_job_brought_first_is_not_counted_live() -> None:
    folding = Folding()
    folding.log(record("row", job="import"), NOW)
    assert folding.log(record("row"), NOW + 72 * HOUR_MS) is Outcome.DEDUPLICATED


def test_the_clock_is_the_greatest_stamp_and_one_from_the_future_wipes_nothing() -> None:
    folding = Folding()
    folding.log(record("a", at_ms=NOW), NOW)
    folding.log(record("b", at_ms=NOW + 400 * DAY_MS), NOW)
    folding.log(record("c", at_ms=NOW), NOW)
    assert folding.leaf.clock_ms == NOW
    assert folding.read()["views"] == 3


def test_a_stamp_from_before_does_not_turn_the_clock_back() -> None:
    folding = Folding()
    folding.log(record("a"), NOW + DAY_MS)
    folding.log(record("b"), NOW)
    assert folding.leaf.clock_ms == NOW + DAY_MS


@pytest.mark.parametrize("before", [1, 200])
def test_expiry_is_seen_in_the_bytes_and_a_large_leaf_is_cleared_at_the_tile(before: int) -> None:
    folding = Folding()
    for number in range(before):
        folding.log(record(f"a{number}", at_ms=NOW), NOW)
    small = folding.leaf.size <= SMALL_BYTES
    folding.log(record("b", at_ms=NOW + 9 * DAY_MS), NOW + 9 * DAY_MS)
    assert folding.read()["views"] == 1
    assert folding.read()["recent"] == ["b"]
    assert len(folding.leaf.ids) == (before + 1 if small else 1)
    folding.crash()
    assert list(folding.leaf.ids) == [record("b").event_id]
    assert folding.read()["recent"] == ["b"]


# ------------------------------------------------------------------------------------- consent


def test_what_is_permitted_is_computed_and_nothing_else() -> None:
    folding = Folding()
    folding.log(record("a", evidence=Evidence("context", granted=("measurement",),
                                              denied=("personalisation",))))  # fmt: skip
    values = folding.read()
    assert (values["views"], values["measured"], values["recent"]) == (0, 1, [])


@pytest.mark.parametrize(
    ("evidence", "rules", "outcome"),
    [
        (Evidence("unknown"), ConsentRules(regime="opt_in"), Outcome.DROPPED),
        (Evidence("unknown"), ConsentRules(regime="opt_out"), Outcome.APPLIED),
        (Evidence("unknown", regime="opt_out"), ConsentRules(regime="opt_in"), Outcome.APPLIED),
        (DENIED, ConsentRules(regime="opt_in"), Outcome.DROPPED),
        (DENIED, ConsentRules(regime="opt_out"), Outcome.APPLIED),
        (GRANTED, ConsentRules(regime="opt_in"), Outcome.APPLIED),
    ],
)
def test_silence_is_judged_by_the_regime(
    evidence: Evidence, rules: ConsentRules, outcome: Outcome
) -> None:
    assert Folding(RULES._replace(consent=rules)).log(record("a", evidence=evidence)) is outcome


def test_a_denial_at_the_edge_leaves_the_word_and_nothing_else() -> None:
    folding = Folding()
    folding.log(record("a", evidence=DENIED, bare=True, traits={"name": "Ann"}))
    leaf = folding.leaf
    assert (leaf.dropped, leaf.traits, leaf.edges, leaf.value) == (1, {}, {}, None)
    assert {name: entry.denied for name, entry in leaf.consent.items()} == {
        "measurement": True, "personalisation": True,
    }  # fmt: skip
    assert folding.read()["views"] == 0


def test_a_bare_record_is_dropped_whatever_its_regime_permits_besides() -> None:
    partly = Evidence("gpc", denied=("personalisation",), regime="opt_out")
    folding = Folding()
    assert folding.log(record("a", evidence=partly, bare=True)) is Outcome.DROPPED


def test_a_dropped_event_is_remembered_so_that_its_copy_does_not_count() -> None:
    folding = Folding()
    folding.log(record("a", evidence=DENIED, bare=True))
    assert folding.log(record("a", evidence=GRANTED)) is Outcome.DEDUPLICATED


def test_a_leaf_that_began_with_a_denial_learns_its_identifier_later() -> None:
    first, second = record("a", evidence=DENIED, bare=True), record("b")
    for order in ([first, second], [second, first]):
        folding = folded([(one, NOW) for one in order])
        assert (folding.leaf.id_type, folding.leaf.value) == ("user_id", "u1")


WITHDRAWAL = record("w", at_ms=NOW + DAY_MS, name=UPDATED, evidence=Evidence(
    "context", granted=("measurement",), denied=("personalisation",)))  # fmt: skip


@pytest.mark.parametrize("seed", range(12))
def test_a_withdrawal_purges_in_any_order_of_arrival(seed: int) -> None:
    log = [
        record("a", at_ms=NOW),
        record("i", at_ms=NOW + 1, type_name="identify", traits={"name": "Ann", "segment": "gold"}),
        WITHDRAWAL,
        record("b", at_ms=NOW + 2 * DAY_MS),
        record("j", at_ms=NOW + 2 * DAY_MS, type_name="identify", traits={"city": "Bath"}),
        # Beneath the one that stands, and purged as well.
        record("k", at_ms=NOW + 2, rank=-1, type_name="identify", traits={"name": "Annie"}),
    ]
    random.Random(seed).shuffle(log)
    folding = folded([(one, NOW + 3 * DAY_MS) for one in log], frozenset({seed % 5}))
    values = folding.read()
    assert (values["views"], values["recent"], values["measured"]) == (1, ["b"], 2)
    assert {name: trait[3] for name, trait in folding.leaf.traits.items()} == {
        "name": None, "segment": "gold", "city": "Bath",
    }  # fmt: skip
    assert folding.leaf.purged == {"personalisation": NOW + DAY_MS}
    assert b"Ann" not in folding.stored()
    assert folding.leaf.beneath == {}


@given(st.permutations(range(6)), st.sets(st.integers(0, 5)))
def test_the_bytes_of_a_withdrawal_depend_on_no_order(order: list[int], crashes: set[int]) -> None:
    log = [
        record("a", at_ms=NOW), record("b", at_ms=NOW + 2 * DAY_MS), WITHDRAWAL,
        record("i", at_ms=NOW + 1, type_name="identify", traits={"name": "Ann"}),
        record("j", at_ms=NOW + 2 * DAY_MS, type_name="identify", traits={"name": "Bob", "x": 1}),
        record("k", at_ms=NOW + 3, type_name="identify", rank=4, traits={"x": "a long old value"}),
    ]  # fmt: skip
    arrived = [(log[place], NOW + 3 * DAY_MS) for place in order]
    expected = folded([(one, NOW + 3 * DAY_MS) for one in log])
    assert without_size(expected.stored()) == without_size(
        folded(arrived, frozenset(crashes)).stored()
    )


# --------------------------------------------------------------------------- traits and entities


def identify(message_id: str, value: Any, *, rank: int = 0, at_ms: int = NOW,
             verified: bool = True) -> Record:  # fmt: skip
    one = record(message_id, type_name="identify", rank=rank, at_ms=at_ms, traits={"name": value})
    return msgspec.structs.replace(one, verified=verified)


@pytest.mark.parametrize(
    ("loser", "winner"),
    [
        (identify("a", "old"), identify("b", "new", at_ms=NOW + 1)),
        (identify("a", "site", at_ms=NOW + 1), identify("b", "crm", rank=10)),
        (identify("a", "claim", at_ms=NOW + 1, verified=False), identify("b", "proof")),
        (identify("a", "claim", rank=10, verified=False), identify("b", "proof")),
        (identify("a", "value"), identify("b", None, at_ms=NOW + 1)),
    ],
    ids=["later", "rank", "unverified", "unverified rank", "null"],
)
def test_of_two_values_of_a_trait_one_wins_in_any_order(loser: Record, winner: Record) -> None:
    for order in ([loser, winner], [winner, loser]):
        folding = folded([(one, NOW) for one in order])
        assert folding.leaf.traits["name"][3] == winner.traits["name"]


def test_of_equal_rank_and_time_the_greater_id_wins() -> None:
    both = sorted((identify("a", "one"), identify("b", "two")), key=lambda one: one.event_id)
    for order in (both, both[::-1]):
        folding = folded([(one, NOW) for one in order])
        assert folding.leaf.traits["name"][3] == both[1].traits["name"]


def test_a_trait_is_folded_only_for_a_purpose_that_is_permitted() -> None:
    folding = Folding()
    only = Evidence("context", granted=("personalisation",), denied=("measurement",))
    folding.log(record("a", type_name="identify", evidence=only,
                       traits={"name": "Ann", "segment": "gold"}))  # fmt: skip
    assert list(folding.leaf.traits) == ["name"]


def test_traits_of_other_events_are_no_traits() -> None:
    folding = Folding()
    folding.log(record("a", traits={"name": "Ann"}))
    assert folding.leaf.traits == {}


def test_a_stranger_cannot_give_a_person_the_traits_of_a_group() -> None:
    claim = record("g", type_name="group", group="acme", device="a1", user=None, verified=False,
                   traits={"name": "ACME", "plan": "enterprise"})  # fmt: skip
    assert claim.id_type == "anonymous_id"
    folding = Folding(leaf=LeafId(claim.leaf))
    folding.log(claim)
    assert folding.leaf.traits == {}


@pytest.mark.parametrize("id_type", ["item_id", "group_id"])
def test_an_entity_has_traits_and_no_features(id_type: str) -> None:
    leaf = make_leaf(id_type, "x")
    folding = Folding(leaf=leaf)
    row = record("a", type_name="identify", traits={"name": "Kettle"})
    for one in (row, record("b")):
        folding.log(msgspec.structs.replace(one, leaf=leaf, id_type=id_type, edges=(),
                                            identifiers=(Identifier(id_type, leaf, "x"),)))  # fmt: skip
    assert folding.leaf.states == PLAN.new_states()
    assert folding.leaf.traits["name"][3] == "Kettle"
    assert folding.leaf.applied == 2


# ------------------------------------------------------------------------------------- edges


def test_a_link_is_yielded_only_for_an_edge_that_the_leaf_does_not_hold() -> None:
    folding = Folding()
    for number in range(5):
        folding.log(record(f"m{number}", device="a1", at_ms=NOW + number))
    folding.log(record("n", device="a2"))
    assert [one.leaf for one in folding.links] == [
        make_leaf("anonymous_id", "a1"), make_leaf("anonymous_id", "a2"),
    ]  # fmt: skip
    folding.crash()
    folding.log(record("o", device="a1", at_ms=NOW + 9))
    assert len(folding.links) == 2


def test_a_copy_or_a_dropped_event_yields_no_link() -> None:
    folding = Folding()
    folding.log(record("a", device="a1", evidence=DENIED, bare=True))
    folding.log(record("a", device="a1"))
    assert (folding.links, folding.leaf.edges) == ([], {})


def test_both_sides_of_a_link_hold_the_same_edge() -> None:
    one, other = Folding(), Folding(leaf=make_leaf("anonymous_id", "a1"))
    one.log(record("a", device="a1"))
    assert [other.log(link) for link in one.links] == [Outcome.LINKED]
    assert one.leaf.edges == other.leaf.edges
    assert (other.leaf.id_type, other.leaf.value) == ("anonymous_id", "a1")
    assert (other.leaf.links, other.leaf.applied, other.leaf.clock_ms) == (1, 0, NOW)


def test_a_cut_undoes_an_edge_in_any_order() -> None:
    first = record("a", device="a1")
    (edge,) = first.edges
    cut, _ = cut_records(edge, tenant="t", message_id="c", at_ms=NOW + 5, source="operator")
    for order in ([first, cut], [cut, first]):
        folding = folded([(one, NOW + 6) for one in order])
        assert [held.joined for held in folding.leaf.edges.values()] == [False]


# ------------------------------------------------------------------------------------- quarantine

SMALL = RULES._replace(leaf_bytes_max=1_500)


def test_a_leaf_over_its_limit_is_quarantined_and_what_comes_after_is_dead() -> None:
    folding = Folding(SMALL)
    outcomes = [folding.log(record(f"m{number:04}")) for number in range(300)]
    first_dead = outcomes.index(Outcome.DEAD)
    assert set(outcomes[:first_dead]) == {Outcome.APPLIED}
    assert set(outcomes[first_dead:]) == {Outcome.DEAD}
    assert folding.log(record("m0000")) is Outcome.DEDUPLICATED
    assert folding.leaf.quarantined
    assert len(folding.stored()) < 2 * SMALL.leaf_bytes_max
    # Links are still counted, and join nobody any more.
    assert folding.log(link_records(record("z", user="u9", device="a9"))[0]) is Outcome.LINKED
    assert folding.leaf.edges == {}


def test_a_leaf_that_expires_in_time_is_not_quarantined() -> None:
    folding = Folding(SMALL)
    for number in range(300):
        at_ms = NOW + number * 12 * HOUR_MS
        assert folding.log(record(f"m{number:04}", at_ms=at_ms), at_ms) is Outcome.APPLIED


@given(st.sets(st.integers(0, 249), max_size=12))
def test_quarantine_is_a_function_of_the_records_and_not_of_batches(crashes: set[int]) -> None:
    log = [(record(f"m{number:04}", device=f"a{number % 40}", at_ms=NOW + number * 40_000),
            NOW + number * 40_000) for number in range(250)]  # fmt: skip
    rules = RULES._replace(leaf_bytes_max=6_000)
    assert folded(log, rules=rules).stored() == folded(log, frozenset(crashes), rules).stored()
