"""The example shop on a cluster: its processes, each of which may be killed, stalled, replaced or have a bug."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from cluster import until
from fault_shop import free_port
from ledger import VIEWED, Caller, Ledger, asked, told_of

from penstock.adapters.keys.file import FileKeys
from penstock.core.ids import LeafId, leaf_id, partition_of
from penstock.flows.replay import LIVE_EPOCH
from penstock.logs import open_log_alone
from penstock.ports.decisions import Decisions
from penstock.ports.keys import IDENTIFIER_KEY
from penstock.ports.log import Log
from penstock.ports.store import Store
from penstock.ports.suppressions import Suppressions
from penstock.project import Project, load_project
from penstock.stores import open_registers, open_store

SHOP = Path(__file__).parents[2] / "examples" / "shop"
ENTRY = Path(__file__).with_name("faulted_process.py")
PARTITIONS = 4
READY_S_MAX = 120.0
"""The machines that run this are shared, and slow at times."""
END_S_MAX = 60.0


class Where(NamedTuple):
    """What a shop runs on."""

    brokers: list[str]
    prefix: str
    redis: str = ""
    """The URL of the primary; empty for leaves in the data folder."""
    workers: int = 2
    """How many fold; 0 if `penstock up` does."""
    replication: int = 3
    wait_replicas: int = 1
    flush_ms: int = 50
    session_ms: int = 2_000


def toml_of(where: Where) -> str:
    """Return the settings of the example shop, changed to run on a cluster."""
    text = (SHOP / "penstock.toml").read_text()
    # What a server sends rests on a contract, so that no event needs consent of its own to count.
    text = text.replace('write_key = "demo-server-key"\n',
                        'write_key = "demo-server-key"\nbasis = { personalisation = "contract" }\n')  # fmt: skip
    text = text[: text.index("[development]")].rpartition("\n# While")[0]
    text += f"""
[log]
kind = "kafka"
partitions = {PARTITIONS}
[log.kafka]
brokers = {json.dumps(where.brokers)}
prefix = "{where.prefix}"
replication = {where.replication}
append_timeout_ms = 3000
"""
    if where.redis:
        text += f"""
[store]
kind = "redis"
flush_ms = {where.flush_ms}
[store.redis]
url = "{where.redis}"
registers = true
cache_mb = 4
wait_replicas = {where.wait_replicas}
timeout_ms = 500
connect_timeout_ms = 500
"""
    if where.workers:
        text += f"""
