"""The auditor: does what lies on disk keep every promise? From the log and the store alone.

report = audit(log, store, step, epoch)
assert report.sound, report.problems

It folds the log once more, leaf by leaf and no further than each stored leaf's version, so it may
be asked at any moment, after a kill too: what the store does not cover yet is `in_flight`. It holds
all leaves in memory: it is for tests, not for a log of a year.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from penstock.core.identity.edges import CLAIMS_MAX
from penstock.core.ids import LeafId, as_hex
from penstock.core.leaf import ID_TILE_MS, ID_TILES, Leaf, decode_leaf, encode_leaf
from penstock.core.record import NO_VERSION, Kind, LogRecord, Record, Version, decode_record
from penstock.core.step import Step
from penstock.flows.generations import folded_records, late_records
from penstock.ports.log import Log
from penstock.ports.store import Store, StoredLeaf

SCAN_LEAVES = 1_000
SHOWN_MAX = 5
"""Examples of one kind of problem that a report names."""

EDGE_LETTER = "edge-"
"""What the ids of the collector's own dead letters start with; those of the fold are another's."""

ONE_SIDED = "only one side holds the edge"
"""Of several partitions this is so for a while too: the other side's record may still be in flight."""

Pair = frozenset[bytes]
"""The two leaves of an edge, whichever said it."""


class LinkViolation(NamedTuple):
    """An edge that one leaf holds and the other side was not told of."""

    leaf: str
    other: str
    what: str


@dataclass(frozen=True)
class AuditReport:
    """What the durable data say. Counts are of primaries.

    Attributes:
        accepted: Records in the log, and events that the edge kept as dead letters.
        applied, deduplicated, dropped, dead: By the stored leaves' own heads; `dead` includes the
            edge's dead letters.
        in_flight: Records of the log that no stored leaf covers yet.
        conserved: Whether `accepted` is the sum of the other five.
        lost: Records that the applied offset covers and no leaf does, as (partition, offset).
        miscounted: Leaves whose heads do not count each of their records exactly once, or that
            applied copies: by the auditor's own memory of ids.
        different: Leaves whose bytes are not those of a fresh fold of their records.
        ahead: Leaves with a version that the log does not reach.
        letters_missing: Events that leaves count as dead and that are not among the dead letters.
        link_violations: Links that are not in the log, and edges that only one side holds.
        message_ids: The message ids of the primaries in the log.
        leaves: Stored leaves, decoded.
    """

    accepted: int
    applied: int
    deduplicated: int
    dropped: int
    dead: int
    in_flight: int
    lost: tuple[tuple[int, int], ...]
    miscounted: tuple[LeafId, ...]
    different: tuple[LeafId, ...]
    ahead: tuple[LeafId, ...]
    letters_missing: int
    link_violations: tuple[LinkViolation, ...]
    message_ids: frozenset[str]
    leaves: dict[LeafId, Leaf]

    @property
    def conserved(self) -> bool:
        """Whether every accepted event is in exactly one of the other counts."""
        return self.accepted == (
            self.applied + self.deduplicated + self.dropped + self.dead + self.in_flight
        )

    @property
    def problems(self) -> list[str]:
        """What does not hold, with a few examples each; empty if all is well."""
        kinds: list[tuple[bool, str, list[str]]] = [
            (not self.conserved, "the conservation law does not hold", [self.equation()]),
            (bool(self.lost), "records count as applied that no leaf covers",
             [f"partition {partition} offset {offset}" for partition, offset in self.lost]),
            (bool(self.miscounted), "leaves count a record twice or not at all", _named(self.miscounted)),
            (bool(self.different), "leaves have other bytes than a replay", _named(self.different)),
            (bool(self.ahead), "leaves are ahead of the log", _named(self.ahead)),
            (self.letters_missing > 0, "dead events have no dead letter", [str(self.letters_missing)]),
            (bool(self.link_violations), "links are missing",
             [f"{one.leaf} - {one.other}: {one.what}" for one in self.link_violations]),
        ]  # fmt: skip
        return [
            f"{what} ({len(examples)}): {'; '.join(examples[:SHOWN_MAX])}"
            for broken, what, examples in kinds
            if broken
        ]

    @property
    def sound(self) -> bool:
        """Whether every promise holds that durable data can show."""
        return not self.problems

    def equation(self) -> str:
        """Return the conservation law in numbers."""
        return (
            f"accepted {self.accepted} = applied {self.applied} + deduplicated {self.deduplicated}"
            f" + dropped {self.dropped} + dead {self.dead} + in flight {self.in_flight}"
        )


