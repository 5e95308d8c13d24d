"""Typed expressions: what a filter or a derived value means, checked once and turned into Python.

An expression is compiled into Python source over local variables, one per field, which the fold
loads once per event (`core/feature/source.py`). A field whose value is missing, null, or of another
type than declared (a record of an older version) is None there.

Three-valued logic, as in SQL: an operation on null is null; `and` and `or` are Kleene's; a filter
lets through only what is true; a value that is null makes the feature skip the event. Amounts of
different currencies do not compare and do not add: the result is null.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final, NamedTuple, TypeAlias

from penstock.core.catalog.expr_nodes import Const, FieldRef, Node, Op
from penstock.core.feature.algebra import ValueType
from penstock.core.money import exponent, minor_units
from penstock.core.time import parse_instant

SCALE_MAX: Final = 18
COMPARISONS: Final = {"eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}
ARITHMETIC: Final = {"add": "+", "sub": "-", "mul": "*"}
TEXT: Final = frozenset({"string", "enum"})


@dataclass(frozen=True, eq=False, slots=True)
class ItemRef(FieldRef):
    """A field of one line item of an event, such as a product of an order.

    Attributes:
        items: The event's list of objects that the item is in.
    """

    items: str = ""

    def canonical(self) -> list[Any]:
        """Return `["item", event, items, field]`."""
        return ["item", self.event, self.items, self.field]


@dataclass(frozen=True, eq=False, slots=True)
class Amount(Node):
    """An amount of money the author wrote, as its decimal text and its currency."""

    literal: str
    currency: str

    def canonical(self) -> list[Any]:
        """Return `["amount", literal, currency]`."""
        return ["amount", self.literal, self.currency]


class ExprFault(Exception):
    """What is wrong with an expression, and the fix; the plan adds the feature and its place."""

    def __init__(self, what: str, fix: str) -> None:
        super().__init__(what)
        self.what = what
        self.fix = fix


Tree: TypeAlias = tuple[Any, ...]
"""An expression as nested tuples: its kind, then operands. Fields are numbered as their variables are."""


class Strict(NamedTuple):
    """A compiled value: Python source that is right when all its conditions hold, else null.

    Attributes:
        type: The value's type.
        source: The value; of money, the amount.
        conditions: Python conditions, in the order they must be asked.
        currency: Source of money's currency.
        tree: The same as data, for whoever folds without Python: null where a condition does not hold.
        whole: Source of the value as it is stored; for money a list.
    """

    type: ValueType
    source: str
    conditions: tuple[str, ...] = ()
    currency: str = ""
    tree: Tree = ()

    @property
    def whole(self) -> str:
        """Return the source of the value as accumulators get it."""
        if self.type.kind != "money":
            return self.source
        if self.source.endswith("[0]"):
            return self.source[:-3]
        return f"[{self.source}, {self.currency}]"


Local = Callable[[FieldRef], str]
"""Gives a field's local variable, and remembers that it has to be loaded."""


def refs(node: Node) -> list[FieldRef]:
    """Return the fields that an expression reads, left to right."""
    if isinstance(node, FieldRef):
        return [node]
    if isinstance(node, Op):
        return [ref for operand in node.operands for ref in refs(operand)]
    return []


def value(node: Node, local: Local) -> Strict:
    """Return a compiled value.

    Raises:
        ExprFault: The expression has no type.
    """
    if isinstance(node, FieldRef):
        return _field(node, local)
    if isinstance(node, Amount | Const):
        raise ExprFault("a constant stands where a field should", "name a field of the event")
    if not isinstance(node, Op):
        raise ExprFault(f"a `{type(node).__name__}` cannot be read from an event",
                        "use fields of the event the feature folds")  # fmt: skip
    if node.op in ARITHMETIC:
        return _arithmetic(node, local)
    if node.op == "neg":
        operand = value(node.operands[0], local)
        if operand.type.kind not in ("integer", "decimal", "money"):
            raise ExprFault(f"a {operand.type.kind} is negated", "negate a number")
        return operand._replace(source=f"(-{operand.source})", tree=("neg", operand.tree))
    if node.op in COMPARISONS:
        return _comparison(node, local)
    if node.op == "in":
        return _membership(node, local)
    if node.op == "known":
        operand = value(node.operands[0], local)
        known = " and ".join(operand.conditions) or "True"
        return Strict(ValueType("boolean"), f"({known})", tree=("known", operand.tree))
    # Kleene's and, or, not: null unless it is surely true or surely false.
    true, false = truth(node, local), falsity(node, local)
    return Strict(
        ValueType("boolean"), true, (f"({true} or {false})",), tree=condition(node, local)
    )


