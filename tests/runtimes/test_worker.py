"""The worker: what it writes and when, what it commits, what it does about faults and other workers."""

from collections.abc import Callable
from typing import Any

import pytest

from penstock.adapters.consumer.memory import MemoryGroup
from penstock.adapters.log.memory import MemoryLog
from penstock.adapters.metrics.memory import MemoryMetrics
from penstock.adapters.store.memory import MemoryStore
from penstock.adapters.suppressions.memory import MemorySuppressions
from penstock.core.consent.purpose import ConsentRules
from penstock.core.errors import Unavailable
from penstock.core.identity.identifier import IdentityRules
from penstock.core.identity.routing import route
from penstock.core.ids import LeafId, event_id, leaf_id, partition_of
from penstock.core.record import (
    RECORD_FORMAT,
    Evidence,
    Kind,
    Record,
    Version,
    decode_record,
    encode_record,
)
from penstock.core.step import Rules, Step
from penstock.dsl.events import event, string
from penstock.dsl.features import Profile, compile_plan, count
from penstock.ports.log import Truncation
from penstock.runtimes.worker import CHECK_MS, COMMIT_MS, RETRY_MS_MAX, Worker
from penstock.testing.audit import audit
from penstock.testing.clock import HandClock
from penstock.testing.losing_store import LosingClient, LosingStore

NOW_MS = 1_795_000_000_000
FLUSH_MS = 100
PARTITIONS = 4
viewed = event("Product Viewed", product_id=string())


class Shopper(Profile):
    views = count(viewed)


STEP = Step(compile_plan([Shopper]), Rules(ConsentRules(), {}))


def make_leaf(id_type: str, value: str) -> LeafId:
    return leaf_id(b"k" * 32, "t", id_type, value)


class Failing:
    """Something whose calls fail while it is told to."""

    def __init__(self, inner: Any, names: tuple[str, ...]) -> None:
        self.inner = inner
        self.names = names
        self.fails: Callable[..., bool] = lambda *_, **__: False

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.inner, name)
        if name not in self.names:
            return found

        def call(*args: Any, **named: Any) -> Any:
            if self.fails(*args, **named):
                raise Unavailable("E402", "nothing answered", fix="retry")
            return found(*args, **named)

        return call


class World:
    """A log, a store, a register, a group, and workers."""

    def __init__(self) -> None:
        self.clock = HandClock(NOW_MS)
        self.log = MemoryLog(self.clock, partitions=PARTITIONS)
        self.appending = Failing(self.log, ("append",))
        self.store = MemoryStore()
        self.writing = Failing(self.store, ("write",))
        self.register = MemorySuppressions()
        self.group = MemoryGroup(self.log)
        self.metrics = MemoryMetrics()
        self.sent = 0

    def worker(self, **more: Any) -> Worker:
        return Worker(
            consumer=self.group.member(), log=self.appending, store=self.writing,  # type: ignore[arg-type]
            suppressions=self.register, step=STEP, epoch=1, clock=self.clock, metrics=self.metrics,
            flush_ms=FLUSH_MS, **more,
        )  # fmt: skip

    def started(self, **more: Any) -> Worker:
        worker = self.worker(**more)
        worker.start()
        worker.turn()
        return worker

    def send(self, *users: str, device: str | None = None, name: str = "Product Viewed") -> None:
        for user in users:
            self.sent += 1
            message_id, now = f"m{self.sent}", self.clock.now_ms()
            routing = route(
                user_id=user, anonymous_id=device, previous_id=None, group_id=None, external_ids=(),
                email=None, type_name="track", message_id=message_id, occurred_at_ms=now, verified=True,
                tenant="t", make_leaf=make_leaf, rules=IdentityRules(),
            )  # fmt: skip
            leaf = routing.primary.leaf
            properties = {"channel": "email"} if name == "Unsubscribed" else {"product_id": "p"}
            record = Record(
                format=RECORD_FORMAT, kind=Kind.PRIMARY, tenant="t", leaf=leaf,
                id_type=routing.primary.id_type, event_id=event_id(leaf, message_id),
                message_id=message_id, type="track", name=name, occurred_at_ms=now, received_at_ms=now,
                source="site", source_rank=0, verified=True,
                evidence=Evidence("context", granted=("personalisation",)),
                identifiers=routing.identifiers, edges=routing.edges, properties=properties,
            )  # fmt: skip
            self.log.append(partition_of(leaf, PARTITIONS), [encode_record(record)])

    def turn(self, *workers: Worker, ms: int = FLUSH_MS) -> None:
        """Let workers fold what there is, and write it."""
        for worker in workers:
            worker.turn()
        self.clock.advance(ms=ms)
        for worker in workers:
            worker.turn()

    def applied(self, partition: int) -> int:
        return self.store.applied(1, partition).offset

    def stored(self) -> int:
        return len(self.store.scan(1, None, 10_000))

    def links(self) -> list[str]:
        return [
            record.message_id for partition in range(PARTITIONS)
            for entry in self.log.read(partition, 0, 10_000)
            if (record := decode_record(entry.value)).kind == Kind.LINK
        ]  # fmt: skip

    def require_sound(self, applied: int) -> None:
        report = audit(self.log, self.store, STEP, 1)
        assert report.sound, report.problems
        assert (applied, 0) == (report.applied, report.in_flight)


