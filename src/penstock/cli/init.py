"""`penstock init`: a small project that runs at once."""

from __future__ import annotations

import json
import os
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
OWNERS_ONLY = "penstock.toml"
BESIDE = {".git"}
"""What a folder may hold already."""


@click.command()
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
def command(folder: Path) -> None:
    """Write a small project into FOLDER, with keys of its own."""
    name = json.dumps(folder.resolve().name, ensure_ascii=False)[1:-1]  # TOML quotes as JSON does
    names = {"NAME": name} | {key: secrets.token_urlsafe(18) for key in KEYS}
    try:
        if folder.exists() and {path.name for path in folder.iterdir()} - BESIDE:
            raise SettingsError("E213", "the folder is not empty", where=str(folder),
                                fix="name a folder that does not exist yet")  # fmt: skip
        for path, text in template_files():
            _write(folder / path, _filled(text, names), secret=path == OWNERS_ONLY)
    except OSError as error:
        raise SettingsError("E216", f"the project can't be written: {error.strerror}", where=str(folder),
                            fix="name a folder that you may write to") from error  # fmt: skip
    out.print(f"A project is in {folder}. Next:")
    out.print(f"  cd {folder}")
    out.print("  penstock test     run its own cases")
    out.print("  penstock up       run it")


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


def _filled(text: str, names: dict[str, str]) -> str:
    for name, value in names.items():
        text = text.replace(f"<<{name}>>", value)
    return text


def _write(path: Path, text: str, *, secret: bool) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # A secret is never there, not even for a moment, for others to read.
    mode = 0o600 if secret else 0o666
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(text.encode())
