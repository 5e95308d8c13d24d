"""Template files made into parsed templates: names, kinds, checks at load, and lines in messages."""

import difflib
import re
from bisect import bisect_right
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

from liquid import BoundTemplate, Environment, RenderContext
from liquid.ast import Node
from liquid.exceptions import LiquidError, TemplateNotFoundError
from liquid.undefined import Undefined

from penstock.adapters.content.liquid.filters import FILTERS, Dated
from penstock.adapters.content.liquid.masking import LIQUID, mask, unmask
from penstock.adapters.content.liquid.metering import Limits, MeteredContext
from penstock.adapters.content.liquid.programs import Program
from penstock.core.errors import DefinitionError

SUFFIXES: Final = (".liquid", ".mjml")
"""What a template's file name ends with."""

_TEXT: Final = (".txt", ".text")
_MARKUP: Final = (".html", ".mjml")


class Origin(NamedTuple):
    """Where the positions of a parsed template came from: file, source, and for compiled ones lines.

    `starts` and `lines` are empty for a source that was parsed as it is.
    """

    file: str
    source: str
    starts: tuple[int, ...] = ()
    lines: tuple[int, ...] = ()

    def line(self, position: int) -> int:
        """Return the line of the file that a position in the parsed source came from."""
        if not self.starts:
            return self.source.count("\n", 0, max(0, position)) + 1
        return self.lines[max(0, bisect_right(self.starts, position) - 1)]


class MeteredTemplate(BoundTemplate):
    """A parsed template that renders on a meter and knows its origin."""

    context_class = MeteredContext
    origin: Origin = Origin("", "")
    program: Program | None = None
    """What it is compiled to, once it was."""
    renderings: int = 0
    """How often it was interpreted before it was compiled."""
    given_up: int = 0
    """How often its program left the rendering to the interpreter, which then had no fault to find."""


class TemplateEnvironment(Environment):
    """The rules for one kind of template, HTML or text, and the table of those templates.

    Templates find one another in the table only: nothing is read from disk while rendering.
    """

    template_class = MeteredTemplate

    def __init__(self, limits: Limits, *, autoescape: bool, undefined: Any = Undefined) -> None:
        self.limits = limits
        self.table: dict[str, MeteredTemplate] = {}
        self.origins: dict[str, Origin] = {}
        """By parsed source, which is what a token of an error knows of its template."""
        super().__init__(autoescape=autoescape, undefined=undefined)
        # Environment declares these as class attributes; they are read through the instance.
        self.context_depth_limit = limits.depth  # pyright: ignore[reportAttributeAccessIssue]
        self.block_nesting_limit = limits.depth  # pyright: ignore[reportAttributeAccessIssue]
        self.local_namespace_limit = limits.namespace_bytes  # pyright: ignore[reportAttributeAccessIssue]
        self.filters["date"] = Dated(self.filters["date"], self)
        self.filters.update(FILTERS)

    def get_template(self, name: str, **_: Any) -> MeteredTemplate:
        """Return a template of the table."""
        template = self.table.get(canonical(name))
        if template is None:
            raise TemplateNotFoundError("no such template", filename=name)
        return template

    def parse_file(self, name: str, origin: Origin, text: str) -> MeteredTemplate:
        """Return a parsed text; an error names the file, the line and what to do.

        Raises:
            DefinitionError: The text is not Liquid, or goes over a limit (E141).
        """
        _refuse_long_tags(origin, text, self.limits)
        try:
            # A partial is known inside by the last part of its name, as `product` in `render … for`.
            template = self.from_string(text, name=name.rsplit("/", 1)[-1])
        except (LiquidError, RecursionError) as error:
            raise syntax_error(origin, error) from None
        assert isinstance(template, MeteredTemplate)
        template.origin = origin
        self.origins[text] = origin
        return template


def canonical(name: str) -> str:
    """Return a template's name: its path in the folder without what says how it is written.

    `emails/spring.mjml.liquid` is `emails/spring`; `emails/spring.txt.liquid` is `emails/spring.txt`.
    """
    name = name.removesuffix(".liquid")
    for suffix in _MARKUP:
        name = name.removesuffix(suffix)
    return name


def plain_text(name: str) -> bool:
    """Return whether a template makes plain text, which is not escaped."""
    return canonical(name).endswith(_TEXT)


def read_sources(root: Path, limits: Limits) -> Iterator[tuple[str, str]]:
    """Yield (file name within the folder, source) of every template, sorted.

    Raises:
        DefinitionError: A file lies outside the folder, is too long or is not UTF-8 (E141).
    """
    home = root.resolve()
    paths = sorted(path for path in root.rglob("*") if path.name.endswith(SUFFIXES))
    for path in paths:
        file = path.relative_to(root).as_posix()
        where = f"{root.name}/{file}"
        if not path.resolve().is_relative_to(home):
            raise DefinitionError("E141", f"template `{file}` is a link to a file outside the folder",
                                  fix="copy the file into the folder", where=where)  # fmt: skip
        if not path.is_file():
            continue
        raw = path.read_bytes()
        if len(raw) > limits.source_bytes:
            raise DefinitionError("E141", f"template `{file}` is longer than {limits.source_bytes:,} bytes",
                                  fix="split it with `{% render %}`", where=where)  # fmt: skip
        try:
            source = raw.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            line = raw.count(b"\n", 0, error.start) + 1
            raise DefinitionError("E141", f"template `{file}` is not UTF-8 text",
                                  fix="save the file as UTF-8", where=f"{where}:{line}") from None  # fmt: skip
        yield file, source.replace("\r\n", "\n")


