"""A declared event as a schema registry has it: subject, text, and the declaration inside, read back.

A published schema carries its declaration, as `x-penstock` at its top. So a later version is compared
with it as declarations are, field by field, before any registry is asked.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

import msgspec

from penstock.core.catalog.avro_schema import avro_schema, record_name
from penstock.core.catalog.compat import Break, check
from penstock.core.catalog.fields import EventType, Field, canonical_event_type, event_type
from penstock.core.catalog.json_schema import event_schema, slug
from penstock.core.errors import DefinitionError

FORMATS: Final = ("json-schema", "avro")
STRATEGIES: Final = ("record", "topic", "topic_record")
"""How subjects are named: RecordNameStrategy, TopicNameStrategy, TopicRecordNameStrategy."""
COMPATIBILITIES: Final = (
    "backward", "backward_transitive", "forward", "forward_transitive", "full", "full_transitive", "none",
)  # fmt: skip

DRAFT_7: Final = "http://json-schema.org/draft-07/schema#"
"""What every registry can compare: some know no later dialect. Our schemas mean the same in both."""


class Naming(NamedTuple):
    """How subjects are named.

    Attributes:
        strategy: One of `STRATEGIES`.
        namespace: Of records, such as `com.example.shop`; may be empty.
        topic: The topic that records go to; `{event}` in it is the event's name in `snake_case`.
    """

    strategy: str = "record"
    namespace: str = ""
    topic: str = ""


class Published(NamedTuple):
    """One event as it is to be published."""

    event: EventType
    subject: str
    kind: str
    """`JSON` or `AVRO`, as registries say it."""
    text: str


def publish_all(declared: Iterable[EventType], format_name: str, naming: Naming) -> list[Published]:
    """Return what is to be published of events, by subject.

    Raises:
        DefinitionError: Two events have one subject, or two fields one name (E198).
    """
    made: dict[str, Published] = {}
    for event in declared:
        one = _publish(event, format_name, naming)
        other = made.setdefault(one.subject, one)
        if other is not one:
            raise DefinitionError("E198", f"events `{other.event.name}` and `{event.name}` have one subject, `{one.subject}`",
                                  fix="rename one of them; by topic, put `{event}` into `registry.topic` or set "
                                  '`registry.subjects` to "topic_record"')  # fmt: skip
    return [made[subject] for subject in sorted(made)]


def _publish(event: EventType, format_name: str, naming: Naming) -> Published:
    # What the edge fills is nothing that a producer sends.
    sent = tuple(field for field in event.fields.values() if not field.stamp)
    event = event_type(event.name, event.version, sent, event.description)
    if format_name == "avro":
        kind, schema = "AVRO", avro_schema(event, naming.namespace)
    else:
        kind, schema = "JSON", event_schema(event) | {"$schema": DRAFT_7}
    schema["x-penstock"] = {"event": event.name} | canonical_event_type(event)
    return Published(event, subject_of(event, naming), kind, json.dumps(schema, ensure_ascii=False))


def subject_of(event: EventType, naming: Naming) -> str:
    """Return the subject of an event."""
    record = record_name(event.name)
    full = f"{naming.namespace}.{record}" if naming.namespace else record
    topic = naming.topic.replace("{event}", slug(event.name))
    match naming.strategy:
        case "topic":
            return f"{topic}-value"
        case "topic_record":
            return f"{topic}-{full}"
        case _:
            return full


def declared_in(text: str) -> EventType | None:
    """Return the declaration inside a published schema; None if it is somebody else's schema."""
    try:
        said: dict[str, Any] = json.loads(text)["x-penstock"]
        fields = tuple(msgspec.convert(said["fields"], list[Field]))
        return event_type(said["name"], said["version"], fields)
    except (
        ValueError,
        TypeError,
        KeyError,
        msgspec.ValidationError,
        DefinitionError,
        RecursionError,
    ):
        return None


def breaks_of(one: Published, texts: Sequence[str], compatibility: str) -> list[Break]:
    """Return what breaks between published versions and the one to come; empty if nothing does.

    Args:
        one: What is to be published.
        texts: The schemas that stand under its subject, oldest first.
        compatibility: One of `COMPATIBILITIES`; all of `texts` are compared if it is transitive, else
            the last. Somebody else's schema is left to the registry.
    """
    mode, _, transitive = compatibility.partition("_")
    if mode == "none":
        return []
    breaks: dict[Break, None] = {}
    for text in texts if transitive else texts[-1:]:
        old = declared_in(text)
        if old is not None:
            breaks |= dict.fromkeys(check(old, one.event, mode))
            if one.kind == "JSON":
                breaks |= dict.fromkeys(_closed(old.fields.values(), one.event.fields.values(), mode, "$.properties"))  # fmt: skip
    return list(breaks)


def _closed(old: Iterable[Field], new: Iterable[Field], mode: str, path: str) -> Iterable[Break]:
    """Yield what a closed JSON Schema refuses beyond the catalog: fields that it does not know."""
    before, after = ({field.name: field for field in some} for some in (old, new))
    for name in [*before, *(name for name in after if name not in before)]:
        if name not in after and mode != "forward":
            yield Break(
                f"{path}.{name}", "is no longer declared, and records of old senders hold it"
            )
        elif name not in before and mode != "backward":
            yield Break(f"{path}.{name}", "is not known to old readers, which refuse it")
        elif (
            name in before and name in after and before[name].kind == after[name].kind == "objects"
        ):
            yield from _closed(before[name].fields, after[name].fields, mode, f"{path}.{name}[*]")
