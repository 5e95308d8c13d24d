"""`penstock cut`: two identifiers that were joined wrongly become two people again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from penstock.cli.client import Admin, Files, with_admin
from penstock.cli.main import JSON, PROJECT, out, show


@click.command()
@click.argument("one", metavar="A")
@click.argument("other", metavar="B")
@PROJECT
@JSON
def command(one: str, other: str, project_dir: Path, as_json: bool) -> None:
    """Cut A from B: identifiers that were joined wrongly (each an email, or `TYPE:VALUE`).

    TYPE is `user_id`, `anonymous_id`, `email_token`, `phone` or any type that your events send. Every
    event stays on the identifier that it was sent with, so both are again what they were. An event
    that says the same once more, later, joins them again.
    """
    body = {"one": identifier(one), "other": identifier(other)}

    async def work(admin: Admin) -> dict[str, Any]:
        return await admin.post("/v1/admin/cut", body)

    report = with_admin(project_dir, work, Files.EITHER)

    def say() -> None:
        for edge in report["undone"]:
            trust = "verified" if edge["verified"] else "a claim under a public key"
            out.print(f"Cut: {edge['a_type']} and {edge['b_type']}, joined since {edge['since']} "
                      f"by `{edge['rule']}` ({trust})")  # fmt: skip
        if not report["undone"]:
            out.print("Nothing to do: they were cut before, and nothing has joined them since.")

    show(report, as_json, say)


def identifier(text: str) -> dict[str, str]:
    """Return the type and the value that an argument names."""
    id_type, colon, value = text.partition(":")
    if colon:
        return {"id_type": id_type, "value": value}
    return {"id_type": "email" if "@" in text else "user_id", "value": text}
