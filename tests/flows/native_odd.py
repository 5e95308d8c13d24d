"""What two folds that must not differ are attacked with: nearly right bytes, odd times, plans by chance."""

import random
from collections.abc import Mapping
from typing import Any

import msgspec
from native_world import NOW, bought, viewed

from penstock.core.errors import DataCorrupt, DefinitionError
from penstock.core.feature.definition import Feature
from penstock.core.feature.plan import Plan
from penstock.core.record import LogRecord, decode_record, encode_record
from penstock.core.time import DAY_MS, HOUR_MS
from penstock.dsl import features as f


class Verbatim(bytes):
    """MessagePack that is written as it stands."""


ODD: list[Any] = [
    None, True, False, 0, -1, 1, 2**31, 2**53 - 1, 2**53, -(2**53), 2**63 - 1, 2**63, 2**64 - 1, 1.5, -0.0, float("nan"),
    float("inf"), "", "x", "ß", "\U0001f600", b"", b"x", [], [1], {}, {"a": 1}, ["GBP", 1], [1, "GBP"], [[1]], {1: 2},
    "unknown", "basis", "basis:", "context", "segment", -5, 10**15, {"product_id": "p1"}, [{"quantity": 2**52}],
    Verbatim(b"\xd4\x05\x01"), Verbatim(b"\xd6\xff\x00\x00\x00\x01"), Verbatim(b"\xc1"), Verbatim(b"\xa3\xed\xa0\x80"),
    Verbatim(b"\x82\xa1a\x01\xa1a\x02"), Verbatim(b"\xca\x3f\x80\x00\x00"), Verbatim(b"\xdd\xff\xff\xff\xff"),
]  # fmt: skip
_LENGTHS = {"a": (0xA0, 32, (0xD9, 0xDA, 0xDB)), "b": (0, 0, (0xC4, 0xC5, 0xC6)),
            "l": (0x90, 16, (None, 0xDC, 0xDD)), "m": (0x80, 16, (None, 0xDE, 0xDF))}  # fmt: skip


class Writer:
    """Writes MessagePack, now and then not in the shortest form.

    Args:
        dice: Where chance comes from.
        share: How often.
    """

    def __init__(self, dice: random.Random, share: float) -> None:
        self.dice = dice
        self.share = share

    def write(self, value: Any) -> bytes:
        """Return the bytes of a value."""
        if isinstance(value, Verbatim):
            return bytes(value)
        long = self.dice.random() < self.share
        if isinstance(value, str):
            raw = value.encode()
            return self._head("a", len(raw), long) + raw
        if isinstance(value, bytes):
            return self._head("b", len(value), long) + value
        if isinstance(value, list):
            return self._head("l", len(value), long) + b"".join(map(self.write, value))
        if isinstance(value, dict):
            pairs = b"".join(self.write(part) for pair in value.items() for part in pair)
            return self._head("m", len(value), long) + pairs
        if type(value) is int and long:
            return b"\xd3" + value.to_bytes(8, "big", signed=True) if value < 1 << 63 else b"\xcf" + value.to_bytes(8, "big")  # fmt: skip
        return msgspec.msgpack.encode(value)

    def _head(self, kind: str, count: int, long: bool) -> bytes:
        short, most, heads = _LENGTHS[kind]
        if count < most and not long:
            return bytes([short | count])
        fitting = [(head, size) for head, size in zip(heads, (1, 2, 4), strict=True)
                   if head is not None and count < 1 << 8 * size]  # fmt: skip
        head, size = self.dice.choice(fitting) if long else fitting[0]
        return bytes([head]) + count.to_bytes(size, "big")


def changed(dice: random.Random, value: Any, depth: int = 0) -> Any:
    """Return a value of which one part is another."""
    if isinstance(value, list) and value and dice.random() < 0.9 - 0.1 * depth:
        place, parts = dice.randrange(len(value)), list(value)
        match dice.randrange(12):
            case 0:
                del parts[place]
            case 1:
                parts.insert(place, dice.choice(ODD))
            case 2:
                parts.insert(place, parts[place])
            case 3:
                dice.shuffle(parts)
            case _:
                parts[place] = changed(dice, parts[place], depth + 1)
        return parts
    if isinstance(value, dict) and value and dice.random() < 0.9:
        key = dice.choice(list(value))
        return {**value, key: changed(dice, value[key], depth + 1)}
    if type(value) is int and dice.random() < 0.5:
        moved = value + dice.choice([1, -1, 1_000, -1_000, 2**40, -(2**40), 6 * HOUR_MS])
        return max(min(moved, 2**64 - 1), 1 - 2**63)
    if isinstance(value, bytes) and dice.random() < 0.5:
        return dice.choice([value[:-1], value + b"x", bytes(len(value)), value])
    return dice.choice(ODD)


