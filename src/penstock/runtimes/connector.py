"""A connector at work: records are polled, copied, and only then committed; what was parked is taken back."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final

from penstock.core.errors import Unavailable
from penstock.core.foreign import Foreign
from penstock.flows.copying import Copied, Copier
from penstock.ports.clock import Clock
from penstock.ports.log import Log
from penstock.ports.metrics import Metrics
from penstock.ports.topics import Topics

BATCH: Final = 500
WAIT_MS: Final = 200
BACK_MS_MIN: Final = 1_000
BACK_MS_MAX: Final = 15_000
"""How often it is looked whether parked records can come back: less often while none does."""
RETRY_S_MIN: Final = 0.1
RETRY_S_MAX: Final = 5.0

log_connect = logging.getLogger("penstock.connect")


class Connector:
    """Copies the topics of one connector into the log, until it is told to stop.

    Offsets are committed after the log has the records; a kill in between has them polled again, and
    the message ids of their places make the second copy nothing. Whatever fails and may pass is tried
    again, and holds up this connector alone.

    Args:
        copier: Takes records in.
        open_topics: Joins the group; called again after the brokers did not answer.
        log: Knows what is parked.
        clock: Its monotonic one counts.
        metrics: Where to count.
        sleep: Waits so many seconds.
    """

    def __init__(
        self, copier: Copier, open_topics: Callable[[], Topics], *, log: Log, clock: Clock, metrics: Metrics,
        sleep: Callable[[float], Coroutine[Any, Any, None]] = asyncio.sleep,
    ) -> None:  # fmt: skip
        self.copier = copier
        self._open = open_topics
        self._log = log
        self._clock = clock
        self._metrics = metrics
        self._sleep = sleep
        self._stop = asyncio.Event()
        self._back_ms = BACK_MS_MIN
        self._back_at_ms = 0

    @property
    def name(self) -> str:
        """The connector's name."""
        return self.copier.name

    def stop(self) -> None:
        """Copy and commit what was polled, leave the group, and end."""
        self._stop.set()

    @property
    def stopping(self) -> bool:
        """Whether it was told to stop."""
        return self._stop.is_set()

    async def pause(self, seconds: float) -> None:
        """Wait, but not longer than until it is told to stop."""
        waiting = asyncio.create_task(self._stop.wait())
        sleeping = asyncio.create_task(self._sleep(seconds))
        _, late = await asyncio.wait([waiting, sleeping], return_when=asyncio.FIRST_COMPLETED)
        for one in late:
            one.cancel()

    async def run(self) -> None:
        """Copy until told to stop, or cancelled.

        Raises:
            SettingsError: The brokers or the registry do not let us in, or something is missing (E230,
                E235, E237).
        """
        retry_s = RETRY_S_MIN
        while not self.stopping:
            try:
                topics = await asyncio.to_thread(self._open)
                try:
                    retry_s = RETRY_S_MIN
                    await self._copy_all(topics)
                finally:
                    await asyncio.to_thread(topics.close)
            except Unavailable as error:
                self._failed(error)
                await self.pause(retry_s)
                retry_s = min(2 * retry_s, RETRY_S_MAX)

    async def _copy_all(self, topics: Topics) -> None:
        while not self.stopping:
            records = await asyncio.to_thread(topics.poll, BATCH, WAIT_MS)
            if records:
                await self.copy(topics, records)
            self._metrics.gauge("penstock_connect_lag_records", topics.lag(), connector=self.name)
            if self._clock.monotonic_ms() >= self._back_at_ms:
                await self.take_back(topics)

    async def copy(self, topics: Topics, records: Sequence[Foreign]) -> None:
        """Copy records that were polled, as often as it takes, and commit them.

        Raises:
            Unavailable: The brokers do not answer (E494).
            SettingsError: As `run`.
        """
        copied = await self._insist(topics, records)
        for outcome, number in copied._asdict().items():
            if number:
                self._metrics.count("penstock_connect_records_total", number, connector=self.name, outcome=outcome)  # fmt: skip
        positions: dict[tuple[str, int], int] = {}
        for one in records:
            positions[one.topic, one.partition] = one.offset + 1
        await asyncio.to_thread(topics.commit, positions)

    async def _insist(self, topics: Topics, records: Sequence[Foreign]) -> Copied:
        retry_s = RETRY_S_MIN
        while True:
            try:
                return await self.copier.copy(records)
            except Unavailable as error:
                self._failed(error)
                if self.stopping:
                    raise  # they are not committed, and are polled again by whoever comes next
                await asyncio.to_thread(topics.hold)
                await self.pause(retry_s)
                retry_s = min(2 * retry_s, RETRY_S_MAX)

    async def take_back(self, topics: Topics) -> int:
        """Copy parked records whose schema is known by now; return how many are parked no more."""
        done = 0
        try:
            done = await self.copier.take_back(self._log, topics.read)
        except Unavailable as error:
            self._failed(error)
        self._back_ms = BACK_MS_MIN if done else min(2 * self._back_ms, BACK_MS_MAX)
        self._back_at_ms = self._clock.monotonic_ms() + self._back_ms
        return done

    def _failed(self, error: Unavailable) -> None:
        self._metrics.count("penstock_connect_failures_total", connector=self.name, code=error.code)
        log_connect.warning("%s: %s: %s; fix: %s", self.name, error.code, error.what, error.fix)
