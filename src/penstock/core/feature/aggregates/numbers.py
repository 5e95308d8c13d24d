"""Aggregates of numbers: count, sum, min, max, mean, variance; integers only, money per currency."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final

from penstock.core.feature import caps
from penstock.core.feature.algebra import (
    NUMBERS,
    ORDERED,
    SCALARS,
    Adder,
    Aggregate,
    ValueType,
    decode_int,
    encode_int,
    register,
    scaled,
)

CURRENCIES_MAX: Final = 16
"""Currencies kept in one tile; sums in further ones are left out and the feature says so."""


@register
@dataclass(frozen=True)
class Count(Aggregate):
    """How many events; with a value, how many in which it is known."""

    name: ClassVar[str] = "count"
    takes: ClassVar[frozenset[str]] = SCALARS
    value: ClassVar[str] = "optional"
    moves: ClassVar[bool] = False

    @classmethod
    def variants(cls) -> tuple[tuple[Aggregate, ValueType | None], ...]:
        """Return the one there is."""
        return ((cls(), None),)

    def inline(self) -> tuple[str, str]:
        """Return `add` as expressions."""
        return ("1", "acc + 1")

    def add(self, acc: int | None, value: Any, at_ms: int, event_id: int) -> int:
        """Count one more."""
        del value, at_ms, event_id
        return (acc or 0) + 1

    def merge(self, one: int, other: int) -> int:
        """Add."""
        return one + other

    def join(self, accs: Sequence[int]) -> int:
        """Add."""
        return sum(accs)

    def finish(self, acc: int | None, as_of_ms: int) -> int:
        """Return the count; of nothing it is 0."""
        del as_of_ms
        return acc or 0


@dataclass(frozen=True)
class NumberAggregate(Aggregate):
    """What the aggregates of integers share: one accumulator, or one per currency for money."""

    money: bool = False
    scale: int | None = None

    takes: ClassVar[frozenset[str]] = NUMBERS
    value: ClassVar[str] = "required"
    moves: ClassVar[bool] = False
    charge_bytes: ClassVar[int] = 14

    @classmethod
    def bind(cls, value_type: ValueType | None, params: dict[str, Any]) -> Aggregate:
        """Return the aggregate of a number or of money."""
        assert value_type is not None, "the plan checks that there is a value"
        if params:
            raise TypeError(f"`{next(iter(params))}`")
        return cls(money=value_type.kind == "money", scale=value_type.scale)

    @classmethod
    def variants(cls) -> tuple[tuple[Aggregate, ValueType | None], ...]:
        """Return it for an integer, a decimal and money."""
        types = (ValueType("integer"), ValueType("decimal", 3), ValueType("money"))
        return tuple((cls.bind(value_type, {}), value_type) for value_type in types)

    def _next(self, acc: Any, number: int) -> Any:
        raise NotImplementedError

    def _both(self, one: Any, other: Any) -> Any:
        raise NotImplementedError

    def _show(self, acc: Any) -> Any:
        raise NotImplementedError

    def _encode(self, acc: Any) -> Any:
        return encode_int(acc)

    def _decode(self, raw: Any) -> Any:
        return decode_int(raw)

    def _join_or_copy(self, one: Any, other: Any) -> Any:
        return other if one is None else self._both(one, other)

    def add(self, acc: Any, value: Any, at_ms: int, event_id: int) -> Any:
        """Return the accumulator with one more number, or amount and currency."""
        del at_ms, event_id
        if not self.money:
            return self._next(acc, value)
        number, currency = value
        if acc is None:
            return {currency: self._next(None, number)}
        if currency in acc or caps.admits(acc, currency, CURRENCIES_MAX):
            acc[currency] = self._next(acc.get(currency), number)
        return acc

    def adder(self) -> Adder:
        """Return `add` of money without the question whether it is."""
        following = self._next

        def add_money(acc: Any, value: Any, at_ms: int, event_id: int) -> Any:
            del at_ms, event_id
            number, currency = value
            if acc is None:
                return {currency: following(None, number)}
            standing = acc.get(currency)
            if standing is not None or caps.admits(acc, currency, CURRENCIES_MAX):
                acc[currency] = following(standing, number)
            return acc

        return add_money if self.money else self.add

    def merge(self, one: Any, other: Any) -> Any:
        """Return both, per currency for money."""
        if self.money:
            return caps.merged((one, other), self._join_or_copy, CURRENCIES_MAX)
        return self._both(one, other)

    def join(self, accs: Sequence[Any]) -> Any:
        """Return all, per currency for money."""
        if self.money:
            return caps.merged(accs, self._join_or_copy, None)
        return super().join(accs)

    def copy(self, acc: Any) -> Any:
        """Return a copy."""
        return dict(acc) if self.money else acc

    def finish(self, acc: Any, as_of_ms: int) -> Any:
        """Return the number, or minor units per currency, ascending by its code."""
        del as_of_ms
        if not self.money:
            return self._show(acc)
        kept = sorted(currency for currency in acc or () if currency is not caps.TRUNCATED)
        return {currency: self._show(acc[currency]) for currency in kept}

    def truncated(self, acc: Any) -> bool:
        """Return whether there were more currencies than are kept."""
        return self.money and caps.TRUNCATED in acc

    def encode(self, acc: Any) -> Any:
        """Return it with integers beyond 64 bits as text."""
        return caps.encoded(acc, self._encode) if self.money else self._encode(acc)

    def decode(self, raw: Any) -> Any:
        """Return the accumulator of its encoding."""
        return caps.decoded(raw, self._decode) if self.money else self._decode(raw)

    def size_bytes(self, acc: Any) -> int:
        """Return the bytes of a number, with its currency's."""
        return len(acc) * self.charge_bytes if self.money else self.charge_bytes


