"""The answers of the preview's API: what the page needs, and nothing that it could do without."""

from __future__ import annotations

from typing import Any

import msgspec


class ItemView(msgspec.Struct, frozen=True):
    """One item of the shop."""

    id: str
    title: str
    category: str
    image_url: str
    price: str
    currency: str


class ShopView(msgspec.Struct, frozen=True):
    """The shop, and what its page may do."""

    name: str
    write_key: str
    """The public key of the first browser source; empty if there is none."""
    campaigns: list[str]
    consent: list[str]
    """The categories that a consent platform would ask about."""
    items: list[ItemView]
    categories: list[str]
    warn_bytes: int
    refuse_bytes: int


class SlotWhy(msgspec.Struct, frozen=True):
    """Why a slot shows what it shows."""

    slot: str
    shows: list[str]
    lines: list[str]


class EmailView(msgspec.Struct, frozen=True):
    """The email that a shopper would get now, and why. Nothing is recorded."""

    served: str
    reason: str
    known_at: int
    """The log offset of the newest record behind it; -1 if nothing is known of the shopper."""
    age_ms: int
    subject: str
    html: str
    text: str
    bytes: int
    verdict: str
    """`ok`, `warn` or `refuse`: the mail clients' view of its size."""
    slots: list[SlotWhy]
    permitted: list[str]
    features: dict[str, Any]
