"""The naive, obviously right feature engine: keeps every record, computes each feature as defined.

It shares with the real engine only the declarations and the constants that the definitions name
(tile widths, the hash of caps). It has no tiles, no merge, no expiry, no generated code: a read
looks at every record. Numbers are exact fractions until the end.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from math import floor
from typing import Any, Final
from zoneinfo import ZoneInfo

from penstock.core.catalog.expr_nodes import Const, FieldRef, Node, Op
from penstock.core.feature.aggregates.decay import (
    PHASE_BITS,
    SHOWN_DIGITS,
    WEIGHT_BITS,
    weight,
)
from penstock.core.feature.aggregates.distinct import Distinct
from penstock.core.feature.aggregates.quantile import bucket, middle
from penstock.core.feature.binding import EACH_MAX
from penstock.core.feature.caps import rank
from penstock.core.feature.definition import Feature
from penstock.core.feature.expr import Amount, ItemRef
from penstock.core.feature.window import (
    TILE_WIDTHS_MS,
    TILES_PER_WINDOW,
    Lifetime,
    Sliding,
    Tumbling,
)
from penstock.core.money import minor_units
from penstock.core.record import Record
from penstock.core.time import parse_instant

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
EXACT: Final = frozenset({"last", "last_k", "exists", "recency", "last_at", "instants"})
"""Aggregates whose windows are exact to the millisecond."""
CURRENCIES_MAX: Final = 16


@dataclass(frozen=True)
class Row:
    """One event, or line item, as a feature sees it."""

    at_ms: int
    event_id: int
    value: Any
    key: Any
    group: Any


class Oracle:
    """Computes features from a list of records.

    Args:
        features: Declarations, named.
        tz: The project's time zone.
    """

    def __init__(self, features: Iterable[Feature], *, tz: str = "UTC") -> None:
        self.features = tuple(features)
        self.zone = UTC if tz == "UTC" else ZoneInfo(tz)
        self.records: list[tuple[Record, frozenset[str]]] = []

    def push(self, record: Record, permitted: frozenset[str]) -> None:
        """Keep a record with what its evidence permits; a leaf's second copy of one is ignored."""
        if all(r.event_id != record.event_id or r.leaf != record.leaf for r, _ in self.records):
            self.records.append((record, permitted))

    def read(
        self, as_of_ms: int, purged: Mapping[str, int], permitted: frozenset[str]
    ) -> tuple[dict[str, Any], tuple[str, ...]]:
        """Return the values of the features that are permitted, and the names of truncated ones."""
        values: dict[str, Any] = {}
        truncated: list[str] = []
        for feature in self.features:
            if _needs(feature) <= permitted:
                values[feature.name], cut = self._value(feature, as_of_ms, purged)
                if cut:
                    truncated.append(feature.name)
        return values, tuple(truncated)

    def _value(
        self, feature: Feature, as_of_ms: int, purged: Mapping[str, int]
    ) -> tuple[Any, bool]:
        if feature.parts:
            (one, cut_one), (other, cut_other) = (
                self._value(part, as_of_ms, purged) for part in feature.parts
            )
            if feature.aggregate == "sequence":
                value = _followed(one, other, dict(feature.params)["within_ms"])
            else:
                value = _divided(one, other)
            return value, cut_one or cut_other
        by_tile: dict[Any, list[Row]] = {}
        for row in self._rows(feature):
            tile, start_ms = self._tile(feature, row.at_ms)
            bound_ms = row.at_ms if feature.aggregate in EXACT and _untiled(feature) else start_ms
            if any(bound_ms < purged[purpose] for purpose in _needs(feature) if purpose in purged):
                continue
            if self._within(feature, row.at_ms, tile, as_of_ms):
                by_tile.setdefault(0 if _untiled(feature) else tile, []).append(row)
        tiles = list(by_tile.values())
        if feature.by is None:
            return _finish(feature, tiles, as_of_ms)
        return self._grouped(feature, tiles, as_of_ms)

    def _grouped(
        self, feature: Feature, tiles: list[list[Row]], as_of_ms: int
    ) -> tuple[dict[Any, Any], bool]:
        truncated = False
        kept_tiles: list[list[Row]] = []
        for rows in tiles:
            groups = sorted({row.group for row in rows}, key=rank)
            truncated |= len(groups) > feature.groups_max
            kept_tiles.append([row for row in rows if row.group in groups[: feature.groups_max]])
        values: dict[Any, Any] = {}
        for group in sorted({row.group for rows in kept_tiles for row in rows}):
            mine = [[row for row in rows if row.group == group] for rows in kept_tiles]
            mine = [self._recent(feature, rows, as_of_ms) for rows in mine]
            mine = [rows for rows in mine if rows]
            if mine:
                values[group], cut = _finish(feature, mine, as_of_ms)
                truncated |= cut
        return values, truncated

    @staticmethod
    def _recent(feature: Feature, rows: list[Row], as_of_ms: int) -> list[Row]:
        if feature.aggregate in EXACT and isinstance(feature.window, Sliding):
            return [row for row in rows if row.at_ms >= as_of_ms - feature.window.window_ms]
        return rows

    def _tile(self, feature: Feature, at_ms: int) -> tuple[Any, int]:
        """Return what names an instant's tile, and the tile's first instant."""
        window = feature.window
        if isinstance(window, Tumbling):
            start_ms = self._period_start_ms(window.period, at_ms)
            return start_ms, start_ms
        width_ms = _width_ms(window)
        return at_ms // width_ms, at_ms // width_ms * width_ms

    def _within(self, feature: Feature, at_ms: int, tile: Any, as_of_ms: int) -> bool:
        window = feature.window
        if isinstance(window, Lifetime):
            return True
        if isinstance(window, Tumbling):
            start_ms = self._period_start_ms(window.period, as_of_ms)
            for _ in range(window.previous):
                start_ms = self._period_start_ms(window.period, start_ms - 1)
            return tile == start_ms
        since_ms = as_of_ms - window.window_ms
        if feature.aggregate in EXACT and feature.by is None:
            return at_ms >= since_ms
        width_ms = _width_ms(window)
        return (tile + 1) * width_ms > since_ms

    def _period_start_ms(self, period: str, at_ms: int) -> int:
        local = (EPOCH + timedelta(milliseconds=at_ms)).astimezone(self.zone)
        if period == "hour":
            into = timedelta(
                minutes=local.minute, seconds=local.second, microseconds=local.microsecond
            )
            return at_ms - into // timedelta(milliseconds=1)
        day = local.date()
        if period == "week":
            day -= timedelta(days=day.weekday())
        if period == "month":
            day = date(day.year, day.month, 1)
        midnight = datetime(day.year, day.month, day.day, tzinfo=self.zone)
        return (midnight.astimezone(UTC) - EPOCH) // timedelta(milliseconds=1)

    def _rows(self, feature: Feature) -> Iterable[Row]:
        for record, permitted in self.records:
            if record.name != feature.event or not _needs(feature) <= permitted:
                continue
            if not feature.items:
                yield from _row(feature, record, {}, record.event_id)
                continue
            items = record.properties.get(feature.items)
            if isinstance(items, list):
                # Items of one event are ordered by their place, after it in the id.
                first = record.event_id - record.event_id % 1024
                objects = [item for item in items[:EACH_MAX] if isinstance(item, dict)]
                for place, item in enumerate(objects):
                    yield from _row(feature, record, item, first + place)


