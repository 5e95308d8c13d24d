"""Values as they are sent become values as they are kept: typed, bounded, exact and protected.

Each declared field is compiled once into a closure; an event is a walk over its own properties.
JSON numbers arrive as `int`, or as a `Literal` that holds the text of a decimal.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, Final, NamedTuple, cast

from penstock.core.catalog.fields import INTEGER_MAX, Field
from penstock.core.errors import EventRejected
from penstock.core.literal import Literal
from penstock.core.money import exponent, is_currency, minor_units
from penstock.core.protect import Protector
from penstock.core.time import INSTANT_MS_MAX, parse_instant

Convert = Callable[[Any, Mapping[str, Any], list[str]], Any]
"""(value, the object it is in, undeclared names so far) -> normalised value."""

OTHER_NAME: Final = "(other)"
"""Stands for an undeclared field whose name is no plain name: it may be a value in disguise."""

_FIRST_MS: Final = parse_instant("0001-01-01T00:00:00Z")


class Normalised(NamedTuple):
    """An event's fields as they are kept.

    Attributes:
        properties: Declared properties by name.
        traits: Declared traits by name, for `identify` and `group`; None is a value that can win.
        undeclared_fields: One entry per undeclared field that was dropped. The names are the
            sender's: count them, and never use them as a metric's label.
        dropped: The event's name is not declared, and the project drops such events.
    """

    properties: dict[str, Any]
    traits: dict[str, Any]
    undeclared_fields: tuple[str, ...] = ()
    dropped: bool = False


class FieldPlan(NamedTuple):
    """Compiled fields of one event type, one kind of trait, or the items of one list."""

    converters: dict[str, Convert]
    silent: frozenset[str]
    """Names that are known but not kept: dropped by protection, stamped by the edge, or the
    currency of an amount."""
    required: tuple[str, ...]
    path: str


def compile_fields(
    fields: Mapping[str, Field], path: str, protector: Protector, default_currency: str
) -> FieldPlan:
    """Return the fields compiled.

    Args:
        fields: By name.
        path: JSON path of the object they are in, such as `$.properties`.
        protector: Applies the fields' protections.
        default_currency: Of money whose event and field name no currency.
    """
    converters: dict[str, Convert] = {}
    for name, field in fields.items():
        if field.privacy.protection != "drop" and not field.stamp:
            converters[name] = _converter(field, f"{path}.{name}", protector, default_currency)
    silent = {name for name, field in fields.items() if field.privacy.protection == "drop"}
    silent |= {name for name, field in fields.items() if field.stamp}
    silent |= {field.currency_field for field in fields.values() if field.kind == "money"}
    return FieldPlan(
        converters,
        frozenset(silent),
        tuple(name for name, field in fields.items() if field.required),
        path,
    )


def apply_fields(
    plan: FieldPlan,
    values: Mapping[str, Any],
    undeclared: list[str],
    scope: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the declared values, normalised; a null is as good as absent.

    Args:
        plan: The compiled fields.
        values: As sent.
        undeclared: Gets one entry per field that is not declared.
        scope: Where an amount looks for its currency; `values` itself if None.

    Raises:
        EventRejected: A required field is missing (E321), or a value is not what was declared.
    """
    kept: dict[str, Any] = {}
    converters = plan.converters
    if scope is None:
        scope = values
    for name, value in values.items():
        convert = converters.get(name)
        if convert is not None:
            if value is not None:
                kept[name] = convert(value, scope, undeclared)
        elif name not in plan.silent:
            undeclared.append(shown_name(name))
    for name in plan.required:
        if name not in kept:
            raise EventRejected("E321", f"the required field `{name}` is missing",
                                fix=f"send `{name}`, or declare it optional",
                                where=f"{plan.path}.{name}")  # fmt: skip
    return kept


def apply_traits(
    plan: FieldPlan, values: Mapping[str, Any], undeclared: list[str], *, keep_undeclared: bool
) -> dict[str, Any]:
    """Return the declared traits, normalised; null stays, because a register can be set to it.

    Args:
        plan: The declared traits.
        values: As sent.
        undeclared: Gets one entry per trait that is dropped.
        keep_undeclared: Keep undeclared traits that are a text, whole number, boolean or null;
            a decimal is kept as its text.

    Raises:
        EventRejected: A value is not what was declared.
    """
    kept: dict[str, Any] = {}
    converters = plan.converters
    for name, value in values.items():
        if name in converters:
            kept[name] = None if value is None else converters[name](value, values, undeclared)
        elif name in plan.silent:
            continue
        elif keep_undeclared and _is_scalar(value):
            kept[name] = str(value) if isinstance(value, Literal) else value
        else:
            undeclared.append(shown_name(name))
    return kept


