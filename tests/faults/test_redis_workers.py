"""Kafka, workers as on other machines, and Redis: killed, emptied, failed over, while a load goes on.

What the senders know is compared with what lies in the log and in Redis, and every leaf there with the
one that an embedded store has of the same log, as bytes.
"""

import hashlib
import http.client
import json
import struct
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from confluent_kafka import ConsumerGroupTopicPartitions
from confluent_kafka.admin import AdminClient
from fault_shop import KEY, Sender, assert_everything_is_there_once, post, raw_loads, step_of
from test_redis_faults import bodies
from worked_shop import WorkedShop

from penstock.adapters.store.memory import MemoryStore
from penstock.flows.replay import replay
from penstock.workers import group_of_workers
from tests.conftest import StartRedis
from tools.services.kafka import Cluster
from tools.services.redis import Servers

pytestmark = [pytest.mark.service, pytest.mark.timeout(600)]

LOAD = 300
"""Events that are acknowledged between two acts."""

PROBED = 5

MakeShop = Callable[..., WorkedShop]


@pytest.fixture
def make_shop(kafka: Cluster, tmp_path: Path) -> Iterator[MakeShop]:
    made: list[WorkedShop] = []

    def make(servers: Servers, redis: str = "") -> WorkedShop:
        prefix = f"t{hashlib.sha256(str(tmp_path).encode()).hexdigest()[:12]}."
        told = f'url = "{servers.url}", timeout_ms = 1000, registers = true, cache_mb = 4{redis}'
        made.append(WorkedShop(tmp_path, kafka.address, prefix, redis=told))
        return made[0]

    yield make
    for shop in made:
        shop.end()


def more_events(sender: Sender, count: int = LOAD) -> None:
    sender.wait_for(len(sender.acknowledged) + count)


def finish(shop: WorkedShop, sender: Sender) -> None:
    """Let the workers fold to the end, stop all, and compare with the senders and with an embedded store."""
    shop.until_folded()
    for worker in shop.workers:
        if worker.process.poll() is None:
            assert worker.stop() == 0, worker.errors.read_text()
    shop.stop()
    assert_everything_is_there_once(shop, sender)
    with shop.opened() as (project, log, store, epoch):
        embedded = MemoryStore()
        replay(log, embedded, step_of(project), 1)
        assert bodies(embedded, 1) == bodies(store, epoch)


def start(shop: WorkedShop, sender: Sender) -> None:
    sender.up.set()
    shop.up()
    for _ in range(2):
        shop.work_elsewhere()


def send_probe(shop: WorkedShop, sender: Sender) -> None:
    """Send events of somebody who gets no others."""
    names = [f"probe-{number}" for number in range(PROBED)]
    batch = [{"type": "track", "event": "Product Viewed", "messageId": name, "userId": "probe",
              "properties": {"product_id": "p", "n": 1}} for name in names]  # fmt: skip
    for name in names:
        sender.note(name, "probe", 1)
    body = json.dumps({"writeKey": KEY, "batch": batch})
    with closing(http.client.HTTPConnection("127.0.0.1", shop.port, timeout=20)) as connection:
        assert post(connection, body)
    sender.acknowledge(names)


def until_probe_is_live(shop: WorkedShop, seen: list[str]) -> None:
    """Ask until the probe is served live; an answer that says that it is live has all of the probe."""

    def live() -> bool:
        answer = shop.profile("probe")
        seen.append(answer.get("served", "error"))
        if answer.get("served") != "live":
            return False
        assert PROBED == answer["features"]["views"], "it is live, and lacks what was served before"
        return True

    shop.until(live, "the probe is served live")


@pytest.mark.slow
def test_workers_that_have_the_projects_files_alone_fold_through_a_flush_of_redis(
    make_shop: MakeShop, start_redis: StartRedis
) -> None:
    servers, sender = start_redis(), Sender()
    shop = make_shop(servers)
    start(shop, sender)
    with raw_loads(sender, shop.port, clients=1):
        shop.until_shared(*shop.workers)
        send_probe(shop, sender)
        more_events(sender)
        shop.until(
            lambda: shop.profile("probe").get("features", {}).get("views") == PROBED, "it is folded"
        )
        with servers.client() as client:
            client.flushall()
        seen: list[str] = []
        until_probe_is_live(shop, seen)
        more_events(sender)
    finish(shop, sender)
    assert {*seen} > {"live"}, "it was told that it was not live meanwhile"
    assert not list(shop.folder.glob("machine-*/data"))


@pytest.mark.slow
def test_redis_that_is_away_stops_no_intake_and_workers_go_on_when_it_is_back(
    make_shop: MakeShop, start_redis: StartRedis
) -> None:
    servers, sender = start_redis(), Sender()
    shop = make_shop(servers)
    start(shop, sender)
    redis = servers.servers[0]
    with raw_loads(sender, shop.port, clients=1):
        shop.until_shared(*shop.workers)
        more_events(sender)
        redis.kill()
        more_events(sender)
        assert shop.workers[1].stop() == 0, "it drains without a store"
        late = shop.work_elsewhere()
        shop.until(
            lambda: "E402" in late.errors.read_text(), "a worker that starts without a store waits"
        )
        redis.start()
        shop.until_shared(shop.workers[0], late)
        more_events(sender)
        redis.pause()
        more_events(sender)
        redis.resume()
        more_events(sender)
    finish(shop, sender)


@pytest.mark.slow
def test_a_failover_that_lost_acknowledged_leaves_is_made_good_and_was_not_committed(
    make_shop: MakeShop, start_redis: StartRedis, kafka: Cluster
) -> None:
    """One address that follows the primary: here the port of the one that was killed."""
    servers, sender = start_redis(replicas=1), Sender()
    shop = make_shop(servers, ", wait_replicas = 1")
    start(shop, sender)
    with raw_loads(sender, shop.port, clients=1):
        shop.until_shared(*shop.workers)
        send_probe(shop, sender)
        more_events(sender)
        with shop.opened() as (project, log, _, epoch):
            topic, group = log.topic, group_of_workers(project, log.generation, epoch)
        # From here on the replica hears nothing, and the primary goes on saying yes.
        servers.cut_off(1)
        kept = applied_on(servers, 1, epoch)
        more_events(sender)
        shop.until(lambda: further(servers, epoch, kept), "every partition goes on")
        more_events(sender)
        committed = committed_of(kafka, group, topic)
        assert {*committed} <= {*kept}
        assert all(offset <= kept[partition] for partition, offset in committed.items())
        servers.servers[0].kill()
        servers.take_over(1)
        until_probe_is_live(shop, [])
        more_events(sender)
    finish(shop, sender)


def applied_on(servers: Servers, number: int, epoch: int) -> dict[int, int]:
    """Return, by partition, the offset that comes next as one of the servers has it."""
    with servers.client(number) as client:
        found = client.hgetall(f"penstock:{{default}}:applied:{epoch}")
    return {int(partition): struct.unpack(">QQ", raw)[1] for partition, raw in found.items()}


def further(servers: Servers, epoch: int, than: dict[int, int]) -> bool:
    """Return whether the primary has applied more of every partition."""
    now = applied_on(servers, 0, epoch)
    return all(now[partition] > offset for partition, offset in than.items())


def committed_of(kafka: Cluster, group: str, topic: str) -> dict[int, int]:
    """Return what the group of workers has committed, by partition."""
    admin = AdminClient(kafka.client)
    asked = admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions(group)])
    (told,) = [one.result(30) for one in asked.values()]
    return {one.partition: one.offset for one in told.topic_partitions if one.topic == topic}
