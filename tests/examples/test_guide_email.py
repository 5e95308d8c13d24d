"""The guide to writing an email, followed to the letter: its files make a project that renders."""

import re
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner

from penstock.adapters.content.liquid.filters import FILTERS
from penstock.cli.main import main
from penstock.core.decision.campaign import KEYS
from penstock.project import load_project
from penstock.templates import IN_EMAILS, IN_SLOTS, template_faults
from penstock.testing.driver import Driver

PAGE = (Path(__file__).parents[2] / "docs" / "guides" / "write-an-email.md").read_text()


def blocks(kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "shop"
    assert CliRunner().invoke(main, ["init", str(folder)]).exit_code == 0
    hero, email, _ = blocks("liquid")
    (folder / "content" / "hero.liquid").write_text(hero)
    (folder / "content" / "spring.mjml.liquid").write_text(email)
    (folder / "content" / "activity.liquid").write_text("{{ item.title }}")
    (folder / "campaigns" / "spring.toml").write_text(blocks("toml")[0])
    slots = folder / "slots.py"
    slots.write_text(slots.read_text() + "\n\n" + blocks("python")[0])
    return folder


def test_the_guide_names_every_key_value_and_filter() -> None:
    assert set(tomllib.loads(blocks("toml")[0])) == set(KEYS)
    known = {*IN_EMAILS, *IN_SLOTS, *FILTERS}
    assert [] == sorted(name for name in known if not re.search(rf"`[^`\n]*\b{name}\b", PAGE))


@pytest.mark.parametrize(
    ("views", "said"),
    [(0, "New this week"), (3, "You looked at a few"), (25, "You looked at a lot")],
)
def test_the_files_of_the_guide_are_an_email_that_shows_a_feature(
    folder: Path, views: int, said: str
) -> None:
    project = load_project(folder)
    assert template_faults(project) == []
    with Driver(project) as driver:
        driver.push({"type": "identify", "userId": "u-1", "traits": {"first_name": "Ann"}})
        for _ in range(views):
            driver.push({"type": "track", "event": "Product Viewed", "userId": "u-1",
                         "properties": {"product_id": "sku-1"}})  # fmt: skip
        outcome = driver.decide("spring", user_id="u-1")
        email = driver.render("spring", user_id="u-1")
    assert outcome.slots["activity"].items[0]["title"].startswith(said)
    assert said in email.html
    assert "Hello Ann" in email.html
    assert "/v1/unsubscribe/" in email.html


@pytest.mark.parametrize(
    ("views", "said"),
    [(0, "New this week"), (1, "You looked at 1 thing this week."), (3, "You looked at 3 things")],
)
def test_a_source_of_ones_own_shows_the_number_itself(folder: Path, views: int, said: str) -> None:
    (folder / "content" / "activity.liquid").write_text(blocks("liquid")[2])
    template = folder / "content" / "spring.mjml.liquid"
    shown = re.sub(r"{% for one in .*endfor %}", "{{ slots.activity.html }}", template.read_text())
    template.write_text(shown)
    slots = folder / "slots.py"
    slots.write_text(slots.read_text() + "\n\n" + blocks("python")[1])
    project = load_project(folder)
    assert template_faults(project) == []
    with Driver(project) as driver:
        driver.push({"type": "identify", "userId": "u-1", "traits": {"first_name": "Ann"}})
        for _ in range(views):
            driver.push({"type": "track", "event": "Product Viewed", "userId": "u-1",
                         "properties": {"product_id": "sku-1"}})  # fmt: skip
        email = driver.render("spring", user_id="u-1")
    assert said in email.html


def test_every_value_that_templates_are_told_to_have_is_given(folder: Path) -> None:
    def show(names: dict[str, str]) -> str:
        return "".join(f"[{name}:{{{{ {name} }}}}]" for name in names)

    (folder / "content" / "hero.liquid").write_text(show(IN_SLOTS))
    (folder / "content" / "spring.mjml.liquid").write_text(show(IN_EMAILS))
    (folder / "content" / "spring.mjml.liquid").rename(folder / "content" / "spring.liquid")
    project = load_project(folder)
    assert template_faults(project) == []
    with Driver(project) as driver:
        driver.push({"type": "identify", "userId": "u-1", "traits": {"first_name": "Ann"}})
        block = driver.decide("spring", user_id="u-1").slots["hero"].html
        email = driver.render("spring", user_id="u-1").html
    assert [] == [name for name in IN_SLOTS if f"[{name}:]" in block or f"[{name}:" not in block]
    assert [] == [name for name in IN_EMAILS if f"[{name}:]" in email or f"[{name}:" not in email]


@pytest.mark.parametrize("written", ["views_7d", "traits.views_7d", "features.views_7d"])
def test_a_feature_in_a_template_is_told_how_it_may_be_shown(folder: Path, written: str) -> None:
    file = folder / "content" / "spring.mjml.liquid"
    file.write_text(file.read_text().replace("{{ campaign }}", f"{{{{ {written} }}}}"))
    faults = template_faults(load_project(folder))
    assert [one.code for one in faults] == ["E197"]
    assert "features are no template values: show one through a slot" in faults[0].fix
    assert "docs/guides/write-an-email.md" in faults[0].fix