def odd_record(dice: random.Random, value: bytes) -> bytes:
    """Return a record of which something is not as it should be, or not as it would be written."""
    fields = msgspec.msgpack.decode(value)
    for _ in range(dice.choice([0, 1, 1, 1, 2, 3])):
        fields = changed(dice, fields)
    return Writer(dice, dice.choice([0, 0.2, 1])).write(fields)


def odd_leaf(dice: random.Random, body: bytes) -> bytes:
    """Return a leaf of which something is not as it should be."""
    parts = msgspec.msgpack.decode(body)
    for _ in range(dice.choice([1, 1, 2, 4])):
        place = dice.choice([2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 14, 14])
        parts[place] = changed(dice, parts[place])
    return Writer(dice, dice.choice([0, 0, 0.3])).write(parts)


BEGINNINGS = [
    0, NOW, -(10**12), 10**15, 2**53 - 10**10, 951_782_400_000 - 7_200_000, 1_711_846_800_000 - 3 * HOUR_MS,
    1_729_990_800_000 - 3 * HOUR_MS, -62_135_596_800_000 - 10**7, 253_402_300_800_000 - 10**7,
]  # fmt: skip
"""1970 and before, a leap day, both ends of summer time, the ends of the calendar, and beyond."""


def odd_times(dice: random.Random, log: list[LogRecord]) -> list[LogRecord]:
    """Return a log of another time, in which events occur at any, and whose stamps may fall."""
    shift, falls, moved = dice.choice(BEGINNINGS) - NOW, dice.random() < 0.5, []
    for one in log:
        record, logged_at_ms = decode_record(one.value), one.logged_at_ms + shift
        at_ms = record.occurred_at_ms + shift + dice.choice(
            [0, 0, 0, HOUR_MS, -HOUR_MS, 450_000, 30 * DAY_MS, -400 * DAY_MS]
        )  # fmt: skip
        if falls:
            logged_at_ms += dice.choice([0, 0, -7 * HOUR_MS, -1, -4 * DAY_MS, 80 * HOUR_MS])
        record = msgspec.structs.replace(
            record, occurred_at_ms=at_ms, received_at_ms=record.received_at_ms + shift
        )
        moved.append(LogRecord(one.offset, logged_at_ms, encode_record(record)))
    return moved


