"""The events behind a decision's features: the person's records that they fold."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from penstock.core.decision.explain import features_used
from penstock.core.decision.record import Decision
from penstock.core.feature.definition import Feature
from penstock.core.ids import LeafId
from penstock.core.record import Kind, Record, decode_record
from penstock.core.time import format_instant
from penstock.flows.history import History, Known

LINES_MAX = 10
"""Events shown a feature, the newest."""


def events_behind(
    history: History, leaves: Sequence[LeafId], decision: Decision, features: Iterable[Feature]
) -> dict[str, list[str]]:
    """Return, per feature that a decision read, the newest events of the person that it folds.

    Reads the person's records up to the decision's `known_at`: what came later is no part of why.

    Args:
        history: Finds the records.
        leaves: The person's leaves.
        decision: The record.
        features: The plan's features.
    """
    named = {feature.name: feature for feature in features}
    events = {
        name: sorted(_events_of(named[name])) for name in features_used(decision) if name in named
    }
    every = {one for names in events.values() for one in names}
    found = _find(history, leaves, decision.known_at, every) if every else []
    return {
        name: [_line(record, offset) for offset, record in reversed(found) if record.name in wanted][:LINES_MAX]
        for name, wanted in events.items()
    }  # fmt: skip


def _events_of(feature: Feature) -> set[str]:
    own = {feature.event} if feature.event else set()
    return own.union(*(_events_of(part) for part in feature.parts))


def _find(
    history: History, leaves: Sequence[LeafId], known_at: int, names: set[str]
) -> list[tuple[int, Record]]:
    found: list[tuple[int, Record]] = []
    seen: set[int] = set()
    for _, entry in history.entries(leaves, Known(offset=known_at)):
        record = decode_record(entry.value)
        if record.kind == Kind.PRIMARY and record.name in names and record.event_id not in seen:
            seen.add(record.event_id)
            found.append((entry.offset, record))
    found.sort(key=lambda one: (one[1].occurred_at_ms, one[0]))
    return found


def _line(record: Record, offset: int) -> str:
    item = record.properties.get("product_id")
    what = f" {item}" if isinstance(item, str) else ""
    return f"{format_instant(record.occurred_at_ms)} {record.name}{what} (offset {offset})"
