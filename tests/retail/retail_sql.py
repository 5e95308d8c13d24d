"""The same features by DuckDB, from the Parquet file: an independent answer, exact to the last digit.

Every feature is SQL over two tables, `lines` and `orders`. What is not SQL's to know is passed in:
the keys that order events of one instant and the hashes that order a cap, both computed here from
the documented formulas with hashlib. All sums are of whole numbers (HUGEINT); mean, variance and
ratio are one exact division of them, rounded once, in Python.

Windows, as documented in `core/feature/window.py`: a sliding window reads every tile that ends after
`as_of - window`, and tiles are the widest listed width of at most 1/168 of it; aggregates with a
time of their own are cut at the instant; calendar periods are local, by DuckDB's own time zones.
"""

import hmac
from collections.abc import Callable, Sequence
from fractions import Fraction
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
from retail_shop import IDENTIFIER_KEY, TENANT, TIME_ZONE, Order

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS

ALWAYS = "true"


def tiles(width_ms: int, window_ms: int) -> str:
    """Return the condition of a sliding window in aligned tiles."""
    return f"at_ms // {width_ms} >= ($t - {window_ms}) // {width_ms}"


def exactly(window_ms: int) -> str:
    """Return the condition of a sliding window whose aggregate carries its own time."""
    return f"at_ms >= $t - {window_ms}"


def period(name: str, previous: int = 0) -> str:
    """Return the condition of a calendar period in local time."""
    return f"date_trunc('{name}', local) = date_trunc('{name}', $now) - INTERVAL {previous} {name}"


LAST_7D = tiles(HOUR_MS, 7 * DAY_MS)
LAST_36H = tiles(10 * 60_000, 36 * HOUR_MS)
LAST_28D = tiles(4 * HOUR_MS, 28 * DAY_MS)
LAST_90D = tiles(12 * HOUR_MS, 90 * DAY_MS)


class Spec(NamedTuple):
    """A feature as SQL: aggregates over a table under a condition, and how they become its value."""

    name: str
    table: str
    condition: str
    columns: tuple[str, ...]
    value: Callable[..., Any]
    """Of the columns; all None where the person has no row."""


def _plain(value: Any) -> Any:
    return value


def _number(value: Any) -> int:
    return value or 0


def _money(value: Any) -> dict[str, int]:
    return {} if value is None else {"GBP": value}


def _truth(value: Any) -> bool:
    return bool(value)


def _list(value: Any) -> list[Any]:
    return value or []


def _mean(n: int | None, total: int, scale: int = 1) -> float | None:
    return float(Fraction(total, n * scale)) if n else None


def _variance(n: int | None, total: int, squares: int, scale: int = 1) -> float | None:
    return float(Fraction(n * squares - total * total, n * n * scale * scale)) if n else None


def _ratio(one: int | None, other: int | None) -> float | None:
    return float(Fraction(one or 0, other)) if other else None


SPENT = "sum(price::HUGEINT * quantity)"
MOMENTS = ("count(price)", "sum(price::HUGEINT)", "sum(price::HUGEINT * price)")
UNITS = ("count(quantity)", "sum(quantity::HUGEINT)", "sum(quantity::HUGEINT * quantity)")


def last_of(column: str, k: int) -> str:
    return f"list({column} ORDER BY seq DESC)[1:{k}]"


