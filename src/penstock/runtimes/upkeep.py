"""What is done beside the work, when there is time: the index of the log by leaf, and the archive."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from penstock.core.errors import PenstockError
from penstock.ports.metrics import Metrics

EVERY_S = 5.0

log_upkeep = logging.getLogger("penstock.upkeep")

Job = Callable[[], int]
"""Does one bounded piece of its work; returns how many records that were, 0 if there is none left."""


class Upkeep:
    """Does the pieces of some jobs, one at a time, while nothing waits to be folded.

    Being late costs a question's time and nothing else. A job that fails is tried again later and
    holds up no other.

    Args:
        jobs: What there is to do.
        idle: Whether the engine has time.
        metrics: Counts failures by code.
        every_s: How long to wait between two looks.
    """

    def __init__(
        self, jobs: Sequence[Job], *, idle: Callable[[], bool], metrics: Metrics, every_s: float = EVERY_S
    ) -> None:  # fmt: skip
        self.jobs = jobs
        self._idle = idle
        self._metrics = metrics
        self._every_s = every_s

    async def run(self) -> None:
        """Go on until cancelled; a fault is logged by its code, and tried again."""
        while True:
            await asyncio.sleep(self._every_s)
            await self.once()

    async def once(self) -> int:
        """Do what there is to do; return how many records it went over."""
        return sum([await self._do(job) for job in self.jobs])

    async def _do(self, job: Job) -> int:
        count = 0
        try:
            while self._idle() and (done := await asyncio.to_thread(job)):
                count += done
        except PenstockError as error:
            self._metrics.count("penstock_upkeep_failures_total", code=error.code)
            log_upkeep.warning("%s: %s; fix: %s", error.code, error.what, error.fix)
        return count
