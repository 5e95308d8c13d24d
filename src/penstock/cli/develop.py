"""What `penstock up` does for a project that is being written: load its shelf, name its pages."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from penstock.cli.main import err
from penstock.cli.readers import Row, reader_of
from penstock.compose import Node
from penstock.core.errors import SettingsError
from penstock.flows.load import load_rows

ROWS_A_CALL = 500


async def load_items(node: Node) -> int:
    """Load the file of `development.items`, if the settings name one; return how many were kept.

    The same file loaded again changes nothing; a changed one is another job.

    Raises:
        SettingsError: The file does not exist or can't be read (E219, E212, E214).
        Unavailable: The log does not take the items.
    """
    name = node.project.settings.development.items
    if not name:
        return 0
    file = node.project.root / name
    if not file.is_file():
        raise SettingsError("E219", "the file of items does not exist", where=str(file),
                            fix="write it, or remove `items` from [development]")  # fmt: skip
    source = min(node.sources.values(), key=lambda one: (not one.verified, -one.rank))
    job = f"load/{file.name}/{file.stat().st_mtime_ns}"
    kept = refused = 0
    for first, rows, broken in _calls(reader_of(file).rows(file)):
        loaded = await load_rows(node.collector, "items", rows, source=source, job=job, first=first)
        kept += loaded.kept
        refused += len(loaded.refused) + broken
    if refused:
        err.print(
            f"{refused} rows of {file.name} were refused: `penstock load {file} --as items` says why"
        )
    await node.engine.settled()
    return kept


def _calls(rows: Iterator[Row]) -> Iterator[tuple[int, list[dict[str, Any]], int]]:
    """Yield rows that follow one another, the number of the first, and how many after them can't be read."""
    batch: list[dict[str, Any]] = []
    first = 1
    for number, row in enumerate(rows, start=1):
        broken = row.values is None or bool(row.fault)
        if row.values is not None and not broken:
            batch.append(row.values)
        if broken or len(batch) == ROWS_A_CALL:
            yield first, batch, int(broken)
            batch, first = [], number + 1
    if batch:
        yield first, batch, 0
