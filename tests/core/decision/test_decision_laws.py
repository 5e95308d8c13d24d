"""Laws of decisions, over random people, catalogues and slots."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.core.decision.campaign import Campaign
from penstock.core.decision.decide import decide, wanted_items
from penstock.core.decision.explain import explain
from penstock.core.decision.item import Item
from penstock.core.decision.predicate import Names
from penstock.core.decision.record import FATES_MAX, decode_decision, encode_decision
from penstock.core.decision.slot import check_slot
from penstock.dsl.slots import (
    epsilon,
    feature,
    fixed,
    permitted,
    ranked,
    recently_viewed,
    rule,
    slot,
    top_of_favourite_category,
    trait,
    viewed_not_bought,
)

IDS = [f"i{n}" for n in range(8)]
FEATURES = ("seen", "bought", "top", "views")
ids = st.lists(st.sampled_from(IDS), unique=True, max_size=8)
features = st.fixed_dictionaries(
    {},
    optional={
        "seen": ids,
        "bought": ids,
        "top": st.lists(st.sampled_from("xyz"), unique=True),
        "views": st.integers(0, 5),
    },
)
guards = st.sampled_from(
    [
        feature("views") > 2,
        ~(feature("views") > 2),
        trait("plan") == "pro",
        ~(trait("plan") == "pro"),
        permitted("personalisation"),
        ~permitted("advertising"),
        (feature("views") > 2) | ~feature("seen").contains("i1"),
    ]
)
plain_sources = st.one_of(
    st.builds(
        lambda names, order: fixed(*names, order=order),
        ids.filter(bool),
        st.sampled_from(["given", "rank", "any"]),
    ),
    st.just(recently_viewed("seen")),
    st.just(viewed_not_bought(viewed="seen", bought="bought")),
    st.just(top_of_favourite_category("top", items={"x": IDS[:3], "y": IDS[3:]}, categories=2)),
    st.just(top_of_favourite_category("top", items=IDS, order="rank")),
    st.just(fixed(content={"title": "Hello"})),
)
sources = st.one_of(
    plain_sources, st.builds(lambda when, then: rule(when=when, then=then), guards, plain_sources)
)
slots = st.builds(
    lambda candidates, fallback, **more: slot(
        "hero", candidates=candidates, fallback=[*fallback, {"title": "New in"}], **more
    ),
    st.lists(sources, min_size=1, max_size=4),
    st.lists(sources, max_size=2),
    policy=st.sampled_from([ranked(), epsilon(0.5)]),
    limit=st.integers(1, 4),
    bought=st.sampled_from([(), "bought"]),
    unless=st.one_of(st.none(), guards),
)
catalogues = st.dictionaries(
    st.sampled_from(IDS),
    st.fixed_dictionaries(
        {"title": st.just("T"), "url": st.just("https://shop.example/")},
        optional={
            "stock": st.integers(0, 1),
            "rank": st.integers(1, 3),
            "category": st.sampled_from("xyz"),
            "ends_at": st.sampled_from([1, 9_999]),
        },
    ),
)
plans = st.sampled_from([{}, {"plan": "pro"}])


def make(hero: Any, profile: Any, catalogue: dict[str, Any], **more: Any) -> Any:
    campaign = Campaign(name="c", slots=(hero,))
    holdout = more.get("holdout", "")
    # Only what was asked for is given, as a flow does.
    wanted = wanted_items(campaign, profile, holdout=holdout)
    items = {name: Item(name, catalogue[name], 1) for name in wanted if name in catalogue}
    arguments = {
        "tenant": "t", "recipient": b"r" * 16, "send": "s", "decision_id": "d", "as_of_ms": 5_000,
        "offset_known_at": 1, **more,
    }  # fmt: skip
    return decide(campaign, profile, items, **arguments)


def eligible(decision: Any) -> set[str]:
    """Return the keys of the first stage that were not refused."""
    made = decision.slots[0]
    count = made.eligible
    keys = [fate.key for fate in made.fates if fate.reason in ("chosen", "ranked_below")]
    return set(keys[:count])


@settings(max_examples=100, deadline=None)
@given(slots, features, plans, catalogues)
def test_the_same_arguments_give_the_same_bytes_in_any_order_of_items(
    person, hero, values, traits, catalogue
) -> None:
    profile = person(values, traits=traits)
    backwards = dict(reversed(catalogue.items()))
    raw = encode_decision(make(hero, profile, catalogue))
    assert raw == encode_decision(make(hero, profile, backwards))
    assert make(hero, profile, catalogue) == decode_decision(raw)


@settings(max_examples=100, deadline=None)
@given(slots, features, plans, catalogues, st.sets(st.sampled_from([*FEATURES, "plan"])))
def test_withholding_features_never_adds_a_candidate(
    person, hero, values, traits, catalogue, hidden
) -> None:
    before = make(hero, person(values, traits=traits), catalogue)
    after = make(hero, person(values, traits=traits, withheld=tuple(hidden)), catalogue)
    assert eligible(after) <= eligible(before)


@settings(max_examples=100, deadline=None)
@given(slots, features, plans, catalogues)
def test_withdrawing_the_purpose_never_adds_a_candidate_and_reads_nothing(
    person, hero, values, traits, catalogue
) -> None:
    before = make(hero, person(values, traits=traits), catalogue)
    hidden = (*FEATURES, "plan")
    after = make(hero, person(values, traits=traits, permitted=(), withheld=hidden), catalogue)
    assert eligible(after) <= eligible(before)
    assert ({}, {}) == (after.slots[0].features, after.slots[0].traits)


@settings(max_examples=100, deadline=None)
@given(
    slots,
    st.one_of(st.none(), features),
    catalogues,
    st.sampled_from([(), ("personalisation",)]),
    st.sampled_from(["", "global"]),
)
def test_a_slot_is_never_empty_and_every_candidate_has_a_fate(
    person, hero, values, catalogue, purposes, holdout
) -> None:
    check_slot(hero, Names(features=frozenset(FEATURES), traits=frozenset({"plan"})))
    profile = None if values is None else person(values, permitted=purposes)
    decision = make(hero, profile, catalogue, holdout=holdout)
    made = decision.slots[0]
    assert 1 <= len(made.items) <= hero.limit
    assert all(chosen.fields or chosen.block for chosen in made.items)
    assert len(made.fates) <= FATES_MAX
    assert {chosen.key for chosen in made.items} == {
        fate.key for fate in made.fates if fate.reason == "chosen"
    }
    story = explain(decision).slots[0]
    assert len(made.fates) == len(story.candidates)
    assert all(one.meaning != one.reason for one in story.candidates)


@settings(max_examples=50, deadline=None)
@given(slots, features, features, catalogues)
def test_held_out_content_is_the_same_for_everybody(
    person, hero, values, others, catalogue
) -> None:
    one = make(hero, person(values), catalogue, holdout="global").slots
    other = make(hero, person(others), catalogue, holdout="global").slots
    assert one == other
