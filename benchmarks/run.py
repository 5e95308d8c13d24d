"""`make bench`: everything, in one run, as one table.

    python -m benchmarks.run [--only fold,durable,…] [--long] [--rounds 5] [--tiny] [--no-write]

Nothing but loopback is loaded, every load ends by itself, and only processes that were started here
are ended. A run takes about seven minutes; with `--long`, which lets a shop grow to a million people
and ten million events, a quarter of an hour more. What `--long` found stays in later results, and
`--only growth` puts it beside those of the newest run. Of any other part nothing is written.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from benchmarks import (
    chart,
    durable,
    fold,
    growth,
    liquid_email,
    million,
    on_servers,
    over_http,
    report,
    restart,
)
from benchmarks.measure import Row
from benchmarks.workload import FULL, SEED, TINY, Sizes
from penstock.cli.up import GC_THRESHOLDS

ROOT = Path(__file__).parent
RESULTS = ROOT / "results"
FIGURES = ROOT.parent / "docs" / "reference" / "figures.md"
CHART = ROOT.parent / "docs" / "assets" / "figures.svg"
SCRATCH = ROOT / ".work"
"""On the same disk as the project: a file system in memory would flatter what is fsynced."""

Benchmark = Callable[[Sizes, Path], tuple[list[Row], list[str]]]

BENCHMARKS: dict[str, Benchmark] = {
    # HTTP first: a load on other processes is not to wait for the memory of this one.
    "http": over_http.measure,
    "fold": fold.measure,
    "durable": lambda sizes, work: (durable.measure(sizes, work), []),
    "liquid": lambda sizes, _: (liquid_email.measure(sizes), []),
    "replay": lambda sizes, work: (durable.measure_replay(sizes, work), []),
    "million": lambda sizes, work: (million.measure(sizes, work), []),
    "memory": lambda sizes, work: (growth.measure_memory(sizes, work), []),
    "restart": lambda sizes, work: (restart.measure(sizes, work), []),
    "servers": on_servers.measure,
}
LONG: dict[str, Benchmark] = {
    "growth": lambda sizes, work: (growth.measure_growth(sizes, work), []),
}
"""Run only when asked for: by `--long`, or by name."""


def run(sizes: Sizes, only: list[str]) -> report.Results:
    """Run benchmarks by name and return what they found."""
    here = report.machine()
    started = time.perf_counter()
    rows: list[Row] = []
    left_out: list[str] = []
    SCRATCH.mkdir(exist_ok=True)
    for name in only:
        print(f"{name} … at {time.perf_counter() - started:.0f} s", file=sys.stderr, flush=True)
        with tempfile.TemporaryDirectory(dir=SCRATCH) as folder:
            found, notes = (BENCHMARKS | LONG)[name](sizes, Path(folder))
        rows += found
        left_out += notes
    return report.Results(
        date=datetime.now(UTC).date().isoformat(),
        machine=here, sizes=sizes, seed=SEED, gc_thresholds=GC_THRESHOLDS,
        seconds=time.perf_counter() - started, rows=rows, left_out=left_out,
        load_after=round(os.getloadavg()[0], 2),
    )  # fmt: skip


def main(arguments: list[str] | None = None) -> None:
    """Run what was asked for, print the table, and write it to `benchmarks/results`."""
    parser = argparse.ArgumentParser(prog="benchmarks.run", description="Measure Penstock.")
    parser.add_argument(
        "--only", default=",".join(BENCHMARKS), help="benchmarks, separated by commas"
    )
    parser.add_argument("--long", action="store_true", help="let a shop grow, too")
    parser.add_argument("--rounds", type=int, help="rounds of each measurement")
    parser.add_argument("--tiny", action="store_true", help="run the code, measure nothing")
    parser.add_argument("--no-write", action="store_true", help="only print")
    asked = parser.parse_args(arguments)
    only = [name.strip() for name in asked.only.split(",")]
    if asked.long:
        only += [name for name in LONG if name not in only]
    known = BENCHMARKS | LONG
    unknown = [name for name in only if name not in known]
    if unknown:
        parser.error(f"there is no benchmark {unknown[0]}; there are {', '.join(known)}")
    sizes = TINY if asked.tiny else FULL
    if asked.rounds:
        sizes = replace(
            sizes, rounds=asked.rounds, http_rounds=asked.rounds, crowd_rounds=asked.rounds
        )
    found = run(sizes, only)
    print(report.markdown(found))
    results = report.to_write(
        found, report.newest(RESULTS), whole=set(BENCHMARKS), long=set(LONG), ran=set(only)
    )
    if results is None:
        print("not written: it is a part of a run", file=sys.stderr)
    elif not (asked.no_write or asked.tiny):
        path = report.write(results, RESULTS)
        print(f"written to {path.relative_to(ROOT.parent)}", file=sys.stderr)
        newest = report.newest(RESULTS)
        assert newest is not None, "it was just written"
        FIGURES.write_text(report.figures(newest), encoding="utf-8")
        CHART.write_text(chart.svg(newest), encoding="utf-8")


if __name__ == "__main__":
    main()