SPECS = [
    Spec("orders", "orders", ALWAYS, ("count(*)",), _number),
    Spec("orders_kept", "orders", ALWAYS, ("count(*) FILTER (NOT cancelled)",), _number),
    Spec("orders_7d", "orders", LAST_7D, ("count(*)",), _number),
    Spec("orders_36h", "orders", LAST_36H, ("count(*)",), _number),
    Spec("orders_today", "orders", period("day"), ("count(*)",), _number),
    Spec("orders_this_week", "orders", period("week"), ("count(*)",), _number),
    Spec("orders_last_month", "orders", period("month", 1), ("count(*)",), _number),
    Spec("ever_cancelled", "orders", ALWAYS, ("bool_or(cancelled)",), _truth),
    Spec("cancelled_30d", "orders", exactly(30 * DAY_MS), ("bool_or(cancelled)",), _truth),
    Spec("since_order", "orders", ALWAYS, ("$t - max(at_ms)",), _plain),
    Spec("since_order_90d", "orders", exactly(90 * DAY_MS), ("$t - max(at_ms)",), _plain),
    Spec("last_order_at", "orders", ALWAYS, ("max(at_ms)",), _plain),
    Spec("first_order", "orders", ALWAYS, ("arg_min(order_id, seq)",), _plain),
    Spec("last_order", "orders", ALWAYS, ("arg_max(order_id, seq)",), _plain),
    Spec("last_order_90d", "orders", exactly(90 * DAY_MS), ("arg_max(order_id, seq)",), _plain),
    Spec("countries", "orders", ALWAYS, ("count(DISTINCT country)",), _number),
    Spec("greatest_order", "orders", ALWAYS, ("max(total)",), _money),
    Spec("least_order", "orders", ALWAYS, ("min(total)",), _money),
    Spec("mean_order", "orders", ALWAYS, ("count(*)", "sum(total::HUGEINT)"),
         lambda n, total: {"GBP": _mean(n, total)} if n else {}),
    Spec("lines", "lines", ALWAYS, ("count(*)",), _number),
    Spec("returned", "lines", ALWAYS, ("count(*) FILTER (quantity < 0)",), _number),
    Spec("returned_share", "lines", ALWAYS, ("count(*) FILTER (quantity < 0)", "count(*)"), _ratio),
    Spec("units", "lines", ALWAYS, ("sum(quantity::HUGEINT)",), _number),
    Spec("spent", "lines", ALWAYS, (SPENT,), _money),
    Spec("spent_28d", "lines", LAST_28D, (SPENT,), _money),
    Spec("spent_this_month", "lines", period("month"), (SPENT,), _money),
    Spec("spent_last_week", "lines", period("week", 1), (SPENT,), _money),
    Spec("spent_a_unit", "lines", ALWAYS, (SPENT, "sum(quantity::HUGEINT)"),
         lambda total, n: {} if total is None else {"GBP": _ratio(total, n)}),
    Spec("cheapest", "lines", ALWAYS, ("min(price)",), _money),
    Spec("dearest", "lines", ALWAYS, ("max(price)",), _money),
    Spec("dearest_90d", "lines", LAST_90D, ("max(price)",), _money),
    Spec("least_units", "lines", period("month"), ("min(quantity)",), _plain),
    Spec("most_units", "lines", ALWAYS, ("max(quantity)",), _plain),
    Spec("price_mean", "lines", ALWAYS, MOMENTS, lambda n, s, _: _mean(n, s, 1000)),
    Spec("price_mean_28d", "lines", LAST_28D, MOMENTS, lambda n, s, _: _mean(n, s, 1000)),
    Spec("price_variance", "lines", ALWAYS, MOMENTS, lambda n, s, q: _variance(n, s, q, 1000)),
    Spec("price_variance_month", "lines", period("month"), MOMENTS,
         lambda n, s, q: _variance(n, s, q, 1000)),
    Spec("units_mean", "lines", ALWAYS, UNITS, lambda n, s, _: _mean(n, s)),
    Spec("units_variance_28d", "lines", LAST_28D, UNITS, _variance),
    Spec("first_line", "lines", ALWAYS, ("arg_min(product, seq)", "arg_min(price, seq)"),
         lambda product, price: product and {"product_id": product, "price": {"GBP": price}}),
    Spec("last_line", "lines", ALWAYS, ("arg_max(product, seq)", "arg_max(quantity, seq)"),
         lambda product, quantity: product and {"product_id": product, "quantity": quantity}),
    Spec("last_lines", "lines", ALWAYS, (last_of("product", 5),), _list),
    # The newest row of each key, made by a view of its own.
    Spec("last_orders", "newest_orders", ALWAYS, (last_of("order_id", 5),), _list),
    Spec("last_orders_30d", "newest_orders", exactly(30 * DAY_MS), (last_of("order_id", 3),), _list),
    Spec("last_products", "newest_products", ALWAYS, (last_of("product", 10),), _list),
    Spec("last_prices", "newest_products", ALWAYS, (last_of("price", 5),),
         lambda prices: [{"GBP": price} for price in prices or ()]),
]  # fmt: skip


_NEWEST = {"newest_orders": ("orders", "order_id"), "newest_products": ("lines", "product")}
"""Views of the newest row of each key, for what is distinct: their table, and the key."""


class Capped(NamedTuple):
    """A feature that keeps, of each tile, the `cap` keys whose hash is smallest."""

    name: str
    table: str
    condition: str
    width_ms: int
    key: str
    amount: str
    cap: int
    value: Callable[[list[tuple[Any, Any]]], Any]
    """Of the keys kept and their amounts, keys ascending."""


def _top(k: int) -> Callable[[list[tuple[str, int]]], list[dict[str, Any]]]:
    def top(kept: list[tuple[str, int]]) -> list[dict[str, Any]]:
        ranked = sorted(kept, key=lambda pair: (-pair[1], pair[0]))[:k]
        return [{"value": value, "count": n} for value, n in ranked]

    return top


