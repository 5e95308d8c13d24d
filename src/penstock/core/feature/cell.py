"""A cell: the state of one aggregate over one window in one leaf, and all that is done to it.

A state has one of three layouts; None is the state that nothing was folded into:

    register   an accumulator that carries its own time                    acc
    tiled      one accumulator per tile                                    [tile, acc, …]
    grouped    one per tile and group, groups capped (`caps.py`)           [tile, {group: acc}, …]

Tiles ascend. A flat list is a third of a dict in memory, and as it is stored; nearly every event
falls into the last tile, which is found without a search.

What expiry and purges take away is decided by one number, the floor: an instant for registers, a
tile's index otherwise. So a projection is the same whether it happens now or at the end.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, cast

from penstock.core.feature import caps
from penstock.core.feature.algebra import Aggregate
from penstock.core.feature.window import FOREVER, FixedGrid, Grid

TILE_BYTES: Final = 6
GROUP_BYTES: Final = 6


def pairs_of(state: list[Any]) -> Iterator[tuple[int, Any]]:
    """Return the tiles of a state with what stands there, ascending."""
    return zip(state[::2], state[1::2], strict=True)


def first_from(state: list[Any], tile: int) -> int:
    """Return the place of the first tile that is `tile` or later; the state's length if none is."""
    low, high = 0, len(state) // 2
    while low < high:
        middle = (low + high) // 2
        if state[2 * middle] < tile:
            low = middle + 1
        else:
            high = middle
    return 2 * low


def place_of(state: list[Any], tile: int) -> int:
    """Return the place of a tile's accumulator; a tile that is not there yet is put there with None."""
    place = first_from(state, tile) if state[-2] >= tile else len(state)
    if place == len(state) or state[place] != tile:
        state[place:place] = (tile, None)
    return place + 1


def _tile_of(pair: tuple[int, Any]) -> int:
    return pair[0]


