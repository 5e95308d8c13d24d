"""Synthetic shoppers: seeded sessions, purchases, consent, unsubscribes, late and repeated events.

Everything is decided by the seed and by `now_ms`: the same arguments give the same events, byte for
byte. The generator also says what is true of them, so that a test need not trust the engine.
"""

from __future__ import annotations

import csv
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from penstock.core.time import format_instant

DAY_MS = 86_400_000
HOUR_MS = 3_600_000
MINUTE_MS = 60_000

FIRST_NAMES = (
    "Ada", "Ben", "Chloe", "Dev", "Ella", "Finn", "Grace", "Hugo", "Iris", "Jack", "Kira", "Leo",
    "Mina", "Noor", "Olga", "Priya", "Quinn", "Rosa", "Sam", "Tess", "Uma", "Vera", "Will", "Yara",
)  # fmt: skip
CITIES = ("London", "Leeds", "Bristol", "Cardiff", "Glasgow", "Belfast", "York")
SEARCHES = ("boots", "gift", "rain jacket", "pan", "kite", "radio", "bag for work")

CATALOGUE = Path(__file__).parent / "catalogue.csv"


class Sent(NamedTuple):
    """One event as a source sends it."""

    source: str
    """`web` or `backend`, as `penstock.toml` declares them."""
    body: dict[str, Any]


@dataclass
class Truth:
    """What is true of the events, whatever an engine makes of them."""

    message_ids: set[str] = field(default_factory=set)
    """Of well-formed events, each once."""
    duplicates: int = 0
    malformed: int = 0
    denied: set[str] = field(default_factory=set)
    """User ids of people who permit no personalisation at the end."""
    unsubscribed: set[str] = field(default_factory=set)
    views: dict[str, list[tuple[int, str]]] = field(default_factory=dict)
    """User id -> (occurred_at_ms, product id) of what they viewed while they permitted it."""
    bought: dict[str, set[str]] = field(default_factory=dict)
    emails: dict[str, str] = field(default_factory=dict)


class Product(NamedTuple):
    """What the generator needs to know of a product."""

    product_id: str
    category: str
    price: str
    title: str


def read_catalogue(path: Path = CATALOGUE) -> list[Product]:
    """Return the products of a catalogue file."""
    with path.open(newline="", encoding="utf-8") as rows:
        return [
            Product(row["item_id"], row["category"], row["price"], row["title"])
            for row in csv.DictReader(rows)
        ]


