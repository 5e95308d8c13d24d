"""The eight features in SQL: what DuckDB needs for one pass over the same events."""

from __future__ import annotations

from pathlib import Path

import duckdb
import msgspec

from benchmarks import workload
from benchmarks.measure import Sample, timed
from benchmarks.workload import Stream
from penstock.core.record import decode_record
from penstock.flows.process import PartitionFold

CHECKED = 200
"""People whose features are compared with the fold's, value by value."""

FEATURES = """
CREATE OR REPLACE TEMP TABLE features AS
WITH events AS (
    SELECT leaf, event_id, any_value(name) AS name, any_value(at_ms) AS at_ms,
        any_value(product_id) AS product_id, any_value(category) AS category,
        any_value(total) AS total, any_value(products) AS products
    FROM read_parquet('{path}') WHERE permitted GROUP BY leaf, event_id
),
plain AS (
    SELECT leaf,
        count(*) FILTER (name = 'Product Viewed' AND at_ms // 3600000 >= {week}) AS views_7d,
        count(*) FILTER (name = 'Product Added' AND at_ms // 3600000 >= {week}) AS adds_7d,
        count(*) FILTER (name = 'Order Completed') AS orders,
        sum(total) FILTER (name = 'Order Completed') AS spent,
        {as_of} - max(at_ms) FILTER (name = 'Product Viewed') AS since_view
    FROM events GROUP BY leaf
),
viewed AS (
    SELECT leaf, product_id, max((at_ms, event_id)) AS last FROM events
    WHERE name = 'Product Viewed' GROUP BY leaf, product_id
),
recent AS (
    SELECT leaf, list(product_id ORDER BY last DESC)[:10] AS recent FROM viewed GROUP BY leaf
),
counted AS (
    SELECT leaf, category, count(*) AS n FROM events WHERE name = 'Product Viewed'
    GROUP BY leaf, category
),
favourite AS (
    SELECT leaf, list((category, n) ORDER BY n DESC, category)[:3] AS categories
    FROM counted GROUP BY leaf
),
lines AS (
    SELECT leaf, at_ms, event_id, unnest(products) AS product_id,
        generate_subscripts(products, 1) AS place
    FROM events WHERE name = 'Order Completed'
),
latest AS (
    SELECT leaf, product_id, max((at_ms, event_id, place)) AS last FROM lines GROUP BY leaf, product_id
),
bought AS (
    SELECT leaf, list(product_id ORDER BY last DESC)[:20] AS bought FROM latest GROUP BY leaf
)
SELECT * FROM plain LEFT JOIN recent USING (leaf) LEFT JOIN favourite USING (leaf)
    LEFT JOIN bought USING (leaf)
"""


class DuckdbPass:
    """The records of a stream as a Parquet file, and the pass over it.

    Args:
        work: Where the file goes.
        stream: The records; those that consent keeps bare are marked.
    """

    def __init__(self, work: Path, stream: Stream) -> None:
        rows, path = work / "events.ndjson", work / "events.parquet"
        encode = msgspec.json.Encoder().encode
        with rows.open("wb") as out:
            for value in stream.values:
                record = decode_record(value)
                given = record.properties
                total, products = given.get("total"), given.get("products") or []
                out.write(encode({
                    "leaf": record.leaf.hex(), "event_id": record.event_id, "name": record.name,
                    "at_ms": record.occurred_at_ms, "product_id": given.get("product_id"),
                    "category": given.get("category"), "total": total[0] if total else None,
                    "products": [one["product_id"] for one in products],
                    "permitted": not record.bare,
                }) + b"\n")  # fmt: skip
        self.count = len(stream.values)
        self.as_of_ms = max(stream.stamps)
        self.connection = duckdb.connect(config={"threads": 1})
        self.connection.execute(f"""COPY (SELECT * FROM read_json('{rows}', format='newline_delimited',
            columns={{leaf: 'VARCHAR', event_id: 'UBIGINT', name: 'VARCHAR', at_ms: 'BIGINT',
            product_id: 'VARCHAR', category: 'VARCHAR', total: 'BIGINT', products: 'VARCHAR[]',
            permitted: 'BOOLEAN'}})) TO '{path}' (FORMAT parquet)""")
        week = (self.as_of_ms - 7 * 86_400_000) // 3_600_000
        self.query = FEATURES.format(path=path, week=week, as_of=self.as_of_ms)

    def run(self) -> Sample:
        """Compute the features of everybody."""
        return timed(self.count, lambda: self.connection.execute(self.query))

    def check(self, fold: PartitionFold, stream: Stream) -> None:
        """Assert that both compute the same: a yardstick that measures something else is none."""
        plan = fold.step.plan
        leaves = list(dict.fromkeys(decode_record(value).leaf for value in stream.values))[:CHECKED]
        found = self.connection.execute(
            "SELECT leaf, views_7d, adds_7d, orders, spent, since_view, recent, categories, bought FROM features"
        ).fetchall()
        theirs = {row[0]: row[1:] for row in found}
        everything = frozenset(("personalisation", "measurement"))
        for leaf_id in leaves:
            leaf = fold.cache[leaf_id]  # type: ignore[index] - a leaf's bytes are its id
            if not leaf.applied:
                continue
            ours = plan.read(leaf.states, self.as_of_ms, leaf.clock_ms, leaf.purged, everything)
            views, adds, orders, spent, since, recent, categories, bought = theirs[leaf_id.hex()]
            assert ours == {
                "views_7d": views, "adds_7d": adds, "recent": recent or [],
                "categories": [{"value": value, "count": n} for value, n in categories or ()],
                "bought": bought or [], "orders": orders,
                "spent": {"GBP": int(spent)} if spent is not None else {}, "since_view": since,
            }, "DuckDB and the fold agree"  # fmt: skip

    def close(self) -> None:
        """Close the database."""
        self.connection.close()


assert workload.HISTORY_MS < 30 * 86_400_000, "the 30-day features read everything"
