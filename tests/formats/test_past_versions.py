"""Data folders that past versions wrote: today's code serves the same profiles from them, and goes on."""

import asyncio
import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import msgspec
import pytest
import zstandard
from click.testing import CliRunner, Result
from story import ASKED_MS, CAMPAIGN, SEND, Shop, opened, track
from write_formats import SPOOLED, formats_now

from penstock.adapters.leaf_index.sqlite import SqliteLeafIndex
from penstock.adapters.log.sqlite import SqliteLog
from penstock.adapters.spool.sqlite import SqliteSpool
from penstock.cli.main import main
from penstock.core.ids import LeafId
from penstock.core.record import decode_record
from penstock.core.segment import Segment
from penstock.testing.clock import HandClock

HERE = Path(__file__).parent
VERSIONS = ("v1", "v2", "v3", "v4", "v5")


def penstock(*args: object) -> Result:
    return CliRunner().invoke(main, [str(arg) for arg in args])


@pytest.fixture(params=VERSIONS)
def version(request: pytest.FixtureRequest) -> Path:
    return HERE / request.param


@pytest.fixture
def shop(version: Path, tmp_path: Path) -> Path:
    """The shop with the data that a version wrote."""
    folder = tmp_path / "shop"
    shutil.copytree(HERE / "shop", folder)
    if (version / "backup").exists():
        done = penstock("restore", version / "backup", "--project", folder)
        assert 0 == done.exit_code, done.output
    else:
        shutil.copytree(version / "data", folder / "data")
        (folder / "data" / "keys.json").chmod(0o600)
    return folder


def told(version: Path) -> dict:
    return json.loads((version / "answers.json").read_text())


def plain(answers: dict) -> dict:
    return json.loads(json.dumps(answers))


def test_every_version_is_tested() -> None:
    assert [*VERSIONS] == sorted(path.name for path in HERE.glob("v[0-9]*"))


def test_the_newest_files_are_of_todays_formats() -> None:
    kept = json.loads((HERE / VERSIONS[-1] / "formats.json").read_text())
    assert kept == formats_now(), "a stored format changed: see tests/formats/README.md"


def test_the_same_is_served_and_it_goes_on(version: Path, shop: Path) -> None:
    async def story() -> tuple[dict, dict, dict]:
        async with opened(shop, ASKED_MS) as now:
            first = await now.answers()
            await go_on(now)
            second = await now.answers()
        async with opened(shop, ASKED_MS) as now:
            return first, second, await now.answers()

    first, second, third = map(plain, asyncio.run(story()))
    assert told(version) == first
    ann, before = second["profiles"]["user_id:ann"], first["profiles"]["user_id:ann"]
    assert before["features"]["views_7d"] + 1 == ann["features"]["views_7d"]
    assert before["features"]["orders"] == ann["features"]["orders"]
    # What was decided then is decided, and who got an email gets no other.
    assert (first["decision"], first["sent"]) == (second["decision"], second["sent"])
    assert second["profiles"] == third["profiles"]
    assert second["decision"] == third["decision"]


async def go_on(shop: Shop) -> None:
    """Send what was sent before, which counts once, and something new."""
    order = {"order_id": "o2", "total": "19.98", "currency": "GBP", "products": [{"product_id": "p3"}]}  # fmt: skip
    await shop.send(
        track("Order Completed", 2, "ann", properties=order),
        track("Product Viewed", 1_000, "ann", properties={"product_id": "p6", "category": "shoes"}),
    )
    await shop.admin("/v1/admin/sends", {"campaign": CAMPAIGN, "send": SEND})


def test_its_leaves_are_those_of_a_replay(version: Path, shop: Path) -> None:
    done = penstock("replay", "--json", "--project", shop)
    assert 0 == done.exit_code, done.output
    replayed = json.loads(done.stdout)
    assert 0 == replayed["leaves_different"]
    assert told(version)["log"]["appended"] == replayed["records"]
    examined = penstock("doctor", "--project", shop)
    assert 0 == examined.exit_code, examined.output
    assert "equal byte for byte" in examined.output


def test_it_can_be_backed_up(version: Path, shop: Path) -> None:
    asyncio.run(start_and_stop(shop))
    done = penstock("backup", shop.parent / "b", "--project", shop, "--json")
    assert 0 == done.exit_code, done.output
    assert 0 < json.loads(done.stdout)["leaves_refolded"]


