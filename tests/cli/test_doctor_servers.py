"""`penstock doctor` at real servers: each fault is named with its place and its remedy, and the remedy mends it."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from confluent_kafka import Producer
from confluent_kafka.admin import (
    AclOperation,
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewTopic,
    ResourceType,
)

from penstock.adapters.clock import SystemClock
from penstock.adapters.redis import Facts
from penstock.cli.doctor_servers import redis_findings
from penstock.cli.main import main
from penstock.settings import RedisSettings
from penstock.stores import Asked
from tests.cli.test_init_with import worker
from tests.cli.test_kafka_commands import change, refused, run
from tests.cli.test_up import Up, view
from tests.cli.test_up_kafka import project_on
from tools.services.kafka import Cluster
from tools.services.redis import Servers
from tools.services.service import Running

pytestmark = [pytest.mark.service, pytest.mark.timeout(300)]

MINUTE_MS = 60_000
StartRedis = Callable[..., Servers]


def examined(folder: Path, name: str) -> list[dict[str, Any]]:
    """Return the findings whose text begins with a name; the exit code is that of the worst."""
    result = CliRunner().invoke(main, ["doctor", "--json", "--project", str(folder)])
    found = json.loads(result.stdout)
    assert result.exit_code == max(one["exit_code"] for one in found)
    return [one for one in found if one["what"].startswith(name)]


def only(folder: Path, name: str) -> dict[str, Any]:
    (found,) = examined(folder, f"{name}:")
    return found


def told(finding: dict[str, Any]) -> tuple[str, str, int]:
    """Return a finding's state, code and exit code."""
    return finding["state"], "".join(re.findall(r"\bE\d{3}\b", finding["what"])[:1]), finding["exit_code"]  # fmt: skip


@pytest.fixture
def folder(kafka: Cluster, tmp_path: Path) -> Path:
    return project_on(kafka, tmp_path / "shop")


def produced(cluster: Cluster, topic: str, count: int, **more: Any) -> None:
    producer = Producer(cluster.client)
    for number in range(count):
        producer.produce(topic, f"{number}", partition=0, **more)
    assert 0 == producer.flush(30)


def altered(cluster: Cluster, topic: str, name: str, value: str) -> None:
    entry = ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])
    admin = AdminClient(cluster.client)
    admin.incremental_alter_configs([resource])[resource].result(30)


# -- topics, clock, workers


def test_topics_that_are_missing_or_otherwise_are_named(folder: Path, kafka: Cluster) -> None:
    prefix = f"{folder.parent.name}."
    change(folder, "replication = 1", "replication = 3")
    missing, refused, other = examined(folder, "kafka topics:")
    assert ("FAIL", "E283", 3) == told(missing)
    assert f"{prefix}log-1 (missing), {prefix}dead-letters (missing)" in missing["what"]
    assert {("FAIL", "E289", 3)} == {told(refused), told(other)}
    assert "INVALID_REPLICATION_FACTOR" in refused["what"]

    change(folder, "replication = 3", "replication = 1")
    assert 0 == run("apply", "--project", folder).exit_code
    assert ("ok", "", 0) == told(only(folder, "kafka topics"))
    assert "1 broker answers" in only(folder, "kafka")["what"]
    assert "all that is needed" in only(folder, "kafka permissions")["what"]

    change(folder, "partitions = 3", "partitions = 4")
    fewer = only(folder, "kafka topics")
    assert f"{prefix}log-2 (not opened yet)" in fewer["what"]
    assert "only workers go over to it" in fewer["fix"]
    change(folder, "partitions = 4", "partitions = 3")
    change(folder, "replication = 1", 'replication = 1\nretention = "90d"')
    assert f"retention.ms: -1 -> {90 * 1440 * MINUTE_MS}" in only(folder, "kafka topics")["what"]


def test_brokers_whose_clock_is_ahead_are_found_by_their_stamps(
    folder: Path, kafka: Cluster
) -> None:
    assert 0 == run("apply", "--project", folder).exit_code
    assert "nothing is stamped yet" in only(folder, "kafka clock")["what"]
    log = f"{folder.parent.name}.log-1"
    # A producer's stamp stands in for a broker's of another clock.
    altered(kafka, log, "message.timestamp.type", "CreateTime")
    produced(kafka, log, 1, timestamp=SystemClock().now_ms() + 20 * MINUTE_MS)
    altered(kafka, log, "message.timestamp.type", "LogAppendTime")
    clock = only(folder, "kafka clock")
    assert ("FAIL", "E454", 69) == told(clock)
    assert "s ahead of this machine's" in clock["what"]
    assert "NTP" in clock["fix"]


