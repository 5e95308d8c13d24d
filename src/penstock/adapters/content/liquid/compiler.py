"""Liquid's tags as Python: one function of a template and all it includes, and what each step costs.

The interpreter's count is kept to the unit: what is certain to be done is counted where a block
begins, what depends on the data where it is done. Templates that a template includes or renders are
written into it, which makes every name a Python variable; one that includes itself is interpreted.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from liquid.ast import BlockNode, Node
from liquid.builtin.content import ContentNode
from liquid.builtin.expressions.primitive import StringLiteral
from liquid.builtin.output import OutputNode
from liquid.builtin.tags.assign_tag import AssignNode
from liquid.builtin.tags.capture_tag import CaptureNode
from liquid.builtin.tags.case_tag import CaseNode, MultiExpressionBlockNode
from liquid.builtin.tags.comment_tag import CommentNode
from liquid.builtin.tags.cycle_tag import CycleNode
from liquid.builtin.tags.decrement_tag import DecrementNode
from liquid.builtin.tags.doc_tag import DocNode
from liquid.builtin.tags.echo_tag import EchoNode
from liquid.builtin.tags.for_tag import BreakNode, ContinueNode, ForNode
from liquid.builtin.tags.if_tag import IfNode
from liquid.builtin.tags.ifchanged_tag import IfChangedNode
from liquid.builtin.tags.include_tag import IncludeNode
from liquid.builtin.tags.increment_tag import IncrementNode
from liquid.builtin.tags.inline_comment_tag import InlineCommentNode
from liquid.builtin.tags.liquid_tag import LiquidNode
from liquid.builtin.tags.render_tag import RenderNode
from liquid.builtin.tags.tablerow_tag import TablerowNode
from liquid.builtin.tags.unless_tag import UnlessNode
from liquid.exceptions import TemplateNotFoundError

from penstock.adapters.content.liquid.emitter import Emitter, UnsupportedError
from penstock.adapters.content.liquid.expressions import Expressions
from penstock.adapters.content.liquid.metering import CHARS_PER_UNIT
from penstock.adapters.content.liquid.scopes import Context, Frame, Loop, Value, continues, walk

FUNCTION: Final = "render"
"""The name of the generated function, `render(data, meter)`."""

VALUE_CHARS_MIN: Final = 1_000
"""Generated code does not ask whether short values are longer than allowed."""


class Compiler(Expressions):
    """Writes the function of one template."""

    def __init__(self, template: Any) -> None:
        super().__init__(template.env, Emitter())
        self.template = template
        self._open: list[Any] = []
        """The templates that are being written, to find one that includes itself."""
        self._loops: list[str] = []
        """What encloses the place, the innermost last: `for`, `items` of an include, or the name of
        what tells a table to stop."""
        self._tags: dict[type, Callable[[Any], None]] = {
            ContentNode: lambda node: self.emit.text(node.text),
            OutputNode: lambda node: self.show(self.value(node.expression)),
            EchoNode: lambda node: self.show(self.value(node.expression)),
            AssignNode: self.assign, CaptureNode: self.capture, IfChangedNode: self.if_changed,
            IfNode: lambda node: self.branches(node, unless=False),
            UnlessNode: lambda node: self.branches(node, unless=True),
            CaseNode: self.case, ForNode: self.for_loop, TablerowNode: self.table,
            BreakNode: lambda _: self.leave("break"), ContinueNode: lambda _: self.leave("continue"),
            CycleNode: self.cycle, LiquidNode: lambda node: self.block(node.block),
            IncrementNode: lambda node: self.count(node, before=False),
            DecrementNode: lambda node: self.count(node, before=True),
            IncludeNode: self.include, RenderNode: self.render,
            CommentNode: lambda _: None, InlineCommentNode: lambda _: None, DocNode: lambda _: None,
        }  # fmt: skip

    def compile(self) -> str:
        """Return the source of the function.

        Raises:
            UnsupportedError: The template has something that is interpreted.
        """
        if self.limits.value_chars < VALUE_CHARS_MIN:
            raise UnsupportedError("values may be very short only")
        emit = self.emit
        read = emit.deferred()
        emit.line("out = []")
        with self.opened(self.template, self.context):
            self._entered()
            self.context.frames.append({"partial": Value("False", "literal", False)})
            self.nodes(self.template.nodes)
        emit.flush()
        emit.line("return finished(meter, out)")
        read.text = "\n    ".join(
            ["get = data.get", *(f"{name} = get({key!r}, {absent})"
                                 for key, (name, absent) in self.roots.items())]
        )  # fmt: skip
        return emit.source(FUNCTION)

    @contextmanager
    def opened(self, template: Any, context: Context) -> Iterator[None]:
        """Begin a context of python-liquid: its variables, and all that its tags remember."""
        if template in self._open:
            raise UnsupportedError("it includes itself")
        before, self.context = self.context, context
        self._open.append(template)
        emit = self.emit
        for node in self._with_includes(template, []):
            if isinstance(node, AssignNode | CaptureNode):
                context.assigned.setdefault(str(node.name), "")
            elif isinstance(node, IncrementNode | DecrementNode):
                context.counters.setdefault(str(node.name), "")
            elif isinstance(node, CycleNode) and not context.cycles:
                context.cycles = self._begun("cycles", "{}")
            elif continues(node) and not context.stops:
                context.stops = self._begun("stops", "{}")
            elif isinstance(node, IfChangedNode) and not context.changed:
                context.changed = self._begun("changed", "''")
        for name in context.counters:
            context.counters[name] = self._begun("n", "None")
        names = list(context.assigned)
        context.assigned = {}
        passed = {name for frame in context.arguments for name in frame}
        starts = {name: "UNSET" if name in passed else self.root(name)[0] for name in names}
        context.assigned = {name: self._begun("v", starts[name]) for name in names}
        if names:
            context.kept = self._begun("kept", context.kept)
            for local in context.assigned.values():
                emit.line(f"{local}_size = 0")
        yield
        self._open.pop()
        self.context = before

    def _begun(self, prefix: str, code: str) -> str:
        name = self.emit.name(prefix)
        self.emit.line(f"{name} = {code}")
        return name

    def _with_includes(self, template: Any, seen: list[Any]) -> Iterator[Node]:
        """Yield the nodes of a template and of those it includes, which share its context."""
        if template in seen:
            raise UnsupportedError("it includes itself")
        for node in walk(template.nodes, template):
            yield node
            if isinstance(node, IncludeNode):
                yield from self._with_includes(self.included(node.name), [*seen, template])

    def included(self, name: Any) -> Any:
        """Return the template of a literal name."""
        if not isinstance(name, StringLiteral):
            raise UnsupportedError("it includes a template whose name is made while rendering")
        try:
            return self.environment.get_template(name.value)
        except TemplateNotFoundError:
            raise UnsupportedError("it includes a template that does not exist") from None

    # ----------------------------------------------------------------------------------- blocks

    def nodes(self, nodes: list[Node]) -> None:
        """Write nodes one after the other."""
        for node in nodes:
            self.emit.charge(self.context.node_units)
            tag = self._tags.get(type(node))
            if tag is None:
                raise UnsupportedError(f"it has a tag that is not compiled, {type(node).__name__}")
            tag(node)
            if isinstance(node, BreakNode | ContinueNode):
                break  # what follows is never reached
            if self._may_leave(node):
                self.emit.interrupted()

    def _may_leave(self, node: Node) -> bool:
        within = walk([node], self.template)
        return any(isinstance(each, BreakNode | ContinueNode | IncludeNode) for each in within)

    def block(self, node: BlockNode) -> None:
        """Write a block; one of blanks only is done without being shown."""
        self.emit.charge(self.context.node_units)
        if not node.blank:
            self.nodes(node.nodes)
            return
        self.emit.flush()
        before, self.emit.out = self.emit.out, None
        self.nodes(node.nodes)
        self.emit.out = before

    def show(self, value: Value) -> None:
        """Write that a value is shown."""
        emit = self.emit
        if emit.out is None:
            raise UnsupportedError("it shows a value where nothing is shown")
        if value.kind == "literal":
            emit.text(self._literal_text(value.literal))
            return
        html = self.environment.autoescape
        if value.kind == "int":
            emit.value(self.named(value._replace(code=f"str({value.code})")).code)
            return
        if value.kind == "bool":
            emit.value(self.named(value._replace(code=f"'true' if {value.code} else 'false'")).code)
            return
        value = self.named(value)
        code = value.code
        quick = f"escape({code})" if html else code
        if value.kind != "str":
            arguments = f"meter, {code}" if value.kind == "path" else code
            if value.kind == "path":
                slow = "html_of" if html else "text_of"
            else:
                slow = "shown_html" if html else "shown_text"
            quick = f"{quick} if {code}.__class__ is str else {slow}({arguments})"
        shown = emit.name()
        emit.line(f"{shown} = {quick}")
        emit.line(f"if len({shown}) >= {CHARS_PER_UNIT}: meter.wrote({shown})")
        emit.value(shown)

    @staticmethod
    def _literal_text(value: object) -> str:
        if value is None:
            return ""
        return str(value).lower() if isinstance(value, bool) else str(value)

    # ------------------------------------------------------------------------------ assignments

    def assign(self, node: AssignNode) -> None:
        """Write `assign`."""
        self._keep(str(node.name), self.settled(self.value(node.expression)))

    def _keep(self, name: str, code: str) -> None:
        emit, context = self.emit, self.context
        local = context.assigned[name]
        if name in context.counters:
            # What stands for "not in the data" tells that a counter is meant; this one is assigned.
            missing = self.root(name)[1]
            other = emit.constant("U", f"Undefined({name!r}, hint='assigned')")
            given = emit.name()
            emit.line(f"{given} = {code}")
            code = f"{other} if {given} is {missing} else {given}"
        emit.line(f"{local} = {code}")
        emit.line(f"{context.kept} += (size := getsizeof({local}, 1)) - {local}_size")
        emit.line(f"{local}_size = size")
        if self.limits.namespace_bytes:
            emit.line(f"if {context.kept} > {self.limits.namespace_bytes}: raise GiveUpError")

    @contextmanager
    def _aside(self) -> Iterator[str]:
        """Gather what is shown in a list of its own, and yield the name of its text."""
        emit = self.emit
        emit.flush()
        outer, inner, text = emit.out, emit.name("out"), emit.name()
        start = "0" if outer is None else f"written({outer})"
        if outer is not None and outer != "out":
            start = f"{outer}_start + {start}"
        emit.line(f"{inner}_start = {start}")
        emit.line(f"{inner} = []")
        emit.out = inner
        yield text
        emit.flush()
        emit.out = outer
        emit.line(f"{text} = ''.join({inner})")
        limit = self.limits.output_bytes
        emit.line(f"if {inner}_start + size_of({text}) > {limit}: raise GiveUpError")

    def capture(self, node: CaptureNode) -> None:
        """Write `capture`."""
        with self._aside() as text:
            self.block(node.block)
        self._keep(str(node.name), f"Markup({text})" if self.environment.autoescape else text)

    def if_changed(self, node: IfChangedNode) -> None:
        """Write `ifchanged`."""
        with self._aside() as text:
            self.block(node.block)
        changed = self.context.changed
        with self.emit.block(f"if {text} != {changed}:"):
            self.emit.line(f"{changed} = {text}")
            if self.emit.out is not None:
                self.emit.line(f"if len({text}) >= {CHARS_PER_UNIT}: meter.wrote({text})")
                self.emit.value(text)

    def count(self, node: Any, *, before: bool) -> None:
        """Write `increment`, which shows and then counts, and `decrement`, which counts first."""
        counter, shown = self.context.counters[str(node.name)], self.emit.name()
        if before:
            self.emit.line(f"{counter} = ({counter} or 0) - 1")
            self.emit.line(f"{shown} = str({counter})")
        else:
            self.emit.line(f"{shown} = str({counter} or 0)")
            self.emit.line(f"{counter} = ({counter} or 0) + 1")
        self.emit.value(shown)

    def cycle(self, node: CycleNode) -> None:
        """Write `cycle`."""
        group = "''"
        if node.group:
            group = f"group_of({self.settled(self.value(node.group))})"
        args = [self.settled(self.value(arg)) for arg in node.args]
        name = self.emit.name()
        self.emit.line(f"{name} = turn({self.context.cycles}, {group}, ({', '.join(args)},))")
        self.show(Value(name))

    # ------------------------------------------------------------------------------- conditions

    def branches(self, node: Any, *, unless: bool) -> None:
        """Write `if` and `unless`."""
        emit = self.emit
        emit.flush()
        test = self.truth(self.value(node.condition)).code
        with emit.block(f"if {'not ' if unless else ''}{test}:"):
            self.block(node.consequence)
        self._otherwise(list(node.alternatives), node.default)

    def _otherwise(self, alternatives: list[Any], default: BlockNode | None) -> None:
        emit = self.emit
        if alternatives:
            with emit.block("else:"):
                test = self.truth(self.value(alternatives[0].expression)).code
                with emit.block(f"if {test}:"):
                    self.block(alternatives[0].block)
                self._otherwise(alternatives[1:], default)
        elif default is not None:
            with emit.block("else:"):
                self.block(default)

    def case(self, node: CaseNode) -> None:
        """Write `case`: every `when` that matches is shown, and `else` if none before it did."""
        emit = self.emit
        emit.flush()
        matched = emit.name("c")
        emit.line(f"{matched} = False")
        for block in node.blocks:
            if not isinstance(block, MultiExpressionBlockNode):
                with emit.block(f"if not {matched}:"):
                    self.block(block)
                continue
            emit.charge(self.context.node_units)
            tests: list[str] = []
            left = self.value(block.expression.left)
            for position, expression in enumerate(block.expression.expressions):
                # The left side is evaluated once for each `when`, so it is counted once.
                once = left._replace(kind="any") if position and left.kind == "path" else left
                test = emit.name("c")
                emit.line(f"{test} = {self.same(once, self.value(expression)).code}")
                tests.append(test)
            if len(tests) > 1:
                # python-liquid shows a block as often as its values match.
                emit.line(f"if {' + '.join(tests)} > 1: raise GiveUpError")
            with emit.block(f"if {' or '.join(tests)}:"):
                emit.line(f"{matched} = True")
                self.block(block.block)

    # ------------------------------------------------------------------------------------ loops

    def leave(self, how: str) -> None:
        """Write `break` or `continue`."""
        self.emit.flush()
        enclosing = self._loops[-1] if self._loops else ""
        if enclosing == "for":
            self.emit.line(how)
        elif enclosing == "items":
            raise UnsupportedError("it leaves a loop from a template that is included for each")
        elif enclosing:
            if how == "break":
                self.emit.line(f"{enclosing} = True")
            self.emit.line("break")
        else:
            self.emit.line("raise GiveUpError")

    def _items(self, expression: Any) -> tuple[str, str]:
        """Write what a loop goes through; return the names of that and of its length."""
        emit = self.emit
        value = self.named(self.value(expression.iterable))
        items, count = emit.name("s"), emit.name("n")
        if value.kind == "literal":
            emit.line(f"{items} = sequence({value.code})")
        else:
            other = f"sequence({self.settled(value)})"
            emit.line(f"{items} = {value.code} if {value.code}.__class__ is list else {other}")
        if expression.limit or expression.offset or self.context.stops:
            limit = offset = "ABSENT"
            if expression.limit:
                limit = self.settled(self.value(expression.limit))
            if isinstance(expression.offset, StringLiteral):
                literal = expression.offset.value
                offset = "CONTINUE" if literal == "continue" else repr(str(literal))
            elif expression.offset:
                offset = self.settled(self.value(expression.offset))
            stops, key = (
                self.context.stops or "{}",
                f"{expression.identifier}-{expression.iterable}",
            )
            emit.line(f"{items} = window(meter, {items}, {limit}, {offset}, {stops}, {key!r})")
        if expression.reversed:
            emit.line(f"{items} = backwards({items})")
        emit.line(f"{count} = len({items})")
        return items, count

    def _iteration(self) -> None:
        """Write what each iteration asks: whether the work or the time is used up."""
        self.emit.line("if meter.left < meter.checkpoint: meter.check()")

    def _entered(self, namespaces: int = 1) -> None:
        """Refuse what python-liquid refuses: more namespaces at once than allowed."""
        for more in range(namespaces):
            if self.context.scope_size() + more > self.limits.depth:
                self.emit.line("raise GiveUpError")
                return

    def for_loop(self, node: ForNode) -> None:
        """Write `for`."""
        emit = self.emit
        emit.flush()
        expression, name = node.expression, str(node.expression.identifier)
        items, count = self._items(expression)
        with emit.block(f"if {count}:"):
            emit.line(f"meter.loop({count})")
            self._entered()
            item = emit.name("v")
            loop = Loop(emit.name("i"), count, f"{name}-{expression.iterable}", self._parent())
            header = emit.deferred()
            frame: Frame = {"forloop": loop}
            frame[name] = Value(item, "path")
            self._body(frame, "for", node.block, "")
            plain = f"for {item} in {items}:"
            header.text = (
                f"for {loop.index}, {item} in enumerate({items}):" if loop.uses_index else plain
            )
        if node.default:
            with emit.block("else:"):
                self.block(node.default)

    def _parent(self) -> Loop | None:
        for frame in reversed(self.context.frames):
            loop = frame.get("forloop")
            if isinstance(loop, Loop) and loop.columns is None:
                return loop
        return None

    def _body(self, frame: Frame, kind: str, block: BlockNode, header: str) -> None:
        """Write what a loop repeats, below a header that is written already if it is empty."""
        self.context.frames.append(frame)
        self._loops.append(kind)
        with self.emit.block(header):
            self._iteration()
            self.block(block)
        self._loops.pop()
        self.context.frames.pop()

    def table(self, node: TablerowNode) -> None:
        """Write `tablerow`."""
        emit = self.emit
        emit.flush()
        expression, name = node.expression, str(node.expression.identifier)
        items, count = self._items(expression)
        columns, column, row = emit.name("w"), emit.name("x"), emit.name("y")
        with emit.block(f"if {count}:"):
            wide = (
                f"whole({self.settled(self.value(expression.cols))})" if expression.cols else count
            )
            emit.line(f"{columns} = {wide}")
            # python-liquid counts a table's iterations twice.
            emit.line(f"meter.loop({count})")
            emit.line(f"meter.loop({count})")
            self._entered()
            emit.line(f"{column}, {row} = 0, 1")
            emit.text('<tr class="row1">\n')
            emit.flush()
            item, index = emit.name("v"), emit.name("i")
            loop = Loop(index, count, columns=(column, row, columns))
            with emit.block(f"for {index}, {item} in enumerate({items}):"):
                begun = f"({column} + 1, {row}) if {column} != {columns} else (1, {row} + 1)"
                emit.line(f"{column}, {row} = {begun}")
                stop = emit.name("stop")
                emit.line(f"{stop} = False")
                cell = emit.name()
                emit.line(f"{cell} = f'<td class=\"col{{{column}}}\">'")
                emit.value(cell)
                self._body({"tablerowloop": loop, name: Value(item, "path")}, stop, node.block,
                           "for _ in ONCE:")  # fmt: skip
                emit.line(f"{emit.out}.append('</td>')")
                with emit.block(f"if {column} == {columns} and {index} != {count} - 1:"):
                    begun = f"f'</tr>\\n<tr class=\"row{{{row} + 1}}\">'"
                    emit.line(f"{emit.out}.append({begun})")
                emit.line(f"if {stop}: break")
            emit.text("</tr>\n")

    # --------------------------------------------------------------------------------- partials

    def _arguments(self, node: Any) -> Frame:
        """Write the arguments of `include` or `render`, evaluated outside of it."""
        frame: Frame = {}
        for arg in node.args:
            frame[str(arg.name)] = Value(
                self._begun("a", self.settled(self.value(arg.value))), "path"
            )
        return frame

    def include(self, node: IncludeNode) -> None:
        """Write a template into this one, in its scope."""
        emit, context = self.emit, self.context
        emit.flush()
        if context.isolated:
            emit.line("raise GiveUpError")
            return
        template = self.included(node.name)
        frame = self._arguments(node)
        self._entered()
        context.frames.append(frame)
        if node.var is None:
            self._partial(template)
        else:
            value = self.named(Value(self.settled(self.value(node.var))))
            key = str(node.alias or template.name.split(".")[0])
            items, item = emit.name("s"), emit.name("v")
            emit.line(f"{items} = ({value.code},)")
            with emit.block(f"if isinstance({value.code}, LISTS):"):
                emit.line(f"{items} = {value.code}")
                emit.line(f"meter.loop(len({items}))")
            frame[key] = Value(item, "path")
            self._loops.append("items")
            with emit.block(f"for {item} in {items}:"):
                self._iteration()
                self._partial(template)
            self._loops.pop()
        context.frames.pop()

    def _partial(self, template: Any) -> None:
        """Write the nodes of an included template."""
        if template in self._open:
            raise UnsupportedError("it includes itself")
        self._open.append(template)
        self._entered()
        self.context.frames.append({"partial": Value("True", "literal", True)})
        self.nodes(template.nodes)
        self.context.frames.pop()
        self._open.pop()

    def render(self, node: RenderNode) -> None:
        """Write a template into this one, in a scope of its own."""
        emit = self.emit
        emit.flush()
        template = self.included(node.name)
        passed = self._arguments(node)
        outer = self.context
        if outer.depth > self.limits.depth:
            emit.line("raise GiveUpError")
        arguments = [passed, *outer.arguments]
        context = Context(
            isolated=True, arguments=arguments, depth=outer.depth + 1, kept=outer.kept
        )
        loops, self._loops = self._loops, []
        if node.var is None:
            with self.opened(template, context):
                self._rendered(template)
        else:
            self._render_with(node, template, context, passed)
        self._loops = loops

    def _render_with(
        self, node: RenderNode, template: Any, context: Context, passed: Frame
    ) -> None:
        """Write `render … with` and `render … for`, which repeats it for a list."""
        assert node.var is not None, "the value that is passed"
        emit = self.emit
        value = self.named(Value(self.settled(self.value(node.var))))
        key = str(node.alias or template.name.split(".")[0])
        item, index, count = emit.name("v"), emit.name("i"), emit.name("n")
        passed[key] = Value(item, "path")
        if not node.loop:
            emit.line(f"{item} = {value.code}")
            with self.opened(template, context):
                self._rendered(template)
            return
        items = emit.name("s")
        emit.line(f"{items} = ({value.code},)")
        with emit.block(f"if isinstance({value.code}, LISTS):"):
            emit.line(f"{items} = {value.code}")
            emit.line(f"meter.loop(len({items}))")
        with emit.inside("else:"):
            single = emit.deferred()
        emit.line(f"{count} = len({items})")
        loop = Loop(index, count, key)
        passed["forloop"] = loop
        with (
            self.opened(template, context),
            emit.block(f"for {index}, {item} in enumerate({items}):"),
        ):
            self._iteration()
            self._rendered(template)
        if loop.used:
            single.text = "raise GiveUpError"  # one that is no list has no `forloop`

    def _rendered(self, template: Any) -> None:
        self._entered()
        self.context.frames.append({"partial": Value("True", "literal", True)})
        self.nodes(template.nodes)
        self.context.frames.pop()
