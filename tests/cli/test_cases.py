"""`penstock test`: the project's own cases, run by the shipped runner and, the same, by pytest."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from penstock.cli.main import main
from penstock.core.errors import EventRejected
from penstock.project import load_project
from penstock.testing.driver import Driver


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    assert CliRunner().invoke(main, ["init", str(tmp_path / "shop")]).exit_code == 0
    return tmp_path / "shop"


def run(folder: Path, *words: str) -> Result:
    return CliRunner().invoke(main, ["test", *words, "--project", str(folder)])


def write(folder: Path, text: str, name: str = "test_more.py") -> None:
    (folder / "tests" / name).write_text(text)


def test_words_choose_cases(folder: Path) -> None:
    done = CliRunner().invoke(
        main, ["test", "week", "stranger", "--project", str(folder), "--json"]
    )
    result: Any = json.loads(done.stdout)

    assert [one["name"].partition("::")[2] for one in result["cases"]] == [
        "test_a_view_counts_for_a_week", "test_a_stranger_gets_content_too",
    ]  # fmt: skip
    assert run(folder, "nothing-like-it").exit_code == 1


def test_a_case_may_import_the_project_and_what_lies_beside_it(folder: Path) -> None:
    write(folder, "PRODUCT = 'p9'\n", "shoes.py")
    write(folder, "from features import Shopper\nfrom shoes import PRODUCT\n\n\n"
                  "def test_it(driver):\n    assert (Shopper.__name__, PRODUCT) == ('Shopper', 'p9')\n")  # fmt: skip
    before = set(sys.modules), list(sys.path)

    assert run(folder).exit_code == 0
    assert [
        name for name in ("features", "events", "shoes") if name in set(sys.modules) - before[0]
    ] == []
    assert sys.path == before[1]


@pytest.mark.parametrize(
    ("text", "code", "where"),
    [
        ("def test_it(driver:\n    pass\n", "E181", "tests/test_more.py:1"),
        ("import os\n\nimport no_such_module\n", "E181", "tests/test_more.py:3"),
        ("def test_it(shop):\n    pass\n", "E184", "tests/test_more.py:1"),
        ("async def test_it(driver):\n    pass\n", "E184", "tests/test_more.py:1"),
    ],
    ids=["syntax", "import", "argument", "async"],
)
def test_a_file_of_cases_that_is_wrong_is_an_error_with_its_line(
    folder: Path, text: str, code: str, where: str
) -> None:
    write(folder, text)

    done = run(folder)

    assert done.exit_code == 2
    assert (code in done.stderr, where in done.stderr) == (True, True)


def test_an_error_in_a_case_is_its_result(folder: Path) -> None:
    write(folder, "def test_it(driver):\n    driver.features(user_id='u1')['no_such_feature']\n")

    done = run(folder)

    assert done.exit_code == 1
    assert "tests/test_more.py:2: KeyError: 'no_such_feature'" in done.stderr
    assert "3 passed, 1 failed" in done.stdout


def test_the_same_cases_run_under_pytest(folder: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:randomly"], cwd=folder,
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip

    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 passed" in done.stdout


# -- the driver


def view(product: str, **who: str) -> dict[str, Any]:
    return {
        "type": "track",
        "event": "Product Viewed",
        "properties": {"product_id": product},
        **who,
    }


def test_the_driver_turns_the_clock_and_reads_by_any_identifier(folder: Path) -> None:
    with Driver(load_project(folder)) as driver:
        driver.push({"type": "identify", "userId": "u1", "traits": {"email": "ann@example.com", "first_name": "Ann"}},
                    view("p1", userId="u1"))  # fmt: skip
        now = (
            driver.features(user_id="u1")["views_7d"],
            driver.features(email="ann@example.com")["views_7d"],
        )
        driver.clock.advance(days=8)
        later = driver.profile(user_id="u1")

    assert now == (1, 1)
    assert (later.features["views_7d"], later.features["viewed"], later.traits["first_name"]) == (
        0,
        ["p1"],
        "Ann",
    )


def test_the_driver_knows_what_each_source_may_claim(folder: Path) -> None:
    with Driver(load_project(folder)) as driver:
        driver.push(view("p1", userId="u1"), source="web")  # a page claims, a server knows
        claimed = driver.features(user_id="u1")["views_7d"]
        driver.push(view("p1", userId="u1"), source="backend")
        known = driver.features(user_id="u1")["views_7d"]

    assert (claimed, known) == (1, 2)


def test_the_driver_withholds_what_is_not_permitted(folder: Path) -> None:
    with Driver(load_project(folder), consent={"personalisation": False}) as driver:
        intake = driver.push(view("p1", userId="u1"))
        hero = driver.decide("welcome", user_id="u1").slots["hero"]

    assert intake.refused == []
    assert hero.items[0]["title"] == "New this week"


def test_the_driver_decides_once_a_send_and_renders_the_whole_email(folder: Path) -> None:
    with Driver(load_project(folder)) as driver:
        driver.load_items(
            {
                "item_id": "p1",
                "title": "Red shoe",
                "url": "https://shop.example/p1",
                "price": "19.99",
            }
        )
        first = driver.decide("welcome", send="s1", user_id="u1")
        driver.push(view("p1", userId="u1"))
        again = driver.decide("welcome", send="s1", user_id="u1")
        email = driver.render("welcome", send="s2", user_id="u1")

    assert first.decision_id == again.decision_id
    assert first.slots == again.slots
    assert "<!doctype html>" in email.html.lower()
    assert "unsubscribe" in email.text.lower()


def test_that_no_case_matches_is_said(folder: Path) -> None:
    done = run(folder, "nothinglikethis")
    for path in (folder / "tests").glob("test_*.py"):
        path.unlink()
    none = run(folder)

    assert (done.exit_code, none.exit_code) == (1, 1)
    assert "no case's name holds `nothinglikethis`" in done.stderr
    assert "there are no cases" in none.stderr


def test_a_case_that_names_a_campaign_wrongly_is_told_so(folder: Path) -> None:
    with Driver(load_project(folder)) as driver:
        for ask in (driver.decide, driver.render):
            with pytest.raises(EventRejected) as refused:
                ask("welcom", user_id="u1")

            assert refused.value.code == "E399"
            assert "did you mean `welcome`?" in refused.value.fix