@pytest.mark.slow
def test_partitions_that_nobody_folds_are_a_fault_while_events_come_in(folder: Path) -> None:
    change(folder, "[log]", '[fold]\nby = "workers"\n\n[log]')
    assert 0 == run("apply", "--project", folder).exit_code
    before = only(folder, "workers of set 1")
    assert ("ok", "0 of 3 partitions are read; nothing is behind") == (before["state"], before["what"].partition(": ")[2])  # fmt: skip
    up = Up(folder)
    try:
        up.send(view(1), view(2))
        alone = only(folder, "workers of set 1")
        assert ("FAIL", "E474", 69) == told(alone), alone
        assert "nobody reads 3 of 3 partitions; 2 records behind" in alone["what"]
        assert ["0 behind, nobody reads it"] * 2 + ["2 behind, nobody reads it"] == sorted(alone["details"].values())  # fmt: skip
        with worker(folder):
            while "3 of 3 partitions are read; nothing is behind" not in only(folder, "workers of set 1")["what"]:  # fmt: skip
                pass  # it joins, folds and commits
    finally:
        up.end(signal.SIGTERM)


# -- connectors


def test_a_connector_says_how_far_behind_it_is_and_what_it_lacks(
    folder: Path, kafka: Cluster
) -> None:
    topic = f"{folder.parent.name}.orders"
    toml = folder / "penstock.toml"
    toml.write_text(toml.read_text() + f"""
[sources.orders]
kind = "server"

[connect.orders]
topics = ["{topic}"]
group = "{topic}"
""")  # fmt: skip
    missing = only(folder, "connector orders")
    assert ("FAIL", "E237", 3) == told(missing)
    assert topic in missing["what"]
    assert "E237" == refused(run("connect", folder))
    admin = AdminClient(kafka.client)
    admin.create_topics([NewTopic(topic, 2, 1)])[topic].result(30)
    produced(kafka, topic, 5)
    waiting = only(folder, "connector orders")
    assert ("ok", "", 0) == told(waiting)
    assert f"0 of 2 partitions are read; 5 records behind ({topic}/0 5)" in waiting["what"]
    change(folder, "[sources.orders]", "[sources.other]")
    assert ("FAIL", "E234", 3) == told(only(folder, "connector orders"))


# -- who may do what


def allow_as_told(cluster: Cluster, user: str, fixes: list[str]) -> None:
    """Do what the remedies say, by the brokers' own API."""
    names = {one.name.replace("_", "").lower(): one for one in AclOperation}
    for fix in fixes:
        operations = [names[one.lower()] for one in re.findall(r"--operation (\w+)", fix)]
        ((kind, place),) = re.findall(r"--(topic|group) (\S+)", fix)
        cluster.allow(user, *operations, **{f"{kind}s": place})


