"""Parquet in and out: profiles exported, read by pyarrow and DuckDB; files loaded as CSV would be."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result

from penstock.cli.client import in_process
from penstock.cli.main import main
from penstock.cli.parquet import BATCH_ROWS, ParquetFile
from penstock.cli.readers import reader_of
from penstock.compose import open_stores
from penstock.core.errors import SettingsError
from penstock.project import load_project

FEATURES = """
from events import product_viewed
from penstock.dsl.features import Profile, count, decay, last, last_at, last_k, sum_

class Shopper(Profile):
    viewed = last_k(product_viewed.product_id, k=3, distinct=True)
    views_7d = count(product_viewed)
    interests = decay(product_viewed, by=product_viewed.category)
    spent = sum_(product_viewed.price)
    last_seen = last_at(product_viewed)
    measured = count(product_viewed, purpose="measurement")
"""
EVENTS = """
from penstock.dsl.events import boolean, event, integer, items, money, private, string, traits

product_viewed = event("Product Viewed", product_id=string(), category=string(), price=money())
people = traits(email=string(), first_name=string(), points=integer(), vip=boolean(),
                phone=string(privacy=private(protection="pseudonym")))
catalogue = items(title=string(), url=string(), category=string(), price=money(), stock=integer(),
                  rank=integer())
"""


def run(*args: Any) -> Result:
    return CliRunner().invoke(main, [str(arg) for arg in args])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with three people: one permits both purposes, one only one, one none."""
    path = tmp_path_factory.mktemp("parquet") / "shop"
    assert run("init", path).exit_code == 0
    (path / "features.py").write_text(FEATURES)
    (path / "events.py").write_text(EVENTS)
    for name in ("slots.py", "audiences.py"):
        (path / name).unlink()
    for campaign in (path / "campaigns").glob("*.toml"):
        campaign.unlink()
    events = []
    for number, granted in enumerate([["personalisation", "measurement"], ["personalisation"], []]):
        consent = {"categoryPreferences": {
            one: one in granted for one in ("personalisation", "measurement")
        }}  # fmt: skip
        shared = {"userId": f"u{number}", "context": {"consent": consent}}
        events += [
            {**shared, "type": "identify", "messageId": f"i{number}", "anonymousId": f"a{number}", "traits": {
                "email": f"u{number}@example.com", "first_name": "Ann", "points": 7, "vip": True, "phone": "0123"}},
            {**shared, "type": "track", "messageId": f"v{number}", "event": "Product Viewed", "properties": {
                "product_id": "p1", "category": "shoes", "price": "9.99", "currency": "USD"}},
        ]  # fmt: skip
    (path / "people.jsonl").write_text("\n".join(map(json.dumps, events)))
    done = run("load", path / "people.jsonl", "--as", "events", "--source", "backend", "--project", path)  # fmt: skip
    assert done.exit_code == 0, done.output
    return path


def exported(folder: Path, *more: str) -> tuple[dict[str, Any], pa.Table]:
    file = folder / "people.parquet"
    done = run("export", file, "--project", folder, "--json", *more)
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout), pq.read_table(file)


def test_what_may_be_served_is_exported_and_nothing_protected(folder: Path) -> None:
    result, table = exported(folder)

    assert {
        "file": str(folder / "people.parquet"),
        "people": 2,
        "withheld": 1,
        "damaged": [],
    } == result
    rows = sorted(table.to_pylist(), key=lambda row: row["feature_measured"] is None)
    # `measured` needs a purpose that only the first permits: it is null there, not zero.
    assert [1, None] == [row["feature_measured"] for row in rows]
    one = rows[0]
    assert ["measurement", "personalisation"] == one["permitted"]
    assert (["p1"], 1, {"USD": 999}) == (
        one["feature_viewed"], one["feature_views_7d"], json.loads(one["feature_spent"]),
    )  # fmt: skip
    assert ["shoes"] == list(json.loads(one["feature_interests"]))
    assert ("Ann", 7, True) == (one["trait_first_name"], one["trait_points"], one["trait_vip"])
    assert isinstance(one["feature_last_seen"], datetime)
    assert not {"trait_phone", "trait_email", "email", "user_id"} & set(table.column_names)
    assert 0o600 == (folder / "people.parquet").stat().st_mode & 0o777
    assert b"example.com" not in (folder / "people.parquet").read_bytes()


def test_duckdb_reads_the_same(folder: Path) -> None:
    exported(folder, "--identifiers")
    with duckdb.connect() as connection:
        found = connection.execute(
            "SELECT user_id, email, feature_views_7d, feature_viewed[1], feature_spent->>'USD' "
            "FROM read_parquet(?) ORDER BY user_id", [str(folder / "people.parquet")],
        ).fetchall()  # fmt: skip
    assert [
        ("u0", "u0@example.com", 1, "p1", "999"), ("u1", "u1@example.com", 1, "p1", "999"),
    ] == found  # fmt: skip


