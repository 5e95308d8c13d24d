"""Seeded histories of the fold: promises hold without bugs, and every planted bug is found."""

import pytest

from penstock.adapters.log.memory import MemoryLog
from penstock.adapters.store.memory import MemoryStore
from penstock.core.errors import Fenced
from penstock.core.feature.plan import Plan
from penstock.dsl.events import event, string
from penstock.dsl.features import Profile, compile_plan, count, days, last_k
from penstock.testing.simulation import Broken, Bug, Simulation

SEEDS = 300
SEEDS_TO_FIND = 1_000

viewed = event("Product Viewed", product_id=string(), category=string())


class Shopper(Profile):
    views_7d = count(viewed, over=days(7))
    recent = last_k(viewed.product_id, k=3, over=days(30))


@pytest.fixture(scope="module")
def plan() -> Plan:
    return compile_plan([Shopper])


def simulate(seed: int, plan: Plan, bug: Bug = Bug.NONE) -> Simulation:
    simulation = Simulation(seed, plan, MemoryLog, MemoryStore, bug)
    simulation.run()
    return simulation


def test_promises_hold_in_every_history(plan: Plan) -> None:
    crashes = sum(simulate(seed, plan).crashes for seed in range(SEEDS))

    assert crashes > SEEDS  # histories without crashes would prove little


@pytest.mark.parametrize(
    "bug", [bug for bug in Bug if bug is not Bug.NONE], ids=lambda bug: bug.name
)
def test_a_planted_bug_is_found(bug: Bug, plan: Plan) -> None:
    found = next((what for seed in range(SEEDS_TO_FIND) if (what := symptom(seed, plan, bug))), "")

    assert found, f"{bug.value}: not found in {SEEDS_TO_FIND} seeds"
    assert found.startswith("E601" if bug is Bug.CACHE_OVER_GAP else "seed=")


def symptom(seed: int, plan: Plan, bug: Bug) -> str:
    """Return how a bug shows in a history: a broken promise, or base-and-new refusing it in time."""
    try:
        simulate(seed, plan, bug)
    except (Broken, Fenced) as broken:
        return str(broken)
    return ""
