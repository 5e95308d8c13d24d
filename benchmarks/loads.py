"""Loads on a server: a client process, bounded in time, on a core of its own where there is one."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import count
from pathlib import Path

from benchmarks import workload
from benchmarks.client import GZIP
from benchmarks.measure import Sample
from benchmarks.servers import SETTLE_S, TASKSET, Server
from penstock.core.time import format_instant

WRK = shutil.which("wrk")
CONNECTIONS = 64
LUA = Path(__file__).parent / "load.lua"
BATCH = 100
EVENTS = 40_000
"""Events in the files that are sent round and round, with fresh ids; enough that nobody gets more than
their share."""
READ = 2_000
"""People whose profiles are read."""
DECIDED = 500
"""People who are asked about again."""

READS = frozenset({"profile", "many", "again"})
"""Loads that leave nothing to do."""

_tags = count()


@dataclass(frozen=True)
class Load:
    """What is sent: lines of a file, to one path."""

    method: str
    path: str
    file: Path
    authorization: str
    each: int = 1
    """Events or profiles in a request."""
    after: bool = True
    """Whether work follows the answer, such as leaves to write."""


def server_core() -> int | None:
    """Return the core that servers are pinned to; None on a machine with one."""
    return 0 if (os.cpu_count() or 1) > 1 else None


def client_core() -> int | None:
    """Return the core that clients are pinned to; None on a machine with one."""
    return 1 if (os.cpu_count() or 1) > 1 else None


def command_of(load: Load, server: Server, seconds: float, rate: float = 0.0) -> list[str]:
    """Return the client's command: `wrk` for a closed loop if it is installed, else our own."""
    tag = f"t{os.getpid():x}-{next(_tags)}-"
    pin = [TASKSET, "-c", str(client_core())] if TASKSET and client_core() is not None else []
    if WRK is not None and not rate and seconds >= 1:
        return [*pin, WRK, "-t1", f"-c{CONNECTIONS}", f"-d{round(seconds)}s", "-s", str(LUA),
                f"{server.url}{load.path}", "--", load.method, str(load.file), load.authorization, tag]  # fmt: skip
    return [*pin, sys.executable, "-m", "benchmarks.client", str(server.port), load.method, load.path,
            str(load.file), load.authorization, tag, str(seconds), str(CONNECTIONS), str(rate)]  # fmt: skip


def result_of(output: str) -> dict[str, int]:
    """Return what a client found."""
    lines = [line for line in output.splitlines() if line.startswith("RESULT ")]
    assert lines, "the client printed no result"
    return json.loads(lines[-1].removeprefix("RESULT "))


def run(load: Load, server: Server, seconds: float) -> Sample:
    """Load a quiet server, wait until it has done all that follows, and say what both cost it."""
    before = server.cpu_s()
    done = subprocess.run(
        command_of(load, server, seconds), cwd=Path(__file__).parent.parent, capture_output=True,
        text=True, check=True, timeout=seconds + 30,
    )  # fmt: skip
    # What is folded and written after the answer is part of the price.
    server.quiet(server.settle_s if load.after else min(server.settle_s, SETTLE_S))
    found = result_of(done.stdout)
    return Sample(
        found["requests"] * load.each, server.cpu_s() - before, found["duration_us"] / 1e6,
        found["p50_us"] / 1000, found["p99_us"] / 1000, found["failed"],
    )  # fmt: skip


def write_loads(folder: Path, people: int, skew: str) -> dict[str, Load]:
    """Return what is sent, by name, its lines written to files.

    The events are the workload's, restamped to now; `@@` stands where a client makes an id fresh.

        single   one event
        batch    100 events
        gzip     the same, compressed as SDKs do, each body made once
        profile  one profile
        many     100 profiles in one request
        decide   content of one person in a send that is new: decided, recorded, rendered
        again    content of one person in a send that was decided before
    """
    crowd = workload.stream(people, min(EVENTS, 4 * people), skew)
    now_ms = int(datetime.now(UTC).timestamp() * 1000)
    lines: list[str] = []
    for place, raw in enumerate(crowd.wire):
        body = json.loads(raw)
        body["messageId"] = "@@" + body["messageId"]
        body["timestamp"] = format_instant(now_ms - 60_000 + place)
        lines.append(json.dumps(body, separators=(",", ":")))
    batches = [
        '{"batch":[' + ",".join(lines[start : start + BATCH]) + "]}"
        for start in range(0, len(lines), BATCH)
    ]
    seen = list(dict.fromkeys(json.loads(line)["anonymousId"] for line in lines))[:READ]
    hundreds = [[seen[(first + place) % len(seen)] for place in range(BATCH)]
                for first in range(0, len(seen), BATCH)]  # fmt: skip
    reader = f"Bearer {workload.READ_KEY}"

    def load(
        name: str, method: str, path: str, lines: list[str], key: str = reader, each: int = 1
    ) -> Load:
        file = folder / f"{name}.txt"
        file.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return Load(method, path, file, key, each, after=name not in READS)

    decide = "/v1/decide/offer?anonymous_id="
    return {
        "single": load("single", "POST", "/v1/track",
                       [line for line in lines if '"type":"track"' in line], workload.BASIC),
        "batch": load("batch", "POST", "/v1/batch", batches, workload.BASIC, BATCH),
        "gzip": load("gzip", GZIP, "/v1/batch",
                     [gzip.compress(one.replace("@@", "g-").encode(), 6).hex() for one in batches],
                     workload.BASIC, BATCH),
        "profile": load("profile", "GET", "/v1/profiles/x",
                        [f"/v1/profiles/anonymous_id:{one}" for one in seen]),
        "many": load("many", "POST", "/v1/profiles",
                     [json.dumps({"people": [{"anonymous_id": one} for one in hundred]}) for hundred in hundreds],
                     each=BATCH),
        "decide": load("decide", "GET", "/v1/decide/offer", [f"{decide}{one}&send=@@" for one in seen]),
        "again": load("again", "GET", "/v1/decide/offer",
                      [f"{decide}{one}&send=again" for one in seen[:DECIDED]]),
    }  # fmt: skip