CAPPED = [
    Capped("spent_by_country", "orders", ALWAYS, DAY_MS, "country", "sum(total::HUGEINT)", 100,
           lambda kept: {key: {"GBP": total} for key, total in kept}),
    Capped("favourites", "lines", ALWAYS, 90 * DAY_MS, "product", "count(*)", 1_000, _top(5)),
    Capped("favourites_28d", "lines", LAST_28D, 4 * HOUR_MS, "product", "count(*)", 12, _top(3)),
    Capped("products", "lines", ALWAYS, 90 * DAY_MS, "product", "count(*)", 2_000, len),
    Capped("products_28d", "lines", LAST_28D, 4 * HOUR_MS, "product", "count(*)", 2_000, len),
    Capped("units_by_product_28d", "lines", LAST_28D, 4 * HOUR_MS, "product",
           "sum(quantity::HUGEINT)", 6, dict),
]  # fmt: skip

_CAPPED_QUERY = """
    WITH tile_keys AS (
        SELECT person, at_ms // {width} AS tile, {key} AS key, {amount} AS amount
        FROM {table} SEMI JOIN asked USING (person)
        WHERE at_ms <= $t AND {condition} GROUP BY ALL
    ), ranked AS (
        SELECT person, key, amount, row_number() OVER (PARTITION BY person, tile ORDER BY rank) AS place
        FROM tile_keys JOIN ranks USING (key)
    ), kept AS (
        SELECT person, key, sum(amount::HUGEINT) AS amount FROM ranked WHERE place <= {cap} GROUP BY ALL
    ), cut AS (
        SELECT person, max(place) > {cap} AS cut FROM ranked GROUP BY ALL
    )
    SELECT person, list(key ORDER BY key), list(amount ORDER BY key), any_value(cut)
    FROM kept JOIN cut USING (person) GROUP BY person
"""

_TABLES = """
    CREATE TABLE data AS
        SELECT file_row_number AS row, * FROM read_parquet('{path}', file_row_number=true)
        WHERE file_row_number < {rows};
    CREATE TABLE lines AS
        SELECT coalesce('user_id:' || CustomerID::BIGINT, 'anonymous_id:' || InvoiceNo) AS person,
            epoch_ms(InvoiceDate) AS at_ms,
            timezone('{zone}', timezone('UTC', InvoiceDate)) AS local,
            InvoiceNo AS order_id, Country AS country, InvoiceNo[1] = 'C' AS cancelled,
            StockCode AS product, Quantity AS quantity,
            (UnitPrice::DECIMAL(18, 3) * 1000)::BIGINT AS price,
            event, place, at_ms::HUGEINT * 18446744073709551616 + (event - event % 1024 + place) AS seq
        FROM data JOIN keys USING (row);
    CREATE TABLE orders AS
        SELECT person, at_ms, local, order_id, country, cancelled, event,
            sum(price::HUGEINT * quantity) AS total, at_ms::HUGEINT * 18446744073709551616 + event AS seq
        FROM lines GROUP BY ALL;
    CREATE TABLE ranks AS SELECT key, rank FROM hashes;
"""


