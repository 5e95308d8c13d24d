"""What is remembered of a person gives the bytes that reading them anew gives, whatever happened between."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests_serving import FILES, GRANTED, Shop, identify, opened, view

from penstock.compose import make_links
from penstock.core.consent.suppression import Suppression, SuppressionKey
from penstock.edges.serving.asks import who
from penstock.edges.serving.shown import people_json
from penstock.edges.serving.views import profile_view
from penstock.flows.person import register_leaves
from penstock.flows.recall import Recall
from penstock.project import load_project

FEATURES = """
from events import order_completed, product_viewed
from penstock.dsl.features import (
    Profile, count, days, each, exists, hours, last_k, minutes, ratio, recency, top_k, tumbling,
)


class Shopper(Profile):
    viewed = last_k(product_viewed.product_id, k=10, distinct=True, over=days(30))
    recent = last_k(product_viewed.product_id, k=3, over=minutes(30))
    by_product = last_k(product_viewed.product_id, k=2, over=hours(6), by=product_viewed.product_id)
    bought = last_k(each(order_completed, "products").product_id, k=50, distinct=True)
    views_7d = count(product_viewed, over=days(7))
    views_1h = count(product_viewed, over=hours(1), purpose="measurement")
    today = count(product_viewed, over=tumbling("day"))
    yesterday = count(product_viewed, over=tumbling("day", previous=1))
    since_view = recency(product_viewed, over=days(7))
    seen = exists(product_viewed, over=hours(6))
    share = ratio(views_1h, views_7d)
    urgency = ratio(since_view, views_7d)
    liked = top_k(product_viewed.product_id, k=2, over=days(1))
