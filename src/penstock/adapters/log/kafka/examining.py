"""What brokers tell of themselves and of us: what this user may do, how far groups are, what time it is there."""

# pyright: reportPrivateImportUsage=false
# confluent_kafka.admin offers what it imports.

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any, Final, NamedTuple

from confluent_kafka import (
    ConsumerGroupTopicPartitions,
    KafkaError,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka.admin import NewTopic, OffsetSpec

from penstock.adapters.log.kafka.topics import REFUSALS, Admin, Topic

OF_THE_LOG: Final = ("Describe", "DescribeConfigs", "Read", "Write")
"""What whoever appends to the log and reads it does with its topics, as `kafka-acls` names it."""
OF_READERS: Final = ("Describe", "Read")
"""What whoever reads a topic in a group does with it, and with the group."""
TO_MAKE: Final = "Create"

_ABSENT: Final = frozenset({KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC})  # noqa: SLF001 - its names
_DENIED: Final = frozenset({
    KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.GROUP_AUTHORIZATION_FAILED,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED,
})  # fmt: skip


class Seen(NamedTuple):
    """A topic as a user sees it."""

    partitions: int
    """0 if it may not be known."""
    lacking: tuple[str, ...]
    """What may not be done with it, of what is needed."""


class Behind(NamedTuple):
    """How far a group is behind in one partition."""

    topic: str
    partition: int
    records: int
    member: bool
    """Whether somebody of the group reads it now."""


def brokers_of(admin: Admin) -> int:
    """Return how many brokers the cluster has.

    Raises:
        SettingsError: It does not let us in (E282).
        Unavailable: It does not answer (E401).
    """

    def work(_: None, *, request_timeout: float) -> dict[str, Future[Any]]:
        return {"": admin.client.describe_cluster(request_timeout=request_timeout)}

    return len(admin.ask(work, None)[""].nodes)


def seen_topics(admin: Admin, names: Sequence[str], needed: Sequence[str]) -> dict[str, Seen]:
    """Return topics as this user sees them, by name; those that there are not are left out.

    Raises:
        SettingsError: The brokers do not let us in (E282).
        Unavailable: They do not answer (E401).
    """
    work = partial(admin.client.describe_topics, include_authorized_operations=True)
    told = admin.ask_or(_ABSENT | _DENIED, work, TopicCollection(list(names)))
    found: dict[str, Seen] = {}
    for name, described in told.items():
        if not isinstance(described, KafkaError):
            lacking = _lacking(described.authorized_operations, needed)
            found[name] = Seen(len(described.partitions), lacking)
        elif described.code() in _DENIED:
            found[name] = Seen(0, tuple(needed))
    return found


def lacking_of_group(admin: Admin, group: str) -> tuple[str, ...]:
    """Return what this user may not do with a consumer group, which there need not be yet.

    Raises:
        SettingsError: The brokers do not let us in (E282).
        Unavailable: They do not answer (E401).
    """
    described = _group(admin, group)
    return OF_READERS if described is None else _lacking(described.authorized_operations, OF_READERS)  # fmt: skip


def lacking_to_make(admin: Admin, topics: Sequence[Topic]) -> dict[str, str]:
    """Return which topics could not be made, and why by the brokers' name of it. Nothing is made.

    Raises:
        SettingsError: The brokers do not let us in (E282).
        Unavailable: They do not answer (E401).
    """
    work = partial(admin.client.create_topics, validate_only=True)
    asked = [NewTopic(one.name, one.partitions, one.replication, config=dict(one.settings)) for one in topics]  # fmt: skip
    told = admin.ask_or(_DENIED | REFUSALS, work, asked)
    return {name: error.name() for name, error in told.items() if isinstance(error, KafkaError)}


def is_denial(name: str) -> bool:
    """Return whether brokers say by this name of an error that somebody may not."""
    return name.endswith("AUTHORIZATION_FAILED")


def behind(admin: Admin, groups: Sequence[str], topics: Mapping[str, int]) -> list[Behind]:
    """Return how far the first of some groups is in each partition; what another of them noted counts too.

    Args:
        admin: The cluster.
        groups: The group that has members, then others that note what was done.
        topics: By name, how many partitions.

    Raises:
        SettingsError: The brokers do not let us in, or do not let us look (E282).
        Unavailable: They do not answer (E401).
    """
    places = [TopicPartition(topic, one) for topic, count in topics.items() for one in range(count)]
    if not places:
        return []
    first = _offsets(admin, places, OffsetSpec.earliest())
    ends = _offsets(admin, places, OffsetSpec.latest())
    done: dict[tuple[str, int], int] = {}
    for group in groups:
        asked = [ConsumerGroupTopicPartitions(group, places)]
        told = admin.ask(admin.client.list_consumer_group_offsets, asked, where=f"group {group}")
        for place in told[group].topic_partitions:
            key = (place.topic, place.partition)
            done[key] = max(done.get(key, -1), place.offset)
    described = _group(admin, groups[0])
    read = {
        (place.topic, place.partition)
        for member in (described.members if described is not None else ())
        for place in (member.assignment.topic_partitions if member.assignment else ())
    }
    return [
        Behind(*key, max(ends[key].offset - max(done.get(key, -1), first[key].offset), 0), key in read)
        for key in ((place.topic, place.partition) for place in places)
    ]  # fmt: skip


def newest_stamp_ms(admin: Admin, topic: str, partitions: int) -> int:
    """Return the latest stamp of a topic's records; -1 if it has none.

    Raises:
        SettingsError: The brokers do not let us in, or do not let us look (E282).
        Unavailable: They do not answer (E401).
    """
    places = [TopicPartition(topic, one) for one in range(partitions)]
    found = _offsets(admin, places, OffsetSpec.max_timestamp())
    return max((one.timestamp for one in found.values()), default=-1)


def _offsets(
    admin: Admin, places: Iterable[TopicPartition], spec: OffsetSpec | None
) -> dict[tuple[str, int], Any]:
    found = admin.ask(admin.client.list_offsets, dict.fromkeys(places, spec))
    return {(place.topic, place.partition): one for place, one in found.items()}


def _group(admin: Admin, group: str) -> Any:
    """Return what a group is; None if we may not know."""
    work = partial(admin.client.describe_consumer_groups, include_authorized_operations=True)
    described = admin.ask_or(_DENIED, work, [group])[group]
    return None if isinstance(described, KafkaError) else described


def _lacking(allowed: Sequence[Any] | None, needed: Sequence[str]) -> tuple[str, ...]:
    """Return what is needed and not allowed; brokers that do not say it are not complained of."""
    if allowed is None:
        return ()
    names = {one.name.replace("_", "").lower() for one in allowed}
    return tuple(one for one in needed if one.lower() not in names)
