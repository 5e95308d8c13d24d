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

    def visits(self, first: int, end: int, at_ms: int = START_MS - 60_000) -> Stream:
        """Return the first visits of people from `first` up to `end`, all at one instant."""
        values: list[bytes] = []
        for person in range(first, end):
            clone, who = divmod(person, self.base)
            visit = self._who[who]
            values.append(encode_record(at(of_clone(visit, clone), visit, at_ms)))
        return Stream([], values, [at_ms] * len(values))

    def stream(
        self, people: int, events: int, skew: str, turn: int, step_ms: int = workload.LIVE_STEP_MS
    ) -> Stream:
        """Return events of a crowd of some size; those of another turn are others, and come after.

        Args:
            people: How many there are.
            events: How many events arrive, copies included.
            skew: `zipf` or `uniform`.
            turn: From 0.
            step_ms: Between two events.
        """
        assert skew in SKEWS, f"a skew is one of {SKEWS}"
        dice = random.Random(f"{SEED} {people} {events} {skew} {turn}")
        weights = self._weights_of(people) if skew == "zipf" else []
        start_ms = START_MS + turn * events * step_ms
        stamps = [start_ms + number * step_ms for number in range(events)]
        values: list[bytes] = []
        for number, at_ms in enumerate(stamps):
            if values and dice.random() < DUPLICATES:
                values.append(values[-dice.randrange(1, min(AMONG, len(values)) + 1)])
                continue
            rank = (
                bisect(weights, dice.random() * weights[-1]) if weights else dice.randrange(people)
            )
            clone, who = divmod(rank * STRIDE % people, self.base)
            did = self._did[dice.randrange(len(self._did))]
            event = replace(
                of_clone(self._who[who], clone), event_id=dice.getrandbits(62),
                message_id=f"c{turn * events + number}", type=did.type, name=did.name,
                properties={} if self._who[who].bare else did.properties,
            )  # fmt: skip
            values.append(encode_record(at(event, did, at_ms)))
        return Stream([], values, stamps)

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


def at(record: Record, like: Record, at_ms: int) -> Record:
    """Return the record as received at an instant, as late as another was."""
    late_ms = like.received_at_ms - like.occurred_at_ms
    return replace(record, received_at_ms=at_ms, occurred_at_ms=at_ms - late_ms)


def edge_of_clone(edge: Edge, mask: int) -> Edge:
    """Return an edge between the leaves of somebody's clone."""
    return replace(edge, a=masked(edge.a, mask), b=masked(edge.b, mask))


def mask_of(clone: int) -> int:
    """Return what makes a clone's leaf ids of a person's."""
    return int.from_bytes(blake2b(b"%d" % clone, digest_size=16).digest()) if clone else 0


def masked(leaf: bytes, mask: int) -> bytes:
    """Return the id of a clone's leaf."""
    return (int.from_bytes(leaf) ^ mask).to_bytes(16)
