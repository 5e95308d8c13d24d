"""`penstock schemas`: declared events as JSON Schema files, and whether they fit what serves."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import click

from penstock.adapters.versions.folder import FolderVersions
from penstock.candidates import VERSIONS_FOLDER, serving_of
from penstock.cli.main import JSON, PROJECT, out, show
from penstock.core.catalog.builtin import BUILTIN
from penstock.core.catalog.compat import MODES, Break, check_all
from penstock.core.catalog.fields import EventType
from penstock.core.catalog.json_schema import DIALECT, event_schema, object_schema
from penstock.core.errors import DefinitionError
from penstock.project import Project, load_project

BROKEN = 1


@click.group("schemas")
def command() -> None:
    """Export declared events as JSON Schema, or check that they fit what serves."""


@command.command("export")
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@PROJECT
@JSON
def export(folder: Path, project_dir: Path, as_json: bool) -> None:
    """Write a JSON Schema file into FOLDER for each declared event, and for traits and items."""
    catalog = load_project(project_dir).catalog
    builtin = {one.name for one in BUILTIN}
    schemas = {
        _file_name(name): event_schema(declared)
        for name, declared in catalog.event_types.items()
        if name not in builtin
    }
    tables = {
        "traits": catalog.traits,
        "group-traits": catalog.group_traits,
        "items": catalog.items,
    }
    for name, fields in tables.items():
        if fields:
            schemas[f"{name}.json"] = {
                "$schema": DIALECT,
                "$id": f"penstock:{name}",
                **object_schema(fields),
            }
    written: list[str] = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, schema in sorted(schemas.items()):
            text = json.dumps(schema, indent=2, ensure_ascii=False) + "\n"
            (folder / name).write_text(text, encoding="utf-8")
            written.append(name)
    except OSError as error:
        raise DefinitionError("E196", f"the schemas can't be written: {error.strerror}", where=str(folder),
                              fix="name a folder that you may write to") from error  # fmt: skip
    show({"folder": str(folder), "written": written}, as_json,
         lambda: out.print(f"{len(written)} schemas written to {folder}"))  # fmt: skip


@command.command("check")
@click.option("--mode", type=click.Choice(MODES), default=None,
              help="How they must fit; `definitions.compatibility` by default.")  # fmt: skip
@click.option("--against", type=click.Path(exists=True, file_okay=False, path_type=Path),
              help="Another folder of the project, such as a checkout of what is in production.")  # fmt: skip
@PROJECT
@JSON
def check(mode: str | None, against: Path | None, project_dir: Path, as_json: bool) -> None:
    """Check that declared events fit those that serve. Ends with 0 if they do, else with 1."""
    project = load_project(project_dir)
    chosen = mode or project.settings.definitions.compatibility
    before = _before(project, against)
    breaks: list[Break] = []
    if before is not None and chosen != "none":
        breaks = check_all(before, project.catalog.event_types, chosen)
    result: dict[str, Any] = {
        "mode": chosen,
        "breaks": [{"path": found.path, "what": found.what} for found in breaks],
    }

    def say() -> None:
        if before is None:
            out.print("Nothing serves yet that events would have to fit.")
        elif not breaks:
            out.print(f"All events fit ({chosen}).")
        for found in breaks:
            out.print(f"! {found.path} {found.what}")

    show(result, as_json, say)
    if breaks:
        raise SystemExit(BROKEN)


def _before(project: Project, against: Path | None) -> dict[str, EventType] | None:
    if against is not None:
        return dict(load_project(against).catalog.event_types)
    versions = FolderVersions(project.data_dir / VERSIONS_FOLDER)
    if versions.load().active is None:
        return None
    return dict(serving_of(project, versions).catalog.event_types)


def _file_name(event: str) -> str:
    slug = re.sub(r"[^a-z0-9]+", "-", event.lower()).strip("-")
    return f"{slug or 'event'}.json"
