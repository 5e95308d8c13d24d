"""The shop of the fault tests on a real broker, with workers that fold for it as processes of their own."""

import http.client
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any

from fault_shop import Shop, free_port

from penstock.flows.replay import LIVE_EPOCH
from penstock.logs import open_log_alone
from penstock.ports.log import Log
from penstock.ports.store import Store
from penstock.project import Project, load_project
from penstock.stores import open_store

PARTITIONS = 4
NOT_OF_THE_PROJECT = ("__pycache__", "data", "outbox", "machine-*", "*.txt")
PROGRAM = "from penstock.cli.main import main; main()"
DEADLINE_S = 120.0
"""The machines that run this are shared, and slow at times."""


class Working:
    """One worker process.

    Args:
        folder: The project's.
        options: Of the command.
        says: The folder that what it says is written into.
    """

    def __init__(self, folder: Path, *options: str, says: Path) -> None:
        self.port = free_port()
        self.errors = says / f"worker-{self.port}.txt"
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
    """`penstock up` that does not fold, and workers that do.

    Args:
        folder: The project's.
        brokers: Addresses.
        prefix: Of all topics.
        more: Of `[fold]`.
        redis: What stands in `[store.redis]`; empty if leaves and registers are in the data folder.
    """

    def __init__(
        self, folder: Path, brokers: str, prefix: str, more: str = "", redis: str = ""
    ) -> None:
        super().__init__(folder)
        toml = (folder / "penstock.toml").read_text()
        if redis:
            toml = toml.replace("[store]\n", f'[store]\nkind = "redis"\nredis = {{ {redis} }}\n')
        addresses = json.dumps(brokers.split(","))
        self.settings = f"""
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
        """Of the log, and of who folds it."""
        (folder / "penstock.toml").write_text(toml + self.settings)
        self.workers: list[Working] = []
        self._machines = count(1)

    def work(self, *options: str) -> Working:
        """Start a worker."""
        return self._working(self.folder, options)

    def work_elsewhere(self, *options: str) -> Working:
        """Start a worker as on another machine: it has the project's files, and nothing of its data."""
        machine = self.folder / f"machine-{next(self._machines)}"
        shutil.copytree(self.folder, machine, ignore=shutil.ignore_patterns(*NOT_OF_THE_PROJECT))
        return self._working(machine, options)

    def _working(self, folder: Path, options: tuple[str, ...]) -> Working:
        worker = Working(folder, *options, says=self.folder)
        self.workers.append(worker)
        return worker

    def profile(self, user: str) -> dict[str, Any]:
        """Return the profile that is served of a user; what is said instead, without features."""
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)) as ask:
            ask.request(
                "GET", f"/v1/profiles/user_id:{user}", headers={"Authorization": "Bearer rk"}
            )
            return json.loads(ask.getresponse().read())

    def until_shared(self, *workers: Working, partitions: int = PARTITIONS) -> None:
        """Wait until workers own all partitions between them, each of them some."""
        self.until(
            lambda: (owned := [one.owned() for one in workers]) and sum(owned) == partitions and all(owned),
            "the partitions are shared out",
        )  # fmt: skip

    def until_folded(self, *, everything: bool = True) -> None:
        """Wait until the store has applied all that the log holds, links that workers append included."""
        with self.opened() as (_, log, store, epoch):

            def folded() -> bool:
                partitions = range(log.partitions)
                heads = [log.head(one) for one in partitions]
                applied = [store.applied(epoch, one).offset + 1 for one in partitions]
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
