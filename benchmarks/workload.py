"""THE workload: seeded people, events, duplicates, lateness and consent, on the wire and as records.

Everything is decided by `SEED` and the sizes: the same arguments give the same bytes, and a test
holds their hash. What is pinned:

    people      50,000 browsers (`anonymousId`); 3 of 10 are also known by a `userId`
    skew        `uniform`, or `zipf`: weight 1 / (rank + 10), so the busiest person has about 1 % of
                the events and the busiest 1 % of people about 46 %
    events      76 % Product Viewed, 10 % Product Added, 4 % Order Completed of 1 to 3 items,
                10 % page; 2,000 products in 40 categories
    duplicates  2 % are a second copy of an event among the last 500
    lateness    10 % late by Exp(10 min), 0.5 % by up to 3 days
    consent     on, opt-in: 97 % of people grant all, 2 % refuse measurement, 1 % refuse
                personalisation (their events are kept bare)
    protections `drop` of a view's URL, `truncate` of its postcode, `pseudonym` of its device
    features    the eight of `benchmarks/project/features.py`
"""

from __future__ import annotations

import base64
import random
from bisect import bisect
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from penstock.adapters.metrics.memory import MemoryMetrics
from penstock.core.event import SEGMENT, decode_single
from penstock.core.protect import Protector
from penstock.core.record import LogRecord, Record, encode_record
from penstock.core.step import Step
from penstock.core.time import format_instant
from penstock.flows.collect import Collector, Source
from penstock.project import Project, load_project
from penstock.testing.clock import HandClock

SEED: Final = 20_261_125
START_MS: Final = 1_795_000_000_000
PEOPLE: Final = 50_000
PRODUCTS: Final = 2_000
CATEGORIES: Final = 40
SKEWS: Final = ("zipf", "uniform")
LIVE_STEP_MS: Final = 1
"""Between two events of the live stream: 1,000 events a second, a few minutes in all."""
HISTORY_MS: Final = 12 * 86_400_000
"""What a replayed log spans."""

PROJECT: Final = Path(__file__).parent / "project"
WEB: Final = Source("web", verified=False, rank=0, basis={})
WEB_KEY: Final = "bench-web-key"
READ_KEY: Final = "bench-read-key"
ADMIN_KEY: Final = "bench-admin-key"
BASIC: Final = "Basic " + base64.b64encode(f"{WEB_KEY}:".encode()).decode()

_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True)
class Sizes:
    """How much is measured. `FULL` gives the figures that are published, `TINY` only runs the code."""

    people: int = PEOPLE
    events: int = 120_000
    """Timed events of one round of a fold."""
    durable_events: int = 60_000
    rounds: int = 5
    http_s: float = 2.0
    """Seconds of one load."""
    http_rounds: int = 0
    """Rounds of what goes over HTTP; 0 for as many as of the rest."""
    clones: int = 20
    """Of every person, in a crowd; with the person."""
    crowd_events: int = 30_000
    crowd_rounds: int = 3
    hot_people: int = 100_000
    """Whose memory is measured."""
    logs: tuple[int, int] = (100_000, 1_000_000)
    """Records of the logs that a server is started on."""
    grown: tuple[int, ...] = (10_000, 100_000, 1_000_000)
    """People in turn; the first are those who go on to do something."""
    grown_events: int = 10_000_000
    """Records at the end."""
    settle_s: float = 10.0
    """How long at most a server is to be idle until it counts as quiet."""
    probes: int = 400
    """Events whose way to content is timed."""


FULL: Final = Sizes(http_rounds=3)
TINY: Final = Sizes(
    people=200, events=600, durable_events=600, rounds=1, http_s=0.4, http_rounds=1, settle_s=0.05,
    probes=5, clones=3, crowd_events=300, crowd_rounds=1, hot_people=400, logs=(1_000, 2_000),
    grown=(400, 800, 1_600), grown_events=15_000,
)  # fmt: skip


class Stream(NamedTuple):
    """Events in the order they arrive: as they are sent, and as the log holds them."""

    wire: list[bytes]
    """One JSON object an event, as an SDK sends it to `/v1/track` or `/v1/page`."""
    values: list[bytes]
    """Encoded records; fewer than `wire` only if consent forbids keeping anything."""
    stamps: list[int]
    """`logged_at_ms` of each record."""

    def log_records(self, first: int = 0) -> list[LogRecord]:
        """Return the records with offsets from `first`."""
        return [
            LogRecord(first + place, stamp, value)
            for place, (stamp, value) in enumerate(zip(self.stamps, self.values, strict=True))
        ]


class _Person(NamedTuple):
    anonymous_id: str
    user_id: str | None
    consent: dict[str, bool]


class Population:
    """People, and who is the next to do something.

    Args:
        people: How many.
        skew: `zipf` or `uniform`.
    """

    def __init__(self, people: int, skew: str) -> None:
        assert skew in SKEWS, f"a skew is one of {SKEWS}"
        dice = random.Random(SEED)
        self.people = [self._person(number, dice.random()) for number in range(people)]
        order = list(range(people))
        dice.shuffle(order)
        self._order = order
        self._weights = (
            list(accumulate(1 / (rank + 10) for rank in range(people))) if skew == "zipf" else []
        )

    @staticmethod
    def _person(number: int, draw: float) -> _Person:
        consent = {"personal": draw >= 0.01, "statistics": draw >= 0.03}
        user_id = f"user-{number:06d}" if number % 10 < 3 else None
        return _Person(f"d-{number:06d}-{number * 2_654_435_761 % 2**32:08x}", user_id, consent)

    def next(self, dice: random.Random) -> _Person:
        """Return who does the next thing."""
        if not self._weights:
            return self.people[dice.randrange(len(self.people))]
        draw = dice.random() * self._weights[-1]
        return self.people[self._order[bisect(self._weights, draw)]]


