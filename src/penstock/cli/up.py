"""`penstock up`: collect, fold, serve and send, in one process, until it is stopped."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import resource
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import uvicorn
import uvloop

from penstock.candidates import load_serving
from penstock.cli.develop import load_items
from penstock.cli.listening import listen
from penstock.cli.main import err, out
from penstock.cli.up_file import up_file
from penstock.compose import Node, check_emails, make_node, open_stores
from penstock.connectors import keep_running, make_connectors, stop_all
from penstock.core.definitions.versions import Version
from penstock.core.errors import SettingsError
from penstock.edges.admin.sends import stop_sends
from penstock.edges.fast import FastServer
from penstock.edges.later import LaterApp
from penstock.edges.limits import Limits
from penstock.feeds import make_feeders, stop_feeders
from penstock.flows.replay import LIVE_EPOCH
from penstock.front import Front, make_front
from penstock.project import Project
from penstock.runtimes.connector import Connector
from penstock.settings import ServerSettings

GC_THRESHOLDS = (100_000, 50, 50)
"""The fold makes many objects and no cycles. Measured, Python's own thresholds halve its speed, and
what is loaded at the start need not be looked at again at all."""


@click.command()
@click.argument("folder", default=".", type=click.Path(file_okay=False, path_type=Path))
@click.option(
    "--port", type=click.IntRange(0, 65_535), help="Listen here instead; 0 picks a free port."
)
def command(folder: Path, port: int | None) -> None:
    """Run the project in FOLDER: collect, fold, serve and send."""
    project, fault = load_serving(folder)
    if fault is not None:
        err.print(f"{fault}\nThe project's files are wrong: what served before serves.")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(project, project.settings.server.port if port is None else port))


SWITCH_S = 0.001
"""The longest that the loop keeps a thread waiting for the interpreter. While it is busy a commit waits
so often as SQLite gives the interpreter back, a few times; Python's own 5 ms made most of a commit's time."""

FILES_KEPT = 256
"""Open files that are no connections: the data folder's, an ESP's connections, a backup's."""


class _Server(uvicorn.Server):
    """A server that says when it listens."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.listening.set()


async def serve(project: Project, port: int) -> None:
    """Run a project until SIGTERM or SIGINT, then drain.

    Raises:
        SettingsError: The address can't be listened on (E210).
        Unavailable: Another process owns the data folder (E407).
    """
    # The folder first: a second process on it mostly wants the same port, and is to hear the reason.
    stores = open_stores(project)
    try:
        host = project.settings.server.host
        with listen(host, port, "server.port") as listener:
            shown = f"[{host}]" if ":" in host else host
            url = f"http://{shown}:{listener.getsockname()[1]}"
            node = make_node(project, stores)
            check_emails(node)
            await _run(node, listener, url)
    finally:
        stores.close()


async def _run(node: Node, listener: socket.socket, url: str) -> None:
    node.on_replay = lambda: _say_replay(node)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    stopped = asyncio.create_task(stop.wait())
    before = node.versions.table.active
    assert before is not None, "one version serves"
    if not await _started(node, stopped):
        return
    telling = asyncio.create_task(_tell_of_definitions(node, before))
    connectors = make_connectors(node)
    copying = [asyncio.create_task(keep_running(one, _say_of(one))) for one in connectors]
    feeders = make_feeders(node)
    telling_others = [one.start() for one in feeders]
    try:
        if loaded := await load_items(node):
            out.print(f"{loaded} items loaded from {node.project.settings.development.items}")
        gc.collect()
        gc.freeze()
        gc.set_threshold(*GC_THRESHOLDS)
        sys.setswitchinterval(SWITCH_S)
        front = make_front(node, url)
        later = LaterApp(lambda: _app(node, front))
        settings = node.project.settings.server
        fast = FastServer(front.hot, metrics=node.metrics, limits=_limits(settings))
        server = _Server(uvicorn.Config(
            later, loop="none", http=fast,  # type: ignore[arg-type]
            lifespan="off", log_config=None, access_log=False, timeout_keep_alive=settings.keep_alive_s,
            timeout_graceful_shutdown=10,
        ))  # fmt: skip
        await _serve(server, later, listener, node.project, url, stopped)
    finally:
        stopped.cancel()
        telling.cancel()
        await stop_all(connectors, copying)
        await asyncio.to_thread(stop_feeders, feeders, telling_others)
        await node.close()


def _say_of(connector: Connector) -> Callable[[SettingsError], None]:
    return lambda error: err.print(f"connector {connector.name}: {error}\n  It is tried again.")


def _limits(settings: ServerSettings) -> Limits:
    """Return what connections may cost: as set, and no more of them than files may be open."""
    connections = settings.connections_max
    files = _open_files(connections + FILES_KEPT)
    if files - FILES_KEPT < connections:
        connections = max(files - FILES_KEPT, 16)
        err.print(f"{connections} connections at most, not {settings.connections_max}: no more than {files} files may "
                  "be open; raise it with `ulimit -n` or `LimitNOFILE`.")  # fmt: skip
    return Limits(
        head_s=settings.head_timeout_s, request_s=settings.request_timeout_s, connections=connections,
        idle_connections=min(settings.idle_connections_max, connections),
    )  # fmt: skip


def _open_files(wanted: int) -> int:
    """Return how many files may be open, having asked for as many as are wanted."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return wanted
    asked = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (asked, hard))
    except (ValueError, OSError):
        return soft  # a system may allow less than it says
    return asked


