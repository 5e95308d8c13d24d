"""Synthetic shoppers: seeded sessions, orders, consent, unsubscribes, and the mess that real events are.

Everything is decided by the seed and by `now_ms`: the same arguments give the same events, byte for
byte. The mess is on purpose: several devices and one that a family shares, events days late, copies,
junk ids, fields and events that nobody declared, and events that are plainly broken. The generator
also says what is true of it all, so that a test need not trust the engine.
"""

from __future__ import annotations

import csv
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from penstock.core.time import DAY_MS, HOUR_MS, MINUTE_MS, SECOND_MS, format_instant

FIRST_NAMES = (
    "Ada", "Ben", "Chloe", "Dev", "Ella", "Finn", "Grace", "Hugo", "Iris", "Jack", "Kira", "Leo",
    "Mina", "Noor", "Olga", "Priya", "Quinn", "Rosa", "Sam", "Tess", "Uma", "Vera", "Will", "Yara",
)  # fmt: skip
LAST_NAMES = (
    "Abbott", "Baker", "Carter", "Dunn", "Ellis", "Fraser", "Grant", "Hughes", "Iqbal", "Jones", "Khan",
    "Lowe", "Mills", "Nash", "Owen", "Patel", "Reid", "Shaw", "Thorne", "Ward",
)  # fmt: skip
CITIES = ("London", "Leeds", "Bristol", "Cardiff", "Glasgow", "Belfast", "York")
SEARCHES = ("boots", "gift", "rain jacket", "pan", "kite", "lamp", "bag for work")
JUNK_IDS = ("null", "undefined", "00000000-0000-0000-0000-000000000000")

CATALOGUE = Path(__file__).parent / "catalogue.csv"


class Product(NamedTuple):
    """What the generator needs to know of a product."""

    product_id: str
    title: str
    category: str
    price: str


class Sent(NamedTuple):
    """One event as a source sends it."""

    source: str
    """`web` or `backend`, as `penstock.toml` declares them."""
    arrives_ms: int
    """When it reaches the collector; it happened at its `timestamp`, or a little or much earlier."""
    body: dict[str, Any]


@dataclass
class Truth:
    """What is true of the events, whatever an engine makes of them."""

    distinct: set[str] = field(default_factory=set)
    """Message ids of well-formed, declared events."""
    duplicates: int = 0
    """Second copies of those."""
    malformed: int = 0
    """Events that break their declaration or name nobody."""
    undeclared: int = 0
    """Events of a type that nobody declared."""
    denied: set[str] = field(default_factory=set)
    """User ids of those who do not permit personalisation at the end."""
    withdrawn: set[str] = field(default_factory=set)
    """Those of `denied` who permitted it once."""
    returned: dict[str, int] = field(default_factory=dict)
    """User id -> when they permitted it again; what was before is gone."""
    unsubscribed: set[str] = field(default_factory=set)
    """User ids of those who get no offers at the end: they said so, complained, or bounced."""
    emails: dict[str, str] = field(default_factory=dict)
    shared: set[str] = field(default_factory=set)
    """Devices that two people used."""
    views: list[View] = field(default_factory=list)
    orders: list[View] = field(default_factory=list)

    def viewed(self, user: str) -> list[View]:
        """Return the views that may be used for a person, oldest first.

        Those on a shared device are nobody's; those without consent, or from before a withdrawal,
        are not to be used.
        """
        return self._usable(self.views, user)

    def ordered(self, user: str) -> list[View]:
        """Return the product of each order that may be used for a person, oldest first."""
        return self._usable(self.orders, user)

    def _usable(self, facts: list[View], user: str) -> list[View]:
        since_ms = self.returned.get(user, 0)
        if user in self.denied:
            return []
        return sorted(
            one for one in facts
            if one.user == user and one.permitted and one.at_ms >= since_ms
            and one.device not in self.shared
        )  # fmt: skip


class View(NamedTuple):
    """A product viewed or ordered."""

    at_ms: int
    user: str
    device: str
    """Empty for an order: the shop's server names the person only."""
    product_id: str
    category: str
    permitted: bool


