"""`penstock init --with`: a project that is made for real servers runs on them as it was written."""

from __future__ import annotations

import itertools
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from penstock.cli.init import SERVICES
from penstock.cli.main import main
from penstock.logs import require_shared
from penstock.project import load_project
from penstock.registries import make_registry
from penstock.settings import load_settings
from tests.cli.test_up import Up, view
from tools.services.kafka import Cluster
from tools.services.redis import Servers
from tools.services.service import Running

DEADLINE_S = 120.0
CHOICES = [",".join(chosen) for count in range(len(SERVICES) + 1) for chosen in itertools.combinations(SERVICES, count)]  # fmt: skip


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(one) for one in arguments])


def made(folder: Path, services: str, **filled: str) -> Path:
    """Make a project, and fill in what its comments say is to be filled in."""
    result = run("init", folder, "--with", services)
    assert result.exit_code == 0, result.output
    toml = folder / "penstock.toml"
    text = toml.read_text()
    for name, value in filled.items():
        text, times = re.subn(rf"^{name} = [^#\n]+", f"{name} = {value} ", text, flags=re.MULTILINE)
        assert 1 == times, name
    toml.write_text(text)
    return folder


@pytest.mark.parametrize("services", CHOICES)
def test_the_settings_are_those_of_what_was_asked_for(tmp_path: Path, services: str) -> None:
    settings = load_settings(made(tmp_path / "My Shop!", services) / "penstock.toml")
    kafka, redis = "kafka" in services, "redis" in services
    assert ("kafka" if kafka else "sqlite") == settings.log.kind
    assert ("redis" if redis else "sqlite") == settings.store.kind
    assert ("workers" if kafka else "up", kafka and redis) == (
        settings.fold.by,
        settings.store.redis.registers,
    )
    if kafka:
        require_shared(settings)
    assert ("http://127.0.0.1:8081" if "registry" in services else "") == settings.registry.url
    assert ("my-shop." if kafka else "penstock.") == settings.log.kafka.prefix


@pytest.mark.parametrize("services", CHOICES[1:])
def test_what_is_commented_out_may_be_taken_in_as_it_stands(
    tmp_path: Path, services: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    toml = made(tmp_path / "shop", services) / "penstock.toml"
    before, made_for, after = toml.read_text().partition("[development]")
    text = before + made_for + re.sub(r"^# (?=\w+ = )", "", after, flags=re.MULTILINE)
    assert text != toml.read_text()
    for name in re.findall(r'"env:(\w+)"', text):
        monkeypatch.setenv(name, "told")
    toml.write_text(text)
    settings = load_settings(toml)
    told = {"password": settings.log.kafka.password, "redis": settings.store.redis.password}
    assert {"password": "kafka" in services, "redis": "redis" in services} == {
        name: value == "told" for name, value in told.items()
    }


@pytest.mark.parametrize(
    ("services", "fix"),
    [("kafak", "did you mean `kafka`?"), ("kafka,reddis", "did you mean `redis`?"), ("x", "use kafka, redis, registry")],
)  # fmt: skip
def test_what_it_can_not_be_made_for_is_refused_and_nothing_is_written(
    tmp_path: Path, services: str, fix: str
) -> None:
    result = run("init", tmp_path / "shop", "--with", services)
    assert (3, False) == (result.exit_code, (tmp_path / "shop").exists())
    assert "E220" in result.stderr
    assert fix in result.stderr


@contextmanager
def worker(folder: Path) -> Iterator[None]:
    """Run a worker beside `penstock up`."""
    with (folder / "worker.txt").open("w") as said:
        process = subprocess.Popen(
            [sys.executable, "-c", "from penstock.cli.main import main; main()", "worker", str(folder), "--port", "0", "--wait"],
            stdout=said, stderr=said, env={**os.environ, "PYTHONUNBUFFERED": "1"}, start_new_session=True,
        )  # fmt: skip
    try:
        yield
    finally:
        process.terminate()
        assert 0 == process.wait(DEADLINE_S), (folder / "worker.txt").read_text()


def serves(folder: Path, *, workers: bool) -> None:
    """Plan, apply and run a project; an event goes in, and the profile that it makes comes out."""
    with ExitStack() as running:
        up = Up(folder)
        running.callback(lambda: up.end(signal.SIGTERM))
        if workers:
            running.enter_context(worker(folder))
        assert 4 == up.send(view(1), view(2), view(2), view(3))["accepted"]
        until = time.monotonic() + DEADLINE_S
        while 3 != (told := up.profile("u1")["features"]).get("views_7d"):
            assert time.monotonic() < until, told


@pytest.mark.service
@pytest.mark.timeout(300)
def test_a_project_made_for_redis_serves_from_it(tmp_path: Path, redis_server: Servers) -> None:
    tenant = tmp_path.name.replace("_", "-")
    folder = made(tmp_path / "shop", "redis", url=f'"{redis_server.url}"')
    toml = folder / "penstock.toml"
    toml.write_text(toml.read_text().replace("[project]", f'[project]\ntenant = "{tenant}"'))
    serves(folder, workers=False)
    with redis_server.client() as client:
        assert client.keys(f"penstock:{{{tenant}/*")


@pytest.mark.service
@pytest.mark.timeout(300)
def test_a_project_made_for_kafka_is_planned_applied_and_folded_by_workers(
    tmp_path: Path, kafka: Cluster
) -> None:
    prefix = f"{tmp_path.name}."
    folder = made(tmp_path / "shop", "kafka", brokers=json.dumps(kafka.address.split(",")),
                  replication="1", prefix=f'"{prefix}"')  # fmt: skip
    planned = json.loads(run("plan", "--json", "--project", folder).stdout)
    assert [f"{prefix}log-1", f"{prefix}dead-letters"] == [one["name"] for one in planned["topics"]]
    applied = run("apply", "--project", folder)
    assert 0 == applied.exit_code, applied.output
    assert [] == json.loads(run("plan", "--json", "--project", folder).stdout)["topics"]
    serves(folder, workers=True)


@pytest.mark.slow
@pytest.mark.service
@pytest.mark.timeout(300)
def test_a_project_made_for_all_of_them_runs_on_all_of_them(
    tmp_path: Path, kafka: Cluster, redis_server: Servers, registry_server: Running
) -> None:
    tenant = tmp_path.name.replace("_", "-")
    folder = made(tmp_path / "shop", "kafka,redis,registry", brokers=json.dumps(kafka.address.split(",")),
                  replication="1", prefix=f'"{tmp_path.name}."', namespace=f'"{tenant.replace("-", "_")}"')  # fmt: skip
    toml = folder / "penstock.toml"
    toml.write_text(
        toml.read_text().replace("[project]", f'[project]\ntenant = "{tenant}"')
        .replace("redis://127.0.0.1:6379/0", redis_server.url)
        .replace("http://127.0.0.1:8081", registry_server.address)
    )  # fmt: skip
    assert 0 == run("apply", "--project", folder).exit_code
    published = run("schemas", "publish", "--project", folder)
    assert 0 == published.exit_code, published.output
    serves(folder, workers=True)
    registry = make_registry(load_project(folder))
    assert registry is not None
    assert registry.versions(f"{tenant.replace('-', '_')}.ProductViewed")
    registry.close()
