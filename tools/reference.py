"""Writes docs/reference from the code: errors, metrics, settings, CLI, aggregates, slots, emails and HTTP API.

Nothing else writes those pages. `--check` writes nothing and fails if one of them is stale.
"""

import argparse
import dataclasses
import importlib
import inspect
import json
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any, Union, get_args, get_origin

import click
import msgspec
from litestar import Litestar
from litestar.openapi import OpenAPIConfig
from reference_email import email_page, slots_page
from reference_markdown import first_paragraph, page, table

from penstock.adapters.metrics.memory import MemoryMetrics
from penstock.application import operations_handlers
from penstock.core import codes, errors
from penstock.core.time import DAY_MS, HOUR_MS, MINUTE_MS
from penstock.edges.collector.edge import collector_edge
from penstock.edges.operations import operations as operations_edge
from penstock.ports.metrics import METRICS
from penstock.testing.clock import HandClock

ROOT = Path(__file__).resolve().parent.parent
REFERENCE = ROOT / "docs" / "reference"


def main() -> int:
    """Write the pages, or with `--check` say which are stale; return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--check", action="store_true", help="write nothing; fail if a page is stale"
    )
    check = parser.parse_args().check
    stale = []
    for name, write in PAGES.items():
        text = write()
        if text is None:
            print(f"skip  {name}: its module does not exist yet")
            continue
        path = REFERENCE / name
        if path.exists() and path.read_text(encoding="utf-8") == text:
            continue
        stale.append(name)
        if not check:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
            print(f"wrote docs/reference/{name}")
    if check and stale:
        print(f"stale: {', '.join(stale)}\n  fix: make docs", file=sys.stderr)
        return 1
    return 0


def module_if_there(name: str) -> ModuleType | None:
    """Return a module of ours, or None if it is not written yet; other import errors are raised."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and name.startswith(error.name):
            return None
        raise


# ------------------------------------------------------------------------------------------ errors


def errors_page() -> str | None:
    """Every error code, by kind: what it means and what to do."""
    kinds = {
        "E1": errors.DefinitionError, "E2": errors.SettingsError, "E3": errors.EventRejected,
        "E4": errors.Unavailable, "E5": errors.Conflict, "E6": errors.Fenced, "E7": errors.DataCorrupt,
    }  # fmt: skip
    http = {
        "E1": "409",
        "E3": "400",
        "E4": "503, or 429 with `Retry-After` for overload",
        "E5": "409",
    }

    def lines() -> Iterator[str]:
        for prefix, kind in kinds.items():
            listed = {
                code: entry
                for code, entry in sorted(codes.CODES.items())
                if code.startswith(prefix)
            }
            answer = f" Over HTTP it is {http[prefix]}." if prefix in http else ""
            yield f"## {prefix}xx: {kind.__name__}\n"
            yield f"{first_paragraph(kind.__doc__)} The command exits with {kind.exit_code}.{answer}\n"
            for code, entry in listed.items():
                yield f"### {code}\n"
                yield f"{entry.what}\n"
                yield f"*Fix:* {entry.fix}\n"

    intro = (
        "Every error that Penstock raises on purpose has a code. A message says what is wrong, where, and how "
        "to fix it; it never quotes a value that came from a person."
    )
    return page("Errors", intro, lines())


# ----------------------------------------------------------------------------------------- metrics


def metrics_page() -> str | None:
    """Every metric that `/metrics` exposes: kind, labels and meaning."""
    rows = (
        (f"`{name}`", metric.kind, ", ".join(f"`{label}`" for label in metric.labels), metric.help)
        for name, metric in sorted(METRICS.items())
    )
    intro = (
        "What `/metrics` exposes, in the Prometheus text format. The conservation law is accepted = applied + "
        "deduplicated + dead-lettered + policy-dropped + in flight."
    )
    return page("Metrics", intro, table(("Metric", "Kind", "Labels", "Meaning"), rows))


# ---------------------------------------------------------------------------------------- settings


