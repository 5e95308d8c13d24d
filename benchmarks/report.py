"""The table of figures and ratios, for people and for programs, and the machine it was taken on."""

from __future__ import annotations

import os
import platform
import re
import sqlite3
from importlib.metadata import version
from pathlib import Path

import msgspec
from msgspec.structs import replace

from benchmarks.measure import CEILINGS, Row
from benchmarks.workload import Sizes
from penstock.adapters.accelerator import native as accelerator

PARTS = ("msgspec", "uvicorn", "uvloop", "litestar", "fastapi", "pydantic", "duckdb")
HEADINGS = ("work", "people", "rate", "min - max", "CPU µs", "floor", "goal", "beside", "note")


class Machine(msgspec.Struct, frozen=True):
    """What the figures depend on; no name of a host is in it."""

    cpu: str
    cores: int
    memory_gib: int
    system: str
    python: str
    sqlite: str
    versions: dict[str, str]
    load_before: float
    """Processes that were running on average in the minute before: above 0.5 others were at work."""

    def slug(self) -> str:
        """Return what names the machine in a file's name."""
        text = f"{self.cpu} {self.cores} cores".lower()
        return re.sub(r"[^a-z0-9]+", "-", text).strip("-")


class Results(msgspec.Struct, frozen=True):
    """A whole run."""

    date: str
    machine: Machine
    sizes: Sizes
    seed: int
    gc_thresholds: tuple[int, int, int]
    seconds: float
    rows: list[Row]
    left_out: list[str]
    load_after: float = 0.0
    """As `load_before`; the run itself keeps about one busy."""
    kept: list[Row] = []
    """What takes long, from an earlier run."""
    kept_date: str = ""


def machine() -> Machine:
    """Return this machine."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        found = re.search(
            r"^model name\s*:\s*(.+)$", info.read_text(encoding="utf-8"), re.MULTILINE
        )
        cpu = found.group(1).strip() if found else cpu
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return Machine(
        cpu=cpu, cores=os.cpu_count() or 1, memory_gib=round(memory / 2**30),
        system=f"{platform.system()} {platform.release().split('-')[0]}",
        python=f"{platform.python_implementation()} {platform.python_version()}",
        sqlite=sqlite3.sqlite_version,
        versions={"accelerator": accelerator.found() or "not built: all of it in Python"}
        | {part: version(part) for part in PARTS},
        load_before=round(os.getloadavg()[0], 2),
    )  # fmt: skip


def write(results: Results, folder: Path) -> Path:
    """Write the results as JSON and as Markdown; return the Markdown's path."""
    folder.mkdir(parents=True, exist_ok=True)
    stem = f"{results.date}-{results.machine.slug()}"
    raw = msgspec.json.format(msgspec.json.encode(results), indent=2)
    (folder / f"{stem}.json").write_bytes(raw + b"\n")
    path = folder / f"{stem}.md"
    path.write_text(markdown(results), encoding="utf-8")
    return path


def with_kept(results: Results, before: Results | None, long: set[str]) -> Results:
    """Return results with the rows of long benchmarks that only an earlier run has.

    Args:
        results: Of this run.
        before: Of the run before, if there was one.
        long: Groups of the benchmarks that are not run each time.
    """
    if before is None or any(row.group in long for row in results.rows):
        return results
    rows = [row for row in before.rows if row.group in long]
    if rows:
        return replace(results, kept=rows, kept_date=before.date)
    return replace(results, kept=before.kept, kept_date=before.kept_date)


def to_write(
    found: Results, before: Results | None, *, whole: set[str], long: set[str], ran: set[str]
) -> Results | None:
    """Return what becomes the newest results: a whole run, or the one before with new long rows.

    Args:
        found: What a run found.
        before: The newest results so far, if there are any.
        whole: Names of the benchmarks of a whole run.
        long: Names, and groups, of those that are not run each time.
        ran: Names of those that ran.

    Returns:
        None if it was a part of a run, which says nothing of the rest.
    """
    if ran >= whole:
        return with_kept(found, before, long)
    if ran <= long and before is not None:
        rows = [row for row in before.rows if row.group not in long]
        return replace(before, rows=rows, kept=found.rows, kept_date=found.date)
    return None


def markdown(results: Results) -> str:
    """Return the page of a run."""
    here = results.machine
    versions = ", ".join(f"{name} {number}" for name, number in here.versions.items())
    taken = (
        f"{here.cpu}, {here.cores} cores, {here.memory_gib} GiB; {here.system}; {here.python}; SQLite "
        f"{here.sqlite}; {versions}. Load average before the run: {here.load_before:g}, after it "
        f"{results.load_after:g}, of which the run itself is one: above that others were at work. It took "
        f"{results.seconds:.0f} s."
    )
    rounds = results.sizes.rounds
    http = results.sizes.http_rounds or rounds
    of_http = f", over HTTP of {http}" if http != rounds else ""
    method = (
        f"Workload {results.seed}: see `benchmarks/workload.py`. Medians of {rounds} "
        f"interleaved rounds{of_http}. Work in one process is counted by CPU time, a core's worth; what goes over "
        "HTTP by the clock, the server on one core and the client on another. Garbage collection as "
        f"`penstock up` sets it: frozen after loading, thresholds {results.gc_thresholds}."
    )
    kept = [f"Measured on {results.kept_date}, and not again: it takes a quarter of an hour.", "",
            *_table(results.kept), ""]  # fmt: skip
    beside = "*beside*: our rate by theirs, and in brackets their CPU time by ours; above 1 we are ahead."
    return "\n".join([
        f"# Benchmarks of {results.date}", "", taken, "", method, "",
        *_table(results.rows), "", beside, "", *(kept if results.kept else ()),
        *_where(results), *(f"Left out: {text}.\n" for text in results.left_out),
    ])  # fmt: skip


