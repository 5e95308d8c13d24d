"""An item of the catalogue as decisions see it: the registers of its leaf, or a row of an import."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import msgspec

from penstock.core.time import parse_instant

if TYPE_CHECKING:
    from penstock.core.leaf import Trait

FIELD_BYTES_MAX: Final = 4 * 1024
"""A larger field of an item is absent for decisions: their records are kept for long."""

ITEM_BYTES_MAX: Final = 16 * 1024
"""What decisions see of an item, encoded: the fields with a meaning first, then by name."""

KNOWN_FIELDS: Final = (
    "title", "url", "image_url", "price", "category", "available", "stock", "rank", "starts_at", "ends_at",
)  # fmt: skip


class Item(msgspec.Struct, frozen=True):
    """One item: its fields at one version.

    Attributes:
        id: The raw item id, as events name it.
        fields: By name. A meaning here have `title`, `url`, `image_url`, `price` (`[minor units,
            currency]`), `category`, `available`, `stock`, `rank` (1 is best), `starts_at`, `ends_at`.
        version: When its newest register was written, ms UTC; 0 if that is not known.
    """

    id: str
    fields: dict[str, Any]
    version: int = 0


def item_of(item_id: str, traits: Mapping[str, Trait]) -> Item:
    """Return an item of the registers on its leaf; a register that holds null is an absent field."""
    fields: dict[str, Any] = {}
    size = 0
    for name in [*KNOWN_FIELDS, *sorted(set(traits).difference(KNOWN_FIELDS))]:
        value = traits[name][3] if name in traits else None
        if value is None:
            continue
        length = len(name) + len(msgspec.msgpack.encode(value))
        if length <= FIELD_BYTES_MAX and size + length <= ITEM_BYTES_MAX:
            fields[name] = value
            size += length
    version = max((register[1] for register in traits.values()), default=0)
    return Item(item_id, fields, version)


def in_stock(item: Item) -> bool:
    """Return False only for an item that says so: `available` false, or `stock` at or below zero."""
    if item.fields.get("available") in (False, "false"):
        return False
    stock = item.fields.get("stock")
    return not (isinstance(stock, int) and not isinstance(stock, bool) and stock <= 0)


def date_refusal(item: Item, as_of_ms: int) -> str:
    """Return why an item may not be shown at an instant, or nothing: it runs in [starts_at, ends_at)."""
    for name in ("starts_at", "ends_at"):
        value = item.fields.get(name)
        if value is None:
            continue
        at_ms = instant_of(value)
        if at_ms is None:
            return f"unreadable:{name}"
        if name == "starts_at" and as_of_ms < at_ms:
            return "not_started"
        if name == "ends_at" and as_of_ms >= at_ms:
            return "ended"
    return ""


def instant_of(value: Any) -> int | None:
    """Return a date field as ms UTC: an integer already, or ISO 8601 text; None if it is neither."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str):
        try:
            return parse_instant(value)
        except ValueError:
            return None
    return None
