"""The tutorial as a newcomer runs it: its own commands, in its order, in a real shell."""

import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
PAGE = ROOT / "docs" / "tutorial" / "README.md"
BLOCK = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)
BIN = Path(sys.executable).parent


class Shell:
    """Runs blocks in a folder, with the project's keys in the environment and a port of its own."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder = folder
        self.port = port
        self.environ = os.environ | {"PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}

    def run(self, block: str) -> str:
        text = block.replace("127.0.0.1:8080", f"127.0.0.1:{self.port}")
        done = subprocess.run(
            ["sh", "-euc", text], cwd=self.folder, env=self.environ, capture_output=True, text=True,
            timeout=30, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"
        return done.stdout


@pytest.fixture
def blocks() -> Iterator[str]:
    return iter(BLOCK.findall(PAGE.read_text(encoding="utf-8")))


@pytest.mark.slow
def test_the_tutorial_works_as_it_is_written(blocks, tmp_path, free_port, program):
    program("curl")
    assert "make env\n. .venv/bin/activate\n" == next(blocks)
    shell = Shell(tmp_path, free_port)
    assert next(blocks) == "penstock init shop\ncd shop\n"
    shell.run("penstock init shop")
    shell.folder = tmp_path / "shop"
    assert "0 failed" in shell.run(next(blocks))
    assert "penstock up\n" == next(blocks)
    engine = subprocess.Popen(
        [BIN / "penstock", "up", "--port", str(shell.port)], cwd=shell.folder, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    assert engine.stdout is not None
    with engine.stdout:
        try:
            assert engine.stdout.readline().startswith("Penstock is up at ")
            walk(shell, blocks)
        finally:
            engine.terminate()
            said = engine.stdout.read()
            ended = engine.wait(timeout=20)
        assert 0 == ended, said


def walk(shell: Shell, blocks: Iterator[str]) -> None:
    settings = tomllib.loads((shell.folder / "penstock.toml").read_text())
    assert "export WEB_KEY=… SERVER_KEY=… READ_KEY=…\n" == next(blocks)
    shell.environ |= {
        "WEB_KEY": settings["sources"]["web"]["write_key"],
        "SERVER_KEY": settings["sources"]["backend"]["write_key"],
        "READ_KEY": settings["server"]["read_keys"][0],
    }
    assert "2 items loaded" in shell.run(next(blocks))
    view = next(blocks)
    for block in (view, view, view.replace("m-1", "m-3").replace("personalisation", "nothing")):
        assert json.loads(shell.run(block))["success"] is True
    device = json.loads(shell.run(next(blocks)))
    assert (["sku-1"], 1) == (device["features"]["viewed"], device["features"]["views_7d"])
    assert json.loads(shell.run(next(blocks)))["success"] is True
    person = json.loads(shell.run(next(blocks)))
    assert (["sku-1"], "Ann") == (person["features"]["viewed"], person["traits"]["first_name"])
    assert "1 sent" in shell.run(send := next(blocks))
    assert "1 sent before" in shell.run(send)
    why = shell.run(next(blocks))
    assert any(word in why for word in ("chosen           item:sku-1", "held out"))
    [letter] = (shell.folder / "outbox").glob("*.eml")
    assert b"To: ann@example.com" in letter.read_bytes()
    assert [] == list(blocks)
