"""A log of two generations: leaves made anew, the past, the audit and the law read both, in their order."""

from __future__ import annotations

from functools import partial

from test_process import PLAN, RULES, make_leaf, view

from penstock.adapters.leaf_index.memory import MemoryLeafIndex
from penstock.adapters.log.memory import MemoryLog
from penstock.adapters.store.memory import MemoryStore
from penstock.adapters.suppressions.memory import MemorySuppressions
from penstock.core.generations import Generations, seal_record
from penstock.core.ids import LeafId, partition_of
from penstock.core.record import Record, Version, encode_record, position_of
from penstock.core.step import Step
from penstock.flows.generations import drained, folded_records, late_records, seal_of
from penstock.flows.history import History, Known, PastProfiles, index_closed
from penstock.flows.process import PartitionFold, flush_all
from penstock.flows.refold import refold, reread, sample
from penstock.flows.replay import covered_offsets, keeper, replay
from penstock.flows.status import conservation
from penstock.testing.audit import audit
from penstock.testing.clock import HandClock

NOW = 1_795_000_000_000
STEP = Step(PLAN, RULES)
ANN = make_leaf("user_id", "ann")
BOB = next(
    name for name in (f"user{number}" for number in range(20))
    if partition_of(make_leaf("user_id", name), 2) != partition_of(ANN, 2)
)  # fmt: skip
"""Somebody in the other partition."""


class World:
    """A log of two partitions that goes on in three."""

    def __init__(self, *, sealed: bool = True) -> None:
        self.clock = HandClock(NOW)
        self.log = MemoryLog(self.clock, partitions=2)
        self.store = MemoryStore()
        before = self.log.generations
        self.append(before, *(view(number, user) for number in range(3) for user in ("ann", BOB)))
        self.log.open_generation(3)
        self.append(self.log.generations, *(view(number, "ann") for number in range(3, 5)))
        if sealed:
            for partition in before.of(1):
                self.log.append(partition, [seal_record()])
            late = view(9, "ann")
            self.append(before, late)
            self.append(self.log.generations, late)

    def append(self, known: Generations, *records: Record) -> None:
        for record in records:
            self.clock.advance(ms=1_000)
            self.log.append(known.partition(record.leaf), [encode_record(record)])

    def views(self, leaf: LeafId, epoch: int = 1) -> int:
        fold = PartitionFold(step=STEP, store=self.store, epoch=epoch, partition=0, generation=1)
        found = fold.fetch([leaf])[0]
        assert found is not None
        return PLAN.read(found.states, NOW, NOW, {}, frozenset({"personalisation"}))["views"]


def test_leaves_made_anew_are_folded_from_both_and_nothing_late_counts_twice() -> None:
    world = World()
    replay(world.log, world.store, STEP, 1)

    assert (6, 3) == (world.views(ANN), world.views(make_leaf("user_id", BOB)))
    report = audit(world.log, world.store, STEP, 1)
    assert report.sound, report.problems
    law = conservation(world.log, world.store, 1, PLAN)
    assert law.holds
    assert (9, 9, 0) == (law.accepted, law.applied, law.in_flight)
    first, second = (covered_offsets(world.log, world.store, 1)[place] for place in world.log.generations.places(ANN))  # fmt: skip
    assert (4, 2) == (first, second), "three views, a seal and what came late; two views and a copy"


def test_a_generation_that_has_not_ended_ends_a_replay() -> None:
    world = World(sealed=False)
    replay(world.log, world.store, STEP, 1)

    assert 3 == world.views(ANN)
    assert not drained(world.store, 1, world.log.generations, 1)
    assert 2 == conservation(world.log, world.store, 1, PLAN).in_flight


def test_a_generation_is_drained_once_all_of_its_partitions_are_written_up_to_their_seals() -> None:
    world, known = World(), Generations((2, 3))
    for partition in known.of(1):
        assert not drained(world.store, 1, known, 1)
        fold = PartitionFold(step=STEP, store=world.store, epoch=1, partition=partition, generation=1)  # fmt: skip
        fold.feed(world.log.read(partition, 0, 100))
        assert not fold.drained()
        assert seal_of(world.store, partition) is None
        flush_all(fold)
        assert fold.drained()
        assert fold.seal == seal_of(world.store, partition)
    assert drained(world.store, 1, known, 1)
    assert not drained(world.store, 2, known, 1), "another set of leaves has come nowhere"


def test_a_fold_that_begins_behind_the_seal_knows_of_it() -> None:
    world = World()
    partition = world.log.generations.partition(ANN, 1)
    for _ in range(2):
        fold = PartitionFold(step=STEP, store=world.store, epoch=1, partition=partition, generation=1)  # fmt: skip
        records = world.log.read(partition, 0, 100)
        late = fold.feed(records).late
        flush_all(fold)
        assert records[-1].offset + 1 == fold.next_offset
        assert 3 == world.views(ANN)
    assert [] == late, "it was applied"
    world.append(Generations((2,)), copy := view(10, "ann"))
    again = fold.feed(world.log.read(partition, fold.next_offset, 100))
    assert [copy.message_id] == [one.record.message_id for one in again.late]
    assert [3] == [world.views(ANN)]


def test_what_a_replay_finds_late_is_copied_if_nobody_has() -> None:
    world = World()
    world.append(Generations((2,)), view(11, "ann"))
    covered = [2, 2, -1, -1, -1]
    keep = keeper(world.log, MemorySuppressions())
    replay(world.log, world.store, STEP, 1, covered=covered, keep=keep)

    newest = world.log.generations.partition(ANN)
    there = [one.value for one in folded_records(world.log, newest)]
    assert encode_record(view(11, "ann")) in there
    assert 7 == world.views(ANN)


def test_a_leaf_of_both_refolds_to_the_same_bytes_however_its_records_are_found() -> None:
    world = World()
    replay(world.log, world.store, STEP, 1)
    leaves = sample(world.store, 1, 100, 1)
    index = MemoryLeafIndex()
    index_closed(world.log, index)
    history = History(world.log, index, partial(seal_of, world.store))

    for entries in (reread(world.log, leaves), history.entries(leaves, Known())):
        refold(entries, world.log, world.store, STEP, 1, leaves)


def test_the_past_is_known_up_to_a_place_in_either() -> None:
    world = World()
    replay(world.log, world.store, STEP, 1)
    history = History(world.log, MemoryLeafIndex(), partial(seal_of, world.store))

    def views(position: int) -> int:
        past = PastProfiles(history, STEP, Known(position), NOW).fold([ANN])
        return past[ANN].applied if past else 0

    assert [0, 1, 2, 3] == [views(position) for position in (-1, 0, 1, 2)]
    assert 4 == views(position_of(Version(2, 0))), "all of the generation before, and one of this"


def test_what_is_late_is_told_apart() -> None:
    world = World()
    partition = world.log.generations.partition(ANN, 1)

    assert 1 == len([*late_records(world.log, partition)])
    assert 3 == len([*folded_records(world.log, partition)])
