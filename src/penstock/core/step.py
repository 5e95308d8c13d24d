"""THE step: one record of the log, folded into its leaf. Every runtime is a loop around this."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import IntEnum
from typing import Any, NamedTuple, cast

from penstock.core.consent import evidence as consent_evidence
from penstock.core.consent import ledger
from penstock.core.consent.purpose import PERSONALISATION, ConsentRules
from penstock.core.consent.suppression import PERMISSION_EVENTS
from penstock.core.feature.plan import Plan
from penstock.core.identity import graph, routing
from penstock.core.identity.identifier import ENTITY_TYPES, GROUP
from penstock.core.identity.traits import NEVER, Beneath, fold_trait, purge_trait
from penstock.core.leaf import (
    ID_TILE_MS,
    ID_TILES,
    LEAF_BYTES_MAX,
    Leaf,
    Words,
    expired_id_tile,
    one_text,
)
from penstock.core.record import Evidence, Kind, Record

VERDICTS_MAX = 10_000
SMALL_BYTES = 4_096
"""Of a leaf up to this size what its clock has expired is left until it is read or encoded: to look for
it in every tile of ids was two fifths of a replay."""

_ID_BYTES = 9
_EDGE_BYTES = 96
_TRAIT_BYTES = 24
_CONSENT_BYTES = 40


class Outcome(IntEnum):
    """What became of a record. Every primary is exactly one of applied, deduplicated, dropped, dead."""

    SKIPPED = 0
    """At or below the leaf's version: it was applied before a restart."""
    APPLIED = 1
    DEDUPLICATED = 2
    DROPPED = 3
    """Consent does not let it count."""
    DEAD = 4
    """The identifier is quarantined; the runtime keeps the event as a dead letter."""
    LINKED = 5
    """A link or a cut."""


# Looking a member up on its class costs more than the comparison it is for.
_PRIMARY = int(Kind.PRIMARY)
_NOBODYS = (int(Kind.LOST), int(Kind.SEAL))
_SKIPPED, _APPLIED, _DEDUPLICATED = Outcome.SKIPPED, Outcome.APPLIED, Outcome.DEDUPLICATED
_DROPPED, _DEAD = Outcome.DROPPED, Outcome.DEAD


class Verdict(NamedTuple):
    """What a record's evidence permits and says; the same for all records that carry it."""

    mask: int
    """The permitted purposes as the plan knows them."""
    permitted: frozenset[str]
    words: Words | None
    """The explicit words; None if the ledger must be asked, because a lawful basis is among them."""


class Rules(NamedTuple):
    """What the step needs to know besides the plan; the same for every record of an epoch."""

    consent: ConsentRules
    trait_purposes: Mapping[str, str]
    """Purpose of each trait; a trait that is not named is for `personalisation`."""
    leaf_bytes_max: int = LEAF_BYTES_MAX
    accelerate: Callable[[bytes, bytes], Any] | None = None
    """What makes `penstock.ports.accelerator.Accelerator`, if there is one; the leaves are the same."""


