"""Loading rows: typed, ranked, once a job, and each bad row reported while the others are kept."""

from collections.abc import Callable
from typing import Any

import pytest
from tests_serving import GRANTED, Shop, view

from penstock.core.errors import EventRejected
from penstock.core.ids import LeafId
from penstock.core.leaf import Leaf
from penstock.flows.load import ROWS_MAX, Loaded, load_rows

Play = Callable[..., Any]


async def load(shop: Shop, kind: str, *rows: dict[str, Any], job: str = "job", source: str = "crm",
               first: int = 1) -> Loaded:  # fmt: skip
    node = shop.node
    loaded = await load_rows(
        node.collector, kind, rows, source=node.sources[source], job=job, first=first
    )
    await node.engine.settled()
    return loaded


def leaf(shop: Shop, id_type: str, value: str) -> Leaf:
    found = shop.node.engine.find(LeafId(shop.node.collector.make_leaf(id_type, value)))
    assert found is not None
    return found


def traits(shop: Shop, id_type: str, value: str) -> dict[str, Any]:
    return {name: trait[3] for name, trait in leaf(shop, id_type, value).traits.items()}


# ------------------------------------------------------------------------------------- items


def test_cells_of_a_csv_get_the_types_that_are_declared(play: Play) -> None:
    async def story(shop: Shop) -> Any:
        row = {
            "product_id": "p1",
            "title": " Kettle ",
            "price": "19.99",
            "stock": "-3",
            "category": "",
        }
        loaded = await load(shop, "items", row)
        return loaded, traits(shop, "item_id", "p1")

    loaded, found = play(story)
    assert loaded == Loaded(1, [])
    assert found == {"title": "Kettle", "price": [1999, "GBP"], "stock": -3, "category": None}


@pytest.mark.parametrize(
    ("row", "code"),
    [
        ({"url": "javascript:alert(1)"}, "E322"),
        ({"url": " JavaScript\t:alert(1)"}, "E322"),
        ({"url": "data:text/html,x"}, "E322"),
        ({"price": "19.99", "currency": "XYZ"}, "E327"),
        ({"price": "19.99", "currency": "JPY"}, "E322"),
        ({"url": "https://shop.example/p1"}, ""),
        ({"url": "/p1?x=a:b"}, ""),
        ({"url": ""}, ""),
        ({"price": "1999.00", "currency": "JPY"}, ""),
        ({"price": "19.999", "currency": "USD"}, "E322"),
        ({"price": "59.970000000000006", "currency": "USD"}, ""),
    ],
)
def test_an_item_that_could_not_be_shown_as_it_is_is_refused(
    play: Play, row: dict[str, str], code: str
) -> None:
    async def story(shop: Shop) -> Any:
        return await load(shop, "items", {"item_id": "p1", "title": "Kettle", **row})

    loaded = play(story)
    assert [one.code for one in loaded.refused] == ([code] if code else [])


def test_json_values_are_taken_as_they_are(play: Play) -> None:
    async def story(shop: Shop) -> Any:
        await load(
            shop, "items", {"sku": 17, "title": "Kettle", "stock": 3, "price": "5", "url": None}
        )
        return traits(shop, "item_id", "17")

    assert play(story) == {"title": "Kettle", "stock": 3, "price": [500, "GBP"], "url": None}


@pytest.mark.parametrize(
    ("row", "code", "where"),
    [
        ({"title": "x"}, "E363", "$"),
        ({"product_id": ""}, "E363", "$"),
        ({"product_id": ["p1"]}, "E363", "$"),
        ({"product_id": "p", "stock": "three"}, "E322", "$.stock"),
        ({"product_id": "p", "stock": "--3"}, "E322", "$.stock"),
        ({"product_id": "p", "stock": "99999999999999999999"}, "E322", "$.stock"),
        ({"product_id": "p", "price": "1,99"}, "E322", "$.price"),
        ({"product_id": "p", "title": "x" * 9_000}, "E324", "$.title"),
    ],
)
def test_a_bad_item_is_reported_with_place_and_code_and_the_others_are_kept(
    play: Play, row: dict[str, Any], code: str, where: str
) -> None:
    async def story(shop: Shop) -> Any:
        good = {"product_id": "good", "title": "Kettle"}
        loaded = await load(shop, "items", good, row, good | {"product_id": "good2"})
        return loaded, traits(shop, "item_id", "good2")

    loaded, found = play(story)
    assert loaded.kept == 2
    assert [(one.index, one.code, one.path) for one in loaded.refused] == [(1, code, where)]
    assert found == {"title": "Kettle"}