class LateLog:
    """A log that others append to, as one knows it who has not heard of its end."""

    shared = True

    def __init__(self, inner: MemoryLog) -> None:
        self.inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def head(self, partition: int) -> int:
        return 0


class ServerWorld(World):
    """Its store is on a server, which may lose what it had acknowledged, and a client may be without answers."""

    def __init__(self) -> None:
        super().__init__()
        self.store = self.server = LosingStore()
        self.writing = Failing(LosingClient(self.server), ("write", "confirmed", "check"))


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def over_server() -> ServerWorld:
    return ServerWorld()


def user_of(partition: int, place: int = 0) -> str:
    """Return a user whose leaf is in a partition; the first by default."""
    users = (f"u{n}" for n in range(1_000))
    found = [
        one for one in users if partition_of(make_leaf("user_id", one), PARTITIONS) == partition
    ]
    return found[place]


EVERYWHERE = [user_of(partition) for partition in range(PARTITIONS)]


def test_leaves_are_written_when_they_are_due_and_offsets_committed_after_them(
    world: World,
) -> None:
    worker = world.started()
    world.send(*EVERYWHERE)
    worker.turn()
    assert ({}, 0) == (world.group.committed, world.stored())
    world.clock.advance(ms=FLUSH_MS)
    worker.turn()
    assert PARTITIONS == world.stored()
    assert dict.fromkeys(range(PARTITIONS), 1) == world.group.committed
    world.require_sound(applied=PARTITIONS)


def test_a_drain_writes_and_commits_what_is_folded(world: World) -> None:
    worker = world.started()
    world.send(*EVERYWHERE)
    worker.turn()
    worker.close()
    assert dict.fromkeys(range(PARTITIONS), 1) == world.group.committed
    assert [] == worker.owned()
    assert (False, "the worker is draining") == worker.ready()
    world.require_sound(applied=PARTITIONS)


def test_partitions_are_shared_out_and_taken_over(world: World) -> None:
    first = world.started()
    world.send(*EVERYWHERE * 3)
    world.turn(first)
    second = world.started()
    world.turn(first, second)
    assert 2 == len(first.owned()) == len(second.owned())
    world.send(*EVERYWHERE * 3)
    world.turn(first, second)
    second.close()
    world.send(*EVERYWHERE)
    world.turn(first)
    world.require_sound(applied=7 * PARTITIONS)
    assert 0 == world.metrics.value("penstock_writes_refused_total")


@pytest.mark.parametrize("committed", [0, 2])
def test_a_commit_that_is_set_back_changes_nothing(world: World, committed: int) -> None:
    worker = world.started()
    world.send(*[user_of(0)] * 5)
    world.turn(worker)
    worker.close()
    world.group.committed = {0: committed}
    world.send(user_of(0))
    again = world.started()
    world.turn(again)
    assert 5 == world.applied(0)
    world.require_sound(applied=6)


