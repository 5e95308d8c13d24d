"""What becomes of a server that is offered 2.5 times what it can do, for a minute.

    python -m benchmarks.overload [--seconds 60] [--times 2.5] [--connections 2000] [--json FILE]

One process serves, as `penstock up` does; another sends, in an open loop. It is what a shop's traffic
is made of: single events, batches of ten, reads of content and profiles, withdrawals of consent and
one-click unsubscribes. First the capacity is found: the most events a second that are accepted at any
of some rates offered, each twice as high as the one before until more is refused than taken, and then
between the best two. Then the unloaded times, at a third of it. Then 2.5 times as much, and last, at once
after it, seven tenths: how long until nothing is refused any more and nobody waits longer than before.

Whose core it is matters: where other programs run beside, as on a shared machine, the server gets less of
it in one phase than in another. So goodput is also given by the server's CPU time: events accepted for a
second of it, under overload and at capacity. The client takes about a third of a core of its own; with
`--pin` each of the two has one core to itself, as far as nobody else is on it.

Refused requests are not sent again: whoever sends 2.5 times as much goes on doing so. Consents, unsubscribes
and reads of content come 2.5 times as often too, and none of them is refused: what they cost is missing
from what is left for events.

Floors: goodput 0.9 of capacity, p99 of accepted requests at most twice the unloaded limit of 100 ms,
recovered in 5 s, no unsubscribe or consent refused, no content refused or failed.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks import servers, workload
from benchmarks.over_http import fill
from benchmarks.servers import Server
from benchmarks.workload import BASIC, FULL, READ_KEY
from penstock.adapters.keys.file import FileKeys
from penstock.core.ids import leaf_id
from penstock.core.time import format_instant
from penstock.core.tokens import sign_unsubscribe
from penstock.ports.keys import IDENTIFIER_KEY, TOKEN_KEY

ROOT = Path(__file__).parent.parent
BATCH = 10
LIMIT_MS = 100.0
"""What an accepted request may take unloaded, at the 99th percentile."""
STEP_S = 8.0
FILLING_S = 2
FIRST_RATE = 400.0
STEADY_S = 3
"""How long all must be well again to count as recovered."""
WEIGHTS = {
    "event": 0.66, "batch": 0.28, "decide": 0.02, "profile": 0.02, "consent": 0.01, "unsubscribe": 0.01,
}  # fmt: skip
FORM = "content-type: application/x-www-form-urlencoded\r\ncontent-length: 26"
EVENTS = ("event", "batch", "consent")
NEVER_REFUSED = ("consent", "unsubscribe")
SERVED = ("decide", "profile")


def write_mix(file: Path, people: int, data: Path) -> None:
    """Write the requests of each kind for the client process.

    Args:
        file: Where to.
        people: How many people there are.
        data: The server's data folder, whose keys sign unsubscribe links.
    """
    crowd = workload.stream(people, min(20_000, 4 * people), "zipf")
    now_ms = int(datetime.now(UTC).timestamp() * 1000)
    lines: list[str] = []
    for place, raw in enumerate(crowd.wire):
        body = json.loads(raw)
        body["messageId"] = "@@" + body["messageId"]
        body["timestamp"] = format_instant(now_ms - 60_000 + place)
        lines.append(json.dumps(body, separators=(",", ":")))
    keys = FileKeys(data / "keys.json")
    who = list(dict.fromkeys(json.loads(line)["anonymousId"] for line in lines))[:2_000]
    emails = [
        leaf_id(keys.get(IDENTIFIER_KEY), "default", "email", f"u{n}@example.com")
        for n in range(2_000)
    ]
    post = "POST {} HTTP/1.1\r\nhost: h\r\nauthorization: {}\r\ncontent-type: application/json\r\n"
    get = "GET %s HTTP/1.1\r\nhost: h\r\nauthorization: Bearer " + READ_KEY + "\r\n\r\n"
    kinds: dict[str, tuple[str, list[str]]] = {
        "event": (post.format("/v1/track", BASIC), [line for line in lines if '"type":"track"' in line]),
        "batch": (post.format("/v1/batch", BASIC), [
            '{"batch":[' + ",".join(lines[start : start + BATCH]) + "]}"
            for start in range(0, len(lines) - BATCH, BATCH)
        ]),
        "decide": (get, [f"/v1/decide/offer?anonymous_id={one}&send=@@" for one in who]),
        "profile": (get, [f"/v1/profiles/anonymous_id:{one}" for one in who]),
        "consent": (post.format("/v1/track", BASIC), [
            json.dumps({"type": "track", "event": "Segment Consent Preference Updated", "messageId": f"@@{one}",
                        "anonymousId": one,
                        "context": {"consent": {"categoryPreferences": {"personal": True, "statistics": False}}}},
                       separators=(",", ":"))
            for one in who
        ]),
        "unsubscribe": (
            f"POST %s HTTP/1.1\r\nhost: h\r\n{FORM}\r\n\r\nList-Unsubscribe=One-Click",
            [f"/v1/unsubscribe/{sign_unsubscribe(keys.get(TOKEN_KEY), leaf)}" for leaf in emails],
        ),
    }  # fmt: skip
    file.write_text("".join(
        json.dumps({"kind": kind, "weight": WEIGHTS[kind], "head": head, "lines": bodies}) + "\n"
        for kind, (head, bodies) in kinds.items()
    ), encoding="utf-8")  # fmt: skip


class Sender:
    """Sends loads to a server, each by a process of its own that ends by itself.

    Args:
        server: Where to.
        mix: What is sent, a file of `write_mix`.
        connections: How many.
        core: The core to pin the senders to; None for any.
    """

    def __init__(
        self, server: Server, mix: Path, connections: int, core: int | None = None
    ) -> None:
        self.pin = servers.pinned(core)
        self.server = server
        self.mix = mix
        self.connections = connections
        self.runs = 0

    @property
    def tag(self) -> str:
        """What the message ids of the last load begin with."""
        return f"t{os.getpid():x}{self.runs}"

    def send(self, *phases: tuple[float, float]) -> dict[str, Any]:
        """Send phases of (requests a second, seconds); return what came of them."""
        self.runs += 1
        spans = ",".join(f"{rate:.0f}:{seconds}" for rate, seconds in phases)
        out = self.mix.with_name("found.json")
        client = subprocess.Popen(
            [*self.pin, sys.executable, "-m", "benchmarks.open_loop", str(self.server.port), str(self.mix),
             self.tag, str(self.connections), spans, str(out)],
            cwd=ROOT,
        )  # fmt: skip
        ending = time.monotonic() + sum(seconds for _, seconds in phases) + 60
        used: list[tuple[float, float]] = []
        while client.poll() is None:
            used.append((time.time(), self.server.cpu_s()))
            if time.monotonic() > ending:
                client.kill()
            time.sleep(0.1)
        assert client.returncode == 0, "the client ends by itself"
        found = json.loads(out.read_text(encoding="utf-8"))
        for phase in found["phases"]:
            first, last = (
                next((cpu for at_s, cpu in used if at_s >= when), used[-1][1])
                for when in (phase["started_at_s"] + FILLING_S, phase["started_at_s"] + phase["seconds"])
            )  # fmt: skip
            phase["server_cpu_s"] = last - first
        return found


def accepted_s(phase: dict[str, Any]) -> float:
    """Return the events accepted a second, without the first seconds, which fill the queues."""
    seconds = phase["by_second"][FILLING_S:]
    return sum(accepted for accepted, _, _ in seconds) / len(seconds)


def accepted_cpu_s(phase: dict[str, Any]) -> float:
    """Return the events accepted for a second of the server's CPU time."""
    seconds = max(phase["seconds"] - FILLING_S, 1.0)
    return accepted_s(phase) * seconds / max(phase["server_cpu_s"], 1e-3)


