"""`penstock backup` and `penstock restore`: whole or not at all, the same profiles, nothing overwritten."""

from __future__ import annotations

import json
import shutil
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result
from msgspec import structs

from penstock.adapters.backup.folder import FolderBackup
from penstock.adapters.decisions.sqlite import SqliteDecisions
from penstock.adapters.store.sqlite import _crc as leaf_crc
from penstock.adapters.suppressions.sqlite import SqliteSuppressions
from penstock.cli.main import main
from penstock.core.backup import MANIFEST_FILE, Manifest, decode_manifest, encode_manifest
from penstock.core.consent.suppression import Suppression, SuppressionKey
from penstock.core.ids import LeafId
from penstock.ports.decisions import DecisionKey, SendState

USERS = 40
SEEN = (datetime.now(UTC) - timedelta(hours=1)).isoformat()
GRANTED = {"consent": {"categoryPreferences": {"personalisation": True}}}


def run(*args: object) -> Result:
    return CliRunner().invoke(main, [str(arg) for arg in args])


def result_of(*args: object) -> Any:
    result = run(*args, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def refused(*args: object) -> str:
    """Return what a command that fails says, which is no traceback."""
    result = run(*args)
    assert isinstance(result.exception, SystemExit), result.output
    assert result.exit_code > 0
    return result.output


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A shop with people, and a backup of it."""
    folder = tmp_path_factory.mktemp("made")
    assert run("init", folder / "shop").exit_code == 0
    events = [
        {"type": "track", "event": "Product Viewed", "messageId": f"m{n}", "userId": f"u{n % USERS}",
         "properties": {"product_id": f"p{n % 7}"}, "context": GRANTED, "timestamp": SEEN}
        for n in range(400)
    ]  # fmt: skip
    (folder / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    load(folder / "shop", folder / "events.jsonl")
    result_of("backup", folder / "b", "--project", folder / "shop", "--seed", 7)
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Iterator[Path]:
    """A copy of it."""
    shutil.copytree(made, tmp_path / "made")
    return tmp_path / "made"


def load(project: Path, file: Path) -> None:
    result_of("load", file, "--as", "events", "--source", "backend", "--job", file.name, "--project", project)  # fmt: skip


def rows(path: Path, table: str) -> list[Any]:
    with closing(sqlite3.connect(path)) as file:
        return file.execute(f"SELECT * FROM {table} ORDER BY 1, 2, 3").fetchall()


def test_a_restore_on_an_empty_machine_has_the_same_bytes_and_goes_on(folder: Path) -> None:
    done = result_of("restore", folder / "b", "--project", folder / "new")

    assert done["project_written"]
    assert done["records"] == 400
    for name, table in (("log.db", "batches"), ("store.db", "leaves"), ("store.db", "applied"),
                        ("decisions.db", "decisions"), ("suppressions.db", "register")):  # fmt: skip
        assert rows(folder / "shop/data" / name, table) == rows(folder / "new/data" / name, table)
    for name in ("penstock.toml", "features.py", "data/keys.json", "content/email.mjml.liquid"):
        assert (folder / "shop" / name).read_bytes() == (folder / "new" / name).read_bytes()
    replayed = result_of("replay", "--project", folder / "new")
    assert (replayed["leaves_equal"], replayed["leaves_different"]) == (USERS, 0)

    # The same profiles; and fed the same, each event again and more of them, both go on alike.
    assert profiles(folder / "shop", folder) == profiles(folder / "new", folder)
    more = folder / "more.jsonl"
    more.write_text((folder / "events.jsonl").read_text().replace('"m1', '"n1'))
    for project in ("shop", "new"):
        load(folder / project, folder / "events.jsonl")
        load(folder / project, more)
    assert profiles(folder / "shop", folder) == profiles(folder / "new", folder)
    assert 400 < sum(one["feature_views_7d"] for one in profiles(folder / "new", folder))


def profiles(project: Path, beside: Path) -> list[dict[str, Any]]:
    file = beside / "profiles.parquet"
    result_of("export", file, "--project", project)
    return pq.read_table(file).drop_columns(["as_of"]).to_pylist()


def test_only_its_owner_reads_a_backup_or_what_was_restored(folder: Path) -> None:
    run("restore", folder / "b", "--project", folder / "new")
    for place in (folder / "b", folder / "new" / "data"):
        files = [place, *place.rglob("*")]
        assert {0o700, 0o600} == {stat.S_IMODE(path.stat().st_mode) for path in files}
    assert 0o600 == stat.S_IMODE((folder / "new" / "penstock.toml").stat().st_mode)


def test_a_project_that_is_there_keeps_its_own_files(folder: Path) -> None:
    shutil.rmtree(folder / "shop" / "data")
    toml = folder / "shop" / "penstock.toml"
    toml.write_text(toml.read_text() + "\n# mine\n")

    done = result_of("restore", folder / "b", "--project", folder / "shop")

    assert not done["project_written"]
    assert toml.read_text().endswith("# mine\n")
    assert 0 == run("doctor", "--project", folder / "shop").exit_code


def test_nothing_is_overwritten(folder: Path) -> None:
    before = (folder / "b" / MANIFEST_FILE).read_bytes()
    assert "E240" in refused("backup", folder / "b", "--project", folder / "shop")
    assert before == (folder / "b" / MANIFEST_FILE).read_bytes()

    assert "E242" in refused("restore", folder / "b", "--project", folder / "shop")

    (folder / "new").mkdir()
    (folder / "new" / "features.py").write_text("mine")
    assert "E242" in refused("restore", folder / "b", "--project", folder / "new")
    assert ["features.py"] == [path.name for path in (folder / "new").iterdir()]


def test_another_tenants_backup_is_refused(folder: Path) -> None:
    shutil.rmtree(folder / "shop" / "data")
    toml = folder / "shop" / "penstock.toml"
    toml.write_text(toml.read_text().replace("[project]", '[project]\ntenant = "other"'))
    assert "E244" in refused("restore", folder / "b", "--project", folder / "shop")


def test_there_is_nothing_to_back_up_before_the_first_start(tmp_path: Path) -> None:
    run("init", tmp_path / "shop")
    assert "E241" in refused("backup", tmp_path / "b", "--project", tmp_path / "shop")
    assert ["shop"] == [path.name for path in tmp_path.iterdir()]


def test_a_folder_without_its_leaves_is_not_backed_up(tmp_path: Path) -> None:
    run("init", tmp_path / "shop")
    toml = tmp_path / "shop" / "penstock.toml"
    toml.write_text(toml.read_text() + '[store]\nkind = "redis"\n')
    said = refused("backup", tmp_path / "b", "--project", tmp_path / "shop")
    assert "E241" in said
    assert "leaves are on Redis" in said


@pytest.mark.parametrize("name", ["keys.json", "log.db", "store.db", "decisions.db", "suppressions.db",
                                  "project.zip", "definitions/0001.zip", "definitions/versions.json"])  # fmt: skip
@pytest.mark.parametrize("how", ["flipped", "shorter", "longer", "missing"])
def test_a_damaged_file_is_named_and_nothing_is_put_in_place(
    folder: Path, name: str, how: str
) -> None:
    path = folder / "b" / name
    raw = bytearray(path.read_bytes())
    match how:
        case "flipped":
            raw[len(raw) // 2] ^= 16
            path.write_bytes(raw)
        case "shorter":
            path.write_bytes(raw[:-1])
        case "longer":
            path.write_bytes(raw + b"\0")
        case "missing":
            path.unlink()

    for command in (["restore", folder / "b", "--project", folder / "new"], ["backup", folder / "b", "--verify"]):  # fmt: skip
        said = refused(*command)
        assert "E751" in said
        assert f"`{name}`" in said
    assert [] == [path for path in (folder / "new").rglob("*") if path.is_file()]


@pytest.mark.parametrize("how", ["missing", "cut", "flipped", "entry removed", "path outside"])
def test_a_manifest_that_is_not_whole_is_refused(folder: Path, how: str) -> None:
    path = folder / "b" / MANIFEST_FILE
    raw = path.read_bytes()
    match how:
        case "missing":
            path.unlink()
        case "cut":
            path.write_bytes(raw[: len(raw) // 2])
        case "flipped":
            path.write_bytes(raw.replace(b'"heads": [\n    400', b'"heads": [\n    401'))
        case "entry removed":
            path.write_bytes(encode_manifest(_without(decode_manifest(raw, ""), "suppressions.db")))
        case "path outside":
            path.write_bytes(encode_manifest(_renamed(decode_manifest(raw, ""), "../keys.json")))
    assert "E750" in refused("restore", folder / "b", "--project", folder / "new")
    assert "E750" in refused("backup", folder / "b", "--verify")
    assert not (folder / "new").exists()


def _without(manifest: Manifest, name: str) -> Manifest:
    return structs.replace(manifest, files=tuple(one for one in manifest.files if one.name != name))


def _renamed(manifest: Manifest, name: str) -> Manifest:
    first, *rest = manifest.files
    return structs.replace(manifest, files=(structs.replace(first, name=name), *rest))


def test_later_suppressions_are_merged_and_earlier_ones_stay(folder: Path) -> None:
    earlier = SuppressionKey(LeafId(b"a" * 16), "email", "*")
    later = SuppressionKey(LeafId(b"b" * 16), "purpose", "personalisation")
    put(folder / "shop", {earlier: Suppression(5, True, 1, "unsubscribed")})
    result_of("backup", folder / "b2", "--project", folder / "shop")
    put(folder / "shop", {later: Suppression(9, True, 2, "withdrawal"),
                          earlier: Suppression(7, False, 3, "granted")})  # fmt: skip

    plain = result_of("restore", folder / "b2", "--project", folder / "plain")
    assert 0 == plain["suppressions_merged"]
    assert {earlier: Suppression(5, True, 1, "unsubscribed")} == known(
        folder / "plain", earlier, later
    )

    lost = folder / "shop" / "data"
    done = result_of("restore", folder / "b2", "--later", lost, "--project", folder / "new")
    assert 2 == done["suppressions_merged"]
    assert {later: Suppression(9, True, 2, "withdrawal"), earlier: Suppression(7, False, 3, "granted")} == known(
        folder / "new", earlier, later
    )  # fmt: skip

    # From an older register nothing comes that is not so any more.
    again = folder / "again"
    result_of("backup", folder / "b3", "--project", folder / "new")
    result_of("restore", folder / "b3", "--later", folder / "b2", "--project", again)
    assert known(folder / "new", earlier, later) == known(again, earlier, later)


def test_later_decisions_stand_and_nobody_gets_the_same_email_again(folder: Path) -> None:
    """As they lie in the folder of a process that was killed: with write-ahead logs beside them."""
    early, late, begun = (
        DecisionKey("default", bytes([n]) * 16, "welcome", "s", "") for n in range(3)
    )
    lost = folder / "lost"
    decisions = SqliteDecisions(folder / "shop/data/decisions.db")
    decisions.put_if_absent([(early, b"first")])
    decisions.start_send(early, "m0", 10)
    decisions.start_send(begun, "m2", 10)
    result_of("backup", folder / "b2", "--project", folder / "shop")
    decisions.outbox_done([sequence for sequence, _ in decisions.outbox(9)])
    decisions.put_if_absent([(early, b"other"), (late, b"second")])
    decisions.finish_send(early, SendState("accepted", 11, "250"))
    decisions.start_send(late, "m1", 12)
    assert decisions.reserve(b"r", "weekly", limit=1, token="t", until_ms=99, now_ms=1)
    shutil.copytree(folder / "shop/data", lost)
    assert (lost / "decisions.db-wal").stat().st_size
    decisions.close()

    done = result_of("restore", folder / "b2", "--later", lost, "--project", folder / "new")

    assert 1 == done["decisions_merged"]
    restored = SqliteDecisions(folder / "new/data/decisions.db")
    assert [b"first", b"second"] == restored.get([early, late])
    assert [b"first", b"second"] == [record for _, record in restored.outbox(9)]
    states = {key: state.state for key, state in restored.sends("welcome", "s")}
    assert {early: "accepted", late: "started", begun: "started"} == states
    assert not restored.reserve(b"r", "weekly", limit=1, token="u", until_ms=99, now_ms=1)
    restored.close()


def test_a_later_folder_that_holds_nothing_or_damage_is_refused(folder: Path) -> None:
    (folder / "nothing").mkdir()
    assert "E247" in refused("restore", folder / "b", "--later", folder / "nothing", "--project", folder / "new")  # fmt: skip
    (folder / "nothing" / "suppressions.db").write_bytes(b"not a database, and long enough to be one" * 100)  # fmt: skip
    assert "E707" in refused("restore", folder / "b", "--later", folder / "nothing", "--project", folder / "new")  # fmt: skip
    assert not (folder / "new" / "penstock.toml").exists()
    result_of("restore", folder / "b", "--later", folder / "b" / "decisions.db", "--project", folder / "new")  # fmt: skip


def put(project: Path, entries: dict[SuppressionKey, Suppression]) -> None:
    register = SqliteSuppressions(project / "data" / "suppressions.db")
    register.put([*entries.items()])
    register.close()


def known(project: Path, *keys: SuppressionKey) -> dict[SuppressionKey, Suppression]:
    register = SqliteSuppressions(project / "data" / "suppressions.db")
    found = register.get([key.leaf for key in keys])
    register.close()
    return found


def test_a_leaf_that_is_not_what_its_records_fold_to_stops_a_backup_and_is_named_by_its_hash(
    folder: Path,
) -> None:
    with closing(sqlite3.connect(folder / "shop/data/store.db")) as store, store:
        one, other = store.execute('SELECT leaf, generation, "offset", parts FROM leaves LIMIT 2').fetchall()  # fmt: skip
        store.execute(
            "UPDATE leaves SET parts = ?, crc = ? WHERE leaf = ?",
            (other[3], leaf_crc(*one[:3], other[3]), one[0]),
        )

    said = refused("backup", folder / "b2", "--project", folder / "shop")

    told = run("doctor", "--project", folder / "shop")
    assert 70 == told.exit_code
    for text in (said, told.output):
        assert "E752" in text
        assert f"leaf {one[0].hex()}" in text
    assert {"b", "shop", "events.jsonl"} == {path.name for path in folder.iterdir()}


def test_a_log_that_does_not_read_back_stops_a_backup(folder: Path) -> None:
    with closing(sqlite3.connect(folder / "shop/data/log.db")) as log, log:
        log.execute("UPDATE batches SET crc = crc + 1")
    assert "E703" in refused("backup", folder / "b2", "--project", folder / "shop")
    assert not (folder / "b2").exists()


def test_a_backup_is_verified_by_its_own_files_on_a_machine_without_the_project(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "elsewhere").mkdir()
    monkeypatch.chdir(folder / "elsewhere")
    before = sorted((path.name, path.stat().st_mtime_ns) for path in (folder / "b").rglob("*"))
    done = result_of("backup", folder / "b", "--verify", "--sample", 10, "--seed", 3)
    assert (10, 3, 400) == (done["leaves_refolded"], done["seed"], done["records"])
    assert before == sorted((path.name, path.stat().st_mtime_ns) for path in (folder / "b").rglob("*"))  # fmt: skip


@pytest.mark.parametrize("name", ["log.db", "store.db", "decisions.db", "suppressions.db"])
def test_a_file_of_a_later_format_is_refused_by_name(folder: Path, name: str) -> None:
    said = decode_manifest((folder / "b" / MANIFEST_FILE).read_bytes(), "")
    later = [structs.replace(one, format=99) if one.name == name else one for one in said.files]
    manifest = structs.replace(said, files=tuple(later), penstock="9.9")
    (folder / "b" / MANIFEST_FILE).write_bytes(encode_manifest(manifest))
    told = refused("restore", folder / "b", "--project", folder / "new")
    assert "E706" in told
    assert f"`{name}`" in told
    assert "9.9" in told
    assert not (folder / "new").exists()


def test_a_manifest_of_a_later_format_is_refused_whatever_else_it_says(folder: Path) -> None:
    (folder / "b" / MANIFEST_FILE).write_text('{"format": 2, "parts": []}')
    assert "E706" in refused("restore", folder / "b", "--project", folder / "new")


@pytest.mark.parametrize("place", ["s3://bucket", "ftp://bucket/b", "s3://Bucket_/b", "s3://bucket/b?user=x"])  # fmt: skip
def test_what_is_no_place_is_refused(folder: Path, place: str) -> None:
    assert "E246" in refused("backup", place, "--project", folder / "shop")


def test_what_a_killed_backup_left_is_no_backup_and_in_nobodys_way(folder: Path) -> None:
    left = folder / ".b2.part"
    shutil.copytree(folder / "b", left)
    (left / MANIFEST_FILE).unlink()
    assert "E750" in refused("restore", left, "--project", folder / "new")
    result_of("backup", folder / "b2", "--project", folder / "shop")
    assert not left.exists()
    assert 200 > result_of("backup", folder / "b2", "--verify")["leaves_refolded"] == USERS


def test_two_do_not_make_one_backup_at_once(folder: Path) -> None:
    with FolderBackup(folder / "b2").making():
        assert "E442" in refused("backup", folder / "b2", "--project", folder / "shop")
    result_of("backup", folder / "b2", "--project", folder / "shop")


@pytest.mark.parametrize("moved", [0, 3, 7])
def test_a_restore_that_was_cut_short_is_opened_by_nobody_and_goes_on(
    folder: Path, moved: int
) -> None:
    """As it is after a kill between any two moves, or before the first."""
    data = folder / "new" / "data"
    manifest = decode_manifest((folder / "b" / MANIFEST_FILE).read_bytes(), "")
    shutil.copytree(folder / "b", data / ".restore")
    run("restore", folder / "b", "--project", folder / "whole")
    shutil.copytree(folder / "whole", folder / "new", dirs_exist_ok=True, ignore=lambda *_: ["data"])  # fmt: skip
    for file in manifest.files[:moved]:
        (data / file.name).parent.mkdir(exist_ok=True)
        (data / ".restore" / file.name).rename(data / file.name)

    for command in (["doctor"], ["replay"], ["backup", folder / "b2"]):
        assert "E243" in refused(*command, "--project", folder / "new")
    assert "E242" in refused("restore", folder_of_another(folder), "--project", folder / "new")

    result_of("restore", folder / "b", "--project", folder / "new")
    assert 0 == run("doctor", "--project", folder / "new").exit_code
    assert [] == [path.name for path in data.iterdir() if path.name.startswith(".restore")]
    assert rows(folder / "shop/data/store.db", "leaves") == rows(data / "store.db", "leaves")


def folder_of_another(folder: Path) -> Path:
    result_of("backup", folder / "another", "--project", folder / "shop")
    return folder / "another"


def test_a_restore_that_was_cut_short_before_it_was_verified_begins_again(folder: Path) -> None:
    (folder / "new" / "data" / ".restore.part").mkdir(parents=True)
    (folder / "new" / "data" / ".restore.part" / "log.db").write_bytes(b"half")
    result_of("restore", folder / "b", "--project", folder / "new")
    assert 0 == run("doctor", "--project", folder / "new").exit_code


@pytest.mark.slow
def test_a_bucket_holds_a_backup_that_an_empty_machine_restores(folder: Path, s3: str) -> None:
    client = boto3.client("s3", endpoint_url=s3)
    place = {"LocationConstraint": "eu-west-1"}
    client.create_bucket(Bucket="backups", CreateBucketConfiguration=place)
    url = f"s3://backups/shop/monday?endpoint={s3}&region=eu-west-1"

    result_of("backup", url, "--project", folder / "shop")
    assert "E240" in refused("backup", url, "--project", folder / "shop")
    assert USERS == result_of("backup", url, "--verify")["leaves_refolded"]
    result_of("restore", url, "--project", folder / "new")

    assert profiles(folder / "shop", folder) == profiles(folder / "new", folder)
    assert [] == [path for path in (folder / "shop" / "data").iterdir() if path.name.startswith(".")]  # fmt: skip
    client.delete_object(Bucket="backups", Key="shop/monday/log.db.0000")
    said = refused("restore", url, "--project", folder / "other")
    assert "E751" in said
    assert "`log.db`" in said
    assert not (folder / "other" / "penstock.toml").exists()
    client.close()