def _untiled(feature: Feature) -> bool:
    return (
        feature.aggregate in EXACT
        and feature.by is None
        and not isinstance(feature.window, Tumbling)
    )


def _width_ms(window: Sliding | Lifetime) -> int:
    if window.tile_ms:
        return window.tile_ms
    assert isinstance(window, Sliding), "a lifetime always has a tile"
    fitting = [width for width in TILE_WIDTHS_MS if width * TILES_PER_WINDOW <= window.window_ms]
    return max(fitting, default=min(TILE_WIDTHS_MS))


def _needs(feature: Feature) -> frozenset[str]:
    needs = {feature.purpose}
    for part in feature.parts:
        needs |= _needs(part)
    for node in (*(node for _, node in feature.value), feature.key, feature.where, feature.by):
        needs |= _purposes(node)
    return frozenset(needs)


def _purposes(node: Node | None) -> set[str]:
    if isinstance(node, FieldRef):
        return {node.purpose}
    if isinstance(node, Op):
        return {purpose for operand in node.operands for purpose in _purposes(operand)}
    return set()


def _row(feature: Feature, record: Record, item: Mapping[str, Any], event_id: int) -> Iterable[Row]:
    def evaluated(node: Node) -> Any:
        return evaluate(node, record.properties, item)

    if feature.where is not None and evaluated(feature.where) is not True:
        return
    values = [evaluated(node) for _, node in feature.value]
    if values and all(value is None for value in values):
        return
    value = values[0] if len(values) == 1 else tuple(values)
    key = None if feature.key is None else evaluated(feature.key)
    group = None if feature.by is None else evaluated(feature.by)
    if (feature.key is not None and key is None) or (feature.by is not None and group is None):
        return
    yield Row(record.occurred_at_ms, event_id, value, key, group)


