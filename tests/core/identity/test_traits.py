"""Traits of several leaves: the greatest (source rank, time, id) wins, and null can win."""

from hypothesis import given
from hypothesis import strategies as st

from penstock.core.identity.graph import merge_traits
from penstock.core.identity.traits import (
    NEVER,
    fold_trait,
    from_line,
    in_line,
    purge_trait,
    standing_of,
)

traits = st.dictionaries(
    st.sampled_from(["first_name", "plan"]),
    st.tuples(st.integers(-1, 2), st.integers(0, 3), st.integers(0, 2),
              st.none() | st.sampled_from(["x", "y"]) | st.lists(st.integers(0, 2), max_size=2)),
)  # fmt: skip


@given(st.data(), st.lists(traits, max_size=5), st.lists(traits, max_size=3))
def test_any_order_and_duplication_of_leaves_gives_the_same_traits(data, many, claims):
    expected = merge_traits(many, claims)
    assert expected == merge_traits(
        data.draw(st.permutations(many + many[:2])), claims[::-1] + claims
    )
    assert expected == merge_traits([merge_traits(many)], [merge_traits(claims)])


def test_rank_beats_time_and_time_beats_id():
    crm, site = {"plan": (5, 10, 1, "gold")}, {"plan": (1, 99, 9, "free")}
    assert crm == merge_traits([site, crm])
    assert {"plan": (1, 100, 2, "b")} == merge_traits([site, {"plan": (1, 100, 2, "b")}])


def test_null_is_a_value_that_can_win():
    assert {"plan": (1, 2, 1, None)} == merge_traits(
        [{"plan": (1, 2, 1, None)}, {"plan": (1, 1, 1, "x")}]
    )


def test_a_claim_ranks_below_every_verified_leaf():
    verified, claim = (
        {"plan": (0, 1, 1, "free")},
        {"plan": (9, 9, 9, "gold"), "name": (0, 1, 1, "Z")},
    )
    assert {"plan": (0, 1, 1, "free"), "name": (0, 1, 1, "Z")} == merge_traits([verified], [claim])


# -- what a leaf keeps beneath what stands

entries = st.lists(
    st.tuples(st.integers(-2, 4), st.integers(-3, 9), st.integers(0, 99)),
    max_size=12,
    unique_by=lambda one: one[2],
).map(lambda many: [(rank, at_ms, event, f"v{event}") for rank, at_ms, event in many])
purges = st.lists(st.integers(-4, 10), max_size=3)


def kept(steps):
    """Fold registers and purges into a leaf in the order given: a number is a purge."""
    standing, beneath, purged = {}, (), NEVER
    for one in steps:
        if isinstance(one, int):
            purged = max(purged, one)
            if standing:
                beneath = purge_trait(standing, beneath, "plan", purged)
        else:
            beneath = fold_trait(standing, beneath, "plan", one, purged)
    return standing, {"plan": beneath} if beneath else {}


def said(many, purged):
    """The naive answer: the greatest of all that was said, and not before the withdrawal."""
    left = [one for one in many if one[1] >= purged]
    return max(left, key=lambda one: one[:3]) if left else None


@given(st.data(), entries, purges, st.integers(-4, 11))
def test_what_a_leaf_keeps_answers_every_withdrawal_to_come(data, many, purges, later):
    standing, beneath = kept(data.draw(st.permutations([*many, *purges])))
    purged = max([later, *purges])
    answer = standing_of(standing["plan"], beneath.get("plan", ()), purged) if many else None
    assert said(many, purged) == answer


@given(st.data(), entries, purges)
def test_any_order_and_duplication_keeps_the_same(data, many, purges):
    steps = [*many, *purges]
    again = data.draw(st.permutations(steps + data.draw(st.permutations(steps))[:4]))
    assert kept(steps) == kept(again)


@given(entries, purges)
def test_it_keeps_one_for_each_rank_at_most_and_reads_back(many, purges):
    standing, beneath = kept([*many, *purges])
    line = in_line(standing, beneath)
    assert len(line) <= len({one[0] for one in many})
    assert (standing, beneath) == from_line(line)
    # Whoever reads a leaf as versions before did sees what stands.
    assert standing == dict(line)


@given(st.data(), entries, st.integers(-4, 11))
def test_split_over_leaves_a_person_is_told_the_same(data, many, purged):
    leaves = [[], [], []]
    for one in many:
        data.draw(st.sampled_from(leaves)).append(one)
    found = []
    for leaf in leaves:
        standing, beneath = kept(leaf)
        best = standing_of(standing["plan"], beneath.get("plan", ()), purged) if leaf else None
        found.append({} if best is None else {"plan": best})
    assert said(many, purged) == merge_traits(found).get("plan")
