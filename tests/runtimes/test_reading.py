"""A process that does not fold: what it reads, how old it says that it is, and how definitions change."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from penstock.adapters.consumer.memory import MemoryGroup
from penstock.adapters.decisions.memory import MemoryDecisions
from penstock.adapters.keys.memory import MemoryKeys
from penstock.adapters.log.memory import MemoryLog
from penstock.adapters.metrics.memory import MemoryMetrics
from penstock.adapters.store.memory import MemoryStore
from penstock.adapters.suppressions.memory import MemorySuppressions
from penstock.adapters.versions.memory import MemoryVersions
from penstock.compose import Node, Stores, make_keys, make_node
from penstock.core.errors import DamagedLeaf, Unavailable
from penstock.core.event import SEGMENT, decode_batch
from penstock.core.ids import LeafId
from penstock.core.record import NO_VERSION, Kind, Version, decode_record
from penstock.core.step import Step
from penstock.flows.load import load_rows
from penstock.flows.replay import LIVE_EPOCH, compare, covered_by_live, replay, told_epochs
from penstock.flows.serve import Who
from penstock.ports.store import LeafWrite
from penstock.project import load_project
from penstock.runtimes.reading import ReadingEngine
from penstock.runtimes.worker import Worker
from penstock.testing.clock import HandClock

NOW_MS = 1_795_000_000_000
PARTITIONS = 3
TOML = """
[log]
kind = "memory"
[store]
kind = "memory"
[fold]
by = "workers"
[sources.server]
kind = "server"
write_key = "k"
[definitions]
apply = "command"
keep_hours = 0
"""
EVENTS = """
from penstock.dsl.events import event, items, stamped, string

catalogue = items(brand=string())
product_viewed = event(
    "Product Viewed", product_id=string(), brand=stamped(string(), item="brand", by="product_id"),
)
"""
FEATURES = """
from events import product_viewed
from penstock.dsl.features import Profile, count, days, last_k

class Shopper(Profile):
    views = count(product_viewed, over=days(7))
    seen = last_k(product_viewed.product_id, k=5, over=days(30))
"""
MORE = FEATURES + "    ever = count(product_viewed, over=days(300))\n"
CONSENT = {"consent": {"categoryPreferences": {"personalisation": True}}}


class SharedLog(MemoryLog):
    """The log, as one that workers may read too."""

    shared = True


class Store(MemoryStore):
    """The store, which may be away, or hold a leaf that does not read back."""

    away = False
    damaged: LeafId | None = None

    def read(self, epoch, leaves):
        if self.away:
            raise Unavailable("E402", "nothing answered", fix="retry")
        if self.damaged in leaves:
            raise DamagedLeaf("E704", "a leaf does not read back", leaf=self.damaged, fix="none")
        return super().read(epoch, leaves)

    def applied(self, epoch, partition):
        if self.away:
            raise Unavailable("E402", "nothing answered", fix="retry")
        return super().applied(epoch, partition)


class World:
    """A project's folder, what is kept, and workers that are turned by hand."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.clock = HandClock(NOW_MS)
        for name, text in (
            ("penstock.toml", TOML), ("events.py", EVENTS), ("features.py", FEATURES),
        ):  # fmt: skip
            (folder / name).write_text(text)
        keys = MemoryKeys()
        make_keys(keys)
        self.store = Store()
        self.log = SharedLog(self.clock, partitions=PARTITIONS)
        self.stores = Stores(
            keys, self.log, self.store, MemorySuppressions(),
            MemoryDecisions(), versions=MemoryVersions(),
        )  # fmt: skip
        self.groups: dict[int, MemoryGroup] = {}
        self.workers: list[Worker] = []
        self.sent = 0

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Node]:
        node = make_node(load_project(self.folder), self.stores, clock=self.clock,
                         metrics=MemoryMetrics())  # fmt: skip
        await node.start()
        try:
            yield node
        finally:
            await node.close()

    def worker(self) -> Worker:
        """Start a worker with the definitions that the folder holds now."""
        project, stores = load_project(self.folder), self.stores
        (epoch,) = (e for e, f in told_epochs(self.store).items() if f == project.fingerprint)
        group = self.groups.setdefault(epoch, MemoryGroup(stores.log))
        worker = Worker(
            consumer=group.member(), log=stores.log, store=self.store, suppressions=stores.suppressions,
            step=Step(project.plan, project.step_rules()), epoch=epoch, clock=self.clock,
            metrics=MemoryMetrics(), flush_ms=0,
            covered=covered_by_live(stores.log, self.store, epoch),
        )  # fmt: skip
        worker.start()
        self.workers.append(worker)
        return worker

    def fold(self) -> None:
        """Let the workers fold and write all there is; links that one appends another folds."""
        while sum(worker.turn() for worker in self.workers):
            pass

    async def send(self, node: Node, *users: str, product: str = "p1", device: str | None = None) -> None:  # fmt: skip
        batch: list[dict[str, Any]] = []
        for user in users:
            self.sent += 1
            batch.append({"type": "track", "event": "Product Viewed", "messageId": f"m{self.sent}",
                          "userId": user, "properties": {"product_id": product}, "context": CONSENT}
                         | ({"anonymousId": device} if device else {}))  # fmt: skip
        decoded = decode_batch(json.dumps({"batch": batch}).encode(), SEGMENT)
        await node.collector.take(node.sources["server"], decoded)

    def records(self, kind: Kind = Kind.PRIMARY) -> list[Any]:
        log = self.stores.log
        found = [decode_record(entry.value) for partition in range(log.partitions)
                 for entry in log.read(partition, 0, 10_000)]  # fmt: skip
        return [one for one in found if one.kind == kind]


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def play(world: World, story: Callable[[Node], Awaitable[None]]) -> None:
    async def run() -> None:
        async with world.running() as node:
            await story(node)

    asyncio.run(run())


