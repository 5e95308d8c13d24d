"""A readable plain text made from an email's HTML: the part that screens without HTML show."""

import re
from html.parser import HTMLParser
from typing import Final

_SILENT: Final = frozenset({"head", "script", "style", "title", "template", "noscript"})
_PARAGRAPHS: Final = frozenset(
    {"blockquote", "h1", "h2", "h3", "h4", "h5", "h6", "hr", "ol", "p", "table", "ul"}
)
_LINES: Final = frozenset(
    {"address", "article", "br", "dd", "div", "dl", "dt", "footer", "header", "li", "main"}
    | {"section", "tbody", "tfoot", "thead", "tr"}
)
_VOID: Final = frozenset({"area", "base", "br", "col", "hr", "img", "input", "link", "meta", "wbr"})
_LINKS: Final = ("http://", "https://", "mailto:", "tel:")
_HIDDEN: Final = re.compile(r"display\s*:\s*none", re.IGNORECASE)
_BLANKS: Final = re.compile(r"[^\S\n\u00a0]+")
_INVISIBLE: Final = dict.fromkeys(map(ord, "\u00ad\u034f\u200b\u200c\u200d\u2060\ufeff"))
_DEPTH_MAX: Final = 1_000


def html_to_text(html: str) -> str:
    """Return an email's HTML as plain text: links numbered and listed at the end.

    Headings and paragraphs stand apart, list items have a dash, pictures give their `alt` text.
    What is hidden from a reader of the HTML (`display: none`, a preview line) is left out.
    """
    reader = _Reader()
    reader.feed(html)
    reader.close()
    text = reader.text()
    if reader.links:
        listed = "\n".join(f"[{number}] {url}" for url, number in reader.links.items())
        text = f"{text}\n\n{listed}" if text else listed
    return text + "\n" if text else ""


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.links: dict[str, int] = {}
        self._pieces: list[str] = []
        self._silent: list[str] = []
        """Open elements since the one whose content is not shown; empty where text is shown."""
        self._targets: list[tuple[str, int]] = []

    def text(self) -> str:
        lines = [_BLANKS.sub(" ", line).strip() for line in "".join(self._pieces).split("\n")]
        return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip().replace("\u00a0", " ")

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = {name: value or "" for name, value in attrs}
        if self._silent or tag in _SILENT or _HIDDEN.search(named.get("style", "")):
            if tag not in _VOID and len(self._silent) < _DEPTH_MAX:
                self._silent.append(tag)
            return
        if tag in _PARAGRAPHS:
            self._pieces.append("\n\n" if tag != "hr" else "\n\n---\n\n")
        elif tag in _LINES:
            self._pieces.append("\n- " if tag == "li" else "\n")
        elif tag in {"td", "th"}:
            self._pieces.append(" ")
        elif tag == "img" and named.get("alt", "").strip():
            self._pieces.append(f" {named['alt'].strip()} ")
        elif tag == "a":
            self._targets.append((named.get("href", "").strip(), len(self._pieces)))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in _VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        if self._silent:
            # An end tag closes the nearest element of its name, and what was left open inside it.
            for index in range(len(self._silent) - 1, -1, -1):
                if self._silent[index] == tag:
                    del self._silent[index:]
                    break
            return
        if tag in _PARAGRAPHS:
            self._pieces.append("\n\n")
        elif tag in _LINES and tag not in {"br", "li"}:
            self._pieces.append("\n")
        elif tag == "a" and self._targets:
            self._end_link()

    def handle_data(self, data: str) -> None:
        if not self._silent:
            self._pieces.append(data.translate(_INVISIBLE).replace("\n", " "))

    def _end_link(self) -> None:
        url, start = self._targets.pop()
        shown = "".join(self._pieces[start:]).strip()
        if not url.lower().startswith(_LINKS) or shown in (url, url.removeprefix("mailto:")):
            return
        if not shown:
            return
        number = self.links.setdefault(url, len(self.links) + 1)
        self._pieces.append(f" [{number}]")
