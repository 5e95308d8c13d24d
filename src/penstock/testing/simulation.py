"""One seed, one history: the real fold, log and store under crashes, duplicates and partial writes.

The simulator runs the modules that production runs, in one thread, and checks the promises after
each history: nothing acknowledged is lost, nothing counts twice, both sides of a link hold it, and
the store has the bytes that a replay of the log gives. `Bug` names protocol bugs that can be planted:
a checker that never fails proves nothing.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from enum import Enum
from typing import NamedTuple

import msgspec

from penstock.adapters.accelerator.native import accelerate
from penstock.core.consent.purpose import ConsentRules
from penstock.core.feature.plan import Plan
from penstock.core.identity.identifier import IdentityRules
from penstock.core.identity.routing import route
from penstock.core.ids import LeafId, event_id, leaf_id
from penstock.core.leaf import Leaf, decode_leaf
from penstock.core.record import (
    NO_VERSION,
    RECORD_FORMAT,
    Evidence,
    Kind,
    LogRecord,
    Record,
    Version,
    decode_record,
    encode_record,
)
from penstock.core.step import Rules, Step
from penstock.flows.native import new_fold
from penstock.flows.process import PartitionFold
from penstock.flows.replay import replay
from penstock.ports.log import Log
from penstock.ports.store import LeafWrite, Store, Verdict
from penstock.testing.clock import HandClock

KEY = b"simulation identifier key 32 byt"
EVIDENCE = Evidence("context", granted=("personalisation",))


class Bug(Enum):
    """Protocol bugs to plant, each of which the simulator must find."""

    NONE = "none"
    COMMIT_BEFORE_WRITE = "the applied offset is noted before the leaves are written"
    LINK_LOST = "leaves are written before the links of their primaries are in the log"
    CACHE_OVER_GAP = "cached leaves are kept when the next batch starts elsewhere"
    REFUSE_OLDER_ONLY = (
        "the same, and a store that refuses only older versions takes the stale base"
    )
    ACK_BEFORE_APPEND = "an event is acknowledged before the log has it"
    NO_DEDUPLICATION = "copies of an event are given ids of their own"
    SKIP_BY_APPLIED_ONLY = "records a leaf has applied are folded again after a restart"


class Broken(AssertionError):
    """A promise did not hold; the message says which, and the trace leads there."""


class History(NamedTuple):
    """What a run did: how many steps, crashes and events, for the report."""

    seed: int
    events: int
    crashes: int
    trace: list[str]


class Simulation:
    """One history of a partition: producers, a fold that crashes, a second worker that takes over.

    Args:
        seed: Decides everything.
        plan: The compiled features.
        make_log: A fresh log.
        make_store: A fresh store.
        bug: What to plant.
    """

    def __init__(
        self, seed: int, plan: Plan, make_log: Callable[[HandClock], Log], make_store: Callable[[], Store],
        bug: Bug = Bug.NONE,
    ) -> None:  # fmt: skip
        self.dice = random.Random(seed)  # noqa: S311 - one seed, one history
        self.seed = seed
        self.bug = bug
        self.clock = HandClock(1_795_000_000_000)
        self.log = make_log(self.clock)
        inner = make_store()
        self.store = _PlantedStore(inner, bug)
        self.step = Step(plan, Rules(ConsentRules(), {}, accelerate=accelerate()))
        self.acknowledged: set[tuple[LeafId, str]] = set()
        self.sent: list[Record] = []
        self.trace: list[str] = []
        self.crashes = 0
        self.workers = [self._worker(), self._worker()]
        self.turn = 0
        self.position = 0
        self.unkept: list[Record] = []

    # -- the world

    def run(self, steps: int = 60) -> History:
        """Play a history and check the promises at its end.

        Raises:
            Broken: A promise did not hold.
        """
        acts = (
            [self.produce] * 5 + [self.fold] * 6 + [self.flush] * 3
            + [self.crash, self.hand_over, self.resend, self.advance]
        )  # fmt: skip
        for _ in range(steps):
            self.dice.choice(acts)()
        self.settle()
        self.check()
        return History(self.seed, len(self.sent), self.crashes, self.trace)

    def produce(self) -> None:
        """Append a batch of new events; sometimes the acknowledgement is lost with the producer."""
        batch = [self._event(len(self.sent) + index) for index in range(self.dice.randint(1, 6))]
        self.sent.extend(batch)
        if self.bug is Bug.ACK_BEFORE_APPEND and self.dice.random() < 0.2:
            self._acknowledge(batch)
            self._note("acknowledged, then died before the append")
            return
        self._append(batch)
        if self.dice.random() < 0.8:
            self._acknowledge(batch)

    def resend(self) -> None:
        """Send events again: an SDK that never saw the answer."""
        if self.sent:
            again = [self.dice.choice(self.sent) for _ in range(3)]
            if self.bug is Bug.NO_DEDUPLICATION:
                fresh = self.dice.randrange(1 << 62)
                again = [_with_id(record, fresh + index) for index, record in enumerate(again)]
            self._append(again)
            self._acknowledge(again)

    def advance(self) -> None:
        """Let time pass: seconds, or enough for tiles of ids to turn over."""
        self.clock.advance(seconds=self.dice.choice((1, 60, 7 * 3600)))

    def fold(self) -> None:
        """Fold a few records on the worker whose turn it is."""
        worker = self.workers[self.turn]
        self._feed(worker, self.log.read(0, self.position, self.dice.randint(1, 8)))

    def flush(self) -> None:
        """Append the links, then write some leaves; die at any point in between."""
        worker = self.workers[self.turn]
        if self.bug is not Bug.LINK_LOST and not self._keep_links():
            return
        flush = worker.take(self.dice.randint(1, 4))
        if flush is None:
            return
        if self.dice.random() < 0.1:
            self._die("after leaves were encoded")
            return
        verdicts = worker.write(flush)
        if self.dice.random() < 0.1:
            self._die("after leaves were written")
            return
        worker.written(flush, verdicts)
        if self.bug is Bug.LINK_LOST:
            self._keep_links()

    def crash(self) -> None:
        """Lose everything in memory."""
        self._die("between steps")

    def hand_over(self) -> None:
        """Write what is folded and let the other worker go on from there: its cache may be old."""
        self._keep_links()
        worker = self.workers[self.turn]
        while (flush := worker.take(8)) is not None:
            worker.written(flush, worker.write(flush))
        self.turn = 1 - self.turn
        self._note(f"worker {self.turn} takes over at {self.position}")

    # -- the end

    def settle(self) -> None:
        """Let the worker fold and write all there is."""
        self._drain()

    def check(self) -> None:
        """Check every promise against the log, the senders' record and a replay."""
        fresh = 99
        replay(self.log, self.store.inner, self.step, fresh)
        first = {leaf: stored.parts for leaf, stored in self.store.inner.scan(1, None, 10_000)}
        second = {leaf: stored.parts for leaf, stored in self.store.inner.scan(fresh, None, 10_000)}
        self._require(first.keys() == second.keys(), "the store and a replay hold the same leaves")
        for leaf, parts in second.items():
            self._require(first[leaf] == parts, f"leaf {leaf[:4].hex()} has the bytes of a replay")
        leaves = {leaf: self._decode(leaf, 1) for leaf in first}
        self._check_events(leaves)
        self._check_links(leaves)

    def _check_events(self, leaves: dict[LeafId, Leaf]) -> None:
        kept: dict[LeafId, set[int]] = {}
        primaries = 0
        for entry in self.log.read(0, 0, 1 << 30):
            record = decode_record(entry.value)
            if record.kind == Kind.PRIMARY:
                primaries += 1
                kept.setdefault(LeafId(record.leaf), set()).add(record.event_id)
        for leaf, message_id in self.acknowledged:
            self._require(
                event_id(leaf, message_id) in kept.get(leaf, set()),
                "an acknowledged event is in the log",
            )
        distinct = {(record.leaf, record.message_id) for record in self.sent}
        applied = sum(leaf.applied for leaf in leaves.values())
        counted = sum(leaf.applied + leaf.deduplicated + leaf.dropped for leaf in leaves.values())
        self._require(counted == primaries, "every primary is applied, deduplicated or dropped")
        self._require(applied <= len(distinct), "nothing is applied twice")

    def _check_links(self, leaves: dict[LeafId, Leaf]) -> None:
        for leaf in leaves.values():
            for pair in leaf.edges:
                for side in pair:
                    other = leaves.get(LeafId(side))
                    self._require(
                        other is not None and pair in other.edges, "both sides of an edge hold it"
                    )

    # -- parts

    def _worker(self) -> PartitionFold:
        # The bug is planted into the fold in Python; all else is found with whichever is at hand.
        make = PartitionFold if self.bug is Bug.SKIP_BY_APPLIED_ONLY else new_fold
        fold = make(step=self.step, store=self.store, epoch=1, partition=0, generation=1)
        if self.bug is Bug.SKIP_BY_APPLIED_ONLY:
            _forget_versions(fold)
        return fold

    def _event(self, number: int) -> Record:
        user, device = f"u{self.dice.randrange(4)}", f"a{self.dice.randrange(5)}"
        now = self.clock.now_ms()
        linked = self.dice.random() < 0.5
        message_id = f"m{number}"
        routing = route(
            user_id=user, anonymous_id=device if linked else None, previous_id=None, group_id=None,
            external_ids=(), email=None, type_name="track", message_id=message_id, occurred_at_ms=now,
            verified=True, tenant="t", make_leaf=_make_leaf, rules=IdentityRules(),
        )  # fmt: skip
        leaf = routing.primary.leaf
        return Record(
            format=RECORD_FORMAT, kind=Kind.PRIMARY, tenant="t", leaf=leaf,
            id_type=routing.primary.id_type, event_id=event_id(leaf, message_id),
            message_id=message_id, type="track", name="Product Viewed", occurred_at_ms=now,
            received_at_ms=now, source="site", source_rank=0, verified=True, evidence=EVIDENCE,
            identifiers=routing.identifiers, edges=routing.edges,
            properties={"product_id": f"p{self.dice.randrange(9)}", "category": "shoes"},
        )  # fmt: skip

    def _append(self, records: list[Record]) -> None:
        self.log.append(0, [encode_record(record) for record in records])

    def _acknowledge(self, records: list[Record]) -> None:
        self.acknowledged.update((LeafId(record.leaf), record.message_id) for record in records)

    def _feed(self, worker: PartitionFold, batch: list[LogRecord]) -> None:
        if not batch:
            return
        if self.bug in (Bug.CACHE_OVER_GAP, Bug.REFUSE_OLDER_ONLY):
            worker.next_offset = batch[0].offset
        self.unkept += worker.feed(batch).links
        self.position = batch[-1].offset + 1

    def _keep_links(self) -> bool:
        if self.unkept:
            if self.dice.random() < 0.1:
                self._die("before the links were appended")
                return False
            self._append(self.unkept)
            self.unkept = []
            if self.dice.random() < 0.1:
                self._die("after the links were appended")
                return False
        return True

    def _die(self, when: str) -> None:
        self.crashes += 1
        self._note(f"crash {when}")
        self.unkept = []
        worker = self.workers[self.turn] = self._worker()
        self.position = worker.next_offset

    def _drain(self) -> None:
        while True:
            worker = self.workers[self.turn]
            while batch := self.log.read(0, self.position, 8):
                self._feed(worker, batch)
            if self.unkept:
                self._append(self.unkept)
                self.unkept = []
                continue
            if (flush := worker.take(8)) is None:
                return
            worker.written(flush, worker.write(flush))

    def _decode(self, leaf: LeafId, epoch: int) -> Leaf:
        stored = self.store.inner.read(epoch, [leaf])[0]
        assert stored is not None, "the scan just saw it"
        return decode_leaf(leaf, stored.version, stored.parts[0], self.step.plan)

    def _note(self, what: str) -> None:
        self.trace.append(what)

    def _require(self, holds: bool, promise: str) -> None:
        if not holds:
            raise Broken(f"seed={self.seed}: not so: {promise}\n  " + "\n  ".join(self.trace[-12:]))


