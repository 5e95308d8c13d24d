"""The native fold differs in nothing from the fold in Python: bytes, versions, and all that is asked for."""

import random
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from native_world import PLANS, RULES, SMALL, World, fuzzed, plain

from penstock.adapters.accelerator.native import accelerate
from penstock.adapters.store.memory import MemoryStore
from penstock.core.errors import DataCorrupt
from penstock.core.feature.plan import Plan
from penstock.core.generations import seal_record
from penstock.core.record import LogRecord, encode_record
from penstock.core.step import Rules, Step
from penstock.flows.native import NativeFold, new_fold
from penstock.flows.process import Folded, PartitionFold

pytestmark = pytest.mark.skipif(accelerate() is None, reason="the accelerator is not built")


def test_the_accelerator_is_chosen_by_the_rules_and_reads_our_definitions() -> None:
    for plan in PLANS:
        for rules in (RULES, RULES._replace(accelerate=accelerate())):
            fold = new_fold(
                step=Step(plan, rules), store=MemoryStore(), epoch=1, partition=0, generation=1
            )
            assert isinstance(fold, NativeFold) is (rules is not RULES)


class Pair:
    """The same records for two folds, each with a store of its own."""

    def __init__(self, plan: Plan, rules: Rules, cached_max: int = 200_000) -> None:
        self.rules, self.plan = rules._replace(accelerate=accelerate()), plan
        self.cached_max = cached_max
        self.stores = [MemoryStore(), MemoryStore()]
        self.folds = self.opened()

    def opened(self) -> list[PartitionFold]:
        return [
            make(step=Step(self.plan, self.rules), store=store, epoch=1, partition=0, generation=1, cached_max=self.cached_max)
            for make, store in zip((PartitionFold, new_fold), self.stores, strict=True)
        ]  # fmt: skip

    def feed(self, batch: Sequence[LogRecord]) -> None:
        python, native = (fold.feed(batch) for fold in self.folds)
        assert shown(python) == shown(native)
        tallies = [
            [getattr(fold.tally, name) for name in fold.tally.__slots__] for fold in self.folds
        ]
        assert tallies[0] == tallies[1]

    def flush(self, limit: int, before: int | None) -> None:
        flushes = [fold.take(limit, before) for fold in self.folds]
        python, native = flushes
        assert (python is None) == (native is None)
        if python is None or native is None:
            return
        for one, other in zip(python.writes, native.writes, strict=True):
            assert one[:3] == other[:3]
            if one.parts != other.parts:
                assert plain(one.parts[0]) == plain(other.parts[0])
            assert one.parts == other.parts
        assert python.applied == native.applied
        for fold, flush in zip(self.folds, (python, native), strict=True):
            fold.written(flush, fold.write(flush))

    def same(self) -> None:
        python, native = self.folds
        assert python.next_offset == native.next_offset
        assert dict(python.dirty) == dict(native.dirty)
        if self.cached_max > 1_000:
            # It looks further ahead, and so may hold leaves that nothing was folded into.
            assert set(python.cache) <= set(native.cache)


def shown(folded: Folded) -> tuple[list, list, list, list]:
    return (
        [encode_record(link) for link in folded.links],
        folded.letters,
        folded.suppressions,
        folded.late,
    )


def play(seed: int, count: int, plan_number: int, rules: Rules, cached_max: int = 200_000) -> None:
    """Fold a history in batches, with flushes and crashes between them."""
    pair, dice = Pair(PLANS[plan_number], rules, cached_max), random.Random(seed)
    log = World(seed).log(count)
    while (start := pair.folds[0].next_offset) < count:
        pair.feed(log[start : start + dice.choice([1, 3, 10, 40, 300])])
        draw = dice.random()
        if draw < 0.4:
            pair.flush(dice.choice([1, 5, 1_000]), dice.choice([None, None, dice.randrange(count)]))
        elif draw < 0.45:
            pair.folds = pair.opened()
        pair.same()
    pair.flush(10_000, None)
    pair.same()


@given(
    st.integers(0, 1 << 30),
    st.integers(1, 60),
    st.sampled_from([0, 1, 2]),
    st.sampled_from([RULES, SMALL]),
)
@settings(max_examples=150, deadline=None)
def test_random_histories_give_the_same_bytes(
    seed: int, count: int, plan_number: int, rules: Rules
) -> None:
    play(seed, count, plan_number, rules)


@pytest.mark.parametrize("seed", range(6))
def test_long_histories_give_the_same_bytes(seed: int) -> None:
    play(seed, 1_500, seed % 3, (RULES, SMALL)[seed // 3])


@pytest.mark.parametrize("at", [0, 7, 40, 139])
def test_a_seal_ends_both_alike(at: int) -> None:
    pair, log = Pair(PLANS[0], RULES), World(3).log(140)
    log[at] = log[at]._replace(value=seal_record())
    pair.feed(log[:60])
    pair.flush(5, None)
    pair.feed(log[60:])
    pair.flush(1_000, None)
    pair.same()
    assert [at, at] == [fold.seal for fold in pair.folds]
    assert all(fold.drained() for fold in pair.folds)


def test_a_small_cache_changes_nothing() -> None:
    play(5, 400, 2, RULES, cached_max=2)


@given(st.integers(0, 1 << 30))
@settings(max_examples=300, deadline=None)
def test_bytes_that_are_nearly_records_are_taken_or_refused_alike(seed: int) -> None:
    dice = random.Random(seed)
    log = [one._replace(value=fuzzed(dice, one.value)) if dice.random() < 0.5 else one
           for one in World(seed).log(4)]  # fmt: skip
    pair = Pair(PLANS[2], RULES)
    for one in log:
        told = []
        for fold in pair.folds:
            fold.next_offset = one.offset
            try:
                told.append(shown(fold.feed([one])))
            except (DataCorrupt, TypeError, AttributeError, ValueError, OverflowError) as error:
                told.append(repr(error))
        assert told[0] == told[1]
    pair.flush(100, None)