class Oracle:
    """Answers what every feature of every person is at an instant.

    Args:
        data: The Parquet file.
        orders: The events that were sent; only their ids and the rows they stand for are used.
        threads: DuckDB's.
    """

    def __init__(self, data: Path, orders: Sequence[Order], *, threads: int = 2) -> None:
        self.duck = duckdb.connect(config={"threads": threads})
        self._register_keys(orders)
        rows = sum(len(one.rows) for one in orders)
        for statement in _TABLES.format(path=data, rows=rows, zone=TIME_ZONE).split(";"):
            if statement.strip():
                self.duck.execute(statement)

    def _register_keys(self, orders: Sequence[Order]) -> None:
        rows: list[int] = []
        events: list[int] = []
        places: list[int] = []
        for one in orders:
            key = event_key(one.id_type, one.person, one.message_id)
            rows += one.rows
            events += [key] * len(one.rows)
            places += range(len(one.rows))
        self._table("keys", {"row": ("BIGINT", rows), "event": ("UBIGINT", events),
                             "place": ("BIGINT", places)})  # fmt: skip
        names = {one.body["properties"]["country"] for one in orders} | {
            line["product_id"] for one in orders for line in one.body["properties"]["products"]
        }
        keys = sorted(names)
        self._table("hashes", {"key": ("VARCHAR", keys), "rank": ("UBIGINT", [*map(rank, keys)])})

    def _table(self, name: str, columns: dict[str, tuple[str, list[Any]]]) -> None:
        picked = ", ".join(
            f"unnest(?::{kind}[]) AS {column}" for column, (kind, _) in columns.items()
        )
        self.duck.execute(
            f"CREATE TABLE {name} AS SELECT {picked}", [values for _, values in columns.values()]
        )

    def people(self, as_of_ms: int) -> list[str]:
        """Return everybody who has ordered, by `type:value`."""
        return [row[0] for row in self.duck.execute(
            "SELECT DISTINCT person FROM orders WHERE at_ms <= $t ORDER BY person", {"t": as_of_ms}
        ).fetchall()]  # fmt: skip

    def answer(
        self, as_of_ms: int, people: Sequence[str]
    ) -> dict[str, tuple[dict[str, Any], frozenset[str]]]:
        """Return features, and the names of those a cap cut, by person."""
        self.duck.execute("CREATE OR REPLACE TABLE asked (person VARCHAR)")
        self.duck.execute("INSERT INTO asked SELECT unnest(?::VARCHAR[])", [list(people)])
        known: dict[str, dict[str, Any]] = {}
        cut: dict[str, set[str]] = {person: set() for person in people}
        places: dict[tuple[str, str], list[Spec]] = {}
        for spec in SPECS:
            places.setdefault((spec.table, spec.condition), []).append(spec)
        for (table, condition), specs in places.items():
            found = self._grouped(table, condition, specs, as_of_ms)
            for spec in specs:
                known[spec.name] = found[spec.name]
        for capped in CAPPED:
            known[capped.name], names = self._capped(capped, as_of_ms)
            for person in names & cut.keys():
                cut[person].add(capped.name)
        nothing = {spec.name: spec.value(*[None] * len(spec.columns)) for spec in SPECS}
        nothing |= {capped.name: capped.value([]) for capped in CAPPED}
        return {
            person: (
                {name: values.get(person, nothing[name]) for name, values in known.items()},
                frozenset(cut[person]),
            )
            for person in people
        }

    def _grouped(
        self, table: str, condition: str, specs: Sequence[Spec], as_of_ms: int
    ) -> dict[str, dict[str, Any]]:
        columns = list(dict.fromkeys(column for spec in specs for column in spec.columns))
        source = (
            f"(SELECT * FROM {_NEWEST.get(table, (table,))[0]} SEMI JOIN asked USING (person)"
            f" WHERE at_ms <= $t AND {condition})"
        )
        if table in _NEWEST:
            source = (
                f"(SELECT * FROM {source} QUALIFY row_number() OVER"
                f" (PARTITION BY person, {_NEWEST[table][1]} ORDER BY seq DESC) = 1)"
            )
        rows = self._run(
            f"SELECT person, {', '.join(columns)} FROM {source} GROUP BY person", as_of_ms
        )
        at = {column: index + 1 for index, column in enumerate(columns)}
        return {
            spec.name: {
                row[0]: spec.value(*(row[at[column]] for column in spec.columns)) for row in rows
            }
            for spec in specs
        }

    def _capped(self, capped: Capped, as_of_ms: int) -> tuple[dict[str, Any], set[str]]:
        query = _CAPPED_QUERY.format(
            width=capped.width_ms, key=capped.key, amount=capped.amount, table=capped.table,
            condition=capped.condition, cap=capped.cap,
        )  # fmt: skip
        rows = self._run(query, as_of_ms)
        values = {
            person: capped.value(list(zip(keys, amounts, strict=True)))
            for person, keys, amounts, _ in rows
        }
        return values, {person for person, _, _, cut in rows if cut}

    def _run(self, query: str, as_of_ms: int) -> list[tuple[Any, ...]]:
        local = f"timezone('{TIME_ZONE}', to_timestamp({as_of_ms} / 1000))"
        query = query.replace("$now", local).replace("$t", f"{as_of_ms}::BIGINT")
        return self.duck.execute(query).fetchall()

    def close(self) -> None:
        self.duck.close()


def leaf_key(id_type: str, value: str) -> bytes:
    """Return the id of a leaf, from its documented formula."""
    message = b"\x00".join(part.encode() for part in (TENANT, id_type, value))
    return hmac.digest(IDENTIFIER_KEY, message, "sha256")[:16]


def event_key(id_type: str, value: str, message_id: str) -> int:
    """Return the 64-bit id of an event, from its documented formula."""
    digest = blake2b(message_id.encode(), digest_size=8, key=leaf_key(id_type, value)).digest()
    return int.from_bytes(digest, "big")


def rank(key: str) -> int:
    """Return a key's place in the order of caps, from its documented formula."""
    digest = blake2b(f"str:{key}".encode(), digest_size=8, person=b"penstock-caps-1").digest()
    return int.from_bytes(digest, "big")
