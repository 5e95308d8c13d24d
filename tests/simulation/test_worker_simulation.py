"""Seeded histories of several workers: promises hold without bugs, and every planted bug is found."""

import pytest

from penstock.adapters.log.memory import MemoryLog
from penstock.adapters.store.memory import MemoryStore
from penstock.adapters.suppressions.memory import MemorySuppressions
from penstock.core.feature.plan import Plan
from penstock.dsl.events import event, string
from penstock.dsl.features import Profile, compile_plan, count, days, last_k
from penstock.testing.clock import HandClock
from penstock.testing.losing_store import LosingStore
from penstock.testing.worker_bugs import OF_A_SERVER, OF_GENERATIONS, WorkerBug
from penstock.testing.worker_simulation import Broken, WorkerSimulation, WorkerStory, shortest

SEEDS = 300
SEEDS_LOSING = 200
SEEDS_TO_FIND = 600
SLOW_HISTORIES = 10_000
START_MS = 1_795_000_000_000

viewed = event("Product Viewed", product_id=string())


class Shopper(Profile):
    views_7d = count(viewed, over=days(7))
    recent = last_k(viewed.product_id, k=3, over=days(30))


@pytest.fixture(scope="module")
def plan() -> Plan:
    return compile_plan([Shopper])


def play(
    seed: int, plan: Plan, bug: WorkerBug = WorkerBug.NONE, acts: int = 120,
    store: type[MemoryStore] = MemoryStore, *, opens: bool = False,
) -> WorkerStory:  # fmt: skip
    clock = HandClock(START_MS)
    log = MemoryLog(clock, partitions=3)
    simulation = WorkerSimulation(
        seed, plan, log=log, store=store(), suppressions=MemorySuppressions(), clock=clock, bug=bug,
        open_generation=log.open_generation if opens else None,
    )  # fmt: skip
    return simulation.run(acts)


@pytest.mark.timeout(300)
def test_promises_hold_in_every_history(plan: Plan) -> None:
    stories = [play(seed, plan) for seed in range(SEEDS)]

    # Histories without events, deaths, stalls, moves and refusals would prove little.
    assert sum(story.events for story in stories) > 50 * SEEDS
    assert sum(story.deaths for story in stories) > SEEDS
    assert sum(story.stalls for story in stories) > SEEDS
    assert sum(story.moved for story in stories) > 2 * SEEDS
    assert sum(story.refused for story in stories) > SEEDS // 10


@pytest.mark.timeout(300)
def test_promises_hold_over_a_server_that_loses_what_it_had_acknowledged(plan: Plan) -> None:
    stories = [play(seed, plan, store=LosingStore) for seed in range(SEEDS_LOSING)]

    assert sum(story.losses for story in stories) > 2 * SEEDS_LOSING
    assert sum(story.deaths for story in stories) > SEEDS_LOSING
    assert sum(story.moved for story in stories) > 2 * SEEDS_LOSING


@pytest.mark.timeout(300)
def test_promises_hold_while_the_log_gets_other_generations(plan: Plan) -> None:
    stories = [
        play(seed, plan, store=LosingStore if seed % 2 else MemoryStore, opens=True)
        for seed in range(SEEDS_LOSING)
    ]

    assert sum(story.opened for story in stories) > SEEDS_LOSING
    assert sum(story.late for story in stories) > SEEDS_LOSING
    assert sum(story.deaths for story in stories) > SEEDS_LOSING


def test_a_seed_is_a_history(plan: Plan) -> None:
    assert play(7, plan) == play(7, plan)


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    "bug", [bug for bug in WorkerBug if bug is not WorkerBug.NONE], ids=lambda bug: bug.name
)
def test_a_planted_bug_is_found(bug: WorkerBug, plan: Plan) -> None:
    found = any(breaks(seed, plan, bug) for seed in range(SEEDS_TO_FIND))
    assert found, f"{bug.value}: not found in {SEEDS_TO_FIND} seeds"


def breaks(seed: int, plan: Plan, bug: WorkerBug) -> bool:
    try:
        play(
            seed, plan, bug, store=LosingStore if bug in OF_A_SERVER else MemoryStore,
            opens=bug in OF_GENERATIONS,
        )  # fmt: skip
    except Broken:
        return True
    return False


def test_the_shortest_history_that_breaks_is_shown(plan: Plan) -> None:
    def runs(seed: int, acts: int) -> WorkerStory:
        return play(seed, plan, WorkerBug.LINK_AFTER_LEAF, acts)

    assert shortest(runs, range(100)).startswith("acts=")


@pytest.mark.slow
@pytest.mark.timeout(1_800)
def test_promises_hold_in_thousands_of_histories(plan: Plan) -> None:
    for seed in range(SEEDS, SEEDS + SLOW_HISTORIES):
        play(seed, plan, store=LosingStore if seed % 2 else MemoryStore, opens=seed % 3 == 0)
