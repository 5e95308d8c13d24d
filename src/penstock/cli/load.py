"""`penstock load`: items, people or events from a CSV, JSON lines or Parquet file."""

from __future__ import annotations

import asyncio
import os
import sys
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple, Self, TextIO

import click
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from penstock.cli.client import Admin, Files, with_admin
from penstock.cli.main import JSON, PROJECT, err, out, show
from penstock.cli.readers import Reader, Row, reader_of
from penstock.core.errors import Overloaded, SettingsError

ROWS_A_CALL = 500
CHARS_A_CALL = 1 << 20
PAUSE_S_MIN, PAUSE_S_MAX = 0.05, 2.0
"""Between calls, once one was refused because live events come first."""
REFUSALS_MAX = 600
"""In a row; then the load ends, and goes on under the same job when it is started again."""
SHOWN = 10
REPORTED = 1_000
WHY_DROPPED = {
    "consent_category_unknown": "no category that they speak of is a purpose or in `consent.categories`",
    "consent_unknown": "their consent, or their source's basis, lets nothing be kept",
    "undeclared_event": "declare the event in events.py, or set project.undeclared",
}
"""What to know of each reason."""


class Aside(NamedTuple):
    """Why a row was set aside; its text is in the file beside."""

    line: int
    code: str
    what: str


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--as", "kind", required=True, type=click.Choice(["items", "people", "events"]),
              help="What a row is.")  # fmt: skip
@click.option(
    "--source", default="crm", show_default=True, help="The declared source they come from."
)
@click.option("--job", default="", help="Loading again under the same name changes nothing.")
@PROJECT
@JSON
def command(file: Path, kind: str, source: str, job: str, project_dir: Path, as_json: bool) -> None:
    """Load FILE (.csv, .jsonl, .ndjson, .parquet). Rows that are refused are set aside in a file of their own."""
    reader = reader_of(file)
    name = job or f"load/{file.name}/{file.stat().st_mtime_ns}"
    beside = file.with_name(f"{file.stem}.rejected{reader.aside or file.suffix}")

    async def work(admin: Admin) -> _Loading:
        with _Rejected(beside, reader, file) as rejected:
            loading = _Loading(admin, rejected, kind=kind, source=source, job=name)
            await _load(loading, file, reader, quiet=as_json)
        return loading

    loading = with_admin(project_dir, work, Files.EITHER)
    rejected = loading.rejected
    result = {
        "kept": loading.kept, "rejected": rejected.count, "job": name,
        "rejected_file": str(beside) if rejected.count else "",
        "reasons": [one._asdict() for one in rejected.reasons],
        "dropped": dict(loading.dropped), "undeclared": dict(loading.undeclared), "meant": loading.meant,
        "no_addresses": loading.no_addresses,
    }  # fmt: skip

    def say() -> None:
        out.print(f"{loading.kept} {kind} loaded as job `{name}`")
        for reason, number in loading.dropped.most_common():
            err.print(
                f"  {number} dropped, and nothing of them kept: {reason} ({WHY_DROPPED.get(reason, '')})"
            )
        for column, number in loading.undeclared.most_common(SHOWN):
            near = loading.meant.get(column)
            err.print(f"  `{column}` is declared nowhere: its value was dropped in {number} rows"
                      f"{f'; did you mean `{near}`?' if near else ''}")  # fmt: skip
        if len(loading.undeclared) > SHOWN:
            err.print(f"  … and {len(loading.undeclared) - SHOWN} more columns")
        if loading.undeclared:
            err.print(
                "  fix: declare them in events.py and load the file again under another --job, or remove them"
            )
        if loading.no_addresses:
            err.print(
                f"  {loading.no_addresses} values of `email` are no address: these people are kept, and get no email there"
            )
        for one in rejected.reasons[:SHOWN]:
            err.print(f"  {file.name}:{one.line}: {one.code}: {one.what}")
        if rejected.count > SHOWN:
            err.print(f"  … and {rejected.count - SHOWN} more")
        if rejected.count:
            err.print(f"{rejected.count} rows set aside in {beside}: mend and load that file")

    show(result, as_json, say)
    if rejected.count and not loading.kept:
        sys.exit(1)


