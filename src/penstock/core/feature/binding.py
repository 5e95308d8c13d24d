"""A declared feature, checked and bound: its aggregate, types, tiles and purposes, or an error."""

from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any, NamedTuple

import msgspec

from penstock.core.catalog.expr_nodes import FieldRef, Node
from penstock.core.errors import DefinitionError
from penstock.core.feature import expr
from penstock.core.feature.algebra import KEYS, REGISTRY, Aggregate, ValueType
from penstock.core.feature.cell import Cell
from penstock.core.feature.definition import Feature
from penstock.core.feature.window import Zone, grid_of, window_fault

GROUPS_MAX_MAX = 1_000
EACH_MAX = 1_000
"""Line items of one event that are folded; those after them are not."""


class Bound(NamedTuple):
    """A stateful feature that passed every check: how to fold it, and into which cell."""

    feature: Feature
    aggregate: Aggregate
    cell: Cell
    reads: tuple[FieldRef, ...]
    """The fields it reads, each once."""


class Naming:
    """Names a field's local variable `f0`, `f1`, …, in the order the fields were first asked for."""

    def __init__(self) -> None:
        self.refs: dict[tuple[Any, ...], tuple[str, FieldRef]] = {}

    def __call__(self, ref: FieldRef) -> str:
        """Return the variable of a field, typed as the reference says."""
        key = field_key(ref)
        if key not in self.refs:
            self.refs[key] = (f"f{len(self.refs)}", ref)
        return self.refs[key][0]


def field_key(ref: FieldRef) -> tuple[Any, ...]:
    """Return what tells fields apart in a fold: where a value is read, and its type."""
    return (*ref.canonical(), ref.kind, ref.scale, ref.protection)


def fault(feature: Feature, code: str, what: str, fix: str) -> DefinitionError:
    """Return an error that names the feature and its place."""
    named = f"feature `{feature.name}`" if feature.name else f"a part, `{feature.aggregate}`,"
    return DefinitionError(code, f"{named} {what}", fix=fix, where=feature.place)


def bind(feature: Feature, zone: Zone) -> Bound:
    """Return a stateful feature, checked.

    Raises:
        DefinitionError: It names no aggregate (E111), has a window (E112), parameters (E113), a
            value (E114), an expression (E115), a group (E116) or a source (E117) that is wrong.
    """
    kind = REGISTRY.get(feature.aggregate)
    if kind is None:
        near = get_close_matches(feature.aggregate, REGISTRY, n=1)
        raise fault(feature, "E111", f"uses `{feature.aggregate}`, which is no aggregate",
                    f"did you mean `{near[0]}`?" if near else f"use one of {', '.join(sorted(REGISTRY))}")  # fmt: skip
    wrong = window_fault(feature.window)
    if wrong:
        raise fault(feature, "E112", f"has a window that cannot be kept: {wrong}",
                    'use days(7), hours(1), lifetime() or tumbling("day")')  # fmt: skip
    reads = _reads(feature)
    value_type = _value_type(feature, kind)
    _check_conditions(feature)
    try:
        aggregate = kind.bind(value_type, dict(feature.params))
    except ValueError as error:
        raise fault(feature, "E113", f"has a parameter out of its range: {error}",
                    "use a value within the range") from error  # fmt: skip
    except TypeError as error:
        names = ", ".join(sorted(name for name, _ in feature.params))
        raise fault(feature, "E113", f"has a parameter that `{feature.aggregate}` does not take: {names}",
                    "remove it; docs/reference/aggregates.md lists what each takes") from error  # fmt: skip
    needs = tuple(sorted({feature.purpose, *(ref.purpose for ref in reads)}))
    grid = grid_of(feature.window, zone)
    wrong = aggregate.misfit(grid)
    if wrong:
        raise fault(feature, "E112", f"has a window that cannot be kept: {wrong}",
                    "use a shorter period, or a narrower `tile=`")  # fmt: skip
    key = _cell_key(feature, aggregate, grid.canonical, needs, value_type, reads)
    groups_max = None if feature.by is None else feature.groups_max
    return Bound(feature, aggregate, Cell(key, aggregate, grid, groups_max, needs), reads)


def nodes(feature: Feature) -> list[Node]:
    """Return all expressions of a feature."""
    optional = (feature.key, feature.where, feature.by)
    return [node for _, node in feature.value] + [node for node in optional if node is not None]


