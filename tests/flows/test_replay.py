"""Replay: the log from its beginning gives the store's own bytes, and a stop in between costs nothing."""

import asyncio
from collections.abc import Callable
from dataclasses import replace as replaced
from pathlib import Path

import msgspec
import pytest
from tests_serving import Shop, identify, opened, view

from penstock.adapters.log.sqlite import SqliteLog
from penstock.adapters.store.memory import MemoryStore
from penstock.compose import Node, Stores, make_node
from penstock.core.event import SEGMENT, decode_single
from penstock.core.ids import LeafId
from penstock.core.record import NO_VERSION, Kind, Version, decode_record, encode_record
from penstock.core.step import Step
from penstock.flows.replay import (
    LIVE_EPOCH,
    Comparison,
    choose_epoch,
    compare,
    covered_offsets,
    fingerprint_name,
    keeper,
    make_live,
    replay,
)
from penstock.flows.serve import Who
from penstock.ports.store import LeafWrite
from penstock.project import Project, load_project
from penstock.testing.clock import HandClock

Play = Callable[..., object]


async def history(shop: Shop) -> None:
    """A little of everything: links, copies, a withdrawal, an unsubscribe, items, a job."""
    await shop.send(identify(), view("p1"), view("p2", None, "a1"), view("p1"))
    shop.clock.advance(hours=7)
    await shop.send(view("p3", "u2", "a1"), identify("u2", "a1", "bob@example.com"))
    withdrawn = {"consent": {"categoryPreferences": {"personalisation": False}}}
    await shop.send(
        {"type": "track", "event": "Segment Consent Preference Updated", "userId": "u2",
         "messageId": "w", "context": withdrawn},
        {"type": "track", "event": "Unsubscribed", "userId": "u1", "messageId": "un"},
        {"type": "track", "event": "Product Viewed", "userId": "u3", "messageId": "d",
         "properties": {"product_id": "p1"}, "context": withdrawn},
    )  # fmt: skip
    shop.clock.advance(days=9)
    await shop.send(view("p9"))


def step_of(shop: Shop) -> Step:
    return Step(shop.node.project.plan, shop.node.project.step_rules())


def rebuilt(shop: Shop, epoch: int = 99) -> Comparison:
    store = shop.node.stores.store
    replay(shop.node.stores.log, store, step_of(shop), epoch)
    return compare(store, shop.node.epoch.number, epoch)


def test_replay_equals_live_byte_for_byte(play: Play) -> None:
    async def story(shop: Shop) -> Comparison:
        await history(shop)
        return rebuilt(shop)

    found = play(story)
    assert found.same
    assert found.equal >= 6


def test_replay_counts_what_the_fold_counted_and_appends_nothing(play: Play) -> None:
    async def story(shop: Shop) -> tuple:
        await history(shop)
        log = shop.node.stores.log
        before = log.counts()
        seen: list[int] = []
        total = replay(log, shop.node.stores.store, step_of(shop), 99, progress=seen.append)
        tally = shop.node.engine._lanes[0].fold.tally
        same = all(
            getattr(total, name) == getattr(tally, name)
            for name in ("applied", "deduplicated", "dropped", "dead", "linked")
        )
        return before == log.counts(), sum(seen) == log.head(0), same

    assert play(story) == (True, True, True)


def test_a_replay_that_was_stopped_goes_on_where_it_was(play: Play) -> None:
    class Stopped(Exception):
        pass

    async def story(shop: Shop) -> Comparison:
        await history(shop)
        node = shop.node

        def stop(_: int) -> None:
            raise Stopped

        with pytest.raises(Stopped):
            replay(node.stores.log, node.stores.store, step_of(shop), 99, progress=stop)
        return rebuilt(shop)

    assert play(story).same


def test_compare_names_every_planted_difference() -> None:
    store = MemoryStore()
    ids = [LeafId(bytes([n]) * 16) for n in range(5)]

    def put(epoch: int, leaves: dict[int, bytes]) -> None:
        writes = [LeafWrite(ids[n], NO_VERSION, Version(1, n), (raw,)) for n, raw in leaves.items()]
        store.write(epoch, writes, partition=0, applied=Version(1, 4))

    put(1, {0: b"same", 1: b"one", 3: b"left"})
    put(2, {0: b"same", 1: b"two", 2: b"right", 4: b"right too"})
    found = compare(store, 1, 2)
    assert found == Comparison(1, [ids[1]], [ids[3]], [ids[2], ids[4]])
    assert not found.same
    assert compare(store, 1, 1) == Comparison(3, [], [], [])
    assert compare(store, 7, 8) == Comparison(0, [], [], [])


