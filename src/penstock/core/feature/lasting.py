"""How long what was read stays true: until a tile, an entry or a calendar period leaves its window.

A read that is asked again before that instant, of a leaf that has folded nothing since, gives the
same values, but for those that move with `as_of` itself, such as the time since the last view.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final, NamedTuple

from penstock.core.feature import caps
from penstock.core.feature.cell import Cell, first_from
from penstock.core.feature.window import FixedGrid

ALWAYS: Final = 1 << 62
"""After every instant: what lasts until something new is folded."""


class Lasting(NamedTuple):
    """The values that a read returned, and for how long they hold.

    Laws:
        `values`, with each of `moving` called, equal `Plan.read` at every `as_of` from the one read
        until before `until_ms`, as long as the states stay as they are.
    """

    values: dict[str, Any]
    until_ms: int
    moving: dict[str, Callable[[int], Any]]
    """Features whose value moves with `as_of`: from an `as_of` to the value then."""


class Reader:
    """Reads the outputs of a plan from one person's states as of an instant.

    Args:
        cells: The plan's cells.
        states: A state a cell.
        floors: What lives of each.
        as_of_ms: The end of every window.
    """

    def __init__(
        self, cells: Sequence[Cell], states: Sequence[Any], floors: Sequence[int], as_of_ms: int
    ) -> None:
        self.until_ms = ALWAYS
        self._cells = cells
        self._states = states
        self._floors = floors
        self._as_of_ms = as_of_ms
        self._windows: dict[int, tuple[Any, bool]] = {}

    def value(self, output: Any) -> tuple[Any, Callable[[int], Any] | None]:
        """Return an output's value, and what computes it anew if it moves with `as_of`."""
        if output.derive is not None:
            return self._derived(output)
        place: int = output.cell
        cell, finish = self._cells[place], output.aggregate.finish
        if place not in self._windows:
            self._windows[place] = self._window(place)
        acc, lasts = self._windows[place]
        value = _finished(cell, finish, acc, self._as_of_ms)
        if lasts and not output.aggregate.moves:
            return value, None
        state, floor = self._states[place], self._floors[place]

        def finished(as_of_ms: int) -> Any:
            return _finished(cell, finish, acc, as_of_ms)

        def windowed(as_of_ms: int) -> Any:
            return _finished(cell, finish, cell.window(state, as_of_ms, floor)[0], as_of_ms)

        if not lasts:
            return value, windowed
        # The commonest, such as a recency: as few calls as can be.
        return value, finished if cell.layout == "grouped" else partial(finish, acc)

    def _window(self, place: int) -> tuple[Any, bool]:
        cell, state, floor = self._cells[place], self._states[place], self._floors[place]
        acc, _ = cell.window(state, self._as_of_ms, floor)
        until_ms = lasts_until(cell, state, self._as_of_ms, floor)
        if until_ms <= self._as_of_ms:
            return acc, False
        self.until_ms = min(self.until_ms, until_ms)
        return acc, True

    def _derived(self, output: Any) -> tuple[Any, Callable[[int], Any] | None]:
        parts = [self.value(part) for part in output.parts]
        derive = output.derive
        value = derive(*(part for part, _ in parts))
        if all(later is None for _, later in parts):
            return value, None

        def later_value(as_of_ms: int) -> Any:
            return derive(*(part if later is None else later(as_of_ms) for part, later in parts))

        return value, later_value


def _finished(cell: Cell, finish: Callable[[Any, int], Any], acc: Any, as_of_ms: int) -> Any:
    if cell.layout == "grouped":
        groups: Mapping[Any, Any] = acc
        return {group: finish(one, as_of_ms) for group, one in groups.items()}
    return finish(acc, as_of_ms)


def lasts_until(cell: Cell, state: Any, as_of_ms: int, floor: int) -> int:
    """Return the first later `as_of` at which `Cell.window` may return something else.

    Args:
        cell: The cell.
        state: Its state; None if nothing was folded.
        as_of_ms: The `as_of` that was read.
        floor: From `Cell.floor`.

    Returns:
        An instant, `ALWAYS`, or `as_of_ms` itself if it is not known.
    """
    if state is None:
        return ALWAYS
    grid = cell.grid
    if not isinstance(grid, FixedGrid):
        return grid.steady_until(as_of_ms)
    if grid.window_ms is None:
        return ALWAYS
    since_ms = as_of_ms - grid.window_ms
    if cell.layout == "register":
        return _oldest_leaves(cell, [state], max(since_ms, floor), grid.window_ms)
    first = max(grid.live_from(as_of_ms), floor)
    oldest = first_from(state, first)
    if oldest == len(state):
        return ALWAYS
    until_ms = (state[oldest] + 1) * grid.width_ms + grid.window_ms
    if cell.aggregate.own_time:
        accs = [acc for tile in state[oldest + 1 :: 2] for acc in _accumulators(cell, tile)]
        until_ms = min(until_ms, _oldest_leaves(cell, accs, since_ms, grid.window_ms))
    return until_ms


def _accumulators(cell: Cell, tile: Any) -> list[Any]:
    if cell.layout != "grouped":
        return [tile]
    return [acc for group, acc in tile.items() if group is not caps.TRUNCATED]


def _oldest_leaves(cell: Cell, accs: Sequence[Any], since_ms: int, window_ms: int) -> int:
    """Return when the first entry of some accumulators that carry their own time is too old."""
    aggregate = cell.aggregate
    until_ms = ALWAYS
    for acc in accs:
        kept = aggregate.since(acc, since_ms)
        if kept is not None:
            oldest_ms = aggregate.oldest_ms(kept)
            if oldest_ms is None:
                return -ALWAYS
            until_ms = min(until_ms, oldest_ms + window_ms + 1)
    return until_ms
