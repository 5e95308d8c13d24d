"""`penstock top`: the running pipeline in the terminal: rates, lag, freshness, conservation, rejects."""

from __future__ import annotations

import json
import math
import time
from collections import deque
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import click
import httpx
from prometheus_client.parser import text_string_to_metric_families
from rich.console import Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from penstock.cli.client import running_url
from penstock.cli.main import JSON, PROJECT, out
from penstock.core.errors import Unavailable
from penstock.settings import load_settings

SAMPLES_MAX = 60
BARS = "▁▂▃▄▅▆▇█"
SETTLED = 3
"""Looks that must agree before something counts as lost: counters are read while events pass between them."""
COUNTS_CHARS = 58
Key = tuple[str, tuple[tuple[str, str], ...]]


class Sample(NamedTuple):
    """All metrics of one instant."""

    at_s: float
    """Monotonic."""
    values: Mapping[Key, float]


class Figures(NamedTuple):
    """What happened between two samples, and how things stand at the second."""

    seconds: float
    accepted_per_s: float
    applied_per_s: float
    deduplicated_per_s: float
    policy_dropped_per_s: float
    dead_lettered_per_s: float
    requests_per_s: float
    shed_per_s: float
    in_flight: int
    lag_records: int
    freshness_p50_ms: float
    freshness_p99_ms: float
    """From logged to folded; NaN if nothing was folded."""
    append_p99_ms: float
    serve_p99_ms: float
    leaves_cached: int
    leaves_dirty: int
    outbox: int
    spooled: int
    """Records that wait on this machine's disk until the log takes them."""
    feeds: dict[str, int]
    """Records that other systems were not told of yet, by feed."""
    rejected: dict[str, int]
    """Dead letters by error code, since the engine started."""
    discarded: dict[str, int]
    """Discarded at the edge by reason, since the engine started."""
    served: dict[str, int]
    """Answers by how they were served, since the engine started."""
    unaccounted: int | None
    """None where workers fold, and count what they do. Else events accepted since `penstock top` began that are neither applied, deduplicated, dropped, dead
    lettered, in flight nor in the spool: 0 unless something is lost, or counted twice. `penstock doctor` audits the
    files themselves."""


def parse(at_s: float, exposition: str) -> Sample:
    """Return a sample of the Prometheus text format."""
    values: dict[Key, float] = {}
    for family in text_string_to_metric_families(exposition):
        for one in family.samples:
            values[one.name, tuple(sorted(one.labels.items()))] = one.value
    return Sample(at_s, values)


def figures(first: Sample, before: Sample, now: Sample, *, folds: bool = True) -> Figures:
    """Return what the samples say.

    Args:
        first: Of the beginning, for conservation.
        before: The last one; rates and quantiles are over the time since.
        now: The present one.
        folds: Whether the process that was asked folds itself.
    """
    seconds = max(now.at_s - before.at_s, 1e-9)

    def rate(name: str) -> float:
        return (total(now, name) - total(before, name)) / seconds

    return Figures(
        seconds=seconds,
        accepted_per_s=rate("penstock_events_accepted_total"),
        applied_per_s=rate("penstock_events_applied_total"),
        deduplicated_per_s=rate("penstock_events_deduplicated_total"),
        policy_dropped_per_s=rate("penstock_events_policy_dropped_total"),
        dead_lettered_per_s=rate("penstock_events_dead_lettered_total"),
        requests_per_s=rate("penstock_requests_total"),
        shed_per_s=rate("penstock_requests_shed_total"),
        in_flight=int(total(now, "penstock_events_in_flight")),
        lag_records=int(total(now, "penstock_fold_lag_records")),
        freshness_p50_ms=quantile(before, now, "penstock_freshness_seconds", 0.5) * 1000,
        freshness_p99_ms=quantile(before, now, "penstock_freshness_seconds", 0.99) * 1000,
        append_p99_ms=quantile(before, now, "penstock_append_seconds", 0.99) * 1000,
        serve_p99_ms=quantile(before, now, "penstock_serve_seconds", 0.99) * 1000,
        leaves_cached=int(total(now, "penstock_leaves_cached")),
        leaves_dirty=int(total(now, "penstock_leaves_dirty")),
        outbox=int(total(now, "penstock_outbox_pending")),
        spooled=int(total(now, "penstock_spool_records")),
        feeds=by_label(now, "penstock_feed_lag_records", "feed", zeros=True),
        rejected=by_label(now, "penstock_events_dead_lettered_total", "reason"),
        discarded=by_label(now, "penstock_events_discarded_total", "reason"),
        served=by_label(now, "penstock_served_total", "served"),
        unaccounted=_unaccounted(now) - _unaccounted(first) if folds else None,
    )


