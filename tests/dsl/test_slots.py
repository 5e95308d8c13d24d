"""What authors write in slots.py, and what is refused when a project is loaded."""

import pytest

from penstock.core.decision import sources
from penstock.core.decision.candidate import Proposal, Source
from penstock.core.decision.policy import Policy
from penstock.core.decision.predicate import AllOf, Names
from penstock.core.decision.ready import ready_slot
from penstock.core.decision.slot import check_slot, policy_version, reads, slots_by_name
from penstock.core.decision.sources import kinds
from penstock.core.errors import DefinitionError
from penstock.dsl.slots import (
    candidate_source,
    epsilon,
    feature,
    fixed,
    item,
    ranked,
    recently_viewed,
    rule,
    slot,
    source,
    top_of_favourite_category,
    trait,
    viewed_not_bought,
)

NAMES = Names(
    features=frozenset({"seen", "bought", "views_7d", "top"}),
    traits=frozenset({"plan"}),
    purposes=frozenset({"personalisation"}),
    templates=frozenset({"hero", "welcome"}),
)
STATIC = {"title": "New in"}


def hero(**more):
    arguments = {"candidates": [recently_viewed("seen")], "fallback": STATIC, **more}
    return slot("hero", **arguments)


def test_a_slot_knows_where_it_was_written() -> None:
    made = slot("hero", candidates=[recently_viewed("seen")], fallback=STATIC)
    file, _, line = made.where.partition(":")
    assert "test_slots.py" == file
    assert 0 < int(line)


def test_defaults() -> None:
    made = hero()
    assert (Policy("ranked"), 1, "personalisation", ("title", "url")) == (
        made.policy,
        made.limit,
        made.purpose,
        made.require,
    )
    assert (Source(kind="fixed", args={"content": STATIC}),) == made.fallback
    check_slot(made, NAMES)


def test_a_fallback_may_be_a_source_content_a_block_a_rule_or_a_list() -> None:
    block = Source(kind="fixed", args={"block": "welcome"})
    assert (block,) == hero(fallback="welcome").fallback
    assert (block,) == hero(fallback=fixed(block="welcome")).fallback
    chain = [fixed("a"), rule(when=feature("views_7d") > 1, then=fixed("b")), "welcome"]
    assert [("a",), ("b",), ()] == [
        tuple(one.args.get("items", ())) for one in hero(fallback=chain).fallback
    ]
    check_slot(hero(fallback=chain), NAMES)


def test_rules_stand_in_rules_and_guards_join() -> None:
    inner = rule(when=trait("plan") == "pro", then=[fixed("a"), recently_viewed("seen")])
    outer = rule(when=feature("views_7d") > 3, then=inner, label="pros")
    expected = AllOf(nodes=((feature("views_7d") > 3), (trait("plan") == "pro")))
    assert [expected, expected] == [one.when for one in outer]
    assert ["pros", "pros"] == [one.label for one in outer]


def test_a_slot_reads_what_its_sources_rules_and_guards_name() -> None:
    made = hero(
        candidates=[
            viewed_not_bought(viewed="seen", bought="bought"),
            rule(when=trait("plan") == "pro", then=fixed("a", order="affinity", affinity="top")),
        ],
        unless=(item("category") == "gift") & (feature("views_7d") > 1),
        bought=["bought"],
    )
    assert [
        ("feature", "bought"), ("feature", "seen"), ("feature", "top"), ("feature", "views_7d"),
        ("trait", "plan"),
    ] == [(one.kind, one.name) for one in reads(made)]  # fmt: skip


