"""What other systems are told, as a schema registry has it: JSON Schema or Avro of decisions and profiles."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final, cast

from penstock.core.catalog.fields import event_type
from penstock.core.catalog.published import DRAFT_7, Published

DECISIONS: Final = "decisions"
PROFILES: Final = "profiles"

_TITLES: Final = {DECISIONS: "DecisionTold", PROFILES: "ProfileTold"}
_OF_JSON: Final = ("features", "traits")
"""In Avro each of their values is JSON in a string: a feature may be a number, a text, a list or an object."""

_Shape = Mapping[str, Any]
_TEXT: Final = "string"
_WHOLE: Final = "long"
_SHAPES: Final[dict[str, _Shape]] = {
    DECISIONS: {
        "decision_id": _TEXT,
        "recipient": _TEXT,
        "recipient_type": _TEXT,
        "campaign": _TEXT,
        "campaign_version": _WHOLE,
        "send": _TEXT,
        "served": _TEXT,
        "permitted": [_TEXT],
        "decided_at": _TEXT,
        "log": {"generation": _WHOLE, "partition": _WHOLE, "offset": _WHOLE},
    },
    PROFILES: {
        "person": _TEXT,
        "leaves": [_TEXT],
        "permitted": [_TEXT],
        "withheld": [_TEXT],
        "bounded": "boolean",
        "oversized": "boolean",
        "as_of": _TEXT,
        "definitions": _TEXT,
        "version": {"generation": _WHOLE, "offsets": {"*": _WHOLE}},
        "features": {"*": _OF_JSON},
        "traits": {"*": _OF_JSON},
    },
}
"""What a value holds: texts, numbers, lists, objects; `*` stands for any name."""

_JSON_TYPES: Final = {_TEXT: "string", _WHOLE: "integer", "boolean": "boolean"}


def told_schema(what: str, format_name: str, topic: str, namespace: str = "") -> Published:
    """Return the schema of a feed's values, under the subject of its topic (TopicNameStrategy).

    Args:
        what: `decisions` or `profiles`.
        format_name: `json-schema` or `avro`.
        topic: Of the feed.
        namespace: Of the record in Avro; may be empty.
    """
    title, shape = _TITLES[what], _SHAPES[what]
    if format_name == "avro":
        kind = "AVRO"
        schema = _avro(title, shape)
        if namespace:
            schema["namespace"] = namespace
    else:
        kind = "JSON"
        schema = {"$schema": DRAFT_7, "title": title} | _json(shape)
    # It stands for no event, and has no declaration inside: how it fits those before, the registry says.
    return Published(event_type(title, 1, ()), f"{topic}-value", kind, json.dumps(schema))


def as_avro(what: str, value: Mapping[str, Any]) -> dict[str, Any]:
    """Return a value as its Avro record has it."""
    kept = {name: value.get(name, False) if name == "oversized" else value[name] for name in _SHAPES[what]}  # fmt: skip
    for name in _OF_JSON:
        if name in kept:
            kept[name] = {key: json.dumps(one) for key, one in kept[name].items()}
    return kept


def _json(shape: Any) -> dict[str, Any]:
    if isinstance(shape, list):
        return {"type": "array", "items": _json(shape[0])}
    if shape is _OF_JSON:
        return {}
    if isinstance(shape, str):
        return {"type": _JSON_TYPES[shape]}
    if "*" in shape:
        return {"type": "object", "additionalProperties": _json(shape["*"])}
    return {
        "type": "object",
        "properties": {name: _json(one) for name, one in shape.items()},
        "required": [name for name in shape if name != "oversized"],
    }


def _avro(name: str, shape: _Shape) -> dict[str, Any]:
    return {
        "type": "record",
        "name": name,
        "fields": [
            {"name": field, "type": _avro_type(f"{name}{field.title()}", one)}
            | ({"default": False} if field == "oversized" else {})
            for field, one in shape.items()
        ],
    }


def _avro_type(name: str, shape: Any) -> Any:
    if isinstance(shape, list):
        items: Any = cast("list[Any]", shape)[0]
        return {"type": "array", "items": items}
    if isinstance(shape, str):
        return shape
    if "*" in shape:
        return {"type": "map", "values": _TEXT if shape["*"] is _OF_JSON else shape["*"]}
    return _avro(name, shape)
