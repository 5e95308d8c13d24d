"""The tutorial, word by word: its shell blocks run in a fresh folder, and do what it says."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

TUTORIAL = Path(__file__).parents[2] / "docs" / "tutorial" / "README.md"
BLOCK = re.compile(r"```sh\n(.*?)```", re.DOTALL)


@pytest.fixture
def path(tmp_path: Path) -> str:
    """A PATH with `penstock` on it, whatever environment the tests run in."""
    tools = tmp_path / "bin"
    tools.mkdir()
    script = tools / "penstock"
    script.write_text(
        f'#!/bin/sh\nexec "{sys.executable}" -c "from penstock.cli.main import main; main()" "$@"\n'
    )
    script.chmod(0o755)
    return f"{tools}{os.pathsep}{os.environ['PATH']}"


def test_the_tutorial_does_what_it_says(tmp_path: Path, path: str) -> None:
    environment = {**os.environ, "PATH": path, "PYTHONUNBUFFERED": "1"}
    blocks = BLOCK.findall(TUTORIAL.read_text())
    made = [block for block in blocks[:2] if "penstock up" not in block]
    subprocess.run(["sh", "-ec", "\n".join(made)], cwd=tmp_path, env=environment, check=True)
    folder = tmp_path / "shop"
    up = subprocess.Popen(
        [str(tmp_path / "bin" / "penstock"), "up", "--port", "0"], cwd=folder, env=environment,
        stdout=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    try:
        assert up.stdout is not None
        url = next(line.split()[-1] for line in up.stdout if line.startswith("Penstock is up at "))
        rest = [block for block in blocks[2:] if block.strip() != "penstock up"]
        script = "\n".join(rest).replace("http://127.0.0.1:8080", url)
        done = subprocess.run(
            ["sh", "-ec", script],
            cwd=folder,
            env=environment,
            check=True,
            capture_output=True,
            text=True,
        )
    finally:
        os.killpg(up.pid, signal.SIGTERM)
        up.wait(20)
        assert up.stdout is not None
        up.stdout.close()

    assert '{"success":true,"accepted":2}' in done.stdout
    assert '"views_7d":1' in done.stdout
    assert "1 items loaded" in done.stdout
    assert "Product Viewed sku-1" in done.stdout
    email = (folder / "email.html").read_text()
    assert "Unsubscribe" in email
    assert "Red shoe" in email or "New this week" in email  # one in twenty is held out
