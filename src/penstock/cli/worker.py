"""`penstock worker`: fold what `penstock up` takes in, beside other workers, until it is stopped."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import socket
import threading
from pathlib import Path

import click
import uvicorn
import uvloop

from penstock.application import make_operations_app
from penstock.cli.listening import listen
from penstock.cli.main import err, out
from penstock.cli.supervise import supervise
from penstock.core.errors import Unavailable
from penstock.edges.operations import operations
from penstock.project import Project, load_project
from penstock.runtimes.worker import Worker
from penstock.workers import (
    WorkerParts,
    epoch_of,
    make_worker,
    open_worker,
    require_workers,
    still_wanted,
    unknown_definitions,
)

GC_THRESHOLDS = (100_000, 50, 50)
"""The fold makes many objects and no cycles; see `cli.up`."""

WAIT_S = 1.0
"""How often it is looked whether `penstock up` has said which leaves are to be folded."""

UNKNOWN, AWAY = "E471", frozenset({"E401", "E402", "E403"})
"""What `--wait` waits for: that `penstock up` knows the definitions, and that brokers and store answer."""

WANTED_S = 5.0
"""How often it is looked whether they still are."""

ORPHAN_S = 1.0
"""How often a process of several looks whether the one that started it is still there."""


@click.command()
@click.argument("folder", default=".", type=click.Path(file_okay=False, path_type=Path))
@click.option("--processes", type=click.IntRange(1, 256), help="So many processes, a core each.")
@click.option("--port", type=click.IntRange(0, 65_535), help="Answer /health, /ready and /metrics here; 0 picks a free port.")  # fmt: skip
@click.option("--wait", is_flag=True, help="Wait until brokers and store answer and `penstock up` knows these definitions, rather than to end.")  # fmt: skip
def command(folder: Path, processes: int | None, port: int | None, wait: bool) -> None:
    """Fold the log of the project in FOLDER, as one of several workers."""
    project = load_project(folder)
    require_workers(project)
    fold = project.settings.fold
    port = fold.port if port is None else port
    count = processes or fold.processes

    def run(number: int, parent: int) -> None:
        own = port + number if port else 0
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(work(project, own, number, parent, wait=wait))

    if count == 1:
        run(0, 0)
    else:
        wait = True  # else one that started too early would be started again and again
        supervise(count, run)


async def work(project: Project, port: int, number: int, parent: int, *, wait: bool) -> None:
    """Fold until SIGTERM or SIGINT, then drain.

    Args:
        project: What is folded.
        port: Where health and metrics are answered; 0 picks a free one.
        number: Which of the processes on this machine this is.
        parent: The process to end with; 0 for none.
        wait: Wait until brokers and store answer and the definitions are to be folded.

    Raises:
        Unavailable: The definitions are not to be folded (E471), or the group does not have this worker
            any more (E470, E473).
        PenstockError: Something can't be opened.
    """
    stop = threading.Event()
    loop = asyncio.get_running_loop()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, stop.set)
    found = await _known(project, stop, wait=wait)
    if found is None:
        return
    parts, epoch = found
    try:
        worker = make_worker(parts, epoch, number)
        gc.collect()
        gc.freeze()
        gc.set_threshold(*GC_THRESHOLDS)
        with listen(project.settings.fold.host, port, "fold.port") as listener:
            await _run(parts, worker, listener, stop, parent)
    finally:
        await asyncio.to_thread(parts.close)


async def _known(
    project: Project, stop: threading.Event, *, wait: bool
) -> tuple[WorkerParts, int] | None:
    """Open what a worker needs, and return which leaves it folds; None if it was told to stop meanwhile."""
    told = ""
    while not stop.is_set():
        try:
            return await asyncio.to_thread(_open, project)
        except Unavailable as error:
            if not wait or (error.code != UNKNOWN and error.code not in AWAY):
                raise
            if told != error.code:
                told = error.code
                out.print(f"Waiting: {error.what} ({error.code}); {error.fix}.")
                out.file.flush()
        await asyncio.sleep(WAIT_S)
    return None


def _open(project: Project) -> tuple[WorkerParts, int]:
    parts = open_worker(project)
    try:
        epoch = epoch_of(parts.store, project.fingerprint)
        if epoch is None:
            raise unknown_definitions()
    except BaseException:
        parts.close()
        raise
    return parts, epoch


async def _run(
    parts: WorkerParts, worker: Worker, listener: socket.socket, stop: threading.Event, parent: int
) -> None:
    fold = parts.project.settings.fold
    asked = operations(worker.ready, parts.metrics, worker.publish, parts.clock)
    app = make_operations_app(asked)
    server = uvicorn.Server(uvicorn.Config(app, loop="none", lifespan="off", log_config=None, access_log=False))  # fmt: skip
    serving = asyncio.create_task(server._serve([listener]))  # noqa: SLF001 - `serve` installs handlers
    watching = asyncio.create_task(_watch(parts, worker, stop, parent))
    out.print(f"Penstock worker folds the leaves of set {worker.epoch}; "
              f"metrics at http://{fold.host}:{listener.getsockname()[1]}/metrics")  # fmt: skip
    out.file.flush()
    try:
        # A thread of its own: nothing that is asked keeps it from heartbeats, and it waits as it likes.
        await asyncio.to_thread(worker.run, stop.is_set)
    finally:
        watching.cancel()
        server.should_exit = True
        await asyncio.gather(serving, watching, return_exceptions=True)


async def _watch(parts: WorkerParts, worker: Worker, stop: threading.Event, parent: int) -> None:
    """Stop when the process that started this one is gone, or the leaves are to be folded no more."""
    wanted, waited_s = still_wanted(parts, worker.epoch), 0.0
    while True:
        await asyncio.sleep(ORPHAN_S)
        waited_s += ORPHAN_S
        if parent and os.getppid() != parent:
            stop.set()
        if waited_s >= WANTED_S:
            waited_s = 0.0
            if not await asyncio.to_thread(wanted):
                err.print(f"The leaves of set {worker.epoch} are not kept any more: other definitions serve. This worker ends.")  # fmt: skip
                stop.set()
