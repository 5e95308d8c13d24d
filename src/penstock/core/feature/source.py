"""The fold of one event as readable Python source, generated once per plan.

A loop of closures over the same cells was measured at 1.6 times the cost: fields are loaded, and
tile indices computed, once per event here, and the simple aggregates are inlined. The text holds
only our own templates, numbers and `repr` of names; `penstock plan --source` shows it.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from penstock.core.catalog.expr_nodes import FieldRef
from penstock.core.feature import caps, expr
from penstock.core.feature.algebra import VALUE_BYTES
from penstock.core.feature.binding import EACH_MAX, Bound, Naming
from penstock.core.feature.cell import GROUP_BYTES, TILE_BYTES, place_of
from penstock.core.feature.window import Zone

Folder = Callable[[list[Any], Any, int], int]
"""Folds a record into states under a mask of purposes; returns bytes."""

ITEM_BITS = 10
assert EACH_MAX <= 1 << ITEM_BITS, "a line item's place must fit below an event's id"


class EventSource:
    """Writes the function that folds one event type.

    Args:
        event: The event's name.
        number: The function's number in the plan.
        bounds: The features that fold it, one per cell, with the cell's index.
        masks: Purpose -> its bit.
    """

    def __init__(
        self, event: str, number: int, bounds: Sequence[tuple[int, Bound]], masks: Mapping[str, int]
    ) -> None:
        self.name = f"fold_{number}"
        self.event = event
        self.namespace: dict[str, Any] = {}
        self._bounds = bounds
        self._masks = masks
        self._naming = Naming()

    def lines(self) -> list[str]:
        """Return the function's lines."""
        # Bodies first: they say which fields are needed.
        direct = self._blocks([pair for pair in self._bounds if not pair[1].feature.items])
        lists = sorted({bound.feature.items for _, bound in self._bounds} - {""})
        each = {
            items: self._blocks([pair for pair in self._bounds if pair[1].feature.items == items])
            for items in lists
        }
        tiles = dict.fromkeys(self._tile(bound) for _, bound in self._bounds)
        body = [
            "at = record.occurred_at_ms",
            "event = record.event_id",
            "get = record.properties.get",
            *self._loads(""),
            *(f"{name} = {source}" for name, source in filter(None, tiles)),
            "size = 0",
            *direct,
        ]
        for items in lists:
            body += self._each(items, each[items])
        body.append("return size")
        head = f"def {self.name}(states, record, mask):  # {self.event!r}"
        return [head, *("    " + line for line in body)]

    def _each(self, items: str, blocks: list[str]) -> list[str]:
        return [
            f"items = get({items!r})",
            "if type(items) is list:",
            # An item's id is its event's with the place in the list in the lowest bits, so that
            # items of one event have an order.
            f"    event = record.event_id >> {ITEM_BITS} << {ITEM_BITS}",
            f"    for item in items[:{EACH_MAX}]:",
            "        if type(item) is not dict:",
            "            continue",
            "        item_get = item.get",
            *("        " + line for line in self._loads(items)),
            *("        " + line for line in blocks),
            "        event += 1",
        ]

    def _loads(self, items: str) -> Iterable[str]:
        get = "item_get" if items else "get"
        for name, ref in self._naming.refs.values():
            if (ref.items if isinstance(ref, expr.ItemRef) else "") == items:
                yield f"{name} = {get}({ref.field!r})"
                yield f"if {expr.GUARDS[ref.kind].format(name)}:"
                yield f"    {name} = None"

    def _tile(self, bound: Bound) -> tuple[str, str] | None:
        if bound.cell.layout == "register":
            return None
        grid = bound.cell.grid
        return "tile_" + "_".join(map(str, grid.shape[1:])), grid.index_source()

    def _blocks(self, bounds: Sequence[tuple[int, Bound]]) -> list[str]:
        """Return the code of some cells, those of the same purposes under one `if`."""
        by_mask: dict[int, list[tuple[int, Bound]]] = {}
        for index, bound in bounds:
            mask = sum(self._masks[purpose] for purpose in bound.cell.needs)
            by_mask.setdefault(mask, []).append((index, bound))
        lines: list[str] = []
        for mask, members in sorted(by_mask.items()):
            lines.append(f"if mask & {mask} == {mask}:")
            charge = sum(charge_bytes(bound) for _, bound in members)
            lines.append(f"    size += {charge}")
            for index, bound in members:
                lines += ("    " + line for line in self._cell(index, bound))
        return lines

    def _cell(self, index: int, bound: Bound) -> list[str]:
        """Return the code that folds the event into one cell."""
        feature = bound.feature
        conditions: list[str] = []
        body: list[str] = []
        if feature.where is not None:
            conditions.append(expr.truth(feature.where, self._naming))
        if feature.key is not None:
            key = expr.value(feature.key, self._naming)
            conditions += key.conditions
        else:
            key = None
        if feature.value:
            known, whole, texts = self._value(bound)
            conditions += known
            if bound.aggregate.takes and bound.aggregate.value == "required":
                body.append(f"value = ({key.whole}, {whole})" if key else f"value = {whole}")
            if bound.aggregate.keeps_value:
                body += texts
            if key and key.type.kind in expr.TEXT and bound.aggregate.keeps_value:
                body.append(f"size += len({key.source})")
        group = ""
        if feature.by is not None:
            by = expr.value(feature.by, self._naming)
            conditions += by.conditions
            group = by.source
            if by.type.kind in expr.TEXT:
                body.append(f"size += len({group})")
        body += self._update(index, bound, group)
        comment = f"# {feature.name or feature.aggregate}"
        conditions = list(dict.fromkeys(conditions))
        if not conditions:
            return [comment, *body]
        return [comment, f"if {' and '.join(conditions)}:", *("    " + line for line in body)]

    def _value(self, bound: Bound) -> tuple[list[str], str, list[str]]:
        """Return the conditions, the source, and the text lengths of what is folded."""
        parts = [expr.value(node, self._naming) for _, node in bound.feature.value]
        if len(parts) == 1:
            part = parts[0]
            texts = [f"size += len({part.source})"] if part.type.kind in expr.TEXT else []
            return list(part.conditions), part.whole, texts
        known = " or ".join(f"({' and '.join(part.conditions) or 'True'})" for part in parts)
        sources = [
            f"({part.whole} if {' and '.join(part.conditions)} else None)"
            if not isinstance(node, FieldRef) else self._naming(node)
            for part, (_, node) in zip(parts, bound.feature.value, strict=True)
        ]  # fmt: skip
        texts = [
            f"size += 9 if {part.source} is None else len({part.source})"
            for part in parts if part.type.kind in expr.TEXT
        ]  # fmt: skip
        return [f"({known})"], f"[{', '.join(sources)}]", texts

    def _update(self, index: int, bound: Bound, group: str) -> list[str]:
        first, following = self._add(index, bound)
        if bound.cell.layout == "register":
            return [f"acc = states[{index}]", f"states[{index}] = {_next('acc', first, following)}"]
        named = self._tile(bound)
        assert named is not None, "only registers have no tiles"
        tile = named[0]
        if bound.cell.layout == "tiled":
            return [
                f"state = states[{index}]",
                "if state is None:",
                f"    states[{index}] = [{tile}, {first}]",
                f"elif state[-2] == {tile}:",
                *_replaced("state[-1]", following),
                "else:",
                f"    place = place_of(state, {tile})",
                "    acc = state[place]",
                f"    state[place] = {_next('acc', first, following)}",
            ]
        return [
            f"state = states[{index}]",
            "if state is None:",
            f"    states[{index}] = [{tile}, {{{group}: {first}}}]",
            "else:",
            f"    place = -1 if state[-2] == {tile} else place_of(state, {tile})",
            "    groups = state[place]",
            "    if groups is None:",
            f"        state[place] = {{{group}: {first}}}",
            "    else:",
            f"        acc = groups.get({group})",
            "        if acc is not None:",
            f"            groups[{group}] = {following}",
            f"        elif admits(groups, {group}, {bound.cell.groups_max}):",
            f"            groups[{group}] = {first}",
        ]

    def _add(self, index: int, bound: Bound) -> tuple[str, str]:
        inlined = bound.aggregate.inline()
        if inlined is not None:
            return inlined
        name = f"add_{index}"
        self.namespace[name] = bound.aggregate.adder()
        # One that may do without a value only asks whether it is known.
        value = "value" if bound.feature.value and bound.aggregate.value == "required" else "None"
        return f"{name}(None, {value}, at, event)", f"{name}(acc, {value}, at, event)"