class Cell:
    """One aggregate over one window.

    Args:
        key: The canonical text of what it folds; equal keys share one cell.
        aggregate: The bound aggregate.
        grid: The tiles.
        groups_max: The cap on groups per tile; None if it is not grouped.
        needs: The purposes that must all be permitted.
    """

    __slots__ = (
        "_plain",
        "_plain_back",
        "_tile_bytes",
        "aggregate",
        "grid",
        "groups_max",
        "key",
        "layout",
        "needs",
    )

    def __init__(
        self,
        key: str,
        aggregate: Aggregate,
        grid: Grid,
        groups_max: int | None,
        needs: tuple[str, ...],
    ) -> None:
        self.key = key
        self.aggregate = aggregate
        self.grid = grid
        self.groups_max = groups_max
        self.needs = needs
        if groups_max is not None:
            self.layout = "grouped"
        elif aggregate.own_time and isinstance(grid, FixedGrid):
            self.layout = "register"
        else:
            self.layout = "tiled"
        self._plain = type(aggregate).encode is Aggregate.encode
        """An accumulator is its own encoding."""
        self._plain_back = type(aggregate).decode is Aggregate.decode
        # Where every accumulator is charged the same, a leaf is measured without a look at them.
        fixed = type(aggregate).size_bytes is Aggregate.size_bytes
        self._tile_bytes = TILE_BYTES + aggregate.charge_bytes if fixed else 0

    def floor(self, clock_ms: int, purged: Mapping[str, int]) -> int:
        """Return the oldest instant (of a register) or tile that lives.

        Args:
            clock_ms: T of the leaf.
            purged: Purpose -> `purged_before`.
        """
        register = self.layout == "register"
        grid = self.grid
        floor = grid.since_ms(clock_ms) if register else grid.live_from(clock_ms)
        if purged:
            for purpose in self.needs:
                purged_ms = purged.get(purpose)
                if purged_ms is not None:
                    floor = max(floor, purged_ms if register else grid.kept_from(purged_ms))
        return floor

    def projected(self, state: Any, floor: int) -> Any:
        """Return the live part of a state, which may share structure with it; None if none."""
        if self.layout == "register":
            return state if floor == FOREVER else self.aggregate.since(state, floor)
        if state[0] >= floor:
            return state
        return state[first_from(state, floor) :] or None

    def encode(self, state: Any, floor: int) -> Any:
        """Return the live part of a state as msgpack holds it, `[tile, acc, …]`; None if none.

        Args:
            state: A state, projected or not.
            floor: From `floor`.
        """
        layout, encode = self.layout, self.aggregate.encode
        if layout == "register":
            acc = state if floor == FOREVER else self.aggregate.since(state, floor)
            return acc if self._plain or acc is None else encode(acc)
        live = state if state[0] >= floor else state[first_from(state, floor) :]
        if layout == "grouped":
            one = None if self._plain else encode
            return [
                caps.encoded(entry, one) if place & 1 else entry for place, entry in enumerate(live)
            ] or None
        if self._plain:
            return live or None
        return [encode(entry) if place & 1 else entry for place, entry in enumerate(live)] or None

    def decode(self, raw: Any) -> Any:
        """Return the state of its encoding, which may be kept."""
        decode = self.aggregate.decode
        if self.layout == "register":
            return decode(raw)
        if type(raw) is not list:
            raise TypeError("tiles are a list")
        tiles = cast("list[Any]", raw)
        if self.layout == "grouped":
            for place in range(1, len(tiles), 2):
                tiles[place] = caps.decoded(tiles[place], decode)
        elif not self._plain_back:
            for place in range(1, len(tiles), 2):
                tiles[place] = decode(tiles[place])
        return tiles

    def size_bytes(self, state: Any) -> int:
        """Return an estimate of a state's encoded bytes."""
        size = self.aggregate.size_bytes
        if self.layout == "register":
            return size(state)
        if self.layout == "tiled":
            if self._tile_bytes:
                return self._tile_bytes * (len(state) // 2)
            return TILE_BYTES * (len(state) // 2) + sum(map(size, state[1::2]))
        return sum(
            TILE_BYTES
            + sum(
                GROUP_BYTES + (len(group) if isinstance(group, str) else 0) + size(acc)
                for group, acc in groups.items()
                if group is not caps.TRUNCATED
            )
            for groups in state[1::2]
        )

    def merge(self, states: Sequence[Any]) -> Any:
        """Return a new state of several, none of them None, that shares nothing with them."""
        aggregate = self.aggregate
        if self.layout == "register":
            merged = aggregate.copy(states[0])
            for state in states[1:]:
                merged = aggregate.merge(merged, state)
            return merged
        if len(states) == 1:
            return [
                self._copied(entry) if place & 1 else entry for place, entry in enumerate(states[0])
            ]
        tiles: dict[int, Any] = {}
        for state in states:
            for tile, acc in pairs_of(state):
                standing = tiles.get(tile)
                tiles[tile] = self._copied(acc) if standing is None else self._both(standing, acc)
        return [entry for pair in sorted(tiles.items(), key=_tile_of) for entry in pair]

    def _copied(self, acc: Any) -> Any:
        if self.groups_max is None:
            return self.aggregate.copy(acc)
        copy = self.aggregate.copy
        return {g: a if g is caps.TRUNCATED else copy(a) for g, a in acc.items()}

    def _both(self, one: Any, other: Any) -> Any:
        if self.groups_max is None:
            return self.aggregate.merge(one, other)
        return caps.merged((one, other), self._merge_or_copy, self.groups_max)

    def _merge_or_copy(self, one: Any, other: Any) -> Any:
        return self.aggregate.copy(other) if one is None else self.aggregate.merge(one, other)

    def window(self, state: Any, as_of_ms: int, floor: int) -> tuple[Any, bool]:
        """Return what a read counts, and whether a cap left something out.

        Args:
            state: A state, projected or not; None if nothing was folded.
            as_of_ms: The end of the window.
            floor: From `floor`.

        Returns:
            An accumulator or None; for a grouped cell a dict of them by group, ascending.
        """
        grouped = self.layout == "grouped"
        if state is None:
            return ({} if grouped else None), False
        since_ms = self.grid.since_ms(as_of_ms)
        if self.layout == "register":
            acc = self._since(state, max(since_ms, floor))
            return acc, acc is not None and self.aggregate.truncated(acc)
        first, last = self.grid.read_range(as_of_ms)
        first = max(first, floor)
        tiles: list[Any] = state[1::2]
        if state[0] < first or (last is not None and state[-2] > last):
            tiles = [
                acc for tile, acc in pairs_of(state)
                if tile >= first and (last is None or tile <= last)
            ]  # fmt: skip
        if not grouped:
            return self._joined(tiles, since_ms)
        truncated = any(caps.TRUNCATED in groups for groups in tiles)
        gathered: dict[Any, list[Any]] = {}
        for groups in tiles:
            for group, acc in groups.items():
                if group is not caps.TRUNCATED:
                    gathered.setdefault(group, []).append(acc)
        joined: dict[Any, Any] = {}
        for group in sorted(gathered):
            acc, cut = self._joined(gathered[group], since_ms)
            if acc is not None:
                joined[group] = acc
                truncated = truncated or cut
        return joined, truncated

    def _joined(self, accs: list[Any], since_ms: int) -> tuple[Any, bool]:
        if not accs:
            return None, False
        acc = accs[0] if len(accs) == 1 else self.aggregate.join(accs)
        if self.aggregate.own_time:
            acc = self._since(acc, since_ms)
        return acc, acc is not None and self.aggregate.truncated(acc)

    def _since(self, acc: Any, floor_ms: int) -> Any:
        return acc if floor_ms == FOREVER else self.aggregate.since(acc, floor_ms)
