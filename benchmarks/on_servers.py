"""The same project on Kafka and Redis: workers, the collector, the way from an event to its content."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic

from benchmarks import freshness, loads, servers, workload
from benchmarks.bytewax_peer import BytewaxOnKafka, PeerMissing
from benchmarks.measure import Row, Sample, amount, compare, interleaved, row, timed
from benchmarks.over_http import fill
from benchmarks.servers import START, Server
from benchmarks.workload import Sizes, Stream
from penstock.adapters.clock import SystemClock
from penstock.adapters.log.memory import MemoryLog
from penstock.adapters.metrics.memory import MemoryMetrics
from penstock.adapters.redis import RedisAddress
from penstock.adapters.store.redis import RedisStore
from penstock.adapters.store.redis.cache import CachedLeaves
from penstock.core.ids import LeafId, partition_of
from penstock.core.record import leaf_of
from penstock.flows.process import PartitionFold, catch_up, flush_all
from penstock.flows.replay import LIVE_EPOCH
from penstock.logs import open_log
from penstock.project import load_project
from penstock.runtimes.reading import ReadingEngine
from penstock.stores import open_store
from penstock.testing.clock import HandClock
from tools.services.kafka import SERVICE as KAFKA
from tools.services.redis import SERVICE as REDIS
from tools.services.redis import Servers

PARTITIONS = 4
GROUP = 5_000
FLOOR_WORKER, GOAL_WORKER = 40_000, 80_000
AGAINST_BYTEWAX = (2.0, 0.0)
AGAINST_EMBEDDED = (0.5, 0.0)
ONE_BY_TWO = (0.9, 0.0)
"""CPU time of one worker by that of two: within a tenth."""
FRESH_MS = 250.0
LIMIT_S = 120.0
LOOK_S = 0.1
PER_PEOPLE = 100_000
GROUP_READ = 1_000
"""Reads between two writes."""
READS_PER_EVENT = 10
AT_ONCE = (1, 32)
"""Reads that are under way together: of a quiet server, and of a busy one, which asks for all of them at once."""
CACHE_MB = 64

SETTINGS = """
[log]
kind = "kafka"
partitions = {partitions}

[log.kafka]
brokers = ["{brokers}"]
prefix = "{prefix}."
replication = 1

[store]
kind = "redis"
redis = {{ url = "{redis}", registers = true }}

[fold]
by = "{by}"
port = 0
"""
"""What the benchmarks' project gets besides; the rest of it is as everywhere."""


class World(NamedTuple):
    """The servers that are there."""

    brokers: str
    redis: Servers
    work: Path

    def project(self, name: str, by: str) -> Path:
        """Make a project on these servers, with topics and a tenant of its own."""
        folder = self.work / name
        folder.mkdir()
        made = servers.new_project(folder)
        toml = made / "penstock.toml"
        told = toml.read_text(encoding="utf-8").replace(
            "[project]\n", f'[project]\ntenant = "{name}"\n'
        )
        toml.write_text(
            told + SETTINGS.format(
                partitions=PARTITIONS, brokers=self.brokers, prefix=name, redis=self.redis.url, by=by
            ),
            encoding="utf-8",
        )  # fmt: skip
        return made


