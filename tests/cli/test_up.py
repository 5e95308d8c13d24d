"""`penstock up` as a real process: it listens, drains on SIGTERM, survives kill -9, owns its folder."""

from __future__ import annotations

import base64
import json
import os
import signal
import socket
import subprocess
import sys
import tomllib
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from penstock.cli.main import main

GRANTED = {"consent": {"categoryPreferences": {"personalisation": True}}}


class Up:
    """A running `penstock up`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.said: list[str] = []
        self.process = subprocess.Popen(
            [sys.executable, "-c", "from penstock.cli.main import main; main()", "up", str(folder), "--port", "0"],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )  # fmt: skip
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.said.append(line)
            if line.startswith("Penstock is up at "):
                self.url = line.split()[-1]
                break
        else:
            raise AssertionError("it never came up: " + "".join(self.said))

    def wait_for(self, text: str) -> str:
        """Read on until it says a text, and return that line."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.said.append(line)
            if text in line:
                return line
        raise AssertionError("it never said so: " + "".join(self.said))

    def call(self, path: str, body: Any = None, **headers: str) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, headers)
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.loads(answer.read())

    def send(self, *events: dict[str, Any]) -> Any:
        key = settings(self.folder)["sources"]["backend"]["write_key"]
        token = base64.b64encode(f"{key}:".encode()).decode()
        batch = [{"context": GRANTED, **event} for event in events]
        return self.call("/v1/batch", {"batch": batch}, Authorization=f"Basic {token}")

    def profile(self, user: str) -> Any:
        key = settings(self.folder)["server"]["read_keys"][0]
        return self.call(f"/v1/profiles/user_id:{user}", Authorization=f"Bearer {key}")

    def end(self, number: int) -> int:
        self.process.send_signal(number)
        code = self.process.wait(20)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return code


def settings(folder: Path) -> dict[str, Any]:
    return tomllib.loads((folder / "penstock.toml").read_text())


def view(number: int) -> dict[str, Any]:
    return {"type": "track", "event": "Product Viewed", "messageId": f"m{number}", "userId": "u1",
            "properties": {"product_id": f"p{number}"}}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    result = CliRunner().invoke(main, ["init", str(tmp_path / "shop")])
    assert result.exit_code == 0, result.output
    return tmp_path / "shop"


@pytest.fixture
def ups(folder: Path) -> Iterator[list[Up]]:
    started: list[Up] = []
    yield started
    for up in started:
        if up.process.poll() is None:
            up.end(signal.SIGKILL)


def test_it_drains_on_sigterm_and_goes_on_where_it_was(folder: Path, ups: list[Up]) -> None:
    ups.append(Up(folder))
    ups[0].send(view(1), view(2))
    said = json.loads((folder / "data" / "up.json").read_text())
    assert (said["url"], said["pid"]) == (ups[0].url, ups[0].process.pid)

    assert ups[0].end(signal.SIGTERM) == 0
    assert not (folder / "data" / "up.json").exists()

    ups.append(Up(folder))
    assert ups[1].profile("u1")["features"]["views_7d"] == 2


def test_what_it_acknowledged_survives_kill_9(folder: Path, ups: list[Up]) -> None:
    ups.append(Up(folder))
    for number in range(20):
        assert ups[0].send(view(number))["accepted"] == 1
    ups[0].end(signal.SIGKILL)

    ups.append(Up(folder))
    assert ups[1].profile("u1")["features"]["views_7d"] == 20


def test_files_in_mid_edit_hinder_nobody_who_asks_the_running_engine(
    folder: Path, ups: list[Up]
) -> None:
    ups.append(Up(folder))
    ups[0].send(view(1))
    (folder / "slots.py").write_text("hero = slot(\n")

    for command in (
        ["send", "welcome", "--send", "s1", "--dry-run"],
        ["explain", "user_id:u1", "--campaign", "welcome"],
        ["versions"],
        ["dead-letters", "list"],
        ["top", "--once"],
    ):
        result = CliRunner().invoke(main, [*command, "--project", str(folder)])
        assert result.exit_code == 0, (command, result.output)
        assert "E181" not in result.output
    assert ups[0].profile("u1")["features"]["views_7d"] == 1


