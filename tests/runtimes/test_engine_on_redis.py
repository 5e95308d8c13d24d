"""The embedded engine over Redis: a server that is killed, emptied or replaced costs time, and nothing else."""

import asyncio
from collections.abc import Awaitable, Callable

from penstock.adapters.log.memory import MemoryLog
from penstock.adapters.metrics.memory import MemoryMetrics
from penstock.adapters.redis import RedisAddress
from penstock.adapters.store.memory import MemoryStore
from penstock.adapters.store.redis import RedisStore
from penstock.adapters.suppressions.memory import MemorySuppressions
from penstock.core.consent.purpose import ConsentRules
from penstock.core.errors import Unavailable
from penstock.core.ids import LeafId, event_id, leaf_id
from penstock.core.record import RECORD_FORMAT, Evidence, Identifier, Kind, Record
from penstock.core.step import Rules, Step
from penstock.dsl.events import event, string
from penstock.dsl.features import Profile, compile_plan, count, days
from penstock.flows.replay import replay
from penstock.ports.store import Store
from penstock.runtimes.embedded import EmbeddedEngine
from penstock.testing.clock import HandClock
from tests.conftest import StartRedis

viewed = event("Product Viewed", product_id=string())
USERS = 40


class Shopper(Profile):
    views = count(viewed, over=days(7))


STEP = Step(compile_plan([Shopper]), Rules(ConsentRules(), {}))


def make_leaf(user: int) -> LeafId:
    return leaf_id(b"k" * 32, "t", "user_id", str(user))


def views(numbers: range) -> list[Record]:
    """Return an event of each number, of the users in turn."""
    return [
        Record(
            format=RECORD_FORMAT, kind=Kind.PRIMARY, tenant="t", leaf=(leaf := make_leaf(n % USERS)),
            id_type="user_id", event_id=event_id(leaf, f"m{n}"), message_id=f"m{n}", type="track",
            name="Product Viewed", occurred_at_ms=1, received_at_ms=1, source="site", source_rank=0,
            verified=True, evidence=Evidence("context", granted=("personalisation",)),
            identifiers=(Identifier("user_id", leaf, str(n % USERS)),),
        )
        for n in numbers
    ]  # fmt: skip


class World:
    """An engine over a server, with few leaves in memory: most reads ask the server."""

    def __init__(self, url: str) -> None:
        self.store = RedisStore(RedisAddress(url, timeout_ms=1_000))
        self.clock = HandClock(1_795_000_000_000)
        self.known = 0
        self.log = MemoryLog(self.clock, partitions=3)
        self.engine = EmbeddedEngine(
            log=self.log, store=self.store, suppressions=MemorySuppressions(), step=STEP, epoch=1,
            clock=self.clock, metrics=MemoryMetrics(), flush_ms=20, cached_max=4,
        )  # fmt: skip

    async def seen(self) -> int | None:
        """Return how many events a live answer has, or None if it says that it is not live.

        Leaves that are missing or old in an answer that says that it is live are what must not be.
        """
        try:
            read = await self.engine.read([make_leaf(user) for user in range(USERS)])
        except Unavailable:
            return None
        return sum(leaf.applied for leaf in read.leaves if leaf) if read.live else None

    async def live_again(self, expected: int) -> None:
        """Ask until all is seen; what a live answer has is never less than what was seen an hour ago."""
        while (found := await self.seen()) != expected:
            assert found is None or found >= self.known
            await asyncio.sleep(0.01)

    async def an_hour_later(self, known: int) -> None:
        """Let everything be written and seen, and then be old: a live answer must have it from now on."""
        await self.engine.settled()
        assert known == await self.seen()
        self.known = known
        self.clock.advance(hours=1)

    def same_as_embedded(self) -> bool:
        embedded = MemoryStore()
        replay(self.log, embedded, STEP, 1)
        return bodies(embedded) == bodies(self.store)


def bodies(store: Store) -> dict[LeafId, tuple[bytes, ...]]:
    return {leaf: stored.parts for leaf, stored in store.scan(1, None, 1_000)}


def play(world: World, trouble: Callable[[], Awaitable[None]]) -> None:
    """Fold, run into trouble, append meanwhile, and wait until all is seen again."""

    async def story() -> None:
        engine = world.engine
        await engine.start()
        await engine.appender.append(views(range(400)))
        await world.an_hour_later(400)
        await trouble()
        await engine.appender.append(views(range(400, 500)))
        # What was lost is found with the next look at the store: until then answers are of before.
        while not engine.store.era:  # noqa: ASYNC110 - a server tells nobody
            await asyncio.sleep(0.01)
        await world.live_again(500)
        await engine.settled()
        assert world.same_as_embedded()
        await engine.close()

    asyncio.run(story())


def test_an_emptied_server_is_filled_from_the_log_and_nothing_live_is_empty(
    start_redis: StartRedis,
):
    servers = start_redis()
    world = World(servers.url)

    async def trouble() -> None:
        with servers.client() as client:
            client.flushall()

    play(world, trouble)
    world.store.close()


def test_a_server_that_was_killed_holds_up_nothing(start_redis: StartRedis):
    servers = start_redis(settings={"appendonly": "no"})
    world = World(servers.url)

    async def trouble() -> None:
        servers.servers[0].kill()
        # Events are taken while it is away, and answers say that they are not live, or are from memory.
        await world.engine.appender.append(views(range(400, 450)))
        assert await world.seen() in (None, 450)
        await asyncio.to_thread(servers.servers[0].start)

    play(world, trouble)
    world.store.close()


def test_a_failover_that_lost_acknowledged_leaves_is_made_good(start_redis: StartRedis):
    """One address that follows the primary: here the port of the one that was killed."""
    servers = start_redis(replicas=1)
    world = World(servers.url)

    async def trouble() -> None:
        servers.cut_off(1)
        await world.engine.appender.append(views(range(400, 450)))
        await world.an_hour_later(450)
        servers.servers[0].kill()
        await asyncio.to_thread(servers.take_over, 1)

    play(world, trouble)
    world.store.close()


def test_redis_that_is_away_at_the_end_holds_no_process_that_drains(start_redis: StartRedis):
    servers = start_redis()
    world = World(servers.url)

    async def story() -> None:
        await world.engine.start()
        await world.engine.appender.append(views(range(10)))
        servers.servers[0].kill()
        await asyncio.wait_for(world.engine.close(), 30)

    asyncio.run(story())
    world.store.close()
