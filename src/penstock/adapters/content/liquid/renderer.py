"""The Liquid renderer: a folder of templates by name, HTML escaped, every rendering within limits."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from liquid.exceptions import (
    ContextDepthError,
    FilterArgumentError,
    FilterError,
    FilterItemTypeError,
    FilterValueError,
    LiquidError,
    LocalNamespaceLimitError,
    LoopIterationLimitError,
    OutputStreamLimitError,
    ResourceLimitError,
    TemplateNotFoundError,
)
from liquid.token import Token

from penstock.adapters.content.liquid.metering import (
    Limits,
    Meter,
    MeteredBuffer,
    MeteredContext,
    WorkLimitError,
)
from penstock.adapters.content.liquid.names import Misnamed, Shape, misnamed, uses
from penstock.adapters.content.liquid.programs import Program, compiled
from penstock.adapters.content.liquid.templates import (
    MeteredTemplate,
    Origin,
    TemplateEnvironment,
    canonical,
    check_references,
    load_template,
    plain_text,
    read_sources,
)
from penstock.core.errors import DefinitionError

_TEMPLATES_MAX = 10_000
_TEXTS_MAX = 1_000
_GIVEN_UP_MAX = 16
"""A compiled template that the interpreter had to take over so often is interpreted from then on."""
_INLINE = "text"
"""What messages call a source that has no name of its own."""


class LiquidRenderer:
    """Renders the Liquid templates of a folder; implements `penstock.ports.renderer.Renderer`.

    A template's name is its path without `.liquid`, `.html` and `.mjml`: `content/hero.liquid` is
    `hero`, `content/emails/spring.mjml.liquid` is `emails/spring`, `content/spring.txt.liquid` is
    `spring.txt`. Names that end in `.txt` make plain text; all others make HTML and escape what they
    show. Everything is read and parsed once, when the renderer is made.
    """

    def __init__(
        self,
        root: Path,
        prepare_html: Callable[[str, str], str] | None = None,
        limits: Limits | None = None,
        compile_after: int | None = 1,
    ) -> None:
        """Read, check and parse all templates.

        Args:
            root: The folder; one that does not exist holds no templates.
            prepare_html: Makes email HTML of a markup source, given (file name, source): compiles
                MJML and inlines CSS. Called once for each MJML file and each whole HTML document,
                with Liquid tags masked by words and comments that it must leave in place.
            limits: What a template may cost.
            compile_after: How often a template is interpreted before it is compiled to Python; None
                never compiles. What it makes is the same.

        Raises:
            DefinitionError: A template is wrong (E141), or loses a tag in `prepare_html` (E143).
        """
        self._root = root
        self._prepare_html = prepare_html
        self._limits = limits or Limits()
        self._compile_after = compile_after
        self._html = TemplateEnvironment(self._limits, autoescape=True)
        self._text = TemplateEnvironment(self._limits, autoescape=False)
        self._files: dict[str, str] = {}
        self._texts: dict[str, MeteredTemplate] = {}
        for file, source in read_sources(root, self._limits):
            self._load(file, f"{root.name}/{file}", source)
            assert len(self._files) <= _TEMPLATES_MAX, "a content folder holds at most 10,000 files"
        for name in self._files:
            self._check_references(name)

    def add(self, name: str, source: str, where: str, line: int = 0) -> None:
        """Add a template that is not a file of the folder, such as a campaign's subject line.

        Args:
            name: Its name; end it in `.txt` if it makes plain text.
            source: Its Liquid.
            where: The file that holds it, for messages.
            line: On which line of that file all of it stands; 0 if it is the file.

        Raises:
            DefinitionError: The template is wrong (E141).
        """
        self._load(name, where, source, line)
        self._check_references(canonical(name))

    def render(self, name: str, data: Mapping[str, Any]) -> str:
        """Return a template rendered with data; undefined names show nothing.

        Raises:
            DefinitionError: There is no such template (E146), it failed on this data, or it went
                over a limit (E140). No value of the data is in the message.
        """
        return self._render(self._get(name), name, data)

    def render_text(self, source: str, data: Mapping[str, Any]) -> str:
        """Return a short source of the author's, such as a subject line, rendered as plain text.

        Raises:
            DefinitionError: The source does not parse (E141), failed on this data, or went over a
                limit (E140).
        """
        template = self._texts.get(source)
        if template is None:
            origin = Origin("a text of a definition", source)
            template = self._text.parse_file(_INLINE, origin, source)
            check_references(self._text, template, _INLINE)
            if len(self._texts) >= _TEXTS_MAX:
                for old in self._texts:
                    self._text.origins.pop(old, None)
                self._texts.clear()
            self._texts[source] = template
        return self._render(template, _INLINE, data)

    def names(self) -> list[str]:
        """Return the names of all templates, sorted."""
        return sorted(self._files)

    def program(self, name: str) -> Program:
        """Return what a template is compiled to: its Python source, or why it is interpreted.

        Raises:
            DefinitionError: There is no such template (E146).
        """
        template = self._get(name)
        if template.program is None:
            template.program = compiled(template)
        return template.program

    def misnamed(self, name: str, shape: Mapping[str, Shape]) -> list[Misnamed]:
        """Return the names that a template uses and its data never have, in whichever branch.

        Args:
            name: The template.
            shape: What its data look like.

        Raises:
            DefinitionError: There is no such template (E146).
        """
        return misnamed(self._environment(name), self._get(name), shape)

    def uses(self, name: str, root: str) -> bool:
        """Return whether a template, or one that it includes, uses a name of its data."""
        return uses(self._environment(name), self._get(name), root)

    def file(self, name: str) -> str:
        """Return the file that a template is made of, as messages name it."""
        return self._get(name).origin.file

    def _environment(self, name: str) -> TemplateEnvironment:
        return self._text if plain_text(name) else self._html

    def _get(self, name: str) -> MeteredTemplate:
        environment = self._environment(name)
        template = environment.table.get(canonical(name))
        if template is None:
            raise DefinitionError("E146", f"there is no template `{name}`",
                                  fix=f"make it in {self._root.name}/, or correct the name")  # fmt: skip
        return template

    def _load(self, file: str, where: str, source: str, line: int = 0) -> None:
        name = canonical(file)
        if name in self._files:
            raise DefinitionError(
                "E141", f"two files make template `{name}`: `{self._files[name]}` and `{file}`",
                fix="rename or delete one of them", where=where,
            )  # fmt: skip
        environment = self._text if plain_text(file) else self._html
        prepare = None
        if self._prepare_html is not None and not plain_text(file) and _whole(file, source):
            prepare_html = self._prepare_html
            prepare = lambda masked: prepare_html(file, masked)  # noqa: E731
        origin = Origin(where, source, (0,), (line,)) if line else Origin(where, source)
        template = load_template(environment, name, origin, prepare)
        environment.table[name] = template
        self._files[name] = file

    def _check_references(self, name: str) -> None:
        environment = self._environment(name)
        check_references(environment, environment.table[name], name)

    def _render(self, template: MeteredTemplate, name: str, data: Mapping[str, Any]) -> str:
        # `now` and `today` are the clock in python-liquid; a rendering must repeat exactly.
        values = {"now": None, "today": None, **data}
        meter = Meter(self._limits)
        function = self._function(template)
        if function is None:
            return self._interpreted(template, name, values, meter)
        try:
            return function(values, meter)
        except Exception:  # noqa: BLE001 - the interpreter says what is wrong, and where
            text = self._interpreted(template, name, values, Meter(self._limits, meter.deadline_ns))
        template.given_up += 1
        return text

    def _function(self, template: MeteredTemplate) -> Callable[..., str] | None:
        """Return a template's compiled function, if it has one and that one is of use."""
        if template.program is None:
            if self._compile_after is None or template.renderings < self._compile_after:
                template.renderings += 1
                return None
            template.program = compiled(template)
        return template.program.function if template.given_up < _GIVEN_UP_MAX else None

    def _interpreted(
        self, template: MeteredTemplate, name: str, values: Mapping[str, Any], meter: Meter
    ) -> str:
        context = MeteredContext(template, globals=values, meter=meter)
        buffer = MeteredBuffer(context.meter)
        try:
            template.render_with_context(context, buffer)
        except LiquidError as error:
            raise self._failed(context, name, error) from None
        except RecursionError:
            raise self._failed(context, name, ContextDepthError(token=None)) from None
        except Exception as error:  # noqa: BLE001 - filters of a library, on data of any shape
            # Without its cause: a library's message may quote the value that it could not take.
            raise self._failed(context, name, error) from None
        return buffer.getvalue()

    def _failed(self, context: MeteredContext, name: str, error: Exception) -> DefinitionError:
        token = getattr(error, "token", None)
        environment = context.env
        assert isinstance(environment, TemplateEnvironment), "every template is metered"
        where = _place_of(token, environment)
        if not where:
            outermost = context.template
            assert isinstance(outermost, MeteredTemplate), "every template is metered"
            where = outermost.origin.file
        what, fix = _explain(error, self._limits)
        return DefinitionError("E140", f"template `{canonical(name)}` {what}", fix=fix, where=where)


