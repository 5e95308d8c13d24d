"""From an event to the content it changes, over HTTP, while the collector is at half its capacity."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import time
from datetime import UTC, datetime
from pathlib import Path

from benchmarks import loads, workload
from benchmarks.loads import Load
from benchmarks.measure import Row
from benchmarks.servers import Server
from benchmarks.workload import Sizes
from penstock.core.time import format_instant

CEILING_MS, GOAL_MS = 100.0, 50.0
WAIT_S = 5.0
POLL_S = 0.001


class Prober:
    """Sends an event of somebody new, then asks for content until it shows the product.

    Every question is a real one: a send of its own, decided, recorded and rendered.

    Args:
        server: Whom to ask.
    """

    def __init__(self, server: Server) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=WAIT_S)
        self.run = f"{os.getpid():x}-{time.monotonic_ns():x}"

    def probe(self, number: int) -> tuple[float, float]:
        """Return the milliseconds from sending and from the 200 until the content shows it."""
        who = f"probe-{self.run}-{number}"
        product = number * 37 % workload.PRODUCTS
        now = format_instant(int(datetime.now(UTC).timestamp() * 1000))
        body = json.dumps({
            "type": "track", "event": "Product Viewed", "messageId": f"m-{who}", "anonymousId": who,
            "timestamp": now, "properties": {"product_id": f"p-{product:04d}"},
            "context": {"consent": {"categoryPreferences": {"personal": True, "statistics": True}}},
        }).encode()  # fmt: skip
        started = time.perf_counter()
        self._ask("POST", "/v1/track", workload.BASIC, body)
        accepted = time.perf_counter()
        asked = 0
        while time.perf_counter() - started < WAIT_S:
            path = f"/v1/decide/offer?anonymous_id={who}&send=s{asked}"
            answer = json.loads(self._ask("GET", path, f"Bearer {workload.READ_KEY}"))
            if f">Product {product}<" in answer["slots"]["hero"]["html"]:
                shown = time.perf_counter()
                return 1000 * (shown - started), 1000 * (shown - accepted)
            asked += 1
            time.sleep(POLL_S)
        raise AssertionError("the content never showed what was viewed")

    def _ask(self, method: str, path: str, authorization: str, body: bytes | None = None) -> bytes:
        headers = {"Authorization": authorization, "Content-Type": "application/json"}
        self.connection.request(method, path, body, headers)
        answer = self.connection.getresponse()
        content = answer.read()
        assert answer.status == 200, f"{method} was answered {answer.status}"
        return content


def measure(sizes: Sizes, server: Server, load: Load, capacity_s: float) -> Row:
    """Measure at half of the capacity that the collector was measured to have.

    Args:
        sizes: How many probes.
        server: Penstock.
        load: What goes on in the background, single events.
        capacity_s: Requests a second at saturation.
    """
    server.quiet()
    rate = max(capacity_s / 2, 20.0)
    seconds = max(sizes.probes * 0.02, 1.0)
    background = subprocess.Popen(
        loads.command_of(load, server, seconds + 1.0, rate), cwd=Path(__file__).parent.parent,
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    prober = Prober(server)
    took: list[tuple[float, float]] = []
    try:
        time.sleep(0.5)
        started = time.perf_counter()
        for number in range(sizes.probes):
            if time.perf_counter() - started > seconds:
                break
            took.append(prober.probe(number))
            time.sleep(0.005)
        output, _ = background.communicate(timeout=seconds + 30)
    finally:
        prober.connection.close()
        if background.poll() is None:
            background.kill()
            background.wait()
    found = loads.result_of(output)
    sent = sorted(one for one, _ in took)
    accepted = sorted(one for _, one in took)
    reached = found["requests"] / (found["duration_us"] / 1e6)
    return Row(
        group="freshness", work="event sent → its content served, at half load", state="zipf, hot",
        unit="ms", rate=0.0, low=sent[0], high=sent[-1], cpu_us=0.0, wall_rate=0.0,
        p50_ms=_percentile(sent, 50), p99_ms=_percentile(sent, 99), floor=CEILING_MS,
        goal=GOAL_MS,
        note=f"{len(took)} probes; {reached:,.0f} events/s beside; from the 200: "
        f"p50 {_percentile(accepted, 50):.1f}, p99 {_percentile(accepted, 99):.1f} ms",
    )  # fmt: skip


def _percentile(ascending: list[float], percent: int) -> float:
    return ascending[min(len(ascending) * percent // 100, len(ascending) - 1)]
