"""Workers as real processes on a real broker: killed, stalled, added and removed while a load goes on."""

import hashlib
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from confluent_kafka import ConsumerGroupTopicPartitions, TopicPartition
from confluent_kafka.admin import AdminClient
from fault_shop import Sender, assert_everything_is_there_once, raw_loads
from worked_shop import PARTITIONS, WorkedShop

from penstock.workers import group_of_workers
from tools.services.kafka import Cluster

pytestmark = [pytest.mark.service, pytest.mark.timeout(600)]

LOAD = 400
"""Events that are acknowledged between two acts."""


@pytest.fixture
def make_shop(kafka: Cluster, tmp_path: Path) -> Iterator[Callable[..., WorkedShop]]:
    made: list[WorkedShop] = []

    def make(more: str = "") -> WorkedShop:
        prefix = f"t{hashlib.sha256(str(tmp_path).encode()).hexdigest()[:12]}."
        shop = WorkedShop(tmp_path, kafka.address, prefix, more)
        made.append(shop)
        return shop

    yield make
    for shop in made:
        shop.end()


def more_events(sender: Sender, count: int = LOAD) -> None:
    sender.wait_for(len(sender.acknowledged) + count)


def finish(shop: WorkedShop, sender: Sender) -> None:
    """Let the workers fold to the end, stop all, and compare with what the senders know."""
    shop.until_folded()
    for worker in shop.workers:
        if worker.process.poll() is None:
            assert worker.stop() == 0, worker.errors.read_text()
    shop.stop()
    assert_everything_is_there_once(shop, sender)


def test_what_two_workers_fold_is_byte_for_byte_what_one_process_folds(make_shop: Callable[..., WorkedShop]) -> None:  # fmt: skip
    shop, sender = make_shop(), Sender()
    shop.up()
    first, second = shop.work(), shop.work()
    with raw_loads(sender, shop.port):
        more_events(sender)
        shop.until_shared(first, second)
        more_events(sender)
    finish(shop, sender)


@pytest.mark.slow
def test_a_worker_that_is_killed_loses_nothing_and_doubles_nothing(make_shop: Callable[..., WorkedShop]) -> None:  # fmt: skip
    shop, sender = make_shop(), Sender()
    shop.up()
    first, second = shop.work(), shop.work()
    with raw_loads(sender, shop.port):
        shop.until_shared(first, second)
        for _ in range(3):
            more_events(sender)
            second.kill()
            more_events(sender)
            shop.until_shared(first)
            second = shop.work()
            shop.until_shared(first, second)
    finish(shop, sender)


@pytest.mark.slow
def test_a_worker_that_wakes_after_its_partitions_moved_overwrites_nothing(make_shop: Callable[..., WorkedShop]) -> None:  # fmt: skip
    shop, sender = make_shop(), Sender()
    shop.up()
    first, second = shop.work(), shop.work()
    with raw_loads(sender, shop.port):
        shop.until_shared(first, second)
        for _ in range(2):
            more_events(sender)
            os.kill(second.process.pid, signal.SIGSTOP)
            more_events(sender)
            shop.until_shared(first)
            more_events(sender)
            os.kill(second.process.pid, signal.SIGCONT)
            shop.until_shared(first, second)
    came = second.metrics()['penstock_rebalances_total{kind="assigned"}']
    assert came >= 6, "its two partitions went and came, twice"
    finish(shop, sender)


@pytest.mark.slow
def test_a_commit_that_is_set_back_changes_nothing(
    make_shop: Callable[..., WorkedShop], kafka: Cluster
) -> None:
    shop, sender = make_shop(), Sender()
    shop.up()
    worker = shop.work()
    with raw_loads(sender, shop.port):
        shop.until_shared(worker)
        more_events(sender)
        assert worker.stop() == 0
        with shop.opened() as (project, log, _, epoch):
            topic, group = log.topic, group_of_workers(project, log.generations.first, epoch)
        places = [TopicPartition(topic, one, 0) for one in range(PARTITIONS)]
        admin = AdminClient(kafka.client)
        asked = admin.alter_consumer_group_offsets([ConsumerGroupTopicPartitions(group, places)])
        for one in asked.values():
            one.result(30)
        again = shop.work()
        more_events(sender)
        shop.until_shared(again)
    finish(shop, sender)


@pytest.mark.slow
def test_workers_come_and_go_while_events_come_in(make_shop: Callable[..., WorkedShop]) -> None:
    shop, sender = make_shop('protocol = "consumer"'), Sender()
    shop.up()
    workers = [shop.work()]
    with raw_loads(sender, shop.port):
        for _ in range(2):
            workers.append(shop.work())
            shop.until_shared(*workers)
            more_events(sender)
        while len(workers) > 1:
            assert workers.pop(0).stop() == 0
            shop.until_shared(*workers)
            more_events(sender)
    finish(shop, sender)


@pytest.mark.slow
def test_processes_of_one_command_share_the_partitions_and_are_started_again(make_shop: Callable[..., WorkedShop]) -> None:  # fmt: skip
    shop, sender = make_shop('member = "machine-1"'), Sender()
    shop.up()
    both = shop.work("--processes", "2")

    def shared() -> bool:
        owned = [both.owned(both.port), both.owned(both.port + 1)]
        return sum(owned) == PARTITIONS and all(owned)

    with raw_loads(sender, shop.port):
        shop.until(shared, "two processes share the partitions")
        more_events(sender)
        children = (
            Path(f"/proc/{both.process.pid}/task/{both.process.pid}/children").read_text().split()
        )
        assert len(children) == 2
        os.kill(int(children[1]), signal.SIGKILL)
        more_events(sender)
        shop.until(lambda: both.owned(both.port + 1) == 0, "the killed one is gone")
        shop.until(shared, "it was started again, and has what it had")
    finish(shop, sender)


@pytest.mark.slow
def test_two_projects_on_one_broker_fold_each_all_of_its_own_log(
    kafka: Cluster, tmp_path: Path
) -> None:
    """Of one tenant and with no `fold.group`: in one group each would have some of the partitions of both."""
    shops: list[WorkedShop] = []
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        prefix = f"t{hashlib.sha256(str(tmp_path).encode()).hexdigest()[:12]}.{name}."
        shops.append(WorkedShop(tmp_path / name, kafka.address, prefix))
    senders = [Sender(), Sender()]
    try:
        for shop, sender in zip(shops, senders, strict=True):
            shop.up()
            worker = shop.work()
            with raw_loads(sender, shop.port, clients=1):
                more_events(sender)
                shop.until_shared(worker)
        for shop, sender in zip(shops, senders, strict=True):
            shop.until_shared(*shop.workers)
            finish(shop, sender)
    finally:
        for shop in shops:
            shop.end()
