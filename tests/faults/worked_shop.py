"""The shop of the fault tests on a real broker, with workers that fold for it as processes of their own."""

import http.client
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from fault_shop import Shop, free_port

from penstock.flows.replay import LIVE_EPOCH
from penstock.logs import open_log_alone
from penstock.ports.log import Log
from penstock.ports.store import Store
from penstock.project import Project, load_project
from penstock.workers import open_store

PARTITIONS = 4
PROGRAM = "from penstock.cli.main import main; main()"
DEADLINE_S = 120.0
"""The machines that run this are shared, and slow at times."""


class Working:
    """One worker process."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.port = free_port()
        self.errors = folder / f"worker-{self.port}.txt"
        with self.errors.open("a") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-c", PROGRAM, "worker", str(folder), "--port", str(self.port), "--wait", *options],
                stdout=errors, stderr=errors, start_new_session=True,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
            )  # fmt: skip

    def metrics(self, port: int | None = None) -> dict[str, float]:
        """Return its metrics by name and labels; empty while it does not answer."""
        with closing(http.client.HTTPConnection("127.0.0.1", port or self.port, timeout=5)) as ask:
            try:
                ask.request("GET", "/metrics")
                lines = ask.getresponse().read().decode().splitlines()
            except (OSError, http.client.HTTPException):
                return {}
        pairs = [line.rpartition(" ") for line in lines if not line.startswith("#")]
        return {name: float(value) for name, _, value in pairs}

    def owned(self, port: int | None = None) -> int:
        return int(self.metrics(port).get("penstock_partitions_owned", 0))

    def kill(self) -> None:
        """kill -9."""
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        """SIGTERM; return its exit code once it has drained."""
        self.process.terminate()
        return self.process.wait(DEADLINE_S)


class WorkedShop(Shop):
    """`penstock up` that does not fold, and workers that do."""

    def __init__(self, folder: Path, brokers: str, prefix: str, more: str = "") -> None:
        super().__init__(folder)
        toml = (folder / "penstock.toml").read_text()
        addresses = json.dumps(brokers.split(","))
        (folder / "penstock.toml").write_text(
            toml
            + f"""
[log]
kind = "kafka"
partitions = {PARTITIONS}
[log.kafka]
brokers = {addresses}
prefix = "{prefix}"
replication = 1
[fold]
by = "workers"
session_ms = 6000
flush_ms = 50
{more}
"""
        )
        self.workers: list[Working] = []

    def work(self, *options: str) -> Working:
        """Start a worker."""
        worker = Working(self.folder, *options)
        self.workers.append(worker)
        return worker

    def until_shared(self, *workers: Working) -> None:
        """Wait until workers own all partitions between them, each of them some."""
        self.until(
            lambda: (owned := [one.owned() for one in workers]) and sum(owned) == PARTITIONS and all(owned),
            "the partitions are shared out",
        )  # fmt: skip

    def until_folded(self, *, everything: bool = True) -> None:
        """Wait until the store has applied all that the log holds, links that workers append included."""
        with self.opened() as (_, log, store, epoch):

            def folded() -> bool:
                heads = [log.head(one) for one in range(PARTITIONS)]
                applied = [store.applied(epoch, one).offset + 1 for one in range(PARTITIONS)]
                return applied == heads

            quiet_since = time.monotonic()
            until = quiet_since + DEADLINE_S
            # Others' records are known to a reader within a second.
            while time.monotonic() - quiet_since < 3:
                if not folded():
                    quiet_since = time.monotonic()
                assert time.monotonic() < until, f"not folded; {self.said()}"
                time.sleep(0.1)

    def until(self, done: Any, what: str) -> None:
        until = time.monotonic() + DEADLINE_S
        while not done():
            assert time.monotonic() < until, f"it never came to be: {what}; {self.said()}"
            time.sleep(0.1)

    def said(self) -> str:
        """Return what the processes said last."""
        told = [path.read_text()[-1_500:] for path in sorted(self.folder.glob("*.txt"))]
        return "\n---\n".join(told)

    @contextmanager
    def opened(self) -> Iterator[tuple[Project, Log, Store, int]]:
        """Open the log and the store beside those who work on them."""
        project = load_project(self.folder)
        log = open_log_alone(project)
        store = open_store(project)
        try:
            yield project, log, store, int(store.get_meta(LIVE_EPOCH) or 1)
        finally:
            log.close()
            store.close()

    files = opened  # type: ignore[assignment] - of the dead, too

    def end(self) -> None:
        """Kill what still runs."""
        for worker in self.workers:
            with suppress(ProcessLookupError):
                worker.process.kill()
            worker.process.wait()
        if self.process is not None:
            self.process.kill()
            self.reap()
