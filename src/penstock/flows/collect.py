"""A request becomes accepted events in the log, or a clear refusal; only then 200."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import msgspec

from penstock.core.catalog.catalog import Catalog
from penstock.core.consent import evidence as consent_evidence
from penstock.core.consent.purpose import ConsentRules
from penstock.core.consent.suppression import (
    PERMISSION_EVENTS,
    Suppression,
    SuppressionKey,
    suppression_of,
)
from penstock.core.errors import EventRejected
from penstock.core.event import Decoded, Event, Rejected, external_ids, occurred_at_ms
from penstock.core.identity.identifier import IdentityRules
from penstock.core.identity.routing import Routing, route
from penstock.core.ids import LeafId, event_id, leaf_id
from penstock.core.protect import Protector
from penstock.core.record import RECORD_FORMAT, DeadLetter, Kind, Record
from penstock.ports.appender import Appender
from penstock.ports.clock import Clock
from penstock.ports.metrics import Metrics
from penstock.ports.suppressions import Suppressions

LEAF_CACHE_MAX = 200_000

_encoder = msgspec.json.Encoder(enc_hook=str)
"""Decimals go out as texts, which the catalog reads as well when the event is replayed."""


class Source(NamedTuple):
    """A declared source: who sends, how far it is trusted, and on what lawful basis."""

    name: str
    verified: bool
    """True for a server key: its links are verified and `userId` is the primary leaf."""
    rank: int
    basis: Mapping[str, str]


class Refusal(NamedTuple):
    """One event that was not accepted, as its sender is told."""

    index: int
    message_id: str
    code: str
    what: str
    path: str


class Intake(NamedTuple):
    """What became of a request's events: all of them are durable, in the log or as dead letters."""

    accepted: int
    refused: list[Refusal]


class _Shaped(NamedTuple):
    records: list[Record]
    letters: list[DeadLetter]
    refused: list[Refusal]
    suppressions: list[tuple[SuppressionKey, Suppression]]
    urgent: bool
    accepted: int


