"""The consent ledger: one commutative register a purpose, folded from events and merged over leaves."""

from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from penstock.core.consent.evidence import BASIS, UNKNOWN, origin
from penstock.core.consent.purpose import OPT_OUT, ConsentRules
from penstock.core.record import Record

PREFERENCE_UPDATED: Final = "Segment Consent Preference Updated"
"""The event by which a person changes what they permit; a denial in it is a withdrawal."""

GRANTED: Final = "granted"
DENIED: Final = "denied"


class ConsentEntry(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What stands for one purpose on one leaf: an explicit word, and a weaker lawful basis.

    The explicit part is a register: the greatest (at_ms, denied, event_id, source) wins, so the
    latest effective time wins, and deny wins a tie. The basis part keeps the earliest declaration,
    and grants only where nothing explicit stands. Merging is commutative, associative, idempotent.
    """

    at_ms: int = 0
    """When the explicit part takes effect."""
    denied: bool = False
    event_id: int = 0
    source: str = ""
    """`context`, `gpc` or `event`; empty while nobody has said anything explicit."""
    basis_at_ms: int = 0
    basis: str = ""
    """The lawful basis a source declares, such as `contract`; empty if there is none."""


def merge(one: ConsentEntry, other: ConsentEntry) -> ConsentEntry:
    """Return what stands after two entries for the same purpose.

    Laws:
        Commutative, associative and idempotent. A withdrawal that takes effect at or after a grant
        wins over it, in whatever order they are merged.
    """
    if one.source and other.source and not (one.basis or other.basis) and one.at_ms != other.at_ms:
        return one if one.at_ms > other.at_ms else other  # nearly every merge
    word = max(one, other, key=_word)
    basis = min(one, other, key=_basis)
    if word is basis:
        return word
    return ConsentEntry(word.at_ms, word.denied, word.event_id, word.source, basis.basis_at_ms,
                        basis.basis)  # fmt: skip


def _word(entry: ConsentEntry) -> tuple[bool, int, bool, int, str]:
    return (bool(entry.source), entry.at_ms, entry.denied, entry.event_id, entry.source)


def _basis(entry: ConsentEntry) -> tuple[bool, int, str]:
    return (not entry.basis, entry.basis_at_ms, entry.basis)


def entries_of(record: Record) -> list[tuple[str, ConsentEntry, int | None]]:
    """Return what a record says about consent: (purpose, entry, purge_ms) for each purpose.

    A word takes effect when it was given, and at the latest when it was received: a clock that
    runs ahead can make neither a grant unbeatable nor a withdrawal late. `purge_ms` is the instant
    of a withdrawal, before which everything computed for the purpose is to go, else None.
    """
    evidence = record.evidence
    if evidence.source == UNKNOWN:
        return []
    at_ms = max(0, min(record.occurred_at_ms, record.received_at_ms))
    changed = record.name == PREFERENCE_UPDATED
    entries: list[tuple[str, ConsentEntry, int | None]] = []
    for purpose in evidence.denied:
        source = "event" if changed else origin(evidence, purpose)
        entry = ConsentEntry(at_ms, denied=True, event_id=record.event_id, source=source)
        entries.append((purpose, entry, at_ms if changed else None))
    for purpose in evidence.granted:
        source = origin(evidence, purpose)
        kind, _, name = source.partition(":")
        if kind == BASIS and not name:
            continue  # our own records are judged by a permission, and say nothing about it
        if kind == BASIS:
            entry = ConsentEntry(basis_at_ms=at_ms, basis=name)
        else:
            source = "event" if changed else source
            entry = ConsentEntry(at_ms, denied=False, event_id=record.event_id, source=source)
        entries.append((purpose, entry, None))
    return entries


def over_leaves(
    verified: Iterable[Mapping[str, ConsentEntry]],
    claims: Iterable[Mapping[str, ConsentEntry]] = (),
) -> dict[str, ConsentEntry]:
    """Return one person's ledger.

    A leaf that only claims to be this person may deny, since denying harms nobody's privacy, but
    what it grants counts only where no verified leaf has an explicit word: a stranger must not
    consent for somebody else.

    Args:
        verified: The ledgers of leaves that verified edges join, any order.
        claims: The ledgers of leaves that only claim to be this person, any order.
    """
    ledger = _merged(verified)
    for purpose, entry in _merged(claims).items():
        standing = ledger.get(purpose)
        if standing is None:
            ledger[purpose] = entry
        elif entry.denied or not standing.source:
            ledger[purpose] = merge(standing, entry)
    return ledger


def _merged(ledgers: Iterable[Mapping[str, ConsentEntry]]) -> dict[str, ConsentEntry]:
    merged: dict[str, ConsentEntry] = {}
    for ledger in ledgers:
        for purpose, entry in ledger.items():
            standing = merged.get(purpose)
            merged[purpose] = entry if standing is None else merge(standing, entry)
    return merged


def status(entry: ConsentEntry, rules: ConsentRules) -> str:
    """Return `granted`, `denied` or `unknown`: what was said, before the regime judges silence."""
    if entry.source:
        return DENIED if entry.denied else GRANTED
    return GRANTED if entry.basis else UNKNOWN


def permitted_purposes(entries: Mapping[str, ConsentEntry], rules: ConsentRules) -> frozenset[str]:
    """Return the purposes that a person's data may be used for: granted, or unknown under opt-out."""
    permitted = {purpose for purpose in rules.purposes if rules.regime == OPT_OUT}
    for purpose, entry in entries.items():
        found = status(entry, rules)
        if found == GRANTED:
            permitted.add(purpose)
        elif found == DENIED:
            permitted.discard(purpose)
    return frozenset(permitted)


def granted_after(entry: ConsentEntry | None, at_ms: int) -> bool:
    """Return whether an explicit grant stands that is later than an instant, such as a withdrawal's."""
    return entry is not None and bool(entry.source) and not entry.denied and entry.at_ms > at_ms
