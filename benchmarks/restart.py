"""From exec to ready, and to the first answer, of a server that was killed, on logs of two sizes."""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import NamedTuple

from benchmarks import loads, servers, workload
from benchmarks.crowd import Crowd
from benchmarks.measure import Row, amount
from benchmarks.sampling import shares
from benchmarks.servers import START, Server
from benchmarks.workload import Sizes
from penstock.compose import open_stores
from penstock.core.record import Version
from penstock.flows.history import index_closed
from penstock.flows.replay import LIVE_EPOCH
from penstock.project import load_project

READY_S, ANSWER_S = (5.0, 2.0), (1.0, 0.6)
GROUP = 5_000
TAIL = 2_000
"""Events that a server takes in just before it is killed: it folds them anew."""
POLL_S = 0.005
STAGES = """
import json, sys, time
stages, before = {}, 0.0
def stage(name):
    global before
    now = time.process_time()
    stages[name], before = now - before, now
stage("the interpreter")
import penstock.cli.main, penstock.cli.up
stage("modules imported")
from pathlib import Path
from penstock.project import load_project
load_project(Path(sys.argv[1]))
stage("the project loaded")
print(json.dumps(stages))
"""
"""What a start does first, in its order."""
LIMIT_S = 60.0


class Started(NamedTuple):
    """Seconds from exec."""

    answer_s: float
    """Until somebody's profile was answered, by whatever was known."""
    ready_s: float
    """Until the same was answered live, and events could be taken and folded."""
    cpu_s: float
    """CPU time until then: on a machine that is busy the clock says little."""


def measure(sizes: Sizes, work: Path) -> list[Row]:
    """Measure starts after a kill; the larger log is the smaller one that went on."""
    rows: list[Row] = []
    server = servers.penstock(work, loads.server_core())
    who = _take_in(server, 0)
    server.quiet()
    server.stop()
    project = work / "project"
    crowd = Crowd(min(sizes.people, sizes.logs[0]), sizes.crowd_events)
    for records in sizes.logs:
        _lengthen(project, crowd, records)
        started = [_restarted(project, who, turn + 1) for turn in range(sizes.rounds)]
        cpu_s = median(one.cpu_s for one in started)
        log = f"log of {records:,} records"
        rows += [
            amount("restart", f"killed → ready and live, {log}", "cold", "s",
                   [one.ready_s for one in started], floor=READY_S[0], goal=READY_S[1],
                   note=f"{TAIL:,} events were taken in just before the kill; {cpu_s:.2f} s of CPU time"),
            amount("restart", f"killed → first answer, {log}", "cold", "s",
                   [one.answer_s for one in started], floor=ANSWER_S[0], goal=ANSWER_S[1]),
        ]  # fmt: skip
        rows[-1].spent = rows[-2].spent = _stages(project, cpu_s)
    return rows


def _stages(project: Path, cpu_s: float) -> dict[str, float]:
    """Return what a start's CPU time goes on: stage -> share."""
    done = subprocess.run(
        [sys.executable, "-c", STAGES, str(project)], capture_output=True, text=True, check=True,
        timeout=LIMIT_S, env=servers.environment(project.parent),
    )  # fmt: skip
    found: dict[str, float] = json.loads(done.stdout)
    return shares(
        {**found, "files opened, routes made, the tail folded": cpu_s - sum(found.values())}
    )


def _take_in(server: Server, turn: int) -> str:
    """Take events in; return who is in them."""
    wire = workload.first_visits(TAIL).wire
    bodies = [raw.replace(b'"messageId":"f', b'"messageId":"t%d-' % turn) for raw in wire]
    for start in range(0, len(bodies), 500):
        body = workload.batch_body(bodies[start : start + 500])
        status, _ = server.request("POST", "/v1/batch", body, workload.BASIC)
        assert status == 200, "the events are taken"
    return json.loads(wire[0])["anonymousId"]


def _lengthen(folder: Path, crowd: Crowd, records: int) -> None:
    """Make a project's log as long as asked; its leaves cover it, and its index is up to date.

    The records are of people who have no leaves: how long a start takes may depend on the length of
    the log, and folding a million records would take most of a minute.
    """
    stores = open_stores(load_project(folder))
    log, store = stores.log, stores.store
    epoch = int(store.get_meta(LIVE_EPOCH) or 1)
    values = crowd.stream(crowd.base, min(records, 50_000), "uniform", 0).values
    while (lacking := records - log.head(0)) > 0:
        for start in range(0, min(len(values), lacking), GROUP):
            log.append(0, values[start : start + GROUP])
    applied = Version(log.generation, log.head(0) - 1)
    store.write(epoch, [], partition=0, applied=applied)
    while index_closed(log, stores.index, segments_max=1):
        pass
    stores.close()


def _restarted(project: Path, who: str, turn: int) -> Started:
    """Start a server, note when it answers, have it take events in, and kill it."""
    servers.said_file(project).unlink(missing_ok=True)  # what was killed left it behind
    command = [sys.executable, "-c", START, "up", str(project), "--port", "0"]
    started_at = time.perf_counter()
    server = Server(
        command, project.parent, lambda: servers.told_port(project), loads.server_core(), wait=False
    )
    try:
        answer_s = ready_s = cpu_s = 0.0
        while not ready_s:
            port = servers.told_port(project)
            if port and not answer_s and _asked(port, f"/v1/profiles/anonymous_id:{who}"):
                answer_s = time.perf_counter() - started_at
            if port and answer_s and _live(port, who):
                ready_s, cpu_s = time.perf_counter() - started_at, server.cpu_s()
            assert server.process.poll() is None, "it starts"
            assert time.perf_counter() - started_at < LIMIT_S, "it becomes ready"
            time.sleep(POLL_S)
        assert port, "it is ready"
        server.port = port
        _take_in(server, turn)
    finally:
        server.kill()
    return Started(answer_s, ready_s, cpu_s)


def _live(port: int, who: str) -> bool:
    found = _asked(port, f"/v1/profiles/anonymous_id:{who}")
    return found is not None and found["served"] == "live" and _asked(port, "/ready") is not None


def _asked(port: int, path: str) -> dict[str, object] | None:
    """Return an answer, None if there is none that is good."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=LIMIT_S)
    try:
        connection.request("GET", path, headers={"Authorization": f"Bearer {workload.READ_KEY}"})
        answer = connection.getresponse()
        body = answer.read()
    except OSError:
        return None
    finally:
        connection.close()
    return json.loads(body) if answer.status == 200 else None
