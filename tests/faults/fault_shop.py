"""A shop on real disks, a load from a real SDK, and the audit that compares what both sides know."""

import http.client
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from segment.analytics.client import Client

from penstock.adapters.clock import SystemClock
from penstock.adapters.keys.file import FileKeys
from penstock.adapters.log.sqlite import SqliteLog
from penstock.core.ids import leaf_id
from penstock.core.step import Step
from penstock.flows.replay import LIVE_EPOCH, compare, replay
from penstock.ports.keys import IDENTIFIER_KEY
from penstock.ports.store import Store
from penstock.project import Project, load_project
from penstock.stores import open_store
from penstock.testing.audit import AuditReport, audit

USERS = 60
"""People at any one time."""
EVENTS_A_CROWD = 40_000
"""After so many events it is others who come."""
KEY = "wk-server"
PERMITTED = frozenset({"personalisation"})
FILES = {
    "penstock.toml": f"""
        [server]
        read_keys = ["rk"]
        [store]
        flush_ms = 20
        cached_leaves_max = 100
        [sources.backend]
        kind = "server"
        write_key = "{KEY}"
        basis = {{personalisation = "contract"}}
    """,
    "events.py": """
        from penstock.dsl.events import event, integer, money, string, traits

        product_viewed = event(
            "Product Viewed", product_id=string(required=True), price=money(currency="GBP"), n=integer(),
        )
        people = traits(email=string())
    """,
    "features.py": """
        from events import product_viewed
        from penstock.dsl.features import Profile, count, days, last_k, sum_, top_k

        class Shopper(Profile):
            views = count(product_viewed)
            views_7d = count(product_viewed, over=days(7))
            spent = sum_(product_viewed.price)
            total = sum_(product_viewed.n)
            recent = last_k(product_viewed.product_id, k=20)
            favourites = top_k(product_viewed.product_id, k=3)
    """,
}


class Sender:
    """What the senders know: every event that was sent, and those that were acknowledged.

    The SDK does not say which events were taken; it says when its queue is empty and what it gave
    up. So only the raw client's acknowledgements are known while the load goes on.
    """

    def __init__(self) -> None:
        self.sent: dict[str, tuple[str, int]] = {}
        """Message id -> the person and the number in the event."""
        self.acknowledged: set[str] = set()
        self.given_up: list[object] = []
        self.retries = 0
        self.up = threading.Event()
        self.stop = threading.Event()
        self.abandon = threading.Event()
        """Set if the test has failed: nobody will answer any more."""
        self.changed = threading.Condition()

    def person(self, place: float) -> str:
        """Return one of the people who come now, from 0 to 1; others come once these have been busy.

        Nobody gets so many events that their leaf reaches its hard limit: that is another test's.
        """
        return f"u{USERS * (len(self.sent) // EVENTS_A_CROWD) + int(USERS * place)}"

    def note(self, message_id: str, user: str, number: int) -> None:
        self.sent[message_id] = (user, number)

    def acknowledge(self, message_ids: list[str]) -> None:
        with self.changed:
            self.acknowledged.update(message_ids)
            self.changed.notify_all()

    def wait_for(self, acknowledged: int) -> None:
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.acknowledged) >= acknowledged, 30), (
                "the server acknowledges nothing"
            )


def raw_load(sender: Sender, port: int, number: int) -> None:
    """Post batches until told to stop; a batch that was not answered 200 is posted again as it is."""
    dice = random.Random(number)
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    batches = 0
    while not sender.stop.is_set():
        names = [f"raw-{number}-{batches}-{place}" for place in range(dice.randint(1, 12))]
        batches += 1
        body = json.dumps({"writeKey": KEY, "batch": [raw_event(sender, dice, n) for n in names]})
        while not post(connection, body):
            if sender.abandon.is_set():
                return
            sender.retries += 1
            connection.close()
            sender.up.wait(30)
            sender.stop.wait(0.005)
        sender.acknowledge(names)
    connection.close()


