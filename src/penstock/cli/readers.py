"""Reads CSV, JSON lines and Parquet, row by row; what can't be read keeps its exact text."""

from __future__ import annotations

import csv
import json
import re
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from penstock.cli import parquet
from penstock.core.errors import SettingsError

ROW_CHARS_MAX = 1 << 20
"""A row beyond this is set aside: no event, person or item is nearly that large."""

NOT_UTF8 = re.compile("[\udc80-\udcff]")
"""How a file read with `surrogateescape` holds bytes that are no text."""

SEPARATORS = {";": ";", "\t": "tab", "|": "|"}
"""What other programs put between columns, and what it is called."""

UNCLOSED = ("unexpected end of data", "field larger than field limit")
"""What the CSV parser says of a quote that nothing closes."""


class Row(NamedTuple):
    """A row of a file, or why it can't be read."""

    line: int
    """Its first line in the file, from 1."""
    text: str
    """Exactly what the file holds, line ends included."""
    values: dict[str, Any] | None
    fault: str = ""


class Reader(NamedTuple):
    """How files of one kind are read."""

    rows: Callable[[Path], Iterator[Row]]
    header: Callable[[Path], str]
    """The text that a file of rows set aside begins with, so that it can be loaded once mended."""
    length: Callable[[Path], int]
    """How far `Row.line` goes, for the bar."""
    aside: str = ""
    """The ending of a file of rows set aside, where it is not the file's own."""


def reader_of(file: Path) -> Reader:
    """Return what reads a file, by its extension.

    Raises:
        SettingsError: No reader knows the extension (E212).
    """
    reader = READERS.get(file.suffix.lower())
    if reader is None:
        raise SettingsError("E212", f"no reader knows files that end in `{file.suffix}`", where=file.name,
                            fix=f"use one of {', '.join(READERS)}")  # fmt: skip
    return reader


def read_csv(file: Path) -> Iterator[Row]:
    """Yield the rows of a CSV file with a header.

    A quote that nothing closes would swallow the file: only its own line is set aside, and reading
    goes on at the next. A quote that is closed wrongly may stand in text of many lines, which must
    not be taken for rows: all of it is set aside.

    Raises:
        SettingsError: The header can't be used (E214).
    """
    with file.open(newline="", encoding="utf-8-sig", errors="surrogateescape") as source:
        lines = _Lines(source)
        header = _header(lines, file)
        while True:
            line = lines.number + 1
            try:
                cells = next(csv.reader(lines, strict=True))
            except StopIteration:
                return
            except csv.Error as error:
                if str(error).startswith(UNCLOSED):
                    lines.give_back()
                    yield Row(line, lines.take(), None, "the line is no CSV: a quote is not closed")
                else:
                    until = f" (up to line {lines.number})" if lines.number > line else ""
                    yield Row(line, lines.take(), None, f"the line is no CSV{until}: {error}")
                continue
            text = lines.take()
            if cells:
                yield _csv_row(line, text, cells, header)


def _csv_row(line: int, text: str, cells: list[str], header: list[str]) -> Row:
    if len(cells) != len(header):
        return Row(line, text, None, f"the line has {len(cells)} columns, the header {len(header)}")
    return Row(line, text, dict(zip(header, cells, strict=True)), _text_fault(text))


def _header(lines: _Lines, file: Path) -> list[str]:
    try:
        cells = next(csv.reader(lines, strict=True), [])
    except csv.Error:
        cells = []
    text = lines.take()
    names = [name.strip() for name in cells]
    if not any(names):
        what = "the file does not begin with a line that names its columns"
    elif _text_fault(text):
        what = "the header is not UTF-8 text"
    elif len(names) == 1 and (other := next((one for one in SEPARATORS if one in names[0]), "")):
        # Not quoted: a file without a header begins with somebody's values.
        what = f"the header is one column with {names[0].count(other)} `{SEPARATORS[other]}` in it: is the separator `{SEPARATORS[other]}`?"
    elif "" in names:
        what = f"column {names.index('') + 1} of the header has no name"
    elif len(set(names)) < len(names):
        twice = next(place for place, name in enumerate(names) if name in names[:place])
        what = f"column {twice + 1} of the header has the name of another"
    else:
        return names
    raise SettingsError("E214", what, where=f"{file.name}:1",
                        fix="begin the file with one line of column names, each once, between commas")  # fmt: skip