def core_share(phase: dict[str, Any]) -> float:
    """Return how much of a core the server had."""
    return phase["server_cpu_s"] / max(phase["seconds"] - FILLING_S, 1.0)


def refused_share(phase: dict[str, Any]) -> float:
    """Return the share of requests with events that were not accepted."""
    kinds = [phase["kinds"][kind] for kind in ("event", "batch")]
    offered = sum(one["sent"] + one["given_up"] for one in kinds)
    taken = sum(one["statuses"].get("200", 0) for one in kinds)
    return 1 - taken / max(offered, 1)


def find_capacity(
    sender: Sender, step_s: float = STEP_S
) -> tuple[dict[str, Any], float, list[str]]:
    """Return the phase at capacity, what was offered when all was taken, and how it was found."""
    tried: dict[float, float] = {}
    phases: dict[float, dict[str, Any]] = {}
    said: list[str] = []

    def attempt(rate: float) -> float:
        (phase,) = sender.send((rate, step_s))["phases"]
        sender.server.quiet()
        tried[rate], phases[rate] = accepted_s(phase), phase
        share = refused_share(phase)
        said.append(
            f"{rate:,.0f} requests/s: {tried[rate]:,.0f} events/s accepted, {share:.1%} refused, "
            f"{core_share(phase):.2f} of a core, {accepted_cpu_s(phase):,.0f} for a second of CPU"
        )
        print("  " + said[-1], flush=True)
        return share

    rate = FIRST_RATE
    while attempt(rate) < 0.5 and rate < 100_000:
        rate *= 2
    best = max(tried, key=tried.__getitem__)
    for factor in (0.7, 0.85, 1.2, 1.4):
        attempt(best * factor)
    best = max(tried, key=tried.__getitem__)
    each = sum(WEIGHTS[kind] * (BATCH if kind == "batch" else 1) for kind in EVENTS)
    return phases[best], tried[best] / each, said


