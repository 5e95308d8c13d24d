"""The topics of logs on a real broker: a prefix for each folder that a test has."""

import hashlib
from pathlib import Path

from penstock.adapters.log.kafka.connection import Connection
from penstock.adapters.log.kafka.topics import Admin, Topic, changes_of, letters_topic, log_topic


def prefix_of(folder: Path) -> str:
    return f"t{hashlib.sha256(str(folder).encode()).hexdigest()[:12]}."


def topics_of(connection: Connection, partitions: int, *, copies: int = 1) -> list[Topic]:
    in_sync = max(copies - 1, 1)
    return [
        log_topic(connection, 1, partitions, replication=copies, in_sync=in_sync, retention_ms=0),
        letters_topic(connection, replication=copies, in_sync=in_sync, retention_ms=0),
    ]


def make_topics(connection: Connection, partitions: int = 1, *, copies: int = 1) -> Connection:
    """Make a log's topics, if they are not there."""
    admin = Admin(connection)
    topics = topics_of(connection, partitions, copies=copies)
    admin.change(changes_of(topics, admin.look([one.name for one in topics])))
    return connection
