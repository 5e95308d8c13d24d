"""Values of Avro, written by fastavro as their schema says."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from typing import Any

import fastavro
from fastavro.schema import parse_schema


def compile_avro(text: str) -> Callable[[Any], bytes]:
    """Return what writes values of a schema of our own, given its text."""
    parsed = parse_schema(json.loads(text))

    def encode(value: Any) -> bytes:
        raw = io.BytesIO()
        fastavro.schemaless_writer(raw, parsed, value)
        return raw.getvalue()

    return encode
