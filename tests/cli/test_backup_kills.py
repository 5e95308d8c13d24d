"""kill -9 at every step of a backup and of a restore: what is half made is never taken for whole."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from penstock.cli.main import main

pytestmark = pytest.mark.slow

POINTS_MAX = 400
GRANTED = {"consent": {"categoryPreferences": {"personalisation": True}}}
USERS = 20


def run(*args: object) -> Result:
    return CliRunner().invoke(main, [str(arg) for arg in args])


def done(*args: object) -> Any:
    result = run(*args, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    assert run("init", tmp_path / "shop").exit_code == 0
    events = [
        {"type": "track", "event": "Product Viewed", "messageId": f"m{n}", "userId": f"u{n % USERS}",
         "properties": {"product_id": "p1"}, "context": GRANTED}
        for n in range(100)
    ]  # fmt: skip
    (tmp_path / "events.jsonl").write_text("".join(json.dumps(one) + "\n" for one in events))
    done("load", tmp_path / "events.jsonl", "--as", "events", "--source", "backend", "--project", tmp_path / "shop")  # fmt: skip
    return tmp_path / "shop"


@contextmanager
def killed_at(*command: object) -> Iterator[Any]:
    """Give what runs a command in a fork, killed at its n-th step; it says whether it was."""
    program = Path(__file__).with_name("killed_at.py")
    with subprocess.Popen(
        [sys.executable, str(program), *map(str, command)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None
        stdin, stdout = process.stdin, process.stdout

        def kill(point: int) -> bool:
            stdin.write(f"{point}\n")
            stdin.flush()
            said = stdout.readline().strip()
            assert said in ("killed", "0"), said
            return said == "killed"

        yield kill
        stdin.close()


@pytest.mark.timeout(300)
def test_a_backup_killed_anywhere_is_none_and_harms_nothing(shop: Path) -> None:
    place = shop.parent / "b"
    points = 0
    with killed_at("backup", place, "--project", shop) as kill:
        while kill(points + 1):
            points += 1
            assert points < POINTS_MAX
            if place.exists():
                # Killed after the last rename, while what was beside it was cleared away.
                assert USERS == done("backup", place, "--verify")["leaves_refolded"]
                shutil.rmtree(place)
    assert points > 15
    assert USERS == done("backup", place, "--verify")["leaves_refolded"]
    assert run("doctor", "--project", shop).exit_code == 0
    replayed = done("replay", "--project", shop)
    assert (USERS, 0) == (replayed["leaves_equal"], replayed["leaves_different"])
    assert {"b", "shop", "events.jsonl"} == {path.name for path in shop.parent.iterdir()}


@pytest.mark.timeout(300)
def test_a_restore_killed_anywhere_is_refused_until_it_is_whole(shop: Path) -> None:
    place, new = shop.parent / "b", shop.parent / "new"
    done("backup", place, "--project", shop)
    states: list[bool] = []
    with killed_at("restore", place, "--project", new) as kill:
        while kill(len(states) + 1):
            states.append(is_whole(new))
            assert len(states) < POINTS_MAX
            if not states[-1]:
                # The same again goes on from there, and is killed again.
                kill(1 + 7 * len(states) % 29)
            assert states[-1] <= is_whole(new)
            shutil.rmtree(new, ignore_errors=True)
    # Whole from one step on, after which only what was left is cleared away.
    assert states == sorted(states)
    assert states.count(False) > 30
    assert is_whole(new)


def is_whole(project: Path) -> bool:
    """Return whether a project opens with all its leaves; if not it is refused, and nothing is begun."""
    if not (project / "penstock.toml").exists():
        assert not (project / "data" / "log.db").exists()
        return False
    told = run("doctor", "--project", project)
    if "E243" in told.output:
        assert told.exit_code > 0
        assert "E243" in run("replay", "--project", project).output
        return False
    assert told.exit_code == 0, told.output
    # What the killed restore had unpacked is cleared away by whoever opens the data next.
    assert "there is no data yet" in told.output or not (project / ".scratch").exists()
    if "there is no data yet" in told.output:
        return False
    replayed = done("replay", "--project", project)
    assert (USERS, 0) == (replayed["leaves_equal"], replayed["leaves_different"])
    return True
