"""What is popular now: people counted per item, across everybody, and the ranking a slot offers from.

This is not part of anybody's profile, and not part of the promise of equal bytes: a *tally* counts,
in coarse tiles of the log's own time, how many different leaves did something with an item. Counting
leaves as a set makes order, duplicates and a second reading of the log harmless, so a tally can be
rebuilt from the tail of the log in any direction. Nobody's thousandth click counts twice.

*Anonymous.* An item is in the ranking only if at least `people` different leaves are behind it.
Sets of leaves are exact up to `PEOPLE_EXACT`, which `people` cannot exceed, so an estimate never
lets through an item that too few are behind.

*Approximate.* The window is rounded up to a tile, a twelfth of it. Beyond `PEOPLE_EXACT` leaves in
a tile, numbers are HyperLogLog estimates with a standard error of 4.6 %. Of a tile's items the
`ITEMS_MAX` with the most people are kept whenever there are twice as many. A person with two leaves,
such as a browser before and after its first login, counts as two.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, TypeAlias, cast

import msgspec

from penstock.core.decision.values import as_sequence
from penstock.core.feature.aggregates.distinct import Counted, Distinct
from penstock.core.record import Record
from penstock.core.time import DAY_MS, HOUR_MS

TILES: Final = 12
ITEMS_MAX: Final = 1_000
RANKED_MAX: Final = 100
"""Items ranked in each group."""

PEOPLE_MIN: Final = 3
PEOPLE_EXACT: Final = 32
"""How many leaves of a tile are counted exactly, and the most that `people` may ask for."""

OVER_MS_MIN: Final = HOUR_MS
OVER_MS_MAX: Final = 30 * DAY_MS
ITEM_CHARS_MAX: Final = 200

Ranking: TypeAlias = Mapping[str, Sequence[str]]
"""Group -> item ids, the most popular first; the group "" is everybody's."""

Popular: TypeAlias = Mapping[str, Ranking]
"""Tally -> its ranking."""

NOTHING_POPULAR: Final[Popular] = {}

_COUNTING: Final = Distinct(cap=PEOPLE_EXACT, precision=9)

_Key: TypeAlias = tuple[str, str]
"""(group, item id)."""


class TallyRule(msgspec.Struct, frozen=True, kw_only=True):
    """What a tally counts.

    Attributes:
        event: The name of the event.
        items: The event's list whose line items are counted; empty for the event itself.
        field: The field that holds an item's id.
        group: The field to rank by separately, such as a category; empty for none.
        over_ms: The window.
        people: How many different leaves an item needs.
        purposes: What an event's evidence must permit for it to count.
    """

    event: str
    items: str = ""
    field: str
    group: str = ""
    over_ms: int
    people: int
    purposes: tuple[str, ...]


def tally_of(args: Mapping[str, Any]) -> TallyRule:
    """Return the rule in the arguments of a `popular` source."""
    names = [one for one in TallyRule.__struct_fields__ if one in args]
    return msgspec.convert({name: args[name] for name in names}, TallyRule)


def tallies_of(sources: Iterable[tuple[str, Mapping[str, Any]]]) -> dict[str, TallyRule]:
    """Return the rules that some sources read, by name.

    Args:
        sources: Kind and arguments of each.
    """
    return {args["tally"]: tally_of(args) for kind, args in sources if kind == "popular"}


def tally_name(rule: TallyRule) -> str:
    """Return what a rule is known by: equal rules, equal names."""
    return msgspec.json.encode(rule).decode()


def tally_fault(args: Mapping[str, Any]) -> str:
    """Return what is wrong with the arguments of a `popular` source, or nothing."""
    over_ms, people, groups = args.get("over_ms"), args.get("people"), args.get("groups", 1)
    if not isinstance(over_ms, int) or not OVER_MS_MIN <= over_ms <= OVER_MS_MAX:
        return "looks back over less than an hour or more than 30 days"
    if not isinstance(people, int) or not PEOPLE_MIN <= people <= PEOPLE_EXACT:
        return f"needs between {PEOPLE_MIN} and {PEOPLE_EXACT} people behind an item"
    if not isinstance(groups, int) or not 1 <= groups <= 10:
        return "takes between 1 and 10 groups"
    if bool(args.get("feature")) and not args.get("group"):
        return "ranks by a feature's groups: say by which field they are counted, `by=`"
    return ""


