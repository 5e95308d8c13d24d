"""Aggregates that keep events' own values: first, last and the last k, in the order (time, id)."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, ClassVar, Final, cast

from penstock.core.feature.algebra import (
    SCALARS,
    VALUE_BYTES,
    Adder,
    Aggregate,
    Presenter,
    ValueType,
    in_range,
    presenter,
    register,
)

K_MAX: Final = 50
"""The most values that `last_k` keeps."""

Entry = tuple[int, int, Any]
"""(occurred_at_ms, event_id, value)."""

ENTRY_BYTES: Final = 20

_VALUES: Final = SCALARS | {"record"}


def _value_bytes(value: Any) -> int:
    if isinstance(value, str):
        return len(value)
    if isinstance(value, list):
        return sum(map(_value_bytes, cast("list[Any]", value)))
    return 9


@dataclass(frozen=True)
class _Register(Aggregate):
    """What first and last share: one entry, and how its value is shown."""

    show: Presenter | None = field(default=None, compare=False, repr=False)

    takes: ClassVar[frozenset[str]] = _VALUES
    value: ClassVar[str] = "required"
    moves: ClassVar[bool] = False
    keeps_value: ClassVar[bool] = True
    charge_bytes: ClassVar[int] = ENTRY_BYTES + VALUE_BYTES

    @classmethod
    def bind(cls, value_type: ValueType | None, params: dict[str, Any]) -> Aggregate:
        """Return the register of a value."""
        if params:
            raise TypeError(f"`{next(iter(params))}`")
        return cls(show=presenter(value_type))

    @classmethod
    def variants(cls) -> tuple[tuple[Aggregate, ValueType | None], ...]:
        """Return it for text and for money."""
        types = (ValueType("string"), ValueType("money"))
        return tuple((cls.bind(value_type, {}), value_type) for value_type in types)

    def params(self) -> dict[str, Any]:
        """Return nothing: how a value is shown follows from its type."""
        return {}

    def finish(self, acc: Entry | None, as_of_ms: int) -> Any:
        """Return the value, or None."""
        del as_of_ms
        if acc is None:
            return None
        return self.show(acc[2]) if self.show else acc[2]

    def decode(self, raw: list[Any]) -> Entry:
        """Return the entry of its encoding."""
        at_ms, event_id, value = raw
        return (at_ms, event_id, value)

    def size_bytes(self, acc: Entry) -> int:
        """Return the bytes of an instant, an id and a value."""
        return ENTRY_BYTES + _value_bytes(acc[2])


@register
@dataclass(frozen=True)
class First(_Register):
    """The value of the first event in which it is known."""

    name: ClassVar[str] = "first"

    def inline(self) -> tuple[str, str]:
        """Return `add` as expressions."""
        return (
            "(at, event, value)",
            "(at, event, value) if at < acc[0] or at == acc[0] and event < acc[1] else acc",
        )

    def add(self, acc: Entry | None, value: Any, at_ms: int, event_id: int) -> Entry:
        """Return the earlier entry."""
        if acc is None or (at_ms, event_id) < acc[:2]:
            return (at_ms, event_id, value)
        return acc

    def merge(self, one: Entry, other: Entry) -> Entry:
        """Return the earlier entry."""
        return one if one[:2] <= other[:2] else other


@register
@dataclass(frozen=True)
class Last(_Register):
    """The value of the last event in which it is known."""

    name: ClassVar[str] = "last"
    own_time: ClassVar[bool] = True

    def inline(self) -> tuple[str, str]:
        """Return `add` as expressions."""
        return (
            "(at, event, value)",
            "(at, event, value) if at > acc[0] or at == acc[0] and event > acc[1] else acc",
        )

    def add(self, acc: Entry | None, value: Any, at_ms: int, event_id: int) -> Entry:
        """Return the later entry."""
        if acc is None or (at_ms, event_id) > acc[:2]:
            return (at_ms, event_id, value)
        return acc

    def merge(self, one: Entry, other: Entry) -> Entry:
        """Return the later entry."""
        return one if one[:2] >= other[:2] else other

    def since(self, acc: Entry, floor_ms: int) -> Entry | None:
        """Return the entry if it is recent enough."""
        return acc if acc[0] >= floor_ms else None

    def oldest_ms(self, acc: Entry) -> int:
        """Return the entry's instant."""
        return acc[0]


