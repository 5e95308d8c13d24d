"""`penstock explain`: why a person sees what they see."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from penstock.cli.client import Admin, Files, with_admin
from penstock.cli.main import JSON, PROJECT, out, show
from penstock.core.errors import SettingsError


@click.command()
@click.argument("person")
@click.option("--campaign", required=True, help="In which campaign.")
@click.option("--slot", default="", help="Only this slot.")
@click.option("--send", "send", default="", help="Which send; today's by default.")
@click.option(
    "--at",
    "at",
    default="",
    help="As of an instant, such as 2026-11-25T10:00:00Z: what was decided by then, or would have been.",
)
@PROJECT
@JSON
def command(
    person: str, campaign: str, slot: str, send: str, at: str, project_dir: Path, as_json: bool
) -> None:  # fmt: skip
    """Explain what PERSON (an email, `user_id:…`, `anonymous_id:…`, an email token) sees, and why."""
    body = {"campaign": campaign, "slot": slot, "send": send, "at": at, **identifier(person)}

    async def work(admin: Admin) -> dict[str, Any]:
        why = await admin.post("/v1/admin/explain", body)
        if slot and not why["explanation"]["slots"]:
            # The engine is the one that knows: a decision names the slots that it decided.
            whole = await admin.post("/v1/admin/explain", {**body, "slot": ""})
            names = [one["slot"] for one in whole["explanation"]["slots"]]
            raise SettingsError("E215", f"campaign `{campaign}` decided no slot of this name", where="--slot",
                                fix=f"use one of {', '.join(names)}")  # fmt: skip
        return why

    why = with_admin(project_dir, work, Files.EITHER)

    def say() -> None:
        if not why["known"]:
            out.print("Nothing is known of this person; this is about a stranger.")
        if not why["recorded"]:
            out.print(
                "Nothing was decided for this send "
                + (
                    "by then; this is what would have been."
                    if at
                    else "yet; this is what would be decided now."
                )
            )
        for line in why["lines"]:
            out.print(line)

    show(why, as_json, say)


def identifier(person: str) -> dict[str, str]:
    """Return what a person's name on the command line stands for."""
    kind, colon, value = person.partition(":")
    if colon and kind in ("user_id", "anonymous_id", "email", "email_token"):
        return {kind: value}
    if "@" in person:
        return {"email": person}
    return {"user_id": person}
