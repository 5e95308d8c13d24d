"""One recorded log through Kafka and through a file: every leaf has the same bytes, its version too."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest

from penstock.adapters.clock import SystemClock
from penstock.adapters.log.kafka import Connection, KafkaLog
from penstock.adapters.log.sqlite import SqliteLog
from penstock.adapters.store.memory import MemoryStore
from penstock.core.ids import LeafId
from penstock.core.step import Step
from penstock.flows.replay import replay
from penstock.ports.log import Log
from penstock.ports.store import Store, StoredLeaf
from penstock.testing.clock import HandClock
from tests.adapters.kafka.kafka_topics import make_topics, prefix_of
from tests.runtimes.test_embedded import PLAN, RULES, World, view
from tools.services.kafka import Cluster

PARTITIONS = 3
EVENTS = 600
SEED = 20
LINKS_AT_LEAST = 20


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_leaves_folded_from_brokers_are_those_folded_from_a_file(kafka: Cluster, tmp_path: Path):
    connection = make_topics(Connection(kafka.client, prefix_of(tmp_path)), PARTITIONS)
    brokers = KafkaLog(connection, partitions=PARTITIONS)
    world = World(partitions=PARTITIONS)
    world.log, world.clock = brokers, SystemClock()  # brokers stamp by the real one
    asyncio.run(_live(world))
    live = _leaves(world.store)

    file = SqliteLog(tmp_path / "log.db", clock := HandClock(0), partitions=PARTITIONS)
    copied = _copy(brokers, file, clock)
    assert copied > EVENTS + LINKS_AT_LEAST, "links were appended, and retries are there twice"
    assert len(live) > EVENTS // 12
    for log in (file, brokers):
        store = MemoryStore()
        replay(log, store, Step(PLAN, RULES), 1)
        assert live == _leaves(store)
    file.close()
    brokers.close()


async def _live(world: World) -> None:
    """Let an engine append a history, with links and with retries, and fold it as it comes."""
    dice = random.Random(SEED)
    engine = await world.start()
    number = 0
    while number < EVENTS:
        batch = [
            view(
                number + i, f"u{dice.randrange(40)}", dice.choice([None, f"a{dice.randrange(25)}"])
            )
            for i in range(dice.randint(1, 30))
        ]
        await asyncio.gather(*(engine.appender.append([record]) for record in batch))
        if dice.random() < 0.3:
            await engine.appender.append(batch)  # sent again
        number += len(batch)
    await engine.settled()
    await engine.close()


def _copy(source: Log, target: Log, clock: HandClock) -> int:
    count = 0
    for partition in range(PARTITIONS):
        for record in source.read(partition, 0, source.head(partition)):
            clock.set_back(clock.now_ms() - record.logged_at_ms)
            target.append(partition, [record.value])
            count += 1
    return count


def _leaves(store: Store) -> dict[LeafId, StoredLeaf]:
    found: dict[LeafId, StoredLeaf] = {}
    after = None
    while page := store.scan(1, after, 1_000):
        found.update(page)
        after = page[-1][0]
    return found