def settings_page() -> str | None:
    """Every setting of `penstock.toml`: type, default, meaning and choices."""
    module = module_if_there("penstock.settings")
    if module is None:
        return None
    docs: dict[str, str] = module.DOCS
    choices: dict[str, tuple[str, ...]] = getattr(module, "CHOICES", {})
    rows: dict[str, list[tuple[str, ...]]] = {}
    titles: dict[str, str] = {}
    named = set()
    for section, title, dotted, field in settings_fields(module.Settings):
        titles.setdefault(section, title)
        named.add(dotted)
        if field is None:
            continue
        meaning = docs.get(dotted, "")
        if not meaning:
            raise SystemExit(f"setting `{dotted}` has no entry in penstock.settings.DOCS")
        if dotted in choices and not all(choice in meaning for choice in choices[dotted]):
            meaning += " One of " + ", ".join(f"`{choice}`" for choice in choices[dotted]) + "."
        cells = (f"`{dotted}`", f"`{type_name(field.type)}`", default_of(field), meaning)
        rows.setdefault(section, []).append(cells)
    unknown = set(docs) - named
    if unknown:
        raise SystemExit(f"penstock.settings.DOCS describes what is no setting: {sorted(unknown)}")

    def lines() -> Iterator[str]:
        for section, cells in sorted(rows.items(), key=lambda item: item[0] != ""):
            name = section.replace("*", "NAME")
            yield f"## `[{name}]`\n" if name else "## Top level\n"
            title = titles[section].removesuffix(f": `[{name}]`.").removesuffix(".")
            yield f"{title}.\n"
            yield from table(("Setting", "Type", "Default", "Meaning"), iter(cells))

    intro = (
        "All of `penstock.toml`. Every value has a default that runs on a laptop; an unknown key is an error "
        "that names the nearest known one."
    )
    return page("Settings", intro, lines())


Field = msgspec.structs.FieldInfo


def settings_fields(
    struct: type[msgspec.Struct], section: str = ""
) -> Iterator[tuple[str, str, str, Field | None]]:
    """Yield (section, its title, dotted name, field) of a settings tree; a section's field is None."""
    title = first_paragraph(struct.__doc__)
    for field in msgspec.structs.fields(struct):
        dotted = f"{section}.{field.encode_name}" if section else field.encode_name
        inner, many = nested(field.type)
        if inner is None:
            yield section, title, dotted, field
        else:
            below = f"{dotted}.*" if many else dotted
            yield below, first_paragraph(inner.__doc__), dotted, None
            yield from settings_fields(inner, below)


def nested(kind: Any) -> tuple[type[msgspec.Struct] | None, bool]:
    """Return the struct that a field holds, if any, and whether it holds one by name."""
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return kind, False
    args = get_args(kind)
    if (
        get_origin(kind) is dict
        and isinstance(args[1], type)
        and issubclass(args[1], msgspec.Struct)
    ):
        return args[1], True
    return None, False


def type_name(kind: Any) -> str:
    """Return a type as an operator reads it: `int`, `list[str]`, `str or nothing`."""
    if kind is type(None):
        return "nothing"
    if get_origin(kind) in {Union, type(int | str)}:
        return " or ".join(type_name(arg) for arg in get_args(kind))
    return kind.__name__ if isinstance(kind, type) and not get_args(kind) else str(kind)


def default_of(field: Field) -> str:
    """Return a field's default as TOML would write it."""
    if field.default is not msgspec.NODEFAULT:
        value = field.default
    elif field.default_factory is not msgspec.NODEFAULT:
        value = field.default_factory()
    else:
        return "required"
    return "" if value is None else f"`{msgspec.json.encode(value).decode()}`"


# --------------------------------------------------------------------------------------------- CLI


def cli_page() -> str | None:
    """Every command of `penstock`: usage, help, arguments and options."""
    module = module_if_there("penstock.cli.main")
    if module is None:
        return None

    def lines(command: click.Command, context: click.Context) -> Iterator[str]:
        yield f"## `{context.command_path}`\n"
        help_text = inspect.cleandoc(command.help or "").split("\f")[0].strip()
        if not help_text:
            raise SystemExit(f"command `{context.command_path}` has no help")
        yield f"{help_text}\n"
        yield f"```text\n{command.get_usage(context).removeprefix('Usage: ')}\n```\n"
        rows = list(parameters(command, context))
        if rows:
            yield from table(("Parameter", "Meaning"), iter(rows))
        if isinstance(command, click.Group):
            for name in command.list_commands(context):
                inner = command.get_command(context, name)
                if inner is not None and not inner.hidden:
                    below = click.Context(inner, info_name=name, parent=context, terminal_width=200)
                    yield from lines(inner, below)

    root = click.Context(module.main, info_name="penstock", terminal_width=200)
    intro = (
        "Every command. Exit codes are those of the [errors](errors.md): 0 done, 2 a definition or the usage is "
        "wrong, 3 a setting is wrong, 69 a dependency did not answer, 70 data is damaged, 75 fenced."
    )
    return page("Command line", intro, lines(module.main, root))


