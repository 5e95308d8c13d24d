"""The consumer on a real broker, against the suite of the port: the classic group, and the brokers' own."""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from penstock.adapters.log.kafka import KafkaLog
from penstock.adapters.log.kafka.connection import Connection
from penstock.adapters.log.kafka.consuming import KafkaConsumer, Membership
from penstock.testing.conformance.consumer import PARTITIONS, ConsumerConformance, Group

pytestmark = [pytest.mark.service, pytest.mark.timeout(180)]

SESSION_MS = 6_000


class TestKafkaConsumer(ConsumerConformance):
    protocol = "classic"

    @pytest.fixture(autouse=True)
    def _connected(self, connect: Callable[..., Connection], tmp_path: Path) -> None:
        self.connection = connect(tmp_path, PARTITIONS)
        self.group = hashlib.sha256(str(tmp_path).encode()).hexdigest()[:12]

    @contextmanager
    def make(self) -> Iterator[Group]:
        log = KafkaLog(self.connection, partitions=PARTITIONS)
        membership = Membership(self.group, protocol=self.protocol, session_ms=SESSION_MS)
        try:
            yield Group(log, partial(KafkaConsumer, self.connection, log.generations, membership))
        finally:
            log.close()


class TestKafkaConsumerOfTheNewProtocol(TestKafkaConsumer):
    protocol = "consumer"
