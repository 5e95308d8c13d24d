"""What generated code calls: the rare cases of a path, a comparison or an output, counted as interpreted.

Generated code does the frequent case itself (a dict, a short text, a small number) and comes here
for all others, where python-liquid's own functions decide. So what is slow here is right by
construction, and what is fast there is held to it by tests.
"""

from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from types import NoneType, SimpleNamespace
from typing import Any, Final

import markupsafe
from liquid import Environment, RenderContext
from liquid.builtin.drops import IterableDrop
from liquid.builtin.expressions import logical
from liquid.builtin.expressions.primitive import Blank, Empty, RangeLiteral
from liquid.limits import to_int
from liquid.stringify import to_liquid_string
from liquid.token import Token
from liquid.undefined import Undefined
from markupsafe import Markup

from penstock.adapters.content.liquid.metering import CHARS_PER_UNIT, UNDEFINED_UNITS, Meter


class GiveUpError(Exception):
    """Raised by generated code where the interpreter has to say what is wrong, and where."""


FLAT: Final = frozenset({NoneType, bool, float, Undefined, dict, Decimal})
"""Classes of values that cost a filter nothing, whatever they hold."""

TRUE: Final = frozenset({str, Markup, int, float, list, dict, tuple})
"""Classes of values that are always true."""

SMALL: Final = 1 << 500
"""Numbers below cost a filter nothing; well below what is counted, and as good."""

TIMES_SIZE: Final = 1 << 14
"""Of what `times` takes, as it is counted: below it the product costs nothing more."""

NO_TOKEN: Final = Token("", "", 0, "")


def _escape(text: str) -> str:
    return str.__str__(markupsafe.escape(text))


escape: Final[Callable[[str], str]] = getattr(markupsafe, "_escape_inner", _escape)
"""The loop inside `markupsafe.escape`, without an object around each result: a tenth of the time."""


def seen(meter: Meter, value: Any) -> Any:
    """Return the value of a path; that it is undefined costs, as interpreted."""
    if value.__class__ is Undefined:
        meter.left -= UNDEFINED_UNITS
    return value


def truth(meter: Meter, value: object) -> bool:
    """Return whether the value of a path is true in Liquid."""
    if value.__class__ is Undefined:
        meter.left -= UNDEFINED_UNITS
        return False
    return logical.is_truthy(value)


def html_of(meter: Meter, value: object) -> str:
    """Return what the value of a path shows in HTML; most texts do not come here."""
    cls = value.__class__
    if cls is int:
        return str(value)
    if cls is Undefined:
        meter.left -= UNDEFINED_UNITS
        return ""
    return shown_html(value)


def shown_html(value: Any) -> str:
    """Return what a value shows in HTML."""
    if value is None:
        return ""
    return value if value.__class__ is Markup else to_liquid_string(value, autoescape=True)


def shown_text(value: object) -> str:
    """Return what a value shows in plain text."""
    return to_liquid_string(value, autoescape=False)


def text_of(meter: Meter, value: object) -> str:
    """Return what the value of a path shows in plain text."""
    return to_liquid_string(seen(meter, value), autoescape=False)


# ------------------------------------------------------------------------------------------- paths


def pick(value: Any, key: object, missing: Undefined) -> Any:
    """Return a plain member of anything but a dict."""
    try:
        if key.__class__ is int and isinstance(value, str):
            return missing
        return value[key]
    except (KeyError, TypeError, IndexError):
        return missing


_LOOKUP: Final[Any] = SimpleNamespace(
    env=SimpleNamespace(
        string_first_and_last=Environment.string_first_and_last,
        string_sequences=Environment.string_sequences,
    )
)


def member(value: object, key: object, missing: Undefined) -> Any:
    """Return a member by any key, also `size`, `first`, `last` and keys that are values."""
    try:
        return RenderContext.get_item(_LOOKUP, value, key)
    except (KeyError, TypeError, IndexError):
        return missing


# ------------------------------------------------------------------------------------- comparisons

equal: Final = logical._eq  # noqa: SLF001 - python-liquid's own comparison
at_most: Final = logical._le  # noqa: SLF001 - python-liquid's own comparison


def less(left: object, right: object) -> bool:
    """Return whether left is less; types that do not compare raise."""
    return logical._lt(NO_TOKEN, left, right)  # noqa: SLF001 - python-liquid's own comparison


def contains(left: object, right: object) -> bool:
    """Return whether a text or a collection contains something."""
    return logical._contains(NO_TOKEN, left, right)  # noqa: SLF001 - python-liquid's own comparison


# ----------------------------------------------------------------------------------------- filters


def weigh(meter: Meter, value: object) -> Any:
    """Count a value that a filter takes or gives, by its size, and return it."""
    cls = value.__class__
    if cls is str or cls is Markup:
        if len(value) >= CHARS_PER_UNIT:  # pyright: ignore[reportArgumentType]
            meter.charge_value(value)
    elif cls is int:
        if not -SMALL < value < SMALL:  # pyright: ignore[reportOperatorIssue]
            meter.charge_value(value)
    elif cls not in FLAT:
        meter.charge_value(value)
    return value


