"""The compose file: loaded by Compose's own library, and true to the commands, settings and servers that it names."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from click.testing import CliRunner

from penstock.cli.main import main
from penstock.logs import require_shared
from penstock.settings import Settings, load_settings
from tests.conftest import ROOT
from tests.deploy.conftest import Run
from tools.services.kafka import Cluster
from tools.services.redis import Servers
from tools.services.service import Running, free_ports

DEPLOY = ROOT / "deploy"
FILE = DEPLOY / "compose.yaml"
OURS = ("up", "worker")
DEADLINE_S = 120.0


@pytest.fixture(scope="module")
def model(charts: Run, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The whole model, as `docker compose config` prints it, of a checkout where keys were filled in."""
    folder = tmp_path_factory.mktemp("deploy")
    for name in ("compose.yaml", "penstock.toml", "prometheus.yaml"):
        (folder / name).write_text((DEPLOY / name).read_text())
    (folder / ".env").write_text(
        re.sub(r"=$", "=secret", (DEPLOY / ".env.example").read_text(), flags=re.MULTILINE)
    )
    done = charts("compose", folder / "compose.yaml", "metrics")
    assert 0 == done.returncode, done.stderr
    return yaml.safe_load(done.stdout)


@pytest.fixture
def settings(model: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Settings:
    """The settings that the services run with, their secrets read from what the model gives them."""
    for number, (name, value) in enumerate(sorted(model["services"]["up"]["environment"].items())):
        monkeypatch.setenv(name, f"{value}-{number}")
    return load_settings(DEPLOY / "penstock.toml")


def test_a_compose_file_that_is_wrong_is_found(charts: Run, tmp_path: Path) -> None:
    """A checker that finds nothing proves nothing."""
    file = tmp_path / "compose.yaml"
    file.write_text("name: x\nservices: {up: {image: a, prots: ['80:80']}}\n")
    assert 1 == charts("compose", file).returncode
    file.write_text("name: x\nservices: {up: {image: a, depends_on: [nobody]}}\n")
    assert 1 == charts("compose", file).returncode


def test_settings_name_the_servers_that_are_there(
    model: dict[str, Any], settings: Settings
) -> None:
    services = model["services"]
    hosts = [one.partition(":")[0] for one in settings.log.kafka.brokers]
    hosts += re.findall(r"//([\w-]+):", f"{settings.store.redis.url} {settings.registry.url}")
    assert {"kafka", "redis", "registry"} == set(hosts) <= services.keys()
    assert f"PLAINTEXT://{settings.log.kafka.brokers[0]}" == services["kafka"]["environment"]["KAFKA_ADVERTISED_LISTENERS"]  # fmt: skip
    assert "noeviction" in services["redis"]["command"]
    assert ("worker" in services) == (settings.fold.by == "workers")
    if settings.fold.by == "workers":
        require_shared(settings)
    named = set(re.findall(r'"env:(\w+)"', (DEPLOY / "penstock.toml").read_text()))
    assert named == services["up"]["environment"].keys()


def test_each_service_of_ours_runs_a_command_that_there_is(model: dict[str, Any]) -> None:
    with main.make_context("penstock", [], resilient_parsing=True) as context:
        for name in OURS:
            command, *rest = model["services"][name]["command"]
            found = main.get_command(context, command)
            assert found is not None
            found.make_context(command, rest, parent=context)


def test_each_of_ours_sees_the_project_its_settings_and_writes_to_data_alone(
    model: dict[str, Any], settings: Settings
) -> None:
    for name in OURS:
        service = model["services"][name]
        mounted = {one["target"]: one.get("read_only", False) for one in service["volumes"]}
        writable = {target for target, read_only in mounted.items() if not read_only}
        assert {"/project", "/project/penstock.toml"} == mounted.keys() - writable
        assert writable <= {settings.data_dir}
        assert (True, ["ALL"]) == (service["read_only"], service["cap_drop"])
        assert service["healthcheck"]["test"][0] == "CMD"
    assert settings.data_dir in {one["target"] for one in model["services"]["up"]["volumes"]}


def test_ports_are_open_to_this_machine_alone(model: dict[str, Any], settings: Settings) -> None:
    ports = [
        (name, one)
        for name, service in model["services"].items()
        for one in service.get("ports", ())
    ]
    assert {"127.0.0.1"} == {one["host_ip"] for _, one in ports}
    assert ("up", settings.server.port) in {(name, one["target"]) for name, one in ports}
    scraped = (DEPLOY / "prometheus.yaml").read_text()
    assert f"up:{settings.server.port}" in scraped
    assert f"port: {settings.fold.port}" in scraped


def test_images_have_versions(model: dict[str, Any]) -> None:
    others = {name: one["image"] for name, one in model["services"].items() if name not in OURS}
    assert {} == {
        name: image for name, image in others.items() if not re.search(r":v?\d+\.\d+", image)
    }


@contextmanager
def started(
    service: dict[str, Any], folder: Path, port: int, log: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """Run the command of a service on this machine: in its folder, with its environment, at a port of its own."""
    command = [str(folder) if one == "/project" else one for one in service["command"]]
    environ = {**os.environ, **service["environment"], "PYTHONUNBUFFERED": "1"}
    with log.open("wb") as said:
        process = subprocess.Popen(
            [sys.executable, "-c", "from penstock.cli.main import main; main()", *command, "--port", str(port)],
            env=environ, stdout=said, stderr=said, start_new_session=True,
        )  # fmt: skip
    try:
        yield process
    finally:
        process.terminate()
        assert 0 == process.wait(DEADLINE_S), log.read_text()


def healthy(
    service: dict[str, Any], port: int, process: subprocess.Popen[bytes], log: Path
) -> None:
    """Wait until the health check of a service passes."""
    kind, program, *rest = service["healthcheck"]["test"]
    assert ("CMD", "python") == (kind, program)
    (probe,) = [re.sub(r":80\d\d/", f":{port}/", one) for one in rest if one != "-c"]
    until = time.monotonic() + DEADLINE_S
    while subprocess.run(
        [sys.executable, "-c", probe], capture_output=True, check=False
    ).returncode:
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < until, log.read_text()


@pytest.mark.slow
@pytest.mark.service
@pytest.mark.timeout(300)
def test_what_it_starts_takes_an_event_and_serves_its_profile(
    model: dict[str, Any], tmp_path: Path, kafka: Cluster, registry_server: Running,
    start_redis: Callable[..., Servers],
) -> None:  # fmt: skip
    """The commands, settings and checks of the file, as they stand, beside real servers in the place of its own."""
    folder = tmp_path / "project"
    assert 0 == CliRunner().invoke(main, ["init", str(folder)]).exit_code
    text = (DEPLOY / "penstock.toml").read_text()
    for told, here in (
        ("kafka:9092", kafka.address), ("redis://redis:6379/0", start_redis().url), ('"shop."', f'"{tmp_path.name}."'),
        ("http://registry:8080/apis/ccompat/v7", registry_server.address), ("/data", str(tmp_path / "data")),
    ):  # fmt: skip
        assert told in text
        text = text.replace(told, here)
    (folder / "penstock.toml").write_text(text)
    environ = {
        name: f"{value}-{name}" for name, value in model["services"]["up"]["environment"].items()
    }
    up, worker = ({**model["services"][name], "environment": environ} for name in OURS)
    at, folds = free_ports(2)
    with ExitStack() as running:
        log = tmp_path / "up.txt"
        healthy(up, at, running.enter_context(started(up, folder, at, log)), log)
        log = tmp_path / "worker.txt"
        healthy(worker, folds, running.enter_context(started(worker, folder, folds, log)), log)
        url = f"http://127.0.0.1:{at}"
        event = {"type": "track", "event": "Product Viewed", "messageId": "m1", "userId": "u1",
                 "properties": {"product_id": "p1"}, "writeKey": environ["PENSTOCK_SERVER_KEY"],
                 "context": {"consent": {"categoryPreferences": {"personalisation": True}}}}  # fmt: skip
        assert 200 == httpx.post(f"{url}/v1/track", json=event).status_code
        key = {"Authorization": f"Bearer {environ['PENSTOCK_READ_KEY']}"}
        until = time.monotonic() + DEADLINE_S
        while 1 != (told := httpx.get(f"{url}/v1/profiles/user_id:u1", headers=key).json()).get("features", {}).get("views_7d"):  # fmt: skip
            assert time.monotonic() < until, told