async def _started(node: Node, stopped: asyncio.Task[Any]) -> bool:
    """Start a node; return False if it was told to stop meanwhile."""
    starting = asyncio.create_task(node.start())
    await asyncio.wait([starting, stopped], return_when=asyncio.FIRST_COMPLETED)
    if starting.done():
        await starting
        return True
    # What a replay has folded so far is on disk, and the next start goes on from there.
    starting.cancel()
    await asyncio.gather(starting, return_exceptions=True)
    await node.engine.close()
    return False


def _app(node: Node, front: Front) -> Any:
    """Return the application behind the front; to import its framework is a third of a start."""
    from penstock.application import app_of

    return app_of(node, front)


async def _loaded(later: LaterApp) -> None:
    """Load the application, and go on only if it fails: then nobody is to be served any more."""
    await later.load()
    gc.freeze()  # what was imported now need not be looked at either
    await asyncio.Event().wait()


async def _serve(
    server: _Server, later: LaterApp, listener: socket.socket, project: Project, url: str,
    stopped: asyncio.Task[Any],
) -> None:  # fmt: skip
    serving = asyncio.create_task(server._serve([listener]))  # noqa: SLF001 - `serve` installs handlers
    listening = asyncio.create_task(server.listening.wait())
    await asyncio.wait([serving, listening], return_when=asyncio.FIRST_COMPLETED)
    listening.cancel()
    path = up_file(project.data_dir)
    loaded = asyncio.create_task(_loaded(later))
    try:
        if not serving.done():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps({"url": url, "pid": os.getpid()}), encoding="utf-8")
            _say_up(project, url)
            await asyncio.wait([serving, stopped, loaded], return_when=asyncio.FIRST_COMPLETED)
            stop_sends()  # they may last for hours; everything else is drained
            server.should_exit = True
        await serving
        if loaded.done():
            await loaded
    finally:
        loaded.cancel()
        path.unlink(missing_ok=True)


async def _tell_of_definitions(node: Node, before: Version) -> None:
    """Say what becomes of files that have changed since they were applied."""
    progress = node.versions.progress
    if not node.pending and progress is None and node.versions.table.candidate is None:
        if before.digest != node.project.digest and not node.project.kept:
            out.print(f"The project's files are not definitions {before.number}, which serve: `penstock plan` shows "
                      "what differs, `penstock apply` goes over to them.")  # fmt: skip
        return
    out.print(
        f"The definitions changed: new ones are built beside definitions {before.number}, which serve until then."
    )
    out.file.flush()
    ended = await node.versions.ended()
    if ended is not None and ended.error is not None:
        err.print(str(ended.error))
    elif ended is not None and ended.done:
        again = ", and published campaigns go by them" if node.pending else ""
        out.print(
            f"Definitions {ended.number} serve now{again}; `penstock rollback` goes back to {before.number}."
        )
    out.file.flush()


def _say_replay(node: Node) -> None:
    log = node.stores.log
    if any(log.head(partition) for partition in range(log.partitions)):
        known = node.stores.store.get_meta(LIVE_EPOCH)
        why = "The leaves are of another version" if known else "The store is empty"
        out.print(f"{why}: replaying the log before anything is served as live.")


def _say_up(project: Project, url: str) -> None:
    sources = ", ".join(
        f"{name} ({source.kind})"
        for name, source in project.settings.sources.items()
        if source.write_key
    )
    out.print(f"Penstock is up at {url}")
    if project.settings.development.preview:
        out.print(f"  preview: {url}/preview shows a shop, and the email that answers each click")
    if project.settings.development.test_api:
        out.print(
            f"  tests:   GET {url}/_test/accepted, rejected or profiles; POST {url}/_test/reset"
        )
    out.print(
        f"  events:  POST {url}/v1/batch with a write key of: {sources or 'no source is declared'}"
    )
    for campaign in project.campaigns:
        out.print(f"  decide:  GET {url}/v1/decide/{campaign}?user_id=… with a read key")
        out.print(f"  send:    penstock send {campaign} --dry-run")
    out.print(
        f"  why:     penstock explain user_id:… --campaign {next(iter(project.campaigns), '…')}"
    )
    out.print(f"  API:     {url}/schema/openapi.json; the keys are in penstock.toml")
    out.print("  stop:    Ctrl-C")
    out.file.flush()
