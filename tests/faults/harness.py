"""The one fault harness: what is broken is drawn from a seed, while senders send; then what both sides know is compared.

    harness = Harness(folder, seed, workers=2, store="redis")
    with harness.loaded():
        harness.round(["kill worker", "fail over"])
    print(harness.judge())

Every fault is a method that breaks something and returns what mends it.
"""

import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import ledger as senders
from cluster import Brokers, Primary, can_mount, fill, until
from confluent_kafka import ConsumerGroupTopicPartitions, TopicPartition
from confluent_kafka.admin import AdminClient
from faulted_shop import PARTITIONS, FaultedShop, Where
from ledger import UNSUBSCRIBED, Ledger
from proxies import Network

from penstock.adapters.clock import SystemClock
from penstock.adapters.store.memory import MemoryStore
from penstock.core.errors import Unavailable
from penstock.core.record import Kind, decode_record
from penstock.core.step import Step
from penstock.flows.replay import replay
from penstock.flows.track import DECIDED
from penstock.logs import open_log
from penstock.ports.log import Log
from penstock.ports.store import Store
from penstock.project import Project, load_project
from penstock.testing.audit import audit
from penstock.workers import group_of_workers

Mend = Callable[[], None]
COPIES = 300
EPOCH = 1
"""Definitions do not change."""
HOUR_MS = 3_600_000
BETWEEN_ACKS = 60
"""Events that are acknowledged between two faults, where any are."""
BETWEEN_S = 3.0


@dataclass
class Figures:
    """What a run did, and what it cost."""

    seed: int
    faults: list[str] = field(default_factory=list)
    kills: int = 0
    events: int = 0
    by_sdk: int = 0
    copies: int = 0
    answers: int = 0
    decisions: int = 0
    lost: int = 0
    doubled: int = 0
    lies: int = 0
    taking_s: float = 0.0
    serving_s: float = 0.0
    recovery_s: dict[str, list[float]] = field(default_factory=dict)
    ended_alone: int = 0
    seconds: float = 0.0

    def lines(self) -> str:
        """Return them for people."""
        slowest = "; ".join(
            f"{what} {max(took):.1f}" for what, took in sorted(self.recovery_s.items())
        )
        return (
            f"seed {self.seed}: {len(self.faults)} faults, {self.kills} of them kills, in {self.seconds:.0f} s; "
            f"{self.events} events sent ({self.by_sdk} by the SDK), {self.copies} copies appended, {self.lost} lost, "
            f"{self.doubled} doubled; {self.answers} profiles and {self.decisions} decisions served, {self.lies} older than "
            f"they said; longest time without an acknowledgement {self.taking_s:.1f} s, without an answer {self.serving_s:.1f} s; "
            f"{self.ended_alone} processes ended by themselves; recovery in seconds, the slowest: {slowest}"
        )