def test_compare_looks_at_bytes_and_not_at_versions() -> None:
    store = MemoryStore()
    leaf = LeafId(bytes(16))
    for epoch, offset in ((1, 3), (2, 9)):
        write = LeafWrite(leaf, NO_VERSION, Version(1, offset), (b"same",))
        store.write(epoch, [write], partition=0, applied=Version(1, offset))
    assert compare(store, 1, 2).same


# ------------------------------------------------------------------------------------- epochs


def fill(store: MemoryStore, epoch: int) -> None:
    store.write(epoch, [LeafWrite(LeafId(bytes(16)), NO_VERSION, Version(1, 0), (b"x",))],
                partition=0, applied=Version(1, 0))  # fmt: skip


def test_the_first_epoch_is_new_and_the_same_until_it_is_live() -> None:
    store = MemoryStore()
    assert choose_epoch(store, "a") == (1, False)
    assert choose_epoch(store, "a") == (1, False)
    fill(store, 1)
    make_live(store, 1)
    assert choose_epoch(store, "a") == (1, True)


def test_new_definitions_get_a_new_epoch_and_the_old_one_serves_until_then() -> None:
    store = MemoryStore()
    fill(store, choose_epoch(store, "a").number)
    make_live(store, 1)
    assert choose_epoch(store, "b") == (2, False)
    fill(store, 2)
    assert store.get_meta(LIVE_EPOCH) == "1"
    # A crash here: the same definitions take the unfinished epoch up again, others do not.
    assert choose_epoch(store, "b") == (2, False)
    assert choose_epoch(store, "c") == (3, False)
    assert choose_epoch(store, "a") == (1, True)
    make_live(store, 2)
    assert (store.epochs(), choose_epoch(store, "b")) == ([2], (2, True))
    assert choose_epoch(store, "a") == (3, False)


def test_a_stop_between_the_switch_and_the_clearing_leaves_the_new_epoch_live() -> None:
    store = MemoryStore()
    for epoch, name in ((1, "a"), (2, "b")):
        store.put_meta(fingerprint_name(epoch), name)
        fill(store, epoch)
    store.put_meta(LIVE_EPOCH, "2")
    assert choose_epoch(store, "b") == (2, True)
    # What is left of the old epoch is never taken for new definitions that look like it.
    assert choose_epoch(store, "a") == (3, False)
    make_live(store, 2)
    assert store.epochs() == [2]


# --------------------------------------------------------------------- definitions that changed


async def run_twice(first: Project, second: Project) -> tuple[dict, dict, dict[str, int]]:
    """Run one project, then another over the same stores; return features, and the log's counts."""
    stores: list[Stores] = []

    def remember(made: Stores) -> Stores:
        stores.append(made)
        return made

    clock = HandClock(1_795_000_000_000)
    async with opened(first, remember) as shop:
        await history(shop)
        before = await shop.read("/v1/profiles/user_id:u1")
        log = stores[0].log
        counts = {"before": log.head(0)}
        await shop.node.close()
        clock.advance(shop.clock.now_ms() - clock.now_ms())
        told: list[str] = []
        node = make_node(second, stores[0], clock=clock)
        node.on_replay = lambda: told.append("replayed")
        await node.start()
        await node.versions.ended()
        await node.engine.settled()
        counts["after"] = log.head(0)
        counts["told"] = len(told)
        counts["epoch"] = node.engine.epoch
        found = await node.serving.profile(who_of(node))
        await node.close()
        # The stores close with the shop, and its node a second time, which does nothing more.
        return before["features"], found[0].features, counts


def who_of(node: Node) -> Who:
    return Who(node.collector.make_leaf("user_id", "u1"), "user_id")


