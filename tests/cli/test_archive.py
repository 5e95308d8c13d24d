"""`penstock archive` and doctor's word on it: what is there, whether it reads back, what to do."""

import asyncio
import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import boto3
import pytest
from click.testing import CliRunner

from penstock.adapters.clock import SystemClock
from penstock.adapters.log.sqlite import SqliteLog
from penstock.cli.main import main
from penstock.compose import make_node, open_stores
from penstock.core import segment
from penstock.core.record import LogRecord
from penstock.project import load_project


def run(*args: object, code: int = 0) -> Any:
    result = CliRunner().invoke(main, [str(arg) for arg in (*args, "--json")])
    assert result.exit_code == code, result.output
    return json.loads(result.stdout)


def keep_up(shop: Path) -> dict[str, float]:
    """Let a node that runs do its upkeep once; return what its metrics say."""
    project = load_project(shop)
    stores = open_stores(project)

    async def story() -> dict[str, float]:
        node = make_node(project, stores)
        await node.start()
        await node.upkeep.once()
        await node.close()
        names = "archived_records_total", "archive_behind_records"
        return {name: node.metrics.value(f"penstock_{name}") for name in names}

    try:
        return asyncio.run(story())
    finally:
        stores.close()


def load(shop: Path, first: int, count: int, text: str = "m") -> None:
    events = shop.parent / f"{text}{first}.jsonl"
    events.write_text("".join(
        json.dumps({"type": "track", "event": "Product Viewed", "messageId": f"{text}{n}", "userId": f"u{n % 4}",
                    "properties": {"product_id": "p1"}, "timestamp": "2026-01-01T00:00:00Z",
                    "context": {"consent": {"categoryPreferences": {"personalisation": True}}}}) + "\n"
        for n in range(first, first + count)
    ))  # fmt: skip
    run("load", events, "--as", "events", "--source", "backend", "--job", events.name, "--project", shop)  # fmt: skip


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A shop of 40 events, in segments of 8, that are archived."""
    monkeypatch.setattr(segment, "SEGMENT_RECORDS", 8)
    shop = tmp_path / "shop"
    CliRunner().invoke(main, ["init", str(shop)])
    with (shop / "penstock.toml").open("a") as file:
        file.write('\n[archive]\nplace = "archive"\n')
    for job in range(4):
        load(shop, job * 10, 10)
    keep_up(shop)
    return shop


def test_it_says_what_is_there_and_verifies_it(shop: Path):
    told = run("archive", "--verify", "--project", shop)
    assert (5, 40, True, []) == tuple(
        told[name] for name in ("segments", "records", "verified", "damaged")
    )
    said = next(
        one for one in run("doctor", "--project", shop) if one["what"].startswith("archive")
    )
    assert ("ok", "archive: 5 segments read back; 40 records of this log are in it without a gap") == (
        said["state"], said["what"],
    )  # fmt: skip


def test_a_node_archives_what_closes_and_nothing_twice(shop: Path):
    assert {"archived_records_total": 0, "archive_behind_records": 0} == keep_up(shop)
    for path in shop.glob("archive/**/*.seg"):
        path.unlink()
    assert {"archived_records_total": 40, "archive_behind_records": 0} == keep_up(shop)


def test_damage_is_named(shop: Path):
    path = sorted(shop.glob("archive/**/*.seg"))[2]
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 3] ^= 4
    path.write_bytes(raw)
    told = run("archive", "--verify", "--project", shop, code=70)
    assert [("E730", path.relative_to(shop / "archive").as_posix())] == [
        (one["code"], one["where"]) for one in told["damaged"]
    ]
    assert "E730" in json.dumps(run("doctor", "--project", shop, code=70))


def records(shop: Path) -> list[LogRecord]:
    with closing(SqliteLog(shop / "data" / "log.db", SystemClock(), read_only=True)) as log:
        return log.read(0, 0, 1_000)


def test_what_the_log_has_lost_is_put_back(shop: Path):
    before = records(shop)
    with closing(sqlite3.connect(shop / "data" / "log.db")) as file:
        file.execute("UPDATE batches SET crc = crc + 1 WHERE position IN (0, 10, 30)")
        file.commit()
    done = run("repair", "--project", shop)
    # Nothing that reads back follows the last one, so that nothing proves what it was.
    assert (20, 10) == (done["restored"], done["lost"])
    assert before[:30] == records(shop)[:30]


def test_a_restored_log_goes_on_beside_what_was_archived_after_its_backup(shop: Path):
    run("backup", shop.parent / "b", "--project", shop)
    load(shop, 40, 16)
    assert 16 == keep_up(shop)["archived_records_total"]
    (shop / "data").rename(shop.parent / "lost")
    run("restore", shop.parent / "b", "--project", shop)
    load(shop, 40, 16, "other")
    assert 16 == keep_up(shop)["archived_records_total"]
    told = run("archive", "--verify", "--project", shop)
    assert (9, []) == (told["segments"], told["damaged"])
    said = [one["what"] for one in run("doctor", "--project", shop)]
    assert "archive: 9 segments read back; 56 records of this log are in it without a gap" in said


@pytest.mark.slow
def test_a_bucket_holds_the_same(shop: Path, s3: str):
    client = boto3.client("s3", endpoint_url=s3)
    place = {"LocationConstraint": "eu-west-1"}
    client.create_bucket(Bucket="archive-of-the-log", CreateBucketConfiguration=place)
    client.close()
    path = shop / "penstock.toml"
    bucket = f"s3://archive-of-the-log/shop?endpoint={s3}"
    path.write_text(path.read_text().replace('place = "archive"', f'place = "{bucket}"'))
    assert {"archived_records_total": 40, "archive_behind_records": 0} == keep_up(shop)
    assert 0 == keep_up(shop)["archived_records_total"]
    assert (5, []) == tuple(run("archive", "--verify", "--project", shop)[name] for name in ("segments", "damaged"))  # fmt: skip


def test_without_a_place_there_is_none(tmp_path: Path):
    CliRunner().invoke(main, ["init", str(tmp_path / "shop")])
    result = CliRunner().invoke(main, ["archive", "--project", str(tmp_path / "shop")])
    assert "E249" in result.output
    assert isinstance(result.exception, SystemExit)
