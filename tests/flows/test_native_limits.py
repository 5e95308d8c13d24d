"""The native fold where numbers are great, bytes are odd, and where it fails."""

import gc
import sys
import threading
from typing import Any

import msgspec
import pytest
from native_world import EVIDENCES, NOW, PLANS, RULES, World, make_leaf, ordered, viewed
from test_native import Pair, shown

from penstock.adapters.accelerator.native import accelerate
from penstock.adapters.store.memory import MemoryStore
from penstock.core.errors import DataCorrupt, Unavailable
from penstock.core.feature.plan import Plan
from penstock.core.ids import LeafId, event_id
from penstock.core.record import (
    NO_VERSION,
    RECORD_FORMAT,
    Evidence,
    Kind,
    LogRecord,
    Record,
    Version,
    encode_record,
    leaf_of,
)
from penstock.core.step import Rules, Step
from penstock.core.time import DAY_MS
from penstock.dsl import features as f
from penstock.flows.native import NativeFold, new_fold
from penstock.flows.process import flush_all
from penstock.ports.accelerator import Accelerator
from penstock.ports.store import LeafWrite

pytestmark = pytest.mark.skipif(accelerate() is None, reason="the accelerator is not built")

bought = f.each(ordered, "products")


class Great(f.Profile):
    """Whose numbers grow."""

    slow = f.decay(viewed, half_life=f.days(366))
    slowly = f.decay(viewed.weight, half_life=f.days(100), over=f.days(4_000))
    squares = f.distinct(viewed.stock * viewed.stock, cap=3, precision=7)
    product = f.sum_(bought.quantity * bought.quantity * 2)
    spread = f.variance(bought.quantity)


LEAF = make_leaf("user_id", "u1")


def event(offset: int, name: str = "Product Viewed", **given: Any) -> LogRecord:
    """Return a record of one leaf."""
    given = {
        "evidence": EVIDENCES[0], "properties": {}, "occurred_at_ms": NOW + offset, "message_id": f"m{offset}", **given,
    }  # fmt: skip
    record = Record(
        format=RECORD_FORMAT, kind=Kind.PRIMARY, tenant="t", leaf=LEAF, id_type="user_id",
        event_id=event_id(LEAF, given["message_id"]), type="track", name=name, received_at_ms=NOW + offset,
        source="site", source_rank=1, verified=True, **given,
    )  # fmt: skip
    return LogRecord(offset, NOW + offset, encode_record(record))


def both(plan: Plan, log: list[LogRecord], rules: Rules = RULES) -> Pair:
    """Fold a log by both, and require that they are the same."""
    pair = Pair(plan, rules)
    pair.feed(log)
    pair.flush(100, None)
    pair.same()
    return pair


def test_long_half_lives_weigh_the_same() -> None:
    log = [
        event(offset, properties={"weight": offset}, occurred_at_ms=NOW - offset * 37 * DAY_MS)
        for offset in range(40)
    ]
    both(f.compile_plan(Great), log)


def test_calculated_values_of_any_size_are_counted() -> None:
    log = [
        event(offset, properties={"stock": number})
        for offset, number in enumerate([2**52, -(2**52), 2**40, 2**32, 2**31, 7, 2**53 - 1])
    ]
    both(f.compile_plan(Great), log)


def test_sums_that_outgrow_127_bits_go_on_in_python() -> None:
    items = [{"quantity": 2**53 - 1}] * 1_000
    plan, log = f.compile_plan(Great), [event(0, "Order Completed", properties={"products": items})]
    pair = both(plan, log)
    # As if the first were two million of them.
    leaf_id, stored = next(iter(pair.stores[0].scan(1, None, 1)))
    body = msgspec.msgpack.decode(stored.parts[0])
    grown = 0
    for state in body[-1]:
        if state and isinstance(state[1], list) and len(state[1]) == 3:
            state[1][2], grown = str(2**126 - 2**110), grown + 1
        elif state and isinstance(state[1], str):
            state[1], grown = str(2**126 - 2**110), grown + 1
    assert grown == 2
    raw = msgspec.msgpack.encode(body)
    pair = Pair(plan, RULES)
    for fold, store in zip(pair.folds, pair.stores, strict=True):
        store.write(1, [_write(leaf_id, raw)], partition=0, applied=stored.version)
        fold.restart()
    for offset in range(1, 40):
        pair.feed([event(offset, "Order Completed", properties={"products": items})])
    native = pair.folds[1]
    assert isinstance(native, NativeFold)
    assert [*native.kept] == [LEAF]
    pair.flush(10, None)
    pair.same()


def _write(leaf_id: LeafId, raw: bytes) -> LeafWrite:
    return LeafWrite(leaf_id, NO_VERSION, Version(1, 0), (raw,))


def test_more_purposes_than_bits_are_folded_alike() -> None:
    names = [f"purpose_{number:02d}" for number in range(70)]
    features = {name: f.count(viewed, over=f.days(2 + number), purpose=name)
                for number, name in enumerate(names)}  # fmt: skip
    plan = f.compile_plan(type("Many", (f.Profile,), features))
    evidence = Evidence("context", granted=tuple(names[::3]), denied=(names[1],))
    both(plan, [event(offset, evidence=evidence) for offset in range(5)])


ODD_EVIDENCE = [
    ["unknown", 5], ["unknown", ["a", 5]], ["unknown", [], [], 1], ["unknown", [], [], "", [["a"]]],
    ["unknown", [], [], "", [["a", "b", "c"]]], [], [5], ["unknown", [], [], "", [], {"more": 1}], ["context"],
]  # fmt: skip


