"""What happened is told to other systems: decisions as they are made, profiles as they change.

A feed goes through the log a second time, beside the fold, and never before it: what is told of a
record's profile is read from the store once the store has applied the record. So nothing is queued
that a crash could lose, and a process that ends leaves no more behind than how far it came.
"""

from __future__ import annotations

from collections.abc import Coroutine, Iterable, Mapping, Sequence
from hashlib import blake2b
from typing import Any, Final, NamedTuple, Protocol, TypeVar

import msgspec

from penstock.core.errors import DamagedLeaf
from penstock.core.feature.plan import Plan
from penstock.core.generations import Generations
from penstock.core.identity.identifier import ENTITY_TYPES
from penstock.core.ids import LeafId
from penstock.core.leaf import Leaf, decode_leaf
from penstock.core.profile import Profile
from penstock.core.record import Kind, LogRecord, Record, decode_record, leaf_of
from penstock.core.time import format_instant
from penstock.flows.person import Definitions, Person, find_person, profile_of, register_leaves
from penstock.flows.track import DECIDED, INTERNAL_SOURCE
from penstock.ports.clock import Clock
from penstock.ports.feed import Message
from penstock.ports.log import Log
from penstock.ports.profiles import LeafRead, Profiles
from penstock.ports.store import Store
from penstock.ports.suppressions import Suppressions

VALUE_BYTES_MAX: Final = 1_000_000
"""A profile larger than that is told without its features and traits, as `oversized`: a topic takes no more."""

EDGES_MAX: Final = 200
"""Edges of a leaf whose other ends are looked at as well; no person has so many."""

TOLD_MAX: Final = 200_000
"""Leaves of which is remembered what was told last, so that the same is not told again."""

T = TypeVar("T")

_DECIDED: Final = DECIDED.encode()
_json = msgspec.json.Encoder(order="deterministic")

Batch = Mapping[int, Sequence[LogRecord]]
"""Records by partition, as they follow one another."""


class Source(Protocol):
    """What a feed tells."""

    @property
    def mark(self) -> str:
        """By what it tells; by another mark all is told anew."""
        ...

    def ends(self) -> list[int]:
        """Return, by partition, the offset up to which records may be told of, exclusive."""
        ...

    def messages(self, batch: Batch) -> list[Message]:
        """Return what is to be said because of records."""
        ...

    def begin(self) -> list[int]:
        """Return the offsets to go on from once all is told anew by `everybody`."""
        ...

    def everybody(self, after: LeafId | None, limit: int) -> list[LeafId]:
        """Return the next of the leaves that are told of to tell all anew; empty if records alone tell."""
        ...

    def about(self, leaves: Iterable[LeafId]) -> list[Message]:
        """Return what is to be said of leaves as they are now."""
        ...

    def said(self, messages: Sequence[Message]) -> None:
        """Note that this stands in the topic."""
        ...

    def forget(self) -> None:
        """Note that it is not known what stands in the topic: another may have written."""
        ...


# -- decisions


class DecisionSource:
    """Tells each decision that is in the log. One that is there twice is told twice, under one id.

    Args:
        log: The log.
    """

    def __init__(self, log: Log) -> None:
        self._log = log
        self.mark = _mark(log.identity)

    def ends(self) -> list[int]:
        """Return the ends of the log: what is in it is durable."""
        return [self._log.head(partition) for partition in range(self._log.partitions)]

    def begin(self) -> list[int]:
        """Return the beginning of the log: all decisions are in it."""
        return [0] * self._log.partitions

    def everybody(self, after: LeafId | None, limit: int) -> list[LeafId]:
        """Return nobody: leaves hold no decisions."""
        return []

    def about(self, leaves: Iterable[LeafId]) -> list[Message]:
        """Return nothing: leaves hold no decisions."""
        return []

    def messages(self, batch: Batch) -> list[Message]:
        """Return the decisions among records."""
        return [
            Message(LeafId(record.leaf), _decision_json(record, self._log.generations, partition, entry.offset))
            for partition, entries in batch.items()
            for entry in entries
            if _DECIDED in entry.value and _is_decision(record := decode_record(entry.value))
        ]  # fmt: skip

    def said(self, messages: Sequence[Message]) -> None:
        """Nothing is remembered of decisions."""

    def forget(self) -> None:
        """Nothing is remembered of decisions."""


def _is_decision(record: Record) -> bool:
    return (
        record.kind == Kind.PRIMARY
        and record.name == DECIDED
        and record.source == INTERNAL_SOURCE
        and record.properties.get("email_id") == record.message_id
    )