def _whole(file: str, source: str) -> bool:
    """Return whether a source is a whole email: MJML, or an HTML document."""
    return ".mjml" in file.rsplit("/", 1)[-1] or "<html" in source.lower()


def _place_of(token: Token | None, environment: TemplateEnvironment) -> str:
    """Return file and line of a token, also inside an included template; empty if not known."""
    origin = environment.origins.get(token.source) if token is not None else None
    if origin is None or token is None:
        return ""
    return f"{origin.file}:{origin.line(token.start_index)}"


def _explain(error: Exception, limits: Limits) -> tuple[str, str]:
    """Return what happened and the fix, by the kind of error alone: messages may quote values."""
    shorter = "loop over fewer things, or prepare them as a feature"
    match error:
        case LoopIterationLimitError():
            return f"runs more than {limits.loop_iterations:,} loop iterations", shorter
        case OutputStreamLimitError():
            return (
                f"makes more than {limits.output_bytes:,} bytes",
                "show less: mails above 100 kB are clipped",
            )
        case LocalNamespaceLimitError():
            return (
                f"keeps more than {limits.namespace_bytes:,} bytes in its variables",
                "assign smaller values",
            )
        case ContextDepthError():
            return f"includes templates more than {limits.depth} deep", "end the recursion"
        case WorkLimitError():
            return "does more work than one email may cost", shorter
        case ResourceLimitError():
            return "goes over a limit", shorter
        case TemplateNotFoundError():
            return "includes a template that does not exist", "make it, or correct its name"
        case FilterArgumentError() | FilterError() | FilterValueError() | FilterItemTypeError():
            return ("applies a filter to a value it cannot take",
                    "test the value with `if`, or give a `default`; see `penstock test`")  # fmt: skip
        case _:
            return (
                "fails on this data",
                "try the template with `penstock test` and the same shape of data",
            )
