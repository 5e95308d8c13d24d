"""Typed predicates over a person and an item: data that can be checked, judged, printed and hashed.

Judging is three-valued. What consent withholds is unknown, and unknown stays unknown under negation,
so a withdrawal can turn an answer only into unknown and never adds anybody or anything. What is
known to be absent is just absent: it equals nothing, is not above 3, and is not in a list.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from typing import Any, Final, NoReturn, cast

import msgspec

from penstock.core.decision.item import Item
from penstock.core.decision.popular import Popular, Ranking
from penstock.core.decision.values import OPERATORS, as_mapping
from penstock.core.errors import DefinitionError
from penstock.core.profile import Profile

PREDICATE_NODES_MAX: Final = 100


class Withheld:
    """The type of `WITHHELD`: a value that exists or not, but may not be known."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "WITHHELD"


WITHHELD: Final = Withheld()


class View(msgspec.Struct, frozen=True, kw_only=True):
    """What a predicate may look at.

    Attributes:
        profile: The person; None makes everything about them unknown.
        item: The item under judgement, where there is one.
        refused_topics: Topics the person will not get email about, from the suppressions; `*` is all.
        popular: What is popular now, by tally; of nobody in particular.
    """

    profile: Profile | None
    item: Item | None = None
    refused_topics: frozenset[str] = frozenset()
    popular: Popular = msgspec.field(default_factory=dict[str, Ranking])


class Names(msgspec.Struct, frozen=True, kw_only=True):
    """The names a project defines, to check definitions against. None means: any name goes."""

    features: frozenset[str] | None = None
    traits: frozenset[str] | None = None
    purposes: frozenset[str] | None = None
    topics: frozenset[str] | None = None
    templates: frozenset[str] | None = None
    events: frozenset[str] | None = None
    slots: frozenset[str] | None = None
    audiences: frozenset[str] | None = None
    caps: frozenset[str] | None = None


class Node(msgspec.Struct, frozen=True, tag_field="is"):
    """A predicate. Combine with `&`, `|` and `~`; Python's `and`, `or`, `not` can't be used."""

    def __and__(self, other: Node | Reference) -> AllOf:
        return AllOf(nodes=(*_parts(AllOf, self), *_parts(AllOf, as_node(other))))

    def __or__(self, other: Node | Reference) -> AnyOf:
        return AnyOf(nodes=(*_parts(AnyOf, self), *_parts(AnyOf, as_node(other))))

    def __invert__(self) -> Node:
        return self.node if isinstance(self, Not) else Not(node=self)

    def __bool__(self) -> NoReturn:  # noqa: PLE0304 - there is no truth value
        _refuse_bool()


class Operand(msgspec.Struct, frozen=True, tag="operand", tag_field="is"):
    """A named value: a `feature` or `trait` of the person, or a field of the `item`."""

    kind: str
    name: str
    key: str = ""
    """One group of a grouping value, or one currency of an amount; empty for the whole."""


class Compare(Node, frozen=True, tag="compare"):
    """One value against a constant or another value."""

    left: Operand
    op: str
    right: Any = None


class Permitted(Node, frozen=True, tag="permitted"):
    """True if the purpose is permitted; otherwise unknown, so that `~` finds nobody by a refusal."""

    purpose: str


class Subscribed(Node, frozen=True, tag="subscribed"):
    """True unless the person has refused the topic."""

    topic: str


class AllOf(Node, frozen=True, tag="all"):
    """True if all parts are; false if one is false; else unknown."""

    nodes: tuple[Node, ...]


class AnyOf(Node, frozen=True, tag="any"):
    """True if one part is; false if all are false; else unknown."""

    nodes: tuple[Node, ...]


class Not(Node, frozen=True, tag="not"):
    """The opposite; unknown stays unknown."""

    node: Node


class Reference:
    """What authors compare: `feature("views_7d") > 3`. Alone it means "present and not empty"."""

    __slots__ = ("operand",)

    def __init__(self, kind: str, name: str, key: str = "") -> None:
        if not name:
            raise DefinitionError("E152", f"a {kind} in a predicate has no name",
                                  fix=f'name it in quotes, such as {kind}("views_7d")')  # fmt: skip
        self.operand = Operand(kind, name, key)

    def _compare(self, op: str, right: object) -> Compare:
        return Compare(left=self.operand, op=op, right=_constant(self.operand, right))

    def __eq__(self, other: object) -> Compare:  # type: ignore[override]
        return self._compare("==", other)

    def __ne__(self, other: object) -> Compare:  # type: ignore[override]
        return self._compare("!=", other)

    def __lt__(self, other: object) -> Compare:
        return self._compare("<", other)

    def __le__(self, other: object) -> Compare:
        return self._compare("<=", other)

    def __gt__(self, other: object) -> Compare:
        return self._compare(">", other)

    def __ge__(self, other: object) -> Compare:
        return self._compare(">=", other)

    __hash__ = None  # type: ignore[assignment]

    def in_(self, *values: object) -> Compare:
        """Return: the value is one of these."""
        return self._compare("in", values)

    def contains(self, value: object) -> Compare:
        """Return: the value is a list, a set of groups or a ranking, and this is in it."""
        return self._compare("contains", value)

    def known(self) -> Compare:
        """Return: there is a value."""
        return Compare(left=self.operand, op="known")

    def __getitem__(self, key: str) -> Reference:
        """Return one group of a grouped feature, or one currency of an amount: `feature("spent")["GBP"]`."""
        return Reference(self.operand.kind, self.operand.name, key)

    def __and__(self, other: Node | Reference) -> AllOf:
        return as_node(self) & other

    def __or__(self, other: Node | Reference) -> AnyOf:
        return as_node(self) | other

    def __invert__(self) -> Node:
        return ~as_node(self)

    def __bool__(self) -> NoReturn:  # noqa: PLE0304 - there is no truth value
        _refuse_bool()


