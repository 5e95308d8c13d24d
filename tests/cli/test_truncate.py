"""A log that was truncated and one that was not: the same leaves and the same answers, whoever reads."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner

from penstock.adapters.clock import SystemClock
from penstock.adapters.log.sqlite import SqliteLog, checksum
from penstock.cli.main import main
from penstock.compose import Node, make_node, open_stores
from penstock.core import segment
from penstock.core.errors import EventRejected
from penstock.core.time import DAY_MS
from penstock.edges.serving.shown import people_json
from penstock.edges.serving.views import profile_view
from penstock.flows.history import Known
from penstock.flows.serve import Who
from penstock.project import load_project
from penstock.testing.clock import HandClock

SIZE = 8
EVENTS = 43
GRANTED = {"consent": {"categoryPreferences": {"personalisation": True}}}


def run(*args: object, code: int = 0) -> Any:
    result = CliRunner().invoke(main, [str(arg) for arg in (*args, "--json")])
    assert result.exit_code == code, result.output
    return json.loads(result.stdout) if not code else result.output


def told(shop: Path, name: str, *args: object) -> Any:
    return run(name, *args, "--project", shop)


def a_line(n: int) -> str:
    return json.dumps({
        "type": "track", "event": "Product Viewed", "messageId": f"m{n}", "userId": f"u{n % 4}", "anonymousId": f"a{n % 3}",
        "properties": {"product_id": f"p{n % 5}"}, "timestamp": datetime.now(UTC).isoformat(), "context": GRANTED,
    })  # fmt: skip


def load(shop: Path, first: int, count: int) -> None:
    events = shop.parent / f"{shop.name}{first}.jsonl"
    events.write_text("".join(a_line(n) + "\n" for n in range(first, first + count)))
    run("load", events, "--as", "events", "--source", "backend", "--project", shop)


def lived(shop: Path, work: Callable[[Node], Any] = lambda _: None, *, days: float = 0) -> Any:
    """Let a node run, some days from now, until it has nothing more to keep up; return what it is asked."""
    project = load_project(shop)
    stores = open_stores(project)

    async def story() -> Any:
        node = make_node(
            project, stores, clock=HandClock(SystemClock().now_ms() + round(days * DAY_MS))
        )
        await node.start()
        if node.pending:
            await node.versions.ended()
        while await node.upkeep.once():
            pass
        await node.engine.settled()
        found = work(node)
        found = await found if asyncio.iscoroutine(found) else found
        await node.close()
        return found

    try:
        return asyncio.run(story())
    finally:
        stores.close()


@pytest.fixture
def whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A shop whose segments have 8 records; they are archived, and none is truncated."""
    monkeypatch.setattr(segment, "SEGMENT_RECORDS", SIZE)
    shop = tmp_path / "whole"
    CliRunner().invoke(main, ["init", str(shop)])
    toml = (shop / "penstock.toml").read_text()
    (shop / "penstock.toml").write_text(toml + '\n[archive]\nplace = "archive"\n')
    for first in range(0, EVENTS, 5):
        load(shop, first, min(5, EVENTS - first))
    lived(shop)
    return shop


@pytest.fixture
def cut(whole: Path) -> Path:
    """The same shop, of which all that can go has gone."""
    shop = whole.parent / "cut"
    shutil.copytree(whole, shop)
    with (shop / "penstock.toml").open("a") as toml:
        toml.write('\n[log]\nkeep = "90d"\n')
    lived(shop, days=100)
    assert first_of(shop) > 0
    return shop


def first_of(shop: Path) -> int:
    with closing(SqliteLog(shop / "data" / "log.db", SystemClock(), read_only=True)) as log:
        return log.first(0)


def leaves_of(shop: Path) -> list[tuple[bytes, bytes]]:
    """The leaves that serve, with their bytes; links make no records of their own here."""
    with closing(sqlite3.connect(shop / "data" / "store.db")) as store:
        epoch = store.execute("SELECT value FROM meta WHERE name = 'live_epoch'").fetchone()[0]
        return store.execute("SELECT leaf, parts FROM leaves WHERE epoch = ? ORDER BY leaf", (epoch,)).fetchall()  # fmt: skip


def who(node: Node, user: str) -> Who:
    return Who(node.collector.make_leaf("user_id", user), True)


async def known_at(node: Node, user: str, offset: int) -> Any:
    profile, _ = await node.past().profile(who(node, user), Known(offset=offset))
    return profile.features, profile.traits, profile.clock_ms


