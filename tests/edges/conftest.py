"""The example shop as a real process, for tests that ask it over a socket."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def shop_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where a fresh example shop listens, as `make up` starts it."""
    folder = tmp_path_factory.mktemp("shop") / "shop"
    shutil.copytree(
        ROOT / "examples" / "shop", folder, ignore=shutil.ignore_patterns("data", "outbox")
    )
    process = subprocess.Popen(
        [sys.executable, "-c", "from penstock.cli.main import main; main()", "up", str(folder), "--port", "0"],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )  # fmt: skip
    assert process.stdout is not None
    said = []
    for line in process.stdout:
        said.append(line)
        if line.startswith("Penstock is up at "):
            break
    else:
        raise AssertionError("it never came up: " + "".join(said))
    yield said[-1].split()[-1]
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=20)
