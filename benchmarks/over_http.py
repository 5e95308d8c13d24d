"""The collector and the profile read over HTTP, beside FastAPI and nginx in the same rounds."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import msgspec

from benchmarks import loads, servers, workload
from benchmarks.freshness import measure as measure_freshness
from benchmarks.loads import Load
from benchmarks.measure import Row, Sample, compare, interleaved, row
from benchmarks.servers import Server
from benchmarks.workload import Sizes

BODY_EVENTS = 500
STATE = "zipf, hot"


class Case(msgspec.Struct, frozen=True):
    """One line of what goes over HTTP: a load, who answers it, and who stands beside."""

    work: str
    load: str
    server: str
    peers: tuple[str, ...] = ()
    """Servers that are given the same load."""
    against: dict[str, tuple[float, float]] = {}
    floor: float = 0.0
    goal: float = 0.0
    unit: str = "requests"
    note: str = ""


CASES: dict[str, Case] = {
    "single": Case(
        "POST /v1/track: authenticated, consented, fsynced before the 200", "single", "collector",
        ("FastAPI", "nginx"), {"nginx": (0.30, 0.40), "FastAPI": (6.0, 8.0)}, unit="events",
        note="the collector alone; FastAPI does no more"),
    "batch": Case(
        f"POST /v1/batch of {loads.BATCH}, likewise", "batch", "collector", ("FastAPI",),
        {"FastAPI": (10.0, 14.0)}, unit="events"),
    "gzip": Case(
        f"POST /v1/batch of {loads.BATCH}, gzip", "gzip", "collector", (), {"plain": (0.8, 0.0)},
        unit="events"),
    "single folded": Case("POST /v1/track, folded, linked and written too", "single", "engine", unit="events"),
    "batch folded": Case(
        f"POST /v1/batch of {loads.BATCH}, folded, linked and written too", "batch", "engine", unit="events"),
    "profile": Case(
        "GET /v1/profiles/…", "profile", "penstock", ("FastAPI", "nginx"),
        {"nginx": (0.30, 0.40), "FastAPI": (4.0, 6.0)}, note="FastAPI: the same JSON from SQLite"),
    "many": Case(
        f"POST /v1/profiles, {loads.BATCH} people", "many", "penstock", floor=120_000, goal=200_000,
        unit="recipients"),
    "decide": Case(
        "GET /v1/decide/…, a send that is new", "decide", "decider", ("nginx",), {"nginx": (0.20, 0.30)},
        note="decided, recorded durably, one block rendered"),
    "again": Case(
        "GET /v1/decide/…, decided before", "again", "penstock", ("nginx",), {"nginx": (0.20, 0.30)},
        note="the same block for the same send"),
}  # fmt: skip
"""In the order of the table. A peer's line is measured once a load."""


def measure(sizes: Sizes, work: Path) -> tuple[list[Row], list[str]]:
    """Measure what goes over HTTP; also return what was left out, and why."""
    people = sizes.people
    sent = loads.write_loads(work, people, "zipf")
    notes: list[str] = []
    if loads.WRK is None:
        notes.append("wrk is not installed: a Python client loads the servers, and costs more")
    with ExitStack() as stack:
        ours = _started(stack, sizes, work, "penstock", servers.penstock)
        fill(ours, people)
        known = _answers(ours, sent["profile"])
        decided = _answers(ours, sent["again"])
        found = {
            "penstock": ours,
            # Reads have a server to themselves: what is made of a log later, as its index is, is not theirs.
            "engine": _started(stack, sizes, work, "engine", servers.penstock),
            "decider": _started(stack, sizes, work, "decider", servers.penstock),
            "collector": _started(stack, sizes, work, "collector", servers.collector),
            "FastAPI": _started(stack, sizes, work, "fastapi", servers.fastapi),
        }
        fill(found["engine"], people)
        fill(found["decider"], people)
        _fill_peer(work / "fastapi" / "peer.db", known)
        (work / "nginx").mkdir()
        constant = servers.nginx(
            work / "nginx", loads.server_core(), next(iter(known.values())), next(iter(decided.values()))
        )  # fmt: skip
        if constant is None:
            notes.append("nginx is not installed: no ratio to it (`apt-get install nginx wrk`)")
        else:
            stack.callback(constant.stop)
            found["nginx"] = constant
        rows = _rates(sizes, sent, found)
        # Afresh: what the loads above left behind is more than a shop's day.
        for name in ("penstock", "engine", "decider"):
            found[name].stop()
        again = _started(stack, sizes, work, "freshness", servers.penstock)
        fill(again, people)
        capacity_s = rows["single folded"].wall_rate
        fresh = measure_freshness(sizes, again, sent["single"], capacity_s)
    return [*rows.values(), fresh], notes


