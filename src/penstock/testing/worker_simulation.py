"""Several workers on one log and one store, in one thread: kills, stalls, rebalances, lost answers.

What runs is `runtimes.worker.Worker`; only its group, its time and its disks are dice. A worker is
killed, or stalled for as long as others work, before and after each single write: of links, of the
register, of leaves, of commits. One that is stalled may be taken for dead, wake, and go on where it
stood. The store may be on a server that is emptied, or replaced by one that lacks what was acknowledged.
`WorkerBug` names bugs that can be planted: a checker that never fails proves nothing.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from penstock.adapters.accelerator.native import accelerate
from penstock.adapters.consumer.memory import MemoryGroup
from penstock.adapters.metrics.memory import MemoryMetrics
from penstock.core.consent.purpose import ConsentRules
from penstock.core.consent.suppression import PERMISSION_EVENTS, suppression_of
from penstock.core.errors import PenstockError, Unavailable
from penstock.core.feature.plan import Plan
from penstock.core.identity.identifier import IdentityRules
from penstock.core.identity.routing import route
from penstock.core.ids import LeafId, event_id, leaf_id
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
    kind_of,
)
from penstock.core.step import Rules, Step
from penstock.flows.generations import folded_records, late_records
from penstock.ports.log import Log
from penstock.ports.store import LeafWrite, Store, Verdict
from penstock.ports.suppressions import Suppressions
from penstock.runtimes.worker import Worker
from penstock.testing.audit import ONE_SIDED, audit
from penstock.testing.clock import HandClock
from penstock.testing.losing_store import LosingClient, LosingStore
from penstock.testing.virtual import Died
from penstock.testing.worker_bugs import WORKERS, WorkerBug

KEY = b"simulation identifier key 32 byt"
EVIDENCE = Evidence("context", granted=("personalisation",))
EPOCH = 1
WORKERS_MAX = 3
EDGES = 2
GENERATIONS_MAX = 2
"""Opened in one history, besides the first."""

FAULT = 0.03
DEATH = 0.02
STALL = 0.02
LOSS = 0.02
FLUSHED = 0.3
"""Of losses so many empty the server; the others are failovers."""
STALLED_ACTS_MAX = 25
STALLED_DEPTH_MAX = 2
SETTLE_TURNS_MAX = 2_000


class Broken(AssertionError):
    """A promise did not hold; the message says which, and the trace leads there."""


class WorkerStory(NamedTuple):
    """What a history had in it."""

    seed: int
    events: int
    deaths: int
    stalls: int
    moved: int
    refused: int
    losses: int
    opened: int = 0
    """Generations."""
    late: int = 0
    """Events behind a seal."""


class WorkerSimulation:
    """One history.

    Args:
        seed: Decides everything.
        plan: The compiled features.
        log: A fresh log of several partitions, at `clock`.
        store: A fresh store; a `LosingStore` loses now and then what it had acknowledged.
        suppressions: A fresh register.
        clock: Turned by the simulation.
        bug: What to plant.
        open_generation: Opens another generation of the log, with so many partitions; None for a history
            in which that does not happen. Edges and workers hear of it at different times.
    """

    def __init__(
        self, seed: int, plan: Plan, *, log: Log, store: Store, suppressions: Suppressions, clock: HandClock,
        bug: WorkerBug = WorkerBug.NONE, open_generation: Callable[[int], None] | None = None,
    ) -> None:  # fmt: skip
        self.seed = seed
        self.dice = random.Random(seed)  # noqa: S311 - one seed, one history
        self.bug = bug
        self.clock = clock
        self.log = log
        self.store = store
        self.suppressions = suppressions
        self.open_generation = open_generation
        self.opened = self.late = 0
        self.edges = [log.generations] * EDGES
        """What generations each edge has heard of."""
        self.group = MemoryGroup(log)
        self.metrics = MemoryMetrics()
        self.step = Step(plan, Rules(ConsentRules(), {}, accelerate=accelerate()))
        self.workers: list[_Process] = []
        self.busy: list[_Process] = []
        """Those whose turn has not ended: one, and those that are stalled below it."""
        self.acknowledged: set[tuple[LeafId, str]] = set()
        self.sent: list[Record] = []
        self.trace: list[str] = []
        self.deaths = self.stalls = self.started = 0
        self.faults, self.death, self.stall = FAULT, DEATH, STALL

    # -- a history

    def run(self, acts: int = 120) -> WorkerStory:
        """Play a history; promises are checked on the way and at its end.

        Raises:
            Broken: A promise did not hold.
        """
        for number in range(acts):
            self._act()
            if number % 20 == 19 and not self.busy:
                self.check(settled=False)
        self.settle()
        self.check(settled=True)
        moved = sum(
            self.metrics.value("penstock_rebalances_total", kind=kind)
            for kind in ("revoked", "lost")
        )
        refused = self.metrics.value("penstock_writes_refused_total")
        losses = self.store.losses if isinstance(self.store, LosingStore) else 0
        return WorkerStory(
            self.seed, len(self.sent), self.deaths, self.stalls, int(moved), int(refused),
            losses, self.opened, self.late,
        )  # fmt: skip

    def _act(self) -> None:
        if isinstance(self.store, LosingStore) and self.dice.random() < LOSS:
            self._lose(self.store)
        draw = self.dice.random()
        idle = [one for one in self.workers if one not in self.busy]
        if draw < 0.25:
            self._produce()
        elif draw < 0.30:
            self._send_again()
        elif draw < 0.36:
            self.clock.advance(ms=self.dice.choice((50, 120, 500, 4_000)))
        elif draw < 0.40 and len(self.workers) < WORKERS_MAX:
            self._start()
        elif draw < 0.42 and idle:
            self._stop(self.dice.choice(idle))
        elif draw < 0.44 and self.workers:
            self._evict(self.dice.choice(self.workers))
        elif draw < 0.46 and self.group.committed:
            partition = self.dice.choice(sorted(self.group.committed))
            self.group.committed[partition] = self.dice.randint(0, self.group.committed[partition])
            self.note(f"the commit of partition {partition} is set back")
        elif self.open_generation is not None and draw < 0.52:
            self._reshard(self.open_generation)
        elif idle:
            self._turn(self.dice.choice(idle))
        elif not self.workers:
            self._start()

    def _reshard(self, open_generation: Callable[[int], None]) -> None:
        """Open a generation, or let somebody hear of one."""
        draw = self.dice.random()
        if draw < 0.25 and self.opened < GENERATIONS_MAX:
            self.opened += 1
            open_generation(self.dice.randint(1, 4))
            self.note(f"a generation is opened: {self.log.generations.counts}")
        elif draw < 0.6:
            self.edges[self.dice.randrange(EDGES)] = self.log.generations
        elif self.workers:
            self.dice.choice(self.workers).log.generations = self.log.generations

    def _start(self) -> None:
        self.started += 1
        process = _Process(self, f"w{self.started}")
        self.workers.append(process)
        process.worker.start()
        self.note(f"{process.name} starts")

    def _turn(self, process: _Process) -> None:
        self._alive(process, process.worker.turn)

    def _stop(self, process: _Process) -> None:
        self.note(f"{process.name} is told to stop")
        self._alive(process, process.worker.close)
        if process in self.workers:
            self.workers.remove(process)

    def _lose(self, store: LosingStore) -> None:
        if self.dice.random() < FLUSHED:
            self.note("the store is emptied")
            store.empty()
        else:
            self.note("the store fails over")
            store.fail_over(self.dice)

    def _alive(self, process: _Process, does: Callable[[], object]) -> None:
        self.busy.append(process)
        process.log.told = process.log.generations
        try:
            does()
        except Died as died:
            self.deaths += 1
            self.note(f"{process.name} dies {died}")
            self.workers.remove(process)
            self.group.evict(process.consumer)
        finally:
            self.busy.remove(process)

    def _evict(self, process: _Process) -> None:
        self.note(f"{process.name} is taken for dead")
        self.group.evict(process.consumer, deaf_polls=self.dice.choice((0, 0, 1, 3)))

    def point(self, process: _Process, where: str) -> None:
        """Let a worker die, or stall while others work, at one point of its turn."""
        draw = self.dice.random()
        if draw < self.death:
            raise Died(where)
        if draw < self.death + self.stall and len(self.busy) <= STALLED_DEPTH_MAX:
            self.stalls += 1
            self.note(f"{process.name} stalls {where}")
            if self.dice.random() < 0.7:
                self._evict(process)
            for _ in range(self.dice.randint(1, STALLED_ACTS_MAX)):
                self._act()
            self.note(f"{process.name} wakes {where}")

    # -- senders

    def _produce(self) -> None:
        batch = [self._event(len(self.sent) + place) for place in range(self.dice.randint(1, 6))]
        self.sent.extend(batch)
        self._append(batch)
        for record in batch:
            # The edge writes the register after the append; one that is killed in between does not.
            if record.name in PERMISSION_EVENTS and self.dice.random() < 0.5:
                self.suppressions.put(suppression_of(record))

    def _send_again(self) -> None:
        if self.sent:
            self._append([self.dice.choice(self.sent) for _ in range(3)])

    def _append(self, records: Sequence[Record]) -> None:
        known = self.dice.choice(self.edges)
        for record in records:
            self.log.append(known.partition(record.leaf), [encode_record(record)])
            self.acknowledged.add((LeafId(record.leaf), record.message_id))

    def _event(self, number: int) -> Record:
        user, device = f"u{self.dice.randrange(4)}", f"a{self.dice.randrange(6)}"
        linked, name = self.dice.random() < 0.5, "Product Viewed"
        message_id, now = f"m{number}", self.clock.now_ms()
        properties: dict[str, Any] = {"product_id": f"p{self.dice.randrange(9)}"}
        if self.dice.random() < 0.1:
            name, properties = "Unsubscribed", {"channel": "email"}
        routing = route(
            user_id=user, anonymous_id=device if linked else None, previous_id=None, group_id=None,
            external_ids=(), email=None, type_name="track", message_id=message_id, occurred_at_ms=now,
            verified=True, tenant="t", make_leaf=_make_leaf, rules=IdentityRules(),
        )  # fmt: skip
        leaf = routing.primary.leaf
        return Record(
            format=RECORD_FORMAT, kind=Kind.PRIMARY, tenant="t", leaf=leaf, id_type=routing.primary.id_type,
            event_id=event_id(leaf, message_id), message_id=message_id, type="track", name=name,
            occurred_at_ms=now, received_at_ms=now, source="site", source_rank=0, verified=True,
            evidence=EVIDENCE, identifiers=routing.identifiers, edges=routing.edges, properties=properties,
        )  # fmt: skip

    # -- the end

    def settle(self) -> None:
        """Let one worker fold and write all there is, on disks that work.

        Raises:
            Broken: It does not come to an end.
        """
        self.faults = self.death = self.stall = 0.0
        self.edges = [self.log.generations] * EDGES
        for process in [*self.workers]:
            self._stop(process)
        self.group.members.clear()
        self.group.owners.clear()
        self._start()
        process = self.workers[-1]
        for _ in range(SETTLE_TURNS_MAX):
            self.clock.advance(ms=20_000)
            before = [self.log.head(partition) for partition in range(self.log.partitions)]
            self._turn(process)
            applied = [self.store.applied(EPOCH, p).offset + 1 for p in range(self.log.partitions)]
            if applied == before == [self.log.head(p) for p in range(self.log.partitions)]:
                self._stop(process)
                return
        self.require(False, "what is in the log comes to be applied")

    def check(self, *, settled: bool) -> None:
        """Check what the log, the store and the register say of each other.

        Raises:
            Broken: They contradict each other, or lack what was acknowledged.
        """
        try:
            report = audit(self.log, self.store, self.step, EPOCH)
        except PenstockError as error:
            self.require(False, f"what is stored reads back: {error.what}")
            return
        if not settled:
            # A link may be folded before the leaf is written that it was said by: not the other way round.
            owed = tuple(one for one in report.link_violations if one.what != ONE_SIDED)
            report = replace(report, link_violations=owed)
        self.require(report.sound, "; ".join(report.problems))
        self._check_generations()
        primaries = self._primaries(folded_records)
        covered = {leaf: stored.version for leaf, stored in self.store.scan(EPOCH, None, 1 << 20)}
        for partition, entry, record in primaries:
            version = Version(self.log.generations.generation(partition), entry.offset)
            if record.name in PERMISSION_EVENTS and (
                version <= covered.get(LeafId(record.leaf), NO_VERSION)
            ):
                self._check_register(record, partition, entry.offset)
        if settled:
            self.require(report.in_flight == 0, "after a clean end everything is written")
            late = self._primaries(late_records)
            self.late = len(late)
            kept = {(LeafId(record.leaf), record.message_id) for _, _, record in primaries + late}
            self.require(self.acknowledged <= kept, "an acknowledged event is in the log")
            counts = sum(leaf.applied for leaf in report.leaves.values())
            self.require(counts == len(kept), f"each event counts once: {counts} for {len(kept)}")

    def _check_generations(self) -> None:
        """Check that nothing of a generation is in a leaf before all of the one before is in leaves."""
        known = self.log.generations
        folded = {stored.version.generation for _, stored in self.store.scan(EPOCH, None, 1 << 20)}
        for generation in folded - {known.first}:
            for partition in known.of(generation - 1):
                seals = [
                    entry.offset for entry in self.log.read(partition, 0, 1 << 20)
                    if kind_of(entry.value) == Kind.SEAL
                ]  # fmt: skip
                applied = self.store.applied(EPOCH, partition).offset
                self.require(
                    bool(seals) and applied >= seals[0],
                    f"partition {partition} is drained before generation {generation} is folded",
                )

    def _check_register(self, record: Record, partition: int, offset: int) -> None:
        for key, entry in suppression_of(record):
            standing = self.suppressions.get([LeafId(key.leaf)]).get(key)
            self.require(
                standing is not None and standing.at_ms >= entry.at_ms,
                f"the register has what {partition}/{offset} says, since its leaf is written",
            )

    def _primaries(
        self, records: Callable[[Log, int], Iterable[LogRecord]]
    ) -> list[tuple[int, LogRecord, Record]]:
        return [
            (partition, entry, record)
            for partition in range(self.log.partitions)
            for entry in records(self.log, partition)
            if (record := decode_record(entry.value)).kind == Kind.PRIMARY
        ]

    def note(self, what: str) -> None:
        """Add a line to the trace."""
        self.trace.append(what)

    def require(self, holds: bool, promise: str) -> None:
        """Check a promise.

        Raises:
            Broken: It does not hold.
        """
        if not holds:
            raise Broken(f"seed={self.seed}: not so: {promise}\n  " + "\n  ".join(self.trace[-30:]))


class _Process:
    """A worker with everything that it reaches the world through."""

    def __init__(self, simulation: WorkerSimulation, name: str) -> None:
        self.name = name
        self.consumer = simulation.group.member()
        self.log = _Log(simulation.log, simulation, self)
        bug = simulation.bug
        kind = WORKERS.get(bug, Worker)
        self.worker = kind(
            consumer=_Consumer(self.consumer, simulation, self),  # type: ignore[arg-type]
            log=self.log,  # type: ignore[arg-type]
            store=_Store(_client(simulation), simulation, self),  # type: ignore[arg-type]
            suppressions=_Register(simulation.suppressions, simulation, self),  # type: ignore[arg-type]
            step=simulation.step, epoch=EPOCH, clock=simulation.clock, metrics=simulation.metrics,
            flush_ms=100,
        )  # fmt: skip


class _Part:
    """Something that a worker writes to: it may die or stall before and after, and be left unanswered."""

    def __init__(self, inner: Any, simulation: WorkerSimulation, process: _Process) -> None:
        self._inner = inner
        self._simulation = simulation
        self._process = process

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def _do(self, what: str, code: str, call: Callable[[], Any]) -> Any:
        simulation = self._simulation
        simulation.point(self._process, f"before {what}")
        draw = simulation.dice.random()
        if draw < simulation.faults / 2:
            raise Unavailable(code, "nothing answered", fix="retry")
        result = call()
        simulation.point(self._process, f"after {what}")
        if draw < simulation.faults:
            raise Unavailable(code, "it was done, and the answer is lost", fix="retry")
        return result


class _Log(_Part):
    """The log; it has heard of some of its generations, and of all when a worker starts."""

    def __init__(self, inner: Any, simulation: WorkerSimulation, process: _Process) -> None:
        super().__init__(inner, simulation, process)
        self.generations = self.told = inner.generations
        """What it has heard of, and what it had when its turn began."""

    def append(self, partition: int, values: Sequence[bytes], letters: Sequence[Any] = ()) -> Any:
        for value in values:
            known = self.generations.generation(partition)
            self._simulation.require(
                kind_of(value) != Kind.LINK or known >= self.told.newest,
                "a link goes to the newest generation that is known",
            )
        what = "a seal" if values and kind_of(values[0]) == Kind.SEAL else "links"
        return self._do(what, "E401", lambda: self._inner.append(partition, values, letters))


class _Register(_Part):
    def put(self, entries: Sequence[Any]) -> None:
        if self._simulation.bug is not WorkerBug.REGISTER_NOT_HEALED:
            self._do("the register", "E403", lambda: self._inner.put(entries))


class _Consumer(_Part):
    def commit(self, offsets: Mapping[int, int]) -> None:
        store = self._simulation.store
        if isinstance(store, LosingStore):
            for partition, offset in offsets.items():
                confirmed = store.outlasts(EPOCH, partition).offset + 1
                self._simulation.require(
                    offset <= confirmed,
                    f"no more of partition {partition} is committed than outlasts the server",
                )
        self._simulation.point(self._process, "before a commit")
        if self._simulation.dice.random() >= self._simulation.faults:
            self._inner.commit(offsets)
        self._simulation.point(self._process, "after a commit")


class _Store(_Part):
    """The store, leaf by leaf as a remote one is: it may stop between two leaves, and before the offset."""

    def put_meta(self, name: str, value: str) -> None:
        self._do("where a partition ends", "E402", lambda: self._inner.put_meta(name, value))

    def write(
        self, epoch: int, writes: Sequence[LeafWrite], *, partition: int, applied: Version
    ) -> list[Verdict]:
        bug, inner = self._simulation.bug, self._inner

        def note() -> None:
            to = self._simulation.store if bug is WorkerBug.NOTED_OVER_ERA else inner
            to.write(epoch, [], partition=partition, applied=applied)

        if bug is WorkerBug.COMMIT_BEFORE_WRITE:
            self._do("the applied offset", "E402", note)
        verdicts: list[Verdict] = []
        standing = self._simulation.store.applied(epoch, partition)
        for write in writes:
            one = self._planted(epoch, write)
            verdicts += self._do(
                "a leaf", "E402",
                lambda one=one: inner.write(epoch, [one], partition=partition, applied=standing),
            )  # fmt: skip
        if bug is WorkerBug.REFUSED_IS_WRITTEN:
            verdicts = [Verdict.ACCEPTED] * len(verdicts)
        if Verdict.REFUSED not in verdicts:
            self._do("the applied offset", "E402", note)
        return verdicts

    def _planted(self, epoch: int, write: LeafWrite) -> LeafWrite:
        """Return a write as a store takes it that checks less."""
        bug = self._simulation.bug
        found = self._simulation.store.read(epoch, [write.leaf])[0]
        standing = NO_VERSION if found is None else found.version
        if bug is WorkerBug.NO_BASE_CHECK and write.new <= standing:
            # It is put in the place of what is newer: only a store without versions does that.
            self._inner._leaves[epoch].pop(write.leaf, None)  # noqa: SLF001
            return write._replace(base=NO_VERSION)
        older_only = (
            WorkerBug.NO_BASE_CHECK,
            WorkerBug.CACHE_OVER_REVOKED,
            WorkerBug.ALTERNATING_WORKERS,
        )
        if bug in older_only and standing < write.new:
            return write._replace(base=standing)
        return write


class _Hasty(LosingClient):
    """Confirms what no replica has."""

    def confirmed(self, epoch: int, partition: int) -> Version:
        self.look()
        return self.server.applied(epoch, partition)


class _Blind(LosingClient):
    """Sees no loss."""

    def look(self) -> None:
        """Look away."""


def _client(simulation: WorkerSimulation) -> Store:
    """Return how a process reaches the store."""
    store = simulation.store
    if not isinstance(store, LosingStore):
        return store
    kinds = {WorkerBug.WAIT_SKIPPED: _Hasty, WorkerBug.ERA_NOT_SEEN: _Blind}
    return kinds.get(simulation.bug, LosingClient)(store)


def _make_leaf(id_type: str, value: str) -> LeafId:
    return leaf_id(KEY, "t", id_type, value)


def shortest(runs: Callable[[int, int], object], seeds: Sequence[int]) -> str:
    """Return the shortest history that breaks a promise, as its message with its trace; empty for none.

    Args:
        runs: Plays the history of a seed with so many acts.
        seeds: Which to try, at each length.
    """
    for acts in (20, 40, 80, 120):
        for seed in seeds:
            try:
                runs(seed, acts)
            except Broken as broken:
                return f"acts={acts} {broken}"
    return ""
