"""`penstock up` with its log on a real Kafka broker: through and out again, and over the broker's death."""

from __future__ import annotations

import signal
import urllib.error
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from penstock.cli.main import main
from tests.cli.test_up import Up, view
from tests.conftest import running
from tools.services.kafka import SERVICE, Cluster

ATTEMPTS_MAX = 600


@pytest.fixture(scope="module")
def broker() -> Iterator[Cluster]:
    """A broker of this module's own: it is killed."""
    yield from running(SERVICE)


@pytest.fixture
def folder(broker: Cluster, tmp_path: Path) -> Path:
    return project_on(broker, tmp_path / "shop")


def project_on(cluster: Cluster, folder: Path, more: str = "") -> Path:
    """Make a project whose log is on a cluster, under a prefix of its own."""
    result = CliRunner().invoke(main, ["init", str(folder)])
    assert result.exit_code == 0, result.output
    toml = folder / "penstock.toml"
    text = toml.read_text()
    assert "[log]" not in text
    toml.write_text(f"""{text}
[log]
kind = "kafka"
partitions = 3

[log.kafka]
brokers = {cluster.address.split(",")}
prefix = "{folder.parent.name}."
replication = 1
append_timeout_ms = 1500
{more}
""")
    return folder


@pytest.fixture
def ups(folder: Path) -> Iterator[list[Up]]:
    started: list[Up] = []
    yield started
    for up in started:
        if up.process.poll() is None:
            up.end(signal.SIGKILL)


def sent(up: Up, event: dict[str, Any]) -> int:
    """Send an event, and return the status that it is answered with."""
    try:
        up.send(event)
    except urllib.error.HTTPError as error:
        return error.code
    return 200


def test_an_event_goes_through_the_broker_and_is_in_the_profile(
    folder: Path, ups: list[Up]
) -> None:
    ups.append(Up(folder))
    ups[0].send(view(1), view(2), view(3))
    assert 3 == ups[0].profile("u1")["features"]["views_7d"]
    assert 0 == ups[0].end(signal.SIGTERM)
    ups.append(Up(folder))
    ups[1].send(view(3), view(4))
    assert 4 == ups[1].profile("u1")["features"]["views_7d"]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_over_a_kill_of_the_broker_each_acknowledged_event_counts_once(
    folder: Path, ups: list[Up], broker: Cluster
) -> None:
    ups.append(Up(folder))
    up = ups[0]
    for number in range(10):
        assert 200 == sent(up, view(number))
    broker.servers[0].kill()
    refused = [sent(up, view(10)) for _ in range(3)]
    assert {503} == set(refused)
    broker.servers[0].start()
    for number in range(10, 20):
        for _ in range(ATTEMPTS_MAX):
            if sent(up, view(number)) == 200:
                break
        else:
            pytest.fail("it did not recover")
    assert 20 == up.profile("u1")["features"]["views_7d"]
    assert 0 == up.end(signal.SIGTERM)
    ups.append(Up(folder))
    assert 20 == ups[1].profile("u1")["features"]["views_7d"]