class Worked:
    """A project whose log workers fold, with leaves of everybody; `penstock up` has told what is folded.

    Args:
        world: The servers.
        name: Of the project.
        count: How many workers; each is a process.
    """

    def __init__(self, world: World, name: str, count: int) -> None:
        self.folder = world.project(name, "workers")
        up = start_up(self.folder, None)
        up.stop()
        self.project = load_project(self.folder)
        self.clock = HandClock(workload.START_MS - 60_000)
        self.log = open_log(self.project, self.clock)
        self.store = open_store(self.project)
        self.epoch = int(self.store.get_meta(LIVE_EPOCH) or 1)
        command = [sys.executable, "-c", START, "worker", str(self.folder), "--port", "0", "--wait"]
        self.workers = [
            Server(command, _new(self.folder.parent, f"worker-{one}"), lambda: None, wait=False)
            for one in range(count)
        ]

    def append(self, stream: Stream) -> None:
        """Append a stream, stamped as the workload says."""
        for start in range(0, len(stream.values), GROUP):
            self.clock.advance(max(stream.stamps[start] - self.clock.now_ms(), 0))
            shares: dict[int, list[bytes]] = {}
            for value in stream.values[start : start + GROUP]:
                shares.setdefault(partition_of(leaf_of(value), PARTITIONS), []).append(value)
            for partition, values in shares.items():
                self.log.append(partition, values)

    def folded(self) -> bool:
        """Return whether the store has all that the log holds."""
        return all(
            self.store.applied(self.epoch, one).offset + 1 >= self.log.head(one) for one in range(PARTITIONS)
        )  # fmt: skip

    def until_folded(self) -> None:
        """Wait for that."""
        until = time.monotonic() + LIMIT_S
        while not self.folded():
            assert time.monotonic() < until, "workers fold what is there"
            time.sleep(LOOK_S)

    def cpu_s(self) -> float:
        """Return the CPU time of all workers."""
        return sum(one.cpu_s() for one in self.workers)

    def take(self, stream: Stream) -> Sample:
        """Append a stream and wait until its leaves are written; return what that cost the workers."""
        cpu, wall = self.cpu_s(), time.perf_counter()
        self.append(stream)
        self.until_folded()
        return Sample(len(stream.values), self.cpu_s() - cpu, time.perf_counter() - wall)

    def close(self) -> None:
        """End the workers, and let go of the servers."""
        for one in self.workers:
            one.stop()
        self.log.close()
        self.store.close()


def measure(sizes: Sizes, work: Path) -> tuple[list[Row], list[str]]:
    """Measure on one broker and one Redis; also return what was left out, and why."""
    for service in (KAFKA, REDIS):
        if lacks := service.missing():
            return [], [f"Kafka and Redis: {lacks}"]
    with _world(work) as world:
        rows, notes = _workers(sizes, world)
        rows += _collector(sizes, world)
        rows += _reads(sizes, world)
        rows.append(_fresh(sizes, world))
    return rows, notes


@contextmanager
def _world(work: Path) -> Iterator[World]:
    with ExitStack() as stack:
        cluster = KAFKA.start(_new(work, "kafka"))
        stack.callback(cluster.remove)
        redis = REDIS.start(_new(work, "redis"))
        stack.callback(redis.remove)
        yield World(cluster.address, redis, work)


def _new(folder: Path, name: str) -> Path:
    made = folder / name
    made.mkdir()
    return made


def start_up(project: Path, core: int | None) -> Server:
    """Start `penstock up` on a project, and wait until it says where it listens."""
    command = [sys.executable, "-c", START, "up", str(project), "--port", "0"]
    server = Server(command, project.parent, lambda: servers.told_port(project), core)
    server.settle_s = servers.FLUSH_S
    return server


def _workers(sizes: Sizes, world: World) -> tuple[list[Row], list[str]]:
    """Return the rows of one worker, of two, and of Bytewax over the same records."""
    first = workload.first_visits(sizes.people)
    notes: list[str] = []
    before, taken_mb = _memory(world), 0.0
    with ExitStack() as stack:
        worked: dict[str, Worked] = {}
        for count in (1, 2):
            worked[f"{count}"] = one = Worked(world, f"worked{count}", count)
            stack.callback(one.close)
            one.append(first)
            one.until_folded()
            if count == 1:
                taken_mb = (_memory(world) - before) * PER_PEOPLE / sizes.people
        turns: dict[str, Iterator[int]] = {name: iter(range(1_000)) for name in worked}

        def take(name: str) -> Sample:
            # Events of its own each time: what was seen before is dropped. The same in both.
            return worked[name].take(
                workload.stream(sizes.people, sizes.durable_events + next(turns[name]), "zipf")
            )

        measured: dict[str, Callable[[], Sample]] = {
            name: lambda name=name: take(name) for name in worked
        }
        try:
            measured["bytewax"] = _bytewax(sizes, world, first).run
        except PeerMissing as missing:
            notes.append(f"Bytewax on Kafka: {missing}")
        samples = interleaved(sizes.rounds, measured)
    name = f"{sizes.people:,} people"
    one_worker = row(
        "servers", f"Kafka → fold → leaves in Redis, one worker, {name}", "zipf, hot", "events", samples["1"],
        floor=FLOOR_WORKER, goal=GOAL_WORKER, against={"Bytewax": AGAINST_BYTEWAX}, note="from a backlog",
    )  # fmt: skip
    two = row(
        "servers", "the same, two workers", "zipf, hot", "events", samples["2"],
        against={"one worker": ONE_BY_TWO}, note="CPU time of both; they share cores with the servers",
    )  # fmt: skip
    compare(two, **{"one worker": one_worker})
    rows = [one_worker, two]
    if "bytewax" in samples:
        theirs = row(
            "servers", "Bytewax with its Kafka input, the same eight features", "zipf, hot", "events",
            samples["bytewax"], note="one worker, one partition, no recovery; nothing is written",
        )  # fmt: skip
        compare(one_worker, Bytewax=theirs)
        rows.append(theirs)
    rows.append(amount("servers", "Redis: memory per 100,000 people", "zipf", "MB", [taken_mb],
                       note=f"after one event each of {name}, copied from that"))  # fmt: skip
    return rows, notes


