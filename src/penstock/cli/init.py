"""`penstock init`: a small project that runs at once."""

from __future__ import annotations

import json
import os
import re
import secrets
from difflib import get_close_matches
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
WORKERS = "workers"
SERVICES = ("kafka", "redis", "registry")
"""What a project can be made for: each has its part of the settings, and is an extra of the package."""
BESIDE = {".git"}
"""What a folder may hold already."""


@click.command()
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.option("--with", "services", default="", metavar="NAMES", help="Made for what it is to run on: `kafka`, `redis`, "
              "`registry`, or several with commas between.")  # fmt: skip
def command(folder: Path, services: str) -> None:
    """Write a small project into FOLDER, with keys of its own."""
    chosen = _chosen(services)
    name = folder.resolve().name
    plain = re.sub("[^a-z0-9]+", "-", name.lower()).strip("-") or "shop"
    names = {
        "NAME": json.dumps(name, ensure_ascii=False)[1:-1],  # TOML quotes as JSON does
        "PREFIX": plain, "RECORDS": plain.replace("-", "_").lstrip("0123456789_") or "shop",
        # Workers on other machines reach the servers alone.
        "REGISTERS": "" if {"kafka", "redis"} <= {*chosen} else "# ",
        **{key: secrets.token_urlsafe(18) for key in KEYS},
    }  # fmt: skip
    try:
        if folder.exists() and {path.name for path in folder.iterdir()} - BESIDE:
            raise SettingsError("E213", "the folder is not empty", where=str(folder),
                                fix="name a folder that does not exist yet")  # fmt: skip
        for path, text in template_files():
            whole = "\n".join([text, *_settings_of(chosen)]) if path == OWNERS_ONLY else text
            _write(folder / path, _filled(whole, names), secret=path == OWNERS_ONLY)
    except OSError as error:
        raise SettingsError("E216", f"the project can't be written: {error.strerror}", where=str(folder),
                            fix="name a folder that you may write to") from error  # fmt: skip
    out.print(f"A project is in {folder}. Next:")
    out.print(f"  cd {folder}")
    out.print("  penstock test     run its own cases")
    if chosen:
        out.print(f"  pip install 'penstock[{','.join(chosen)}]'")
        out.print(
            "                    what it needs besides; then say in penstock.toml where the servers are"
        )
        out.print("  penstock doctor   see whether they are as they have to be")
    out.print("  penstock up       run it")
    if WORKERS in _parts(chosen):
        out.print("  penstock worker   fold what it takes in, beside it")


def _chosen(services: str) -> list[str]:
    """Return the services that are named, in their own order.

    Raises:
        SettingsError: One is none of those that there are (E220).
    """
    told = [one.strip().lower() for one in services.split(",") if one.strip()]
    for one in told:
        if one not in SERVICES:
            near = get_close_matches(one, SERVICES, 1)
            raise SettingsError("E220", f"there is no `{one}` that a project can be made for", where="--with",
                                fix=f"did you mean `{near[0]}`?" if near else f"use {', '.join(SERVICES)}")  # fmt: skip
    return [one for one in SERVICES if one in told]


def _parts(chosen: list[str]) -> list[str]:
    """Return which parts of the settings go with some services: a log on Kafka is folded by workers."""
    return [*chosen, WORKERS] if "kafka" in chosen else chosen


def _settings_of(chosen: list[str]) -> list[str]:
    folder = resources.files("penstock.cli") / "services"
    return [
        (folder / f"{one}.toml{TEMPLATE_SUFFIX}").read_text(encoding="utf-8")
        for one in _parts(chosen)
    ]


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
