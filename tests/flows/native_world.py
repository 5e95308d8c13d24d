"""Definitions of every kind and records of every kind, for two folds that must not differ."""

import random
from dataclasses import dataclass
from typing import Any

import msgspec

from penstock.core.consent.purpose import ConsentRules
from penstock.core.consent.suppression import PERMISSION_EVENTS
from penstock.core.feature import algebra
from penstock.core.feature.plan import Plan
from penstock.core.identity.identifier import IdentityRules
from penstock.core.identity.routing import cut_records, link_records, route
from penstock.core.ids import LeafId, event_id, leaf_id
from penstock.core.record import (
    RECORD_FORMAT,
    Evidence,
    Kind,
    LogRecord,
    Record,
    encode_record,
    lost_record,
)
from penstock.core.step import Rules
from penstock.core.time import DAY_MS, HOUR_MS
from penstock.dsl import features as f
from penstock.dsl.events import (
    boolean,
    datetime,
    decimal,
    event,
    integer,
    money,
    objects,
    one_of,
    string,
    strings,
)

NOW = 1_795_000_000_000
UPDATED = "Segment Consent Preference Updated"

viewed = event(
    "Product Viewed", product_id=string(), category=one_of("shoes", "bags"), price=money(), weight=decimal(scale=2),
    stock=integer(), sale=boolean(), listed=datetime(), tags=strings(),
)  # fmt: skip
ordered = event(
    "Order Completed", total=money(), coupon=string(), rank=integer(),
    products=objects({"product_id": string(), "price": money(), "quantity": integer(), "category": string()}),
)  # fmt: skip
rated = event("Product Rated", stars=integer(), product_id=string())
page = event("page", fields={"path": string()})
bought = f.each(ordered, "products")


class Everything(f.Profile):
    """Every aggregate, layout and expression that is folded without Python."""

    views = f.count(viewed, over=f.days(7))
    views_ever = f.count(viewed, over=f.lifetime())
    measured = f.count(viewed, over=f.hours(30), purpose="measurement")
    known = f.count(viewed.price, over=f.days(3))
    by_category = f.count(viewed, by=viewed.category, over=f.days(2))
    by_product = f.sum_(viewed.stock, by=viewed.product_id, groups_max=3)
    latest_by = f.last(viewed.product_id, by=viewed.sale, over=f.days(2))
    recent = f.last_k(viewed.product_id, k=3, distinct=True, over=f.days(7))
    plain = f.last_k(viewed.price, k=3, over=f.days(7))
    by_key = f.last_k((viewed.product_id, viewed.weight), k=2, distinct_by=viewed.product_id)
    opened = f.first(viewed.product_id)
    pair = f.last((viewed.product_id, viewed.price, viewed.sale))
    favourite = f.top_k(viewed.product_id, k=2, cap=3)
    numbers = f.top_k(viewed.stock, k=2, cap=3)
    price = f.sum_(viewed.price, where=viewed.price > f.amount("3.00", "GBP"))
    cheapest = f.min_(viewed.price, over=f.days(7))
    heaviest = f.max_(viewed.weight, over=f.days(7))
    listed = f.max_(viewed.listed)
    mean = f.mean(viewed.weight, over=f.days(7))
    spread = f.variance(viewed.price)
    middle = f.quantile(viewed.price, percent=50)
    tail = f.quantile(viewed.stock, percent=95, over=f.days(7))
    different = f.distinct(viewed.product_id, cap=3, precision=7)
    heat = f.decay(viewed, half_life=f.hours(12))
    weight = f.decay(viewed.weight, half_life=f.days(3))
    visits = f.sessions(viewed, over=f.days(7))
    when = f.instants(viewed, k=3, over=f.days(7))
    when_known = f.instants(viewed.weight, k=2)
    visits_known = f.sessions(viewed.weight)
    since = f.recency(viewed, over=f.days(2))
    there = f.exists(page)
    odd = f.count(viewed, where=~(viewed.sale | (viewed.stock > 3)) & viewed.category.in_("shoes"))
    sum_of = f.sum_(viewed.weight * viewed.stock + viewed.weight, where=viewed.tags.known())
    times = f.sum_(viewed.price * viewed.stock - viewed.price)
    late = f.count(viewed, where=viewed.listed - viewed.listed == 0)
    units = f.sum_(bought.quantity, by=bought.category, over=f.days(30))
    things = f.last_k(bought.product_id, k=4, distinct=True)
    spent = f.sum_(ordered.total, where=ordered.coupon.known() | (ordered.rank * 2 >= 4))
    lines = f.count(bought, where=bought.quantity > 1)


