"""What a declared event looks like: event types, their fields, and each field's privacy."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from types import MappingProxyType
from typing import Any, Final

import msgspec

from penstock.core.catalog.categories import CATEGORIES
from penstock.core.catalog.expr_nodes import FieldRef
from penstock.core.errors import DefinitionError
from penstock.core.money import is_currency

KINDS: Final = (
    "string", "integer", "decimal", "money", "boolean", "datetime", "enum", "strings", "objects",
)  # fmt: skip
"""What a field can be. After normalisation: str, int, scaled int, [minor units, currency], bool,
ms since 1970 UTC, str, list of str, list of objects."""

DATA_CLASSES: Final = ("public", "internal", "confidential", "restricted", "special")
"""From what anybody may see to what article 9 GDPR protects, loosest first."""

PROTECTIONS: Final = ("plain", "truncate", "pseudonym", "drop")
"""What the edge does to a value before it is logged, loosest first. `encrypt` does not exist yet."""

TRUNCATABLE: Final = frozenset({"string", "datetime", "strings"})
PSEUDONYMISABLE: Final = frozenset({"string", "integer", "enum", "strings"})

STRING_CHARS_MAX: Final = 1_000
"""How long a string may be unless its field says otherwise."""
LIST_ITEMS_MAX: Final = 200
"""How many items a list may have unless its field says otherwise."""
SCALE_MAX: Final = 9
INTEGER_MAX: Final = 2**53 - 1
"""The greatest integer that every JSON reader keeps exact (RFC 7493 §2.2)."""
FIELDS_MAX: Final = 200

_FIELD_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_ $.:-]{0,99}")


class Privacy(msgspec.Struct, frozen=True, kw_only=True):
    """A field's `x-penstock` annotation.

    Attributes:
        category: What it tells of a person: a key of the Fideslang taxonomy.
        data_class: How much harm a leak would do; one of `DATA_CLASSES`.
        purpose: What it may be used for; consent to this purpose is needed.
        retention_days: How long it may be kept; None for as long as the project keeps events.
        protection: What the edge does to the value; one of `PROTECTIONS`.
    """

    category: str = "user.behavior"
    data_class: str = "internal"
    purpose: str = "personalisation"
    retention_days: int | None = None
    protection: str = "plain"


class Field(msgspec.Struct, frozen=True, kw_only=True):
    """One property of an event type, or one trait.

    Attributes:
        name: As it is sent.
        kind: One of `KINDS`.
        required: Whether an event without it is rejected.
        privacy: Its annotation.
        chars_max: For `string` and `strings`: the greatest length of a value, in characters.
        scale: For `decimal`: digits kept after the point. For `money`: digits kept instead of the
            currency's exponent, for prices finer than a cent; None keeps the exponent.
        currency_field: For `money`: the property that names the currency.
        currency: For `money`: the currency of events that name none; empty for the catalog's.
        values: For `enum`: the values it can have.
        items_max: For `strings` and `objects`: the greatest number of items.
        fields: For `objects`: the fields of an item.
        description: What it is, for the generated reference.
        stamp: The attribute of an item that the edge writes here ("value then"); what the sender
            sends under this name is left behind. Empty for a field that senders fill.
        stamp_by: For `stamp`: the property that names the item.
    """

    name: str
    kind: str
    required: bool = False
    privacy: Privacy = Privacy()
    chars_max: int = STRING_CHARS_MAX
    scale: int | None = None
    currency_field: str = "currency"
    currency: str = ""
    values: tuple[str, ...] = ()
    items_max: int = LIST_ITEMS_MAX
    fields: tuple[Field, ...] = ()
    description: str = ""
    stamp: str = ""
    stamp_by: str = ""


class NoSuchField(DefinitionError, AttributeError):
    """A definition names a field that the event type does not have."""


@dataclass(frozen=True, slots=True)
class EventType:
    """A declared event: its name, its version, and its fields.

    `product_viewed.price` and `product_viewed["price"]` are references for expressions. A field
    called `name`, `version`, `fields` or `description` is reached only with brackets.

    Attributes:
        name: The event's name for `track`; `page`, `screen` and the like for the other types.
        version: From 1; raised when the fields change.
        fields: Name to field, in the order declared; read only.
        description: What happened, for the generated reference.
    """

    name: str
    version: int
    fields: Mapping[str, Field] = field(hash=False)
    description: str = ""

    def __getitem__(self, name: str) -> FieldRef:
        """Return the reference to a field.

        Raises:
            NoSuchField: The event type has no such field (E102).
        """
        declared = self.fields.get(name)
        if declared is None:
            near = get_close_matches(name, self.fields, n=1)
            raise NoSuchField(
                "E102",
                f"event `{self.name}` has no field `{name}`",
                fix=f"did you mean `{near[0]}`?" if near else f"declare `{name}` in the event",
                where=f"event `{self.name}`",
            )
        return field_ref(self.name, declared)

    def __getattr__(self, name: str) -> FieldRef:
        if name.startswith("_"):
            raise AttributeError(name)
        return self[name]


def event_type(
    name: str, version: int, fields: tuple[Field, ...], description: str = ""
) -> EventType:
    """Return a checked event type.

    Raises:
        DefinitionError: The declaration is wrong (E103 to E107).
    """
    where = f"event `{name}`"
    if not name or len(name) > 200 or name != name.strip() or not name.isprintable():
        raise DefinitionError("E103", "an event's name is empty, too long or not printable",
                              fix="name it in at most 200 printable characters")  # fmt: skip
    if version < 1:
        raise DefinitionError("E103", f"event `{name}` has version {version}",
                              fix="count versions from 1", where=where)  # fmt: skip
    return EventType(name, version, MappingProxyType(field_table(fields, where)), description)


def field_table(fields: tuple[Field, ...], where: str) -> dict[str, Field]:
    """Return checked fields by name.

    Raises:
        DefinitionError: A field is declared wrongly, or twice (E103 to E107).
    """
    if len(fields) > FIELDS_MAX:
        raise DefinitionError("E103", f"more than {FIELDS_MAX} fields are declared",
                              fix="declare only the fields you use", where=where)  # fmt: skip
    table: dict[str, Field] = {}
    for declared in fields:
        if declared.name in table:
            raise DefinitionError("E103", f"field `{declared.name}` is declared twice",
                                  fix="keep one of the two", where=where)  # fmt: skip
        check_field(declared, where)
        table[declared.name] = declared
    return table


def check_field(declared: Field, where: str) -> None:
    """Raise if a field is declared wrongly.

    Raises:
        DefinitionError: Its name or limits (E103), its protection (E104, E105), its annotation
            (E106), or its currency or scale (E107) is wrong.
    """
    place = f"{where}, field `{declared.name}`"
    if _FIELD_NAME.fullmatch(declared.name) is None:
        raise DefinitionError("E103", "a field's name has characters that a path cannot show",
                              fix="use letters, digits, `_`, `-`, `.`, `:`, `$` and spaces, at most 100",
                              where=where)  # fmt: skip
    if declared.kind not in KINDS:
        raise DefinitionError("E103", f"field `{declared.name}` has no kind `{declared.kind}`",
                              fix=f"use one of {', '.join(KINDS)}", where=place)  # fmt: skip
    _check_shape(declared, place)
    _check_privacy(declared, place)
    _check_protection(declared, place)


def field_ref(event: str, declared: Field) -> FieldRef:
    """Return the reference to a field: typed as it is after protection."""
    pseudonym = declared.privacy.protection == "pseudonym" and declared.kind != "strings"
    return FieldRef(
        event=event,
        field=declared.name,
        kind="string" if pseudonym else declared.kind,
        scale=declared.scale,
        currency=(declared.currency or None) if declared.kind == "money" else None,
        values=() if pseudonym else declared.values,
        purpose=declared.privacy.purpose,
        protection=declared.privacy.protection,
    )


def canonical_field(declared: Field) -> dict[str, Any]:
    """Return what a field means as plain values, without its description."""
    plain: dict[str, Any] = msgspec.to_builtins(declared)
    del plain["description"]
    if not declared.stamp:
        del plain["stamp"], plain["stamp_by"]
    plain["fields"] = [canonical_field(part) for part in declared.fields]
    return plain


def canonical_event_type(declared: EventType) -> dict[str, Any]:
    """Return what an event type means as plain values, without descriptions."""
    fields = [canonical_field(part) for _, part in sorted(declared.fields.items())]
    return {"name": declared.name, "version": declared.version, "fields": fields}


def _check_shape(declared: Field, place: str) -> None:
    kind = declared.kind
    if kind == "enum" and (
        not declared.values or len(set(declared.values)) != len(declared.values)
    ):
        raise DefinitionError("E103", f"field `{declared.name}` has no values, or one twice",
                              fix="list each value once", where=place)  # fmt: skip
    if kind == "objects":
        if not declared.fields:
            raise DefinitionError("E103", f"field `{declared.name}` declares no fields of its items",
                                  fix="declare at least one", where=place)  # fmt: skip
        field_table(declared.fields, place)
    if declared.chars_max < 1 or declared.items_max < 1:
        raise DefinitionError("E103", f"field `{declared.name}` has a limit below 1",
                              fix="give it a positive limit", where=place)  # fmt: skip
    if kind == "decimal" and declared.scale is None:
        raise DefinitionError("E107", f"field `{declared.name}` is a decimal without scale",
                              fix="say how many digits after the point are kept: `decimal(scale=2)`",
                              where=place)  # fmt: skip
    if declared.scale is not None and not 0 <= declared.scale <= SCALE_MAX:
        raise DefinitionError("E107", f"field `{declared.name}` has scale {declared.scale}",
                              fix=f"use a scale from 0 to {SCALE_MAX}", where=place)  # fmt: skip
    if declared.currency and not is_currency(declared.currency):
        raise DefinitionError("E107", f"field `{declared.name}` has a currency that is no ISO 4217 code",
                              fix='write three capital letters, such as "GBP"', where=place)  # fmt: skip


def _check_privacy(declared: Field, place: str) -> None:
    privacy = declared.privacy
    if privacy.category not in CATEGORIES:
        near = get_close_matches(privacy.category, CATEGORIES, n=1)
        raise DefinitionError("E106", f"`{privacy.category}` is not a data category of Fideslang",
                              fix=f"did you mean `{near[0]}`?" if near else
                              "choose one from https://ethyca.github.io/fideslang/taxonomy/data_categories/",
                              where=place)  # fmt: skip
    if privacy.data_class not in DATA_CLASSES:
        raise DefinitionError("E106", f"`{privacy.data_class}` is not a data class",
                              fix=f"use one of {', '.join(DATA_CLASSES)}", where=place)  # fmt: skip
    if privacy.retention_days is not None and privacy.retention_days < 1:
        raise DefinitionError("E106", "a retention is shorter than a day",
                              fix='keep it for a day or more, or do not keep it: protection="drop"',
                              where=place)  # fmt: skip
    if not privacy.purpose.isidentifier():
        raise DefinitionError("E106", "a purpose is not a plain name",
                              fix="use a name such as `personalisation` or `measurement`",
                              where=place)  # fmt: skip


def _check_protection(declared: Field, place: str) -> None:
    protection, kind = declared.privacy.protection, declared.kind
    if protection == "encrypt":
        raise DefinitionError("E104", f"field `{declared.name}` asks for `encrypt`, which does not exist yet",
                              fix="use `pseudonym` or `drop` until it does", where=place)  # fmt: skip
    if protection not in PROTECTIONS:
        raise DefinitionError("E105", f"`{protection}` is not a protection",
                              fix=f"use one of {', '.join(PROTECTIONS)}", where=place)  # fmt: skip
    if declared.required and protection == "drop":
        raise DefinitionError("E105", f"field `{declared.name}` is required and dropped",
                              fix="make it optional, or protect it otherwise", where=place)  # fmt: skip
    allowed = {"truncate": TRUNCATABLE, "pseudonym": PSEUDONYMISABLE}.get(protection)
    if allowed is not None and kind not in allowed:
        raise DefinitionError("E105", f"a field of kind `{kind}` cannot have protection `{protection}`",
                              fix=f"`{protection}` is for {', '.join(sorted(allowed))}; else use `drop`",
                              where=place)  # fmt: skip
    if protection == "plain" and declared.privacy.data_class == "special":
        raise DefinitionError("E105", f"field `{declared.name}` is special and would be kept in plain",
                              fix="use `truncate`, `pseudonym` or `drop`, or a lower data class",
                              where=place)  # fmt: skip
