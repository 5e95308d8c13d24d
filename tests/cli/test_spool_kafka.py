"""The spool of `penstock up` over the death of a real broker: answered 200, and in the log in the end, once."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.adapters.kafka.read_topic import read_topic
from tests.cli.test_feed_kafka import Reader, says, views
from tests.cli.test_kafka_commands import run
from tests.cli.test_up import Up, view
from tests.cli.test_up_kafka import project_on, sent
from tests.conftest import running
from tools.services.kafka import SERVICE, Cluster

pytestmark = [pytest.mark.service, pytest.mark.slow, pytest.mark.timeout(300)]

LOOKS_MAX = 20_000
SPOOL = "spool_mb = 1\n\n[feed]\nprofiles = true\nevery_ms = 50\n"


@pytest.fixture(scope="module")
def broker() -> Iterator[Cluster]:
    """A broker of this module's own: it is killed."""
    yield from running(SERVICE)


@pytest.fixture
def folder(broker: Cluster, tmp_path: Path) -> Iterator[Path]:
    yield project_on(broker, tmp_path / "shop", SPOOL)
    if not broker.servers[0].alive():
        broker.servers[0].start()


@pytest.fixture
def ups(folder: Path) -> Iterator[list[Up]]:
    started: list[Up] = []
    yield started
    for up in started:
        if up.process.poll() is None:
            up.end(signal.SIGKILL)


def until(up: Up, *metrics: str) -> None:
    for _ in range(LOOKS_MAX):
        if says(up, *metrics):
            return
    pytest.fail(f"it never said {metrics}")


def test_while_the_broker_is_away_events_wait_on_disk_and_count_once_in_the_end(
    folder: Path, ups: list[Up], broker: Cluster
) -> None:
    ups.append(Up(folder))
    up = ups[0]
    up.send(view(0))
    broker.servers[0].kill()
    assert [200] * 20 == [sent(up, view(number)) for number in range(1, 21)]
    assert says(up, "penstock_spool_records 20.0")
    assert 1 == up.profile("u1")["features"]["views_7d"]
    assert 69 == run("doctor", "--project", folder).exit_code
    said = run("doctor", "--project", folder).output
    assert "batches wait for the brokers, with 20 records, since" in said
    broker.servers[0].start()
    until(up, "penstock_spool_records 0.0", "penstock_spool_drained_records_total 20.0")
    assert 200 == sent(up, view(21))
    for _ in range(LOOKS_MAX):
        if up.profile("u1")["features"]["views_7d"] == 22:
            break
    assert 22 == up.profile("u1")["features"]["views_7d"]
    # What other systems are told goes on by itself as well.
    reader = Reader(broker, f"{folder.parent.name}.")
    reader.wait_for(lambda: views(reader) == [22])
    assert 0 == up.end(signal.SIGTERM)
    assert "spool: nothing waits for the brokers" in run("doctor", "--project", folder).output


def test_killed_while_it_drains_nothing_is_lost_and_nothing_doubled(
    folder: Path, ups: list[Up], broker: Cluster
) -> None:
    ups.append(Up(folder))
    ups[0].send(view(0))
    broker.servers[0].kill()
    for number in range(1, 41):
        assert 200 == sent(ups[0], view(number))
    broker.servers[0].start()
    until(ups[0], "penstock_spool_drained_records_total")
    ups[0].end(signal.SIGKILL)
    ups.append(Up(folder))
    until(ups[1], "penstock_spool_records 0.0")
    ups[1].send(view(41))
    for _ in range(LOOKS_MAX):
        if ups[1].profile("u1")["features"]["views_7d"] == 42:
            break
    assert 42 == ups[1].profile("u1")["features"]["views_7d"]
    log = read_topic(broker.client, f"{folder.parent.name}.log-1")
    values = [one.value() or b"" for one in log]
    places = [next(place for place, value in enumerate(values) if b"\xa2m%d" % number in value or b"\xa3m%d" % number in value)
              for number in range(42)]  # fmt: skip
    assert sorted(places) == places, "in the order in which they were sent"


def test_a_spool_that_is_full_answers_503(folder: Path, ups: list[Up], broker: Cluster) -> None:
    ups.append(Up(folder))
    broker.servers[0].kill()
    large = {**view(1), "properties": {"product_id": "p" * 20_000}}
    answers = [sent(ups[0], {**large, "messageId": f"l{number}"}) for number in range(80)]
    assert {200, 503} == {*answers}
    assert sorted(answers) == answers
    broker.servers[0].start()
    until(ups[0], "penstock_spool_bytes 0.0")
    assert 200 == sent(ups[0], view(2))