def audit(log: Log, store: Store, step: Step, epoch: int) -> AuditReport:
    """Return what a log and a store say of each other; neither is changed.

    Args:
        log: The log; read from its beginning.
        store: The store; nobody else writes to it meanwhile.
        step: The step of the definitions that made the leaves.
        epoch: The epoch of the leaves.

    Raises:
        DataCorrupt: A record or a leaf does not decode, or was made by other definitions (E7xx).
    """
    stored = dict(_scan(store, epoch))
    refold = _Refold(step, stored)
    for partition in range(log.partitions):
        refold.applied = store.applied(epoch, partition)
        refold.generation = log.generations.generation(partition)
        for entry in folded_records(log, partition):
            refold.take(partition, entry, decode_record(entry.value))
        for entry in late_records(log, partition):
            refold.keep(decode_record(entry.value))
    leaves = {
        leaf_id: decode_leaf(leaf_id, held.version, held.parts[0], step.plan)
        for leaf_id, held in stored.items()
    }
    letters = [letter.letter_id for letter in log.dead_letters(pending_only=False)]
    edge_letters = sum(name.startswith(EDGE_LETTER) for name in letters)
    dead = sum(leaf.dead for leaf in leaves.values())
    return AuditReport(
        accepted=refold.primaries + edge_letters,
        applied=sum(leaf.applied for leaf in leaves.values()),
        deduplicated=sum(leaf.deduplicated for leaf in leaves.values()),
        dropped=sum(leaf.dropped for leaf in leaves.values()),
        dead=dead + edge_letters,
        in_flight=refold.in_flight,
        lost=tuple(refold.lost),
        miscounted=tuple(name for name, leaf in leaves.items() if not refold.counts(leaf)),
        different=tuple(name for name, held in stored.items() if not refold.equals(name, held)),
        ahead=tuple(
            name for name, held in stored.items()
            if held.version.offset >= log.head(log.generations.partition(name, held.version.generation))
        ),
        letters_missing=max(dead - (len(letters) - edge_letters), 0),
        link_violations=(*refold.links_missing(), *_one_sided(leaves, refold.links_in_flight)),
        message_ids=frozenset(refold.message_ids),
        leaves=leaves,
    )  # fmt: skip


@dataclass
class _Ids:
    """The auditor's own memory of ids of one leaf, written from design.md and not from the step."""

    records: int = 0
    distinct: int = 0
    tiles: dict[int, int] = field(default_factory=dict)
    jobs: set[tuple[str, int]] = field(default_factory=set)

    def count(self, record: Record, logged_at_ms: int) -> None:
        """Count a primary, and whether it is the first copy within 13 tiles or of its job."""
        self.records += 1
        tile = logged_at_ms // ID_TILE_MS
        seen = self.tiles.get(record.event_id)
        copy = seen is not None and tile - seen < ID_TILES
        if copy or (record.job and (record.job, record.event_id) in self.jobs):
            return
        self.distinct += 1
        self.tiles[record.event_id] = tile
        if record.job:
            self.jobs.add((record.job, record.event_id))