class WithMore(f.Profile):
    """And what only Python folds, with calendar periods."""

    days = f.count(viewed, over=f.tumbling("day", previous=1))
    hours = f.sum_(viewed.price, over=f.tumbling("hour"))
    weeks = f.count(ordered, by=ordered.coupon, over=f.tumbling("week"))
    months = f.last_k(viewed.product_id, k=2, over=f.tumbling("month"))
    stars = f.last(rated.stars)
    cubes = f.sum_(rated.stars * rated.stars * rated.stars)


@dataclass(frozen=True)
class Ours(algebra.Aggregate):
    """An aggregate of a user's."""

    name = "ours"
    takes = algebra.SCALARS
    value = "required"

    def add(self, acc: Any, value: Any, at_ms: int, event_id: int) -> Any:
        return max(acc or 0, value)


def _plans() -> list[Plan]:
    algebra.register(Ours)
    users = type("Users", (WithMore, Everything), {"ours": f.aggregate("ours", rated.stars)})
    plans = [
        f.compile_plan(Everything),
        f.compile_plan(type("Calendar", (WithMore, Everything), {}), tz="Europe/London"),
        f.compile_plan(users, tz="Asia/Kathmandu"),
    ]
    # No other test meets it.
    del algebra.REGISTRY["ours"]
    return plans


PLANS = _plans()
RULES = Rules(ConsentRules(), {"segment": "measurement"})
SMALL = RULES._replace(leaf_bytes_max=6_000)

EVIDENCES = [
    Evidence("context", granted=("measurement", "personalisation")),
    Evidence("context", granted=("measurement", "personalisation"), regime="opt_in"),
    Evidence("context", granted=("personalisation",), denied=("measurement",)),
    Evidence("context", denied=("measurement", "personalisation")),
    Evidence("gpc", denied=("personalisation",), granted=("measurement",), origins=(("measurement", "context"),)),
    Evidence("unknown"), Evidence("unknown", regime="opt_out"),
    Evidence("basis", granted=("personalisation",), origins=(("personalisation", "basis:contract"),)),
    Evidence("basis", granted=("personalisation",)),
    Evidence("context", granted=("measurement", "personalisation"), origins=(("measurement", "basis:contract"),)),
]  # fmt: skip


def make_leaf(id_type: str, value: str) -> LeafId:
    return leaf_id(b"k" * 32, "t", id_type, value)


