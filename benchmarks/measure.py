"""How a figure is taken: interleaved rounds, CPU time beside the clock, medians, and rows of a table."""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import msgspec

from penstock.cli.up import GC_THRESHOLDS

CEILINGS = frozenset({"ms", "s", "MB"})
"""Units of which less is better: `floor` and `goal` are the most that there may be."""


class Sample(NamedTuple):
    """One round of one measurement."""

    count: int
    """Events, requests or profiles done."""
    cpu_s: float
    """User and system time of the process that is measured, in all threads."""
    wall_s: float
    p50_ms: float = 0.0
    p99_ms: float = 0.0
    failed: int = 0
    """Answers that were not 200."""

    @property
    def per_core_s(self) -> float:
        """What one core does in a second: count divided by CPU time."""
        return self.count / max(self.cpu_s, 1e-9)

    @property
    def per_wall_s(self) -> float:
        """What was done in a second of the clock."""
        return self.count / max(self.wall_s, 1e-9)


class Row(msgspec.Struct, kw_only=True):
    """One line of the table."""

    group: str
    work: str
    state: str
    """Distribution and temperature, such as `zipf, hot`."""
    unit: str
    rate: float
    """Median a second: per core for work in this process, of the clock for what goes over HTTP; of
    seconds and megabytes the median itself."""
    low: float
    high: float
    cpu_us: float
    wall_rate: float
    """Median a second of the clock."""
    p50_ms: float = 0.0
    p99_ms: float = 0.0
    floor: float = 0.0
    """0 if there is none; of milliseconds a ceiling."""
    goal: float = 0.0
    """What is aimed at beyond the floor."""
    against: dict[str, tuple[float, float]] = {}
    """Peer -> (floor, goal) of the ratio of CPU times, theirs by ours; 0 if there is none."""
    beside: dict[str, tuple[float, float]] = {}
    """Peer -> (our rate by theirs, their CPU time by ours): above 1 we are ahead."""
    note: str = ""
    spent: dict[str, float] = {}
    """Part of the code -> share of the CPU time, the largest first; empty if it was not sampled."""

    @property
    def reached(self) -> float:
        """What floor and goal are compared with: the rate; of milliseconds the 99th percentile."""
        return self.p99_ms if self.unit == "ms" else self.rate

    def missed(self, wanted: float) -> str:
        """Return by how much a floor or a goal is missed, or a ceiling exceeded; empty if it is not."""
        if self.unit in CEILINGS:
            over = self.reached / wanted
            return "" if over <= 1 else f"missed: {over:.2f} times the {wanted:.3g} {self.unit}"
        return _short(self.reached / wanted)

    def targets(self, which: int) -> list[str]:
        """Return the floors (0) or the goals (1), each with whether it is kept.

        A ratio to a peer is that of CPU times: of two processes on shared cores the clock says little.
        """
        wanted = (self.floor, self.goal)[which]
        said: list[str] = []
        if wanted:
            shown = f"{wanted:,.0f}"
            if self.unit in CEILINGS:
                shown = f"{'p99 ' * (self.unit == 'ms')}{wanted:.3g} {self.unit}"
            said.append(f"{shown}: {self.missed(wanted) or 'kept'}")
        for peer, pair in self.against.items():
            if peer in self.beside and pair[which]:
                short = _short(self.beside[peer][1] / pair[which])
                said.append(f"{pair[which]:g} x {peer}: {short or 'kept'}")
        return said


def _short(share: float) -> str:
    return "" if share >= 1 else f"missed by {100 * (1 - share):.0f} %"


def like_the_server() -> None:
    """Set garbage collection as `penstock up` does: what is loaded is frozen, thresholds are high."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)


def timed(count: int, work: Callable[[], Any]) -> Sample:
    """Return a sample of work done in this process."""
    cpu, wall = time.process_time(), time.perf_counter()
    work()
    return Sample(count, time.process_time() - cpu, time.perf_counter() - wall)


def interleaved(
    rounds: int, measurements: Mapping[str, Callable[[], Sample]]
) -> dict[str, list[Sample]]:
    """Return samples of all measurements, each once a round, in turn forwards and backwards."""
    samples: dict[str, list[Sample]] = {name: [] for name in measurements}
    for number in range(rounds):
        names = list(measurements)
        for name in names if number % 2 == 0 else reversed(names):
            samples[name].append(measurements[name]())
    return samples


def row(
    group: str, work: str, state: str, unit: str, samples: list[Sample], *, wall: bool = False,
    floor: float = 0.0, goal: float = 0.0, against: dict[str, tuple[float, float]] | None = None,
    note: str = "",
) -> Row:  # fmt: skip
    """Return the line of some samples: medians over the rounds.

    Args:
        group: Which benchmark.
        work: What was done.
        state: Distribution and temperature.
        unit: What is counted.
        samples: One a round.
        wall: Rates are of the clock, not of CPU time.
        floor: What this version promises.
        goal: What is aimed at.
        against: Peer -> (floor, goal) of the ratio of CPU times.
        note: What a reader must know.
    """
    rates = [one.per_wall_s if wall else one.per_core_s for one in samples]
    failed = sum(one.failed for one in samples)
    if failed:
        note = f"{failed} answers were not 200. {note}".strip()
    return Row(
        group=group, work=work, state=state, unit=unit, rate=median(rates), low=min(rates),
        high=max(rates), cpu_us=median(1e6 * one.cpu_s / max(one.count, 1) for one in samples),
        wall_rate=median(one.per_wall_s for one in samples),
        p50_ms=median(one.p50_ms for one in samples), p99_ms=median(one.p99_ms for one in samples),
        floor=floor, goal=goal, against=against or {}, note=note,
    )  # fmt: skip


def amount(
    group: str, work: str, state: str, unit: str, found: list[float], *, floor: float = 0.0,
    goal: float = 0.0, note: str = "",
) -> Row:  # fmt: skip
    """Return the line of an amount of which less is better, such as seconds until something is done."""
    assert unit in CEILINGS, "of a rate more is better"
    return Row(
        group=group, work=work, state=state, unit=unit, rate=median(found), low=min(found), high=max(found),
        cpu_us=0.0, wall_rate=0.0, floor=floor, goal=goal, note=note,
    )  # fmt: skip


def resident_mb() -> float:
    """Return the memory of this process that is in RAM, in MB."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def compare(ours: Row, **peers: Row) -> Row:
    """Note how a row stands beside others that were measured in the same rounds."""
    for name, peer in peers.items():
        ours.beside[name] = (ours.rate / max(peer.rate, 1e-9), peer.cpu_us / max(ours.cpu_us, 1e-9))
    return ours


def cpu_seconds(pid: int) -> float:
    """Return the user and system time that a process has used, in all its threads."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
