"""Markdown of the generated reference: pages and tables."""

import inspect
from collections.abc import Iterator

HEADER = "<!-- Written by tools/reference.py (`make docs`) from the code. Edit the code, not this page. -->\n"


def page(title: str, intro: str, lines: Iterator[str]) -> str:
    """Return a whole page of Markdown."""
    return f"{HEADER}\n# {title}\n\n{intro}\n\n" + "\n".join(lines).rstrip() + "\n"


def table(head: tuple[str, ...], rows: Iterator[tuple[str, ...]]) -> Iterator[str]:
    """Yield the lines of a Markdown table, with `|` escaped in its cells."""
    yield "| " + " | ".join(head) + " |"
    yield "|" + "---|" * len(head)
    for row in rows:
        cells = (cell.replace("|", "\\|").replace("\n", " ") for cell in row)
        yield "| " + " | ".join(cells) + " |"
    yield ""


def first_paragraph(text: str | None) -> str:
    """Return a docstring's first paragraph on one line."""
    return " ".join(inspect.cleandoc(text or "").split("\n\n")[0].split())
