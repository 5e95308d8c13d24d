"""Definitions compiled: one state per cell, and everything that is done to a leaf's states.

plan = plan_of(features, tz="Europe/London")
states = plan.new_states()
plan.fold(states, record, plan.mask(frozenset({"personalisation"})))
plan.read(states, as_of_ms, clock_ms, purged, frozenset({"personalisation"}))
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from difflib import get_close_matches
from hashlib import blake2b
from typing import Any, Final, NamedTuple, TypeAlias
from zoneinfo import ZoneInfoNotFoundError

import msgspec

from penstock.core.errors import DataCorrupt, DefinitionError
from penstock.core.feature import aggregates as _aggregates  # registers them
from penstock.core.feature.algebra import ALGEBRA_VERSION, Aggregate
from penstock.core.feature.binding import Bound, bind, fault
from penstock.core.feature.cell import Cell
from penstock.core.feature.definition import Feature
from penstock.core.feature.derived import DERIVED, derivation
from penstock.core.feature.handover import handed_over
from penstock.core.feature.lasting import Lasting, Reader
from penstock.core.feature.source import Folder, folders
from penstock.core.feature.window import Zone
from penstock.core.record import Record

FEATURES_MAX: Final = 500
PARTS_DEPTH_MAX: Final = 8

Permitted: TypeAlias = frozenset[str] | int
"""Purposes, or what `Plan.mask` made of them."""

__all__ = ["Feature", "FeatureNote", "Plan", "plan_of"]
assert _aggregates is not None, "importing it registers every aggregate"


class _Output(NamedTuple):
    """How one feature is read: from a cell, or from other outputs."""

    name: str
    mask: int
    cell: int
    aggregate: Aggregate | None
    derive: Callable[..., Any] | None
    parts: tuple["_Output", ...]
    derived: str = ""
    """The name of `derive`, with its parameters."""


class FeatureNote(NamedTuple):
    """What the generated reference says of a feature."""

    name: str
    aggregate: str
    event: str
    window: tuple[Any, ...]
    tile_ms: int
    """0 where there are no tiles of one width."""
    tail_error_ms: int
    """How much further than its window a read may look back."""
    purposes: tuple[str, ...]
    description: str
    place: str


class Plan:
    """Compiled definitions. Immutable; its states belong to the caller.

    Attributes:
        fingerprint: A hash of the canonical definitions: equal fingerprints, equal bytes.
        features: All features, in the order they were declared.
        zone: The project's time zone.
        purposes: All purposes that a feature needs, ascending; bit i of a mask is purpose i.
        folder: From an event's name to its compiled fold by (states, record, mask), or None if no
            feature folds it. A dict's own look-up: it is called once an event.
    """

    def __init__(
        self, features: Sequence[Feature], cells: Sequence[Bound], outputs: Sequence[_Output],
        purposes: Sequence[str], zone: Zone,
    ) -> None:  # fmt: skip
        self.features = tuple(features)
        self.purposes = tuple(purposes)
        self.zone = zone
        self._masks = {purpose: 1 << bit for bit, purpose in enumerate(purposes)}
        self._all = (1 << len(purposes)) - 1
        self._bounds = tuple(cells)
        self._cells = tuple(bound.cell for bound in cells)
        self._outputs = tuple(outputs)
        self._folders, self._source = folders(cells, self._masks, zone)
        self.folder: Callable[[str], Folder | None] = self._folders.get
        self._mask_cache: dict[frozenset[str], int] = {}
        self._floors: dict[int, tuple[int, ...]] = {}
        self._by_name = {feature.name: feature for feature in features}
        canonical = [ALGEBRA_VERSION, zone.name, [cell.key for cell in self._cells],
                     sorted(_canonical(output) for output in outputs)]  # fmt: skip
        self.fingerprint = blake2b(msgspec.json.encode(canonical), digest_size=16).hexdigest()

    @property
    def keys(self) -> tuple[str, ...]:
        """The canonical text of each state, in their order: equal keys, equal states, in any plan."""
        return tuple(self._key(cell) for cell in self._cells)

    def _key(self, cell: Cell) -> str:
        calendar = cell.grid.canonical[0] == "tumbling"
        return f"{cell.key} in {self.zone.name}" if calendar else cell.key

    def keys_of(self, name: str) -> frozenset[str]:
        """Return the keys of the states that a feature is read from."""
        found: set[str] = set()
        outputs = [output for output in self._outputs if output.name == name]
        for output in outputs:
            outputs.extend(output.parts)
            if output.derive is None:
                found.add(self._key(self._cells[output.cell]))
        return frozenset(found)

    def mask(self, granted: frozenset[str]) -> int:
        """Return purposes as bits, for `fold` and `read`. Purposes that no feature needs are left out."""
        mask = self._mask_cache.get(granted)
        if mask is None:
            mask = sum(bit for purpose, bit in self._masks.items() if purpose in granted)
            if len(self._mask_cache) < 1024:
                self._mask_cache[granted] = mask
        return mask

    def handed_over(self) -> bytes:
        """Return the plan as data, for a fold that is not written in Python; see `handover.py`."""
        return handed_over(self.fingerprint, self._bounds, self._masks)

    def source(self) -> str:
        """Return the generated Python source of the fold."""
        return self._source

    def new_states(self) -> list[Any]:
        """Return the states of a leaf that nothing was folded into: None for every cell."""
        return [None] * len(self._cells)

    def fold(self, states: list[Any], record: Record, permitted: Permitted) -> int:
        """Fold a record, which must be new to its leaf, into the leaf's states.

        Args:
            states: The leaf's states; changed in place.
            record: A primary; records of events that no feature folds change nothing.
            permitted: What the record's consent evidence permits.

        Returns:
            An upper bound of the bytes that `measure` can have grown by. It is a function of the
            record and `permitted` alone, not of the states, so that it does not depend on what a
            batch happened to expire. Add it up, and when the sum passes a limit, `expire` and
            `measure` and go on from there.
        """
        folder = self._folders.get(record.name)
        if folder is None:
            return 0
        if permitted.__class__ is not int:
            permitted = self.mask(permitted)  # type: ignore[arg-type]
        return folder(states, record, permitted)  # type: ignore[arg-type]

    def expire(self, states: list[Any], clock_ms: int, purged: Mapping[str, int]) -> None:
        """Drop what is dead at T and under purges, in place. It never changes what is read or encoded.

        Args:
            states: A leaf's states.
            clock_ms: T, the leaf's clock.
            purged: Purpose -> `purged_before`.
        """
        for index, (cell, state) in enumerate(zip(self._cells, states, strict=True)):
            if state is not None:
                states[index] = cell.projected(state, cell.floor(clock_ms, purged))

    def measure(self, states: Sequence[Any]) -> int:
        """Return an estimate of the states' encoded bytes, a pure function of the states."""
        cells = zip(self._cells, states, strict=True)
        return sum(1 if state is None else cell.size_bytes(state) for cell, state in cells)

    def encode(self, states: Sequence[Any], clock_ms: int, purged: Mapping[str, int]) -> list[Any]:
        """Return the states as values that msgpack holds: canonical, and projected.

        Laws:
            Equal sets of live events have equal encodings, in any order and batching.
        """
        floors = (
            tuple(cell.floor(clock_ms, purged) for cell in self._cells)
            if purged
            else self._floors_at(clock_ms)
        )
        # None if nothing of it lives.
        return [
            None if state is None else cell.encode(state, floor)
            for cell, state, floor in zip(self._cells, states, floors, strict=True)
        ]

    def _floors_at(self, clock_ms: int) -> tuple[int, ...]:
        """Return each cell's floor at T without purges: leaves written together share few Ts."""
        floors = self._floors.get(clock_ms)
        if floors is None:
            if len(self._floors) >= 1024:
                self._floors.clear()
            floors = tuple(cell.floor(clock_ms, {}) for cell in self._cells)
            self._floors[clock_ms] = floors
        return floors

    def decode(self, raw: Sequence[Any]) -> list[Any]:
        """Return the states of their encoding.

        Raises:
            DataCorrupt: It is not an encoding of this plan's states (E704).
        """
        try:
            return [
                None if state is None else cell.decode(state)
                for cell, state in zip(self._cells, raw, strict=True)
            ]
        except (TypeError, ValueError, LookupError, AttributeError) as error:
            raise DataCorrupt("E704", "a stored leaf does not decode",
                              fix="rebuild the store with `penstock replay --accept`") from error  # fmt: skip

    def merge(self, many: Sequence[Sequence[Any]]) -> list[Any]:
        """Return new states of several leaves that share nothing with them; they stay as they are.

        The leaves must have folded disjoint sets of events, which de-duplication at the leaf
        gives. Commutative and associative; of none it is `new_states()`.
        """
        merged = self.new_states()
        for index, cell in enumerate(self._cells):
            present = [states[index] for states in many if states[index] is not None]
            if present:
                merged[index] = cell.merge(present)
        return merged

    def read(
        self, states: Sequence[Any], as_of_ms: int, clock_ms: int, purged: Mapping[str, int],
        permitted: Permitted,
    ) -> dict[str, Any]:  # fmt: skip
        """Return the finished values of the features that may be served, in the order declared.

        Args:
            states: A leaf's or a person's states.
            as_of_ms: The end of the window, at or after `clock_ms`.
            clock_ms: T; of a person, the greatest of their leaves.
            purged: Purpose -> `purged_before`; of a person, the greatest of their leaves.
            permitted: What the ledger permits now.
        """
        return self.read_noted(states, as_of_ms, clock_ms, purged, permitted)[0]

    def read_noted(
        self, states: Sequence[Any], as_of_ms: int, clock_ms: int, purged: Mapping[str, int],
        permitted: Permitted,
    ) -> tuple[dict[str, Any], tuple[str, ...]]:  # fmt: skip
        """Return what `read` returns, and the names of features that a cap truncated."""
        mask = permitted if isinstance(permitted, int) else self.mask(permitted)
        floors = self._floors_at(clock_ms) if not purged else None
        seen: dict[int, tuple[Any, bool]] = {}

        def finished(output: _Output) -> tuple[Any, bool]:
            if output.derive is not None:
                parts = [finished(part) for part in output.parts]
                return output.derive(*(part for part, _ in parts)), any(cut for _, cut in parts)
            if output.cell not in seen:
                cell = self._cells[output.cell]
                floor = cell.floor(clock_ms, purged) if floors is None else floors[output.cell]
                seen[output.cell] = cell.window(states[output.cell], as_of_ms, floor)
            acc, truncated = seen[output.cell]
            finish = output.aggregate.finish  # type: ignore[union-attr]
            if self._cells[output.cell].layout == "grouped":
                groups: dict[Any, Any] = acc
                return {group: finish(one, as_of_ms) for group, one in groups.items()}, truncated
            return finish(acc, as_of_ms), truncated

        values: dict[str, Any] = {}
        truncated: list[str] = []
        for output in self._outputs:
            if mask & output.mask == output.mask:
                values[output.name], cut = finished(output)
                if cut:
                    truncated.append(output.name)
        return values, tuple(truncated)

    def read_lasting(
        self, states: Sequence[Any], as_of_ms: int, clock_ms: int, purged: Mapping[str, int],
        permitted: Permitted,
    ) -> Lasting:  # fmt: skip
        """Return what `read` returns, and until when it stays true of these states."""
        mask = permitted if isinstance(permitted, int) else self.mask(permitted)
        floors = (
            tuple(cell.floor(clock_ms, purged) for cell in self._cells)
            if purged
            else self._floors_at(clock_ms)
        )
        reader = Reader(self._cells, states, floors, as_of_ms)
        values: dict[str, Any] = {}
        moving: dict[str, Callable[[int], Any]] = {}
        for output in self._outputs:
            if mask & output.mask == output.mask:
                values[output.name], later = reader.value(output)
                if later is not None:
                    moving[output.name] = later
        return Lasting(values, reader.until_ms, moving)

    def withheld(self, permitted: Permitted) -> tuple[str, ...]:
        """Return the names of the features that may not be served."""
        mask = permitted if isinstance(permitted, int) else self.mask(permitted)
        return tuple(output.name for output in self._outputs if mask & output.mask != output.mask)

    def feature(self, name: str) -> Feature:
        """Return a feature by name.

        Raises:
            DefinitionError: There is none (E119).
        """
        found = self._by_name.get(name)
        if found is None:
            near = get_close_matches(name, self._by_name, n=1)
            raise DefinitionError("E119", f"there is no feature `{name}`",
                                  fix=f"did you mean `{near[0]}`?" if near else "declare it in features.py")  # fmt: skip
        return found

    def needs(self, name: str) -> tuple[str, ...]:
        """Return the purposes that must all be permitted for a feature."""
        mask = next(output.mask for output in self._outputs if output.name == name)
        return tuple(purpose for purpose, bit in self._masks.items() if mask & bit)

    def events(self) -> frozenset[str]:
        """Return the names of the events that some feature folds."""
        return frozenset(self._folders)

    def notes(self) -> list[FeatureNote]:
        """Return what the generated reference says of each feature."""
        return [self._note(feature, output)
                for feature, output in zip(self.features, self._outputs, strict=True)]  # fmt: skip

    def _note(self, feature: Feature, output: _Output) -> FeatureNote:
        cell = None if output.derive else self._cells[output.cell]
        exact = cell is None or cell.layout == "register"
        tile_ms = 0 if cell is None or exact else getattr(cell.grid, "width_ms", 0)
        return FeatureNote(
            name=feature.name,
            aggregate=feature.aggregate,
            event=feature.event,
            window=() if cell is None else tuple(cell.grid.canonical),
            tile_ms=tile_ms,
            tail_error_ms=0 if cell is None or exact else cell.grid.tail_error_ms,
            purposes=self.needs(feature.name),
            description=feature.description,
            place=feature.place,
        )


