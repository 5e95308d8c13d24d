"""Definitions in words: what a feature computes, what a field is kept as, for people to compare."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final, cast

import msgspec

from penstock.core.catalog.expr_nodes import Const, FieldRef, Node, Op
from penstock.core.catalog.fields import Field
from penstock.core.feature.definition import Feature
from penstock.core.feature.expr import Amount, ItemRef
from penstock.core.feature.window import Lifetime, Sliding, Tumbling, Window
from penstock.core.time import DAY_MS, HOUR_MS, MINUTE_MS

_SIGNS: Final = {
    "eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">=", "add": "+", "sub": "-",
    "mul": "*", "and": "&", "or": "|", "in": "in",
}  # fmt: skip


def feature_facts(feature: Feature, purposes: tuple[str, ...]) -> dict[str, str]:
    """Return what a feature computes, each part of it as a short text by its name."""
    if feature.parts:
        parts = [_sentence(feature_facts(part, ())) for part in feature.parts]
        facts = {"computes": f"{feature.aggregate} of {' and '.join(parts)}"}
    else:
        value = ", ".join(expression(node) for _, node in feature.value)
        folds = f"{feature.items} of {feature.event}" if feature.items else feature.event
        facts = {
            "computes": feature.aggregate + (f" of {value}" if value else ""),
            "from": folds,
            "over": span(feature.window),
            "where": expression(feature.where) if feature.where is not None else "",
            "by": expression(feature.by) if feature.by is not None else "",
            "distinct by": expression(feature.key) if feature.key is not None else "",
            "with": ", ".join(f"{name}={_literal(value)}" for name, value in feature.params),
        }
    facts["for"] = ", ".join(purposes)
    return {name: text for name, text in facts.items() if text}


def _sentence(facts: Mapping[str, str]) -> str:
    return " ".join(
        text if name == "computes" else f"{name} {text}" for name, text in facts.items()
    )


def sentence(facts: Mapping[str, str]) -> str:
    """Return facts as one line: `count from Product Viewed over 7 days for personalisation`."""
    return _sentence(facts)


def expression(node: Node) -> str:
    """Return an expression as its author would write it."""
    match node:
        case ItemRef():
            return f"{node.items}.{node.field}"
        case FieldRef():
            return node.field
        case Const():
            return _literal(node.value)
        case Amount():
            return f"{node.literal} {node.currency}"
        case Op(op="not"):
            return f"~{_inner(node.operands[0])}"
        case Op(op="neg"):
            return f"-{_inner(node.operands[0])}"
        case Op(op="known"):
            return f"{_inner(node.operands[0])} is known"
        case Op():
            return f" {_SIGNS[node.op]} ".join(_inner(operand) for operand in node.operands)
        case _:
            return msgspec.json.encode(node.canonical()).decode()


def _inner(node: Node) -> str:
    text = expression(node)
    return f"({text})" if isinstance(node, Op) and len(node.operands) > 1 else text


def _literal(value: Any) -> str:
    if isinstance(value, tuple):
        listed = cast("tuple[Any, ...]", value)
        return f"({', '.join(_literal(one) for one in listed)})"
    if isinstance(value, Decimal):
        return format(value, "f")
    return repr(value)


def span(window: Window) -> str:
    """Return a window in words: `7 days`, `this month`, `lifetime`."""
    match window:
        case Lifetime():
            return "lifetime"
        case Tumbling(previous=0):
            return f"this {window.period}"
        case Tumbling():
            return f"the {window.period} {window.previous} before this"
        case Sliding():
            return duration(window.window_ms)


def duration(span_ms: int) -> str:
    """Return a span in the widest unit that it is a whole number of."""
    for unit_ms, unit in ((DAY_MS, "day"), (HOUR_MS, "hour"), (MINUTE_MS, "minute")):
        if span_ms % unit_ms == 0:
            count = span_ms // unit_ms
            return f"{count} {unit}{'' if count == 1 else 's'}"
    return f"{span_ms} ms"


def privacy_facts(field: Field) -> dict[str, str]:
    """Return what a field's annotation says, each part as a short text by its name."""
    privacy = field.privacy
    kept = (
        "as long as the event"
        if privacy.retention_days is None
        else f"{privacy.retention_days} days"
    )
    return {
        "category": privacy.category,
        "class": privacy.data_class,
        "purpose": privacy.purpose,
        "kept": "not at all" if privacy.protection == "drop" else kept,
        "protection": privacy.protection,
    }
