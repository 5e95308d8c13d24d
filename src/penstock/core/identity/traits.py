"""Traits are registers: how one leaf keeps them, and how those of several leaves become one person's.

A withdrawal purges by time, and a register wins by rank first: the one that stands may go while one that
it beat would stay. So a leaf keeps, beneath each register, those that it beat and that were said later:
of each lower rank the latest, if nothing above it is as late. That is all that can ever stand, and at
most one for each rank of a source.
"""

from collections.abc import Iterable, Mapping, MutableMapping, Sequence
from typing import Any, Final

import msgspec

NEVER: Final = -(1 << 63)
"""Before every instant: where nothing is purged."""

Trait = tuple[int, int, int, Any]
"""A register: (source rank, occurred_at_ms, event_id, value); the greatest first three win."""

Beneath = tuple[Trait, ...]
"""Registers that were beaten and may stand again, ascending: a lower one was said later."""


def fold_trait(
    standing: MutableMapping[str, Trait], beneath: Beneath, name: str, trait: Trait, purged_ms: int = NEVER
) -> Beneath:  # fmt: skip
    """Merge a register into those of a leaf, and return what is beneath it then.

    Args:
        standing: The register that stands, by name.
        beneath: Those beneath that of this name.
        name: Which trait.
        trait: The register; of two with one rank, time and event the first stays.
        purged_ms: What was said before is purged: a register that stands is kept without its value, so
            that order means nothing, and none is kept beneath it.

    Laws:
        Any order of registers and purges gives the same, and it is what the greatest of all those that
        are not purged says.
    """
    if trait[1] < purged_ms:
        trait = (*trait[:3], None)
    winner = standing.get(name)
    if winner is None:
        standing[name] = trait
        return ()
    loser = trait
    if winner[:3] < trait[:3]:
        standing[name], winner, loser = trait, trait, winner
    if not beneath and loser[1] <= winner[1]:
        return ()
    return _beneath(winner, (*beneath, loser), purged_ms)


def purge_trait(
    standing: MutableMapping[str, Trait], beneath: Beneath, name: str, purged_ms: int
) -> Beneath:
    """Blank a register that was said before a withdrawal, and return what is beneath it then."""
    winner = standing[name]
    if winner[1] < purged_ms:
        standing[name] = (*winner[:3], None)
    return _beneath(winner, beneath, purged_ms) if beneath else ()


def standing_of(trait: Trait, beneath: Beneath, purged_ms: int) -> Trait | None:
    """Return the greatest of a leaf's registers that was not said before a withdrawal; None if all were."""
    if trait[1] >= purged_ms:
        return trait
    return next((one for one in reversed(beneath) if one[1] >= purged_ms), None)


def _beneath(winner: Trait, losers: Sequence[Trait], purged_ms: int) -> Beneath:
    kept: list[Trait] = []
    latest = max(winner[1], purged_ms - 1)
    for one in sorted(losers, key=lambda trait: trait[:3], reverse=True):
        if one[1] > latest:
            kept.append(one)
            latest = one[1]
    return tuple(reversed(kept))


def in_line(
    standing: Mapping[str, Trait], beneath: Mapping[str, Beneath]
) -> list[tuple[str, Trait]]:
    """Return a leaf's registers as they are stored: by name, those beneath first, the one that stands last."""
    if not beneath:
        return [(name, standing[name]) for name in sorted(standing)]
    return [
        (name, one) for name in sorted(standing) for one in (*beneath.get(name, ()), standing[name])
    ]


def from_line(stored: Iterable[tuple[str, Trait]]) -> tuple[dict[str, Trait], dict[str, Beneath]]:
    """Return the registers that stand, and those beneath them, of what `in_line` returned."""
    standing: dict[str, Trait] = {}
    beneath: dict[str, Beneath] = {}
    for name, trait in stored:
        if name in standing:
            beneath[name] = (*beneath.get(name, ()), standing[name])
        standing[name] = trait
    return standing, beneath


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
