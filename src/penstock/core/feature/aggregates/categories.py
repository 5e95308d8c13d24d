"""The aggregate of favourites: the top k of a category, exact for the values that are kept."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final, cast

from penstock.core.feature import caps
from penstock.core.feature.algebra import KEYS, Aggregate, ValueType, in_range, register

K_MAX: Final = 50
CATEGORIES_MAX: Final = 1_000


@register
@dataclass(frozen=True)
class TopK(Aggregate):
    """The k most frequent values with their counts, exact for the values kept.

    Per tile at most `cap` values are kept, those whose keyed hash is smallest; the feature says
    truncated when there were more. Equal counts are ordered by value.
    """

    k: int = 3
    cap: int = 100

    name: ClassVar[str] = "top_k"
    takes: ClassVar[frozenset[str]] = KEYS
    value: ClassVar[str] = "required"
    moves: ClassVar[bool] = False
    keeps_value: ClassVar[bool] = True
    charge_bytes: ClassVar[int] = 12

    @classmethod
    def bind(cls, value_type: ValueType | None, params: dict[str, Any]) -> Aggregate:
        """Return the list of `k`, from at most `cap` values a tile."""
        del value_type
        in_range("k", params.get("k", 3), 1, K_MAX)
        in_range("cap", params.get("cap", 100), 1, CATEGORIES_MAX)
        return cls(**params)

    @classmethod
    def variants(cls) -> tuple[tuple[Aggregate, ValueType | None], ...]:
        """Return tight and wide caps."""
        text = ValueType("string")
        return ((cls(k=2, cap=3), text), (cls(), text), (cls(cap=2), ValueType("integer")))

    def add(self, acc: caps.CapMap | None, value: Any, at_ms: int, event_id: int) -> caps.CapMap:
        """Count one more of a value, if it is kept."""
        del at_ms, event_id
        if acc is None:
            return {value: 1}
        count = acc.get(value)
        if count is not None:
            acc[value] = count + 1
        elif caps.admits(acc, value, self.cap):
            acc[value] = 1
        return acc

    def merge(self, one: caps.CapMap, other: caps.CapMap) -> caps.CapMap:
        """Add per value, and cap."""
        return caps.merged((one, other), _add, self.cap)

    def join(self, accs: Sequence[caps.CapMap]) -> caps.CapMap:
        """Add per value."""
        return caps.merged(accs, _add, None)

    def copy(self, acc: caps.CapMap) -> caps.CapMap:
        """Return a copy."""
        return dict(acc)

    def finish(self, acc: caps.CapMap | None, as_of_ms: int) -> list[dict[str, Any]]:
        """Return `[{"value": …, "count": …}, …]`, the most frequent first."""
        del as_of_ms
        counts = [(-n, value) for value, n in (acc or {}).items() if value is not caps.TRUNCATED]
        return [{"value": value, "count": -n} for n, value in sorted(counts)[: self.k]]

    def truncated(self, acc: caps.CapMap) -> bool:
        """Return whether there were more values than are kept."""
        return caps.TRUNCATED in acc

    def encode(self, acc: caps.CapMap) -> list[Any]:
        """Return values and counts, values ascending."""
        return caps.encoded(acc, None)

    def decode(self, raw: list[Any]) -> caps.CapMap:
        """Return the counts of their encoding."""
        return caps.decoded(raw, int)

    def size_bytes(self, acc: caps.CapMap) -> int:
        """Return the bytes of values and counts."""
        try:
            texts = sum(map(len, cast("dict[str, int]", acc)))  # nearly always: a sixth of the time
        except TypeError:
            texts = sum(len(value) for value in acc if isinstance(value, str))
        return self.charge_bytes * len(acc) + texts


def _add(one: int | None, other: int) -> int:
    return other if one is None else one + other