def shown_name(name: str) -> str:
    """Return an undeclared field's name if it looks like one, else `OTHER_NAME`."""
    plain = len(name) <= 40 and name.isascii() and name.isidentifier()
    return name if plain else OTHER_NAME


def _is_scalar(value: Any) -> bool:
    if isinstance(value, bool) or value is None:
        return True
    if isinstance(value, int):
        return -INTEGER_MAX <= value <= INTEGER_MAX
    return isinstance(value, str) and len(value) <= 1_000


def _converter(field: Field, path: str, protector: Protector, default_currency: str) -> Convert:
    if field.kind == "money":
        return _money(field, path, field.currency or default_currency)
    if field.kind == "objects":
        return _objects(field, path, protector, default_currency)
    convert = _SCALARS[field.kind](field, path)
    if field.privacy.protection == "plain":
        return convert
    protect = protector.function(field.privacy.protection, field.kind, path)
    return lambda value, scope, undeclared: protect(convert(value, scope, undeclared))


def _string(field: Field, path: str) -> Convert:
    chars_max = field.chars_max

    def convert(value: Any, scope: Mapping[str, Any], undeclared: list[str]) -> str:
        if type(value) is str:
            if len(value) <= chars_max:
                return value
        elif type(value) is int or type(value) is Literal:
            # Product ids are often sent as numbers, and a Literal keeps the digits as written.
            value = str(value)
        else:
            raise _wrong(path, "a text")
        if len(value) > chars_max:
            raise EventRejected("E324", f"a text is longer than {chars_max} characters",
                                fix="shorten it, or declare a greater `chars_max`", where=path)  # fmt: skip
        return value

    return convert


def _integer(field: Field, path: str) -> Convert:
    def convert(value: Any, scope: Mapping[str, Any], undeclared: list[str]) -> int:
        if type(value) is not int:
            value = _scaled(value, 0, path, "a whole number", exact=True)
        if not -INTEGER_MAX <= value <= INTEGER_MAX:
            raise _too_great(path)
        return value

    return convert


def _decimal(field: Field, path: str) -> Convert:
    scale = field.scale or 0
    factor = 10**scale

    def convert(value: Any, scope: Mapping[str, Any], undeclared: list[str]) -> int:
        if type(value) is int:
            value *= factor
        else:
            value = _scaled(value, scale, path, "a decimal number")
        if not -INTEGER_MAX <= value <= INTEGER_MAX:
            raise _too_great(path)
        return value

    return convert


def _money(field: Field, path: str, default_currency: str) -> Convert:
    currency_field, scale = field.currency_field, field.scale
    parent = path.rpartition(".")[0]
    fallback = currency_code(default_currency)

    def convert(value: Any, scope: Mapping[str, Any], undeclared: list[str]) -> list[Any]:
        named = scope.get(currency_field)
        code, digits = fallback if named is None else currency_code(named)
        if not code:
            raise EventRejected("E327", "the currency is not an ISO 4217 code, or missing",
                                fix='send three letters, such as "GBP", or declare a default currency',
                                where=f"{parent}.{currency_field}")  # fmt: skip
        if scale is not None:
            digits = scale
        minor = (
            value * 10**digits
            if type(value) is int
            else _scaled(value, digits, path, "an amount of money")
        )
        if not digits and scale is None and isinstance(value, str) and _has_fraction(value):
            raise EventRejected("E322", "an amount has a fraction, and its currency has none", where=path,
                                fix="send whole units, or correct the currency; or declare `money(scale=…)`")  # fmt: skip
        if not -INTEGER_MAX <= minor <= INTEGER_MAX:
            raise _too_great(path)
        return [minor, code]

    return convert


def _boolean(field: Field, path: str) -> Convert:
    def convert(value: Any, scope: Mapping[str, Any], undeclared: list[str]) -> bool:
        if type(value) is not bool:
            raise _wrong(path, "true or false")
        return value

    return convert


def _datetime(field: Field, path: str) -> Convert:
    def convert(value: Any, scope: Mapping[str, Any], undeclared: list[str]) -> int:
        if type(value) is str and len(value) <= 64:
            try:
                at_ms = parse_instant(value)
            except ValueError:
                at_ms = _FIRST_MS - 1
            if _FIRST_MS <= at_ms <= INSTANT_MS_MAX:
                return at_ms
        raise EventRejected("E326", "a value is not an ISO 8601 instant of the years 1 to 9999",
                            fix="send a text such as `2026-11-25T10:00:00Z`", where=path)  # fmt: skip

    return convert


