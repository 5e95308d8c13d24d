"""A project on Kafka, workers and Redis, and the same log folded embedded: leaves and profiles to compare."""

import asyncio
import shutil
from collections.abc import Awaitable, Callable, Iterable, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import msgspec
from confluent_kafka import ConsumerGroupTopicPartitions, TopicPartition
from confluent_kafka.admin import AdminClient
from fault_shop import step_of
from worked_shop import PARTITIONS, WorkedShop

from penstock.adapters.log.sqlite import SqliteLog
from penstock.adapters.metrics.memory import MemoryMetrics
from penstock.application import make_app
from penstock.compose import make_node, open_stores
from penstock.core.identity.edges import merge_edges
from penstock.core.identity.identifier import ITEM
from penstock.core.ids import LeafId
from penstock.core.leaf import ID_TILE_MS, decode_leaf, encode_leaf
from penstock.core.record import Edge
from penstock.core.step import Step
from penstock.core.time import format_instant
from penstock.flows.replay import LIVE_EPOCH, fingerprint_name
from penstock.ports.log import Log
from penstock.ports.store import Store
from penstock.project import load_project
from penstock.runtimes.embedded import EmbeddedEngine
from penstock.testing.clock import HandClock
from penstock.workers import group_of_workers
from tools.services.kafka import Cluster

READ_RECORDS = 5_000
EMBEDDED_EPOCH = 1
OF_THE_RUNTIME = {"profile_as_of", "age_ms"}
"""What a served profile says of how far its runtime is, and not of the person."""

Bodies = dict[LeafId, tuple[bytes, ...]]
Profiles = dict[str, dict[str, Any]]


class Folded(NamedTuple):
    """What a log was folded to: the bytes of every leaf, and the JSON of people's profiles as of one instant."""

    bodies: Bodies
    profiles: Profiles


class ParityShop(WorkedShop):
    """Any project's folder, on Kafka and Redis."""

    read_key = "demo-read-key"

    def __init__(self, source: Path, folder: Path, brokers: str, prefix: str, redis: str) -> None:
        super().__init__(folder, brokers, prefix, redis=redis)
        own = (source / "penstock.toml").read_text()
        for name in ("events.py", "features.py"):
            (folder / name).unlink()
        shutil.copytree(source, folder, dirs_exist_ok=True,
                        ignore=shutil.ignore_patterns("__pycache__", "data", "outbox", "tests", "penstock.toml"))  # fmt: skip
        (folder / "penstock.toml").write_text(f'{own}\n[store]\nkind = "redis"\nredis = {{ {redis} }}\n{self.settings}')  # fmt: skip
        self.source = source

    def send(self, write_key: str, events: Sequence[dict[str, Any]]) -> None:
        """Send events in one request, until it is taken."""
        body = {"writeKey": write_key, "batch": [*events]}

        def taken() -> bool:
            answer = httpx.post(f"http://127.0.0.1:{self.port}/v1/batch", json=body, timeout=30)
            assert answer.status_code in (200, 429, 503), answer.text
            return answer.status_code == 200

        self.until(taken, "events are taken")

    def set_commits_back(self, kafka: Cluster, offset: int = 0) -> None:
        """Say that a group without members has folded nothing."""
        with self.opened() as (project, log, _, epoch):
            topic, group = log.topic, group_of_workers(project, log.generation, epoch)
        places = [TopicPartition(topic, one, offset) for one in range(PARTITIONS)]
        admin = AdminClient(kafka.client)
        asked = admin.alter_consumer_group_offsets([ConsumerGroupTopicPartitions(group, places)])
        for one in asked.values():
            one.result(30)

    def folded(self, users: Iterable[str], as_of: str) -> Folded:
        """Return what workers have folded, all of the log, and what is served of it."""
        with self.opened() as (_, _, store, epoch):
            bodies = bodies_of(store, epoch)
        with httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=30) as http:
            ask = {
                "params": {"as_of": as_of},
                "headers": {"Authorization": f"Bearer {self.read_key}"},
            }
            profiles = {
                user: told(http.get(f"/v1/profiles/user_id:{user}", **ask)) for user in users
            }  # type: ignore[arg-type]
        return Folded(bodies, profiles)

    def embedded(self, folder: Path, users: Iterable[str], as_of: str) -> Folded:
        """Return what one process folds of the same log, copied into files, and what it serves."""
        shutil.copytree(
            self.source,
            folder,
            ignore=shutil.ignore_patterns("__pycache__", "data", "outbox", "tests"),
        )
        with (folder / "penstock.toml").open("a") as toml:
            toml.write(f"\n[log]\npartitions = {PARTITIONS}\n")
        project = load_project(folder)
        project.data_dir.mkdir(mode=0o700)
        shutil.copy(self.folder / "data" / "keys.json", project.data_dir)
        with self.opened() as (_, log, _, _):
            copy_log(log, project.data_dir / "log.db")

        async def fold() -> Profiles:
            stores = open_stores(project)
            try:
                # All that records ask for is in the log: nothing is appended to it again.
                covered = [stores.log.head(one) - 1 for one in range(PARTITIONS)]
                engine = EmbeddedEngine(
                    log=stores.log, store=stores.store, suppressions=stores.suppressions, step=step_of(project),
                    epoch=EMBEDDED_EPOCH, clock=HandClock(0), metrics=MemoryMetrics(), covered=covered,
                )  # fmt: skip
                await engine.start()
                await engine.settled()
                await engine.close()
                stores.store.put_meta(fingerprint_name(EMBEDDED_EPOCH), project.fingerprint)
                stores.store.put_meta(LIVE_EPOCH, str(EMBEDDED_EPOCH))
                node = make_node(project, stores)
                await node.start()
                try:
                    transport = httpx.ASGITransport(app=make_app(node))  # type: ignore[arg-type]
                    async with httpx.AsyncClient(
                        transport=transport, base_url="http://shop"
                    ) as http:
                        return await _profiles(http.get, users, as_of, self.read_key)
                finally:
                    await node.close()
            finally:
                stores.close()

        profiles = asyncio.run(fold())
        stores = open_stores(project)
        bodies = bodies_of(stores.store, EMBEDDED_EPOCH)
        stores.close()
        return Folded(bodies, profiles)


