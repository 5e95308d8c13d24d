"""Explanations: complete, from the record alone, and readable."""

from penstock.core.decision.eligibility import REASONS
from penstock.core.decision.explain import explain, features_used, meaning
from penstock.dsl.slots import feature, fixed, recently_viewed, rule, slot, trait

HERO = slot(
    "hero",
    candidates=[
        recently_viewed("seen"),
        rule(when=trait("plan") == "pro", then=fixed("vip"), label="vips"),
    ],
    fallback={"title": "New in"},
    bought="mine",
    unless=feature("risk") > 1,
)


def test_it_reads_as_a_story(person, an, decided) -> None:
    profile = person({"seen": ["b", "a", "gone"], "mine": ["b"], "risk": 0})
    items = [an("a"), an("b")]
    decision = decided(HERO, profile, items, decision_id="d-7")
    explanation = explain(decision, {"seen": ["Product Viewed of a at 2026-11-25T10:00:00Z"]})
    expected = (
        "decision d-7, campaign welcome v3, send 2026-11-25",
        "decided on the live profile, at 1970-01-01T00:00:02.000Z",
        "permitted: personalisation",
        "slot hero: item:a (probability 1/1)",
        "  by rank among 1 eligible; policy ranked",
        "  source recently_viewed: asked, 3 offered",
        "  source vips: not asked: its `when` does not hold, 0 offered",
        "  already_bought   item:b from recently_viewed: the person has bought it",
        "  chosen           item:a from recently_viewed: it was eligible and ranked or drawn first",
        "  no_item          item:gone from recently_viewed: the catalogue holds no such item",
        '  feature mine = ["b"]',
        "  feature risk = 0",
        '  feature seen = ["b","a","gone"]',
        "    Product Viewed of a at 2026-11-25T10:00:00Z",
        "  trait plan = null",
    )
    assert expected == explanation.lines
    assert ["mine", "risk", "seen"] == features_used(decision)
    story = explanation.slots[0]
    assert (("item:a",), ("1/1",), 1) == (story.shows, story.propensities, story.eligible)
    assert ["b", "a", "gone"] == [one.key.removeprefix("item:") for one in story.candidates]


def test_a_feature_that_lacks_history_says_since_when_it_is_complete(person, decided) -> None:
    decision = decided(HERO, person({"seen": [], "mine": [], "risk": 3}), [])
    lines = explain(decision, complete_since={"risk": 1_000}).lines
    assert "  feature risk = 3, complete since 1970-01-01T00:00:01.000Z" in lines


def test_a_holdout_and_a_refusal_say_so(person, decided) -> None:
    held = explain(decided(HERO, person(), [], holdout="global")).lines
    assert (
        "held out: sees what everybody would, so that the effect can be measured (global)"
        in (held[1].partition(", at")[0])
    )
    assert "  fallback: the recipient is held out" in held
    refused = explain(decided(HERO, person(permitted=()), [])).lines
    assert "permitted: nothing" in refused
    assert "  fallback: the person does not permit the slot's purpose" in refused


def test_what_is_long_is_cut_and_what_is_beyond_is_said(person, decided) -> None:
    profile = person({"seen": [f"item-{n}" for n in range(60)], "mine": [], "risk": 0})
    lines = explain(decided(HERO, profile, [])).lines
    assert "  42 more were offered and not considered" in lines
    seen = next(line for line in lines if line.startswith("  feature seen"))
    assert seen.endswith("…")
    assert len(seen) < 150


def test_a_detail_is_named_and_an_unknown_code_stands_for_itself() -> None:
    assert "the item lacks a field that the slot requires: url" == meaning("missing:url")
    assert "brand_new" == meaning("brand_new")
    assert all(text and text != code for code, text in REASONS.items())
