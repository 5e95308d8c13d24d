"""Registers of edges are a semilattice: order and duplication of statements change nothing."""

from hypothesis import given
from hypothesis import strategies as st

from penstock.core.identity.edges import CLAIMS_MAX, fold_edge, merge_edges, would_change
from penstock.core.record import Edge

A, B = b"a" * 16, b"b" * 16


def edge(
    at_ms, *, verified=True, joined=True, rule="track", event=1, a=A, a_type="anonymous_id", b=B
):
    return Edge(a_type, a, "user_id", b, at_ms, event, rule, verified, joined)


statements = st.builds(
    edge,
    st.integers(1, 9),
    verified=st.booleans(),
    joined=st.booleans(),
    rule=st.sampled_from(["alias", "identify", "track"]),
    event=st.integers(1, 3),
)
registers = st.lists(statements, min_size=1, max_size=5).map(lambda told: folded(told)[(A, B)])


def folded(edges):
    held = {}
    for one in edges:
        fold_edge(held, one)
    return held


@given(registers, registers, registers)
def test_merge_is_commutative_associative_and_idempotent(one, two, three):
    assert merge_edges(one, two) == merge_edges(two, one)
    assert merge_edges(merge_edges(one, two), three) == merge_edges(one, merge_edges(two, three))
    assert one == merge_edges(one, one)


@given(st.data(), st.lists(statements, min_size=1, max_size=8))
def test_any_order_and_duplication_gives_the_same_register(data, told):
    shuffled = data.draw(st.permutations(told + told[: len(told) // 2]))
    assert folded(told) == folded(shuffled)


@given(st.lists(statements, min_size=1, max_size=8))
def test_the_later_of_join_and_cut_wins_among_the_most_trusted(told):
    strongest = [one for one in told if one.verified] or told
    joins = [one.at_ms for one in strongest if one.joined]
    cuts = [one.at_ms for one in strongest if not one.joined]
    held = folded(told)[(A, B)]
    assert (max(joins, default=0) > max(cuts, default=0)) == held.joined
    if joins and "alias" not in {one.rule for one in strongest if one.joined}:
        assert min(joins) == held.at_ms


@given(st.lists(statements, max_size=6), statements)
def test_what_would_change_nothing_keeps_standing_trust_and_provenance(told, new):
    held = folded(told)
    before = held.get((A, B))
    if not would_change(held, new):
        after = merge_edges(before, new)
        assert (before.joined, before.verified, before.at_ms, before.rule) == (
            after.joined, after.verified, after.at_ms, after.rule)  # fmt: skip


def test_a_cut_wins_a_tie_and_no_claim_undoes_it():
    held = folded([edge(5), edge(5, joined=False), edge(9, verified=False)])
    assert not held[(A, B)].joined
    assert folded([edge(5, joined=False), edge(6)])[(A, B)].joined


def test_a_cut_is_remembered_when_the_pair_is_seen_again_and_again():
    told = [edge(1), edge(2, joined=False), edge(3), edge(4), edge(5)]
    held = folded(told)[(A, B)]
    assert (1, 5, 2, True) == (held.at_ms, held.seen_ms, held.cut_ms, held.joined)
    assert {(A, B): held} == folded(told[::-1])


def test_folding_says_whether_the_leaf_holds_one_more():
    held = {}
    assert fold_edge(held, edge(5))
    assert not fold_edge(held, edge(4))
    assert fold_edge(held, edge(4, a=b"c" * 16))


device_edges = st.lists(
    st.tuples(st.integers(0, 2 * CLAIMS_MAX), st.integers(1, 9), st.sampled_from([False] * 9 + [True])),
    min_size=CLAIMS_MAX, max_size=3 * CLAIMS_MAX,
)  # fmt: skip


@given(device_edges, st.randoms(use_true_random=False))
def test_claims_are_capped_by_a_rule_that_depends_on_no_order(told, random):
    edges = [
        edge(at, verified=verified, a=number.to_bytes(16, "big")) for number, at, verified in told
    ]
    shuffled = list(edges)
    random.shuffle(shuffled)
    held = folded(edges)
    assert held == folded(shuffled)
    assert {(one.a, B) for one in edges if one.verified} <= set(held)
    smallest = sorted({(one.a, B) for one in edges})[:CLAIMS_MAX]
    assert set(smallest) <= set(held)
    assert all(held[key].verified for key in set(held) - set(smallest))


def test_the_count_of_edges_follows_from_what_folding_says():
    held, count = {}, 0
    for number in reversed(range(3 * CLAIMS_MAX)):
        count += fold_edge(held, edge(1, verified=number % 50 == 0, a=number.to_bytes(16, "big")))
        assert len(held) == count