class _Refold:
    """Every record of the log, folded once more as far as the stored leaves claim to have come."""

    def __init__(self, step: Step, stored: dict[LeafId, StoredLeaf]) -> None:
        self.step = step
        self.generation = 0
        self.applied = NO_VERSION
        self.primaries = self.in_flight = 0
        self.lost: list[tuple[int, int]] = []
        self.message_ids: set[str] = set()
        self.links_in_flight: set[tuple[LeafId, Pair]] = set()
        self._versions = {leaf_id: held.version for leaf_id, held in stored.items()}
        self._leaves: dict[LeafId, Leaf] = {}
        self._ids: dict[LeafId, _Ids] = {}
        self._links_owed: list[Record] = []
        self._links_kept: set[tuple[bytes, str]] = set()

    def take(self, partition: int, entry: LogRecord, record: Record) -> None:
        """Count a record, and fold it if the stored leaf covers it."""
        leaf_id = LeafId(record.leaf)
        version = Version(self.generation, entry.offset)
        covered = version <= self._versions.get(leaf_id, NO_VERSION)
        if record.kind == Kind.PRIMARY:
            self.primaries += 1
            self.message_ids.add(record.message_id)
            self.in_flight += not covered
        elif record.kind == Kind.LINK:
            self._links_kept.add((record.leaf, record.message_id))
        if not covered:
            if version <= self.applied:
                self.lost.append((partition, entry.offset))
            self.links_in_flight.update(
                (leaf_id, frozenset((edge.a, edge.b)))
                for edge in record.edges
                if record.kind == Kind.LINK
            )
            return
        leaf = self._leaves.get(leaf_id)
        if leaf is None:
            leaf = self._leaves[leaf_id] = Leaf(leaf_id, self.step.plan.new_states())
        if record.kind == Kind.PRIMARY:
            self._ids.setdefault(leaf_id, _Ids()).count(record, entry.logged_at_ms)
        self.step.fold(
            leaf, record, self.generation, entry.offset, entry.logged_at_ms, self._links_owed
        )

    def keep(self, record: Record) -> None:
        """Note a record that is in the log, and to be copied to where it is folded."""
        if record.kind == Kind.LINK:
            self._links_kept.add((record.leaf, record.message_id))

    def counts(self, stored: Leaf) -> bool:
        """Return whether a stored leaf's head counts each of its records once, and copies as such."""
        ids = self._ids.get(stored.leaf, _Ids())
        taken = stored.applied + stored.dropped
        total = taken + stored.deduplicated + stored.dead
        # Of a quarantined leaf's dead events no ids are kept, so only a bound holds.
        distinct = taken <= ids.distinct if stored.dead else taken == ids.distinct
        return total == ids.records and distinct

    def equals(self, leaf_id: LeafId, held: StoredLeaf) -> bool:
        """Return whether a stored leaf has the bytes of the fresh fold."""
        leaf = self._leaves.get(leaf_id)
        return leaf is not None and held.parts == (encode_leaf(leaf, self.step.plan),)

    def links_missing(self) -> Iterator[LinkViolation]:
        """Yield the links of covered primaries that are not in the log."""
        for link in self._links_owed:
            if (link.leaf, link.message_id) not in self._links_kept:
                edge = link.edges[0]
                other = edge.a if edge.b == link.leaf else edge.b
                yield LinkViolation(
                    as_hex(other), as_hex(link.leaf), "the link of a covered primary is not logged"
                )


def _one_sided(
    leaves: dict[LeafId, Leaf], in_flight: set[tuple[LeafId, Pair]]
) -> Iterator[LinkViolation]:
    """Yield edges that one leaf holds and the other neither holds nor is about to be told of."""
    pairs = {name: {frozenset(pair) for pair in leaf.edges} for name, leaf in leaves.items()}
    for name, leaf in leaves.items():
        for (a, b), edge in leaf.edges.items():
            side = LeafId(b if a == name else a)
            pair = frozenset((a, b))
            if pair in pairs.get(side, ()) or (side, pair) in in_flight:
                continue
            other = leaves.get(side)
            # A claim may be one of too many for the leaf that is claimed; it keeps the smallest.
            full = other is not None and len(other.edges) >= CLAIMS_MAX and not edge.verified
            if not full and not (other is not None and other.quarantined):
                yield LinkViolation(as_hex(name), as_hex(side), ONE_SIDED)


def _scan(store: Store, epoch: int) -> Iterator[tuple[LeafId, StoredLeaf]]:
    after: LeafId | None = None
    while page := store.scan(epoch, after, SCAN_LEAVES):
        yield from page
        after = page[-1][0]


def _named(leaves: tuple[LeafId, ...]) -> list[str]:
    return [as_hex(leaf) for leaf in leaves]
