"""A declared event as JSON Schema 2020-12, for the senders' own tools.

The schema describes what is sent, not what is kept. What it allows is accepted, given a currency for
each amount; the catalog itself is a little more lenient (it takes a whole number as a product id,
say). `x-penstock` says for each field what it tells of a person and what is done with it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from penstock.core.catalog.fields import INTEGER_MAX, EventType, Field

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"

_AMOUNT_MAX: Final = 10**6
"""Amounts up to a million fit whatever their currency and scale."""


def event_schema(declared: EventType) -> dict[str, Any]:
    """Return the JSON Schema of an event's `properties`."""
    schema: dict[str, Any] = {
        "$schema": DIALECT,
        "$id": f"penstock:event/{slug(declared.name)}/{declared.version}",
        "title": declared.name,
    }
    if declared.description:
        schema["description"] = declared.description
    schema |= object_schema(declared.fields)
    schema["x-penstock"] = {"event": declared.name, "version": declared.version}
    return schema


def object_schema(fields: Mapping[str, Field]) -> dict[str, Any]:
    """Return the JSON Schema of an object with these fields, such as a person's traits."""
    properties = {name: field_schema(field) for name, field in fields.items()}
    for field in fields.values():
        if field.kind == "money" and field.currency_field not in properties:
            properties[field.currency_field] = {
                "type": ["string", "null"],
                "pattern": "^[A-Za-z]{3}$",
                "description": "ISO 4217 currency of the amounts",
            }
    schema: dict[str, Any] = {"type": "object", "properties": properties}
    required = [name for name, field in fields.items() if field.required]
    if required:
        schema["required"] = required
    schema["additionalProperties"] = False
    return schema


def field_schema(field: Field) -> dict[str, Any]:
    """Return the JSON Schema of one field."""
    schema: dict[str, Any] = {}
    if field.description:
        schema["description"] = field.description
    shape = _SHAPES[field.kind](field)
    if not field.required:
        shape = _or_null(shape)
    privacy = field.privacy
    annotation: dict[str, Any] = {
        "category": privacy.category,
        "class": privacy.data_class,
        "purpose": privacy.purpose,
        "protection": privacy.protection,
    }
    if privacy.retention_days is not None:
        annotation["retention"] = f"P{privacy.retention_days}D"
    if field.kind in ("money", "decimal"):
        annotation["kind"] = field.kind
    if field.scale is not None:
        annotation["scale"] = field.scale
    if field.kind == "money":
        annotation["currency_field"] = field.currency_field
        if field.currency:
            annotation["currency"] = field.currency
    return schema | shape | {"x-penstock": annotation}


def _or_null(shape: dict[str, Any]) -> dict[str, Any]:
    widened = dict(shape)
    widened["type"] = [shape["type"], "null"]
    if "enum" in shape:
        widened["enum"] = [*shape["enum"], None]
    return widened


def _string(field: Field) -> dict[str, Any]:
    # JSON Schema counts characters as we do. NUL is refused before the catalog sees a text.
    return {"type": "string", "maxLength": field.chars_max, "pattern": r"^[^\u0000]*$"}


def _integer(field: Field) -> dict[str, Any]:
    return {"type": "integer", "minimum": -INTEGER_MAX, "maximum": INTEGER_MAX}


def _number(field: Field) -> dict[str, Any]:
    return {"type": "number", "minimum": -_AMOUNT_MAX, "maximum": _AMOUNT_MAX}


def _boolean(field: Field) -> dict[str, Any]:
    return {"type": "boolean"}


def _datetime(field: Field) -> dict[str, Any]:
    return {"type": "string", "format": "date-time", "maxLength": 64}


def _enum(field: Field) -> dict[str, Any]:
    return {"type": "string", "enum": list(field.values)}


def _strings(field: Field) -> dict[str, Any]:
    return {"type": "array", "maxItems": field.items_max, "items": _string(field)}


def _objects(field: Field) -> dict[str, Any]:
    items = object_schema({part.name: part for part in field.fields})
    return {"type": "array", "maxItems": field.items_max, "items": items}


_SHAPES: Final[dict[str, Callable[[Field], dict[str, Any]]]] = {
    "string": _string,
    "integer": _integer,
    "decimal": _number,
    "money": _number,
    "boolean": _boolean,
    "datetime": _datetime,
    "enum": _enum,
    "strings": _strings,
    "objects": _objects,
}


def slug(name: str) -> str:
    """Return an event's name in `snake_case`."""
    return "_".join("".join(char if char.isalnum() else " " for char in name.lower()).split())
