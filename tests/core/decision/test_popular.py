"""What is popular now: people are counted, not clicks; nothing that too few are behind is shown."""

from __future__ import annotations

from collections import defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.decision.candidate import Reading
from penstock.core.decision.popular import (
    ITEMS_MAX,
    PEOPLE_EXACT,
    Tally,
    TallyRule,
    ranking_of,
    tallies_of,
)
from penstock.core.decision.predicate import Names
from penstock.core.decision.slot import check_slot
from penstock.core.decision.sources import kinds
from penstock.core.errors import DefinitionError
from penstock.core.ids import leaf_id
from penstock.core.record import Evidence, Record
from penstock.core.time import HOUR_MS
from penstock.dsl import events as dsl
from penstock.dsl.features import each, hours
from penstock.dsl.slots import popular, slot

NOW = 1_795_000_000_000
STATIC = {"title": "New in", "url": "https://shop.example/new"}
RULE = TallyRule(
    event="Product Viewed", field="product_id", group="category", over_ms=12 * HOUR_MS, people=5,
    purposes=("personalisation",),
)  # fmt: skip

viewed = dsl.event(
    "Product Viewed", product_id=dsl.string(), category=dsl.string(), price=dsl.money(),
    coupon=dsl.string(privacy=dsl.private(protection="pseudonym")),
)  # fmt: skip
ordered = dsl.event("Order Completed", products=dsl.objects({"product_id": dsl.string()}))


def view(person: int, item: str, category: str = "shoes") -> Record:
    leaf = leaf_id(b"k" * 32, "shop", "user_id", str(person))
    return Record(
        1, 1, "shop", leaf, "user_id", 7, "m", "track", "Product Viewed", NOW, NOW, "site", 0, True,
        Evidence("context", ("personalisation",)), (), (), {"product_id": item, "category": category},
    )  # fmt: skip


def tally_of_views(views: list[tuple[int, str]], rule: TallyRule = RULE) -> Tally:
    tally = Tally(rule)
    for person, item in views:
        tally.add(view(person, item), NOW)
    return tally


def test_people_are_counted_and_not_clicks() -> None:
    views = [(person, "loved") for person in range(6)] + [(1, "clicked")] * 1_000
    views += [(person, "liked") for person in range(5)]
    assert {"": ["loved", "liked"], "shoes": ["loved", "liked"]} == ranking_of(
        [tally_of_views(views)], NOW
    )


@given(st.lists(st.tuples(st.integers(0, 50), st.sampled_from("abcd")), max_size=200), st.data())
def test_no_item_is_ranked_that_fewer_people_are_behind(
    views: list[tuple[int, str]], data: st.DataObject
) -> None:
    behind: dict[str, set[int]] = defaultdict(set)
    for person, item in views:
        behind[item].add(person)
    expected = {item for item, people in behind.items() if len(people) >= RULE.people}
    shuffled = data.draw(st.permutations(views))
    cut = data.draw(st.integers(0, len(views)))
    halves = [tally_of_views(shuffled[:cut]), tally_of_views(shuffled[cut:])]
    ranking = ranking_of(halves, NOW)
    assert expected == set(ranking.get("", ()))
    assert ranking == ranking_of([tally_of_views(views + views)], NOW)


def test_beyond_what_is_exact_the_order_is_an_estimate_near_the_truth() -> None:
    views = [(person, item) for item, people in (("a", 3_000), ("b", 1_500), ("c", 33))
             for person in range(people)]  # fmt: skip
    assert ["a", "b", "c"] == list(ranking_of([tally_of_views(views)], NOW)[""])
    strict = TallyRule(**{**_fields(RULE), "people": PEOPLE_EXACT})
    assert ["a", "b", "c"] == list(ranking_of([tally_of_views(views, strict)], NOW)[""])


def _fields(rule: TallyRule) -> dict:
    return {name: getattr(rule, name) for name in TallyRule.__struct_fields__}


def test_the_window_is_the_logs_own_time_and_rounded_up_to_a_tile() -> None:
    tally = Tally(RULE)
    for person in range(5):
        tally.add(view(person, "old"), NOW)
    end_ms = NOW // HOUR_MS * HOUR_MS + HOUR_MS
    assert ["old"] == ranking_of([tally], end_ms + 12 * HOUR_MS - 1)[""]
    assert {} == ranking_of([tally], end_ms + 12 * HOUR_MS)
    tally.expire(end_ms + 12 * HOUR_MS)
    assert {} == tally.tiles