def test_as_of_an_instant_is_what_was_known_then(folder: Path) -> None:
    result, table = exported(folder, "--as-of", "2026-01-01T00:00:00Z")
    assert (0, 0) == (result["people"], table.num_rows)
    # Its columns follow from the definitions, not from who is in it.
    assert exported(folder)[1].schema == table.schema


def test_what_cannot_be_written_leaves_the_file_before(folder: Path) -> None:
    exported(folder)
    before = (folder / "people.parquet").read_bytes()
    wrong = run("export", folder / "people.parquet", "--project", folder, "--audience", "nobody")
    assert wrong.exit_code != 0
    assert before == (folder / "people.parquet").read_bytes()
    assert [] == list(folder.glob(".*.part"))
    assert "E212" in run("export", folder / "people.csv", "--project", folder).output
    assert "E226" in run("export", folder / "no" / "x.parquet", "--project", folder).output


def test_memory_holds_one_batch(tmp_path: Path) -> None:
    person = {"person": "ab", "as_of_ms": 1, "permitted": [], "features": {}, "traits": {}}
    with ParquetFile(tmp_path / "x.parquet", [("person", "text"), ("feature_n", "integer")]) as target:  # fmt: skip
        for _ in range(5):
            target.add([person] * (BATCH_ROWS // 2 + 1))
            assert len(target._waiting) < BATCH_ROWS
    groups = pq.ParquetFile(tmp_path / "x.parquet").metadata
    assert (5 * (BATCH_ROWS // 2 + 1), 3) == (groups.num_rows, groups.num_row_groups)


ITEMS = [
    {"item_id": 17, "title": "Red", "url": "u1", "price": Decimal("19.990"), "stock": 3, "rank": None},
    {"item_id": 18, "title": None, "url": "u2", "price": Decimal("5.000"), "stock": 0, "rank": 1},
]  # fmt: skip


async def items_of(folder: Path) -> dict[str, Any]:
    project = load_project(folder)
    stores = open_stores(project)
    try:
        async with in_process(project, stores) as (node, _):
            await node.engine.settled()
            return {name: item.fields for name, item in (await node.serving.items(["17", "18"])).items()}  # fmt: skip
    finally:
        stores.close()


def test_a_parquet_file_loads_as_the_csv_of_the_same_rows(folder: Path) -> None:
    pq.write_table(pa.Table.from_pylist(ITEMS), folder / "items.parquet")
    csv = ["item_id,title,url,price,stock,rank", "17,Red,u1,19.990,3,", "18,,u2,5.000,0,1"]
    (folder / "items.csv").write_text("\n".join(csv))
    loaded = []
    for name in ("items.parquet", "items.csv"):
        done = run("load", folder / name, "--as", "items", "--project", folder, "--json")
        assert (0, 2) == (done.exit_code, json.loads(done.stdout)["kept"]), done.output
        loaded.append(asyncio.run(items_of(folder)))
    assert loaded[0] == loaded[1]
    assert [1_999, "USD"] == list(loaded[0]["17"]["price"])


def test_rows_that_cannot_be_used_are_set_aside_as_json_lines(folder: Path) -> None:
    rows = [{"item_id": "a", "weight": 1.5}, {"item_id": None, "weight": 2.0},
            {"item_id": "c", "weight": float("nan")}]  # fmt: skip
    pq.write_table(pa.Table.from_pylist(rows), folder / "odd.parquet")
    done = run("load", folder / "odd.parquet", "--as", "items", "--project", folder, "--json")
    result = json.loads(done.stdout)
    assert (1, 2, ["E363", "E211"]) == (
        result["kept"], result["rejected"], [one["code"] for one in result["reasons"]],
    )  # fmt: skip
    aside = (folder / "odd.rejected.jsonl").read_text().splitlines()
    assert {"item_id": None, "weight": "2.0"} == json.loads(aside[0])


def test_what_is_nested_stays_as_json_has_it(tmp_path: Path) -> None:
    at = datetime(2026, 1, 1, tzinfo=UTC)
    rows = [{"type": "track", "n": 7, "ok": True, "at": at, "properties": {"tags": ["a"], "n": 7}}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "events.parquet")
    (row,) = reader_of(tmp_path / "events.parquet").rows(tmp_path / "events.parquet")
    assert {
        "type": "track", "n": "7", "ok": "true", "at": "2026-01-01T00:00:00+00:00",
        "properties": {"tags": ["a"], "n": 7},
    } == row.values  # fmt: skip


def test_what_is_no_parquet_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.parquet").write_bytes(b"PAR1 but no more")
    with pytest.raises(SettingsError, match="E227"):
        list(reader_of(tmp_path / "x.parquet").rows(tmp_path / "x.parquet"))