@dataclass
class Person:
    """One shopper while their events are made."""

    user: str
    name: str
    email: str
    devices: list[str]
    taste: list[str]
    choices: list[tuple[int, bool]]
    """(from when, whether personalisation is permitted), oldest first."""
    known: bool
    """Whether the site knows who they are, and says so with each event."""

    def permits(self, at_ms: int) -> bool:
        """Return what the consent platform says at an instant."""
        return [permitted for since_ms, permitted in self.choices if since_ms <= at_ms][-1]


def read_catalogue(path: Path = CATALOGUE) -> list[Product]:
    """Return the products of a catalogue file."""
    with path.open(newline="", encoding="utf-8") as rows:
        return [
            Product(row["item_id"], row["title"], row["category"], row["price"])
            for row in csv.DictReader(rows)
        ]


class Shoppers:
    """A population of shoppers and everything they do before `now_ms`.

    Args:
        seed: Decides everything.
        now_ms: The present instant, ms since 1970 UTC; events end before it.
        people: How many shoppers.
        weeks: How far back the first of them came.

    Attributes:
        truth: What is true of the events; complete once `events` has returned.
        people: The shoppers, likewise.
    """

    def __init__(self, seed: int, now_ms: int, *, people: int = 400, weeks: int = 4) -> None:
        self.dice = random.Random(seed)
        self.now_ms = now_ms
        self.start_ms = now_ms - weeks * 7 * DAY_MS
        self.products = read_catalogue()
        self.truth = Truth()
        self._number = 0
        self.people = [self._person(number) for number in range(people)]
        for one, other in zip(self.people[::40], self.people[20::40], strict=False):
            tablet = f"tablet-{one.user}"
            self.truth.shared.add(tablet)
            one.devices.append(tablet)
            other.devices.append(tablet)

    def events(self) -> list[Sent]:
        """Return all events in the order in which they are sent: late ones late, copies twice."""
        sent: list[tuple[int, int, Sent]] = []
        for person in self.people:
            for at_ms, source, body in self._life(person):
                arrives_ms = min(at_ms + self._lateness_ms(), self.now_ms)
                sent.append((arrives_ms, len(sent), Sent(source, arrives_ms, body)))
                if body["messageId"] in self.truth.distinct and self.dice.random() < 0.02:
                    self.truth.duplicates += 1
                    again_ms = min(arrives_ms + self.dice.randrange(HOUR_MS), self.now_ms)
                    sent.append((again_ms, len(sent), Sent(source, again_ms, body)))
        for number in range(max(len(self.people) // 30, len(_BROKEN))):
            at_ms = self.now_ms - self.dice.randrange(DAY_MS)
            sent.append((at_ms, len(sent), Sent("web", at_ms, self._malformed(number, at_ms))))
        sent.sort(key=lambda entry: entry[:2])
        return [one for _, _, one in sent]

    def crm_rows(self) -> list[dict[str, str]]:
        """Return what the CRM knows: half of the people, with their names as they are written."""
        return [
            {"user_id": person.user, "email": person.email, "first_name": person.name,
             "loyalty": "gold" if number % 6 == 0 else "member"}
            for number, person in enumerate(self.people) if number % 2 == 0
        ]  # fmt: skip

    # -- people

    def _person(self, number: int) -> Person:
        dice = self.dice
        user, name = f"u-{number:04d}", dice.choice(FIRST_NAMES)
        email = f"{name.lower()}.{dice.choice(LAST_NAMES).lower()}{number}@example.com"
        devices = [f"device-{number:04d}-{place}" for place in range(dice.choice((1, 1, 1, 2, 3)))]
        taste = dice.sample(sorted({product.category for product in self.products}), 2)
        self.truth.emails[user] = email
        return Person(user, name, email, devices, taste, self._choices(user), dice.random() < 0.3)

    def _choices(self, user: str) -> list[tuple[int, bool]]:
        """Draw what somebody permits over time: always, never, until they withdraw, or again later."""
        draw = self.dice.random()
        if draw < 0.86:
            return [(0, True)]
        self.truth.denied.add(user)
        if draw < 0.92:
            return [(0, False)]
        until_ms = self.now_ms - self.dice.randrange(4 * DAY_MS, 9 * DAY_MS)
        if draw < 0.97:
            self.truth.withdrawn.add(user)
            return [(0, True), (until_ms, False)]
        again_ms = until_ms + self.dice.randrange(49 * HOUR_MS, 72 * HOUR_MS)
        self.truth.denied.discard(user)
        self.truth.returned[user] = again_ms
        return [(0, True), (until_ms, False), (again_ms, True)]

    # -- what they do

    def _life(self, person: Person) -> Iterator[tuple[int, str, dict[str, Any]]]:
        dice = self.dice
        at_ms = dice.randrange(self.start_ms, self.now_ms - DAY_MS)
        unseen = list(person.devices)
        while at_ms < self.now_ms - 2 * HOUR_MS:
            device = dice.choice(person.devices)
            yield from self._session(person, device, at_ms)
            if device in unseen:
                # They sign in the first time on each device; the shop's server tells us.
                unseen.remove(device)
                person.known = True
                yield self._identify(person, device, at_ms + 40 * MINUTE_MS)
            at_ms += int(dice.expovariate(1 / (2.5 * DAY_MS))) + 2 * HOUR_MS
        for device in unseen:
            yield self._identify(person, device, self.now_ms - HOUR_MS)
        for since_ms, _ in person.choices[1:]:
            yield self._tell(
                person, "Segment Consent Preference Updated", since_ms, self._milliseconds()
            )
        yield from self._farewells(person)

    def _session(
        self, person: Person, device: str, at_ms: int
    ) -> Iterator[tuple[int, str, dict[str, Any]]]:
        dice = self.dice
        who = {"anonymousId": device}
        if person.known:
            # A page that is not ready says "undefined" of somebody it knows.
            who["userId"] = "undefined" if dice.random() < 0.01 else person.user
        if dice.random() < 0.15:
            yield self._track(
                person, "Products Searched", at_ms, {"query": dice.choice(SEARCHES)}, who
            )
        if dice.random() < 0.04:
            yield self._track(
                person, "Banner Seen", at_ms, {"banner": "spring"}, who, declared=False
            )
        seen: list[Product] = []
        for _ in range(1 + min(int(dice.expovariate(0.3)), 14)):
            at_ms += dice.randrange(5 * SECOND_MS, 90 * SECOND_MS)
            product = self._pick(person.taste)
            seen.append(product)
            self.truth.views.append(View(at_ms, person.user, device, product.product_id,
                                         product.category, person.permits(at_ms)))  # fmt: skip
            yield self._track(person, "Product Viewed", at_ms, _about(product), who)
        if dice.random() < 0.3:
            at_ms += MINUTE_MS + self._milliseconds()
            added = dice.choice(seen)
            yield self._track(person, "Product Added", at_ms, _about(added) | {"quantity": 1}, who)
            if dice.random() < 0.45:
                yield self._order(person, added, at_ms + 2 * MINUTE_MS)

    def _farewells(self, person: Person) -> Iterator[tuple[int, str, dict[str, Any]]]:
        draw = self.dice.random()
        at_ms = self.now_ms - self.dice.randrange(30 * MINUTE_MS, HOUR_MS)
        if draw >= 0.08:
            return
        self.truth.unsubscribed.add(person.user)
        if draw < 0.01:
            yield self._tell(person, "Email Bounced", at_ms, 0, {"bounce_type": "hard"})
        elif draw < 0.02:
            yield self._tell(person, "Email Marked as Spam", at_ms, 0)
        else:
            yield self._tell(person, "Unsubscribed", at_ms, 0, {"topic": "offers"})
        if 0.02 <= draw < 0.03:
            # They changed their mind, and asked for offers again.
            self.truth.unsubscribed.discard(person.user)
            yield self._tell(person, "Subscribed", at_ms, MINUTE_MS, {"topic": "offers"})

    def _order(
        self, person: Person, product: Product, at_ms: int
    ) -> tuple[int, str, dict[str, Any]]:
        quantity = self.dice.choice((1, 1, 1, 2))
        self.truth.orders.append(View(at_ms, person.user, "", product.product_id, product.category,
                                      person.permits(at_ms)))  # fmt: skip
        pence = round(float(product.price) * 100) * quantity
        properties = {
            "order_id": f"o-{self._number}", "total": pence / 100, "currency": "GBP",
            "products": [_about(product) | {"quantity": quantity}],
        }  # fmt: skip
        who = {"userId": person.user}
        if self.dice.random() < 0.05:
            who["anonymousId"] = self.dice.choice(JUNK_IDS)
        return self._track(person, "Order Completed", at_ms, properties, who, source="backend")

    def _identify(self, person: Person, device: str, at_ms: int) -> tuple[int, str, dict[str, Any]]:
        # As typed into a form, with a field that nobody declared.
        traits = {"email": person.email, "first_name": person.name.lower(),
                  "city": self.dice.choice(CITIES), "shoe_size": 42}  # fmt: skip
        body = {"type": "identify", "userId": person.user, "anonymousId": device, "traits": traits}
        return self._sent(person, "backend", body, at_ms)

    def _tell(
        self,
        person: Person,
        name: str,
        at_ms: int,
        later_ms: int,
        properties: dict[str, Any] | None = None,
    ) -> tuple[int, str, dict[str, Any]]:
        body = {"type": "track", "event": name, "userId": person.user, "properties": properties or {},
                "context": {"traits": {"email": person.email}}}  # fmt: skip
        return self._sent(person, "backend", body, at_ms + later_ms)

    def _track(
        self, person: Person, name: str, at_ms: int, properties: dict[str, Any], who: dict[str, str],
        *, source: str = "web", declared: bool = True,
    ) -> tuple[int, str, dict[str, Any]]:  # fmt: skip
        body = {"type": "track", "event": name, "properties": properties, **who}
        return self._sent(person, source, body, at_ms, declared=declared)

    def _sent(
        self,
        person: Person,
        source: str,
        body: dict[str, Any],
        at_ms: int,
        *,
        declared: bool = True,
    ) -> tuple[int, str, dict[str, Any]]:
        self._number += 1
        message_id = f"shop-{self._number:06d}"
        if declared:
            self.truth.distinct.add(message_id)
        else:
            self.truth.undeclared += 1
        choices = {"personal": person.permits(at_ms), "statistics": True}
        context = {**body.get("context", {}), "consent": {"categoryPreferences": choices}}
        stamp = format_instant(at_ms)
        return (
            at_ms,
            source,
            {**body, "messageId": message_id, "timestamp": stamp, "context": context},
        )

    def _malformed(self, number: int, at_ms: int) -> dict[str, Any]:
        self.truth.malformed += 1
        self._number += 1
        body = {
            "type": "track", "event": "Product Viewed", "messageId": f"bad-{self._number:06d}",
            "anonymousId": "device-bad", "timestamp": format_instant(at_ms),
            "context": {"consent": {"categoryPreferences": {"personal": True, "statistics": True}}},
            "properties": {"product_id": "p-101"},
        }  # fmt: skip
        return body | _BROKEN[number % len(_BROKEN)]

    # -- dice

    def _pick(self, taste: list[str]) -> Product:
        if self.dice.random() < 0.75:
            return self.dice.choice([p for p in self.products if p.category in taste])
        return self.dice.choice(self.products)

    def _lateness_ms(self) -> int:
        draw = self.dice.random()
        if draw < 0.005:
            return self.dice.randrange(3 * DAY_MS)
        return (
            int(self.dice.expovariate(1 / (10 * MINUTE_MS))) if draw < 0.1 else self._milliseconds()
        )

    def _milliseconds(self) -> int:
        return self.dice.randrange(1, SECOND_MS)


_BROKEN: tuple[dict[str, Any], ...] = (
    {"properties": {"product_id": {"not": "a text"}}},
    {"properties": {"product_id": "p-101", "price": "nine pounds"}},
    {"type": "trick"},
    {"timestamp": "yesterday"},
    {"anonymousId": "null"},
)
"""Ways to be broken: a wrong type, an unreadable price, no such call, no instant, nobody named."""


def _about(product: Product) -> dict[str, Any]:
    return {
        "product_id": product.product_id, "name": product.title, "category": product.category,
        "price": float(product.price), "currency": "GBP",
    }  # fmt: skip
