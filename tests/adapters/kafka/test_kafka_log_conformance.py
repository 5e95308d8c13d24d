"""The log on Kafka, against the suite of the port, on a real broker."""

from pathlib import Path
from typing import ClassVar

import pytest

from penstock.adapters.log.kafka import KafkaLog
from penstock.adapters.log.kafka.topics import RECORD_BYTES_MAX
from penstock.testing.conformance.log_shared import SharedLogConformance


class TestKafkaLog(SharedLogConformance):
    record_bytes_max = RECORD_BYTES_MAX
    opened_by: ClassVar[str] = ""

    @pytest.fixture(autouse=True)
    def _broker(self, connect, kafka):
        self.connect = connect
        # How a writer of its own opens the log: whoever kills it made the topics before.
        type(self).opened_by = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parents[3])!r})
from penstock.adapters.log.kafka import Connection, KafkaLog
import hashlib
prefix = "t" + hashlib.sha256(str(folder).encode()).hexdigest()[:12] + "."
log = KafkaLog(Connection({dict(kafka.client)!r}, prefix))
"""

    def make(self, folder, clock, *, partitions=1):
        return KafkaLog(self.connect(folder, partitions), partitions=partitions)
