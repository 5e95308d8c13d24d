"""Limits on what one rendering may cost: work is counted, so the same template stops at the same place.

python-liquid limits single loops and buffers; a bomb made of many small things passes. Here each
node, filter, character and list element costs units of one budget. The count does not depend on the
machine. A limit of CPU time stands behind it for what counting misses.
"""

import time
from collections.abc import Callable, Sized
from functools import partial
from io import StringIO
from typing import Any, Final, NamedTuple, TextIO

from liquid import Environment, RenderContext
from liquid.exceptions import (
    LoopIterationLimitError,
    OutputStreamLimitError,
    ResourceLimitError,
)
from liquid.token import Token
from liquid.undefined import UNDEFINED, Undefined


class Limits(NamedTuple):
    """What a template may cost. The defaults are several times what a long email needs."""

    work_units: int = 10_000
    """About a microsecond each: a node or a name 1, a filter 3, 64 characters or 8 elements 1."""
    loop_iterations: int = 5_000
    """Of all loops of one rendering together."""
    output_bytes: int = 256 * 1024
    value_chars: int = 64 * 1024
    """The longest text, the longest list and the longest number that a filter takes or gives."""
    namespace_bytes: int = 100 * 1024
    depth: int = 20
    """Of includes, and of blocks within blocks."""
    source_bytes: int = 256 * 1024
    tag_chars: int = 2_000
    """The longest single tag or output in a template."""
    cpu_ms: int = 50
    """Behind all others; a pause of the garbage collector counts too, so it is generous."""


class WorkLimitError(ResourceLimitError):
    """Raised when a rendering has used up its work, its time, or made too large a value."""


_CHECK_EVERY: Final = 256
CHARS_PER_UNIT: Final = 64
FILTER_UNITS: Final = 3
_ITERATION_UNITS: Final = 2
UNDEFINED_UNITS: Final = 2


