"""What the files of deploy/ are checked with: Helm's and Compose's own libraries, and linters."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import ROOT, missing

CHARTS = ROOT / ".cache" / "deploy" / "charts"
LINTERS = ROOT / ".cache" / "deploy" / "linters"

Run = Callable[..., subprocess.CompletedProcess[str]]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark them all: they are of `make check-deploy`, which has the tools made."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker("deploy")


@pytest.fixture(scope="session")
def charts() -> Run:
    """Run what links Helm's and Compose's own libraries: `charts("chart", FOLDER)`."""
    if not CHARTS.exists():
        missing("the checker of charts is not there", fix="install Go, then make check-deploy")
    return lambda *args: subprocess.run(
        [CHARTS, *map(str, args)], capture_output=True, text=True, timeout=60, check=False
    )


@pytest.fixture(scope="session")
def lint() -> Run:
    """Run a linter: `lint("hadolint", FILE)`, or a module: `lint("-m", "kubernetes_validate", …)`."""
    if not LINTERS.is_dir():
        missing("the linters of deploy/ are not there", fix="make check-deploy")
    environ = {**os.environ, "PYTHONPATH": str(LINTERS)}

    def run(program: str, *args: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m"] if program == "-m" else [LINTERS / "bin" / program]
        return subprocess.run(
            [*command, *map(str, args)], capture_output=True, text=True, timeout=120, check=False, env=environ
        )  # fmt: skip

    return run
