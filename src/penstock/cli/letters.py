"""`penstock dead-letters`: what was refused, and sending it in again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from penstock.cli.client import Admin, Files, with_admin
from penstock.cli.main import JSON, PROJECT, Suggesting, out, show
from penstock.core.foreign import place_in

REASON = click.option("--reason", default="", help="Only those with this error code.")
SHOWN = 50


@click.group(cls=Suggesting)
def command() -> None:
    """List what was refused, or send it in again."""


@command.command("list")
@REASON
@PROJECT
@JSON
def list_letters(reason: str, project_dir: Path, as_json: bool) -> None:
    """List pending dead letters, oldest first: why and where each was refused, never its values."""

    async def work(admin: Admin) -> dict[str, Any]:
        return await admin.get("/v1/admin/dead-letters", reason=reason)

    found = with_admin(project_dir, work, Files.EITHER)

    def say() -> None:
        out.print(f"{found['pending']} dead letters are pending")
        for one in found["letters"][:SHOWN]:
            out.print(f"  {one['received_at']} {one['source']} {one['reason']} at {one['path'] or '$'}: "
                      f"{one['what']} ({_origin(one)})")  # fmt: skip

    show(found, as_json, say)


def _origin(letter: dict[str, Any]) -> str:
    """Return which event it was: by its record's place, if it came from a topic, else by its message id."""
    place = place_in(letter["letter_id"])
    if place is None:
        return f"message {letter['message_id'] or 'without id'}"
    return f"topic {place.topic}, partition {place.partition}, offset {place.offset}"


@command.command("replay")
@REASON
@PROJECT
@JSON
def replay_letters(reason: str, project_dir: Path, as_json: bool) -> None:
    """Send pending dead letters in again, by today's definitions and with their own message ids.

    Those of a quarantined identifier (E360) are not sent: the log has their events, and counts them once
    `store.leaf_bytes_max` is raised and applied.
    """

    async def work(admin: Admin) -> dict[str, Any]:
        return await admin.post("/v1/admin/dead-letters/replay", {"reason": reason})

    done = with_admin(project_dir, work, Files.EITHER)

    def say() -> None:
        out.print(f"{done['accepted']} accepted")
        for code, number in sorted(done["refused"].items()):
            out.print(f"{number} refused again: {code}")
        if done["quarantined"]:
            out.print(f"{done['quarantined']} not sent: their identifiers are over `store.leaf_bytes_max` (E360), "
                      "and their events are in the log.\n  Is it no person, such as `guest` or a crawler: add the "
                      "value to `identity.blocked_values`.\n  Is it one: raise the limit and run `penstock apply`; "
                      "the log's events then count, and the next replay settles the letters.")  # fmt: skip
        if done["counted"]:
            out.print(
                f"{done['counted']} settled: their identifiers are quarantined no more, and their events count"
            )

    show(done, as_json, say)
