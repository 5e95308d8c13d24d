"""Features that look further back than what they read may be kept: each is refused."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from penstock.core.catalog.catalog import Catalog
from penstock.core.catalog.expr_nodes import FieldRef
from penstock.core.catalog.fields import Field
from penstock.core.definitions.facts import duration, span
from penstock.core.errors import DefinitionError
from penstock.core.feature.binding import nodes
from penstock.core.feature.definition import Feature
from penstock.core.feature.expr import ItemRef, refs
from penstock.core.feature.plan import Plan
from penstock.core.feature.window import Sliding, Tumbling, Window
from penstock.core.time import DAY_MS, HOUR_MS

PERIODS_MS = {"hour": HOUR_MS, "day": DAY_MS, "week": 7 * DAY_MS, "month": 31 * DAY_MS}


def outliving(plan: Plan, catalog: Catalog) -> Iterator[DefinitionError]:
    """Yield an error for each feature that outlives the retention of a field it reads (E121)."""
    for feature in plan.features:
        yield from _outliving(feature, feature, catalog)


def _outliving(feature: Feature, part: Feature, catalog: Catalog) -> Iterator[DefinitionError]:
    for inner in part.parts:
        yield from _outliving(feature, inner, catalog)
    reach_ms = reach(part.window)
    for node in () if part.parts else nodes(part):
        for ref in refs(node):
            field = _field(ref, catalog)
            days = field.privacy.retention_days if field is not None else None
            if days is not None and (reach_ms is None or reach_ms > days * DAY_MS):
                looks = "for ever" if reach_ms is None else f"over {span(part.window)}"
                yield DefinitionError(
                    "E121", f"feature `{feature.name}` looks back {looks} at `{ref.field}` of `{ref.event}`, which may "
                    f"be kept for {duration(days * DAY_MS)}", where=feature.place or part.place,
                    fix="give the feature a shorter window, or the field a longer `retention_days`",
                )  # fmt: skip
                return


def reach(window: Window) -> int | None:
    """Return how far back a window looks, in ms; None for ever."""
    match window:
        case Sliding():
            return window.window_ms
        case Tumbling():
            return PERIODS_MS[window.period] * (window.previous + 1)
        case _:
            return None


def whole_reach(feature: Feature) -> int | None:
    """Return how far back a feature looks, with all that it is computed from, in ms; None for ever."""
    reaches = [whole_reach(part) for part in feature.parts] or [reach(feature.window)]
    return None if None in reaches else max(one or 0 for one in reaches)


def _field(ref: FieldRef, catalog: Catalog) -> Field | None:
    declared = catalog.event_types.get(ref.event)
    if declared is None:
        return None
    fields: Mapping[str, Field] = declared.fields
    if isinstance(ref, ItemRef):
        listed = fields.get(ref.items)
        fields = {} if listed is None else {part.name: part for part in listed.fields}
    return fields.get(ref.field)
