"""The catalog: all declared event types and traits of a project, and how an event meets them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from hashlib import blake2b
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

import msgspec

from penstock.core.catalog.builtin import BUILTIN
from penstock.core.catalog.fields import (
    EventType,
    Field,
    canonical_event_type,
    canonical_field,
)
from penstock.core.catalog.normalise import (
    FieldPlan,
    Normalised,
    apply_fields,
    apply_traits,
    compile_fields,
    shown_name,
)
from penstock.core.errors import DefinitionError, EventRejected
from penstock.core.money import is_currency
from penstock.core.protect import Protector

if TYPE_CHECKING:
    from penstock.core.event import Event

UNDECLARED_RULES: Final = ("reject", "keep", "drop")
TRAIT_RULES: Final = ("drop", "keep")

Normalise = Callable[["Event"], Normalised]

_encoder = msgspec.json.Encoder(order="deterministic")


class Catalog:
    """The declared event types and traits of a project; read only.

    Args:
        event_types: Unique by name; `page` and `screen` are added unless they are among them.
        traits: Traits of people by name.
        group_traits: Traits of groups by name.
        items: Attributes of items by name.
        undeclared: What becomes of a `track` event whose name is not declared: `reject` it, `drop`
            it, or `keep` the fact that it happened, without any of its fields.
        traits_undeclared: `drop` undeclared traits, or `keep` those that are scalars.
        default_currency: ISO 4217 code of money whose event and field name none; empty rejects
            such an event.

    Raises:
        DefinitionError: An event type is declared twice (E108), or an option is wrong (E109).
    """

    def __init__(
        self,
        event_types: Iterable[EventType],
        traits: Mapping[str, Field] | None = None,
        *,
        group_traits: Mapping[str, Field] | None = None,
        items: Mapping[str, Field] | None = None,
        undeclared: str = "drop",
        traits_undeclared: str = "drop",
        default_currency: str = "",
    ) -> None:
        _check_options(undeclared, traits_undeclared, default_currency)
        self.event_types: Mapping[str, EventType] = MappingProxyType(_by_name(event_types))
        self.traits: Mapping[str, Field] = MappingProxyType(dict(traits or {}))
        self.group_traits: Mapping[str, Field] = MappingProxyType(dict(group_traits or {}))
        self.items: Mapping[str, Field] = MappingProxyType(dict(items or {}))
        self.undeclared = undeclared
        self.traits_undeclared = traits_undeclared
        self.default_currency = default_currency
        self._compiled: tuple[Protector, Normalise] | None = None

    def declares(self, name: str) -> bool:
        """Say whether an event type of this name is declared; only then may a metric name it."""
        return name in self.event_types

    def normalise(self, event: Event, protector: Protector) -> Normalised:
        """Return an event's declared fields as they are kept.

        On a hot path, call `compile(protector)` once instead.

        Raises:
            EventRejected: The event's type is not declared (E320), or a value is not what was
                declared (E321 to E328); `where` is the JSON path.
        """
        if self._compiled is None or self._compiled[0] is not protector:
            self._compiled = (protector, self.compile(protector))
        return self._compiled[1](event)

    def compile(self, protector: Protector) -> Normalise:
        """Return `normalise` for one protector, with every field compiled."""
        currency = self.default_currency
        plans = {
            name: compile_fields(declared.fields, "$.properties", protector, currency)
            for name, declared in self.event_types.items()
        }
        traits = {
            "identify": compile_fields(self.traits, "$.traits", protector, currency),
            "group": compile_fields(self.group_traits, "$.traits", protector, currency),
        }
        undeclared_rule, keep_traits = self.undeclared, self.traits_undeclared == "keep"

        def normalise(event: Event) -> Normalised:
            if event.type == "track":
                plan = plans.get(event.event or "")
                if plan is None:
                    return _undeclared(event, undeclared_rule)
                undeclared: list[str] = []
                kept = apply_fields(plan, event.properties, undeclared)
                return Normalised(kept, {}, tuple(undeclared))
            return _normalise_other(event, plans, traits, keep_traits)

        return normalise

    def compile_items(self, protector: Protector) -> Callable[[Mapping[str, Any]], Normalised]:
        """Return the function that types an item's attributes: a row of the catalogue of products.

        What it returns holds the attributes as `traits`; it raises `EventRejected` as `normalise`.
        """
        plan = compile_fields(self.items, "$", protector, self.default_currency)

        def normalise(values: Mapping[str, Any]) -> Normalised:
            undeclared: list[str] = []
            kept = apply_traits(plan, values, undeclared, keep_undeclared=False)
            return Normalised({}, kept, tuple(undeclared))

        return normalise

    def canonical(self) -> dict[str, Any]:
        """Return what the catalog means as plain values, without descriptions."""
        return {
            "event_types": [canonical_event_type(self.event_types[name])
                            for name in sorted(self.event_types)],
            "traits": _canonical_fields(self.traits),
            "group_traits": _canonical_fields(self.group_traits),
            "items": _canonical_fields(self.items),
            "undeclared": self.undeclared,
            "traits_undeclared": self.traits_undeclared,
            "default_currency": self.default_currency,
        }  # fmt: skip

    def fingerprint(self) -> str:
        """Return 32 hexadecimal digits: equal for catalogs that mean the same."""
        return blake2b(_encoder.encode(self.canonical()), digest_size=16).hexdigest()


def _undeclared(event: Event, rule: str) -> Normalised:
    if rule == "reject":
        raise EventRejected("E320", "the event's name is not declared",
                            fix="declare it in `events.py`, or set `undeclared` to `keep` or `drop`",
                            where="$.event")  # fmt: skip
    if rule == "drop":
        return Normalised({}, {}, dropped=True)
    # The fields are dropped in any case: nobody has said of what kind they are, or how private.
    return Normalised({}, {}, tuple(shown_name(name) for name in event.properties))


def _normalise_other(
    event: Event, plans: dict[str, FieldPlan], traits: dict[str, FieldPlan], keep_traits: bool
) -> Normalised:
    """Normalise `page` and `screen` (properties) and `identify` and `group` (traits)."""
    undeclared: list[str] = []
    plan = plans.get(event.type)
    if plan is not None:
        values = event.properties
        # Server SDKs send a page's name and category beside the properties, browsers inside too.
        beside = {"name": event.name, "category": event.category}
        extra = {name: value for name, value in beside.items() if value and name not in values}
        kept = apply_fields(plan, {**extra, **values}, undeclared)
        return Normalised(kept, {}, tuple(undeclared))
    trait_plan = traits.get(event.type)
    if trait_plan is None:
        return Normalised({}, {})
    kept = apply_traits(trait_plan, event.traits, undeclared, keep_undeclared=keep_traits)
    return Normalised({}, kept, tuple(undeclared))


def _by_name(event_types: Iterable[EventType]) -> dict[str, EventType]:
    named: dict[str, EventType] = {}
    for declared in event_types:
        if declared.name in named and declared != named[declared.name]:
            raise DefinitionError("E108", f"event `{declared.name}` is declared twice",
                                  fix="keep one of the two, or give one another name")  # fmt: skip
        named[declared.name] = declared
    return {declared.name: declared for declared in BUILTIN} | named


def _canonical_fields(fields: Mapping[str, Field]) -> list[dict[str, Any]]:
    return [canonical_field(fields[name]) for name in sorted(fields)]


def _check_options(undeclared: str, traits_undeclared: str, default_currency: str) -> None:
    if undeclared not in UNDECLARED_RULES:
        raise DefinitionError("E109", f"undeclared events have no rule `{undeclared}`",
                              fix=f"use one of {', '.join(UNDECLARED_RULES)}")  # fmt: skip
    if traits_undeclared not in TRAIT_RULES:
        raise DefinitionError("E109", f"undeclared traits have no rule `{traits_undeclared}`",
                              fix=f"use one of {', '.join(TRAIT_RULES)}")  # fmt: skip
    if default_currency and not is_currency(default_currency):
        raise DefinitionError("E109", "the default currency is not an ISO 4217 code",
                              fix='write three capital letters, such as "GBP"')  # fmt: skip
