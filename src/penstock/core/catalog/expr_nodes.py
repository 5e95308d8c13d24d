"""Expressions over an event's fields as plain data: what `product_viewed.price > 10` is.

The nodes only remember what was written. `core/feature/expr.py` types and compiles them. A new kind
of leaf (a feature, a trait) subclasses `Node` and gets the operators.

    FieldRef   one field of one event type
    Const      a value the author wrote
    Op         an operator and its operands, from OPERATORS
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final, NoReturn, TypeAlias

from penstock.core.errors import DefinitionError

Scalar: TypeAlias = str | int | bool | Decimal | None
"""What an author may compare with. A float is kept as the decimal that was written."""

OPERATORS: Final = {
    "eq": 2, "ne": 2, "lt": 2, "le": 2, "gt": 2, "ge": 2,
    "add": 2, "sub": 2, "mul": 2, "neg": 1,
    "and": 2, "or": 2, "not": 1,
    "in": 2, "known": 1,
}  # fmt: skip
"""Operator -> number of operands. The second operand of `in` is a `Const` that holds a tuple."""


class Node:
    """A part of an expression. Its operators build bigger expressions and compute nothing.

    `==` builds an `Op` too, so nodes are compared with `canonical()`, and hashed by identity.
    """

    __slots__ = ()

    def canonical(self) -> list[Any]:
        """Return the node as nested lists of plain values: equal lists, equal expressions."""
        raise NotImplementedError

    def __eq__(self, other: object) -> Op:  # type: ignore[override]
        return Op("eq", (self, lift(other)))

    def __ne__(self, other: object) -> Op:  # type: ignore[override]
        return Op("ne", (self, lift(other)))

    def __lt__(self, other: object) -> Op:
        return Op("lt", (self, lift(other)))

    def __le__(self, other: object) -> Op:
        return Op("le", (self, lift(other)))

    def __gt__(self, other: object) -> Op:
        return Op("gt", (self, lift(other)))

    def __ge__(self, other: object) -> Op:
        return Op("ge", (self, lift(other)))

    def __add__(self, other: object) -> Op:
        return Op("add", (self, lift(other)))

    def __radd__(self, other: object) -> Op:
        return Op("add", (lift(other), self))

    def __sub__(self, other: object) -> Op:
        return Op("sub", (self, lift(other)))

    def __rsub__(self, other: object) -> Op:
        return Op("sub", (lift(other), self))

    def __mul__(self, other: object) -> Op:
        return Op("mul", (self, lift(other)))

    def __rmul__(self, other: object) -> Op:
        return Op("mul", (lift(other), self))

    def __neg__(self) -> Op:
        return Op("neg", (self,))

    def __and__(self, other: object) -> Op:
        return Op("and", (self, lift(other)))

    def __rand__(self, other: object) -> Op:
        return Op("and", (lift(other), self))

    def __or__(self, other: object) -> Op:
        return Op("or", (self, lift(other)))

    def __ror__(self, other: object) -> Op:
        return Op("or", (lift(other), self))

    def __invert__(self) -> Op:
        return Op("not", (self,))

    def in_(self, *values: object) -> Op:
        """Return "the value is one of these"; null is in no list."""
        return Op("in", (self, Const(tuple(_scalar(value) for value in values))))

    def known(self) -> Op:
        """Return "the field is there and not null"."""
        return Op("known", (self,))

    def __bool__(self) -> NoReturn:
        raise DefinitionError(
            "E100",
            "an expression is used as a truth value; it has none until an event arrives",
            fix="write `&`, `|` and `~` instead of `and`, `or` and `not`, put each comparison in "
            "parentheses, and use `.in_(…)` instead of `in`",
        )

    __hash__ = object.__hash__


@dataclass(frozen=True, eq=False, slots=True)
class FieldRef(Node):
    """A field of an event type, as it is named in an expression.

    Attributes:
        event: The event's name, such as `Product Viewed`.
        field: The property's name.
        kind: A name from `core.catalog.fields.KINDS`.
        scale: Decimal digits kept, for `decimal`; None otherwise.
        currency: For `money`, the currency of events that name none; None otherwise.
        values: For `enum`, the values it can have.
        purpose: The purpose its annotation declares.
        protection: What the edge does to the value before it is logged.
    """

    event: str
    field: str
    kind: str
    scale: int | None = None
    currency: str | None = None
    values: tuple[str, ...] = ()
    purpose: str = "personalisation"
    protection: str = "plain"

    def canonical(self) -> list[Any]:
        """Return `["field", event, field]`; how the field is typed is the catalog's to say."""
        return ["field", self.event, self.field]


@dataclass(frozen=True, eq=False, slots=True)
class Const(Node):
    """A value the author wrote: a scalar, or a tuple of scalars to the right of `in`."""

    value: Scalar | tuple[Scalar, ...]

    def canonical(self) -> list[Any]:
        """Return `["const", value]`, decimals as their text with a type mark."""
        if isinstance(self.value, tuple):
            return ["const", [_plain(value) for value in self.value]]
        return ["const", _plain(self.value)]


@dataclass(frozen=True, eq=False, slots=True)
class Op(Node):
    """An operator from `OPERATORS` and its operands, left to right."""

    op: str
    operands: tuple[Node, ...]

    def canonical(self) -> list[Any]:
        """Return `[op, operand, …]`."""
        return [self.op, *(operand.canonical() for operand in self.operands)]


def lift(value: object) -> Node:
    """Return a node as it is, and a plain value as a `Const`.

    Raises:
        DefinitionError: The value is neither (E101).
    """
    return value if isinstance(value, Node) else Const(_scalar(value))


def _scalar(value: object) -> Scalar:
    if isinstance(value, float):
        # repr gives the shortest text that reads back as this float: what the author typed.
        value = Decimal(repr(value))
    if isinstance(value, Decimal) and not value.is_finite():
        raise DefinitionError("E101", "an expression holds a number that is not finite",
                              fix="compare with a plain number")  # fmt: skip
    if value is None or isinstance(value, str | int | bool | Decimal):
        return value
    raise DefinitionError(
        "E101",
        f"an expression holds a value of type `{type(value).__name__}`",
        fix="use a field, a string, a whole number, a decimal number, True, False or None",
    )


def _plain(value: Scalar) -> Any:
    if isinstance(value, Decimal):
        return ["decimal", format(value.normalize(), "f")]
    return value
