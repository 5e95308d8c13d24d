"""Features that look further back than what they read may be kept: each is refused."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

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


def forgetting(plan: Plan, names: Iterable[str], keep_ms: int) -> Iterator[DefinitionError]:
    """Yield an error for each of some features that looks back further than the log is kept (E122).

    Args:
        plan: The features.
        names: Those that are new or changed: what others have, they keep.
        keep_ms: How long records stay before they are gone for good.
    """
    chosen = {*names}
    for feature in plan.features:
        if feature.name not in chosen:
            continue
        reach_ms = whole_reach(feature)
        if reach_ms is None or reach_ms > keep_ms:
            looks = "for ever" if reach_ms is None else f"over {duration(reach_ms)}"
            yield DefinitionError(
                "E122", f"feature `{feature.name}` looks back {looks}, and without an archive the log keeps {duration(keep_ms)}: "
                "what is older is missing whenever it is built", where=feature.place,
                fix="set `archive.place`, raise `log.keep`, or give the feature a shorter window; or accept it with `penstock apply "
                "--allow-incomplete`, and profiles say `complete_since`",
            )  # fmt: skip


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
