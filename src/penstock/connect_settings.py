"""The settings of a schema registry and of connectors: `[registry]` and `[connect.NAME]`."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from typing import NamedTuple

import msgspec

from penstock.core.catalog.published import COMPATIBILITIES, FORMATS, STRATEGIES
from penstock.core.foreign import FORMATS as RECORD_FORMATS
from penstock.core.foreign import KINDS, NAME_CHARS_MAX, SEGMENT_JSON, UNITS, EventMapping


class RegistrySettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where schemas are registered: `[registry]`."""

    url: str = ""
    username: str = ""
    password: str = ""
    ca: str = ""
    format: str = "json-schema"
    compatibility: str = "backward"
    compatibilities: dict[str, str] = {}
    subjects: str = "record"
    namespace: str = ""
    topic: str = ""


class ConnectSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Topics of other producers that are copied into the log: `[connect.NAME]`."""

    topics: tuple[str, ...] = ()
    format: str = SEGMENT_JSON
    source: str = ""
    brokers: tuple[str, ...] = ()
    client: dict[str, str] = {}
    group: str = ""
    begin: str = "earliest"
    park_after_ms: int = 5_000
    job: str = ""
    events: dict[str, EventMapping] = {}


DOCS: dict[str, str] = {
    "registry.url": "The schema registry's Confluent API, such as `http://127.0.0.1:8081`; Apicurio's ends in `/apis/ccompat/v7`. "
    "Empty is none.",
    "registry.username": "User of the registry; empty is none. Or `env:NAME`.",
    "registry.password": "Password of that user; without a user, a bearer token. Or `env:NAME`.",
    "registry.ca": "File of certificates (PEM) to trust instead of the system's, relative to the project.",
    "registry.format": "What `penstock schemas publish` registers: `json-schema` or `avro`.",
    "registry.compatibility": "How a new version of a subject must fit those before, as registries name it, in lower case.",
    "registry.compatibilities": 'Subjects that are to fit otherwise: `{ "com.example.shop.ProductViewed" = "full" }`.',
    "registry.subjects": "How subjects are named: `record` (RecordNameStrategy), `topic` (TopicNameStrategy: `TOPIC-value`) or "
    "`topic_record` (TopicRecordNameStrategy).",
    "registry.namespace": "Namespace of records, such as `com.example.shop`; part of their subjects.",
    "registry.topic": "Topic that producers send these records to, for `topic` and `topic_record`; `{event}` stands for the event's name "
    "in `snake_case`.",
    "connect": "Connectors, by name, at most 30 characters.",
    "connect.*.topics": "Topics that are copied.",
    "connect.*.format": "What their records are: `segment-json` (events of the Segment spec), `json` (without a schema), or `json-schema`, "
    "`avro` or `protobuf` in the Confluent wire format.",
    "connect.*.source": "The declared source whose events they are, with its basis, rank and trust; by default the one of the connector's name.",
    "connect.*.brokers": "Brokers of these topics, `HOST:PORT` each; by default those of the log on Kafka.",
    "connect.*.client": 'More of what librdkafka is told to reach them, such as `{ "security.protocol" = "SASL_SSL" }`. Values may be `env:NAME`.',
    "connect.*.group": "Consumer group; by default `penstock-` and the connector's name, behind `log.kafka.prefix` if that is your own. `GROUP.copied` notes a second time what was copied.",
    "connect.*.begin": "Where a topic begins that was never copied: `earliest` (its first record) or `latest` (what comes from now on).",
    "connect.*.park_after_ms": "How long a record waits for a schema that is not known, before it is parked.",
    "connect.*.job": "Name under which message ids are remembered for good, not for 72 hours, where topics are copied again on purpose.",
    "connect.*.events": "Which events its records are, by the event's name, or by `identify`, `page`, `screen`, `group` or `alias`; the first that fits "
    "counts, and a record that none fits is left out. Not for `segment-json`.",
    "connect.*.events.*.when": 'Which records: the values that some paths have, such as `{ kind = "placed" }`, or one of several: `["placed", "paid"]`. '
    "A path leads through the value (`customer.id`); `$key`, `$key.id`, `$headers.NAME`, `$topic` and `$timestamp` are the record's own.",
    "connect.*.events.*.user_id": "Path of the user id.",
    "connect.*.events.*.anonymous_id": "Path of the anonymous id.",
    "connect.*.events.*.email": "Path of the person's email address.",
    "connect.*.events.*.external_ids": "Paths of other identifiers, by type.",
    "connect.*.events.*.group_id": "Path of the group id, for `group`.",
    "connect.*.events.*.previous_id": "Path of the id before, for `alias`.",
    "connect.*.events.*.message_id": "Path of an id of its own that an event has; by default it is that of its topic, partition and offset.",
    "connect.*.events.*.timestamp": "Path of the instant; by default that of the record.",
    "connect.*.events.*.timestamp_unit": "What a number counts there.",
    "connect.*.events.*.fields": "Paths of declared properties or traits, by their names; one that is not named is taken by its own name.",
    "connect.*.events.*.constants": "Properties or traits that are the same for all.",
    "connect.*.events.*.consent": "Paths of what the person said, by category of consent.",
}  # fmt: skip

CHOICES: dict[str, tuple[str, ...]] = {
    "registry.format": FORMATS,
    "registry.compatibility": COMPATIBILITIES,
    "registry.subjects": STRATEGIES,
    "connect.*.format": RECORD_FORMATS,
    "connect.*.begin": ("earliest", "latest"),
    "connect.*.events.*.timestamp_unit": tuple(UNITS),
}

RANGES: dict[str, tuple[float, float]] = {"connect.*.park_after_ms": (0, 600_000)}

SECRETS: tuple[tuple[str, ...], ...] = (
    ("registry", "username"),
    ("registry", "password"),
    ("connect", "*", "client", "*"),
)


class Fault(NamedTuple):
    """A setting that can't be used: its path, the code, what is wrong, and the fix."""

    path: tuple[str, ...]
    code: str
    what: str
    fix: str


