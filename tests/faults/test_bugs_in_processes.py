"""Bugs that are planted into real processes on real servers, each of which is found; and where there is none, none is.

Every scenario is short and the same with and without its bug: what is broken, and when, is not left to luck.
"""

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path

import pytest
from cluster import QUICK, Primary, until
from faulted_shop import PARTITIONS, FaultedShop, Running, Where
from ledger import UNSUBSCRIBED, Caller, Ledger, asked, told_of
from proxies import Network

from penstock.adapters.clock import SystemClock
from penstock.core.record import Kind, decode_record
from penstock.core.step import Step
from penstock.logs import open_log
from penstock.project import load_project
from penstock.testing.audit import audit
from tests.conftest import StartRedis, missing, running
from tools.services.kafka import SERVICE as KAFKA
from tools.services.kafka import Cluster
from tools.services.redis import SERVICE as REDIS

pytestmark = [pytest.mark.service, pytest.mark.timeout(300)]

LATER_MS = 60_000
"""Leaves that are due to be written so late are in memory for as long as a scenario wants."""


class Scene:
    """A shop on one broker, and what its senders know."""

    def __init__(self, shop: FaultedShop, redis: Primary | None = None) -> None:
        self.shop = shop
        self.redis = redis
        self.ledger = Ledger(shop.port)
        self.people: list[str] = []

    def start(self, up: str = "", *workers: str) -> list[Running]:
        """Start everything, each process with what is planted into it."""
        self.shop.up(up)
        self.people = self.shop.one_a_partition()
        return [self.shop.work(number, plant) for number, plant in enumerate(workers)]

    def send(self, times: int = 1, people: list[str] | None = None) -> None:
        for _ in range(times):
            self.shop.send(self.ledger, people or self.people)

    def until_applied(self, worker: Running, records: int) -> None:
        """Wait until a worker has folded so many, written or not."""
        name = "penstock_events_applied_total"
        until(
            lambda: self.shop.metrics(worker).get(name, 0) >= records,
            f"{records} records are folded",
        )

    def problems(self) -> list[str]:
        """Return what the auditor says, and what is not there that was acknowledged, of processes that have ended."""
        with self.shop.opened() as (project, log, store, epoch):
            report = audit(log, store, Step(project.plan, project.step_rules()), epoch)
        lost = [
            name
            for name, one in self.ledger.sent.items()
            if one.acked_ms and name not in report.message_ids
        ]
        return [
            *report.problems,
            *([f"{len(lost)} acknowledged events are not in the log"] if lost else []),
        ]

    def answers(self, times: int = 20) -> list[str]:
        """Read profiles, and return where one was older than it said."""
        for user in times * self.people:
            asked_ms = SystemClock().now_ms()
            status, body = asked(self.shop.port, "GET", f"/v1/profiles/user_id:{user}")
            if status == 200:
                self.ledger.told.append(told_of(user, asked_ms, json.loads(body)))
        return self.ledger.stale_lies()


MakeScene = Callable[..., Scene]


@pytest.fixture(scope="module")
def broker() -> Iterator[Cluster]:
    """A broker of this module's own, to be paused; it takes a worker for dead as soon as one wants."""
    yield from running(KAFKA, settings=QUICK)


@pytest.fixture
def make_scene(broker: Cluster, start_redis: StartRedis, tmp_path: Path) -> Iterator[MakeScene]:
    if lacks := REDIS.missing():
        missing(lacks)
    with ExitStack() as opened:

        def make(*, replica: bool = False, workers: int = 1, flush_ms: int = 50) -> Scene:
            prefix = f"b{hashlib.sha256(str(tmp_path).encode()).hexdigest()[:12]}."
            redis = None
            if replica:
                network = Network()
                opened.callback(network.close)
                redis = Primary(network)
                opened.callback(redis.close)
            url = redis.url if redis is not None else start_redis().url
            where = Where([broker.address], prefix, url, workers=workers, replication=1,
                          wait_replicas=int(replica), flush_ms=flush_ms)  # fmt: skip
            shop = FaultedShop(tmp_path, where)
            opened.callback(shop.kill)
            return Scene(shop, redis)

        yield make


