"""What every aggregate is: zero, add, merge, finish and codec, and the laws they keep.

An aggregate is one object, registered by its name. To add one, write a file in
`core/feature/aggregates/` with a class that subclasses `Aggregate` under `@register`; nothing else
has to change: authors get it as `penstock.dsl.features.<name>`, the law suite tests it, and the
reference lists it.

An accumulator is the state of one aggregate over one tile. The empty accumulator is None and is
never stored. An accumulator that is immutable (an int, a tuple) is replaced by `add`; one that is
mutable is changed in place, and then `merge` must copy.

Laws, tested for every registered aggregate over the accumulators of de-duplicated events:

- `merge` is commutative and associative, None is its zero, and its arguments stay as they are.
- `add` in any order gives the same accumulator; `merge` of any split equals `add` of the whole.
- `decode(encode(a)) == a`, and equal accumulators have equal encodings.
- `join` of accumulators that cover a set of events finishes as one accumulator of that set does,
  as long as nothing is truncated.
- With `own_time`: `since(merge(a, b), t) == since(merge(since(a, t), since(b, t)), t)`, and
  `since(a, t) == a` up to `t == oldest_ms(a)`.
- Unless it `moves`, `finish` is the same for every `as_of`.

No accumulator holds a float. Floats appear in `finish`, once.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Final, TypeAlias, TypeVar

from penstock.core.feature.window import Grid

ALGEBRA_VERSION: Final = 3
"""Part of every plan's fingerprint: accumulators, and traits, of another version are not read."""

VALUE_BYTES: Final = 13
"""Charged for a number, or an amount with its currency; text is charged by its length besides."""

NUMBERS: Final = frozenset({"integer", "decimal", "money"})
ORDERED: Final = frozenset({"integer", "decimal", "money", "datetime"})
KEYS: Final = frozenset({"string", "enum", "integer", "boolean"})
SCALARS: Final = frozenset({"string", "enum", "integer", "decimal", "money", "datetime", "boolean"})


@dataclass(frozen=True, slots=True)
class ValueType:
    """The type of a value in an accumulator.

    Attributes:
        kind: One of the kinds of `core.catalog.schema.KINDS`, or `record` for several fields.
        scale: Decimal digits of a `decimal`, or of `money` kept finer than its minor unit.
        parts: For a `record`, the name and type of each field, in order.
    """

    kind: str
    scale: int | None = None
    parts: "tuple[tuple[str, ValueType], ...]" = ()


Adder: TypeAlias = Callable[[Any, Any, int, int], Any]
"""(accumulator or None, value, at_ms, event_id) -> accumulator."""


