"""The feed on a real broker, against the suite of the port; and who reads it without waiting for commits."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
from confluent_kafka.admin import AclOperation

from penstock.adapters.log.kafka.connection import Connection
from penstock.adapters.log.kafka.feeds import KafkaFeed, profiles_topic
from penstock.adapters.log.kafka.topics import Admin, changes_of
from penstock.core.errors import SettingsError
from penstock.core.generations import Generations
from penstock.core.ids import LeafId
from penstock.ports.feed import Message
from penstock.testing.conformance.feed import PARTITIONS, FeedConformance, Topic
from tests.adapters.kafka.kafka_topics import make_topics
from tests.adapters.kafka.read_topic import read_topic
from tools.services.kafka import Cluster

pytestmark = [pytest.mark.service, pytest.mark.timeout(120)]


class TestKafkaFeed(FeedConformance):
    isolation = "read_committed"

    @pytest.fixture(autouse=True)
    def _connected(self, connect: Callable[..., Connection], tmp_path: Path) -> None:
        self.connection = connect(tmp_path, PARTITIONS)
        topic = profiles_topic(self.connection, PARTITIONS, replication=1, in_sync=1)
        admin = Admin(self.connection)
        admin.change(changes_of([topic], {}))
        while topic.name not in admin.look([topic.name]):
            pass  # it is known to this broker a moment later
        self.topic = topic.name

    @contextmanager
    def make(self) -> Iterator[Topic]:
        open_feed = partial(
            KafkaFeed, self.connection, self.topic, f"{self.connection.prefix}profiles",
            generations=Generations((PARTITIONS,)),
        )  # fmt: skip
        yield Topic(open_feed, self.read)

    def read(self) -> list[Message]:
        read = read_topic(self.connection.client, self.topic, isolation=self.isolation)
        return [
            Message(LeafId(bytes.fromhex((one.key() or b"").decode())), one.value()) for one in read
        ]


class TestKafkaFeedReadUncommitted(TestKafkaFeed):
    """Who reads what is not committed as well sees it in the same order: an older value is refused."""

    isolation = "read_uncommitted"


def test_a_topic_that_is_missing_is_told(
    connect: Callable[..., Connection], tmp_path: Path
) -> None:
    connection = connect(tmp_path)
    feed = KafkaFeed(
        connection,
        connection.profiles_topic,
        "g",
        generations=Generations((1,)),
    )
    with pytest.raises(SettingsError) as raised:
        feed.take_over("a")
    feed.close()
    assert raised.value.code == "E280"


def test_it_needs_what_the_guide_lists_and_says_so_without_it(
    secured_kafka: Cluster, tmp_path: Path
) -> None:
    user, prefix = f"feeds-{tmp_path.name}", f"{tmp_path.name}."
    secured_kafka.add_user(user, "of-the-shop")
    secured_kafka.allow(
        user, AclOperation.DESCRIBE, AclOperation.DESCRIBE_CONFIGS, AclOperation.READ, AclOperation.WRITE, topics=prefix,
    )  # fmt: skip
    make_topics(Connection(secured_kafka.client, prefix), PARTITIONS)
    admin = Admin(Connection(secured_kafka.client, prefix))
    topic = profiles_topic(admin.connection, PARTITIONS, replication=1, in_sync=1)
    admin.change(changes_of([topic], {}))
    own = {**secured_kafka.client, "sasl.username": user, "sasl.password": "of-the-shop"}
    connection = Connection(own, prefix, read_timeout_s=2.0)
    feed = KafkaFeed(
        connection, topic.name, f"{topic.name}-1", generations=Generations((PARTITIONS,)),
    )  # fmt: skip
    message = Message(LeafId(bytes(16)), b"{}")
    for allow in (
        {"transactions": prefix, "operations": (AclOperation.DESCRIBE, AclOperation.WRITE)},
        {"groups": prefix, "operations": (AclOperation.DESCRIBE, AclOperation.READ)},
    ):
        with pytest.raises(SettingsError) as raised:
            feed.take_over("a")
        assert raised.value.code == "E282"
        secured_kafka.allow(user, *allow.pop("operations"), **allow)  # type: ignore[misc]
    assert feed.take_over("a") is None
    feed.put([message], [1, 0, 0], "a")
    assert [1, 0, 0] == feed.positions()
    feed.close()
