"""What a node keeps up beside its work: the index, the archive, and where the log begins."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Final

from penstock.core.errors import PenstockError
from penstock.core.feature.plan import Plan
from penstock.core.step import Step
from penstock.flows.forgetting import Forgetter
from penstock.flows.history import index_closed
from penstock.flows.permissions import make_whole
from penstock.flows.snapshot import Snapshot, begin
from penstock.flows.truncating import Serves, Truncator
from penstock.ports.clock import Clock
from penstock.ports.log import Log
from penstock.ports.metrics import Metrics
from penstock.ports.suppressions import Suppressions
from penstock.project import Project
from penstock.runtimes.engine import Engine
from penstock.runtimes.side_by_side import SideBySide
from penstock.runtimes.upkeep import Job

if TYPE_CHECKING:
    from penstock.compose import Stores

WHOLE_S: Final = 1.0
"""How often is looked whether the register of suppressions lacks anything."""

log_register = logging.getLogger("penstock.register")


def begin_beside(stores: Stores, engine: Engine, epoch: int, plan: Plan) -> None:
    """Let a new set of leaves begin where the log does, while no snapshot moves; see `flows.snapshot.begin`."""
    with stores.snapshots:
        serves = Snapshot(stores.store, engine.epoch, engine.step.plan)
        begin(stores.log, stores.store, epoch, plan, serves)


async def keep_whole(log: Log, suppressions: Suppressions) -> None:
    """Look again and again whether the register has lost something, and make it whole; until cancelled."""
    while True:
        await asyncio.sleep(WHOLE_S)
        try:
            if await asyncio.to_thread(make_whole, log, suppressions):
                log_register.warning("the register of suppressions was made whole from the log")
        except PenstockError as error:
            log_register.warning("%s: %s; fix: %s", error.code, error.what, error.fix)


def upkeep_jobs(
    project: Project, stores: Stores, metrics: Metrics, clock: Clock, versions: SideBySide
) -> list[Job]:  # fmt: skip
    """Return what upkeep does: a segment at a time."""
    archived = stores.archived
    jobs: list[Job] = [partial(index_closed, stores.log, stores.index, segments_max=1)]
    if archived is not None:

        def archive() -> int:
            count = archived.archive_closed(stores.log, closed=stores.index.covered, segments_max=1)
            metrics.count("penstock_archived_records_total", count)
            metrics.gauge("penstock_archive_behind_records", archived.behind(stores.log))
            return count

        jobs.append(archive)

    def serves() -> Serves:
        return Serves(versions.engine.epoch, versions.engine.step)

    def epochs() -> frozenset[int]:
        return versions.table.epochs()  # the table is another after each change

    def steps() -> dict[int, Step]:
        return {epoch: leaves.step for epoch, leaves in versions.sets.items()}

    truncator = make_truncator(project, stores, clock, serves, epochs, steps)
    if truncator is None:
        return jobs

    def truncate() -> int:
        with stores.snapshots:
            count = truncator.once()
        metrics.count("penstock_log_truncated_records_total", count)
        for partition in range(stores.log.partitions):
            end = stores.log.truncation(partition).end
            metrics.gauge("penstock_log_first_offset", end, partition=str(partition))
        return count

    return [*jobs, truncate]


def make_truncator(
    project: Project, stores: Stores, clock: Clock, serves: Callable[[], Serves], epochs: Callable[[], Iterable[int]],
    steps: Callable[[], Mapping[int, Step]],
) -> Truncator | None:  # fmt: skip
    """Return what truncates a project's log, or None if all of it is kept."""
    keep_ms = project.settings.log.keep_ms
    if not keep_ms:
        return None
    if stores.archived is None:
        return Forgetter(
            stores.log, stores.index, store=stores.store, serves=serves, steps=steps, epochs=epochs,
            clock=clock, keep_ms=keep_ms,
        )  # fmt: skip
    return Truncator(
        stores.log, stores.archived, stores.index, store=stores.store, serves=serves, epochs=epochs,
        clock=clock, keep_ms=keep_ms,
    )  # fmt: skip
