"""`penstock backup`: the project's data as they are now, verified, in a folder or a bucket."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from penstock.adapters.backup.folder import FolderBackup
from penstock.adapters.backup.objects import ObjectsBackup
from penstock.adapters.clock import SystemClock
from penstock.archives import open_bucket
from penstock.backups import Place, Progress, Sampling, make_backup, verify_backup
from penstock.candidates import load_serving
from penstock.cli.main import JSON, PROJECT, err, out, show
from penstock.core.backup import Manifest
from penstock.flows.refold import SAMPLE_LEAVES

MIB = 1024 * 1024


@click.command()
@click.argument("dest", metavar="DEST")
@click.option("--verify", is_flag=True, help="Make none: verify the one that is at DEST.")
@click.option("--sample", default=SAMPLE_LEAVES, show_default=True, type=click.IntRange(min=0), metavar="LEAVES",
              help="Leaves that are refolded from the log and compared.")  # fmt: skip
@click.option("--seed", type=click.IntRange(0, 2**63 - 1), help="Chooses those leaves; by default by lot.")  # fmt: skip
@PROJECT
@JSON
def command(
    dest: str, verify: bool, sample: int, seed: int | None, project_dir: Path, as_json: bool
) -> None:
    """Back up keys, suppressions, log, leaves and decisions to DEST, a new folder or s3://BUCKET/PREFIX.

    `penstock up` may go on meanwhile: a backup is what the data were at one instant.
    """
    sampling = Sampling(sample, secrets.randbits(32) if seed is None else seed)
    with progress_bar(shown=not as_json) as progress:
        if verify:
            manifest = verify_backup(place_of(dest, project_dir), sampling=sampling, progress=progress,
                                     beside=_beside(dest, project_dir), archive_root=project_dir)  # fmt: skip
        else:
            project, _ = load_serving(project_dir, always=True)
            manifest = make_backup(project, place_of(dest, project.data_dir), sampling=sampling,
                                   clock=SystemClock(), progress=progress)  # fmt: skip

    def say() -> None:
        done = "is whole" if verify else "made"
        out.print(
            f"Backup {done}: {dest}, {manifest.total_bytes / MIB:.1f} MiB in {len(manifest.files)} files"
        )
        out.print(
            f"  {sum(manifest.heads)} records as of {manifest.made_at}, read back from the copy"
        )
        out.print(
            f"  {manifest.sampled} leaves refolded from them, equal byte for byte (seed {manifest.seed})"
        )

    show({"place": dest, **told(manifest)}, as_json, say)


def _beside(dest: str, project_dir: Path) -> Path:
    """Return where a copy of a backup is made to be looked at: on the disk that has it, or a project's."""
    return project_dir.resolve() if "://" in dest else Path(dest).resolve().parent


def place_of(text: str, scratch: Path) -> Place:
    """Return the place that a command names: a folder, or `s3://BUCKET/PREFIX`.

    Args:
        text: A path or a URL; `?endpoint=…&region=…` name an S3 API that is not AWS's.
        scratch: Where files are gathered that are not copied into a folder.

    Raises:
        SettingsError: It is no place (E246), or S3 needs an extra that is not installed (E245).
    """
    if "://" not in text:
        return FolderBackup(Path(text))
    archive, shown = open_bucket(text)
    return ObjectsBackup(archive, shown, scratch)


def told(manifest: Manifest) -> dict[str, Any]:
    """Return what a manifest says, for machines."""
    return {
        "made_at": manifest.made_at, "penstock": manifest.penstock, "bytes": manifest.total_bytes,
        "files": len(manifest.files), "records": sum(manifest.heads), "definitions": manifest.definitions,
        "leaves_refolded": manifest.sampled, "seed": manifest.seed,
    }  # fmt: skip


@contextmanager
def progress_bar(*, shown: bool) -> Iterator[Progress]:
    """Show on the terminal how far a backup or a restore is."""
    with Bar(TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn(),
             disable=not shown or not err.is_terminal, transient=True, console=err) as bar:  # fmt: skip
        task = bar.add_task("", total=None)
        yield Progress(
            begin=lambda what, size: bar.reset(task, description=what, total=size),
            advance=lambda size: bar.advance(task, size),
        )
