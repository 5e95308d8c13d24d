"""The items of the catalogue as a list, for pages that show a shop; serving looks items up by id."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from penstock.core.decision.item import item_of
from penstock.core.feature.plan import Plan
from penstock.core.identity.identifier import ITEM
from penstock.core.leaf import decode_leaf
from penstock.core.money import exponent
from penstock.ports.store import Store

SCANNED_MAX = 200_000
"""Leaves looked through; a store with more people than that shows the items found among them."""
PAGE_LEAVES = 1_000


class ShelfItem(NamedTuple):
    """One item as a shop page shows it."""

    id: str
    title: str
    category: str
    image_url: str
    price: str
    """A decimal number; empty without a price."""
    currency: str


def shelf(store: Store, epoch: int, plan: Plan, limit: int) -> list[ShelfItem]:
    """Return items that are written in the store, by their id.

    Args:
        store: Only read.
        epoch: The definitions epoch.
        plan: Its plan.
        limit: Items at most.
    """
    found: list[ShelfItem] = []
    after, seen = None, 0
    while seen < SCANNED_MAX and (page := store.scan(epoch, after, PAGE_LEAVES)):
        for leaf_id, stored in page:
            leaf = decode_leaf(leaf_id, stored.version, stored.parts[0], plan)
            if leaf.id_type == ITEM and leaf.value is not None and leaf.traits:
                found.append(_shown(leaf.value, item_of(leaf.value, leaf.traits).fields))
        seen += len(page)
        after = page[-1][0]
    return sorted(found)[:limit]


def _shown(item_id: str, fields: Mapping[str, Any]) -> ShelfItem:
    price, currency = _price(fields.get("price"))
    return ShelfItem(
        item_id,
        str(fields.get("title") or item_id),
        str(fields.get("category") or ""),
        str(fields.get("image_url") or ""),
        price,
        currency,
    )


def _price(value: object) -> tuple[str, str]:
    match value:
        case [int(minor), str(currency)]:
            return _decimal(minor, exponent(currency)), currency
        case _:
            return "", ""


def _decimal(minor: int, digits: int) -> str:
    text = f"{abs(minor):0{digits + 1}d}"
    whole = text if digits == 0 else f"{text[:-digits]}.{text[-digits:]}"
    return f"-{whole}" if minor < 0 else whole


def categories(items: Sequence[ShelfItem]) -> list[str]:
    """Return the categories of some items, in the order of the alphabet."""
    return sorted({item.category for item in items} - {""})