def load_template(
    environment: TemplateEnvironment,
    name: str,
    origin: Origin,
    prepare: Callable[[str], str] | None,
) -> MeteredTemplate:
    """Return a parsed template; `prepare` compiles markup, with the Liquid tags masked.

    Raises:
        DefinitionError: It is not Liquid (E141), or a tag does not survive `prepare` (E143).
    """
    template = environment.parse_file(name, origin, origin.source)
    if prepare is None:
        return template
    masked = mask(origin.source)
    compiled = unmask(prepare(masked.text), masked)
    if compiled.lost:
        raise DefinitionError(
            "E143", f"a Liquid tag of template `{name}` is in a place that MJML or CSS drops",
            fix="move it into mj-text, mj-raw, a link or a style attribute",
            where=f"{origin.file}:{compiled.lost[0]}",
        )  # fmt: skip
    moved = Origin(origin.file, compiled.text, compiled.starts, compiled.lines)
    return environment.parse_file(name, moved, compiled.text)


def check_references(
    environment: TemplateEnvironment, template: MeteredTemplate, name: str
) -> None:
    """Refuse unknown filters and missing partials when templates are loaded, not when mail is sent.

    Raises:
        DefinitionError: The template names a filter or a template that does not exist (E141).
    """
    origin = template.origin
    for filter_name, spans in template.analyze(include_partials=False).filters.items():
        if filter_name not in environment.filters:
            raise DefinitionError(
                "E141", f"template `{name}` uses a filter `{filter_name}` that does not exist",
                fix=_closest(filter_name, environment.filters, "see the list of filters in the docs"),
                where=f"{origin.file}:{origin.line(spans[0].index)}",
            )  # fmt: skip
    for partial, position in _partials(template):
        if canonical(partial) not in environment.table:
            kind = "HTML" if environment.autoescape else "text"
            raise DefinitionError(
                "E141", f"template `{name}` includes `{partial}`, which is no {kind} template here",
                fix=_closest(partial, environment.table, f"make {partial}.liquid in the same folder"),
                where=f"{origin.file}:{origin.line(position)}",
            )  # fmt: skip


def syntax_error(origin: Origin, error: Exception) -> DefinitionError:
    """Return what is wrong with a template's source; only the author's own text is quoted."""
    token = getattr(error, "token", None)
    what = str(getattr(error, "message", None) or "it is nested too deeply").strip()
    unclosed = re.search(r"expected tag end(\w+)", what)
    if unclosed is not None:
        line = origin.line(_unclosed(origin.source, unclosed.group(1)))
    else:
        line = origin.line(token.start_index) if token is not None else 1
    return DefinitionError(
        "E141", f"the Liquid of a template does not parse: {what}",
        fix=_syntax_fix(what), where=f"{origin.file}:{line}",
    )  # fmt: skip


def _unclosed(source: str, tag: str) -> int:
    """Return where the last block of a tag opens that is never closed; the parser names the end."""
    opened: list[int] = []
    for match in LIQUID.finditer(source):
        found = re.match(rf"\{{%-?\s*(end)?{tag}\b", match.group())
        if found is None:
            continue
        if found.group(1) is None:
            opened.append(match.start())
        elif opened:
            opened.pop()
    return opened[-1] if opened else 0


def _syntax_fix(what: str) -> str:
    lowered = what.lower()
    if "unexpected tag" in lowered or "unknown tag" in lowered:
        return "correct the tag's name, or open the block that this tag closes"
    if "end of" in lowered or "expected tag" in lowered or "unclosed" in lowered:
        return "close every block with its `{% end… %}` and every tag with `%}` or `}}`"
    if "nest" in lowered:
        return "move the inner blocks into a template of their own and `{% render %}` it"
    return "correct the tag on this line; values are names, numbers or quoted texts"


def _closest(name: str, known: Any, otherwise: str) -> str:
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"did you mean `{near[0]}`?" if near else otherwise


def _partials(template: MeteredTemplate) -> Iterator[tuple[str, int]]:
    """Yield (name, position) of each template that is included by a literal name."""
    context = RenderContext(template)
    waiting: list[Node] = list(template.nodes)
    while waiting:
        node = waiting.pop()
        partial = node.partial_scope()
        if partial is not None:
            literal = (
                partial.name
                if isinstance(partial.name, str)
                else getattr(partial.name, "value", "")
            )
            if isinstance(literal, str) and literal:
                yield literal, node.token.start_index
        waiting.extend(node.children(context, include_partials=False))


def _refuse_long_tags(origin: Origin, text: str, limits: Limits) -> None:
    for match in LIQUID.finditer(text):
        long = match.end() - match.start() > limits.tag_chars
        if long and not re.match(r"\{%-?\s*(raw|comment|liquid)\b", match.group()):
            raise DefinitionError(
                "E141", f"a Liquid tag is longer than {limits.tag_chars:,} characters",
                fix="split it with `{% assign %}`", where=f"{origin.file}:{origin.line(match.start())}",
            )  # fmt: skip
