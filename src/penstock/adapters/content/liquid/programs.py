"""A template compiled to a Python function, or the reason why the interpreter renders it."""

import sys
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final, NamedTuple

from liquid.builtin.expressions.logical import is_truthy
from liquid.exceptions import LiquidError
from liquid.undefined import Undefined
from markupsafe import Markup

from penstock.adapters.content.liquid import runtime
from penstock.adapters.content.liquid.compiler import FUNCTION, Compiler
from penstock.adapters.content.liquid.emitter import UnsupportedError
from penstock.adapters.content.liquid.metering import Meter

_CALLED: Final = (
    "ABSENT", "BLANK", "CONTINUE", "EMPTY", "GiveUpError", "LISTS", "ONCE", "SMALL", "TRUE", "UNSET",
    "apply", "at_most", "backwards", "contains", "equal", "escape", "finished", "group_of", "html_of",
    "less", "member", "or_default", "pick", "seen", "sequence", "shown_html", "shown_text", "size_of",
    "span", "text_of", "times", "truth", "turn", "weigh", "whole", "window", "written",
)  # fmt: skip

_BUILTINS: Final = {
    "Exception": Exception, "dict": dict, "enumerate": enumerate, "int": int, "isinstance": isinstance,
    "len": len, "list": list, "str": str,
}  # fmt: skip
"""All that generated code may call of Python itself."""


class Program(NamedTuple):
    """What became of a template."""

    source: str
    """The generated Python; empty if the template is interpreted."""
    reason: str
    """Why it is interpreted; empty if it is compiled."""
    function: Callable[[Mapping[str, Any], Meter], str] | None


def compiled(template: Any) -> Program:
    """Return a template's program. Whatever cannot be compiled is interpreted, with the same output."""
    if template.env.undefined is not Undefined:
        return Program("", "its undefined names are recorded", None)
    try:
        source = Compiler(template).compile()
        # The source is made of our names and of literals: a test reads it with `ast`.
        code = compile(source, "<Liquid as Python>", "exec", dont_inherit=True)
    except UnsupportedError as error:
        return Program("", str(error), None)
    except (LiquidError, SyntaxError, RecursionError, MemoryError, ValueError, OverflowError):
        return Program("", "it is too long or too deep", None)
    names = _names(template.env)
    exec(code, names)  # noqa: S102 - the point of it
    return Program(source, "", names[FUNCTION])


def _names(environment: Any) -> dict[str, Any]:
    """Return the names that generated code finds."""
    return {
        "__builtins__": _BUILTINS,
        **{name: getattr(runtime, name) for name in _CALLED},
        "Markup": Markup,
        "Undefined": Undefined,
        "bound": lambda function: partial(function, environment=environment),
        "filters": environment.filters,
        "getsizeof": sys.getsizeof,
        "is_truthy": is_truthy,
    }
