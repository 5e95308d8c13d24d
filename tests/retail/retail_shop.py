"""Online Retail as a shop: its events and features, and the real path from a request to the leaves.

An order event is what a shop sends: one an invoice and minute, with its lines as `products`, in
parts of at most `lines_max` lines, because an event may have 32 KiB and a fold takes 1,000 items
(one invoice here has 1,114 lines). With `lines_max=1` the same data are an event a line: a heavier
load on ids and log. The features are the same, so one computation checks both.

Money: prices are decimal texts in pounds, and some are 0.001, finer than a penny. So money is kept
with `scale=3`, in thousandths of a pound, which holds every price exactly: nothing is rounded.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import msgspec

from penstock.adapters.metrics.memory import MemoryMetrics
from penstock.adapters.suppressions.memory import MemorySuppressions
from penstock.core.catalog.catalog import Catalog
from penstock.core.consent.purpose import ConsentRules
from penstock.core.event import RUDDERSTACK, decode_batch
from penstock.core.identity.identifier import IdentityRules
from penstock.core.ids import LeafId
from penstock.core.protect import Protector
from penstock.core.step import Rules, Step
from penstock.core.time import format_instant
from penstock.dsl.events import boolean, decimal, event, integer, money, objects, string
from penstock.dsl.features import (
    Profile,
    compile_plan,
    count,
    days,
    distinct,
    each,
    exists,
    first,
    hours,
    last,
    last_at,
    last_k,
    lifetime,
    max_,
    mean,
    min_,
    ratio,
    recency,
    sum_,
    top_k,
    tumbling,
    variance,
)
from penstock.flows.collect import Collector, source_of
from penstock.ports.log import Log
from penstock.ports.store import Store
from penstock.runtimes.embedded import EmbeddedEngine
from penstock.testing.clock import HandClock

IDENTIFIER_KEY = b"retail identifier key of 32 byte"
TENANT = "default"
EPOCH = 1
PERMITTED = frozenset({"personalisation"})
REQUEST_EVENTS = 500
TIME_ZONE = "Europe/London"

order = event(
    "Order Completed",
    order_id=string(required=True),
    country=string(required=True),
    cancelled=boolean(required=True),
    total=money(currency="GBP", scale=3),
    products=objects(
        {
            "product_id": string(required=True),
            "price": money(currency="GBP", scale=3),
            "unit_price": decimal(scale=3),
            "quantity": integer(),
        },
        items_max=1_200,
    ),
)
bought = each(order, "products")
_season = lifetime(tile=days(90))


class Shopper(Profile):
    """Every aggregate of the issue, over lifetime, sliding and calendar windows."""

    orders = count(order)
    orders_kept = count(order, where=~order.cancelled)
    orders_7d = count(order, over=days(7))
    orders_36h = count(order, over=hours(36))
    orders_today = count(order, over=tumbling("day"))
    orders_this_week = count(order, over=tumbling("week"))
    orders_last_month = count(order, over=tumbling("month", previous=1))
    ever_cancelled = exists(order, where=order.cancelled)
    cancelled_30d = exists(order, where=order.cancelled, over=days(30))
    since_order = recency(order)
    since_order_90d = recency(order, over=days(90))
    last_order_at = last_at(order)
    first_order = first(order.order_id)
    last_order = last(order.order_id)
    last_order_90d = last(order.order_id, over=days(90))
    last_orders = last_k(order.order_id, k=5, distinct=True)
    last_orders_30d = last_k(order.order_id, k=3, distinct=True, over=days(30))
    countries = distinct(order.country)
    spent_by_country = sum_(order.total, by=order.country)
    greatest_order = max_(order.total)
    least_order = min_(order.total)
    mean_order = mean(order.total)

    lines = count(bought)
    returned = count(bought, where=bought.quantity < 0)
    returned_share = ratio(
        count(bought, where=bought.quantity < 0), count(bought), description="of lines"
    )
    units = sum_(bought.quantity)
    spent = sum_(bought.price * bought.quantity)
    spent_28d = sum_(bought.price * bought.quantity, over=days(28))
    spent_this_month = sum_(bought.price * bought.quantity, over=tumbling("month"))
    spent_last_week = sum_(bought.price * bought.quantity, over=tumbling("week", previous=1))
    spent_a_unit = ratio(sum_(bought.price * bought.quantity), sum_(bought.quantity))
    cheapest = min_(bought.price)
    dearest = max_(bought.price)
    dearest_90d = max_(bought.price, over=days(90))
    least_units = min_(bought.quantity, over=tumbling("month"))
    most_units = max_(bought.quantity)
    price_mean = mean(bought.unit_price)
    price_mean_28d = mean(bought.unit_price, over=days(28))
    price_variance = variance(bought.unit_price)
    price_variance_month = variance(bought.unit_price, over=tumbling("month"))
    units_mean = mean(bought.quantity)
    units_variance_28d = variance(bought.quantity, over=days(28))
    first_line = first((bought.product_id, bought.price))
    last_line = last((bought.product_id, bought.quantity))
    last_lines = last_k(bought.product_id, k=5)
    last_products = last_k(bought.product_id, k=10, distinct=True)
    last_prices = last_k(bought.price, k=5, distinct_by=bought.product_id)
    favourites = top_k(bought.product_id, k=5, cap=1_000, over=_season)
    favourites_28d = top_k(bought.product_id, k=3, cap=12, over=days(28))
    products = distinct(bought.product_id, cap=2_000, over=_season)
    products_28d = distinct(bought.product_id, cap=2_000, over=days(28))
    units_by_product_28d = sum_(
        bought.quantity, by=bought.product_id, groups_max=6, over=days(28)
    )  # 6 of an invoice's many: the cap is always at work


PLAN = compile_plan(Shopper, tz=TIME_ZONE)
CATALOG = Catalog([order])
RULES = Rules(ConsentRules(), {})


class Order(NamedTuple):
    """An event to send, and what it stands for."""

    at_ms: int
    id_type: str
    person: str
    message_id: str
    rows: tuple[int, ...]
    """Rows of the data, in the order of `products`."""
    body: dict[str, Any]


def read_orders(data: Path, *, rows_max: int | None = None, lines_max: int = 100) -> list[Order]:
    """Return the data as order events, in their order.

    Args:
        data: The Parquet file.
        rows_max: Only the first rows; None for all.
        lines_max: Lines of one event.
    """
    rows = duckdb.execute(
        "SELECT file_row_number, InvoiceNo, StockCode, Quantity, epoch_ms(InvoiceDate), UnitPrice,"
        " CustomerID, Country FROM read_parquet(?, file_row_number=true)"
        " ORDER BY file_row_number LIMIT ?", [str(data), rows_max or 1 << 40],
    ).fetchall()  # fmt: skip
    orders: list[Order] = []
    for (invoice, at_ms), group in groupby(rows, key=lambda row: (row[1], row[4])):
        lines = list(group)
        orders += (
            _order(invoice, at_ms, lines[start : start + lines_max])
            for start in range(0, len(lines), lines_max)
        )
    return orders


def _order(invoice: str, at_ms: int, lines: Sequence[tuple[Any, ...]]) -> Order:
    _, _, _, _, _, _, customer, country = lines[0]
    id_type, person = (
        ("anonymous_id", invoice) if customer is None else ("user_id", str(int(customer)))
    )
    total = sum(round(price * 1000) * quantity for _, _, _, quantity, _, price, _, _ in lines)
    message_id = f"row-{lines[0][0]}"
    body = {
        "type": "track", "event": "Order Completed", "messageId": message_id,
        "anonymousId" if customer is None else "userId": person, "timestamp": format_instant(at_ms),
        "properties": {
            "order_id": invoice, "country": country, "cancelled": invoice.startswith("C"),
            "total": _decimal_text(total),
            "products": [
                {"product_id": code, "price": price, "unit_price": price, "quantity": quantity}
                for _, _, code, quantity, _, price, _, _ in lines
            ],
        },
    }  # fmt: skip
    return Order(at_ms, id_type, person, message_id, tuple(line[0] for line in lines), body)


def _decimal_text(thousandths: int) -> str:
    sign, whole = ("-" if thousandths < 0 else ""), abs(thousandths)
    return f"{sign}{whole // 1000}.{whole % 1000:03d}"


class Request(NamedTuple):
    """A body to send at an instant; it has no `sentAt`, so that no clock is corrected."""

    at_ms: int
    body: bytes
    events: int


def requests(orders: Sequence[Order], *, pace_ms: int = 60_000) -> list[Request]:
    """Return orders as requests: those of one span of time together, sent at its end.

    Args:
        orders: In order.
        pace_ms: The span; a minute is the pace of the data.
    """
    made: list[Request] = []
    encode = msgspec.json.encode
    for span, group in groupby(orders, key=lambda one: one.at_ms // pace_ms):
        bodies = [encode(one.body) for one in group]
        at_ms = (span + 1) * pace_ms - 1
        made += (
            Request(at_ms, b'{"batch":[' + b",".join(part) + b"]}", len(part))
            for part in _parts(bodies)
        )
    return made


def _parts(bodies: list[bytes]) -> Iterator[list[bytes]]:
    """Yield bodies in requests of at most 500 events, and of fewer bytes than one may have."""
    part: list[bytes] = []
    size = 0
    for body in bodies:
        if part and (len(part) == REQUEST_EVENTS or size + len(body) > 480_000):
            yield part
            part, size = [], 0
        part.append(body)
        size += len(body) + 1
    if part:
        yield part


@dataclass
class Shop:
    """Collector, log, fold and store, wired as in a project, with a clock that is turned by hand."""

    clock: HandClock
    log: Log
    store: Store
    metrics: MemoryMetrics = field(default_factory=MemoryMetrics)

    def __post_init__(self) -> None:
        suppressions = MemorySuppressions()
        self.engine = EmbeddedEngine(
            log=self.log, store=self.store, suppressions=suppressions, step=Step(PLAN, RULES),
            epoch=EPOCH, clock=self.clock, metrics=self.metrics,
        )  # fmt: skip
        self.collector = Collector(
            catalog=CATALOG, protector=Protector(b"p" * 32), identity=IdentityRules(),
            consent=RULES.consent, identifier_key=IDENTIFIER_KEY, tenant=TENANT,
            appender=self.engine.appender, suppressions=suppressions, clock=self.clock,
            metrics=self.metrics,
        )  # fmt: skip
        self.source = source_of("till", "server", 0, {"personalisation": "contract"})

    async def send(self, request: Request) -> None:
        """Take a request as the collector's route does, at its instant."""
        self.clock.advance(max(request.at_ms - self.clock.now_ms(), 0))
        decoded = decode_batch(request.body, RUDDERSTACK)
        intake = await self.collector.take(self.source, decoded)
        assert (request.events, []) == (intake.accepted, intake.refused)

    async def read(
        self, leaves: Sequence[LeafId], as_of_ms: int
    ) -> list[tuple[dict[str, Any], tuple[str, ...]]]:
        """Return features, and which of them a cap cut, of leaves that are all there."""
        found: list[tuple[dict[str, Any], tuple[str, ...]]] = []
        for leaf in (await self.engine.read(leaves)).leaves:
            assert leaf is not None, "everybody here has ordered"
            assert leaf.clock_ms <= as_of_ms, "as_of is never before T"
            assert not leaf.quarantined, "no leaf is too large"
            found.append(
                PLAN.read_noted(leaf.states, as_of_ms, leaf.clock_ms, leaf.purged, PERMITTED)
            )
        return found


def differences(
    found: dict[str, Any], expected: dict[str, Any], same: Callable[[Any, Any], bool]
) -> list[str]:
    """Return the names of the features that differ."""
    assert found.keys() == expected.keys()
    return [name for name, value in found.items() if not same(value, expected[name])]


def same(one: Any, other: Any) -> bool:
    """Return whether two values are equal, of the same type and, for floats, to the last bit."""
    if isinstance(one, dict):
        return one == other and list(one) == list(other)
    return type(one) is type(other) and (one == other or (one != one and math.isnan(other)))