def _reads(feature: Feature) -> tuple[FieldRef, ...]:
    found = {field_key(ref): ref for node in nodes(feature) for ref in expr.refs(node)}
    for ref in found.values():
        if ref.event != feature.event:
            raise fault(feature, "E117", f"folds `{feature.event}` but reads a field of `{ref.event}`",
                        "use fields of the event it folds")  # fmt: skip
        items = ref.items if isinstance(ref, expr.ItemRef) else ""
        if items and items != feature.items:
            raise fault(feature, "E117", f"reads `{ref.field}` of the items in `{items}` outside of them",
                        f'fold the items: `each(event, "{items}")`')  # fmt: skip
        if ref.protection == "drop":
            raise fault(feature, "E117", f"reads `{ref.field}`, which is dropped before the log",
                        "give the field another protection, or read another field")  # fmt: skip
    return tuple(found.values())


def _typed(feature: Feature, node: Node, code: str, role: str) -> expr.Strict:
    try:
        return expr.value(node, Naming())
    except expr.ExprFault as error:
        raise fault(
            feature, code, f"has a {role} that is wrong: {error.what}", error.fix
        ) from error


def _value_type(feature: Feature, kind: type[Aggregate]) -> ValueType | None:
    if not feature.value:
        if kind.value == "required":
            raise fault(feature, "E114", f"does not say which value `{kind.name}` folds",
                        "name a field, such as `product_viewed.price`")  # fmt: skip
        return None
    if kind.value == "none":
        raise fault(feature, "E114", f"folds a value, which `{kind.name}` does not take",
                    "name the event instead of its field")  # fmt: skip
    parts = [(name, _typed(feature, node, "E114", "value")) for name, node in feature.value]
    plain = all(isinstance(node, FieldRef) or part.type.kind == "boolean"
                for (_, node), (_, part) in zip(feature.value, parts, strict=True))  # fmt: skip
    value_type = parts[0][1].type if len(parts) == 1 else expr.record_type(parts)
    if value_type.kind not in kind.takes or any(
        part.type.kind in ("strings", "objects") for _, part in parts
    ):
        named = (
            "several fields"
            if value_type.kind == "record"
            else f"a value of kind `{value_type.kind}`"
        )
        raise fault(feature, "E114", f"folds {named}, which `{kind.name}` does not take",
                    f"fold one of kind {', '.join(sorted(kind.takes))}")  # fmt: skip
    if kind.keeps_value and not plain:
        raise fault(feature, "E114", f"keeps the result of a calculation in `{kind.name}`",
                    "keep a field as it is, and calculate where it is used")  # fmt: skip
    if feature.key is not None:
        _check_key(feature, feature.key, "distinct_by")
    elif ("distinct", True) in feature.params and value_type.kind not in KEYS:
        raise fault(feature, "E114", f"keeps distinct values of kind `{value_type.kind}`",
                    "say by which field they are distinct: `distinct_by=`")  # fmt: skip
    return value_type


def _check_key(feature: Feature, node: Node, role: str) -> None:
    compiled = _typed(feature, node, "E116", f"`{role}=`")
    plain = isinstance(node, FieldRef) or compiled.type.kind == "boolean"
    if compiled.type.kind not in KEYS or not plain:
        raise fault(feature, "E116", f"has a `{role}=` of kind `{compiled.type.kind}`",
                    "use a field that is a string, an enum, an integer or a boolean")  # fmt: skip


def _check_conditions(feature: Feature) -> None:
    if feature.by is not None:
        _check_key(feature, feature.by, "by")
        if type(feature.groups_max) is not int or not 1 <= feature.groups_max <= GROUPS_MAX_MAX:
            raise fault(feature, "E116", "has `groups_max` out of its range",
                        f"use a whole number from 1 to {GROUPS_MAX_MAX}")  # fmt: skip
    if feature.where is not None:
        try:
            expr.truth(feature.where, Naming())
        except expr.ExprFault as error:
            raise fault(feature, "E115", f"has a `where=` that is wrong: {error.what}",
                        error.fix) from error  # fmt: skip


def _cell_key(
    feature: Feature, aggregate: Aggregate, grid: Sequence[Any], needs: tuple[str, ...],
    value_type: ValueType | None, reads: Sequence[FieldRef],
) -> str:  # fmt: skip
    canonical = [
        aggregate.state,
        sorted(aggregate.params().items()),
        feature.event,
        feature.items,
        [
            [name if len(feature.value) > 1 else "", node.canonical()]
            for name, node in feature.value
        ],
        None if feature.key is None else feature.key.canonical(),
        None if feature.where is None else feature.where.canonical(),
        None if feature.by is None else [feature.by.canonical(), feature.groups_max],
        grid,
        needs,
        None if value_type is None else [value_type.kind, value_type.scale],
        sorted(list(map(_text, field_key(ref))) for ref in reads),
    ]
    return msgspec.json.encode(canonical).decode()


def _text(part: Any) -> str:
    return "" if part is None else str(part)
