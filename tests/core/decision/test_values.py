"""The shapes of feature values, read as lists of members."""

import pytest

from penstock.core.decision.values import members


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, []),
        ([], []),
        ("shoes", ["shoes"]),
        (7, ["7"]),
        (1.5, []),
        (["b", "a"], ["b", "a"]),
        (["b", None, 3], ["b", "3"]),
        ([{"value": "b", "count": 3}, {"value": "a", "count": 1}], ["b", "a"]),
        ([["b", 3], ["a", 1]], ["b", "a"]),
        ({"a": 1, "c": 3, "b": 3}, ["b", "c", "a"]),
        ({"a": {"GBP": 100}, "b": {"GBP": 200}}, ["b", "a"]),
    ],
)
def test_members_come_best_or_newest_first(value, expected) -> None:
    assert expected == members(value)
