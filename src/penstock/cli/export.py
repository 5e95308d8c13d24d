"""`penstock export`: what may be served of each person, as a Parquet file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from penstock.candidates import load_serving
from penstock.cli.client import Admin, Files, with_admin
from penstock.cli.main import JSON, PROJECT, err, out, show
from penstock.cli.parquet import ParquetFile, columns_of
from penstock.core.errors import DataCorrupt, SettingsError

PAGE_LEAVES = 500
DAMAGED_SHOWN = 5


@click.command()
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--audience", default="", help="Only the members of this audience.")
@click.option("--as-of", default="", help="An instant, ISO 8601: what was known and served then.")
@click.option("--identifiers", is_flag=True,
              help="Add raw user ids and addresses; without it a person is a hash.")  # fmt: skip
@PROJECT
@JSON
def command(
    file: Path, audience: str, as_of: str, identifiers: bool, project_dir: Path, as_json: bool
) -> None:  # fmt: skip
    """Export profiles to FILE (.parquet): features and unprotected traits that consent lets be served."""
    if file.suffix.lower() != ".parquet":
        raise SettingsError("E212", f"profiles are not written to files that end in `{file.suffix}`", where=file.name,
                            fix="name a file that ends in .parquet")  # fmt: skip
    project, _ = load_serving(project_dir, always=True)
    columns = columns_of(project.plan, project.catalog.traits, identifiers=identifiers)
    part = file.with_name(f".{file.name}.part")
    withheld = 0
    damaged: set[str] = set()

    async def work(admin: Admin) -> int:
        nonlocal withheld
        with ParquetFile(part, columns) as target:
            after = ""
            while True:
                body = {"after": after, "limit": PAGE_LEAVES, "as_of": as_of, "audience": audience,
                        "identifiers": identifiers}  # fmt: skip
                page = await admin.post("/v1/admin/profiles", body)
                target.add(page["rows"])
                withheld += page["withheld"]
                damaged.update(page["damaged"])
                after = page["after"]
                if not after:
                    return target.rows

    try:
        rows = with_admin(project_dir, work, Files.EITHER)
        # Whole or not at all: who reads the file while it is written again sees the one before.
        part.replace(file)
    except OSError as error:
        raise SettingsError("E226", f"the export can't be written: {error.strerror}", where=str(file),
                            fix="name a file in a folder that you may write to") from error  # fmt: skip
    finally:
        part.unlink(missing_ok=True)
    result: dict[str, Any] = {"file": str(file), "people": rows, "withheld": withheld,
                              "damaged": sorted(damaged)}  # fmt: skip

    def say() -> None:
        out.print(f"{rows} people exported to {file}")
        if withheld:
            err.print(f"{withheld} more permit nothing, and are left out")
        if damaged:
            err.print(f"E704: {len(damaged)} leaves do not read back, and whoever has one is left out: "
                      + ", ".join(sorted(damaged)[:DAMAGED_SHOWN]))  # fmt: skip
            err.print("  fix: rebuild the store with `penstock replay --accept`, then export again")

    show(result, as_json, say)
    if damaged:
        raise SystemExit(DataCorrupt.exit_code)