def _memory(world: World) -> float:
    with world.redis.client() as client:
        told = client.info("memory")
    assert isinstance(told, dict), "a client that answers at once"
    return told["used_memory"] / 1e6


def _bytewax(sizes: Sizes, world: World, first: Stream) -> BytewaxOnKafka:
    """Put what Bytewax folds into a topic of its own."""
    topic = "peer"
    address = {"bootstrap.servers": world.brokers}
    admin = AdminClient(address)  # held until it is done
    admin.create_topics([NewTopic(topic, 1, 1)])[topic].result(30)
    producer = Producer({**address, "linger.ms": 50, "queue.buffering.max.messages": 1_000_000})
    stream = workload.stream(sizes.people, sizes.durable_events, "zipf")
    for value in (*first.values, *stream.values):
        producer.produce(topic, value)
    assert not producer.flush(60), "the broker takes what is sent"
    return BytewaxOnKafka(world.brokers, topic, len(first.values))


def _collector(sizes: Sizes, world: World) -> list[Row]:
    """Return the rows of the collector alone, on Kafka and on the embedded log, in the same rounds."""
    folder = _new(world.work, "sent")
    sent = loads.write_loads(folder, sizes.people, "zipf")
    with ExitStack() as stack:
        found: dict[str, Server] = {}
        for name in ("embedded", "kafka"):
            if name == "kafka":
                project = world.project("collected", "up")
                # Topics are made by whoever owns the log.
                start_up(project, None).stop()
            else:
                project = servers.new_project(_new(world.work, "embedded"))
            found[name] = servers.collector_of(project, loads.server_core())
            stack.callback(found[name].stop)
        measured = {
            f"{name}: {load}": lambda name=name, load=load: loads.run(sent[load], found[name], sizes.http_s)
            for load in ("batch", "single") for name in found
        }  # fmt: skip
        samples = interleaved(sizes.http_rounds or sizes.rounds, measured)
    rows: list[Row] = []
    for load, what in (("batch", f"POST /v1/batch of {loads.BATCH}"), ("single", "POST /v1/track")):
        ours = row(
            "servers", f"{what}, acknowledged by the broker before the 200", "zipf, hot", "events",
            samples[f"kafka: {load}"], wall=True, against={"embedded": AGAINST_EMBEDDED},
            note="the collector alone, `acks=all`; broker and client share the other core",
        )  # fmt: skip
        theirs = row("servers", f"embedded: {load}", "zipf, hot", "events", samples[f"embedded: {load}"], wall=True)  # fmt: skip
        rows += [compare(ours, embedded=theirs), theirs]
    return rows


