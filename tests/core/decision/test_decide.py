"""A slot decided: sources, eligibility, ranking, fallback, holdout."""

import pytest

from penstock.core.decision.campaign import Campaign
from penstock.core.decision.candidate import SourceNote
from penstock.core.decision.decide import decide, wanted_items
from penstock.core.decision.policy import MILLION, Propensity
from penstock.core.decision.record import Decision, Fate
from penstock.dsl.slots import (
    epsilon,
    feature,
    fixed,
    item,
    recently_viewed,
    rule,
    slot,
    source,
    top_of_favourite_category,
    trait,
    viewed_not_bought,
)

NEW_IN = {"title": "New in"}


def shown(decision: Decision) -> list[str]:
    return [chosen.item_id or chosen.key for chosen in decision.slots[0].items]


def fates(decision: Decision) -> dict[str, str]:
    return {fate.key.removeprefix("item:"): fate.reason for fate in decision.slots[0].fates}


# -- sources -----------------------------------------------------------------------------------


def test_recently_viewed_shows_the_newest_first(person, an, decided) -> None:
    hero = slot("hero", candidates=[recently_viewed("seen")], fallback=NEW_IN, limit=2)
    decision = decided(hero, person({"seen": ["c", "a", "b"]}), [an("a"), an("b"), an("c")])
    assert ["c", "a"] == shown(decision)
    assert {"c": "chosen", "a": "chosen", "b": "ranked_below"} == fates(decision)


def test_viewed_not_bought_leaves_out_what_was_bought(person, an, decided) -> None:
    sources = [viewed_not_bought(viewed="seen", bought="bought")]
    hero = slot("hero", candidates=sources, fallback=NEW_IN, limit=3)
    profile = person({"seen": ["c", "a", "b"], "bought": {"a": 2}})
    assert ["c", "b"] == shown(decided(hero, profile, [an("a"), an("b"), an("c")]))


CATEGORIES = {"top": [{"value": "boots", "count": 4}, {"value": "hats", "count": 1}]}


def test_the_top_of_a_favourite_category_by_a_ranking_per_category(person, an, decided) -> None:
    ranking = {"hats": ["h1"], "boots": ["b1", "b2"]}
    one = top_of_favourite_category("top", items=ranking)
    two = top_of_favourite_category("top", items=ranking, categories=2)
    items = [an(name) for name in ("h1", "b1", "b2")]
    for sources, expected in ((one, ["b1", "b2"]), (two, ["b1", "b2", "h1"])):
        hero = slot("hero", candidates=[sources], fallback=NEW_IN, limit=3)
        assert expected == shown(decided(hero, person(CATEGORIES), items))


def test_the_top_of_a_favourite_category_by_the_rank_of_items(person, an, decided) -> None:
    pool = top_of_favourite_category(
        "top", items=["x", "h1", "b2", "b1", "b0"], categories=2, order="rank"
    )
    hero = slot("hero", candidates=[pool], fallback=NEW_IN, limit=9)
    items = [
        an("b1", category="boots", rank=1),
        an("b2", category="boots", rank=2),
        an("b0", category="boots"),
        an("h1", category="hats", rank=1),
        an("x", category="bags", rank=1),
    ]
    decision = decided(hero, person(CATEGORIES), items)
    assert ["b1", "b2", "b0", "h1"] == shown(decision)
    assert "other_category" == fates(decision)["x"]


def test_fixed_items_may_rank_by_affinity(person, an, decided) -> None:
    sources = fixed("x", "h1", "b1", order="affinity", affinity="top")
    hero = slot("hero", candidates=[sources], fallback=NEW_IN, limit=3)
    items = [an("b1", category="boots"), an("h1", category="hats"), an("x", category="bags")]
    assert ["b1", "h1", "x"] == shown(decided(hero, person(CATEGORIES), items))


