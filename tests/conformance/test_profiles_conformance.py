"""The read paths that ship, against the suite of the port."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import pytest

from penstock.adapters.log.memory import MemoryLog
from penstock.adapters.metrics.memory import MemoryMetrics
from penstock.adapters.redis import RedisAddress
from penstock.adapters.store.memory import MemoryStore
from penstock.adapters.store.redis import RedisStore
from penstock.adapters.store.redis.cache import CachedLeaves
from penstock.adapters.suppressions.memory import MemorySuppressions
from penstock.core.consent.purpose import ConsentRules
from penstock.core.ids import LeafId, event_id, leaf_id, partition_of
from penstock.core.record import RECORD_FORMAT, Evidence, Identifier, Kind, Record, encode_record
from penstock.core.step import Rules, Step
from penstock.dsl.events import event, string
from penstock.dsl.features import Profile, compile_plan, count, days
from penstock.flows.process import PartitionFold, catch_up, flush_all
from penstock.ports.store import LeafCache, Store
from penstock.runtimes.embedded import EmbeddedEngine
from penstock.runtimes.reading import ReadingEngine
from penstock.testing.clock import HandClock
from penstock.testing.conformance.profiles import ProfilesConformance, Reading
from tools.services.redis import Servers

NOW = 1_795_000_000_000
viewed = event("Product Viewed", product_id=string())


class Shopper(Profile):
    views = count(viewed, over=days(7))


PLAN = compile_plan([Shopper])
STEP = Step(PLAN, Rules(ConsentRules(), {}))


def make_leaf(user: str) -> LeafId:
    return leaf_id(b"k" * 32, "t", "user_id", user)


def make_record(user: str, number: int) -> Record:
    leaf, message_id = make_leaf(user), f"m{number}"
    return Record(
        format=RECORD_FORMAT, kind=Kind.PRIMARY, tenant="t", leaf=leaf, id_type="user_id",
        event_id=event_id(leaf, message_id), message_id=message_id, type="track", name="Product Viewed",
        occurred_at_ms=NOW, received_at_ms=NOW, source="site", source_rank=0, verified=True,
        evidence=Evidence("context", granted=("personalisation",)),
        identifiers=(Identifier("user_id", leaf, user),),
    )  # fmt: skip


class TestEmbeddedEngine(ProfilesConformance):
    partitions = 1

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Reading]:
        clock = HandClock(NOW)
        engine = EmbeddedEngine(
            log=MemoryLog(clock, partitions=self.partitions), store=MemoryStore(),
            suppressions=MemorySuppressions(), step=STEP, epoch=1, clock=clock, metrics=MemoryMetrics(),
            flush_ms=5,
        )  # fmt: skip
        await engine.start()

        async def append(records: list[Record]) -> None:
            await engine.appender.append(records)
            await engine.folded()

        yield Reading(engine, clock, append, make_record, make_leaf)
        await engine.close()


class TestEmbeddedEngineOfManyPartitions(TestEmbeddedEngine):
    partitions = 5


class TestReadingEngine(ProfilesConformance):
    """A process that does not fold, over what another has written."""

    partitions = 1

    def make_store(self) -> Store:
        return MemoryStore()

    def make_cache(self, store: Store) -> LeafCache | None:
        return None

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Reading]:
        clock = HandClock(NOW)
        log, store = MemoryLog(clock, partitions=self.partitions), self.make_store()
        folds = [
            PartitionFold(step=STEP, store=store, epoch=1, partition=partition, generation=log.generation)
            for partition in range(self.partitions)
        ]  # fmt: skip
        engine = ReadingEngine(
            log=log, store=store, step=STEP, epoch=1, clock=clock, metrics=MemoryMetrics(),
            cache=self.make_cache(store),
        )  # fmt: skip
        await engine.start()

        async def append(records: list[Record]) -> None:
            for record in records:
                log.append(partition_of(record.leaf, self.partitions), [encode_record(record)])
            for partition, fold in enumerate(folds):
                catch_up(fold, partial(log.batches, partition), keep=lambda _: None)
                flush_all(fold)
            await engine.looked()
            await engine.looked()  # the one that was under way may have begun before

        yield Reading(engine, clock, append, make_record, make_leaf)
        await engine.close()
        store.drop(1)
        store.close()


class TestReadingEngineOfManyPartitions(TestReadingEngine):
    partitions = 5


class TestReadingEngineOnRedis(TestReadingEngineOfManyPartitions):
    @pytest.fixture(autouse=True)
    def _server(self, redis_server: Servers) -> None:
        self.address = RedisAddress(redis_server.url)

    def make_store(self) -> Store:
        return RedisStore(self.address, tenant="profiles")


class TestReadingEngineOnRedisWithACache(TestReadingEngineOnRedis):
    def make_cache(self, store: Store) -> LeafCache | None:
        assert isinstance(store, RedisStore)
        return CachedLeaves(store, 1 << 20)
