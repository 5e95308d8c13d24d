"""Liquid tags hidden from HTML and MJML tools, and put back: what those tools see is plain markup.

MJML and CSS tools parse markup, and a Liquid tag is none: `{% if stock < 5 %}` breaks an XML parser,
and an HTML parser moves the text of a loop out of the table it repeats. So each tag becomes a mark
that survives in its place: a comment between elements, which even tables may hold, an attribute
among attributes, and a word inside texts and values.
"""

import re
from bisect import bisect_right
from itertools import accumulate
from typing import Final, NamedTuple

LIQUID: Final = re.compile(
    r"\{%-?\s*raw\s*-?%\}.*?\{%-?\s*endraw\s*-?%\}"
    r"|\{%-?\s*comment\b.*?\{%-?\s*endcomment\s*-?%\}"
    r"|\{\{.*?\}\}"
    r"|\{%.*?%\}",
    re.DOTALL,
)
"""A Liquid tag or output; `raw` and `comment` with what they enclose, since that is not markup."""

_TEXT_ONLY: Final = frozenset(
    {"script", "style", "textarea", "title", "mj-preview", "mj-style", "mj-title"}
)
"""Elements whose content is text: a comment in it would be shown or break it."""

_OPENING: Final = re.compile(r"<!--|<(/?)([A-Za-z][\w:-]*)")
_AFTER_BLANK: Final = re.compile(r"[\s\"'<>]")
_IN_TAG: Final = re.compile(r"[\"'>]")


class Masked(NamedTuple):
    """A source without Liquid, and what is needed to put the Liquid back.

    `tags` are the Liquid tags in order, `lines` the line of the source on which each starts.
    """

    text: str
    marker: str
    tags: tuple[str, ...]
    lines: tuple[int, ...]


class Unmasked(NamedTuple):
    """A compiled source with its Liquid back in place, and where that Liquid came from.

    `starts` are positions in `text`, rising; `lines` the line of the original at each. `lost` holds
    the lines of tags that the tools dropped, or moved before one that they followed.
    """

    text: str
    starts: tuple[int, ...]
    lines: tuple[int, ...]
    lost: tuple[int, ...]


def mask(source: str) -> Masked:
    """Return a source with every Liquid tag replaced by a mark that markup tools leave alone."""
    marker = "lqz"
    while marker in source.lower():
        marker += "z"
    line_starts = [0, *accumulate(len(line) for line in source.splitlines(keepends=True))]
    place = _Place()
    pieces: list[str] = []
    tags: list[str] = []
    lines: list[int] = []
    position = 0
    for match in LIQUID.finditer(source):
        if match.start() < position:
            continue  # masked with the tag before it
        literal = source[position : match.start()]
        place.advance(literal)
        word = f"{marker}{len(tags)}"
        pieces.append(literal)
        position = match.end()
        if place.among_attributes(match.group()):
            # Tools sort attributes, so tags among them are masked with all that they enclose.
            position = place.last_tag_end(source, position)
            pieces.append(f' {word}a="" ')
        else:
            pieces.append(place.mark(word, match.group()))
        tags.append(source[match.start() : position])
        lines.append(bisect_right(line_starts, match.start()))
    pieces.append(source[position:])
    return Masked("".join(pieces), marker, tuple(tags), tuple(lines))


def unmask(text: str, masked: Masked) -> Unmasked:
    """Return a compiled text with the Liquid tags of `masked` back in their places."""
    mark = re.compile(
        rf'<!--{masked.marker}(\d+)c-->|(\s*){masked.marker}(\d+)a(?:="")?\s*|{masked.marker}(\d+)e'
    )
    pieces: list[str] = []
    starts: list[int] = []
    lines: list[int] = []
    seen: set[int] = set()
    moved: list[int] = []
    position = length = latest = 0
    for match in mark.finditer(text):
        index = int(match.group(1) or match.group(3) or match.group(4))
        literal, tag = text[position : match.start()], masked.tags[index]
        if match.group(3):
            # What a tag adds between attributes must stay apart from them, on both sides.
            literal, tag = f"{literal} ", f"{tag} "
        starts.append(length + len(literal))
        lines.append(masked.lines[index])
        if match.group(1) and index not in seen and index < latest:
            moved.append(masked.lines[index])
        latest = max(latest, index) if match.group(1) else latest
        seen.add(index)
        pieces += (literal, tag)
        length += len(literal) + len(tag)
        position = match.end()
    pieces.append(text[position:])
    lost = [line for index, line in enumerate(masked.lines) if index not in seen]
    return Unmasked("".join(pieces), tuple(starts), tuple(lines), tuple(lost + moved))


class _Place:
    """Where in the markup a scan has come to: between elements, or inside something else."""

    def __init__(self) -> None:
        self._until = ""
        """What ends the present place: `-->`, a quote, `>` or `</name`; empty between elements."""
        self._element = ""
        self._word = ""
        """Inside a start tag: what stands since the last blank or quote."""

    def advance(self, literal: str) -> bool:
        """Read literal text; return whether it ended the start tag that the scan was in."""
        was_in_tag = self._until == ">"
        position, left = 0, False
        while position < len(literal):
            position = self._step(literal, position)
            left = left or (was_in_tag and self._until not in {">", '"', "'"})
        if self._until == ">":
            # A value without quotes goes on until a blank; blanks may stand after its `=`.
            so_far = self._word + literal
            self._word = "=" if so_far.rstrip().endswith("=") else _AFTER_BLANK.split(so_far)[-1]
        return left

    def among_attributes(self, tag: str) -> bool:
        """Return whether a tag here stands where an attribute would, not in a name or a value."""
        free = "=" not in self._word if tag.startswith("{%") else not self._word
        return self._until == ">" and free

    def last_tag_end(self, source: str, position: int) -> int:
        """Return where the last Liquid tag of the present start tag ends, at `position` or later."""
        ahead = _Place()
        ahead._until, ahead._element = self._until, self._element
        end = position
        for match in LIQUID.finditer(source, position):
            if ahead.advance(source[position : match.start()]):
                break
            position = match.end()
            # One inside a quoted value belongs to that value, which must stay whole.
            if ahead._until == ">":
                end = position
        self._word = ""
        return end

    def mark(self, word: str, tag: str) -> str:
        """Return the form in which a mark survives here, in a text, a value or between elements."""
        if not self._until:
            # Output is text wherever it stands; only tags may stand between the rows of a table.
            return f"<!--{word}c-->" if tag.startswith("{%") else f"{word}e"
        self._word += word
        return f"{word}e"

    def _step(self, literal: str, position: int) -> int:
        if not self._until:
            match = _OPENING.search(literal, position)
            if match is None:
                return len(literal)
            self._until = "-->" if match.group() == "<!--" else ">"
            self._element = "" if match.group(1) or not match.group(2) else match.group(2).lower()
            return match.end()
        if self._until == ">":
            match = _IN_TAG.search(literal, position)
            if match is None:
                return len(literal)
            self._until = match.group()
            if match.group() == ">":
                closed = literal[max(0, match.start() - 1) : match.start()] == "/"
                text_only = self._element in _TEXT_ONLY and not closed
                self._until = f"</{self._element}" if text_only else ""
            return match.end()
        found = literal.lower().find(self._until, position)
        if found < 0:
            return len(literal)
        ended, self._until = self._until, ""
        if ended in {'"', "'"} or ended.startswith("</"):
            self._until, self._element = ">", "" if ended.startswith("</") else self._element
        return found + len(ended)