def parameters(command: click.Command, context: click.Context) -> Iterator[tuple[str, ...]]:
    """Yield the rows of a command's parameters: how it is written and what it means."""
    for parameter in command.get_params(context):
        if set(parameter.opts) & set(context.help_option_names) or getattr(
            parameter, "hidden", False
        ):
            continue
        record = parameter.get_help_record(context)
        if record is None:  # an argument: the help above describes it
            yield f"`{parameter.make_metavar(context)}`", "required" if parameter.required else ""
        else:
            yield f"`{record[0]}`", record[1]


# -------------------------------------------------------------------------------------- aggregates


def aggregates_page() -> str | None:
    """Every registered aggregate: meaning, parameters, state, merge, bound and expiry."""
    module = module_if_there("penstock.core.feature.aggregates")
    window = module_if_there("penstock.core.feature.window")
    algebra = module_if_there("penstock.core.feature.algebra")
    derived = module_if_there("penstock.core.feature.derived")
    if (
        module is None
        or window is None
        or algebra is None
        or derived is None
        or not algebra.REGISTRY
    ):
        return None

    def lines() -> Iterator[str]:
        for name, aggregate in sorted(algebra.REGISTRY.items()):
            doc = inspect.cleandoc(aggregate.__doc__ or "")
            if not doc:
                raise SystemExit(f"aggregate `{name}` has no docstring")
            yield f"## `{name}`\n"
            yield f"{doc}\n"
            yield from table(("", ""), aggregate_facts(aggregate))
        yield "## Derived when read\n"
        yield "These keep no state of their own: they are computed from other features, each time.\n"
        for name, derive in sorted(derived.DERIVED.items()):
            yield f"### `{name}`\n"
            yield f"{inspect.cleandoc(derive.__doc__ or '')}\n"
        yield "## Windows and tiles\n"
        yield (
            "A sliding window reads whole tiles, so its oldest tile counts whole: a read covers at most one tile "
            f"more than the window. Unless a definition says otherwise a window has at least "
            f"{window.TILES_PER_WINDOW} tiles. Aggregates that carry their own time are exact when ungrouped, "
            "and so are calendar periods.\n"
        )
        yield from table(
            ("Window", "Tile", "Tail error at most", "Tiles kept at most"), windows(window)
        )

    intro = (
        "What a feature can compute. State is integers in canonical order; merging is commutative and associative, "
        "so batching, crashes and the number of workers never change it."
    )
    return page("Aggregates", intro, lines())


def aggregate_facts(aggregate: Any) -> Iterator[tuple[str, ...]]:
    """Yield what an aggregate's class says, as rows."""
    takes = ", ".join(f"`{kind}`" for kind in sorted(aggregate.takes))
    yield "Value", f"{aggregate.value}: {takes}" if takes else aggregate.value
    yield "Parameters", ", ".join(f"`{name}`" for name in author_parameters(aggregate)) or "none"
    state = (
        f"that of `{aggregate.state}`, kept once for all who use it"
        if aggregate.state != aggregate.name
        else "its own"
    )
    yield "State", f"{state}; an event adds at most {aggregate.charge_bytes} bytes and its text"
    yield "Add", first_paragraph(aggregate.add.__doc__)
    yield "Merge", first_paragraph(aggregate.merge.__doc__)
    yield "Read", first_paragraph(aggregate.finish.__doc__)
    yield (
        "Expiry",
        "by instant when ungrouped, so a window is exact; else by tile"
        if aggregate.own_time
        else "by tile",
    )


def author_parameters(aggregate: Any) -> list[str]:
    """Return the parameters that an author may give; the rest follow from the value's type."""
    known = {field.name for field in dataclasses.fields(aggregate)}
    return sorted(known - {"money", "scale", "kind", "show", "keyed"})


def windows(window: ModuleType) -> Iterator[tuple[str, ...]]:
    """Yield a row for each of the windows that people mostly use."""
    for label, span_ms in (
        ("1 hour", HOUR_MS), ("6 hours", 6 * HOUR_MS), ("1 day", DAY_MS), ("7 days", 7 * DAY_MS),
        ("30 days", 30 * DAY_MS), ("90 days", 90 * DAY_MS), ("365 days", 365 * DAY_MS),
    ):  # fmt: skip
        width_ms = window.tile_width_ms(span_ms)
        tiles = window.FixedGrid(width_ms, span_ms).tiles_max
        yield label, duration(width_ms), f"{100 * width_ms / span_ms:.2f} %", str(tiles)