def test_a_flood_of_items_does_not_push_out_what_people_like() -> None:
    tally = tally_of_views([(person, "loved") for person in range(6)])
    for number in range(5 * ITEMS_MAX):
        tally.add(view(99, f"junk-{number}"), NOW)
    assert ["loved"] == ranking_of([tally], NOW)[""]
    assert all(len(tile) <= 2 * ITEMS_MAX for tile in tally.tiles.values())


def test_what_is_no_item_does_not_count() -> None:
    tally = Tally(RULE)
    for properties in ({}, {"product_id": 7, "category": "a"}, {"product_id": "x" * 201, "category": "a"},
                       {"product_id": "x"}, {"product_id": "x", "category": ""}):  # fmt: skip
        record = view(1, "x")
        record.properties.clear()
        record.properties.update(properties)
        tally.add(record, NOW)
    assert {} == tally.tiles


def test_line_items_are_counted_one_by_one() -> None:
    source = popular(each(ordered, "products").product_id, people=3)
    (rule,) = tallies_of([(source.kind, source.args)]).values()
    tally = Tally(rule)
    for person in range(3):
        record = view(person, "")
        record.properties.clear()
        record.properties["products"] = [{"product_id": "a"}, {"product_id": "b"}, "junk", {}]
        tally.add(record, NOW)
    assert {"": ["a", "b"]} == ranking_of([tally], NOW)


def test_a_source_offers_of_everybody_or_of_favourite_groups() -> None:
    kind = kinds()["popular"]
    everybody = popular(viewed.product_id, by=viewed.category)
    favourite = popular(viewed.product_id, by=viewed.category, feature="top", groups=2)
    assert everybody.args["tally"] == favourite.args["tally"]
    ranking = {"": ["a", "b", "c"], "hats": ["b"], "shoes": ["a", "c"]}
    standing = {everybody.args["tally"]: ranking}
    offered = kind.propose(everybody.args, Reading({}, {}, standing))
    assert ["a", "b", "c"] == [one.item_id for one in offered]
    liked = Reading({"top": [{"value": "shoes", "count": 9}, {"value": "bags", "count": 2}]}, {}, standing)  # fmt: skip
    assert ["a", "c"] == [one.item_id for one in kind.propose(favourite.args, liked)]
    assert [] == kind.propose(everybody.args, Reading({}, {}))


def test_it_is_decided_by_what_was_popular_and_explained(person, an, decided) -> None:
    source = popular(viewed.product_id, label="popular today")
    hero = slot("hero", candidates=[source], fallback=STATIC)
    standing = {source.args["tally"]: {"": ["b", "a"]}}
    # Nobody's data is used, so it is offered where consent bars everything personal too.
    for profile in (person(), person(permitted=())):
        made = decided(hero, profile, [an("a"), an("b")], popular=standing).slots[0]
        assert ["b"] == [one.item_id for one in made.items]
        assert [("popular today", "asked", 2)] == [
            (note.source, note.state, note.offered) for note in made.sources
        ]
    empty = decided(hero, person(), [an("a")]).slots[0]
    assert "none_offered" == empty.fallback_reason


@pytest.mark.parametrize(
    "declare",
    [
        pytest.param(lambda: popular(viewed.price), id="no-text"),
        pytest.param(lambda: popular(viewed.coupon), id="pseudonym"),
        pytest.param(
            lambda: popular(viewed.product_id, by=each(ordered, "products").product_id), id="other"
        ),
        pytest.param(lambda: popular(viewed.product_id, people=2), id="few-people"),
        pytest.param(lambda: popular(viewed.product_id, people=33), id="many-people"),
        pytest.param(lambda: popular(viewed.product_id, over=hours(0)), id="window"),
        pytest.param(lambda: popular(viewed.product_id, feature="top"), id="no-by"),
    ],
)
def test_a_wrong_source_is_refused(declare) -> None:
    with pytest.raises(DefinitionError, match="E155"):
        check_slot(slot("hero", candidates=[declare()], fallback=STATIC), Names())
