"""Versions side by side, cut off at every durable write: one serves, and its leaves are those of a replay."""

from __future__ import annotations

import asyncio
import contextlib
import json
from pathlib import Path
from typing import Any

import pytest

from penstock.adapters.decisions.memory import MemoryDecisions
from penstock.adapters.keys.memory import MemoryKeys
from penstock.adapters.log.memory import MemoryLog
from penstock.adapters.metrics.memory import MemoryMetrics
from penstock.adapters.store.memory import MemoryStore
from penstock.adapters.suppressions.memory import MemorySuppressions
from penstock.adapters.versions.memory import MemoryVersions
from penstock.compose import Node, Stores, make_keys, make_node
from penstock.core.errors import PenstockError, Unavailable
from penstock.core.event import SEGMENT, decode_batch
from penstock.core.leaf import decode_leaf
from penstock.core.step import Step
from penstock.flows.agree import agree
from penstock.flows.replay import compare, replay
from penstock.flows.serve import Who
from penstock.project import Project, load_project
from penstock.testing.clock import HandClock

NOW = 1_795_000_000_000
TOML = """
[log]
kind = "memory"
[store]
kind = "memory"
flush_ms = 1
[sources.server]
kind = "server"
write_key = "k"
[definitions]
apply = "command"
"""
EVENTS = "from penstock.dsl.segment import product_viewed\n"
FEATURES = """
from events import product_viewed
from penstock.dsl.features import Profile, count, days, last_k

class Shopper(Profile):
    views = count(product_viewed, over=days(7))
    seen = last_k(product_viewed.product_id, k=5, over=days(30))
"""
MORE = FEATURES + "    ever = count(product_viewed, over=days(300))\n"