def duration(span_ms: int) -> str:
    """Return a duration in its largest whole unit."""
    for unit, size_ms in (("d", DAY_MS), ("h", HOUR_MS), ("min", MINUTE_MS), ("s", 1000)):
        if span_ms % size_ms == 0:
            return f"{span_ms // size_ms} {unit}"
    return f"{span_ms} ms"


# -------------------------------------------------------------------------------------------- HTTP


def http_page() -> str | None:
    """Every route of the HTTP API, from the OpenAPI document that the server publishes."""
    document = openapi_document()
    if document is None:
        return None

    def lines() -> Iterator[str]:
        for tag, operations in operations_by_tag(document).items():
            yield f"## {tag.capitalize()}\n"
            for text, routes in operations.items():
                yield "### " + ", ".join(f"`{route}`" for route in routes) + "\n"
                yield text
        schemas = document.get("components", {}).get("schemas", {})
        if schemas:
            yield "## Bodies\n"
        for name, schema in sorted(schemas.items()):
            yield f"### {name}\n"
            if schema.get("description"):
                yield f"{plain(schema['description'])}\n"
            required = set(schema.get("required", ()))
            rows = (
                (
                    f"`{field}`",
                    schema_name(inner),
                    "yes" if field in required else "",
                    plain(inner.get("description")),
                )
                for field, inner in schema.get("properties", {}).items()
            )
            if schema.get("properties"):
                yield from table(("Field", "Type", "Required", "Meaning"), rows)

    intro = (
        f"What the server's OpenAPI {document['openapi']} document says, as a page. An email address never goes into "
        "a URL: who knows only the address uses `POST`."
    )
    return page("HTTP API", intro, lines())


def operations_by_tag(document: dict[str, Any]) -> dict[str, dict[str, list[str]]]:
    """Return tag -> text of an operation -> the routes that it describes."""
    found: dict[str, dict[str, list[str]]] = {}
    for path, methods in sorted(document["paths"].items()):
        for method, operation in methods.items():
            if method in {"get", "post", "put", "patch", "delete"}:
                tag = (operation.get("tags") or ["other"])[0]
                text = "\n".join(operation_lines(operation))
                found.setdefault(tag, {}).setdefault(text, []).append(f"{method.upper()} {path}")
    return found


def operation_lines(operation: dict[str, Any]) -> Iterator[str]:
    """Yield one operation: summary or description, parameters, body and responses."""
    summary, description = (
        plain(operation.get("summary")),
        (operation.get("description") or "").strip(),
    )
    yield f"{description or summary}.\n".replace("..", ".")
    parameters = operation.get("parameters", ())
    if parameters:
        rows = (
            (
                f"`{parameter['name']}`", parameter["in"], schema_name(parameter.get("schema", {})),
                "yes" if parameter.get("required") else "", plain(parameter.get("description")),
            )
            for parameter in parameters
        )  # fmt: skip
        yield from table(("Parameter", "In", "Type", "Required", "Meaning"), rows)
    body = operation.get("requestBody")
    if body:
        yield f"Body: {content_name(body.get('content', {}))}\n"
    rows = (
        (
            f"`{status}`",
            content_name(response.get("content", {})),
            plain(response.get("description")),
        )
        for status, response in sorted(operation.get("responses", {}).items())
    )
    yield from table(("Status", "Body", "Meaning"), rows)


def plain(text: str | None) -> str:
    """Return a text on one line."""
    return " ".join((text or "").split())


def content_name(content: dict[str, Any]) -> str:
    """Return what a body is: media types, and the name of the schema where there is one."""
    names = []
    for media, entry in content.items():
        name = schema_name(entry.get("schema", {}))
        names.append(f"{media}: {name}" if name else media)
    return "; ".join(names)


def schema_name(schema: dict[str, Any]) -> str:
    """Return a JSON Schema's type as a reader says it."""
    if "$ref" in schema:
        name = schema["$ref"].rsplit("/", 1)[-1]
        return f"[{name}](#{name.lower()})"
    for union in ("oneOf", "anyOf"):
        if union in schema:
            return " or ".join(filter(None, (schema_name(inner) for inner in schema[union])))
    if "enum" in schema:
        return " or ".join(f"`{value}`" for value in schema["enum"])
    kind = schema.get("type", "")
    if kind == "array":
        return f"list of {schema_name(schema.get('items', {})) or 'anything'}"
    return " or ".join(kind) if isinstance(kind, list) else kind


