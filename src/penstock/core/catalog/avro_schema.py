"""A declared event as an Avro schema, for producers that send records of Avro.

Avro knows fewer names and kinds than a catalog: a field's name is written with letters, digits and `_`
(the name as it is declared stands in its `x-penstock`), and decimals are bytes of a fixed scale.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final

from penstock.core.catalog.fields import EventType, Field
from penstock.core.errors import DefinitionError
from penstock.core.money import exponent

PRECISION: Final = 19
"""Digits of a decimal: as many as a signed 64-bit integer of its smallest unit has."""
AMOUNT_SCALE: Final = 4
"""Digits after the point of an amount that may be in any currency: no currency has more."""

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def avro_schema(declared: EventType, namespace: str) -> dict[str, Any]:
    """Return the Avro schema of an event's `properties`.

    Args:
        declared: The event.
        namespace: Of its name, such as `com.example.shop`; may be empty.

    Raises:
        DefinitionError: Two of its fields have one name in Avro (E198).
    """
    schema = _record(
        record_name(declared.name), declared.fields.values(), f"event `{declared.name}`"
    )
    if namespace:
        schema["namespace"] = namespace
    if declared.description:
        schema["doc"] = declared.description
    return schema


def record_name(event: str) -> str:
    """Return the name that an event's record has: `Product Viewed` is `ProductViewed`."""
    words = re.split(r"[^A-Za-z0-9]+", event)
    name = "".join(word[:1].upper() + word[1:] for word in words)
    return name if _NAME.fullmatch(name) else f"Event{name}"


def _record(name: str, fields: Iterable[Field], where: str) -> dict[str, Any]:
    kept: dict[str, dict[str, Any]] = {}
    declared = list(fields)
    for field in declared:
        _put(kept, field.name, _field(field, name, where), where)
    named = {field.name for field in declared}
    for field in declared:
        if field.kind == "money" and field.currency_field not in named:
            named.add(field.currency_field)
            currency = {
                "type": ["null", "string"],
                "default": None,
                "doc": "ISO 4217 currency of the amounts",
            }
            _put(kept, field.currency_field, currency, where)
    return {"type": "record", "name": name, "fields": list(kept.values())}


def _put(kept: dict[str, dict[str, Any]], name: str, field: dict[str, Any], where: str) -> None:
    short = field_name(name)
    if short in kept:
        raise DefinitionError("E198", f"field `{name}` has in Avro the name of another", where=where,
                              fix="rename one of them, or publish JSON Schema: `registry.format`")  # fmt: skip
    kept[short] = {"name": short} | field


def field_name(name: str) -> str:
    """Return the name that a field has in Avro."""
    short = re.sub(r"[^A-Za-z0-9_]", "_", name)
    return short if _NAME.fullmatch(short) else f"_{short}"


def _field(field: Field, record: str, where: str) -> dict[str, Any]:
    shape = _shape(field, record, where)
    made: dict[str, Any] = (
        {"type": shape} if field.required else {"type": ["null", shape], "default": None}
    )
    if field.description:
        made["doc"] = field.description
    privacy = field.privacy
    made["x-penstock"] = {
        "field": field.name,
        "category": privacy.category,
        "class": privacy.data_class,
        "purpose": privacy.purpose,
        "protection": privacy.protection,
    }
    return made


def _shape(field: Field, record: str, where: str) -> Any:
    part = record + record_name(field.name)
    match field.kind:
        case "integer":
            return "long"
        case "boolean":
            return "boolean"
        case "datetime":
            return {"type": "long", "logicalType": "timestamp-millis"}
        case "decimal" | "money":
            return {
                "type": "bytes",
                "logicalType": "decimal",
                "precision": PRECISION,
                "scale": _scale(field),
            }
        case "enum" if all(map(_NAME.fullmatch, field.values)):
            return {"type": "enum", "name": part, "symbols": list(field.values)}
        case "strings":
            return {"type": "array", "items": "string"}
        case "objects":
            items = _record(f"{part}Item", field.fields, f"{where}, field `{field.name}`")
            return {"type": "array", "items": items}
        case _:
            return "string"


def _scale(field: Field) -> int:
    if field.scale is not None:
        return field.scale
    return exponent(field.currency) if field.currency else AMOUNT_SCALE