class Aggregate:
    """One aggregate with its parameters: a frozen dataclass whose fields are the parameters.

    Class attributes:
        name: What authors call it, and its name in the registry.
        state: Aggregates with the same `state`, parameters and value share their accumulators,
            such as mean and variance.
        takes: Kinds of the value it folds; empty: it folds no value.
        value: "none", "optional" or "required": whether a definition names a value.
        own_time: Accumulators carry instants. Ungrouped, they need no tiles, and windows are
            exact.
        moves: `finish` depends on `as_of`; one that says it does not is read once, and remembered.
        keeps_value: Accumulators hold the value itself, so its text counts as size.
        charge_bytes: An upper bound of the encoded bytes that one event can add, text excluded.
    """

    name: ClassVar[str]
    state: ClassVar[str] = ""
    takes: ClassVar[frozenset[str]] = frozenset()
    value: ClassVar[str] = "none"
    own_time: ClassVar[bool] = False
    moves: ClassVar[bool] = True
    keeps_value: ClassVar[bool] = False
    charge_bytes: ClassVar[int] = 9

    @classmethod
    def bind(cls, value_type: ValueType | None, params: dict[str, Any]) -> "Aggregate":
        """Return the aggregate for a value's type and the author's parameters.

        Raises:
            ValueError: A parameter is out of its range; the text says which, and the range.
            TypeError: There is no such parameter.
        """
        del value_type
        return cls(**params)

    @classmethod
    def variants(cls) -> "tuple[tuple[Aggregate, ValueType | None], ...]":
        """Return the bound aggregates, with the type of their values, that the law suite tests."""
        raise NotImplementedError

    def misfit(self, grid: Grid) -> str | None:
        """Return why tiles do not suit it, or None."""
        del grid

    def view(self) -> str:
        """Return what tells apart how aggregates of one `state` and `params` are read."""
        return self.name

    def inline(self) -> tuple[str, str] | None:
        """Return `add` as two Python expressions over `acc`, `value`, `at` and `event`.

        The first is the accumulator of one event, the second the next one; the law suite holds
        them equal to `add`. None: the fold calls `adder()`, some 60 ns slower.
        """
        return None

    def adder(self) -> Adder:
        """Return `add` as the fold calls it: a function for these parameters only, if that is faster."""
        return self.add

    def add(self, acc: Any, value: Any, at_ms: int, event_id: int) -> Any:
        """Return the accumulator with one more event; `acc` may be changed.

        Args:
            acc: An accumulator, or None for the empty one.
            value: The event's value, of the type bound to; None if the aggregate takes none.
            at_ms: When the event occurred.
            event_id: Breaks ties of `at_ms`; no two events of a leaf share it.
        """
        raise NotImplementedError

    def merge(self, one: Any, other: Any) -> Any:
        """Return a new accumulator of both sets of events; neither argument is None."""
        raise NotImplementedError

    def join(self, accs: Sequence[Any]) -> Any:
        """Return one accumulator of the tiles that a read counts; at least one, none of them None.

        Unlike `merge`, it may go over a cap, for caps apply per tile.
        """
        joined = accs[0]
        for acc in accs[1:]:
            joined = self.merge(joined, acc)
        return joined

    def copy(self, acc: Any) -> Any:
        """Return an accumulator that shares nothing mutable with `acc`."""
        return acc

    def since(self, acc: Any, floor_ms: int) -> Any:
        """Return what occurred at or after an instant, or None. Only with `own_time`."""
        raise NotImplementedError

    def oldest_ms(self, acc: Any) -> int | None:
        """Return the instant of an accumulator's oldest entry, the first that `since` takes away.

        Only with `own_time`; None if it is not known: then a window is read anew each time.
        """
        del acc
        return None

    def finish(self, acc: Any, as_of_ms: int) -> Any:
        """Return the value that authors see; `acc` may be None. The only place with floats."""
        raise NotImplementedError

    def truncated(self, acc: Any) -> bool:
        """Return whether a cap left something out of an accumulator."""
        del acc
        return False

    def encode(self, acc: Any) -> Any:
        """Return an accumulator as values that msgpack holds, canonically ordered."""
        return acc

    def decode(self, raw: Any) -> Any:
        """Return the accumulator of its encoding, which may be kept."""
        return raw

    def size_bytes(self, acc: Any) -> int:
        """Return an estimate of an accumulator's encoded bytes: a pure function of the set."""
        del acc
        return self.charge_bytes

    def params(self) -> dict[str, Any]:
        """Return the parameters, for the canonical form of a definition."""
        return {field.name: getattr(self, field.name) for field in fields(self)}  # type: ignore[arg-type]


REGISTRY: Final[dict[str, type[Aggregate]]] = {}
"""Every aggregate by name."""

_A = TypeVar("_A", bound=type[Aggregate])


def register(aggregate: _A) -> _A:
    """Register an aggregate under its name; a class decorator."""
    assert aggregate.name not in REGISTRY, f"two aggregates are called {aggregate.name}"
    if not aggregate.state:
        aggregate.state = aggregate.name
    REGISTRY[aggregate.name] = aggregate
    return aggregate


def in_range(name: str, value: object, low: int, high: int) -> None:
    """Check a parameter.

    Raises:
        ValueError: It is no whole number within the range.
    """
    if type(value) is not int or not low <= value <= high:
        raise ValueError(f"`{name}` must be a whole number from {low} to {high}")


_INT64: Final = 1 << 63


def encode_int(number: int) -> int | str:
    """Return an integer as msgpack can hold it: as text beyond 64 bits."""
    return number if -_INT64 <= number < _INT64 else str(number)


def decode_int(raw: int | str) -> int:
    """Return the integer of its encoding."""
    return raw if type(raw) is int else int(raw)


def scaled(number: int, scale: int | None) -> int | float:
    """Return a scaled integer as the number it stands for, rounded once."""
    return number / 10**scale if scale else number


Presenter = Callable[[Any], Any]


def presenter(value_type: ValueType | None) -> Presenter | None:
    """Return what turns a stored value into the one that authors see; None: nothing to do.

    Money becomes `{"GBP": minor units}`, as sums do; a decimal becomes a number; a record of
    several fields becomes a dict by field name.
    """
    if value_type is None:
        return None
    if value_type.kind == "record":
        shown = [(name, presenter(part)) for name, part in value_type.parts]
        return lambda values: {
            name: show(value) if show and value is not None else value
            for (name, show), value in zip(shown, values, strict=True)
        }
    if value_type.kind == "money":
        return lambda value: {value[1]: value[0]}
    if value_type.kind == "decimal" and value_type.scale:
        scale = value_type.scale
        return lambda value: value / 10**scale
    return None
