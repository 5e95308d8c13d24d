"""The embedded engine: it folds what is appended, writes behind, and continues after any stop."""

import asyncio
import threading
from collections.abc import Sequence

import msgspec
import pytest

from penstock.adapters.log.memory import MemoryLog
from penstock.adapters.metrics.memory import MemoryMetrics
from penstock.adapters.store.memory import MemoryStore
from penstock.adapters.suppressions.memory import MemorySuppressions
from penstock.core.consent.purpose import ConsentRules
from penstock.core.errors import Unavailable
from penstock.core.feature.plan import Plan
from penstock.core.identity.identifier import IdentityRules
from penstock.core.identity.routing import route
from penstock.core.ids import LeafId, event_id, leaf_id, partition_of
from penstock.core.record import (
    RECORD_FORMAT,
    Evidence,
    Kind,
    Record,
    Version,
    decode_record,
    encode_record,
)
from penstock.core.step import Rules, Step
from penstock.dsl.events import event, string
from penstock.dsl.features import Profile, compile_plan, count, days, last_k
from penstock.flows.person import Definitions, find_person, profile_of
from penstock.flows.replay import compare, replay
from penstock.ports.store import LeafWrite, Verdict
from penstock.runtimes.embedded import SLICE_RECORDS, EmbeddedEngine
from penstock.testing.clock import HandClock

NOW = 1_795_000_000_000
GRANTED = Evidence("context", granted=("personalisation",))

viewed = event("Product Viewed", product_id=string())


class Shopper(Profile):
    views = count(viewed, over=days(7))
    recent = last_k(viewed.product_id, k=3, over=days(7))


PLAN: Plan = compile_plan([Shopper])
RULES = Rules(ConsentRules(), {})


def make_leaf(id_type: str, value: str) -> LeafId:
    return leaf_id(b"k" * 32, "t", id_type, value)


def view(number: int, user: str = "u1", device: str | None = None, name: str = "Product Viewed",
         **properties: str) -> Record:  # fmt: skip
    message_id = f"m{number}"
    routing = route(
        user_id=user, anonymous_id=device, previous_id=None, group_id=None, external_ids=(), email=None,
        type_name="track", message_id=message_id, occurred_at_ms=NOW, verified=True, tenant="t",
        make_leaf=make_leaf, rules=IdentityRules(),
    )  # fmt: skip
    leaf = routing.primary.leaf
    return Record(
        format=RECORD_FORMAT, kind=Kind.PRIMARY, tenant="t", leaf=leaf, id_type=routing.primary.id_type,
        event_id=event_id(leaf, message_id), message_id=message_id, type="track", name=name,
        occurred_at_ms=NOW, received_at_ms=NOW, source="site", source_rank=0, verified=True,
        evidence=GRANTED, identifiers=routing.identifiers, edges=routing.edges,
        properties={"product_id": f"p{number}", **properties},
    )  # fmt: skip


class World:
    """What outlives an engine: the log, the stores, the clock."""

    def __init__(self, store: MemoryStore | None = None, partitions: int = 1) -> None:
        self.clock = HandClock(NOW)
        self.log = MemoryLog(self.clock, partitions=partitions)
        self.store = store or MemoryStore()
        self.suppressions = MemorySuppressions()
        self.metrics = MemoryMetrics()

    async def start(self, rules: Rules = RULES) -> EmbeddedEngine:
        engine = EmbeddedEngine(
            log=self.log, store=self.store, suppressions=self.suppressions, step=Step(PLAN, rules),
            epoch=1, clock=self.clock, metrics=self.metrics, flush_ms=5,
        )  # fmt: skip
        await engine.start()
        return engine

    def same_as_replay(self) -> bool:
        self.store.drop(99)
        replay(self.log, self.store, Step(PLAN, RULES), 99)
        return compare(self.store, 1, 99).same


async def features(engine: EmbeddedEngine, id_type: str, value: str) -> dict:
    definitions = Definitions(PLAN, IdentityRules(), ConsentRules(), {})
    person = await find_person(engine, make_leaf(id_type, value), definitions)
    return profile_of(person, definitions, None, engine.clock.now_ms()).features