class Shoppers:
    """A population of shoppers and everything they do before `now_ms`.

    Args:
        seed: Decides everything.
        now_ms: The present instant; events end before it.
        people: How many shoppers.
        weeks: How far back they began.
    """

    def __init__(self, seed: int, now_ms: int, *, people: int = 400, weeks: int = 4) -> None:
        self.dice = random.Random(seed)  # noqa: S311 - one seed, one world
        self.now_ms = now_ms
        self.people = people
        self.weeks = weeks
        self.products = read_catalogue()
        self.truth = Truth()
        self._number = 0

    def events(self) -> list[Sent]:
        """Return all events in the order in which they are sent: late ones late, copies twice."""
        sent: list[tuple[int, int, Sent]] = []
        for person in range(self.people):
            for at_ms, one in self._life(person):
                arrives_ms = at_ms + self._lateness_ms()
                sent.append((min(arrives_ms, self.now_ms), len(sent), one))
                if self.dice.random() < 0.02:
                    self.truth.duplicates += 1
                    again_ms = min(arrives_ms + self.dice.randrange(HOUR_MS), self.now_ms)
                    sent.append((again_ms, len(sent), one))
        for _ in range(self.people // 40):
            at_ms = self.now_ms - self.dice.randrange(DAY_MS)
            sent.append((at_ms, len(sent), self._malformed(at_ms)))
        sent.sort(key=lambda entry: entry[:2])
        return [one for _, _, one in sent]

    # -- one life

    def _life(self, person: int) -> Iterator[tuple[int, Sent]]:
        dice = self.dice
        user = f"u-{person:04d}"
        name = dice.choice(FIRST_NAMES)
        email = f"{name.lower()}.{person:04d}@example.com"
        devices = [f"device-{person:04d}-{number}" for number in range(dice.choice((1, 1, 1, 2, 3)))]
        taste = dice.sample(sorted({product.category for product in self.products}), 2)
        consents = dice.random() < 0.88
        truth = self.truth
        truth.emails[user] = email
        truth.views[user], truth.bought[user] = [], set()
        if not consents:
            truth.denied.add(user)
        at_ms = self.now_ms - dice.randrange(DAY_MS, self.weeks * 7 * DAY_MS)
        known = dice.random() < 0.3
        first = True
        while at_ms < self.now_ms - HOUR_MS:
            device = dice.choice(devices)
            for offset_ms, sent in self._session(user, device, at_ms, taste, consents, identified=known):
                yield at_ms + offset_ms, sent
            if first or (not known and dice.random() < 0.5):
                known = True
                yield at_ms + 45 * MINUTE_MS, self._identify(user, device, email, name, at_ms, consents)
            first = False
            at_ms += int(dice.expovariate(1 / (2.5 * DAY_MS))) + 2 * HOUR_MS
        yield from self._farewells(user, consents)

    def _farewells(self, user: str, consents: bool) -> Iterator[tuple[int, Sent]]:
        at_ms = self.now_ms - self.dice.randrange(MINUTE_MS, 30 * MINUTE_MS)
        if self.dice.random() < 0.04:
            self.truth.unsubscribed.add(user)
            yield at_ms, self._track(
                "backend", "Unsubscribed", at_ms, consents, {"topic": "offers"},
                userId=user, email=self.truth.emails[user],
            )  # fmt: skip
        if consents and self.dice.random() < 0.03:
            self.truth.denied.add(user)
            yield at_ms, self._track(
                "backend", "Segment Consent Preference Updated", at_ms, False, {}, userId=user
            )

    def _session(
        self, user: str, device: str, at_ms: int, taste: list[str], consents: bool, *, identified: bool
    ) -> Iterator[tuple[int, Sent]]:
        dice = self.dice
        who = {"anonymousId": device} | ({"userId": user} if identified else {})
        offset_ms = 0
        seen: list[Product] = []
        if dice.random() < 0.15:
            yield offset_ms, self._track(
                "web", "Products Searched", at_ms, consents, {"query": dice.choice(SEARCHES)}, **who
            )
        for _ in range(1 + min(int(dice.expovariate(0.35)), 14)):
            offset_ms += dice.randrange(5_000, 90_000)
            product = self._pick(taste)
            seen.append(product)
            if consents:
                self.truth.views[user].append((at_ms + offset_ms, product.product_id))
            yield offset_ms, self._track(
                "web", "Product Viewed", at_ms + offset_ms, consents,
                {"product_id": product.product_id, "category": product.category, "name": product.title,
                 "price": float(product.price), "currency": "GBP"}, **who,
            )  # fmt: skip
        if dice.random() < 0.3:
            offset_ms += MINUTE_MS
            added = dice.choice(seen)
            yield offset_ms, self._track(
                "web", "Product Added", at_ms + offset_ms, consents,
                {"product_id": added.product_id, "category": added.category, "price": float(added.price),
                 "quantity": 1, "currency": "GBP"}, **who,
            )  # fmt: skip
            if dice.random() < 0.45:
                yield offset_ms + 2 * MINUTE_MS, self._order(user, added, at_ms + offset_ms, consents)

    def _order(self, user: str, product: Product, at_ms: int, consents: bool) -> Sent:
        if consents:
            self.truth.bought[user].add(product.product_id)
        quantity = self.dice.choice((1, 1, 1, 2))
        return self._track(
            "backend", "Order Completed", at_ms + 2 * MINUTE_MS, consents,
            {"order_id": f"o-{self._number}", "total": round(float(product.price) * quantity, 2),
             "currency": "GBP", "products": [
                 {"product_id": product.product_id, "category": product.category, "quantity": quantity,
                  "price": float(product.price)}]},
            userId=user,
        )  # fmt: skip

    def _identify(
        self, user: str, device: str, email: str, name: str, at_ms: int, consents: bool
    ) -> Sent:
        body = {
            "type": "identify", "userId": user, "anonymousId": device,
            "traits": {"email": email, "first_name": name, "city": self.dice.choice(CITIES),
                       "shoe_size": 42},
        }  # fmt: skip
        return self._sent("backend", body, at_ms + 45 * MINUTE_MS, consents)

    def _track(
        self, source: str, name: str, at_ms: int, consents: bool, properties: dict[str, Any], **who: str
    ) -> Sent:
        email = who.pop("email", None)
        body: dict[str, Any] = {"type": "track", "event": name, "properties": properties, **who}
        return self._sent(source, body, at_ms, consents, email=email)

    def _sent(
        self, source: str, body: dict[str, Any], at_ms: int, consents: bool, *, email: str | None = None
    ) -> Sent:
        self._number += 1
        message_id = f"shop-{self._number:06d}"
        self.truth.message_ids.add(message_id)
        context: dict[str, Any] = {
            "consent": {"categoryPreferences": {"personal": consents, "statistics": True}}
        }
        if email is not None:
            context["traits"] = {"email": email}
        stamp = format_instant(at_ms)
        return Sent(source, {**body, "messageId": message_id, "timestamp": stamp, "context": context})

    def _malformed(self, at_ms: int) -> Sent:
        self.truth.malformed += 1
        self._number += 1
        return Sent("web", {
            "type": "track", "event": "Product Viewed", "messageId": f"bad-{self._number:06d}",
            "anonymousId": "device-bad", "timestamp": format_instant(at_ms),
            "context": {"consent": {"categoryPreferences": {"personal": True}}},
            "properties": {"product_id": {"not": "a text"}},
        })  # fmt: skip

    def _pick(self, taste: list[str]) -> Product:
        if self.dice.random() < 0.75:
            return self.dice.choice([p for p in self.products if p.category in taste])
        return self.dice.choice(self.products)

    def _lateness_ms(self) -> int:
        draw = self.dice.random()
        if draw < 0.005:
            return self.dice.randrange(3 * DAY_MS)
        return int(self.dice.expovariate(1 / (10 * MINUTE_MS))) if draw < 0.1 else 0
