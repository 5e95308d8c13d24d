"""The shapes that feature and trait values come in, and how predicates compare them."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, cast


def as_mapping(value: Any) -> Mapping[str, Any] | None:
    """Return a grouping value or an amount by currency as a mapping; None if it is something else."""
    return cast("Mapping[str, Any]", value) if isinstance(value, dict) else None


def as_sequence(value: Any) -> Sequence[Any] | None:
    """Return a list as a sequence; None if it is something else."""
    return cast("Sequence[Any]", value) if isinstance(value, (list, tuple)) else None


def members(value: Any) -> list[str]:
    """Return the members of a list, ranking or grouping value as texts, the best or newest first.

    Accepts what features finish to: a list of values, a list of `{"value": …}` or of [value, number]
    pairs, a mapping of group to number (greatest number first, ties by name), or one value.
    """
    if isinstance(value, (str, int)):
        return [str(value)]
    groups = as_mapping(value)
    if groups is not None:
        ordered = sorted(groups, key=lambda name: (-_weight(groups[name]), name))
        return [str(name) for name in ordered]
    found = map(_member, as_sequence(value) or ())
    return [str(one) for one in found if one is not None]


def _member(entry: Any) -> Any:
    named = as_mapping(entry)
    if named is not None:
        return named.get("value")
    pair = as_sequence(entry)
    return pair[0] if pair else entry


def _weight(value: Any) -> float:
    """Return a group's number; an amount of one currency counts as its minor units."""
    if isinstance(value, (int, float)):
        return value
    amount = as_mapping(value)
    return _weight(next(iter(amount.values()))) if amount is not None and len(amount) == 1 else 0


def _comparable(left: Any, right: Any) -> tuple[Any, Any] | None:
    """Return two values that Python orders: numbers, texts, or amounts of one currency."""
    number = (int, float)
    if isinstance(left, bool) or isinstance(right, bool):
        return None
    if isinstance(left, number) and isinstance(right, number):
        return left, right
    if isinstance(left, str) and isinstance(right, str):
        return left, right
    one, other = _money(left), _money(right)
    return (one[0], other[0]) if one and other and one[1] == other[1] else None


def _money(value: Any) -> tuple[int, str] | None:
    pair = as_sequence(value)
    if (
        pair is None
        or len(pair) != 2
        or not isinstance(pair[0], int)
        or not isinstance(pair[1], str)
    ):
        return None
    return pair[0], pair[1]


def _equal(left: Any, right: Any) -> bool:
    if isinstance(left, bool) is not isinstance(right, bool):
        return False
    one, other = as_sequence(left), as_sequence(right)
    return list(one) == list(other) if one is not None and other is not None else left == right


def _unequal(left: Any, right: Any) -> bool:
    return not _equal(left, right)


def _less(left: Any, right: Any) -> bool:
    pair = _comparable(left, right)
    return pair is not None and pair[0] < pair[1]


def _at_most(left: Any, right: Any) -> bool:
    pair = _comparable(left, right)
    return pair is not None and pair[0] <= pair[1]


def _more(left: Any, right: Any) -> bool:
    return _less(right, left)


def _at_least(left: Any, right: Any) -> bool:
    return _at_most(right, left)


def _one_of(left: Any, right: Any) -> bool:
    groups = as_mapping(right)
    if groups is not None:
        return left is not None and str(left) in groups
    return any(_equal(left, one) for one in as_sequence(right) or ())


def _contains(left: Any, right: Any) -> bool:
    if isinstance(left, str):
        return isinstance(right, str) and right in left
    return str(right) in members(left)


def _known(left: Any, right: Any) -> bool:
    del right
    return left is not None


def _truthy(left: Any, right: Any) -> bool:
    del right
    return bool(left)


OPERATORS: Final[Mapping[str, Callable[[Any, Any], bool]]] = {
    "==": _equal,
    "!=": _unequal,
    "<": _less,
    "<=": _at_most,
    ">": _more,
    ">=": _at_least,
    "in": _one_of,
    "contains": _contains,
    "known": _known,
    "truthy": _truthy,
}
"""How two values compare. What is absent or of another type is not above, below or in anything."""
