"""Money: a decimal literal parsed to integer minor units of its currency, never through a float."""

import re

EXPONENTS = {
    "BHD": 3, "IQD": 3, "JOD": 3, "KWD": 3, "LYD": 3, "OMR": 3, "TND": 3, "CLF": 4, "UYW": 4,
    "BIF": 0, "CLP": 0, "DJF": 0, "GNF": 0, "ISK": 0, "JPY": 0, "KMF": 0, "KRW": 0, "PYG": 0,
    "RWF": 0, "UGX": 0, "UYI": 0, "VND": 0, "VUV": 0, "XAF": 0, "XOF": 0, "XPF": 0,
}  # fmt: skip
"""ISO 4217 exponents that are not 2."""

_LITERAL = re.compile(r"([+-]?)(\d{1,15})(?:\.(\d{1,40}))?(?:[eE]([+-]?\d{1,2}))?", re.ASCII)


def exponent(currency: str) -> int:
    """Return how many decimal digits a currency's minor unit has: USD 2, JPY 0, KWD 3."""
    return EXPONENTS.get(currency, 2)


def minor_units(literal: str, currency: str, *, scale: int | None = None) -> int:
    """Return a decimal literal as integer minor units, half away from zero beyond the exponent.

    Args:
        literal: The number as written, such as `"19.99"`; a JSON number's own text.
        currency: ISO 4217 code; decides the exponent.
        scale: Digits kept instead of the currency's exponent, for unit prices finer than a cent.

    Raises:
        ValueError: The text is not a plain decimal number of at most 15 integer digits.
    """
    match = _LITERAL.fullmatch(literal)
    if match is None:
        raise ValueError("not a decimal number")
    sign, whole, fraction, power = match.groups()
    digits = whole + (fraction or "")
    shift = (exponent(currency) if scale is None else scale) - len(fraction or "") + int(power or 0)
    value = int(digits)
    if shift >= 0:
        value *= 10**shift
    else:
        divisor = 10**-shift
        value = (2 * value + divisor) // (2 * divisor)
    return -value if sign == "-" else value
