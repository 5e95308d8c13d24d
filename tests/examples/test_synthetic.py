"""The synthetic shoppers: the same seed is the same world, and what they say is true of it is so."""

import csv
from collections import Counter

import pytest

from examples.shop.synthetic import CATALOGUE, Sent, Shoppers, read_catalogue
from penstock.core.time import DAY_MS, parse_instant

NOW = 1_795_000_000_000


@pytest.fixture(scope="module")
def world() -> tuple[Shoppers, list[Sent]]:
    shoppers = Shoppers(11, NOW, people=120)
    return shoppers, shoppers.events()


def test_the_same_seed_and_instant_give_the_same_events(world):
    again = Shoppers(11, NOW, people=120)
    assert world[1] == again.events()
    assert world[0].truth == again.truth
    assert world[0].crm_rows() == again.crm_rows()


def test_another_seed_gives_other_events(world):
    assert world[1] != Shoppers(12, NOW, people=120).events()


def test_events_come_in_the_order_of_arrival_and_none_after_now(world):
    arrivals = [one.arrives_ms for one in world[1]]
    assert sorted(arrivals) == arrivals
    assert arrivals[-1] <= NOW
    broken = "yesterday"
    stamps = [one.body["timestamp"] for one in world[1] if one.body["timestamp"] != broken]
    assert all(NOW - 29 * DAY_MS < parse_instant(stamp) <= NOW for stamp in stamps)


def test_the_truth_counts_every_event_once(world):
    shoppers, events = world
    truth = shoppers.truth
    ids = Counter(one.body["messageId"] for one in events)
    assert truth.distinct == {message_id for message_id in ids if message_id in truth.distinct}
    copies = sum(ids[message_id] - 1 for message_id in truth.distinct)
    assert truth.duplicates == copies > 0
    assert (
        len(events) == len(truth.distinct) + truth.duplicates + truth.malformed + truth.undeclared
    )
    assert truth.malformed >= 5
    assert truth.undeclared > 0


def test_late_events_are_days_late(world):
    late = [
        one for one in world[1]
        if one.body["timestamp"] != "yesterday"
        and one.arrives_ms - parse_instant(one.body["timestamp"]) > DAY_MS
    ]  # fmt: skip
    assert len(late) > 3


def test_a_copy_is_the_event_again(world):
    bodies: dict[str, dict] = {}
    for one in world[1]:
        assert bodies.setdefault(one.body["messageId"], one.body) == one.body


def test_people_withdraw_return_and_unsubscribe(world):
    truth = world[0].truth
    assert truth.withdrawn < truth.denied
    assert truth.returned
    assert not truth.denied & set(truth.returned)
    assert truth.unsubscribed
    assert truth.shared


def test_nothing_is_usable_of_who_denies_and_only_what_came_after_a_return(world):
    truth = world[0].truth
    assert [] == [view for user in truth.denied for view in truth.viewed(user)]
    for user, since_ms in truth.returned.items():
        assert all(view.at_ms >= since_ms for view in truth.viewed(user))
    assert all(
        view.device not in truth.shared for user in truth.emails for view in truth.viewed(user)
    )


def test_the_catalogue_has_eight_categories_and_some_items_that_may_not_be_shown():
    products = read_catalogue()
    assert 120 == len({product.product_id for product in products})
    assert {15} == set(Counter(product.category for product in products).values())
    assert 120 == len({product.title for product in products})
    with CATALOGUE.open(newline="", encoding="utf-8") as rows:
        table = list(csv.DictReader(rows))
    assert 0 < sum(row["stock"] == "0" for row in table) < 15
    assert any(row["ends_at"] for row in table)
    assert any(row["starts_at"] for row in table)
    assert any(row["available"] == "false" for row in table)
