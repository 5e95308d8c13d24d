"""Liquid's expressions as Python: paths, literals, comparisons and filters, each with what it costs."""

import math
from collections.abc import Callable
from types import CodeType
from typing import Any, Final

from liquid.builtin.expressions import logical, primitive
from liquid.builtin.expressions.arguments import KeywordArgument
from liquid.builtin.expressions.filtered import Filter, FilteredExpression
from liquid.builtin.expressions.path import Path
from liquid.builtin.filters import math as arithmetic
from liquid.builtin.filters import misc, string
from liquid.expression import Expression
from liquid.filter import liquid_filter
from markupsafe import Markup

from penstock.adapters.content.liquid.emitter import Emitter, UnsupportedError
from penstock.adapters.content.liquid.filters import FILTERS, Dated
from penstock.adapters.content.liquid.metering import CHARS_PER_UNIT, FILTER_UNITS, Limits
from penstock.adapters.content.liquid.scopes import Context, Loop, Value

_SPECIAL: Final = frozenset({"size", "first", "last"})
_LITERALS: Final = (
    primitive.TrueLiteral, primitive.FalseLiteral, primitive.IntegerLiteral, primitive.FloatLiteral,
)  # fmt: skip
_SHOWN_WHOLE: Final = frozenset({"replace", "join", "uniq", "strip_html"})
"""Filters that are counted by more than what they take and give: the meter applies them."""

_TEXT_METHODS: Final = {
    string.upcase: "upper", string.downcase: "lower", string.capitalize: "capitalize",
    string.strip: "strip", string.lstrip: "lstrip", string.rstrip: "rstrip",
}  # fmt: skip
_SHORT: Final = 20
"""A text this long is never over `CHARS_PER_UNIT` in upper case."""
_SUMS: Final = {arithmetic.plus: "+", arithmetic.minus: "-"}
_GIVES_TEXT: Final = frozenset({"money", "decimal", "instant", "plural", "url_with"})
_GIVES_NUMBER: Final = frozenset({"size"})

_CONVERTS_ERRORS_ONLY: Final[CodeType] = liquid_filter(lambda value: value).__code__
"""What wraps a filter only to name its errors: generated code leaves naming to the interpreter."""


