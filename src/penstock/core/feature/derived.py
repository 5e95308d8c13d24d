"""Features derived from other features when read: ratio, sequence. They keep no state."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final, cast


def _ratio(numerator: Any, denominator: Any) -> Any:
    """One feature divided by another, once; None where there is nothing to divide by.

    Two dicts (groups, currencies) divide key by key; a dict by a number, each of its values.
    """
    if isinstance(numerator, dict):
        parts = cast("dict[Any, Any]", numerator)
        if isinstance(denominator, dict):
            whole = cast("dict[Any, Any]", denominator)
            return {key: _ratio(part, whole.get(key)) for key, part in parts.items()}
        return {key: _ratio(part, denominator) for key, part in parts.items()}
    if numerator is None or not denominator or isinstance(denominator, dict):
        return None
    return numerator / denominator


def _sequence(first: Any, then: Any, within_ms: int) -> Any:
    """How many events followed another within a time, from the instants that are kept of both.

    Each counts once, if one of the first came before it by at most `within`. When there were more
    instants than are kept, the feature says truncated. Grouped alike, it is counted per group.
    """
    if isinstance(then, dict):
        groups = cast("dict[Any, Any]", then)
        if isinstance(first, dict):
            mine = cast("dict[Any, Any]", first)
            return {key: _sequence(mine[key], one, within_ms) for key, one in groups.items() if key in mine}  # fmt: skip
        return {key: _sequence(first, one, within_ms) for key, one in groups.items()}
    if isinstance(first, dict):
        any_group = cast("dict[Any, list[int]]", first)
        first = sorted(at_ms for one in any_group.values() for at_ms in one)
    count = place = 0
    starts = cast("list[int]", first)
    for at_ms in cast("list[int]", then):
        # The last start before it decides: an earlier one is further away.
        while place < len(starts) and starts[place] < at_ms:
            place += 1
        count += place > 0 and at_ms - starts[place - 1] <= within_ms
    return count


DERIVED: Final[dict[str, Callable[..., Any]]] = {"ratio": _ratio, "sequence": _sequence}
"""Name -> the function of its parts' values, and its parameters. It accepts what parts have as
values, which may be None."""


def derivation(name: str, params: Mapping[str, Any]) -> tuple[str, Callable[..., Any]]:
    """Return a derived feature's canonical name, and the function of its parts' values."""
    if not params:
        return name, DERIVED[name]
    text = ",".join(f"{key}={params[key]}" for key in sorted(params))
    return f"{name}({text})", partial(DERIVED[name], **params)