def test_a_worker_that_wakes_overwrites_nothing(world: World) -> None:
    """It has folded what it has not written, is taken for dead, and wakes after another has gone on."""
    stalled = world.started()
    world.send(*[user_of(0)] * 3)
    stalled.turn()
    world.group.evict(stalled.consumer, deaf_polls=1)  # type: ignore[arg-type]
    other = world.started()
    world.send(*[user_of(0)] * 2)
    world.turn(other)
    before = world.store.scan(1, None, 10)
    world.clock.advance(ms=FLUSH_MS)
    stalled.turn()  # deaf: it reads on and writes what it has folded
    assert before == world.store.scan(1, None, 10)
    world.turn(stalled, other)
    assert PARTITIONS == len(stalled.owned()) + len(other.owned())
    world.require_sound(applied=5)


def test_a_stale_base_is_refused_and_the_worker_reads_on_from_what_is_written(world: World) -> None:
    stalled = world.started()
    world.send(user_of(0))
    world.turn(stalled)
    world.send(user_of(0))
    stalled.turn()
    world.group.evict(stalled.consumer, deaf_polls=2)  # type: ignore[arg-type]
    other = world.started()
    world.turn(other)
    world.send(user_of(0))
    world.turn(stalled)  # deaf: of three records it folds the third on what it had cached
    assert 1 == world.metrics.value("penstock_writes_refused_total")
    world.turn(stalled, other)
    world.require_sound(applied=3)


def test_a_link_is_in_the_log_before_the_leaf_that_said_it_is_written(world: World) -> None:
    worker = world.started()
    world.send(user_of(0), device="a1")
    worker.turn()
    world.appending.fails = lambda *_: True
    world.turn(worker)
    assert ([], 0) == (world.links(), world.stored())
    assert not worker.ready()[0]
    world.appending.fails = lambda *_: False
    world.turn(worker, ms=RETRY_MS_MAX)
    world.turn(worker)
    assert 1 == len(world.links())
    world.require_sound(applied=1)


def test_what_a_person_says_of_permission_is_in_the_register_before_its_leaf_is_written(world: World) -> None:  # fmt: skip
    worker = world.started()
    world.send(user_of(0), name="Unsubscribed")
    world.turn(worker)
    assert 1 == len(world.register.get([make_leaf("user_id", user_of(0))]))


def test_a_partition_that_cannot_go_on_rests_and_the_others_go_on(world: World) -> None:
    worker = world.started()
    world.send(*EVERYWHERE)
    world.writing.fails = lambda *_, partition, **__: partition == 2
    world.turn(worker)
    assert [0, 0, -1, 0] == [world.applied(partition) for partition in range(PARTITIONS)]
    assert (False, "partition 2 rests: nothing answered") == worker.ready()
    worker.publish()
    assert 1 == world.metrics.value("penstock_partition_resting", partition="2")
    assert 1 == world.metrics.value("penstock_fold_lag_records", partition="2")
    assert 1 == world.metrics.value("penstock_worker_faults_total", code="E402")
    world.writing.fails = lambda *_, **__: False
    world.turn(worker, ms=RETRY_MS_MAX)
    world.turn(worker)
    assert (True, "") == worker.ready()
    world.require_sound(applied=PARTITIONS)


def test_a_record_that_does_not_decode_holds_its_partition_alone(world: World) -> None:
    worker = world.started()
    world.log.append(1, [b"nonsense"])
    world.send(*EVERYWHERE)
    world.turn(worker)
    assert [0, -1, 0, 0] == [world.applied(partition) for partition in range(PARTITIONS)]
    assert (False, "partition 1 rests: a record of the log does not decode") == worker.ready()


def test_a_log_that_begins_after_what_is_applied_is_told(world: World) -> None:
    world.send(*[user_of(3)] * 3)
    world.log.truncate(3, Truncation(2, 2, 0))
    worker = world.started()
    assert (
        False,
        "partition 3 rests: partition 3 of the log was truncated, and begins at offset 2",
    ) == (worker.ready())


def test_a_log_that_goes_while_it_is_read_is_told(world: World) -> None:
    worker = world.started()
    world.send(*[user_of(3)] * 3)
    world.log.truncate(3, Truncation(2, 2, 0))
    worker.turn()
    assert (
        False,
        "partition 3 rests: partition 3 of the log was truncated, and begins at offset 2",
    ) == (worker.ready())


def test_a_store_that_is_ahead_of_the_log_is_told(world: World) -> None:
    world.store.write(1, [], partition=1, applied=Version(1, 7))
    worker = world.started()
    assert "the log ends at 0" in worker.ready()[1]
    assert 1 == world.metrics.value("penstock_worker_faults_total", code="E472")