def truth(node: Node, local: Local) -> str:
    """Return the Python condition "this expression is true".

    Raises:
        ExprFault: It is no condition.
    """
    return _condition(node, local, True)


def condition(node: Node, local: Local) -> Tree:
    """Return a condition as data: true, false or null."""
    if isinstance(node, Const) and isinstance(node.value, bool):
        return ("bool", node.value)
    if isinstance(node, Op) and node.op in ("not", "and", "or"):
        return (node.op, *(condition(operand, local) for operand in node.operands))
    return value(node, local).tree


def falsity(node: Node, local: Local) -> str:
    """Return the Python condition "this expression is false", which is not "not true".

    Raises:
        ExprFault: It is no condition.
    """
    return _condition(node, local, False)


def _condition(node: Node, local: Local, wanted: bool) -> str:
    if isinstance(node, Const) and isinstance(node.value, bool):
        return str(node.value is wanted)
    if isinstance(node, Op) and node.op == "not":
        return _condition(node.operands[0], local, not wanted)
    if isinstance(node, Op) and node.op in ("and", "or"):
        word = "and" if (node.op == "and") is wanted else "or"
        one, other = (_condition(operand, local, wanted) for operand in node.operands)
        return f"({one} {word} {other})"
    compiled = value(node, local)
    if compiled.type.kind != "boolean":
        raise ExprFault(f"a {compiled.type.kind} stands where a condition should",
                        "compare it with something, or ask `.known()`")  # fmt: skip
    source = compiled.source if wanted else f"not {compiled.source}"
    return f"({' and '.join((*compiled.conditions, source))})"


def _field(ref: FieldRef, local: Local) -> Strict:
    name = local(ref)
    known = (f"{name} is not None",)
    tree = ("field", int(name.removeprefix("f")))
    if ref.kind == "money":
        return Strict(ValueType("money", ref.scale), f"{name}[0]", known, f"{name}[1]", tree)
    scale = ref.scale if ref.kind == "decimal" else None
    return Strict(ValueType(ref.kind, scale), name, known, tree=tree)


def _operands(node: Op, local: Local) -> tuple[Strict, Strict]:
    """Return both operands; a constant takes the type of the other."""
    one, other = node.operands
    if isinstance(one, Const | Amount) and isinstance(other, Const | Amount):
        raise ExprFault("two constants are combined", "name a field of the event")
    if isinstance(one, Const | Amount):
        right = value(other, local)
        return _constant(one, right, node.op), right
    left = value(one, local)
    if isinstance(other, Const | Amount):
        return left, _constant(other, left, node.op)
    return left, value(other, local)


def _constant(node: Node, beside: Strict, op: str) -> Strict:
    """Return a constant as the type that it stands beside.

    Raises:
        ExprFault: It is of another type.
    """
    kind = beside.type.kind
    if isinstance(node, Amount):
        if kind != "money":
            raise ExprFault(f"an amount of money stands beside a {kind}", "use a plain number")
        return _amount(node, beside.type.scale)
    written = node.value if isinstance(node, Const) else None
    if written is None:
        raise ExprFault("something is compared with None, which is neither true nor false",
                        "ask `.known()` or `~field.known()`")  # fmt: skip
    if kind == "boolean" and isinstance(written, bool):
        return Strict(beside.type, repr(written), tree=("bool", written))
    if kind in TEXT and isinstance(written, str):
        return Strict(ValueType("string"), repr(written), tree=("str", written))
    if kind == "datetime" and isinstance(written, str):
        try:
            at_ms = parse_instant(written)
            return Strict(beside.type, str(at_ms), tree=("int", at_ms))
        except ValueError:
            raise ExprFault("a datetime stands beside a text that is no ISO 8601 instant",
                            'write it as "2026-11-25T10:00:00Z"') from None  # fmt: skip
    if isinstance(written, int | Decimal) and not isinstance(written, bool):
        if kind in ("integer", "decimal"):
            # Factors keep their own scale; terms and comparisons take the other side's.
            return _number(Decimal(written), None if op == "mul" else beside.type.scale or 0)
        if kind == "money" and op == "mul" and isinstance(written, int):
            return Strict(ValueType("integer"), f"({written})", tree=("int", written))
    if kind == "money":
        raise ExprFault("an amount of money stands beside a plain constant",
                        'write `amount("10.00", "GBP")`')  # fmt: skip
    raise ExprFault(f"a {kind} stands beside a constant of type `{type(written).__name__}`",
                    f"write a constant that a {kind} can equal")  # fmt: skip


