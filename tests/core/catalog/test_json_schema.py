"""The JSON Schema of a declared event is pinned, and says what is done with each field."""

from collections.abc import Callable

import pytest

from penstock.core.catalog.json_schema import DIALECT, event_schema
from penstock.dsl.events import event, money, one_of, private, string
from penstock.dsl.segment import order_completed, unsubscribed


@pytest.mark.parametrize(
    ("name", "declared"),
    [("order_completed", order_completed), ("unsubscribed", unsubscribed)],
)
def test_the_schema_of_a_shipped_event_is_pinned(
    name: str, declared: object, golden: Callable[[str, object], None]
) -> None:
    golden(f"json-schema-{name}.json", event_schema(declared))  # type: ignore[arg-type]


def test_a_small_schema_in_full() -> None:
    declared = event(
        "Tea Drunk",
        version=3,
        sort=one_of("green", "black", required=True),
        note=string(chars_max=9, privacy=private(category="user.content", retention=30)),
        price=money(currency="EUR"),
    )
    plain = {
        "category": "user.behavior",
        "class": "internal",
        "purpose": "personalisation",
        "protection": "plain",
    }
    assert {
        "$schema": DIALECT,
        "$id": "penstock:event/tea_drunk/3",
        "title": "Tea Drunk",
        "type": "object",
        "properties": {
            "sort": {"type": "string", "enum": ["green", "black"], "x-penstock": plain},
            "note": {
                "type": ["string", "null"],
                "maxLength": 9,
                "pattern": r"^[^\u0000]*$",
                "x-penstock": plain | {"category": "user.content", "retention": "P30D"},
            },
            "price": {
                "type": ["number", "null"],
                "minimum": -1_000_000,
                "maximum": 1_000_000,
                "x-penstock": plain
                | {"kind": "money", "currency_field": "currency", "currency": "EUR"},
            },
            "currency": {
                "type": ["string", "null"],
                "pattern": "^[A-Za-z]{3}$",
                "description": "ISO 4217 currency of the amounts",
            },
        },
        "required": ["sort"],
        "additionalProperties": False,
        "x-penstock": {"event": "Tea Drunk", "version": 3},
    } == event_schema(declared)
