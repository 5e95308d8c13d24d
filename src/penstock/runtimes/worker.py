"""A worker: folds the partitions that its group gives it, and writes their leaves to a shared store.

Batches in, leaves out, offsets committed once the store confirms that they outlast it. Where a
partition goes on from, the store says: a commit that is lost or set back changes nothing. Of two
workers that both believe to own a partition, base and new let one pass; the other drops what it holds
and reads on from what is written. A store that may have lost what it had acknowledged is found by its
era: each partition goes back to what the store has.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from penstock.core.errors import Fenced, PenstockError, Unavailable
from penstock.core.generations import seal_record
from penstock.core.record import DeadLetter, LogRecord, Record, encode_record
from penstock.core.step import Step
from penstock.flows.generations import drained, require_heard
from penstock.flows.native import new_fold
from penstock.flows.process import Folded, Late, PartitionFold, Tally
from penstock.ports.clock import Clock
from penstock.ports.consumer import Consumer
from penstock.ports.log import Log, truncated
from penstock.ports.metrics import Metrics
from penstock.ports.store import Store
from penstock.ports.suppressions import Suppressions

log_worker = logging.getLogger("penstock.worker")

ERA_ENDED = "E450"

POLL_RECORDS = 2_000
"""Records taken at a time, of all partitions together: about 20 ms of folding."""

POLL_MS = 100
"""How long an idle worker waits for records before it looks at what is due."""

FLUSH_LEAVES = 1_000
"""Leaves a write: many enough that the way to the store costs little, few enough that it stays short."""

DIRTY_MAX = 20_000
"""Changed leaves of a partition, beyond which they are written before more is folded."""

PACE_RECORDS = 1_000
PACE_MAX = 10
"""For so many records that a partition is behind, leaves wait once more as long to be written, up to so
many times: they change again, and nobody expects them to be fresh. So a worker that falls behind becomes
faster, and one that keeps up writes at once."""

CHECK_MS = 1_000
"""How often it is looked whether a store on a server is still what it was, also while nothing comes in."""

COMMIT_MS = 1_000
COMMIT_DOUBLINGS = 4
"""How often offsets are committed, at most; doubled each time the store does not confirm what it has."""

GATED_MS = 100
"""How often it is asked whether the generation before is drained."""

RETRY_MS = 200
RETRY_MS_MAX = 10_000
"""How long a partition rests after the store, the log or the register did not answer: doubled each time."""


class _Ask(NamedTuple):
    """What a batch asks for besides leaves, and the last offset of the batch."""

    offset: int
    folded: Folded


class _Lane:
    """One partition that is owned: its fold, what it owes, and since when."""

    def __init__(self, partition: int) -> None:
        self.partition = partition
        self.fold: PartitionFold | None = None
        """None until the store has said where to begin."""
        self.asks: deque[_Ask] = deque()
        self.covered = -1
        """Up to here the links and letters of records are in the log, whoever appended them."""
        self.committed = 0
        """The offset that the group was told last: it is never told less, whatever a store has lost."""
        self.nothing_at = -1
        """The offset at which the log was found to have nothing."""
        self.fault: PenstockError | None = None
        """Why it rests, or None."""
        self.retry_at_ms = 0
        self.retries = 0
        self.flush_at_ms = 0
        self.oldest_ms = 0
        """The stamp of the first record that is folded and not written; 0 for none."""
        self.gated = False
        """Whether it waits until the generation before is drained."""
        self.writing = 0
        """Leaves that the store was given and has not yet answered for."""
        self.sealed = False
        """Whether it was sealed here."""
        self.tallied = Tally()


class Worker:
    """Folds what its group gives it. One thread; others may ask `ready` and `publish`.

    Args:
        consumer: Its place in the group.
        log: Where links and dead letters are appended; links are durable there before any leaf is
            written that covers their primary.
        store: Where leaves are read and written; others read and write there too.
        suppressions: The register, which the fold writes too: that heals a kill between an append and
            the edge's own write.
        step: The step of the definitions.
        epoch: Their epoch.
        clock: For waiting times and ages.
        metrics: Where to count.
        flush_ms: How long a changed leaf may wait to be written: so old may be what is served.
        cached_max: Decoded leaves held a partition.
        covered: By partition, up to where the links of another set of leaves are in the log; asked each
            time before this one appends any.
    """

    def __init__(  # noqa: PLR0913 - the one place where a worker's parts meet
        self, *, consumer: Consumer, log: Log, store: Store, suppressions: Suppressions, step: Step, epoch: int,
        clock: Clock, metrics: Metrics, flush_ms: int = 100, cached_max: int = 200_000,
        covered: Callable[[int], int] = lambda _: -1,
    ) -> None:  # fmt: skip
        self.consumer = consumer
        self.log = log
        self.store = store
        self.suppressions = suppressions
        self.step = step
        self.epoch = epoch
        self.clock = clock
        self.metrics = metrics
        self.flush_ms = flush_ms
        self.cached_max = cached_max
        self._covered = covered
        self._lanes: dict[int, _Lane] = {}
        self._check_at_ms = 0
        self._commit_at_ms = 0
        self._unconfirmed = 0
        """How often in a row the store has not confirmed what it has."""
        self._store_fault: PenstockError | None = None
        """Why the store can't be used, as of the last look; None if it can."""
        self._known = log.generations
        """What partitions its group was asked for."""
        self._joined = False
        self._draining = False

    # -- life

    def start(self) -> None:
        """Ask for a share of the partitions."""
        self._known = self.log.generations
        self.consumer.grow(self._known)
        self.consumer.join(self)
        self._joined = True

    def run(self, stopped: Callable[[], bool]) -> None:
        """Work until told to stop, then drain.

        Raises:
            Unavailable: The group does not have this worker any more (E470, E473).
        """
        self.start()
        try:
            while not stopped():
                self.turn()
        finally:
            self.close()

    def turn(self) -> int:
        """Take what the group brings, fold it, write what is due; return how many records were folded.

        Raises:
            Unavailable: The group does not have this worker any more (E470, E473).
        """
        folded = 0
        if self.log.generations is not self._known:
            self._known = self.log.generations
            self.consumer.grow(self._known)
        for batch in self.consumer.poll(POLL_RECORDS, self._wait_ms()):
            lane = self._lanes.get(batch.partition)
            if lane is not None and lane.fold is not None and lane.fault is None:
                folded += self._fold(lane, lane.fold, batch.records)
        self._look_after_store()
        self._write_due()
        if self.clock.monotonic_ms() >= self._commit_at_ms:
            self._commit([*self._lanes.values()])
        return folded

    def close(self) -> None:
        """Drain: write what is folded, commit it, give the partitions back and leave the group."""
        self._draining = True
        self.consumer.close()
        self.publish()

    def _wait_ms(self) -> int:
        now_ms = self.clock.monotonic_ms()
        due = [
            lane.flush_at_ms if _goes(lane) else lane.retry_at_ms
            for lane in [*self._lanes.values()]
            if not _goes(lane) or _owes(lane)
        ]
        return min(max(min(due, default=now_ms + POLL_MS) - now_ms, 0), POLL_MS)

    # -- what is owned: `ports.consumer.Owner`

    def assigned(self, partitions: Sequence[int]) -> Mapping[int, int]:
        """Begin with partitions, where the store says that their leaves stand."""
        self.metrics.count("penstock_rebalances_total", len(partitions), kind="assigned")
        begun: dict[int, int] = {}
        for partition in partitions:
            # Always a new one: what a fold had cached when it was here before may be old.
            lane = self._lanes[partition] = _Lane(partition)
            offset = self._open(lane)
            if offset is not None:
                begun[partition] = offset
        return begun

    def revoked(self, partitions: Sequence[int]) -> None:
        """Write and commit what is folded of partitions, and forget them."""
        self.metrics.count("penstock_rebalances_total", len(partitions), kind="revoked")
        lanes = [self._lanes[partition] for partition in partitions if partition in self._lanes]
        for lane in lanes:
            if _goes(lane):
                self._flush(lane)
        self._commit(lanes)
        self._forget(partitions)

    def lost(self, partitions: Sequence[int]) -> None:
        """Forget partitions that have been another's for a while."""
        self.metrics.count("penstock_rebalances_total", len(partitions), kind="lost")
        self._forget(partitions)

    def astray(self, partitions: Sequence[int]) -> None:
        """Look again where the store says that partitions go on: the log has nothing where they are read."""
        for partition in partitions:
            lane = self._lanes.get(partition)
            if lane is not None and _goes(lane):
                lane.nothing_at = -1 if lane.fold is None else lane.fold.next_offset
                self._seek_back(lane)

    def _forget(self, partitions: Sequence[int]) -> None:
        for partition in partitions:
            lane = self._lanes.pop(partition, None)
            if lane is not None:
                self._count(lane)
                self._gauge_lane(partition, 0, 0.0, resting=False)

    def _open(self, lane: _Lane) -> int | None:
        """Begin a partition, or begin it anew; return where to read from, or None if it must rest."""
        partition = lane.partition
        lane.asks.clear()
        lane.oldest_ms = 0
        lane.sealed = False
        try:
            generation = self.log.generations.generation(partition)
            lane.gated = not self._may_begin(generation)
            if lane.gated:
                lane.fold, lane.fault = None, None
                lane.retry_at_ms = self.clock.monotonic_ms() + GATED_MS
                self.consumer.pause(partition)
                return None
            if lane.fold is None:
                lane.fold = new_fold(
                    step=self.step, store=self.store, epoch=self.epoch, partition=partition,
                    generation=generation, cached_max=self.cached_max,
                )  # fmt: skip
            offset = lane.fold.restart()
            self._require_readable(lane, offset)
            lane.committed = max(lane.committed, self.consumer.committed(partition))
            lane.covered = max(lane.covered, lane.committed - 1)
        except PenstockError as error:
            self._rest(lane, error)
            return None
        lane.fault = None
        lane.flush_at_ms = self.clock.monotonic_ms() + self.flush_ms
        return offset

    def _may_begin(self, generation: int) -> bool:
        """Return whether the generation before is drained, so that a leaf's records are folded in their order.

        Asked whenever a partition is begun anew: a store that lost what was written has lost that, too.
        """
        known = self.log.generations
        return generation == known.first or drained(self.store, self.epoch, known, generation - 1)

    def _require_readable(self, lane: _Lane, offset: int) -> None:
        partition = lane.partition
        first, head = self.log.first(partition), self.log.head(partition)
        if offset < first:
            raise truncated(partition, first)
        # Of a log that others append to the end is known late: reading there shows whether it has come so far.
        if offset > head and (not self.log.shared or lane.nothing_at == offset):
            raise Unavailable("E472", f"the store has applied partition {partition} up to offset {offset - 1}, "
                              f"and the log ends at {head}",
                              fix="check that log and store belong together; a log that was put back from before "
                              "needs its leaves made anew: `penstock replay --accept`")  # fmt: skip

    # -- fold

    def _fold(self, lane: _Lane, fold: PartitionFold, records: Sequence[LogRecord]) -> int:
        try:
            folded = fold.feed(records)
        except Fenced:
            # Records are missing before these: go by what the store has.
            self._seek_back(lane)
            return 0
        except PenstockError as error:
            # What the records before the fault asked for is not known: none of their leaves is written.
            self._stumble(lane, error)
            return 0
        if any(folded):
            lane.asks.append(_Ask(records[-1].offset, folded))
        lane.oldest_ms = lane.oldest_ms or records[0].logged_at_ms
        if len(fold.dirty) > DIRTY_MAX:
            self._flush(lane)
        return len(records)

    def _seek_back(self, lane: _Lane) -> None:
        """Drop what is held of a partition, and read on from what is written."""
        offset = self._open(lane)
        if offset is not None:
            self.consumer.seek(lane.partition, offset)

    def _stumble(self, lane: _Lane, fault: PenstockError) -> None:
        """Begin anew from what the store says: at once if it is only not what it was, else after a rest."""
        if fault.code == ERA_ENDED:
            self._go_back(lane)
        else:
            self._rest(lane, fault)

    def _go_back(self, lane: _Lane) -> None:
        """Go back to what the store has, which may lack what it had acknowledged."""
        log_worker.warning("partition %d goes back to what the store has: it may lack what was written", lane.partition)  # fmt: skip
        self.metrics.count("penstock_worker_faults_total", code=ERA_ENDED)
        self._seek_back(lane)

    def _rest(self, lane: _Lane, fault: PenstockError) -> None:
        """Leave a partition alone for a while: it keeps no other from going on."""
        if lane.fault is None or lane.fault.code != fault.code:
            log_worker.warning("partition %d rests: %s: %s; fix: %s", lane.partition, fault.code, fault.what,
                               fault.fix)  # fmt: skip
            self.metrics.count("penstock_worker_faults_total", code=fault.code)
        lane.fault = fault
        lane.asks.clear()
        if lane.fold is not None:
            # Nothing of it is used again: it restarts, once the store says where.
            lane.fold.cache.clear()
            lane.fold.dirty.clear()
            lane.fold.next_offset = lane.fold.noted
        wait_ms = min(RETRY_MS << min(lane.retries, 10), RETRY_MS_MAX)
        lane.retries += 1
        lane.retry_at_ms = self.clock.monotonic_ms() + wait_ms
        self.consumer.pause(lane.partition)

    def _try_again(self, lane: _Lane) -> None:
        offset = self._open(lane)
        if offset is not None:
            self.consumer.seek(lane.partition, offset)
            self.consumer.resume(lane.partition)

    # -- write

    def _look_after_store(self) -> None:
        """Find out that a store on a server is not what it was, before anything is made of what is cached."""
        if self.store.remote and self.clock.monotonic_ms() >= self._check_at_ms:
            self._store_fault = None
            try:
                self.store.check()
            except PenstockError as error:
                # Whoever reads or writes is told, and rests; what has ended is found below.
                self._store_fault = None if error.code == ERA_ENDED else error
            self._check_at_ms = self.clock.monotonic_ms() + CHECK_MS
        for lane in [*self._lanes.values()]:
            if lane.fault is None and lane.fold is not None and lane.fold.adrift():
                self._go_back(lane)

    def _write_due(self) -> None:
        for lane in [*self._lanes.values()]:
            now_ms = self.clock.monotonic_ms()
            if not _goes(lane):
                if now_ms >= lane.retry_at_ms:
                    self._try_again(lane)
            elif now_ms >= lane.flush_at_ms and _owes(lane):
                self._flush(lane)
            else:
                self._seal(lane)

    def _seal(self, lane: _Lane) -> None:
        """End a partition whose generation has a next one, once what is known of it is folded."""
        fold, partition = lane.fold, lane.partition
        if lane.sealed or not self.log.generations.ended(partition):
            return
        if fold is None or fold.seal is not None or self._lag(lane):
            return
        try:
            self.log.append(partition, [seal_record()])
        except PenstockError as error:
            self._rest(lane, error)
            return
        lane.sealed = True

    def _flush(self, lane: _Lane) -> None:
        """Write all that is folded of a partition; if that fails, go by what is written."""
        fold = lane.fold
        assert fold is not None, "what was folded has a fold"
        try:
            # Before the first leaf is taken all that any of them asks for.
            self._keep(lane)
            while (flush := fold.take(FLUSH_LEAVES)) is not None:
                lane.writing = len(flush.writes)
                began_ms = self.clock.monotonic_ms()
                fold.written(flush, fold.write(flush))
                self.metrics.observe(
                    "penstock_store_write_seconds", (self.clock.monotonic_ms() - began_ms) / 1000
                )
        except Fenced:
            self.metrics.count("penstock_writes_refused_total")
            self._seek_back(lane)
            return
        except PenstockError as error:
            # It is not known what was written: begin anew from what the store says.
            self._stumble(lane, error)
            return
        finally:
            lane.writing = 0
        lane.covered = fold.noted - 1
        lane.retries = 0
        if lane.oldest_ms:
            age_ms = max(self.clock.now_ms() - lane.oldest_ms, 0)
            self.metrics.observe("penstock_freshness_seconds", age_ms / 1000)
            lane.oldest_ms = 0
        pace = min(1 + self._lag(lane) // PACE_RECORDS, PACE_MAX)
        lane.flush_at_ms = self.clock.monotonic_ms() + self.flush_ms * pace

    def _commit(self, lanes: Sequence[_Lane]) -> None:
        """Tell the group how far partitions are, as far as that outlasts the store's server.

        It is a hint, so nothing waits for it: what is not confirmed now is committed later.
        """
        further = [
            lane for lane in lanes
            if lane.fault is None and lane.fold is not None and lane.fold.noted > lane.committed
        ]  # fmt: skip
        if not further:
            return
        reached: dict[int, int] = {}
        try:
            for lane in further:
                confirmed = self.store.confirmed(self.epoch, lane.partition)
                offset = confirmed.offset + 1
                if (
                    confirmed.generation == self.log.generations.generation(lane.partition)
                    and offset > lane.committed
                ):
                    lane.committed = reached[lane.partition] = offset
            self._unconfirmed = 0
        except PenstockError as error:
            if not self._unconfirmed:
                log_worker.warning("offsets are not committed: %s: %s; fix: %s", error.code, error.what, error.fix)  # fmt: skip
                self.metrics.count("penstock_worker_faults_total", code=error.code)
            # Each time that too few replicas confirm costs a wait, in which nothing is folded.
            self._unconfirmed = min(self._unconfirmed + 1, COMMIT_DOUBLINGS)
        self._commit_at_ms = self.clock.monotonic_ms() + (COMMIT_MS << self._unconfirmed)
        if reached:
            self.consumer.commit(reached)

    def _keep(self, lane: _Lane) -> None:
        """Make durable what records ask for besides leaves, where nobody has done so before."""
        if not lane.asks:
            return
        suppressions = [entry for ask in lane.asks for entry in ask.folded.suppressions]
        if suppressions:
            self.suppressions.put(suppressions)
        covered = max(lane.covered, self._covered(lane.partition))
        asks = [ask.folded for ask in lane.asks if ask.offset > covered]
        links = [link for folded in asks for link in folded.links]
        letters = [letter for folded in asks for letter in folded.letters]
        late = [one for folded in asks for one in folded.late if lane.fold and one.offset >= lane.fold.copied]  # fmt: skip
        if (links or late) and lane.fold is not None and lane.fold.seal is not None:
            require_heard(self.log.generations, lane.fold.generation)
        self._append(lane.partition, links, letters)
        if links:
            self.metrics.count("penstock_links_appended_total", len(links))
        if late:
            self._copy(lane.partition, late)
        # Only now: whatever was raised before this, the leaves that asked are not written.
        lane.asks.clear()

    def _append(
        self, partition: int, links: Sequence[Record], letters: Sequence[DeadLetter]
    ) -> None:
        shares: dict[int, list[bytes]] = {partition: []} if letters else {}
        known = self.log.generations
        for link in links:
            shares.setdefault(known.partition(link.leaf), []).append(encode_record(link))
        for to, values in shares.items():
            self.log.append(to, values, letters if to == partition else ())

    def _copy(self, partition: int, late: Sequence[Late]) -> None:
        """Copy what came behind a seal into the newest generation, and note there that it was."""
        self._append(partition, [one.record for one in late], ())
        self.log.append(partition, [seal_record(late[-1].offset + 1)])

    # -- ask

    def owned(self) -> list[int]:
        """Return the partitions owned, ascending."""
        return sorted(self._lanes)

    def ready(self) -> tuple[bool, str]:
        """Return whether what is owned is being folded, and if not, why."""
        if self._draining:
            return False, "the worker is draining"
        if not self._joined:
            return False, "the worker has not joined its group"
        if self._store_fault is not None:
            return False, self._store_fault.what
        resting = [lane for lane in [*self._lanes.values()] if lane.fault is not None]
        if resting and resting[0].fault is not None:
            return False, f"partition {resting[0].partition} rests: {resting[0].fault.what}"
        return True, ""

    def publish(self) -> None:
        """Bring the metrics up to date."""
        lanes = [*self._lanes.values()]
        dirty = cached = 0
        for lane in lanes:
            self._count(lane)
            lag = self._lag(lane)
            behind_ms = 0
            if lane.fold is not None:
                dirty += len(lane.fold.dirty) + lane.writing
                cached += len(lane.fold.cache)
                behind_ms = self.clock.now_ms() - (
                    lane.fold.last_logged_at_ms or self.clock.now_ms()
                )
            behind_s = max(behind_ms, 0) / 1000 if lag else 0.0
            self._gauge_lane(lane.partition, lag, behind_s, resting=lane.fault is not None)
        self.metrics.gauge("penstock_partitions_owned", len(lanes))
        self.metrics.gauge("penstock_leaves_dirty", dirty)
        self.metrics.gauge("penstock_leaves_cached", cached)

    def _gauge_lane(self, partition: int, lag: int, behind_s: float, *, resting: bool) -> None:
        name = str(partition)
        self.metrics.gauge("penstock_fold_lag_records", lag, partition=name)
        self.metrics.gauge("penstock_fold_lag_seconds", behind_s, partition=name)
        self.metrics.gauge("penstock_partition_resting", int(resting), partition=name)

    def _lag(self, lane: _Lane) -> int:
        # Of one that waits nothing is folded yet.
        folded = 0 if lane.fold is None else lane.fold.next_offset
        return max(self.consumer.head(lane.partition) - folded, 0)

    def _count(self, lane: _Lane) -> None:
        if lane.fold is None:
            return
        tally, before = lane.fold.tally, lane.tallied
        for name, metric in _COUNTED.items():
            more = getattr(tally, name) - getattr(before, name)
            if more:
                labels = {"reason": "E360"} if name == "dead" else {}
                self.metrics.count(metric, more, **labels)  # type: ignore[arg-type] - a name of the table
                setattr(before, name, getattr(tally, name))


def _goes(lane: _Lane) -> bool:
    """Return whether a partition is folded: it neither rests nor waits for another."""
    return lane.fault is None and not lane.gated


def _owes(lane: _Lane) -> bool:
    return lane.fold is not None and (lane.fold.owes() or bool(lane.asks))


_COUNTED = {
    "applied": "penstock_events_applied_total",
    "deduplicated": "penstock_events_deduplicated_total",
    "dropped": "penstock_events_policy_dropped_total",
    "dead": "penstock_events_dead_lettered_total",
}