class Reads:
    """A process that reads leaves in Redis while another folds; what is folded in between is not measured.

    Args:
        world: The servers.
        people: How many leaves there are.
    """

    def __init__(self, world: World, people: int) -> None:
        self.loop = asyncio.new_event_loop()
        self._people = people
        self._address = RedisAddress(world.redis.url, timeout_ms=20_000)
        self.log = MemoryLog(HandClock(workload.START_MS - 60_000))
        self._step = workload.new_step(workload.project())
        self._writes = RedisStore(self._address, tenant="reads")
        self._fold = PartitionFold(
            step=self._step,
            store=self._writes,
            epoch=1,
            partition=0,
            generation=self.log.generation,
        )
        self._opened: list[tuple[ReadingEngine, RedisStore]] = []
        self.fold(workload.first_visits(people).values)

    def open(self, cache_mb: int) -> ReadingEngine:
        """Return an engine that reads them, with a cache or without."""
        store = RedisStore(self._address, tenant="reads")
        engine = ReadingEngine(
            log=self.log, store=store, step=self._step, epoch=1, clock=SystemClock(),
            metrics=MemoryMetrics(), cache=CachedLeaves(store, cache_mb << 20) if cache_mb else None,
        )  # fmt: skip
        self.loop.run_until_complete(engine.start())
        self._opened.append((engine, store))
        return engine

    def fold(self, values: Sequence[bytes]) -> None:
        """Append events, fold them and write their leaves, as a worker does."""
        self.log.append(0, values)
        catch_up(self._fold, partial(self.log.batches, 0), keep=lambda _: None)
        flush_all(self._fold)

    def take(self, engine: ReadingEngine, count: int, turns: Iterator[int], at_once: int) -> Sample:
        """Read the people of about so many events, and fold each tenth of the events in between."""
        # Events of its own each time: what was seen before is dropped.
        stream = workload.stream(self._people, count + next(turns), "zipf")
        total = Sample(0, 0.0, 0.0)
        for start in range(0, len(stream.values), GROUP_READ):
            some = stream.values[start : start + GROUP_READ]
            self.fold(some[::READS_PER_EVENT])
            leaves = [leaf_of(value) for value in some]
            work = partial(_all, engine, leaves, at_once)
            one = timed(len(leaves), lambda work=work: self.loop.run_until_complete(work()))
            total = Sample(total.count + one.count, total.cpu_s + one.cpu_s, total.wall_s + one.wall_s)  # fmt: skip
        return total

    def close(self) -> None:
        """End what reads, and let go of the server."""
        for engine, store in self._opened:
            self.loop.run_until_complete(engine.close())
            store.close()
        self._writes.close()
        self.loop.close()


async def _all(engine: ReadingEngine, leaves: Sequence[LeafId], at_once: int) -> None:
    for start in range(0, len(leaves), at_once):
        await asyncio.gather(*(engine.read([leaf]) for leaf in leaves[start : start + at_once]))


def _reads(sizes: Sizes, world: World) -> list[Row]:
    """Return the rows of reading leaves in Redis, asked for each time and kept until they change."""
    rows: list[Row] = []
    reads = Reads(world, sizes.people)
    try:
        engines = {"asked": reads.open(0), "kept": reads.open(CACHE_MB)}
        cache = engines["kept"].cache
        assert cache is not None, "it was opened with one"
        for at_once in AT_ONCE:
            turns = iter(range(1_000))

            hits, misses = cache.hits, cache.misses
            samples = interleaved(
                sizes.rounds,
                {
                    name: partial(reads.take, engine, sizes.durable_events // 6, turns, at_once)
                    for name, engine in engines.items()
                },
            )
            share = (cache.hits - hits) / max(cache.hits - hits + cache.misses - misses, 1)
            state = f"zipf, {at_once} at once, an event written for every {READS_PER_EVENT} reads"
            kept = row(
                "servers", f"leaf in Redis, read where nothing is folded, `cache_mb = {CACHE_MB}`", state,
                "profiles", samples["kept"], note=f"{share:.0%} were there",
            )  # fmt: skip
            asked = row("servers", "the same, `cache_mb = 0`", state, "profiles", samples["asked"])
            rows += [compare(kept, **{"asked each time": asked}), asked]
    finally:
        reads.close()
    return rows


def _fresh(sizes: Sizes, world: World) -> Row:
    """Return the row of an event's way through Kafka, a worker and Redis to content."""
    project = world.project("fresh", "workers")
    up = start_up(project, loads.server_core())
    command = [sys.executable, "-c", START, "worker", str(project), "--port", "0", "--wait"]
    worker = Server(command, _new(project.parent, "worker"), lambda: None, wait=False)
    try:
        fill(up, sizes.people)
        sent = loads.write_loads(_new(project.parent, "sent"), sizes.people, "zipf")["single"]
        capacity_s = loads.run(sent, up, sizes.http_s).per_wall_s
        found = freshness.measure(sizes, up, sent, capacity_s)
    finally:
        worker.stop()
        up.stop()
    found.group = "servers"
    found.work = "event sent → its content served, through Kafka, a worker and Redis, at half load"
    found.floor, found.goal = FRESH_MS, 0.0
    return found
