"""Rows of a file become items, people or events: registers from a ranked source, or an import job."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, NamedTuple

import msgspec

from penstock.core.catalog.normalise import Normalised
from penstock.core.consent.evidence import COLLECT, stamp, useful
from penstock.core.consent.purpose import ConsentRules
from penstock.core.errors import EventRejected
from penstock.core.event import SEGMENT, Decoded, Event, decode_single
from penstock.core.identity.identifier import EMAIL, ITEM, normalise
from penstock.core.ids import event_id
from penstock.core.literal import Literal
from penstock.core.money import exponent, minor_units
from penstock.core.record import RECORD_FORMAT, Evidence, Identifier, Kind, Record
from penstock.core.time import format_instant
from penstock.core.tokens import is_web_url
from penstock.flows.collect import Collector, Refusal, Source, by_reason

KINDS = ("items", "people", "events")
ITEM_ID_COLUMNS = ("item_id", "product_id", "sku", "id")
ROWS_MAX = 2_000
LINKS = ("url", "image_url")
"""Attributes of an item that an email links to or loads."""
SCHEME = re.compile(r"[^/?#]*:")
"""A colon before any slash, question mark or hash sign names a scheme."""


class Loaded(NamedTuple):
    """What became of rows: how many were kept, and which were refused, by their place in the call."""

    kept: int
    refused: list[Refusal]
    dropped: Mapping[str, int] = {}
    """Rows of which nothing was kept, by reason: their consent, or that nothing declares the event."""
    undeclared: Mapping[str, int] = {}
    """Columns whose values were dropped because nothing declares them, with the number of rows."""
    meant: Mapping[str, str] = {}
    """Of those columns of items and people, the declared name that each is nearest to."""
    no_addresses: int = 0
    """People kept whose `email` is no address: it names nobody, and nobody is written to there."""


async def load_rows(
    collector: Collector, kind: str, rows: Sequence[Mapping[str, Any]], *, source: Source, job: str, first: int,
) -> Loaded:  # fmt: skip
    """Keep rows; durable on return. A refused row is reported, and the others are kept.

    Args:
        collector: Shapes and appends.
        kind: `items`, `people` or `events`.
        rows: Column or key -> value; text as in CSV, or JSON values. At most `ROWS_MAX`.
        source: Whose rows they are; its rank decides between two values of a trait.
        job: The import job: loading it again under the same name changes nothing.
        first: The number of the first row in its file, for message ids.

    Raises:
        EventRejected: The kind does not exist, or there are too many rows (E361), or the source of
            people declares no lawful basis (E368).
        Unavailable: Nothing of the call is known to be kept; loading again is safe.
    """
    if kind not in KINDS or len(rows) > ROWS_MAX:
        raise EventRejected("E361", "rows are `items`, `people` or `events`, at most "
                            f"{ROWS_MAX} in a call", where="kind", fix="split the file")  # fmt: skip
    if kind == "people":
        _require_basis(collector, source)
    if kind == "items":
        return await _load_items(collector, rows, source, job, first)
    events: list[tuple[int, Event]] = []
    refused: list[Refusal] = []
    for index, row in enumerate(rows):
        try:
            event = _event(row) if kind == "events" else _person(row, collector, job, first + index)
        except EventRejected as error:
            refused.append(_refusal(index, error))
            continue
        events.append((index, event))
    intake = await collector.take(
        source, Decoded(events, [], [b""] * len(rows)), job=job, letters=False
    )
    return Loaded(
        intake.accepted - len(intake.discarded),
        sorted([*refused, *intake.refused], key=lambda one: one.index),
        by_reason(intake.discarded), intake.undeclared,
        _meant(intake.undeclared, collector.catalog.traits) if kind == "people" else {},
        _no_addresses(rows, {one.index for one in (*refused, *intake.refused)}) if kind == "people" else 0,
    )  # fmt: skip


def _meant(undeclared: Iterable[str], declared: Iterable[str]) -> dict[str, str]:
    """Return the declared name that each undeclared column is nearest to, of those that are near one."""
    known = sorted(declared)
    near = {name: get_close_matches(name, known, 1) for name in undeclared}
    return {name: found[0] for name, found in near.items() if found}


def _no_addresses(rows: Sequence[Mapping[str, Any]], refused: set[int]) -> int:
    told = (_text(row.get(EMAIL)) for index, row in enumerate(rows) if index not in refused)
    return sum(one is not None and normalise(EMAIL, one) is None for one in told)


def _require_basis(collector: Collector, source: Source) -> None:
    # A row of a CRM cannot say what its person permits: only its source can.
    evidence = stamp(None, gpc=False, basis=source.basis, rules=collector.consent)
    if useful(evidence, collector.consent) != COLLECT:
        raise EventRejected("E368", f"nothing of people from source `{source.name}` may be kept", where="source",
                            fix="declare its lawful basis in penstock.toml, such as "
                            f'[sources.{source.name}] basis = {{ personalisation = "contract" }}')  # fmt: skip


def _event(row: Mapping[str, Any]) -> Event:
    decoded = decode_single(msgspec.json.encode(row, enc_hook=str), None, SEGMENT)
    if decoded.rejected:
        raise decoded.rejected[0].error
    return decoded.events[0][1]


def _person(row: Mapping[str, Any], collector: Collector, job: str, number: int) -> Event:
    columns = dict(row)
    user_id, anonymous_id, updated_at = (
        _text(columns.pop(name, None)) for name in ("user_id", "anonymous_id", "updated_at")
    )
    if not _text(columns.get("email")):
        columns.pop("email", None)  # an address that is not known names nobody
    if user_id is None and anonymous_id is None and "email" not in columns:
        raise EventRejected("E362", "the row has none of user_id, anonymous_id and email", where="$",
                            fix="add a column of that name")  # fmt: skip
    now = format_instant(collector.clock.now_ms())
    return Event(
        type="identify",
        message_id=f"{job}:{number}",
        user_id=user_id,
        anonymous_id=anonymous_id,
        traits=_typed(columns, collector.catalog.traits),
        timestamp=updated_at or now,
        sent_at=now,
    )


async def _load_items(
    collector: Collector, rows: Sequence[Mapping[str, Any]], source: Source, job: str, first: int
) -> Loaded:
    type_items = collector.catalog.compile_items(collector.protector)
    records: list[Record] = []
    refused: list[Refusal] = []
    undeclared: Counter[str] = Counter()
    for index, row in enumerate(rows):
        try:
            record, dropped = _item(row, type_items, collector, source, job, first + index)
            records.append(record)
            undeclared.update(dropped)
        except EventRejected as error:
            refused.append(_refusal(index, error))
    if records:
        await collector.appender.append(records)
        collector.metrics.count("penstock_events_accepted_total", len(records))
    return Loaded(
        len(records), refused, undeclared=undeclared,
        meant=_meant(undeclared, collector.catalog.items),
    )  # fmt: skip


def _item(
    row: Mapping[str, Any],
    type_items: Any,
    collector: Collector,
    source: Source,
    job: str,
    number: int,
) -> tuple[Record, Sequence[str]]:
    """Return the record of an item's row, and the columns of it that nothing declares."""
    columns = dict(row)
    named = next((name for name in ITEM_ID_COLUMNS if columns.get(name) not in ("", None)), None)
    item_id = normalise(ITEM, columns.pop(named)) if named is not None else None
    if item_id is None:
        raise EventRejected("E363", "the row has no item id", where="$",
                            fix=f"name the column one of {', '.join(ITEM_ID_COLUMNS)}")  # fmt: skip
    normalised: Normalised = type_items(_typed(columns, collector.catalog.items))
    for name in LINKS:
        _require_link(name, normalised.traits.get(name))
    for name, value in normalised.traits.items():
        if (
            collector.catalog.items[name].kind == "money"
            and collector.catalog.items[name].scale is None
        ):
            _require_exact(name, columns.get(name), value)
    if normalised.undeclared_fields:
        collector.metrics.count(
            "penstock_fields_undeclared_total", len(normalised.undeclared_fields), event="item"
        )
    leaf = collector.make_leaf(ITEM, item_id)
    message_id = f"{job}:{number}"
    now = collector.clock.now_ms()
    record = Record(
        format=RECORD_FORMAT,
        kind=Kind.PRIMARY,
        tenant=collector.tenant,
        leaf=leaf,
        id_type=ITEM,
        event_id=event_id(leaf, message_id),
        message_id=message_id,
        type="identify",
        name="identify",
        occurred_at_ms=now,
        received_at_ms=now,
        source=source.name,
        source_rank=source.rank,
        verified=True,
        evidence=_not_personal(collector.consent),
        identifiers=(Identifier(ITEM, leaf, item_id),),
        traits=normalised.traits,
        job=job,
    )
    return record, normalised.undeclared_fields


