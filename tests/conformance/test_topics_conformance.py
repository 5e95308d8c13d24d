"""The readers of other producers' topics that ship, against the suite of the port: one at a real broker."""

from itertools import count

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic

from penstock.adapters.topics.kafka import KafkaTopics
from penstock.adapters.topics.memory import MemoryTopics
from penstock.core.foreign import Foreign
from penstock.testing.conformance.topics import TopicsConformance
from tools.services.kafka import Cluster

_numbers = count(1)
AT_MS = 1_700_000_000_000


class TestMemoryTopics(TopicsConformance):
    patience_s = 0.1

    @pytest.fixture(autouse=True)
    def _topics(self):
        self.topics = {}
        self.groups = {}

    def new_topic(self, partitions):
        name = f"topic-{next(_numbers)}"
        self.topics.update({(name, partition): [] for partition in range(partitions)})
        return name

    def write(self, topic, partition, values):
        records = self.topics[topic, partition]
        for value in values:
            records.append(Foreign(topic, "id", partition, len(records), AT_MS, b"k", value, (("h", b"v"),)))  # fmt: skip

    def join(self, topic, group):
        mine = {key: records for key, records in self.topics.items() if key[0] == topic}
        return MemoryTopics(mine, self.groups.setdefault(group, {}))


class TestKafkaTopics(TopicsConformance):
    @pytest.fixture(autouse=True)
    def _cluster(self, kafka: Cluster):
        self.client = kafka.client
        self.admin = AdminClient(kafka.client)
        self.producer = Producer(kafka.client)

    def new_topic(self, partitions):
        name = f"foreign-{next(_numbers)}"
        self.admin.create_topics([NewTopic(name, partitions, 1, config={"retention.ms": "-1"})])[
            name
        ].result(30)
        return name

    def write(self, topic, partition, values):
        for value in values:
            self.producer.produce(
                topic, value, b"k", partition, timestamp=AT_MS, headers={"h": b"v"}
            )
        assert self.producer.flush(30) == 0

    def join(self, topic, group):
        return KafkaTopics(self.client, [topic], group)