class Collector:
    """Shapes events into records and has them appended. One a project; stateless but for caches.

    Args:
        catalog: Declared events and traits.
        protector: Applies field protections.
        identity: Identifier rules.
        consent: Consent rules.
        identifier_key: The key of leaf ids.
        tenant: Part of every leaf id.
        appender: The way into the log.
        suppressions: Written after the append and before the answer.
        clock: Stamps `received_at_ms`.
        metrics: Where to count.
    """

    def __init__(  # noqa: PLR0913 - the edge's one constructor; compose calls it once
        self, *, catalog: Catalog, protector: Protector, identity: IdentityRules, consent: ConsentRules,
        identifier_key: bytes, tenant: str, appender: Appender, suppressions: Suppressions, clock: Clock,
        metrics: Metrics,
    ) -> None:  # fmt: skip
        self.catalog = catalog
        self.protector = protector
        self.identity = identity
        self.consent = consent
        self.tenant = tenant
        self.appender = appender
        self.suppressions = suppressions
        self.clock = clock
        self.metrics = metrics
        self.normalise = catalog.compile(protector)

        def make_leaf(id_type: str, value: str) -> LeafId:
            return leaf_id(identifier_key, tenant, id_type, value)

        self.make_leaf = lru_cache(LEAF_CACHE_MAX)(make_leaf)

    async def take(
        self, source: Source, decoded: Decoded, *, gpc: bool = False, job: str = "", letters: bool = True,
        received_at_ms: int | None = None,
    ) -> Intake:  # fmt: skip
        """Take a request's events in: durable on return, each as a record or as a dead letter.

        Args:
            source: Whose write key it was.
            decoded: The events of the body, and those that did not decode.
            gpc: The request carried `Sec-GPC: 1`.
            job: The import job, if this is one.
            letters: Keep refused events as dead letters; False for a caller who still has them.
            received_at_ms: When they were received, for those that come in again; None for now.

        Raises:
            Overloaded: Nothing was kept; retry later (E410).
            Unavailable: It is not durable (E401, E403); a retry is safe.
        """
        at_ms = self.clock.now_ms() if received_at_ms is None else received_at_ms
        shaped = self._shape(source, decoded, at_ms, gpc=gpc, job=job)
        if not letters:
            shaped.letters.clear()
        if shaped.records or shaped.letters:
            await self.appender.append(shaped.records, shaped.letters, urgent=shaped.urgent)
        if shaped.suppressions:
            await asyncio.to_thread(self.suppressions.put, shaped.suppressions)
            for _, entry in shaped.suppressions:
                self.metrics.count("penstock_suppressions_written_total", reason=entry.reason)
        self._count(shaped)
        return Intake(shaped.accepted, shaped.refused)

    def _count(self, shaped: _Shaped) -> None:
        kept = len(shaped.records) + len(shaped.letters)
        if kept:
            self.metrics.count("penstock_events_accepted_total", kept)
        for letter in shaped.letters:
            self.metrics.count("penstock_events_dead_lettered_total", reason=letter.reason)

    def _shape(
        self, source: Source, decoded: Decoded, received_at_ms: int, *, gpc: bool, job: str
    ) -> _Shaped:
        shaped = _Shaped([], [], [], [], urgent=False, accepted=0)
        urgent, accepted = False, 0
        for rejected in decoded.rejected:
            self._refuse(shaped, source, received_at_ms, rejected)
        for index, event in decoded.events:
            try:
                record = self.record_of(source, event, received_at_ms, gpc=gpc, job=job)
            except EventRejected as error:
                rejected = Rejected(index, event.message_id, error, _encoder.encode(event))
                self._refuse(shaped, source, received_at_ms, rejected)
                continue
            accepted += 1
            if record is None:
                continue
            shaped.records.append(record)
            entries = suppression_of(record)
            if entries:
                shaped.suppressions.extend(entries)
            urgent = urgent or record.name in PERMISSION_EVENTS
        return shaped._replace(urgent=urgent, accepted=accepted)

    def _refuse(
        self, shaped: _Shaped, source: Source, received_at_ms: int, rejected: Rejected
    ) -> None:
        error = rejected.error
        message_id = rejected.message_id or ""
        shaped.refused.append(
            Refusal(rejected.index, message_id, error.code, error.what, error.where)
        )
        # The id is a function of source and body, so a retry of the same batch keeps one letter.
        digest = event_id(source.name.encode()[:64], message_id + rejected.raw.hex())
        shaped.letters.append(
            DeadLetter(
                letter_id=f"edge-{digest:016x}",
                source=source.name,
                received_at_ms=received_at_ms,
                reason=error.code,
                path=error.where,
                what=error.what,
                message_id=message_id,
                body=rejected.raw,
            )
        )

    def record_of(
        self, source: Source, event: Event, received_at_ms: int, *, gpc: bool = False, job: str = ""
    ) -> Record | None:
        """Return the record of an event, or None if consent or the catalog lets nothing be kept.

        Raises:
            EventRejected: The event breaks its declaration or names nobody (E3xx).
        """
        evidence = consent_evidence.stamp(
            _consent_preferences(event), gpc, source.basis, self.consent
        )
        name = event.event if event.type == "track" else event.type
        use = consent_evidence.useful(evidence, self.consent)
        if name in PERMISSION_EVENTS:
            use = consent_evidence.COLLECT
        if use == consent_evidence.DISCARD:
            self.metrics.count("penstock_events_discarded_total", reason="consent_unknown")
            return None
        occurred = occurred_at_ms(event, received_at_ms)
        routing = self._route(source, event, occurred)
        for _ in routing.blocked:
            self.metrics.count("penstock_events_discarded_total", reason="blocked_identifier")
        normalised = self.normalise(event)
        if normalised.dropped:
            self.metrics.count("penstock_events_discarded_total", reason="undeclared_event")
            return None
        if normalised.undeclared_fields:
            self.metrics.count(
                "penstock_fields_undeclared_total",
                len(normalised.undeclared_fields),
                event=name if name in self.catalog.event_types else event.type,
            )
        bare = use == consent_evidence.BARE
        properties = normalised.properties
        if name in PERMISSION_EVENTS:
            properties = _permission_properties(event) | properties
        primary = routing.primary
        return Record(
            format=RECORD_FORMAT,
            kind=Kind.PRIMARY,
            tenant=self.tenant,
            leaf=primary.leaf,
            id_type=primary.id_type,
            event_id=event_id(primary.leaf, event.message_id),
            message_id=event.message_id,
            type=event.type,
            name=name,
            occurred_at_ms=occurred,
            received_at_ms=received_at_ms,
            source=source.name,
            source_rank=source.rank,
            verified=source.verified,
            evidence=evidence,
            identifiers=() if bare else routing.identifiers,
            edges=() if bare else routing.edges,
            properties={} if bare else properties,
            traits={} if bare else normalised.traits,
            job=job,
            bare=bare,
        )

    def _route(self, source: Source, event: Event, occurred: int) -> Routing:
        return route(
            user_id=event.user_id,
            anonymous_id=event.anonymous_id,
            previous_id=event.previous_id,
            group_id=event.group_id,
            external_ids=[(one.type, one.id) for one in external_ids(event)],
            email=_email(event),
            type_name=event.type,
            message_id=event.message_id,
            occurred_at_ms=occurred,
            verified=source.verified,
            tenant=self.tenant,
            make_leaf=self.make_leaf,
            rules=self.identity,
        )


def _consent_preferences(event: Event) -> Mapping[str, object] | None:
    consent = event.context.get("consent")
    if not isinstance(consent, dict):
        return None
    preferences = consent.get("categoryPreferences")
    return preferences if isinstance(preferences, dict) else None


def _email(event: Event) -> str | None:
    email = event.traits.get("email") if event.type == "identify" else None
    return email if isinstance(email, str) else None


def _permission_properties(event: Event) -> dict[str, Any]:
    # What says which channel and topic is meant is kept even if the project declares no such event.
    names = ("channel", "topic", "bounce_type", "bounceType", "type", "severity", "classification")
    return {
        name: str(event.properties[name])
        for name in names
        if isinstance(event.properties.get(name), str)
    }


def source_of(name: str, kind: str, rank: int, basis: Mapping[str, str]) -> Source:
    """Return a source from its settings: a `server` key is trusted, a `browser` key is public."""
    return Source(name, kind == "server", rank, dict(basis))


def answer(intake: Intake) -> dict[str, Any]:
    """Return the body of the 200 that a collector request gets."""
    body: dict[str, Any] = {"success": True, "accepted": intake.accepted}
    if intake.refused:
        body["rejected"] = [
            {"index": r.index, "messageId": r.message_id, "code": r.code, "what": r.what, "path": r.path}
            for r in intake.refused
        ]
    return body