"""
WHOM = [
    ("user_id", "u1"), ("anonymous_id", "a1"), ("email", "ann@example.com"), ("user_id", "u2"),
    ("anonymous_id", "a2"), ("user_id", "nobody"),
]  # fmt: skip
MINUTE_MS, HOUR_MS, DAY_MS = 60_000, 3_600_000, 86_400_000
WINDOWS_MS = (30 * MINUTE_MS, HOUR_MS, 6 * HOUR_MS, DAY_MS, 7 * DAY_MS, 30 * DAY_MS)
TILES_MS = (1, 10_000, 20_000, 2 * MINUTE_MS, 5 * MINUTE_MS, HOUR_MS, 4 * HOUR_MS)


def withdrawal(user: str, *, granted: bool, number: int) -> dict[str, Any]:
    consent = {"categoryPreferences": {"personalisation": granted, "measurement": True}}
    return {"type": "track", "event": "Segment Consent Preference Updated", "messageId": f"c{number}",
            "userId": user, "context": {"consent": consent}}  # fmt: skip


def something(rng: Random, number: int) -> dict[str, Any]:
    """An event of somebody."""
    user, device = rng.choice(
        [("u1", None), ("u1", "a1"), (None, "a1"), ("u2", "a2"), ("u2", "a1")]
    )
    match rng.randrange(8):
        case 0:
            return identify(user or "u1", device, rng.choice([None, "ann@example.com"]), number)
        case 1:
            return withdrawal(user or "u2", granted=rng.random() < 0.6, number=number)
        case 2:
            return {"type": "track", "event": "Unsubscribed", "messageId": f"n{number}",
                    "userId": user or "u1"}  # fmt: skip
        case _:
            return view(f"p{rng.randrange(3)}", user, device, number)


def next_instant(rng: Random, seen_ms: list[int], now_ms: int) -> int:
    """An instant, often just when something leaves a window or a period ends."""
    kind = rng.random()
    if kind < 0.2:
        return now_ms + rng.choice([0, 1, 700, 5 * MINUTE_MS])
    if kind < 0.4:
        return (now_ms // DAY_MS + 1) * DAY_MS + rng.choice([-1, 0, 1])
    at_ms = rng.choice(seen_ms) + rng.choice(WINDOWS_MS)
    tile_ms = rng.choice(TILES_MS)
    edge_ms = -(-at_ms // tile_ms) * tile_ms + rng.choice([-1, 0, 0, 1])
    return max(edge_ms, now_ms)


async def both(shop: Shop, one: tuple[str, str]) -> tuple[bytes, bytes]:
    """A person as remembered and as read anew, as bytes."""
    serving, key = shop.node.serving, make_links(shop.node, "http://shop").token_key
    whom = who(*one, shop.node.collector.make_leaf)
    look = await serving.look([whom])
    remembered = people_json(look, key)
    profile, person = await serving.profile(whom)
    now_ms = shop.clock.now_ms()
    anew = profile_view(profile, person, now_ms=now_ms, token_key=key)
    # What a decision is made on is the same, to the last field.
    read = await serving.recall.read(whom.leaf, serving.definitions)
    assert (read.profile, read.now_ms) == (profile, now_ms)
    assert (read.log_as_of_ms, read.live) == (person.as_of_ms, person.live)
    assert read.person.bounded == person.bounded
    assert read.person.known_at == max((leaf.offset for leaf in person.leaves), default=-1)
    assert read.person.register == serving.suppressions.get(register_leaves(person))
    return remembered, msgspec.json.encode(anew)


async def history(shop: Shop, rng: Random) -> None:
    seen_ms = [shop.clock.now_ms()]
    for number in range(rng.randrange(1, 12)):
        now_ms = shop.clock.now_ms()
        shop.clock.advance(next_instant(rng, seen_ms, now_ms) - now_ms)
        if rng.random() < 0.5:
            await shop.send({"context": GRANTED, **something(rng, number)})
            seen_ms.append(shop.clock.now_ms())
        if rng.random() < 0.2:
            # The register knows of a withdrawal before the fold comes to it.
            key = SuppressionKey(
                shop.node.collector.make_leaf(*rng.choice(WHOM)), "purpose", "personalisation"
            )
            entry = Suppression(shop.clock.now_ms(), True, number, "withdrawal")
            shop.node.stores.suppressions.put([(key, entry)])
        for one in rng.sample(WHOM, 3):
            remembered, anew = await both(shop, one)
            assert anew == remembered
    serving, make_leaf = shop.node.serving, shop.node.collector.make_leaf
    key = make_links(shop.node, "http://shop").token_key
    everybody = [who(*one, make_leaf) for one in WHOM]
    together = people_json(await serving.look(everybody), key)
    assert together == b",".join([(await both(shop, one))[1] for one in WHOM])


@settings(
    max_examples=settings.default.max_examples // 5, deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)  # fmt: skip
@given(st.integers(0, 2**32), st.sampled_from(["UTC", "Europe/London", "Asia/Kolkata"]))
def test_what_is_remembered_is_what_a_read_gives(
    tmp_path_factory: Any, seed: int, zone: str
) -> None:
    project = _project(tmp_path_factory, zone)

    async def main() -> None:
        async with opened(project) as shop:
            await history(shop, Random(seed))

    asyncio.run(main())


_projects: dict[str, Any] = {}


def _project(factory: Any, zone: str) -> Any:
    if zone not in _projects:
        folder: Path = factory.mktemp("recall")
        for name, text in (FILES | {"features.py": FEATURES}).items():
            path = folder / name
            path.parent.mkdir(exist_ok=True)
            path.write_text(text.replace("[project]", f'[project]\ntimezone = "{zone}"'))
        _projects[zone] = load_project(folder)
    return _projects[zone]


def test_nothing_new_means_nothing_read_anew(play: Callable[..., Any]) -> None:
    async def story(shop: Shop) -> list[bool]:
        serving = shop.node.serving
        whom = [who("user_id", "u1", shop.node.collector.make_leaf)]

        async def remembered() -> Any:
            return (await serving.look(whom)).people[0].person

        await shop.send(identify(), view("p1"))
        first, again = await remembered(), await remembered()
        shop.clock.advance(hours=1)
        later = await remembered()
        await shop.send(view("p2", None, "a1"))
        changed = await remembered()
        shop.clock.advance(days=8)
        expired = await remembered()
        return [first is again, again is later, later is changed, changed is expired]

    assert play(story) == [True, True, False, False]


def test_in_a_hurry_who_has_changed_is_as_last_known_and_who_has_withdrawn_is_not(
    play: Callable[..., Any],
) -> None:
    async def story(shop: Shop) -> list[Any]:
        serving = shop.node.serving
        recall, definitions = serving.recall, serving.definitions
        whom = who("user_id", "u1", shop.node.collector.make_leaf)

        async def seen() -> tuple[str, object, bool]:
            look = await recall.look([whom.leaf], definitions, hurry="overload")
            (one,) = look.people
            return one.stale, one.profile().features.get("views_7d"), look.live

        told = [recall.remembered(whom.leaf, definitions)]
        await shop.send({"context": GRANTED, **view("p1", number=1)})
        told.append(await seen())
        told.append(await seen())
        await shop.send({"context": GRANTED, **view("p2", number=2)})
        told.append(await seen())
        known = recall.remembered(whom.leaf, definitions)
        assert known is not None
        told.append((known.profile.features["views_7d"], known.live))
        # A clock that is set wrong, and right again, changes no age.
        shop.clock.set_back(-90_000)
        ahead = recall.remembered(whom.leaf, definitions)
        shop.clock.set_back(90_000)
        assert ahead is not None
        told.append((known.now_ms - known.log_as_of_ms) == (ahead.now_ms - ahead.log_as_of_ms))
        await shop.send(withdrawal("u1", granted=False, number=3))
        told.append(recall.remembered(whom.leaf, definitions))
        told.append((await seen())[0])
        return told

    assert play(story) == [
        None, ("", 1, True), ("", 1, True), ("overload", 1, False), (1, False), True, None, "",
    ]  # fmt: skip


def test_no_more_people_are_remembered_than_there_is_room_for(play: Callable[..., Any]) -> None:
    async def story(shop: Shop) -> tuple[int, bool]:
        node = shop.node
        recall = Recall(node.engine, node.stores.suppressions, shop.clock, limit=40)
        leaves = [node.collector.make_leaf("user_id", f"u{number}") for number in range(100)]
        for leaf in leaves:
            await recall.look([leaf], node.serving.definitions)
        newest = await recall.look([leaves[-1]], node.serving.definitions)
        return len(recall), newest.people[0].person.found

    kept, found = play(story)
    assert kept <= 40
    assert found is False


def test_other_definitions_forget_everybody(play: Callable[..., Any]) -> None:
    async def story(shop: Shop) -> bool:
        serving = shop.node.serving
        whom = [who("user_id", "u1", shop.node.collector.make_leaf)]
        before = (await serving.look(whom)).people[0].person
        serving.definitions = serving.definitions._replace()
        return before is (await serving.look(whom)).people[0].person

    assert play(story) is False
