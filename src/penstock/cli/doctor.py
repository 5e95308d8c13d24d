"""`penstock doctor`: what is right, what is wrong, and the fix for each."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import click

from penstock import __version__
from penstock.cli.client import readiness, running_url
from penstock.cli.main import JSON, PROJECT, out, show
from penstock.compose import Stores, make_renderer, open_stores
from penstock.core.errors import DataCorrupt, PenstockError
from penstock.flows.replay import LIVE_EPOCH, fingerprint_name
from penstock.flows.status import conservation
from penstock.project import Project, load_project

PYTHON = (3, 11)
DISK_FREE_BYTES = 1 << 30


class Finding(NamedTuple):
    """One check: `ok`, `skip` or `FAIL`, what was found, and what to do."""

    state: str
    what: str
    fix: str = ""
    exit_code: int = 0


@click.command()
@PROJECT
@JSON
def command(project_dir: Path, as_json: bool) -> None:
    """Check the installation, the project and its data, in order, and say the fix for each fault."""
    findings = list(examine(project_dir))
    result = [finding._asdict() for finding in findings]

    def say() -> None:
        for one in findings:
            out.print(f"{one.state:>5}  {one.what}", markup=False, soft_wrap=True)
            if one.fix:
                out.print(f"         fix: {one.fix}", markup=False, soft_wrap=True)

    show(result, as_json, say)
    sys.exit(max(one.exit_code for one in findings))


def examine(project_dir: Path) -> Iterator[Finding]:
    """Yield the findings, in the order of what depends on what."""
    version = ".".join(map(str, sys.version_info[:3]))
    good = sys.version_info >= PYTHON
    yield Finding("ok" if good else "FAIL", f"python {version}, penstock {__version__}",
                  "" if good else "install Python 3.11 or newer", 0 if good else 1)  # fmt: skip
    if sys.flags.optimize:
        yield Finding("FAIL", "python runs with -O, which removes checks", "start it without -O", 1)
    try:
        project = load_project(project_dir)
    except PenstockError as error:
        yield _fault("project", error)
        yield Finding("skip", "the rest: it needs a project that loads")
        return
    yield Finding("ok", f"project `{project.settings.project.name}`: {len(project.plan.features)} features, "
                  f"{len(project.slots)} slots, {len(project.campaigns)} campaigns, "
                  f"{len(project.settings.sources)} sources")  # fmt: skip
    yield _check("templates", lambda: f"{len(make_renderer(project).names())} parsed")
    yield _keys_of(project)
    yield _disk(project)
    url = running_url(project)
    if url:
        yield from _ask(url)
        yield Finding(
            "skip", "the data: `penstock up` owns the folder; stop it to check every byte"
        )
        return
    if not project.data_dir.exists():
        yield Finding("skip", "the data: there is none yet")
        return
    yield from _data(project)


def _fault(name: str, error: PenstockError) -> Finding:
    place = f" ({error.where})" if error.where else ""
    return Finding("FAIL", f"{name}: {error.code}: {error.what}{place}", error.fix, error.exit_code)


def _check(name: str, work: Callable[[], str]) -> Finding:
    try:
        return Finding("ok", f"{name}: {work()}")
    except PenstockError as error:
        return _fault(name, error)


def _keys_of(project: Project) -> Finding:
    server = project.settings.server
    missing = [name for name, key in (("server.read_keys", server.read_keys), ("server.admin_key", server.admin_key),
               *((f"sources.{name}.write_key", source.write_key)
                 for name, source in project.settings.sources.items() if source.kind == "browser"))
               if not key]  # fmt: skip
    if missing:
        return Finding(
            "FAIL", f"keys: {', '.join(missing)} not set", "set them in penstock.toml", 3
        )
    return Finding(
        "ok",
        f"keys: {len(server.read_keys)} read, 1 admin, {len(project.settings.sources)} sources",
    )


def _disk(project: Project) -> Finding:
    folder = project.data_dir if project.data_dir.exists() else project.root
    free = shutil.disk_usage(folder).free
    if free < DISK_FREE_BYTES:
        return Finding(
            "FAIL",
            f"disk: {free >> 20} MiB free",
            "make room: events are refused when it is full",
            1,
        )
    return Finding("ok", "disk: more than 1 GiB free")


def _ask(url: str) -> Iterator[Finding]:
    ready, reason = readiness(url)
    yield (
        Finding("ok", "`penstock up` runs and is ready")
        if ready
        else Finding(
            "FAIL", f"`penstock up` runs and is not ready: {reason}", "see what it printed", 69
        )
    )


def _data(project: Project) -> Iterator[Finding]:
    try:
        stores = open_stores(project)
    except PenstockError as error:
        yield _fault("data", error)
        return
    try:
        yield _check("log", lambda: _log(stores))
        yield _check("store", lambda: _store(project, stores))
    finally:
        stores.close()


def _log(stores: Stores) -> str:
    log = stores.log
    read = 0
    for partition in range(log.partitions):
        offset = 0
        while batch := log.read(partition, offset, 5_000):
            offset = batch[-1].offset + 1
            read += len(batch)
    return f"{read} records read back, {log.counts()['dead_letters']} dead letters"


def _store(project: Project, stores: Stores) -> str:
    live = int(stores.store.get_meta(LIVE_EPOCH) or 0)
    if not live:
        return "empty; `penstock up` fills it"
    if stores.store.get_meta(fingerprint_name(live)) != project.fingerprint:
        return "made by other definitions; `penstock up` replays the log"
    law = conservation(stores.log, stores.store, live, project.plan)
    if not law.holds:
        raise DataCorrupt("E711", f"{law.accepted} events were accepted, and the leaves account for another number",
                          fix="rebuild the store with `penstock replay`")  # fmt: skip
    return f"{law.leaves} leaves decoded; conserved: {law.accepted} accepted, {law.in_flight} in flight"
