"""The answers of the test endpoints."""

from __future__ import annotations

from typing import Any

import msgspec

from penstock.core.profile import Profile
from penstock.core.time import format_instant
from penstock.flows.person import Person
from penstock.flows.recording import Recorded


class AcceptedEvent(msgspec.Struct, frozen=True):
    """An event as it was kept: by its declaration, with what consent and protection left of it."""

    type: str
    event: str
    """The name of a `track`; its type otherwise."""
    message_id: str
    source: str
    identifiers: dict[str, list[str | None]]
    """Values by type; null where the value is not kept."""
    properties: dict[str, Any]
    """Amounts in minor units with their currency: `[1250, "EUR"]`."""
    traits: dict[str, Any]
    occurred_at: str
    """Corrected for the client's clock."""
    received_at: str
    consent: dict[str, list[str]]
    """The purposes that the event itself `granted` and `denied`."""
    bare: bool
    """Everything is denied: only that is kept of it."""
    copies: int
    """How often it was sent; it counts once."""


class AcceptedView(msgspec.Struct, frozen=True):
    """The accepted events, in the order in which the log has them."""

    count: int
    events: list[AcceptedEvent]


class RejectedEvent(msgspec.Struct, frozen=True):
    """An event that was refused, and is a dead letter."""

    type: str
    event: str
    message_id: str
    source: str
    code: str
    what: str
    path: str
    fix: str


class NotKept(msgspec.Struct, frozen=True):
    """An event that was accepted, and of which nothing was kept."""

    type: str
    event: str
    message_id: str
    source: str
    reason: str
    what: str


class RefusedRequest(msgspec.Struct, frozen=True):
    """A request of which nothing was taken, such as one with a key that no source has."""

    route: str
    code: str
    what: str
    path: str
    fix: str


class RejectedView(msgspec.Struct, frozen=True):
    """What was not kept; `count` is of all three kinds."""

    count: int
    events: list[RejectedEvent]
    discarded: list[NotKept]
    requests: list[RefusedRequest]


class PersonView(msgspec.Struct, frozen=True):
    """A person as these events make them; what consent forbids is not in it but named in `withheld`."""

    found: bool
    identifiers: dict[str, list[str]]
    features: dict[str, Any]
    traits: dict[str, Any]
    consent: dict[str, str]
    permitted: list[str]
    withheld: list[str]
    complete_since: dict[str, str]
    """Features that lack history, since the log was truncated, with the instant from which they have it."""
    applied: int
    """Events that count, each once."""
    deduplicated: int
    """Copies that did not count."""


class ProfilesView(msgspec.Struct, frozen=True):
    """The people."""

    count: int
    profiles: list[PersonView]


def accepted_event(recorded: Recorded) -> AcceptedEvent:
    """Return an event as the endpoint shows it."""
    record = recorded.record
    identifiers: dict[str, list[str | None]] = {}
    for one in record.identifiers:
        identifiers.setdefault(one.id_type, []).append(one.value)
    return AcceptedEvent(
        type=record.type,
        event=record.name,
        message_id=record.message_id,
        source=record.source,
        identifiers=identifiers,
        properties=record.properties,
        traits=record.traits,
        occurred_at=format_instant(record.occurred_at_ms),
        received_at=format_instant(record.received_at_ms),
        consent={
            "granted": sorted(record.evidence.granted),
            "denied": sorted(record.evidence.denied),
        },
        bare=record.bare,
        copies=recorded.copies,
    )


def person_view(profile: Profile, person: Person) -> PersonView:
    """Return a person as the endpoint shows them."""
    return PersonView(
        found=person.found,
        identifiers=profile.identifiers,
        features=profile.features,
        traits=profile.traits,
        consent=profile.consent,
        permitted=sorted(profile.permitted),
        withheld=list(profile.withheld),
        complete_since={
            name: format_instant(at_ms) for name, at_ms in profile.complete_since.items()
        },
        applied=sum(leaf.applied for leaf in person.leaves),
        deduplicated=sum(leaf.deduplicated for leaf in person.leaves),
    )
