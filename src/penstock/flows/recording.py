"""What came in since a mark, and the people it makes: as if the log began there. For tests of tracking."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable, Iterator, Sequence
from operator import itemgetter
from typing import NamedTuple

from penstock.core.consent.suppression import suppression_of
from penstock.core.errors import EventRejected
from penstock.core.identity.identifier import ITEM
from penstock.core.ids import LeafId
from penstock.core.leaf import Leaf
from penstock.core.profile import Profile
from penstock.core.record import Kind, Record, decode_record
from penstock.core.step import Step
from penstock.flows.editions import Edition
from penstock.flows.export import person_at
from penstock.flows.history import READ_RECORDS
from penstock.flows.person import Person
from penstock.flows.serve import Who
from penstock.flows.track import INTERNAL_SOURCE
from penstock.ports.log import Log
from penstock.ports.profiles import LeafRead, Profiles
from penstock.ports.suppressions import Suppressions

RECORDS_MAX = 10_000
"""Records since the mark, beyond which nothing is told: a test looks at its own events."""


class Recorded(NamedTuple):
    """An event as it was kept, and how many copies of it are in the log: it counts once."""

    record: Record
    copies: int


class Recording:
    """Tells what the log took in since the last reset.

    A profile is a function of the log, so that the people of a part of it are found by folding that
    part alone. Nothing is deleted, and what serves knows nothing of it.

    Args:
        log: Only read.
        edition: The definitions that serve.
        new_register: Makes an empty register of suppressions.
    """

    def __init__(
        self, log: Log, edition: Callable[[], Edition], new_register: Callable[[], Suppressions]
    ) -> None:
        self._log = log
        self._edition = edition
        self._new_register = new_register
        self.reset()

    def reset(self) -> None:
        """Begin anew: what came in before is not told of any more."""
        self._marks = self.heads()

    def heads(self) -> list[int]:
        """Return the log's heads, by partition: while they stand, nothing else has come in."""
        return [self._log.head(partition) for partition in range(self._log.partitions)]

    def events(self) -> list[Recorded]:
        """Return the events of the project's sources, each once, in the order of their first copies.

        That is the order of the log's stamps; of one and the same millisecond, a partition's own order.
        Items, and what Penstock itself says of its emails, are left out. Reads the log.

        Raises:
            EventRejected: More than `RECORDS_MAX` records came in (E387).
        """
        found: dict[int, Recorded] = {}
        for _, record in self._records():
            if (
                record.kind != Kind.PRIMARY
                or record.id_type == ITEM
                or record.source == INTERNAL_SOURCE
            ):
                continue
            known = found.get(record.event_id)
            found[record.event_id] = (
                Recorded(record, 1) if known is None else known._replace(copies=known.copies + 1)
            )
        return list(found.values())

    async def people(self, who: Who | None = None) -> list[tuple[Profile, Person]]:
        """Return the people whom the events make, or the one that is asked for, found or not.

        Raises:
            EventRejected: More than `RECORDS_MAX` records came in (E387).
        """
        edition = self._edition()
        leaves, register = await asyncio.to_thread(self._fold, edition.step)
        serving = edition.serving.over(
            _Leaves(leaves, edition.serving.clock.now_ms()), register=register
        )
        if who is not None:
            return [await serving.profile(who)]
        people = [await person_at(serving, leaf) for leaf in leaves]
        return [one for one in people if one is not None]

    def _fold(self, step: Step) -> tuple[dict[LeafId, Leaf], Suppressions]:
        leaves: dict[LeafId, Leaf] = {}
        register = self._new_register()
        # Links that stood before the mark are not appended again, so they are made here; each record
        # gets a place of its own, whatever partition it is from.
        place = 0
        for logged_at_ms, record in self._records():
            if record.kind == Kind.PRIMARY:
                register.put(suppression_of(record))
            waiting = [record]
            while waiting:
                one = waiting.pop()
                leaf_id = LeafId(one.leaf)
                leaf = leaves.get(leaf_id)
                if leaf is None:
                    leaf = leaves[leaf_id] = Leaf(leaf_id, step.plan.new_states())
                step.fold(leaf, one, self._log.generation, place, logged_at_ms, waiting)
                place += 1
        return leaves, register

    def _records(self) -> Iterator[tuple[int, Record]]:
        heads = self.heads()
        self._marks += [0] * (len(heads) - len(self._marks))
        if sum(heads) - sum(self._marks) > RECORDS_MAX:
            raise EventRejected("E387", f"more than {RECORDS_MAX} records came in since the last reset",
                                fix="POST /_test/reset before each test", where="log")  # fmt: skip
        partitions = (self._partition(*marked) for marked in enumerate(self._marks))
        # Stamps never go back within a partition.
        return heapq.merge(*partitions, key=itemgetter(0))

    def _partition(self, partition: int, offset: int) -> Iterator[tuple[int, Record]]:
        while batch := self._log.read(partition, offset, READ_RECORDS):
            offset = batch[-1].offset + 1
            yield from ((one.logged_at_ms, decode_record(one.value)) for one in batch)


class _Leaves(Profiles):
    """The read path over leaves at hand. Implements `ports.profiles.Profiles`."""

    def __init__(self, leaves: dict[LeafId, Leaf], as_of_ms: int) -> None:
        self._leaves = leaves
        self._as_of_ms = as_of_ms

    async def read(self, leaves: Sequence[LeafId]) -> LeafRead:
        return LeafRead([self._leaves.get(leaf) for leaf in leaves], self._as_of_ms, live=True)