@pytest.mark.parametrize("evidence", ODD_EVIDENCE)
@pytest.mark.parametrize("kind", [*Kind, 0, 9])
def test_evidence_that_does_not_read_is_refused_alike(evidence: list[Any], kind: int) -> None:
    fields = msgspec.msgpack.decode(event(0).value)
    fields[1], fields[14] = int(kind), evidence
    record = LogRecord(0, NOW, msgspec.msgpack.encode(fields))
    pair, told = Pair(PLANS[0], RULES), []
    for fold in pair.folds:
        try:
            told.append(shown(fold.feed([record])))
        except DataCorrupt as error:
            told.append(str(error))
    assert told[0] == told[1]
    pair.flush(10, None)


class Breaks:
    """An accelerator that breaks at a record, as a bug in it would: by what no caller of it ever does."""

    def __init__(self, real: Accelerator, at: int) -> None:
        self._real, self._left = real, at

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def __len__(self) -> int:
        return len(self._real)

    def __contains__(self, leaf: object) -> bool:
        return leaf in self._real

    def run(self, start: int, generation: int) -> Any:
        self._left -= 1
        return self._real.run(start if self._left else 1 << 40, generation)


@pytest.mark.parametrize("at", [1, 2, 5])
def test_a_bug_in_it_ends_the_native_fold_and_nothing_else(at: int) -> None:
    real = accelerate()
    assert real is not None
    rules = RULES._replace(accelerate=lambda plan, rules: Breaks(real(plan, rules), at))
    log, store = World(8).log(900), MemoryStore()
    fold = new_fold(step=Step(PLANS[1], rules), store=store, epoch=1, partition=0, generation=1)
    refused: list[str] = []
    while fold.next_offset < len(log):
        try:
            fold.feed(log[fold.next_offset : fold.next_offset + 300])
            flush_all(fold)
        except Unavailable as error:
            refused.append(error.code)
            with pytest.raises(Unavailable):
                fold.peek([LeafId(leaf_of(log[0].value))])
            # As a runtime that rests.
            fold.cache.clear()
            fold.dirty.clear()
            fold.restart()
    assert refused == ["E475"]
    pair = Pair(PLANS[1], RULES)
    pair.feed(log)
    pair.flush(10_000, None)
    assert dict(store.scan(1, None, 1_000)) == dict(pair.stores[0].scan(1, None, 1_000))


def test_it_can_be_counted_and_read_while_it_folds() -> None:
    pair, log = Pair(PLANS[2], RULES), World(3).log(600)
    fold, raised, done = pair.folds[1], [], threading.Event()

    def look() -> None:
        try:
            while not done.is_set():
                assert len(fold.dirty) <= len(fold.cache)
                fold.peek([*fold.cache][:3])
                Garbage()  # which may be found in the middle of the other thread's call
        except Exception as error:  # noqa: BLE001 - whatever it is
            raised.append(error)

    class Garbage:
        """A finalizer, which the collector may run at any allocation."""

        def __init__(self) -> None:
            self.itself = self

        def __del__(self) -> None:
            try:
                assert len(fold.dirty) <= len(fold.cache)
            except Exception as error:  # noqa: BLE001 - whatever it is
                raised.append(error)

    threads, thresholds = [threading.Thread(target=look) for _ in range(2)], gc.get_threshold()
    interval = sys.getswitchinterval()
    try:
        sys.setswitchinterval(1e-6)
        gc.set_threshold(1, 1, 1)
        for thread in threads:
            thread.start()
        for start in range(0, len(log), 150):
            for _ in range(20):
                Garbage()
            pair.feed(log[start : start + 150])
            pair.flush(10_000, None)
    finally:
        done.set()
        gc.set_threshold(*thresholds)
        sys.setswitchinterval(interval)
        for thread in threads:
            thread.join()
    assert not raised


def test_what_was_looked_up_beforehand_is_held_alike() -> None:
    log, pair = World(4).log(400), Pair(PLANS[2], RULES)
    pair.feed(log[:200])
    pair.flush(10_000, None)
    pair.folds = pair.opened()
    for start in range(200, 400, 40):
        some = log[start : start + 40]
        for fold in pair.folds:
            absent = fold.absent(some)
            found, starts = fold.look_up(absent), fold.starts
            fold.take_in(absent, found, starts - 1)
            assert fold.absent(some) == absent
            fold.take_in(absent, found, starts)
            assert not fold.absent(some)
        pair.same()
        pair.feed(some)
        pair.flush(3, None)
    pair.flush(10_000, None)


def test_quarters_of_an_hour_are_forgotten_and_asked_for_again() -> None:
    log, pair = World(6).log(300), Pair(PLANS[1], RULES)
    native = pair.folds[1]
    assert isinstance(native, NativeFold)
    for start in range(0, 300, 50):
        pair.feed(log[start : start + 50])
        for quarter in range(start << 20, (start << 20) + (1 << 17)):
            native.native.tell(quarter, 0)
        pair.flush(4, None)
    pair.flush(1_000, None)
    pair.same()


def test_more_words_of_consent_than_are_remembered_give_the_same_bytes() -> None:
    sources = [f"context{number % 10_200}" for number in range(10_500)]
    log = [
        event(offset, evidence=Evidence(source, granted=("personalisation",)), name="Never Declared",
              message_id=f"m{offset}")
        for offset, source in enumerate(sources)
    ]  # fmt: skip
    both(PLANS[0], log)
