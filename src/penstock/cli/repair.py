"""`penstock repair`: a log that is damaged in places is read around them, and filled from backups."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import click

from penstock.adapters.clock import SystemClock
from penstock.adapters.files import scratch, sync_folder
from penstock.adapters.log.sqlite import KIND, SqliteLog
from penstock.adapters.log.sqlite.salvage import Gap, Salvaged, salvage, survey
from penstock.adapters.sqlite import Ownership, connect
from penstock.archives import make_archived_log
from penstock.backups import fetch_log
from penstock.cli.backup import place_of, progress_bar
from penstock.cli.main import JSON, PROJECT, out, show
from penstock.core.errors import DataCorrupt, PenstockError, SettingsError, Unavailable
from penstock.flows.archiving import ArchivedLog
from penstock.flows.replay import LIVE_EPOCH
from penstock.logs import require_in_folder
from penstock.project import Project, load_project
from penstock.stores import open_store_beside

READ_RECORDS = 5_000


@click.command()
@click.option("--from", "sources", multiple=True, metavar="BACKUP",
              help="A backup, a folder or s3://BUCKET/PREFIX, that has what is damaged; may be named several times.")  # fmt: skip
@PROJECT
@JSON
def command(sources: tuple[str, ...], project_dir: Path, as_json: bool) -> None:
    """Make a damaged log whole: what a backup or the archive has is put back, the rest is marked as lost.

    The damaged file is kept beside the new one. Nothing that reads back is changed. What an earlier repair
    marked as lost is put back too, if a backup or the archive now has it.
    """
    project = load_project(project_dir)
    require_in_folder(project, "there is no file to repair", "let its brokers copy what one of them lost; run `penstock doctor`")  # fmt: skip
    path = project.data_dir / "log.db"
    if project.settings.log.kind != "sqlite" or not path.exists():
        raise SettingsError("E212", "there is no log to repair", where=str(path),
                            fix="name the project's folder with --project")  # fmt: skip
    with ExitStack() as stack:
        owner = Ownership(path, KIND)
        stack.callback(owner.release)
        _settle(path)
        heads = heads_of(project)
        found = survey(path, heads)
        result: dict[str, Any] = {"whole": found.whole, "restored": 0, "lost": _records(found.marked),
                                  "gaps": [gap._asdict() for gap in found.marked], "letters_lost": 0}  # fmt: skip
        archived = make_archived_log(project)
        if archived is not None:
            stack.callback(archived.archive.close)
        # What was marked as lost is looked for again wherever it may be by now.
        if not found.whole or (found.marked and (sources or archived is not None)):
            copies = stack.enter_context(_copies(sources, project_dir, project.data_dir))
            done, kept = _repair(path, copies, heads, archived, needless=found.whole)
            result |= {"restored": done.restored, "lost": _records(done.lost),
                       "gaps": [gap._asdict() for gap in done.lost], "letters_lost": done.letters_lost}  # fmt: skip
            if kept is not None:
                result["kept"] = str(kept)

    def say() -> None:
        if "kept" not in result:
            out.print("Every batch of the log reads back: there is nothing to repair.")
            for gap in result["gaps"]:
                out.print(f"  marked as lost, by an earlier repair: {named(Gap(**gap))}")
            if result["gaps"]:
                out.print("  a backup that has it puts it back: penstock repair --from BACKUP")
            return
        out.print(f"Repaired the log: {result['restored']} records put back, {result['lost']} lost, "
                  f"{result['letters_lost']} dead letters lost")  # fmt: skip
        for gap in result["gaps"]:
            out.print(f"  lost: {named(Gap(**gap))}")
        out.print(f"  the damaged file is kept as {result['kept']}")
        out.print("  next: penstock replay --accept, then penstock doctor")

    show(result, as_json, say)


def _records(gaps: Sequence[Gap]) -> int:
    return sum(gap.records for gap in gaps)


def named(gap: Gap) -> str:
    """Return how messages call a gap."""
    return f"partition {gap.partition}, offsets {gap.first} to {gap.end - 1}"


def heads_of(project: Project) -> list[int]:
    """Return by partition how far leaves have applied the log; empty if the store cannot tell."""
    try:
        store = open_store_beside(project)
        if store is None:
            return []
        with closing(store):
            epoch = int(store.get_meta(LIVE_EPOCH) or 0)
            partitions = range(project.settings.log.partitions)
            return [store.applied(epoch, partition).offset + 1 for partition in partitions]
    except PenstockError:
        return []


def _settle(path: Path) -> None:
    """Bring what is in the write-ahead log into the file, so that the file alone is the log."""
    # A file whose first page is damaged cannot be opened so; mostly there is nothing to bring in.
    with suppress(sqlite3.Error, DataCorrupt), closing(connect(path, KIND)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    ahead = path.with_name(f"{path.name}-wal")
    if ahead.exists() and ahead.stat().st_size:
        raise Unavailable("E401", "the log's newest batches could not be brought into its file", where=str(ahead),
                          fix="copy the data folder, then see whether the disk is full or read-only")  # fmt: skip


@contextmanager
def _copies(sources: Sequence[str], project_dir: Path, data: Path) -> Iterator[list[Path]]:
    with scratch(data, "repair") as folder, progress_bar(shown=False) as progress:
        copies: list[Path] = []
        for number, source in enumerate(sources):
            copies.append(folder / f"{number}.db")
            fetch_log(place_of(source, project_dir), copies[-1], progress)
        yield copies


def _repair(
    path: Path, copies: Sequence[Path], heads: Sequence[int], archived: ArchivedLog | None, *,
    needless: bool,
) -> tuple[Salvaged, Path | None]:  # fmt: skip
    """Write the new log beside the old one, read it back, and put it in its place.

    Args:
        path: The log.
        copies: Other logs that may have what it lacks.
        heads: See `salvage`.
        archived: Another that may.
        needless: Whether all of the log reads back: then it stays as it is if nothing is put back.

    Returns:
        What was found, and how the old file is called now; None if it is in its place.
    """
    new = path.with_name("log.db.repaired")
    for left in (new, new.with_name(f"{new.name}-wal"), new.with_name(f"{new.name}-shm")):
        left.unlink(missing_ok=True)
    before = archived.before if archived is not None else lambda *_: []
    done = salvage(path, new, copies, heads, before=before)
    if needless and not done.restored:
        for left in path.parent.glob("log.db.repaired*"):
            left.unlink()
        return done, None
    with closing(SqliteLog(new, SystemClock(), read_only=True)) as log:
        for partition in range(log.partitions):
            offset = log.first(partition)
            while batch := log.read(partition, offset, READ_RECORDS):
                offset = batch[-1].offset + 1
    number = 1
    while (kept := path.with_name(f"log.db.damaged-{number}")).exists():
        number += 1
    # A link first: at no moment is there no log, which would be taken for a new shop's.
    os.link(path, kept)
    new.replace(path)
    for stale in path.parent.glob("index.db*"):
        stale.unlink()
    for left in (*path.parent.glob("log.db.repaired*"), *path.parent.glob("log.db-*")):
        left.unlink()
    sync_folder(path.parent)
    return done, kept
