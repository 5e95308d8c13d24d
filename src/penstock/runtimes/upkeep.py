"""What is done beside the work: the index of the log by leaf grows with the log, when there is time."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from penstock.core.errors import PenstockError
from penstock.flows.history import index_closed
from penstock.ports.leaf_index import LeafIndex
from penstock.ports.log import Log

EVERY_S = 5.0

log_upkeep = logging.getLogger("penstock.upkeep")


class Upkeep:
    """Indexes closed segments of the log, one at a time, while nothing waits to be folded.

    What is not indexed yet is found by reading it, so being late costs a question's time and
    nothing else.

    Args:
        log: Only read.
        index: Grows.
        idle: Whether the engine has time.
        every_s: How long to wait between two looks.
    """

    def __init__(
        self, log: Log, index: LeafIndex, *, idle: Callable[[], bool], every_s: float = EVERY_S
    ) -> None:
        self.log = log
        self.index = index
        self._idle = idle
        self._every_s = every_s

    async def run(self) -> None:
        """Go on until cancelled; a fault is logged by its code, and tried again."""
        while True:
            await asyncio.sleep(self._every_s)
            try:
                await self.once()
            except PenstockError as error:
                log_upkeep.warning("%s: %s; fix: %s", error.code, error.what, error.fix)

    async def once(self) -> int:
        """Index what is closed; return how many records."""
        count = 0
        while self._idle():
            done = await asyncio.to_thread(index_closed, self.log, self.index, segments_max=1)
            if not done:
                break
            count += done
        return count