def raw_event(
    sender: Sender, dice: random.Random, message_id: str, *, linked_share: float = 0.2
) -> dict[str, Any]:
    user, number = sender.person(dice.random() ** 2), dice.randint(1, 9)
    sender.note(message_id, user, number)
    linked = (
        {"anonymousId": f"a{dice.randrange(3 * USERS)}"} if dice.random() < linked_share else {}
    )
    return {
        "type": "track", "event": "Product Viewed", "messageId": message_id, "userId": user, **linked,
        "properties": {"product_id": f"p{dice.randrange(40)}", "price": "19.99", "n": number},
    }  # fmt: skip


def post(connection: http.client.HTTPConnection, body: str) -> bool:
    try:
        connection.request("POST", "/v1/batch", body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        answer.read()
    except (OSError, http.client.HTTPException):
        return False
    assert answer.status in (200, 429, 503), answer.status
    return answer.status == 200


def sdk_load(sender: Sender, client: Client, number: int) -> None:
    """Track with Segment's SDK, in rounds that end when its queue is empty."""
    dice = random.Random(100 + number)
    rounds = 0
    while not sender.stop.is_set():
        names = [f"sdk-{number}-{rounds}-{place}" for place in range(60)]
        rounds += 1
        for name in names:
            user, count = sender.person(dice.random()), dice.randint(1, 9)
            sender.note(name, user, count)
            properties = {"product_id": f"p{dice.randrange(40)}", "price": 5, "n": count}
            taken, _ = client.track(user, "Product Viewed", properties, message_id=name)
            assert taken, "the queue of the SDK is full"
        client.flush()


@contextmanager
def raw_loads(sender: Sender, port: int, clients: int = 2) -> Iterator[None]:
    """Raw clients alone, who try for ever: an SDK gives up on a disk that stays full."""
    threads = [
        threading.Thread(target=raw_load, args=(sender, port, number), daemon=True)
        for number in range(clients)
    ]
    for thread in threads:
        thread.start()
    try:
        yield
    except BaseException:
        sender.abandon.set()
        raise
    finally:
        sender.stop.set()
        sender.up.set()
        if not sender.abandon.is_set():
            for thread in threads:
                thread.join(40)
    assert not any(thread.is_alive() for thread in threads)


@contextmanager
def load(sender: Sender, port: int) -> Iterator[None]:
    """Two raw clients, and two threads that share one SDK with two consumers."""
    client = Client(
        KEY, host=f"http://127.0.0.1:{port}", thread=2, upload_size=20, upload_interval=0.02, max_retries=1_000,
        on_error=lambda error, batch: sender.given_up.append((error, len(batch))),
    )  # fmt: skip
    threads = [
        threading.Thread(target=raw_load, args=(sender, port, number), daemon=True)
        for number in range(2)
    ] + [
        threading.Thread(target=sdk_load, args=(sender, client, number), daemon=True)
        for number in range(2)
    ]
    for thread in threads:
        thread.start()
    try:
        yield
    except BaseException:
        sender.abandon.set()
        raise
    finally:
        sender.stop.set()
        sender.up.set()
        if not sender.abandon.is_set():
            for thread in threads:
                thread.join(40)
            client.shutdown()
    assert [] == sender.given_up
    assert not any(thread.is_alive() for thread in threads)


class Shop:
    """A project folder, and the process that serves it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name, text in FILES.items():
            lines = text.strip("\n").splitlines()
            margin = len(lines[0]) - len(lines[0].lstrip())
            (folder / name).write_text("\n".join(line[margin:] for line in lines) + "\n")
        self.port = free_port()
        self.process: subprocess.Popen[str] | None = None
        self.under: list[str] = []
        """What the process runs under, such as strace."""
        self.ready_ms: list[float] = []
        self.caught_up: list[tuple[int, float]] = []
        """How many records a start had to catch up with, and how long it took."""

    def up(self) -> None:
        """Run `penstock up`; return when it is ready, which means that it has caught up."""
        program = "from penstock.cli.main import main; main()"
        started_s = time.monotonic()
        self.run("-c", program, "up", str(self.folder), "--port", str(self.port))
        while not self.line().startswith("Penstock is up at "):
            pass
        self.ready_ms.append((time.monotonic() - started_s) * 1000)

    def start(self, plant: str = "") -> None:
        """Run the process that can have a bug planted; return when its files are open."""
        program = Path(__file__).with_name("shop_process.py")
        self.run(str(program), str(self.folder), str(self.port), plant)
        assert "open" == json.loads(self.line())["event"]

    def wait_until_ready(self) -> None:
        said = json.loads(self.line())
        assert "ready" == said["event"]
        self.caught_up.append((said["behind"], said["caught_up_ms"]))

    def run(self, *arguments: str) -> None:
        with (self.folder / "stderr.txt").open("a") as errors:
            self.process = subprocess.Popen(
                [*self.under, sys.executable, *arguments], stdout=subprocess.PIPE, stderr=errors, text=True,
                start_new_session=True, env={**os.environ, "PYTHONUNBUFFERED": "1"},
            )  # fmt: skip

    def line(self) -> str:
        assert self.process is not None
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, f"the process ended: {(self.folder / 'stderr.txt').read_text()[-3000:]}"
        return line

    def kill(self) -> None:
        """kill -9."""
        assert self.process is not None
        self.process.kill()
        self.reap()

    def stop(self) -> None:
        """Ask it to drain, write everything and end."""
        assert self.process is not None
        self.process.terminate()
        assert 0 == self.reap()

    def reap(self) -> int:
        assert self.process is not None
        try:
            status = self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.send_signal(signal.SIGABRT)  # it says where each of its threads stands
            self.process.wait(10)
            errors = (self.folder / "stderr.txt").read_text()
            raise AssertionError(f"the process does not end: {errors[-6000:]}") from None
        assert self.process.stdout is not None
        self.process.stdout.close()
        self.process = None
        return status

    @contextmanager
    def files(self) -> Iterator[tuple[Project, SqliteLog, Store, int]]:
        """Open what the dead process left."""
        project = load_project(self.folder)
        log = SqliteLog(project.data_dir / "log.db", SystemClock())
        store = open_store(project)
        try:
            # The epoch goes live with the first readiness.
            epoch = int(store.get_meta(LIVE_EPOCH) or 1)
            yield project, log, store, epoch
        finally:
            log.close()
            store.close()

    def audit(self) -> AuditReport:
        with self.files() as (project, log, store, epoch):
            return audit(log, store, step_of(project), epoch)


def free_port() -> int:
    """Return a port below the ephemeral ones: no client's own end can sit on it between two lives."""
    dice = random.SystemRandom()
    while True:
        port = dice.randrange(20_000, 30_000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


def step_of(project: Project) -> Step:
    return Step(project.plan, project.step_rules())


def assert_everything_is_there_once(shop: Shop, sender: Sender) -> None:
    with shop.files() as (project, log, store, epoch):
        step = step_of(project)
        report = audit(log, store, step, epoch)
        assert [] == report.problems
        assert 0 == report.in_flight
        assert set(sender.sent) == set(
            report.message_ids
        )  # the load ends when all are acknowledged
        assert len(sender.sent) == report.applied
        assert report.accepted == report.applied + report.deduplicated
        assert counted_by_sender(sender) == counted_by_features(project, report, sender)
        fresh = epoch + 90
        replay(log, store, step, fresh)
        assert compare(store, epoch, fresh).same


def counted_by_sender(sender: Sender) -> dict[str, tuple[int, int]]:
    counts = Counter(user for user, _ in sender.sent.values())
    totals: Counter[str] = Counter()
    for user, number in sender.sent.values():
        totals[user] += number
    return {user: (counts[user], totals[user]) for user in counts}


def counted_by_features(
    project: Project, report: AuditReport, sender: Sender
) -> dict[str, tuple[int, int]]:
    key = FileKeys(project.data_dir / "keys.json").get(IDENTIFIER_KEY)
    found: dict[str, tuple[int, int]] = {}
    for user in {user for user, _ in sender.sent.values()}:
        leaf = report.leaves.get(leaf_id(key, "default", "user_id", user))
        if leaf is not None:
            values = project.plan.read(
                leaf.states, leaf.clock_ms, leaf.clock_ms, leaf.purged, PERMITTED
            )
            assert values["views"] == values["views_7d"] == leaf.applied
            found[user] = (values["views"], values["total"])
    return found
