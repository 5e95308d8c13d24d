"""Whatever is killed, stalled, cut, filled or set wrong on a cluster: nothing is lost, doubled, or served older than said."""

import os
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from harness import Figures, Harness

from tests.conftest import missing
from tools.services.kafka import SERVICE as KAFKA
from tools.services.redis import SERVICE as REDIS

pytestmark = pytest.mark.service

MakeHarness = Callable[..., Harness]

FIGURES = Path(__file__).parents[2] / ".cache" / "faults.txt"
"""What every run measured: docs/concepts/guarantees.md quotes the newest."""

ROUNDS = int(os.environ.get("PENSTOCK_FAULT_ROUNDS", "40"))
SEEDS = [int(one) for one in os.environ.get("PENSTOCK_FAULT_SEEDS", "11,12,13").split(",")]


@pytest.fixture
def make_harness(tmp_path: Path) -> Iterator[MakeHarness]:
    if lacks := KAFKA.missing() or REDIS.missing():
        missing(lacks)
    made: list[Harness] = []

    def make(seed: int, **how) -> Harness:
        made.append(Harness(tmp_path, seed, **how))
        return made[-1]

    yield make
    for one in made:
        one.close()


def shown(figures: Figures) -> None:
    """Print what a run measured, and keep it."""
    line = f"{datetime.now(UTC):%Y-%m-%d} {figures.lines()}"
    print("\n" + line)
    FIGURES.parent.mkdir(exist_ok=True)
    with FIGURES.open("a") as file:
        file.write(line + "\n")


@pytest.mark.timeout(600)
def test_a_few_faults_at_once_lose_nothing_and_double_nothing(make_harness: MakeHarness) -> None:
    harness = make_harness(1)
    with harness.loaded():
        harness.round(["kill worker", "append copies", "fail over", "pause leader"])
        harness.round(["kill collector"])
    shown(harness.judge())


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_every_fault_by_itself_loses_nothing_and_doubles_nothing(make_harness: MakeHarness) -> None:
    harness = make_harness(2, disk=True)
    menu = harness.menu()
    harness.dice.shuffle(menu)
    with harness.loaded():
        for one in menu:
            harness.round([one], hold_s=2)
    shown(harness.judge())


@pytest.mark.faults
@pytest.mark.parametrize("seed", SEEDS)
def test_faults_drawn_from_a_seed_lose_nothing_and_double_nothing(make_harness: MakeHarness, seed: int) -> None:  # fmt: skip
    harness = make_harness(seed, disk=True)
    with harness.loaded():
        for _ in range(ROUNDS):
            harness.round(harness.draw(3), hold_s=6)
    shown(harness.judge())
