"""The read paths that ship, against the suite of the port."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from penstock.adapters.log.memory import MemoryLog
from penstock.adapters.metrics.memory import MemoryMetrics
from penstock.adapters.store.memory import MemoryStore
from penstock.adapters.suppressions.memory import MemorySuppressions
from penstock.core.consent.purpose import ConsentRules
from penstock.core.ids import LeafId, event_id, leaf_id
from penstock.core.record import RECORD_FORMAT, Evidence, Identifier, Kind, Record, encode_record
from penstock.core.step import Rules, Step
from penstock.dsl.events import event, string
from penstock.dsl.features import Profile, compile_plan, count, days
from penstock.flows.process import PartitionFold, catch_up, flush_all
from penstock.ports.profiles import LeafRead
from penstock.runtimes.embedded import EmbeddedEngine
from penstock.testing.clock import HandClock
from penstock.testing.conformance.profiles import ProfilesConformance, Reading

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


class StoreReader:
    """A read path of what is written, as a process that does not fold has it."""

    def __init__(self, clock: HandClock) -> None:
        self.clock = clock
        self.log = MemoryLog(clock)
        self.fold = PartitionFold(
            step=STEP, store=MemoryStore(), epoch=1, partition=0, generation=1
        )

    async def read(self, leaves: list[LeafId]) -> LeafRead:
        return LeafRead(self.fold.fetch(leaves), self.clock.now_ms(), live=True)


class TestStoreReader(ProfilesConformance):
    @asynccontextmanager
    async def open(self) -> AsyncIterator[Reading]:
        clock = HandClock(NOW)
        reader = StoreReader(clock)

        async def append(records: list[Record]) -> None:
            reader.log.append(0, [encode_record(record) for record in records])
            catch_up(reader.fold, lambda at, n: reader.log.read(0, at, n), keep=lambda _: None)
            flush_all(reader.fold)

        yield Reading(reader, clock, append, make_record, make_leaf)
