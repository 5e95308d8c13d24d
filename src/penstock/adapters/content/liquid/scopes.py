"""Which Python name stands for a Liquid name at a place of a template: decided once, when it is compiled.

python-liquid looks a name up at run time: in the loops and includes around it, then among what was
assigned, then among what a `render` passed, then in the data, then among counters. All of these are
known from the source, so the look-up is done while compiling.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from liquid import BoundTemplate, RenderContext
from liquid.ast import Node
from liquid.builtin.expressions.primitive import StringLiteral
from liquid.builtin.tags.for_tag import ForNode
from liquid.builtin.tags.tablerow_tag import TablerowNode


class Value(NamedTuple):
    """A value in generated code: a name or an expression without effects, and what is known of it."""

    code: str
    kind: str = "any"
    """`path`: of a look-up, whose being undefined is not counted yet; `any`; `bool`; `int`; `str`: a
    text that is not marked as HTML; `literal`, with its value."""
    literal: object = None


@dataclass
class Loop:
    """A loop that is being compiled, as `forloop` and `tablerowloop` tell of it."""

    index: str
    """The name of its index from 0."""
    count: str
    """The name of how often it runs."""
    name: str = ""
    parent: "Loop | None" = None
    columns: tuple[str, str, str] | None = None
    """The names of column, row and number of columns, for a table."""
    uses_index: bool = False
    used: bool = False

    def tell(self, key: str, is_for: bool) -> Value | None:
        """Return a property, None if there is none of that name."""
        index, count = self.index, self.count
        self.used = True
        known = {
            "length": Value(count, "int"),
            "index": Value(f"({index} + 1)", "int"),
            "index0": Value(index, "int"),
            "rindex": Value(f"({count} - {index})", "int"),
            "rindex0": Value(f"({count} - {index} - 1)", "int"),
            "first": Value(f"({index} == 0)", "bool"),
            "last": Value(f"({index} == {count} - 1)", "bool"),
        }
        if is_for:
            known["name"] = Value(repr(self.name), "str")
        if self.columns is not None:
            column, row, columns = self.columns
            known |= {
                "col": Value(column, "int"),
                "col0": Value(f"({column} - 1)", "int"),
                "col_first": Value(f"({column} == 1)", "bool"),
                "col_last": Value(f"({column} == {columns})", "bool"),
                "row": Value(row, "int"),
            }
        self.uses_index = self.uses_index or (key in known and key not in {"length", "name"})
        return known.get(key)


Frame = dict[str, "Value | Loop"]


@dataclass
class Context:
    """What python-liquid keeps in one render context: a template and all that it includes."""

    isolated: bool = False
    """It is of a `render`: it may not include, and each node costs twice."""
    frames: list[Frame] = field(default_factory=list)
    """Loops and includes, the innermost last."""
    arguments: list[Frame] = field(default_factory=list)
    """What `render` tags passed, the innermost first."""
    depth: int = 0
    """Of renders within renders."""
    assigned: dict[str, str] = field(default_factory=dict)
    """Name -> the Python name of its value."""
    counters: dict[str, str] = field(default_factory=dict)
    kept: str = "0"
    """The name of how many bytes its variables hold."""
    cycles: str = ""
    stops: str = ""
    changed: str = ""

    @property
    def node_units(self) -> int:
        """Return what rendering one node costs: it asks for the tags that are not allowed."""
        return 2 if self.isolated else 1

    def scope_size(self) -> int:
        """Return how many namespaces python-liquid would search here."""
        return 4 + len(self.frames)


def walk(nodes: list[Node], template: BoundTemplate) -> Iterator[Node]:
    """Yield nodes and all within them, in no order; not those of other templates."""
    context = RenderContext(template)
    waiting = list(nodes)
    while waiting:
        node = waiting.pop()
        yield node
        waiting.extend(node.children(context, include_partials=False))


def continues(node: Node) -> bool:
    """Return whether a loop goes on where one before it ended."""
    if not isinstance(node, ForNode | TablerowNode):
        return False
    offset = node.expression.offset
    return isinstance(offset, StringLiteral) and offset.value == "continue"
