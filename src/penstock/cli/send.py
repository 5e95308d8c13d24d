"""`penstock send`: a campaign to an audience, each email decided at the last moment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from penstock.cli.client import Admin, Files, error_of, with_admin
from penstock.cli.main import JSON, PROJECT, err, out, show
from penstock.core.errors import Unavailable
from penstock.flows.send import Sum, sum_up

SHOWN = 20
INTERRUPTED = 130
"""The exit code that shells give a command stopped by Ctrl-C."""


@click.command()
@click.argument("campaign")
@click.option("--audience", default="", help="Whom to; the campaign's own audience by default.")
@click.option(
    "--send", "send", default="", help="The send's id: the same id never mails anybody twice."
)
@click.option("--dry-run", is_flag=True, help="Count and sample; send nothing.")
@click.option("--retry-in-doubt", is_flag=True,
              help="Hand over again what was started and never confirmed; it may be a second copy.")  # fmt: skip
@click.option("--republish", is_flag=True,
              help="Go over to the definitions that serve now, whatever the campaign was published with.")  # fmt: skip
@click.option("--applied", is_flag=True,
              help="Go by the definitions that serve, and leave the project's files alone; for files in mid-edit.")  # fmt: skip
@PROJECT
@JSON
def command(  # noqa: PLR0917 - options
    campaign: str, audience: str, send: str, dry_run: bool, retry_in_doubt: bool, republish: bool,
    applied: bool, project_dir: Path, as_json: bool,
) -> None:  # fmt: skip
    """Send CAMPAIGN. A send that was interrupted goes on where it was.

    Ends with 1 if nothing went out, if an email was kept back by a fault of ours, or if one is in doubt.
    """
    body = {
        "campaign": campaign, "audience": audience, "send": send, "dry_run": dry_run,
        "retry_in_doubt": retry_in_doubt, "republish": republish,
    }  # fmt: skip

    last: dict[str, Any] = {}

    async def work(admin: Admin) -> dict[str, Any]:
        nonlocal last
        with Progress(SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn(),
                      disable=as_json or not err.is_terminal, transient=True, console=err) as bar:  # fmt: skip
            task = bar.add_task(f"sending {campaign}", total=None)
            async for report in admin.stream("/v1/admin/sends", body):
                last = report
                bar.update(task, description=f"sending {campaign}: {_line(report)}")
        return last

    try:
        files = Files.APPLIED if applied else Files.CHANGED
        report = with_admin(project_dir, work, files)
    except KeyboardInterrupt:
        name = f" with --send {last['send']}" if last else ""
        err.print(f"Stopped. The same command{name} goes on where it was.")
        raise SystemExit(INTERRUPTED) from None
    if report.get("error"):
        error = report["error"]
        raise error_of(error["code"], error["what"], fix=error["fix"], where=error["where"])
    if not report.get("done"):
        raise Unavailable("E414", "the engine ended before the send did", fix="send again under the same id: "
                          "it goes on where it was")  # fmt: skip
    show(report, as_json, lambda: _say(report, dry_run=dry_run))
    total = sum_up(report["outcomes"])
    failed = not dry_run and (total.nothing_went_out or total.own_faults)
    if failed or (report["in_doubt"] and not retry_in_doubt):
        raise SystemExit(1)


def _line(report: dict[str, Any]) -> str:
    counts = ", ".join(f"{number} {name}" for name, number in sorted(report["outcomes"].items()))
    return f"{report['seen']} people seen; {counts or 'nobody yet'}"


def _say(report: dict[str, Any], *, dry_run: bool) -> None:
    out.print(f"Campaign `{report['campaign']}`, send `{report['send']}`"
              f"{', which was not sent' if dry_run else ''}:")  # fmt: skip
    total = sum_up(report["outcomes"])
    counted = {"accepted", "already", "in_doubt"}
    out.print(f"  {report['seen']:>7} people with an address")
    if not dry_run:
        out.print(f"  {total.sent:>7} sent")
    if total.already:
        out.print(f"  {total.already:>7} sent before, by an earlier run of this send")
    if total.in_doubt:
        out.print(f"  {total.in_doubt:>7} in doubt")
    for what, reasons in total.kept_back.items():
        for reason, number in reasons.items():
            out.print(f"  {number:>7} {what}: {reason}")
    for name, number in sorted(report["outcomes"].items()):
        if name not in counted and name.partition(":")[0] not in total.kept_back:
            out.print(f"  {number:>7} {name}")
    for token in report["sample"]:
        out.print(f"  for example {token}")
    if not dry_run:
        _say_what_failed(total)
    if report["in_doubt"]:
        err.print(f"{len(report['in_doubt'])} emails are in doubt: started, and never confirmed.")
        for token in report["in_doubt"][:SHOWN]:
            err.print(f"  {token}")
        if len(report["in_doubt"]) > SHOWN:
            err.print(f"  … and {len(report['in_doubt']) - SHOWN} more; --json lists all")
        err.print("  fix: look them up at the ESP; to hand them over again, add --retry-in-doubt")


def _say_what_failed(total: Sum) -> None:
    if total.nothing_went_out:
        err.print("Nothing went out.")
    if total.own_faults:
        err.print(
            f"{total.own_faults} emails did not go out for a fault that is not their reader's."
        )
        err.print("  fix: look the codes up in docs/reference/errors.md, mend the cause, and run the same "
                  "command with the same --send: who has the email already gets no second one")  # fmt: skip