def plan_of(
    features: Iterable[Feature], *, tz: str = "UTC", declared: Iterable[str] | None = None
) -> Plan:
    """Return the plan of some features.

    Args:
        features: In the order they are shown.
        tz: The project's time zone, for calendar periods.
        declared: The names of declared events, to check against; None: not checked.

    Raises:
        DefinitionError: A feature is wrong (E110 to E118), or the time zone is (E120).
    """
    try:
        zone = Zone(tz)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise DefinitionError("E120", "the project's time zone is not in the tz database",
                              fix='write an IANA name, such as "Europe/London"') from None  # fmt: skip
    listed = list(features)
    _check_names(listed)
    bounds = {id(leaf): bind(leaf, zone) for leaf in _leaves(listed)}
    if declared is not None:
        _check_declared(bounds.values(), sorted(declared))
    # One cell per key, ordered by key: the order of declaration is not in the bytes.
    by_key = {bound.cell.key: bound for bound in reversed(bounds.values())}
    cells = [bound for _, bound in sorted(by_key.items())]
    places = {bound.cell.key: index for index, bound in enumerate(cells)}
    purposes = sorted(
        {p for bound in cells for p in bound.cell.needs} | {f.purpose for f in listed}
    )
    masks = {purpose: 1 << bit for bit, purpose in enumerate(purposes)}

    def output(feature: Feature) -> _Output:
        mask = masks.get(feature.purpose, 0)
        if feature.parts:
            parts = tuple(output(part) for part in feature.parts)
            for part in parts:
                mask |= part.mask
            named, derive = derivation(feature.aggregate, dict(feature.params))
            return _Output(feature.name, mask, -1, None, derive, parts, named)
        bound = bounds[id(feature)]
        for purpose in bound.cell.needs:
            mask |= masks[purpose]
        return _Output(feature.name, mask, places[bound.cell.key], bound.aggregate, None, ())

    return Plan(listed, cells, [output(feature) for feature in listed], purposes, zone)