def test_the_first_column_that_names_an_item_does(play: Play) -> None:
    async def story(shop: Shop) -> Any:
        await load(shop, "items", {"item_id": "", "product_id": None, "sku": 0, "id": "x", "title": "T"},
                   {"id": "y", "title": "U"})  # fmt: skip
        return traits(shop, "item_id", "0"), traits(shop, "item_id", "y")

    assert play(story) == ({"title": "T"}, {"title": "U"})


def test_an_empty_cell_takes_a_value_back_and_a_missing_column_does_not(play: Play) -> None:
    async def story(shop: Shop) -> Any:
        await load(shop, "items", {"id": "p", "title": "Kettle", "stock": "3"}, job="monday")
        shop.clock.advance(hours=1)
        await load(shop, "items", {"id": "p", "stock": ""}, job="tuesday")
        await load(shop, "people", {"user_id": "u1", "first_name": "Ann", "tier": "gold"}, job="m2")
        shop.clock.advance(hours=1)
        await load(shop, "people", {"user_id": "u1", "first_name": ""}, job="t2")
        return traits(shop, "item_id", "p"), traits(shop, "user_id", "u1")

    items, people = play(story)
    assert items == {"title": "Kettle", "stock": None}
    assert people["first_name"] is None


def test_an_item_is_no_person_and_waits_for_nobodys_consent(play: Play) -> None:
    async def story(shop: Shop) -> Any:
        await load(shop, "items", {"id": "p", "title": "T"}, source="backend")
        item = leaf(shop, "item_id", "p")
        return item.applied, item.states == shop.node.project.plan.new_states()

    assert play(story) == (1, True)


# ------------------------------------------------------------------------------------- people


def test_people_become_profiles_of_a_ranked_source(play: Play) -> None:
    async def story(shop: Shop) -> Any:
        row = {
            "user_id": "u1",
            "email": "Ann@Example.com",
            "first_name": "Ann",
            "updated_at": "2020-01-01",
        }
        await load(shop, "people", row, job="crm")
        # Later, from the site: of lower rank, so the CRM's word stands.
        await shop.send({"type": "identify", "userId": "u1", "messageId": "i",
                         "traits": {"first_name": "Annie"}})  # fmt: skip
        return traits(shop, "user_id", "u1"), await shop.read("/v1/profiles/user_id:u1")

    found, profile = play(story)
    assert found["first_name"] == "Ann"
    assert profile["identifiers"]["email"] == ["ann@example.com"]


def test_a_row_may_name_somebody_by_address_or_device_alone(play: Play) -> None:
    async def story(shop: Shop) -> Any:
        loaded = await load(
            shop, "people", {"email": "bob@example.com", "first_name": "Bob"},
            {"anonymous_id": "a1", "first_name": "Cem", "email": ""},
            {"user_id": 42, "email": None, "first_name": "Dan"},
        )  # fmt: skip
        return loaded, [traits(shop, *one)["first_name"] for one in (
            ("email", "bob@example.com"), ("anonymous_id", "a1"), ("user_id", "42"))]  # fmt: skip

    assert play(story) == (Loaded(3, []), ["Bob", "Cem", "Dan"])


@pytest.mark.parametrize(
    ("row", "code"),
    [
        ({"first_name": "x"}, "E362"),
        ({"user_id": " ", "email": ""}, "E362"),
        ({"user_id": "null"}, "E340"),
        ({"user_id": "u", "first_name": ["x"]}, "E322"),
        ({"user_id": "u", "updated_at": "yesterday"}, "E311"),
    ],
)
def test_a_bad_person_is_reported_and_the_others_are_kept(
    play: Play, row: dict[str, Any], code: str
) -> None:
    async def story(shop: Shop) -> Any:
        loaded = await load(shop, "people", row, {"user_id": "u1"}, {"user_id": "u2"})
        letters = list(shop.node.stores.log.dead_letters())
        return loaded.kept, [(one.index, one.code) for one in loaded.refused], letters

    assert play(story) == (2, [(0, code)], [])


