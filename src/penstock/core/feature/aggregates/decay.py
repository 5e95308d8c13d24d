"""Aggregates that forget: exponentially decayed counts and sums, by exact integer forward decay.

*Forward decay* (Cormode, Shkapenyuk, Srivastava and Xu, ICDE 2009): instead of shrinking what is
kept as time passes, an event is given the weight 2^((t - L) / h) when it comes, which never changes
after that, and the read divides by 2^((as_of - L) / h). Weights add, so the state does not depend
on order. Here the landmark L is 1970, and the weight is an integer: an accumulator is a number per
half-life since 1970, k -> the sum of value * 2^(the rest of t / h), with `WEIGHT_BITS` bits after
the point. Sums of integers are exact, so only the weights are rounded, each the same everywhere:
powers of two come from tables made of integer square roots, never from a platform's libm.

*Error.* A weight's exponent is cut to 2^-30 of a half-life and its value to 40 bits, and so is the
read's. What is shown differs from the real sum by less than 10^-9 of it (of the sum of absolute
values, where signs differ) and by the half of 10^-6 that it is rounded to.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isqrt
from typing import Any, ClassVar, Final

from penstock.core.feature.algebra import (
    Adder,
    Aggregate,
    ValueType,
    decode_int,
    encode_int,
    in_range,
    register,
)
from penstock.core.time import DAY_MS, HOUR_MS

HALF_LIFE_MS_MIN: Final = HOUR_MS
HALF_LIFE_MS_MAX: Final = 366 * DAY_MS
HALF_LIVES: Final = 32
"""How far back a decayed feature looks by default: what is older weighs less than 2^-32."""

WEIGHT_BITS: Final = 40
PHASE_BITS: Final = 30
"""Resolution of where in its half-life an event is, looked up ten bits at a time."""

SHOWN_DIGITS: Final = 6
"""Digits after the point that are shown."""

_TABLE_BITS: Final = 10
_MASK: Final = (1 << _TABLE_BITS) - 1
_FAR_BITS: Final = 256
"""Half-lives older than this many beside the newest are not summed: they weigh less than 2^-128."""


def _table(root_bits: int) -> tuple[int, ...]:
    """Return floor(2^WEIGHT_BITS * 2^(i / 2^root_bits)) for i below 1024."""
    guard = 256
    root = 2 << (2 * guard)
    for _ in range(root_bits):
        root = isqrt(root << (2 * guard))
    powers = [1 << (2 * guard)]
    for _ in range(_MASK):
        powers.append(powers[-1] * root >> (2 * guard))
    return tuple(power >> (2 * guard - WEIGHT_BITS) for power in powers)


COARSE: Final = _table(_TABLE_BITS)
MIDDLE: Final = _table(2 * _TABLE_BITS)
FINE: Final = _table(3 * _TABLE_BITS)


def weight(phase: int) -> int:
    """Return 2^(phase / 2^30) with `WEIGHT_BITS` bits after the point, rounded down.

    Args:
        phase: From 0 to 2^30 - 1.
    """
    coarse, middle = COARSE[phase >> 20], MIDDLE[phase >> 10 & _MASK]
    return (coarse * middle >> WEIGHT_BITS) * FINE[phase & _MASK] >> WEIGHT_BITS


@dataclass(frozen=True)
class _Decay(Aggregate):
    """What decayed counts and sums share: half-life's number since 1970 -> sum of weights."""

    half_life_ms: int = 7 * DAY_MS
    scale: int | None = None

    @classmethod
    def bind(cls, value_type: ValueType | None, params: dict[str, Any]) -> Aggregate:
        """Return it for a half-life."""
        half_life_ms = params.get("half_life_ms", 7 * DAY_MS)
        in_range("half_life_ms", half_life_ms, HALF_LIFE_MS_MIN, HALF_LIFE_MS_MAX)
        if len(params) > 1 or "scale" in params:
            raise TypeError("`half_life_ms` is the only parameter")
        return cls(half_life_ms, value_type.scale if value_type else None)

    def params(self) -> dict[str, Any]:
        """Return the half-life; the scale follows from the value's type."""
        return {"half_life_ms": self.half_life_ms}

    def add(self, acc: Any, value: Any, at_ms: int, event_id: int) -> Any:
        """Add the event's weight, times its value, to its half-life."""
        return self.adder()(acc, value, at_ms, event_id)

    def adder(self) -> Adder:
        """Return `add` with the half-life at hand."""
        half_life_ms = self.half_life_ms
        counts = self.value == "none"

        def add(
            acc: dict[int, int] | None, value: Any, at_ms: int, event_id: int
        ) -> dict[int, int]:
            del event_id
            number, into_ms = divmod(at_ms, half_life_ms)
            weighed = weight((into_ms << PHASE_BITS) // half_life_ms)
            if not counts:
                weighed *= value
            if acc is None:
                return {number: weighed}
            acc[number] = acc.get(number, 0) + weighed
            return acc

        return add

    def merge(self, one: dict[int, int], other: dict[int, int]) -> dict[int, int]:
        """Add per half-life."""
        return self.join((one, other))

    def join(self, accs: Sequence[dict[int, int]]) -> dict[int, int]:
        """Add per half-life."""
        total = dict(accs[0])
        for acc in accs[1:]:
            for number, weighed in acc.items():
                total[number] = total.get(number, 0) + weighed
        return total

    def copy(self, acc: dict[int, int]) -> dict[int, int]:
        """Return a copy."""
        return dict(acc)

    def finish(self, acc: dict[int, int] | None, as_of_ms: int) -> float:
        """Return the sum as it has decayed at `as_of`, rounded to six decimals; of nothing it is 0."""
        if not acc:
            return 0.0
        newest = max(acc)
        number, into_ms = divmod(as_of_ms, self.half_life_ms)
        phase = (into_ms << PHASE_BITS) // self.half_life_ms
        if number < newest:
            # What a fast clock places ahead weighs at most twice.
            number, phase = newest, 0
        oldest = max(min(acc), newest - _FAR_BITS)
        total = sum(
            weighed << (half_life - oldest)
            for half_life, weighed in acc.items() if half_life >= oldest
        )  # fmt: skip
        # 2^(-phase) is half of 2^(1 - phase).
        total *= weight((1 << PHASE_BITS) - phase) if phase else 1 << (WEIGHT_BITS + 1)
        down = 2 * WEIGHT_BITS + 1 + number - oldest
        divisor = 10 ** (self.scale or 0) << down
        micros = (2 * total * 10**SHOWN_DIGITS + divisor) // (2 * divisor)
        return micros / 10**SHOWN_DIGITS

    def encode(self, acc: dict[int, int]) -> list[Any]:
        """Return half-lives and sums, half-lives ascending; sums beyond 64 bits as text."""
        return [part for number in sorted(acc) for part in (number, encode_int(acc[number]))]

    def decode(self, raw: list[Any]) -> dict[int, int]:
        """Return the sums of their encoding."""
        return {raw[i]: decode_int(raw[i + 1]) for i in range(0, len(raw), 2)}

    def size_bytes(self, acc: dict[int, int]) -> int:
        """Return the bytes of a half-life's number and of its sum."""
        return self.charge_bytes * len(acc)


@register
@dataclass(frozen=True)
class Decay(_Decay):
    """How many events, each counting half as much for every half-life since: a decayed count.

    Exact integer forward decay: the state is a function of the set of events. What is shown is
    rounded to six decimals, and within 10⁻⁹ of the real value besides. Events older than 32
    half-lives, which weigh less than 2⁻³², are left out unless the window says otherwise.
    """

    name: ClassVar[str] = "decay"
    charge_bytes: ClassVar[int] = 14

    @classmethod
    def variants(cls) -> tuple[tuple[Aggregate, ValueType | None], ...]:
        """Return a short and a long half-life."""
        return ((cls(HOUR_MS), None), (cls(30 * DAY_MS), None))


@register
@dataclass(frozen=True)
class DecaySum(_Decay):
    """The sum of a number, of which each event's share halves with every half-life since.

    As `decay`, with each event's weight times its value.
    """

    name: ClassVar[str] = "decay_sum"
    takes: ClassVar[frozenset[str]] = frozenset({"integer", "decimal"})
    value: ClassVar[str] = "required"
    charge_bytes: ClassVar[int] = 40

    @classmethod
    def variants(cls) -> tuple[tuple[Aggregate, ValueType | None], ...]:
        """Return it for an integer and for a decimal."""
        return (
            (cls(HOUR_MS), ValueType("integer")),
            (cls(30 * DAY_MS, 3), ValueType("decimal", 3)),
        )
