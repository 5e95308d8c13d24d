"""Another number of partitions while a load goes on, on a real broker, with kills of whoever is at work."""

import hashlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from fault_shop import Sender, assert_everything_is_there_once, raw_loads, step_of
from worked_shop import PARTITIONS, PROGRAM, WorkedShop

from penstock.adapters.store.memory import MemoryStore
from penstock.flows.generations import folded_records, late_records
from penstock.flows.process import PartitionFold, flush_all
from tests.conftest import StartRedis
from tools.services.kafka import Cluster
from tools.services.redis import Servers

pytestmark = [pytest.mark.service, pytest.mark.timeout(600)]

LOAD = 400
"""Events that are acknowledged between two acts."""
MORE = 6
"""Partitions of the second generation."""


STORES = ["sqlite", pytest.param("redis", marks=pytest.mark.slow)]


def new_shop(kafka: Cluster, folder: Path, redis: str) -> WorkedShop:
    prefix = f"t{hashlib.sha256(str(folder).encode()).hexdigest()[:12]}."
    shop = WorkedShop(folder, kafka.address, prefix, redis=redis)
    toml = folder / "penstock.toml"
    toml.write_text(
        toml.read_text().replace("[server]\n", f'[server]\nadmin_key = "{"k" * 32}"\n', 1)
    )
    return shop


@pytest.fixture
def servers(start_redis: StartRedis) -> Servers:
    return start_redis()


@pytest.fixture(params=STORES)
def shop(kafka: Cluster, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[WorkedShop]:
    """A shop with leaves and registers in its folder, or all of them on Redis."""
    redis = ""
    if request.param == "redis":
        redis = on_redis(request.getfixturevalue("servers"))
    shop = new_shop(kafka, tmp_path, redis)
    yield shop
    shop.end()


def on_redis(servers: Servers) -> str:
    return f'url = "{servers.url}", timeout_ms = 1000, registers = true, cache_mb = 4'


def more_events(sender: Sender) -> None:
    sender.wait_for(len(sender.acknowledged) + LOAD)


def declare(shop: WorkedShop, partitions: int) -> None:
    path = shop.folder / "penstock.toml"
    lines = path.read_text().splitlines()
    lines = [f"partitions = {partitions}" if one.startswith("partitions = ") else one for one in lines]  # fmt: skip
    path.write_text("\n".join(lines) + "\n")


def command(shop: WorkedShop, *arguments: str) -> tuple[int, str]:
    done = subprocess.run([sys.executable, "-c", PROGRAM, *arguments, "--project", str(shop.folder)],
                          capture_output=True, text=True, timeout=120, check=False)  # fmt: skip
    return done.returncode, done.stdout + done.stderr


def reshard(shop: WorkedShop, partitions: int = MORE) -> None:
    """Change the number of partitions as an operator does."""
    declare(shop, partitions)
    code, told = command(shop, "plan")
    assert (2, True) == (code, "opens another generation of the log" in told), told
    code, told = command(shop, "apply")
    assert 0 == code, told
    code, told = command(shop, "plan")
    assert 0 == code, told


def finish(shop: WorkedShop, sender: Sender) -> int:
    """Let the workers fold to the end, compare with what the senders know; return how many events came late."""
    shop.until_folded()
    for worker in shop.workers:
        if worker.process.poll() is None:
            assert worker.stop() == 0, worker.errors.read_text()
    shop.stop()
    assert_everything_is_there_once(shop, sender)
    with shop.opened() as (project, log, store, epoch):
        known = log.generations
        alone = MemoryStore()
        fold = PartitionFold(step=step_of(project), store=alone, epoch=1, partition=0, generation=1)
        for partition in range(known.partitions):
            records = [*folded_records(log, partition)]
            fold.feed([one._replace(offset=fold.next_offset + i) for i, one in enumerate(records)])
        flush_all(fold)
        written = {leaf: held.parts for leaf, held in store.scan(epoch, None, 100_000)}
        assert written == {leaf: held.parts for leaf, held in alone.scan(1, None, 100_000)}
        versions = {held.version.generation for _, held in store.scan(epoch, None, 100_000)}
        assert known.newest in versions
        return sum(len([*late_records(log, one)]) for one in range(known.partitions))


def test_a_log_goes_on_in_more_partitions_under_load_and_loses_and_doubles_nothing(shop: WorkedShop) -> None:  # fmt: skip
    sender = Sender()
    shop.up()
    first, second = shop.work(), shop.work()
    with raw_loads(sender, shop.port):
        shop.until_shared(first, second)
        more_events(sender)
        reshard(shop)
        more_events(sender)
        shop.until_shared(first, second, partitions=PARTITIONS + MORE)
        more_events(sender)
    finish(shop, sender)


@pytest.mark.slow
def test_kills_of_a_worker_and_of_up_while_a_generation_is_drained_lose_and_double_nothing(shop: WorkedShop) -> None:  # fmt: skip
    sender = Sender()
    shop.up()
    first, second = shop.work(), shop.work()
    with raw_loads(sender, shop.port):
        shop.until_shared(first, second)
        more_events(sender)
        first.kill()
        os.kill(second.process.pid, signal.SIGSTOP)
        for _ in range(4):
            more_events(sender)  # to be drained
        reshard(shop)
        shop.kill()
        shop.up()
        sender.up.set()
        third = shop.work()
        more_events(sender)
        third.kill()
        os.kill(second.process.pid, signal.SIGCONT)
        fourth = shop.work()
        more_events(sender)
        shop.until_shared(second, fourth, partitions=PARTITIONS + MORE)
        more_events(sender)
    finish(shop, sender)


@pytest.mark.slow
def test_a_log_that_gets_fewer_and_more_partitions_at_once_goes_through_all_of_them(shop: WorkedShop) -> None:  # fmt: skip
    sender = Sender()
    shop.up()
    worker = shop.work()
    with raw_loads(sender, shop.port):
        shop.until_shared(worker)
        more_events(sender)
        for partitions in (2, 5):
            reshard(shop, partitions)
            more_events(sender)
        shop.until_shared(worker, partitions=PARTITIONS + 2 + 5)
        more_events(sender)
    finish(shop, sender)


@pytest.mark.slow
def test_a_store_that_is_emptied_while_a_generation_is_drained_is_filled_from_the_first(
    kafka: Cluster, tmp_path: Path, servers: Servers
) -> None:
    """What says that the old generation is drained went with the leaves: it is folded again before the new one."""
    shop, sender = new_shop(kafka, tmp_path, on_redis(servers)), Sender()
    try:
        shop.up()
        first, second = shop.work(), shop.work_elsewhere()
        with raw_loads(sender, shop.port), servers.client() as client:
            shop.until_shared(first, second)
            more_events(sender)
            # Half of it is still to be drained.
            os.kill(second.process.pid, signal.SIGSTOP)
            more_events(sender)
            reshard(shop)
            client.flushall()
            os.kill(second.process.pid, signal.SIGCONT)
            more_events(sender)
            shop.until_shared(first, second, partitions=PARTITIONS + MORE)
            more_events(sender)
            # And once more, of both generations.
            client.flushall()
            more_events(sender)
        finish(shop, sender)
    finally:
        shop.end()