def who(node: Node, user: str) -> Who:
    return Who(node.collector.make_leaf("user_id", user), "user_id")


async def looked(node: Node) -> None:
    assert isinstance(node.engine, ReadingEngine)
    await node.engine.looked()
    await node.engine.looked()


def test_what_workers_have_written_is_served(world: World) -> None:
    async def story(node: Node) -> None:
        world.worker()
        world.worker()
        await world.send(node, "u1", "u2", "u1")
        world.fold()
        await looked(node)
        profile, person = await node.serving.profile(who(node, "u1"))
        assert 2 == profile.features["views"]
        assert person.live
        assert node.engine.lag() == 0

    play(world, story)


def test_without_a_worker_it_takes_events_in_and_says_how_old_its_answers_are(world: World) -> None:
    async def story(node: Node) -> None:
        await looked(node)
        assert node.engine.live()
        before_ms = world.clock.now_ms()
        world.clock.advance(ms=10)
        await world.send(node, "u1")
        world.clock.advance(seconds=5)
        await looked(node)
        as_of_ms, live = node.engine.standing()
        assert (False, True) == (live, before_ms <= as_of_ms <= before_ms + 10)
        assert (True, "") == node.engine.ready()
        assert 1 == node.engine.lag()
        world.worker()
        world.fold()
        await looked(node)
        assert (world.clock.now_ms(), True) == node.engine.standing()

    play(world, story)


def test_a_clock_that_was_wrong_for_a_while_makes_no_answer_look_fresher(world: World) -> None:
    async def story(node: Node) -> None:
        world.clock.set_back(-90_000)
        await looked(node)
        as_known_ms = world.clock.now_ms()
        world.clock.set_back(90_000)
        world.clock.advance(ms=300)
        assert (as_known_ms - 90_000, True) == node.engine.standing()
        world.clock.advance(seconds=2)
        assert (as_known_ms - 90_000, False) == node.engine.standing()

    play(world, story)


def test_while_the_log_goes_on_in_another_generation_it_takes_events_in_and_says_stale(world: World) -> None:  # fmt: skip
    async def story(node: Node) -> None:
        await world.send(node, "u1", "u2", "u3")
        before_ms = world.clock.now_ms()
        await looked(node)
        world.log.open_generation(5)
        assert node.engine.live()
        world.clock.advance(seconds=5)
        await world.send(node, "u1", device="d1")
        assert 1 == sum(world.log.head(one) for one in world.log.generations.of(2))
        await looked(node)
        assert (before_ms, False) == node.engine.standing()
        world.worker()
        for _ in range(5):  # to seal, to read that, to begin the next, and to fold its links
            world.fold()
            world.clock.advance(seconds=1)
        world.fold()
        await looked(node)
        profile, _ = await node.serving.profile(who(node, "u1"))
        assert 2 == profile.features["views"]
        assert (world.clock.now_ms(), True) == node.engine.standing()
        assert 0 == node.engine.lag()
        assert 1 == len(world.records(Kind.LINK))

    play(world, story)


def test_behind_since_before_it_started_it_goes_by_the_first_record_that_is_not_folded(world: World) -> None:  # fmt: skip
    async def first(node: Node) -> None:
        await world.send(node, "u1")

    play(world, first)
    world.clock.advance(hours=1)

    async def second(node: Node) -> None:
        await looked(node)
        assert (NOW_MS, False) == node.engine.standing()

    play(world, second)


def test_a_store_that_is_away_ages_what_is_known_and_comes_back(world: World) -> None:
    async def story(node: Node) -> None:
        await looked(node)
        at_ms = world.clock.now_ms()
        world.store.away = True
        world.clock.advance(seconds=5)
        await looked(node)
        assert (at_ms, False) == node.engine.standing()
        with pytest.raises(Unavailable):
            await node.serving.profile(who(node, "u1"))
        world.store.away = False
        await looked(node)
        assert node.engine.live()

    play(world, story)