def _refuse_bool() -> NoReturn:
    raise DefinitionError("E152", "a predicate is used as a Python truth value",
                          fix="join predicates with & | ~ and put each comparison in brackets; "
                          "write (3 < x) & (x < 9) for 3 < x < 9")  # fmt: skip


def _parts(kind: type[AllOf | AnyOf], node: Node) -> tuple[Node, ...]:
    return node.nodes if isinstance(node, (AllOf, AnyOf)) and type(node) is kind else (node,)


def _constant(operand: Operand, value: object) -> Any:
    if isinstance(value, Reference):
        return value.operand
    if isinstance(value, (list, tuple)):
        return tuple(_plain(operand, one) for one in cast("Sequence[object]", value))
    return _plain(operand, value)


def _plain(operand: Operand, value: object) -> bool | int | float | str | None:
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise DefinitionError(
        "E152",
        f"{operand.kind} `{operand.name}` is compared with a {type(value).__name__}",
        fix="compare with a number, a text, True, False, None, or another feature or trait",
    )


def as_node(value: object) -> Node:
    """Return a predicate as it is, and a bare reference as "present and not empty".

    Raises:
        DefinitionError: It is neither (E152).
    """
    if isinstance(value, Node):
        return value
    if isinstance(value, Reference):
        return Compare(left=value.operand, op="truthy")
    raise DefinitionError("E152", f"a {type(value).__name__} stands where a predicate is expected",
                          fix='write a predicate, such as feature("views_7d") > 3')  # fmt: skip


# -- judging -----------------------------------------------------------------------------------


def judge(node: Node, view: View) -> bool | None:
    """Return whether a predicate holds; None if it depends on something that may not be known.

    Laws:
        withholding a name turns an answer into None or leaves it; it never turns False into True.
    """
    if isinstance(node, Compare):
        left = value_of(node.left, view)
        right = value_of(node.right, view) if isinstance(node.right, Operand) else node.right
        if left is WITHHELD or right is WITHHELD:
            return None
        return OPERATORS[node.op](left, right)
    if isinstance(node, AllOf):
        return _all(judge(part, view) for part in node.nodes)
    if isinstance(node, AnyOf):
        none_holds = _all(_negated(judge(part, view)) for part in node.nodes)
        return _negated(none_holds)
    if isinstance(node, Not):
        return _negated(judge(node.node, view))
    if isinstance(node, Permitted):
        return True if view.profile is not None and node.purpose in view.profile.permitted else None
    assert isinstance(node, Subscribed), f"a node of a kind unknown to judge: {type(node).__name__}"
    return None if {node.topic, "*"} & view.refused_topics else True


def _negated(answer: bool | None) -> bool | None:
    return None if answer is None else not answer


def _all(answers: Iterator[bool | None]) -> bool | None:
    result: bool | None = True
    for answer in answers:
        if answer is False:
            return False
        if answer is None:
            result = None
    return result


def value_of(operand: Operand, view: View) -> Any:
    """Return the value an operand names: None if there is none, `WITHHELD` if it may not be known."""
    if operand.kind == "item":
        value = view.item.fields.get(operand.name) if view.item is not None else None
    else:
        profile = view.profile
        if profile is None:
            return WITHHELD
        source = profile.features if operand.kind == "feature" else profile.traits
        value = source.get(operand.name)
        if value is None and operand.name not in source and operand.name in profile.withheld:
            return WITHHELD
    if not operand.key:
        return value
    groups = as_mapping(value)
    return groups.get(operand.key) if groups is not None else None


# -- checking and printing ---------------------------------------------------------------------


def walk(node: Node) -> Iterator[Node]:
    """Yield a predicate and all its parts, outermost first."""
    yield node
    inner = (
        node.nodes
        if isinstance(node, (AllOf, AnyOf))
        else (node.node,)
        if isinstance(node, Not)
        else ()
    )
    for part in inner:
        yield from walk(part)


