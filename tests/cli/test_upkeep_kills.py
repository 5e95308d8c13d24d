"""kill -9 at every step of archiving and truncation: each segment is there once and whole, and nothing is lost."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from penstock.adapters.clock import SystemClock
from penstock.adapters.log.sqlite import SqliteLog
from penstock.cli.main import main
from penstock.core import segment

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

SIZE = 16
EVENTS = 120
POINTS_MAX = 400
GRANTED = {"consent": {"categoryPreferences": {"personalisation": True}}}


@pytest.fixture(autouse=True)
def _short_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segment, "SEGMENT_RECORDS", SIZE)


def done(*args: object) -> Any:
    result = CliRunner().invoke(main, [*map(str, args), "--json"])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """A shop of so many events in batches of 5; what comes of them is neither archived nor truncated."""
    shop = tmp_path / "shop"
    CliRunner().invoke(main, ["init", str(shop)])
    for first in range(0, EVENTS, 5):
        events = tmp_path / "events.jsonl"
        events.write_text("".join(
            json.dumps({"type": "track", "event": "Product Viewed", "messageId": f"m{n}", "userId": f"u{n % 9}",
                        "properties": {"product_id": "p1"}, "context": GRANTED}) + "\n"
            for n in range(first, first + 5)
        ))  # fmt: skip
        done("load", events, "--as", "events", "--source", "backend", "--project", shop)
    return shop


def settings(shop: Path, text: str) -> None:
    with (shop / "penstock.toml").open("a") as toml:
        toml.write(text)


@contextmanager
def killed_at(shop: Path, days: int) -> Iterator[Any]:
    """Give what lets a node keep up in a fork, killed at its n-th step; it says by which signal, 0 if by none."""
    program = Path(__file__).with_name("upkeep_killed_at.py")
    with subprocess.Popen(
        [sys.executable, str(program), str(shop), str(SIZE), str(days)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None
        stdin, stdout = process.stdin, process.stdout

        def kill(point: int) -> int:
            stdin.write(f"{point}\n")
            stdin.flush()
            said = stdout.readline().split()
            assert said == ["0"] or said[0] == "killed", said
            return int(said[-1])

        yield kill
        stdin.close()


def kill_everywhere(shop: Path, days: int) -> list[int]:
    """Kill a node at a later and later step, from where the last one left off, until one ends by itself."""
    signals: list[int] = []
    with killed_at(shop, days) as kill:
        while ended := kill(len(signals) + 1):
            signals.append(ended)
            assert len(signals) < POINTS_MAX
    return signals


def head_of(shop: Path) -> int:
    with closing(SqliteLog(shop / "data" / "log.db", SystemClock(), read_only=True)) as log:
        return log.head(0)


def assert_each_segment_is_there_once(shop: Path) -> None:
    told = done("archive", "--verify", "--project", shop)
    assert [] == told["damaged"]
    spans = sorted(path.name.rpartition("-")[0] for path in (shop / "archive").rglob("*.seg"))
    assert [f"{first:014}-{first + SIZE:014}" for first in range(0, head_of(shop) - SIZE + 1, SIZE)] == spans  # fmt: skip
    for path in (shop / "archive").rglob(
        ".*"
    ):  # killed once it was whole: a second name of the same bytes
        assert path.samefile(path.with_name(path.name[1:].removesuffix(".part")))


def test_archiving_killed_anywhere_has_each_segment_once_and_whole(shop: Path) -> None:
    settings(shop, '\n[archive]\nplace = "archive"\n')
    signals = kill_everywhere(shop, 0)
    assert signals.count(signal.SIGXFSZ) > 0  # in the middle of the bytes of a segment
    assert signals.count(signal.SIGKILL) > 15
    assert_each_segment_is_there_once(shop)
    assert 0 == done("replay", "--project", shop)["leaves_different"]


def test_archiving_killed_in_the_middle_of_each_segment_goes_on(shop: Path) -> None:
    """Each start is killed in the bytes of the segment that it would write; what is half there is never taken."""
    settings(shop, '\n[archive]\nplace = "archive"\n')
    with killed_at(shop, 0) as kill:
        halves = 0
        for point in range(1, POINTS_MAX):
            shutil.rmtree(shop / "archive", ignore_errors=True)
            ended = kill(point)
            if not ended:
                break
            if ended == signal.SIGXFSZ:
                halves += 1
                assert [] == done("archive", "--verify", "--project", shop)["damaged"]
                assert 0 == kill(POINTS_MAX * 10)
                assert_each_segment_is_there_once(shop)
    assert halves >= head_of(shop) // SIZE


@pytest.mark.parametrize("where", ["archive", "nowhere"])
def test_truncation_killed_anywhere_loses_nothing(shop: Path, where: str) -> None:
    settings(shop, '\n[archive]\nplace = "archive"\n' if where == "archive" else "")
    settings(shop, f'\n[log]\nkeep = "90d"\nforget = {"false" if where == "archive" else "true"}\n')
    before = done("export", shop.parent / "before.parquet", "--project", shop)
    signals = kill_everywhere(shop, 100)
    assert signals.count(signal.SIGKILL) > 10
    if where == "archive":
        assert_each_segment_is_there_once(shop)
    with closing(SqliteLog(shop / "data" / "log.db", SystemClock(), read_only=True)) as log:
        assert log.truncation(0).end == log.head(0) // SIZE * SIZE
        assert 0 < log.first(0) <= log.truncation(0).end
    replayed = done("replay", "--project", shop)
    assert (True, 0) == (replayed["switched"], replayed["leaves_different"])
    assert [] == [one for one in done("doctor", "--project", shop) if one["state"] != "ok"]
    after = done("export", shop.parent / "after.parquet", "--project", shop)
    assert before["people"] == after["people"]
