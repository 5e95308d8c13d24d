"""Money: every decimal literal becomes exact minor units, whatever the currency's exponent."""

from decimal import ROUND_HALF_UP, Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.money import CURRENCIES, EXPONENTS, exponent, is_currency, minor_units


@pytest.mark.parametrize(
    ("literal", "currency", "minor"),
    [
        ("19.99", "USD", 1999), ("19.9", "USD", 1990), ("19", "USD", 1900), ("0.1", "USD", 10),
        ("-5.00", "GBP", -500), ("+5", "GBP", 500), ("1000", "JPY", 1000), ("1.234", "KWD", 1234),
        ("1e3", "JPY", 1000), ("1.5E2", "USD", 15000), ("25e-3", "KWD", 25), ("0.005", "USD", 1),
        ("-0.005", "USD", -1), ("0.0049", "USD", 0), ("-0.0049", "USD", 0), ("1.005", "USD", 101),
        ("0.29", "USD", 29), ("999999999999999.99", "USD", 99999999999999999), ("00.10", "USD", 10),
        ("0.5", "JPY", 1), ("1.0005", "KWD", 1001), ("0.001", "XXX", 0),
    ],
)  # fmt: skip
def test_a_literal_is_exact_and_halves_go_away_from_zero(
    literal: str, currency: str, minor: int
) -> None:
    assert minor_units(literal, currency) == minor


@pytest.mark.parametrize(
    "literal",
    ["", " 1", "1 ", "1,99", "1.", ".5", "£5", "NaN", "Infinity", "1e", "1e999", "--1", "0x10", "1_000",
     "1234567890123456", "١٢", "1.5.2", "1\n", "1." + "0" * 41],
)  # fmt: skip
def test_what_is_no_plain_decimal_is_refused(literal: str) -> None:
    with pytest.raises(ValueError, match="not a decimal number"):
        minor_units(literal, "USD")


@given(
    st.decimals(
        allow_nan=False, allow_infinity=False, min_value=-(10**14), max_value=10**14, places=6
    ),
    st.sampled_from(["USD", "JPY", "KWD", "CLF"]),
)
def test_it_is_what_decimal_arithmetic_gives(amount: Decimal, currency: str) -> None:
    scaled = amount.scaleb(exponent(currency)).quantize(Decimal(1), ROUND_HALF_UP)
    assert minor_units(f"{amount:f}", currency) == int(scaled)


@given(st.integers(-(10**12), 10**12), st.integers(0, 10))
def test_a_scale_takes_the_exponents_place(units: int, scale: int) -> None:
    literal = f"{Decimal(units).scaleb(-scale):f}"
    assert minor_units(literal, "JPY", scale=scale) == units


def test_a_currency_is_one_that_there_is_or_was_lately() -> None:
    assert all(map(is_currency, ["USD", "JPY", "GBP", "HRK", *EXPONENTS]))
    assert not any(map(is_currency, ["XYZ", "usd", "", "US", "ABC", "EURO"]))
    assert all(len(code) == 3 and code.isupper() for code in CURRENCIES)


def test_exponents_are_those_of_iso_4217() -> None:
    assert [exponent(code) for code in ("USD", "EUR", "JPY", "KWD", "CLF")] == [2, 2, 0, 3, 4]
    assert set(EXPONENTS.values()) <= {0, 3, 4}
