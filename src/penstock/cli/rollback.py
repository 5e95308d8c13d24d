"""`penstock rollback`: the definitions that served before serve again, at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from penstock.cli.client import Admin, Files, with_admin
from penstock.cli.main import JSON, PROJECT, out, show
from penstock.cli.versions import say_versions


@click.command()
@click.argument("version", type=click.IntRange(min=0), default=0)
@PROJECT
@JSON
def command(version: int, project_dir: Path, as_json: bool) -> None:
    """Go back to definitions VERSION, or to those that served before.

    Their leaves were folded all along, so it is at once. What is rolled back from is kept as long, and
    is not applied again unless somebody asks.
    """

    async def work(admin: Admin) -> dict[str, Any]:
        return await admin.post("/v1/admin/definitions/rollback", {"version": version})

    kept = with_admin(project_dir, work, Files.APPLIED)

    def say() -> None:
        out.print(f"Definitions {kept['active']} serve.")
        say_versions(kept)

    show(kept, as_json, say)
