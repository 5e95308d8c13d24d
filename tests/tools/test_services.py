"""Real servers: they answer when they are said to, and what was killed comes back with what it holds."""

import fcntl
import socket
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from confluent_kafka.admin import AdminClient, NewTopic

from tools.services.__main__ import every_service
from tools.services.kafka import Cluster
from tools.services.registry import SERVICE as REGISTRY
from tools.services.service import CACHE, NotStarted, Server, free_ports, missing_programs, only_one


def test_ports_are_free_and_all_different():
    ports = free_ports(20)
    assert 20 == len(set(ports))
    for port in ports:
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", port))


def test_what_is_missing_is_said_with_what_installs_it():
    assert "" == missing_programs(sh="apt-get install dash")
    said = missing_programs(sh="", **{"no-such-program": "apt-get install nothing"})
    assert "no no-such-program on this machine; fix: apt-get install nothing" == said


def test_a_server_that_ends_is_told_of_with_what_it_said(tmp_path: Path):
    server = Server("sh", ["sh", "-c", "echo the port is taken; exit 3"], tmp_path, lambda: False)
    with pytest.raises(NotStarted, match="the port is taken"):
        server.start()
    assert 0 == server.pid
    server.stop()


def test_a_server_that_never_answers_is_killed(tmp_path: Path):
    server = Server("sleep", ["sleep", "60"], tmp_path, lambda: False)
    with pytest.raises(NotStarted, match="did not answer"):
        server.start(seconds=0.1)
    assert not server.alive()


def test_a_paused_server_can_be_stopped(tmp_path: Path):
    server = Server("sleep", ["sleep", "60"], tmp_path, lambda: True)
    server.start()
    server.pause()
    server.stop()
    assert not server.alive()


def test_one_process_at_a_time_installs():
    with only_one("of-the-tests"):
        lock = CACHE / "of-the-tests.lock"
        with lock.open("w") as other, pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_every_module_that_holds_a_service_is_found():
    assert "kafka" in every_service()


def test_a_kafka_broker_has_no_topics_of_its_own_making(kafka: Cluster):
    admin = AdminClient(kafka.client)
    topics = set(admin.list_topics(timeout=10).topics)
    assert "made-here" not in topics
    admin.create_topics([NewTopic("made-here", 3, 1)])["made-here"].result(10)
    assert 3 == len(admin.list_topics(topic="made-here", timeout=10).topics["made-here"].partitions)


def test_a_registry_that_is_killed_comes_back_with_all_that_was_registered(
    tmp_path: Path, program: Callable[[str], str]
):
    program("java")
    program("mvn")
    running = REGISTRY.start(tmp_path)
    try:
        client = httpx.Client(base_url=running.address)
        registered = client.post("/subjects/a/versions", json={"schema": '"string"'}).json()
        running.servers[0].kill()
        running.servers[0].start()
        assert {"schema": '"string"', "schemaType": "AVRO", "references": []} == client.get(
            f"/schemas/ids/{registered['id']}"
        ).json()
        client.close()
    finally:
        running.stop()