def test_refusals_come_in_the_order_of_the_rows(play: Play) -> None:
    async def story(shop: Shop) -> Any:
        rows = [{"user_id": "null"}, {"x": 1}, {"user_id": "u"}, {"user_id": "undefined"}, {"y": 1}]
        return [one.index for one in (await load(shop, "people", *rows)).refused]

    assert play(story) == [0, 1, 3, 4]


def test_people_without_a_lawful_basis_are_refused_rather_than_silently_dropped(play: Play) -> None:
    async def story(shop: Shop) -> Any:
        with pytest.raises(EventRejected) as refused:
            await load(shop, "people", {"user_id": "u1"}, source="backend")
        return refused.value.code, refused.value.fix, shop.node.stores.log.head(0)

    code, fix, head = play(story)
    assert (code, head) == ("E368", 0)
    assert "[sources.backend]" in fix


# ------------------------------------------------------------------------------------- jobs


def test_a_job_that_is_run_twice_counts_once(play: Play) -> None:
    async def story(shop: Shop) -> Any:
        rows = [{"id": f"p{number}", "title": "T"} for number in range(3)]
        people = [{"user_id": "u1", "first_name": "Ann"}]
        for _ in range(2):
            await load(shop, "items", *rows, job="items")
            await load(shop, "people", *people, job="people")
            shop.clock.advance(days=30)
        return [leaf(shop, *one).applied for one in (("item_id", "p0"), ("user_id", "u1"))], [
            leaf(shop, *one).deduplicated for one in (("item_id", "p0"), ("user_id", "u1"))
        ]  # fmt: skip

    assert play(story) == ([1, 1], [1, 1])


def test_events_of_a_job_count_once_though_they_come_live_as_well(play: Play) -> None:
    async def story(shop: Shop) -> Any:
        row = view("p1") | {"context": GRANTED, "timestamp": "2026-11-18T12:00:00Z"}
        await shop.send(view("p1"))
        for _ in range(2):
            assert (await load(shop, "events", row, job="past")).refused == []
            shop.clock.advance(days=30)
        found = leaf(shop, "user_id", "u1")
        return found.applied, found.deduplicated

    assert play(story) == (1, 2)


@pytest.mark.parametrize(
    ("row", "code"),
    [
        ({"event": "Product Viewed", "userId": "u1"}, "E305"),
        ({"type": "track", "userId": "u1"}, "E312"),
        ({"type": "track", "event": "Product Viewed"}, "E340"),
        ({"type": "track", "event": "Product Viewed", "userId": "u1", "timestamp": "soon"}, "E311"),
        ({"type": "track", "event": "Product Viewed", "userId": "u1", "properties": []}, "E306"),
    ],
)
def test_a_bad_event_is_reported_and_the_others_are_kept(
    play: Play, row: dict[str, Any], code: str
) -> None:
    async def story(shop: Shop) -> Any:
        good = view("p1") | {"context": GRANTED}
        loaded = await load(
            shop, "events", good, row | {"context": GRANTED}, good | {"messageId": "2"}
        )
        return loaded.kept, [(one.index, one.code) for one in loaded.refused]

    assert play(story) == (2, [(1, code)])


@pytest.mark.parametrize(("kind", "count"), [("pets", 1), ("items", ROWS_MAX + 1)])
def test_an_unknown_kind_or_too_many_rows_is_refused_as_a_whole(
    play: Play, kind: str, count: int
) -> None:
    async def story(shop: Shop) -> Any:
        with pytest.raises(EventRejected) as refused:
            await load(shop, kind, *[{"id": "p"}] * count)
        return refused.value.code, shop.node.stores.log.head(0)

    assert play(story) == ("E361", 0)
