"""`penstock apply`: the project's files come to serve, built beside what serves until they have caught up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from penstock.cli.client import Admin, Files, error_of, with_admin
from penstock.cli.main import JSON, PROJECT, err, out, show
from penstock.cli.versions import say_versions
from penstock.core.errors import Unavailable
from penstock.logs import change_topics, topic_changes
from penstock.project import load_project

INTERRUPTED = 130
"""The exit code that shells give a command stopped by Ctrl-C."""


@click.command()
@click.option(
    "--republish", is_flag=True, help="Let published campaigns go over to the new definitions too."
)
@click.option(
    "--allow-breaks",
    is_flag=True,
    help="Apply though events change in ways that break their senders.",
)
@click.option(
    "--allow-incomplete",
    is_flag=True,
    help="Apply though features look back further than the log is kept; they say `complete_since`.",
)
@click.option(
    "--give-up", is_flag=True, help="Stop what is being applied, and drop what was built."
)
@PROJECT
@JSON
def command(
    republish: bool, allow_breaks: bool, allow_incomplete: bool, give_up: bool, project_dir: Path,
    as_json: bool,
) -> None:  # fmt: skip
    """Apply the project's files. What serves goes on serving until the new leaves have caught up.

    A running `penstock up` does it; without one, this command. Stopped in between, the same command
    goes on where it was.
    """
    if give_up:
        left = with_admin(project_dir, _give_up, Files.APPLIED)
        show(left, as_json, lambda: say_versions(left))
        return
    body = {
        "republish": republish, "allow_breaks": allow_breaks, "allow_incomplete": allow_incomplete,
    }  # fmt: skip
    last: dict[str, Any] = {}

    async def work(admin: Admin) -> dict[str, Any]:
        nonlocal last
        with Progress(TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f} %"),
                      TextColumn("{task.fields[rate]}"), TimeRemainingColumn(), transient=True,
                      disable=as_json or not err.is_terminal, console=err) as bar:  # fmt: skip
            task = bar.add_task("applying", total=None, rate="")
            async for report in admin.stream("/v1/admin/definitions/apply", body):
                last = report
                bar.update(
                    task, description=f"definitions {report['number']}: {report['state']}",
                    total=report["total"] or None, completed=report["folded"],
                    rate=f"{report['per_s']:,} records/s" if report["per_s"] else "",
                )  # fmt: skip
        return last

    try:
        project = load_project(project_dir)  # what is wrong with the files is said before all else
        topics = topic_changes(project)
        change_topics(project, topics)
        report = with_admin(project_dir, work, Files.APPLIED)
    except KeyboardInterrupt:
        err.print(
            "Stopped looking. `penstock versions` shows how far it is; the same command goes on with it."
        )
        raise SystemExit(INTERRUPTED) from None
    if report.get("error"):
        error = report["error"]
        raise error_of(error["code"], error["what"], fix=error["fix"], where=error["where"])
    if not report.get("done"):
        raise Unavailable("E414", "the engine ended before the definitions served",
                          fix="start it, and run the same command: it goes on where it was")  # fmt: skip
    report = {**report, "topics": [one.topic.name for one in topics]}
    show(report, as_json, lambda: _say(report))


async def _give_up(admin: Admin) -> dict[str, Any]:
    return await admin.post("/v1/admin/definitions/give-up", {})


def _say(report: dict[str, Any]) -> None:
    if report["topics"]:
        out.print(f"Topics are as they are declared: {', '.join(report['topics'])}.")
    out.print(f"Definitions {report['number']} serve, over {report['total']} records.")
    if report["agreed_leaves"]:
        out.print(
            f"Compared with those before: {report['agreed_states']} states in {report['agreed_leaves']} leaves "
            "that both compute alike have the same bytes."
        )
    out.print(
        "`penstock rollback` goes back; `penstock versions` shows until when, and what it costs."
    )
