"""Permission to send: what denies it, who may lift it, and what a campaign is told."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.consent.evidence import stamp
from penstock.core.consent.purpose import ConsentRules
from penstock.core.consent.suppression import (
    Suppression,
    SuppressionKey,
    fold,
    may_send,
    merge,
    suppression_of,
)
from penstock.core.record import Evidence, Identifier, Kind, Record

USER, EMAIL, DEVICE = b"u" * 16, b"e" * 16, b"d" * 16


def record(name, *, verified=True, leaf=USER, evidence=None, at_ms=1_000, received_at_ms=2_000, kind=Kind.PRIMARY,
           **properties):  # fmt: skip
    return Record(1, kind, "t", leaf, "user_id", 7, "m", "track", name, at_ms, received_at_ms, "s", 0, verified,
                  evidence or Evidence("unknown"),
                  (Identifier("user_id", leaf, "u"), Identifier("email", EMAIL, "e")), (), properties)  # fmt: skip


def said(name, **given_):
    return [(key.leaf, key.plane, key.name, entry.denied, entry.reason)
            for key, entry in suppression_of(record(name, **given_))]  # fmt: skip


def test_most_events_say_nothing():
    assert [] == said("Product Viewed")
    assert [] == said("Unsubscribed", kind=Kind.LINK)


@pytest.mark.parametrize(
    ("properties", "plane", "name"),
    [
        ({}, "email", "*"),
        ({"topic": "news"}, "email", "news"),
        ({"topic": " news "}, "email", "news"),
        ({"channel": "sms", "topic": "news"}, "sms", "news"),
        ({"list_id": "77"}, "email", "*"),
        ({"topic": ["news"]}, "email", "*"),
        ({"topic": "x" * 200}, "email", "*"),
        ({"channel": "purpose"}, "email", "*"),
    ],
)
def test_an_unsubscribe_denies_on_the_leaf_and_on_the_email(properties, plane, name):
    expected = [(leaf, plane, name, True, "unsubscribe") for leaf in (USER, EMAIL)]
    assert expected == said("Unsubscribed", **properties)


def test_an_unsubscribe_of_an_email_leaf_is_one_entry():
    assert [(EMAIL, "email", "*", True, "unsubscribe")] == said("Unsubscribed", leaf=EMAIL)


@pytest.mark.parametrize(
    ("properties", "count"),
    [({"bounce_type": "hard"}, 2), ({"bounceType": "Permanent"}, 2), ({"type": "HardBounce"}, 2),
     ({"severity": "permanent"}, 2), ({"bounce_type": "soft"}, 0), ({"type": "Transient"}, 0), ({}, 0)],
)  # fmt: skip
def test_only_a_hard_bounce_counts(properties, count):
    assert [(leaf, "email", "*", True, "bounce") for leaf in (USER, EMAIL)][:count] == said(
        "Email Bounced", **properties
    )


def test_a_complaint_denies_everything():
    assert [(leaf, "email", "*", True, "complaint") for leaf in (USER, EMAIL)] == said(
        "Email Marked as Spam", topic="news"
    )


def test_a_stranger_may_deny_but_neither_lift_nor_report():
    assert 2 == len(said("Unsubscribed", verified=False))
    assert [] == said("Subscribed", verified=False)
    assert [] == said("Email Marked as Spam", verified=False)
    assert [] == said("Email Bounced", verified=False, bounce_type="hard")


def test_subscribing_lifts_for_a_topic_or_for_all_and_never_more_than_was_said():
    assert [(USER, "email", "news", False, "resubscribe"), (EMAIL, "email", "news", False, "resubscribe")] == said(
        "Subscribed", topic="news")  # fmt: skip
    assert 2 == len(said("Subscribed"))
    assert [] == said("Subscribed", topic=["news"])
    assert [] == said("Subscribed", channel="purpose", topic="personalisation")


def test_a_changed_preference_withdraws_purposes():
    evidence = stamp(
        {"personalisation": False, "analytics": True},
        False,
        {"measurement": "contract"},
        ConsentRules(),
    )
    changed = "Segment Consent Preference Updated"
    both = [("personalisation", True, "withdrawal"), ("analytics", False, "grant")]
    assert [(leaf, "purpose", *one) for one in both for leaf in (USER, EMAIL)] == said(
        changed, evidence=evidence
    )
    assert [
        (DEVICE, "purpose", "personalisation", True, "withdrawal"),
        (EMAIL, "purpose", "personalisation", True, "withdrawal"),
        (DEVICE, "purpose", "analytics", False, "grant"),
    ] == said(changed, evidence=evidence, verified=False, leaf=DEVICE)
    assert [] == said("Product Viewed", evidence=evidence)


def test_an_entry_takes_effect_when_received_at_the_latest():
    [(_, entry), _] = suppression_of(record("Unsubscribed", at_ms=9_000, received_at_ms=2_000))
    assert Suppression(2_000, True, 7, "unsubscribe") == entry


words = st.builds(
    Suppression,
    st.integers(0, 3),
    st.booleans(),
    st.integers(0, 2),
    st.sampled_from(["unsubscribe", "bounce"]),
)
keyed = st.lists(st.tuples(st.builds(SuppressionKey, st.sampled_from([USER, EMAIL]), st.just("email"),
                                     st.sampled_from(["*", "news"])), words), max_size=8)  # fmt: skip


@given(words, words, words)
def test_merge_is_commutative_associative_and_idempotent(one, two, three):
    assert merge(one, two) == merge(two, one)
    assert merge(merge(one, two), three) == merge(one, merge(two, three))
    assert one == merge(one, one)


def folded(entries):
    register = {}
    fold(register, entries)
    return register


@given(st.data(), keyed)
def test_any_order_and_duplication_gives_the_same_register(data, entries):
    shuffled = data.draw(st.permutations(entries + entries[:3]))
    assert folded(entries) == folded(shuffled)


@given(keyed)
def test_a_later_unsubscribe_from_everything_always_stops(entries):
    register = folded(
        [*entries, (SuppressionKey(EMAIL, "email", "*"), Suppression(9, True, 0, "unsubscribe"))]
    )
    assert (False, "unsubscribe") == may_send(register, "email", "news")
    assert (True, "") == may_send(register, "sms", "news")


def register(*told, leaf=EMAIL):
    return {SuppressionKey(leaf, "email", name): Suppression(at_ms, denied, 1, reason)
            for name, at_ms, denied, reason in told}  # fmt: skip


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ([], (True, "")),
        ([("*", 1, True, "unsubscribe")], (False, "unsubscribe")),
        ([("news", 1, True, "unsubscribe")], (False, "unsubscribe")),
        ([("sale", 1, True, "unsubscribe")], (True, "")),
        ([("*", 1, True, "unsubscribe"), ("news", 2, False, "resubscribe")], (True, "")),
        (
            [("*", 2, True, "unsubscribe"), ("news", 2, False, "resubscribe")],
            (False, "unsubscribe"),
        ),
        ([("*", 1, True, "complaint"), ("news", 2, False, "resubscribe")], (False, "complaint")),
        ([("*", 1, True, "bounce"), ("news", 2, False, "resubscribe")], (False, "bounce")),
        ([("*", 2, False, "resubscribe"), ("news", 1, True, "unsubscribe")], (True, "")),
        (
            [("*", 1, False, "resubscribe"), ("news", 1, True, "unsubscribe")],
            (False, "unsubscribe"),
        ),
    ],
)
def test_may_send(told, expected):
    assert expected == may_send(register(*told), "email", "news")


def test_a_denial_on_any_leaf_of_the_person_counts():
    entries = register(("*", 1, False, "resubscribe")) | register(
        ("*", 2, True, "unsubscribe"), leaf=USER
    )
    assert (False, "unsubscribe") == may_send(entries, "email", "news")