def csv_header(file: Path) -> str:
    """Return the text of a CSV file's header."""
    with file.open(newline="", encoding="utf-8-sig", errors="surrogateescape") as source:
        lines = _Lines(source)
        next(csv.reader(lines), None)
        return _ended(lines.take())


class _Lines:
    """The lines of a file, with those that a row has taken, so that they can be given back."""

    def __init__(self, source: Iterator[str]) -> None:
        self._source = source
        self._back: deque[str] = deque()
        self._taken: list[str] = []
        self.number = 0
        """Lines taken so far."""

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        line = self._back.popleft() if self._back else next(self._source)
        self._taken.append(line)
        self.number += 1
        return line

    def take(self) -> str:
        """Return the text of the lines taken since the last call."""
        text, self._taken = "".join(self._taken), []
        return text

    def give_back(self) -> None:
        """Give back all lines taken since the last `take`, but the first."""
        rest, self._taken = self._taken[1:], self._taken[:1]
        self._back.extendleft(reversed(rest))
        self.number -= len(rest)


def read_json_lines(file: Path) -> Iterator[Row]:
    """Yield the objects of a file with one JSON object a line."""
    with file.open(newline="\n", encoding="utf-8-sig", errors="surrogateescape") as lines:
        for line, text in enumerate(lines, start=1):
            if text.strip():
                yield _json_row(line, text)


def _json_row(line: int, text: str) -> Row:
    fault = _text_fault(text)
    if fault:
        return Row(line, text, None, fault)
    try:
        # Decimals stay texts: no digit passes through a float.
        values = json.loads(text, parse_float=str, parse_constant=_no_constant)
        if "\\u" in text:
            # An escaped half of a pair is a text that nothing can write down again.
            json.dumps(values, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return Row(line, text, None, "the line holds half of a surrogate pair")
    except (ValueError, RecursionError):
        return Row(line, text, None, "the line is no JSON")
    if not isinstance(values, dict):
        return Row(line, text, None, "the line is no JSON object")
    return Row(line, text, values)


def _no_constant(name: str) -> NoReturn:
    raise ValueError(name)


def _text_fault(text: str) -> str:
    if len(text) > ROW_CHARS_MAX:
        return "the row is longer than 1 MiB"
    if NOT_UTF8.search(text):
        return "the line is not UTF-8"
    return ""


def _ended(text: str) -> str:
    return text if not text or text.endswith(("\n", "\r")) else f"{text}\n"


def read_parquet(file: Path) -> Iterator[Row]:
    """Yield the rows of a Parquet file, their text as JSON; errors as `parquet.read_rows`."""
    for line, values in enumerate(parquet.read_rows(file), start=1):
        if isinstance(values, str):
            yield Row(line, "", None, values)
            continue
        text = json.dumps(values, ensure_ascii=False)
        yield Row(line, text, values, _text_fault(text))


def count_lines(file: Path) -> int:
    """Return how many lines a file has."""
    with file.open("rb") as lines:
        return sum(chunk.count(b"\n") for chunk in iter(lambda: lines.read(1 << 20), b""))


READERS = {
    ".csv": Reader(read_csv, csv_header, count_lines),
    ".jsonl": Reader(read_json_lines, lambda _: "", count_lines),
    ".ndjson": Reader(read_json_lines, lambda _: "", count_lines),
    ".parquet": Reader(read_parquet, lambda _: "", parquet.count_rows, ".jsonl"),
}
"""By extension."""