def test_a_rule_offers_to_those_for_whom_it_holds(person, an, decided) -> None:
    vip = rule(when=(feature("orders") > 3) & (trait("plan") == "pro"), then=fixed("gift"))
    hero = slot("hero", candidates=[vip, fixed("usual")], fallback=NEW_IN)
    items = [an("gift"), an("usual")]
    yes = decided(hero, person({"orders": 4}, traits={"plan": "pro"}), items)
    no = decided(hero, person({"orders": 3}, traits={"plan": "pro"}), items)
    assert ["gift"] == shown(yes)
    assert ["usual"] == shown(no)
    assert SourceNote("fixed#1", "when_false", 0) == no.slots[0].sources[0]
    assert ({"orders": 4}, {"plan": "pro"}) == (yes.slots[0].features, yes.slots[0].traits)


def test_an_earlier_source_ranks_higher_and_an_item_counts_once(person, an, decided) -> None:
    sources = [fixed("b", label="picks"), recently_viewed("seen")]
    hero = slot("hero", candidates=sources, fallback=NEW_IN, limit=3)
    decision = decided(hero, person({"seen": ["a", "b"]}), [an("a"), an("b")])
    assert ["b", "a"] == shown(decision)
    expected = (
        Fate("item:b", "picks", "chosen", (0, 0, 0)),
        Fate("item:a", "recently_viewed", "chosen", (1, 0, 0)),
        Fate("item:b", "recently_viewed", "duplicate"),
    )
    assert expected == decision.slots[0].fates


def test_content_and_blocks_are_candidates_like_items(person, decided) -> None:
    hi = rule(when=feature("orders") == 0, then=fixed(content={"title": "Hi"}, block="welcome"))
    hero = slot("hero", candidates=[hi], fallback="plain")
    chosen = decided(hero, person({"orders": 0}), []).slots[0].items[0]
    assert ({"title": "Hi"}, "welcome", "") == (chosen.fields, chosen.block, chosen.item_id)
    assert ["block:plain"] == shown(decided(hero, person({"orders": 1}), []))


def test_an_unknown_kind_of_value_offers_nothing(person, decided) -> None:
    hero = slot("hero", candidates=[recently_viewed("seen")], fallback=NEW_IN)
    decision = decided(hero, person({"seen": 1.5}), [])
    assert "none_offered" == decision.slots[0].fallback_reason


# -- eligibility -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"url": None}, "missing:url"),
        ({"title": ""}, "missing:title"),
        ({"stock": 0}, "out_of_stock"),
        ({"starts_at": 2_001}, "not_started"),
        ({"ends_at": 2_000}, "ended"),
        ({"ends_at": "then"}, "unreadable:ends_at"),
        ({"category": "gift"}, "unless"),
    ],
)
def test_an_item_is_refused_with_a_reason(person, an, decided, fields, reason) -> None:
    hero = slot("hero", candidates=[fixed("a")], fallback=NEW_IN, unless=item("category") == "gift")
    decision = decided(hero, person(), [an("a", **fields)])
    assert {"a": reason} == {key: why for key, why in fates(decision).items() if key == "a"}
    assert (True, "none_eligible") == (
        decision.slots[0].fallback_used,
        decision.slots[0].fallback_reason,
    )
    assert NEW_IN == decision.slots[0].items[0].fields


def test_an_item_that_the_catalogue_lacks_is_refused(person, decided) -> None:
    hero = slot("hero", candidates=[fixed("a")], fallback=NEW_IN, require=())
    assert "no_item" == fates(decided(hero, person(), []))["a"]


def test_stock_and_dates_may_be_left_to_the_author(person, an, decided) -> None:
    hero = slot("hero", candidates=[fixed("a")], fallback=NEW_IN, stock=False, dates=False)
    assert ["a"] == shown(decided(hero, person(), [an("a", stock=0, ends_at=1)]))


def test_what_was_bought_is_not_shown_again(person, an, decided) -> None:
    hero = slot("hero", candidates=[fixed("a", "b")], fallback=NEW_IN, bought=["mine", "gifts"])
    decision = decided(hero, person({"mine": ["a"], "gifts": []}), [an("a"), an("b")])
    assert ["b"] == shown(decision)
    assert "already_bought" == fates(decision)["a"]


