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

_BEGIN, _END = "\ue000", "\ue001"
"""Around a picture's text until all is read; of the private use area, where no text is."""
_MARKS: Final = re.compile(f"[{_BEGIN}{_END}]")
_ALT: Final = re.compile(f"{_BEGIN}([^{_BEGIN}{_END}]*){_END}( *\\[\\d+\\])?")
_NEAR_CHARS: Final = 200
_NUMBER: Final = re.compile(r" *\[\d+\]$")


def html_to_text(html: str) -> str:
    """Return an email's HTML as plain text: links numbered and listed at the end.

    Headings and paragraphs stand apart, list items have a dash, pictures give their `alt` text, unless
    the text beside them says the same.
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
        written = _BLANKS.sub(" ", "".join(self._pieces))
        lines = [_BLANKS.sub(" ", line).strip() for line in _with_pictures(written).split("\n")]
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
            alt = " ".join(_MARKS.sub("", named["alt"].translate(_INVISIBLE)).split())
            self._pieces.append(f" {_BEGIN}{alt}{_END} ")
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
            self._pieces.append(_MARKS.sub("", data.translate(_INVISIBLE)).replace("\n", " "))

    def _end_link(self) -> None:
        url, start = self._targets.pop()
        shown = _MARKS.sub("", "".join(self._pieces[start:])).strip()
        if not url.lower().startswith(_LINKS) or shown in (url, url.removeprefix("mailto:")):
            return
        if not shown:
            return
        number = self.links.setdefault(url, len(self.links) + 1)
        self._pieces.append(f" [{number}]")


def _with_pictures(written: str) -> str:
    """Return what is written with the texts of pictures in it, but for those that the words beside say."""
    done: list[str] = []
    end = 0
    for found in _ALT.finditer(written):
        done.append(written[end : found.start()])
        end = found.end()
        alt = found.group(1).strip()
        near = len(alt) + _NEAR_CHARS
        # Of two pictures with one text the first is told of.
        after = _ALT.sub("", written[end : end + near]).lstrip(" \n-")
        before = _NUMBER.sub("", "".join(done[-_NEAR_CHARS:])[-near:].rstrip(" \n-")).rstrip()
        if not (_begins(after, alt) or _ends(before, alt)):
            done.append(alt + (found.group(2) or ""))
    return "".join([*done, written[end:]])


def _begins(text: str, words: str) -> bool:
    return text.startswith(words) and not text[len(words) :][:1].isalnum()


def _ends(text: str, words: str) -> bool:
    return text.endswith(words) and not text[: len(text) - len(words)][-1:].isalnum()
