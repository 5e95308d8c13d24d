"""`penstock schemas`: declared events as schemas: written to files, checked, and published to a registry."""

from __future__ import annotations

import json
import re
from contextlib import closing
from pathlib import Path
from typing import Any

import click

from penstock.adapters.versions.folder import FolderVersions
from penstock.candidates import VERSIONS_FOLDER, serving_of
from penstock.cli.main import JSON, PROJECT, out, show
from penstock.core.catalog.compat import MODES, Break, check_all
from penstock.core.catalog.fields import EventType
from penstock.core.catalog.json_schema import DIALECT, event_schema, object_schema
from penstock.core.catalog.published import FORMATS, Naming, publish_all
from penstock.core.errors import DefinitionError, SettingsError
from penstock.flows.publishing import CHANGED, NEW, Standing, publish, standings
from penstock.ports.registry import Registry
from penstock.project import Project, load_project
from penstock.registries import declared, make_registry, published

BROKEN = 1


@click.group("schemas")
def command() -> None:
    """Export declared events as schemas, check that they fit, or publish them to a registry."""


@command.command("export")
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.option("--format", "format_name", type=click.Choice(FORMATS), default=FORMATS[0], show_default=True,
              help="Avro has no file for traits and items.")  # fmt: skip
@PROJECT
@JSON
def export(folder: Path, format_name: str, project_dir: Path, as_json: bool) -> None:
    """Write a schema file into FOLDER for each declared event, and for traits and items."""
    project = load_project(project_dir)
    schemas = _avro_files(project) if format_name == "avro" else _json_files(project)
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
@click.option("--local", is_flag=True, help="Do not ask the registry, if the project has one.")
@PROJECT
@JSON
def check(
    mode: str | None, against: Path | None, local: bool, project_dir: Path, as_json: bool
) -> None:
    """Check that declared events fit those that serve, and those in the registry. Ends with 1 if not."""
    project = load_project(project_dir)
    chosen = mode or project.settings.definitions.compatibility
    before = _before(project, against)
    breaks: list[Break] = []
    if before is not None and chosen != "none":
        breaks = check_all(before, project.catalog.event_types, chosen)
    registry = None if local else make_registry(project)
    standing: list[Standing] | None = None
    if registry is not None:
        with closing(registry):
            standing = _standings(project, registry)
    result: dict[str, Any] = {
        "mode": chosen,
        "breaks": [{"path": found.path, "what": found.what} for found in breaks],
    }
    if standing is not None:
        result["registry"] = list(map(_plain, standing))

    def say() -> None:
        if before is None:
            out.print("Nothing serves yet that events would have to fit.")
        elif not breaks:
            out.print(f"All events fit ({chosen}).")
        for found in breaks:
            out.print(f"! {found.path} {found.what}")
        for one in standing or ():
            _say(one)

    show(result, as_json, say)
    if breaks or not all(one.fits for one in standing or ()):
        raise SystemExit(BROKEN)


@command.command("publish")
@click.option("--dry-run", is_flag=True, help="Only say what would be registered.")
@PROJECT
@JSON
def publish_command(dry_run: bool, project_dir: Path, as_json: bool) -> None:
    """Register declared events at the schema registry. Nothing is registered unless all of them fit.

    Publishing again changes nothing. Ends with 1 if one does not fit.
    """
    project = load_project(project_dir)
    registry = make_registry(project)
    if registry is None:
        raise SettingsError("E232", "the project has no schema registry", where="registry.url",
                            fix='name it in penstock.toml, such as "http://127.0.0.1:8081"')  # fmt: skip
    with closing(registry):
        standing = _standings(project, registry)
        fits = all(one.fits for one in standing)
        receipts = publish(registry, standing) if fits and not dry_run else []
    ids = {receipt.one.subject: receipt.schema_id for receipt in receipts}
    result = {
        "published": fits and not dry_run,
        "registry": [_plain(one) | {"id": ids.get(one.one.subject)} for one in standing],
    }

    def say() -> None:
        for one in standing:
            _say(one, ids.get(one.one.subject))
        if not fits:
            out.print("Nothing was registered.")

    show(result, as_json, say)
    if not fits:
        raise SystemExit(BROKEN)


def _standings(project: Project, registry: Registry) -> list[Standing]:
    named = project.settings.registry
    return standings(registry, published(project), named.compatibility, named.compatibilities)


def _plain(one: Standing) -> dict[str, Any]:
    return {
        "subject": one.one.subject, "event": one.one.event.name, "what": one.what,
        "compatibility": one.compatibility, "version": one.before.version if one.before else None,
        "fits": one.fits, "breaks": [{"path": found.path, "what": found.what} for found in one.breaks],
        "reasons": list(one.reasons),
    }  # fmt: skip


def _say(one: Standing, schema_id: int | None = None) -> None:
    version = one.before.version if one.before else 0
    told = "" if schema_id is None else f", id {schema_id}"
    if one.what == NEW:
        out.print(f"+ {one.one.subject}: new{told}")
    elif one.what == CHANGED:
        fits = f"fits version {version} ({one.compatibility})" if one.fits else f"does not fit version {version} ({one.compatibility})"  # fmt: skip
        out.print(f"{'~' if one.fits else '!'} {one.one.subject}: changed, {fits}{told}")
    else:
        out.print(f"  {one.one.subject}: unchanged, version {version}{told}")
    for found in one.breaks:
        out.print(f"    {found.path} {found.what}")
    for reason in one.reasons:
        out.print(f"    the registry says: {reason}")
    if one.refused and not one.reasons:
        out.print("    the registry says no, and not why")


def _json_files(project: Project) -> dict[str, Any]:
    catalog = project.catalog
    schemas = {_file_name(one.name): event_schema(one) for one in declared(project)}
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
    return schemas


def _avro_files(project: Project) -> dict[str, Any]:
    naming = Naming(namespace=project.settings.registry.namespace)
    return {
        _file_name(one.event.name).replace(".json", ".avsc"): json.loads(one.text)
        for one in publish_all(declared(project), "avro", naming)
    }


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