class Tally:
    """How many leaves did something with each item lately; of one partition, and mutable.

    Args:
        rule: What is counted.
    """

    def __init__(self, rule: TallyRule) -> None:
        self.rule = rule
        self.tile_ms = rule.over_ms // TILES
        self.tiles: dict[int, dict[_Key, Counted]] = {}

    def add(self, record: Record, logged_at_ms: int) -> None:
        """Count a primary record, which its evidence permits to count.

        Args:
            record: Of the rule's event; counted twice, it counts once.
            logged_at_ms: The log's stamp, which nobody who sends events can choose.
        """
        rule = self.rule
        sources: Sequence[Any] = (record.properties,)
        if rule.items:
            sources = as_sequence(record.properties.get(rule.items)) or ()
        hashed = int.from_bytes(record.leaf[:8], "big")
        for source in sources:
            if not isinstance(source, dict):
                continue
            fields = cast("dict[str, Any]", source)
            item, group = fields.get(rule.field), fields.get(rule.group) if rule.group else ""
            if not isinstance(group, str) or bool(group) is not bool(rule.group):
                continue
            if isinstance(item, str) and 0 < len(item) <= ITEM_CHARS_MAX:
                self._count((group, item), logged_at_ms // self.tile_ms, hashed)

    def _count(self, key: _Key, index: int, hashed: int) -> None:
        tile = self.tiles.setdefault(index, {})
        tile[key] = _COUNTING.add_hash(tile.get(key), hashed)
        if len(tile) > 2 * ITEMS_MAX:
            kept = sorted(tile, key=lambda one: (-_COUNTING.finish(tile[one], 0), one))[:ITEMS_MAX]
            self.tiles[index] = {one: tile[one] for one in kept}

    def expire(self, as_of_ms: int) -> None:
        """Forget the tiles that no ranking from now on reads."""
        floor = self.floor(as_of_ms)
        for index in [index for index in self.tiles if index < floor]:
            del self.tiles[index]

    def floor(self, as_of_ms: int) -> int:
        """Return the oldest tile that a ranking reads: the one in which the window begins."""
        return (as_of_ms - self.rule.over_ms) // self.tile_ms


def ranking_of(tallies: Sequence[Tally], as_of_ms: int) -> Ranking:
    """Return the ranking of one rule's tallies of all partitions.

    Laws:
        No item is in it that fewer than `people` different leaves did something with.
    """
    behind: dict[_Key, list[Counted]] = {}
    for tally in tallies:
        floor = tally.floor(as_of_ms)
        for index, tile in tally.tiles.items():
            if index >= floor:
                for key, counted in tile.items():
                    behind.setdefault(key, []).append(counted)
    everybody: dict[str, list[Counted]] = {}
    for (group, item), parts in behind.items():
        if group:
            everybody.setdefault(item, []).extend(parts)
    counted = {key: _people(parts) for key, parts in behind.items()}
    counted.update({("", item): _people(parts) for item, parts in everybody.items()})
    least = tallies[0].rule.people if tallies else 0
    ranked: dict[str, list[tuple[int, str]]] = {}
    for (group, item), people in counted.items():
        if people >= least:
            ranked.setdefault(group, []).append((-people, item))
    return {group: [item for _, item in sorted(found)[:RANKED_MAX]] for group, found in ranked.items()}  # fmt: skip


def _people(parts: Sequence[Counted]) -> int:
    joined = parts[0] if len(parts) == 1 else _COUNTING.join(parts)
    # An estimate stands for more than were counted exactly, however low it comes out.
    return max(_COUNTING.finish(joined, 0), PEOPLE_EXACT + 1 if _COUNTING.truncated(joined) else 0)
