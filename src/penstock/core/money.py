"""Money: a decimal literal parsed to integer minor units of its currency, never through a float."""

import re

EXPONENTS = {
    "BHD": 3, "IQD": 3, "JOD": 3, "KWD": 3, "LYD": 3, "OMR": 3, "TND": 3, "CLF": 4, "UYW": 4,
    "BIF": 0, "CLP": 0, "DJF": 0, "GNF": 0, "ISK": 0, "JPY": 0, "KMF": 0, "KRW": 0, "PYG": 0,
    "RWF": 0, "UGX": 0, "UYI": 0, "VND": 0, "VUV": 0, "XAF": 0, "XOF": 0, "XPF": 0,
}  # fmt: skip
"""ISO 4217 exponents that are not 2."""

CURRENCIES = frozenset(
    """
    AED AFN ALL AMD ANG AOA ARS AUD AWG AZN BAM BBD BDT BGN BHD BIF BMD BND BOB BOV BRL BSD BTN BWP BYN BYR
    BZD CAD CDF CHE CHF CHW CLF CLP CNY COP COU CRC CUC CUP CVE CZK DJF DKK DOP DZD EEK EGP ERN ETB EUR FJD
    FKP GBP GEL GHS GIP GMD GNF GTQ GYD HKD HNL HRK HTG HUF IDR ILS INR IQD IRR ISK JMD JOD JPY KES KGS KHR
    KMF KPW KRW KWD KYD KZT LAK LBP LKR LRD LSL LTL LVL LYD MAD MDL MGA MKD MMK MNT MOP MRO MRU MUR MVR MWK
    MXN MXV MYR MZN NAD NGN NIO NOK NPR NZD OMR PAB PEN PGK PHP PKR PLN PYG QAR RON RSD RUB RWF SAR SBD SCR
    SDG SEK SGD SHP SLE SLL SOS SRD SSP STD STN SVC SYP SZL THB TJS TMT TND TOP TRY TTD TWD TZS UAH UGX USD
    USN UYI UYU UYW UZS VED VEF VES VND VUV WST XAD XAF XAG XAU XCD XCG XDR XOF XPD XPF XPT XSU XUA YER ZAR
    ZMK ZMW ZWG ZWL
    """.split()  # noqa: SIM905 - one word a line would fill a screen
)
"""The codes of ISO 4217, and those that were withdrawn since 2010: events may be older than a currency's end."""

_LITERAL = re.compile(r"([+-]?)(\d{1,15})(?:\.(\d{1,40}))?(?:[eE]([+-]?\d{1,2}))?", re.ASCII)


def exponent(currency: str) -> int:
    """Return how many decimal digits a currency's minor unit has: USD 2, JPY 0, KWD 3."""
    return EXPONENTS.get(currency, 2)


def is_currency(code: str) -> bool:
    """Return whether a text is a currency's code, in capital letters."""
    return code in CURRENCIES


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