def project() -> Project:
    """Return the benchmarks' project, loaded as `penstock up` loads it."""
    return load_project(PROJECT)


def new_step(loaded: Project) -> Step:
    """Return a fresh step of the project's definitions."""
    return Step(loaded.plan, loaded.step_rules())


def new_collector(loaded: Project, appender: Any = None, metrics: Any = None) -> Collector:
    """Return the real collector of the project, with fixed keys."""
    return Collector(
        catalog=loaded.catalog, protector=Protector(b"p" * 32), identity=loaded.identity_rules(),
        consent=loaded.consent_rules(), identifier_key=b"i" * 32, tenant="default",
        appender=appender, suppressions=None,  # type: ignore[arg-type] - shaping appends nothing
        clock=HandClock(START_MS), metrics=metrics or MemoryMetrics(),
    )  # fmt: skip


@lru_cache(maxsize=8)
def stream(people: int, events: int, skew: str, *, history: bool = False) -> Stream:
    """Return a stream of events.

    Args:
        people: How many people there are.
        events: How many events arrive, copies included.
        skew: `zipf` or `uniform`.
        history: Spread over 12 days rather than over minutes, as a log that is replayed is.
    """
    step_ms = max(HISTORY_MS // max(events, 1), 1) if history else LIVE_STEP_MS
    dice = random.Random(SEED + events)
    crowd = Population(people, skew)
    bodies: list[tuple[int, bytes]] = []
    for number in range(events):
        at_ms = START_MS + number * step_ms
        if dice.random() < 0.02 and bodies:
            body = bodies[-dice.randrange(1, min(500, len(bodies)) + 1)][1]
        else:
            body = _encode(_event(dice, crowd.next(dice), number, at_ms))
        bodies.append((at_ms, body))
    return shaped(bodies)


def first_visits(people: int) -> Stream:
    """Return one view of everybody, so that every leaf exists: what "hot" and "cold" start from."""
    dice = random.Random(SEED - 1)
    crowd = Population(people, "uniform")
    start_ms = START_MS - 60_000
    return shaped([
        (start_ms, _encode(_event(dice, person, number, start_ms, kind=0.0, prefix="f")))
        for number, person in enumerate(crowd.people)
    ])  # fmt: skip


def shaped(bodies: Sequence[tuple[int, bytes]]) -> Stream:
    """Return the stream of some bodies and their instants of reception, through the collector."""
    collector = new_collector(project())
    values: list[bytes] = []
    stamps: list[int] = []
    for at_ms, body in bodies:
        event = decode_single(body, None, SEGMENT).events[0][1]
        record = collector.record_of(WEB, event, at_ms)
        if isinstance(record, Record):
            values.append(encode_record(record))
            stamps.append(at_ms)
    return Stream([body for _, body in bodies], values, stamps)


def batch_body(events: Sequence[bytes]) -> bytes:
    """Return a Segment batch of some events."""
    return b'{"batch":[' + b",".join(events) + b'],"sentAt":null}'


def _event(
    dice: random.Random, person: _Person, number: int, at_ms: int, *, kind: float = -1.0,
    prefix: str = "e",
) -> dict[str, Any]:  # fmt: skip
    if kind < 0:
        kind = dice.random()
    body: dict[str, Any] = {
        "type": "page" if kind >= 0.9 else "track",
        "messageId": f"{prefix}{number:07d}-{dice.getrandbits(32):08x}",
        "anonymousId": person.anonymous_id,
        "timestamp": format_instant(at_ms - _lateness_ms(dice)),
        "context": {"consent": {"categoryPreferences": person.consent}},
    }
    if person.user_id is not None:
        body["userId"] = person.user_id
    name, properties = _what(dice, kind, number)
    if name:
        body["event"] = name
    body["properties"] = properties
    return body


def _what(dice: random.Random, kind: float, number: int) -> tuple[str, dict[str, Any]]:
    product = dice.randrange(PRODUCTS)
    shown = {"product_id": f"p-{product:04d}", "category": f"shelf-{product % CATEGORIES:02d}",
             "price": price_of(product), "currency": "GBP"}  # fmt: skip
    if kind < 0.76:
        return "Product Viewed", {
            **shown, "url": f"https://shop.example/p/{product}?ref=mail",
            "postcode": f"SW{product % 20}A 1AA", "device": f"phone-{number % 997}",
        }  # fmt: skip
    if kind < 0.86:
        return "Product Added", {**shown, "quantity": 1 + product % 3}
    if kind < 0.9:
        bought = [dice.randrange(PRODUCTS) for _ in range(dice.randint(1, 3))]
        return "Order Completed", {
            "order_id": f"o-{number}", "total": round(sum(map(price_of, bought)), 2), "currency": "GBP",
            "products": [{"product_id": f"p-{one:04d}", "price": price_of(one), "quantity": 1}
                         for one in bought],
        }  # fmt: skip
    return "", {"name": "Home", "path": "/"}


def price_of(product: int) -> float:
    """Return a product's price in pounds."""
    return (499 + product * 37 % 9_500) / 100


def _lateness_ms(dice: random.Random) -> int:
    draw = dice.random()
    if draw < 0.005:
        return dice.randrange(3 * 86_400_000)
    return int(dice.expovariate(1 / 600_000)) if draw < 0.105 else 0


def items() -> list[dict[str, Any]]:
    """Return the catalogue as rows to load."""
    return [
        {"id": f"p-{one:04d}", "title": f"Product {one}", "url": f"https://shop.example/p/{one}",
         "category": f"shelf-{one % CATEGORIES:02d}", "price": f"{price_of(one):.2f}"}
        for one in range(PRODUCTS)
    ]  # fmt: skip
