"""The ledger: registers that merge in any order, withdrawals that always win, and what is permitted."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.consent.evidence import stamp
from penstock.core.consent.ledger import (
    ConsentEntry,
    entries_of,
    granted_after,
    merge,
    over_leaves,
    permitted_purposes,
    status,
)
from penstock.core.consent.purpose import PURPOSES, ConsentRules
from penstock.core.record import Kind, Record

OPT_IN, OPT_OUT = ConsentRules(), ConsentRules(regime="opt_out")
UPDATED = "Segment Consent Preference Updated"
P = "personalisation"


def record(evidence, *, at_ms=1_000, received_at_ms=None, name="Product Viewed", event=7):
    return Record(1, Kind.PRIMARY, "t", b"l" * 16, "user_id", event, "m", "track", name, at_ms,
                  at_ms + 10 if received_at_ms is None else received_at_ms, "web", 0, True, evidence)  # fmt: skip


def word(at_ms, *, denied, event=1, source="context"):
    return ConsentEntry(at_ms, denied=denied, event_id=event, source=source)


def fold(told):
    standing = told[0]
    for entry in told[1:]:
        standing = merge(standing, entry)
    return standing


entries = st.builds(
    ConsentEntry, st.integers(0, 4), st.booleans(), st.integers(0, 3), st.sampled_from(["context", "gpc", "event"]),
) | st.builds(
    lambda at, basis: ConsentEntry(basis_at_ms=at, basis=basis), st.integers(0, 4), st.sampled_from(["contract", "consent"]),
)  # fmt: skip
merged = st.lists(entries, min_size=1, max_size=4).map(fold)


@given(merged, merged, merged)
def test_merge_is_commutative_associative_and_idempotent(one, two, three):
    assert merge(one, two) == merge(two, one)
    assert merge(merge(one, two), three) == merge(one, merge(two, three))
    assert one == merge(one, one)


@given(st.data(), st.lists(entries, min_size=1, max_size=8))
def test_any_order_and_duplication_gives_the_same_entry(data, told):
    assert fold(told) == fold(data.draw(st.permutations(told + told[:3])))


@given(st.lists(entries, max_size=6), st.integers(0, 6))
def test_a_withdrawal_at_or_after_every_grant_always_wins(told, later_ms):
    at_ms = max((entry.at_ms for entry in told), default=0) + later_ms
    entry = fold([*told, word(at_ms, denied=True, event=0)])
    assert "denied" == status(entry, OPT_OUT)
    assert P not in permitted_purposes({P: entry}, OPT_OUT)


def test_deny_wins_a_tie_whatever_the_ids():
    assert merge(word(5, denied=True, event=1), word(5, denied=False, event=9)).denied
    assert not merge(word(5, denied=True, event=1), word(6, denied=False, event=1)).denied


def test_a_basis_grants_only_where_nothing_explicit_stands():
    basis = ConsentEntry(basis_at_ms=9, basis="contract")
    assert ["granted", "denied", "unknown"] == [
        status(entry, OPT_IN) for entry in (basis, merge(basis, word(1, denied=True)), ConsentEntry())
    ]  # fmt: skip
    earliest = merge(basis, ConsentEntry(basis_at_ms=3, basis="consent"))
    assert (3, "consent") == (earliest.basis_at_ms, earliest.basis)


def test_an_event_says_what_its_evidence_says():
    rules = ConsentRules(gpc_denies=("advertising",))
    evidence = stamp({P: True, "analytics": False}, True, {"measurement": "contract"}, rules)
    assert [
        ("advertising", word(1_000, denied=True, event=7, source="gpc"), None),
        ("analytics", word(1_000, denied=True, event=7, source="context"), None),
        ("measurement", ConsentEntry(basis_at_ms=1_000, basis="contract"), None),
        (P, word(1_000, denied=False, event=7, source="context"), None),
    ] == entries_of(record(evidence))  # fmt: skip


def test_an_event_without_evidence_says_nothing():
    assert [] == entries_of(record(stamp(None, False, {}, OPT_IN)))


def test_a_changed_preference_is_a_withdrawal_and_purges():
    evidence = stamp({P: False, "analytics": True}, False, {}, OPT_IN)
    assert [
        (P, word(1_000, denied=True, event=7, source="event"), 1_000),
        ("analytics", word(1_000, denied=False, event=7, source="event"), None),
    ] == entries_of(record(evidence, name=UPDATED))


@pytest.mark.parametrize("granted", [True, False])
def test_a_word_takes_effect_when_received_at_the_latest(granted):
    evidence = stamp({P: granted}, False, {}, OPT_IN)
    [(_, entry, purge_ms)] = entries_of(
        record(evidence, at_ms=300_000, received_at_ms=1_000, name=UPDATED)
    )
    assert 1_000 == entry.at_ms
    assert purge_ms == (None if granted else 1_000)


def test_a_grant_by_a_fast_clock_does_not_outlive_a_later_withdrawal():
    grant = record(stamp({P: True}, False, {}, OPT_IN), at_ms=400_000, received_at_ms=100_000)
    denial = record(
        stamp({P: False}, False, {}, OPT_IN), at_ms=160_000, received_at_ms=160_000, name=UPDATED
    )
    told = [entries_of(one)[0][1] for one in (denial, grant)]
    assert "denied" == status(fold(told), OPT_IN)


ledgers = st.dictionaries(st.sampled_from(PURPOSES), merged)


@given(st.data(), st.lists(ledgers, max_size=4), st.lists(ledgers, max_size=3))
def test_any_order_and_duplication_of_leaves_gives_the_same_ledger(data, verified, claims):
    shuffled = (
        data.draw(st.permutations(verified + verified[:1])),
        data.draw(st.permutations(claims + claims[:1])),
    )
    assert over_leaves(verified, claims) == over_leaves(*shuffled)


@given(st.lists(ledgers, max_size=3), st.lists(ledgers, max_size=3))
def test_a_claim_never_grants_against_a_verified_word(verified, claims):
    known, all_told = over_leaves(verified), over_leaves(verified, claims)
    for purpose, entry in known.items():
        if entry.source and entry.denied:
            assert "denied" == status(all_told[purpose], OPT_IN)


def test_a_later_claim_does_not_grant_what_a_verified_leaf_denied():
    verified, claim = {P: word(1, denied=True)}, {P: word(2, denied=False)}
    assert frozenset() == permitted_purposes(over_leaves([verified], [claim]), OPT_IN)


def test_a_claim_may_deny_and_may_grant_where_nobody_spoke():
    verified, claim = (
        {P: word(1, denied=False)},
        {P: word(2, denied=True), "analytics": word(2, denied=False)},
    )
    ledger = over_leaves([verified], [claim])
    assert frozenset({"analytics"}) == permitted_purposes(ledger, OPT_IN)


@given(ledgers)
def test_what_is_permitted_follows_the_regime_where_nothing_was_said(ledger):
    strict, loose = permitted_purposes(ledger, OPT_IN), permitted_purposes(ledger, OPT_OUT)
    unknown = {p for p in PURPOSES if p not in ledger or status(ledger[p], OPT_IN) == "unknown"}
    assert loose == strict | unknown
    assert not strict & unknown


def test_granted_after_an_instant():
    assert [False, True, False, False] == [
        granted_after(entry, 5)
        for entry in (None, word(6, denied=False), word(5, denied=False), word(6, denied=True))
    ]
    assert not granted_after(ConsentEntry(basis_at_ms=9, basis="contract"), 5)
