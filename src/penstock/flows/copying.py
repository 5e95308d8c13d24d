"""Records of other producers are copied into the log: decoded, mapped, and taken in like any request.

A record becomes an event, or a dead letter that tells its place, or nothing (a tombstone, or what no
mapping wants). Its event has the message id of its place, unless it brings one, so that a record that is
read again is the same event again. No record holds up those behind it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, Protocol

from penstock.core.errors import EventRejected
from penstock.core.event import SEGMENT, Decoded, Event, Rejected, decode_single
from penstock.core.foreign import (
    Foreign,
    Mapper,
    Place,
    letter_id_of,
    message_id_of,
    place_in,
    place_of,
)
from penstock.core.record import DeadLetter
from penstock.flows.collect import Collector, Source
from penstock.flows.decoding import read_json, schema_at
from penstock.ports.log import Log
from penstock.ports.metrics import Metrics

PARKED = "E333"
"""The reason of a dead letter whose record waits for its schema."""
GONE = "E335"
BACK_A_CALL = 200
JOB = "connect"


class Reader(Protocol):
    """What makes values of records."""

    async def learn(self, values: Iterable[bytes]) -> None:
        """Have ready what decoding needs."""
        ...

    async def known(self, schema_ids: frozenset[int]) -> set[int]:
        """Have schemas ready; return which are known."""
        ...

    def decode(self, value: bytes) -> Any:
        """Return what a record says, or raise `EventRejected`."""
        ...


class PlainReader:
    """Reads JSON that names no schema."""

    async def learn(self, values: Iterable[bytes]) -> None:
        """Do nothing: there is nothing to know."""

    async def known(self, schema_ids: frozenset[int]) -> set[int]:
        """Return none: no record says a schema."""
        return set()

    def decode(self, value: bytes) -> Any:
        """Return what a record says."""
        return read_json(value)


Read = Callable[[Sequence[Place]], Sequence[Foreign | None]]
"""Read records again at their places; None of one that its topic has no more."""


class Copied(NamedTuple):
    """What became of records: accepted, refused (dead letters but for parked ones), parked, left out."""

    accepted: int = 0
    refused: int = 0
    parked: int = 0
    left_out: int = 0


class Copier:
    """Copies the records of one connector.

    Args:
        name: The connector's.
        source: Whose events they are: its basis, its trust and its rank.
        reader: Decodes them; None if they are events of the Segment spec already.
        mapper: Makes events of them; None for the same.
        collector: Takes them in.
        metrics: Where to count.
        job: The job that remembers their ids for as long as it may be run again; empty for the usual
            memory.
    """

    def __init__(
        self, name: str, source: Source, *, reader: Reader | None, mapper: Mapper | None, collector: Collector,
        metrics: Metrics, job: str = "",
    ) -> None:  # fmt: skip
        assert (reader is None) == (mapper is None), "what is decoded is mapped"
        self.name = name
        self._source = source
        self._reader = reader
        self._mapper = mapper
        self._collector = collector
        self._metrics = metrics
        self._job = job

    async def copy(self, records: Sequence[Foreign]) -> Copied:
        """Take records in: each durable on return, as an event or a dead letter, if it is either.

        Raises:
            Overloaded: Nothing is known to be kept; again is safe (E410).
            Unavailable: The same (E401, E403).
            SettingsError: The registry does not let us in (E230), or an extra is missing (E235).
        """
        return await self._take(records, again=False, job=self._job)

    async def take_back(self, log: Log, read: Read) -> int:
        """Copy parked records whose schema is known now; return how many are parked no more.

        They have the message ids that they would have had, and are remembered as a job's: they may be
        late. A record that its topic has no more is a dead letter that says so.

        Raises:
            Unavailable: It is not durable (E401, E403), or the topic can't be read (E494); again is safe.
        """
        parked = await asyncio.to_thread(self._parked, log)
        if self._reader is None or not parked:
            return 0
        known = await self._reader.known(frozenset(schema_id for _, _, schema_id in parked))
        ready = [(letter, place) for letter, place, schema_id in parked if schema_id in known]
        for first in range(0, len(ready), BACK_A_CALL):
            await self._back(ready[first : first + BACK_A_CALL], log, read)
        return len(ready)

    async def _back(self, ready: Sequence[tuple[DeadLetter, Place]], log: Log, read: Read) -> None:
        records = await asyncio.to_thread(read, [place for _, place in ready])
        there = [record for record in records if record is not None]
        gone = [self._gone(letter, place)
                for (letter, place), record in zip(ready, records, strict=True) if record is None]  # fmt: skip
        if there:
            await self._take(there, again=True, job=f"{JOB}/{self.name}")
        if gone:
            await self._collector.appender.append((), gone)
        settled = [letter.letter_id for letter, _ in ready]
        await asyncio.to_thread(log.mark_replayed, settled, self._collector.clock.now_ms())

    def _parked(self, log: Log) -> list[tuple[DeadLetter, Place, int]]:
        """Return what of this connector is parked, and the schema that each waits for."""
        found: list[tuple[DeadLetter, Place, int]] = []
        for letter in log.dead_letters(reason=PARKED):
            place, schema_id = place_in(letter.letter_id), schema_at(letter.path)
            if place is not None and schema_id is not None and place.connector == self.name:
                found.append((letter, place, schema_id))
        return found

    def _gone(self, letter: DeadLetter, place: Place) -> DeadLetter:
        return DeadLetter(
            letter_id=letter_id_of(place, again=True), source=letter.source, received_at_ms=letter.received_at_ms,
            reason=GONE, path="$", what="a record was parked, and its topic has it no more",
            message_id=letter.message_id, body=b"",
        )  # fmt: skip

    async def _take(self, records: Sequence[Foreign], *, again: bool, job: str) -> Copied:
        if self._reader is not None:
            await self._reader.learn([one.value for one in records if one.value is not None])
        events: list[tuple[int, Event]] = []
        rejected: list[Rejected] = []
        bodies: list[bytes] = []
        places: list[str] = []
        left_out = 0
        for index, record in enumerate(records):
            place = place_of(self.name, record)
            places.append(letter_id_of(place, again=again))
            body = b""
            try:
                found = self._event_of(record)
                body = found or b""
                if found is None:
                    left_out += 1
                else:
                    decoded = decode_single(found, None, SEGMENT, message_id=message_id_of(place))
                    events += [(index, event) for _, event in decoded.events]
                    rejected += [Rejected(index, one.message_id or message_id_of(place), one.error, found)
                                 for one in decoded.rejected]  # fmt: skip
            except EventRejected as error:
                rejected.append(Rejected(index, message_id_of(place), error, body))
            bodies.append(body)
        intake = await self._collector.take(
            self._source, Decoded(events, rejected, bodies, places=places), job=job
        )
        parked = sum(one.code == PARKED for one in intake.refused)
        return Copied(intake.accepted, len(intake.refused) - parked, parked, left_out)

    def _event_of(self, record: Foreign) -> bytes | None:
        """Return the event that a record is, in the Segment spec; None if it is to be left out."""
        if record.value is None:
            self._metrics.count("penstock_events_discarded_total", reason="tombstone")
            return None
        if self._reader is None or self._mapper is None:
            return record.value
        event = self._mapper(record, self._reader.decode(record.value))
        if event is None:
            self._metrics.count("penstock_events_discarded_total", reason="unmapped")
        return event