def _table(rows: list[Row]) -> list[str]:
    return [
        "| " + " | ".join(HEADINGS) + " |",
        "|---|---|--:|--:|--:|---|---|---|---|",
        *("| " + " | ".join(_cells(row)) + " |" for row in rows),
    ]


def _where(results: Results) -> list[str]:
    """Return where the CPU time of whatever misses a floor goes, as it was sampled in the run."""
    missing = [
        row for row in results.rows
        if row.spent and any("missed" in said for said in row.targets(0))
    ]  # fmt: skip
    if not missing:
        return []
    time = [row for row in missing if row.unit != "MB"]
    memory = [row for row in missing if row.unit == "MB"]
    return [
        SAMPLED, "", *(f"- {row.work} ({row.state}): {_spent(row)}." for row in time), "",
        *(f"Where the memory of {row.work} goes: {_spent(row)}.\n" for row in memory),
    ]  # fmt: skip


def _spent(row: Row) -> str:
    parts = (
        f"{part if ' ' in part else f'`{part}`'} {100 * share:.0f} %"
        for part, share in row.spent.items()
    )
    return ", ".join(parts)


SAMPLED = (
    "Where the CPU time of what misses its floor goes, sampled in one more round of the same run "
    "(`benchmarks/sampling.py`): a module stands for itself and for the C code that it calls."
)

FIGURES = """<!-- Written by `make bench` from the newest file in benchmarks/results. Edit nothing here. -->
# Measured figures

What Penstock costs on one machine, measured in one run beside other programs that did the same work
or less. Repeat it with `make bench`: about seven minutes; nginx and wrk are used where they are
installed, and what is left out without them is said. `.venv/bin/python -m benchmarks.run --long` also
lets a shop grow to a million people.

![How much of its floor each figure reaches; the same figures are in the table below.](../assets/figures.svg)

- *Floor* is what this version is to reach, *goal* what is aimed at; one that was missed says by how much. A ratio to a
  peer is that of CPU times.
- Of milliseconds, seconds and megabytes the floor is the most that there may be.
- *zipf* and *uniform* say who is busy; *hot*: every leaf is decoded in memory; *cold*: every leaf is
  read from the store first. `benchmarks/workload.py` pins people, events, duplicates, consent and
  protections, and a test pins its bytes.
- Bytewax is given the same records, ids, consent and eight features in plain Python, one worker without recovery; it does
  not account for the size of its state, keep edges or consent, or say what became of an event.
- FastAPI is given the same server, the same JSON and the same group commit, and it neither folds, nor
  knows identities, duplicates, limits, dead letters or metrics. nginx answers a constant. DuckDB
  computes the same eight features from columns; a test compares its values with ours.
- The collector alone stands beside FastAPI: a process of the same routes and the same log, from which
  another would fold. What is *folded, linked and written too* is `penstock up`, and everything that it
  does for an event, after the answer too, is in its CPU time.
- *killed → …* counts from the start of the process that follows: its last 2,000 events are folded anew.
- A million people are the workload's and their clones, who differ in ids alone (`benchmarks/crowd.py`).
- Loopback without TLS. Rates between processes that share two cores are reported, never gated.

"""


def figures(results: Results) -> str:
    """Return the page of the docs: what the figures mean, and the newest run."""
    table = markdown(results).replace(f"# Benchmarks of {results.date}", f"## {results.date}", 1)
    return FIGURES + table


def newest(folder: Path) -> Results | None:
    """Return the newest results of a folder, if there are any."""
    files = sorted(folder.glob("*.json"))
    return msgspec.json.decode(files[-1].read_bytes(), type=Results) if files else None


def _cells(row: Row) -> list[str]:
    if row.unit == "ms":
        rate = f"p50 {row.p50_ms:.1f}, p99 {row.p99_ms:.1f} ms"
        spread = f"{row.low:.1f} - {row.high:.1f}"
    elif row.unit in CEILINGS:
        rate, spread = f"{row.rate:,.2f} {row.unit}", f"{row.low:,.2f} - {row.high:,.2f}"
    else:
        rate, spread = f"{row.rate:,.0f} {row.unit}/s", f"{row.low:,.0f} - {row.high:,.0f}"
    beside = "; ".join(
        f"{name} {rate:.2f} x ({cpu:.2f} x)" for name, (rate, cpu) in row.beside.items()
    )
    return [
        row.work,
        row.state,
        rate,
        spread,
        f"{row.cpu_us:.1f}" if row.cpu_us else "",
        "; ".join(row.targets(0)),
        "; ".join(row.targets(1)),
        beside,
        row.note,
    ]
