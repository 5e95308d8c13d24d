"""Definitions of every kind and requests of every kind, for two intakes that must not differ."""

import json
import random
from collections.abc import Coroutine
from typing import Any

from penstock.adapters.accelerator.native import accelerate_intake
from penstock.adapters.metrics.memory import MemoryMetrics
from penstock.adapters.suppressions.memory import MemorySuppressions
from penstock.core.catalog.schema import Catalog
from penstock.core.consent.purpose import ConsentRules
from penstock.core.errors import PenstockError
from penstock.core.event import RUDDERSTACK, SEGMENT
from penstock.core.identity.identifier import IdentityRules
from penstock.core.protect import Protector
from penstock.core.record import DeadLetter, Record, encode_record
from penstock.core.time import format_instant
from penstock.dsl.events import (
    boolean,
    datetime,
    decimal,
    event,
    group_traits,
    integer,
    money,
    objects,
    one_of,
    private,
    stamped,
    string,
    strings,
    traits,
)
from penstock.flows.collect import Collector, Source
from penstock.flows.intake import Reading
from penstock.testing.clock import HandClock

NOW = 1_795_000_000_000
TRUNCATED, HASHED, GONE = (private(protection=one) for one in ("truncate", "pseudonym", "drop"))

EVENTS = [
    event(
        "Product Viewed", product_id=string(required=True), category=one_of("shoes", "bags"), price=money(),
        weight=decimal(scale=2), stock=integer(), sale=boolean(), listed=datetime(), tags=strings(items_max=4),
        label=string(chars_max=5),
    ),
    event(
        "Guarded", area=string(privacy=TRUNCATED), device=string(privacy=HASHED), url=string(privacy=GONE),
        number=integer(privacy=HASHED), month=datetime(privacy=TRUNCATED), areas=strings(privacy=TRUNCATED),
        devices=strings(privacy=HASHED), kind=one_of("a", "b", privacy=HASHED),
    ),
    event(
        "Order Completed", total=money(), fine=money(scale=4, currency="KWD"), other=money(currency_field="unit"),
        products=objects({
            "product_id": string(required=True), "price": money(), "quantity": integer(),
            "parts": objects({"price": money(), "name": string()}, items_max=3),
        }),
    ),
    event("Stamped", item=string(), price=stamped(money(), item="price", by="item")),
    event("Unsubscribed", topic=string()),
    event("screen", fields={"name": string(chars_max=8), "amount": money(currency_field="category")}),
]  # fmt: skip
TRAITS = traits(
    email=string(privacy=HASHED), name=string(), age=integer(), postcode=string(privacy=TRUNCATED),
    secret=string(privacy=GONE), born=datetime(), spent=money(),
)  # fmt: skip
GROUPS = group_traits(plan=string(), seats=integer(), email=string())

WORLDS: list[tuple[Catalog, IdentityRules, ConsentRules]] = [
    (
        Catalog(EVENTS, TRAITS, group_traits=GROUPS, default_currency="EUR", undeclared="keep"),
        IdentityRules(),
        ConsentRules(categories={"ads": ("advertising",), "all": ("personalisation", "measurement")}),
    ),
    (
        Catalog(EVENTS, {}, undeclared="drop", traits_undeclared="keep"),
        IdentityRules.with_overrides(blocked_values=("Nobody",)),
        ConsentRules(regime="opt_out"),
    ),
    (Catalog([], TRAITS, undeclared="reject", default_currency="JPY"), IdentityRules(), ConsentRules()),
]  # fmt: skip
"""Definitions that keep, drop and reject what nobody declared."""

SOURCES = [
    Source("site", False, 0, {"personalisation": "legitimate_interest"}),
    Source("shop", False, 0, {}),
    Source("backend", True, 5, {"personalisation": "contract"}),
    Source("app", False, 1, {}, {"k": "x" * 40}),
]
READINGS = [
    Reading(True, None, SEGMENT),
    Reading(True, None, RUDDERSTACK),
    Reading(False, None, SEGMENT),
]


class Kept:
    """An appender that keeps what it is given, as bytes."""

    def __init__(self) -> None:
        self.records: list[bytes] = []
        self.letters: list[DeadLetter] = []
        self.urgent: list[bool] = []
        self.fault: PenstockError | None = None

    async def append(self, records: Any, letters: Any = (), *, urgent: bool = False) -> None:
        if self.fault is not None:
            raise self.fault
        for record in records:
            self.records.append(encode_record(record) if isinstance(record, Record) else record)
        self.letters += letters
        self.urgent.append(urgent)


