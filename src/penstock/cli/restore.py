"""`penstock restore`: a backup becomes a project's data again, and on an empty machine the project too."""

from __future__ import annotations

from pathlib import Path

import click

from penstock.backups import restore
from penstock.cli.backup import place_of, progress_bar, told
from penstock.cli.main import JSON, PROJECT, out, show


@click.command()
@click.argument("src", metavar="SRC")
@click.option("--later", type=click.Path(exists=True, path_type=Path), metavar="LATER",
              help="Merge what a later backup, or the data folder that was lost, knows of unsubscribes, withdrawals, decisions and sends.")  # fmt: skip
@PROJECT
@JSON
def command(src: str, later: Path | None, project_dir: Path, as_json: bool) -> None:
    """Restore the backup at SRC, a folder or s3://BUCKET/PREFIX, into a project without data.

    Everything is verified before anything is put in place. A folder without a penstock.toml gets the
    project's files from the backup too.
    """
    with progress_bar(shown=not as_json) as progress:
        done = restore(place_of(src, project_dir), project_dir, later=later, progress=progress)  # fmt: skip
    manifest = done.manifest

    def say() -> None:
        out.print(
            f"Restored {src} into {project_dir}: {sum(manifest.heads)} records as of {manifest.made_at}"
        )
        if done.project_written:
            out.print("  with the project's files and its penstock.toml")
        if later is not None:
            out.print(
                f"  merged: {done.merged.suppressions} suppressions and withdrawals, {done.merged.decisions} later decisions"
            )
        out.print("  next: penstock doctor, then penstock up")

    result = {"place": src, **told(manifest), "project_written": done.project_written,
              "suppressions_merged": done.merged.suppressions, "decisions_merged": done.merged.decisions}  # fmt: skip
    show(result, as_json, say)
