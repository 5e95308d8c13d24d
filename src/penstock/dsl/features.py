"""Declare features: `class Shopper(Profile): views_7d = count(product_viewed, over=days(7))`.

    from penstock.dsl.features import Profile, count, days, each, last_k, lifetime, ratio, sum_

    bought = each(order_completed, "products")

    class Shopper(Profile):
        views_7d = count(product_viewed, over=days(7))
        seen = last_k(product_viewed.product_id, k=5, distinct=True)
        spent = sum_(order_completed.total, where=order_completed.coupon.known())
        units = sum_(bought.quantity, by=bought.category)
        conversion = ratio(count(order_completed), count(product_viewed))

The first argument says what is folded: an event, one of its fields, an expression over them, or a
tuple of fields. Every feature also takes `over=` (a window; lifetime unless given), `where=` (a
condition), `by=` (a field to group by), `groups_max=`, `purpose=` and `description=`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from dataclasses import replace
from difflib import get_close_matches
from typing import Any, ClassVar, Final, TypeAlias, cast

from penstock.core.catalog.expr_nodes import FieldRef, Node
from penstock.core.catalog.schema import EventType, Field, NoSuchField, field_ref
from penstock.core.errors import DefinitionError
from penstock.core.feature.aggregates.decay import HALF_LIVES
from penstock.core.feature.algebra import REGISTRY
from penstock.core.feature.definition import DEFAULT_PURPOSE, GROUPS_MAX, Feature
from penstock.core.feature.expr import Amount, refs, with_items
from penstock.core.feature.plan import Plan, plan_of
from penstock.core.feature.window import Lifetime, Sliding, Tumbling, Window
from penstock.core.time import DAY_MS, HOUR_MS, MINUTE_MS

__all__ = [
    "Feature", "Items", "Profile", "aggregate", "amount", "compile_plan", "count", "days", "decay",
    "distinct", "each", "exists", "first", "hours", "instants", "last", "last_at", "last_k",
    "last_session", "lifetime", "max_", "mean", "min_", "minutes", "quantile", "ratio", "recency",
    "sequence", "session_length", "sessions", "sum_", "top_k", "tumbling", "variance",
]  # fmt: skip


class Items:
    """The line items of an event; its attributes are their fields. Made by `each`."""

    __slots__ = ("event", "fields", "items")

    def __init__(self, event: EventType, items: str, fields: dict[str, Field]) -> None:
        self.event = event
        self.items = items
        self.fields = fields

    def __getitem__(self, name: str) -> FieldRef:
        """Return the reference to a field of the items.

        Raises:
            NoSuchField: They have no such field (E102).
        """
        declared = self.fields.get(name)
        if declared is None:
            near = get_close_matches(name, self.fields, n=1)
            raise NoSuchField("E102", f"items `{self.items}` of event `{self.event.name}` have no field `{name}`",
                              fix=f"did you mean `{near[0]}`?" if near else f"declare `{name}` in them",
                              where=f"event `{self.event.name}`")  # fmt: skip
        return with_items(field_ref(self.event.name, declared), self.items)

    def __getattr__(self, name: str) -> FieldRef:
        if name.startswith("_"):
            raise AttributeError(name)
        return self[name]


Source: TypeAlias = EventType | Items | Node | tuple[FieldRef, ...]
"""What a feature folds."""

_WEEK: Final = Sliding(7 * DAY_MS)
_HALF_AN_HOUR: Final = Sliding(30 * MINUTE_MS)


class Profile:
    """What is known of a person: subclass it, and each attribute that is a feature becomes one.

    Attributes:
        features: The features declared, inherited ones first.
    """

    features: ClassVar[tuple[Feature, ...]] = ()

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        named = {feature.name: feature for base in reversed(cls.__bases__)
                 for feature in getattr(base, "features", ())}  # fmt: skip
        for name, declared in list(vars(cls).items()):
            if name == "features" and isinstance(declared, Feature):
                raise DefinitionError("E118", "a feature is called `features`, which is taken",
                                      fix="rename it", where=declared.place)  # fmt: skip
            if isinstance(declared, Feature):
                named[name] = replace(declared, name=name)
                setattr(cls, name, named[name])
        cls.features = tuple(named.values())


def compile_plan(
    profiles: type[Profile] | Iterable[type[Profile]],
    *,
    tz: str = "UTC",
    declared: Iterable[str] | None = None,
) -> Plan:
    """Return the plan of profile classes.

    Args:
        profiles: One class or several; a feature that several inherit counts once.
        tz: The project's time zone, for calendar periods.
        declared: The names of declared events, to check against; None: not checked.

    Raises:
        DefinitionError: A feature is wrong (E110 to E120).
    """
    classes = [profiles] if isinstance(profiles, type) else list(profiles)
    found: dict[int, Feature] = {}
    for profile in classes:
        found.update((id(feature), feature) for feature in profile.features)
    return plan_of(found.values(), tz=tz, declared=declared)


def each(event: EventType, items: str) -> Items:
    """Return the line items of an event, to be folded one by one.

    Args:
        event: A declared event.
        items: Its field of kind `objects`.

    Raises:
        DefinitionError: The event has no such field (E102), or it is no list of objects (E117).
    """
    ref = event[items]
    if ref.kind != "objects":
        raise DefinitionError("E117", f"field `{items}` of event `{event.name}` is no list of objects",
                              fix="name a field declared with `objects(…)`", where=_place())  # fmt: skip
    fields = {field.name: field for field in event.fields[items].fields}
    return Items(event, items, fields)


def amount(literal: str | int, currency: str) -> Amount:
    """Return money to compare with, such as fifty pounds: `amount("50.00", "GBP")`."""
    return Amount(str(literal), currency)


def days(number: int, *, tile: Sliding | None = None) -> Sliding:
    """Return "the last days". Tiles are at most 1/168 of a window unless `tile` says how wide."""
    return _sliding(number * DAY_MS, tile)


def hours(number: int, *, tile: Sliding | None = None) -> Sliding:
    """Return "the last hours"."""
    return _sliding(number * HOUR_MS, tile)


def minutes(number: int, *, tile: Sliding | None = None) -> Sliding:
    """Return "the last minutes"."""
    return _sliding(number * MINUTE_MS, tile)


def _sliding(window_ms: int, tile: Sliding | None) -> Sliding:
    return Sliding(window_ms, tile.window_ms if tile else 0)


def lifetime(*, tile: Sliding | None = None) -> Lifetime:
    """Return "everything". Tiles of a day, or wider, bound what a withdrawal of consent takes along."""
    return Lifetime(tile.window_ms) if tile else Lifetime()


def tumbling(period: str, *, previous: int = 0) -> Tumbling:
    """Return a calendar "hour", "day", "week" or "month" in the project's time zone.

    Args:
        period: Its length.
        previous: 0 for the current one, 1 for the one before, and so on.
    """
    return Tumbling(period, previous)


def aggregate(  # noqa: PLR0913 - keywords that authors write
    name: str,
    source: Source,
    *,
    over: Window | None = None,
    where: Node | None = None,
    by: Node | None = None,
    groups_max: int = GROUPS_MAX,
    distinct_by: Node | None = None,
    purpose: str = DEFAULT_PURPOSE,
    description: str = "",
    **params: Any,
) -> Feature:
    """Return a feature of any registered aggregate; the functions below are this with a name.

    Args:
        name: The aggregate's name.
        source: What is folded.
        over: The window.
        where: Only events for which this is true count.
        by: Group by this field: the feature is then a dict from group to value.
        groups_max: Groups kept per tile, by smallest hash; the feature says truncated beyond.
        distinct_by: For `last_k`: keep the newest of each value of this field.
        purpose: What the feature may be used for; the purposes of its fields are needed too.
        description: For the generated reference.
        params: The aggregate's parameters.

    Raises:
        DefinitionError: The source or the window is none (E117, E112).
    """
    place = _place()
    if distinct_by is not None:
        params |= {"distinct": True, "keyed": True}
    event, items, value = _source(source, (distinct_by, where, by), place)
    if over is not None and not isinstance(over, Window):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise DefinitionError("E112", f"`over=` of `{name}` is no window", where=place,
                              fix='use days(7), hours(1), lifetime() or tumbling("day")')  # fmt: skip
    for role, node in (("where", where), ("by", by), ("distinct_by", distinct_by)):
        if node is not None and not isinstance(node, Node):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise DefinitionError("E117", f"`{role}=` of `{name}` is no expression over fields",
                                  fix="use fields, such as `product_viewed.price`", where=place)  # fmt: skip
    return Feature(
        aggregate=name, event=event, items=items, value=value, key=distinct_by, where=where, by=by,
        groups_max=groups_max, window=over or Lifetime(), params=tuple(sorted(params.items())),
        purpose=purpose, description=description, place=place,
    )  # fmt: skip


def _source(
    source: object, others: Iterable[object], place: str
) -> tuple[str, str, tuple[tuple[str, Node], ...]]:
    """Return the event, the items and the values that a source names."""
    if isinstance(source, EventType):
        return source.name, _items_of(others), ()
    if isinstance(source, Items):
        return source.event.name, source.items, ()
    parts = cast("tuple[object, ...]", source) if isinstance(source, tuple) else (source,)
    named: list[tuple[str, Node]] = []
    for part in parts:
        if not isinstance(part, Node) or not refs(part):
            raise DefinitionError("E117", "a feature folds something that is no event and no field",
                                  fix="name an event, such as `product_viewed`, or a field of it",
                                  where=place)  # fmt: skip
        named.append((part.field if isinstance(part, FieldRef) else "value", part))
    read = [ref for _, node in named for ref in refs(node)]
    return read[0].event, _items_of((*parts, *others)), tuple(named)


def _items_of(nodes: Iterable[object]) -> str:
    found = (
        getattr(ref, "items", "") for node in nodes if isinstance(node, Node) for ref in refs(node)
    )
    return next((items for items in found if items), "")


def _place() -> str:
    """Return the file and line of the first caller outside this module."""
    frame = sys._getframe(1)  # pyright: ignore[reportPrivateUsage]
    while frame.f_back is not None and frame.f_globals.get("__name__") == __name__:
        frame = frame.f_back
    return f"{frame.f_code.co_filename.replace(chr(92), '/').rsplit('/', 1)[-1]}:{frame.f_lineno}"


def count(source: Source, **options: Any) -> Feature:
    """Return how many events; of a field, in how many it is known."""
    return aggregate("count", source, **options)


def sum_(source: Source, **options: Any) -> Feature:
    """Return the sum of a number; of money, `{"GBP": minor units}`."""
    return aggregate("sum", source, **options)


def min_(source: Source, **options: Any) -> Feature:
    """Return the smallest number or earliest instant; of money, per currency."""
    return aggregate("min", source, **options)


def max_(source: Source, **options: Any) -> Feature:
    """Return the greatest number or latest instant; of money, per currency."""
    return aggregate("max", source, **options)


def mean(source: Source, **options: Any) -> Feature:
    """Return the mean of a number, from exact sums; None of nothing."""
    return aggregate("mean", source, **options)


def variance(source: Source, **options: Any) -> Feature:
    """Return the population variance of a number, from exact sums; None of nothing."""
    return aggregate("variance", source, **options)


def first(source: Source, **options: Any) -> Feature:
    """Return the value in the first event that has it; of a tuple of fields, a dict."""
    return aggregate("first", source, **options)


def last(source: Source, **options: Any) -> Feature:
    """Return the value in the last event that has it; of a tuple of fields, a dict."""
    return aggregate("last", source, **options)


def last_k(source: Source, **options: Any) -> Feature:
    """Return the values in the `k=` last events, newest first.

    With `distinct=True` each value once; with `distinct_by=` a field, each value of it once.
    """
    return aggregate("last_k", source, **options)


def top_k(source: Source, **options: Any) -> Feature:
    """Return the `k=` most frequent values: `[{"value": "shoes", "count": 5}, …]`."""
    return aggregate("top_k", source, **options)


def distinct(source: Source, **options: Any) -> Feature:
    """Return how many distinct values: exact up to `cap=` of them in a tile, then an estimate.

    The estimate has a standard error of 2.3 %, or what `precision=` makes of it.
    """
    return aggregate("distinct", source, **options)


def decay(source: Source, *, half_life: Sliding = _WEEK, **options: Any) -> Feature:
    """Return a count of events, or a sum of a number, that halves with every `half_life`.

    What is older than 32 half-lives is left out, unless `over=` says otherwise.
    """
    half_life_ms = _span_ms("half_life", half_life)
    options.setdefault("over", Sliding(half_life_ms * HALF_LIVES))
    name = "decay" if isinstance(source, EventType | Items) else "decay_sum"
    return aggregate(name, source, half_life_ms=half_life_ms, **options)


def quantile(source: Source, *, percent: int = 50, **options: Any) -> Feature:
    """Return the number that `percent` of all are at or below, within 1.6 %; 50 is the median."""
    return aggregate("quantile", source, percent=percent, **options)


def sessions(source: Source, *, gap: Sliding = _HALF_AN_HOUR, **options: Any) -> Feature:
    """Return how many sessions: runs of events that are closer to each other than `gap`."""
    return aggregate("sessions", source, gap_ms=_span_ms("gap", gap), **options)


def session_length(source: Source, *, gap: Sliding = _HALF_AN_HOUR, **options: Any) -> Feature:
    """Return how long sessions are on average, in ms from first to last event."""
    return aggregate("session_length", source, gap_ms=_span_ms("gap", gap), **options)


def last_session(source: Source, *, gap: Sliding = _HALF_AN_HOUR, **options: Any) -> Feature:
    """Return the last session: `{"started_at": …, "ended_at": …, "length_ms": …, "events": …}`."""
    return aggregate("last_session", source, gap_ms=_span_ms("gap", gap), **options)


def instants(source: Source, **options: Any) -> Feature:
    """Return when the `k=` last events occurred, in ms since 1970 UTC, the earliest first."""
    return aggregate("instants", source, **options)


def sequence(
    first: Source | Feature,
    then: Source | Feature,
    *,
    within: Sliding,
    over: Window | None = None,
    purpose: str = DEFAULT_PURPOSE,
    description: str = "",
) -> Feature:
    """Return how many events followed another within a time: "ordered within an hour of a view".

    It is computed when read, from the last instants of both: each `then` counts once if a `first`
    came before it, at most `within` earlier. Of two at the same millisecond neither came before.
    When there were more instants than are kept, the feature says truncated.

    Args:
        first: What comes first: an event or a field, or `instants(…)` to filter, group or keep more.
        then: What follows it. When both are grouped, the sequences are counted per group.
        within: The longest time from one to the other, such as `hours(1)`.
        over: The window of both; not for what is given as `instants(…)`.
        purpose: What the feature may be used for; the purposes of its parts are needed too.
        description: For the generated reference.

    Raises:
        DefinitionError: A part is no source and no `instants(…)` (E117), or `within` no time (E112).
    """
    place = _place()
    parts: list[Feature] = []
    for part in (first, then):
        if not isinstance(part, Feature):
            parts.append(replace(aggregate("instants", part, over=over, purpose=purpose), place=place))  # fmt: skip
        elif part.aggregate == "instants" and over is None:
            parts.append(part)
        else:
            raise DefinitionError("E117", "a sequence of something that is no event and no `instants(…)`",
                                  fix="write `sequence(product_viewed, order_completed, within=hours(1))`",
                                  where=place)  # fmt: skip
    return Feature(
        aggregate="sequence", parts=tuple(parts), purpose=purpose, description=description, place=place,
        params=(("within_ms", _span_ms("within", within)),),
    )  # fmt: skip


def _span_ms(role: str, span: object) -> int:
    if not isinstance(span, Sliding):
        raise DefinitionError("E112", f"`{role}=` is no length of time", where=_place(),
                              fix="use days(7), hours(1) or minutes(30)")  # fmt: skip
    return span.window_ms


def exists(source: Source, **options: Any) -> Feature:
    """Return whether there was such an event."""
    return aggregate("exists", source, **options)


def last_at(source: Source, **options: Any) -> Feature:
    """Return when the last such event occurred, in ms since 1970 UTC."""
    return aggregate("last_at", source, **options)


def recency(source: Source, **options: Any) -> Feature:
    """Return how many ms ago the last such event occurred."""
    return aggregate("recency", source, **options)


def ratio(
    numerator: Feature,
    denominator: Feature,
    *,
    purpose: str = DEFAULT_PURPOSE,
    description: str = "",
) -> Feature:
    """Return one feature divided by another when read; None where there is nothing to divide by.

    Two dicts (groups, currencies) divide key by key; a dict by a number, each of its values.
    """
    place = _place()
    for part in (numerator, denominator):
        if not isinstance(part, Feature):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise DefinitionError("E117", "a ratio of something that is no feature",
                                  fix="write `ratio(count(…), count(…))`", where=place)  # fmt: skip
    parts = tuple(
        part if part.place else replace(part, place=place) for part in (numerator, denominator)
    )
    return Feature(
        aggregate="ratio", parts=parts, purpose=purpose, description=description, place=place
    )


def __getattr__(name: str) -> Callable[..., Feature]:
    """Return a function for an aggregate that has none above, such as one added by a plug-in."""
    if name not in REGISTRY:
        raise AttributeError(name)

    def declare(source: Source, **options: Any) -> Feature:
        return aggregate(name, source, **options)

    return declare