def test_a_store_that_lost_leaves_is_stale_and_says_since_when_never_live_and_empty(world: World) -> None:  # fmt: skip
    async def story(node: Node) -> None:
        world.worker()
        await world.send(node, "u1")
        world.fold()
        await looked(node)
        assert node.engine.live()
        world.clock.advance(hours=1)
        await looked(node)
        world.store.drop(node.engine.epoch)
        world.store.era += 1
        # Nobody has looked since how far the workers are.
        assert not node.engine.live()
        with pytest.raises(Unavailable, match="E450"):
            await node.engine.read([who(node, "u1").leaf])
        await looked(node)
        _, person = await node.serving.profile(who(node, "u1"))
        assert (False, NOW_MS) == (person.live, person.as_of_ms)

    play(world, story)


def test_an_item_that_a_store_has_lost_is_stamped_as_it_was_known(world: World) -> None:
    async def story(node: Node) -> None:
        world.worker()
        rows = [{"item_id": "p1", "brand": "Acme"}]
        await load_rows(
            node.collector, "items", rows, source=node.sources["server"], job="j", first=1
        )
        world.fold()
        await looked(node)
        await world.send(node, "u1")
        world.clock.advance(seconds=2)
        world.store.drop(node.engine.epoch)
        world.store.era += 1
        await world.send(node, "u2")
        brands = [one.properties.get("brand") for one in world.records() if one.name == "Product Viewed"]  # fmt: skip
        assert ["Acme", "Acme"] == brands

    play(world, story)


def test_a_damaged_leaf_concerns_who_asks_for_it_and_nobody_else(world: World) -> None:
    async def story(node: Node) -> None:
        world.worker()
        await world.send(node, "u1", "u2")
        world.fold()
        world.store.damaged = who(node, "u1").leaf
        one, other = await asyncio.gather(
            node.engine.read([who(node, "u1").leaf]), node.engine.read([who(node, "u2").leaf]),
            return_exceptions=True,
        )  # fmt: skip
        assert isinstance(one, DamagedLeaf)
        assert not isinstance(other, BaseException)
        assert other.leaves[0] is not None
        assert 1 == other.leaves[0].applied

    play(world, story)


def test_events_are_stamped_with_the_item_as_it_is_written(world: World) -> None:
    async def story(node: Node) -> None:
        world.worker()
        rows = [{"item_id": "p1", "brand": "Acme"}]
        await load_rows(
            node.collector, "items", rows, source=node.sources["server"], job="j", first=1
        )
        world.fold()
        await world.send(node, "u1")
        world.clock.advance(seconds=2)
        world.store.away = True
        await world.send(node, "u2", product="p2")
        world.store.away = False
        brands = [one.properties.get("brand") for one in world.records() if one.name == "Product Viewed"]  # fmt: skip
        assert ["Acme", None] == sorted(brands, key=str)

    play(world, story)


def test_new_definitions_serve_once_workers_that_have_them_are_close_behind(world: World) -> None:
    async def story(node: Node) -> None:
        world.worker()
        await world.send(node, "u1", "u2", "u3", device="a1")
        await world.send(node, "u1", device="a2")
        world.fold()
        links = world.records(Kind.LINK)
        (world.folder / "features.py").write_text(MORE)
        candidate = await asyncio.to_thread(node.load, load_project(world.folder))
        node.versions.begin(candidate)
        while (progress := await node.versions.moved()) is None:
            pass  # it stands in the table first
        assert ("building", 0) == (progress.state, progress.folded)
        world.worker()
        world.fold()
        ended = await node.versions.ended()
        assert ended is not None
        assert "active" == ended.state, ended.error
        assert links == world.records(Kind.LINK), (
            "what the other workers appended is not appended again"
        )
        profile, _ = await node.serving.profile(who(node, "u1"))
        assert 2 == profile.features["ever"]
        # Nobody keeps the one before: whoever folds it sees that it is to end.
        assert [int(world.store.get_meta(LIVE_EPOCH) or 0)] == [*told_epochs(world.store)]

    play(world, story)
    project, epoch = load_project(world.folder), int(world.store.get_meta(LIVE_EPOCH) or 0)
    replay(world.log, world.store, Step(project.plan, project.step_rules()), 99)
    assert compare(world.store, epoch, 99).same


def test_definitions_that_nobody_folds_are_given_up(world: World) -> None:
    async def story(node: Node) -> None:
        world.worker()
        await world.send(node, "u1")
        world.fold()
        (world.folder / "features.py").write_text(MORE)
        candidate = await asyncio.to_thread(node.load, load_project(world.folder))
        node.versions.begin(candidate)
        await looked(node)
        assert await node.versions.give_up()
        assert 1 == len(told_epochs(world.store))
        profile, _ = await node.serving.profile(who(node, "u1"))
        assert 1 == profile.features["views"]

    play(world, story)


def test_a_worker_appends_links_itself_beyond_what_the_leaves_that_serve_have(world: World) -> None:
    covered = covered_by_live(world.stores.log, world.store, 2)
    assert -1 == covered(0)
    world.store.put_meta(LIVE_EPOCH, "1")
    leaf = LeafId(b"l" * 16)
    write = LeafWrite(leaf, NO_VERSION, Version(1, 7), (b"",))
    world.store.write(1, [write], partition=0, applied=Version(1, 7))
    assert [7, -1] == [covered(0), covered(1)]
    assert -1 == covered_by_live(world.stores.log, world.store, 1)(0)
