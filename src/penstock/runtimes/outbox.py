"""The outbox pump: decisions that stand become records of the log, once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

from penstock.core.record import Record
from penstock.ports.appender import Appender
from penstock.ports.decisions import Decisions
from penstock.ports.metrics import Metrics

PUMP_RECORDS = 500


class OutboxPump:
    """Moves outbox entries to the log. A kill between append and note appends twice; ids de-duplicate.

    Args:
        decisions: Whose outbox it is.
        appender: The way into the log.
        to_record: Makes the log's record of a decision's bytes.
        metrics: Where to count.
        every_ms: How often to look.
    """

    def __init__(
        self, decisions: Decisions, appender: Appender, to_record: Callable[[bytes], Record], metrics: Metrics, every_ms: int = 200,
    ) -> None:  # fmt: skip
        self._decisions = decisions
        self._appender = appender
        self._to_record = to_record
        self._metrics = metrics
        self._every_ms = every_ms
        # Two that pump at once would both move what both have read.
        self._pumping = asyncio.Lock()

    async def pump(self) -> int:
        """Move what is there now; return how many entries were moved. One at a time moves."""
        async with self._pumping:
            return await self._move()

    async def _move(self) -> int:
        moved = 0
        while entries := await asyncio.to_thread(self._decisions.outbox, PUMP_RECORDS):
            records = [self._to_record(raw) for _, raw in entries]
            await self._appender.append(records, urgent=True)
            self._metrics.count("penstock_events_accepted_total", len(records))
            await asyncio.to_thread(self._decisions.outbox_done, [number for number, _ in entries])
            moved += len(entries)
            if len(entries) < PUMP_RECORDS:
                break
        return moved

    async def run(self) -> None:
        """Pump until cancelled; whatever fails is tried again."""
        while True:
            with suppress(Exception):  # the gauge says that decisions wait; the next round tries
                await self.pump()
            with suppress(Exception):
                waiting = await asyncio.to_thread(self._decisions.outbox, PUMP_RECORDS)
                self._metrics.gauge("penstock_outbox_pending", len(waiting))
            await asyncio.sleep(self._every_ms / 1000)