class Chance:
    """Definitions by chance."""

    def __init__(self, dice: random.Random) -> None:
        self.dice = dice

    def plan(self) -> Plan:
        """Return a plan of some features that can be compiled."""
        named: dict[str, Feature] = {}
        while len(named) < 6:
            name = f"feature_{len(named)}"
            try:
                one = self.feature()
                f.compile_plan(_profile({name: one}))
            except DefinitionError:
                continue
            named[name] = one
        zones = [
            "UTC",
            "Europe/London",
            "Asia/Kathmandu",
            "America/St_Johns",
            "Australia/Lord_Howe",
        ]
        return f.compile_plan(_profile(named), tz=self.dice.choice(zones))

    def feature(self) -> Any:
        """Return a feature, which may be none that can be compiled."""
        dice = self.dice
        items = dice.random() < 0.3
        source: Any = bought if items else viewed
        more: dict[str, Any] = {"over": self._window()}
        if dice.random() < 0.5:
            more["where"] = self._condition(items)
        if dice.random() < 0.3:
            more["by"] = self._field(items)
            more["groups_max"] = dice.choice([1, 2, 5, 1_000])
        if dice.random() < 0.2:
            more["purpose"] = "measurement"
        field, number = self._field(items), self._number(items)
        amount = self._amount(items) if dice.random() < 0.4 else number
        any_of = (field, self._field(items), self._field(items))
        half_life = f.hours(1) if dice.random() < 0.3 else f.days(dice.choice([3, 98, 100, 366]))
        make = dice.choice([
            lambda: f.count(source, **more), lambda: f.count(field, **more),
            lambda: f.sum_(amount, **more), lambda: f.min_(amount, **more), lambda: f.max_(amount, **more),
            lambda: f.mean(amount, **more), lambda: f.variance(amount, **more),
            lambda: f.quantile(amount, percent=50, **more),
            lambda: f.distinct(dice.choice([field, number]), cap=dice.choice([1, 3, 256]), precision=7, **more),
            lambda: f.top_k(field, k=2, cap=dice.choice([1, 3, 100]), **more),
            lambda: f.first(field, **more), lambda: f.last(dice.choice([field, any_of]), **more),
            lambda: f.last_k(field, k=dice.choice([1, 3, 50]), distinct=dice.random() < 0.5, **more),
            lambda: f.last_k(any_of[:2], k=dice.choice([1, 3]), distinct_by=any_of[2], **more),
            lambda: f.decay(dice.choice([source, number]), half_life=half_life, **more),
            lambda: f.sessions(dice.choice([source, field]), **more),
            lambda: f.instants(dice.choice([source, field]), k=dice.choice([1, 3, 200]), **more),
            lambda: f.recency(source, **more), lambda: f.exists(source, **more),
        ])  # fmt: skip
        return make()

    def _window(self) -> Any:
        dice = self.dice
        return dice.choice([
            f.days(dice.choice([1, 7, 30, 400])), f.hours(dice.choice([1, 5])), f.lifetime(),
            f.tumbling(dice.choice(["hour", "day", "week", "month"]), previous=dice.randrange(3)),
        ])  # fmt: skip

    def _field(self, items: bool) -> Any:
        if items:
            return self.dice.choice([bought.product_id, bought.price, bought.quantity])
        return self.dice.choice([
            viewed.product_id, viewed.price, viewed.stock, viewed.weight, viewed.sale, viewed.listed, viewed.category,
            viewed.sale & viewed.price.known(),
        ])  # fmt: skip

    def _number(self, items: bool, depth: int = 0) -> Any:
        dice = self.dice
        if depth > 2 or dice.random() < 0.4:
            return bought.quantity if items else dice.choice([viewed.weight, viewed.stock])
        one, other = self._number(items, depth + 1), self._number(items, depth + 1)
        if dice.random() < 0.4:
            other = dice.choice([0, 1, -1, 2, 10**6, 2**40, -(2**53)])
        return dice.choice([lambda: one + other, lambda: one - other, lambda: one * other, lambda: -one])()  # fmt: skip

    def _amount(self, items: bool, depth: int = 0) -> Any:
        dice, field = self.dice, bought.price if items else viewed.price
        if depth > 1 or dice.random() < 0.5:
            return field
        one, other = self._amount(items, depth + 1), self._amount(items, depth + 1)
        factor = dice.choice([2, -3, bought.quantity if items else viewed.stock])
        return dice.choice([lambda: one + other, lambda: one - other, lambda: one * factor, lambda: -one])()  # fmt: skip

    def _condition(self, items: bool, depth: int = 0) -> Any:
        dice = self.dice
        if depth < 3 and dice.random() < 0.5:
            one, other = self._condition(items, depth + 1), self._condition(items, depth + 1)
            return dice.choice([lambda: one & other, lambda: one | other, lambda: ~one])()
        number, source = self._number(items, 1), (bought if items else viewed)
        return dice.choice([
            lambda: number > dice.choice([0, 3, 2**52]), lambda: number == self._number(items, 1),
            source.category.known, lambda: source.product_id != "p1",
            lambda: self._amount(items) > f.amount("3.00", "GBP"),
            lambda: self._amount(items) != self._amount(items),
            lambda: source.price.known() if items else viewed.sale,
            lambda: source.price.known() if items else viewed.listed > "2026-11-25T10:00:00Z",
        ])()  # fmt: skip


def _profile(features: Mapping[str, Any]) -> Any:
    return type("ByChance", (f.Profile,), dict(features))


GREAT = [2**53 - 1, 1 - 2**53, 2**52, 2**40, 0, 1]


def with_great_numbers(dice: random.Random, log: list[LogRecord]) -> list[LogRecord]:
    """Return a log in which numbers are as great as they may be."""
    grown: list[LogRecord] = []
    for one in log:
        try:
            record = decode_record(one.value)
        except DataCorrupt:
            continue
        for name in ("stock", "weight"):
            if name in record.properties:
                record.properties[name] = dice.choice(GREAT)
        if "price" in record.properties:
            record.properties["price"] = [dice.choice(GREAT), dice.choice(["GBP", "EUR"])]
        items = record.properties.get("products")
        for item in items if isinstance(items, list) else ():
            if isinstance(item, dict):
                item["quantity"] = dice.choice(GREAT)
        grown.append(one._replace(value=encode_record(record)))
    return grown