async def start_and_stop(shop: Path) -> None:
    async with opened(shop, ASKED_MS):
        pass


@pytest.mark.parametrize("kept", VERSIONS[1:])
def test_segments_and_the_index_are_read(kept: str, tmp_path: Path) -> None:
    shutil.copytree(HERE / kept, tmp_path / kept)
    folder = tmp_path / kept
    log = SqliteLog(folder / "backup" / "log.db", HandClock(), read_only=True)
    index = SqliteLeafIndex(folder / "index.db")
    for partition in range(log.partitions):
        records = log.read(partition, 0, 10_000)
        raw = (folder / f"segment-{partition}.bin").read_bytes()
        segment = Segment("s", len(raw), lambda start, size, raw=raw: raw[start : start + size],
                          zstandard.ZstdDecompressor().decompress)  # fmt: skip
        segment.check()
        assert records == segment.read(0, 10_000)
        for leaf in {decode_record(one.value).leaf for one in records}:
            offsets = [one.offset for one in records if decode_record(one.value).leaf == leaf]
            assert offsets == segment.find(leaf) == index.find(partition, LeafId(leaf))
    index.close()
    log.close()


# -- and of versions to come


def later_file(name: str):
    def change(data: Path) -> None:
        with closing(sqlite3.connect(data / name)) as file:
            file.execute("PRAGMA user_version=99")

    return change


def later_json(name: str):
    def change(data: Path) -> None:
        said = msgspec.json.decode((data / name).read_bytes())
        (data / name).write_bytes(msgspec.json.encode({**said, "format": 99, "more": [1]}))

    return change


def later_record(data: Path) -> None:
    """A record with a later format, whose fields are not those of today."""
    log = SqliteLog(data / "log.db", HandClock(ASKED_MS), partitions=2)
    log.append(1, [msgspec.msgpack.encode([99, {"all": "else"}])])
    log.close()


def later_decision(data: Path) -> None:
    with closing(sqlite3.connect(data / "decisions.db")) as file, file:
        file.execute("UPDATE decisions SET record = ?", (msgspec.msgpack.encode([99, {}]),))
        file.execute("INSERT INTO outbox SELECT NULL, decision_id FROM decisions LIMIT 1")


LATER = {
    **{name: (later_file(name), "E706")
       for name in ("log.db", "store.db", "decisions.db", "suppressions.db", "index.db")},
    "keys.json": (later_json("keys.json"), "E706"),
    "definitions": (later_json("definitions/versions.json"), "E741"),
    "a record": (later_record, "E702"),
    "a decision": (later_decision, "E721"),
}  # fmt: skip


@pytest.mark.parametrize("what", LATER)
def test_files_of_a_later_version_are_refused_and_stay_as_they_are(
    tmp_path: Path, what: str
) -> None:
    change, code = LATER[what]
    folder = tmp_path / "shop"
    shutil.copytree(HERE / "shop", folder)
    assert 0 == penstock("restore", HERE / VERSIONS[-1] / "backup", "--project", folder).exit_code
    asyncio.run(start_and_stop(folder))
    change(folder / "data")
    before = {path.name: path.read_bytes() for path in (folder / "data").glob("*.json")}

    told = penstock("replay", "--project", folder)
    if code == "E721":
        told = penstock("explain", "user_id:ann", "--campaign", CAMPAIGN, "--send", SEND, "--project", folder)  # fmt: skip

    assert told.exit_code > 0
    assert isinstance(told.exception, SystemExit), told.exception
    assert code in told.output
    assert "upgrade Penstock" in told.output
    assert before == {path.name: path.read_bytes() for path in (folder / "data").glob("*.json")}


def test_what_waits_in_a_spool_is_read(version: Path, tmp_path: Path) -> None:
    if not (version / "spool.db").exists():
        pytest.skip("this version had no spool")
    shutil.copy(version / "spool.db", tmp_path)
    spool = SqliteSpool(tmp_path / "spool.db", 1024 * 1024)
    for partition, values, letters in SPOOLED:
        found = spool.next(partition)
        assert found is not None
        assert (values, letters) == (found.values, found.letters)
        spool.done(found.number)
    assert 0 == spool.counts().batches
    spool.close()
