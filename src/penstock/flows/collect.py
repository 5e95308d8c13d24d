"""A request becomes accepted events in the log, or a clear refusal; only then 200."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, NamedTuple, cast

import msgspec

from penstock.core.catalog.catalog import Catalog
from penstock.core.catalog.normalise import Normalised
from penstock.core.consent import evidence as consent_evidence
from penstock.core.consent.preferences import consent_preferences, preferences_of
from penstock.core.consent.purpose import ConsentRules
from penstock.core.consent.suppression import (
    PERMISSION_EVENTS,
    PERMISSION_PROPERTIES,
    Entries,
    Suppression,
    SuppressionKey,
    suppression_of,
)
from penstock.core.errors import EventRejected, SettingsError
from penstock.core.event import (
    Decoded,
    Event,
    Rejected,
    external_ids,
    kept_body,
    occurred_at_ms,
    person_email,
)
from penstock.core.identity import vouch
from penstock.core.identity.identifier import ITEM, IdentityRules
from penstock.core.identity.routing import Routing, route
from penstock.core.ids import LeafId, event_id, leaf_id
from penstock.core.leaf import Leaf
from penstock.core.protect import Protector
from penstock.core.record import RECORD_FORMAT, DeadLetter, Evidence, Identifier, Kind, Record
from penstock.flows.intake import EVIDENCES_MAX, Reading, fast_intake, is_short
from penstock.flows.minimise import NOTHING, minimised
from penstock.ports.accelerator import AccelerateIntake
from penstock.ports.appender import Appender
from penstock.ports.clock import Clock
from penstock.ports.metrics import Metrics
from penstock.ports.suppressions import Suppressions

_decoder = msgspec.json.Decoder()
LEAF_CACHE_MAX = 200_000


class Source(NamedTuple):
    """A declared source: who sends, how far it is trusted, and on what lawful basis."""

    name: str
    verified: bool
    """True for a server key: its links are verified and `userId` is the primary leaf."""
    rank: int
    basis: Mapping[str, str]
    identity_keys: Mapping[str, str] = {}
    """Keys of signed identity tokens by `kid`; an event that one vouches for is verified."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """One event that was not accepted, as its sender is told."""

    index: int
    message_id: str
    code: str
    what: str
    path: str


@dataclass(frozen=True, slots=True)
class Discarded:
    """An accepted event of which nothing was kept.

    Attributes:
        index: Its place in the request.
        reason: `consent_unknown`, `consent_category_unknown` or `undeclared_event`.
    """

    index: int
    reason: str


def by_reason(discarded: Sequence[Discarded]) -> dict[str, int]:
    """Return how many were discarded, by reason, sorted."""
    return dict(sorted(Counter(one.reason for one in discarded).items()))


class Intake(NamedTuple):
    """What became of a request's events: all of them are durable, in the log or as dead letters."""

    accepted: int
    refused: list[Refusal]
    discarded: Sequence[Discarded] = ()
    """Of the accepted: nothing of them was kept, since consent or the project's rule for undeclared
    events lets nothing be."""

    undeclared: Mapping[str, int] = {}
    """Fields that were dropped because nothing declares them, by name; of a load only."""


FindItem = Callable[[LeafId], Leaf | None]
"""The leaf of an item as it is now, from memory or the store."""


PutSuppressions = Callable[[Entries], Awaitable[object]]
"""`Suppressions.put`, awaited: one group commit serves whoever writes meanwhile."""


class _Stamp(NamedTuple):
    """A field that is filled from an item: its name, the item's attribute, and what names the item."""

    field: str
    attribute: str
    by: str


