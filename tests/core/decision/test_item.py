"""Items: made of registers, in stock, in their dates."""

import pytest

from penstock.core.decision.item import (
    FIELD_BYTES_MAX,
    ITEM_BYTES_MAX,
    Item,
    date_refusal,
    in_stock,
    item_of,
)


def test_an_item_is_the_registers_of_its_leaf_and_its_version_the_newest() -> None:
    registers = {
        "title": (0, 100, 1, "Boot"),
        "price": (1, 300, 2, [1999, "GBP"]),
        "colour": (0, 200, 3, None),
    }
    assert Item("i1", {"title": "Boot", "price": [1999, "GBP"]}, 300) == item_of("i1", registers)
    assert Item("i1", {}, 0) == item_of("i1", {})


def test_large_fields_are_absent_and_the_known_ones_go_first() -> None:
    registers = {f"a{n:02d}": (0, 1, n, "x" * (FIELD_BYTES_MAX // 2)) for n in range(20)}
    registers |= {"huge": (0, 1, 1, "x" * (FIELD_BYTES_MAX + 1)), "title": (0, 1, 1, "Boot")}
    item = item_of("i1", registers)
    assert "Boot" == item.fields["title"]
    assert "huge" not in item.fields
    assert ITEM_BYTES_MAX >= sum(len(str(value)) for value in item.fields.values())
    assert ["title", *(f"a{n:02d}" for n in range(7))] == list(item.fields)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, True),
        ({"stock": 3}, True),
        ({"stock": 0}, False),
        ({"stock": -1}, False),
        ({"stock": "none"}, True),
        ({"available": False}, False),
        ({"available": "false", "stock": 4}, False),
        ({"available": True, "stock": 0}, False),
    ],
)
def test_an_item_is_in_stock_unless_it_says_otherwise(fields, expected) -> None:
    assert expected is in_stock(Item("i", fields))


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, ""),
        ({"starts_at": 1000}, ""),
        ({"starts_at": 1001}, "not_started"),
        ({"ends_at": 1000}, "ended"),
        ({"ends_at": 1001}, ""),
        ({"starts_at": "1970-01-01T00:00:01Z"}, ""),
        ({"ends_at": "1970-01-01T00:00:01Z"}, "ended"),
        ({"starts_at": "soon"}, "unreadable:starts_at"),
        ({"ends_at": True}, "unreadable:ends_at"),
    ],
)
def test_an_item_runs_from_its_start_until_before_its_end(fields, expected) -> None:
    assert expected == date_refusal(Item("i", fields), 1000)