@register
@dataclass(frozen=True)
class Sum(NumberAggregate):
    """The sum of a number; of money, minor units per currency, never mixed."""

    name: ClassVar[str] = "sum"

    def inline(self) -> tuple[str, str] | None:
        """Return `add` as expressions."""
        return None if self.money else ("value", "acc + value")

    def _next(self, acc: int | None, number: int) -> int:
        return number if acc is None else acc + number

    def _both(self, one: int, other: int) -> int:
        return one + other

    def _show(self, acc: int | None) -> int | float:
        # Money stays in the integer units it is kept in.
        return (acc or 0) if self.money else scaled(acc or 0, self.scale)


@dataclass(frozen=True)
class _Extreme(NumberAggregate):
    takes: ClassVar[frozenset[str]] = ORDERED

    def _show(self, acc: int | None) -> int | float | None:
        return acc if acc is None or self.money else scaled(acc, self.scale)


@register
@dataclass(frozen=True)
class Min(_Extreme):
    """The smallest number or earliest instant; of money, the smallest per currency."""

    name: ClassVar[str] = "min"

    def inline(self) -> tuple[str, str] | None:
        """Return `add` as expressions."""
        return None if self.money else ("value", "value if value < acc else acc")

    def _next(self, acc: int | None, number: int) -> int:
        return number if acc is None or number < acc else acc

    def _both(self, one: int, other: int) -> int:
        return min(one, other)


@register
@dataclass(frozen=True)
class Max(_Extreme):
    """The greatest number or latest instant; of money, the greatest per currency."""

    name: ClassVar[str] = "max"

    def inline(self) -> tuple[str, str] | None:
        """Return `add` as expressions."""
        return None if self.money else ("value", "value if value > acc else acc")

    def _next(self, acc: int | None, number: int) -> int:
        return number if acc is None or number > acc else acc

    def _both(self, one: int, other: int) -> int:
        return max(one, other)


@dataclass(frozen=True)
class _Moments(NumberAggregate):
    """(n, sum, sum of squares): what mean and variance are derived from when read."""

    state: ClassVar[str] = "moments"
    charge_bytes: ClassVar[int] = 33

    def inline(self) -> tuple[str, str] | None:
        """Return `add` as expressions."""
        if self.money:
            return None
        return (
            "(1, value, value * value)",
            "(acc[0] + 1, acc[1] + value, acc[2] + value * value)",
        )

    def _next(self, acc: tuple[int, int, int] | None, number: int) -> tuple[int, int, int]:
        if acc is None:
            return (1, number, number * number)
        return (acc[0] + 1, acc[1] + number, acc[2] + number * number)

    def _both(self, one: tuple[int, int, int], other: tuple[int, int, int]) -> tuple[int, int, int]:
        return (one[0] + other[0], one[1] + other[1], one[2] + other[2])

    def _encode(self, acc: tuple[int, int, int]) -> list[int | str]:
        return [encode_int(number) for number in acc]

    def _decode(self, raw: list[int | str]) -> tuple[int, ...]:
        return tuple(map(decode_int, raw))

    def _divisor(self, n: int, power: int) -> int:
        return n if self.money or not self.scale else n * 10 ** (self.scale * power)


@register
@dataclass(frozen=True)
class Mean(_Moments):
    """The mean of a number, divided once when read; of money, minor units per currency."""

    name: ClassVar[str] = "mean"

    def _show(self, acc: tuple[int, int, int] | None) -> float | None:
        return acc[1] / self._divisor(acc[0], 1) if acc else None


@register
@dataclass(frozen=True)
class Variance(_Moments):
    """The population variance of a number, exact until divided once when read."""

    name: ClassVar[str] = "variance"

    def _show(self, acc: tuple[int, int, int] | None) -> float | None:
        if acc is None:
            return None
        n, total, squares = acc
        return (n * squares - total * total) / self._divisor(n * n, 2)
