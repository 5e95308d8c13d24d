"""Writes Python: lines, indents, temporaries, constants, output in few steps, work counted per block."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from penstock.adapters.content.liquid.metering import CHARS_PER_UNIT

LINES_MAX: Final = 20_000
"""Of one generated program; a template that would need more is interpreted."""


class UnsupportedError(Exception):
    """Raised where a template has something that is not compiled; the text says what it is."""


class Line:
    """A line whose text is decided after what stands below it was written; empty to leave it out."""

    __slots__ = ("indent", "text", "units")

    def __init__(self, indent: int) -> None:
        self.indent = indent
        self.text = ""
        self.units = 0

    def code(self) -> str:
        """Return the line; one that counts work subtracts what was added up for it."""
        text = self.text or (f"meter.left -= {self.units}" if self.units else "")
        return f"{'    ' * self.indent}{text}" if text else ""


class Emitter:
    """The program so far. Names in it are numbered; texts of the template are literals."""

    def __init__(self) -> None:
        self._lines: list[str | Line] = []
        self._constants: dict[str, str] = {}
        self._pieces: list[tuple[bool, str]] = []
        self._indent = 1
        self._names = 0
        self.out: str | None = "out"
        """The list that output goes to; None where it goes nowhere."""
        self._charge = self.deferred()

    # ------------------------------------------------------------------------------------ lines

    def line(self, text: str) -> None:
        """Write a line."""
        if len(self._lines) > LINES_MAX:
            raise UnsupportedError("it is too long")
        self._lines.append(f"{'    ' * self._indent}{text}")

    def deferred(self) -> Line:
        """Write a line that is decided later."""
        line = Line(self._indent)
        self._lines.append(line)
        return line

    def name(self, prefix: str = "t") -> str:
        """Return a new name."""
        self._names += 1
        return f"{prefix}{self._names}"

    def constant(self, prefix: str, code: str) -> str:
        """Return the name of a constant; the same code is written once."""
        if code not in self._constants:
            self._constants[code] = f"{prefix}{len(self._constants) + 1}"
        return self._constants[code]

    @contextmanager
    def block(self, header: str) -> Iterator[None]:
        """Write a header and what it encloses, which may show something."""
        self.flush()
        with self.inside(header):
            yield
            self.flush()

    @contextmanager
    def inside(self, header: str) -> Iterator[None]:
        """Write a header, unless it stands already, and what it encloses; its work is counted apart."""
        if header:
            self.line(header)
        charge, start = self._charge, len(self._lines)
        self._indent += 1
        self._charge = self.deferred()
        yield
        if all(isinstance(line, Line) for line in self._lines[start:]):
            self.line("pass")
        self._indent -= 1
        self._charge = charge

    def source(self, name: str) -> str:
        """Return the whole program."""
        self.flush()
        head = [f"{constant} = {code}" for code, constant in self._constants.items()]
        body = [line if isinstance(line, str) else line.code() for line in self._lines]
        lines = [*head, "", "", f"def {name}(data, meter):", *(line for line in body if line)]
        return "\n".join(lines) + "\n"

    # ------------------------------------------------------------------------------------- work

    def charge(self, units: int) -> None:
        """Count work that is certain to be done once this block has begun."""
        self._charge.units += units

    def interrupted(self) -> None:
        """Count what follows apart: what stood before may have left the block."""
        self._charge = self.deferred()

    # ----------------------------------------------------------------------------------- output

    def text(self, text: str) -> None:
        """Show a text of the template."""
        if self.out is None or not text:
            return
        self.charge(len(text) // CHARS_PER_UNIT)
        if self._pieces and self._pieces[-1][0]:
            text = self._pieces.pop()[1] + text
        self._pieces.append((True, text))

    def value(self, code: str) -> None:
        """Show a value, given the name of its text."""
        assert self.out is not None, "what shows a value is in no blank block"
        self._pieces.append((False, code))

    def flush(self) -> None:
        """Write what is shown so far; called before anything that may go elsewhere."""
        if not self._pieces:
            return
        pieces = [repr(text) if literal else text for literal, text in self._pieces]
        self._pieces = []
        if len(pieces) == 1:
            self.line(f"{self.out}.append({pieces[0]})")
        else:
            self.line(f"{self.out} += ({', '.join(pieces)})")
