"""What grows with people and events, and what must not: memory of hot profiles, and a shop that grows."""

from __future__ import annotations

from pathlib import Path

from benchmarks.apart import Apart, Mark
from benchmarks.crowd import Crowd
from benchmarks.durable import CACHED_MAX
from benchmarks.measure import Row, amount, row
from benchmarks.workload import START_MS, Sizes

FLOOR_MB, GOAL_MB = 250.0, 150.0
EVENTS_EACH = 2
"""Events of a hot profile on average, beside its first visit."""
PART = 20_000
PASSES = 5
"""Measurements at each size."""
WITHIN = 0.1
"""How far throughput and memory may move while a shop grows."""
SPAN_MS = 300 * 86_400_000
"""In which a shop grows."""
HISTORY_MS = 35 * 86_400_000
"""What the busy people have behind them when measuring begins: longer than any window of a feature,
so that what follows is not slower for what their leaves come to hold."""
HELD = 2
"""Leaves held for each of the hot people: a device and, of some, a user id, and room for newcomers."""


def measure_memory(sizes: Sizes, work: Path) -> list[Row]:
    """Measure what hot profiles take in the memory of the process that folds them."""
    people = sizes.hot_people
    crowd = Crowd(min(sizes.people, people), sizes.crowd_events)
    apart = Apart(work, CACHED_MAX)
    try:
        before = apart.mark()
        for first in range(0, people, PART):
            apart.take(crowd.visits(first, min(first + PART, people)))
        events = people * EVENTS_EACH
        for turn in range(-(-events // PART)):
            apart.take(crowd.stream(people, min(PART, events), "zipf", turn))
        after = apart.mark()
    finally:
        apart.close()
    took = after.resident_mb - before.resident_mb
    each = took / people * 100_000
    note = (
        f"{people:,} people of {EVENTS_EACH + 1} events on average, {after.leaves:,} leaves; "
        f"the process grew from {before.resident_mb:.0f} to {after.resident_mb:.0f} MB, SQLite's caches of pages with it"
    )
    found = amount("memory", "100,000 hot profiles", "zipf, hot", "MB", [each],
                   floor=FLOOR_MB, goal=GOAL_MB, note=note)  # fmt: skip
    of_leaves = min(after.leaves_mb / max(took, 1e-9), 1.0)
    found.spent = {part: share * of_leaves for part, share in after.parts.items()}
    found.spent["pages of SQLite, and what the allocator keeps"] = 1.0 - of_leaves
    return [found]


def measure_growth(sizes: Sizes, work: Path) -> list[Row]:
    """Measure the same few people's events while everybody else comes once and the log grows."""
    hot = sizes.grown[0]
    crowd = Crowd(min(sizes.people, hot), sizes.crowd_events)
    apart = Apart(work, hot * HELD)
    known, logged, turn = 0, 0, 0
    step_ms = SPAN_MS // sizes.grown_events
    stages: dict[int, list[Mark]] = {}

    def go_on() -> None:
        nonlocal logged, turn
        apart.take(crowd.stream(hot, sizes.durable_events, "uniform", turn, step_ms))
        logged, turn = logged + sizes.durable_events, turn + 1

    def measured() -> Mark:
        go_on()
        return apart.mark()

    try:
        for people in sizes.grown:
            while known < people:
                end = min(known + PART, people)
                now_ms = START_MS + turn * sizes.durable_events * step_ms
                apart.take(crowd.visits(known, end, now_ms))
                logged, known = logged + end - known, end
            while turn * sizes.durable_events * step_ms < HISTORY_MS:
                go_on()
            while (
                people == sizes.grown[-1]
                and logged < sizes.grown_events - PASSES * sizes.durable_events
            ):
                go_on()
            measured()  # the hot people are hot again
            stages[people] = [measured() for _ in range(PASSES)]
    finally:
        apart.close()
    return _rows(sizes, stages, logged)


def _rows(sizes: Sizes, stages: dict[int, list[Mark]], logged: int) -> list[Row]:
    hot = sizes.grown[0]
    first: Row | None = None
    rows: list[Row] = []
    for people, marks in stages.items():
        found = row("growth", f"log + fold + leaves + offset, {people:,} people", f"uniform, {hot:,} of them hot",
                    "events", [mark.sample for mark in marks],
                    floor=0.0 if first is None else (1 - WITHIN) * first.rate)  # fmt: skip
        first = first or found
        if people == sizes.grown[-1]:
            found.note = (
                f"after {logged:,} events; {found.rate / first.rate:.2f} of the rate at first"
            )
        rows.append(found)
    began = stages[hot][-1].resident_mb
    ended = [mark.resident_mb for mark in stages[sizes.grown[-1]]]
    held = f"{hot * HELD:,} leaves held"
    return [*rows, amount("growth", f"memory of the process, {sizes.grown[-1]:,} people", held, "MB", ended,
                          floor=(1 + WITHIN) * began, note=f"{began:.0f} MB at {hot:,} people; SQLite's caches of pages with it")]  # fmt: skip
