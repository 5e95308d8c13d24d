"""Online Retail through the real path with SQLite files: events/s, CPU µs an event, beside DuckDB.

    python -m benchmarks.retail [--lines-max N] [--pace-minutes N] [--json]

541,909 real lines as order events, an event a line unless told otherwise, at the data's own pace:
requests are decoded, taken in, appended (fsynced), folded into 52 features and written. People are
as in the data: 8,082, the busiest with 1.5 % of the lines; hot, for all leaves fit in the cache.
DuckDB then computes the same features of everybody, once, from the Parquet file: it answers as of
one instant, while the engine has the answer at every instant. Its answers are compared.
"""

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
DATA = ROOT.parent / "shared" / "data" / "online_retail.parquet"
sys.path.insert(0, str(ROOT / "tests" / "retail"))

from retail_shop import PLAN, Request, Shop, differences, read_orders, requests, same  # noqa: E402
from retail_sql import Oracle, leaf_key  # noqa: E402

from penstock.adapters.log.sqlite import SqliteLog  # noqa: E402
from penstock.adapters.store.sqlite import SqliteStore  # noqa: E402
from penstock.core.ids import LeafId  # noqa: E402
from penstock.testing.clock import HandClock  # noqa: E402


async def drive(shop: Shop, made: list[Request]) -> None:
    """Send requests one after the other: their clock is turned by hand, so none overtakes another."""
    await shop.engine.start()
    for request in made:
        await shop.send(request)
    await shop.engine.settled()


async def measure(lines_max: int, pace_minutes: int, rows_max: int | None) -> dict[str, Any]:
    orders = read_orders(DATA, rows_max=rows_max, lines_max=lines_max)
    made = requests(orders, pace_ms=pace_minutes * 60_000)
    lines = sum(len(one.rows) for one in orders)
    clock = HandClock(orders[0].at_ms)
    with tempfile.TemporaryDirectory() as folder:
        log = SqliteLog(Path(folder) / "log.db", clock)
        store = SqliteStore(Path(folder) / "store.db")
        shop = Shop(clock, log, store)
        wall_s, cpu_s = time.perf_counter(), time.process_time()
        await drive(shop, made)
        wall_s, cpu_s = time.perf_counter() - wall_s, time.process_time() - cpu_s
        log_bytes, store_bytes = size_bytes(folder, "log.db"), size_bytes(folder, "store.db")
        duck = await beside(shop, orders)
        await shop.engine.close()
        log.close()
        store.close()
    return {
        "events": len(orders), "lines": lines, "requests": len(made), "features": len(PLAN.features),
        "events_per_s": round(len(orders) / wall_s), "lines_per_s": round(lines / wall_s),
        "cpu_us_per_event": round(cpu_s / len(orders) * 1e6, 1),
        "cpu_us_per_line": round(cpu_s / lines * 1e6, 1), "wall_s": round(wall_s, 1),
        "log_mib": round(log_bytes / 2**20, 1), "store_mib": round(store_bytes / 2**20, 1), **duck,
    }  # fmt: skip


async def beside(shop: Shop, orders: list[Any]) -> dict[str, Any]:
    """Return what DuckDB takes for the same answers, having checked that they are the same."""
    wall_s, cpu_s = time.perf_counter(), time.process_time()
    oracle = Oracle(DATA, orders)
    load_s = time.perf_counter() - wall_s
    people = oracle.people(shop.clock.now_ms())
    expected = oracle.answer(shop.clock.now_ms(), people)
    duck_s, duck_cpu_s = time.perf_counter() - wall_s, time.process_time() - cpu_s
    oracle.close()
    leaves = [LeafId(leaf_key(*person.split(":", 1))) for person in people]
    started_s = time.perf_counter()
    found = await shop.read(leaves, shop.clock.now_ms())
    read_s = time.perf_counter() - started_s
    for person, (values, _) in zip(people, found, strict=True):
        wrong = differences(values, expected[person][0], same)
        assert not wrong, f"differ: {wrong}"
    return {
        "people": len(people), "duckdb_s": round(duck_s, 2), "duckdb_load_s": round(load_s, 2),
        "duckdb_cpu_s": round(duck_cpu_s, 2), "read_us_per_profile": round(read_s / len(people) * 1e6),
    }  # fmt: skip


def size_bytes(folder: str, name: str) -> int:
    return sum(path.stat().st_size for path in Path(folder).glob(f"{name}*"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--lines-max", type=int, default=1, help="lines of one event")
    parser.add_argument(
        "--pace-minutes", type=int, default=60, help="span of one round of requests"
    )
    parser.add_argument("--rows-max", type=int, help="only the first rows")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if not DATA.exists():
        print("skipped: online_retail.parquet is not in ../shared/data beside this clone")
        return
    found = asyncio.run(measure(options.lines_max, options.pace_minutes, options.rows_max))
    if options.json:
        print(json.dumps(found))
        return
    load = os.getloadavg()[0]
    print(
        f"Online Retail, {found['events']:,} events of {found['lines']:,} lines and {found['people']:,} "
        f"people into {found['features']} features, SQLite log and store, load {load:.1f}\n"
        f"  engine   {found['events_per_s']:>9,} events/s {found['lines_per_s']:>9,} lines/s "
        f"{found['cpu_us_per_event']:>7} CPU µs/event   {found['wall_s']} s, {found['requests']:,} fsyncs at most, "
        f"log {found['log_mib']} MiB, store {found['store_mib']} MiB\n"
        f"  DuckDB   {found['duckdb_s']} s for one instant, of it {found['duckdb_load_s']} s to load; "
        f"{found['duckdb_cpu_s']} CPU s\n"
        f"  read     {found['read_us_per_profile']} µs a profile"
    )


if __name__ == "__main__":
    main()
