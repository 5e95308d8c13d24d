"""A slot made ready to decide: all that depends on its definition alone, computed once."""

from functools import lru_cache
from typing import Final, NamedTuple

from penstock.core.decision.candidate import (
    CANDIDATES_MAX,
    FALLBACKS_MAX,
    Gathered,
    ReadySource,
    gather,
    ready_sources,
)
from penstock.core.decision.policy import describe_policy
from penstock.core.decision.predicate import Operand, View, about_person
from penstock.core.decision.slot import Slot, policy_version, reads, with_kinds
from penstock.core.profile import Profile

READY_MAX: Final = 1024
"""Slots kept ready; a project has tens."""


class ReadySlot(NamedTuple):
    """A slot with its sources made ready.

    Attributes:
        slot: The definition.
        candidates, fallback: Its sources with their functions and their rooms.
        reads: The features and traits of the person that it may read, sorted.
        unless_about_person: Whether its `unless` reads anything of the person.
        share_ppm: Share of decisions drawn uniformly, the campaign's minimum included.
        policy, policy_version: As records name them.
    """

    slot: Slot
    candidates: tuple[ReadySource, ...]
    fallback: tuple[ReadySource, ...]
    reads: tuple[Operand, ...]
    unless_about_person: bool
    share_ppm: int
    policy: str
    policy_version: str


class _Same:
    """A slot as a key by identity: definitions hold lists and mappings, which have no hash."""

    __slots__ = ("slot",)

    def __init__(self, slot: Slot) -> None:
        self.slot = slot

    def __hash__(self) -> int:
        return id(self.slot)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self.slot is other.slot


def ready_slot(slot: Slot, uniform_share_ppm: int = 0) -> ReadySlot:
    """Return a slot made ready, under a campaign's uniform share in parts per million."""
    return _ready(_Same(slot), uniform_share_ppm)


@lru_cache(maxsize=READY_MAX)
def _ready(same: _Same, uniform_share_ppm: int) -> ReadySlot:
    slot = same.slot
    return ReadySlot(
        slot=slot,
        candidates=ready_sources(with_kinds(slot, slot.candidates), CANDIDATES_MAX),
        fallback=ready_sources(with_kinds(slot, slot.fallback), FALLBACKS_MAX),
        reads=tuple(reads(slot)),
        unless_about_person=slot.unless is not None and about_person(slot.unless),
        share_ppm=max(slot.policy.share_ppm, uniform_share_ppm),
        policy=describe_policy(slot.policy, uniform_share_ppm),
        policy_version=policy_version(slot, uniform_share_ppm),
    )


def barred(slot: Slot, profile: Profile | None) -> str:
    """Return why nothing about the person may be used for a slot, or nothing."""
    if profile is None:
        return "no_profile"
    return "" if slot.purpose in profile.permitted else "consent"


def candidates_of(ready: ReadySlot, view: View, bar: str) -> Gathered:
    """Return the candidates that a slot considers; none if the person is not read at all."""
    if bar in ("holdout", "no_profile"):
        return Gathered([], [], 0)
    return gather(ready.candidates, view, barred=bar)


def wants(ready: ReadySlot, view: View, bar: str) -> list[str]:
    """Return the raw ids of the items to fetch before a slot is decided, in a stable order."""
    gathered = [*candidates_of(ready, view, bar).candidates]
    gathered += gather(ready.fallback, view, barred=bar).candidates
    return list(dict.fromkeys(one.proposal.item_id for one in gathered if one.proposal.item_id))