class World:
    """Makes records as the edge does, and some as it never would."""

    def __init__(self, seed: int, people: int = 3) -> None:
        self.dice = random.Random(seed)
        self.people = people
        self.logged: list[Record] = []

    def log(self, count: int) -> list[LogRecord]:
        """Return a log: its stamps repeat, jump, and never fall."""
        at_ms, values = NOW, []
        for offset in range(count):
            at_ms += self.dice.choice(
                [0, 1, 60_000, 1_000_000, HOUR_MS, 6 * HOUR_MS, 80 * HOUR_MS][
                    : self.dice.choice([3] * 30 + [4, 4, 5, 6, 7])
                ]
            )
            values.append(LogRecord(offset, at_ms, self.value(at_ms)))
        return values

    def value(self, now_ms: int) -> bytes:
        dice = self.dice
        draw = dice.random()
        if draw < 0.01:
            return lost_record()
        if draw < 0.12 and self.logged:
            return encode_record(dice.choice(self.logged))
        if draw < 0.25 and self.logged:
            return self.link(now_ms)
        one = self.record(now_ms)
        self.logged.append(one)
        return encode_record(one)

    def link(self, now_ms: int) -> bytes:
        dice = self.dice
        one = dice.choice(self.logged)
        links = link_records(one)
        if not links:
            return encode_record(one)
        link = dice.choice(links)
        if dice.random() < 0.3:
            cuts = cut_records(
                link.edges[0],
                tenant="t",
                message_id=f"cut{dice.randrange(9)}",
                at_ms=now_ms,
                source="operator",
            )
            return encode_record(dice.choice(cuts))
        return encode_record(link)

    def record(self, now_ms: int) -> Record:
        dice = self.dice
        type_name = dice.choice(["track"] * 6 + ["page", "identify", "identify", "alias", "group"])
        name = dice.choice(
            ["Product Viewed"] * 6
            + ["Order Completed"] * 2
            + ["Product Rated", "Never Declared", UPDATED, *sorted(PERMISSION_EVENTS)]
        )
        if name == "Product Rated" and dice.random() < 0.9:
            name = "Product Viewed"
        at_ms = now_ms + dice.choice([0, 0, 0, -1, 200_000, -HOUR_MS, -30 * HOUR_MS, -9 * DAY_MS])
        message_id = f"m{dice.randrange(10_000)}"
        verified = dice.random() < 0.7
        user = f"u{dice.randrange(self.people)}"
        routing = route(
            user_id=dice.choice([user, user, None]) if verified else dice.choice([user, None]),
            anonymous_id=dice.choice([f"a{dice.randrange(4)}", None]) if verified else f"a{dice.randrange(dice.choice([2, 2, 2, 90]))}",
            previous_id=f"u{dice.randrange(self.people)}" if type_name == "alias" else None,
            group_id="acme" if type_name == "group" else None,
            external_ids=(("phone", "+441"),) if dice.random() < 0.1 else (), email="ann@example.com",
            type_name=type_name, message_id=message_id, occurred_at_ms=at_ms, verified=verified, make_leaf=make_leaf,
            rules=IdentityRules(),
        )  # fmt: skip
        leaf = routing.primary.leaf
        evidence = dice.choice(EVIDENCES[:1] * 12 + EVIDENCES)
        bare = evidence.source != "unknown" and not evidence.granted
        return Record(
            format=RECORD_FORMAT, kind=Kind.PRIMARY, tenant="t", leaf=leaf, id_type=routing.primary.id_type,
            event_id=event_id(leaf, message_id), message_id=message_id, type=type_name,
            name=name if type_name == "track" else type_name, occurred_at_ms=at_ms,
            received_at_ms=now_ms + dice.choice([0, 0, -5]), source="site", source_rank=dice.randrange(-2, 3), verified=verified,
            evidence=evidence, identifiers=() if bare else routing.identifiers, edges=() if bare else routing.edges,
            properties={} if bare else self.properties(name), traits=self.traits() if type_name in ("identify", "group") else {},
            job=dice.choice(["", "", "", "import", "other"]), bare=bare,
        )  # fmt: skip

    def properties(self, name: str) -> dict[str, Any]:
        dice = self.dice
        found = {
            "product_id": self.text(), "category": dice.choice(["shoes", "bags"]), "price": self.money(), "weight": dice.randrange(-5, 900),
            "stock": dice.randrange(-3, 9), "sale": dice.random() < 0.5, "listed": NOW + dice.randrange(-9, 9), "tags": ["new"],
            "path": "/", "stars": dice.randrange(6), "total": self.money(), "rank": dice.randrange(4), "coupon": "x",
        }  # fmt: skip
        if name == "Order Completed":
            found["products"] = [self.item() for _ in range(dice.randrange(4))]
        for key in dice.sample(sorted(found), dice.choice([0] * 9 + [2])):
            found[key] = self.odd()
        return {key: value for key, value in found.items() if dice.random() < 0.9}

    def item(self) -> Any:
        dice = self.dice
        if dice.random() < 0.05:
            return self.odd()
        return {"product_id": self.text(), "price": self.money(), "quantity": dice.choice([1, 2, "3"]), "category": self.text()}  # fmt: skip

    def traits(self) -> dict[str, Any]:
        dice = self.dice
        names = dice.sample(["name", "segment", "Stadt", "größe"], dice.randrange(4))
        return {name: dice.choice(["Ann", "Zoë", None, 7, [1, "x"], {"a": {"b": 1.5}}, True, *([self.odd()] if dice.random() < 0.05 else ())]) for name in names}  # fmt: skip

    def text(self) -> str:
        return self.dice.choice(
            [
                "p1",
                "p2",
                "p3",
                "p4",
                "p5",
                "schön",
                "",
                "a product whose id is longer than most are",
                "日本",
            ]
        )

    def money(self) -> Any:
        dice = self.dice
        currencies = (
            ["GBP", "GBP", "EUR"]
            if dice.random() < 0.9
            else [f"C{number:02d}" for number in range(20)]
        )
        return [dice.choice([dice.randrange(-99, 9_999), 2**40]), dice.choice(currencies)]

    def odd(self) -> Any:
        return self.dice.choice([
            None, 1.5, "text", True, [], [1], [1, 2], ["GBP", 1], {}, {"x": 1}, b"raw", 2**60, -(2**60), 2**64 - 1, -(2**63), [2**62, "GBP"],
        ])  # fmt: skip


def fuzzed(dice: random.Random, value: bytes) -> bytes:
    """Return bytes that are nearly a record."""
    raw = bytearray(value)
    for _ in range(dice.randrange(1, 4)):
        match dice.randrange(4):
            case 0:
                raw[dice.randrange(len(raw))] = dice.randrange(256)
            case 1:
                del raw[dice.randrange(len(raw))]
            case 2:
                raw.insert(dice.randrange(len(raw) + 1), dice.randrange(256))
            case _:
                del raw[dice.randrange(1, len(raw) + 1) :]
        if len(raw) < 2:
            return value
    return bytes(raw)


def plain(body: bytes) -> Any:
    """Return a leaf as one can read it."""
    return msgspec.msgpack.decode(body)
