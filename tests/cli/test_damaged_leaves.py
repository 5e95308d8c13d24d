"""One leaf that does not read back costs the one person it belongs to, and nobody else."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result

from penstock.application import make_app
from penstock.cli.main import main
from penstock.compose import make_node, open_stores
from penstock.core.ids import LeafId, leaf_id
from penstock.ports.keys import IDENTIFIER_KEY
from penstock.project import load_project

PEOPLE = {"u1": "ann@example.com", "u2": "bob@example.com", "u3": "cem@example.com"}
GRANTED = {"consent": {"categoryPreferences": {"personalisation": True}}}
SEEN = (datetime.now(UTC) - timedelta(hours=1)).isoformat()


def run(*args: object) -> Result:
    result = CliRunner().invoke(main, [str(arg) for arg in args])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    folder = tmp_path / "shop"
    assert run("init", folder).exit_code == 0
    events = [
        one
        for user, email in PEOPLE.items()
        for one in (
            {"type": "identify", "messageId": f"i-{user}", "userId": user, "traits": {"email": email}},
            {"type": "track", "event": "Product Viewed", "messageId": f"v-{user}", "userId": user,
             "properties": {"product_id": "p1"}},
        )
    ]  # fmt: skip
    lines = [json.dumps({**one, "context": GRANTED, "timestamp": SEEN}) for one in events]
    (folder / "events.jsonl").write_text("\n".join(lines) + "\n")
    (folder / "items.csv").write_text("item_id,title,url\np1,Kettle,https://shop.example/p1\n")
    for name, kind, source in (
        ("events.jsonl", "events", "backend"),
        ("items.csv", "items", "crm"),
    ):
        done = run("load", folder / name, "--as", kind, "--source", source, "--project", folder)
        assert done.exit_code == 0, done.output
    return folder


def leaf_of(shop: Path, id_type: str, value: str) -> LeafId:
    project = load_project(shop)
    stores = open_stores(project)
    try:
        tenant = project.settings.project.tenant
        return leaf_id(stores.keys.get(IDENTIFIER_KEY), tenant, id_type, value)
    finally:
        stores.close()


def damage(shop: Path, leaf: LeafId) -> None:
    with closing(sqlite3.connect(shop / "data" / "store.db")) as file:
        assert file.execute("UPDATE leaves SET crc = crc + 1 WHERE leaf = ?", (leaf,)).rowcount == 1
        file.commit()


HITS = pytest.mark.parametrize(
    ("id_type", "value"), [("email", "ann@example.com"), ("user_id", "u1")], ids=["address", "user"]
)


@HITS
def test_a_send_skips_them_says_so_and_sends_to_the_others(
    shop: Path, id_type: str, value: str
) -> None:
    damage(shop, leaf_of(shop, id_type, value))

    result = run("send", "welcome", "--send", "s1", "--json", "--project", shop)

    assert json.loads(result.stdout)["outcomes"] == {"accepted": 2, "skipped:E704": 1}
    assert result.exit_code == 1
    told = [path.read_text() for path in (shop / "outbox").glob("*.eml")]
    assert len(told) == 2
    assert not [text for text in told if "ann@example.com" in text]
    # When the leaf is made anew the same send reaches them, and only them.
    assert run("replay", "--accept", "--project", shop).exit_code == 0
    again = json.loads(run("send", "welcome", "--send", "s1", "--json", "--project", shop).stdout)
    assert again["outcomes"] == {"accepted": 1, "already": 2}


@HITS
def test_an_export_leaves_them_out_and_names_the_leaf(
    shop: Path, tmp_path: Path, id_type: str, value: str
) -> None:
    leaf = leaf_of(shop, id_type, value)
    damage(shop, leaf)

    result = run(
        "export", tmp_path / "people.parquet", "--identifiers", "--json", "--project", shop
    )

    said = json.loads(result.stdout)
    assert (said["people"], said["damaged"], result.exit_code) == (2, [leaf.hex()], 70)
    exported = pq.read_table(tmp_path / "people.parquet").column("user_id").to_pylist()
    assert sorted(exported) == ["u2", "u3"]


def test_a_backup_names_the_leaf_and_is_made_once_it_is_mended(shop: Path, tmp_path: Path) -> None:
    leaf = leaf_of(shop, "user_id", "u1")
    damage(shop, leaf)

    refused = run("backup", tmp_path / "b", "--project", shop)
    mended = run("replay", "--accept", "--project", shop)
    made = run("backup", tmp_path / "b", "--project", shop)

    assert (refused.exit_code, mended.exit_code, made.exit_code) == (70, 0, 0)
    assert f"E752: leaf {leaf.hex()} does not match its checksum" in refused.output
    assert "replay --accept" in refused.output


def over_http(shop: Path, ask: Callable[[httpx.AsyncClient], Any]) -> Any:
    async def story() -> Any:
        project = load_project(shop)
        stores = open_stores(project)
        node = make_node(project, stores)
        await node.start()
        key = project.settings.server.read_keys[0]
        transport = httpx.ASGITransport(app=make_app(node))
        async with httpx.AsyncClient(
            transport=transport, base_url="http://test", headers={"Authorization": f"Bearer {key}"}
        ) as http:
            found = await ask(http)
        await node.close()
        stores.close()
        return found

    return asyncio.run(story())


def test_profiles_of_them_fall_back_and_no_answer_tells_a_path(shop: Path) -> None:
    damage(shop, leaf_of(shop, "user_id", "u1"))

    async def ask(http: httpx.AsyncClient) -> list[httpx.Response]:
        together = {"people": [{"user_id": user} for user in PEOPLE]}
        return [
            await http.get("/v1/profiles/user_id:u1"),
            await http.post("/v1/profiles", json=together),
            await http.post("/v1/profiles/lookup", json={"email": "ann@example.com"}),
            await http.get("/v1/profiles/user_id:u1", params={"as_of": "2100-01-01T00:00:00Z"}),
            await http.get("/v1/profiles/user_id:u2"),
        ]

    one, many, looked_up, then, other = over_http(shop, ask)
    assert [answer.status_code for answer in (one, many, looked_up, other)] == [200] * 4
    assert (one.json()["served"], one.json()["reason"]) == ("fallback", "E704")
    assert ["fallback", "live", "live"] == [each["served"] for each in many.json()["profiles"]]
    assert (looked_up.json()["served"], other.json()["served"]) == ("fallback", "live")
    assert (then.status_code, then.json()["code"], then.json()["path"]) == (500, "E704", "")
    for answer in (one, many, looked_up, then):
        assert str(shop) not in answer.text
        assert "store.db" not in answer.text


def test_an_item_that_does_not_read_back_is_not_shown_and_costs_nobody_their_email(
    shop: Path,
) -> None:
    damage(shop, leaf_of(shop, "item_id", "p1"))

    async def ask(http: httpx.AsyncClient) -> Any:
        params = {"user_id": "u1", "preview": "1"}
        return (await http.get("/v1/decide/welcome", params=params)).json()

    answer = over_http(shop, ask)
    assert (answer["served"], answer["reason"]) == ("live", "")
    assert "Kettle" not in json.dumps(answer["slots"])