def _enum(field: Field, path: str) -> Convert:
    values = frozenset(field.values)

    def convert(value: Any, scope: Mapping[str, Any], undeclared: list[str]) -> str:
        if type(value) is not str or value not in values:
            shown = ", ".join(f"`{declared}`" for declared in field.values)
            raise EventRejected("E325", "a value is not one of those declared",
                                fix=f"send one of {shown}, or declare more", where=path)  # fmt: skip
        return value

    return convert


def _strings(field: Field, path: str) -> Convert:
    convert_one = _string(field, f"{path}[*]")
    items_max = field.items_max

    def convert(value: Any, scope: Mapping[str, Any], undeclared: list[str]) -> list[str]:
        _check_list(value, items_max, path)
        kept: list[str] = []
        for index, item in enumerate(value):
            try:
                kept.append(convert_one(item, scope, undeclared))
            except EventRejected as error:
                raise _at_index(error, index) from None
        return kept

    return convert


def _objects(field: Field, path: str, protector: Protector, default_currency: str) -> Convert:
    declared = {part.name: part for part in field.fields}
    plan = compile_fields(declared, f"{path}[*]", protector, default_currency)
    currencies = {part.currency_field for part in field.fields if part.kind == "money"}
    items_max, prefix = field.items_max, f"{field.name}."

    def convert(value: Any, scope: Mapping[str, Any], undeclared: list[str]) -> list[Any]:
        _check_list(value, items_max, path)
        kept: list[Any] = []
        names: list[str] = []
        # An order names its currency once; its products have it too unless they name their own.
        outer = {name: scope[name] for name in currencies if name in scope}
        for index, one in enumerate(value):
            if type(one) is not dict:
                raise _wrong(f"{path}[{index}]", "an object")
            item = cast("dict[str, Any]", one)
            try:
                kept.append(apply_fields(plan, item, names, {**outer, **item}))
            except EventRejected as error:
                raise _at_index(error, index) from None
        undeclared.extend(prefix + name for name in names)
        return kept

    return convert


FRACTION_DIGITS: Final = 6
"""Digits looked at to tell a fraction from what floating point leaves of a whole number."""

_SCALARS: Final[dict[str, Callable[[Field, str], Convert]]] = {
    "string": _string,
    "integer": _integer,
    "decimal": _decimal,
    "boolean": _boolean,
    "datetime": _datetime,
    "enum": _enum,
    "strings": _strings,
}


def _scaled(value: Any, scale: int, path: str, expected: str, *, exact: bool = False) -> int:
    """Return a decimal's text as a scaled int; `exact` refuses what rounding would change."""
    if not isinstance(value, str):
        raise _wrong(path, expected)
    if 0 < scale == len(value) - value.find(".") - 1 and len(value) <= 16:
        # The common case, 19.99, without a regular expression.
        digits = value.replace(".", "", 1)
        if len(digits) > scale and digits.isascii() and digits.isdigit():
            return int(digits)
    try:
        scaled = minor_units(value, "", scale=scale)
        if exact and minor_units(value, "", scale=40) != scaled * 10**40:
            raise ValueError
    except ValueError:
        raise _wrong(path, expected) from None
    return scaled


def _has_fraction(value: str) -> bool:
    """Return whether an amount is no whole number: a sum in floating point, off by less than 10⁻⁶, is."""
    finer = minor_units(value, "", scale=FRACTION_DIGITS)
    return finer % 10**FRACTION_DIGITS != 0


def currency_code(named: object) -> tuple[str, int]:
    """Return a currency as three capital letters, and its exponent; empty if it is no such code."""
    return _currency(named) if type(named) is str and len(named) == 3 else ("", 0)


@lru_cache(maxsize=256)
def _currency(named: str) -> tuple[str, int]:
    code = named.upper()
    return (code, exponent(code)) if is_currency(code) else ("", 0)


def _check_list(value: Any, items_max: int, path: str) -> None:
    if type(value) is not list:
        raise _wrong(path, "a list")
    if len(cast("list[Any]", value)) > items_max:
        raise EventRejected("E328", f"a list has more than {items_max} items",
                            fix="send fewer, or declare a greater `items_max`", where=path)  # fmt: skip


def _wrong(path: str, expected: str) -> EventRejected:
    return EventRejected("E322", f"a value is not {expected}",
                         fix=f"send {expected} here, or declare another kind of field", where=path)  # fmt: skip


def _too_great(path: str) -> EventRejected:
    return EventRejected("E323", "a number is beyond ±(2⁵³ - 1) after scaling, where JSON loses digits",
                         fix="send it as a text and declare a string", where=path)  # fmt: skip


def _at_index(error: EventRejected, index: int) -> EventRejected:
    """Return the error with the last `[*]` of its path numbered."""
    head, _, tail = error.where.rpartition("[*]")
    return EventRejected(error.code, error.what, fix=error.fix, where=f"{head}[{index}]{tail}")
