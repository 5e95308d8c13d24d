"""A worker process is put together: what it folds, for whom, and what it reaches the world through."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field

from penstock.adapters.clock import SystemClock
from penstock.adapters.metrics.prometheus import PrometheusMetrics
from penstock.adapters.suppressions.sqlite import SqliteSuppressions
from penstock.core.errors import SettingsError, Unavailable
from penstock.core.step import Step
from penstock.flows.replay import covered_by_live, told_epochs
from penstock.logs import connection_of, default_begin, open_log, require_known_log, require_shared
from penstock.ports.clock import Clock
from penstock.ports.consumer import Consumer
from penstock.ports.log import Log
from penstock.ports.metrics import Metrics
from penstock.ports.store import Store
from penstock.ports.suppressions import Suppressions
from penstock.project import Project
from penstock.runtimes.worker import Worker
from penstock.settings import Settings
from penstock.stores import open_register, open_store, registers_on_server

STORE_FILE, REGISTER_FILE = "store.db", "suppressions.db"
"""Of the data folder: what workers write too, unless it is on a server."""


@dataclass(frozen=True)
class WorkerParts:
    """What a worker opens: the log to append links to, the store and the register to write.

    It needs none of a project's keys: records carry the leaves that they are about. With leaves and
    registers on a server it needs no data folder either.
    """

    project: Project
    log: Log
    store: Store
    suppressions: Suppressions
    clock: Clock = field(default_factory=SystemClock)
    metrics: Metrics = field(default_factory=PrometheusMetrics)

    def close(self) -> None:
        """Release connections."""
        for part in (self.log, self.store, self.suppressions):
            part.close()


def require_workers(project: Project) -> None:
    """Refuse workers for a project whose own process folds, or whose log or leaves no other process can reach.

    Raises:
        SettingsError: One of `fold.by`, `log.kind` and `store.kind` does not go with workers (E207).
    """
    settings = project.settings
    if settings.fold.by != "workers":
        raise SettingsError("E207", "`penstock up` folds this project itself", where="fold.by",
                            fix='set fold.by to "workers", restart `penstock up`, and start workers then')  # fmt: skip
    require_shared(settings)


def open_worker(project: Project) -> WorkerParts:
    """Open what a worker needs of a project.

    Raises:
        SettingsError: The project's own process folds, or kinds do not go together (E207); the log or the
            store can't be used as declared, or the leaves are of another log (E286).
        Unavailable: A file that workers share is not in the data folder (E471), or something does not
            answer (E401, E402, E403).
    """
    require_workers(project)
    _require_files(project)
    clock = SystemClock()
    with ExitStack() as opened:
        log = open_log(project, clock)
        opened.callback(log.close)
        store = open_store(project)
        opened.callback(store.close)
        require_known_log(log, store)
        suppressions = open_register(project) or SqliteSuppressions(
            project.data_dir / REGISTER_FILE, tenant=project.settings.project.tenant
        )
        opened.pop_all()
    return WorkerParts(project, log, store, suppressions, clock)


def _require_files(project: Project) -> None:
    """Refuse a worker whose data folder lacks what is kept there: it would write where nobody reads.

    Raises:
        Unavailable: It is not there, or not yet (E471).
    """
    settings = project.settings
    kept = {
        STORE_FILE: settings.store.kind == "sqlite",
        REGISTER_FILE: not registers_on_server(settings),
    }
    for name, here in kept.items():
        if here and not (project.data_dir / name).exists():
            raise Unavailable("E471", f"workers write `{name}` in the data folder of `penstock up`, and it is not here",
                              where=str(project.data_dir), fix="start `penstock up` on this machine first. Workers on other machines need "
                              '`store.kind = "redis"` and `store.redis.registers = true`: then a worker needs no data folder')  # fmt: skip


def group_of_workers(project: Project, generation: int, epoch: int) -> str:
    """Return the group that folds a set of leaves: while another is built both are folded."""
    settings = project.settings
    return f"{group_begins(settings)}-{settings.project.tenant}-{generation}-{epoch}"


def group_begins(settings: Settings) -> str:
    """Return what the names of a project's groups of workers begin with, before a hyphen.

    No two prefixes have the same: one group would share out the partitions of two projects.
    """
    return settings.fold.group or default_begin(settings.log.kafka.prefix)


def _make_consumer(parts: WorkerParts, epoch: int, number: int) -> Consumer:
    """Return a worker's place in the group of a set of leaves."""
    from penstock.adapters.log.kafka.consuming import KafkaConsumer, Membership  # noqa: PLC0415 - an extra

    project = parts.project
    fold, generation = project.settings.fold, parts.log.generations.first
    connection = connection_of(project)
    membership = Membership(
        group_of_workers(project, generation, epoch), f"{fold.member}-{number}" if fold.member else "",
        fold.protocol, fold.session_ms,
    )  # fmt: skip
    return KafkaConsumer(connection, parts.log.generations, membership)


def epoch_of(store: Store, fingerprint: str) -> int | None:
    """Return which set of leaves definitions are folded into; None while `penstock up` has not said.

    Raises:
        Unavailable: The store does not answer (E402).
    """
    found = [epoch for epoch, other in told_epochs(store).items() if other == fingerprint]
    return max(found, default=None)


def unknown_definitions() -> Unavailable:
    """Return what a worker is told whose definitions are to be folded by nobody."""
    return Unavailable("E471", "these definitions serve nowhere, and are not being applied",
                       fix="start `penstock up` with them first, or run `penstock apply`; a worker that has the definitions of "
                       "before is to be started with the new files")  # fmt: skip


def make_worker(parts: WorkerParts, epoch: int, number: int = 0) -> Worker:
    """Return a worker that has not started.

    Args:
        parts: What it opens.
        epoch: Which set of leaves it folds.
        number: Which of the processes on this machine it is.
    """
    project = parts.project
    return Worker(
        consumer=_make_consumer(parts, epoch, number), log=parts.log, store=parts.store,
        suppressions=parts.suppressions, step=Step(project.plan, project.step_rules()), epoch=epoch,
        clock=parts.clock, metrics=parts.metrics, flush_ms=project.settings.fold.flush_ms,
        cached_max=project.settings.store.cached_leaves_max,
        covered=covered_by_live(parts.log, parts.store, epoch),
    )  # fmt: skip


def still_wanted(parts: WorkerParts, epoch: int) -> Callable[[], bool]:
    """Return what tells whether a set of leaves is still to be folded.

    It is as long as the store does not say: one that was emptied is told again by `penstock up`.
    """

    def wanted() -> bool:
        try:
            told = told_epochs(parts.store)
        except Unavailable:
            return True
        return not told or epoch in told

    return wanted