[fold]
by = "workers"
session_ms = {where.session_ms}
flush_ms = {where.flush_ms}
"""
    return text


class Running:
    """One process of the shop, and what it says."""

    def __init__(self, folder: Path, name: str, plant: str, *arguments: str) -> None:
        self.name = name
        self.errors = folder / f"{name}.txt"
        with self.errors.open("a") as errors:
            self.process = subprocess.Popen(
                [sys.executable, str(ENTRY), plant or "none", str(folder), *arguments], stdout=errors, stderr=errors,
                start_new_session=True, env={**os.environ, "PYTHONUNBUFFERED": "1"},
            )  # fmt: skip
        self.stopped = False

    def alive(self) -> bool:
        return self.process.poll() is None

    def kill(self) -> None:
        """kill -9."""
        self.process.kill()
        self.process.wait()

    def pause(self) -> None:
        self.stopped = True
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self.stopped = False
        self.process.send_signal(signal.SIGCONT)

    def end(self) -> int:
        """SIGTERM; return the exit code once it has drained."""
        self.process.terminate()
        try:
            return self.process.wait(END_S_MAX)
        except subprocess.TimeoutExpired:
            self.process.send_signal(signal.SIGABRT)  # it says where each of its threads stands
            self.process.wait(10)
            raise AssertionError(f"{self.name} does not end: {self.said(6_000)}") from None

    def said(self, length: int = 1_500) -> str:
        return self.errors.read_text()[-length:]


class FaultedShop:
    """A project made from the example shop, and the processes that run it."""

    def __init__(self, folder: Path, where: Where) -> None:
        self.folder = folder
        self.where = where
        ignored = shutil.ignore_patterns("__pycache__", "tests", "img", "*.csv", "data", "outbox")
        shutil.copytree(SHOP, folder, ignore=ignored, dirs_exist_ok=True)
        (folder / "penstock.toml").write_text(toml_of(where))
        self.port = free_port()
        self.collector: Running | None = None
        self.workers: list[Running] = []
        self.ended_alone: list[str] = []
        """Processes that ended by themselves and were started again, as a supervisor does."""
        self._worker_ports: dict[str, int] = {}
        self._marks = 0

    # -- processes

    def launch(self, plant: str = "") -> Running:
        """Start `penstock up`, and do not wait."""
        arguments = ("up", str(self.folder), "--port", str(self.port))
        self.collector = Running(self.folder, "up", plant, *arguments)
        return self.collector

    def up(self, plant: str = "") -> None:
        """Start `penstock up`, and wait until it is ready."""
        self.launch(plant)
        self.until_ready(plant)

    def until_ready(self, plant: str = "") -> None:
        """Wait until `penstock up` is ready; start it again if it ends meanwhile, as when brokers are away."""
        until_s = time.monotonic() + READY_S_MAX
        while not self.ready():
            running = self.collector
            assert running is not None, "it was started"
            assert time.monotonic() < until_s, f"it does not come up: {running.said()}"
            if not running.alive():
                self.ended_alone.append(f"up: {running.said(200)}")
                self.launch(plant)
            time.sleep(0.1)

    def ready(self) -> bool:
        return asked(self.port, "GET", "/ready", 2)[0] == 200

    def work(self, number: int, plant: str = "") -> Running:
        """Start a worker in a place, 0 or 1."""
        port = free_port()
        made = Running(self.folder, f"worker-{number}", plant, "worker", str(self.folder), "--port", str(port), "--wait")  # fmt: skip
        self._worker_ports[made.name] = port
        self.workers[number : number + 1] = [made]
        return made

    def watch(self) -> None:
        """Start again what has ended by itself, as a supervisor does, and wait until events are taken."""
        if self.collector is not None:
            self.until_ready()
        for number, worker in enumerate(self.workers):
            if not worker.alive():
                self.ended_alone.append(f"{worker.name}: {worker.said(200)}")
                self.work(number)

    def metrics(self, worker: Running) -> dict[str, float]:
        """Return a worker's metrics by name and labels; empty while it does not answer."""
        status, body = asked(self._worker_ports[worker.name], "GET", "/metrics", 2)
        lines = body.decode().splitlines() if status == 200 else []
        pairs = [line.rpartition(" ") for line in lines if not line.startswith("#")]
        return {name: float(value) for name, _, value in pairs}

    def owned(self, worker: Running) -> int:
        return int(self.metrics(worker).get("penstock_partitions_owned", 0))

    def until_shared(self, *workers: Running) -> None:
        """Wait until workers own all partitions between them, each of them some."""

        def shared() -> bool:
            owned = [self.owned(one) for one in workers]
            return sum(owned) == PARTITIONS and all(owned)

        until(shared, "the partitions are shared out")

    def end(self) -> None:
        """Drain and end everything."""
        for one in [*self.workers, *([self.collector] if self.collector else [])]:
            code = one.end()
            assert code == 0, f"{one.name} ended with {code}: {one.said()}"
        self.workers, self.collector = [], None

    def kill(self) -> None:
        """Kill what still runs."""
        for one in [*self.workers, *([self.collector] if self.collector else [])]:
            with suppress(ProcessLookupError):
                one.process.kill()
            one.process.wait()

    def said(self) -> str:
        """Return what the processes said last."""
        return "\n---\n".join(f"{one}: {one.read_text()[-1_500:]}" for one in sorted(self.folder.glob("*.txt")))  # fmt: skip

    # -- what it holds

    @contextmanager
    def opened(self) -> Iterator[tuple[Project, Log, Store, int]]:
        """Open the log and the store, beside those who work on them."""
        project = load_project(self.folder)
        log = open_log_alone(project)
        try:
            store = open_store(project)
        except BaseException:
            log.close()
            raise
        try:
            yield project, log, store, int(store.get_meta(LIVE_EPOCH) or 1)
        finally:
            log.close()
            store.close()

    def until_folded(self) -> None:
        """Wait until the store has applied all that the log holds, links that workers append included."""
        with self.opened() as (_, log, store, epoch):
            quiet_since = time.monotonic()
            until_s = quiet_since + READY_S_MAX
            # Others' records are known to a reader within a second.
            while time.monotonic() - quiet_since < 2:
                with suppress(Exception):  # a store that has moved says so once
                    heads = [log.head(one) for one in range(PARTITIONS)]
                    applied = [store.applied(epoch, one).offset + 1 for one in range(PARTITIONS)]
                    if applied == heads:
                        time.sleep(0.1)
                        continue
                quiet_since = time.monotonic()
                assert quiet_since < until_s, f"not folded: {applied} of {heads}; {self.said()}"
                time.sleep(0.1)

    def leaf(self, user: str) -> LeafId:
        key = FileKeys(self.folder / "data" / "keys.json").get(IDENTIFIER_KEY)
        return leaf_id(key, "default", "user_id", user)

    @contextmanager
    def registers(self) -> Iterator[tuple[Suppressions, Decisions]]:
        """Open the register and the decisions, which are on Redis."""
        project = load_project(self.folder)
        log = open_log_alone(project)
        try:
            opened = open_registers(project, log)
        finally:
            log.close()
        assert opened is not None
        try:
            yield opened
        finally:
            for part in opened:
                part.close()

    def undecided(self, ledger: Ledger) -> list[str]:
        """Return for whom a decision was answered that is not kept, or is kept as another one."""
        if not self.where.redis:
            return []
        with self.registers() as (_, decisions):
            return [
                user
                for user, one in ledger.decided.items()
                if decisions.find(one["decision"]) is None
            ]

    def one_a_partition(self) -> list[str]:
        """Return somebody in every partition, who is nobody of the load."""
        found: dict[int, str] = {}
        number = 0
        while len(found) < PARTITIONS:
            found.setdefault(partition_of(self.leaf(f"m{number}"), PARTITIONS), f"m{number}")
            number += 1
        return [found[one] for one in range(PARTITIONS)]

    def send(self, ledger: Ledger, users: list[str], *, name: str = VIEWED, properties: dict | None = None,
             seconds: float = 60) -> list[str]:  # fmt: skip
        """Send one event of each of some people until it is acknowledged; return the message ids."""
        names, events = [], []
        for user in users:
            self._marks += 1
            names.append(f"mark-{self._marks}")
            ledger.note(names[-1], user, name)
            events.append({"type": "track", "event": name, "messageId": names[-1], "userId": user,
                           "properties": properties or {"product_id": "p-101"}})  # fmt: skip
        with closing(Caller(self.port)) as caller:
            until(lambda: caller.post(events) == 200, "events are taken", seconds)
        ledger.acknowledge(names)
        return names

    def until_live(self, ledger: Ledger, users: list[str]) -> float:
        """Wait until an event sent now of each of some people is in what is served live; return how long it took."""
        began_s = time.monotonic()
        self.send(ledger, users)
        counted = ledger.counted()

        def live() -> bool:
            for user in users:
                status, body = asked(self.port, "GET", f"/v1/profiles/user_id:{user}")
                if status != 200:
                    return False
                told = told_of(user, 0, json.loads(body))
                if told.served != "live" or told.views != counted[user]:
                    return False
            return True

        try:
            until(live, "what was sent is served live")
        except AssertionError as error:
            raise AssertionError(f"{error}; {self.said()}") from None
        return time.monotonic() - began_s