def total(sample: Sample, name: str) -> float:
    """Return a metric summed over its labels."""
    return sum(value for (key, _), value in sample.values.items() if key == name)


def by_label(sample: Sample, name: str, label: str, *, zeros: bool = False) -> dict[str, int]:
    """Return a metric by one of its labels, greatest first; what is zero is left out unless it is asked for."""
    found: dict[str, int] = {}
    for (key, labels), value in sample.values.items():
        if key == name and (value or zeros):
            text = dict(labels).get(label, "")
            found[text] = found.get(text, 0) + int(value)
    return dict(sorted(found.items(), key=lambda item: (-item[1], item[0])))


def quantile(before: Sample, now: Sample, name: str, share: float) -> float:
    """Return a histogram's quantile over the time between two samples; NaN if nothing was observed.

    It is interpolated within its bucket as Prometheus's `histogram_quantile` does; beyond the last
    bucket it is that bucket's bound.
    """
    counts: dict[float, float] = {}
    for sample, sign in ((now, 1), (before, -1)):
        for (key, labels), value in sample.values.items():
            if key == f"{name}_bucket":
                bound = float(dict(labels)["le"])
                counts[bound] = counts.get(bound, 0) + sign * value
    bounds = sorted(counts)
    if not bounds or not counts[bounds[-1]]:
        return math.nan
    rank = share * counts[bounds[-1]]
    below = start = 0.0
    for bound in bounds:
        if counts[bound] >= rank:
            if math.isinf(bound):
                return start
            return start + (bound - start) * (rank - below) / (counts[bound] - below)
        below, start = counts[bound], bound
    return start


def _unaccounted(sample: Sample) -> int:
    names = ("applied", "deduplicated", "policy_dropped", "dead_lettered")
    counted = sum(total(sample, f"penstock_events_{name}_total") for name in names)
    waiting = sum(
        total(sample, name) for name in ("penstock_events_in_flight", "penstock_spool_records")
    )
    return int(total(sample, "penstock_events_accepted_total") - counted - waiting)


# -- on the screen


def screen(url: str, history: Iterable[Figures]) -> RenderableType:
    """Return what is shown: the last figures, with the accepted rate of the minute before."""
    shown = list(history)
    now = shown[-1]
    accepted = (
        "accepted", f"{now.accepted_per_s:,.0f}/s", spark([one.accepted_per_s for one in shown])
    )  # fmt: skip
    requests = ("requests", f"{now.requests_per_s:,.0f}/s", f"{now.shed_per_s:,.0f}/s shed")
    folded = (
        ("applied", f"{now.applied_per_s:,.0f}/s", spark([one.applied_per_s for one in shown])),
        ("deduplicated", f"{now.deduplicated_per_s:,.0f}/s", ""),
        ("dropped by consent", f"{now.policy_dropped_per_s:,.0f}/s", ""),
        ("dead letters", f"{now.dead_lettered_per_s:,.0f}/s", ""),
    )
    flow = _table(accepted, *(() if now.unaccounted is None else folded), requests)
    spooled = ("kept until the log is back", f"{now.spooled:,}", "records on this machine's disk")
    fresh = _table(
        ("freshness p50", _ms(now.freshness_p50_ms), "logged → ready to be served"),
        (
            "freshness p99",
            _ms(now.freshness_p99_ms),
            spark([one.freshness_p99_ms for one in shown]),
        ),
        ("durable append p99", _ms(now.append_p99_ms), ""),
        ("answer p99", _ms(now.serve_p99_ms), ""),
        ("waiting to be folded", f"{now.lag_records:,}", "records"),
        ("waiting to be written", f"{now.leaves_dirty:,}", f"of {now.leaves_cached:,} leaves held"),
        ("decisions not in the log", f"{now.outbox:,}", ""),
        *([spooled] if now.spooled else []),
    )
    law = Text("holds: nothing lost, nothing counted twice", style="green")
    if now.unaccounted is None:
        law = Text("workers fold, and count what they do; `penstock doctor` adds it up")
    elif all(one.unaccounted for one in shown[-SETTLED:]) and len(shown) >= SETTLED:
        law = Text(
            f"{now.unaccounted:+,} events unaccounted for: run `penstock doctor`", style="bold red"
        )
    kept = Group(
        _counts("served", now.served),
        _counts("rejected", now.rejected),
        _counts("discarded", now.discarded),
    )
    behind = [Panel(_counts("behind", now.feeds), title="feeds", title_align="left")]
    return Group(
        Text.assemble(("Penstock", "bold"), f" at {url}   Ctrl-C ends"),
        Panel(flow, title="events", title_align="left"),
        Panel(fresh, title="freshness", title_align="left"),
        Panel(law, title="conservation", title_align="left"),
        *(behind if now.feeds else []),
        Panel(kept, title="since the engine started", title_align="left"),
    )


