"""The answers of the serving API: the same structs document and encode them."""

from __future__ import annotations

from typing import Any

import msgspec

from penstock.core import tokens
from penstock.core.profile import Profile
from penstock.core.time import format_instant
from penstock.flows.person import Person
from penstock.flows.serve import Answer


class ProfileView(msgspec.Struct, frozen=True, omit_defaults=True):
    """A person as of an instant; what consent forbids is not in it but named in `withheld`."""

    found: bool
    features: dict[str, Any]
    traits: dict[str, Any]
    consent: dict[str, str]
    permitted: list[str]
    identifiers: dict[str, list[str]]
    email_token: str
    """Stands for the address in URLs; empty if there is none."""
    served: str
    """`live`, `stale` (what was last known), `fallback` (nothing is at hand), or `past` with `known_at`."""
    reason: str
    as_of: str
    profile_as_of: str
    """Up to when the log is reflected."""
    age_ms: int
    definitions: str
    withheld: list[str]
    complete_since: dict[str, str] = {}
    """Features whose window reaches back beyond what the log held when they were new, and from when they
    are complete; left out if there are none."""


class ManyProfiles(msgspec.Struct, frozen=True):
    """The people of a batch, in the order they were asked for."""

    profiles: list[ProfileView]


class ManyAnswers(msgspec.Struct, frozen=True):
    """The answers of a batch, in the order of its recipients."""

    answers: list[Answer]


def freshness_of(*, live: bool, bounded: bool) -> tuple[str, str]:
    """Return how a profile is served, and why if it is not live."""
    if bounded:
        return "stale", "identity_bound"
    return ("live", "") if live else ("stale", "catching_up")


def profile_view(
    profile: Profile, person: Person, *, now_ms: int, token_key: bytes, past: bool = False
) -> ProfileView:
    """Return a profile as the API shows it; `past` if it is of an earlier point of the log."""
    served, reason = freshness_of(live=person.live, bounded=person.bounded)
    token = tokens.email_token(token_key, profile.email_leaf) if profile.email_leaf else ""
    return ProfileView(
        found=person.found,
        features=profile.features,
        traits=profile.traits,
        consent=profile.consent,
        permitted=sorted(profile.permitted),
        identifiers=profile.identifiers,
        email_token=token,
        served="past" if past else served,
        reason=reason,
        as_of=format_instant(profile.as_of_ms),
        profile_as_of=format_instant(person.as_of_ms),
        age_ms=max(0, now_ms - person.as_of_ms),
        definitions=profile.definitions,
        withheld=list(profile.withheld),
        complete_since=complete_since(profile),
    )


def complete_since(profile: Profile) -> dict[str, str]:
    """Return from when features are complete that are not."""
    return {name: format_instant(at_ms) for name, at_ms in profile.complete_since.items()}


def unread_view(reason: str, now_ms: int) -> ProfileView:
    """Return the profile of somebody of whom nothing is at hand, or who was not named."""
    return ProfileView(
        found=False, features={}, traits={}, consent={}, permitted=[], identifiers={},
        email_token="", served="fallback", reason=reason, as_of=format_instant(now_ms),
        profile_as_of="", age_ms=0, definitions="", withheld=[],
    )  # fmt: skip
