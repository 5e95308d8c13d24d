"""541,909 real order lines at their own pace: every feature equals DuckDB's, exactly, at 24 instants."""

from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path

import pytest
from retail_shop import (
    EPOCH,
    PERMITTED,
    PLAN,
    Order,
    Shop,
    differences,
    read_orders,
    requests,
    same,
)
from retail_sql import Oracle, leaf_key

from penstock.adapters.log.memory import MemoryLog
from penstock.adapters.store.memory import MemoryStore
from penstock.core.ids import LeafId
from penstock.core.leaf import decode_leaf
from penstock.core.time import DAY_MS, format_instant
from penstock.flows.load import ROWS_MAX, load_rows
from penstock.testing.clock import HandClock

INSTANTS = 24
SLICE_ROWS = 40_000
SHOWN_MAX = 5
NOW_MS = 1_795_600_000_000
"""November 2026: when the past is imported."""


def instants(orders: Sequence[Order]) -> list[int]:
    """Return 24 instants to read at, ascending: a minute's end, and places where windows turn.

    Besides those spread over the events there are local midnights, the first instant of a month,
    tile boundaries, and 30 and 90 days to the millisecond after an order.
    """
    first, last = orders[0].at_ms, orders[-1].at_ms
    spread = [orders[len(orders) * n // 15 - 1].at_ms + 59_999 for n in range(1, 16)]
    middle = orders[len(orders) // 2].at_ms
    chosen = {
        *spread,
        (middle // DAY_MS) * DAY_MS,
        (middle // DAY_MS + 1) * DAY_MS - 1,
        middle // (4 * 3_600_000) * 4 * 3_600_000 + 4 * 3_600_000,
        first + 7 * DAY_MS,
        first + 30 * DAY_MS,
        first + 90 * DAY_MS,
        first + 90 * DAY_MS + 1,
        last + 28 * DAY_MS,
        last + 366 * DAY_MS,
    }
    return sorted(chosen)


def sampled(people: Sequence[str], most: int) -> list[str]:
    """Return at most so many people: the same ones at every instant, and every kind of them."""
    return sorted(people, key=lambda one: blake2b(one.encode(), digest_size=8).digest())[:most]


def leaf_of(person: str) -> LeafId:
    id_type, _, value = person.partition(":")
    return LeafId(leaf_key(id_type, value))


async def compare(shop: Shop, oracle: Oracle, as_of_ms: int, people: Sequence[str]) -> int:
    """Compare every feature of some people; return how many values were equal."""
    expected = oracle.answer(as_of_ms, people)
    await shop.engine.folded()
    read = await shop.read([leaf_of(person) for person in people], as_of_ms)
    wrong: list[str] = []
    values = 0
    for person, (found, truncated) in zip(people, read, strict=True):
        wanted, cut = expected[person]
        values += len(found)
        names = differences(found, wanted, same)
        wrong += [f"{person} {name}: {found[name]!r}, DuckDB {wanted[name]!r}" for name in names]
        if cut != set(truncated):
            wrong.append(f"{person} truncated: {sorted(truncated)}, DuckDB {sorted(cut)}")
    assert not wrong, f"{len(wrong)} differ as of {format_instant(as_of_ms)}: {wrong[:SHOWN_MAX]}"
    return values


async def replay(data: Path, *, rows_max: int | None, lines_max: int, people_max: int) -> int:
    """Send the data at its own pace, stopping at every instant to compare; return values compared."""
    orders = read_orders(data, rows_max=rows_max, lines_max=lines_max)
    oracle = Oracle(data, orders)
    clock = HandClock(orders[0].at_ms)
    shop = Shop(clock, MemoryLog(clock), MemoryStore())
    await shop.engine.start()
    values = 0
    waiting = instants(orders)
    assert len(waiting) >= 20
    for request in requests(orders):
        while waiting and waiting[0] < request.at_ms:
            values += await compare_at(shop, oracle, waiting.pop(0), people_max)
        await shop.send(request)
    for as_of_ms in waiting:
        values += await compare_at(shop, oracle, as_of_ms, people_max)
    await shop.engine.settled()
    compare_stored(shop, orders)
    await shop.engine.close()
    oracle.close()
    return values


async def compare_at(shop: Shop, oracle: Oracle, as_of_ms: int, people_max: int) -> int:
    people = sampled(oracle.people(min(as_of_ms, shop.clock.now_ms())), people_max)
    return await compare(shop, oracle, as_of_ms, people)


def compare_stored(shop: Shop, orders: Sequence[Order]) -> None:
    """The leaves in the store are those in memory, and count every event once."""
    applied = 0
    for leaf_id, stored in shop.store.scan(EPOCH, None, 1 << 30):
        leaf = decode_leaf(leaf_id, stored.version, stored.parts[0], PLAN)
        cached = shop.engine.find(leaf_id)
        as_of_ms = leaf.clock_ms
        assert PLAN.read(leaf.states, as_of_ms, as_of_ms, {}, PERMITTED) == PLAN.read(
            cached.states, as_of_ms, as_of_ms, {}, PERMITTED
        )
        applied += leaf.applied
        assert 0 == leaf.deduplicated + leaf.dropped + leaf.dead
    assert len(orders) == applied == shop.log.head(0)


@pytest.mark.parametrize(
    ("lines_max", "rows_max"), [(1, 12_000), (100, SLICE_ROWS)], ids=["an event a line", "an event an order"]
)  # fmt: skip
async def test_every_feature_equals_duckdb_on_the_first_weeks(online_retail, lines_max, rows_max):
    values = await replay(online_retail, rows_max=rows_max, lines_max=lines_max, people_max=100)
    print(f"{values} values equal")
    assert values > 20 * 80 * len(PLAN.features)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("lines_max", "people_max"), [(1, 1_000), (100, 1 << 30)], ids=["an event a line", "an event an order"]
)  # fmt: skip
async def test_every_feature_equals_duckdb(online_retail, lines_max, people_max):
    values = await replay(online_retail, rows_max=None, lines_max=lines_max, people_max=people_max)
    print(f"{values} values equal")
    assert values > 20 * 500 * len(PLAN.features)


async def import_twice(data: Path, rows_max: int | None) -> None:
    orders = read_orders(data, rows_max=rows_max)
    oracle = Oracle(data, orders)
    clock = HandClock(NOW_MS)
    shop = Shop(clock, MemoryLog(clock), MemoryStore())
    await shop.engine.start()
    for _ in range(2):
        for first in range(0, len(orders), ROWS_MAX // 4):
            rows = [one.body for one in orders[first : first + ROWS_MAX // 4]]
            loaded = await load_rows(
                shop.collector, "events", rows, source=shop.source, job="till-2011", first=first
            )
            assert (len(rows), []) == loaded[:2]
        # Long enough for the live memory of ids to have forgotten: the job's has not.
        clock.advance(days=30)
    await shop.engine.settled()
    people = oracle.people(clock.now_ms())
    await compare(shop, oracle, clock.now_ms(), people)
    leaves = (await shop.engine.read([leaf_of(person) for person in people])).leaves
    assert (len(orders), len(orders), 2 * len(orders)) == (
        sum(leaf.applied for leaf in leaves),
        sum(leaf.deduplicated for leaf in leaves),
        shop.log.head(0),
    )
    await shop.engine.close()
    oracle.close()


async def test_the_past_imported_twice_counts_once(online_retail):
    await import_twice(online_retail, SLICE_ROWS // 2)


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_all_of_the_past_imported_twice_counts_once(online_retail):
    await import_twice(online_retail, None)
