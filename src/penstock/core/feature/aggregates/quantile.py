"""The aggregate of quantiles: a histogram whose buckets are fixed, so that merging is adding."""

from dataclasses import dataclass
from typing import Any, ClassVar, Final

from penstock.core.feature import caps
from penstock.core.feature.aggregates.numbers import (
    NumberAggregate,
)
from penstock.core.feature.algebra import (
    Aggregate,
    ValueType,
    in_range,
    register,
    scaled,
)

SUB_BITS: Final = 5
"""Each power of two is divided into 2^5 buckets of one width."""

RELATIVE_ERROR: Final = 1 / (2 << SUB_BITS)
"""What is shown is off by at most this share of the value: 1/64, 1.6 %; below 64 it is exact."""

GREATEST: Final = (1 << 63) - 1
"""Numbers beyond it count as it."""

_LINEAR: Final = 2 << SUB_BITS
_BUCKET_BYTES: Final = 12


def bucket(number: int) -> int:
    """Return the bucket of a number: itself below 64, then 32 to a power of two; mirrored below 0."""
    if number < 0:
        return -bucket(-number)
    if number < _LINEAR:
        return number
    number = min(number, GREATEST)
    up = number.bit_length() - SUB_BITS - 1
    return (up << SUB_BITS) + (number >> up)


def middle(index: int) -> int:
    """Return the number that is shown for a bucket: its middle, rounded down; mirrored below 0."""
    if index < 0:
        return -middle(-index)
    if index < _LINEAR:
        return index
    up = (index >> SUB_BITS) - 1
    return ((index - (up << SUB_BITS)) << up) + ((1 << up) - 1 >> 1)


@register
@dataclass(frozen=True)
class Quantile(NumberAggregate):
    """The number that `percent` of all are at or below; of money, per currency; None of nothing.

    A histogram of fixed buckets, 32 to a power of two: what is shown is within 1/64 (1.6 %) of
    the number at that rank, and exact below 64 units of the value's last digit. Quantiles of one
    value share one histogram.
    """

    percent: int = 50

    name: ClassVar[str] = "quantile"
    state: ClassVar[str] = "histogram"
    charge_bytes: ClassVar[int] = 2 * _BUCKET_BYTES

    @classmethod
    def bind(cls, value_type: ValueType | None, params: dict[str, Any]) -> Aggregate:
        """Return the histogram of a number or of money, read at a percentage."""
        assert value_type is not None, "the plan checks that there is a value"
        percent = params.get("percent", 50)
        in_range("percent", percent, 1, 99)
        if params.keys() - {"percent"}:
            raise TypeError("`percent` is the only parameter")
        return cls(value_type.kind == "money", value_type.scale, percent)

    @classmethod
    def variants(cls) -> tuple[tuple[Aggregate, ValueType | None], ...]:
        """Return the median and a tail, of an integer, a decimal and money."""
        types = (ValueType("integer"), ValueType("decimal", 3), ValueType("money"))
        return tuple((cls.bind(value_type, {"percent": percent}), value_type)
                     for value_type, percent in zip(types, (50, 1, 95), strict=True))  # fmt: skip

    def params(self) -> dict[str, Any]:
        """Return what decides the state; the percentage only decides the view."""
        return {"money": self.money, "scale": self.scale}

    def view(self) -> str:
        """Return the name with the percentage."""
        return f"{self.name}:{self.percent}"

    def _next(self, acc: dict[int, int] | None, number: int) -> dict[int, int]:
        index = bucket(number)
        if acc is None:
            return {index: 1}
        acc[index] = acc.get(index, 0) + 1
        return acc

    def _both(self, one: dict[int, int], other: dict[int, int]) -> dict[int, int]:
        both = dict(one)
        for index, count in other.items():
            both[index] = both.get(index, 0) + count
        return both

    def _join_or_copy(self, one: Any, other: Any) -> Any:
        return dict(other) if one is None else self._both(one, other)

    def _show(self, acc: dict[int, int] | None) -> int | float | None:
        if not acc:
            return None
        # The nearest rank: the smallest number that at least `percent` of all do not exceed.
        rank = -(-self.percent * sum(acc.values()) // 100)
        for index in sorted(acc):
            rank -= acc[index]
            if rank <= 0:
                number = middle(index)
                return number if self.money else scaled(number, self.scale)
        raise AssertionError("a rank is at most the number of all")

    def _encode(self, acc: dict[int, int]) -> list[int]:
        return [part for index in sorted(acc) for part in (index, acc[index])]

    def _decode(self, raw: list[int]) -> dict[int, int]:
        return {raw[i]: raw[i + 1] for i in range(0, len(raw), 2)}

    def copy(self, acc: Any) -> Any:
        """Return a copy."""
        if not self.money:
            return dict(acc)
        return {key: one if key is caps.TRUNCATED else dict(one) for key, one in acc.items()}

    def size_bytes(self, acc: Any) -> int:
        """Return the bytes of buckets, with those of currencies."""
        if not self.money:
            return _BUCKET_BYTES * len(acc)
        return sum(
            _BUCKET_BYTES * (1 + len(one)) for key, one in acc.items() if key is not caps.TRUNCATED
        )
