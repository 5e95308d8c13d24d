"""Seeded histories in which the log is truncated again and again: replay equals live, whatever stops it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from penstock.adapters.archive.frames import pack, unpack
from penstock.adapters.leaf_index.memory import MemoryLeafIndex
from penstock.adapters.log.memory import MemoryLog
from penstock.adapters.store.memory import MemoryStore
from penstock.core import segment
from penstock.core.errors import Conflict, DataCorrupt, PenstockError, Unavailable
from penstock.core.feature.plan import Plan
from penstock.core.ids import LeafId
from penstock.core.leaf import Leaf
from penstock.core.record import Version
from penstock.dsl.events import event, string
from penstock.dsl.features import Profile, compile_plan, count, days, last_k, lifetime
from penstock.flows.archiving import ArchivedLog, Kept
from penstock.flows.forgetting import Forgetter
from penstock.flows.history import History, Known, PastProfiles, index_closed
from penstock.flows.refold import refold, reread, sample
from penstock.flows.replay import replay
from penstock.flows.snapshot import Snapshot, begin
from penstock.flows.status import conservation
from penstock.flows.tiered import TieredLog
from penstock.flows.truncating import Serves, Truncator
from penstock.ports.archive import Stored
from penstock.ports.log import Archived, Truncation
from penstock.ports.store import LeafWrite, StoredLeaf
from penstock.testing.clock import HandClock
from penstock.testing.simulation import Simulation

SIZE = 8
SEEDS = 150

viewed = event("Product Viewed", product_id=string(), category=string())


class Shopper(Profile):
    views = count(viewed, over=lifetime())
    views_7d = count(viewed, over=days(7))
    recent = last_k(viewed.product_id, k=3, over=days(30))


@pytest.fixture(scope="module")
def plan() -> Plan:
    return compile_plan([Shopper])


@pytest.fixture(autouse=True)
def _short_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segment, "SEGMENT_RECORDS", SIZE)


class Objects:
    """An archive in memory."""

    def __init__(self) -> None:
        self.held: dict[str, bytes] = {}

    def put(self, name: str, data: bytes) -> None:
        if self.held.setdefault(name, data) != data:
            raise Conflict("E501", "other bytes stand under this name", fix="name it otherwise")

    def get(self, name: str) -> bytes:
        if name not in self.held:
            raise DataCorrupt("E731", "there is no such object", fix="restore it", where=name)
        return self.held[name]

    def read(self, name: str, start: int, size: int) -> bytes:
        return self.get(name)[start : start + size]

    def list(self, prefix: str) -> list[Stored]:
        return [
            Stored(name, len(data))
            for name, data in sorted(self.held.items())
            if name.startswith(prefix)
        ]

    def delete(self, name: str) -> None:
        self.held.pop(name, None)

    def close(self) -> None:
        pass


class StoppingLog(MemoryLog):
    """Stops just before or just after it was truncated, when it is told to."""

    stop = ""

    def truncate(self, partition: int, truncation: Truncation, segments: Any = ()) -> int:
        if self.stop == "before":
            raise Unavailable("E401", "the process stopped", fix="start another")
        gone = super().truncate(partition, truncation, segments)
        if self.stop == "after":
            raise Unavailable("E401", "the process stopped", fix="start another")
        return gone


class Truncating(Simulation):
    """A history in which time passes over what was logged, and it is truncated; a process may stop there."""

    def __init__(self, seed: int, plan: Plan) -> None:
        self.inner: StoppingLog
        self.objects = Objects()
        self.index = MemoryLeafIndex()
        self.truncated = 0

        def make_log(clock: HandClock) -> TieredLog:
            self.inner = StoppingLog(clock)
            return TieredLog(self.inner, self.archived())

        super().__init__(seed, plan, make_log, MemoryStore)

    def archived(self) -> ArchivedLog:
        return ArchivedLog(self.objects, "default", pack=pack, unpack=unpack)

    def truncator(self, archived: ArchivedLog | None = None, keep_ms: int = 1_000) -> Truncator:
        return Truncator(
            self.log, archived or self.archived(), self.index, store=self.store.inner,
            serves=lambda: Serves(1, self.step), epochs=lambda: {1}, clock=self.clock, keep_ms=keep_ms,
        )  # fmt: skip

    def keep_up(self) -> ArchivedLog:
        archived = self.archived()
        index_closed(self.log, self.index)
        archived.archive_closed(self.log)
        return archived

    def advance(self) -> None:
        super().advance()
        truncator = self.truncator(self.keep_up(), self.dice.choice((1, 60_000, 3_600_000)))
        self.inner.stop = self.dice.choice(("", "", "before", "after"))
        try:
            while gone := truncator.once():
                self.truncated += gone
        except Unavailable:
            self._die("while the log was truncated")
        finally:
            self.inner.stop = ""


class Forgetting(Truncating):
    """The same without an archive: what is truncated is gone, and a snapshot stands for it."""

    def __init__(self, seed: int, plan: Plan) -> None:
        super().__init__(seed, plan)
        self.log = self.inner

    def keep_up(self) -> ArchivedLog:
        index_closed(self.log, self.index)
        return self.archived()

    def truncator(self, archived: ArchivedLog | None = None, keep_ms: int = 1_000) -> Truncator:
        return Forgetter(
            self.log, self.index, store=self.store.inner, serves=lambda: Serves(1, self.step),
            steps=lambda: {1: self.step}, epochs=lambda: {1}, clock=self.clock, keep_ms=keep_ms,
        )  # fmt: skip

    def check(self) -> None:
        store, plan = self.store.inner, self.step.plan
        begin(self.log, store, 99, plan, Snapshot(store, 1, plan))
        super().check()
        leaves = sample(store, 1, 1_000, 0)
        refold(reread(self.log, leaves), self.log, store, self.step, 1, leaves)

    def _check_events(self, leaves: dict[LeafId, Leaf]) -> None:
        law = conservation(self.log, self.store.inner, 1, self.step.plan)
        assert law.holds
        assert law.in_flight == 0


def lived(
    seed: int, plan: Plan, steps: int = 120, world_of: type[Truncating] = Truncating
) -> Truncating:
    world = world_of(seed, plan)
    world.run(steps)
    return world


def test_promises_hold_in_every_history(plan: Plan) -> None:
    truncated = crashes = 0
    for seed in range(SEEDS):
        world = lived(seed, plan)
        assert [one.offset for one in world.log.read(0, 0, 1 << 30)] == [*range(world.log.head(0))]
        truncated, crashes = truncated + world.truncated, crashes + world.crashes
    assert truncated > 20 * SEEDS
    assert crashes > SEEDS


def test_promises_hold_where_what_was_truncated_is_gone(plan: Plan) -> None:
    truncated = crashes = 0
    for seed in range(SEEDS):
        world = lived(seed, plan, world_of=Forgetting)
        assert world.inner.first(0) == world.inner.truncation(0).end
        truncated, crashes = truncated + world.truncated, crashes + world.crashes
    assert truncated > 20 * SEEDS
    assert crashes > SEEDS


@pytest.fixture
def aged(plan: Plan) -> Truncating:
    """A history of which several segments can go."""
    world = Truncating(1, plan)
    for _ in range(20):
        world.produce()
    world.settle()
    world.clock.advance(days=1)
    world.keep_up()
    return world


def test_the_past_of_every_leaf_is_the_same(aged: Truncating) -> None:
    def past() -> list[Any]:
        leaves = [leaf for leaf, _ in aged.store.inner.scan(1, None, 100)]
        return [
            [(leaf.version, leaf.states, leaf.edges) for leaf in
             PastProfiles(History(aged.log, index), aged.step, Known(offset=offset), 0).fold(leaves).values()]
            for index in (aged.index, MemoryLeafIndex())
            for offset in range(0, aged.log.head(0), 5)
        ]  # fmt: skip

    before = past()
    while aged.truncator().once():
        pass
    assert aged.inner.first(0) >= 3 * SIZE
    assert before == past()


def test_what_leaves_have_not_applied_stays(aged: Truncating) -> None:
    fresh = 7
    replay(aged.log, aged.store.inner, aged.step, fresh)
    applied = aged.store.inner.applied(fresh, 0)
    building = MemoryStore()
    building.write(2, [], partition=0, applied=Version(1, SIZE + 2))
    truncator = aged.truncator()
    truncator.store, truncator.epochs = Both(aged.store.inner, building), lambda: {1, 2}
    assert [(0, SIZE)] == [(cut.first, cut.end) for cut in truncator.due()]
    assert SIZE == truncator.once()
    assert 0 == truncator.once()
    building.write(2, [], partition=0, applied=applied)
    assert SIZE == truncator.once()


class Both:
    """The leaves of one store, and another set's applied offsets."""

    def __init__(self, one: Any, other: MemoryStore) -> None:
        self.one, self.other = one, other

    def applied(self, epoch: int, partition: int) -> Version:
        return (self.one if epoch == 1 else self.other).applied(epoch, partition)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.one, name)


