"""The filters for emails: money to the penny, instants in their zone, links that keep what they have."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.adapters.content.liquid import LiquidRenderer
from penstock.core.errors import DefinitionError
from penstock.core.money import exponent, minor_units


def shown(tmp_path, expression, **data):
    renderer = LiquidRenderer(tmp_path)
    renderer.add("x.txt", "{{ " + expression + " }}", "x")
    return renderer.render("x.txt", data)


@pytest.mark.parametrize(
    ("expression", "value", "text"),
    [
        ("v | money", [1234, "GBP"], "£12.34"),
        ("v | money", {"GBP": 1234}, "£12.34"),
        ("v | money", {"amount_minor": 1234, "currency": "GBP"}, "£12.34"),
        ("v | money: 'GBP'", 1234, "£12.34"),
        ("v | money: 'gbp'", "12.34", "£12.34"),
        ("v | money", [0, "GBP"], "£0.00"),
        ("v | money", [-5, "GBP"], "-£0.05"),
        ("v | money", [123456789, "USD"], "$1,234,567.89"),
        ("v | money", [1500, "JPY"], "¥1,500"),
        ("v | money", [1500, "KWD"], "KWD 1.500"),
        ("v | money", [1234, "CHF"], "CHF 12.34"),
        ("v | money", {"USD": 100, "EUR": 250}, "€2.50 + $1.00"),
        ("v | money", {}, ""),
        ("v | money", None, ""),
        ("missing | money", None, ""),
        ("v | decimal: 2", 450, "4.50"),
        ("v | decimal: 3", -5, "-0.005"),
        ("v | decimal", 7, "7"),
        ("missing | decimal: 2", None, ""),
        ("v | instant", 1_700_000_000_000, "14 November 2023"),
        ("v | instant: '%H:%M', 'Asia/Tokyo'", 1_700_000_000_000, "07:13"),
        ("v | instant: '%H:%M:%S'", 0, "00:00:00"),
        ("v | date: '%Y-%m-%d %H:%M'", 1_700_000_000, "2023-11-14 22:13"),
        ("v | date: '%Y-%m-%d'", "2023-11-14T00:00:00Z", "2023-11-14"),
        ("'now' | date: '%Y'", None, ""),
        ("v | plural: 'item', 'items'", 1, "item"),
        ("v | plural: 'item', 'items'", 0, "items"),
        ("v | url_with: ref: 'mail'", "https://s/?a=1#f", "https://s/?a=1&ref=mail#f"),
        ("v | url_with: a: 2, b: 'x y'", "https://s/?a=1&c=", "https://s/?c=&a=2&b=x+y"),
        ("v | url_with: a: missing", "https://s/", "https://s/"),
        ("missing | url_with: a: 1", None, ""),
    ],
)
def test_a_value_is_shown_as_people_write_it(tmp_path, expression, value, text):
    assert text == shown(tmp_path, expression, v=value)


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("v | money", 12), ("v | money", 12.5), ("v | money: 'GBP'", 12.5), ("v | money: 'GBP'", True),
        ("v | money", [12.5, "GBP"]), ("v | money", ["canary", "GBP"]), ("v | money: 'POUNDS'", 12),
        ("v | money", "12.34"), ("v | decimal: 2", "canary"), ("v | decimal: 99", 1), ("v | instant", "canary"),
        ("v | instant", -1), ("v | instant: '%Y', 'Nowhere/City'", 0), ("v | instant: '%Y', '../etc'", 0),
        ("v | money: 1, 2, 3", 1), ("v | plural: 'x'", 1),
    ],
)  # fmt: skip
def test_a_value_it_cannot_take_fails_without_being_quoted(tmp_path, expression, value):
    with pytest.raises(DefinitionError) as caught:
        shown(tmp_path, expression, v=value)
    assert "E140" == caught.value.code
    assert "canary" not in str(caught.value)


@given(minor=st.integers(0, 10**12), currency=st.sampled_from(["GBP", "JPY", "KWD", "CLF", "CHF"]))
def test_money_reads_back_as_the_same_amount(tmp_path_factory, minor, currency):
    text = shown(tmp_path_factory.mktemp("c"), "v | money", v=[minor, currency])
    digits = "".join(char for char in text if char.isdigit() or char == ".")
    assert minor == minor_units(digits, currency)
    assert exponent(currency) == len(digits.partition(".")[2])