def _number(written: Decimal, scale: int | None) -> Strict:
    digits = max(-int(written.normalize().as_tuple().exponent), 0)
    if scale is None:
        scale = digits
    if digits > scale:
        raise ExprFault(f"a constant has {digits} decimal digits, its field keeps {scale}",
                        "round the constant, or declare a greater scale")  # fmt: skip
    kind = ValueType("decimal", scale) if scale else ValueType("integer")
    number = int(written.scaleb(scale))
    return Strict(kind, f"({number})", tree=("int", number))


def _amount(node: Amount, scale: int | None) -> Strict:
    try:
        minor = minor_units(node.literal, node.currency, scale=scale)
    except ValueError:
        raise ExprFault(
            "an amount is no decimal number", 'write `amount("10.00", "GBP")`'
        ) from None
    digits = exponent(node.currency) if scale is None else scale
    if Decimal(node.literal).scaleb(digits) != minor:
        raise ExprFault(f"an amount has more than {digits} decimal digits", "round it")
    return Strict(ValueType("money", scale), f"({minor})", (), repr(node.currency),
                  ("money", minor, node.currency))  # fmt: skip


def _aligned(one: Strict, other: Strict, op: str) -> tuple[Strict, Strict]:
    """Return two numbers at one scale, or two amounts under "in one currency"."""
    kinds = {one.type.kind, other.type.kind}
    if kinds == {"money"}:
        if one.type.scale != other.type.scale:
            raise ExprFault(
                "amounts of different scales are combined", "declare one scale for both"
            )
        same = f"{one.currency} == {other.currency}"
        # Asked after both are known to be there.
        return one, other._replace(conditions=(*one.conditions, *other.conditions, same))
    if not kinds <= {"integer", "decimal"}:
        raise ExprFault(f"a {one.type.kind} and a {other.type.kind} do not {op}",
                        "combine values of one kind")  # fmt: skip
    scale = max(one.type.scale or 0, other.type.scale or 0)
    return _rescaled(one, scale), _rescaled(other, scale)


def _rescaled(number: Strict, scale: int) -> Strict:
    shift = scale - (number.type.scale or 0)
    kind = ValueType("decimal", scale) if scale else ValueType("integer")
    if not shift:
        return number._replace(type=kind)
    source, tree = f"({number.source} * {10**shift})", ("scale", number.tree, 10**shift)
    return number._replace(type=kind, source=source, tree=tree)


def _conditions(*many: Strict) -> tuple[str, ...]:
    return tuple(dict.fromkeys(condition for one in many for condition in one.conditions))