def _started(
    stack: ExitStack, sizes: Sizes, work: Path, name: str, start: Callable[[Path, int | None], Server]
) -> Server:  # fmt: skip
    folder = work / name
    folder.mkdir()
    server = start(folder, loads.server_core())
    stack.callback(server.stop)
    server.settle_s = min(server.settle_s, sizes.settle_s)
    return server


def _rates(sizes: Sizes, sent: dict[str, Load], found: dict[str, Server]) -> dict[str, Row]:
    """Return the rows of all cases and of their peers, in the order of the table."""
    measurements: dict[str, Callable[[], Sample]] = {}
    for name, case in CASES.items():
        for who in (case.server, *case.peers):
            key = name if who == case.server else f"{who}: {case.load}"
            if who in found:
                measurements[key] = lambda load=sent[case.load], server=found[who]: loads.run(
                    load, server, sizes.http_s
                )
    samples = interleaved(sizes.http_rounds or sizes.rounds, measurements)
    rows: dict[str, Row] = {}
    for name, case in CASES.items():
        peers = {
            who: row("http", f"{who}: {case.load}", STATE, case.unit, samples[f"{who}: {case.load}"], wall=True)
            for who in case.peers if who in found
        }  # fmt: skip
        ours = row(
            "http", case.work, STATE, case.unit, samples[name], wall=True, floor=case.floor,
            goal=case.goal, against=case.against, note=case.note,
        )  # fmt: skip
        rows[name] = compare(ours, **peers)
        rows |= {f"{who}: {case.load}": peer for who, peer in peers.items()}
    compare(rows["gzip"], plain=rows["batch"])
    for name in ("single", "batch"):
        after_us = rows[f"{name} folded"].cpu_us - rows[name].cpu_us
        rows[f"{name} folded"].note = f"of it {after_us:.1f} µs an event after the append"
    for name, case in CASES.items():
        if case.floor or case.against:
            server, load = found[case.server], sent[case.load]
            rows[name].spent = server.sampled(
                lambda load=load, server=server: loads.run(load, server, sizes.http_s / 2)
            )
    return rows


def fill(server: Server, people: int) -> None:
    """Load the catalogue, and one view of everybody."""
    rows = workload.items()
    for first in range(0, len(rows), 500):
        asked = {"kind": "items", "rows": rows[first : first + 500], "source": "backend",
                 "job": "catalogue", "first": first + 1}  # fmt: skip
        status, answer = server.request(
            "POST", "/v1/admin/load", json.dumps(asked).encode(), f"Bearer {workload.ADMIN_KEY}"
        )
        assert status == 200, "the catalogue is taken"
        assert not json.loads(answer)["refused"], "all of the catalogue is taken"
    wire = workload.first_visits(people).wire
    for start in range(0, len(wire), BODY_EVENTS):
        body = workload.batch_body(wire[start : start + BODY_EVENTS])
        status, _ = server.request("POST", "/v1/batch", body, workload.BASIC)
        assert status == 200, "the first visits are taken"
    server.quiet()


def _answers(server: Server, load: Load) -> dict[str, bytes]:
    """Return the answers to some reads, for the peers to give; by what the path ends with."""
    found: dict[str, bytes] = {}
    for path in load.file.read_text(encoding="utf-8").splitlines():
        status, body = server.request("GET", path, authorization=load.authorization)
        assert status == 200, "a read is served"
        found[path.rpartition("/")[2]] = body
    return found


def _fill_peer(path: Path, known: dict[str, bytes]) -> None:
    connection = sqlite3.connect(path)
    with connection:
        connection.executemany(
            "INSERT OR REPLACE INTO profiles VALUES (?, ?)",
            ((identifier, body.decode()) for identifier, body in known.items()),
        )
    connection.close()
