"""`penstock archive`: what of the log is in the archive, and whether it reads back."""

from __future__ import annotations

import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import click

from penstock.archives import make_archived_log
from penstock.cli.main import JSON, PROJECT, out, show
from penstock.core.errors import DataCorrupt, SettingsError
from penstock.flows.archiving import Kept
from penstock.project import load_project

MIB = 1024 * 1024


@click.command()
@click.option("--verify", is_flag=True, help="Read every segment back, too.")
@PROJECT
@JSON
def command(verify: bool, project_dir: Path, as_json: bool) -> None:
    """List what the archive holds of the log. `penstock up` may go on meanwhile."""
    archived = make_archived_log(load_project(project_dir))
    if archived is None:
        raise SettingsError("E249", "the project has no archive", where="archive.place",
                            fix="name a folder or `s3://BUCKET/PREFIX` in penstock.toml")  # fmt: skip
    damaged: list[DataCorrupt] = []
    try:
        kept = archived.segments()
        for one in kept if verify else ():
            try:
                archived.check(one)
            except DataCorrupt as error:
                damaged.append(error)
    finally:
        archived.archive.close()
    result = {
        "segments": len(kept), "records": sum(one.span.end - one.span.first for one in kept),
        "bytes": sum(one.size for one in kept), "verified": verify, "partitions": _partitions(kept),
        "damaged": [{"code": one.code, "what": one.what, "where": one.where} for one in damaged],
    }  # fmt: skip

    def say() -> None:
        out.print(
            f"{len(kept)} segments, {result['records']} records, {result['bytes'] / MIB:.1f} MiB"
        )
        for one in result["partitions"]:
            out.print(f"  generation {one['generation']}, partition {one['partition']}: "
                      f"{one['segments']} segments, up to offset {one['end'] - 1}")  # fmt: skip
        for error in damaged:
            out.print(str(error))
        if verify and not damaged:
            out.print("  all of them read back")

    show(result, as_json, say)
    if damaged:
        sys.exit(DataCorrupt.exit_code)


def _partitions(kept: list[Kept]) -> list[dict[str, Any]]:
    by_partition: dict[tuple[int, int], list[Kept]] = defaultdict(list)
    for one in kept:
        by_partition[one.span.generation, one.span.partition].append(one)
    return [
        {"generation": generation, "partition": partition, "segments": len(ours),
         "end": max(one.span.end for one in ours)}
        for (generation, partition), ours in sorted(by_partition.items())
    ]  # fmt: skip