def operands(node: Node) -> list[Operand]:
    """Return every operand that a predicate reads, in order of appearance, once each."""
    found: dict[Operand, None] = {}
    for part in walk(node):
        if isinstance(part, Compare):
            for side in (part.left, part.right):
                if isinstance(side, Operand):
                    found[side] = None
    return list(found)


def about_person(node: Node) -> bool:
    """Return whether a predicate reads anything of the person, rather than of the item alone."""
    return any(
        isinstance(part, (Permitted, Subscribed))
        or (isinstance(part, Compare) and any(side.kind != "item" for side in operands(part)))
        for part in walk(node)
    )


def check_predicate(
    node: Node, names: Names, *, owner: str, where: str = "", items: bool = False
) -> None:
    """Check that every name in a predicate is defined.

    Args:
        node: The predicate.
        names: What the project defines.
        owner: Whose it is, such as "slot `hero`".
        where: File and line of the owner.
        items: Whether there is an item to read fields of.

    Raises:
        DefinitionError: E150 a feature, E151 a trait, E157 a purpose or E162 a topic is not defined;
            E152 a field of an item is read where there is no item, or the predicate is too large.
    """
    if sum(1 for _ in walk(node)) > PREDICATE_NODES_MAX:
        raise DefinitionError("E152", f"{owner} has a predicate of more than {PREDICATE_NODES_MAX} parts",
                              fix="compute part of it as a feature, or use in_(...)", where=where)  # fmt: skip
    for operand in operands(node):
        if operand.kind == "feature":
            check_feature(operand.name, names, owner=owner, where=where)
        elif operand.kind == "trait":
            check_trait(operand.name, names, owner=owner, where=where)
        elif not items:
            raise DefinitionError("E152", f"{owner} reads item field `{operand.name}` where there is no item",
                                  fix="use item(...) in unless= of a slot only", where=where)  # fmt: skip
    for part in walk(node):
        if isinstance(part, Permitted):
            check_purpose(part.purpose, names, owner=owner, where=where)
        elif isinstance(part, Subscribed):
            check_topic(part.topic, names, owner=owner, where=where)


def check_feature(name: str, names: Names, *, owner: str, where: str = "") -> None:
    """Raise E150 unless the feature is defined."""
    if names.features is not None and name not in names.features:
        raise DefinitionError("E150", f"{owner} names feature `{name}`, which is not defined", where=where,
                              fix=f"define it in features.py{nearest(name, names.features)}")  # fmt: skip


def check_trait(name: str, names: Names, *, owner: str, where: str = "") -> None:
    """Raise E151 unless the trait is declared."""
    if names.traits is not None and name not in names.traits:
        raise DefinitionError("E151", f"{owner} names trait `{name}`, which is not declared", where=where,
                              fix=f"declare it in events.py{nearest(name, names.traits)}")  # fmt: skip


def check_purpose(name: str, names: Names, *, owner: str, where: str = "") -> None:
    """Raise E157 unless the purpose exists."""
    if names.purposes is not None and name not in names.purposes:
        raise DefinitionError("E157", f"{owner} names purpose `{name}`, which does not exist", where=where,
                              fix=f"add it to `consent.purposes` in penstock.toml{nearest(name, names.purposes)}")  # fmt: skip


def check_topic(name: str, names: Names, *, owner: str, where: str = "") -> None:
    """Raise E162 unless the topic exists."""
    if names.topics is not None and name not in names.topics:
        raise DefinitionError("E162", f"{owner} names topic `{name}`, which does not exist", where=where,
                              fix=f"add it to penstock.toml{nearest(name, names.topics)}")  # fmt: skip


def nearest(name: str, known: frozenset[str]) -> str:
    """Return ", or did you mean `…`?" for the known name nearest to a name, or nothing."""
    close = get_close_matches(name, sorted(known), n=1)
    return f", or did you mean `{close[0]}`?" if close else ""


def describe(node: Node) -> str:
    """Return a predicate as text, such as `views_7d > 3 and not plan == 'pro'`."""
    if isinstance(node, Compare):
        left = _named(node.left)
        if node.op in ("known", "truthy"):
            return left if node.op == "truthy" else f"{left} is known"
        right = _named(node.right) if isinstance(node.right, Operand) else repr(node.right)
        return f"{left} {node.op} {right}"
    if isinstance(node, (AllOf, AnyOf)):
        word = " and " if isinstance(node, AllOf) else " or "
        return word.join(
            f"({describe(p)})" if isinstance(p, (AllOf, AnyOf)) else describe(p) for p in node.nodes
        )
    if isinstance(node, Not):
        return f"not ({describe(node.node)})"
    if isinstance(node, Permitted):
        return f"{node.purpose} permitted"
    assert isinstance(node, Subscribed), (
        f"a node of a kind unknown to describe: {type(node).__name__}"
    )
    return f"topic {node.topic} not refused"


def _named(operand: Operand) -> str:
    return f"{operand.kind} {operand.name}" + (f"[{operand.key}]" if operand.key else "")