class Side:
    """A collector, by the accelerator or without it, and all that comes out of it."""

    def __init__(self, world: int, *, native: bool) -> None:
        catalog, identity, consent = WORLDS[world]
        self.appended, self.metrics = Kept(), MemoryMetrics()
        self.suppressions = MemorySuppressions()
        self.collector = Collector(
            catalog=catalog, protector=Protector(b"p" * 32), identity=identity, consent=consent,
            identifier_key=b"k" * 32, tenant="default", appender=self.appended,
            suppressions=self.suppressions, clock=HandClock(NOW), metrics=self.metrics,
            put_suppressions=self._put, accelerate=accelerate_intake() if native else None,
        )  # fmt: skip

    async def _put(self, entries: Any) -> None:
        self.suppressions.put(entries)

    def take(self, body: bytes, reading: Reading, source: Source, *, gpc: bool) -> Any:
        """Return the answer to a body, or what was refused."""
        try:
            return _done(self.collector.take_body(source, reading, body, gpc=gpc))
        except PenstockError as error:
            return (error.code, error.what, error.where, error.fix)

    def seen(self) -> list[Any]:
        """Return all that came out so far."""
        kept = self.appended
        return [kept.records, kept.letters, kept.urgent, self.metrics.exposition()]


class Pair:
    """The same requests for two collectors."""

    def __init__(self, world: int) -> None:
        self.python, self.native = Side(world, native=False), Side(world, native=True)

    def take(self, body: bytes, reading: Reading, source: Source, *, gpc: bool = False) -> None:
        """Give both a body twice: what it says of consent is known at the second time."""
        for _ in range(2):
            answers = [
                side.take(body, reading, source, gpc=gpc) for side in (self.python, self.native)
            ]
            assert answers[0] == answers[1]
        python, native = self.python.seen(), self.native.seen()
        assert [one.hex() for one in python[0]] == [one.hex() for one in native[0]]
        assert python == native