class Expressions:
    """Writes expressions into a program."""

    def __init__(self, environment: Any, emitter: Emitter) -> None:
        self.environment = environment
        self.limits: Limits = environment.limits
        self.emit = emitter
        self.context = Context()
        self.roots: dict[str, tuple[str, str]] = {}
        """Name in the data -> the Python name of its value, and of what stands for its absence."""
        self._kinds: dict[type, Callable[[Any], Value]] = {
            Path: self.path,
            FilteredExpression: self.filtered,
            primitive.StringLiteral: self.text_literal,
            primitive.Nil: lambda _: Value("None", "literal", None),
            primitive.Empty: lambda _: Value("EMPTY"),
            primitive.Blank: lambda _: Value("BLANK"),
            primitive.RangeLiteral: self.range_literal,
            logical.BooleanExpression: lambda node: self.truth(self.value(node.expression)),
            logical.LogicalNotExpression: self.negation,
            logical.LogicalAndExpression: lambda node: self.either(node, stop_at=False),
            logical.LogicalOrExpression: lambda node: self.either(node, stop_at=True),
            logical.EqExpression: self.equality,
            logical.NeExpression: lambda node: Value(f"(not {self.equality(node).code})", "bool"),
            logical.LtExpression: lambda node: self.order(node.left, node.right, "<", "less"),
            logical.GtExpression: lambda node: self.order(node.left, node.right, ">", "less"),
            logical.LeExpression: lambda node: self.order(node.left, node.right, "<=", "at_most"),
            logical.GeExpression: lambda node: self.order(node.left, node.right, ">=", "at_most"),
            logical.ContainsExpression: self.containment,
            **dict.fromkeys(_LITERALS, self.literal),
        }

    def value(self, node: Expression) -> Value:
        """Write an expression and return its value."""
        kind = self._kinds.get(type(node))
        if kind is None:
            raise UnsupportedError(
                f"it has an expression that is not compiled, {type(node).__name__}"
            )
        return kind(node)

    def settled(self, value: Value) -> str:
        """Return the code of a value; that it is undefined is counted there."""
        return f"seen(meter, {value.code})" if value.kind == "path" else value.code

    def named(self, value: Value) -> Value:
        """Return a value that may be read twice at no cost."""
        if value.kind == "literal" or value.code.isidentifier():
            return value
        name = self.emit.name()
        self.emit.line(f"{name} = {value.code}")
        return value._replace(code=name)

    def missing(self, name: str) -> str:
        """Return the name of what stands for an undefined name."""
        return self.emit.constant("U", f"Undefined({name!r})")

    # --------------------------------------------------------------------------------- literals

    def literal(self, node: Any) -> Value:
        """Write a number or a boolean."""
        if isinstance(node.value, float) and not math.isfinite(node.value):
            raise UnsupportedError("it has a number that is too large")
        return Value(repr(node.value), "literal", node.value)

    def text_literal(self, node: primitive.StringLiteral) -> Value:
        """Write a text of the template; in HTML it is the author's, so it is not escaped."""
        if len(node.value) > self.limits.value_chars:
            raise UnsupportedError("it has a text that is too long")
        text = str(node.value)
        if not self.environment.autoescape:
            return Value(repr(text), "literal", text)
        return Value(self.emit.constant("M", f"Markup({text!r})"), "literal", Markup(text))  # noqa: S704 - the author's own text

    def range_literal(self, node: primitive.RangeLiteral) -> Value:
        """Write a range of numbers."""
        start, stop = self.settled(self.value(node.start)), self.settled(self.value(node.stop))
        return Value(f"span({start}, {stop})")

    # ------------------------------------------------------------------------------------ paths

    def resolve(self, name: str) -> "Value | Loop":
        """Return what a name stands for here."""
        context = self.context
        for frame in reversed(context.frames):
            if name in frame:
                return frame[name]
        below = self._below(name)
        local = context.assigned.get(name)
        if local is None:
            return below
        if name in context.counters:
            return self._or_counter(name, local)
        if isinstance(below, Loop):
            raise UnsupportedError("it assigns to the name of a loop")
        if below.code in {root for root, _ in self.roots.values()}:
            return Value(local, "path")
        return Value(f"({local} if {local} is not UNSET else {below.code})", "path")

    def _below(self, name: str) -> "Value | Loop":
        """Return what a name stands for below what is assigned."""
        for frame in self.context.arguments:
            if name in frame:
                if name in self.context.counters and name in self.context.assigned:
                    raise UnsupportedError("it counts and assigns what is passed to it")
                return frame[name]
        root, missing = self.root(name)
        if name in self.context.counters and name not in self.context.assigned:
            return self._or_counter(name, root)
        return Value(root, "path") if missing else Value(root)

    def _or_counter(self, name: str, code: str) -> Value:
        counter, missing = self.context.counters[name], self.root(name)[1]
        shown = f"({missing} if {counter} is None else {counter})"
        return Value(f"({code} if {code} is not {missing} else {shown})", "path")

    def root(self, name: str) -> tuple[str, str]:
        """Return the names of a value of the data and of its absence; it is read once, at the top."""
        if name not in self.roots:
            self.roots[name] = (f"d{len(self.roots) + 1}", self.missing(name))
        return self.roots[name]

    def path(self, node: Path) -> Value:
        """Write a path such as `item.price[0]`."""
        head, *segments = node.path
        if not isinstance(head, str):
            raise UnsupportedError("it looks a name up that is made while rendering")
        self.emit.charge(1)
        found = self.resolve(head)
        if isinstance(found, Loop):
            return self._of_loop(found, head, segments)
        if found.kind == "path" or segments:
            found = found._replace(kind="path")
        missing = self.missing(head)
        for segment in segments:
            # A path within a path is counted first, as it is evaluated first.
            found = self.named(found)
            name = self.emit.name()
            self.emit.line(f"{name} = {self._member(found.code, segment, missing)}")
            found = Value(name, "path")
        return found

    def _member(self, code: str, segment: Any, missing: str) -> str:
        if isinstance(segment, Path):
            return f"member({code}, {self.settled(self.value(segment))}, {missing})"
        if segment in _SPECIAL:
            return f"member({code}, {segment!r}, {missing})"
        key = repr(str(segment)) if isinstance(segment, str) else repr(int(segment))
        if isinstance(segment, int):
            return f"pick({code}, {key}, {missing})"
        return (
            f"{code}.get({key}, {missing}) if {code}.__class__ is dict"
            f" else pick({code}, {key}, {missing})"
        )

    def _of_loop(self, loop: Loop, name: str, segments: list[Any]) -> Value:
        """Write a property of a loop; the loop itself is no value in generated code."""
        seen: Loop | Value | None = loop
        for position, key in enumerate(segments):
            if isinstance(seen, Value) and seen.kind == "path":
                return seen  # of what is undefined everything is
            if not isinstance(seen, Loop):
                raise UnsupportedError("it reads a property of a property of a loop")
            if key == "parentloop" and seen.columns is None:
                seen = seen.parent or Value(self.missing("parentloop"), "path")
            elif not isinstance(key, str) or key == "size":
                raise UnsupportedError("it reads a loop by a key that is made while rendering")
            else:
                seen = seen.tell(key, is_for=seen.columns is None)
            if seen is None:
                missing = Value(self.missing(name), "path")
                if position + 1 < len(segments):
                    raise UnsupportedError("it reads a property that a loop does not have")
                return missing
        if isinstance(seen, Loop):
            raise UnsupportedError("it uses a loop as a value")
        assert seen is not None, "a property that is missing was returned"
        return seen

    # ------------------------------------------------------------------------------- conditions

    def truth(self, value: Value) -> Value:
        """Return whether a value is true, as an expression."""
        if value.kind == "bool":
            return value
        if value.kind in {"int", "str"}:
            return Value("True", "bool")
        if value.kind == "literal":
            return Value(repr(value.literal is not None and value.literal is not False), "bool")
        value = self.named(value)
        otherwise = (
            f"truth(meter, {value.code})" if value.kind == "path" else f"is_truthy({value.code})"
        )
        plain = f"{value.code} is not None and {value.code} is not False"
        code = (
            f"({value.code} is True or {value.code}.__class__ in TRUE or ({plain} and {otherwise}))"
        )
        return Value(code, "bool")

    def negation(self, node: logical.LogicalNotExpression) -> Value:
        """Write `not`."""
        return Value(f"(not {self.truth(self.value(node.right)).code})", "bool")

    def either(self, node: Any, *, stop_at: bool) -> Value:
        """Write `and` or `or`; the right side is evaluated, and counted, only where it decides."""
        name = self.emit.name("c")
        self.emit.line(f"{name} = {self.truth(self.value(node.left)).code}")
        with self.emit.inside(f"if {'not ' if stop_at else ''}{name}:"):
            self.emit.line(f"{name} = {self.truth(self.value(node.right)).code}")
        return Value(name, "bool")

    def equality(self, node: Any) -> Value:
        """Write `==`, in Liquid's sense."""
        left, right = self.value(node.left), self.value(node.right)
        return self.same(left, right)

    def same(self, left: Value, right: Value) -> Value:
        """Return whether two values are equal in Liquid, as an expression."""
        for one, other in ((left, right), (right, left)):
            if other.kind == "literal" and other.literal.__class__ in {str, Markup, int}:
                one = self.named(one)  # noqa: PLW2901 - it may be read twice below
                plain = int if other.literal.__class__ is int else str
                pair = (one, other) if other is right else (other, one)
                slow = f"equal({self.settled(pair[0])}, {self.settled(pair[1])})"
                quick = f"{one.code} == {plain(other.literal)!r}"  # pyright: ignore[reportArgumentType]
                if one.kind == "literal":
                    return Value(slow, "bool")
                return Value(
                    f"({quick} if {one.code}.__class__ is {plain.__name__} else {slow})", "bool"
                )
        return Value(f"equal({self.settled(left)}, {self.settled(right)})", "bool")

    def order(self, left_node: Expression, right_node: Expression, sign: str, name: str) -> Value:
        """Write `<` and its like."""
        left, right = self.value(left_node), self.value(right_node)
        if right.kind == "literal" and right.literal.__class__ is int and left.kind != "literal":
            left = self.named(left)
        pair = (right, left) if sign in {">", ">="} else (left, right)
        slow = f"{name}({self.settled(pair[0])}, {self.settled(pair[1])})"
        if right.kind == "literal" and right.literal.__class__ is int and left.kind != "literal":
            quick = f"{left.code} {sign} {right.code}"
            return Value(f"({quick} if {left.code}.__class__ is int else {slow})", "bool")
        return Value(slow, "bool")

    def containment(self, node: logical.ContainsExpression) -> Value:
        """Write `contains`."""
        left, right = self.value(node.left), self.value(node.right)
        return Value(f"contains({self.settled(left)}, {self.settled(right)})", "bool")

    # ---------------------------------------------------------------------------------- filters

    def filtered(self, node: FilteredExpression) -> Value:
        """Write a value and its filters."""
        value = self.value(node.left)
        for applied in node.filters or ():
            value = self._filter(applied, value)
        return value

    def _filter(self, node: Filter, left: Value) -> Value:
        function = self.environment.filters.get(node.name)
        if function is None:
            raise UnsupportedError("it has a filter that does not exist")
        if any(isinstance(arg, KeywordArgument) for arg in node.args):
            return self._by_meter(node, left)
        if isinstance(function, Dated):
            return self._date(node, left)
        if getattr(function, "with_context", False) or node.name in _SHOWN_WHOLE:
            return self._by_meter(node, left)
        args = [self.value(arg.value) for arg in node.args]
        quick = self._quick(function, left, args)
        if quick is not None:
            return quick
        self.emit.charge(FILTER_UNITS)
        helper = "or_default" if function is misc.default and len(args) == 1 else "apply"
        weighed = "".join(f", {self._weighed(arg)}" for arg in args)
        code = (
            f"{helper}(meter, {self._function(node.name, function)}, {self.settled(left)}{weighed})"
        )
        kind = "any"
        if function is FILTERS.get(node.name) and node.name in _GIVES_TEXT:
            kind = "str"
        elif function is misc.size:
            kind = "int"
        return self._kept(code, kind)

    def _kept(self, code: str, kind: str = "any") -> Value:
        name = self.emit.name()
        self.emit.line(f"{name} = {code}")
        return Value(name, kind)

    def _weighed(self, value: Value) -> str:
        """Return the code of an argument, counted by its size."""
        if value.kind == "literal":
            if isinstance(value.literal, str):
                self.emit.charge(len(value.literal) // CHARS_PER_UNIT)
                return value.code
            if not isinstance(value.literal, int) or abs(value.literal) < 1 << 63:
                return value.code
        if value.kind in {"bool", "int"}:
            return value.code
        return f"weigh(meter, {self.settled(value)})"

    def _function(self, name: str, function: Any) -> str:
        """Return the name of a filter's function, without what only names its errors."""
        plain = getattr(function, "__code__", None) is _CONVERTS_ERRORS_ONLY
        if plain and not getattr(function, "with_environment", False):
            return self.emit.constant("F", f"filters[{name!r}].__wrapped__")
        if getattr(function, "with_environment", False):
            return self.emit.constant("F", f"bound(filters[{name!r}])")
        return self.emit.constant("F", f"filters[{name!r}]")

    def _quick(self, function: Any, left: Value, args: list[Value]) -> Value | None:
        """Write the frequent filters on short texts and small numbers without a call."""
        if function is arithmetic.times and len(args) == 1:
            name = self.emit.constant("F", "filters['times']")
            code = f"times(meter, {name}, {self.settled(left)}, {self.settled(args[0])})"
            return self._kept(code)
        if left.kind == "literal":
            return None
        if function in _TEXT_METHODS and not args:
            left = self.named(left)
            quick = f"{left.code}.{_TEXT_METHODS[function]}()"
            test = f"{left.code}.__class__ is str and len({left.code}) <= {_SHORT}"
        elif function in _SUMS and len(args) == 1 and self._small(args[0]):
            left = self.named(left)
            quick = f"{left.code} {_SUMS[function]} {args[0].code}"
            test = f"{left.code}.__class__ is int and -SMALL < {left.code} < SMALL"
        else:
            return None
        self.emit.charge(FILTER_UNITS)
        name = next(key for key, known in self.environment.filters.items() if known is function)
        weighed = "".join(f", {self._weighed(arg)}" for arg in args)
        call = f"apply(meter, {self._function(name, function)}, {self.settled(left)}{weighed})"
        return self._kept(f"{quick} if {test} else {call}")

    @staticmethod
    def _small(value: Value) -> bool:
        literal = value.literal
        return value.kind == "literal" and type(literal) is int and abs(literal) < 1 << 63

    def _date(self, node: Filter, left: Value) -> Value:
        """Write `date`, which looks up the instant the email is made as of."""
        if len(node.args) != 1:
            return self._give_up()
        pattern = self.value(node.args[0].value)
        as_of = self.resolve("as_of_ms")
        if isinstance(as_of, Loop):
            raise UnsupportedError("it names a loop as_of_ms")
        self.emit.charge(FILTER_UNITS)
        function = self.emit.constant("F", f"filters[{node.name!r}].text")
        given = f"{self.settled(left)}, {self._weighed(pattern)}, {as_of.code}"
        return self._kept(f"apply(meter, {function}, {given})")

    def _give_up(self) -> Value:
        self.emit.line("raise GiveUpError")
        return Value("None", "literal", None)

    def _by_meter(self, node: Filter, left: Value) -> Value:
        """Write a filter that the meter applies whole, as it does for the interpreter."""
        function = self.environment.filters[node.name]
        if getattr(function, "with_context", False):
            raise UnsupportedError("it has a filter that needs a context")
        args = [self.settled(left)]
        named: list[str] = []
        for arg in node.args:
            code = self.settled(self.value(arg.value))
            if isinstance(arg, KeywordArgument):
                named.append(f"{str(arg.name)!r}: {code}")
            else:
                args.append(code)
        code = (
            f"meter.apply({node.name!r}, {self._function(node.name, function)}, {', '.join(args)}"
        )
        named_code = f", **{{{', '.join(named)}}}" if named else ""
        return self._kept(f"{code}{named_code})")
