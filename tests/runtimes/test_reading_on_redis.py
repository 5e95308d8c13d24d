"""A process that reads what workers write, over a real Redis: what it serves while that is emptied or evicts."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from penstock.adapters.clock import SystemClock
from penstock.adapters.log.memory import MemoryLog
from penstock.adapters.metrics.memory import MemoryMetrics
from penstock.adapters.redis import RedisAddress
from penstock.adapters.store.redis import RedisStore
from penstock.adapters.store.redis.cache import CachedLeaves
from penstock.core.errors import Unavailable
from penstock.core.ids import partition_of
from penstock.core.record import encode_record
from penstock.core.time import HOUR_MS
from penstock.flows.replay import replay
from penstock.runtimes.reading import ReadingEngine
from penstock.testing.clock import HandClock
from tests.conftest import StartRedis
from tests.runtimes.test_engine_on_redis import STEP, USERS, make_leaf, views
from tools.services.redis import Servers

EVENTS = 80
PARTITIONS = 3
DEADLINE_S = 60


CACHED = pytest.mark.parametrize("cached", [False, True], ids=["asked", "cached"])
"""Whether leaves are kept in memory until they change."""


def play(
    servers: Servers, story: Callable[[ReadingEngine], Awaitable[None]], *, cached: bool
) -> None:
    """Play a story with leaves that are written, and live."""
    # What was logged in the last second may lack in a live answer; this was an hour ago.
    log = MemoryLog(HandClock(SystemClock().now_ms() - HOUR_MS), partitions=PARTITIONS)
    for record in views(range(EVENTS)):
        log.append(partition_of(record.leaf, PARTITIONS), [encode_record(record)])
    store = RedisStore(RedisAddress(servers.url, timeout_ms=5_000))
    replay(log, store, STEP, 1)

    async def run() -> None:
        engine = ReadingEngine(
            log=log, store=store, step=STEP, epoch=1, clock=SystemClock(), metrics=MemoryMetrics(),
            cache=CachedLeaves(store, 1 << 20) if cached else None,
        )  # fmt: skip
        await engine.start()
        try:
            async with asyncio.timeout(DEADLINE_S):
                assert (EVENTS, True) == await seen(engine)
                await story(engine)
        finally:
            await engine.close()
            store.close()

    asyncio.run(run())


async def seen(engine: ReadingEngine) -> tuple[int, bool]:
    """Return how many events an answer has, and whether it says that it is live; -1 if there is none."""
    await asyncio.sleep(0)  # an answer that is refused waits for nothing
    try:
        read = await engine.read([make_leaf(user) for user in range(USERS)])
    except Unavailable:
        return -1, False
    return sum(leaf.applied for leaf in read.leaves if leaf is not None), read.live


@CACHED
def test_an_emptied_store_is_never_served_as_live_until_it_is_filled_again(
    start_redis: StartRedis, cached: bool
):
    servers = start_redis()

    async def story(engine: ReadingEngine) -> None:
        with servers.client() as client:
            client.flushall()
        told: list[tuple[int, bool]] = []
        while (0, False) not in told:
            told.append(await seen(engine))
            assert told[-1][0] == EVENTS or not told[-1][1]
        await asyncio.to_thread(replay, engine.log, engine.store, STEP, 1)
        while (EVENTS, True) != (now := await seen(engine)):
            assert not now[1]

    play(servers, story, cached=cached)


@CACHED
def test_a_server_that_comes_to_evict_serves_nothing_until_it_is_put_right(
    start_redis: StartRedis, cached: bool
):
    servers = start_redis()

    async def story(engine: ReadingEngine) -> None:
        with servers.client() as client:
            client.config_set("maxmemory-policy", "allkeys-lru")
            while (-1, False) != await seen(engine):
                await engine.looked()
            client.config_set("maxmemory-policy", "noeviction")
        while (EVENTS, True) != await seen(engine):
            await engine.looked()

    play(servers, story, cached=cached)


def test_what_is_kept_is_counted_and_changes_when_its_person_does(start_redis: StartRedis):
    servers = start_redis()

    async def story(engine: ReadingEngine) -> None:
        assert (EVENTS, True) == await seen(engine)
        engine.publish()
        hits, misses = (
            engine.metrics.value("penstock_leaf_cache_reads_total", outcome=one)
            for one in ("hit", "miss")
        )
        assert hits >= USERS
        assert USERS == misses
        assert engine.metrics.value("penstock_leaf_cache_bytes") > 0
        for record in views(range(EVENTS, EVENTS + 5)):
            engine.log.append(partition_of(record.leaf, PARTITIONS), [encode_record(record)])
        await asyncio.to_thread(replay, engine.log, engine.store, STEP, 1)
        while EVENTS + 5 != (await seen(engine))[0]:
            await engine.looked()

    play(servers, story, cached=True)