class Sender:
    """Makes requests of what real senders send, and of what they should not.

    Args:
        seed: Of all that it makes.
        oddity: How likely each value is an odd one.
    """

    def __init__(self, seed: int, oddity: float = 0.0) -> None:
        self.dice, self.oddity = random.Random(seed), oddity

    def maybe(self, share: float) -> bool:
        return self.dice.random() < share

    def one(self, *values: Any) -> Any:
        if self.oddity and self.maybe(self.oddity):
            return self.dice.choice(ODD)
        return self.dice.choice(values)

    def text(self) -> str:
        return self.one(
            "sku-1",
            "Grünes Hemd",
            "a",
            "it's",
            'say "hi"',
            "tab\there",
            "日本語",
            "😀 ok",
            "back\\slash",
            "",
            "x" * 60,
        )

    def number(self) -> Any:
        return self.one(0, 1, 19.99, 5, 1_000_000, -3, 0.5, 19.999, "12.50", "7", 1e3, 100.0, -0.25)

    def instant(self) -> Any:
        at_ms = NOW - self.dice.choice([0, 40_000, 3_600_000, 10**10, 10**12])
        text = format_instant(at_ms)
        return self.one(text, text, text[:-1], text[:-5] + "Z", text[:-1] + "+02:00", text[:10], text.replace("T", " "),
                        text[:-1] + "123-05:30", text[:-2] + "Z")  # fmt: skip

    def currency(self) -> Any:
        return self.one("EUR", "GBP", "JPY", "kwd", "Usd", None)

    def event(self) -> dict[str, Any]:
        """Return one event of any type."""
        kind = self.dice.choice(["track"] * 6 + ["identify", "page", "screen", "group", "alias"])
        body: dict[str, Any] = {"type": self.one(kind, kind, kind)}
        if self.maybe(0.9):
            body["messageId"] = self.one(f"m-{self.dice.randrange(10**9)}", "", "m")
        if self.maybe(0.8):
            body["anonymousId"] = self.one(
                f"d-{self.dice.randrange(99)}", "  d-7 ", "guest", "", None, 17
            )
        if self.maybe(0.5) or kind == "alias":
            body["userId"] = self.one(
                f"u-{self.dice.randrange(99)}", "d-7", "Ünal", "0000", "Nobody", 42, ""
            )
        if self.maybe(0.2) or kind == "group":
            body["groupId"] = self.one("g-1", "g-2", "", "id")
        if self.maybe(0.1) or kind == "alias":
            body["previousId"] = self.one("u-1", "d-7", "old", "null")
        if self.maybe(0.8):
            body["timestamp"] = self.instant()
        if self.maybe(0.1):
            body["originalTimestamp"] = self.instant()
        if self.maybe(0.3):
            body["sentAt"] = self.instant()
        if kind == "track":
            body["event"] = self.name()
        if kind in ("track", "page", "screen") or self.maybe(0.1):
            body["properties"] = self.properties(body.get("event"))
        if kind in ("identify", "group") or self.maybe(0.1):
            body["traits"] = self.traits()
        if kind in ("page", "screen") and self.maybe(0.5):
            body |= {"name": self.text(), "category": self.text()}
        if self.maybe(0.8):
            body["context"] = self.context()
        if self.maybe(0.3):
            body["integrations"] = {"All": True, "x": [1, {"y": None}]}
        pairs = list(body.items())
        if self.maybe(0.3):
            self.dice.shuffle(pairs)
        return dict(pairs)

    def name(self) -> Any:
        return self.one("Product Viewed", "Product Viewed", "Guarded", "Order Completed", "Stamped", "Unsubscribed",
                        "Not Declared", "page")  # fmt: skip

    def properties(self, name: Any) -> dict[str, Any]:
        makers = {
            "product_id": self.text, "category": lambda: self.one("shoes", "bags", "shoes", "hats"),
            "price": self.number, "currency": self.currency, "weight": self.number, "stock": lambda: self.one(1, 2, 30),
            "sale": lambda: self.one(True, False), "listed": self.instant, "label": lambda: self.one("new", "sale", "ü"),
            "tags": lambda: [self.text() for _ in range(self.dice.randrange(5))], "colour": self.text,
        }  # fmt: skip
        if name == "Guarded":
            area = lambda: self.one(
                "SW1A 1AA", "10.1.2.3", "a@b.example", " x", "2001:db8::1", "1.2.3.400", "Öl"
            )
            makers = {
                "area": area, "device": self.text, "url": self.text, "number": lambda: self.one(5, 77, "8"),
                "month": self.instant, "areas": lambda: [area() for _ in range(self.dice.randrange(4))],
                "devices": lambda: [self.text() for _ in range(3)], "kind": lambda: self.one("a", "b"),
            }  # fmt: skip
        elif name == "Order Completed":
            makers = {
                "total": self.number, "fine": self.number, "currency": self.currency, "other": self.number,
                "unit": self.currency, "products": lambda: [self.product(2) for _ in range(self.dice.randrange(4))],
            }  # fmt: skip
        found = {
            key: make() for key, make in makers.items() if key == "product_id" or self.maybe(0.6)
        }
        if self.maybe(0.1):
            found |= {
                f"extra {number}": {"deep": [self.number()]}
                for number in range(self.dice.choice([1, 30]))
            }
        return found

    def product(self, depth: int) -> dict[str, Any]:
        one: dict[str, Any] = {
            "product_id": self.text(),
            "price": self.number(),
            "quantity": self.one(1, 2),
        }
        if self.maybe(0.3):
            one["currency"] = self.currency()
        if self.maybe(0.3):
            one["colour"] = self.text()
        if depth and self.maybe(0.4):
            one["parts"] = [{"price": self.number(), "name": self.text()} for _ in range(2)]
        return one

    def traits(self) -> dict[str, Any]:
        makers = {
            "email": lambda: self.one("a.b@shop.example", " Jo@Shop.Example. ", "no address", "", "test@test.com"),
            "name": self.text, "age": lambda: self.one(30, None, "41"), "postcode": lambda: self.one("SW1A 1AA", "N1"),
            "secret": self.text, "born": self.instant, "plan": self.text, "seats": lambda: self.one(3, 4),
            "spent": self.number, "free": lambda: self.one(self.text(), self.number(), True, None, [1], "y" * 1_001),
        }  # fmt: skip
        return {key: make() for key, make in makers.items() if self.maybe(0.5)}

    def context(self) -> dict[str, Any]:
        context: dict[str, Any] = {
            "library": {"name": "analytics.js", "version": "4"},
            "page": {"path": "/"},
        }
        if self.maybe(0.7):
            said = {"personalisation": self.one(True, True, False), "ads": self.one(True, False),
                    "all": self.one(True, True, False), "other": self.one(True, False, None, "true")}  # fmt: skip
            kept = {key: value for key, value in said.items() if self.maybe(0.6)}
            context["consent"] = {"categoryPreferences": self.one(kept, kept, kept, None)}
        if self.maybe(0.1):
            context["consentManagement"] = {
                "allowedConsentIds": ["all"],
                "deniedConsentIds": self.one(["ads"], []),
            }
        if self.maybe(0.2):
            context["traits"] = self.traits()
        if self.maybe(0.1):
            context["externalIds"] = self.one(
                [], [{"type": "phone", "id": "+49 170 1234567"}], None
            )
        if self.maybe(0.05):
            context["identityToken"] = "a.b.c"
        return context

    def body(self, reading: Reading, events_max: int = 6) -> bytes:
        """Return a request's body."""
        dumps = self.dice.choice(
            [_compact, json.dumps, lambda one: json.dumps(one, indent=1, ensure_ascii=False)]
        )
        if not reading.batch:
            return dumps(self.event()).encode()
        whole: dict[str, Any] = {
            "batch": [self.event() for _ in range(self.dice.randrange(1, events_max))]
        }
        if self.maybe(0.5):
            whole["sentAt"] = self.one(self.instant(), None)
        if self.maybe(0.1):
            whole["context"] = self.one(
                {}, None, {"consent": {"categoryPreferences": {"all": False}}}
            )
        if self.maybe(0.2):
            whole |= {"writeKey": "wk", "integrations": {}}
        return dumps(whole).encode()

    def damaged(self, body: bytes) -> bytes:
        """Return a body with some of its bytes changed, left out, doubled or put elsewhere."""
        raw = bytearray(body)
        for _ in range(self.dice.choice([1, 1, 1, 2, 5])):
            at = self.dice.randrange(len(raw) + 1)
            to = min(len(raw), at + self.dice.choice([0, 1, 1, 4, 20]))
            some = self.dice.randrange(max(len(raw), 1))
            raw[at:to] = self.dice.choice([
                b"", self.dice.choice(MARKS), bytes([self.dice.randrange(256)]),
                bytes(raw[some : some + self.dice.choice([1, 5, 30])]),
            ])  # fmt: skip
        return bytes(raw)