def _decision_json(record: Record, known: Generations, partition: int, offset: int) -> bytes:
    said = record.properties
    return _json.encode({
        "decision_id": record.message_id,
        "recipient": record.leaf.hex(),
        "recipient_type": record.id_type,
        "campaign": said.get("campaign_id"),
        "campaign_version": said.get("campaign_version"),
        "send": said.get("send"),
        "served": said.get("served"),
        "permitted": list(record.evidence.granted),
        "decided_at": format_instant(record.occurred_at_ms),
        "log": {"generation": known.generation(partition), "partition": known.number(partition), "offset": offset},
    })  # fmt: skip


# -- profiles


class Telling(NamedTuple):
    """By what profiles are read now, and where their leaves are."""

    epoch: int
    plan: Plan
    definitions: Definitions


class ProfileRules(NamedTuple):
    """What of a profile other systems are told."""

    purpose: str
    """Who does not permit it has no profile for them."""
    traits: frozenset[str] = frozenset()
    format: str = "json"
    """How values are written."""


class StoredLeaves(Profiles):
    """Leaves as the store has them, each read once. Implements `ports.profiles.Profiles`.

    Args:
        store: The store.
        epoch: Whose leaves.
        plan: What they were folded by.
    """

    def __init__(self, store: Store, epoch: int, plan: Plan) -> None:
        self._store = store
        self._epoch = epoch
        self._plan = plan
        self._known: dict[LeafId, Leaf | DamagedLeaf | None] = {}

    def take(self, leaves: Iterable[LeafId]) -> None:
        """Read those that are not known, in one round trip."""
        absent = [leaf for leaf in dict.fromkeys(leaves) if leaf not in self._known]
        if not absent:
            return
        try:
            stored = self._store.read(self._epoch, absent)
        except DamagedLeaf as error:
            if len(absent) == 1:
                self._known[absent[0]] = error
                return
            for leaf in absent:  # one that does not read back concerns nobody else
                self.take([leaf])
            return
        for leaf, one in zip(absent, stored, strict=True):
            try:
                found = (
                    None
                    if one is None
                    else decode_leaf(leaf, one.version, one.parts[0], self._plan)
                )
            except DamagedLeaf as error:
                found = error
            self._known[leaf] = found

    def leaf(self, leaf: LeafId) -> Leaf | None:
        """Return a leaf.

        Raises:
            DamagedLeaf: It does not read back (E704).
        """
        self.take([leaf])
        found = self._known[leaf]
        if isinstance(found, DamagedLeaf):
            raise found
        return found

    async def read(self, leaves: Sequence[LeafId]) -> LeafRead:
        """Return leaves; see `ports.profiles.Profiles`."""
        self.take(leaves)
        return LeafRead([self.leaf(one) for one in leaves], 0, live=True)


