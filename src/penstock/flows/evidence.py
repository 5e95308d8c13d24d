"""The events behind a decision's features: found in the log by the person's leaves."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from penstock.core.decision.explain import features_used
from penstock.core.decision.record import Decision
from penstock.core.feature.definition import Feature
from penstock.core.ids import LeafId
from penstock.core.record import Kind, Record, decode_record
from penstock.core.time import format_instant
from penstock.ports.log import Log

READ_RECORDS = 5_000
LINES_MAX = 10
"""Events shown a feature, the newest."""


def events_behind(
    log: Log, leaves: Sequence[LeafId], decision: Decision, features: Iterable[Feature]
) -> dict[str, list[str]]:
    """Return, per feature that a decision read, the newest events of the person that it folds.

    Reads the log up to the decision's `known_at`: what came later is no part of why.

    Args:
        log: Only read.
        leaves: The person's leaves.
        decision: The record.
        features: The plan's features.
    """
    named = {feature.name: feature for feature in features}
    events = {
        name: sorted(_events_of(named[name])) for name in features_used(decision) if name in named
    }
    found = _find(
        log, set(leaves), decision.known_at, {one for names in events.values() for one in names}
    )
    return {
        name: [_line(record, offset) for offset, record in reversed(found) if record.name in wanted][:LINES_MAX]
        for name, wanted in events.items()
    }  # fmt: skip


def _events_of(feature: Feature) -> set[str]:
    own = {feature.event} if feature.event else set()
    return own.union(*(_events_of(part) for part in feature.parts))


def _find(
    log: Log, leaves: set[LeafId], known_at: int, names: set[str]
) -> list[tuple[int, Record]]:
    found: list[tuple[int, Record]] = []
    seen: set[int] = set()
    for partition in range(log.partitions):
        offset = 0
        while batch := log.read(partition, offset, READ_RECORDS):
            offset = batch[-1].offset + 1
            for entry in batch:
                # The leaf's bytes stand in the record: most records are passed over undecoded.
                if entry.offset > known_at or not any(leaf in entry.value for leaf in leaves):
                    continue
                record = decode_record(entry.value)
                if (record.kind == Kind.PRIMARY and record.leaf in leaves and record.name in names
                        and record.event_id not in seen):  # fmt: skip
                    seen.add(record.event_id)
                    found.append((entry.offset, record))
    found.sort(key=lambda one: (one[1].occurred_at_ms, one[0]))
    return found


def _line(record: Record, offset: int) -> str:
    item = record.properties.get("product_id")
    what = f" {item}" if isinstance(item, str) else ""
    return f"{format_instant(record.occurred_at_ms)} {record.name}{what} (offset {offset})"