def _done(taking: Coroutine[Any, Any, Any]) -> Any:
    """Return what comes of something that has nothing to wait for: a loop for each body would cost more."""
    try:
        taking.send(None)
    except StopIteration as done:
        return done.value
    raise AssertionError("an appender of tests never waits")


def _compact(one: Any) -> str:
    return json.dumps(one, separators=(",", ":"), ensure_ascii=False)


ODD: list[Any] = [
    None, True, False, 0, -1, 2**53, 2**53 - 1, 1 - 2**53, -(2**53), 2**63, 2**64, 10**30, -(2**63), 1e300, 1e-9, 0.1 + 0.2, 5e-324, "", " ", "x" * 600,
    "y" * 1_000, "y" * 1_001, "ü" * 1_001, "9007199254740991", "9007199254740992", "90071992547409.91", "90071992547409.92", "1.005", "-1.005", "0.00499", "nan", "1e5", "+7", ".5", "5.", "0x10", "\uff11\uff12", "1_000", "-0", "\u0663", "\u0000", "a\u0000b", "\u2028", "\ufeffid", "\u200bid",
    "\ufb01", "e\u0301", "İ", "ß", [], {}, [[[[]]]], {"": {}}, {"a": {"a": {"a": 1}}}, [None], [1, "x", {}], ["a", 1, 2.5],
    "2026-02-30T10:00:00Z", "2026-11-25T24:00:00Z", "20261125T100000Z", "2026-W48-3", "0001-01-01T00:00:00+01:00",
    "9999-12-31T23:59:59.999Z", "1969-12-31T23:59:59Z", "2026-11-25T10:00:00.1234567Z", "2026-11-25T10:00Z",
    "2026-11-25T10:00:60Z", "10000-01-01", "EURO", "eu", "€", "XXX", {"email": "a@b.c"}, "a@b@c.d", "test", "`guest`",
    "000-000", "\x7f", "\x1f", "a,b@c.d",
]  # fmt: skip
"""Values that are hardly ever what is meant."""

MARKS = [
    b'"', b"\\", b"{", b"}", b"[", b"]", b",", b":", b" ", b"\n", b"0", b"-", b".", b"e", b"null", b"true", b"\\u0000",
    b"\\ud800", b"\\udc00", b"\\ud83d\\ude00", b"\\u003a", b'"type":', b'"a":1,', b"\xff", b"\xc3\xa9", b"\xef\xbb\xbf", b"\t", b"\\u0022",
    b"1e5", b"99999999999999999999", b"NaN", b"[" * 40, b'{"a":' * 40, b"//", b"\\n", b"\\x", b"'", b"\x00", b"-0",
]  # fmt: skip
"""Bytes that mean something in JSON, or nearly do."""