class _PlantedStore:
    """A store as it is, or one that notes too much or takes a stale base."""

    def __init__(self, inner: Store, bug: Bug) -> None:
        self.inner = inner
        self.bug = bug
        self.era, self.remote = inner.era, inner.remote
        self.confirmed = inner.confirmed
        self.check = inner.check
        self.read = inner.read
        self.applied = inner.applied
        self.scan = inner.scan
        self.ids = inner.ids
        self.epochs = inner.epochs
        self.drop = inner.drop
        self.get_meta = inner.get_meta
        self.put_meta = inner.put_meta
        self.close = inner.close

    def write(
        self, epoch: int, writes: Sequence[LeafWrite], *, partition: int, applied: Version
    ) -> list[Verdict]:
        if self.bug is Bug.COMMIT_BEFORE_WRITE:
            applied = max(applied, max((write.new for write in writes), default=applied))
        if self.bug is Bug.REFUSE_OLDER_ONLY:
            stored = self.inner.read(epoch, [write.leaf for write in writes])
            writes = [
                write._replace(base=now.version if now.version < write.new else write.base)
                if now
                else write._replace(base=NO_VERSION)
                for write, now in zip(writes, stored, strict=True)
            ]
        return self.inner.write(epoch, writes, partition=partition, applied=applied)


def _forget_versions(fold: PartitionFold) -> None:
    fetch = fold.fetch

    def forgetful(leaves: Sequence[LeafId]) -> list[Leaf | None]:
        found = fetch(leaves)
        for leaf in found:
            if leaf is not None:
                leaf.generation, leaf.offset = NO_VERSION
                leaf.ids.clear()
        return found

    fold.fetch = forgetful


def _make_leaf(id_type: str, value: str) -> LeafId:
    return leaf_id(KEY, "t", id_type, value)


def _with_id(record: Record, number: int) -> Record:
    message_id = f"copy-{number}"
    return msgspec.structs.replace(
        record, message_id=message_id, event_id=event_id(record.leaf, message_id)
    )