@pytest.mark.parametrize("partitions", [1, 3])
def test_an_appended_event_is_read_at_once_from_every_side(partitions: int) -> None:
    async def story() -> list[dict]:
        world = World(partitions=partitions)
        engine = await world.start()
        await engine.appender.append([view(1, "u1", "a1"), view(2, "u2")])
        await engine.settled()
        found = [
            await features(engine, *who) for who in (("user_id", "u1"), ("anonymous_id", "a1"))
        ]
        await engine.close()
        assert world.same_as_replay()
        return found

    assert asyncio.run(story()) == [{"views": 1, "recent": ["p1"]}] * 2


def test_the_fold_takes_as_long_of_a_turn_as_everything_else_did() -> None:
    """An edge that is busy makes turns long: a slice of each would leave the fold behind for good."""

    async def story() -> int:
        world = World()
        engine = await world.start()
        turns = 0
        appending = asyncio.create_task(
            engine.appender.append(
                [view(number, f"u{number}") for number in range(10 * SLICE_RECORDS)]
            )
        )
        while not appending.done() or engine.lag():
            world.clock.advance(20)
            turns += appending.done()
            await asyncio.sleep(0)
        await engine.close()
        return turns

    assert asyncio.run(story()) < 5


def test_a_stop_and_a_start_change_nothing() -> None:
    async def story() -> dict:
        world = World()
        engine = await world.start()
        await engine.appender.append(
            [view(number, f"u{number % 3}", f"a{number % 2}") for number in range(20)]
        )
        await engine.close()
        engine = await world.start()
        await engine.appender.append([view(number, f"u{number % 3}") for number in range(25)])
        await engine.settled()
        found = await features(engine, "user_id", "u0")
        await engine.close()
        assert world.same_as_replay()
        return found

    assert asyncio.run(story())["views"] == 9


def test_links_that_a_start_appends_to_other_partitions_are_folded_too() -> None:
    async def story() -> tuple[dict, int]:
        world = World(partitions=3)
        # A process ended after the append of these, before that of their links.
        for number in range(30):
            one = view(number, f"u{number}", f"a{number}")
            world.log.append(partition_of(LeafId(one.leaf), 3), [encode_record(one)])
        engine = await world.start()
        found = await features(engine, "anonymous_id", "a7")
        await engine.settled()
        await engine.close()
        assert world.same_as_replay()
        return found, sum(world.log.head(partition) for partition in range(3))

    found, records = asyncio.run(story())
    assert found["views"] == 1
    assert records == 60, "each link once"


def test_what_was_never_written_comes_back_from_the_log() -> None:
    async def story() -> dict:
        world = World()
        engine = await world.start()
        await engine.appender.append([view(1, "u1", "a1"), view(2, "u1")])
        await engine.folded()
        # The process dies here: the store may lack leaves, the log has everything.
        for task in engine._tasks:
            task.cancel()
        world.store = MemoryStore()
        engine = await world.start()
        found = await features(engine, "user_id", "u1")
        await engine.settled()
        await engine.close()
        assert world.same_as_replay()
        return found

    assert asyncio.run(story())["views"] == 2


class DoubtfulStore(MemoryStore):
    """A store that once says that it does not know what it wrote, and once refuses."""

    def __init__(self) -> None:
        super().__init__()
        self.troubles = ["unavailable", "refused"]

    def write(
        self, epoch: int, writes: Sequence[LeafWrite], *, partition: int, applied: Version
    ) -> list[Verdict]:
        trouble = self.troubles.pop(0) if self.troubles and writes and epoch == 1 else ""
        if trouble == "unavailable":
            raise Unavailable("E402", "the store did not answer", fix="retry")
        if trouble == "refused":
            return [Verdict.REFUSED for _ in writes]
        return super().write(epoch, writes, partition=partition, applied=applied)