def _require_exact(name: str, written: Any, kept: Any) -> None:
    """Refuse a price that its currency cannot have: rounded it would be another, shown to everybody.

    An event's amount may be the result of a sum in floating point, and is rounded.
    """
    match kept:
        case [int(minor), str(currency)] if isinstance(written, str):
            finer = minor_units(written.strip(), "", scale=exponent(currency) + 2)
            if finer != minor * 100:
                raise EventRejected("E322", f"`{name}` has more decimals than its currency", where=f"$.{name}",
                                    fix="round it, or correct its currency; or declare `money(scale=…)`")  # fmt: skip
        case _:
            return


def _require_link(name: str, value: Any) -> None:
    """Refuse what a reader's click would run instead of open, such as `javascript:`."""
    if not isinstance(value, str):
        return
    # As a browser reads it: blanks around and controls inside say nothing.
    seen = "".join(char for char in value if char > " ")
    if SCHEME.match(seen) and not is_web_url(seen):
        raise EventRejected("E322", f"`{name}` is not a web address", where=f"$.{name}",
                            fix="write it as https://…")  # fmt: skip


def _not_personal(rules: ConsentRules) -> Evidence:
    # An item is no person: nothing about it waits for anybody's consent.
    return Evidence("basis", granted=tuple(sorted(rules.purposes)))


def _typed(columns: Mapping[str, Any], fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return columns as JSON would have them: a CSV knows only text, and the empty text is null.

    A row says what is so now: an empty cell takes a value back, since null is a value that can win.
    A column that the file does not have says nothing.
    """
    return {name: _cell(value, fields.get(name)) for name, value in columns.items()}


def _cell(value: Any, field: Any) -> Any:
    if not isinstance(value, str) or isinstance(value, Literal):
        return value
    text = value.strip()
    if not text:
        return None
    if field is None:
        return value
    kind = field.kind
    if kind == "boolean":
        return {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}.get(
            text.lower(), value
        )
    if kind == "integer":
        digits = text.removeprefix("-")
        return int(text) if digits.isascii() and digits.isdigit() and len(digits) < 17 else value
    if kind == "strings":
        return [part.strip() for part in text.split("|") if part.strip()]
    return text


def _text(value: Any) -> str | None:
    text = "" if value is None else str(value).strip()
    return text or None


def _refusal(index: int, error: EventRejected) -> Refusal:
    return Refusal(index, "", error.code, error.what, error.where)
