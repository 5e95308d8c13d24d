"""The native fold and the one in Python, by chance: plans, times, and bytes that are not as they should be."""

import random
from typing import Any

import pytest
from native_odd import Chance, odd_leaf, odd_record, odd_times, with_great_numbers
from native_world import PLANS, RULES, SMALL, World
from test_native import Pair, shown

from penstock.adapters.accelerator.native import accelerate
from penstock.core.errors import DataCorrupt
from penstock.core.record import NO_VERSION, LogRecord
from penstock.ports.store import LeafWrite

pytestmark = pytest.mark.skipif(accelerate() is None, reason="the accelerator is not built")

FEW = range(8)
"""Each of some tens of histories."""
MANY = [*range(100, 200)]


def attacks(test: Any) -> Any:
    """Run a test a few times, and in the long tests many."""
    seeds = [*FEW, *(pytest.param(seed, marks=pytest.mark.slow) for seed in MANY)]
    return pytest.mark.parametrize("seed", seeds)(test)


def play(dice: random.Random, pair: Pair, log: list[LogRecord]) -> None:
    """Fold a log in batches, with flushes and crashes between them."""
    while (start := pair.folds[0].next_offset) < len(log):
        pair.feed(log[start : start + dice.choice([1, 7, 50, 200])])
        draw = dice.random()
        if draw < 0.3:
            pair.flush(dice.choice([1, 1_000]), None)
            pair.same()
        elif draw < 0.4:
            pair.folds = pair.opened()
    pair.flush(10_000, None)


@attacks
def test_plans_by_chance_give_the_same_bytes(seed: int) -> None:
    for number in range(3 * seed, 3 * seed + 3):
        dice = random.Random(number)
        log = World(number).log(120)
        if dice.random() < 0.5:
            log = with_great_numbers(dice, log)
        cached_max = dice.choice([200_000, 2])
        play(dice, Pair(Chance(dice).plan(), dice.choice([RULES, SMALL]), cached_max), log)


@attacks
def test_times_of_any_kind_give_the_same_bytes(seed: int) -> None:
    for number in range(5 * seed, 5 * seed + 5):
        dice = random.Random(number)
        log = odd_times(dice, World(number, people=2).log(80))
        play(dice, Pair(PLANS[number % 3], dice.choice([RULES, SMALL])), log)


def told(pair: Pair, entry: LogRecord) -> list[object]:
    """Return what each fold makes of a record, or what it says that is wrong with it or its leaf."""
    found: list[object] = []
    for fold in pair.folds:
        fold.next_offset = entry.offset
        try:
            found.append(shown(fold.feed([entry])))
        except DataCorrupt as error:
            found.append(error.code)
        except (TypeError, AttributeError, ValueError, LookupError, StopIteration, OverflowError):
            found.append(None)  # a damaged leaf, of which neither has said so
    return found


@attacks
def test_odd_records_are_taken_or_refused_alike(seed: int) -> None:
    for number in range(40 * seed, 40 * seed + 40):
        dice, pair = random.Random(number), Pair(PLANS[number % 3], RULES)
        for one in World(number).log(6):
            python, native = told(pair, one._replace(value=odd_record(dice, one.value)))
            assert python == native
        pair.flush(100, None)


@attacks
def test_odd_leaves_are_read_or_refused_alike(seed: int) -> None:
    for number in range(12 * seed, 12 * seed + 12):
        dice, pair, log = (
            random.Random(number),
            Pair(PLANS[number % 3], RULES),
            World(number).log(60),
        )
        pair.feed(log[:30])
        flush = pair.folds[0].take(1_000)
        assert flush is not None
        writes = [
            LeafWrite(write.leaf, NO_VERSION, write.new, (odd_leaf(dice, write.parts[0]),))
            for write in flush.writes
        ]
        for store, fold in zip(pair.stores, pair.folds, strict=True):
            store.write(1, writes, partition=0, applied=flush.applied)
            fold.restart()
        for one in log[30:]:
            python, native = told(pair, one)
            if python is None:
                break  # Python's own fold cannot go on with it
            assert python == native
