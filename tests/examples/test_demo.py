"""`make demo` as a whole: a real engine in a process of its own, and every promise it makes."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.slow
def test_the_demo_keeps_its_promises_and_ends_by_itself(tmp_path):
    folder = tmp_path / "demo"
    done = subprocess.run(
        [sys.executable, "-m", "examples.shop.demo", str(folder)], cwd=ROOT, capture_output=True,
        text=True, timeout=59, check=False,
    )  # fmt: skip
    assert 0 == done.returncode, done.stdout + done.stderr
    assert "BROKEN" not in done.stdout
    assert len(list((folder / "outbox").glob("*.eml"))) >= 200
    assert not (folder / "data" / "up.json").exists(), "the engine has ended"


def test_the_demo_leaves_a_folder_alone_that_it_did_not_make(tmp_path):
    kept = tmp_path / "letters.txt"
    kept.write_text("keep me")
    done = subprocess.run(
        [sys.executable, "-m", "examples.shop.demo", str(tmp_path)], cwd=ROOT, capture_output=True,
        text=True, timeout=30, check=False,
    )  # fmt: skip
    assert 2 == done.returncode
    assert "keep me" == kept.read_text()
