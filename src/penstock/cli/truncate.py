"""`penstock truncate`: records that are old, applied and archived are removed from the log, by hand."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import click
import msgspec

from penstock.adapters.clock import SystemClock
from penstock.adapters.leaf_index.memory import MemoryLeafIndex
from penstock.adapters.store.memory import MemoryStore
from penstock.adapters.versions.folder import FolderVersions
from penstock.archives import open_log_beside
from penstock.candidates import VERSIONS_FOLDER, load_serving, serving_of, steps_of
from penstock.cli.main import JSON, PROJECT, out, show
from penstock.compose import Stores, open_stores
from penstock.core.errors import SettingsError
from penstock.core.step import Step
from penstock.core.time import format_instant
from penstock.flows.forgetting import Forgetter
from penstock.flows.history import index_closed
from penstock.flows.replay import LIVE_EPOCH, fingerprint_name
from penstock.flows.tiered import TieredLog
from penstock.flows.truncating import Cut, Serves, Truncator
from penstock.housekeeping import make_truncator
from penstock.logs import require_in_folder
from penstock.project import Project
from penstock.settings import keep_ms
from penstock.stores import open_store_beside


@click.command()
@click.option("--dry-run", is_flag=True, help="Say what would go, and change nothing; `penstock up` may run.")  # fmt: skip
@click.option("--keep", default="", metavar="SPAN", help="Instead of the setting `log.keep`, such as 90d or 36h.")  # fmt: skip
@PROJECT
@JSON
def command(dry_run: bool, keep: str, project_dir: Path, as_json: bool) -> None:
    """Remove from the log what is older than `log.keep`, in every leaf, and in the archive.

    `penstock up` does it by itself while it runs. Whatever reads the log reads on in the archive. If
    there is none, and `log.forget` is set, what is removed is gone, and leaves begin from a snapshot.
    """
    project = _with_keep(load_serving(project_dir, always=True)[0], keep)
    with (_beside if dry_run else _owned)(project) as truncator:
        cuts = truncator.due()
        records = sum(cut.end - cut.first for cut in cuts)
        if not dry_run:
            records = 0
            while gone := truncator.once():
                records += gone

    def say() -> None:
        if not records:
            out.print("Nothing of the log can go: see `penstock_log_first_offset` and the guide on the archive.")  # fmt: skip
            return
        where = (
            "the archive has them" if project.settings.archive.place else "nothing else has them"
        )
        out.print(f"{records} records {'would be' if dry_run else 'were'} removed from the log; {where}")  # fmt: skip
        for cut in cuts:
            out.print(f"  partition {cut.partition}: offsets {cut.first} to {cut.end - 1}, "
                      f"logged until {format_instant(cut.until_ms)}")  # fmt: skip

    show({"dry_run": dry_run, "records": records, "cuts": [_plain(cut) for cut in cuts]}, as_json, say)  # fmt: skip


def _plain(cut: Cut) -> dict[str, int | str]:
    return {**cut._asdict(), "until_ms": cut.until_ms, "until": format_instant(cut.until_ms)}


def _with_keep(project: Project, keep: str) -> Project:
    log = project.settings.log
    if keep:
        if not keep_ms(keep):
            raise SettingsError("E270", "--keep is no span of days or hours", where="--keep",
                                fix='write it such as "90d" or "36h"')  # fmt: skip
        log = msgspec.structs.replace(log, keep=keep)
    require_in_folder(project, "its topic's retention removes what is old", "set `log.kafka.retention`, and run `penstock apply`")  # fmt: skip
    if log.kind != "sqlite":
        raise SettingsError("E207", "a log in memory is not truncated: it ends with its process", where="log.kind",
                            fix='set log.kind to "sqlite" to keep one')  # fmt: skip
    if not log.keep:
        raise SettingsError("E273", "nothing says how long the log is kept", where="log.keep",
                            fix="set `log.keep`, or give --keep")  # fmt: skip
    if not (project.settings.archive.place or log.forget):
        raise SettingsError("E273", "the log is to be truncated, and nothing has the rest of it", where="archive.place",
                            fix="set `archive.place`; or `log.forget = true` if history may go for good")  # fmt: skip
    return replace(project, settings=msgspec.structs.replace(project.settings, log=log))


@contextmanager
def _owned(project: Project) -> Iterator[Truncator]:
    stores = open_stores(project)
    try:
        serving = serving_of(project, stores.versions)
        live = int(stores.store.get_meta(LIVE_EPOCH) or 0)
        if stores.store.get_meta(fingerprint_name(live)) != serving.fingerprint:
            raise SettingsError("E274", "the leaves were made by another version of Penstock, or are not there", where="log.keep",
                                fix="let `penstock up` replay the log first")  # fmt: skip
        index_closed(stores.log, stores.index)
        serves = Serves(live, Step(serving.plan, serving.step_rules()))
        yield _truncator(project, stores, serves, steps_of(project, stores.versions))
    finally:
        stores.close()


def _truncator(
    project: Project, stores: Stores, serves: Serves, steps: dict[int, Step]
) -> Truncator:
    epochs = {serves.epoch, *stores.versions.load().epochs()}
    made = make_truncator(
        project, stores, SystemClock(), lambda: serves, lambda: epochs, lambda: steps
    )
    assert made is not None, "it was looked at before"
    return made


@contextmanager
def _beside(project: Project) -> Iterator[Truncator]:
    with open_log_beside(project) as log:
        store = open_store_beside(project) or MemoryStore()
        try:
            epochs = FolderVersions(project.data_dir / VERSIONS_FOLDER).load().epochs()
            live = int(store.get_meta(LIVE_EPOCH) or 0)
            shared = {
                "store": store, "epochs": lambda: {live, *epochs}, "serves": _nothing, "clock": SystemClock(),
                "keep_ms": project.settings.log.keep_ms,
            }  # fmt: skip
            if isinstance(log, TieredLog):
                yield Truncator(log, log.archive, MemoryLeafIndex(), **shared)
            else:
                yield Forgetter(log, MemoryLeafIndex(), steps=dict, **shared)
        finally:
            store.close()


def _nothing() -> Serves:
    raise AssertionError("what is only looked at needs no leaves")