def refused(world: Truncating) -> str:
    with pytest.raises(PenstockError) as caught:
        world.truncator().once()
    assert 0 == world.inner.first(0)
    return caught.value.code


def test_a_segment_that_does_not_read_back_keeps_its_records_in_the_log(aged: Truncating) -> None:
    name = aged.archived().segments()[0].name
    whole = aged.objects.held[name]
    for at in (3, 40, len(whole) // 2, len(whole) - 30):
        aged.objects.held[name] = whole[:at] + bytes([whole[at] ^ 8]) + whole[at + 1 :]
        assert "E730" == refused(aged)
    aged.objects.held[name] = whole
    assert SIZE == aged.truncator().once()


def test_a_segment_that_is_gone_keeps_its_records_in_the_log(aged: Truncating) -> None:
    listed = aged.archived().segments()
    aged.objects.delete(listed[0].name)
    assert 0 == aged.truncator().once()
    truncator = aged.truncator()
    truncator._listed = listed
    with pytest.raises(DataCorrupt) as caught:
        truncator.once()
    assert "E731" == caught.value.code


def test_a_segment_of_another_life_of_the_log_is_not_taken_for_its_own(
    aged: Truncating, plan: Plan
) -> None:
    other = Truncating(2, plan)
    for _ in range(20):
        other.produce()
    other.settle()
    other.keep_up()
    theirs = other.archived().segments()
    for kept in aged.archived().segments():
        aged.objects.delete(kept.name)
    aged.objects.held |= other.objects.held
    assert theirs
    assert 0 == aged.truncator().once()
    aged.keep_up()
    assert SIZE == aged.truncator().once()
    assert aged.log.read(0, 0, SIZE)[0].offset == 0


def spoil(world: Truncating, change: Callable[[StoredLeaf], LeafWrite | None]) -> None:
    """Let every stored leaf be what it should not be."""
    store = world.store.inner
    leaves = sample(store, 1, 100, 0)
    applied = store.applied(1, 0)
    store.drop(1)
    for leaf, stored in leaves.items():
        write = change(StoredLeaf(stored.version, stored.parts))
        if write is not None:
            store.write(1, [write._replace(leaf=leaf)], partition=0, applied=applied)
    store.write(1, [], partition=0, applied=applied)


NOBODY = LeafId(bytes(16))


def test_leaves_that_lack_what_was_applied_keep_the_log_whole(aged: Truncating) -> None:
    spoil(aged, lambda _: None)
    assert "E711" == refused(aged)


def test_leaves_that_are_not_what_their_records_fold_to_keep_the_log_whole(
    aged: Truncating,
) -> None:
    spoil(aged, lambda one: LeafWrite(NOBODY, Version(0, -1), one.version, (one.parts[0][:-1],)))
    assert "E752" == refused(aged)


def test_what_the_log_does_not_name_is_not_read(aged: Truncating) -> None:
    """Whatever is in the archive: a log that lost its beginning otherwise says so."""
    aged.inner.truncate(0, Truncation(SIZE, SIZE))
    with pytest.raises(PenstockError) as caught:
        aged.log.read(0, 0, 1)
    assert "E271" == caught.value.code
    assert isinstance(aged.archived().segments()[0], Kept)
    assert [] == aged.log.archived(0)
    aged.inner.truncate(
        0, Truncation(SIZE, SIZE), [Archived(0, SIZE, aged.archived().segments()[0].name, 1)]
    )
    with pytest.raises(DataCorrupt):
        aged.log.read(0, 0, 1)
