"""`penstock load`: items, people or events from a CSV or JSON lines file."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import click
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from penstock.cli.client import Admin, with_admin
from penstock.cli.main import JSON, PROJECT, err, out, show
from penstock.core.errors import SettingsError

ROWS_A_CALL = 500
REPORTED = 10


class Row(NamedTuple):
    """A row of a file, or why it can't be read."""

    line: int
    text: str
    values: dict[str, Any] | None
    fault: str


class Aside(NamedTuple):
    """A row that was set aside."""

    line: int
    code: str
    what: str
    text: str


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--as", "kind", required=True, type=click.Choice(["items", "people", "events"]))
@click.option(
    "--source", default="crm", show_default=True, help="The declared source they come from."
)
@click.option("--job", default="", help="Loading again under the same name changes nothing.")
@PROJECT
@JSON
def command(file: Path, kind: str, source: str, job: str, project_dir: Path, as_json: bool) -> None:
    """Load FILE (.csv, .jsonl, .ndjson). Rows that are refused are set aside in a file of their own."""
    read = reader_of(file)
    name = job or f"load/{file.name}/{file.stat().st_mtime_ns}"

    async def work(admin: Admin) -> tuple[int, list[Aside]]:
        return await _load(
            admin, file, read(file), kind=kind, source=source, job=name, quiet=as_json
        )

    kept, aside = with_admin(project_dir, work)
    rejected = file.with_name(f"{file.stem}.rejected{file.suffix}")
    if aside:
        head = [header_of(file)] if file.suffix.lower() == ".csv" else []
        lines = [*head, *(one.text for one in aside)]
        rejected.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    result = {
        "kept": kept, "rejected": len(aside), "job": name,
        "reasons": [{"line": one.line, "code": one.code, "what": one.what} for one in aside[:1000]],
    }  # fmt: skip

    def say() -> None:
        out.print(f"{kept} {kind} loaded as job `{name}`", markup=False)
        for one in aside[:REPORTED]:
            err.print(f"  {file.name}:{one.line}: {one.code}: {one.what}", markup=False)
        if aside:
            err.print(
                f"{len(aside)} rows set aside in {rejected}: mend and load that file", markup=False
            )

    show(result, as_json, say)


async def _load(
    admin: Admin, file: Path, rows: Iterator[Row], *, kind: str, source: str, job: str, quiet: bool
) -> tuple[int, list[Aside]]:
    kept, aside = 0, list[Aside]()
    batch: list[Row] = []
    with Progress(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
                  disable=quiet, transient=True, console=err) as bar:  # fmt: skip
        task = bar.add_task(f"loading {file.name}", total=_lines(file))
        for row in rows:
            bar.advance(task)
            if row.values is None:
                aside.append(Aside(row.line, "E211", row.fault, row.text))
                continue
            batch.append(row)
            if len(batch) >= ROWS_A_CALL:
                kept += await _call(admin, batch, aside, kind, source, job)
                batch = []
        if batch:
            kept += await _call(admin, batch, aside, kind, source, job)
    return kept, aside


async def _call(
    admin: Admin, batch: list[Row], aside: list[Aside], kind: str, source: str, job: str
) -> int:
    # The line is the row's number, so that a row has the same message id whatever was set aside.
    answer = await admin.post("/v1/admin/load", {
        "kind": kind, "rows": [row.values for row in batch], "source": source, "job": job,
        "first": batch[0].line,
    })  # fmt: skip
    for refusal in answer["refused"]:
        row = batch[refusal["index"]]
        place = f" at {refusal['path']}" if refusal["path"] else ""
        aside.append(Aside(row.line, refusal["code"], f"{refusal['what']}{place}", row.text))
    return answer["kept"]


def reader_of(file: Path) -> Any:
    """Return what reads a file, by its extension.

    Raises:
        SettingsError: No reader knows the extension (E212).
    """
    readers = {".csv": read_csv, ".jsonl": read_json_lines, ".ndjson": read_json_lines}
    reader = readers.get(file.suffix.lower())
    if reader is None:
        raise SettingsError("E212", f"no reader knows files that end in `{file.suffix}`", where=file.name,
                            fix=f"use one of {', '.join(readers)}")  # fmt: skip
    return reader


def header_of(file: Path) -> str:
    """Return the first line of a CSV file, so that what is set aside can be loaded once mended."""
    with file.open(encoding="utf-8-sig", errors="replace") as lines:
        return lines.readline().rstrip("\r\n")


def _csv_line(cells: list[str]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow(cells)
    return text.getvalue().encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def read_csv(file: Path) -> Iterator[Row]:
    """Yield the rows of a CSV file with a header."""
    with file.open(newline="", encoding="utf-8-sig", errors="surrogateescape") as lines:
        reader = csv.reader(lines, strict=True)
        header: list[str] | None = None
        while True:
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield Row(reader.line_num, "", None, f"the line is no CSV: {error}")
                continue
            if header is None:
                header = [name.strip() for name in cells]
                continue
            if not cells:
                continue
            text = _csv_line(cells)
            if len(cells) != len(header):
                fault = f"the line has {len(cells)} columns, the header {len(header)}"
                yield Row(reader.line_num, text, None, fault)
            elif any("\udc80" <= char <= "\udcff" for cell in cells for char in cell):
                yield Row(reader.line_num, text, None, "the line is not UTF-8")
            else:
                yield Row(reader.line_num, text, dict(zip(header, cells, strict=True)), "")


def read_json_lines(file: Path) -> Iterator[Row]:
    """Yield the objects of a file with one JSON object a line."""
    with file.open("rb") as lines:
        for number, raw in enumerate(lines, start=1):
            text = raw.decode("utf-8", "replace").rstrip("\r\n")
            if not text.strip():
                continue
            try:
                # Decimals stay texts: no digit passes through a float.
                values = json.loads(raw, parse_float=str)
            except (ValueError, RecursionError):
                yield Row(number, text, None, "the line is no JSON")
                continue
            if isinstance(values, dict):
                yield Row(number, text, values, "")
            else:
                yield Row(number, text, None, "the line is no JSON object")


def _lines(file: Path) -> int:
    with file.open("rb") as lines:
        return sum(chunk.count(b"\n") for chunk in iter(lambda: lines.read(1 << 20), b""))
