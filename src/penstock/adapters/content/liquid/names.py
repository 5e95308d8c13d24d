"""Names in a template that its data never have: found without rendering, in every branch of it."""

from __future__ import annotations

import difflib
from collections import ChainMap
from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

from liquid import RenderContext
from liquid.ast import Node
from liquid.builtin.expressions import FilteredExpression, LoopExpression, Path
from liquid.builtin.tags.assign_tag import AssignNode
from liquid.builtin.tags.include_tag import IncludeNode
from liquid.builtin.tags.render_tag import RenderNode
from liquid.expression import Expression
from liquid.token import Token

from penstock.adapters.content.liquid.templates import (
    MeteredTemplate,
    TemplateEnvironment,
    canonical,
)

ANY: Final = None
"""The shape of a value of which nothing is known, or that has no names inside."""


class Each(NamedTuple):
    """The shape of a list."""

    of: Any


Shape = Mapping[str, Any] | Each | None
"""What data look like: the names of a mapping with their shapes, a list, or `ANY`."""

PARTIALS_DEPTH: Final = 8
_OF_ALL: Final = ("forloop", "tablerowloop", "now", "today", "partial", "empty", "blank")
_OF_LISTS: Final = frozenset({"first", "last", "size"})
_KEEPS_THE_LIST: Final = frozenset(
    {"reverse", "sort", "sort_natural", "where", "reject", "uniq", "compact", "slice", "concat"}
)
_TAKES_ONE: Final = frozenset({"first", "last", "find"})


class Misnamed(NamedTuple):
    """A name that a template uses and its data never have."""

    name: str
    """As written, such as `slots.heroo`."""
    where: str
    """File and line."""
    near: str
    """The name that may be meant; empty if none is like it."""


def misnamed(
    environment: TemplateEnvironment, template: MeteredTemplate, shape: Mapping[str, Shape]
) -> list[Misnamed]:
    """Return the names in a template, and in those it includes, that data of a shape do not have.

    Args:
        environment: Where the templates that it includes are.
        template: The template.
        shape: What it is given, by name.
    """
    search = _Search(environment)
    search.template(template, dict(shape), 0)
    return sorted(search.found)


def uses(environment: TemplateEnvironment, template: MeteredTemplate, name: str) -> bool:
    """Return whether a template, or one that it includes, shows or tests a name of its data."""
    search = _Search(environment)
    search.template(template, {}, 0)
    return name in search.roots