def test_records_that_somebody_else_appended_are_read_from_the_log() -> None:
    async def story() -> dict:
        world = World()
        engine = await world.start()
        await engine.appender.append([view(1)])
        world.log.append(0, [encode_record(view(2))])
        await engine.appender.append([view(3)])
        await engine.settled()
        found = await features(engine, "user_id", "u1")
        await engine.close()
        assert world.same_as_replay()
        return found

    assert asyncio.run(story())["views"] == 3


def test_a_store_in_doubt_sends_the_fold_back_to_the_log() -> None:
    async def story() -> dict:
        store = DoubtfulStore()
        world = World(store)
        engine = await world.start()
        for number in range(4):
            await engine.appender.append([view(number, "u1", f"a{number}")])
            await engine.settled()
        found = await features(engine, "user_id", "u1")
        await engine.close()
        assert store.troubles == []
        assert world.same_as_replay()
        return found

    assert asyncio.run(story())["views"] == 4


class FullStore(MemoryStore):
    """A store that refuses every write until there is room again."""

    full = False

    def write(
        self, epoch: int, writes: Sequence[LeafWrite], *, partition: int, applied: Version
    ) -> list[Verdict]:
        if self.full:
            raise Unavailable("E402", "the disk is full", fix="make room")
        return super().write(epoch, writes, partition=partition, applied=applied)


def test_a_store_that_goes_on_refusing_holds_no_process_that_drains() -> None:
    async def story() -> dict:
        store = FullStore()
        world = World(store)
        engine = await world.start()
        await engine.appender.append([view(1)])
        await engine.settled()
        store.full = True
        await engine.appender.append([view(2), view(3, "u1", "a1")])
        await engine.folded()
        await asyncio.wait_for(engine.close(), 10)
        store.full = False
        engine = await world.start()
        found = await features(engine, "user_id", "u1")
        await engine.close()
        assert world.same_as_replay()
        return found

    assert asyncio.run(story())["views"] == 3