def evaluate(node: Node, event: Mapping[str, Any], item: Mapping[str, Any]) -> Any:
    """Return an expression's value: int, Fraction, str, bool, (amount, currency), or None for null."""
    if isinstance(node, FieldRef):
        return _stored(node, (item if isinstance(node, ItemRef) else event).get(node.field))
    if isinstance(node, Amount):
        return (Fraction(Decimal(node.literal)), node.currency)
    if isinstance(node, Const):
        return Fraction(node.value) if isinstance(node.value, Decimal) else node.value
    assert isinstance(node, Op), "there is no other node"
    if node.op in ("and", "or"):
        one, other = (evaluate(operand, event, item) for operand in node.operands)
        decisive = node.op == "or"
        if one is decisive or other is decisive:
            return decisive
        return None if one is None or other is None else not decisive
    if node.op == "known":
        return evaluate(node.operands[0], event, item) is not None
    if node.op == "in":
        subject = evaluate(node.operands[0], event, item)
        listed = node.operands[1]
        assert isinstance(listed, Const) and isinstance(listed.value, tuple), "a list of constants"
        members = [Fraction(m) if isinstance(m, Decimal) else m for m in listed.value]
        return None if subject is None else subject in members
    values = _comparable(
        [evaluate(operand, event, item) for operand in node.operands], node.operands
    )
    return None if values is None else _OPERATIONS[node.op](*values)


def _stored(ref: FieldRef, value: Any) -> Any:
    """Return a stored value if it is of its field's kind, in its natural unit."""
    if ref.kind == "money":
        fits = isinstance(value, list) and len(value) == 2
        if not fits or type(value[0]) is not int or type(value[1]) is not str:
            return None
        return (value[0], value[1])
    kind = {"string": str, "enum": str, "boolean": bool, "strings": list, "objects": list}
    if type(value) is not kind.get(ref.kind, int):
        return None
    return Fraction(value, 10 ** (ref.scale or 0)) if ref.kind == "decimal" else value


def _comparable(values: list[Any], nodes: tuple[Node, ...]) -> list[Any] | None:
    """Return operands in one unit; None if one is null, or amounts differ in currency."""
    if any(value is None for value in values):
        return None
    scales = [node.scale for node in nodes if isinstance(node, FieldRef)]
    for place, node in enumerate(nodes):
        if isinstance(node, Amount):
            scale = scales[0] if scales else None
            minor = minor_units(node.literal, node.currency, scale=scale)
            values[place] = (minor, node.currency)
    datetimes = any(isinstance(node, FieldRef) and node.kind == "datetime" for node in nodes)
    if datetimes:
        values = [parse_instant(value) if isinstance(value, str) else value for value in values]
    amounts = [value for value in values if isinstance(value, tuple)]
    if len(amounts) == 2 and amounts[0][1] != amounts[1][1]:
        return None
    return values


