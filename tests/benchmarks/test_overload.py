"""More than a server can take, against `penstock up`: nothing that is promised depends on the load.

How much of its capacity a server keeps, and how fast, is measured by `python -m benchmarks.overload`;
what is here holds however slow the machine is.
"""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from benchmarks import overload, servers
from benchmarks.open_loop import kinds_of
from benchmarks.over_http import fill
from benchmarks.overload import NEVER_REFUSED, SERVED, Sender, recovery_s, report, write_mix
from penstock.adapters.clock import SystemClock
from penstock.adapters.log.sqlite import SqliteLog
from penstock.adapters.store.sqlite import SqliteStore
from penstock.core.record import Kind, decode_record
from penstock.core.step import Step
from penstock.flows.replay import LIVE_EPOCH
from penstock.project import load_project
from penstock.testing.audit import audit

PEOPLE = 200


def sent_ids(mix: Path, tag: str, numbers: dict[str, list[int]]) -> Counter[str]:
    """Return the message ids in some requests, by kind and number."""
    found: Counter[str] = Counter()
    for kind, _ in kinds_of(mix):
        if kind.name not in overload.EVENTS:
            continue
        for number in numbers[kind.name]:
            fresh = f"{tag}-{kind.name}-{number}-".encode()
            body = json.loads(fresh.join(kind.lines[number % len(kind.lines)]))
            found.update(one["messageId"] for one in body.get("batch", [body]))
    return found


def logged_ids(data: Path, tag: str) -> Counter[str]:
    """Return the message ids of a run in the log of a server that has ended."""
    found: Counter[str] = Counter()
    log = SqliteLog(data / "log.db", SystemClock())
    try:
        offset = 0
        while some := log.read(0, offset, 2_000):
            offset = some[-1].offset + 1
            records = [decode_record(one.value) for one in some]
            found.update(one.message_id for one in records if one.kind == Kind.PRIMARY)
    finally:
        log.close()
    return Counter({name: count for name, count in found.items() if name.startswith(tag)})


def problems(project_folder: Path) -> list[str]:
    """Return what log and store say of each other that must not be."""
    project = load_project(project_folder)
    log = SqliteLog(project.data_dir / "log.db", SystemClock())
    store = SqliteStore(project.data_dir / "store.db")
    try:
        epoch = int(store.get_meta(LIVE_EPOCH) or 1)
        return audit(log, store, Step(project.plan, project.step_rules()), epoch).problems
    finally:
        log.close()
        store.close()


@pytest.mark.parametrize(
    ("rate", "seconds", "connections"),
    [(1_500, 1.0, 100), pytest.param(9_000, 6.0, 600, marks=pytest.mark.slow)],
)
def test_laws_hold_under_more_than_a_server_can_take(tmp_path, rate, seconds, connections):
    server = servers.penstock(tmp_path, None)
    data, mix = tmp_path / "project" / "data", tmp_path / "mix.jsonl"
    try:
        fill(server, PEOPLE)
        write_mix(mix, PEOPLE, data)
        sender = Sender(server, mix, connections)
        found = sender.send((rate, seconds), (200, 2.0))
        server.quiet()
    finally:
        server.stop()
    over, after = found["phases"]
    for phase in (over, after):
        kinds: dict[str, dict[str, Any]] = phase["kinds"]
        for kind in (*NEVER_REFUSED, *SERVED):
            assert {"200"} >= set(kinds[kind]["statuses"]), f"{kind} is neither refused nor fails"
            assert 0 == kinds[kind]["cut_off"]
        for kind in ("event", "batch"):
            assert {"200", "429"} >= set(kinds[kind]["statuses"])
            assert 0 == kinds[kind]["without_hint"], "a refusal says when to come again"
        assert {"live", "stale", "fallback"} >= set(kinds["decide"]["served"])
    tag = sender.tag
    accepted = sent_ids(mix, tag, found["accepted"])
    refused = sent_ids(mix, tag, found["refused"])
    kept = logged_ids(data, tag)
    assert accepted
    assert {} == {name: count for name, count in accepted.items() if kept[name] != count}
    assert not refused.keys() & kept.keys(), "what was refused was not kept"
    assert [] == problems(tmp_path / "project")


def test_the_report_says_what_was_kept_and_by_how_much_the_rest_was_missed():
    kinds = {
        kind: {
            "sent": 100, "given_up": 0, "cut_off": 0, "statuses": {"200": 60}, "without_hint": 0,
            "accepted_events": 0, "served": {}, "p50_ms": 1.0, "p99_ms": 250.0,
        }
        for kind in overload.WEIGHTS
    }  # fmt: skip
    phase = {"rate": 50.0, "seconds": 4.0, "server_cpu_s": 2.0, "offered": 200, "kinds": kinds,
             "by_second": [[0, 0, 0.0], [0, 0, 0.0], [45, 3, 90.0], [45, 0, 100.0]]}  # fmt: skip
    best = {**phase, "by_second": [[0, 0, 0.0], [0, 0, 0.0], [100, 0, 90.0]], "server_cpu_s": 3.2}
    text = report({
        "capacity": best, "capacity_requests_s": 20.0, "unloaded": phase, "overload": phase,
        "after": phase, "client_cpu_s": 1.0, "load_average": [1.0, 1.0, 1.0],
    })  # fmt: skip
    assert "goodput by the clock: 0.45 of capacity; floor at least 0.9: missed by 50%" in text
    assert "goodput by CPU time: 0.72 of capacity; floor at least 0.9: missed by 20%" in text
    assert (
        "p99 of accepted events: 250.00 ms (unloaded 250.0 ms); floor at most 200: missed by 25%"
        in text
    )
    assert "recovered after: 4.00 s; floor at most 5: kept" in text
    assert "consent: 100 sent, 80 refused, failed or given up" in text


def test_an_overload_is_over_once_all_is_well_for_some_seconds():
    def after(*seconds: tuple[int, float]) -> float:
        return recovery_s({"by_second": [[10, lost, p99_ms] for lost, p99_ms in seconds]}, 200.0)

    well, refused, slow = (0, 90.0), (1, 90.0), (0, 201.0)
    assert 0 == after(well, well, well, refused)
    assert 2 == after(slow, refused, well, well, well, well)
    assert 4 == after(well, well, slow, slow, well, well, well)
    assert 3 == after(well, well, slow)