@pytest.fixture
def shut_out(secured_kafka: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project on the secured cluster, whose user may do nothing yet; its topics are there."""
    monkeypatch.setenv("KAFKA_PASSWORD", "of-the-shop")
    folder = project_on(
        secured_kafka, tmp_path / "shop",
        f'tls = true\nca = "{secured_kafka.ca}"\nsasl = "SCRAM-SHA-512"\nusername = "{tmp_path.name}"\n'
        'password = "env:KAFKA_PASSWORD"\nopen_timeout_ms = 30000',
    )  # fmt: skip
    change(folder, "[log]", f'[fold]\nby = "workers"\ngroup = "{tmp_path.name}"\n\n[log]')
    secured_kafka.add_user(tmp_path.name, "of-the-shop")
    return folder


@pytest.mark.slow
def test_what_a_user_may_not_do_is_named_with_the_command_that_allows_it(
    shut_out: Path, secured_kafka: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    user = shut_out.parent.name
    of_log, of_letters, of_group = examined(shut_out, "kafka permissions:")
    assert {("FAIL", "E282", 3)} == {told(of_log), told(of_letters), told(of_group)}
    assert f"may not Describe, DescribeConfigs, Read, Write topic {user}.log-1" in of_log["what"]
    assert f"may not Describe, Read group {user}-default-1-1" in of_group["what"]
    assert f"--add --allow-principal User:NAME --operation Describe --operation Read --group {user}-" in of_group["fix"]  # fmt: skip

    allow_as_told(secured_kafka, user, [one["fix"] for one in (of_log, of_letters, of_group)])
    # It sees now that there are no topics, and that it may not make them.
    there, *missing = examined(shut_out, "kafka permissions:")
    assert "all that is needed" in there["what"]
    assert {("FAIL", "E282", 3)} == set(map(told, missing))
    assert ["Create" in one["what"] for one in missing] == [True, True]
    allow_as_told(secured_kafka, user, [one["fix"] for one in missing])
    assert 0 == run("apply", "--project", shut_out).exit_code
    assert "all that is needed" in only(shut_out, "kafka permissions")["what"]
    assert ("ok", "", 0) == told(only(shut_out, "kafka topics"))

    text = run("doctor", "--verbose", "--project", shut_out).output
    assert "of-the-shop" not in text
    monkeypatch.setenv("KAFKA_PASSWORD", "wrong")
    wrong = only(shut_out, "kafka")
    assert ("FAIL", "E282", 3) == told(wrong)
    assert "check the user, its password" in wrong["fix"]


# -- Redis


def on_redis(folder: Path, servers: Servers, more: str = "") -> Path:
    assert 0 == run("init", folder).exit_code
    toml = folder / "penstock.toml"
    toml.write_text(
        f'{toml.read_text()}\n[store]\nkind = "redis"\n[store.redis]\nurl = "{servers.url}"\n{more}\n'
    )
    return folder


def test_a_redis_server_is_looked_at(tmp_path: Path, start_redis: StartRedis) -> None:
    servers = start_redis()
    folder = on_redis(tmp_path / "shop", servers, "wait_replicas = 1")
    good = only(folder, "redis")
    assert ("ok", "", 0) == told(good)
    assert re.search(r"Redis 7[.\d]+ has our functions and takes leaves; \d+ of \d+ MiB, `noeviction`, 0 replicas follow", good["what"])  # fmt: skip
    assert "agrees with this machine's" in only(folder, "redis clock")["what"]
    replicas = only(folder, "redis replicas")
    assert ("FAIL", "E451", 69) == told(replicas)
    assert "0 replicas follow, and 1 are to confirm" in replicas["what"]

    change(folder, "wait_replicas = 1", "")
    assert [] == examined(folder, "redis replicas:")
    with servers.client() as client:
        used = client.info("memory")["used_memory"]  # pyright: ignore[reportIndexIssue]
        client.config_set("maxmemory", used + (64 << 10))
    memory = only(folder, "redis memory")
    assert ("FAIL", "E453", 69) == told(memory)
    with servers.client() as client:
        client.config_set("maxmemory", 0)
        client.config_set("maxmemory-policy", "allkeys-lru")
    evicts = only(folder, "redis")
    assert ("FAIL", "E291", 3) == told(evicts)
    assert "CONFIG SET maxmemory-policy noeviction" in evicts["fix"]
    servers.servers[0].kill()
    assert ("FAIL", "E402", 69) == told(only(folder, "redis"))


@pytest.mark.parametrize(
    ("theirs_ms", "state", "says"),
    [(1_000, "ok", "agrees"), (31_000, "ok", "30.0 s ahead"), (500_000, "FAIL", "E454"), (-400_000, "FAIL", "E454")],
)  # fmt: skip
def test_a_clock_that_is_far_off_is_found(theirs_ms: int, state: str, says: str) -> None:
    facts = Facts((7, 0), "", "", "master", "noeviction", clustered=False, appends=True, memory_bytes=1,
                  memory_bytes_max=100, replicas=0, time_ms=theirs_ms + 10_000_000)  # fmt: skip
    asked = Asked(facts, before_ms=10_000_000, after_ms=10_001_000)
    _, clock = redis_findings(asked, RedisSettings())
    assert (state, True) == (clock.state, says in clock.what)


# -- the registry


@pytest.fixture
def registered(tmp_path: Path, registry_server: Running) -> Iterator[Path]:
    folder = tmp_path / "shop"
    assert 0 == run("init", folder).exit_code
    toml = folder / "penstock.toml"
    namespace = re.sub("[^a-z0-9]", "", tmp_path.name)
    toml.write_text(f'{toml.read_text()}\n[registry]\nurl = "{registry_server.address}"\nnamespace = "doctor.{namespace}"\n')  # fmt: skip
    return folder


def test_events_that_do_not_fit_what_is_registered_are_named(registered: Path) -> None:
    text = (
        registered / "events.py"
    ).read_text() + "\nfrom penstock.dsl.events import event, integer, string\n"
    (registered / "events.py").write_text(f"{text}rated = event('Rated', stars=integer())\n")
    new = only(registered, "registry")
    assert ("ok", True) == (new["state"], "not registered yet: `penstock schemas publish`" in new["what"])  # fmt: skip
    assert 0 == run("schemas", "publish", "--project", registered).exit_code
    assert re.search(r"events fit$", only(registered, "registry")["what"])
    (registered / "events.py").write_text(f"{text}rated = event('Rated', stars=string())\n")
    broken = only(registered, "registry")
    assert ("FAIL", "E195", 2) == told(broken), broken
    assert "$.properties.stars was integer, is string" in broken["what"]


def test_a_registry_that_is_away_is_told(registered: Path, registry_server: Running) -> None:
    change(registered, registry_server.address, "http://127.0.0.1:1")
    assert ("FAIL", "E490", 69) == told(only(registered, "registry"))