def test_a_second_process_is_told_who_owns_the_folder(folder: Path, ups: list[Up]) -> None:
    ups.append(Up(folder))

    # On the same port too, which is what happens: not the port is the reason.
    for port in ("0", ups[0].url.rpartition(":")[2]):
        result = CliRunner().invoke(main, ["up", str(folder), "--port", port])
        assert result.exit_code == 69
        assert "E407" in result.output
        assert "stop the other `penstock up`" in result.output
    assert ups[0].call("/ready")["ok"] is True


def test_a_port_that_is_taken_is_an_error_with_its_fix(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        result = CliRunner().invoke(
            main, ["up", str(folder), "--port", str(taken.getsockname()[1])]
        )

    assert result.exit_code == 3
    assert "E210" in result.output
    assert "--port" in result.output


def test_what_a_killed_process_left_behind_misleads_nobody(folder: Path, ups: list[Up]) -> None:
    ups.append(Up(folder))
    ups[0].send(view(1))
    ups[0].end(signal.SIGKILL)
    assert (folder / "data" / "up.json").exists()

    result = CliRunner().invoke(main, ["doctor", "--project", str(folder)])

    assert result.exit_code == 0, result.output
    assert "conserved: 1 accepted" in result.output


def test_commands_ask_the_process_that_runs_for_everything(folder: Path, ups: list[Up]) -> None:
    ups.append(Up(folder))
    (folder / "items.csv").write_text("item_id,title,url\np1,Shoe,https://shop.example/p1\n")
    ups[0].send(view(1))
    commands = [
        ["load", str(folder / "items.csv"), "--as", "items"],
        ["explain", "user_id:u1", "--campaign", "welcome"],
        ["dead-letters", "list"],
        ["dead-letters", "replay"],
        ["doctor"],
    ]

    codes = [
        CliRunner().invoke(main, [*one, "--project", str(folder)]).exit_code for one in commands
    ]
    replay = CliRunner().invoke(main, ["replay", "--project", str(folder)])

    assert codes == [0] * len(commands)
    # The store is rebuilt by whoever owns it.
    assert (replay.exit_code, "E407" in replay.output) == (69, True)


def test_a_key_that_is_not_the_running_one_is_refused(folder: Path, ups: list[Up]) -> None:
    ups.append(Up(folder))
    toml = folder / "penstock.toml"
    toml.write_text(toml.read_text().replace('admin_key = "', 'admin_key = "other-'))

    result = CliRunner().invoke(main, ["dead-letters", "list", "--project", str(folder)])

    assert result.exit_code == 1
    assert "E379" in result.output


def test_commands_ask_the_process_that_runs(folder: Path, ups: list[Up]) -> None:
    ups.append(Up(folder))
    ups[0].send({"type": "identify", "messageId": "i1", "userId": "u1", "traits": {"email": "ann@example.com"}},
                view(1))  # fmt: skip

    sent = CliRunner().invoke(main, ["send", "welcome", "--project", str(folder), "--json"])
    report = json.loads(sent.stdout)

    assert report["seen"] == 1
    assert sum(report["outcomes"].values()) == 1
    assert len(list((folder / "outbox").glob("*.eml"))) == report["outcomes"].get("accepted", 0)


def test_changed_definitions_are_built_beside_and_it_says_so(folder: Path, ups: list[Up]) -> None:
    ups.append(Up(folder))
    ups[0].send(view(1), view(2))
    ups[0].end(signal.SIGTERM)
    features = folder / "features.py"
    features.write_text(
        features.read_text() + "    views_ever = count(product_viewed, over=lifetime())\n"
    )

    ups.append(Up(folder))  # it listens at once, whatever is being built

    assert any("built beside definitions 1" in line for line in ups[1].said)
    assert ups[1].profile("u1")["features"]["views_7d"] == 2
    ups[1].wait_for("Definitions 2 serve now")
    profile = ups[1].profile("u1")
    assert (profile["features"]["views_ever"], profile["served"]) == (2, "live")


def test_in_production_changed_files_wait_for_apply(folder: Path, ups: list[Up]) -> None:
    toml = folder / "penstock.toml"
    toml.write_text(toml.read_text() + '\n[definitions]\napply = "command"\n')
    ups.append(Up(folder))
    ups[0].send(view(1), view(2))
    features = folder / "features.py"
    features.write_text(
        features.read_text() + "    views_ever = count(product_viewed, over=lifetime())\n"
    )
    ups[0].end(signal.SIGTERM)
    ups.append(Up(folder))
    assert any("penstock apply" in line for line in ups[1].said)
    assert "views_ever" not in ups[1].profile("u1")["features"]

    # The process that runs does it, while it goes on to take events.
    result = CliRunner().invoke(main, ["apply", "--project", str(folder), "--json"])
    ups[1].send(view(3))

    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["state"] == "active"
    assert ups[1].profile("u1")["features"]["views_ever"] == 3

    back = CliRunner().invoke(main, ["rollback", "--project", str(folder), "--json"])
    assert json.loads(back.stdout)["active"] == 1
    assert "views_ever" not in ups[1].profile("u1")["features"]
    assert ups[1].profile("u1")["features"]["views_7d"] == 3


def test_a_store_that_is_gone_is_built_from_the_log_and_it_says_so(
    folder: Path, ups: list[Up]
) -> None:
    ups.append(Up(folder))
    ups[0].send(view(1), view(2))
    ups[0].end(signal.SIGTERM)
    (folder / "data" / "store.db").unlink()

    ups.append(Up(folder))

    assert any(line.startswith("The store is empty: replaying the log") for line in ups[1].said)
    profile = ups[1].profile("u1")
    assert (profile["features"]["views_7d"], profile["served"]) == (2, "live")


def test_top_shows_what_the_running_engine_counts(folder: Path, ups: list[Up]) -> None:
    up = Up(folder)
    ups.append(up)
    up.send(
        {
            "type": "track",
            "event": "Product Viewed",
            "userId": "u-1",
            "properties": {"product_id": "p-1"},
        }
    )
    result = CliRunner().invoke(
        main, ["top", "--project", str(up.folder), "--json", "--every", "0.1"]
    )
    assert 0 == result.exit_code
    seen = json.loads(result.output)
    assert 0 == seen["unaccounted"]
    assert 0 == seen["lag_records"]


def test_top_without_an_engine_says_how_to_start_one(folder: Path) -> None:
    result = CliRunner().invoke(main, ["top", "--project", str(folder), "--once"])
    assert 0 != result.exit_code
    assert "penstock up" in result.stderr


CALLS, EVENTS = 12, 500


@pytest.mark.slow
@pytest.mark.parametrize("state", ["building", "checking", "active"])
def test_killed_while_it_applies_it_goes_on_and_every_byte_is_right(
    folder: Path, ups: list[Up], state: str
) -> None:
    toml = folder / "penstock.toml"
    toml.write_text(toml.read_text() + '\n[definitions]\napply = "command"\n')
    ups.append(Up(folder))
    for call in range(CALLS):
        ups[0].send(*(view(call * EVENTS + number) for number in range(EVENTS)))
    features = folder / "features.py"
    features.write_text(
        features.read_text() + "    views_ever = count(product_viewed, over=lifetime())\n"
    )

    killed_at(ups[0], folder, state)
    ups.append(Up(folder))  # what served before serves, or what had begun to
    ups[1].send(view(999_999))
    applied = CliRunner().invoke(main, ["apply", "--project", str(folder), "--json"])

    assert applied.exit_code == 0, applied.output
    assert json.loads(applied.stdout)["number"] == 2
    profile = ups[1].profile("u1")["features"]
    assert (profile["views_ever"], profile["views_7d"]) == (CALLS * EVENTS + 1,) * 2
    assert ups[1].end(signal.SIGTERM) == 0
    replayed = CliRunner().invoke(main, ["replay", "--project", str(folder), "--json"])
    assert replayed.exit_code == 0, replayed.output
    assert json.loads(replayed.stdout)["leaves_different"] == 0


def killed_at(up: Up, folder: Path, state: str) -> None:
    """Apply, and kill the process as soon as it says that it has come to a state."""
    key = settings(folder)["server"]["admin_key"]
    request = urllib.request.Request(
        f"{up.url}/v1/admin/definitions/apply", b"{}",
        {"Authorization": f"Bearer {key}", "Content-Type": "application/json"},
    )  # fmt: skip
    with urllib.request.urlopen(request, timeout=30) as answer:
        for line in answer:
            report = json.loads(line)
            if report["state"] == state or report["done"]:
                break
        up.end(signal.SIGKILL)