def test_changed_definitions_are_folded_anew_and_append_no_link_again(
    project: Project, folder: Path
) -> None:
    path = folder / "features.py"
    path.write_text(path.read_text() + "    views_30d = count(product_viewed, over=days(30))\n")
    before, after, counts = asyncio.run(run_twice(project, load_project(folder)))
    assert before["views_7d"] == after["views_7d"]
    assert after["views_30d"] >= 2
    # Nothing waited for it: what served before served until the new leaves had caught up.
    assert (counts["told"], counts["epoch"]) == (0, 2)
    assert counts["after"] == counts["before"]


def test_the_same_definitions_go_on_with_their_epoch(project: Project, folder: Path) -> None:
    before, after, counts = asyncio.run(run_twice(project, load_project(folder)))
    assert before == after
    assert (counts["told"], counts["epoch"]) == (0, 1)
    assert counts["after"] == counts["before"]


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        (
            "events.py",
            "first_name=string()",
            'first_name=string(privacy=private(purpose="measurement"))',
        ),
        ("penstock.toml", "[email]", '[consent]\nregime = "opt_out"\n[email]'),
        ("penstock.toml", "[store]", "[store]\nleaf_bytes_max = 8192"),
        (
            "penstock.toml",
            "[email]",
            '[consent]\npurposes = ["recommendations"]\n[email]',
        ),
        ("features.py", "days(7)", "days(8)"),
    ],
    ids=["trait purpose", "regime", "limit", "purposes", "feature"],
)
def test_whatever_the_leaves_depend_on_asks_for_a_replay(
    project: Project, folder: Path, file: str, old: str, new: str
) -> None:
    path = folder / file
    text = path.read_text().replace(old, new).replace("import integer", "import private, integer")
    path.write_text(text)
    assert load_project(folder).fingerprint != project.fingerprint


def test_what_the_leaves_do_not_depend_on_asks_for_none(project: Project, folder: Path) -> None:
    path = folder / "slots.py"
    path.write_text(path.read_text().replace("New in", "Fresh"))
    toml = folder / "penstock.toml"
    toml.write_text(toml.read_text().replace('currency = "GBP"', 'currency = "GBP"\nname = "x"'))
    assert load_project(folder).fingerprint == project.fingerprint


# --------------------------------------------------------------------- the tail after a kill


def test_the_tail_that_a_kill_left_gets_its_links_before_leaves_cover_it(play: Play) -> None:
    async def story(shop: Shop) -> list:
        await shop.send(view("p1", "u1", "a1"))
        stores = shop.node.stores
        log, store = stores.log, stores.store
        # A kill: appended, acknowledged, and not folded by anybody.
        event = {"type": "track", "event": "Unsubscribed", "userId": "u2", "anonymousId": "a2",
                 "messageId": "tail", "context": {"consent": {"categoryPreferences": {
                     "personalisation": True}}}}  # fmt: skip
        decoded = decode_single(msgspec.json.encode(event), None, SEGMENT)
        record = shop.node.collector.record_of(
            shop.node.sources["backend"], decoded.events[0][1], shop.clock.now_ms()
        )
        log.append(0, [encode_record(record)])
        live = shop.node.epoch.number
        covered = covered_offsets(log, store, live)
        before = log.head(0)
        replay(log, store, step_of(shop), live, covered=covered,
               keep=keeper(log, stores.suppressions))  # fmt: skip
        tail = [decode_record(one.value) for one in log.read(0, before, 10)]
        register = stores.suppressions.get([LeafId(record.leaf)])
        # Once more changes nothing, and a fresh epoch has the same bytes.
        again = replay(log, store, step_of(shop), 98, covered=covered_offsets(log, store, live),
                       keep=keeper(log, stores.suppressions))  # fmt: skip
        return [
            [one.kind for one in tail],
            [entry.denied for entry in register.values()],
            log.head(0) - before,
            compare(store, live, 98).same,
            again.linked,
        ]

    assert play(story) == [[Kind.LINK], [True], 1, True, 2]


def test_a_log_on_disk_replays_to_the_same_bytes(tmp_path: Path, project: Project) -> None:
    async def story() -> tuple[bool, int]:
        def on_disk(stores: Stores) -> Stores:
            return replaced(
                stores, log=SqliteLog(tmp_path / "log.db", HandClock(1_795_000_000_000))
            )

        async with opened(project, on_disk) as shop:
            await history(shop)
            found = rebuilt(shop)
            return found.same, found.equal

    same, equal = asyncio.run(story())
    assert same
    assert equal >= 6
