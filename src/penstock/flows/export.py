"""Profiles page by page, for export: what may be served of each person, and nothing protected."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, NamedTuple

from penstock.core.catalog.schema import Field
from penstock.core.decision.audience import Audience, matches
from penstock.core.errors import DamagedLeaf
from penstock.core.identity.identifier import ENTITY_TYPES
from penstock.core.ids import LeafId
from penstock.core.profile import Profile
from penstock.core.time import format_instant
from penstock.flows.person import Person
from penstock.flows.serve import Serving, Who, refused_topics
from penstock.ports.store import Store

LEAVES_MAX = 1_000
YIELD_EVERY = 50
"""People read before the loop may serve a request."""


class People(NamedTuple):
    """A page of people.

    Attributes:
        rows: One a person: `person`, `as_of_ms`, `permitted`, `features`, `traits`, and `complete_since`
            where features lack history.
        after: Where the next page begins; None after the last.
        withheld: How many people permit nothing, and are left out.
        damaged: The leaves that do not read back; who has one is left out.
    """

    rows: list[dict[str, Any]]
    after: LeafId | None
    withheld: int
    damaged: list[LeafId]


async def export_page(
    serving: Serving, store: Store, epoch: int, traits: Mapping[str, Field], *, after: LeafId | None,
    limit: int, audience: Audience | None = None, identifiers: bool = False,
) -> People:  # fmt: skip
    """Return the people among the next leaves of the store, each once over all pages.

    A person is exported at their strongest leaf: a user id before an address before a browser. A
    browser that only claims a user id is a person of its own, and part of that user's row too.

    Args:
        serving: Reads profiles, of now or of another instant.
        store: Scanned; it holds what was written, so wait until everything is settled.
        epoch: The live definitions epoch.
        traits: The declared traits: those with a protection are left out.
        after: Where to go on; None to begin.
        limit: Leaves to look at, at most `LEAVES_MAX`.
        audience: Only its members.
        identifiers: Whether to add raw user ids and addresses, which are personal.
    """
    limit = min(max(limit, 1), LEAVES_MAX)
    page = await asyncio.to_thread(store.ids, epoch, after, limit)
    rows: list[dict[str, Any]] = []
    withheld = 0
    damaged: dict[LeafId, None] = {}
    for number, leaf in enumerate(page):
        if number % YIELD_EVERY == YIELD_EVERY - 1:
            await asyncio.sleep(0)
        try:
            found = await person_at(serving, leaf)
        except DamagedLeaf as error:
            damaged[LeafId(error.leaf)] = None
            continue
        profile = found[0] if found else None
        if profile is None or (audience is not None and not _member(serving, audience, profile)):
            continue
        if not profile.permitted:
            withheld += 1
            continue
        plain = {name: value for name, value in profile.traits.items()
                 if name in traits and traits[name].privacy.protection == "plain"
                 and (identifiers or name != "email")}  # fmt: skip
        row: dict[str, Any] = {
            "person": leaf.hex(), "as_of_ms": profile.as_of_ms, "permitted": sorted(profile.permitted),
            "features": profile.features, "traits": plain,
        }  # fmt: skip
        if profile.complete_since:
            row["complete_since"] = {
                name: format_instant(at_ms) for name, at_ms in profile.complete_since.items()
            }
        if identifiers:
            row["user_id"] = next(iter(profile.identifiers.get("user_id", ())), None)
            row["email"] = profile.email
        rows.append(row)
    return People(rows, page[-1] if len(page) == limit else None, withheld, [*damaged])


async def person_at(serving: Serving, leaf: LeafId) -> tuple[Profile, Person] | None:
    """Return the person whose strongest leaf this is, or None: so each is found once over all leaves."""
    read = (await serving.profiles.read([leaf])).leaves[0]
    if read is None or not read.id_type or read.id_type in ENTITY_TYPES:
        return None
    profile, person = await serving.profile(Who(leaf, read.id_type))
    return (profile, person) if person.leaves and profile.leaves[0] == leaf else None


def _member(serving: Serving, audience: Audience, profile: Profile) -> bool:
    register = serving.suppressions.get(list(profile.leaves))
    return matches(audience, profile, refused_topics=refused_topics(register, "email")).matches
