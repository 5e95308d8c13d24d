"""Millions of people out of the workload's thousands: each has clones, who differ in their ids alone.

To shape a million first visits through the collector takes a minute; a clone's records are made of
records that were shaped, and the same arguments give the same bytes.
"""

from __future__ import annotations

import random
from bisect import bisect
from hashlib import blake2b
from itertools import accumulate

from msgspec.structs import replace

from benchmarks import workload
from benchmarks.workload import SEED, SKEWS, START_MS, Stream
from penstock.core.record import Edge, Identifier, Record, decode_record, encode_record

STRIDE = 7_919
"""Coprime to every size: busy people are spread over the crowd."""
DUPLICATES, AMONG = 0.02, 500


class Crowd:
    """People by number: `number % base` is who of the workload, `number // base` which clone.

    Args:
        base: The workload's people.
        events: Of the workload, that the crowd's are made of.
    """

    def __init__(self, base: int, events: int) -> None:
        self.base = base
        self._who = [decode_record(value) for value in workload.first_visits(base).values]
        assert len(self._who) == base, "a first visit of everybody is kept"
        done = map(decode_record, workload.stream(base, events, "uniform").values)
        self._weights: dict[int, list[float]] = {}
        self._did = [record for record in done if not record.bare]

    def visit(self, person: int) -> bytes:
        """Return the record of somebody's first visit."""
        clone, who = divmod(person, self.base)
        return encode_record(of_clone(self._who[who], clone))

    def visits(self, first: int, end: int) -> Stream:
        """Return the first visits of people from `first` up to `end`."""
        values = [self.visit(person) for person in range(first, end)]
        return Stream([], values, [START_MS - 60_000] * len(values))

    def stream(self, people: int, events: int, skew: str, turn: int) -> Stream:
        """Return events of a crowd of some size; those of another turn are others."""
        assert skew in SKEWS, f"a skew is one of {SKEWS}"
        dice = random.Random(f"{SEED} {people} {events} {skew} {turn}")
        weights = self._weights_of(people) if skew == "zipf" else []
        values: list[bytes] = []
        for number in range(events):
            if values and dice.random() < DUPLICATES:
                values.append(values[-dice.randrange(1, min(AMONG, len(values)) + 1)])
                continue
            rank = (
                bisect(weights, dice.random() * weights[-1]) if weights else dice.randrange(people)
            )
            clone, who = divmod(rank * STRIDE % people, self.base)
            values.append(encode_record(self._event(dice, who, clone, turn * events + number)))
        return Stream([], values, [START_MS + number for number in range(events)])

    def _event(self, dice: random.Random, who: int, clone: int, number: int) -> Record:
        did = self._did[dice.randrange(len(self._did))]
        person = self._who[who]
        return replace(
            of_clone(person, clone), event_id=dice.getrandbits(62), message_id=f"c{number}",
            type=did.type, name=did.name, occurred_at_ms=did.occurred_at_ms,
            received_at_ms=did.received_at_ms, properties={} if person.bare else did.properties,
        )  # fmt: skip

    def _weights_of(self, people: int) -> list[float]:
        if people not in self._weights:
            self._weights[people] = list(accumulate(1 / (rank + 10) for rank in range(people)))
        return self._weights[people]


def of_clone(record: Record, clone: int) -> Record:
    """Return the record as somebody's clone would have made it; clone 0 is the person."""
    if not clone:
        return record
    mask = mask_of(clone)
    return replace(
        record, leaf=masked(record.leaf, mask),
        identifiers=tuple(
            Identifier(one.id_type, masked(one.leaf, mask), one.value) for one in record.identifiers
        ),
        edges=tuple(edge_of_clone(edge, mask) for edge in record.edges),
    )  # fmt: skip


def edge_of_clone(edge: Edge, mask: int) -> Edge:
    """Return an edge between the leaves of somebody's clone."""
    return replace(edge, a=masked(edge.a, mask), b=masked(edge.b, mask))


def mask_of(clone: int) -> int:
    """Return what makes a clone's leaf ids of a person's."""
    return int.from_bytes(blake2b(b"%d" % clone, digest_size=16).digest()) if clone else 0


def masked(leaf: bytes, mask: int) -> bytes:
    """Return the id of a clone's leaf."""
    return (int.from_bytes(leaf) ^ mask).to_bytes(16)
