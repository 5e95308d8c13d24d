"""The filters that emails need beyond Liquid's own: money, decimals, instants and links.

A filter that cannot take a value raises, and the slot's fallback is shown: a wrong price is worse
than none. What is undefined or nil gives nothing, as everywhere in Liquid.
"""

from collections.abc import Callable, Mapping
from datetime import UTC, timedelta, tzinfo
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from liquid.exceptions import FilterArgumentError
from liquid.filter import liquid_filter
from liquid.undefined import is_undefined

from penstock.core.money import exponent, minor_units
from penstock.core.time import EPOCH, INSTANT_MS_MAX

SYMBOLS: Final = {
    "AUD": "A$", "BRL": "R$", "CAD": "CA$", "CNY": "CN¥", "EUR": "€", "GBP": "£", "HKD": "HK$",
    "ILS": "₪", "INR": "₹", "JPY": "¥", "KRW": "₩", "MXN": "MX$", "NZD": "NZ$", "PHP": "₱",
    "TWD": "NT$", "UAH": "₴", "USD": "$", "VND": "₫",
}  # fmt: skip
"""Signs that stand before the amount without a blank; other currencies show their code."""

FORMAT_CHARS_MAX: Final = 100
DATE_CHARS_MAX: Final = 64


def money(value: object, currency: object = None) -> str:
    """Return an amount as text: `[1234, "GBP"]`, `{"GBP": 1234}`, or `1234 | money: "GBP"` → £12.34.

    A whole number is minor units; a text is a decimal number of whole units, as in a catalogue.
    Several currencies are shown one after the other, by code, and never added up. The money of a
    decided item, `{"amount_minor": 1234, "currency": "GBP"}`, is taken too.
    """
    if _nothing(value):
        return ""
    if isinstance(value, Mapping) and "amount_minor" in value:
        return _amount(value["amount_minor"], value.get("currency"))
    if isinstance(value, Mapping):
        return " + ".join(_amount(value[code], code) for code in sorted(value, key=str))
    if isinstance(value, list | tuple) and len(value) == 2:
        return _amount(value[0], value[1])
    return _amount(value, currency)


def _amount(minor: object, currency: object) -> str:
    if not (isinstance(currency, str) and len(currency) == 3 and currency.isascii()):
        raise _refused("money needs a currency of three letters")
    code = currency.upper()
    if isinstance(minor, str):
        try:
            minor = minor_units(minor.strip(), code)
        except ValueError:
            raise _refused("money takes whole minor units or a decimal number as text") from None
    if isinstance(minor, bool) or not isinstance(minor, int):
        raise _refused("money takes whole minor units or a decimal number as text")
    digits = _scaled(abs(minor), exponent(code), grouped=True)
    sign = "-" if minor < 0 else ""
    symbol = SYMBOLS.get(code)
    return f"{sign}{symbol}{digits}" if symbol else f"{sign}{code} {digits}"


def decimal(value: object, scale: object = 0) -> str:
    """Return a scaled whole number as a decimal: `450 | decimal: 2` → 4.50."""
    if _nothing(value):
        return ""
    if isinstance(value, bool) or not isinstance(value, int):
        raise _refused("decimal takes a whole number")
    if isinstance(scale, bool) or not isinstance(scale, int) or not 0 <= scale <= 18:
        raise _refused("decimal takes a scale from 0 to 18")
    return ("-" if value < 0 else "") + _scaled(abs(value), scale, grouped=False)


def _scaled(number: int, scale: int, *, grouped: bool) -> str:
    whole, fraction = divmod(number, 10**scale)
    text = f"{whole:,}" if grouped else str(whole)
    return f"{text}.{fraction:0{scale}d}" if scale else text


def instant(value: object, pattern: object = "%-d %B %Y", zone: object = "UTC") -> str:
    """Return an instant in milliseconds as text: `bought_at | instant: "%-d %B", "Europe/Paris"`."""
    if _nothing(value):
        return ""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= INSTANT_MS_MAX:
        raise _refused("instant takes milliseconds since 1970")
    if not isinstance(pattern, str) or len(pattern) > FORMAT_CHARS_MAX:
        raise _refused('instant takes a short pattern such as "%-d %B %Y"')
    moment = EPOCH + timedelta(milliseconds=value)
    return moment.astimezone(_zone(zone)).strftime(pattern)


def _zone(zone: object) -> tzinfo:
    if zone == "UTC":
        return UTC
    try:
        return ZoneInfo(str(zone))
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise _refused("instant takes a time zone such as Europe/London") from None


def url_with(url: object, **params: object) -> str:
    """Return a link with parameters set: `item.url | url_with: ref: "mail"`; the rest stays."""
    if _nothing(url):
        return ""
    parts = urlsplit(str(url).strip())
    kept = [
        pair for pair in parse_qsl(parts.query, keep_blank_values=True) if pair[0] not in params
    ]
    added = [(name, str(value)) for name, value in params.items() if not _nothing(value)]
    return urlunsplit(parts._replace(query=urlencode(kept + added)))


def plural(count: object, one: object, many: object) -> str:
    """Return one of two words by a count: `{{ n }} {{ n | plural: "item", "items" }}`."""
    return str(one if count == 1 else many)


class Dated:
    """Liquid's `date` filter, made to repeat exactly: no clock, and UTC on every machine.

    "now" and "today" are the data's `as_of_ms`, the instant the email is made as of.
    """

    with_context = True

    def __init__(self, original: Callable[..., Any], environment: Any) -> None:
        self._original = original
        self._environment = environment
        self._named = liquid_filter(self.text)

    def __call__(self, value: object, pattern: object, *, context: Any) -> object:
        """Return a date as text; the context knows `as_of_ms`."""
        return self._named(value, pattern, context.resolve("as_of_ms", default=None))

    def text(self, value: object, pattern: object, as_of_ms: object) -> object:
        """Return a date as text, as of an instant."""
        if isinstance(value, str) and value in {"now", "today"}:
            if not isinstance(as_of_ms, int):
                return ""
            value = as_of_ms // 1000
        if isinstance(value, str):
            if len(value) > DATE_CHARS_MAX:
                return value
            value = int(value) if value.isascii() and value.isdigit() else value
        if isinstance(pattern, str) and len(pattern) > FORMAT_CHARS_MAX:
            raise _refused("date takes a short pattern")
        if isinstance(value, int) and abs(value) <= INSTANT_MS_MAX // 1000:
            value = EPOCH + timedelta(seconds=value)
        return self._original(value, pattern, environment=self._environment)


FILTERS: Final[dict[str, Callable[..., Any]]] = {
    "money": liquid_filter(money),
    "decimal": liquid_filter(decimal),
    "instant": liquid_filter(instant),
    "url_with": liquid_filter(url_with),
    "plural": liquid_filter(plural),
}


def _nothing(value: object) -> bool:
    return value is None or is_undefined(value)


def _refused(what: str) -> FilterArgumentError:
    return FilterArgumentError(what, token=None)
