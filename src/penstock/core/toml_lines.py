"""On which line of a TOML file a key stands, so that an error about its value can name it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, NamedTuple

_TOKEN: Final = re.compile(
    r"""(?P<blank>\#[^\n]*|[ \t\r]+)|(?P<newline>\n)
    |(?P<text>\"{3}(?:\\.|[^\\])*?\"{3}|'{3}.*?'{3}|"(?:\\.|[^"\\\n])*"|'[^'\n]*')
    |(?P<mark>[\[\]{}=,.])|(?P<word>[^\s\[\]{}=,."'\#]+|["'])""",
    re.DOTALL | re.VERBOSE,
)


class Places(NamedTuple):
    """A file and the lines of its keys.

    Attributes:
        file: As errors name it.
        lines: By path of keys, from 1; see `lines_of`. Empty if only the file is known.
    """

    file: str
    lines: Mapping[tuple[str, ...], int] = {}

    def of(self, *path: str) -> str:
        """Return `FILE:LINE` of a key, or of the closest table around it that the file has."""
        for length in range(len(path), 0, -1):
            line = self.lines.get(path[:length])
            if line is not None:
                return f"{self.file}:{line}"
        return self.file


def lines_of(text: str) -> dict[tuple[str, ...], int]:
    """Return the line of each table and key of a TOML document, by its path, from 1.

    Args:
        text: A document that `tomllib` reads; of any other the lines are a guess.
    """
    scan = _Scan()
    line = 1
    for match in _TOKEN.finditer(text):
        if match.lastgroup != "blank":
            scan.take(match.lastgroup or "", match.group(), line)
        line += match.group().count("\n")
    return scan.lines


class _Scan:
    """Follows a document piece by piece: which table it is in, and whether a key or a value comes."""

    def __init__(self) -> None:
        self.lines: dict[tuple[str, ...], int] = {}
        self._table: tuple[str, ...] = ()
        self._key: list[str] = []
        self._in_value = False
        self._in_header = False
        self._around: list[tuple[str, tuple[str, ...], list[str]]] = []
        """The brackets that are open, each with the table and the key that it stands in."""

    def take(self, kind: str, piece: str, line: int) -> None:
        if kind == "newline":
            if not self._around:
                self._key, self._in_value, self._in_header = [], False, False
        elif self._in_value:
            self._value(piece)
        elif kind in {"word", "text"}:
            self._key.append(piece if kind == "word" else piece.strip("\"'"))
        elif piece == "=":
            self._note(line)
            self._in_value = True
        elif piece == "[":
            self._in_header = True
            self._table = ()
        elif piece == "]" and self._in_header:
            self._note(line)
            self._table, self._key = tuple(self._key), []
            self._in_header = False
        elif piece == "}":
            self._close()

    def _value(self, piece: str) -> None:
        if piece in {"[", "{"}:
            self._around.append((piece, self._table, self._key))
            if piece == "{":
                self._table, self._key, self._in_value = (*self._table, *self._key), [], False
        elif piece in {"]", "}"}:
            self._close()
        elif piece == "," and self._around and self._around[-1][0] == "{":
            self._key, self._in_value = [], False

    def _close(self) -> None:
        if self._around:
            _, self._table, self._key = self._around.pop()
            self._in_value = True

    def _note(self, line: int) -> None:
        path = (*self._table, *self._key)
        for length in range(1, len(path) + 1):
            self.lines.setdefault(path[:length], line)