def spark(values: list[float]) -> str:
    """Return numbers as a line of bars, one a value; what is not a number is a blank."""
    known = [value for value in values if not math.isnan(value)]
    most = max(known, default=0.0)
    return "".join(
        " " if math.isnan(value) else BARS[min(int(value / most * 8), 7) if most > 0 else 0]
        for value in values
    )


def _table(*rows: tuple[str, str, str]) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(min_width=26)
    table.add_column(justify="right", min_width=12)
    table.add_column()
    for row in rows:
        table.add_row(*row)
    return table


def _counts(name: str, counts: Mapping[str, int]) -> Text:
    """Return counts by label in lines that a terminal of 80 columns shows whole."""
    lines = [""]
    for label, count in counts.items():
        part = f"{label} {count:,}"
        if lines[-1] and len(lines[-1]) + len(part) > COUNTS_CHARS:
            lines.append("")
        lines[-1] += f" · {part}" if lines[-1] else part
    return Text(f"{name:<12}" + f"\n{'':<12}".join(lines) if counts else f"{name:<12}none")


def _ms(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:,.1f} ms"


# -- the command


@click.command()
@PROJECT
@JSON
@click.option("--every", default=1.0, show_default=True, type=click.FloatRange(0.1, 60),
              help="Seconds between two looks.")  # fmt: skip
@click.option("--once", is_flag=True, help="Look twice, print once, and end.")
def command(project_dir: Path, as_json: bool, every: float, once: bool) -> None:
    """Watch the running engine: rates, lag, freshness, conservation, and what was rejected."""
    root = project_dir.resolve()
    settings = load_settings(root / "penstock.toml")
    data_dir = root / settings.data_dir
    folds = settings.fold.by != "workers"
    url = running_url(data_dir)
    if not url:
        raise Unavailable("E414", "no engine runs on this project", where=str(data_dir),
                          fix="start it with `penstock up`")  # fmt: skip
    with httpx.Client(base_url=url, timeout=10) as http:
        first = before = _look(http)
        history: deque[Figures] = deque(maxlen=SAMPLES_MAX)
        if once or as_json or not out.is_terminal:
            time.sleep(every)
            history.append(figures(first, before, _look(http), folds=folds))
            if as_json:
                click.echo(json.dumps(_plain(history[-1]), indent=2))
            else:
                out.print(screen(url, history))
            return
        with Live(console=out, screen=True, auto_refresh=False) as live:
            while True:
                time.sleep(every)
                now = _look(http)
                history.append(figures(first, before, now, folds=folds))
                before = now
                live.update(screen(url, history), refresh=True)


def _look(http: httpx.Client) -> Sample:
    try:
        answer = http.get("/metrics").raise_for_status()
    except httpx.HTTPError as error:
        raise Unavailable("E414", f"the engine does not answer: {type(error).__name__}", where="/metrics",
                          fix="see whether `penstock up` still runs")  from error  # fmt: skip
    return parse(time.monotonic(), answer.text)


def _plain(now: Figures) -> dict[str, Any]:
    """Return figures for JSON, which has no NaN."""
    return {
        name: None if isinstance(value, float) and math.isnan(value) else value
        for name, value in now._asdict().items()
    }