class _Shaped(NamedTuple):
    records: list[Record | bytes]
    places: list[int]
    """Of each record's event, in the request."""
    letters: list[DeadLetter]
    refused: list[Refusal]
    discarded: list[Discarded]
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
        find_item: Finds the items that events are stamped with.
        put_suppressions: Writes to `suppressions`, awaited; a thread of its own for each by default.
        accelerate: Makes the native intake, if there is one; the records are the same.
    """

    def __init__(  # noqa: PLR0913 - the edge's one constructor; compose calls it once
        self, *, catalog: Catalog, protector: Protector, identity: IdentityRules, consent: ConsentRules,
        identifier_key: bytes, tenant: str, appender: Appender, suppressions: Suppressions, clock: Clock,
        metrics: Metrics, find_item: FindItem = lambda _: None,
        put_suppressions: PutSuppressions | None = None, accelerate: AccelerateIntake | None = None,
    ) -> None:  # fmt: skip
        self._native_of = partial(
            fast_intake,
            accelerate,
            protector=protector,
            identifier_key=identifier_key,
            tenant=tenant,
        )
        self.protector = protector
        self.tenant = tenant
        self.appender = appender
        self.suppressions = suppressions
        self.clock = clock
        self.metrics = metrics
        self._count_accepted = metrics.bound("penstock_events_accepted_total")
        self.find_item = find_item
        self.put_suppressions = put_suppressions or self._put_alone
        self.adopt(catalog, identity, consent)

        def make_leaf(id_type: str, value: str) -> LeafId:
            return leaf_id(identifier_key, tenant, id_type, value)

        self.make_leaf = lru_cache(LEAF_CACHE_MAX)(make_leaf)

    def adopt(self, catalog: Catalog, identity: IdentityRules, consent: ConsentRules) -> None:
        """Shape events by these definitions, from the next one on."""
        protector = self.protector
        self.catalog = catalog
        self.identity = identity
        self.consent = consent
        self.normalise = catalog.compile(protector)
        self._native = self._native_of(catalog=catalog, identity=identity)
        self._evidences: dict[tuple[Any, ...], tuple[Evidence, str]] = {}
        self._stamps = _stamps_of(catalog)
        self._guards = {
            name: protector.function(field.privacy.protection, "string", f"$.traits.{name}")
            for name, field in catalog.traits.items()
            if field.privacy.protection != "plain"
        }

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
        undeclared: dict[str, int] | None = {} if job else None
        shaped = self._shape(source, decoded, at_ms, gpc=gpc, job=job, undeclared=undeclared)
        if not letters:
            shaped.letters.clear()
        return await self._keep(shaped, undeclared)

    async def take_body(
        self, source: Source, reading: Reading, body: bytes, *, gpc: bool = False, job: str = ""
    ) -> Intake:
        """Take a request's body in, as `take` does its events: by the accelerator, where it knows them.

        Args:
            source: Whose write key it was.
            reading: How the body is read.
            body: In plain.
            gpc: The request carried `Sec-GPC: 1`.
            job: The import job, if this is one.

        Raises:
            EventRejected: There is nothing to read in it (E300 to E314).
            Overloaded: Nothing was kept; retry later (E410).
            Unavailable: It is not durable (E401, E403); a retry is safe.
        """
        at_ms, taken = self.clock.now_ms(), None
        if self._native is not None and not job:
            sender = (source.name, source.rank, source.verified, bool(source.identity_keys))
            taken = self._native.take(body, reading, sender, at_ms, gpc=gpc)
        if taken is None:
            return await self.take(source, reading.decode(body, source.name), gpc=gpc, job=job,
                                   received_at_ms=at_ms)  # fmt: skip
        if not (taken.rest or taken.discarded):
            # The commonest: all of it is records, and nobody is told more than how many.
            taken.tally(self.metrics)
            records, kept = cast("list[Record | bytes]", taken.records), len(taken.records)
            if kept:
                await self.appender.append(records)
                self._count_accepted(kept)
            return Intake(kept, [], [])
        shaped = _Shaped([], [], [], [], [], [], urgent=False, accepted=0)
        if taken.rest:
            decoded = reading.decode(body, source.name, taken.rest)
            shaped = self._shape(source, decoded, at_ms, gpc=gpc, job=job, undeclared=None)
        taken.tally(self.metrics)
        discarded = [Discarded(place, reason) for place, reason in taken.discarded]
        joined = shaped._replace(
            records=taken.joined(shaped.places, shaped.records),
            discarded=sorted(shaped.discarded + discarded, key=lambda one: one.index),
            accepted=shaped.accepted + len(taken.records) - len(taken.rest),
        )
        return await self._keep(joined, None)

    async def _keep(self, shaped: _Shaped, undeclared: Mapping[str, int] | None) -> Intake:
        if shaped.records or shaped.letters:
            await self.appender.append(shaped.records, shaped.letters, urgent=shaped.urgent)
        if shaped.suppressions:
            await self.put_suppressions(shaped.suppressions)
            for _, entry in shaped.suppressions:
                self.metrics.count("penstock_suppressions_written_total", reason=entry.reason)
        self._count(shaped)
        return Intake(shaped.accepted, shaped.refused, shaped.discarded, undeclared or {})

    async def _put_alone(self, entries: Entries) -> None:
        await asyncio.to_thread(self.suppressions.put, entries)

    def _count(self, shaped: _Shaped) -> None:
        kept = len(shaped.records) + len(shaped.letters)
        if kept:
            self._count_accepted(kept)
        for letter in shaped.letters:
            self.metrics.count("penstock_events_dead_lettered_total", reason=letter.reason)
        for one in shaped.discarded:
            self.metrics.count("penstock_events_discarded_total", reason=one.reason)

    def _shape(
        self, source: Source, decoded: Decoded, received_at_ms: int, *, gpc: bool, job: str,
        undeclared: dict[str, int] | None,
    ) -> _Shaped:  # fmt: skip
        shaped = _Shaped([], [], [], [], [], [], urgent=False, accepted=0)
        urgent, accepted = False, 0
        for rejected in decoded.rejected:
            self._refuse(shaped, source, received_at_ms, rejected, decoded, gpc=gpc)
        for index, event in decoded.events:
            try:
                record = self.record_of(
                    source, event, received_at_ms, gpc=gpc, job=job, undeclared=undeclared
                )
            except EventRejected as error:
                rejected = Rejected(index, event.message_id, error, decoded.raw(index))
                self._refuse(shaped, source, received_at_ms, rejected, decoded, gpc=gpc)
                continue
            accepted += 1
            if isinstance(record, str):
                shaped.discarded.append(Discarded(index, record))
                continue
            shaped.records.append(record)
            shaped.places.append(index)
            entries = suppression_of(record)
            if entries:
                shaped.suppressions.extend(entries)
            urgent = urgent or record.name in PERMISSION_EVENTS
        return shaped._replace(urgent=urgent, accepted=accepted)

    def _refuse(
        self, shaped: _Shaped, source: Source, received_at_ms: int, rejected: Rejected, decoded: Decoded,
        *, gpc: bool,
    ) -> None:  # fmt: skip
        error = rejected.error
        message_id = rejected.message_id or ""
        shaped.refused.append(
            Refusal(rejected.index, message_id, error.code, error.what, error.where)
        )
        body = kept_body(rejected.raw, decoded, message_id, gpc=gpc)
        use = self._letter_use(source, body, gpc=gpc)
        place = decoded.places[rejected.index] if decoded.places else ""
        if use == consent_evidence.DISCARD and place:
            body = NOTHING  # where it stands tells nothing of anybody
        elif use == consent_evidence.DISCARD:
            # What consent would not let in as a record is not kept as a dead letter either.
            self.metrics.count("penstock_events_discarded_total", reason="refused_without_consent")
            return
        # The id is a function of source and body, so a retry of the same batch keeps one letter.
        digest = event_id(source.name.encode()[:64], message_id + rejected.raw.hex())
        shaped.letters.append(
            DeadLetter(
                letter_id=place or f"edge-{digest:016x}",
                source=source.name,
                received_at_ms=received_at_ms,
                reason=error.code,
                path=error.where,
                what=error.what,
                message_id=message_id,
                body=minimised(body, self.catalog, bare=use == consent_evidence.BARE),
            )
        )

    def _letter_use(self, source: Source, body: bytes, *, gpc: bool) -> str:
        """Return what of a refused event may be kept: the gate of accepted ones, read leniently."""
        said = _read_leniently(body)
        context = said.get("context")
        use = consent_evidence.DISCARD
        spoken = str(said.get("event")) in PERMISSION_EVENTS
        try:
            preferences = preferences_of(
                context if isinstance(context, dict) else {}, deny_unreadable=spoken
            )
        except EventRejected:
            pass  # a word about consent that cannot be read counts as a denial
        else:
            _, use = self._evidence(source, preferences, gpc=gpc)
        if use == consent_evidence.COLLECT:
            return use
        # A word about permission itself is kept in any case, and nothing else.
        return consent_evidence.BARE if spoken else consent_evidence.DISCARD

    def record_of(
        self, source: Source, event: Event, received_at_ms: int, *, gpc: bool = False, job: str = "",
        undeclared: dict[str, int] | None = None,
    ) -> Record | str:  # fmt: skip
        """Return the record of an event, or why consent or the catalog lets nothing of it be kept.

        Fields that nothing declares are counted in `undeclared`, if it is given.

        Raises:
            EventRejected: The event breaks its declaration or names nobody (E3xx).
        """
        name = (event.event or "") if event.type == "track" else event.type
        # A word about permission itself is not lost for a preference that can't be read: that denies.
        said = consent_preferences(event, deny_unreadable=name in PERMISSION_EVENTS)
        evidence, use = self._evidence(source, said, gpc=gpc)
        if use == consent_evidence.DISCARD and name not in PERMISSION_EVENTS:
            return self._why_unknown(said)
        occurred = occurred_at_ms(event, received_at_ms)
        verified = source.verified
        if source.identity_keys and not verified and vouch.MEMBER in event.context:
            verified = self._vouched(source, event, received_at_ms)
        routing = self._route(event, occurred, verified=verified)
        for _ in routing.blocked:
            self.metrics.count("penstock_events_discarded_total", reason="blocked_identifier")
        normalised = self._normalised(event, name)
        if normalised.dropped:
            return "undeclared_event"
        if normalised.undeclared_fields:
            self.metrics.count(
                "penstock_fields_undeclared_total",
                len(normalised.undeclared_fields),
                event=name if name in self.catalog.event_types else event.type,
            )
            if undeclared is not None:
                for field in normalised.undeclared_fields:
                    undeclared[field] = undeclared.get(field, 0) + 1
        properties, traits = normalised.properties, normalised.traits
        if name in self._stamps:
            self._stamp(properties, self._stamps[name])
        bare = False
        if name in PERMISSION_EVENTS:
            # What says which channel and topic is meant is kept whatever consent says; the rest is not.
            rest = properties if use == consent_evidence.COLLECT else {}
            properties = _permission_properties(event) | rest
        elif use == consent_evidence.BARE:
            bare, properties, traits = True, {}, {}
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
            verified=verified,
            evidence=evidence,
            identifiers=() if bare else self._protected(routing.identifiers),
            edges=() if bare else routing.edges,
            properties=properties,
            traits=traits,
            job=job,
            bare=bare,
        )

    def _why_unknown(self, said: Mapping[str, object] | None) -> str:
        """Return the reason of a discard for want of consent: silence, or words that mean nothing here."""
        spoken = [category for category, value in (said or {}).items() if value is not None]
        known = any(map(self.consent.purposes_of, spoken))
        return "consent_category_unknown" if spoken and not known else "consent_unknown"

    def _evidence(
        self, source: Source, preferences: Mapping[str, object] | None, *, gpc: bool
    ) -> tuple[Evidence, str]:
        """Return the evidence to stamp and what to do with the event; few combinations occur."""
        said = tuple(preferences.items()) if preferences else ()
        # A list among the values is no key; True and 1 are one key but not one word.
        plain = True
        for _, value in said:
            if value is not True and value is not False:
                plain = False
        key = (source.name, gpc, said)
        found = self._evidences.get(key) if plain else None
        if found is None:
            evidence = consent_evidence.stamp(preferences, gpc, source.basis, self.consent)
            found = (evidence, consent_evidence.useful(evidence, self.consent))
            if plain and is_short(said):
                if len(self._evidences) >= EVIDENCES_MAX:
                    # No sender may fill it for good, at the cost of all others: both sides begin again.
                    self._evidences.clear()
                    self._native = self._native_of(catalog=self.catalog, identity=self.identity)
                self._evidences[key] = found
                if self._native is not None:
                    use = found[1]
                    why = self._why_unknown(preferences) if use == consent_evidence.DISCARD else use
                    words = cast("tuple[tuple[str, bool], ...]", said)
                    self._native.judge(source.name, words, evidence, why, gpc=gpc)
        return found

    def _normalised(self, event: Event, name: str) -> Normalised:
        if name in PERMISSION_EVENTS and name not in self.catalog.event_types:
            return Normalised({}, {})  # a person's word counts whatever the project declares
        return self.normalise(event)

    def _stamp(self, properties: dict[str, Any], stamps: Sequence[_Stamp]) -> None:
        for stamp in stamps:
            item_id = properties.get(stamp.by)
            leaf = (
                self.find_item(self.make_leaf(ITEM, item_id)) if isinstance(item_id, str) else None
            )
            trait = leaf.traits.get(stamp.attribute) if leaf is not None else None
            if trait is None:
                self.metrics.count("penstock_item_cache_miss_total")
            properties[stamp.field] = trait[3] if trait is not None else None
            properties[f"{stamp.field}.version"] = trait[1] if trait is not None else 0

    def _protected(self, identifiers: tuple[Identifier, ...]) -> tuple[Identifier, ...]:
        """Return identifiers whose raw values are as protected as the trait of the same name."""
        guards = self._guards
        if not guards or not any(one.id_type in guards for one in identifiers):
            return identifiers
        return tuple(
            Identifier(one.id_type, one.leaf, guards[one.id_type](one.value))
            if one.id_type in guards and one.value is not None
            else one
            for one in identifiers
        )

    def _vouched(self, source: Source, event: Event, received_at_ms: int) -> bool:
        """Return whether a signed token says all that the event says of who it is."""
        token = event.context.get(vouch.MEMBER)
        claims, outcome = vouch.read_token(token, source.identity_keys, received_at_ms)
        if claims is not None:
            email = person_email(event)
            whose = event.user_id == claims.sub and (
                email is None or _address(email) == _address(claims.email)
            )
            # A group's traits and a joined user are more than a person may say of themselves.
            if not whose or event.type in ("group", "alias") or external_ids(event):
                outcome = "unvouched"
        self.metrics.count("penstock_identity_tokens_total", outcome=outcome)
        return outcome == vouch.VOUCHED

    def _route(self, event: Event, occurred: int, *, verified: bool) -> Routing:
        return route(
            user_id=event.user_id,
            anonymous_id=event.anonymous_id,
            previous_id=event.previous_id,
            group_id=event.group_id,
            external_ids=[(one.type, one.id) for one in external_ids(event)],
            email=person_email(event),
            type_name=event.type,
            message_id=event.message_id,
            occurred_at_ms=occurred,
            verified=verified,
            tenant=self.tenant,
            make_leaf=self.make_leaf,
            rules=self.identity,
        )


def _stamps_of(catalog: Catalog) -> dict[str, list[_Stamp]]:
    stamps = {
        name: [_Stamp(field.name, field.stamp, field.stamp_by)
               for field in declared.fields.values() if field.stamp]
        for name, declared in catalog.event_types.items()
    }  # fmt: skip
    return {name: found for name, found in stamps.items() if found}


def _permission_properties(event: Event) -> dict[str, Any]:
    # What says which channel and topic is meant is kept even if the project declares no such event.
    return {
        name: str(event.properties[name])
        for name in PERMISSION_PROPERTIES
        if isinstance(event.properties.get(name), str)
    }


def _read_leniently(body: bytes) -> dict[str, Any]:
    """Return a refused event's JSON object, to look into it; empty if it is none."""
    try:
        said = _decoder.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return {}
    return said if isinstance(said, dict) else {}


def _address(text: object) -> str:
    return str(text).strip().lower()


def source_of(
    name: str, kind: str, rank: int, basis: Mapping[str, str],
    identity_keys: Mapping[str, str] | None = None,
) -> Source:  # fmt: skip
    """Return a source from its settings: a `server` key is trusted, a `browser` key is public.

    Raises:
        SettingsError: A key of identity tokens is short, or there are too many (E228).
    """
    keys = dict(identity_keys or {})
    if len(keys) > vouch.KEYS_MAX or any(len(key) < vouch.KEY_CHARS_MIN for key in keys.values()):
        raise SettingsError("E228", f"source `{name}` has identity keys that can't be used",
                            where=f"sources.{name}.identity_keys",
                            fix=f"give each at least {vouch.KEY_CHARS_MIN} random characters, and keep "
                            f"at most {vouch.KEYS_MAX}")  # fmt: skip
    return Source(name, kind == "server", rank, dict(basis), keys)
