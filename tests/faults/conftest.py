"""Fixtures of the fault tests; the shop and its load are in `fault_shop.py` beside this file."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from fault_shop import Shop


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    started = Shop(tmp_path)
    yield started
    if started.process is not None:
        started.process.kill()
        started.reap()