def recovery_s(phase: dict[str, Any], limit_ms: float) -> float:
    """Return after how many whole seconds since an overload nothing is refused and the p99 is within a limit.

    It has to stay so for `STEADY_S`. A hiccup later is the machine's: the load was at rest before, too.
    """
    steady = 0
    for second, (_, lost, p99_ms) in enumerate(phase["by_second"]):
        steady = 0 if lost or p99_ms > limit_ms else steady + 1
        if steady == STEADY_S:
            return second + 1 - STEADY_S
    return len(phase["by_second"])


def measure(seconds: float, times: float, connections: int, *, pin: bool = False) -> dict[str, Any]:
    """Measure; return everything that was found."""
    server_core, client_core = (0, 1) if pin else (None, None)
    with tempfile.TemporaryDirectory(dir=_scratch()) as name:
        work = Path(name)
        server = servers.penstock(work, server_core)
        try:
            fill(server, FULL.people)
            write_mix(work / "mix.jsonl", FULL.people, work / "project" / "data")
            sender = Sender(server, work / "mix.jsonl", connections, client_core)
            best, requests_s, said = find_capacity(sender)
            (calm,) = sender.send((requests_s / 3, 10.0))["phases"]
            server.quiet()
            both = sender.send((requests_s * times, seconds), (requests_s * 0.7, 15.0))
        finally:
            server.stop()
    over, after = both["phases"]
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"), "capacity": best, "capacity_requests_s": requests_s, "found": said, "unloaded": calm, "overload": over, "after": after,
        "client_cpu_s": both["cpu_s"], "load_average": os.getloadavg(),
    }  # fmt: skip


def _scratch() -> Path:
    scratch = ROOT / "benchmarks" / ".work"
    scratch.mkdir(exist_ok=True)
    return scratch


def p99_ms(phase: dict[str, Any]) -> float:
    """Return the worst p99 of accepted events, single and in batches, in ms."""
    return max(phase["kinds"][kind]["p99_ms"] for kind in ("event", "batch"))


def report(found: dict[str, Any]) -> str:
    """Return what was found as text, each floor with whether it was kept and by how much it was missed."""
    over, after = found["overload"], found["after"]
    best = found["capacity"]
    good = accepted_s(over) / accepted_s(best)
    by_cpu = accepted_cpu_s(over) / accepted_cpu_s(best)
    calm_ms, over_ms = p99_ms(found["unloaded"]), p99_ms(over)
    back_s = recovery_s(after, 2 * LIMIT_MS)
    lines = [
        f"capacity: {accepted_s(best):,.0f} events/s accepted, in {found['capacity_requests_s']:,.0f} requests/s",
        f"offered: {over['rate']:,.0f} requests/s for {over['seconds']:.0f} s, of which {over['offered']:,} went out",
        _line("goodput by the clock", good, 0.9, "of capacity", more=True),
        _line("goodput by CPU time", by_cpu, 0.9, "of capacity", more=True),
        f"of a core the server had {core_share(best):.2f} at capacity, {core_share(over):.2f} under overload",
        _line("p99 of accepted events", over_ms, 2 * LIMIT_MS, f"ms (unloaded {calm_ms:.1f} ms)"),
        _line("recovered after", back_s, 5, "s"),
    ]
    for kind in (*NEVER_REFUSED, *SERVED):
        tallies = [phase["kinds"][kind] for phase in (over, after)]
        lost = sum(
            tally["sent"] + tally["given_up"] - tally["statuses"].get("200", 0) for tally in tallies
        )
        served = f", served {tallies[0]['served']}" if tallies[0]["served"] else ""
        lines.append(
            f"{kind}: {tallies[0]['sent']:,} sent, {lost} refused, failed or given up; p99 {tallies[0]['p99_ms']} ms{served}"
        )
    bare = sum(tally["without_hint"] for tally in over["kinds"].values())
    statuses = {kind: tally["statuses"] for kind, tally in over["kinds"].items()}
    used = f"client CPU {found['client_cpu_s']:.1f} s"
    lines += [f"refusals without Retry-After: {bare}", f"statuses: {statuses}",
              f"{used}, load average {found['load_average'][0]:.1f}"]  # fmt: skip
    return "\n".join(lines)


def _line(what: str, value: float, floor: float, unit: str, *, more: bool = False) -> str:
    kept = value >= floor if more else value <= floor
    missed = abs(value - floor) / floor
    verdict = "kept" if kept else f"missed by {missed:.0%}"
    return f"{what}: {value:.2f} {unit}; floor {'at least' if more else 'at most'} {floor:g}: {verdict}"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--times", type=float, default=2.5)
    parser.add_argument("--connections", type=int, default=2_000)
    parser.add_argument(
        "--pin", action="store_true", help="a core for the server, another for the client"
    )
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    found = measure(asked.seconds, asked.times, asked.connections, pin=asked.pin)
    print(report(found))
    if asked.json:
        asked.json.write_text(json.dumps(found, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