def openapi_document() -> dict[str, Any] | None:
    """Return the OpenAPI document of the whole server, or None while a part of it is not written.

    The handlers are made without what they call: a document needs their shape only.
    """
    edges = [
        module_if_there(f"penstock.edges.{name}")
        for name in ("collector.routes", "serving.routes", "serving.mail")
    ]
    if None in edges:
        return None
    collector, serving, mail = edges
    unused: Any = None
    clock, metrics = HandClock(), MemoryMetrics()
    handlers = [
        *collector.collector_handlers(collector_edge(unused, [], clock=clock, metrics=metrics)),
        *serving.serving_handlers(unused),
        *mail.mail_handlers(unused, unused),
        *operations_handlers(operations_edge(unused, metrics, unused, clock)),
    ]
    config = OpenAPIConfig(title="Penstock", version=version("penstock"))
    return Litestar(handlers, openapi_config=config).openapi_schema.to_schema()


SDK_PACKAGES = {
    "segment-analytics-python 2.4": ("requirements.lock", "segment-analytics-python"),
    "segment-analytics-python 2.3": ("tests/sdk/older.lock", "segment-analytics-python"),
    "rudder-sdk-python": ("tests/sdk/older.lock", "rudder-sdk-python"),
}
"""Python's SDKs: where the version that the tests drive is pinned. Those of npm are in its own lock."""

SDK_COLUMNS = (
    "identify", "track", "page", "screen", "group", "alias", "gzip", "clock off", "429", "503",
    "server killed", "offline", "page left", "wrong key",
)  # fmt: skip


def sdks_page() -> str | None:
    """Return which SDKs drive the collector in the tests, and which of their behaviours those show."""
    tests = ROOT / "tests" / "sdk"
    found: dict[str, dict[str, str]] = json.loads((tests / "behaviours.json").read_text())
    npm: dict[str, Any] = json.loads((tests / "package-lock.json").read_text())["packages"]

    def pinned(name: str) -> str:
        if name in SDK_PACKAGES:
            lock, package = SDK_PACKAGES[name]
            lines = (ROOT / lock).read_text().splitlines()
            line = next(line for line in lines if line.startswith(f"{package}=="))
            return line.split("==")[1].split()[0].rstrip("\\")
        package = name.split(",", maxsplit=1)[0].split(" in ", maxsplit=1)[0]
        return str(npm[f"node_modules/{package}"]["version"])

    unknown = {kind for kinds in found.values() for kind in kinds} - set(SDK_COLUMNS)
    assert not unknown, f"behaviours without a column: {unknown}"

    def lines() -> Iterator[str]:
        yield from table(
            ("SDK", "version", *SDK_COLUMNS),
            (
                (f"`{name}`", pinned(name), *("✓" if one in shown else "" for one in SDK_COLUMNS))
                for name, shown in found.items()
            ),
        )
        yield ""
        yield "## The tests"
        yield ""
        named = sorted({test for shown in found.values() for test in shown.values()})
        for test in named:
            file, function = test.split("::")
            kinds = sorted(
                {kind for shown in found.values() for kind, one in shown.items() if one == test}
            )
            yield f"- {', '.join(kinds)}: `tests/sdk/{file}`, `{function}`"

    intro = (
        "Each of these is installed from its registry and drives a real server over HTTP, unmodified, those for "
        "browsers in Chromium on a page of another origin. A tick is a test in which every event of the SDK is in "
        "the profile exactly once. *Clock off*: the clocks of SDK and server are two hours apart, and events are "
        "dated right. *429*, *503*: the server refuses at first. *Server killed*: with SIGKILL in mid-run, and "
        "started again. *Offline*: the browser has no network for a while. *Page left*: what waits is sent by "
        "beacon. *Wrong key*: refused once, for good, and never tried again. An empty cell is a thing the SDK does "
        "not have, or that no test shows. Further SDKs are covered by requests that were recorded from them: "
        "`tests/core/sdk_bodies.tsv`."
    )
    return page("SDKs", intro, lines())


PAGES: dict[str, Callable[[], str | None]] = {
    "errors.md": errors_page,
    "metrics.md": metrics_page,
    "settings.md": settings_page,
    "cli.md": cli_page,
    "aggregates.md": aggregates_page,
    "slots.md": slots_page,
    "email.md": email_page,
    "http.md": http_page,
    "sdks.md": sdks_page,
}

if __name__ == "__main__":
    sys.exit(main())