class Step:
    """The step of one set of definitions. Pure but for a cache of consent verdicts.

    Args:
        plan: The compiled features.
        rules: Consent rules, trait purposes and limits.
    """

    def __init__(self, plan: Plan, rules: Rules) -> None:
        self.plan = plan
        self.rules = rules
        self._verdicts: dict[Evidence, Verdict] = {}
        # Most records carry the same evidence as the one before: to compare it costs less than to
        # hash it.
        unknown = Evidence(consent_evidence.UNKNOWN)
        self._latest = (unknown, self.verdict(unknown))
        self._folder = plan.folder
        self._bytes_max = rules.leaf_bytes_max
        self._enter_tile(0)

    def _enter_tile(self, logged_at_ms: int) -> None:
        """Remember the tile of ids of an instant: nearly every record is logged in that of the one before."""
        self._tile = logged_at_ms // ID_TILE_MS
        self._tile_from_ms = self._tile * ID_TILE_MS
        self._tile_until_ms = self._tile_from_ms + ID_TILE_MS

    def verdict(self, evidence: Evidence) -> Verdict:
        """Return what a record's evidence permits and says."""
        verdict = self._verdicts.get(evidence)
        if verdict is None:
            permitted = consent_evidence.permitted(evidence, self.rules.consent)
            verdict = Verdict(self.plan.mask(permitted), permitted, _words(evidence))
            if len(self._verdicts) >= VERDICTS_MAX:
                self._verdicts.clear()
            self._verdicts[evidence] = verdict
        return verdict

    def fold(
        self, leaf: Leaf, record: Record, generation: int, offset: int, logged_at_ms: int,
        links: list[Record],
    ) -> Outcome:  # fmt: skip
        """Fold one record into its leaf.

        Args:
            leaf: The record's leaf; changed in place.
            record: A record whose `leaf` is this leaf.
            generation: The log's generation.
            offset: The record's offset.
            logged_at_ms: The log's stamp of the record.
            links: Link records for edges that this leaf did not hold yet are appended here.

        Laws:
            The leaf's bytes are a function of the records folded, in any batching; of their set,
            while their tiles are live and copies are equal.
        """
        if generation <= leaf.generation and (
            offset <= leaf.offset or generation < leaf.generation
        ):
            return _SKIPPED
        leaf.generation = generation
        leaf.offset = offset
        if not self._tile_from_ms <= logged_at_ms < self._tile_until_ms:
            self._enter_tile(logged_at_ms)
        id_tile = clock_tile = self._tile
        clock_ms = leaf.clock_ms
        if logged_at_ms > clock_ms:
            leaf.clock_ms = logged_at_ms
            if clock_ms < self._tile_from_ms and leaf.size > SMALL_BYTES:
                self.expire(leaf)
        elif clock_ms >= self._tile_until_ms:
            # Stamps fell: what the leaf's clock has forgotten is not known, still held here or not.
            clock_tile = clock_ms // ID_TILE_MS
        if record.kind != _PRIMARY:
            return _SKIPPED if record.kind in _NOBODYS else self._fold_link(leaf, record)
        if leaf.value is None:
            _name(leaf, record)
        event, ids, job = record.event_id, leaf.ids, record.job
        seen = ids.get(event)
        if (seen is not None and seen > clock_tile - ID_TILES) or (
            job and event in leaf.jobs.get(job, ())
        ):
            leaf.deduplicated += 1
            if job and not leaf.quarantined:
                self._remember(leaf, job, event)
            return _DEDUPLICATED
        if leaf.quarantined:
            leaf.dead += 1
            return _DEAD
        # A job's records are remembered twice: as long as the job can be run again, and like all
        # others for those who send the same event while it runs.
        ids[event] = id_tile
        leaf.size += _ID_BYTES
        if job:
            self._remember(leaf, job, event)
        evidence = record.evidence
        if evidence != self._latest[0]:
            self._latest = (evidence, self.verdict(evidence))
        verdict = self._latest[1]
        if verdict.words is None or record.name == ledger.PREFERENCE_UPDATED:
            self._fold_consent(leaf, record)
        elif verdict.words:
            self._fold_words(leaf, record, verdict.words)
        if record.bare or not verdict.permitted:
            if record.edges and record.name in PERMISSION_EVENTS:
                # Whom a word about permission concerns is part of it: a denial must reach them.
                self._fold_edges(leaf, record, links)
            leaf.dropped += 1
            outcome = _DROPPED
        else:
            if record.edges or record.traits:
                self._fold_person(leaf, record, verdict.permitted, links)
            folder = self._folder(record.name)
            if folder is not None and record.id_type not in ENTITY_TYPES:
                leaf.size += folder(leaf.states, record, verdict.mask)
            leaf.applied += 1
            outcome = _APPLIED
        if leaf.size > self._bytes_max:
            self._weigh(leaf)
        return outcome

    def _remember(self, leaf: Leaf, job: str, event: int) -> None:
        """Keep an event among a job's, even one that came another way first: the job may be run late."""
        if not leaf.jobs:
            leaf.jobs = {}
        events = leaf.jobs.setdefault(job, set())
        if event not in events:
            events.add(event)
            leaf.size += _ID_BYTES
            if leaf.size > self._bytes_max:
                self._weigh(leaf)

    def _fold_person(
        self, leaf: Leaf, record: Record, permitted: frozenset[str], links: list[Record]
    ) -> None:
        if record.edges:
            self._fold_edges(leaf, record, links)
        # A group's traits are the group's: under a public key the event itself is a person's.
        if record.type == "identify" or (record.type == "group" and record.id_type == GROUP):
            self._fold_traits(leaf, record, permitted)

    @staticmethod
    def _fold_edges(leaf: Leaf, record: Record, links: list[Record]) -> None:
        if not leaf.edges:
            leaf.edges = {}
        held = leaf.edges
        links.extend(routing.missing_links(record, held))
        for edge in record.edges:
            if graph.fold_edge(held, edge):
                leaf.size += _EDGE_BYTES

    def _fold_traits(self, leaf: Leaf, record: Record, permitted: frozenset[str]) -> None:
        purposes = self.rules.trait_purposes
        # A claim under a public key ranks below every verified source.
        rank = record.source_rank if record.verified else min(record.source_rank, 0) - 1
        at = (rank, record.occurred_at_ms, record.event_id)
        for name, value in record.traits.items():
            purpose = purposes.get(name, PERSONALISATION)
            if purpose in permitted:
                before = _trait_bytes(leaf, name)
                if not leaf.traits:
                    leaf.traits = {}
                beneath = fold_trait(
                    leaf.traits, leaf.beneath.get(name, ()), name, (*at, value), leaf.purged.get(purpose, NEVER)
                )  # fmt: skip
                _put_beneath(leaf, name, beneath)
                leaf.size += _trait_bytes(leaf, name) - before

    def _fold_consent(self, leaf: Leaf, record: Record) -> None:
        consent = leaf.own_consent()
        for purpose, entry, purge_ms in ledger.entries_of(record):
            standing = consent.get(purpose)
            if standing is None:
                consent[purpose] = entry
                leaf.size += _CONSENT_BYTES
            else:
                consent[purpose] = ledger.merge(standing, entry)
            if purge_ms is not None and purge_ms > leaf.purged.get(purpose, -1):
                if not leaf.purged:
                    leaf.purged = {}
                leaf.purged[purpose] = purge_ms
                self._purge_traits(leaf, purpose, purge_ms)

    def _purge_traits(self, leaf: Leaf, purpose: str, purge_ms: int) -> None:
        """Blank what was said before a withdrawal; the registers stand, so that order means nothing."""
        for name in leaf.traits:
            if self.rules.trait_purposes.get(name, PERSONALISATION) == purpose:
                before = _trait_bytes(leaf, name)
                beneath = purge_trait(leaf.traits, leaf.beneath.get(name, ()), name, purge_ms)
                _put_beneath(leaf, name, beneath)
                leaf.size += _trait_bytes(leaf, name) - before

    @staticmethod
    def _fold_words(leaf: Leaf, record: Record, words: Words) -> None:
        """Fold explicit words as `_fold_consent` does, but those that were said before only when asked."""
        # Comparisons, because calls of min and max would be a fortieth of the whole fold.
        at_ms = record.occurred_at_ms
        if at_ms > record.received_at_ms:  # noqa: PLR1730
            at_ms = record.received_at_ms
        if at_ms < 0:  # noqa: PLR1730
            at_ms = 0
        if words is leaf.words:
            if at_ms > leaf.words_at_ms or (
                at_ms == leaf.words_at_ms and record.event_id > leaf.words_event
            ):
                leaf.words_at_ms = at_ms
                leaf.words_event = record.event_id
            return
        known = leaf.consent
        for purpose, _, _ in words:
            if purpose not in known:
                leaf.size += _CONSENT_BYTES
        if known:
            leaf.own_consent()
        leaf.words = words
        leaf.words_at_ms = at_ms
        leaf.words_event = record.event_id

    def _fold_link(self, leaf: Leaf, record: Record) -> Outcome:
        leaf.links += 1
        if leaf.value is None:
            _name(leaf, record)
        if not leaf.edges:
            leaf.edges = {}
        for edge in record.edges:
            if not leaf.quarantined and graph.fold_edge(leaf.edges, edge):
                leaf.size += _EDGE_BYTES
        if leaf.size > self._bytes_max:
            self._weigh(leaf)
        return Outcome.LINKED

    def _weigh(self, leaf: Leaf) -> None:
        """Measure a leaf whose running upper bound passed the limit; quarantine it if it is large.

        A quarter of the limit is left free, so that a large leaf is not measured at every record.
        """
        self.expire(leaf)
        leaf.quarantined = leaf.quarantined or leaf.size > self._bytes_max // 4 * 3

    def expire(self, leaf: Leaf) -> None:
        """Drop what the leaf's clock has expired, and measure what is left.

        Called when T enters a new tile of ids in a leaf that is not small, and when the running size
        passes the limit, and at no other time, so that `size`, and with it the quarantine, is a
        function of the records and not of batches.
        """
        floor = expired_id_tile(leaf.clock_ms)
        leaf.ids = {event: tile for event, tile in leaf.ids.items() if tile > floor}
        self.plan.expire(leaf.states, leaf.clock_ms, leaf.purged)
        leaf.size = (
            _ID_BYTES * (len(leaf.ids) + sum(len(events) for events in leaf.jobs.values()))
            + _EDGE_BYTES * len(leaf.edges)
            + _CONSENT_BYTES * len(leaf.consent)
            + sum(_trait_bytes(leaf, name) for name in leaf.traits)
            + self.plan.measure(leaf.states)
        )