class _Rejected:
    """The file beside, made when the first row is set aside."""

    def __init__(self, path: Path, reader: Reader, source: Path) -> None:
        self.path = path
        self.reader = reader
        self.source = source
        self.count = 0
        self.reasons: list[Aside] = []
        self._file: TextIO | None = None

    def add(self, row: Row, code: str, what: str) -> None:
        """Set a row aside.

        Raises:
            SettingsError: The file can't be written (E216).
        """
        try:
            if self._file is None:
                self._file = _private(self.path)
                self._file.write(self.reader.header(self.source))
            self._file.write(row.text if row.text.endswith(("\n", "\r")) else f"{row.text}\n")
        except OSError as error:
            raise SettingsError("E216", f"what is set aside can't be written: {error.strerror}", where=str(self.path),
                                fix="make the folder of the file writable, or load a copy of the file") from error  # fmt: skip
        self.count += 1
        if len(self.reasons) < REPORTED:
            self.reasons.append(Aside(row.line, code, what))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()


def _private(path: Path) -> TextIO:
    """Open a file for rows set aside: they hold what people did, and are their owner's alone."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    os.fchmod(descriptor, 0o600)  # one that is there already may be readable by others
    return os.fdopen(descriptor, "w", newline="", encoding="utf-8", errors="surrogateescape")


class _Loading:
    """Rows on their way to the engine, in calls of rows that follow one another."""

    def __init__(
        self, admin: Admin, rejected: _Rejected, *, kind: str, source: str, job: str
    ) -> None:
        self.admin = admin
        self.rejected = rejected
        self.kept = 0
        self.dropped: Counter[str] = Counter()
        self.undeclared: Counter[str] = Counter()
        self.meant: dict[str, str] = {}
        self.no_addresses = 0
        self.pace = Pace()
        self._what = {"kind": kind, "source": source, "job": job}
        self._batch: list[Row] = []
        self._chars = 0
        self._first = 1

    async def add(self, number: int, row: Row) -> None:
        """Take the file's n-th row; it may be sent later."""
        if row.values is None or row.fault:
            # The rows of a call are numbered from its first on, and a row must have the same number,
            # hence the same message id, when this one is mended and the file is loaded again.
            await self.flush()
            self.rejected.add(row, "E211", row.fault)
            return
        if self._chars + len(row.text) > CHARS_A_CALL or len(self._batch) >= ROWS_A_CALL:
            await self.flush()
        if not self._batch:
            self._first = number
        self._batch.append(row)
        self._chars += len(row.text)

    async def flush(self) -> None:
        """Send what waits."""
        batch, self._batch, self._chars = self._batch, [], 0
        if not batch:
            return
        body: dict[str, Any] = {
            **self._what,
            "rows": [row.values for row in batch],
            "first": self._first,
        }
        answer = await self._posted(body)
        for refusal in answer["refused"]:
            place = f" at {refusal['path']}" if refusal["path"] else ""
            self.rejected.add(batch[refusal["index"]], refusal["code"], f"{refusal['what']}{place}")
        self.kept += answer["kept"]
        self.dropped.update(answer["dropped"])
        self.undeclared.update(answer["undeclared"])
        self.meant.update(answer["meant"])
        self.no_addresses += answer["no_addresses"]

    async def _posted(self, body: dict[str, Any]) -> Any:
        """Return the answer to a call, made as often as live events come first."""
        while True:
            await asyncio.sleep(self.pace.pause_s)
            try:
                answer = await self.admin.post("/v1/admin/load", body)
            except Overloaded as error:
                if not self.pace.refused(error.retry_after_s):
                    raise
            else:
                self.pace.taken()
                return answer


class Pace:
    """How long to wait before the next call: longer when others come first, and ever less when not."""

    def __init__(self) -> None:
        self.pause_s = 0.0
        self._usual_s = 0.0
        self._refused = 0

    def refused(self, retry_after_s: int) -> bool:
        """Wait as long as was asked for, and between calls from now on; return whether to go on trying."""
        self._refused += 1
        self._usual_s = min(max(2 * self._usual_s, PAUSE_S_MIN), PAUSE_S_MAX)
        self.pause_s = float(retry_after_s)
        return self._refused < REFUSALS_MAX

    def taken(self) -> None:
        """Go on a little faster."""
        self._refused = 0
        self._usual_s = self._usual_s * 0.9 if self._usual_s > PAUSE_S_MIN / 10 else 0.0
        self.pause_s = self._usual_s


async def _load(loading: _Loading, file: Path, reader: Reader, *, quiet: bool) -> None:
    with Progress(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
                  disable=quiet or not err.is_terminal, transient=True, console=err) as bar:  # fmt: skip
        task = bar.add_task(f"loading {file.name}", total=reader.length(file))
        for number, row in enumerate(reader.rows(file), start=1):
            await loading.add(number, row)
            bar.update(task, completed=row.line)
        await loading.flush()