async def _profiles(
    get: Callable[..., Awaitable[httpx.Response]], users: Iterable[str], as_of: str, key: str
) -> Profiles:
    ask = {"params": {"as_of": as_of}, "headers": {"Authorization": f"Bearer {key}"}}
    return {user: told(await get(f"/v1/profiles/user_id:{user}", **ask)) for user in users}


def told(answer: httpx.Response) -> dict[str, Any]:
    """Return what an answer says of the person."""
    assert answer.status_code == 200, answer.text
    return {name: value for name, value in answer.json().items() if name not in OF_THE_RUNTIME}


def copy_log(source: Log, path: Path) -> None:
    """Record a log in a file, record by record and with its stamps."""
    clock = HandClock(0)
    target = SqliteLog(path, clock, partitions=source.partitions)
    for partition in range(source.partitions):
        offset = 0
        while batch := source.read(partition, offset, READ_RECORDS):
            for stamp, records in groupby(batch, lambda one: one.logged_at_ms):
                clock.set_back(clock.now_ms() - stamp)
                target.append(partition, [one.value for one in records])
            offset = batch[-1].offset + 1
        assert target.head(partition) == offset, "every record has the offset that it had"
    target.close()


def bodies_of(store: Store, epoch: int) -> Bodies:
    """Return the bytes of every leaf, by its id."""
    return {leaf: stored.parts for leaf, stored in store.scan(epoch, None, 1_000_000)}


def projected(store: Store, epoch: int, step: Step, at_ms: int) -> dict[LeafId, bytes]:
    """Return every person's leaf as it is at one instant, without what tells how records came.

    That is: the leaf's clock, the tiles of ids, how many copies, links and bytes there were; and of two
    identifiers that were said together, which way round besides, and when last: a link tells the other
    side only what it does not hold. Items are left out, which each shop has loaded at another time.
    """
    found: dict[LeafId, bytes] = {}
    for leaf_id, stored in store.scan(epoch, None, 1_000_000):
        leaf = decode_leaf(leaf_id, stored.version, stored.parts[0], step.plan)
        if leaf.id_type == ITEM:
            continue
        leaf.clock_ms = at_ms
        leaf.ids = dict.fromkeys(leaf.ids, at_ms // ID_TILE_MS)
        leaf.deduplicated = leaf.links = leaf.size = 0
        pairs: dict[tuple[bytes, bytes], Edge] = {}
        for edge in leaf.edges.values():
            pair = (min(edge.a, edge.b), max(edge.a, edge.b))
            pairs[pair] = merge_edges(pairs.get(pair, edge), edge)
        leaf.edges = {
            pair: msgspec.structs.replace(edge, seen_ms=0) for pair, edge in pairs.items()
        }
        found[leaf_id] = encode_leaf(leaf, step.plan)
    return found


def after(log: Log) -> str:
    """Return an instant that no record of a log is later than."""
    last_ms = max(log.last_logged_at_ms(partition) for partition in range(log.partitions))
    return format_instant(last_ms + 1)