def with_and_without(bug: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("bug", ["", bug], ids=["sound", bug.replace(" ", "-")])


def joined(*names: str) -> str:
    return "+".join(one for one in names if one)


# ------------------------------------------------------------------------------ of the collector


@with_and_without("stale said live")
def test_what_is_old_and_served_as_live_is_found(make_scene: MakeScene, bug: str) -> None:
    scene = make_scene()
    (worker,) = scene.start(bug, "")
    scene.shop.until_live(scene.ledger, scene.people)
    worker.kill()
    scene.send(3)
    assert bool(bug) == bool(scene.answers())


@pytest.mark.slow
@with_and_without("answered at once")
def test_an_answer_that_comes_before_the_brokers_is_found(make_scene: MakeScene, broker: Cluster, bug: str) -> None:  # fmt: skip
    scene = make_scene(workers=0)
    scene.start(bug)
    broker.servers[0].pause()
    try:
        with suppress(AssertionError):  # without the bug nobody is told 200
            scene.shop.send(scene.ledger, scene.people, seconds=4)
        assert scene.shop.collector is not None
        scene.shop.collector.kill()
    finally:
        # Not resumed: it would read, and keep, what had reached its sockets meanwhile.
        broker.servers[0].kill()
        broker.servers[0].start()
    found = ""
    try:
        scene.shop.up()
    except AssertionError as error:
        found = str(error)
        if "E760" not in found:  # what was lost had been folded: the product finds it by itself
            raise
    scene.shop.end()
    assert bool(bug) == bool(found or scene.problems())


# --------------------------------------------------------------------------------- of one worker


@with_and_without("commit before write")
def test_an_offset_that_is_noted_before_its_leaves_is_found(make_scene: MakeScene, bug: str) -> None:  # fmt: skip
    scene = make_scene()
    (worker,) = scene.start("", bug)
    scene.send(5)
    scene.shop.until_folded()
    worker.kill()
    scene.shop.kill()
    assert bool(bug) == bool(scene.problems())


@pytest.mark.slow
@with_and_without("resume from the commit")
def test_a_worker_that_goes_by_its_group_is_found(make_scene: MakeScene, bug: str) -> None:
    scene = make_scene(flush_ms=LATER_MS)
    (worker,) = scene.start("", bug)
    scene.send(5)
    scene.until_applied(worker, 5 * PARTITIONS)
    worker.kill()
    again = scene.shop.work(0, bug)
    scene.shop.until_shared(again)
    scene.send()
    scene.until_applied(again, PARTITIONS)
    scene.shop.end()
    assert bool(bug) == bool(scene.problems())


@pytest.mark.slow
@with_and_without("revoked unwritten")
def test_what_is_given_back_unwritten_is_found(make_scene: MakeScene, bug: str) -> None:
    scene = make_scene(flush_ms=LATER_MS)
    (worker,) = scene.start("", bug)
    scene.send(5)
    scene.until_applied(worker, 5 * PARTITIONS)
    scene.shop.end()
    assert bool(bug) == bool(scene.problems())


@pytest.mark.slow
@with_and_without("leaf before link")
def test_a_leaf_that_is_written_before_its_links_is_found(make_scene: MakeScene, bug: str) -> None:
    """The worker is killed when it is about to append the first link."""
    scene = make_scene()
    (worker,) = scene.start("", joined(bug, "killed before links"))
    identify(scene)
    until(lambda: not worker.alive(), "it is killed at its first link")
    scene.shop.until_shared(scene.shop.work(0))
    scene.shop.until_folded()
    scene.shop.end()
    assert bool(bug) == bool(scene.problems())


@pytest.mark.slow
@with_and_without("links lost")
def test_a_lost_link_is_found(make_scene: MakeScene, bug: str) -> None:
    scene = make_scene()
    scene.start("", bug)
    identify(scene)
    scene.shop.until_folded()
    scene.shop.end()
    assert bool(bug) == bool(scene.problems())


def identify(scene: Scene) -> None:
    """Say of somebody which device is theirs."""
    user = scene.people[0]
    scene.ledger.note("identified", user, "identify")
    event = {
        "type": "identify",
        "messageId": "identified",
        "userId": user,
        "anonymousId": "device-1",
    }
    with closing(Caller(scene.shop.port)) as caller:
        until(lambda: caller.post([event]) == 200, "the event is taken")
    scene.ledger.acknowledge(["identified"])


@pytest.mark.slow
@with_and_without("copies not known")
def test_copies_that_a_leaf_takes_for_new_are_found(make_scene: MakeScene, bug: str) -> None:
    scene = make_scene()
    scene.start("", bug)
    scene.send(3)
    log = open_log(load_project(scene.shop.folder), SystemClock())
    for partition in range(PARTITIONS):
        until(lambda at=partition: log.head(at) >= 3, "they are in the log")
        log.append(partition, [one.value for one in reversed(log.read(partition, 0, 9))
                               if decode_record(one.value).kind == Kind.PRIMARY])  # fmt: skip
    log.close()
    scene.shop.until_folded()
    scene.shop.end()
    assert bool(bug) == bool(scene.problems())


@pytest.mark.slow
@with_and_without("register not healed")
def test_a_register_that_the_fold_does_not_heal_is_found(make_scene: MakeScene, bug: str) -> None:
    """The collector is killed between the append and its own write; whoever sent it does not come again."""
    scene = make_scene()
    scene.start("killed before register", bug)
    with suppress(AssertionError):
        scene.shop.send(
            scene.ledger,
            scene.people[:1],
            name=UNSUBSCRIBED,
            properties={"topic": "offers"},
            seconds=1,
        )
    assert scene.shop.collector is not None
    until(lambda: not scene.shop.collector.alive(), "it is killed")
    scene.shop.up()
    scene.shop.until_folded()
    with scene.shop.registers() as (suppressions, _):
        told = suppressions.get([scene.shop.leaf(scene.people[0])])
    assert bool(bug) == (not told)


# ------------------------------------------------------------------------------------ of several


@pytest.mark.slow
@with_and_without("write without base check")
def test_a_write_that_asks_for_no_base_is_found(make_scene: MakeScene, bug: str) -> None:
    """A worker is stalled in the middle of a write, and goes on when another has its partitions."""
    scene = make_scene(workers=2)
    (first,) = scene.start("", joined(bug, "stalled before write"))
    scene.shop.until_shared(first)
    scene.send()
    until(lambda: stalled(first), "it is stalled")
    second = scene.shop.work(1, bug)
    scene.shop.until_shared(second)
    scene.send(3)
    scene.shop.until_folded()
    first.resume()
    scene.shop.until_shared(first, second)
    scene.shop.until_folded()
    scene.shop.end()
    assert bool(bug) == bool(scene.problems())


def stalled(worker: Running) -> bool:
    return Path(f"/proc/{worker.process.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


@pytest.mark.slow
@pytest.mark.parametrize("bug", ["", "cache kept over revoked", "alternating workers"])
def test_a_cache_that_is_older_than_what_another_wrote_is_found(make_scene: MakeScene, bug: str) -> None:  # fmt: skip
    scene = make_scene(workers=2)
    planted = joined(bug, "refuse older only" if bug else "")
    (first,) = scene.start("", planted)
    scene.shop.until_shared(first)
    scene.send(2)
    scene.shop.until_folded()
    second = scene.shop.work(1, planted)
    # One that is not told believes that it owns them all, so the other is asked.
    until(lambda: scene.shop.owned(second) == PARTITIONS / 2, "half of them are the other's")
    scene.send(2)
    scene.shop.until_folded()
    assert second.end() == 0
    scene.shop.workers.pop()
    scene.shop.until_shared(first)
    scene.send(2)
    scene.shop.until_folded()
    scene.shop.end()
    assert bool(bug) == bool(scene.problems())


# ------------------------------------------------------------------------------- of a failover


@pytest.mark.slow
@with_and_without("era ignored")
def test_a_failover_that_nobody_notices_is_found(make_scene: MakeScene, bug: str) -> None:
    scene = make_scene(replica=True)
    scene.start("", bug)
    scene.shop.until_live(scene.ledger, scene.people)
    assert scene.redis is not None
    scene.redis.cut_off_replica()
    scene.send(2)
    scene.shop.until_folded()
    # Who finds the server away goes back to what the store has applied, and that would heal it.
    scene.redis.switch_over()
    scene.redis.follow()
    # Others of the same partitions: the leaves that were lost are not touched again.
    scene.send(2, [f"other-{number}" for number in range(40)])
    scene.shop.until_folded()
    scene.shop.end()
    assert bool(bug) == bool(scene.problems())


@pytest.mark.slow
@with_and_without("WAIT skipped")
def test_a_decision_that_no_replica_has_is_found(make_scene: MakeScene, bug: str) -> None:
    scene = make_scene(replica=True)
    scene.start(bug, "")
    scene.shop.until_live(scene.ledger, scene.people)
    assert scene.redis is not None
    scene.redis.cut_off_replica()
    with closing(Caller(scene.shop.port)) as caller:
        for user in 2 * scene.people:
            scene.ledger.decide(caller, user)
    assert scene.shop.collector is not None
    scene.shop.collector.kill()
    scene.redis.fail_over()
    scene.redis.follow()
    assert bool(bug) == bool(scene.ledger.decided)
    assert bool(bug) == bool(scene.shop.undecided(scene.ledger))


def test_every_scenario_has_a_bug_of_its_own() -> None:
    from planted_bugs import BUGS

    text = Path(__file__).read_text()
    assert [] == [name for name in BUGS if f'"{name}"' not in text]