class Meter:
    """Counts the work of one rendering; shared by the template and all it includes."""

    __slots__ = ("checkpoint", "deadline_ns", "left", "limits", "loops")

    def __init__(self, limits: Limits, deadline_ns: int = 0) -> None:
        """Begin to count; the time is up at a deadline, or `cpu_ms` from now if that is 0."""
        self.limits = limits
        self.left = limits.work_units
        self.loops = 0
        self.checkpoint = limits.work_units - _CHECK_EVERY
        self.deadline_ns = deadline_ns or time.thread_time_ns() + limits.cpu_ms * 1_000_000

    def check(self) -> None:
        """Raise if the work or the time is used up; called once in a few hundred units.

        Raises:
            WorkLimitError: It is.
        """
        if self.left < 0:
            raise WorkLimitError("more work than allowed", token=None)
        if time.thread_time_ns() > self.deadline_ns:
            raise WorkLimitError("more CPU time than allowed", token=None)
        self.checkpoint = max(0, self.left - _CHECK_EVERY)

    def charge(self, units: int) -> None:
        """Count work done or about to be done."""
        self.left -= units
        if self.left < self.checkpoint:
            self.check()

    def charge_value(self, value: object) -> int:
        """Count the handling of a value by its size, and return that size in characters."""
        size = _size(value)
        if size > self.limits.value_chars:
            raise WorkLimitError("a value is larger than allowed", token=None)
        self.charge(size // CHARS_PER_UNIT)
        return size

    def loop(self, iterations: int) -> None:
        """Count the iterations of a loop when it begins.

        Raises:
            LoopIterationLimitError: All loops together have gone over the limit.
        """
        self.loops += iterations
        if self.loops > self.limits.loop_iterations:
            raise LoopIterationLimitError("more loop iterations than allowed", token=None)
        self.charge(_ITERATION_UNITS * iterations)

    def wrote(self, text: str) -> None:
        """Count a long text that is shown."""
        self.charge(len(text) // CHARS_PER_UNIT)

    def apply(
        self,
        name: str,
        function: Callable[..., Any],
        left: object,
        /,
        *args: object,
        **named: object,
    ) -> Any:
        """Apply a filter, counting what it takes and gives; what would explode is refused before."""
        self.charge(FILTER_UNITS)
        size = self.charge_value(left)
        for arg in args:
            self.charge_value(arg)
        if name in _GROWTH:
            self.charge_value(_Sized(_GROWTH[name](left, args)))
        elif name == "uniq" and isinstance(left, Sized):
            self.charge(len(left) * len(left) // 256)
        elif name == "strip_html" and isinstance(left, str):
            self.charge(left.count("<") * size // 4096)
        result = function(left, *args, **named)
        self.charge_value(result)
        return result


class _Sized(NamedTuple):
    """Stands for a value that was not made yet."""

    size: int


def _size(value: object) -> int:
    if isinstance(value, str):
        return len(value)
    if isinstance(value, list | tuple) and not isinstance(value, _Sized):
        return 8 * len(value) + sum(len(item) for item in value if isinstance(item, str))
    if isinstance(value, _Sized):
        return value.size
    if isinstance(value, range):
        return 8 * len(value)
    if isinstance(value, int):
        return value.bit_length() // 8
    return 8


def _grown_by_replace(left: object, args: tuple[object, ...]) -> int:
    text, old, new = str(left), str(args[0]) if args else "", str(args[1]) if len(args) > 1 else ""
    return len(text) + text.count(old) * max(0, len(new) - len(old))


def _grown_by_join(left: object, args: tuple[object, ...]) -> int:
    separator = len(str(args[0])) if args else 1
    return len(left) * separator if isinstance(left, Sized) else 0


def _grown_by_times(left: object, args: tuple[object, ...]) -> int:
    # Numbers as long as this limit are no amounts; products of products double their length.
    digits = sum(_digits(value) for value in (left, *args))
    return digits * 256


def _digits(value: object) -> int:
    if isinstance(value, int):
        return value.bit_length() // 3
    return len(value) if isinstance(value, str) else 20


_GROWTH: Final[dict[str, Callable[[object, tuple[object, ...]], int]]] = {
    "replace": _grown_by_replace,
    "join": _grown_by_join,
    "times": _grown_by_times,
}


class MeteredBuffer(StringIO):
    """An output that counts its bytes and stops at a limit."""

    def __init__(self, meter: Meter, written_bytes: int = 0) -> None:
        super().__init__()
        self.meter = meter
        self.written_bytes = written_bytes

    def write(self, text: str, /) -> int:
        """Write a text, or raise if the output would be larger than allowed."""
        size = len(text)
        self.written_bytes += size if text.isascii() else len(text.encode("utf-8", "replace"))
        meter = self.meter
        if self.written_bytes > meter.limits.output_bytes:
            raise OutputStreamLimitError("more output than allowed", token=None)
        if size >= CHARS_PER_UNIT:
            meter.charge(size // CHARS_PER_UNIT)
        return super().write(text)


class MeteredContext(RenderContext):
    """A render context that counts nodes, loops and filters on one meter."""

    __slots__ = ("_disabled_tags", "meter")

    def __init__(
        self,
        *args: Any,
        parent_context: RenderContext | None = None,
        meter: Meter | None = None,
        **named: Any,
    ) -> None:
        super().__init__(*args, parent_context=parent_context, **named)
        inherited = isinstance(parent_context, MeteredContext)
        shared = parent_context.meter if inherited else meter
        self.meter: Meter = shared or Meter(limits_of(self.env))

    @property
    def disabled_tags(self) -> list[str]:
        """The tags that are not allowed here. Every node asks for them first, and is counted."""
        meter = self.meter
        meter.left -= 1
        if meter.left < meter.checkpoint:
            meter.check()
        return self._disabled_tags

    @disabled_tags.setter
    def disabled_tags(self, tags: list[str]) -> None:  # pyright: ignore[reportIncompatibleVariableOverride]
        self._disabled_tags = tags

    def get(
        self, path: list[object], *, token: Token | None, default: object = UNDEFINED
    ) -> object:
        """Return the value of a path, counted; what is undefined costs more to find out."""
        value = super().get(path, token=token, default=default)
        self.meter.charge(1 + UNDEFINED_UNITS if isinstance(value, Undefined) else 1)
        return value

    def filter(self, name: str, token: Token | None) -> Callable[..., object]:
        """Return the filter of a name, metered."""
        return partial(self.meter.apply, name, super().filter(name, token))

    def raise_for_loop_limit(self, length: int = 1) -> None:
        """Count a loop's iterations when it begins; loops within loops count each time."""
        self.meter.loop(length)

    def stopindex(self, key: str, index: int | None = None) -> int:
        """Return or keep where a loop ends; an offset is skipped item by item, so it counts too."""
        if index is not None and index > self.meter.limits.loop_iterations:
            raise LoopIterationLimitError("more loop iterations than allowed", token=None)
        return super().stopindex(key, index)

    def get_buffer(self, buf: TextIO | None = None) -> StringIO:
        """Return a buffer for a captured block, with what its surroundings have left to write."""
        written = buf.written_bytes if isinstance(buf, MeteredBuffer) else 0
        return MeteredBuffer(self.meter, written)


def limits_of(environment: Environment) -> Limits:
    """Return the limits that an environment was made with."""
    limits = getattr(environment, "limits", None)
    return limits if isinstance(limits, Limits) else Limits()