def test_a_store_that_is_ahead_of_what_is_known_of_the_log_holds_up_nothing(world: World) -> None:
    """Another worker has folded what this one has not heard of; only reading there shows that there is nothing."""
    world.appending = Failing(LateLog(world.log), ("append",))
    world.send(user_of(1))
    world.store.write(1, [], partition=1, applied=Version(1, 0))
    worker = world.started()
    world.send(user_of(1))
    world.turn(worker)
    assert ((True, ""), 1) == (worker.ready(), world.applied(1))
    worker.astray([1])
    assert "the log ends at 0" in worker.ready()[1]


def test_links_that_another_set_of_leaves_has_in_the_log_are_not_appended_again(world: World) -> None:  # fmt: skip
    world.send(user_of(0), device="a1")
    world.send(user_of(1), device="a2")
    worker = world.started(covered=lambda partition: 0 if partition == 0 else -1)
    world.turn(worker)
    assert ["m2"] == [name.partition("#")[0] for name in world.links()]


def test_links_up_to_a_commit_are_not_appended_again(world: World) -> None:
    worker = world.started()
    world.send(user_of(0), device="a1")
    world.turn(worker)
    worker.close()
    world.store.drop(1)  # a store that was emptied is filled again from the log
    again = world.started()
    world.turn(again)
    assert 1 == len(world.links())
    world.require_sound(applied=1)


def test_offsets_are_committed_about_once_a_second(world: World) -> None:
    worker = world.started()
    world.send(user_of(0))
    world.turn(worker)
    world.send(user_of(0))
    world.turn(worker)
    assert (1, 1) == (world.applied(0), world.group.committed[0])
    world.clock.advance(ms=COMMIT_MS)
    worker.turn()
    assert 2 == world.group.committed[0]


def test_what_a_store_has_lost_is_folded_again_and_links_are_not_appended_twice(over_server: ServerWorld) -> None:  # fmt: skip
    world = over_server
    worker = world.started()
    world.send(*EVERYWHERE, device="a1")
    world.turn(worker)
    world.turn(worker, ms=COMMIT_MS)
    world.send(*EVERYWHERE, device="a2")
    world.turn(worker)
    world.turn(worker)
    links = world.links()
    world.server.empty()
    # Nothing new comes in: it is found by looking.
    world.turn(worker, ms=CHECK_MS)
    world.turn(worker)
    assert 2 * PARTITIONS == len(links) == len(world.links())
    assert PARTITIONS == world.metrics.value("penstock_worker_faults_total", code="E450")
    world.require_sound(applied=2 * PARTITIONS)


def test_no_more_is_committed_than_the_store_confirms(over_server: ServerWorld) -> None:
    world = over_server
    worker = world.started()
    world.send(*EVERYWHERE)
    world.writing.fails = lambda *args, **named: bool(args) and not named  # `confirmed` alone
    world.turn(worker)
    assert (PARTITIONS, {}) == (world.stored(), world.group.committed)
    assert (True, "") == worker.ready()
    world.writing.fails = lambda *_, **__: False
    worker.close()
    assert dict.fromkeys(range(PARTITIONS), 1) == world.group.committed


def test_a_store_that_is_away_is_told_while_nothing_comes_in(over_server: ServerWorld) -> None:
    world = over_server
    worker = world.started()
    world.writing.fails = lambda *_, **__: True
    world.turn(worker, ms=CHECK_MS)
    assert (False, "nothing answered") == worker.ready()
    world.writing.fails = lambda *_, **__: False
    world.turn(worker, ms=CHECK_MS)
    assert (True, "") == worker.ready()


def test_metrics_say_what_is_owned_folded_and_behind(world: World) -> None:
    worker = world.started()
    world.send(*EVERYWHERE, user_of(0))
    world.turn(worker)
    world.send(user_of(0))
    world.clock.advance(seconds=7)
    worker.publish()
    value = world.metrics.value
    assert PARTITIONS == value("penstock_partitions_owned")
    assert PARTITIONS == value("penstock_rebalances_total", kind="assigned")
    assert 5 == value("penstock_events_applied_total")
    assert (1, 0) == tuple(value("penstock_fold_lag_records", partition=p) for p in "01")
    assert (7.1, 0) == tuple(value("penstock_fold_lag_seconds", partition=p) for p in "01")
