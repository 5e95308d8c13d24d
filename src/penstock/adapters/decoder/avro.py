"""Records of Avro, read by fastavro as their schema says."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

import fastavro
from fastavro.schema import SchemaParseException, UnknownType, parse_schema

from penstock.core.errors import EventRejected
from penstock.core.literal import Literal
from penstock.ports.decoder import Decode
from penstock.ports.registry import Schema

DEPTH_MAX: Final = 64

_UNREADABLE: Final = (
    ArithmeticError, AssertionError, AttributeError, EOFError, IndexError, KeyError, MemoryError, OSError,
    RecursionError, StopIteration, TypeError, ValueError,
)  # fmt: skip
"""What fastavro raises for bytes that are not of their schema."""


def compile_avro(schema: Schema, references: Sequence[tuple[str, Schema]]) -> Decode:
    """Return what reads the payloads of an Avro schema.

    Raises:
        EventRejected: It is no Avro schema, or one whose records could say more than they hold (E332).
    """
    names: dict[str, Any] = {}
    try:
        for _, used in references:
            parse_schema(json.loads(used.text), names)
        parsed = parse_schema(json.loads(schema.text), names)
    except (
        ValueError,
        TypeError,
        KeyError,
        AttributeError,
        SchemaParseException,
        UnknownType,
        RecursionError,
    ) as error:
        raise _unusable("does not parse as Avro") from error
    if _swells(parsed, names, frozenset()):
        # Nothing in the bytes bounds a list of nothings: a record of ten bytes could fill the memory.
        raise _unusable("has a list of values that take no bytes")

    def decode(payload: bytes) -> Any:
        raw = io.BytesIO(payload)
        try:
            value = fastavro.schemaless_reader(raw, parsed, None)
        except _UNREADABLE as error:
            raise _unreadable() from error
        if raw.tell() != len(payload):
            raise _unreadable()
        return _plain(value, DEPTH_MAX)

    return decode


def _plain(value: Any, depth: int) -> Any:
    """Return a value as JSON has it."""
    match value:
        case None | str() | bool() | int() | float():
            return value
        case _ if not depth:
            raise _unreadable()
        case dict():
            return {str(name): _plain(one, depth - 1) for name, one in value.items()}
        case list() | tuple():
            return [_plain(one, depth - 1) for one in value]
        case Decimal():
            return Literal(format(value, "f"))
        case datetime() | date() | time():
            return value.isoformat()
        case timedelta():
            return value.total_seconds()
        case bytes():
            return base64.b64encode(value).decode()
        case UUID():
            return str(value)
        case _:
            raise _unreadable()


def _swells(schema: Any, names: dict[str, Any], within: frozenset[str]) -> bool:
    """Return whether a list or a map somewhere in a schema has items that take no bytes."""
    if isinstance(schema, list):
        return any(_swells(one, names, within) for one in schema)
    if isinstance(schema, str):
        known = names.get(schema)
        return (
            known is not None and schema not in within and _swells(known, names, within | {schema})
        )
    kind, name = schema.get("type"), schema.get("name")
    inside = within | {name} if name else within
    if kind == "array":
        return _is_nothing(schema["items"], names, frozenset()) or _swells(
            schema["items"], names, inside
        )
    if kind == "map":
        return _swells(schema["values"], names, inside)  # a key takes a byte at least
    if kind in ("record", "error"):
        return any(_swells(field["type"], names, inside) for field in schema["fields"])
    return isinstance(kind, dict | list) and _swells(kind, names, within)


def _is_nothing(schema: Any, names: dict[str, Any], within: frozenset[str]) -> bool:
    """Return whether a value of a schema takes no bytes."""
    if isinstance(schema, str):
        known = names.get(schema)
        if known is None or schema in within:
            return schema == "null"
        return _is_nothing(known, names, within | {schema})
    if isinstance(schema, list):
        return False  # which of them it is takes a byte
    kind, name = schema.get("type"), schema.get("name")
    inside = within | {name} if name else within
    if kind in ("record", "error"):
        return all(_is_nothing(field["type"], names, inside) for field in schema["fields"])
    if kind == "fixed":
        return not schema["size"]
    return kind == "null" or (isinstance(kind, dict) and _is_nothing(kind, names, within))


def _unusable(why: str) -> EventRejected:
    return EventRejected("E332", f"the schema of a record {why}", where="$",
                         fix="mend the schema, or set the `format` that the topic has")  # fmt: skip


def _unreadable() -> EventRejected:
    return EventRejected("E331", "a record does not read back by its Avro schema", where="$",
                         fix="send it with the schema that it names")  # fmt: skip
