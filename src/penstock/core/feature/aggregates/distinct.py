"""The aggregate of how many distinct values: exact up to a cap, then HyperLogLog registers.

Both forms are unions of the hashes of values, so order and repetition change nothing. Which of
the two a tile has is a function of the set as well: registers if it holds more than `cap` values.

HyperLogLog with 2^p registers (Flajolet, Fusy, Gandouet and Meunier, 2007) is read by the improved
raw estimator of Otmar Ertl ("New cardinality estimation algorithms for HyperLogLog sketches",
2017, section 4), which needs no tables of biases; it is computed in integers, 64 bits after the point.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final, TypeAlias

from penstock.core.feature import caps
from penstock.core.feature.algebra import KEYS, Aggregate, ValueType, in_range, register

CAP_MAX: Final = 2_000
PRECISION_MIN: Final = 7
PRECISION_MAX: Final = 12

Counted: TypeAlias = set[int] | bytearray
"""Hashes, or registers: each the greatest rank of the hashes that fall to it."""

_HASH_BITS: Final = 64
_ENTRY_BYTES: Final = 3
_RANK_BITS: Final = 6
_ONE: Final = 1 << 64
_ALPHA: Final = 13_306_513_097_844_322_491
"""1 / (2 ln 2), times 2^64."""


@register
@dataclass(frozen=True)
class Distinct(Aggregate):
    """How many distinct values: a set of 64-bit hashes per tile, then HyperLogLog registers.

    Exact up to `cap` values a tile; two values share a hash with probability n²/2⁶⁵. Beyond, the
    number is an estimate from 2^`precision` registers with a standard error of 1.04/√2^`precision`
    (2.3 % for 11), and the feature says truncated.
    """

    cap: int = 256
    precision: int = 11

    name: ClassVar[str] = "distinct"
    moves: ClassVar[bool] = False
    takes: ClassVar[frozenset[str]] = KEYS
    value: ClassVar[str] = "required"

    @classmethod
    def bind(cls, value_type: ValueType | None, params: dict[str, Any]) -> Aggregate:
        """Return the set of at most `cap` hashes a tile, and how fine its registers are."""
        del value_type
        in_range("cap", params.get("cap", 256), 1, CAP_MAX)
        in_range("precision", params.get("precision", 11), PRECISION_MIN, PRECISION_MAX)
        return cls(**params)

    @classmethod
    def variants(cls) -> tuple[tuple[Aggregate, ValueType | None], ...]:
        """Return tight and wide caps."""
        return ((cls(cap=3), ValueType("string")), (cls(cap=5, precision=7), ValueType("integer")),
                (cls(), ValueType("integer")))  # fmt: skip

    def add(self, acc: Counted | None, value: Any, at_ms: int, event_id: int) -> Counted:
        """Add a value's hash to the set, or to the registers."""
        del at_ms, event_id
        return self.add_hash(acc, caps.rank(value))

    def add_hash(self, acc: Counted | None, hashed: int) -> Counted:
        """Add a value by its 64-bit hash, for who has a uniform one already."""
        if acc is None:
            return {hashed}
        if isinstance(acc, set):
            acc.add(hashed)
            return acc if len(acc) <= self.cap else self._registers(acc)
        self._raise(acc, hashed)
        return acc

    def _raise(self, registers: bytearray, hashed: int) -> None:
        rest_bits = _HASH_BITS - self.precision
        place = hashed >> rest_bits
        rest = hashed & ((1 << rest_bits) - 1)
        # The place of the first one bit, counted from 1.
        rank = rest_bits - rest.bit_length() + 1
        registers[place] = max(registers[place], rank)

    def _registers(self, hashes: Iterable[int]) -> bytearray:
        registers = bytearray(1 << self.precision)
        for hashed in hashes:
            self._raise(registers, hashed)
        return registers

    def merge(self, one: Counted, other: Counted) -> Counted:
        """Return the union: of hashes, or the greater of each register."""
        both = self.join((one, other))
        if isinstance(both, set) and len(both) > self.cap:
            return self._registers(both)
        return both

    def join(self, accs: Sequence[Counted]) -> Counted:
        """Return the union; sets stay exact, beyond the cap too."""
        hashes = [acc for acc in accs if isinstance(acc, set)]
        union = set[int]().union(*hashes)
        if len(hashes) == len(accs):
            return union
        registers = self._registers(union)
        for acc in accs:
            if not isinstance(acc, set):
                registers = bytearray(map(max, registers, acc))
        return registers

    def copy(self, acc: Counted) -> Counted:
        """Return a copy."""
        return acc.copy()

    def finish(self, acc: Counted | None, as_of_ms: int) -> int:
        """Return how many there are; beyond the cap, the estimate rounded to a whole number."""
        del as_of_ms
        if isinstance(acc, bytearray):
            return estimate(acc)
        return len(acc) if acc else 0

    def truncated(self, acc: Counted) -> bool:
        """Return whether the number is an estimate."""
        return isinstance(acc, bytearray)

    def encode(self, acc: Counted) -> list[int] | bytes:
        """Return the hashes ascending, or registers: three bytes for each that is set, or all."""
        if isinstance(acc, set):
            return sorted(acc)
        if self._dense(acc):
            return bytes(acc)
        return b"".join(
            (place << _RANK_BITS | rank).to_bytes(_ENTRY_BYTES, "big")
            for place, rank in enumerate(acc) if rank
        )  # fmt: skip

    def decode(self, raw: list[int] | bytes) -> Counted:
        """Return the set, or the registers, of its encoding."""
        if isinstance(raw, list):
            return set(raw)
        if len(raw) == 1 << self.precision:
            return bytearray(raw)
        registers = bytearray(1 << self.precision)
        for at in range(0, len(raw), _ENTRY_BYTES):
            entry = int.from_bytes(raw[at : at + _ENTRY_BYTES], "big")
            registers[entry >> _RANK_BITS] = entry & ((1 << _RANK_BITS) - 1)
        return registers

    def _dense(self, registers: bytearray) -> bool:
        # A power of two is no multiple of three, so the length tells the two forms apart.
        return _ENTRY_BYTES * (len(registers) - registers.count(0)) > len(registers)

    def size_bytes(self, acc: Counted) -> int:
        """Return nine bytes a hash; of registers, the shorter of both forms."""
        if isinstance(acc, set):
            return 9 * len(acc)
        return min(_ENTRY_BYTES * (len(acc) - acc.count(0)), len(acc))


def estimate(registers: bytearray) -> int:
    """Return how many distinct hashes went into some registers, rounded to a whole number.

    Args:
        registers: 2^p of them, not all of them 0. That a hash may fill a register to the brim is
            left out of account: it takes some 2^50 values.
    """
    m = len(registers)
    total = m * _sigma((registers.count(0) * _ONE) // m)
    for rank in set(registers) - {0}:
        total += registers.count(rank) * _ONE >> rank
    return (2 * _ALPHA * m * m + total) // (2 * total)


def _sigma(x: int) -> int:
    """Return x + the sum of x^(2^k) * 2^(k-1), for x in [0, 1), 64 bits after the point."""
    total, factor = x, 1
    while x:
        x = x * x // _ONE
        total += x * factor
        factor *= 2
    return total