def apply(meter: Meter, function: Callable[..., Any], left: Any, *args: Any) -> Any:
    """Apply a filter whose result cannot explode; its arguments are weighed already."""
    if left.__class__ is not str or len(left) >= CHARS_PER_UNIT:
        weigh(meter, left)
    result = function(left, *args)
    if result.__class__ is not str or len(result) >= CHARS_PER_UNIT:
        weigh(meter, result)
    return result


def or_default(meter: Meter, function: Callable[..., Any], left: Any, other: Any) -> Any:
    """Apply `default` with one argument, which is weighed already."""
    if left is None or left is False or left.__class__ is Undefined:
        return weigh(meter, other)
    if left.__class__ is str and not left:
        return weigh(meter, other)
    return apply(meter, function, left, other)


def times(meter: Meter, function: Callable[..., Any], left: Any, other: Any) -> Any:
    """Apply `times`, which is counted by the digits of what it takes."""
    if left.__class__ is int and other.__class__ is int:
        size = (left.bit_length() // 3 + other.bit_length() // 3) * 256
        if size <= min(TIMES_SIZE, meter.limits.value_chars):
            meter.left -= 3 + size // CHARS_PER_UNIT
            return left * other
    return meter.apply("times", function, left, other)


# ------------------------------------------------------------------------------------------- loops


def sequence(value: Any) -> Any:
    """Return what a loop goes through, as python-liquid's loop does; a list does not come here."""
    if isinstance(value, Mapping):
        return list(value.items())
    if isinstance(value, range):
        return value
    if isinstance(value, str):
        return [value] if value else []
    return value if isinstance(value, Sequence) else ()


def window(
    meter: Meter, items: Any, limit: Any, offset: Any, stops: dict[str, int], key: str
) -> Any:
    """Return the part of a loop's items between `offset` and `limit`, and remember where it ends.

    Args:
        meter: Its limit of iterations holds for the end, since skipped items cost too.
        items: A sequence.
        limit: As written; ABSENT for none.
        offset: As written; ABSENT for none, CONTINUE for where the last such loop ended.
        stops: Where loops ended, by key.
        key: What names this loop and its like.
    """
    count = len(items)
    most = None if limit is ABSENT else to_int(limit)
    start = 0 if offset is ABSENT else stops.get(key, 0) if offset is CONTINUE else to_int(offset)
    stop = None if most is None else most + start
    first = min(max(start, 0), count)
    last = min(stop or count, count)
    if last < 0 or last > meter.limits.loop_iterations:
        raise GiveUpError
    stops[key] = last
    return items if first == 0 and last == count else items[first:last]


ABSENT: Final = object()
CONTINUE: Final = object()


def span(start: object, stop: object) -> range:
    """Return the range of `(start..stop)`."""
    return RangeLiteral._make_range(None, start, stop)  # pyright: ignore[reportArgumentType]  # noqa: SLF001


def whole(value: object) -> int:
    """Return the number of columns of a table, 0 if it is no number."""
    try:
        return to_int(value)
    except ValueError:
        return 0


def backwards(items: Any) -> Any:
    """Return items in reverse."""
    return items[::-1] if items.__class__ in _SLICED else list(reversed(list(items)))


_SLICED: Final = frozenset({list, tuple, range})


# ------------------------------------------------------------------------------------------ output


def written(out: list[str]) -> int:
    """Return how many bytes an output holds so far, and make it one piece."""
    text = "".join(out)
    out[:] = [text]
    return size_of(text)


def size_of(text: str) -> int:
    """Return the bytes of a text in UTF-8, as the output is counted."""
    return len(text) if text.isascii() else len(text.encode("utf-8", "replace"))


def finished(meter: Meter, out: list[str]) -> str:
    """Return the output of a rendering that has kept its limits."""
    if meter.left < 0:
        raise GiveUpError
    text = "".join(out)
    if size_of(text) > meter.limits.output_bytes:
        raise GiveUpError
    return text


def turn(cycles: dict[str, int], group: str, args: tuple[object, ...]) -> object:
    """Return the next value of a cycle, "" past its end; cycles of the same values go together."""
    key = group or str(list(args))
    index = cycles.setdefault(key, 0)
    cycles[key] = (index + 1) % len(args)
    return args[index] if index < len(args) else ""


def group_of(value: object) -> str:
    """Return what names the group of a cycle."""
    return "__UNDEFINED" if isinstance(value, Undefined) else str(value)


EMPTY: Final = Empty(NO_TOKEN)
BLANK: Final = Blank(NO_TOKEN)
LISTS: Final = (list, tuple, IterableDrop)
"""What `render … for` and `include … for` go through."""

ONCE: Final = (None,)
UNSET: Final = object()
