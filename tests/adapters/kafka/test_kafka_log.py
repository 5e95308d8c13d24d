"""The log on Kafka where brokers are away, refuse, or are not what the log relies on."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import (
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ResourcePatternType,
    ResourceType,
)

from penstock.adapters.log.kafka import SHORT_LOOKS, KafkaLog
from penstock.adapters.log.kafka.connection import Connection
from penstock.adapters.log.kafka.topics import Admin
from penstock.core.errors import DataCorrupt, SettingsError, Unavailable
from penstock.core.record import LogRecord
from tests.adapters.kafka.kafka_topics import make_topics, prefix_of
from tests.conftest import running
from tools.services.kafka import SERVICE, Cluster

RECOVERY_S = 30
ATTEMPTS_MAX = 400
PASSWORD = "of-a-shop"

Connect = Callable[..., Connection]


@pytest.fixture(scope="module")
def mortal() -> Iterator[Cluster]:
    """A broker of this module's own, to be killed and paused."""
    yield from running(SERVICE)


@pytest.fixture
def three() -> Iterator[Cluster]:
    """Three brokers."""
    yield from running(SERVICE, brokers=3)


def quick(cluster: Cluster, folder: Path) -> Connection:
    """Return a connection that waits no longer than a test does."""
    connection = Connection(
        cluster.client, prefix_of(folder), append_timeout_s=3.0, read_timeout_s=3.0
    )
    return make_topics(connection)


def until_it_answers(work: Callable[[], object]) -> None:
    until = time.monotonic() + RECOVERY_S  # a refusal may come at once: attempts are no time
    while time.monotonic() < until:
        try:
            work()
        except Unavailable:
            continue
        return
    pytest.fail("it did not recover")


def test_a_topic_that_is_not_there_is_refused_with_what_makes_it(kafka: Cluster, tmp_path: Path):
    with pytest.raises(SettingsError) as caught:
        KafkaLog(Connection(kafka.client, prefix_of(tmp_path)))
    assert "E280" == caught.value.code
    assert "penstock apply" in caught.value.fix


def test_a_topic_of_other_partitions_is_refused(connect: Connect, tmp_path: Path):
    for declared in (2, 4):
        with pytest.raises(SettingsError, match="has 3 partitions") as caught:
            KafkaLog(connect(tmp_path, 3), partitions=declared)
        assert ("E281", "log.partitions") == (caught.value.code, caught.value.where)


def test_a_record_over_the_topics_limit_is_refused_with_its_place_and_others_go_on(
    kafka: Cluster, connect: Connect, tmp_path: Path
):
    log = KafkaLog(connect(tmp_path))
    _set(kafka, log.topic, "max.message.bytes", "10000")
    with pytest.raises(Unavailable) as caught:
        log.append(0, [os.urandom(20_000)])
    assert ("E436", "max.message.bytes") == (caught.value.code, caught.value.where)
    assert 0 == log.append(0, [b"small"]).first_offset
    assert [b"small"] == [record.value for record in log.read(0, 0, 9)]
    log.close()
    with pytest.raises(SettingsError, match="E283"):
        KafkaLog(Connection(kafka.client, prefix_of(tmp_path)))


def test_what_retention_took_is_said_to_be_gone(kafka: Cluster, connect: Connect, tmp_path: Path):
    log = KafkaLog(connect(tmp_path))
    log.append(0, [b"%d" % i for i in range(10)])
    admin = AdminClient(kafka.client)
    deleted = admin.delete_records([TopicPartition(log.topic, 0, 4)])
    for future in deleted.values():
        future.result(10)
    with pytest.raises(SettingsError, match="E271"):
        log.read(0, 0, 9)  # it did not know yet
    assert (4, 10) == (log.first(0), log.head(0))
    assert [b"4", b"5"] == [record.value for record in log.read(0, 4, 2)]
    assert 10 == log.append(0, [b"x"]).first_offset
    assert 11 == log.counts()["appended"]
    log.close()


def test_a_topic_that_was_made_anew_under_an_open_log_is_found_out(
    kafka: Cluster, connect: Connect, tmp_path: Path
):
    log = KafkaLog(connect(tmp_path))
    log.append(0, [b"a", b"b"])
    admin = AdminClient(kafka.client)
    for future in admin.delete_topics([log.topic]).values():
        future.result(10)
    connect(tmp_path)
    for _ in range(SHORT_LOOKS):
        log._look()
    with pytest.raises(DataCorrupt, match="E760"):
        log.append(0, [b"c"])
    log.close()


