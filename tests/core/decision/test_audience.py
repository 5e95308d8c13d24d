"""Audiences: who is in, and why not."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.core.decision.audience import (
    Audience,
    Match,
    audiences_by_name,
    check_audience,
    matches,
)
from penstock.core.decision.predicate import Names
from penstock.core.errors import DefinitionError
from penstock.dsl.audiences import audience, subscribed
from penstock.dsl.slots import feature, permitted, trait

LAPSED = audience("lapsed", when=feature("days") > 90, topic="news")


@pytest.mark.parametrize(
    ("given_", "refused", "expected"),
    [
        ({"features": {"days": 91}}, (), Match(True, "matches")),
        ({"features": {"days": 90}}, (), Match(False, "when_false")),
        ({"features": {"days": 91}}, ("news",), Match(False, "unsubscribed")),
        ({"features": {"days": 91}}, ("*",), Match(False, "unsubscribed")),
        ({"features": {"days": 91}}, ("sales",), Match(True, "matches")),
        ({"features": {"days": 91}, "permitted": ()}, (), Match(False, "consent")),
        ({"features": {"days": 91}, "withheld": ("days",)}, (), Match(False, "withheld")),
    ],
)
def test_a_person_matches_or_there_is_a_reason(person, given_, refused, expected) -> None:
    assert expected == matches(LAPSED, person(**given_), refused_topics=frozenset(refused))


def test_an_audience_of_everybody_needs_no_purpose(person) -> None:
    everybody = audience("everybody", purpose="")
    assert matches(everybody, person(permitted=())).matches
    assert not matches(audience("asked"), person(permitted=())).matches


@settings(max_examples=60, deadline=None)
@given(
    when=st.sampled_from(
        [
            feature("days") > 1,
            ~(feature("days") > 1),
            ~permitted("advertising"),
            ~subscribed("sales") | (trait("plan") == "pro"),
            subscribed("sales"),
        ]
    ),
    days=st.integers(0, 2),
    withdrawn=st.sets(st.sampled_from(["personalisation", "advertising"])),
    hidden=st.sets(st.sampled_from(["days", "plan"])),
    refused=st.sets(st.sampled_from(["news", "sales", "*"])),
)
def test_withdrawing_or_unsubscribing_never_adds_a_person(
    person, when, days, withdrawn, hidden, refused
) -> None:
    one = audience("one", when=when, topic="news")
    both = {"personalisation", "advertising"}
    before = matches(one, person({"days": days}, traits={"plan": "pro"}, permitted=tuple(both)))
    profile = person(
        {"days": days},
        traits={"plan": "pro"},
        permitted=tuple(both - withdrawn),
        withheld=tuple(hidden),
    )
    after = matches(one, profile, refused_topics=frozenset(refused))
    assert before.matches or not after.matches


NAMES = Names(
    features=frozenset({"days"}),
    topics=frozenset({"news"}),
    purposes=frozenset({"personalisation"}),
)


@pytest.mark.parametrize(
    ("wrong", "code"),
    [
        (Audience(name="a", when=feature("dayz") > 1), "E150"),
        (Audience(name="a", topic="newz"), "E162"),
        (Audience(name="a", purpose="fun"), "E157"),
        (Audience(name="a", when=feature("days") > 1, purpose=""), "E154"),
    ],
)
def test_an_audience_is_checked(wrong, code) -> None:
    with pytest.raises(DefinitionError, match=code):
        check_audience(wrong, NAMES)


def test_a_good_audience_passes_and_names_are_unique() -> None:
    check_audience(LAPSED, NAMES)
    assert {"lapsed": LAPSED} == audiences_by_name([LAPSED])
    with pytest.raises(DefinitionError, match="two audiences are called `lapsed`"):
        audiences_by_name([LAPSED, audience("lapsed")])