def test_what_is_old_applied_and_archived_goes(cut: Path, whole: Path) -> None:
    with closing(SqliteLog(cut / "data" / "log.db", SystemClock(), read_only=True)) as log:
        truncation, named, head = log.truncation(0), log.archived(0), log.head(0)
        assert [(one.first, one.end) for one in named] == [
            (first, first + SIZE) for first in range(0, truncation.end, SIZE)
        ]
        assert truncation.primaries + truncation.links == truncation.end == head // SIZE * SIZE
    assert leaves_of(cut) == leaves_of(whole)
    said = [one for one in told(cut, "doctor") if one["state"] != "ok"]
    assert [] == said
    assert f"{head - truncation.end} records read back after {truncation.end} that were truncated" in json.dumps(told(cut, "doctor"))  # fmt: skip


def test_nothing_goes_that_is_younger_than_the_setting(whole: Path) -> None:
    toml = whole / "penstock.toml"
    toml.write_text(toml.read_text() + '\n[log]\nkeep = "90d"\n')
    lived(whole, days=89)
    assert 0 == first_of(whole)


def test_a_replay_gives_the_same_leaves(cut: Path, whole: Path) -> None:
    for shop in (cut, whole):
        done = told(shop, "replay")
        assert (True, 0) == (done["switched"], done["leaves_different"])
    assert leaves_of(cut) == leaves_of(whole)


def test_new_definitions_are_built_from_all_of_it(cut: Path, whole: Path) -> None:
    for shop in (cut, whole):
        features = shop / "features.py"
        features.write_text(features.read_text().replace("over=days(7)", "over=days(14)"))
        planned = run("plan", "--project", shop, code=2)
        assert f'"records": {head_of(shop)}' in planned
        told(shop, "apply")
    assert leaves_of(cut) == leaves_of(whole)


def head_of(shop: Path) -> int:
    with closing(SqliteLog(shop / "data" / "log.db", SystemClock(), read_only=True)) as log:
        return log.head(0)


@pytest.mark.parametrize("index", ["kept", "lost"])
def test_the_past_is_the_same(cut: Path, whole: Path, index: str) -> None:
    if index == "lost":
        for path in (cut / "data").glob("index.db*"):
            path.unlink()
    for offset in (0, 7, 8, 20, EVENTS - 1):
        for user in ("u0", "u3"):
            then = [
                lived(shop, lambda node, at=offset, of=user: known_at(node, of, at))
                for shop in (cut, whole)
            ]
            assert then[0] == then[1]


def test_a_repair_goes_by_where_the_log_begins_and_by_the_archive(cut: Path) -> None:
    load(cut, 100, 2 * SIZE)
    lived(cut)
    first, head = first_of(cut), head_of(cut)
    with closing(sqlite3.connect(cut / "data" / "log.db")) as file:
        file.execute("UPDATE batches SET crc = crc + 1 WHERE position = ?", (first,))
        file.commit()
    done = told(cut, "repair")
    assert (0, True) == (done["lost"], done["restored"] > 0)
    assert (first, head) == (first_of(cut), head_of(cut))
    assert 0 == told(cut, "replay")["leaves_different"]
    told(cut, "doctor")


def test_a_backup_is_verified_with_what_the_archive_has(cut: Path) -> None:
    backup = cut.parent / "backup"
    assert 0 < told(cut, "backup", backup)["leaves_refolded"]
    assert 0 < run("backup", backup, "--verify", "--project", cut)["leaves_refolded"]
    leaves, first = leaves_of(cut), first_of(cut)
    (cut / "data").rename(cut.parent / "lost")
    told(cut, "restore", backup)
    assert (leaves, first) == (leaves_of(cut), first_of(cut))
    assert 0 == told(cut, "replay")["leaves_different"]
    # Elsewhere, where the archive is not, it is said what is missing.
    assert "E731" in run("backup", backup, "--verify", "--project", cut.parent, code=70)


def test_without_the_archive_it_is_said_what_is_missing(cut: Path) -> None:
    leaves = leaves_of(cut)
    toml = (cut / "penstock.toml").read_text()
    (cut / "penstock.toml").write_text(toml.partition("\n[archive]")[0])
    assert "E271" in run("replay", "--project", cut, code=3)
    lived(cut)  # what serves goes on serving
    assert leaves == leaves_of(cut)
    (cut / "penstock.toml").write_text(toml)
    (cut / "archive").rename(cut / "elsewhere")
    assert "E731" in run("replay", "--project", cut, code=70)
    assert leaves == leaves_of(cut)