@pytest.mark.parametrize(
    ("more", "code", "says"),
    [
        ({"candidates": [recently_viewed("sen")]}, "E150", "did you mean `seen`?"),
        ({"candidates": [viewed_not_bought(viewed="seen", bought="b")]}, "E150", "feature `b`"),
        ({"bought": "bougt"}, "E150", "did you mean `bought`?"),
        ({"unless": feature("x") > 1}, "E150", "feature `x`"),
        ({"candidates": rule(when=trait("plans"), then=fixed("a"))}, "E151", "`plan`?"),
        ({"candidates": rule(when=item("url"), then=fixed("a"))}, "E152", "unless="),
        ({"fallback": []}, "E153", "no static content"),
        ({"fallback": [fixed("a")]}, "E153", "no static content"),
        ({"fallback": [STATIC, recently_viewed("seen")]}, "E153", "no static content"),
        ({"fallback": rule(when=feature("top"), then=fixed(block="hero"))}, "E153", "no static"),
        ({"limit": 0}, "E154", "between 1 and 12"),
        ({"limit": 13}, "E154", "between 1 and 12"),
        ({"candidates": []}, "E154", "no candidates"),
        ({"candidates": [fixed("a")] * 13}, "E154", "more than 12 sources"),
        ({"candidates": [source("recently_view")]}, "E155", "did you mean `recently_viewed`?"),
        ({"candidates": [fixed()]}, "E155", "needs either item ids"),
        ({"candidates": [fixed("a", block="hero")]}, "E155", "needs either item ids"),
        ({"candidates": [fixed("a", order="best")]}, "E155", "order `best`"),
        ({"candidates": [fixed("a", order="affinity")]}, "E155", "affinity="),
        ({"candidates": [recently_viewed("")]}, "E155", "`feature`"),
        ({"candidates": [top_of_favourite_category("top", items=[])]}, "E155", "needs items"),
        (
            {"candidates": [top_of_favourite_category("top", items=["a"], categories=0)]},
            "E155",
            "between 1 and 10",
        ),
        ({"purpose": "fun"}, "E157", "purpose `fun`"),
        ({"render": "heroo"}, "E163", "did you mean `hero`?"),
        ({"fallback": "welcom"}, "E163", "did you mean `welcome`?"),
    ],
)
def test_what_is_wrong_is_named_with_place_and_remedy(more, code, says) -> None:
    with pytest.raises(DefinitionError) as error:
        check_slot(hero(**more), NAMES)
    assert code == error.value.code
    assert says in str(error.value)
    assert "slot `hero`" in error.value.what
    assert error.value.where.startswith("test_slots.py:")


def test_what_is_wrong_at_once_is_said_at_once() -> None:
    with pytest.raises(DefinitionError, match="a int for a candidate source"):
        hero(candidates=[3])
    with pytest.raises(DefinitionError, match=r"E161.*epsilon's share"):
        epsilon(5)
    with pytest.raises(DefinitionError, match="needs a name of letters"):
        check_slot(slot("my hero", candidates=[fixed("a")], fallback=STATIC), NAMES)


def test_slots_have_names_of_their_own() -> None:
    one, other = hero(), hero(limit=2)
    assert {"hero": one} == slots_by_name([one])
    with pytest.raises(DefinitionError, match="E156: two slots are called `hero`"):
        slots_by_name([one, other])


def test_policies() -> None:
    assert Policy("ranked", 0) == ranked()
    assert Policy("epsilon", 50_000) == epsilon()
    assert Policy("epsilon", 125_000) == epsilon(0.125)


def test_a_policy_version_follows_what_bears_on_a_choice() -> None:
    same = {policy_version(hero()), policy_version(hero(render="welcome"))}
    others = {
        policy_version(hero(limit=2)),
        policy_version(hero(policy=epsilon())),
        policy_version(hero(), 50_000),
        policy_version(hero(unless=feature("views_7d") > 1)),
        policy_version(hero(unless=feature("views_7d") > 2)),
    }
    assert 1 == len(same)
    assert 5 == len(others - same)


def test_two_sources_of_one_kind_are_told_apart_in_records() -> None:
    made = hero(
        candidates=[
            recently_viewed(feature="seen"),
            recently_viewed(feature="seen_today"),
            recently_viewed(feature="seen", label="mine"),
            fixed("a"),
            fixed("b"),
        ]
    )
    labels = [one.label for one in ready_slot(made).candidates]
    assert [
        "recently_viewed(seen)",
        "recently_viewed(seen_today)",
        "mine",
        "fixed#1",
        "fixed#2",
    ] == labels


@pytest.fixture
def as_before():
    """Forget what a test registers: the reference lists what is registered."""
    before = dict(sources._registered)
    yield
    sources._registered.clear()
    sources._registered.update(before)


@pytest.mark.usefixtures("as_before")
def test_a_source_of_ones_own_is_used_as_ours_are() -> None:
    @candidate_source("newest_of", features=("feature",), check=lambda args: "")
    def newest_of(args, reading):
        """Offer the newest of a list, as often as one likes."""
        return [Proposal(reading.features[args["feature"]][0])] * args["times"]

    assert "Offer the newest of a list, as often as one likes." == kinds()["newest_of"].doc
    made = hero(candidates=[source("newest_of", feature="seen", times=1)])
    check_slot(made, NAMES)
    assert [("feature", "seen")] == [(one.kind, one.name) for one in reads(made)]
    with pytest.raises(DefinitionError, match="E150"):
        check_slot(hero(candidates=[source("newest_of", feature="x")]), NAMES)
    with pytest.raises(DefinitionError, match="E155: two candidate sources"):
        candidate_source("newest_of")(lambda args, reading: [])
