"""Damage to a data folder: doctor finds and names it, repair goes around it, and backups fill it."""

from __future__ import annotations

import asyncio
import json
import os
import random
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner, Result

from penstock.adapters.clock import SystemClock
from penstock.adapters.log.sqlite import SqliteLog
from penstock.adapters.store.sqlite import SqliteStore
from penstock.application import make_app
from penstock.cli.main import main
from penstock.compose import make_node, open_stores
from penstock.core.record import Kind, decode_record
from penstock.project import load_project

USERS = 40
SEEN = (datetime.now(UTC) - timedelta(hours=1)).isoformat()
GRANTED = {"consent": {"categoryPreferences": {"personalisation": True}}}
FLIPS = int(os.environ.get("PENSTOCK_FLIPS", "40"))


def run(*args: object) -> Result:
    result = CliRunner().invoke(main, [str(arg) for arg in args])
    # An error of ours ends the process with a code; anything else would be a traceback.
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def result_of(*args: object) -> Any:
    result = run(*args, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def load(shop: Path, job: str, first: int, count: int) -> None:
    file = shop / f"{job}.jsonl"
    events = [
        {"type": "track", "event": "Product Viewed", "messageId": f"m{n}", "userId": f"u{n % USERS}",
         "properties": {"product_id": f"p{n % 7}"}, "context": GRANTED, "timestamp": SEEN}
        for n in range(first, first + count)
    ]  # fmt: skip
    file.write_text("".join(json.dumps(event) + "\n" for event in events))
    result_of("load", file, "--as", "events", "--source", "backend", "--job", job, "--project", shop)  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A shop whose log has several batches, and a backup of it without the newest."""
    folder = tmp_path_factory.mktemp("made")
    assert run("init", folder / "shop").exit_code == 0
    for job in range(6):
        load(folder / "shop", f"job{job}", job * 200, 200)
    result_of("backup", folder / "b", "--project", folder / "shop", "--seed", 7)
    load(folder / "shop", "job6", 1_200, 200)
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Iterator[Path]:
    shutil.copytree(made, tmp_path / "made")
    return tmp_path / "made"


def records(shop: Path) -> list[Any]:
    with closing(SqliteLog(shop / "data" / "log.db", SystemClock(), read_only=True)) as log:
        return [decode_record(one.value) for one in log.read(0, 0, 100_000)]


def leaves(shop: Path) -> list[Any]:
    with closing(SqliteStore(shop / "data" / "store.db", read_only=True)) as store:
        return store.scan(int(store.get_meta("live_epoch") or 0), None, 100_000)


def message_ids(shop: Path) -> list[str]:
    return [record.message_id for record in records(shop) if record.kind == Kind.PRIMARY]


def batches(shop: Path) -> list[tuple[int, int]]:
    with closing(sqlite3.connect(shop / "data" / "log.db")) as file:
        return file.execute("SELECT position, count FROM batches ORDER BY position").fetchall()


def damage(shop: Path, *places: int) -> None:
    """Flip a bit of the blob of some batches."""
    with closing(sqlite3.connect(shop / "data" / "log.db")) as file:
        for place in places:
            blob = bytearray(
                file.execute("SELECT blob FROM batches WHERE position = ?", (place,)).fetchone()[0]
            )
            blob[len(blob) // 2] ^= 0x10
            file.execute("UPDATE batches SET blob = ? WHERE position = ?", (bytes(blob), place))
        file.commit()


def failures(shop: Path) -> list[dict[str, Any]]:
    said = json.loads(run("doctor", "--project", shop, "--json").stdout)
    return [finding for finding in said if finding["state"] == "FAIL"]


def test_a_folder_of_another_tenant_is_refused_before_anything_is_written(folder: Path) -> None:
    shop = folder / "shop"
    settings = (shop / "penstock.toml").read_text()
    before = message_ids(shop)
    (shop / "penstock.toml").write_text(
        settings.replace("[project]", '[project]\ntenant = "other"', 1)
    )
    refused = run("replay", "--project", shop)
    assert refused.exit_code > 0
    assert "E250" in refused.output
    assert "E250" in " ".join(finding["what"] for finding in failures(shop))
    (shop / "penstock.toml").write_text(settings)
    assert [] == failures(shop)
    assert before == message_ids(shop)


def test_a_whole_log_is_left_alone(folder: Path) -> None:
    before = (folder / "shop" / "data" / "log.db").read_bytes()
    assert result_of("repair", "--project", folder / "shop")["whole"]
    assert before == (folder / "shop" / "data" / "log.db").read_bytes()
    assert "nothing to repair" in run("repair", "--project", folder / "shop").output


def test_every_damaged_batch_is_named_and_the_others_are_not(folder: Path) -> None:
    shop = folder / "shop"
    second, fourth = batches(shop)[1], batches(shop)[3]
    damage(shop, second[0], fourth[0])

    found = " ".join(finding["what"] for finding in failures(shop))
    assert "E703" in found
    for place, count in (second, fourth):
        assert f"partition 0, offsets {place} to {place + count - 1}" in found
    assert "penstock repair" in " ".join(finding["fix"] for finding in failures(shop))


def test_what_a_backup_has_is_put_back_and_nothing_is_lost(folder: Path) -> None:
    shop = folder / "shop"
    before = records(shop)
    damage(shop, batches(shop)[1][0], batches(shop)[3][0])

    done = result_of("repair", "--from", folder / "b", "--project", shop)
    assert (sum(count for _, count in (batches(shop)[1], batches(shop)[3])), 0) == (
        done["restored"],
        done["lost"],
    )
    assert before == records(shop)
    assert [] == failures(shop)
    assert (shop / "data" / "log.db.damaged-1").exists()


def test_without_a_backup_the_rest_is_kept_and_what_is_lost_is_marked(folder: Path) -> None:
    shop = folder / "shop"
    before = message_ids(shop)
    place, count = batches(shop)[2]
    gone = {record.message_id for record in records(shop)[place : place + count]}
    damage(shop, place)

    done = result_of("repair", "--project", shop)
    assert [{"partition": 0, "first": place, "end": place + count}] == done["gaps"]
    assert [name for name in before if name not in gone] == message_ids(shop)
    lost = [record for record in records(shop) if record.kind == Kind.LOST]
    assert count == len(lost) == done["lost"]

    result_of("replay", "--accept", "--project", shop)
    assert [] == failures(shop)
    load(shop, "job7", 5_000, 50)
    assert [] == failures(shop)
    assert "m5049" in message_ids(shop)
    # What cannot be read back is said once; a second repair finds nothing.
    assert result_of("repair", "--project", shop)["whole"]


def test_what_was_marked_as_lost_is_put_back_when_a_backup_turns_up(folder: Path) -> None:
    shop = folder / "shop"
    before = records(shop)
    (second, third), last = batches(shop)[1:3], batches(shop)[-1]
    damage(shop, second[0], third[0], last[0])
    assert (
        sum(c for _, c in (second, third, last)) == result_of("repair", "--project", shop)["lost"]
    )
    result_of("replay", "--accept", "--project", shop)
    gap = f"partition 0, offsets {second[0]} to {third[0] + third[1] - 1}"
    told = run("repair", "--project", shop).output
    assert "nothing to repair" in told
    assert gap in told

    done = result_of("repair", "--from", folder / "b", "--project", shop)
    assert (second[1] + third[1], last[1]) == (done["restored"], done["lost"])
    assert before[: -last[1]] == records(shop)[: -last[1]]
    result_of("replay", "--accept", "--project", shop)
    assert [] == failures(shop)
    # A third finds no more, and leaves the log as it is.
    raw = (shop / "data" / "log.db").read_bytes()
    third_time = result_of("repair", "--from", folder / "b", "--project", shop)
    assert (0, last[1]) == (third_time["restored"], third_time["lost"])
    assert raw == (shop / "data" / "log.db").read_bytes()


def test_a_backup_that_was_made_of_a_repaired_log_fills_nothing_with_what_it_lost(
    folder: Path,
) -> None:
    shop = folder / "shop"
    damage(shop, batches(shop)[1][0])
    result_of("repair", "--project", shop)
    result_of("replay", "--accept", "--project", shop)
    result_of("backup", folder / "b2", "--project", shop)
    damage(shop, batches(shop)[2][0])
    done = result_of("repair", "--from", folder / "b2", "--from", folder / "b", "--project", shop)
    assert (batches(shop)[1][1] + batches(shop)[2][1], 0) == (done["restored"], done["lost"])


def test_what_came_after_the_backup_is_lost_and_only_that(folder: Path) -> None:
    shop = folder / "shop"
    before = message_ids(shop)
    damage(shop, batches(shop)[1][0], batches(shop)[-1][0])
    done = result_of("repair", "--from", folder / "b", "--project", shop)
    place, count = batches(shop)[-1]
    assert [{"partition": 0, "first": place, "end": place + count}] == done["gaps"]
    assert before[:-count] == message_ids(shop)
    # The offsets of what is lost are not given again: leaves have applied them.
    assert place + count == len(records(shop))


def test_a_backup_of_another_shop_fills_nothing(folder: Path, tmp_path: Path) -> None:
    other, shop = tmp_path / "other", folder / "shop"
    assert run("init", other).exit_code == 0
    load(other, "job0", 0, 200)
    result_of("backup", tmp_path / "b2", "--project", other)
    damage(shop, batches(shop)[1][0])
    before = (shop / "data" / "log.db").read_bytes()
    refused = run("repair", "--from", tmp_path / "b2", "--project", shop)
    assert refused.exit_code > 0
    assert "E248" in refused.output
    assert before == (shop / "data" / "log.db").read_bytes()


@pytest.mark.timeout(300)  # dozens of commands, on a machine that may be busy
@pytest.mark.parametrize("name", ["log.db", "store.db"])
def test_a_flipped_bit_anywhere_is_found_or_harmless_and_the_rest_goes_on(
    folder: Path, name: str
) -> None:
    """Any bit of the file: what doctor passes is what it was; what it does not, repair and replay mend."""
    shop = folder / "shop"
    pristine = shop.with_name("pristine")
    shutil.copytree(shop / "data", pristine)
    before = records(shop), leaves(shop)
    dice = random.Random(f"{name}-1")
    size = (shop / "data" / name).stat().st_size
    found = harmless = 0
    for _ in range(FLIPS):
        place, bit = dice.randrange(size), dice.randrange(8)
        with (shop / "data" / name).open("r+b") as file:
            file.seek(place)
            byte = file.read(1)[0]
            file.seek(place)
            file.write(bytes([byte ^ 1 << bit]))
        faults = failures(shop)
        if not faults:
            harmless += 1
            assert before == (records(shop), leaves(shop)), f"byte {place} of {name}, bit {bit}"
        else:
            found += 1
            assert all(fault["fix"] for fault in faults)
            mended = mend(shop, name, folder / "b", faults)
            assert mended, f"byte {place} of {name}, bit {bit}: {faults}"
        shutil.rmtree(shop / "data")
        shutil.copytree(pristine, shop / "data")
    assert found > FLIPS // 4, (found, harmless)


def mend(shop: Path, name: str, backup: Path, faults: list[dict[str, Any]]) -> bool:
    """Do what doctor says; return whether all that was not hit is there."""
    if name == "log.db":
        done = run("repair", "--from", backup, "--project", shop, "--json")
        assert done.exit_code == 0, (done.output, faults)
        assert json.loads(done.stdout)["lost"] <= 202
    result_of("replay", "--accept", "--project", shop)
    return [] == failures(shop)


def test_a_store_that_does_not_open_is_moved_away_and_made_anew(folder: Path) -> None:
    shop = folder / "shop"
    store = shop / "data" / "store.db"
    before = {leaf: held.parts for leaf, held in leaves(shop)}
    with store.open("r+b") as file:
        file.write(b"XXXX")
    (fault,) = failures(shop)
    assert "E707" in fault["what"]
    assert "move the file away" in fault["fix"]

    for path in [*store.parent.glob("store.db*")]:
        path.rename(folder / path.name)
    result_of("replay", "--accept", "--project", shop)
    assert before == {leaf: held.parts for leaf, held in leaves(shop)}
    assert [] == failures(shop)


def test_who_meets_a_damaged_leaf_gets_the_fallback_and_the_others_their_own(folder: Path) -> None:
    shop = folder / "shop"
    with closing(sqlite3.connect(shop / "data" / "store.db")) as file:
        (leaf, parts) = file.execute("SELECT leaf, parts FROM leaves ORDER BY leaf").fetchone()
        broken = bytearray(parts)
        broken[len(broken) // 2] ^= 1
        file.execute("UPDATE leaves SET parts = ? WHERE leaf = ?", (bytes(broken), leaf))
        file.commit()

    async def story() -> list[tuple[int, str, str]]:
        project = load_project(shop)
        stores = open_stores(project)
        node = make_node(project, stores)
        await node.start()
        answers = []
        transport = httpx.ASGITransport(app=make_app(node))
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
            for number in range(USERS):
                answer = await http.get(
                    "/v1/decide/welcome", params={"user_id": f"u{number}", "send": "s1"},
                    headers={"Authorization": f"Bearer {project.settings.server.read_keys[0]}"},
                )  # fmt: skip
                answers.append(
                    (answer.status_code, answer.json()["served"], answer.json()["reason"])
                )
        await node.close()
        stores.close()
        return answers

    answers = asyncio.run(story())
    assert {200} == {status for status, _, _ in answers}
    others = [served for _, served, _ in answers if served in {"live", "holdout"}]
    assert [("fallback", "E704")] == [(s, r) for _, s, r in answers if s == "fallback"]
    assert USERS - 1 == len(others)
