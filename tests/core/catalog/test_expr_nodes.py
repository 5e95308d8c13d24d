"""Expressions remember exactly what the author wrote, and refuse what cannot be meant."""

import pytest

from penstock.core.catalog.expr_nodes import Const, FieldRef, Node, Op, lift
from penstock.core.errors import DefinitionError

PRICE = FieldRef("Product Viewed", "price", "money", currency="GBP")
CATEGORY = FieldRef("Product Viewed", "category", "string")


@pytest.mark.parametrize(
    ("node", "expected"),
    [
        (PRICE == 1, ["eq", ["field", "Product Viewed", "price"], ["const", 1]]),
        (PRICE != 1, ["ne", ["field", "Product Viewed", "price"], ["const", 1]]),
        (PRICE < 1, ["lt", ["field", "Product Viewed", "price"], ["const", 1]]),
        (PRICE <= 1, ["le", ["field", "Product Viewed", "price"], ["const", 1]]),
        (PRICE > 1, ["gt", ["field", "Product Viewed", "price"], ["const", 1]]),
        (PRICE >= 1, ["ge", ["field", "Product Viewed", "price"], ["const", 1]]),
        (1 < PRICE, ["gt", ["field", "Product Viewed", "price"], ["const", 1]]),
        (PRICE + 1, ["add", ["field", "Product Viewed", "price"], ["const", 1]]),
        (1 + PRICE, ["add", ["const", 1], ["field", "Product Viewed", "price"]]),
        (PRICE - 1, ["sub", ["field", "Product Viewed", "price"], ["const", 1]]),
        (1 - PRICE, ["sub", ["const", 1], ["field", "Product Viewed", "price"]]),
        (PRICE * 2, ["mul", ["field", "Product Viewed", "price"], ["const", 2]]),
        (2 * PRICE, ["mul", ["const", 2], ["field", "Product Viewed", "price"]]),
        (-PRICE, ["neg", ["field", "Product Viewed", "price"]]),
        (~CATEGORY.known(), ["not", ["known", ["field", "Product Viewed", "category"]]]),
        (
            CATEGORY.in_("shoes", "hats"),
            ["in", ["field", "Product Viewed", "category"], ["const", ["shoes", "hats"]]],
        ),
        (
            (CATEGORY == "a") & (CATEGORY == "b"),
            [
                "and",
                ["eq", ["field", "Product Viewed", "category"], ["const", "a"]],
                ["eq", ["field", "Product Viewed", "category"], ["const", "b"]],
            ],
        ),
        (True | (PRICE > 1), ["or", ["const", True], (PRICE > 1).canonical()]),
        (True & (PRICE > 1), ["and", ["const", True], (PRICE > 1).canonical()]),
        ((PRICE > 1) | False, ["or", (PRICE > 1).canonical(), ["const", False]]),
    ],
)
def test_an_operator_builds_its_tree(node: Node, expected: list[object]) -> None:
    assert expected == node.canonical()


def test_a_float_is_the_decimal_that_was_written() -> None:
    assert ["const", ["decimal", "9.99"]] == lift(9.99).canonical()
    assert ["const", ["decimal", "0.0000001"]] == lift(1e-7).canonical()
    assert lift(9.90).canonical() == lift(9.9).canonical()


def test_lift_keeps_a_node() -> None:
    assert PRICE is lift(PRICE)
    assert isinstance(lift(3), Const)
    assert isinstance(PRICE > 3, Op)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), object(), ["a"], b"a"])
def test_what_is_no_value_is_refused(value: object) -> None:
    with pytest.raises(DefinitionError) as caught:
        _ = PRICE == value
    assert "E101" == caught.value.code


def test_an_expression_has_no_truth_value() -> None:
    with pytest.raises(DefinitionError) as caught:
        _ = PRICE > 1 and PRICE < 3
    assert "E100" == caught.value.code
    with pytest.raises(DefinitionError):
        _ = 1 < PRICE < 3
    with pytest.raises(DefinitionError):
        _ = PRICE in ("a", "b")


def test_nodes_can_be_put_in_a_dict() -> None:
    assert {PRICE: 1}[PRICE] == 1
