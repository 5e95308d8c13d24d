"""`penstock connect` as a real process at a real broker and a real registry, killed, rewound and cut off."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fastavro
import pytest
from click.testing import CliRunner
from confluent_kafka import Consumer, ConsumerGroupTopicPartitions, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from penstock.adapters.clock import SystemClock
from penstock.adapters.registry.confluent import ConfluentRegistry
from penstock.cli.main import main
from penstock.core.foreign import place_in
from penstock.core.record import decode_record
from penstock.core.wire import frame
from penstock.logs import open_log_alone
from penstock.ports.registry import Schema
from penstock.project import load_project
from tests.cli.test_up import Up
from tests.cli.test_up_kafka import project_on
from tests.conftest import running
from tools.services.kafka import Cluster
from tools.services.registry import SERVICE as REGISTRY
from tools.services.service import Running

pytestmark = pytest.mark.timeout(600)

PARTITIONS = 3
USERS = 20
TOPIC = "shop.views"


def avro(name: str) -> dict[str, Any]:
    """The schema of a view, as some other team has it; each name has an id of its own."""
    return {"type": "record", "name": name, "fields": [
        {"name": "customer", "type": "string"}, {"name": "sku", "type": "string"},
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
    ]}  # fmt: skip


@pytest.fixture(scope="module")
def own_registry() -> Iterator[Running]:
    """A registry of this module's own: it is killed."""
    yield from running(REGISTRY)


class World:
    """A project with a connector, the topic that it reads, and what was written to it."""

    def __init__(self, folder: Path, cluster: Cluster, registry: Running) -> None:
        self.cluster, self.registry = cluster, registry
        self.topic = f"{folder.name}-{TOPIC}"
        self.folder = project_on(cluster, folder / "shop", f"""
[registry]
url = "{registry.address}"

[sources.views]
kind = "server"
basis = {{ personalisation = "contract" }}

[connect.views]
topics = ["{self.topic}"]
format = "avro"
group = "{self.topic}-group"
park_after_ms = 300
client = {{ "session.timeout.ms" = "6000", "heartbeat.interval.ms" = "1500" }}

[connect.views.events."Product Viewed"]
user_id = "customer"
timestamp = "at"
fields = {{ product_id = "sku" }}
""")  # fmt: skip
        self.admin = AdminClient(cluster.client)
        self.admin.create_topics([NewTopic(self.topic, PARTITIONS, 1)])[self.topic].result(30)
        self.producer = Producer(cluster.client)
        self.expected: Counter[str] = Counter()
        self.written = 0
        self.processes: list[subprocess.Popen[str]] = []

    def register(self, name: str) -> int:
        registry = ConfluentRegistry(self.registry.address)
        schema_id = registry.register(
            f"{self.topic}-{name}", Schema("AVRO", json.dumps(avro(name)))
        )
        registry.close()
        return schema_id

    def write(self, count: int, schema_id: int) -> None:
        """Write views by the users in turn."""
        now = SystemClock().now_ms()
        parsed = fastavro.parse_schema(avro("View"))
        for number in range(self.written, self.written + count):
            raw = io.BytesIO()
            user = f"u{number % USERS}"
            fastavro.schemaless_writer(
                raw, parsed, {"customer": user, "sku": f"p{number}", "at": now}
            )
            self.producer.produce(self.topic, frame(schema_id, raw.getvalue()), partition=number % PARTITIONS)  # fmt: skip
            self.expected[user] += 1
        self.written += count
        assert self.producer.flush(30) == 0

    def poison(self, *values: bytes) -> None:
        for value in values:
            self.producer.produce(self.topic, value, partition=0)
        assert self.producer.flush(30) == 0

    def connect(self) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", "from penstock.cli.main import main; main()", "connect", str(self.folder)],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )  # fmt: skip
        self.processes.append(process)
        assert process.stdout is not None
        assert "copying" in process.stdout.readline()
        return process

    def until(self, count: int) -> None:
        """Wait until the log has so many records, copies of one counted once."""
        reader = Consumer({**self.cluster.client, "group.id": "audit", "enable.auto.commit": False})
        log = f"{self.folder.parent.name}.log-1"
        reader.assign([TopicPartition(log, partition, 0) for partition in range(3)])
        seen: set[str] = set()
        while len(seen) < count:
            message = reader.poll(60)
            assert message is not None, f"the log has {len(seen)} of {count} records"
            if message.error() is None:
                seen.add(decode_record(message.value()).message_id)  # type: ignore[arg-type]
        reader.close()

    def until_noted(self) -> None:
        """Wait until the second place, too, knows that all that was written is in the log."""
        reader = Consumer({**self.cluster.client, "group.id": f"{self.topic}-group.copied"})
        partitions = [TopicPartition(self.topic, partition) for partition in range(PARTITIONS)]
        ends = [reader.get_watermark_offsets(one, 10)[1] for one in partitions]
        until_s = time.monotonic() + 60
        while ends != (noted := [one.offset for one in reader.committed(partitions, 10)]):
            assert time.monotonic() < until_s, f"it knows of {noted} of {ends}"
            reader.poll(0.1)
        reader.close()

    def rewind(self, *, also_the_second_place: bool) -> None:
        """Set the group's offsets back to the beginning, as an operator might."""
        groups = [f"{self.topic}-group"]
        if also_the_second_place:
            groups.append(f"{self.topic}-group.copied")
        back = [TopicPartition(self.topic, partition, 0) for partition in range(PARTITIONS)]
        for group in groups:
            asked = self.admin.alter_consumer_group_offsets(
                [ConsumerGroupTopicPartitions(group, back)]
            )
            asked[group].result(30)

    def message_ids(self) -> Counter[str]:
        log = open_log_alone(load_project(self.folder))
        found = Counter(
            decode_record(one.value).message_id
            for partition in range(log.partitions) for one in log.read(partition, 0, 100_000)
        )  # fmt: skip
        self.letters = list(log.dead_letters())
        log.close()
        return found


