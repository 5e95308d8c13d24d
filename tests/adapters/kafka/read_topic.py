"""A whole topic, read as another system would."""

from collections.abc import Mapping
from typing import Any

from confluent_kafka import Consumer, KafkaError, Message, TopicPartition

PATIENCE_S = 20.0


def read_topic(
    client: Mapping[str, Any], topic: str, *, isolation: str = "read_committed"
) -> list[Message]:  # fmt: skip
    """Return what is in a topic up to its end, the messages of a partition in their order."""
    consumer = Consumer({
        **client, "group.id": "reader", "enable.auto.commit": False, "auto.offset.reset": "earliest",
        "enable.partition.eof": True, "isolation.level": isolation,
    })  # fmt: skip
    try:
        partitions = [*consumer.list_topics(topic, timeout=PATIENCE_S).topics[topic].partitions]
        consumer.assign([TopicPartition(topic, one, 0) for one in partitions])
        found: list[Message] = []
        ended: set[int] = set()
        while len(ended) < len(partitions):
            message = consumer.poll(PATIENCE_S)
            assert message is not None, f"the end of {topic} was not reached"
            error = message.error()
            if error is None:
                found.append(message)
            else:
                assert error.code() == KafkaError._PARTITION_EOF, error.name()
                ended.add(message.partition() or 0)
    finally:
        consumer.close()
    return found