def _arithmetic(node: Op, local: Local) -> Strict:
    one, other = _operands(node, local)
    symbol = ARITHMETIC[node.op]
    kinds = (one.type.kind, other.type.kind)
    if node.op == "mul":
        if "money" in kinds and "integer" in kinds:
            amount = one if one.type.kind == "money" else other
            kind, currency = amount.type, amount.currency
        elif set(kinds) <= {"integer", "decimal"}:
            scale = (one.type.scale or 0) + (other.type.scale or 0)
            if scale > SCALE_MAX:
                raise ExprFault(f"a product has {scale} decimal digits, more than {SCALE_MAX}",
                                "multiply numbers of smaller scales")  # fmt: skip
            kind, currency = ValueType("decimal", scale) if scale else ValueType("integer"), ""
        else:
            raise ExprFault(f"a {kinds[0]} and a {kinds[1]} do not multiply",
                            "multiply numbers, or money by a whole number")  # fmt: skip
        source = f"({one.source} * {other.source})"
        return Strict(
            kind, source, _conditions(one, other), currency, ("mul", one.tree, other.tree)
        )
    if node.op == "sub" and set(kinds) == {"datetime"}:
        source = f"({one.source} - {other.source})"
        tree = ("sub", one.tree, other.tree)
        return Strict(ValueType("integer"), source, _conditions(one, other), tree=tree)
    one, other = _aligned(one, other, "add" if node.op == "add" else "subtract")
    source = f"({one.source} {symbol} {other.source})"
    tree = (node.op, one.tree, other.tree)
    return Strict(one.type, source, _conditions(one, other), one.currency, tree)


def _comparison(node: Op, local: Local) -> Strict:
    one, other = _operands(node, local)
    left, right = one.type.kind, other.type.kind
    ordered = node.op not in ("eq", "ne")
    if left in TEXT and right in TEXT:
        if ordered:
            raise ExprFault(f"a {left} is compared by order", "use `==`, `!=` or `.in_(…)`")
        for ref, constant in zip(node.operands, reversed(node.operands), strict=True):
            _check_enum(ref, constant)
    elif left == right == "boolean":
        if ordered or any(isinstance(operand, Op) for operand in node.operands):
            raise ExprFault("a condition is compared", "use it as it is, or negate it with `~`")
    elif not left == right == "datetime":
        one, other = _aligned(one, other, "compare")
    source = f"({one.source} {COMPARISONS[node.op]} {other.source})"
    tree = (node.op, one.tree, other.tree)
    return Strict(ValueType("boolean"), source, _conditions(one, other), tree=tree)


def _membership(node: Op, local: Local) -> Strict:
    subject, listed = node.operands
    one = value(subject, local)
    if one.type.kind not in (*TEXT, "integer", "decimal", "boolean", "datetime"):
        raise ExprFault(f"a {one.type.kind} is looked up in a list", "look up a text or a number")
    assert isinstance(listed, Const), "`in_` lists constants"
    members = listed.value if isinstance(listed.value, tuple) else (listed.value,)
    constants = [_constant(Const(member), one, "in") for member in members]
    for member in members:
        _check_enum(subject, Const(member))
    source = f"({one.source} in ({''.join(f'{constant.source}, ' for constant in constants)}))"
    tree = ("in", one.tree, [constant.tree for constant in constants])
    return Strict(ValueType("boolean"), source, one.conditions, tree=tree)


def _check_enum(ref: Node, constant: Node) -> None:
    if not (isinstance(ref, FieldRef) and ref.kind == "enum" and isinstance(constant, Const)):
        return
    if constant.value not in ref.values:
        raise ExprFault(f"field `{ref.field}` never has a value that it is compared with",
                        f"use one of {', '.join(ref.values)}")  # fmt: skip


GUARDS: Final = {
    "string": "type({0}) is not str",
    "enum": "type({0}) is not str",
    "integer": "type({0}) is not int",
    "decimal": "type({0}) is not int",
    "datetime": "type({0}) is not int",
    "boolean": "type({0}) is not bool",
    "money": "type({0}) is not list or len({0}) != 2 or type({0}[0]) is not int"
    " or type({0}[1]) is not str",
    "strings": "type({0}) is not list",
    "objects": "type({0}) is not list",
}
"""Kind -> the condition under which a loaded value is not of its kind."""


def record_type(parts: Sequence[tuple[str, Strict]]) -> ValueType:
    """Return the type of several fields taken together."""
    return ValueType("record", parts=tuple((name, part.type) for name, part in parts))


def with_items(ref: FieldRef, items: str) -> ItemRef:
    """Return the reference to a field of the items of a list."""
    plain = {name: getattr(ref, name) for name in FieldRef.__dataclass_fields__}
    return ItemRef(**plain, items=items)
