"""The `penstock` command: its options, and how errors are shown."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from penstock import __version__
from penstock.core.errors import PenstockError

_PLAIN: dict[str, Any] = {
    "highlight": False, "markup": False, "emoji": False, "soft_wrap": True,
}  # fmt: skip
"""Texts come from files and definitions: they are printed as they are, a line a line."""

out = Console(**_PLAIN)
err = Console(stderr=True, **_PLAIN)

PROJECT = click.option(
    "--project", "project_dir", default=".", show_default=True,
    type=click.Path(file_okay=False, path_type=Path), help="The project's folder.",
)  # fmt: skip
JSON = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")


def show(result: Any, as_json: bool, say: Callable[[], None]) -> None:
    """Print a result, for machines or for people."""
    if as_json:
        click.echo(json.dumps(result, indent=2, ensure_ascii=False))
    else:
        say()


class Suggesting(click.Group):
    """A group that says which command was meant."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command of a name; one that there is not ends with the nearest there is."""
        name = args[0]
        if self.get_command(ctx, name) is None and name[:1].isalnum():
            near = get_close_matches(name, self.list_commands(ctx), 1)
            ctx.fail(f"No such command {name!r}.{f' Did you mean {near[0]!r}?' if near else ''}")
        return super().resolve_command(ctx, args)


class Commands(Suggesting):
    """The group; an error that Penstock raises on purpose is shown without a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; a PenstockError ends the process with its own exit code."""
        try:
            return super().invoke(ctx)
        except PenstockError as error:
            err.print(str(error))
            sys.exit(error.exit_code)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command, loading its module only when it is asked for."""
        if cmd_name in MODULES and cmd_name not in self.commands:
            module = __import__(f"penstock.cli.{MODULES[cmd_name]}", fromlist=["command"])
            self.add_command(module.command, cmd_name)
        return super().get_command(ctx, cmd_name)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return all commands, in the order in which a newcomer meets them."""
        return list(MODULES)


MODULES = {
    "init": "init",
    "up": "up",
    "worker": "worker",
    "connect": "connect",
    "load": "load",
    "export": "export",
    "top": "top",
    "send": "send",
    "plan": "plan",
    "apply": "apply",
    "rollback": "rollback",
    "versions": "versions",
    "schemas": "schemas",
    "explain": "explain",
    "cut": "cut",
    "test": "cases",
    "dead-letters": "letters",
    "replay": "replay",
    "backup": "backup",
    "restore": "restore",
    "archive": "archive",
    "truncate": "truncate",
    "repair": "repair",
    "doctor": "doctor",
}
"""Command -> the module in this package that holds it as `command`."""


@click.group("penstock", cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="penstock")
def main() -> None:
    """Real-time personalization for email campaigns."""
