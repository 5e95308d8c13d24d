"""A leaf: the state kept for one identifier, its head and its features, and their bytes."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, cast

import msgspec

from penstock.core.consent.ledger import ConsentEntry, merge
from penstock.core.errors import DamagedLeaf, DataCorrupt
from penstock.core.identity.traits import Beneath, Trait, from_line, in_line
from penstock.core.ids import LeafId
from penstock.core.record import NO_VERSION, Edge, Version, format_of
from penstock.core.time import HOUR_MS

if TYPE_CHECKING:
    from penstock.core.feature.plan import Plan

LEAF_FORMAT: Final = 1
LEAF_BYTES_MAX: Final = 256 * 1024
ID_TILE_MS: Final = 6 * HOUR_MS
ID_TILES: Final = 13
"""Ids are remembered for 13 tiles of 6 h: at least 72 h after the event was logged."""

Words = tuple[tuple[str, bool, str], ...]
"""(purpose, denied, source) of each explicit word of consent that one record says."""


NOTHING: Final = cast("dict[Any, Any]", MappingProxyType({}))
"""What a leaf holds of jobs, edges, purges and traits before the first: four dicts a leaf would be an
eighth of its memory. It cannot be changed; whoever adds the first one puts a dict in its place."""


class Leaf:
    """The decoded, mutable state of one identifier. One owner folds into it; readers do not keep it.

    Attributes:
        leaf: Its id.
        generation, offset: The last record applied; not part of the bytes that parity compares.
        base: The version that the store holds.
        dirty_from: The first offset applied since the leaf was last encoded, or -1.
        id_type, value: What it identifies; the value is as protected at the edge.
        clock_ms: T, the greatest `logged_at_ms` of its records.
        applied, deduplicated, dropped, dead: Primaries by what became of them; they sum to all.
        links: Link records folded.
        ids: event_id -> tile of `logged_at_ms`.
        jobs: import job -> event ids, kept as long as the job can be run again.
        edges: (a, b) -> the edge that stands.
        words: The words of consent folded last, as `Verdict.words` has them, or None; those who say the
            same again only move `words_at_ms` and `words_event`.
        words_at_ms, words_event: The latest effective time of `words` and its event; (-1, 0) if
            the leaf's own ledger has it.
        purged: purpose -> `purged_before`, a max register of instants.
        traits: name -> register.
        beneath: name -> the registers that it beat and that may stand again, for the names that have any.
        states: One state per stateful feature of the plan.
        size: An estimate of the encoded bytes, a pure function of the records folded.
        quarantined: True once the leaf went over its limit; its events are dead letters then.
    """

    __slots__ = (
        "_consent", "applied", "base", "beneath", "clock_ms", "dead", "deduplicated", "dirty_from", "dropped",
        "edges", "generation", "id_type", "ids", "jobs", "leaf", "links", "offset", "purged",
        "quarantined", "size", "states", "traits", "value", "words", "words_at_ms", "words_event",
    )  # fmt: skip

    def __init__(self, leaf: LeafId, states: list[Any]) -> None:
        self.leaf = leaf
        self.generation, self.offset = NO_VERSION
        self.base: Version = NO_VERSION
        self.dirty_from = -1
        self.id_type = ""
        self.value: str | None = None
        self.clock_ms = 0
        self.applied = 0
        self.deduplicated = 0
        self.dropped = 0
        self.dead = 0
        self.links = 0
        self.ids: dict[int, int] = {}
        self.jobs: dict[str, set[int]] = NOTHING
        self.edges: dict[tuple[bytes, bytes], Edge] = NOTHING
        self._consent: dict[str, ConsentEntry] = NOTHING
        self.words: Words | None = None
        self.words_at_ms = -1
        self.words_event = 0
        self.purged: dict[str, int] = NOTHING
        self.traits: dict[str, Trait] = NOTHING
        self.beneath: dict[str, Beneath] = NOTHING
        self.states = states
        self.size = 0
        self.quarantined = False

    @property
    def version(self) -> Version:
        """The (generation, offset) of the last record applied."""
        return Version(self.generation, self.offset)

    @property
    def consent(self) -> Mapping[str, ConsentEntry]:
        """The ledger, purpose -> entry, to read."""
        if self.words_at_ms < 0:
            return self._consent
        if self._consent:
            return self.own_consent()
        # Of most leaves one evidence is all that they ever say: it is not kept a second time.
        return self._said({})

    def own_consent(self) -> dict[str, ConsentEntry]:
        """Return the ledger, purpose -> entry, to change: what `words` said last is brought into it."""
        if not self._consent:
            self._consent = {}
        if self.words_at_ms >= 0:
            self._said(self._consent)
            self.words_at_ms = -1
            self.words_event = 0
        return self._consent

    def _said(self, ledger: dict[str, ConsentEntry]) -> dict[str, ConsentEntry]:
        """Fold what `words` said last into a ledger; of words that say the same the greatest stands for all."""
        entry = None
        for purpose, denied, source in self.words or ():
            # Entries never change, so purposes of which the same was said share one.
            if entry is None or entry.denied is not denied or entry.source != source:
                entry = ConsentEntry(self.words_at_ms, denied, self.words_event, source)
            standing = ledger.get(purpose)
            ledger[purpose] = entry if standing is None else merge(standing, entry)
        return ledger


class _Body(msgspec.Struct, array_like=True, frozen=True):
    format: int
    fingerprint: str
    id_type: str
    value: str | None
    clock_ms: int
    counts: tuple[int, int, int, int, int]
    ids: list[tuple[int, list[int]]]
    jobs: list[tuple[str, list[int]]]
    edges: list[Edge]
    consent: list[tuple[str, ConsentEntry]]
    purged: list[tuple[str, int]]
    traits: list[tuple[str, Trait]]
    """A name is repeated for the registers beneath the one that stands, which comes last."""
    size: int
    quarantined: bool
    states: list[Any]


_ID_TYPES: dict[str, str] = {}
_ID_TYPES_MAX: Final = 1_000
"""Clients may name types of their own."""

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(_Body)


def one_text(id_type: str) -> str:
    """Return the one text of an id type that all leaves share: there are few types and many leaves."""
    known = _ID_TYPES.get(id_type)
    if known is not None:
        return known
    if len(_ID_TYPES) < _ID_TYPES_MAX:
        _ID_TYPES[id_type] = id_type
    return id_type


def expired_id_tile(clock_ms: int) -> int:
    """Return the newest tile of ids that is forgotten when the leaf's clock is at `clock_ms`."""
    return clock_ms // ID_TILE_MS - ID_TILES


