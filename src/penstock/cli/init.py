"""`penstock init`: a small project that runs at once."""

from __future__ import annotations

import secrets
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path

import click

from penstock.cli.main import out
from penstock.core.errors import SettingsError

TEMPLATE_SUFFIX = ".template"
"""Template files end in this, so that no tool takes them for the package's own code."""

KEYS = ("WEB_KEY", "SERVER_KEY", "READ_KEY", "ADMIN_KEY")


@click.command()
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
def command(folder: Path) -> None:
    """Write a small project into FOLDER, with keys of its own."""
    if folder.exists() and any(folder.iterdir()):
        raise SettingsError("E213", "the folder is not empty", where=str(folder),
                            fix="name a folder that does not exist yet")  # fmt: skip
    names = {"NAME": folder.resolve().name} | {key: secrets.token_urlsafe(18) for key in KEYS}
    for path, text in template_files():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        for name, value in names.items():
            text = text.replace(f"<<{name}>>", value)  # noqa: PLW2901 - filled in step by step
        target.write_text(text, encoding="utf-8")
    (folder / "penstock.toml").chmod(0o600)
    out.print(f"A project is in {folder}. Next:", markup=False)
    out.print(f"  penstock up {folder}                     run it", markup=False)
    out.print(f"  penstock test --project {folder}         run its own cases", markup=False)


def template_files() -> list[tuple[str, str]]:
    """Return the template's files: path in the project, and text with `<<NAME>>` to fill in."""
    found: list[tuple[str, str]] = []

    def walk(place: Traversable, prefix: str) -> None:
        for entry in sorted(place.iterdir(), key=lambda one: one.name):
            if entry.is_dir():
                walk(entry, f"{prefix}{entry.name}/")
            elif entry.name.endswith(TEMPLATE_SUFFIX):
                path = f"{prefix}{entry.name.removesuffix(TEMPLATE_SUFFIX)}"
                found.append((path, entry.read_text(encoding="utf-8")))

    walk(resources.files("penstock.cli") / "template", "")
    return found
