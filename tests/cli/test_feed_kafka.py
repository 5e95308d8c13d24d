"""`penstock up` tells other systems on a real broker: decisions and profiles, over kills and take-overs."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.adapters.kafka.read_topic import read_topic
from tests.cli.test_kafka_commands import run
from tests.cli.test_up import Up, settings, view
from tests.cli.test_up_kafka import project_on
from tools.services.kafka import Cluster

pytestmark = [pytest.mark.service, pytest.mark.timeout(180)]

FEED = """
[feed]
decisions = true
profiles = true
every_ms = 50
"""
READS_MAX = 100
LOOKS_MAX = 10_000


@pytest.fixture
def folder(kafka: Cluster, tmp_path: Path) -> Path:
    return project_on(kafka, tmp_path / "shop", FEED)


@pytest.fixture
def ups(folder: Path) -> Iterator[list[Up]]:
    started: list[Up] = []
    yield started
    for up in started:
        if up.process.poll() is None:
            up.end(signal.SIGKILL)


class Reader:
    """Another system: it reads the topics of a project, and compacts profiles as Kafka would."""

    def __init__(self, kafka: Cluster, prefix: str) -> None:
        self.kafka = kafka
        self.prefix = prefix

    def messages(self, name: str) -> list[tuple[str, dict[str, Any] | None]]:
        read = read_topic(self.kafka.client, f"{self.prefix}{name}")
        return [
            ((one.key() or b"").decode(), json.loads(value) if (value := one.value()) else None) for one in read
        ]  # fmt: skip

    def profiles(self) -> dict[str, dict[str, Any]]:
        newest = dict(self.messages("profiles"))
        return {key: value for key, value in newest.items() if value is not None}

    def wait_for(self, seen: Callable[[], bool], times: int = READS_MAX) -> None:
        """Look again until something is seen."""
        for _ in range(times):
            if seen():
                return
        pytest.fail("it was never told")


@pytest.fixture
def reader(kafka: Cluster, folder: Path) -> Reader:
    return Reader(kafka, f"{folder.parent.name}.")


def of(user: str, number: int) -> dict[str, Any]:
    return {**view(number), "messageId": f"{user}-{number}", "userId": user}


def views(reader: Reader) -> list[int]:
    return sorted(one["features"]["views_7d"] for one in reader.profiles().values())


def says(up: Up, *metrics: str) -> bool:
    """Return whether a process says all of some metrics."""
    with urllib.request.urlopen(f"{up.url}/metrics", timeout=10) as answer:
        said = answer.read().decode()
    return all(one in said for one in metrics)


def decide(up: Up, user: str, send: str) -> Any:
    key = settings(up.folder)["server"]["read_keys"][0]
    return up.call(f"/v1/decide/welcome?user_id={user}&send={send}", Authorization=f"Bearer {key}")


def test_topics_of_feeds_are_planned_made_and_altered(folder: Path) -> None:
    prefix = f"{folder.parent.name}."
    planned = json.loads(run("plan", "--project", folder, "--json").stdout)["topics"]
    assert [f"{prefix}{name}" for name in ("log-1", "dead-letters", "decisions", "profiles")] == [
        one["name"] for one in planned
    ]
    assert 0 == run("apply", "--project", folder).exit_code
    assert [] == json.loads(run("plan", "--project", folder, "--json").stdout)["topics"]
    toml = folder / "penstock.toml"
    toml.write_text(f'{toml.read_text()}decisions_retention = "7d"\n')
    altered = json.loads(run("plan", "--project", folder, "--json").stdout)["topics"]
    assert [f"retention.ms: {30 * 86_400_000} -> {7 * 86_400_000}"] == altered[0]["details"]
    assert 0 == run("apply", "--project", folder).exit_code


def test_who_compacts_profiles_has_what_is_served_and_decisions_have_their_ids(
    folder: Path, ups: list[Up], reader: Reader
) -> None:
    ups.append(Up(folder))
    up = ups[0]
    for number in range(1, 4):
        up.send(*[of(f"u{user}", number) for user in range(number)])
    told = [decide(up, "u0", f"s{number}")["decision_id"] for number in range(3)]
    reader.wait_for(lambda: views(reader) == [1, 2, 3])
    reader.wait_for(lambda: len(reader.messages("decisions")) == 3)
    assert told == [value["decision_id"] for _, value in reader.messages("decisions") if value]
    profiles = reader.profiles()
    served = up.profile("u0")
    (mine,) = [one for one in profiles.values() if one["features"]["views_7d"] == 3]
    assert served["features"] == mine["features"]
    assert {key for key, _ in reader.messages("decisions")} == {mine["person"]}

    denied = {"consent": {"categoryPreferences": {"personalisation": False}}}
    up.send({**of("u0", 9), "context": denied})
    reader.wait_for(lambda: views(reader) == [1, 2])
    assert (mine["person"], None) == [one for one in reader.messages("profiles") if one[0] == mine["person"]][-1]  # fmt: skip


@pytest.mark.slow
def test_killed_between_the_stores_write_and_the_telling_it_leaves_out_nobody(
    folder: Path, ups: list[Up], reader: Reader
) -> None:
    users = 20
    toml = folder / "penstock.toml"
    often = toml.read_text()
    applied = f"penstock_events_applied_total {users}.0"
    ups.append(Up(folder))
    ups[-1].send(of("u0", 0))
    reader.wait_for(lambda: views(reader) == [1])
    ups[-1].end(signal.SIGKILL)
    # One that hardly ever tells: what the store has is not told when it is killed.
    toml.write_text(often.replace("every_ms = 50", "every_ms = 3600000"))
    for turn in range(1, 3):
        ups.append(Up(folder))
        reader.wait_for(
            lambda: says(ups[-1], 'penstock_feed_lag_records{feed="profiles"} 0.0'), LOOKS_MAX
        )
        ups[-1].send(*[of(f"u{user}", turn) for user in range(users)])
        reader.wait_for(lambda: says(ups[-1], applied, "penstock_leaves_dirty 0.0"), LOOKS_MAX)
        ups[-1].end(signal.SIGKILL)
    assert sum(views(reader)) == users + 1
    toml.write_text(often)
    ups.append(Up(folder))
    reader.wait_for(lambda: views(reader) == [2] * (users - 1) + [3])
    assert_nothing_goes_back(reader)


@pytest.mark.slow
def test_what_workers_fold_is_told_while_they_come_and_go(
    folder: Path, ups: list[Up], reader: Reader
) -> None:
    toml = folder / "penstock.toml"
    toml.write_text(f'{toml.read_text()}\n[fold]\nby = "workers"\nport = 0\n')
    ups.append(Up(folder))
    workers: list[subprocess.Popen[bytes]] = []
    try:
        for turn in range(3):
            workers.append(start_worker(folder))
            ups[0].send(*[of(f"u{user}", turn) for user in range(10)])
            reader.wait_for(lambda count=turn + 1: views(reader) == [count] * 10)
            if turn == 1:
                workers[0].kill()
    finally:
        for one in workers:
            one.kill()
            one.wait()
    assert_nothing_goes_back(reader)


def start_worker(folder: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", "from penstock.cli.main import main; main()", "worker", str(folder), "--wait"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip


@pytest.mark.slow
def test_one_that_is_stopped_and_wakes_after_another_took_over_tells_nothing_old(
    folder: Path, ups: list[Up], reader: Reader, tmp_path: Path
) -> None:
    ups.append(Up(folder))
    ups[0].send(of("u0", 1))
    reader.wait_for(lambda: views(reader) == [1])
    other = another_node(folder, tmp_path / "other")
    ups[0].process.send_signal(signal.SIGSTOP)
    ups.append(Up(other))
    for number in range(2, 6):
        ups[1].send(of("u0", number))
    reader.wait_for(lambda: views(reader) == [5])
    ups[0].process.send_signal(signal.SIGCONT)
    ups[0].send(of("u1", 1))
    reader.wait_for(lambda: views(reader) == [1, 5])
    ups[1].end(signal.SIGKILL)
    ups[0].send(of("u0", 6))  # who stands by takes over in the end
    reader.wait_for(lambda: views(reader) == [1, 6])
    assert_nothing_goes_back(reader)


def assert_nothing_goes_back(reader: Reader) -> None:
    """Check that of nobody an older profile comes after a newer one."""
    seen: dict[str, int] = {}
    for key, value in reader.messages("profiles"):
        assert value is not None
        assert seen.get(key, 0) <= value["features"]["views_7d"]
        seen[key] = value["features"]["views_7d"]


def another_node(folder: Path, other: Path) -> Path:
    """Make a second node of the same project: the same keys and topics, and a data folder of its own."""
    shutil.copytree(folder, other, ignore=shutil.ignore_patterns("data"))
    (other / "data").mkdir(mode=0o700)
    shutil.copy(folder / "data" / "keys.json", other / "data")
    return other
