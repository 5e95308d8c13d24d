"""Traits of several leaves: the greatest (source rank, time, id) wins, and null can win."""

from hypothesis import given
from hypothesis import strategies as st

from penstock.core.identity.graph import merge_traits

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