def age(shop: Path, days: int) -> None:
    """Let what is in the log have been logged so many days ago."""
    with closing(sqlite3.connect(shop / "data" / "log.db")) as file:
        for place, count, at_ms, codec, blob in file.execute(
            "SELECT position, count, logged_at_ms, codec, blob FROM batches"
        ).fetchall():
            then = at_ms - days * DAY_MS
            crc = checksum(place, count, then, codec, blob)
            file.execute("UPDATE batches SET logged_at_ms = ?, crc = ? WHERE position = ?", (then, crc, place))  # fmt: skip
        file.commit()
    shutil.rmtree(shop / "archive")
    told(shop, "replay", "--accept")
    lived(shop)


def test_truncating_says_which_of_the_two_is_missing(whole: Path) -> None:
    kept = run("truncate", "--project", whole, code=3)
    toml = (whole / "penstock.toml").read_text()
    (whole / "penstock.toml").write_text(toml.partition("\n[archive]")[0])
    given = run("truncate", "--keep", "1h", "--project", whole, code=3)

    assert all(one in kept for one in ("E273", "give --keep"))
    assert "archive.place" not in kept
    assert all(one in given for one in ("E273", "`archive.place`", "log.forget"))
    assert "--keep" not in given


def test_by_hand_what_would_go_is_said_before_it_goes(whole: Path) -> None:
    assert "E273" in run("truncate", "--project", whole, code=3)
    assert "E270" in run("truncate", "--keep", "90 days", "--project", whole, code=3)
    assert 0 == told(whole, "truncate", "--keep", "1h")["records"]
    age(whole, 3)
    asked = told(whole, "truncate", "--keep", "71h", "--dry-run")
    assert (head_of(whole) // SIZE * SIZE, 0) == (asked["records"], first_of(whole))
    assert asked == {**told(whole, "truncate", "--keep", "71h"), "dry_run": True}
    assert first_of(whole) > 0
    assert 0 == told(whole, "truncate", "--keep", "71h")["records"]
    told(whole, "doctor")


def test_how_long_is_said_in_days_or_hours_and_only_with_an_archive(whole: Path) -> None:
    toml = (whole / "penstock.toml").read_text()
    (whole / "penstock.toml").write_text(f'{toml}\n[log]\nkeep = "3 weeks"\n')
    assert "E270" in run("archive", "--project", whole, code=3)
    (whole / "penstock.toml").write_text(
        toml.partition("\n[archive]")[0] + '\n[log]\nkeep = "36h"\n'
    )
    assert "E272" in run("archive", "--project", whole, code=3)


# -- without an archive


@pytest.fixture
def forgot(whole: Path) -> Path:
    """The same shop without an archive, of which all that is old is gone."""
    shop = whole.parent / "forgot"
    shutil.copytree(whole, shop, ignore=shutil.ignore_patterns("archive"))
    toml = (shop / "penstock.toml").read_text().partition("\n[archive]")[0]
    (shop / "penstock.toml").write_text(f'{toml}\n[log]\nkeep = "90d"\nforget = true\n')
    lived(shop, days=100)
    assert head_of(shop) - SIZE <= first_of(shop)
    return shop


def profile_of(shop: Path, user: str) -> Any:
    async def read(node: Node) -> Any:
        profile, person = await node.serving.profile(who(node, user))
        view = profile_view(profile, person, now_ms=0, token_key=bytes(32))
        shown = people_json(await node.serving.look([who(node, user)]), bytes(32))
        assert json.loads(shown).get("complete_since", {}) == view.complete_since
        return msgspec.structs.replace(view, as_of="", profile_as_of="", age_ms=0, definitions="")

    return lived(shop, read)


def test_what_is_gone_is_in_the_snapshot_that_leaves_begin_from(forgot: Path, whole: Path) -> None:
    assert leaves_of(forgot) == leaves_of(whole)
    done = told(forgot, "replay")
    assert (True, 0, len(leaves_of(whole))) == (
        done["switched"],
        done["leaves_different"],
        done["leaves_equal"],
    )
    assert leaves_of(forgot) == leaves_of(whole)
    assert profile_of(forgot, "u1") == profile_of(whole, "u1")
    assert [] == [one for one in told(forgot, "doctor") if one["state"] != "ok"]
    # And once more, with what came after.
    for shop in (forgot, whole):
        load(shop, 200, 3)
    lived(forgot, days=200)
    assert 0 == told(forgot, "replay")["leaves_different"]
    assert 0 < told(forgot, "backup", forgot.parent / "backup")["leaves_refolded"]


LATE = "    spent_views = count(product_viewed, over=lifetime())\n    views_1d = count(product_viewed, over=days(1))\n"


def test_a_new_feature_is_complete_from_where_the_log_begins(forgot: Path, whole: Path) -> None:
    for shop in (forgot, whole):
        features = shop / "features.py"
        text = features.read_text().replace("    views_7d =", f"{LATE}    views_7d =")
        text = re.sub(r"import (Profile.*)", r"import lifetime, \1", text)
        features.write_text(text)
    planned = run("plan", "--project", forgot, code=1)
    assert {} == json.loads(run("plan", "--project", whole, code=2))["complete_since"]
    assert ["spent_views", "views_1d"] == sorted(json.loads(planned)["complete_since"])
    lacking = json.loads(planned)["incomplete"]
    assert [("E122", True)] == [
        (one["code"], bool(re.match(r"features.py:\d+$", one["where"]))) for one in lacking
    ]
    assert "`spent_views` looks back for ever" in lacking[0]["what"]
    assert "E122" in run("apply", "--project", forgot, code=2)
    told(forgot, "apply", "--allow-incomplete")
    told(whole, "apply")
    mine, other = profile_of(forgot, "u1"), profile_of(whole, "u1")
    assert mine.features["spent_views"] < other.features["spent_views"]
    since = mine.complete_since
    assert {"spent_views": since["spent_views"], "views_1d": since["views_1d"]} == since
    assert {} == other.complete_since
    for name in other.features.keys() - since:
        assert mine.features[name] == other.features[name]
    exported = forgot.parent / "people.parquet"
    told(forgot, "export", exported)
    rows = pytest.importorskip("pyarrow.parquet").read_table(exported).to_pylist()
    assert {*since} == {name for row in rows for name in json.loads(row["complete_since"])}
    # A replay keeps both what is there and the word on what is not.
    assert 0 == told(forgot, "replay")["leaves_different"]
    assert since == profile_of(forgot, "u1").complete_since
    # Once its window begins later, a feature lacks nothing.
    later = lived(forgot, lambda node: node.serving.profile(who(node, "u1")), days=2)[0]
    assert ["spent_views"] == [*later.complete_since]
    assert "E271" not in json.dumps(told(forgot, "doctor"))


def test_a_rollback_and_the_version_rolled_back_from_keep_their_snapshots(forgot: Path) -> None:
    features = forgot / "features.py"
    before = profile_of(forgot, "u1")
    features.write_text(features.read_text().replace("over=days(7)", "over=days(14)"))
    told(forgot, "apply")
    load(forgot, 300, 2 * SIZE)
    lived(forgot, days=0.5)
    told(forgot, "rollback")
    assert {} == profile_of(forgot, "u1").complete_since == before.complete_since
    assert 0 == told(forgot, "replay")["leaves_different"]
    told(forgot, "doctor")


def test_the_past_before_the_snapshot_is_refused_and_after_it_is_the_same(
    forgot: Path, whole: Path
) -> None:
    with closing(SqliteLog(forgot / "data" / "log.db", SystemClock(), read_only=True)) as log:
        end = log.truncation(0).end
    for offset in (end - 1, end, head_of(forgot) - 1):
        for index in ("kept", "lost"):
            then = [
                lived(shop, lambda node, at=offset: known_at(node, "u0", at))
                for shop in (forgot, whole)
            ]
            assert then[0] == then[1]
            if index == "kept":
                for path in (forgot / "data").glob("index.db*"):
                    path.unlink()
    with pytest.raises(EventRejected) as caught:
        lived(forgot, lambda node: known_at(node, "u0", end - 2))
    assert "E388" == caught.value.code
    with pytest.raises(EventRejected) as caught:
        lived(forgot, lambda node: past_at(node, "u0", 1))
    assert "E388" == caught.value.code


async def past_at(node: Node, user: str, at_ms: int) -> Any:
    return await node.past().profile(who(node, user), Known(at_ms=at_ms))


def test_without_the_snapshot_it_is_said_what_is_missing(forgot: Path) -> None:
    for path in (forgot / "data").glob("store.db*"):
        path.rename(path.with_suffix(".away"))
    for command in ("replay", "export"):
        assert "E275" in run(
            command,
            *(["people.parquet"] if command == "export" else []),
            "--project",
            forgot,
            code=3,
        )


def test_an_archive_that_has_the_rest_is_not_forgotten(cut: Path) -> None:
    toml = (cut / "penstock.toml").read_text().replace('place = "archive"', 'place = ""')
    (cut / "penstock.toml").write_text(toml.replace('keep = "90d"', 'keep = "1h"\nforget = true'))
    first = first_of(cut)
    load(cut, 400, 2 * SIZE)
    lived(cut, days=1)
    assert first == first_of(cut)
    assert "E276" in run("truncate", "--project", cut, code=3)
