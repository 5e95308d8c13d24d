"""Logs on a real broker."""

from collections.abc import Callable
from pathlib import Path

import pytest

from penstock.adapters.log.kafka.connection import Connection
from tests.adapters.kafka.kafka_topics import make_topics, prefix_of
from tools.services.kafka import Cluster


@pytest.fixture
def connect(kafka: Cluster) -> Callable[..., Connection]:
    """Return the connection of a folder's log, with short times and its topics made."""

    def connect(folder: Path, partitions: int = 1) -> Connection:
        return make_topics(Connection(kafka.client, prefix_of(folder)), partitions)

    return connect