def test_a_topic_with_markers_of_transactions_in_it_is_damaged(
    kafka: Cluster, connect: Connect, tmp_path: Path
):
    log = KafkaLog(connect(tmp_path))
    log.append(0, [b"a"])
    foreign = Producer({**kafka.client, "transactional.id": str(tmp_path)})
    foreign.init_transactions(10)
    foreign.begin_transaction()
    foreign.produce(log.topic, b"b", partition=0)
    foreign.commit_transaction(10)
    _wait_for(lambda: log._look() or log.head(0) == 3)  # its marker is written a moment later
    log.append(0, [b"c"])
    assert [b"a", b"b"] == [record.value for record in log.read(0, 0, 2)]
    with pytest.raises(DataCorrupt, match="nothing between offsets 2 and 3"):
        log.read(0, 0, 9)
    log.close()


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_brokers_that_are_away_are_told_within_the_deadline_and_it_recovers_by_itself(
    mortal: Cluster, tmp_path: Path
):
    log = KafkaLog(quick(mortal, tmp_path))
    kept: list[LogRecord] = [*log.append(0, [b"a"]).records([b"a"])]
    broker = mortal.servers[0]
    for value, leave, come_back in (
        (b"killed", broker.kill, broker.start),
        (b"paused", broker.pause, broker.resume),
    ):
        leave()
        with pytest.raises(Unavailable, match="E401"):
            log.append(0, [value + b" meanwhile"])
        come_back()
        until_it_answers(lambda value=value: kept.extend(log.append(0, [value]).records([value])))
        until_it_answers(lambda: log.read(0, 0, 9))
    found = log.read(0, 0, 1_000)
    # What was not acknowledged may be there all the same, and nothing is there twice but for retries.
    assert kept == [record for record in found if not record.value.endswith(b"meanwhile")]
    log.close()


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_user_whose_acl_was_taken_is_told_so_and_goes_on_when_it_is_back(
    secured_kafka: Cluster, tmp_path: Path
):
    prefix = prefix_of(tmp_path)
    make_topics(Connection(secured_kafka.client, prefix))
    secured_kafka.add_user(prefix, PASSWORD)
    reading = (AclOperation.DESCRIBE, AclOperation.READ, AclOperation.DESCRIBE_CONFIGS)
    secured_kafka.allow(prefix, *reading, AclOperation.WRITE, topics=prefix)
    log = KafkaLog(
        Connection(secured_kafka.client_of(prefix, PASSWORD), prefix, append_timeout_s=2.0)
    )
    log.append(0, [b"a"])
    _forbid(secured_kafka, prefix, AclOperation.WRITE)
    codes = set()
    for _ in range(ATTEMPTS_MAX):
        try:
            log.append(0, [b"b"])
        except Unavailable as error:
            codes.add(error.code)
            break
    assert {"E437"} == codes
    secured_kafka.allow(prefix, AclOperation.WRITE, topics=prefix)
    until_it_answers(lambda: log.append(0, [b"c"]))
    assert b"c" == log.read(0, log.head(0) - 1, 1)[0].value
    log.close()


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_who_asks_a_broker_that_has_died_asks_another(three: Cluster):
    connection = make_topics(Connection(three.client, "asked."), copies=3)
    admin = Admin(connection)
    # Any of them is named as the one to be asked about settings, and may die a moment later.
    asked = admin.client.list_topics(timeout=10).controller_id
    three.servers[asked - 1].kill()
    resource = ConfigResource(ResourceType.TOPIC, connection.log_topic(1))
    (found,) = admin.ask(admin.client.describe_configs, [resource]).values()
    assert "LogAppendTime" == found["message.timestamp.type"].value


def test_who_only_reads_knows_where_the_log_ends_under_another_leader(three: Cluster):
    connection = make_topics(Connection(three.client, "read.", append_timeout_s=20.0), copies=3)
    log, reader = KafkaLog(connection), KafkaLog(connection, read_only=True)
    log.append(0, [b"before"])
    leads = AdminClient(three.client).list_topics(log.topic, 10).topics[log.topic].partitions[0]
    three.servers[leads.leader - 1].kill()
    until_it_answers(lambda: log.append(0, [b"after"]))
    until = time.monotonic() + RECOVERY_S
    while reader.head(0) < log.head(0):
        assert time.monotonic() < until, "it never heard of the new leader"
        time.sleep(0.1)
    log.close()
    reader.close()


def test_over_a_kill_of_the_leader_of_three_all_that_was_acknowledged_is_there_in_order(
    three: Cluster,
):
    connection = Connection(three.client, "three.", append_timeout_s=20.0)
    log = KafkaLog(make_topics(connection, copies=3))
    acknowledged: list[LogRecord] = []
    stop = threading.Event()

    def send() -> None:
        while not stop.is_set():
            values = [b"%d" % (len(acknowledged) + i) for i in range(50)]
            acknowledged.extend(log.append(0, values).records(values))

    sending = threading.Thread(target=send)
    sending.start()
    _wait_for(lambda: len(acknowledged) > 500)
    topics = AdminClient(three.client).list_topics(log.topic, 10).topics
    three.servers[topics[log.topic].partitions[0].leader - 1].kill()
    before = len(acknowledged)
    _wait_for(lambda: len(acknowledged) > before + 500)
    stop.set()
    sending.join()
    assert acknowledged == log.read(0, 0, len(acknowledged))
    assert log.head(0) == len(acknowledged), "nothing is doubled"
    log.close()


def _wait_for(reached: Callable[[], bool]) -> None:
    pause = threading.Event()
    for _ in range(1_200):
        if reached():
            return
        pause.wait(0.1)
    pytest.fail("it did not come to that")


def _set(cluster: Cluster, topic: str, name: str, value: str) -> None:
    entry = ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])
    admin = AdminClient(cluster.client)
    for future in admin.incremental_alter_configs([resource]).values():
        future.result(10)


def _forbid(cluster: Cluster, user: str, operation: AclOperation) -> None:
    which = AclBindingFilter(
        ResourceType.TOPIC, user, ResourcePatternType.PREFIXED, f"User:{user}", None, operation,
        AclPermissionType.ALLOW,
    )  # fmt: skip
    admin = AdminClient(cluster.client)
    for future in admin.delete_acls([which]).values():
        future.result(10)
