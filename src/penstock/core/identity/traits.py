"""Traits of several leaves become those of one person: each trait is a register."""

from collections.abc import Iterable
from typing import Any

import msgspec

Trait = tuple[int, int, int, Any]
"""A register: (source rank, occurred_at_ms, event_id, value); the greatest first three win."""


def merge_traits(
    many: Iterable[dict[str, Trait]], claims: Iterable[dict[str, Trait]] = ()
) -> dict[str, Trait]:
    """Return one person's traits: for each name the greatest (source rank, time, id) wins.

    Null is a value that can win: a trait set to null hides an older one.

    Args:
        many: Traits of the leaves that verified edges join, any order.
        claims: Traits of leaves that only claim to be this person: they rank below all others.

    Laws:
        Any order and any duplication of the leaves gives the same traits.
    """
    merged = _greatest(many)
    for name, trait in _greatest(claims).items():
        merged.setdefault(name, trait)
    return merged


def _greatest(many: Iterable[dict[str, Trait]]) -> dict[str, Trait]:
    merged: dict[str, Trait] = {}
    for traits in many:
        for name, trait in traits.items():
            standing = merged.get(name)
            if standing is None or _beats(trait, standing):
                merged[name] = trait
    return merged


def _beats(trait: Trait, standing: Trait) -> bool:
    if trait[:3] != standing[:3]:
        return trait[:3] > standing[:3]
    # The same event id with another value: only from unequal copies of one message.
    return _bytes(trait[3]) > _bytes(standing[3])


def _bytes(value: object) -> bytes:
    return msgspec.msgpack.encode(value, order="sorted")
