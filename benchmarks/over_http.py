"""The collector and the profile read over HTTP, beside FastAPI and nginx in the same rounds."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from benchmarks import loads, servers, workload
from benchmarks.freshness import measure as measure_freshness
from benchmarks.loads import Load
from benchmarks.measure import Row, Sample, compare, interleaved, row
from benchmarks.servers import Server
from benchmarks.workload import Sizes

BODY_EVENTS = 500


def measure(sizes: Sizes, work: Path) -> tuple[list[Row], list[str]]:
    """Measure what goes over HTTP; also return what was left out, and why."""
    people = sizes.people
    single, batch, profile = loads.write_loads(work, people, "zipf")
    notes: list[str] = []
    if loads.WRK is None:
        notes.append("wrk is not installed: a Python client loads the servers, and costs more")
    with ExitStack() as stack:
        ours = _started(stack, work, "penstock", servers.penstock)
        _fill(ours, people)
        known = _profiles(ours, profile)
        theirs = _started(stack, work, "fastapi", servers.fastapi)
        _fill_peer(work / "fastapi" / "peer.db", known)
        (work / "nginx").mkdir()
        constant = servers.nginx(work / "nginx", loads.server_core(), next(iter(known.values())))
        if constant is None:
            notes.append("nginx is not installed: no ratio to it (`apt-get install nginx wrk`)")
        else:
            stack.callback(constant.stop)
        rows = _rates(sizes, (single, batch, profile), ours, theirs, constant)
        # Afresh: what the loads above left behind is more than a shop's day.
        ours.stop()
        again = _started(stack, work, "freshness", servers.penstock)
        _fill(again, people)
        rows.append(measure_freshness(sizes, again, single, rows[0].wall_rate))
    return rows, notes


def _started(
    stack: ExitStack, work: Path, name: str, start: Callable[[Path, int | None], Server]
) -> Server:
    folder = work / name
    folder.mkdir()
    server = start(folder, loads.server_core())
    stack.callback(server.stop)
    return server


def _rates(
    sizes: Sizes,
    sent: tuple[Load, Load, Load],
    ours: Server,
    theirs: Server,
    constant: Server | None,
) -> list[Row]:
    measurements: dict[str, Callable[[], Sample]] = {}
    for kind, load in zip(("single", "batch", "profile"), sent, strict=True):
        for name, server in (("penstock", ours), ("fastapi", theirs), ("nginx", constant)):
            if server is not None and (kind, name) != ("batch", "nginx"):
                measurements[f"{kind} {name}"] = lambda load=load, server=server: loads.run(
                    load, server, sizes.http_s
                )
    found = interleaved(sizes.rounds, measurements)
    texts = {
        "single": ("POST /v1/track, fsynced before the 200, folded and written", "events",
                   "FastAPI: validated and fsynced, nothing more"),
        "batch": (f"POST /v1/batch of {loads.BATCH}, likewise", "events", ""),
        "profile": ("GET /v1/profiles/…", "requests", "FastAPI: the same JSON from SQLite"),
    }  # fmt: skip
    against = {
        "single": {"nginx": (0.30, 0.40), "FastAPI": (6.0, 8.0)},
        "batch": {"FastAPI": (10.0, 14.0)},
        "profile": {"nginx": (0.30, 0.40), "FastAPI": (4.0, 6.0)},
    }
    rows: list[Row] = []
    for kind, (work, unit, note) in texts.items():
        peers = {
            label: row("http", f"{label}: {kind}", "zipf, hot", unit, found[f"{kind} {name}"], wall=True)
            for label, name in (("FastAPI", "fastapi"), ("nginx", "nginx")) if f"{kind} {name}" in found
        }  # fmt: skip
        main = row(
            "http",
            work,
            "zipf, hot",
            unit,
            found[f"{kind} penstock"],
            wall=True,
            against=against[kind],
            note=note,
        )
        rows += [compare(main, **peers), *peers.values()]
    return rows


def _fill(server: Server, people: int) -> None:
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


def _profiles(server: Server, load: Load) -> dict[str, bytes]:
    """Return the answers to some profile reads, for the peers to give."""
    found: dict[str, bytes] = {}
    for path in load.file.read_text(encoding="utf-8").splitlines():
        status, body = server.request("GET", path, authorization=load.authorization)
        assert status == 200, "a profile is served"
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
