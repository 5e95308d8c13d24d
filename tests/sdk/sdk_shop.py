"""What every test of an SDK compares: what it was asked to send, and what the shop made of it."""

import http.client
import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from penstock.adapters.clock import SystemClock
from penstock.adapters.log.sqlite import SqliteLog
from penstock.adapters.store.sqlite import SqliteStore
from penstock.core.feature.plan import Plan
from penstock.core.leaf import Leaf, decode_leaf
from penstock.core.record import Kind, Record, decode_record
from penstock.project import load_project

SERVER_KEY = "wk-server"
WEB_KEY = "wk-web"
JITSU_KEY = "wk-jitsu:secret"
WEB_JITSU_KEY = "wk-web-jitsu:secret"
"""Jitsu's SDKs take keys of two parts only."""
GRANTED = frozenset({"personalisation"})
CALLS = ("identify", "track", "page", "screen", "group", "alias")


class Taken(NamedTuple):
    """What a shop took in: of each type how many events that are not copies, and what they make."""

    types: Counter[str]
    applied: int
    views: int
    """The sum of everybody's feature `views`: how many events of type track counted."""


def asked(rounds: int, *without: str) -> Taken:
    """Return what must be taken in of so many rounds, whatever happened on the way."""
    types = Counter({kind: rounds for kind in CALLS if kind not in without})
    return Taken(types, types.total(), types["track"])


def taken(records: Iterable[Record], leaves: Iterable[Leaf], plan: Plan, now_ms: int) -> Taken:
    """Return what records and leaves say; copies of an event count once among its types."""
    types = {(record.leaf, record.message_id): record.type for record in records}
    found = list(leaves)
    views = [
        plan.read(leaf.states, now_ms, leaf.clock_ms, leaf.purged, GRANTED)["views"]
        for leaf in found
    ]
    return Taken(Counter(types.values()), sum(leaf.applied for leaf in found), sum(views))


class KilledShop:
    """A project folder that `penstock up` serves, in a process that may be killed."""

    FILES = {
        "penstock.toml": """
            [server]
            read_keys = ["rk"]
            [development]
            test_api = true
            [sources.backend]
            kind = "server"
            write_key = "wk-server"
            basis = {personalisation = "contract"}
            [sources.web]
            kind = "browser"
            write_key = "wk-web"
            basis = {personalisation = "contract"}
        """,
        "events.py": """
            from penstock.dsl.events import event, money, string, traits

            product_viewed = event("Product Viewed", product_id=string(required=True), price=money())
            people = traits(email=string(), firstName=string())
        """,
        "features.py": """
            from events import product_viewed
            from penstock.dsl.features import Profile, count

            class Shopper(Profile):
                views = count(product_viewed)
        """,
    }

    def __init__(self, folder: Path, port: int) -> None:
        self.folder = folder
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self.process: subprocess.Popen[str] | None = None
        for name, text in self.FILES.items():
            (folder / name).write_text(textwrap.dedent(text))

    def start(self) -> None:
        """Return when it is ready."""
        program = "from penstock.cli.main import main; main()"
        self.process = subprocess.Popen(
            [sys.executable, "-c", program, "up", str(self.folder), "--port", str(self.port)],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )  # fmt: skip
        assert self.process.stdout is not None
        said: list[str] = []
        for line in self.process.stdout:
            said.append(line)
            if line.startswith("Penstock is up at "):
                # Nobody looks at the rest; a full pipe would stop it.
                self.reader = threading.Thread(target=self.process.stdout.read)
                self.reader.start()
                return
        raise AssertionError("it never came up: " + "".join(said))

    def kill_once_it_has(self, events: int) -> None:
        """Kill its process group with SIGKILL, as soon as it has taken in so many events."""
        pause = threading.Event()
        for _ in range(12_000):
            if self.accepted() >= events:
                break
            pause.wait(0.005)
        else:
            raise AssertionError("the events do not arrive")
        assert self.process is not None
        os.killpg(self.process.pid, signal.SIGKILL)
        self.reap()

    def reap(self) -> None:
        assert self.process is not None
        assert self.process.stdout is not None
        self.process.wait(20)
        self.reader.join(10)
        self.process.stdout.close()

    def accepted(self) -> int:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        connection.request("GET", "/_test/accepted")
        count = json.loads(connection.getresponse().read())["count"]
        connection.close()
        return count

    def views(self, user: str) -> int:
        """Return how many views the profile of a user has now."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        connection.request(
            "GET", f"/v1/profiles/user_id:{user}", headers={"Authorization": "Bearer rk"}
        )
        profile = json.loads(connection.getresponse().read())
        connection.close()
        return profile["features"].get("views") or 0

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.reap()

    def taken(self) -> Taken:
        """Stop it, and return what its files say."""
        self.stop()
        project = load_project(self.folder)
        clock = SystemClock()
        log = SqliteLog(project.data_dir / "log.db", clock)
        store = SqliteStore(project.data_dir / "store.db")
        records = [
            record
            for partition in range(log.partitions)
            for entry in log.read(partition, 0, 100_000)
            if (record := decode_record(entry.value)).kind == Kind.PRIMARY
        ]
        epoch = int(store.get_meta("live_epoch") or 1)
        leaves = [
            decode_leaf(leaf_id, held.version, held.parts[0], project.plan)
            for leaf_id, held in store.scan(epoch, None, 100_000)
        ]
        log.close()
        store.close()
        return taken(records, leaves, project.plan, clock.now_ms())


Shows = Callable[[str, str], None]
"""Notes that the test at hand shows a behaviour of an SDK: `shows("@segment/analytics-node", "429")`."""