def _lifted(operation: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """Return an operation on numbers that also takes amounts of money."""

    def lifted(one: Any, other: Any) -> Any:
        currency = (
            one[1] if isinstance(one, tuple) else other[1] if isinstance(other, tuple) else None
        )
        plain = operation(*(v[0] if isinstance(v, tuple) else v for v in (one, other)))
        return plain if currency is None or isinstance(plain, bool) else (plain, currency)

    return lifted


_OPERATIONS: Final[dict[str, Callable[..., Any]]] = {
    "eq": lambda a, b: a == b,
    "ne": lambda a, b: a != b,
    "lt": _lifted(lambda a, b: a < b),
    "le": _lifted(lambda a, b: a <= b),
    "gt": _lifted(lambda a, b: a > b),
    "ge": _lifted(lambda a, b: a >= b),
    "add": _lifted(lambda a, b: a + b),
    "sub": _lifted(lambda a, b: a - b),
    "mul": _lifted(lambda a, b: a * b),
    "neg": lambda a: (-a[0], a[1]) if isinstance(a, tuple) else -a,
    "not": lambda a: not a,
}


def _divided(one: Any, other: Any) -> Any:
    if isinstance(one, dict):
        return {
            key: _divided(value, other.get(key) if isinstance(other, dict) else other)
            for key, value in one.items()
        }
    if one is None or isinstance(other, dict) or not other:
        return None
    return one / other


def _shown(value: Any, names: tuple[str, ...] = ()) -> Any:
    if isinstance(value, tuple) and names:
        return {name: _shown(part) for name, part in zip(names, value, strict=True)}
    if isinstance(value, tuple):
        return {value[1]: value[0]}
    return float(value) if isinstance(value, Fraction) else value


def _finish(feature: Feature, tiles: list[list[Row]], as_of_ms: int) -> tuple[Any, bool]:
    """Return a feature's value of rows that count, by tile, and whether a cap cut something."""
    rows = sorted(
        (row for tile in tiles for row in tile), key=lambda row: (row.at_ms, row.event_id)
    )
    params = dict(feature.params)
    names = tuple(name for name, _ in feature.value) if len(feature.value) > 1 else ()
    match feature.aggregate:
        case "count":
            return len(rows), False
        case "exists":
            return bool(rows), False
        case "last_at":
            return (rows[-1].at_ms if rows else None), False
        case "recency":
            return (max(as_of_ms - rows[-1].at_ms, 0) if rows else None), False
        case "first":
            return (_shown(rows[0].value, names) if rows else None), False
        case "last":
            return (_shown(rows[-1].value, names) if rows else None), False
        case "last_k":
            return [_shown(row.value, names) for row in _last_k(rows, params)], False
        case "instants":
            k = params.get("k", 50)
            return [row.at_ms for row in rows][-k:], len(rows) > k
        case "decay" | "decay_sum":
            return _decayed(feature, rows, as_of_ms), False
        case "sessions" | "session_length" | "last_session":
            return _visits(feature, rows), False
        case "distinct" | "top_k":
            return _counted(feature.aggregate, tiles, params)
        case _:
            return _numbers(feature, tiles)


def _last_k(rows: list[Row], params: Mapping[str, Any]) -> list[Row]:
    newest: list[Row] = []
    keys: set[Any] = set()
    for row in reversed(rows):
        key = row.key if params.get("keyed") else row.value
        if params.get("distinct") and key in keys:
            continue
        keys.add(key)
        newest.append(row)
    return newest[: params.get("k", 10)]


def _followed(first: Any, then: Any, within_ms: int) -> Any:
    if isinstance(then, dict) and isinstance(first, dict):
        return {key: _followed(first[key], then[key], within_ms) for key in then if key in first}
    if isinstance(then, dict):
        return {key: _followed(first, one, within_ms) for key, one in then.items()}
    starts = [at for one in first.values() for at in one] if isinstance(first, dict) else first
    return sum(1 for end in then if any(0 < end - at <= within_ms for at in starts))


def _decayed(feature: Feature, rows: list[Row], as_of_ms: int) -> float:
    """Sum each row's weight at the read, which is rounded as the aggregate's page says."""
    half_life_ms = dict(feature.params)["half_life_ms"]

    def weighed(at_ms: int) -> Fraction:
        number, into_ms = divmod(at_ms, half_life_ms)
        return Fraction(2) ** number * weight((into_ms << PHASE_BITS) // half_life_ms)

    if not rows:
        return 0.0
    numbers = [row.value if feature.value else 1 for row in rows]
    total = sum((number * weighed(row.at_ms) for number, row in zip(numbers, rows, strict=True)),
                start=Fraction(0))  # fmt: skip
    newest_ms = max(row.at_ms // half_life_ms for row in rows) * half_life_ms
    number, into_ms = divmod(max(as_of_ms, newest_ms), half_life_ms)
    phase = (into_ms << PHASE_BITS) // half_life_ms
    back = Fraction(weight((1 << PHASE_BITS) - phase), 2) if phase else Fraction(1 << WEIGHT_BITS)
    decayed = total * back / Fraction(2) ** number / (1 << (2 * WEIGHT_BITS))
    micros = floor(decayed * 10**SHOWN_DIGITS + Fraction(1, 2))
    return float(Fraction(micros, 10**SHOWN_DIGITS))


def _visits(feature: Feature, rows: list[Row]) -> Any:
    gap_ms = dict(feature.params)["gap_ms"]
    visits: list[list[int]] = []
    for row in rows:
        if visits and row.at_ms - visits[-1][-1] < gap_ms:
            visits[-1].append(row.at_ms)
        else:
            visits.append([row.at_ms])
    if feature.aggregate == "sessions":
        return len(visits)
    if not visits:
        return None
    if feature.aggregate == "session_length":
        return sum(visit[-1] - visit[0] for visit in visits) / len(visits)
    last = visits[-1]
    return {"started_at": last[0], "ended_at": last[-1], "length_ms": last[-1] - last[0], "events": len(last)}  # fmt: skip


def _counted(name: str, tiles: list[list[Row]], params: Mapping[str, Any]) -> tuple[Any, bool]:
    if name == "distinct":
        return _distinct(tiles, params)
    cap = params.get("cap", 100)
    truncated = False
    counts: dict[Any, int] = {}
    for tile in tiles:
        values = sorted({row.value for row in tile}, key=rank)
        truncated |= len(values) > cap
        for row in tile:
            if row.value in values[:cap]:
                counts[row.value] = counts.get(row.value, 0) + 1
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[: params.get("k", 3)]
    return [{"value": value, "count": count} for value, count in ranked], truncated


def _numbers(feature: Feature, tiles: list[list[Row]]) -> tuple[Any, bool]:
    amounts = [row.value for tile in tiles for row in tile]
    money = _money(feature.value[0][1])

    def _number(numbers: list[Any]) -> Any:
        if feature.aggregate == "quantile":
            return _ranked(feature, numbers, money)
        return _moment(feature.aggregate, numbers, money)

    if not money:
        return _number(amounts), False
    truncated = False
    per_currency: dict[str, list[int]] = {}
    for tile in tiles:
        currencies = sorted({row.value[1] for row in tile}, key=rank)
        truncated |= len(currencies) > CURRENCIES_MAX
        for row in tile:
            if row.value[1] in currencies[:CURRENCIES_MAX]:
                per_currency.setdefault(row.value[1], []).append(row.value[0])
    shown = {c: _number(v) for c, v in sorted(per_currency.items())}
    return shown, truncated


def _distinct(tiles: list[list[Row]], params: Mapping[str, Any]) -> tuple[int, bool]:
    """Count; if a tile goes over its cap, estimate by the registers of all values."""
    values = {row.value for tile in tiles for row in tile}
    cap = params.get("cap", 256)
    if all(len({row.value for row in tile}) <= cap for tile in tiles):
        return len(values), False
    precision = params.get("precision", 11)
    registers = [0] * (1 << precision)
    for value in values:
        bits = f"{rank(value):064b}"
        place = int(bits[:precision], 2)
        registers[place] = max(registers[place], (bits[precision:] + "1").index("1") + 1)
    return Distinct(precision=precision).finish(bytearray(registers), 0), True


def _money(node: Node) -> bool:
    if isinstance(node, FieldRef):
        return node.kind == "money"
    return isinstance(node, Op) and any(_money(operand) for operand in node.operands)


def _ranked(feature: Feature, numbers: list[Any], money: bool) -> Any:
    """Return the number at a rank, as the middle of its bucket."""
    if not numbers:
        return None
    percent = dict(feature.params)["percent"]
    rank = -(-percent * len(numbers) // 100)
    unit = 1 if money else 10 ** _scale(feature.value[0][1])
    shown = middle(bucket(int(sorted(numbers)[rank - 1] * unit)))
    return shown if money else _shown(Fraction(shown, unit) if unit > 1 else shown)


def _scale(node: Node) -> int:
    """Return the decimal digits of an expression's value."""
    if isinstance(node, FieldRef):
        return node.scale or 0
    if not isinstance(node, Op):
        return 0
    scales = [_scale(operand) for operand in node.operands]
    return sum(scales) if node.op == "mul" else max(scales)


def _moment(name: str, numbers: list[Any], money: bool) -> Any:
    if name == "sum":
        total = sum(numbers)
        return total if money else _shown(total)
    if not numbers:
        return None
    if name == "min":
        return _shown(min(numbers))
    if name == "max":
        return _shown(max(numbers))
    mean = Fraction(sum(numbers)) / len(numbers)
    if name == "mean":
        return float(mean)
    assert name == "variance", "there is no other aggregate of numbers"
    return float(sum((Fraction(number) - mean) ** 2 for number in numbers) / len(numbers))
