"""The native fold where numbers are great, bytes are odd, and where it fails."""

import gc
import struct
from typing import Any

import msgspec
import pytest
from native_world import EVIDENCES, NOW, PLANS, RULES, World, make_leaf, ordered, viewed
from test_native import Pair

from penstock.adapters.accelerator.native import accelerate
from penstock.adapters.store.memory import MemoryStore
from penstock.core.feature.plan import Plan
from penstock.core.ids import event_id
from penstock.core.record import RECORD_FORMAT, Evidence, Kind, LogRecord, Record, encode_record
from penstock.core.step import Rules
from penstock.core.time import DAY_MS
from penstock.dsl import features as f
from penstock.flows.native import NativeFold

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


def _write(leaf_id: Any, raw: bytes) -> Any:
    from penstock.core.record import NO_VERSION, Version
    from penstock.ports.store import LeafWrite

    return LeafWrite(leaf_id, NO_VERSION, Version(1, 0), (raw,))