class ProfileSource:
    """Tells the newest profile of everybody whose leaves changed, under the strongest leaf of the person.

    Args:
        log: The log.
        store: Where leaves are; a record is told of once it is applied there.
        suppressions: The register, which withdrawals are in.
        telling: What serves now.
        rules: What is told.
        clock: Tells now, the end of every window.
    """

    def __init__(
        self, *, log: Log, store: Store, suppressions: Suppressions, telling: Telling, rules: ProfileRules, clock: Clock
    ) -> None:  # fmt: skip
        self._log = log
        self._store = store
        self._suppressions = suppressions
        self._telling = telling
        self._rules = rules
        self._clock = clock
        told = telling.definitions
        parts = (
            log.identity, telling.plan.fingerprint, rules.purpose, sorted(rules.traits), rules.format, told.identity, told.consent,
            dict(told.trait_purposes),
        )  # fmt: skip
        self._mark = _mark(*parts)
        self._told: dict[LeafId, bytes] = {}

    @property
    def mark(self) -> str:
        """Of the definitions and of what is told: by others every profile is another, whoever had them before."""
        return self._mark

    def ends(self) -> list[int]:
        """Return up to where the store has applied the log."""
        log, epoch = self._log, self._telling.epoch
        applied = [self._store.applied(epoch, partition) for partition in range(log.partitions)]
        ours = [log.generations.generation(partition) for partition in range(len(applied))]
        return [
            one.offset + 1 if one.generation == own else 0
            for one, own in zip(applied, ours, strict=True)
        ]

    def begin(self) -> list[int]:
        """Return how far leaves are: what they hold is told by `everybody`."""
        return self.ends()

    def everybody(self, after: LeafId | None, limit: int) -> list[LeafId]:
        """Return the next of all leaves."""
        return self._store.ids(self._telling.epoch, after, limit)

    def messages(self, batch: Batch) -> list[Message]:
        """Return the profiles that records changed, each once, and a tombstone for whoever has none."""
        return self.about(
            LeafId(leaf_of(entry.value)) for entries in batch.values() for entry in entries
        )

    def about(self, leaves: Iterable[LeafId]) -> list[Message]:
        """Return the profiles of some leaves, and of those that they are joined to."""
        touched, telling = dict.fromkeys(leaves), self._telling
        known = StoredLeaves(self._store, telling.epoch, telling.plan)
        known.take(touched)
        told: dict[LeafId, Message] = {}
        for start in self._starts(touched, known):
            try:
                self._tell(start, known, told)
            except DamagedLeaf:
                continue  # `penstock doctor` and whoever reads this person say so
        return [one for one in told.values() if self._told.get(one.leaf) != _digest(one.value)]

    def _starts(self, touched: Iterable[LeafId], leaves: StoredLeaves) -> list[LeafId]:
        """Return the leaves that changed, and those that they are joined to: theirs may be the person."""
        starts = dict.fromkeys(touched)
        for leaf in touched:
            try:
                found = leaves.leaf(leaf)
            except DamagedLeaf:
                continue
            if found is not None and found.id_type not in ENTITY_TYPES:
                for edge in [*found.edges.values()][:EDGES_MAX]:
                    starts[LeafId(edge.b if edge.a == leaf else edge.a)] = None
        leaves.take(starts)
        return [*starts]

    def _tell(self, start: LeafId, leaves: StoredLeaves, told: dict[LeafId, Message]) -> None:
        found = leaves.leaf(start)
        if start in told or found is None or not found.id_type or found.id_type in ENTITY_TYPES:
            return
        definitions = self._telling.definitions
        person = _at_once(find_person(leaves, start, definitions))
        primary = person.resolution.leaves[0]
        if primary != start:
            # It is told under the strongest leaf; under this one it may have been, while it was alone.
            told[start] = Message(start, None)
            self._tell(primary, leaves, told)
            return
        told[start] = Message(start, self._value(person))

    def _value(self, person: Person) -> bytes | None:
        now_ms = self._clock.now_ms()
        register = self._suppressions.get(register_leaves(person))
        profile = profile_of(person, self._telling.definitions, None, now_ms, register)
        traits = {
            name: value for name, value in profile.traits.items() if name in self._rules.traits
        }
        if self._rules.purpose not in profile.permitted or not (profile.features or traits):
            return None
        shown = self._shown(person, profile)
        value = _json.encode({**shown, "features": profile.features, "traits": traits})
        if len(value) > VALUE_BYTES_MAX:
            return _json.encode({**shown, "features": {}, "traits": {}, "oversized": True})
        return value

    def _shown(self, person: Person, profile: Profile) -> dict[str, Any]:
        offsets: dict[str, int] = {}
        known = self._log.generations
        for leaf in person.leaves:
            partition = str(known.partition(leaf.leaf, leaf.generation))
            offsets[partition] = max(leaf.offset, offsets.get(partition, -1))
        return {
            "person": person.start.hex(),
            "leaves": [leaf.hex() for leaf in profile.leaves],
            "permitted": sorted(profile.permitted),
            "withheld": list(profile.withheld),
            "bounded": person.bounded,
            "as_of": format_instant(profile.as_of_ms),
            "definitions": profile.definitions,
            "version": {"generation": known.newest, "offsets": offsets},
        }

    def said(self, messages: Sequence[Message]) -> None:
        """Remember what stands in the topic, so that it is not said again while nothing changes."""
        if len(self._told) + len(messages) > TOLD_MAX:
            self._told.clear()
        for one in messages:
            self._told[one.leaf] = _digest(one.value)

    def forget(self) -> None:
        """Say everything again that is asked for: it is not known what stands there."""
        self._told.clear()


def _mark(*parts: object) -> str:
    """Return what stands for all that is told by, and for the log that it is told of."""
    by = msgspec.msgpack.encode(parts, order="deterministic", enc_hook=sorted)
    return blake2b(by, digest_size=16).hexdigest()


def _at_once(work: Coroutine[Any, Any, T]) -> T:
    """Return what comes of a coroutine that waits for nothing, on a thread without a loop."""
    try:
        work.send(None)
    except StopIteration as end:
        return end.value
    raise AssertionError("stored leaves are read at once")


def _digest(value: bytes | None) -> bytes:
    """Return what is compared of a value: all of it but until when its windows reach and how it came to be."""
    if value is None:
        return b""
    plain = msgspec.json.decode(value)
    kept = {name: one for name, one in plain.items() if name not in _PASSING}
    return blake2b(_json.encode(kept), digest_size=16).digest()


_PASSING: Final = ("as_of", "version")
