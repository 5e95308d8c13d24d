"""Follows the log beside the engine and keeps what is popular now; rebuilt from the log's tail."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from penstock.core.consent.evidence import permitted
from penstock.core.consent.purpose import ConsentRules
from penstock.core.decision.popular import Popular, Ranking, Tally, TallyRule, ranking_of
from penstock.core.errors import PenstockError
from penstock.core.identity.identifier import ENTITY_TYPES
from penstock.core.record import Evidence, Kind, LogRecord, decode_records
from penstock.ports.clock import Clock
from penstock.ports.log import Log

ROUND_S: Final = 1.0
"""How often what is new is counted and ranked: a ranking is at most about a second old."""

CHUNK_RECORDS: Final = 2_000
VERDICTS_MAX: Final = 10_000


class PopularFollower:
    """Counts what people do, from the log alone, and ranks it once a second.

    It begins at the log's head and works backwards until the window is filled, so that what is
    recent counts at once; counting is a union of sets, so the direction means nothing, and nothing
    has to be stored: a killed process counts the tail again. The work is done on a thread of its
    own; who serves reads the last ranking.

    Args:
        log: The canonical log.
        rules: The tallies by name.
        consent: Judges by an event's evidence whether it may count.
        clock: For the window's end.
    """

    def __init__(
        self, log: Log, rules: Mapping[str, TallyRule], consent: ConsentRules, clock: Clock
    ) -> None:
        self.log = log
        self.rules = dict(rules)
        self.consent = consent
        self.clock = clock
        self._tallies = {
            name: [Tally(rule) for _ in range(log.partitions)] for name, rule in self.rules.items()
        }
        # A record of another event is passed over without decoding it.
        self._marks = sorted({rule.event.encode() for rule in self.rules.values()})
        heads = [log.head(partition) for partition in range(log.partitions)]
        self._next, self._from = heads, [*heads]
        self._permitted: dict[Evidence, frozenset[str]] = {}
        self._rankings: dict[str, Ranking] = {}
        self._ranked_at_ms = 0
        self._ranked_tile = -1
        self._counted = False
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="penstock-popular")

    def rankings(self) -> Popular:
        """Return the rankings of the last round, by tally; a snapshot that does not change."""
        return self._rankings

    async def run(self) -> None:
        """Count and rank once a second until cancelled; does nothing without a tally."""
        if not self.rules:
            return
        while True:
            await self.refresh()
            await asyncio.sleep(ROUND_S)

    async def refresh(self) -> None:
        """Count everything that is in the log now, window by window, and rank it."""
        if not self.rules:
            return
        loop = asyncio.get_running_loop()
        while True:
            more = await loop.run_in_executor(self._thread, self._round)
            if not more:
                return
            await asyncio.sleep(0)

    def close(self) -> None:
        """End the thread; a second call does nothing."""
        self._thread.shutdown(wait=True)

    def _round(self) -> bool:
        """Count a chunk of what is new and one of what is old, rank; return whether there is more."""
        now_ms = self.clock.now_ms()
        more = False
        for partition in range(self.log.partitions):
            if partition == len(self._next):
                self._grow()
            try:
                more |= self._forward(partition)
                more |= self._backward(partition, now_ms)
            except PenstockError:
                # What cannot be read does not count; the engine tells of it.
                self._from[partition] = 0
        if more and now_ms - self._ranked_at_ms < ROUND_S * 1000:
            return True
        tile = now_ms // min(tallies[0].tile_ms for tallies in self._tallies.values())
        if self._counted or tile != self._ranked_tile:
            self._rank(now_ms)
            self._counted, self._ranked_tile = False, tile
        self._ranked_at_ms = now_ms
        return more

    def _grow(self) -> None:
        """Follow one partition more, from its beginning: its generation is new."""
        for name, rule in self.rules.items():
            self._tallies[name].append(Tally(rule))
        self._next.append(self.log.first(len(self._next)))
        self._from.append(0)

    def _rank(self, now_ms: int) -> None:
        for tallies in self._tallies.values():
            for tally in tallies:
                tally.expire(now_ms)
        self._rankings = {
            name: ranking_of(tallies, now_ms) for name, tallies in self._tallies.items()
        }

    def _forward(self, partition: int) -> bool:
        batch = self.log.read(partition, self._next[partition], CHUNK_RECORDS)
        self._count(partition, batch)
        self._next[partition] += len(batch)
        return len(batch) == CHUNK_RECORDS

    def _backward(self, partition: int, now_ms: int) -> bool:
        until = self._from[partition]
        first = self.log.first(partition)
        start = max(until - CHUNK_RECORDS, first)
        if start >= until:
            return False
        batch = self.log.read(partition, start, until - start)
        self._count(partition, batch)
        floor_ms = min(
            tallies[partition].floor(now_ms) * tallies[partition].tile_ms
            for tallies in self._tallies.values()
        )
        older = not batch or batch[0].logged_at_ms < floor_ms
        self._from[partition] = 0 if older else start
        return not older and start > first

    def _count(self, partition: int, batch: Sequence[LogRecord]) -> None:
        marked = [one for one in batch if any(mark in one.value for mark in self._marks)]
        records = decode_records(one.value for one in marked)
        for record, logged in zip(records, marked, strict=True):
            if record.kind != Kind.PRIMARY or record.bare or record.id_type in ENTITY_TYPES:
                continue
            may = self._verdict(record.evidence)
            for name, rule in self.rules.items():
                if rule.event == record.name and may.issuperset(rule.purposes):
                    self._tallies[name][partition].add(record, logged.logged_at_ms)
                    self._counted = True

    def _verdict(self, evidence: Evidence) -> frozenset[str]:
        found = self._permitted.get(evidence)
        if found is None:
            found = permitted(evidence, self.consent)
            if len(self._permitted) >= VERDICTS_MAX:
                self._permitted.clear()
            self._permitted[evidence] = found
        return found


class PopularFollowers:
    """What is popular by each version of the definitions that is loaded: one follower for equal tallies.

    Args:
        log: The canonical log.
        clock: For the window's end.
    """

    def __init__(self, log: Log, clock: Clock) -> None:
        self.log = log
        self.clock = clock
        self._followers: list[PopularFollower] = []

    def of(self, rules: Mapping[str, TallyRule], consent: ConsentRules) -> Callable[[], Popular]:
        """Return what tells the rankings of some tallies; they are followed from now on."""
        for one in self._followers:
            if (one.rules, one.consent) == (dict(rules), consent):
                return one.rankings
        follower = PopularFollower(self.log, rules, consent, self.clock)
        self._followers.append(follower)
        return follower.rankings

    async def run(self) -> None:
        """Count and rank once a second until cancelled."""
        while True:
            await self.refresh()
            await asyncio.sleep(ROUND_S)

    async def refresh(self) -> None:
        """Count everything that is in the log now, and rank it."""
        for one in [*self._followers]:
            await one.refresh()

    def close(self) -> None:
        """End the threads; a second call does nothing."""
        for one in self._followers:
            one.close()
