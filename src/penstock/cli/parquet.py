"""Parquet files for `export` and `load`: which column has which type, and rows batch by batch.

pyarrow is an extra (`pip install 'penstock[parquet]'`), imported only when a Parquet file is named.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from datetime import date, datetime, time
from decimal import Decimal
from importlib import import_module
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, cast

from penstock.core.catalog.expr_nodes import FieldRef
from penstock.core.catalog.schema import Field
from penstock.core.errors import SettingsError
from penstock.core.feature.definition import Feature

if TYPE_CHECKING:
    from penstock.core.feature.plan import Plan

BATCH_ROWS = 5_000
"""Rows held in memory, and in a row group."""

INTEGERS = frozenset({"count", "distinct", "sessions", "recency", "sequence"})
INSTANTS = frozenset({"last_at"})
NUMBERS = frozenset({"decay", "decay_sum", "session_length"})
OF_NUMBERS = frozenset({"sum", "min", "max", "mean", "variance", "quantile"})
TEXT = frozenset({"string", "enum"})


def arrow() -> Any:
    """Return pyarrow.

    Raises:
        SettingsError: It is not installed (E225).
    """
    try:
        import_module("pyarrow.parquet")
        return import_module("pyarrow")
    except ImportError as error:
        raise SettingsError("E225", "Parquet files need an extra that is not installed",
                            fix="pip install 'penstock[parquet]'") from error  # fmt: skip


def columns_of(
    plan: Plan, traits: Mapping[str, Field], *, identifiers: bool
) -> list[tuple[str, str]]:
    """Return the names and types of an export's columns: they follow from the definitions alone.

    Types are `text`, `texts`, `integer`, `number`, `boolean`, `instant` and `json`: what is neither
    a scalar nor a list of texts, such as money by currency or a value by group, is JSON text.
    """
    columns = [
        ("person", "text"),
        ("as_of", "instant"),
        ("permitted", "texts"),
        ("complete_since", "json"),
    ]
    if identifiers:
        columns += [("user_id", "text"), ("email", "text")]
    columns += [(f"feature_{feature.name}", _feature_type(feature)) for feature in plan.features]
    for name, field in sorted(traits.items()):
        if field.privacy.protection == "plain" and (identifiers or name != "email"):
            columns.append((f"trait_{name}", _kind_type(field.kind)))
    return columns


def _feature_type(feature: Feature) -> str:
    if feature.by is not None or any(part.by is not None for part in feature.parts):
        return "json"
    node = feature.value[0][1] if len(feature.value) == 1 else None
    kind = node.kind if isinstance(node, FieldRef) else ""
    name = feature.aggregate
    if name in INTEGERS:
        return "integer"
    if name in INSTANTS:
        return "instant"
    if name in NUMBERS or (name in OF_NUMBERS and kind in ("integer", "decimal")):
        return "number"
    if name == "exists":
        return "boolean"
    if name in ("first", "last") and kind in TEXT:
        return "text"
    return "texts" if name == "last_k" and kind in TEXT else "json"


def _kind_type(kind: str) -> str:
    if kind in TEXT:
        return "text"
    return {"integer": "integer", "boolean": "boolean", "datetime": "instant"}.get(kind, "json")


class ParquetFile:
    """A Parquet file that people are written to, batch by batch; only its owner may read it.

    Args:
        path: The file; written over.
        columns: From `columns_of`.

    Raises:
        SettingsError: pyarrow is not installed (E225).
        OSError: The file can't be written.
    """

    def __init__(self, path: Path, columns: Sequence[tuple[str, str]]) -> None:
        pa = arrow()
        types = {
            "text": pa.string(), "texts": pa.list_(pa.string()), "integer": pa.int64(),
            "number": pa.float64(), "boolean": pa.bool_(), "instant": pa.timestamp("ms", tz="UTC"),
            "json": pa.string(),
        }  # fmt: skip
        self._pa = pa
        self._columns = list(columns)
        self._schema = pa.schema([pa.field(name, types[kind]) for name, kind in self._columns])
        self._waiting: list[dict[str, Any]] = []
        self.rows = 0
        # It holds what people did: nobody but its owner reads it, from the first byte on.
        self._target = os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb")
        self._writer = pa.parquet.ParquetWriter(self._target, self._schema, compression="zstd")

    def add(self, people: Sequence[Mapping[str, Any]]) -> None:
        """Write people, as the admin API answers them."""
        self._waiting += [self._row(person) for person in people]
        self.rows += len(people)
        while len(self._waiting) >= BATCH_ROWS:
            self._write()

    def _row(self, person: Mapping[str, Any]) -> dict[str, Any]:
        flat = {
            **person,
            "as_of": person["as_of_ms"],
            **{f"feature_{name}": value for name, value in person["features"].items()},
            **{f"trait_{name}": value for name, value in person["traits"].items()},
        }
        return {name: _stored(flat.get(name), kind) for name, kind in self._columns}

    def _write(self) -> None:
        batch, self._waiting = self._waiting[:BATCH_ROWS], self._waiting[BATCH_ROWS:]
        self._writer.write_table(self._pa.Table.from_pylist(batch, schema=self._schema))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        try:
            if error is None and self._waiting:
                self._write()
            self._writer.close()
        finally:
            self._target.close()


def _stored(value: Any, kind: str) -> Any:
    if value is None:
        return None
    if kind == "json":
        return json.dumps(value, ensure_ascii=False, sort_keys=True)
    if kind == "texts":
        return [str(one) for one in value]
    return float(value) if kind == "number" else value


def read_rows(file: Path) -> Iterator[dict[str, Any] | str]:
    """Yield the rows of a Parquet file as a CSV with the same content would give them, or why not.

    Scalars of a column become text, exactly: no digit of a decimal passes through a float. What is
    nested stays as JSON has it; null is null.

    Raises:
        SettingsError: pyarrow is not installed (E225), or the file is no Parquet (E227).
    """
    pa = arrow()
    try:
        source = pa.parquet.ParquetFile(file)
    except (pa.ArrowException, OSError) as error:
        raise SettingsError("E227", "the file is no Parquet that can be read", where=file.name,
                            fix="write it again, with one flat column per field") from error  # fmt: skip
    with source:
        names = source.schema_arrow.names
        if len(set(names)) < len(names):
            raise SettingsError("E227", "two columns of the file have one name", where=file.name,
                                fix="name each column once")  # fmt: skip
        for batch in source.iter_batches(batch_size=1_000):
            for row in batch.to_pylist():
                try:
                    yield {name: _text(_plain(value)) for name, value in row.items()}
                except ValueError as error:
                    yield str(error)


def count_rows(file: Path) -> int:
    """Return how many rows a Parquet file has; errors as `read_rows`."""
    pa = arrow()
    try:
        return pa.parquet.read_metadata(file).num_rows
    except (pa.ArrowException, OSError):
        return 0


def _plain(value: Any) -> Any:
    """Return a value as JSON has it.

    Raises:
        ValueError: It has none there; the text says what, and holds no value.
    """
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("the row holds a number that is not finite")
    if isinstance(value, bytes):
        raise ValueError("the row holds bytes that are no text")  # noqa: TRY004 - the row is wrong, not we
    if isinstance(value, Decimal):
        return format(value, "f")
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, list):
        return [_plain(one) for one in cast("list[Any]", value)]
    if isinstance(value, dict):
        return {name: _plain(one) for name, one in cast("dict[str, Any]", value).items()}
    return value


def _text(value: Any) -> Any:
    if isinstance(value, bool):
        return "true" if value else "false"
    return repr(value) if isinstance(value, int | float) else value