@pytest.fixture
def world(tmp_path: Path, kafka: Cluster, own_registry: Running) -> Iterator[World]:
    world = World(tmp_path, kafka, own_registry)
    yield world
    for process in world.processes:
        if process.poll() is None:
            process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def counted(world: World) -> dict[str, int]:
    """Return how many views each user has, by what serves."""
    up = Up(world.folder)
    try:
        return {user: up.profile(user)["features"]["views_7d"] for user in world.expected}
    finally:
        up.end(signal.SIGTERM)


def ended(process: subprocess.Popen[str]) -> int:
    process.terminate()
    return process.wait(60)


def test_avro_on_a_topic_becomes_events_and_poison_becomes_dead_letters(world: World) -> None:
    schema_id = world.register("View")
    world.write(60, schema_id)
    world.poison(b"no", frame(schema_id, b"\xff\xff"))
    process = world.connect()
    world.until(60)
    assert 0 == ended(process), process.stdout.read() if process.stdout else ""

    assert 60 == world.message_ids().total()
    places = {(place_in(one.letter_id) or ("",))[3:]: one.reason for one in world.letters}
    assert {(0, 20): "E330", (0, 21): "E331"} == places
    assert counted(world) == world.expected
    listed = CliRunner().invoke(main, ["dead-letters", "list", "--project", str(world.folder)])
    assert f"topic {world.topic}, partition 0, offset 20" in listed.output


@pytest.mark.slow
def test_killed_and_rewound_every_record_counts_once(world: World) -> None:
    schema_id = world.register("View")
    for round_ in range(4):
        process = world.connect()
        world.write(500, schema_id)
        world.until(500 * round_ + 50)
        process.send_signal(signal.SIGKILL)
        assert -signal.SIGKILL == process.wait()
    process = world.connect()
    world.until(2_000)
    # A process that was killed may have copied all of it, and the one after it is not there yet.
    world.until_noted()
    assert 0 == ended(process)
    world.rewind(also_the_second_place=False)
    before = world.message_ids()
    world.write(30, schema_id)
    process = world.connect()
    world.until(2_030)
    assert 0 == ended(process)
    # Nothing was read again: the second place knew better.
    assert before.total() + 30 == world.message_ids().total()

    world.rewind(also_the_second_place=True)
    world.write(30, schema_id)
    process = world.connect()
    world.until(2_060)
    assert 0 == ended(process)
    found = world.message_ids()
    assert 2_060 == len(found)
    assert found.total() > 2_060, "the rewind was real: records were copied again"
    assert counted(world) == world.expected


@pytest.mark.slow
def test_a_registry_that_is_killed_in_mid_run_stops_nothing(
    world: World, own_registry: Running
) -> None:
    known, other = world.register("View"), world.register("Later")
    world.write(300, known)
    process = world.connect()
    world.until(300)
    own_registry.servers[0].kill()
    world.write(150, other)  # an id that is not cached: parked
    world.write(300, known)  # cached ones go on behind them
    world.until(600)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process = world.connect()  # and at the start, with the schemas of before
    world.write(150, known)
    world.until(750)
    own_registry.servers[0].start()
    world.until(900)
    assert 0 == ended(process)

    assert {900} == {len(world.message_ids())}
    assert [] == world.letters
    assert counted(world) == world.expected
