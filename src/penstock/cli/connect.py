"""`penstock connect`: topics of other producers are copied into the log, until it is stopped."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import click
import uvloop

from penstock.candidates import load_serving
from penstock.cli.main import err, out
from penstock.compose import make_node, open_stores
from penstock.connectors import make_connectors
from penstock.project import Project


@click.command()
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.argument("names", nargs=-1)
def command(folder: Path, names: tuple[str, ...]) -> None:
    """Copy the topics of the project's connectors, or of those NAMES, into its log.

    `penstock up` does it too, beside all else. SIGTERM lets it copy and commit what it has.
    """
    project, fault = load_serving(folder)
    if fault is not None:
        err.print(f"{fault}\nThe project's files are wrong: what served before serves.")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(connect(project, names))


async def connect(project: Project, names: tuple[str, ...]) -> None:
    """Run connectors until SIGTERM or SIGINT, or until one can't go on.

    Raises:
        SettingsError: A connector lacks something (E233 to E237, E230).
        Unavailable: Another process owns the data folder (E407).
    """
    stores = open_stores(project)
    try:
        node = make_node(project, stores)
        connectors = make_connectors(node, names)
        await node.start()
        try:
            loop = asyncio.get_running_loop()
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, lambda: [one.stop() for one in connectors])
            for one in connectors:
                out.print(
                    f"{one.name}: copying {', '.join(project.settings.connect[one.name].topics)}"
                )
            await asyncio.gather(*(one.run() for one in connectors))
        finally:
            for one in connectors:
                one.stop()
            await node.close()
    finally:
        stores.close()