@register
@dataclass(frozen=True)
class LastK(Aggregate):
    """The values of the k last events, newest first; with `distinct`, each key's newest only.

    Distinct is still a semilattice: a key falls out only when k others are newer, and those can
    only become newer still.
    """

    k: int = 10
    distinct: bool = False
    """Keep the newest entry of each key only. The value is then its own key."""
    keyed: bool = False
    """Distinct by another field: the value folded is `[key, value]`."""
    show: Presenter | None = field(default=None, compare=False, repr=False)

    name: ClassVar[str] = "last_k"
    takes: ClassVar[frozenset[str]] = _VALUES
    value: ClassVar[str] = "required"
    own_time: ClassVar[bool] = True
    moves: ClassVar[bool] = False
    keeps_value: ClassVar[bool] = True
    charge_bytes: ClassVar[int] = ENTRY_BYTES + 9 + VALUE_BYTES

    @classmethod
    def bind(cls, value_type: ValueType | None, params: dict[str, Any]) -> Aggregate:
        """Return the list of `k` values, optionally distinct."""
        in_range("k", params.get("k", 10), 1, K_MAX)
        if type(params.get("distinct", False)) is not bool:
            raise ValueError("`distinct` must be True or False")
        return cls(show=presenter(value_type), **params)

    @classmethod
    def variants(cls) -> tuple[tuple[Aggregate, ValueType | None], ...]:
        """Return short lists, plain and distinct."""
        text = ValueType("string")
        keyed = ValueType("record", parts=(("key", text), ("value", text)))
        return (
            (cls(k=3), text),
            (cls(k=3, distinct=True), text),
            (cls(k=3, distinct=True, keyed=True), keyed),
        )

    def params(self) -> dict[str, Any]:
        """Return how many, and whether distinct."""
        return {"k": self.k, "distinct": self.distinct, "keyed": self.keyed}

    def add(self, acc: Any, value: Any, at_ms: int, event_id: int) -> Any:
        """Return the list with one more entry, if it is among the k last."""
        return self.adder()(acc, value, at_ms, event_id)

    def adder(self) -> Adder:
        """Return the one of three ways to add."""
        if self.keyed:
            return self._add_keyed
        return self._add_distinct if self.distinct else self._add

    def _add(self, acc: Any, value: Any, at_ms: int, event_id: int) -> Any:
        entry = (at_ms, event_id, value)
        if acc is None:
            return [entry]
        if at_ms > acc[-1][0]:
            acc.append(entry)
        else:
            place = len(acc)
            while place and (at_ms, event_id) < acc[place - 1][:2]:
                place -= 1
            acc.insert(place, entry)
        if len(acc) > self.k:
            del acc[0]
        return acc

    def _add_keyed(self, acc: Any, value: Any, at_ms: int, event_id: int) -> Any:
        key, shown = value
        return self._put(acc, key, (at_ms, event_id, shown))

    def _add_distinct(self, acc: Any, value: Any, at_ms: int, event_id: int) -> Any:
        # As `_put` begins: most events are newer than all that are kept, and a call would be a
        # third of what they cost.
        if acc is None or at_ms <= next(reversed(acc.values()))[0]:
            return self._put(acc, value, (at_ms, event_id, value))
        if value in acc:
            del acc[value]
        elif len(acc) >= self.k:
            del acc[next(iter(acc))]
        acc[value] = (at_ms, event_id, value)
        return acc

    def _put(self, acc: dict[Any, Entry] | None, key: Any, entry: Entry) -> dict[Any, Entry]:
        """Put an entry into a dict that is ordered by (time, id), so that the oldest is the first."""
        if acc is None:
            return {key: entry}
        if entry[0] > next(reversed(acc.values()))[0]:
            if key in acc:
                del acc[key]
            elif len(acc) >= self.k:
                del acc[next(iter(acc))]
            acc[key] = entry
            return acc
        standing = acc.get(key)
        if standing is None:
            if len(acc) >= self.k and entry[:2] < next(iter(acc.values()))[:2]:
                return acc
        elif entry[:2] < standing[:2]:
            return acc
        acc[key] = entry
        kept = sorted(acc.items(), key=_item_order)[-self.k :]
        acc.clear()
        acc.update(kept)
        return acc

    def merge(self, one: Any, other: Any) -> Any:
        """Return the k last of both."""
        if not self.distinct:
            return sorted((*one, *other), key=_entry_order)[-self.k :]
        both = dict(one)
        for key, entry in other.items():
            standing = both.get(key)
            if standing is None or standing[:2] < entry[:2]:
                both[key] = entry
        return dict(sorted(both.items(), key=_item_order)[-self.k :])

    def copy(self, acc: Any) -> Any:
        """Return a copy."""
        return acc.copy()

    def since(self, acc: Any, floor_ms: int) -> Any:
        """Return the entries that are recent enough; as they are if all of them are."""
        if not acc:
            return None
        oldest = next(iter(acc.values())) if self.distinct else acc[0]
        if oldest[0] >= floor_ms:
            return acc
        if self.distinct:
            return {key: entry for key, entry in acc.items() if entry[0] >= floor_ms} or None
        return [entry for entry in acc if entry[0] >= floor_ms] or None

    def oldest_ms(self, acc: Any) -> int:
        """Return the instant of the first entry."""
        return next(iter(self._entries(acc)))[0]

    def finish(self, acc: Any, as_of_ms: int) -> list[Any]:
        """Return the values, newest first."""
        del as_of_ms
        entries = self._entries(acc) if acc else ()
        values = [value for _, _, value in entries]
        values.reverse()
        return [self.show(value) for value in values] if self.show else values

    def encode(self, acc: Any) -> list[Any]:
        """Return time, id and value of each entry, and its key if distinct, oldest first."""
        if self.keyed:
            return [part for key, entry in acc.items() for part in (*entry, key)]
        return [*chain.from_iterable(acc.values() if self.distinct else acc)]

    def decode(self, raw: list[Any]) -> Any:
        """Return the entries of their encoding."""
        if self.keyed:
            return {raw[i + 3]: (raw[i], raw[i + 1], raw[i + 2]) for i in range(0, len(raw), 4)}
        if self.distinct:
            return {raw[i + 2]: (raw[i], raw[i + 1], raw[i + 2]) for i in range(0, len(raw), 3)}
        return [(raw[i], raw[i + 1], raw[i + 2]) for i in range(0, len(raw), 3)]

    def size_bytes(self, acc: Any) -> int:
        """Return the bytes of all entries."""
        keys = sum(map(_value_bytes, acc)) if self.keyed else 0
        return keys + sum(ENTRY_BYTES + _value_bytes(value) for _, _, value in self._entries(acc))

    def _entries(self, acc: Any) -> Iterable[Entry]:
        return acc.values() if self.distinct else acc


def _entry_order(entry: Entry) -> tuple[int, int]:
    return entry[:2]


def _item_order(item: tuple[Any, Entry]) -> tuple[int, int]:
    return item[1][:2]