class Fuse:
    """Lets so many durable writes through, then none: what the process did last is what is kept."""

    def __init__(self, writes: int) -> None:
        self.left = writes

    def burn(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise Unavailable("E402", "cut off", fix="start again")


class Fused:
    """Something kept, whose writes burn a fuse."""

    def __init__(self, inner: Any, fuse: Fuse, *writes: str) -> None:
        self._inner, self._fuse, self._writes = inner, fuse, writes

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if name not in self._writes:
            return found

        def write(*args: Any, **options: Any) -> Any:
            self._fuse.burn()
            return found(*args, **options)

        return write


class World:
    """What outlives a process: a project's folder and all that is kept."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.clock = HandClock(NOW)
        folder.mkdir(parents=True)
        for name, text in (
            ("penstock.toml", TOML),
            ("events.py", EVENTS),
            ("features.py", FEATURES),
        ):
            (folder / name).write_text(text)
        keys = MemoryKeys()
        make_keys(keys)
        self.stores = Stores(keys, MemoryLog(self.clock), MemoryStore(), MemorySuppressions(),
                             MemoryDecisions(), versions=MemoryVersions())  # fmt: skip
        self.sent = 0

    def fused(self, fuse: Fuse) -> Stores:
        stores = self.stores
        return Stores(
            stores.keys, Fused(stores.log, fuse, "append"),
            Fused(stores.store, fuse, "write", "put_meta", "drop"), stores.suppressions, stores.decisions,
            versions=Fused(stores.versions, fuse, "put", "put_files"),
        )  # fmt: skip

    def node(self, stores: Stores | None = None) -> Node:
        return make_node(load_project(self.folder), stores or self.stores, clock=self.clock,
                         metrics=MemoryMetrics())  # fmt: skip

    async def send(self, node: Node, number: int) -> None:
        consent = {"consent": {"categoryPreferences": {"personalisation": True}}}
        batch = [
            {"type": "track", "event": "Product Viewed", "messageId": f"m{self.sent + index}", "userId": f"u{index % 3}",
             "anonymousId": f"a{index % 2}", "properties": {"product_id": f"p{index}"}, "context": consent}
            for index in range(number)
        ]  # fmt: skip
        decoded = decode_batch(json.dumps({"batch": batch}).encode(), SEGMENT)
        await node.collector.take(node.sources["server"], decoded)
        self.sent += number

    def change(self, text: str) -> None:
        (self.folder / "features.py").write_text(text)

    async def apply(self, node: Node) -> None:
        candidate = node.load(load_project(self.folder))
        node.versions.begin(candidate)
        ended = await node.versions.ended()
        assert ended is not None
        if ended.error is not None:
            raise ended.error

    def project(self, text: str) -> Project:
        self.change(text)
        return load_project(self.folder)

    def require_kept(self) -> None:
        """Check that one version serves, and that every kept one has the bytes of a replay."""
        table = self.stores.versions.load()
        assert [one.state for one in table.versions].count("active") == 1
        texts = {load.fingerprint: load for load in (self.project(FEATURES), self.project(MORE))}
        for version in table.versions:
            if version.state in ("active", "retiring"):
                project = texts[version.fingerprint]
                self.stores.store.drop(99)
                replay(
                    self.stores.log, self.stores.store, Step(project.plan, project.step_rules()), 99
                )
                compared = compare(self.stores.store, version.epoch, 99)
                assert compared.same, (version, compared)
                self.require_links(version.epoch, project)
        self.stores.store.drop(99)

    def require_links(self, epoch: int, project: Project) -> None:
        leaves = {
            leaf: decode_leaf(leaf, stored.version, stored.parts[0], project.plan)
            for leaf, stored in self.stores.store.scan(epoch, None, 1_000)
        }
        for leaf in leaves.values():
            for pair in leaf.edges:
                assert all(side in leaves and pair in leaves[side].edges for side in pair)


async def settle(node: Node) -> None:
    """Have every set of leaves caught up and written; one that is kept follows a moment behind."""
    await node.engine.settled()
    for leaves in node.versions.sets.values():
        if not leaves.serves():
            await node.versions.follower.settled(leaves)


async def abandon(node: Node) -> None:
    """Leave a process as a kill leaves it: nothing more is written."""
    tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def history(world: World, node: Node) -> None:
    """Events, an apply among them, a roll back, and the way forth again."""
    await node.start()
    await world.send(node, 12)
    world.change(MORE)
    await asyncio.gather(world.apply(node), world.send(node, 9))
    await world.send(node, 5)
    await node.versions.roll_back()
    await world.send(node, 4)
    await world.apply(node)
    await world.send(node, 3)
    await node.engine.settled()


def test_uncut_the_history_holds_and_both_versions_agree(tmp_path: Path) -> None:
    async def story() -> tuple[dict[str, Any], int, int]:
        world = World(tmp_path / "shop")
        node = world.node()
        await history(world, node)
        who = Who(node.collector.make_leaf("user_id", "u0"), "user_id")
        profile, _ = await node.serving.profile(who)
        await settle(node)
        await node.close()
        world.require_kept()
        table = world.stores.versions.load()
        plans = {
            one.fingerprint: one.plan for one in (world.project(FEATURES), world.project(MORE))
        }
        old, new = table.version(1), table.version(2)
        found, _ = agree(
            world.stores.store,
            (old.epoch, plans[old.fingerprint]),
            (new.epoch, plans[new.fingerprint]),
        )
        assert found.different == []
        return profile.features, found.leaves, found.states

    features, leaves, states = asyncio.run(story())
    assert features["views"] == features["ever"] > 0
    # Two of three features are defined alike: byte for byte the same in every leaf.
    assert leaves >= 5
    assert states == 2 * leaves


def cut(tmp_path: Path, writes: int) -> bool:
    """Play the history with so many durable writes, start again, and check; return whether it was cut."""

    async def story() -> bool:
        world = World(tmp_path / f"shop{writes}")
        fuse = Fuse(writes)
        failed = False
        try:
            node = world.node(world.fused(fuse))
        except PenstockError:
            node, failed = None, True
        if node is not None:
            playing = asyncio.create_task(history(world, node))
            while not playing.done() and fuse.left >= 0:
                await asyncio.wait([playing], timeout=0.01)
            failed = fuse.left < 0
            await abandon(node)
        again = world.node()
        await again.start()
        await again.versions.ended()
        await world.send(again, 2)
        await settle(again)
        await again.close()
        world.require_kept()
        return failed

    with contextlib.suppress(FileExistsError):
        return asyncio.run(story())
    return False


@pytest.mark.parametrize("writes", [0, 1, 2, 3, 5, 8, 11, 14, 17, 20, 24, 28])
def test_cut_off_at_a_durable_write_it_goes_on_and_nothing_is_lost(
    tmp_path: Path, writes: int
) -> None:
    cut(tmp_path, writes)


@pytest.mark.slow
def test_cut_off_at_every_durable_write(tmp_path: Path) -> None:
    cuts = sum(cut(tmp_path, writes) for writes in range(60))

    assert cuts >= 25