# -- consent -----------------------------------------------------------------------------------


def test_without_consent_nothing_about_the_person_is_used(person, an, decided) -> None:
    hero = slot(
        "hero",
        candidates=[recently_viewed("seen"), fixed("b")],
        fallback=[recently_viewed("seen"), fixed("c"), NEW_IN],
        bought="mine",
    )
    profile = person({"seen": ["a"], "mine": []}, permitted=())
    decision = decided(hero, profile, [an("a"), an("b"), an("c")])
    made = decision.slots[0]
    # `b` is refused too: whether it was bought may not be known.
    assert {"b": "consent", "c": "chosen"} == fates(decision)
    assert ["c"] == shown(decision)
    assert ("consent", {}, ()) == (made.fallback_reason, made.features, decision.permitted)
    assert ["consent", "asked", "consent", "asked"] == [note.state for note in made.sources]
    assert ["b", "c"] == wanted_items(Campaign(name="x", slots=(hero,)), profile)


def test_a_withheld_feature_silences_its_source_only(person, an, decided) -> None:
    hero = slot(
        "hero",
        candidates=[viewed_not_bought(viewed="seen", bought="mine"), recently_viewed("seen")],
        fallback=NEW_IN,
    )
    profile = person({"seen": ["a"]}, withheld=("mine",))
    decision = decided(hero, profile, [an("a")])
    assert ["a"] == shown(decision)
    assert SourceNote("viewed_not_bought", "withheld", 0) == decision.slots[0].sources[0]
    assert {"seen": ["a"]} == decision.slots[0].features


def test_a_rule_that_may_not_be_judged_refuses(person, an, decided) -> None:
    hero = slot(
        "hero", candidates=[fixed("a")], fallback=NEW_IN, unless=feature("risk") > 1, bought="mine"
    )
    for withheld in ("risk", "mine"):
        profile = person({"risk": 0, "mine": []}, withheld=(withheld,))
        assert "withheld" == fates(decided(hero, profile, [an("a")]))["a"]


# -- ranking and policy ------------------------------------------------------------------------


def test_ties_are_broken_by_the_decision_id_and_are_part_of_the_propensity(
    person, an, decided
) -> None:
    hero = slot("hero", candidates=[fixed("a", "b", order="any")], fallback=NEW_IN)
    decisions = [
        decided(hero, person(), [an("a"), an("b")], decision_id=f"d{n}") for n in range(200)
    ]
    first = [shown(decision)[0] for decision in decisions]
    assert 70 <= first.count("a") <= 130
    assert {Propensity(1, 2)} == {d.slots[0].items[0].propensity for d in decisions}


def test_a_uniform_share_of_the_campaign_holds_for_every_policy(person, an, decided) -> None:
    items = [an("a"), an("b")]
    plain = slot("hero", candidates=[fixed("a", "b")], fallback=NEW_IN)
    bold = slot("hero", candidates=[fixed("a", "b")], fallback=NEW_IN, policy=epsilon(0.5))
    certain = decided(plain, person(), items).slots[0]
    drawn = decided(plain, person(), items, uniform_share_ppm=MILLION).slots[0]
    more = decided(bold, person(), items, uniform_share_ppm=100_000).slots[0]
    assert ("ranked", False, Propensity(1, 1)) == (
        certain.policy,
        certain.explored,
        certain.items[0].propensity,
    )
    assert (True, Propensity(1, 2)) == (drawn.explored, drawn.items[0].propensity)
    assert "epsilon uniform=500000ppm" == more.policy
    assert 3 == len({certain.policy_version, drawn.policy_version, more.policy_version})


