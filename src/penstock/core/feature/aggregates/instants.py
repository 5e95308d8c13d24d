"""The aggregate of when: the instants of the last k events, from which sequences are computed."""

from dataclasses import dataclass
from typing import Any, ClassVar, Final

from penstock.core.feature.algebra import SCALARS, Aggregate, ValueType, in_range, register

K_MAX: Final = 200


@register
@dataclass(frozen=True)
class Instants(Aggregate):
    """When the last k events occurred, in milliseconds since 1970 UTC, the earliest first.

    One instant more than k is kept: if it is there, the list left something out, and the feature
    says truncated. `sequence` is computed from two of these.
    """

    k: int = 50

    name: ClassVar[str] = "instants"
    takes: ClassVar[frozenset[str]] = SCALARS
    value: ClassVar[str] = "optional"
    own_time: ClassVar[bool] = True

    @classmethod
    def bind(cls, value_type: ValueType | None, params: dict[str, Any]) -> Aggregate:
        """Return the list of `k` instants."""
        del value_type
        in_range("k", params.get("k", 50), 1, K_MAX)
        return cls(**params)

    @classmethod
    def variants(cls) -> tuple[tuple[Aggregate, ValueType | None], ...]:
        """Return a short and a long list."""
        return ((cls(k=3), None), (cls(), None))

    def add(self, acc: list[int] | None, value: Any, at_ms: int, event_id: int) -> list[int]:
        """Return the list with one more instant, if it is among the last."""
        del value, event_id
        if acc is None:
            return [at_ms]
        place = len(acc)
        while place and at_ms < acc[place - 1]:
            place -= 1
        acc.insert(place, at_ms)
        if len(acc) > self.k + 1:
            del acc[0]
        return acc

    def merge(self, one: list[int], other: list[int]) -> list[int]:
        """Return the last instants of both; equal ones are different events."""
        return sorted((*one, *other))[-self.k - 1 :]

    def copy(self, acc: list[int]) -> list[int]:
        """Return a copy."""
        return acc.copy()

    def since(self, acc: list[int], floor_ms: int) -> list[int] | None:
        """Return the instants that are recent enough; as they are if all of them are."""
        if not acc or acc[0] >= floor_ms:
            return acc or None
        return [at_ms for at_ms in acc if at_ms >= floor_ms] or None

    def finish(self, acc: list[int] | None, as_of_ms: int) -> list[int]:
        """Return the instants, ascending."""
        del as_of_ms
        return acc[-self.k :] if acc else []

    def truncated(self, acc: list[int]) -> bool:
        """Return whether there were more than k."""
        return len(acc) > self.k

    def size_bytes(self, acc: list[int]) -> int:
        """Return nine bytes an instant."""
        return self.charge_bytes * len(acc)
