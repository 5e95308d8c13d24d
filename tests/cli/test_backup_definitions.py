"""A backup of a project whose definitions change: what serves, what can be rolled back to, what is being built."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from penstock.adapters.backup.folder import FolderBackup
from penstock.adapters.clock import SystemClock
from penstock.adapters.versions.folder import FolderVersions
from penstock.backups import Progress, Sampling, make_backup
from penstock.candidates import load_serving
from penstock.cli.client import in_process
from penstock.cli.main import main
from penstock.compose import open_stores
from penstock.project import load_project

GRANTED = {"consent": {"categoryPreferences": {"personalisation": True}}}
USERS = 12


def run(*args: object) -> Result:
    return CliRunner().invoke(main, [str(arg) for arg in args])


def result_of(*args: object) -> Any:
    result = run(*args, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """A shop that serves, whose features have changed since."""
    folder = tmp_path / "shop"
    assert run("init", folder).exit_code == 0
    toml = folder / "penstock.toml"
    toml.write_text(toml.read_text() + '\n[definitions]\napply = "command"\n')
    events = [
        {"type": "track", "event": "Product Viewed", "messageId": f"v{number}", "userId": f"u{number % USERS}",
         "properties": {"product_id": f"p{number % 3}"}, "context": GRANTED}
        for number in range(60)
    ]  # fmt: skip
    (tmp_path / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    result_of("load", tmp_path / "events.jsonl", "--as", "events", "--source", "backend", "--project", folder)  # fmt: skip
    features = folder / "features.py"
    features.write_text(features.read_text().replace("over=days(7)", "over=days(14)"))
    return folder


def test_what_serves_is_what_served_and_not_what_the_files_say(shop: Path) -> None:
    place, new = shop.parent / "b", shop.parent / "new"
    assert USERS == result_of("backup", place, "--project", shop)["leaves_refolded"]
    assert USERS == result_of("backup", place, "--verify")["leaves_refolded"]
    result_of("restore", place, "--project", new)
    assert (shop / "features.py").read_bytes() == (new / "features.py").read_bytes()
    differs = [json.loads(run("plan", "--json", "--project", one).stdout) for one in (shop, new)]
    assert [1, 1] == [one["active"] for one in differs]
    assert 1 == len(differs[0]["changes"])
    assert differs[0]["changes"] == differs[1]["changes"]


def test_what_can_be_rolled_back_to_can_be_in_the_restored_one(shop: Path) -> None:
    place, new = shop.parent / "b", shop.parent / "new"
    result_of("apply", "--project", shop)
    result_of("backup", place, "--project", shop)
    result_of("restore", place, "--project", new)

    def kept(one: Path) -> list[tuple[int, str, int]]:
        versions = result_of("versions", "--project", one)["versions"]
        return [(each["number"], each["state"], each["leaves"]) for each in versions]

    assert [(1, "retiring", USERS), (2, "active", USERS)] == kept(shop) == kept(new)
    assert 1 == result_of("rollback", "--project", new)["active"]
    assert 0 == result_of("replay", "--project", new)["leaves_different"]


def test_a_build_that_was_under_way_goes_on(shop: Path) -> None:
    place, new = FolderBackup(shop.parent / "b"), shop.parent / "new"
    states: list[str] = []

    async def story() -> None:
        project, _ = load_serving(shop, always=True)
        stores = open_stores(project)
        try:
            async with in_process(project, stores, apply_changed=False) as (node, _):
                candidate = await asyncio.to_thread(node.load, load_project(shop))
                await node.versions.replace(candidate)
                while node.versions.table.candidate is None:  # noqa: ASYNC110
                    await asyncio.sleep(0)
                # Nothing of it runs meanwhile: this holds the loop.
                make_backup(project, place, sampling=Sampling(), clock=SystemClock(), progress=Progress())  # fmt: skip
                states.extend(one.state for one in node.versions.table.versions)
        finally:
            stores.close()

    asyncio.run(story())
    assert ["active", "building"] == states
    result_of("restore", shop.parent / "b", "--project", new)
    assert ["active", "building"] == [
        one.state for one in FolderVersions(new / "data" / "definitions").load().versions
    ]

    applied = result_of("apply", "--project", new)
    assert (2, "active") == (applied["number"], applied["state"])
    replayed = result_of("replay", "--project", new)
    assert (USERS, 0) == (replayed["leaves_equal"], replayed["leaves_different"])
