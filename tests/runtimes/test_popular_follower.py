"""Popular now beside the engine: rebuilt from the log's tail, consented, fresh, gone with its window."""

import asyncio

from penstock.adapters.log.memory import MemoryLog
from penstock.core.consent.purpose import ConsentRules
from penstock.core.decision.popular import TallyRule
from penstock.core.ids import leaf_id
from penstock.core.record import Evidence, Kind, Record, encode_record
from penstock.core.time import HOUR_MS
from penstock.runtimes.popular import PopularFollower
from penstock.testing.clock import HandClock

NOW = 1_795_000_000_000
RULE = TallyRule(event="Product Viewed", field="product_id", over_ms=24 * HOUR_MS, people=3,
                 purposes=("personalisation",))  # fmt: skip
GRANTED = Evidence("context", ("personalisation",))


def view(person, item, evidence=GRANTED, *, kind=Kind.PRIMARY, bare=False, name="Product Viewed"):
    leaf = leaf_id(b"k" * 32, "shop", "user_id", str(person))
    return encode_record(Record(
        1, kind, "shop", leaf, "user_id", 7, "m", "track", name, NOW, NOW, "site", 0, True, evidence,
        (), (), {"product_id": item}, {}, "", bare,
    ))  # fmt: skip


class World:
    def __init__(self, partitions=1):
        self.clock = HandClock(NOW)
        self.log = MemoryLog(self.clock, partitions=partitions)

    def ranked(self, follower=None):
        """What a follower that has read the log ranks; a new one has only the log to go by."""
        follower = follower or PopularFollower(self.log, {"t": RULE}, ConsentRules(), self.clock)
        asyncio.run(follower.refresh())
        ranking = follower.rankings()["t"]
        return ranking.get("", [])


def test_a_new_follower_counts_the_tail_of_the_log_again():
    world = World(partitions=2)
    first = PopularFollower(world.log, {"t": RULE}, ConsentRules(), world.clock)
    for person in range(5):
        world.log.append(person % 2, [view(person, "a"), view(person, "a"), view(person % 4, "b")])
    # More than a chunk of other events lies between.
    world.log.append(0, [view(1, "c", name="Page Viewed")] * 5_000)
    assert ["a", "b"] == world.ranked(first) == world.ranked()
    world.log.append(1, [view(9, "b")])
    assert ["a", "b"] == world.ranked(first) == world.ranked()
    world.log.append(1, [view(10, "b")])
    assert ["b", "a"] == world.ranked(first) == world.ranked()
    first.close()


def test_only_what_may_be_used_counts():
    world = World()
    refused = Evidence("context", (), ("personalisation",))
    other = Evidence("context", ("measurement",))
    for person in range(3):
        world.log.append(0, [
            view(person, "denied", refused), view(person, "other", other),
            view(person, "unknown", Evidence("unknown")), view(person, "bare", bare=True),
            view(person, "link", kind=Kind.LINK), view(person, "fine"),
        ])  # fmt: skip
    assert ["fine"] == world.ranked()


def test_a_thousand_clicks_of_one_person_surface_nothing():
    world = World()
    world.log.append(0, [view(1, "pushed") for _ in range(1_000)])
    assert [] == world.ranked()


def test_what_left_the_window_is_not_read_and_not_ranked():
    world = World()
    follower = PopularFollower(world.log, {"t": RULE}, ConsentRules(), world.clock)
    world.log.append(0, [view(person, "old") for person in range(3)])
    assert ["old"] == world.ranked(follower)
    world.clock.advance(hours=26)
    world.log.append(0, [view(person, "new") for person in range(3)])
    assert ["new"] == world.ranked(follower) == world.ranked()
    follower.close()


def test_without_a_tally_the_log_is_not_read():
    follower = PopularFollower(World().log, {}, ConsentRules(), HandClock(NOW))
    asyncio.run(follower.run())
    assert {} == follower.rankings()
    follower.close()