class _Search:
    """Follows a template as it would be rendered, with shapes in the place of values."""

    def __init__(self, environment: TemplateEnvironment) -> None:
        self.environment = environment
        self.found: set[Misnamed] = set()
        self.roots: set[str] = set()

    def template(self, template: MeteredTemplate, given: dict[str, Any], depth: int) -> None:
        """Look through a template."""
        outer = {**dict.fromkeys(_OF_ALL, ANY), **given}
        # What is assigned further down, in a loop, may be read further up.
        later = {name: ANY for name in _assigned(template, template.nodes) if name not in outer}
        scope: ChainMap[str, Any] = ChainMap(later, outer)
        self._nodes(template, template.nodes, scope, depth)

    def _nodes(
        self, template: MeteredTemplate, nodes: Any, scope: ChainMap[str, Any], depth: int
    ) -> None:
        context = RenderContext(template)
        for node in nodes:
            for expression in node.expressions():
                self._check(expression, scope)
            inside = scope
            if isinstance(node, AssignNode):
                self._assign(str(node.name), self._shape(node.expression, scope), scope)
            elif isinstance(node, RenderNode | IncludeNode):
                self._partial(node, scope, depth)
                continue
            else:
                for name in node.template_scope():
                    scope.maps[-2][str(name)] = ANY
                inside = scope.new_child(self._of_block(node, scope))
                # Assignments go to the template's own names, whatever block they are in.
                inside.maps = [inside.maps[0], *scope.maps]
            self._nodes(template, node.children(context, include_partials=False), inside, depth)

    def _assign(self, name: str, shape: Any, scope: ChainMap[str, Any]) -> None:
        """Give a name a shape, in the whole template: an assignment outlives the block that it is in."""
        assigned = scope.maps[-2]
        before = assigned.get(name)
        # Assigned in two branches it may be either.
        assigned[name] = shape if before is None or before == shape else ANY

    def _of_block(self, node: Node, scope: ChainMap[str, Any]) -> dict[str, Any]:
        names: dict[str, Any] = dict.fromkeys(map(str, node.block_scope()), ANY)
        loop = next((one for one in node.expressions() if isinstance(one, LoopExpression)), None)
        if loop is not None:
            looped = self._shape(loop.iterable, scope)
            names[str(loop.identifier)] = looped.of if isinstance(looped, Each) else ANY
        return names

    def _partial(
        self, node: RenderNode | IncludeNode, scope: ChainMap[str, Any], depth: int
    ) -> None:
        for one in (node.var, *(argument.value for argument in node.args)):
            if one is not None:
                self._check(one, scope)
        name = getattr(node.name, "value", None)
        partial = self.environment.table.get(canonical(name)) if isinstance(name, str) else None
        if partial is None or not isinstance(name, str) or depth >= PARTIALS_DEPTH:
            return
        # Both see the names of the data; of those made on the way only `include` does.
        given = dict(scope) if isinstance(node, IncludeNode) else dict(scope.maps[-1])
        given |= {str(argument.name): self._shape(argument.value, scope) for argument in node.args}
        if node.var is not None:
            shape = self._shape(node.var, scope)
            looped = isinstance(shape, Each) and (isinstance(node, IncludeNode) or node.loop)
            alias = str(node.alias or name.rsplit("/", 1)[-1].split(".")[0])
            given[alias] = shape.of if isinstance(shape, Each) and looped else shape
        self.template(partial, given, depth + 1)

    def _shape(self, expression: Any, scope: ChainMap[str, Any]) -> Any:
        """Return the shape of what an expression gives."""
        if isinstance(expression, Path):
            return self._follow(expression, scope)[0]
        if not isinstance(expression, FilteredExpression):
            return ANY
        shape = self._shape(expression.left, scope)
        for one in expression.filters or ():
            if one.name in _TAKES_ONE and isinstance(shape, Each):
                shape = shape.of
            elif one.name not in _KEEPS_THE_LIST:
                return ANY
        return shape

    def _check(self, expression: Expression, scope: ChainMap[str, Any]) -> None:
        for path in _paths(expression):
            root = path.path[0]
            if isinstance(root, str):
                self.roots.add(root)
            _, wrong = self._follow(path, scope)
            if wrong is not None:
                length, known = wrong
                near = difflib.get_close_matches(str(path.path[length - 1]), sorted(known), 1)
                written = str(Path(path.token, list(path.path[:length])))
                meant = str(Path(path.token, [*path.path[: length - 1], near[0]])) if near else ""
                self.found.add(Misnamed(written, _place_of(path.token, self.environment), meant))

    def _follow(
        self, path: Path, scope: ChainMap[str, Any]
    ) -> tuple[Any, tuple[int, list[str]] | None]:
        """Return what a path leads to, and up to where it is wrong with what is known there."""
        shape: Any = scope
        for place, segment in enumerate(path.path):
            if isinstance(shape, Each):
                if isinstance(segment, str) and segment not in _OF_LISTS:
                    return ANY, (place + 1, sorted(_OF_LISTS))
                shape = ANY if segment == "size" else shape.of
            elif isinstance(shape, Mapping):
                if not isinstance(segment, str):
                    return ANY, None
                if segment not in shape:
                    if place and segment in _OF_LISTS:
                        return ANY, None
                    return ANY, (place + 1, list(shape))
                shape = shape[segment]
            else:
                return ANY, None
        return shape, None


def _assigned(template: MeteredTemplate, nodes: Any) -> Iterator[str]:
    context = RenderContext(template)
    for node in nodes:
        yield from map(str, node.template_scope())
        yield from _assigned(template, node.children(context, include_partials=False))


def _paths(expression: Any) -> Iterator[Path]:
    if isinstance(expression, Path):
        yield expression
    for child in expression.children():
        yield from _paths(child)


def _place_of(token: Token, environment: TemplateEnvironment) -> str:
    origin = environment.origins.get(token.source)
    return f"{origin.file}:{origin.line(token.start_index)}" if origin is not None else ""
