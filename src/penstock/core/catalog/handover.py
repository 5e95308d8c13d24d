"""A catalog as data, for an intake that is not written in Python: what is kept of each declared field.

What is handed over is what `compile_fields` makes closures of. Where an event's fields can't be said so,
because the edge fills one of them, its events are left to Python.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from penstock.core.catalog.catalog import Catalog
from penstock.core.catalog.fields import Field
from penstock.core.catalog.normalise import compile_fields, currency_code
from penstock.core.event import TYPES
from penstock.core.money import CURRENCIES, exponent
from penstock.core.protect import Protector

_PYTHON: Final[list[Any]] = ["python", {}]
_BESIDE: Final = ("name", "category")
"""Of a page or screen, where a sender may write them outside the properties."""


def catalog_parts(catalog: Catalog) -> dict[str, Any]:
    """Return a catalog as plain values.

    `events` has the fields of every declared event, and `types` what becomes of the fields of events other
    than `track`: each is [`properties` or `traits`, fields], or `python` and nothing.
    """
    traits = {"identify": catalog.traits, "group": catalog.group_traits}
    types: dict[str, Any] = {}
    for name in TYPES:
        declared = catalog.event_types.get(name)
        if name == "track":
            continue
        if declared is not None:
            types[name] = _properties(declared.fields, catalog.default_currency, beside=_BESIDE)
        elif name in traits:
            types[name] = ["traits", _plan(traits[name], catalog.default_currency)]
    return {
        "events": {
            name: _properties(declared.fields, catalog.default_currency)
            for name, declared in catalog.event_types.items()
        },
        "types": types,
        "undeclared": catalog.undeclared,
        "keep_traits": catalog.traits_undeclared == "keep",
        "currencies": [[code, exponent(code)] for code in sorted(CURRENCIES)],
    }


def _properties(
    fields: Mapping[str, Field], currency: str, beside: tuple[str, ...] = ()
) -> list[Any]:
    if any(field.stamp or field.currency_field in beside for field in fields.values()):
        return _PYTHON
    return ["properties", _plan(fields, currency)]


def _plan(fields: Mapping[str, Field], currency: str) -> dict[str, Any]:
    # Compiled as it is for Python, so that one function says which names are kept.
    plan = compile_fields(fields, "$", Protector(bytes(16)), currency)
    return {
        "fields": [_field(name, fields[name], currency) for name in plan.converters],
        "silent": sorted(plan.silent.difference(plan.converters)),
        "required": len(plan.required),
    }


def _field(name: str, field: Field, currency: str) -> dict[str, Any]:
    declared = {part.name: part for part in field.fields}
    return {
        "name": name,
        "kind": field.kind,
        "protection": "plain" if field.kind in ("money", "objects") else field.privacy.protection,
        "required": field.required,
        "chars_max": field.chars_max,
        "items_max": field.items_max,
        "scale": field.scale,
        "values": list(field.values),
        "currency_field": field.currency_field,
        "fallback": list(currency_code(field.currency or currency)),
        "plan": _plan(declared, currency),
        "currencies": sorted(
            {part.currency_field for part in field.fields if part.kind == "money"}
        ),
    }
