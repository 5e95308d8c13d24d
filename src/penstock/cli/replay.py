"""`penstock replay`: rebuild the store from the log, and compare it with what was there."""

from __future__ import annotations

from pathlib import Path

import click
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from penstock.candidates import load_serving, serving_of
from penstock.cli.main import JSON, PROJECT, err, out, show
from penstock.compose import open_stores
from penstock.core.definitions.versions import rebuilt
from penstock.core.errors import DataCorrupt
from penstock.core.step import Step
from penstock.flows.replay import (
    LIVE_EPOCH,
    compare,
    covered_offsets,
    fingerprint_name,
    keeper,
    make_live,
    replay,
)
from penstock.flows.snapshot import Snapshot, begin


@click.command()
@click.option(
    "--accept",
    is_flag=True,
    help="Serve the rebuilt leaves whatever those before were; they may be damaged.",
)
@PROJECT
@JSON
def command(accept: bool, project_dir: Path, as_json: bool) -> None:
    """Rebuild the leaves that serve from the whole log, and compare every byte with those before."""
    project, _ = load_serving(project_dir, always=True)
    stores = open_stores(project)
    store, log = stores.store, stores.log
    try:
        project = serving_of(project, stores.versions)
        table = stores.versions.load()
        active = table.active
        live = int(store.get_meta(LIVE_EPOCH) or 0)
        known = bool(live) and store.get_meta(fingerprint_name(live)) == project.fingerprint
        same = known and not accept
        step = Step(project.plan, project.step_rules())
        covered, keep = covered_offsets(log, store, live), keeper(log, stores.suppressions)
        if same:
            # What the last process left unwritten is folded first, so that like is compared with like.
            replay(log, store, step, live, covered=covered, keep=keep)
            covered = None
        epoch = max([live, *store.epochs(), *table.epochs()]) + 1
        snapshot = Snapshot(store, live, project.plan) if known else None
        begin(log, store, epoch, project.plan, snapshot)
        store.put_meta(fingerprint_name(epoch), project.fingerprint)
        total = sum(log.head(one) - log.first(one) for one in range(log.partitions))
        with Progress(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
                      TimeRemainingColumn(), disable=as_json or not err.is_terminal, transient=True, console=err) as bar:  # fmt: skip
            task = bar.add_task("replaying", total=total)
            replay(log, store, step, epoch, covered=covered, keep=keep,
                   progress=lambda count: bar.advance(task, count))  # fmt: skip
        compared = compare(store, live, epoch) if same else None
        result = {
            "records": total, "epoch": epoch, "definitions_changed": not known,
            "leaves_equal": compared.equal if compared else None,
            "leaves_different": 0 if compared is None else len(compared.different)
            + len(compared.only_first) + len(compared.only_second),
        }  # fmt: skip
        switched = compared is None or compared.same
        result["switched"] = switched
        if switched:
            if active is not None:
                stores.versions.put(rebuilt(table, active.number, epoch, project.fingerprint))
            make_live(store, epoch, keep=stores.versions.load().epochs())
        else:
            store.drop(epoch)
    finally:
        stores.close()

    def say() -> None:
        out.print(f"{total} records replayed into epoch {epoch}")
        if compared is not None and compared.same:
            out.print(f"All {compared.equal} leaves are equal, byte for byte.")
        elif not known:
            out.print("The leaves were of another version: the new ones serve from now on.")
        elif accept:
            out.print("The rebuilt leaves serve from now on.")

    show(result, as_json, say)
    if not switched:
        raise DataCorrupt("E710", f"{result['leaves_different']} leaves differ from a replay of the log",
                          fix="copy the data folder and report it; `penstock up` goes on with the old leaves, and "
                          "`penstock replay --accept` goes over to those of the log")  # fmt: skip
