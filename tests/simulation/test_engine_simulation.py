"""Seeded histories of the whole engine: promises hold without bugs, and every planted bug is found."""

import os
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest

from penstock.project import Project, load_project
from penstock.testing.engine_simulation import Broken, EngineSimulation, Story, shortest
from penstock.testing.faulty_disks import Planted

SEEDS = 800
SEEDS_TO_FIND = 1_000
SLOW_HISTORIES = 8_000
HISTORIES = 100_000
CHUNK = 500

FILES = {
    "penstock.toml": """
        [sources.backend]
        kind = "server"
        write_key = "simulated"
        """,
    "events.py": """
        from penstock.dsl.segment import consent_preference_updated, product_viewed, unsubscribed
        """,
    "features.py": """
        from events import product_viewed
        from penstock.dsl.features import Profile, count, days, last_k, lifetime

        class Shopper(Profile):
            seen = last_k(product_viewed.product_id, k=50, over=days(365))
            views = count(product_viewed, over=lifetime())
        """,
    "slots.py": """
        from penstock.dsl.slots import slot, viewed_not_bought

        hero = slot(
            "hero",
            candidates=[viewed_not_bought(viewed="seen", bought="seen")],
            fallback={"title": "New", "url": "https://shop.example/new"},
        )
        """,
    "campaigns/offers.toml": 'slots = ["hero"]\nsubject = "Offers"\n',
    "content/hero.liquid": "{{ item.title }}",
}
CHANGE = "\n    week = count(product_viewed, over=days(7))\n"


def write(folder: Path, *, changed: bool) -> Path:
    for name, text in FILES.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = [line.removeprefix(" " * 8) for line in text.strip("\n").splitlines()]
        more = CHANGE if changed and name == "features.py" else ""
        path.write_text("\n".join(lines).rstrip() + "\n" + more, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("simulated")
    return write(root / "before", changed=False), write(root / "after", changed=True)


@pytest.fixture(scope="module")
def projects(folders: tuple[Path, Path]) -> tuple[Project, Project]:
    return load_project(folders[0]), load_project(folders[1])


@pytest.mark.timeout(300)  # twenty seconds of work, on a machine that may be busy
def test_promises_hold_in_every_history(projects: tuple[Project, Project]) -> None:
    stories = [EngineSimulation(seed, *projects).run() for seed in range(SEEDS)]

    # Histories without events, deaths, reads and decisions would prove nothing.
    assert sum(story.events for story in stories) > 10 * SEEDS
    assert sum(story.deaths for story in stories) > SEEDS
    assert sum(story.reads for story in stories) > 10 * SEEDS
    assert sum(story.decisions for story in stories) > 5 * SEEDS


@pytest.mark.parametrize("seed", [22_155], ids=["withdrawn late, granted before it was folded"])
def test_a_history_that_broke_once_holds(seed: int, projects: tuple[Project, Project]) -> None:
    assert EngineSimulation(seed, *projects).run().reads


def test_a_seed_is_a_history(projects: tuple[Project, Project]) -> None:
    first, again = (EngineSimulation(7, *projects) for _ in range(2))
    assert first.run() == again.run()
    assert first.trace == again.trace


@pytest.mark.parametrize(
    "planted", [one for one in Planted if one is not Planted.NONE], ids=lambda one: one.name
)
def test_a_planted_bug_is_found(planted: Planted, projects: tuple[Project, Project]) -> None:
    found = any(breaks(seed, projects, planted) for seed in range(SEEDS_TO_FIND))
    assert found, f"{planted.value}: not found in {SEEDS_TO_FIND} seeds"


def breaks(seed: int, projects: tuple[Project, Project], planted: Planted) -> bool:
    try:
        EngineSimulation(seed, *projects, planted).run()
    except Broken:
        return True
    return False


def test_the_shortest_history_that_breaks_is_shown(projects: tuple[Project, Project]) -> None:
    shown = shortest(*projects, Planted.APPEND_LOSES_TAIL, seeds=range(100))
    assert shown.startswith("lasts_s=")
    assert len(shown.splitlines()) <= 12, "a person reads it at a glance"


@pytest.mark.slow
@pytest.mark.timeout(1_800)
def test_promises_hold_in_thousands_of_histories(folders: tuple[Path, Path]) -> None:
    play_many(folders, SLOW_HISTORIES)


@pytest.mark.faults
@pytest.mark.timeout(7_200)
def test_promises_hold_in_a_hundred_thousand_histories(folders: tuple[Path, Path]) -> None:
    play_many(folders, HISTORIES)


def play_many(folders: tuple[Path, Path], histories: int) -> None:
    starts = range(SEEDS, SEEDS + histories, CHUNK)
    # Not forked: a child would end clients of Kafka that other tests of this process have made.
    with ProcessPoolExecutor(os.cpu_count(), get_context("spawn")) as pool:
        stories = list(pool.map(play, [folders] * len(starts), starts))
    deaths = sum(one.deaths for one in stories)
    print(f"{histories:,} histories: {sum(one.events for one in stories):,} events, {deaths:,} deaths, "
          f"{sum(one.reads for one in stories):,} reads")  # fmt: skip
    assert deaths > histories


def play(folders: tuple[Path, Path], start: int) -> Story:
    """Play a chunk of histories and add them up; of one that breaks, show the shortest like it."""
    projects = load_project(folders[0]), load_project(folders[1])
    total = Story(start, 0, 0, 0, 0)
    for seed in range(start, start + CHUNK):
        try:
            one = EngineSimulation(seed, *projects).run()
        except Broken as broken:
            raise Broken(
                shortest(*projects, seeds=range(seed, seed + 200)) or str(broken)
            ) from None
        total = Story(start, *(a + b for a, b in zip(total[1:], one[1:], strict=True)))
    return total
