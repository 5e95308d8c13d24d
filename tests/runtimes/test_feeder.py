"""The feeder: what other systems are told of decisions and profiles, in which order, over faults and take-overs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from penstock.adapters.feed.memory import MemoryFeed, MemoryTopic
from penstock.adapters.metrics.memory import MemoryMetrics
from penstock.core.errors import Unavailable
from penstock.core.ids import LeafId
from penstock.flows import feeding
from penstock.flows.feeding import DecisionSource, ProfileRules, ProfileSource, Source, Telling
from penstock.ports.feed import Message
from penstock.project import load_project
from penstock.runtimes import feeder as module
from penstock.runtimes.feeder import RETRY_MS, STAND_BY_LOOKS, STAND_BY_MS, Feeder
from penstock.testing.driver import Driver

SHOP = Path(__file__).parent.parent.parent / "examples" / "shop"
EVERY_MS = 1_000
USUAL = ProfileRules("personalisation")


def view(user: str, product: str = "p1", **more: Any) -> dict[str, Any]:
    return {"type": "track", "event": "Product Viewed", "userId": user, "properties": {"product_id": product}, **more}  # fmt: skip


class World:
    """The example shop, and the topics that other systems read."""

    def __init__(self, driver: Driver) -> None:
        self.driver = driver
        self.profiles = MemoryTopic("profiles")
        self.decisions = MemoryTopic("decisions")
        self.metrics = MemoryMetrics()

    def source(self, rules: ProfileRules = USUAL) -> ProfileSource:
        edition, stores = self.driver.node.editions.active, self.driver.stores
        return ProfileSource(
            log=stores.log, store=stores.store, suppressions=stores.suppressions,
            telling=Telling(edition.epoch, edition.plan, edition.serving.definitions), rules=rules, clock=self.driver.clock,
        )  # fmt: skip

    def feeder(self, source: Source | None = None, topic: MemoryTopic | None = None, feed: type[MemoryFeed] = MemoryFeed) -> Feeder:  # fmt: skip
        told, kept = source or self.source(), topic or self.profiles

        return Feeder(
            "profiles", log=self.driver.stores.log, source=lambda: told, open_feed=lambda: feed(kept),
            clock=self.driver.clock, metrics=self.metrics, every_ms=EVERY_MS,
        )  # fmt: skip

    def leaf(self, id_type: str, value: str) -> LeafId:
        return self.driver.node.collector.make_leaf(id_type, value)

    def read(self) -> dict[LeafId, dict[str, Any]]:
        """Return what a consumer of the compacted topic has."""
        return {leaf: json.loads(value) for leaf, value in self.profiles.compacted().items()}


@pytest.fixture
def world() -> Iterator[World]:
    with Driver(load_project(SHOP)) as driver:
        yield World(driver)


def told_all(feeder: Feeder) -> None:
    while feeder.turn():
        pass


def test_who_compacts_the_topic_has_the_profiles_that_are_served(world: World) -> None:
    feeder = world.feeder()
    users = [f"u{number}" for number in range(20)]
    for turn in range(3):
        world.driver.push(*[view(user, f"p{turn}") for user in users[turn:]])
        told_all(feeder)
        world.driver.clock.advance(hours=1)
    read = world.read()
    assert {world.leaf("user_id", user) for user in users} == {*read}
    for user in users:
        one = read[world.leaf("user_id", user)]
        profile = world.driver.profile(user_id=user)
        assert json.loads(json.dumps(profile.features)) == one["features"]
        assert profile.definitions == one["definitions"]
        assert ({}, ["personalisation"]) == (one["traits"], one["permitted"][-1:])
        assert [leaf.hex() for leaf in profile.leaves] == one["leaves"]
    assert "u1" not in b"".join(one.value or b"" for one in world.profiles.messages).decode()


def test_what_did_not_change_is_told_once(world: World) -> None:
    feeder = world.feeder()
    world.driver.push(view("u1"), view("u1", "p2"))
    told_all(feeder)
    world.driver.push({**view("u1", "p2"), "messageId": "case-2"})
    told_all(feeder)
    assert [world.leaf("user_id", "u1")] == [one.leaf for one in world.profiles.messages]
    assert 0 == feeder.lag()


def test_consent_that_is_withdrawn_leaves_nothing_but_a_tombstone(world: World) -> None:
    feeder, leaf = world.feeder(), world.leaf("user_id", "u1")
    world.driver.push(view("u1"))
    told_all(feeder)
    assert leaf in world.read()
    denied = {"consent": {"categoryPreferences": {"personal": False}}}
    world.driver.push(view("u1", context=denied))
    told_all(feeder)
    assert Message(leaf, None) == world.profiles.messages[-1]
    assert {} == world.read()
    world.driver.clock.advance(hours=1)
    world.driver.push(view("u1"))
    told_all(feeder)
    assert world.driver.profile(user_id="u1").features["views_7d"] == world.read()[leaf]["features"]["views_7d"]  # fmt: skip


def test_a_purpose_that_is_not_permitted_has_no_profile_at_all(world: World) -> None:
    world.driver.push(view("u1"), view("u2", context={"consent": {"categoryPreferences": {"personal": True}}}))  # fmt: skip
    told_all(world.feeder(world.source(ProfileRules("analytics"))))
    assert {world.leaf("user_id", "u1")} == {*world.read()}
    assert Message(world.leaf("user_id", "u2"), None) in world.profiles.messages


def test_traits_are_told_if_they_are_named(world: World) -> None:
    world.driver.push({"type": "identify", "userId": "u1", "traits": {"first_name": "Ann", "email": "ann@shop.example"}})  # fmt: skip
    told_all(world.feeder())
    leaf = world.driver.profile(user_id="u1").leaves[0]
    assert {} == world.read()[leaf]["traits"]
    rules = ProfileRules("personalisation", frozenset({"first_name"}))
    told_all(world.feeder(world.source(rules), again := MemoryTopic()))
    assert {"first_name": "Ann"} == json.loads(again.compacted()[leaf])["traits"]


def test_who_is_joined_is_told_under_the_strongest_leaf(world: World) -> None:
    feeder = world.feeder()
    anonymous, user = world.leaf("anonymous_id", "a1"), world.leaf("user_id", "u1")
    event = view("u1")
    del event["userId"]
    world.driver.push({**event, "anonymousId": "a1"})
    told_all(feeder)
    assert {anonymous} == {*world.read()}
    world.driver.push({"type": "identify", "userId": "u1", "anonymousId": "a1", "traits": {}})
    told_all(feeder)
    assert {user} == {*world.read()}
    assert 1 == world.read()[user]["features"]["views_7d"]
    # What happens on the other leaf from now on changes the person.
    world.driver.push({**event, "anonymousId": "a1"})
    told_all(feeder)
    assert 2 == world.read()[user]["features"]["views_7d"] == world.driver.features(user_id="u1")["views_7d"]  # fmt: skip


def test_what_a_browser_claims_changes_the_claimed_person_and_its_own(world: World) -> None:
    feeder = world.feeder()
    world.driver.push(view("u1"))
    world.driver.push(view("u1", anonymousId="a9"), source="web")
    told_all(feeder)
    read = world.read()
    for id_type, value in (("user_id", "u1"), ("anonymous_id", "a9")):
        features = world.driver.features(**{id_type: value})
        assert json.loads(json.dumps(features)) == read[world.leaf(id_type, value)]["features"]


def test_items_are_nobody(world: World) -> None:
    world.driver.load_items({"item_id": "p1", "title": "Cup", "price": "1.00"})
    told_all(world.feeder())
    assert [] == world.profiles.messages


class Torn(MemoryFeed):
    """Brokers that do not answer: what was put is there or not, and it is not known which."""

    torn: Iterator[str] = iter(())

    def put(self, messages: Sequence[Message], positions: Sequence[int], mark: str) -> None:
        fate = next(self.torn, "")
        if fate != "lost":
            super().put(messages, positions, mark)
        if fate:
            raise Unavailable("E401", "nothing answered", fix="retry")


@pytest.mark.parametrize("fates", [["lost"], ["kept"], ["lost", "kept", "lost", "lost", "kept"]])
def test_over_faults_nothing_is_left_out(world: World, fates: list[str]) -> None:
    Torn.torn = iter(fates)
    feeder = world.feeder(feed=Torn)
    waited: list[int] = []
    for number in range(len(fates) + 2):
        world.driver.push(view("u1", f"p{number}"), view(f"v{number}"))
        waited.append(feeder.step())
    told_all(feeder)
    assert RETRY_MS == waited[0]
    for user in ("u1", *(f"v{number}" for number in range(len(fates) + 2))):
        features = world.read()[world.leaf("user_id", user)]["features"]
        assert world.driver.features(user_id=user)["views_7d"] == features["views_7d"]
    assert len(fates) == world.metrics.value("penstock_feed_failures_total", feed="profiles", code="E401")  # fmt: skip


def test_nothing_is_told_before_the_store_has_it(world: World) -> None:
    class Behind(ProfileSource):
        applied = 0

        def ends(self) -> list[int]:
            return [self.applied]

    source = world.source()
    source.__class__ = Behind
    feeder = world.feeder(source)
    told_all(feeder)
    world.driver.push(view("u1"), view("u2"))
    told_all(feeder)
    assert {} == world.read()
    Behind.applied = 1
    told_all(feeder)
    assert {world.leaf("user_id", "u1")} == {*world.read()}


def test_the_one_that_started_last_tells_and_the_other_takes_over_when_it_stops(
    world: World,
) -> None:
    old, new = world.feeder(), world.feeder()
    world.driver.push(view("u1"))
    old.step()
    world.driver.push(view("u2"))
    new.step()
    world.driver.push(view("u3"))
    assert STAND_BY_MS == old.step()
    assert 1 == world.metrics.value("penstock_feed_failures_total", feed="profiles", code="E607")
    new.step()
    for number in range(STAND_BY_LOOKS):  # the other goes on: it stands by
        world.driver.push(view(f"w{number}"))
        assert STAND_BY_MS == old.step()
        new.step()
    assert STAND_BY_MS == old.step()
    world.driver.push(view("u4"))  # and now nobody tells of it
    for _ in range(STAND_BY_LOOKS - 1):
        assert STAND_BY_MS == old.step()
    assert EVERY_MS >= old.step()
    assert world.leaf("user_id", "u4") in world.read()
    assert 3 + STAND_BY_LOOKS + 1 == len(world.read())


def test_by_other_definitions_or_rules_everybody_is_told_anew(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PAGE_LEAVES", 3)
    sources = [world.source(), world.source(ProfileRules("analytics"))]
    place = 0
    feeder = Feeder(
        "profiles", log=world.driver.stores.log, source=lambda: sources[place], metrics=world.metrics,
        clock=world.driver.clock, open_feed=lambda: MemoryFeed(world.profiles),
    )  # fmt: skip
    only = {"consent": {"categoryPreferences": {"personal": True}}}
    world.driver.push(*[view(f"u{number}") for number in range(7)], view("u7", context=only))
    told_all(feeder)
    assert 8 == len(world.read())
    place = 1
    told_all(feeder)
    assert {world.leaf("user_id", f"u{number}") for number in range(7)} == {*world.read()}
    place = 0
    told_all(feeder)
    assert 8 == len(world.read())
    assert 0 == feeder.lag()


def test_who_goes_on_while_everybody_is_told_anew_begins_anew(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PAGE_LEAVES", 3)
    world.driver.push(*[view(f"u{number}") for number in range(7)])
    cut = world.feeder()
    cut.turn()
    assert 3 == len(world.read())
    told_all(world.feeder())
    assert 7 == len(world.read())


def test_a_profile_that_no_topic_takes_is_told_without_what_makes_it_large(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feeding, "VALUE_BYTES_MAX", 200)
    world.driver.push(view("u1"))
    told_all(world.feeder())
    one = world.read()[world.leaf("user_id", "u1")]
    assert ({}, {}, True) == (one["features"], one["traits"], one["oversized"])


def test_decisions_are_told_with_their_ids_in_the_order_of_the_log(world: World) -> None:
    log = world.driver.stores.log
    feeder = world.feeder(DecisionSource(log), world.decisions)
    world.driver.push(view("u1"), {**view("u1"), "event": "Decision Made"})
    first = world.driver.decide("winback", send="s1", user_id="u1")
    second = world.driver.decide("winback", send="s2", user_id="u1")
    world.driver._run(_pumped(world.driver))
    told_all(feeder)
    told = [json.loads(one.value or b"") for one in world.decisions.messages]
    assert [first.decision_id, second.decision_id] == [one["decision_id"] for one in told]
    assert {("winback", "s1"), ("winback", "s2")} == {
        (one["campaign"], one["send"]) for one in told
    }
    assert {world.leaf("user_id", "u1").hex()} == {one["recipient"] for one in told}
    assert [one.leaf.hex() for one in world.decisions.messages] == [
        one["recipient"] for one in told
    ]
    assert [{"generation": 1, "partition": 0, "offset": log.head(0) - 2 + place} for place in (0, 1)] == [
        one["log"] for one in told
    ]  # fmt: skip


async def _pumped(driver: Driver) -> None:
    await driver.node.pump.pump()
    await driver.node.engine.settled()