def _words(evidence: Evidence) -> Words | None:
    words = [
        (purpose, denied, consent_evidence.origin(evidence, purpose))
        for purposes, denied in ((evidence.denied, True), (evidence.granted, False))
        for purpose in purposes
    ]
    if evidence.source == consent_evidence.UNKNOWN:
        return ()
    return None if any(source.startswith("basis") for _, _, source in words) else tuple(words)


def _name(leaf: Leaf, record: Record) -> None:
    leaf.id_type = leaf.id_type or one_text(record.id_type)
    for identifier in record.identifiers:
        if identifier.leaf == record.leaf:
            leaf.value = identifier.value


def _put_beneath(leaf: Leaf, name: str, beneath: Beneath) -> None:
    if beneath:
        if not leaf.beneath:
            leaf.beneath = {}
        leaf.beneath[name] = beneath
    elif name in leaf.beneath:
        del leaf.beneath[name]


def _trait_bytes(leaf: Leaf, name: str) -> int:
    standing = leaf.traits.get(name)
    if standing is None:
        return 0
    each = _TRAIT_BYTES + len(name)
    return each + _value_bytes(standing[3]) + sum(
        each + _value_bytes(one[3]) for one in leaf.beneath.get(name, ())
    )  # fmt: skip


def _value_bytes(value: object) -> int:
    if isinstance(value, str):
        return len(value) + 2
    if isinstance(value, list | tuple):
        items = cast("Sequence[object]", value)
        return 2 + sum(_value_bytes(item) for item in items)
    if isinstance(value, dict):
        pairs = cast("dict[object, object]", value)
        return 2 + sum(len(str(key)) + 2 + _value_bytes(item) for key, item in pairs.items())
    return 9