class Harness:
    """A shop on a cluster, a seed, and what can be done to them. Used from one thread."""

    def __init__(
        self, folder: Path, seed: int, *, workers: int = 2, store: str = "redis", disk: bool = False
    ) -> None:
        self.dice = random.Random(seed)
        self.folder = folder
        self.figures = Figures(seed)
        self._began_s = time.monotonic()
        self._clock_right = True
        self._rounds: list[tuple[int, Sequence[str]]] = []
        """When each began, and what was broken in it."""
        self._opened = ExitStack()
        try:
            network = Network()
            self._opened.callback(network.close)
            self.brokers = Brokers(network)
            self._opened.callback(self.brokers.close)
            self.redis = Primary(network) if store == "redis" else None
            if self.redis is not None:
                self._opened.callback(self.redis.close)
            self.disk = self.brokers.give_small_disk(2) if disk and not can_mount() else None
            url = self.redis.url if self.redis is not None else ""
            self.shop = FaultedShop(
                folder, Where(self.brokers.addresses, f"s{seed}.", url, workers=workers)
            )
            self._opened.callback(self.shop.kill)
            self.shop.up()
            for number in range(workers):
                self.shop.work(number)
            self.log = open_log(load_project(folder), SystemClock())
            self._opened.callback(self.log.close)
            self.marks = self.shop.one_a_partition()
            self.ledger = Ledger(self.shop.port)
            self.topic = f"s{seed}.log-1"
            until(self.brokers.whole, "all copies are in sync")
            self.shop.until_live(self.ledger, self.marks)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self._opened.close()

    @contextmanager
    def loaded(self) -> Iterator[None]:
        """Let senders send and a reader read until the block ends."""
        with senders.load(self.ledger, self.figures.seed, lambda: self._clock_right):
            yield

    # -- rounds

    def round(self, faults: Sequence[str], hold_s: float = 1.0) -> None:
        """Break things one after another, mend them in another order, and wait until all is as before."""
        mends: list[tuple[str, Mend]] = []
        self._rounds.append((senders.now_ms(), faults))
        for one in faults:
            self.ledger.wait_for(self.dice.randrange(1, BETWEEN_ACKS), BETWEEN_S)
            mends.append((one, FAULTS[one](self)))
            self.figures.faults.append(one)
            self.figures.kills += one.startswith(("kill", "fail over"))
        self.ledger.stop.wait(hold_s * self.dice.uniform(0.3, 1))
        self.dice.shuffle(mends)
        began_s = time.monotonic()
        for _, mend in mends:
            mend()
        self.brokers.watch()
        self.shop.watch()
        self.shop.until_live(self.ledger, self.marks)
        # What was looked up on a wrong clock was looked up again since.
        self._clock_right = True
        took_s = time.monotonic() - began_s
        self.figures.recovery_s.setdefault(" + ".join(sorted(faults)), []).append(took_s)
        if self.shop.workers:
            self.shop.until_shared(*self.shop.workers)

    def menu(self) -> list[str]:
        """Return what can be broken here."""
        lacks = set()
        if not self.shop.workers:
            lacks |= {"kill worker", "pause worker", "kill both workers", "set the group back"}
        if self.redis is None:
            lacks |= {"kill redis", "pause redis", "fail over", "cut redis"}
        if self.disk is None:
            lacks.add("fill a broker's disk")
        return [one for one in FAULTS if one not in lacks]

    def draw(self, most: int) -> list[str]:
        """Return some faults, of parts that differ."""
        chosen: list[str] = []
        taken: set[str] = set()
        menu = self.menu()
        self.dice.shuffle(menu)
        for one in menu[: self.dice.randint(1, most) + 2]:
            if len(chosen) < most and PARTS[one] not in taken:
                taken.add(PARTS[one])
                chosen.append(one)
        return chosen

    # -- workers and the collector

    def kill_worker(self) -> Mend:
        number = self.dice.randrange(len(self.shop.workers))
        self.shop.workers[number].kill()
        return lambda: void(self.shop.work(number))

    def kill_both_workers(self) -> Mend:
        for one in self.shop.workers:
            one.kill()
        return lambda: void([self.shop.work(number) for number in range(len(self.shop.workers))])

    def pause_worker(self) -> Mend:
        worker = self.dice.choice(self.shop.workers)
        worker.pause()
        return worker.resume

    def kill_collector(self) -> Mend:
        assert self.shop.collector is not None
        self.shop.collector.kill()
        return lambda: void(self.shop.launch())

    def pause_collector(self) -> Mend:
        assert self.shop.collector is not None
        self.shop.collector.pause()
        return self.shop.collector.resume

    # -- brokers

    def _leader(self) -> int:
        return self.brokers.leader(self.topic, self.dice.randrange(PARTITIONS))

    def kill_leader(self) -> Mend:
        number = self._leader()
        self.brokers.server(number).kill()
        return lambda: self.brokers.start(number)

    def pause_leader(self) -> Mend:
        server = self.brokers.server(self._leader())
        server.pause()
        return server.resume

    def cut_leader(self) -> Mend:
        proxy = self.brokers.proxies[self._leader()]
        (proxy.cut if self.dice.random() < 0.5 else proxy.freeze)()
        return proxy.heal

    def fill_disk(self) -> Mend:
        """Fill the disk of the broker that has a small one: it ends, or goes on without it."""
        assert self.disk is not None
        ballast = fill(self.disk)

        def mend() -> None:
            ballast.unlink()
            if not self.brokers.server(2).alive():
                self.brokers.start(2)

        return mend

    # -- Redis

    def _redis(self) -> Primary:
        assert self.redis is not None
        return self.redis

    def kill_redis(self) -> Mend:
        number = self._redis().number
        self._redis().server.kill()
        return lambda: self._redis().start(number)

    def pause_redis(self) -> Mend:
        server = self._redis().server
        server.pause()
        return server.resume

    def cut_redis(self) -> Mend:
        proxy = self._redis().proxy
        (proxy.cut if self.dice.random() < 0.5 else proxy.freeze)()
        return proxy.heal

    def fail_over(self) -> Mend:
        """Let a replica take over that lacks what the primary acknowledged last."""
        self._redis().cut_off_replica()
        self.ledger.wait_for(2 * BETWEEN_ACKS, BETWEEN_S)
        self._redis().fail_over()
        return self._redis().follow

    # -- clocks, copies and offsets

    def jump_clock(self) -> Mend:
        """Set the clocks of all processes of the shop wrong, by hours, minutes or a second."""
        by_ms = self.dice.choice([-2 * HOUR_MS, -90_000, -2_000, 2_000, 90_000, 2 * HOUR_MS])
        self._clock_right = False
        clock = self.folder / "clock-ms"
        clock.write_text(str(by_ms))

        def mend() -> None:
            clock.unlink()

        return mend

    def append_copies(self) -> Mend:
        """Let a producer append copies of records that are in the log, in another order."""
        for partition in range(PARTITIONS):
            head = self.log.head(partition)
            start = self.dice.randrange(max(head - COPIES // PARTITIONS, 1))
            # Brokers may be away: then there is one fault less.
            with suppress(Unavailable):
                values = [
                    one.value for one in self.log.read(partition, start, COPIES // PARTITIONS)
                ]
                copied = [one for one in values if decode_record(one).kind == Kind.PRIMARY]
                self.dice.shuffle(copied)
                if copied:
                    self.log.append(partition, copied)
                self.figures.copies += len(copied)
        return lambda: None

    def set_group_back(self) -> Mend:
        """Set the group's offsets back to the beginning while nobody is in it."""
        for one in self.shop.workers:
            one.kill()
        group = group_of_workers(load_project(self.shop.folder), self.log.generation, EPOCH)
        places = [TopicPartition(self.topic, one, 0) for one in range(PARTITIONS)]
        admin = AdminClient({"bootstrap.servers": ",".join(self.brokers.addresses), "log_level": 0})

        def set_back() -> bool:
            asked = admin.alter_consumer_group_offsets(
                [ConsumerGroupTopicPartitions(group, places)]
            )
            try:
                return all(one.result(5) for one in asked.values())
            except Exception:  # noqa: BLE001 - the dead are members for a while yet
                return False

        def mend() -> None:
            until(set_back, "the group's offsets are set back")
            for number in range(len(self.shop.workers)):
                self.shop.work(number)

        return mend

    # -- the end

    def judge(self) -> Figures:
        """Compare what the senders know with what the log, the store and the registers hold; after the load."""
        figures, ledger = self.figures, self.ledger
        none(self.shop.undecided(ledger), "decisions that were answered are not kept")
        none(senders.asked_again(ledger), "decisions that were answered are others now")
        lies = ledger.stale_lies()
        figures.lies = len(lies)
        none([f"{what}; {self._during(at_ms)}" for at_ms, what in lies],
             "profiles were served that were older than they said")  # fmt: skip
        self.shop.until_folded()
        self.shop.end()
        with self.shop.opened() as (project, log, store, epoch):
            logged = self._logged(log)
            acked = {one for one, sent in ledger.sent.items() if sent.acked_ms}
            figures.lost = len(acked - set(logged))
            assert acked == set(ledger.sent), "the load ends when all is acknowledged"
            strangers = logged ^ set(ledger.sent)
            assert set() == strangers, [ledger.sent.get(one, one) for one in sorted(strangers)[:5]]
            step = Step(project.plan, project.step_rules())
            report = audit(log, store, step, epoch)
            none(report.problems, "the audit")
            assert 0 == report.in_flight
            # One message id is one event, however many copies of it there are.
            assert len(report.message_ids) == report.applied + report.dropped, report.equation()
            embedded = MemoryStore()
            replay(log, embedded, step, 1)
            assert bodies(embedded, 1) == bodies(store, epoch)
            counted = {
                user: views(project, store, epoch, self.shop, user) for user in ledger.counted()
            }
            figures.doubled = sum(
                max(found - ledger.counted()[user], 0) for user, found in counted.items()
            )
            assert dict(ledger.counted()) == counted
            none(self._not_suppressed(), "people who unsubscribed are not in the register")
        self._note()
        return figures

    def _during(self, at_ms: int) -> str:
        """Return what was broken at an instant, or last before it."""
        began = [(since_ms, faults) for since_ms, faults in self._rounds if since_ms <= at_ms]
        return (
            f"{at_ms - began[-1][0]} ms after {began[-1][1]} began" if began else "before any fault"
        )

    def _logged(self, log: Log) -> set[str]:
        """Return the message ids of what senders sent, as the log has them."""
        found: set[str] = set()
        for partition in range(PARTITIONS):
            offset = log.first(partition)
            while batch := log.read(partition, offset, 5_000):
                offset = batch[-1].offset + 1
                for record in (decode_record(one.value) for one in batch):
                    if record.kind == Kind.PRIMARY and record.name != DECIDED:
                        found.add(record.message_id)
        return found

    def _not_suppressed(self) -> list[str]:
        """Return who unsubscribed and is not in the register."""
        users = sorted(self.ledger.counted(UNSUBSCRIBED))
        if self.redis is None:
            return []
        with self.shop.registers() as (suppressions, _):
            known = {key.leaf for key in suppressions.get([self.shop.leaf(one) for one in users])}
        return [one for one in users if self.shop.leaf(one) not in known]

    def _note(self) -> None:
        figures, ledger = self.figures, self.ledger
        figures.events = len(ledger.sent)
        figures.by_sdk = sum(one.startswith("sdk-") for one in ledger.sent)
        figures.answers = len(ledger.told)
        figures.decisions = len(ledger.decided)
        figures.taking_s = max((one.longest_s for one in ledger.taking), default=0.0)
        figures.serving_s = max((one.longest_s for one in ledger.serving), default=0.0)
        figures.ended_alone = len(self.shop.ended_alone)
        figures.seconds = time.monotonic() - self._began_s


def none(found: Sequence[object], what: str) -> None:
    """Require that nothing was found; a few of what was are told."""
    assert not found, f"{what} ({len(found)}): " + "\n".join(map(str, found[:5]))


def void(_: object) -> None:
    """Return nothing, of what returns something."""


def bodies(store: Store, epoch: int) -> dict[bytes, tuple[bytes, ...]]:
    """Return the bytes of every leaf, by its id."""
    return {leaf: stored.parts for leaf, stored in store.scan(epoch, None, 1_000_000)}


def views(project: Project, store: Store, epoch: int, shop: FaultedShop, user: str) -> int:
    """Return how many views a person's own leaf counts."""
    from penstock.core.leaf import decode_leaf

    leaf_id = shop.leaf(user)
    stored = store.read(epoch, [leaf_id])[0]
    if stored is None:
        return 0
    leaf = decode_leaf(leaf_id, stored.version, stored.parts[0], project.plan)
    read = project.plan.read(
        leaf.states, leaf.clock_ms, leaf.clock_ms, leaf.purged, frozenset({"personalisation"})
    )
    return read["views_7d"]


FAULTS: dict[str, Callable[[Harness], Mend]] = {
    "kill worker": Harness.kill_worker,
    "kill both workers": Harness.kill_both_workers,
    "pause worker": Harness.pause_worker,
    "kill collector": Harness.kill_collector,
    "pause collector": Harness.pause_collector,
    "kill leader": Harness.kill_leader,
    "pause leader": Harness.pause_leader,
    "cut leader": Harness.cut_leader,
    "fill a broker's disk": Harness.fill_disk,
    "kill redis": Harness.kill_redis,
    "pause redis": Harness.pause_redis,
    "cut redis": Harness.cut_redis,
    "fail over": Harness.fail_over,
    "jump clock": Harness.jump_clock,
    "append copies": Harness.append_copies,
    "set the group back": Harness.set_group_back,
}
"""What can be broken, by name."""

PARTS = {
    **dict.fromkeys(("kill worker", "kill both workers", "pause worker", "set the group back"), "workers"),
    **dict.fromkeys(("kill collector", "pause collector"), "collector"),
    **dict.fromkeys(("kill leader", "pause leader", "cut leader", "fill a broker's disk"), "brokers"),
    **dict.fromkeys(("kill redis", "pause redis", "cut redis", "fail over"), "redis"),
    "jump clock": "clock", "append copies": "copies",
}  # fmt: skip
"""What each breaks: of one part one thing at a time."""