def test_a_source_that_fails_costs_its_candidates_only(person, an, decided) -> None:
    broken = source("top_of_favourite_category", feature="top", items=7)
    hero = slot("hero", candidates=[broken, fixed("a")], fallback=NEW_IN)
    decision = decided(hero, person(CATEGORIES), [an("a")])
    assert ["a"] == shown(decision)
    assert "failed" == decision.slots[0].sources[0].state


def test_sources_have_bounded_room_and_the_rest_is_counted(person, an, decided) -> None:
    names = [f"i{n}" for n in range(100)]
    hero = slot("hero", candidates=[recently_viewed("seen"), fixed("x")], fallback=NEW_IN)
    decision = decided(hero, person({"seen": names}), [an("i0")])
    assert (65, 36) == (decision.slots[0].beyond, len(decision.slots[0].fates))


# -- fallback and holdout ----------------------------------------------------------------------


def test_the_first_fallback_with_anything_to_show_is_taken(person, an, decided) -> None:
    hero = slot(
        "hero",
        candidates=[recently_viewed("seen")],
        fallback=[fixed("gone"), fixed("there"), NEW_IN],
    )
    decision = decided(hero, person({"seen": []}), [an("there"), an("gone", stock=0)])
    assert ["there"] == shown(decision)
    assert {"gone": "out_of_stock", "there": "chosen"} == fates(decision)
    assert "none_offered" == decision.slots[0].fallback_reason


def test_held_out_is_decided_without_reading_the_person(person, an, decided) -> None:
    hero = slot(
        "hero",
        candidates=[recently_viewed("seen"), fixed("b")],
        fallback=[recently_viewed("seen"), fixed("b"), NEW_IN],
        bought="mine",
    )
    profile = person({"seen": ["a"], "mine": ["b"]})
    decision = decided(hero, profile, [an("a"), an("b")], holdout="campaign")
    assert ("holdout", "campaign", ()) == (decision.served, decision.reason, decision.permitted)
    assert ["b"] == shown(decision)
    assert {} == decision.slots[0].features
    campaign = Campaign(name="x", slots=(hero,))
    assert ["b"] == wanted_items(campaign, profile, holdout="campaign")


def test_without_a_profile_the_fallback_is_served_with_the_reason(an, decided) -> None:
    hero = slot("hero", candidates=[fixed("a")], fallback=NEW_IN)
    decision = decided(hero, None, [an("a")], reason="store_unavailable")
    assert ("fallback", "store_unavailable") == (decision.served, decision.reason)
    assert (0, -1) == (decision.profile_as_of_ms, decision.known_at)
    assert NEW_IN == decision.slots[0].items[0].fields
    assert "no_profile" == decided(hero, None, []).reason


def test_a_stale_profile_is_said_to_be_one(person, an, decided) -> None:
    hero = slot("hero", candidates=[fixed("a")], fallback=NEW_IN)
    decision = decided(hero, person(), [an("a")], freshness="stale", reason="catching_up")
    assert ("stale", "catching_up", 1_000, 41) == (
        decision.served,
        decision.reason,
        decision.profile_as_of_ms,
        decision.known_at,
    )


def test_what_is_shown_is_recorded_as_it_was(person, an, decided) -> None:
    hero = slot("hero", candidates=[fixed("a")], fallback=NEW_IN, show=["title", "price", "gone"])
    chosen = decided(hero, person(), [an("a", price=[999, "GBP"], stock=4)]).slots[0].items[0]
    assert {"title": "A", "price": [999, "GBP"]} == chosen.fields
    assert 7 == chosen.item_version


def test_one_slot_may_be_decided_alone_at_open_time(person, an) -> None:
    slots = tuple(slot(name, candidates=[fixed("a")], fallback=NEW_IN) for name in ("one", "two"))
    campaign = Campaign(name="c", slots=slots)
    decision = decide(
        campaign, person(), {"a": an("a")}, tenant="t", recipient=person().leaves[0], send="s",
        decision_id="d", as_of_ms=1, offset_known_at=1, slot="two",
    )  # fmt: skip
    assert ("two", ["two"]) == (decision.slot, [one.name for one in decision.slots])
