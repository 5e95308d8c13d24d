"""`penstock connect` at a broker that asks who one is: what is missing is named, and allowed it copies."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AclOperation, AdminClient, NewTopic

from penstock.core.record import decode_record
from penstock.logs import open_log_alone
from penstock.project import load_project
from tests.cli.test_doctor_servers import allow_as_told, examined, only, told
from tests.cli.test_kafka_commands import run
from tests.cli.test_up import GRANTED
from tests.cli.test_up_kafka import project_on
from tools.services.kafka import Cluster

pytestmark = [pytest.mark.slow, pytest.mark.service, pytest.mark.timeout(300)]

RECORDS = 40
PASSWORD = "of-the-shop"


@pytest.fixture
def folder(secured_kafka: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with a connector, whose user may do with its log what is needed, and nothing else."""
    user = tmp_path.name
    monkeypatch.setenv("KAFKA_PASSWORD", PASSWORD)
    folder = project_on(
        secured_kafka, tmp_path / "shop",
        f'tls = true\nca = "{secured_kafka.ca}"\nsasl = "SCRAM-SHA-512"\nusername = "{user}"\n'
        'password = "env:KAFKA_PASSWORD"\nopen_timeout_ms = 30000'
        f'\n\n[sources.orders]\nkind = "server"\n\n[connect.orders]\ntopics = ["orders-{user}"]\ngroup = "readers-{user}"\n',
    )  # fmt: skip
    secured_kafka.add_user(user, PASSWORD)
    secured_kafka.allow(
        user, AclOperation.CREATE, AclOperation.DESCRIBE, AclOperation.DESCRIBE_CONFIGS, AclOperation.READ,
        AclOperation.WRITE, topics=f"{user}.",
    )  # fmt: skip
    admin = AdminClient(secured_kafka.client)
    admin.create_topics([NewTopic(f"orders-{user}", 2, 1)])[f"orders-{user}"].result(30)
    producer = Producer(secured_kafka.client)
    for number in range(RECORDS):
        event = {"type": "track", "event": "Product Viewed", "messageId": f"m{number}", "userId": f"u{number % 5}",
                 "properties": {"product_id": f"p{number}"}, "context": GRANTED}  # fmt: skip
        producer.produce(f"orders-{user}", json.dumps(event), partition=number % 2)
    assert 0 == producer.flush(30)
    return folder


@pytest.fixture
def connecting(folder: Path) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", "from penstock.cli.main import main; main()", "connect", str(folder)],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )  # fmt: skip
    yield process
    if process.poll() is None:
        process.kill()
    process.communicate()


def test_what_a_connector_lacks_is_named_and_refused_and_allowed_it_copies(
    folder: Path, secured_kafka: Cluster, request: pytest.FixtureRequest
) -> None:
    user = folder.parent.name
    assert 0 == run("apply", "--project", folder).exit_code
    denied = run("connect", folder)
    assert (3, True) == (denied.exit_code, "E237" in str(denied.exception) + denied.output)
    lacking = examined(folder, "connector orders:")
    assert {("FAIL", "E282", 3)} == set(map(told, lacking))
    assert [f"topic orders-{user}", f"group readers-{user}", f"group readers-{user}.copied"] == [
        one["what"].partition("Describe, Read ")[2].split(" (")[0] for one in lacking
    ]
    allow_as_told(secured_kafka, user, [one["fix"] for one in lacking])
    waiting = only(folder, "connector orders")
    assert f"{RECORDS} records behind" in waiting["what"], waiting

    process: subprocess.Popen[str] = request.getfixturevalue("connecting")
    # Until it has the data folder, which the doctor takes for a moment, too.
    assert process.stdout is not None
    assert "copying" in process.stdout.readline()
    while "nothing is behind" not in only(folder, "connector orders")["what"]:
        assert process.poll() is None, process.stdout.read()
    process.send_signal(signal.SIGTERM)
    assert 0 == process.wait(60)
    log = open_log_alone(load_project(folder))
    found = [decode_record(one.value).message_id for partition in range(log.partitions) for one in log.read(partition, 0, 1_000)]  # fmt: skip
    log.close()
    assert sorted(f"m{number}" for number in range(RECORDS)) == sorted(found)