def encode_leaf(leaf: Leaf, plan: Plan) -> bytes:
    """Return the canonical bytes of a leaf: sorted, and projected by its clock and its purges.

    Two leaves that folded the same records in any batching have the same bytes.
    """
    # Most leaves have no jobs, edges, purges or traits: what is empty is not sorted.
    body = _Body(
        format=LEAF_FORMAT,
        fingerprint=plan.fingerprint,
        id_type=leaf.id_type,
        value=leaf.value,
        clock_ms=leaf.clock_ms,
        counts=(leaf.applied, leaf.deduplicated, leaf.dropped, leaf.dead, leaf.links),
        ids=_ids_by_tile(leaf),
        jobs=[(job, sorted(events)) for job, events in sorted(leaf.jobs.items())]
        if leaf.jobs
        else [],
        edges=[leaf.edges[key] for key in sorted(leaf.edges)] if leaf.edges else [],
        consent=sorted(leaf.consent.items(), key=_name_of),
        purged=sorted(leaf.purged.items()) if leaf.purged else [],
        traits=in_line(leaf.traits, leaf.beneath) if leaf.traits else [],
        size=leaf.size,
        quarantined=leaf.quarantined,
        states=plan.encode(leaf.states, leaf.clock_ms, leaf.purged),
    )
    return _encoder.encode(body)


def _name_of(item: tuple[str, object]) -> str:
    return item[0]


def _ids_by_tile(leaf: Leaf) -> list[tuple[int, list[int]]]:
    """Return the ids that are remembered, by tile, both ascending."""
    floor = expired_id_tile(leaf.clock_ms)
    live = set(leaf.ids.values())
    if len(live) == 1 and (only := live.pop()) > floor:
        return [(only, sorted(leaf.ids))]  # the most frequent case
    tiles: dict[int, list[int]] = {}
    for event, tile in leaf.ids.items():
        if tile > floor:
            events = tiles.get(tile)
            if events is None:
                tiles[tile] = [event]
            else:
                events.append(event)
    for events in tiles.values():
        events.sort()
    return sorted(tiles.items())


def decode_leaf(leaf_id: LeafId, version: Version, raw: bytes, plan: Plan) -> Leaf:
    """Return the leaf of its bytes.

    Raises:
        DataCorrupt: The bytes are not a leaf (E704), or were made by other definitions (E705).
    """
    try:
        body = _decoder.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        if format_of(raw) > LEAF_FORMAT:
            raise _other_version() from error
        raise DamagedLeaf("E704", f"leaf {leaf_id.hex()} of the store does not decode", leaf=leaf_id,
                          fix="rebuild the store with `penstock replay --accept`") from error  # fmt: skip
    if body.format != LEAF_FORMAT or body.fingerprint != plan.fingerprint:
        raise _other_version()
    leaf = Leaf(leaf_id, plan.decode(body.states))
    leaf.generation, leaf.offset = version
    leaf.base = version
    leaf.id_type = one_text(body.id_type)
    leaf.value = body.value
    leaf.clock_ms = body.clock_ms
    leaf.applied, leaf.deduplicated, leaf.dropped, leaf.dead, leaf.links = body.counts
    leaf.ids = {event: tile for tile, events in body.ids for event in events}
    if body.jobs:
        leaf.jobs = {job: set(events) for job, events in body.jobs}
    if body.edges:
        leaf.edges = {(edge.a, edge.b): edge for edge in body.edges}
    if body.consent:
        leaf.own_consent().update(body.consent)
    if body.purged:
        leaf.purged = dict(body.purged)
    if body.traits:
        leaf.traits, beneath = from_line(body.traits)
        leaf.beneath = beneath or NOTHING
    leaf.size = body.size
    leaf.quarantined = body.quarantined
    return leaf


def _other_version() -> DataCorrupt:
    return DataCorrupt("E705", "a stored leaf was made by other definitions or another version",
                       fix="rebuild the store with `penstock replay --accept`")  # fmt: skip
