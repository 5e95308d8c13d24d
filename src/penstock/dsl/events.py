"""Declare events and traits: `product_viewed = event("Product Viewed", price=money(), …)`.

    from penstock.dsl.events import event, money, private, string, traits

    product_viewed = event(
        "Product Viewed",
        product_id=string(required=True),
        category=string(),
        price=money(),
    )
    people = traits(email=string(privacy=private(category="user.contact.email")))

Each keyword is a property and says of what kind it is. What is not declared is dropped at the edge,
and counted.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from penstock.core.catalog.fields import (
    DATA_CLASSES,
    LIST_ITEMS_MAX,
    STRING_CHARS_MAX,
    EventType,
    Field,
    Privacy,
    event_type,
    field_table,
)
from penstock.core.errors import DefinitionError
from penstock.core.time import DAY_MS

__all__ = [
    "FieldSpec", "boolean", "datetime", "decimal", "event", "group_traits", "integer", "items", "money",
    "objects", "one_of", "private", "string", "strings", "traits",
]  # fmt: skip


class HasWindow(Protocol):
    """What `days(7)` of the feature language returns: a span with its length in milliseconds."""

    @property
    def window_ms(self) -> int:
        """The length of the span."""
        ...


class FieldSpec:
    """A field without its name yet: what `string()` and the like return; the keyword names it."""

    __slots__ = ("options", "parts", "privacy")

    def __init__(
        self,
        options: dict[str, Any],
        privacy: Privacy | None,
        parts: Mapping[str, FieldSpec] | None = None,
    ) -> None:
        self.options = options
        self.privacy = privacy
        self.parts = parts or {}


class FieldTable(dict[str, Field]):
    """Declared traits by name, and whose they are: `traits`, `group_traits` or `items`."""

    def __init__(self, belongs_to: str, fields: Mapping[str, Field]) -> None:
        super().__init__(fields)
        self.belongs_to = belongs_to


def event(
    name: str,
    /,
    *,
    version: int = 1,
    description: str = "",
    fields: Mapping[str, FieldSpec] | None = None,
    **keywords: FieldSpec,
) -> EventType:
    """Declare an event.

    Args:
        name: The name senders give it, such as "Product Viewed"; `page` and `screen` for those.
        version: Raised by one when the fields change.
        description: What happened, for the generated reference.
        fields: Fields whose names are no Python names or clash with the arguments here.
        keywords: The fields by name.

    Raises:
        DefinitionError: The declaration is wrong (E103 to E107).
    """
    if isinstance(version, FieldSpec) or isinstance(description, FieldSpec):
        raise DefinitionError("E103", "a field is called `version` or `description`",
                              fix='pass it by name: `fields={"version": string()}`',
                              where=f"event `{name}`")  # fmt: skip
    named = _named(keywords, fields, f"event `{name}`")
    return event_type(name, version, named, description)


def traits(fields: Mapping[str, FieldSpec] | None = None, /, **keywords: FieldSpec) -> FieldTable:
    """Declare the traits of people, which `identify` sets.

    Raises:
        DefinitionError: The declaration is wrong (E103 to E107).
    """
    return _table("traits", fields, keywords)


def group_traits(
    fields: Mapping[str, FieldSpec] | None = None, /, **keywords: FieldSpec
) -> FieldTable:
    """Declare the traits of groups, which `group` sets.

    Raises:
        DefinitionError: The declaration is wrong (E103 to E107).
    """
    return _table("group_traits", fields, keywords)


def items(fields: Mapping[str, FieldSpec] | None = None, /, **keywords: FieldSpec) -> FieldTable:
    """Declare the attributes of items, which the catalogue of products and the like sets.

    Raises:
        DefinitionError: The declaration is wrong (E103 to E107).
    """
    return _table("items", fields, keywords)


def string(
    *,
    required: bool = False,
    chars_max: int = STRING_CHARS_MAX,
    privacy: Privacy | None = None,
    description: str = "",
) -> FieldSpec:
    """Declare a text; whole numbers are taken as their digits.

    Args:
        required: Reject an event without it.
        chars_max: Its greatest length in characters.
        privacy: Its annotation, from `private(…)`.
        description: What it is, for the generated reference.
    """
    return _field("string", required, privacy, description, chars_max=chars_max)


def stamped(declared: FieldSpec, *, item: str, by: str) -> FieldSpec:
    """Declare a field that the edge fills from the item the event names, as it was then.

    The event is about what the item was when it happened, even if its price or category changes
    later, and a replay says the same. An item that is not known stamps null, and is counted.

    Args:
        declared: What kind of field it is, such as `string()` or `money()`.
        item: The item's attribute, as `items(...)` declares it.
        by: The event's property that holds the item's id.
    """
    return FieldSpec(
        {**declared.options, "stamp": item, "stamp_by": by}, declared.privacy, declared.parts
    )


def integer(
    *, required: bool = False, privacy: Privacy | None = None, description: str = ""
) -> FieldSpec:
    """Declare a whole number between ±(2⁵³ - 1)."""
    return _field("integer", required, privacy, description)


def decimal(
    *, scale: int, required: bool = False, privacy: Privacy | None = None, description: str = ""
) -> FieldSpec:
    """Declare a decimal number, kept exactly as an integer of `scale` digits after the point.

    Args:
        scale: Digits kept; what is beyond is rounded, half away from zero.
        required: Reject an event without it.
        privacy: Its annotation, from `private(…)`.
        description: What it is, for the generated reference.
    """
    return _field("decimal", required, privacy, description, scale=scale)


def money(
    *,
    currency: str = "",
    currency_field: str = "currency",
    scale: int | None = None,
    required: bool = False,
    privacy: Privacy | None = None,
    description: str = "",
) -> FieldSpec:
    """Declare an amount of money, kept as whole minor units with its currency.

    An amount is read as it is written, never through a float, and what is finer than the currency's
    minor unit is rounded, half away from zero: `19.995 EUR` is 20.00. In a currency without decimals,
    such as JPY, an amount with a fraction is none, and the event is refused (E322): most often the
    currency is wrong, or the amount a hundredth of what is meant. Of an item, which everybody is shown,
    any amount finer than its currency is refused.

    Args:
        currency: The currency of events that name none; empty for the project's default.
        currency_field: The property that names the currency.
        scale: Digits kept instead of the currency's exponent, for prices finer than a cent.
        required: Reject an event without it.
        privacy: Its annotation, from `private(…)`.
        description: What it is, for the generated reference.
    """
    return _field(
        "money", required, privacy, description,
        currency=currency, currency_field=currency_field, scale=scale,
    )  # fmt: skip


def boolean(
    *, required: bool = False, privacy: Privacy | None = None, description: str = ""
) -> FieldSpec:
    """Declare true or false."""
    return _field("boolean", required, privacy, description)


def datetime(
    *, required: bool = False, privacy: Privacy | None = None, description: str = ""
) -> FieldSpec:
    """Declare an instant: an ISO 8601 text, kept as milliseconds UTC."""
    return _field("datetime", required, privacy, description)


def one_of(
    *values: str, required: bool = False, privacy: Privacy | None = None, description: str = ""
) -> FieldSpec:
    """Declare a text that is one of some values."""
    return _field("enum", required, privacy, description, values=values)


def strings(
    *,
    required: bool = False,
    items_max: int = LIST_ITEMS_MAX,
    chars_max: int = STRING_CHARS_MAX,
    privacy: Privacy | None = None,
    description: str = "",
) -> FieldSpec:
    """Declare a list of texts.

    Args:
        required: Reject an event without it.
        items_max: The greatest number of texts.
        chars_max: The greatest length of a text in characters.
        privacy: Its annotation, from `private(…)`.
        description: What it is, for the generated reference.
    """
    return _field(
        "strings", required, privacy, description, items_max=items_max, chars_max=chars_max
    )


def objects(
    fields: Mapping[str, FieldSpec],
    /,
    *,
    required: bool = False,
    items_max: int = LIST_ITEMS_MAX,
    privacy: Privacy | None = None,
    description: str = "",
) -> FieldSpec:
    """Declare a list of objects, such as the products of an order.

    Args:
        fields: The fields of an item, by name. One without an annotation has the list's.
        required: Reject an event without it.
        items_max: The greatest number of items.
        privacy: The annotation of the list, from `private(…)`.
        description: What it is, for the generated reference.
    """
    spec = _field("objects", required, privacy, description, items_max=items_max)
    return FieldSpec(spec.options, privacy, fields)


def private(
    *,
    category: str = "user.behavior",
    data_class: str = "internal",
    purpose: str = "personalisation",
    retention: int | HasWindow | None = None,
    protection: str = "plain",
) -> Privacy:
    """Annotate a field.

    Args:
        category: What it tells of a person: a Fideslang key such as `user.contact.email`.
        data_class: How much harm a leak would do: public, internal, confidential, restricted or
            special.
        purpose: What it may be used for.
        retention: How long it may be kept: `days(400)`, or a number of days.
        protection: What the edge does to it: plain, truncate, pseudonym or drop.

    Raises:
        DefinitionError: The data class or the retention is wrong (E106); the rest is checked when
            the field is declared.
    """
    if data_class not in DATA_CLASSES:
        raise DefinitionError("E106", f"`{data_class}` is not a data class",
                              fix=f"use one of {', '.join(DATA_CLASSES)}")  # fmt: skip
    days = retention
    if days is not None and not isinstance(days, int):
        if days.window_ms % DAY_MS:
            raise DefinitionError("E106", "a retention is not a whole number of days",
                                  fix="write `retention=days(400)`")  # fmt: skip
        days = days.window_ms // DAY_MS
    return Privacy(
        category=category,
        data_class=data_class,
        purpose=purpose,
        retention_days=days,
        protection=protection,
    )


def _field(
    kind: str, required: bool, privacy: Privacy | None, description: str, **options: Any
) -> FieldSpec:
    options |= {"kind": kind, "required": required, "description": description}
    return FieldSpec(options, privacy)


def _named(
    keywords: Mapping[str, FieldSpec],
    fields: Mapping[str, FieldSpec] | None,
    where: str,
    inherited: Privacy | None = None,
) -> tuple[Field, ...]:
    """Return the fields with their names; a part without an annotation has `inherited`."""
    named: list[Field] = []
    for name, spec in [*keywords.items(), *(fields or {}).items()]:
        if not isinstance(spec, FieldSpec):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise DefinitionError("E103", f"field `{name}` is declared with something else than a field",
                                  fix=f"write `{name}=string()`, or another kind of field", where=where)  # fmt: skip
        privacy = spec.privacy or inherited or Privacy()
        parts = _named(spec.parts, None, f"{where}, field `{name}`", privacy)
        named.append(Field(name=name, privacy=privacy, fields=parts, **spec.options))
    return tuple(named)


def _table(
    belongs_to: str, fields: Mapping[str, FieldSpec] | None, keywords: Mapping[str, FieldSpec]
) -> FieldTable:
    named = _named(keywords, fields, belongs_to)
    for field in named:
        if field.required:
            raise DefinitionError("E103", f"trait `{field.name}` is required",
                                  fix="make it optional: a trait is set when it is known",
                                  where=belongs_to)  # fmt: skip
    return FieldTable(belongs_to, field_table(named, belongs_to))