_NAME = re.compile(rf"[A-Za-z0-9_-]{{1,{NAME_CHARS_MAX}}}")


def registry_faults(registry: RegistrySettings) -> Iterator[Fault]:
    """Yield what is wrong with the registry's settings beyond types and choices."""
    for subject, compatibility in registry.compatibilities.items():
        if compatibility not in COMPATIBILITIES:
            yield Fault(("registry", "compatibilities", subject), "E204", "is none of its choices",
                        f"use one of {', '.join(COMPATIBILITIES)}")  # fmt: skip


def connector_faults(
    name: str, one: ConnectSettings, *, url: str, sources: Collection[str], on_kafka: bool
) -> Iterator[Fault]:
    """Yield what a connector lacks.

    Args:
        name: Its name.
        one: Its settings.
        url: Of the registry; empty if there is none.
        sources: The names of the declared sources.
        on_kafka: The log is on Kafka, so that connectors need not name brokers.
    """
    path, source = ("connect", name), one.source or name
    if not _NAME.fullmatch(name):
        yield Fault(path, "E234", "has no name for a connector",
                    f"use letters, digits, `_` and `-`, at most {NAME_CHARS_MAX}")  # fmt: skip
    if not one.topics:
        yield Fault((*path, "topics"), "E234", "names no topic", 'name one at least, such as ["shop.orders"]')  # fmt: skip
    if not one.brokers and not on_kafka:
        yield Fault((*path, "brokers"), "E234", "is not set, and the log is not on Kafka",
                    'name the brokers of its topics, such as ["127.0.0.1:9092"]')  # fmt: skip
    if source not in sources:
        yield Fault((*path, "source"), "E234", "names no declared source",
                    f"declare [sources.{source}], with `kind`, `basis` and `rank`")  # fmt: skip
    if one.format in KINDS and not url:
        yield Fault((*path, "format"), "E234", "needs a schema registry", "set `registry.url`")
    if bool(one.events) == (one.format == SEGMENT_JSON):
        yield Fault((*path, "events"), "E234", "does not go with the format",
                    "remove it: records of `segment-json` say themselves which events they are" if one.events else
                    f'say which events its records are, such as [connect.{name}.events."Order Completed"]')  # fmt: skip