def _replaced(place: str, following: str) -> list[str]:
    """Return the code that puts the next accumulator where one stands."""
    if following == "acc + 1":
        return [f"    {place} += 1"]
    return [f"    acc = {place}", f"    {place} = {following}"]


def _next(acc: str, first: str, following: str) -> str:
    if " if " in following:
        following = f"({following})"
    return f"{first} if {acc} is None else {following}"


def charge_bytes(bound: Bound) -> int:
    """Return the most that one event can add to a cell's encoded bytes, text excluded."""
    charge = bound.aggregate.charge_bytes
    parts = max(len(bound.feature.value), 1)
    if bound.cell.layout != "register":
        charge += TILE_BYTES
    if bound.cell.layout == "grouped":
        charge += GROUP_BYTES
    return charge + VALUE_BYTES * (parts - 1)


def folders(
    cells: Sequence[Bound], masks: Mapping[str, int], zone: Zone
) -> tuple[dict[str, Folder], str]:
    """Return a folder per event name, and their source.

    Args:
        cells: One bound feature per cell, in the order of the states.
        masks: Purpose -> its bit.
        zone: Calendar periods are computed with it.
    """
    by_event: dict[str, list[tuple[int, Bound]]] = {}
    for index, bound in enumerate(cells):
        by_event.setdefault(bound.feature.event, []).append((index, bound))
    namespace: dict[str, Any] = {
        "admits": caps.admits,
        "period": zone.period,
        "place_of": place_of,
    }
    texts: list[str] = []
    names: dict[str, str] = {}
    for number, event in enumerate(sorted(by_event)):
        writer = EventSource(event, number, by_event[event], masks)
        texts.append("\n".join(writer.lines()))
        namespace.update(writer.namespace)
        names[event] = writer.name
    source = "\n\n\n".join(texts) + "\n"
    exec(compile(source, "<penstock plan>", "exec"), namespace)  # noqa: S102 - our own templates
    return {event: namespace[name] for event, name in names.items()}, source
