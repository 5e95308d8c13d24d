"""A plan as data, for a fold that is not written in Python: what to fold, and which events only Python can.

What is handed over is what `source.py` writes as Python. An event is left to Python if an aggregate,
a window or a number in one of its features is of a kind that the other side does not know.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from penstock.core.catalog.expr_nodes import FieldRef
from penstock.core.feature import expr
from penstock.core.feature.aggregates import decay
from penstock.core.feature.aggregates.numbers import NumberAggregate
from penstock.core.feature.algebra import REGISTRY, Aggregate
from penstock.core.feature.binding import Bound, Naming
from penstock.core.feature.source import charge_bytes
from penstock.core.feature.window import FixedGrid

STATES: Final = frozenset({
    "count", "sum", "min", "max", "moments", "histogram", "first", "last", "last_k", "latest",
    "instants", "top_k", "distinct", "decay", "decay_sum", "sessions",
})  # fmt: skip
"""Accumulators that are known on the other side."""

_OURS: Final = "penstock.core.feature.aggregates."
_FIELD_BITS: Final = 53
"""Greater numbers are left to Python when they come; see `_bits`."""
_BITS_MAX: Final = {"moments": 53, "decay_sum": 64}
_BITS_MAX_ELSE: Final = 107
"""Of 127 that a sum may have: a million values of the greatest magnitude fit into a tile."""


class NotKnown(Exception):
    """Something that only Python folds."""


def handed_over(fingerprint: str, cells: Sequence[Bound], masks: Mapping[str, int]) -> bytes:
    """Return a plan as msgpack.

    Args:
        fingerprint: The plan's.
        cells: One bound feature per cell, in the order of the states.
        masks: Purpose -> its bit.
    """
    by_event: dict[str, list[tuple[int, Bound]]] = {}
    for index, bound in enumerate(cells):
        by_event.setdefault(bound.feature.event, []).append((index, bound))
    events: list[dict[str, Any]] = []
    python: list[str] = []
    for name, bounds in by_event.items():
        try:
            event = {"name": name, **_event(bounds, masks)}
            msgspec.msgpack.encode(event)
            events.append(event)
        except (NotKnown, OverflowError):
            python.append(name)
    tables = [decay.COARSE, decay.MIDDLE, decay.FINE]
    return msgspec.msgpack.encode({
        "fingerprint": fingerprint, "cells": [_cell(bound) for bound in cells], "events": events,
        "python": python, "weights": tables,
    })  # fmt: skip


def _known(bound: Bound) -> bool:
    """Return whether a cell's accumulators are ours, and none of a user's aggregate."""
    aggregate = bound.aggregate
    return (
        aggregate.state in STATES
        and type(aggregate).__module__.startswith(_OURS)
        and REGISTRY.get(aggregate.name) is type(aggregate)
    )


def _cell(bound: Bound) -> dict[str, Any] | None:
    cell, aggregate, grid = bound.cell, bound.aggregate, bound.cell.grid
    if not _known(bound):
        return None
    fixed = isinstance(grid, FixedGrid)
    return {
        "state": aggregate.state,
        "params": aggregate.params(),
        "money": _is_money(aggregate),
        "charge": aggregate.charge_bytes,
        "layout": cell.layout,
        "width_ms": grid.width_ms if fixed else None,
        "window_ms": grid.window_ms if fixed else None,
        "period": None if fixed else grid.period,
        "previous": None if fixed else grid.previous,
        "groups_max": cell.groups_max,
        "needs": cell.needs,
    }


def _is_money(aggregate: Aggregate) -> bool:
    return isinstance(aggregate, NumberAggregate) and aggregate.money


def _event(bounds: Sequence[tuple[int, Bound]], masks: Mapping[str, int]) -> dict[str, Any]:
    naming = Naming()
    direct = _groups([pair for pair in bounds if not pair[1].feature.items], masks, naming)
    lists = sorted({bound.feature.items for _, bound in bounds} - {""})
    each = [
        {"name": items, "groups": _groups([pair for pair in bounds if pair[1].feature.items == items], masks, naming)}
        for items in lists
    ]  # fmt: skip
    fields = [
        {"items": ref.items if isinstance(ref, expr.ItemRef) else "", "name": ref.field, "kind": ref.kind}
        for _, ref in naming.refs.values()
    ]  # fmt: skip
    return {"fields": fields, "direct": direct, "lists": each}


def _groups(
    bounds: Sequence[tuple[int, Bound]], masks: Mapping[str, int], naming: Naming
) -> list[dict[str, Any]]:
    """Return how cells are folded, those of the same purposes together."""
    by_mask: dict[int, list[tuple[int, Bound]]] = {}
    for index, bound in bounds:
        mask = sum(masks[purpose] for purpose in bound.cell.needs)
        by_mask.setdefault(mask, []).append((index, bound))
    return [
        {"mask": mask, "charge": sum(charge_bytes(bound) for _, bound in members),
         "programs": [_program(index, bound, naming) for index, bound in members]}
        for mask, members in sorted(by_mask.items())
    ]  # fmt: skip


def _program(index: int, bound: Bound, naming: Naming) -> dict[str, Any]:
    if not _known(bound):
        raise NotKnown
    feature, aggregate = bound.feature, bound.aggregate
    parts = [expr.value(node, naming) for _, node in feature.value]
    key = None if feature.key is None else expr.value(feature.key, naming)
    by = None if feature.by is None else expr.value(feature.by, naming)
    where = None if feature.where is None else expr.condition(feature.where, naming)
    most = _BITS_MAX.get(aggregate.state, _BITS_MAX_ELSE)
    if any(_bits(part.tree) > most for part in parts) or (where and _bits(where) > _BITS_MAX_ELSE):
        raise NotKnown
    if aggregate.keeps_value and not all(
        isinstance(node, FieldRef) or part.type.kind == "boolean"
        for part, (_, node) in zip(parts, feature.value, strict=True)
    ):
        raise NotKnown
    return {
        "cell": index,
        "where": where,
        "key": None if key is None else key.tree,
        "parts": [part.tree for part in parts],
        "by": None if by is None else by.tree,
        "folds_value": bool(parts) and aggregate.value == "required",
        "charges_text": aggregate.keeps_value,
        "key_is_text": key is not None and key.type.kind in expr.TEXT,
        "by_is_text": by is not None and by.type.kind in expr.TEXT,
        "text_parts": [part.type.kind in expr.TEXT for part in parts],
    }


def _bits(tree: expr.Tree) -> int:
    """Return how many bits a number in an expression, or in a part of it, has at most."""
    kind, *operands = tree
    match kind:
        case "field":
            return _FIELD_BITS
        case "int" | "money":
            return max(int(operands[0]).bit_length(), 1)
        case "str" | "bool":
            return 1
        case "scale":
            return _bits(operands[0]) + int(operands[1]).bit_length()
        case "in":
            return max(_bits(operands[0]), *map(_bits, operands[1]), 1)
        case "mul":
            return sum(map(_bits, operands))
        case _:
            return max(map(_bits, operands)) + (kind in ("add", "sub"))