class GatedStore(MemoryStore):
    """A store whose writes wait at a gate."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Event()
        self.waiting = threading.Event()

    def write(
        self, epoch: int, writes: Sequence[LeafWrite], *, partition: int, applied: Version
    ) -> list[Verdict]:
        self.waiting.set()
        assert self.gate.wait(10)
        return super().write(epoch, writes, partition=partition, applied=applied)


def test_two_who_flush_at_once_lose_nothing() -> None:
    async def story() -> list[int]:
        store = GatedStore()
        world = World(store)
        engine = await world.start()
        await engine.appender.append([view(1, "u1")])
        assert await asyncio.to_thread(store.waiting.wait, 10)
        # The loop's flush is being written. The leaf changes, and somebody else flushes too.
        await engine.appender.append([view(2, "u1")])
        settled = asyncio.create_task(engine.settled())
        for _ in range(10):
            await asyncio.sleep(0)
        await engine.appender.append([view(3, "u2")])
        await engine.folded()
        store.gate.set()
        await settled
        await engine.settled()
        found = [(await features(engine, "user_id", user))["views"] for user in ("u1", "u2")]
        await engine.close()
        assert world.same_as_replay()
        return found

    assert asyncio.run(story()) == [2, 1]


def test_who_stops_waiting_for_a_flush_does_not_stop_it() -> None:
    async def story() -> None:
        store = GatedStore()
        world = World(store)
        engine = await world.start()
        await engine.appender.append([view(1, "u1")])
        assert await asyncio.to_thread(store.waiting.wait, 10)
        closing = asyncio.create_task(engine.close())
        for _ in range(10):
            await asyncio.sleep(0)
        assert not closing.done()
        store.gate.set()
        await closing
        assert world.same_as_replay()
        assert Version(1, 0) == store.applied(1, 0)

    asyncio.run(story())


def test_links_are_in_the_log_before_the_leaves_that_cover_their_primaries() -> None:
    class Witness(MemoryStore):
        """Sees the log at every write."""

        def write(
            self, epoch: int, writes: Sequence[LeafWrite], *, partition: int, applied: Version
        ) -> list[Verdict]:
            if epoch == 1 and writes:
                kept = [decode_record(entry.value) for entry in world.log.read(0, 0, 1_000)]
                linked = {edge.b for one in kept if one.kind == Kind.LINK for edge in one.edges}
                linked |= {edge.a for one in kept if one.kind == Kind.LINK for edge in one.edges}
                covered = kept[: max(write.new.offset for write in writes) + 1]
                checked.extend(
                    {edge.a, edge.b} <= linked for record in covered for edge in record.edges
                )
            return super().write(epoch, writes, partition=partition, applied=applied)

    checked: list[bool] = []
    world = World(Witness())

    async def story() -> None:
        engine = await world.start()
        for number in range(10):
            await engine.appender.append([view(number, f"u{number}", f"a{number}")])
            await engine.settled()
        await engine.close()

    asyncio.run(story())

    assert checked
    assert all(checked)


def test_an_identifier_over_its_limit_is_set_aside_and_its_events_are_kept() -> None:
    async def story() -> World:
        world = World()
        engine = await world.start(RULES._replace(leaf_bytes_max=2_000))
        await engine.appender.append([view(number, "crawler") for number in range(400)])
        await engine.appender.append([view(1_000, "u1")])
        await engine.settled()
        assert (await features(engine, "user_id", "u1"))["views"] == 1
        await engine.close()
        return world

    world = asyncio.run(story())

    letters = list(world.log.dead_letters())
    leaf = world.store.read(1, [make_leaf("user_id", "crawler")])[0]
    assert leaf is not None
    assert {letter.reason for letter in letters} == {"E360"}
    assert decode_record(letters[0].body).source == "site"
    engine_counts = world.metrics.value("penstock_events_applied_total")
    assert engine_counts + len(letters) == 401


def test_an_unsubscribe_reaches_the_register_through_the_fold_alone() -> None:
    async def story() -> list[bool]:
        world = World()
        engine = await world.start()
        # As after a kill between the append and the edge's own write.
        await engine.appender.append([view(1, "u1", name="Unsubscribed")])
        await engine.settled()
        found = world.suppressions.get([make_leaf("user_id", "u1")])
        await engine.close()
        return [entry.denied for entry in found.values()]

    assert asyncio.run(story()) == [True]


def test_readiness_tells_the_truth() -> None:
    async def story() -> list[bool]:
        world = World()
        engine = await world.start()
        answers = [engine.ready()[0], engine.live()]
        world.clock.set_back(3_600_000)
        answers.append(engine.ready()[0])
        world.clock.set_back(-3_600_000)
        await engine.close()
        answers.append(engine.ready()[0])
        return answers

    assert asyncio.run(story()) == [True, True, False, False]


def test_the_conservation_law_holds_in_the_metrics() -> None:
    async def story() -> World:
        world = World()
        engine = await world.start()
        await engine.appender.append([view(1), view(1), view(2), view(3, "u2", "a1")])
        bare = msgspec.structs.replace(
            view(4), evidence=Evidence("context", denied=("personalisation",)), bare=True,
            properties={}, edges=(), identifiers=(),
        )  # fmt: skip
        await engine.appender.append([bare])
        await engine.settled()
        engine.publish()
        await engine.close()
        return world

    world = asyncio.run(story())

    value = world.metrics.value
    assert (
        value("penstock_events_applied_total"), value("penstock_events_deduplicated_total"),
        value("penstock_events_policy_dropped_total"), value("penstock_links_appended_total"),
    ) == (3, 1, 1, 1)  # fmt: skip


def test_a_flush_under_endless_new_edges_still_writes() -> None:
    async def story() -> int:
        world = World()
        engine = await world.start()
        lane = engine._lanes[0]
        written: list[int] = []

        async def feed() -> None:
            for number in range(300):
                await engine.appender.append([view(number, f"u{number}", f"a{number}")])
                written.append(world.store.applied(1, 0).offset)

        await feed()
        assert lane.fold.next_offset > 300
        await engine.close()
        assert world.same_as_replay()
        return max(written)

    # Every record brings an edge, so that links are owed at every instant: leaves get written all the same.
    assert asyncio.run(story()) > 0
