"""`penstock versions`: the definitions that serve and those that are kept beside, with what they cost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from penstock.cli.client import Admin, Files, with_admin
from penstock.cli.main import JSON, PROJECT, out, show

MIB = 1024 * 1024


@click.command()
@PROJECT
@JSON
def command(project_dir: Path, as_json: bool) -> None:
    """List the definitions that serve, are built or are kept, and what each costs."""

    async def work(admin: Admin) -> dict[str, Any]:
        return await admin.get("/v1/admin/definitions")

    kept = with_admin(project_dir, work, Files.APPLIED)
    show(kept, as_json, lambda: say_versions(kept))


def say_versions(kept: dict[str, Any]) -> None:
    """Print versions as the admin API tells them."""
    for one in kept["versions"]:
        until = f", can be rolled back to until {one['keep_until']}" if one["keep_until"] else ""
        out.print(f"definitions {one['number']}: {one['state']}{until}")
        out.print(f"  {one['leaves']} leaves, {one['bytes'] / MIB:.1f} MiB in epoch {one['epoch']}")
        if one["state"] != "active":
            cost = (
                f"{one['cpu_share']:.1%} of a core, {one['cpu_ms_per_1000']} ms for 1,000 records"
            )
            out.print(f"  folded beside: {one['lag']} records behind, {cost}")
        if one["campaigns"]:
            out.print(f"  campaigns published with it: {', '.join(one['campaigns'])}")