def _leaves(features: Iterable[Feature], depth: int = 0) -> list[Feature]:
    """Return the stateful features, in order, parts included."""
    found: list[Feature] = []
    for feature in features:
        if not feature.parts:
            found.append(feature)
            continue
        if feature.aggregate not in DERIVED or depth >= PARTS_DEPTH_MAX:
            raise fault(feature, "E111", f"derives by `{feature.aggregate}`, which does not exist or is too deep",
                        f"use one of {', '.join(sorted(DERIVED))}")  # fmt: skip
        found += _leaves(feature.parts, depth + 1)
    return found


def _check_names(features: Sequence[Feature]) -> None:
    if len(features) > FEATURES_MAX:
        raise DefinitionError("E118", f"there are more than {FEATURES_MAX} features",
                              fix="declare only the features that are used")  # fmt: skip
    places: dict[str, str] = {}
    for feature in features:
        if not feature.name.isidentifier():
            raise fault(feature, "E118", "has a name that no template can use",
                        "name it as a Python variable")  # fmt: skip
        if feature.name in places:
            raise fault(feature, "E118", f"is declared twice, first at {places[feature.name]}",
                        "rename one of the two")  # fmt: skip
        places[feature.name] = feature.place or "another place"


def _check_declared(bounds: Iterable[Bound], declared: Sequence[str]) -> None:
    for bound in bounds:
        event = bound.feature.event
        if event not in declared:
            near = get_close_matches(event, declared, n=1)
            raise fault(bound.feature, "E110", f"folds `{event}`, which is not a declared event",
                        f"did you mean `{near[0]}`?" if near else "declare it in events.py")  # fmt: skip


def _canonical(output: _Output) -> list[Any]:
    view = "" if output.aggregate is None else output.aggregate.view()
    return [output.name, output.mask, output.cell, view, output.derived,
            [_canonical(part) for part in output.parts]]  # fmt: skip
