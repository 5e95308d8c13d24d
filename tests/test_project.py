"""A project's folder: every mistake in it names the author's file and line, and what to do."""

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from penstock.adapters.files import SCRATCH, drop_scratch, new_scratch, sole_use
from penstock.candidates import make_renderer
from penstock.compose import open_stores
from penstock.core.codes import CODES
from penstock.core.decision import sources
from penstock.core.decision.predicate import View
from penstock.core.decision.ready import candidates_of, ready_slot
from penstock.core.decision.slot import plain
from penstock.core.decision.sources import kinds
from penstock.core.errors import DefinitionError, PenstockError
from penstock.project import Project, load_project, load_version

sys.path.insert(0, str(Path(__file__).parent / "edges" / "serving"))

from tests_serving import FILES, folder  # noqa: F401 - a fixture

Edit = Callable[[str, str], Path]


@pytest.fixture
def edit(folder: Path) -> Edit:  # noqa: F811
    """Return what writes a file of the project, or adds to it if the text begins with `+`."""

    def write(name: str, text: str) -> Path:
        path = folder / name
        path.write_text(path.read_text() + text[1:] if text.startswith("+") else text)
        return folder

    return write


def fault(root: Path) -> PenstockError:
    with pytest.raises(PenstockError) as failed:
        make_renderer(load_project(root))
    error = failed.value
    assert error.code in CODES
    assert error.fix
    return error


def test_a_project_is_all_that_its_files_define(folder: Path) -> None:  # noqa: F811
    project = load_project(folder)
    assert list(project.slots) == ["hero"]
    assert list(project.audiences) == ["viewers"]
    assert sorted(project.campaigns) == ["held", "spring"]
    assert [feature.name for feature in project.plan.features] == ["viewed", "bought", "views_7d"]
    assert project.data_dir == folder.resolve() / "data"
    assert project.trait_purposes() == dict.fromkeys(
        ("email", "first_name", "timezone"), "personalisation"
    )


@pytest.mark.parametrize(
    ("file", "text", "code", "where"),
    [
        ("events.py", "+\ndef broken(:\n", "E181", "events.py:8"),
        ("features.py", "x = = 1\n", "E181", "features.py:1"),
        ("slots.py", "from penstock.dsl.slots import slott\n", "E181", "slots.py:1"),
        ("slots.py", "+\nraise ValueError('no')\n", "E181", "slots.py:10"),
        ("audiences.py", "1 / 0\n", "E181", "audiences.py:1"),
        ("features.py", "+    wrong = count(product_viewed, over=days(0))\n", "", "features.py:10"),
        ("slots.py", FILES["slots.py"].replace('"viewed"', '"viwed"'), "E150", "slots.py:4"),
        ("audiences.py", FILES["audiences.py"].replace("views_7d", "views_8d"), "E150", "audiences.py:5"),
        ("audiences.py", FILES["audiences.py"].replace('"offers"', '"ofers"'), "E162", "audiences.py:5"),
        ("slots.py", FILES["slots.py"].replace('"hero",', '"hero", render="heroo",'), "E163", "slots.py:4"),
        ("campaigns/spring.toml", 'slots = ["herro"]', "", "campaigns/spring.toml"),
        ("campaigns/spring.toml", "slots = [", "E180", "campaigns/spring.toml"),
        ("campaigns/spring.toml", 'slots = ["hero"]\ntempalte = "email"', "", "campaigns/spring.toml"),
        ("content/hero.liquid", "{% if item %}", "E141", "content/hero.liquid:1"),
        ("content/hero.liquid", "<p>\n{{ item.title | nope }}", "E141", "content/hero.liquid:2"),
        ("penstock.toml", "[project]\nnam = 1", "E202", "penstock.toml"),
        ("penstock.toml", '[project]\ntimezone = "Mars/Base"', "E120", "penstock.toml:2"),
        ("penstock.toml", '\n[project]\ncurrency = "pounds"', "E109", "penstock.toml:3"),
        ("penstock.toml", '[email]\ncaps = { promo = "often" }', "E166", "penstock.toml:2"),
        ("penstock.toml", '[email]\n[email.caps]\na = "1 in 1 days"\nb = "0 in 1 days"', "E166",
         "penstock.toml:4"),
        ("penstock.toml", '[email]\ncap = "promo"', "E166", "penstock.toml:2"),
        ("penstock.toml", '[email]\nquiet_hours = "at night"', "E166", "penstock.toml:2"),
        ("penstock.toml", '[server]\nport = "x"', "E203", "penstock.toml:2"),
        ("campaigns/spring.toml", 'slots = ["hero"]\nquiet_hours = "late"', "E166", "campaigns/spring.toml:2"),
        ("campaigns/spring.toml", 'slots = ["hero"]\n\ncap = "promo"', "E166", "campaigns/spring.toml:3"),
        ("features.py", "+    wrong = count(product_viewed.prise)\n", "E102", "features.py:10"),
        ("features.py", "+    wrong = count(\n        product_viewed['prise']\n    )\n", "E102", "features.py:11"),
        ("events.py", "+from penstock.dsl.events import event\nwrong = event('')\n", "E103", "events.py:8"),
        ("events.py", "+from penstock.dsl.events import event\nwrong = event('Wrong', version=0)\n", "E103", "events.py:8"),
        ("events.py", "+from penstock.dsl.events import event\nwrong = event('Wrong',\n    a=string(),\n    b=5,\n)\n", "E103", "events.py:10"),
        ("events.py", "+from penstock.dsl.events import event\nwrong = event('Wrong',\n    a=string(),\n    b=string(chars_max=0))\n", "E103", "events.py:10"),
        ("events.py", "+from penstock.dsl.events import event\nwrong = event('Wrong',\n    fields={\n        'a b': string(chars_max=0)})\n", "E103", "events.py:10"),
        ("events.py", "+wrong = traits(\n    a=string(),\n    b=string(required=True))\n", "E103", "events.py:9"),
        ("events.py", "+from penstock.dsl.events import event, private\nwrong = event('Wrong',\n    b=string(privacy=private(protection='hide')))\n", "E105", "events.py:9"),
        ("events.py", "+from penstock.dsl.events import event\nagain = event('Product Viewed', x=string())\n", "E108", "events.py:8"),
    ],
)  # fmt: skip
def test_a_mistake_names_its_file_and_line(
    edit: Edit, file: str, text: str, code: str, where: str
) -> None:
    error = fault(edit(file, text))
    assert code in {"", error.code}
    assert where in error.where.replace("\\", "/")


@pytest.mark.parametrize(
    ("file", "old", "new", "where"),
    [
        ("events.py", "first_name=string()", "first_name=string(\n    privacy=private(purpose={})\n)", "events.py:6"),
        ("features.py", "over=days(7)", "over=days(7), purpose={}", "features.py:9"),
        ("features.py", "count(product_viewed, over=days(7))",
         "ratio(count(product_viewed, over=days(7), purpose={}), count(product_viewed, over=days(7)))", "features.py:9"),
        ("audiences.py", 'topic="offers"', 'topic="offers", purpose={}', "audiences.py:5"),
        ("audiences.py", 'feature("views_7d") > 0', '(feature("views_7d") > 0) & permitted({})', "audiences.py:5"),
        ("slots.py", '"hero",', '"hero", purpose={},', "slots.py:4"),
        ("slots.py", "candidates=[", "candidates=[popular(product_viewed.product_id, purpose={}), ", "slots.py:5"),
    ],
    ids=["field", "feature", "part", "audience", "predicate", "slot", "popular"],
)  # fmt: skip
def test_a_purpose_that_is_none_is_named_where_it_stands(
    edit: Edit,
    folder: Path,  # noqa: F811
    file: str,
    old: str,
    new: str,
    where: str,
) -> None:
    text = FILES[file].replace(old, new.format('"personalization"'))
    for name, more in (("import integer", "private"), ("import Profile", "ratio"),
                       ("import feature", "permitted"), ("import slot", "popular")):  # fmt: skip
        text = text.replace(name, f"{name.replace('import ', f'import {more}, ')}")
    if "popular(" in text:
        text = f"from events import product_viewed\n{text}"
    error = fault(edit(file, text))
    assert (error.code, error.where) == ("E157", where)
    assert "`personalization`" in error.what
    assert "did you mean `personalisation`?" in error.fix
    toml = FILES["penstock.toml"]
    edit("penstock.toml", f'{toml}\n[consent]\npurposes = ["personalization"]\n')
    load_project(folder)


def test_a_version_that_served_before_purposes_were_checked_still_loads(
    edit: Edit,
    folder: Path,  # noqa: F811
) -> None:
    now = load_project(folder)
    features = FILES["features.py"].replace("over=days(7)", 'over=days(7), purpose="insight"')
    files = {**now.files, "features.py": features.encode()}
    kept, content = load_version(files, folder, now.settings)
    shutil.rmtree(content)
    assert kept.kept
    assert kept.plan.needs("views_7d") == ("insight",)


def test_a_versions_copy_is_its_owners_and_what_a_killed_process_left_goes_at_the_next_start(
    folder: Path,  # noqa: F811
) -> None:
    now = load_project(folder)
    now.data_dir.mkdir(parents=True)
    holder = now.data_dir / SCRATCH
    _, left = load_version(now.files, folder, now.settings)
    used = new_scratch(now.data_dir, "repair")
    (unpacked := new_scratch(folder, "project")).joinpath("project.zip").touch()
    assert left.parent == used.parent == holder
    assert {one.stat().st_mode & 0o777 for one in (holder, left, used)} == {0o700}
    with sole_use(used):
        open_stores(now).close()
        assert [*holder.iterdir()] == [used]
    assert not unpacked.parent.exists()
    used.rmdir()  # Killed before it came to the folder that held it.
    open_stores(now).close()
    assert not holder.exists()
    with pytest.raises(DefinitionError):
        load_version({**now.files, "features.py": b"boom ="}, folder, now.settings)
    assert not holder.exists()


def test_a_file_beside_the_known_ones_is_named_too(edit: Edit) -> None:
    edit("prices.py", "LIMIT = 3\n\nbroken = (\n")
    assert fault(edit("features.py", "+\nimport prices\n")).where == "prices.py:3"
    edit("prices.py", "LIMIT = 3\nboom = LIMIT.nothing\n")
    assert fault(edit("features.py", "+\n")).where == "prices.py:2"


def test_a_campaign_that_is_no_text_or_no_file_says_so(folder: Path) -> None:  # noqa: F811
    path = folder / "campaigns" / "winter.toml"
    path.write_bytes(b'subject = "\xff\xfe"')
    error = fault(folder)
    assert (error.code, error.where) == ("E180", "campaigns/winter.toml")
    assert "byte 11" in error.what
    path.unlink()
    path.mkdir()
    assert fault(folder).code == "E180"


@pytest.mark.parametrize(
    ("file", "text", "code"),
    [
        ("slots.py", '\nother = slot("hero", candidates=[viewed_not_bought(viewed="viewed", bought="bought")], fallback={"title": "x"})\n', "E156"),
        ("audiences.py", '\nsame = audience("viewers", topic="offers")\n', "E156"),
        ("events.py", '\nfrom penstock.dsl.events import event\nmine = event("Product Viewed", c=string())\n', "E108"),
    ],
)  # fmt: skip
def test_two_definitions_of_one_name_are_refused(
    edit: Edit, file: str, text: str, code: str
) -> None:
    assert fault(edit(file, "+" + text)).code == code


def test_one_definition_under_two_names_is_one(edit: Edit) -> None:
    edit("audiences.py", "+\nagain = viewers\n")
    assert list(load_project(edit("slots.py", "+\nagain = hero\n")).slots) == ["hero"]


def test_loading_leaves_no_trace_and_two_projects_do_not_mix(edit: Edit, tmp_path: Path) -> None:
    modules, path = set(sys.modules), list(sys.path)
    edit("prices.py", "DAYS = 3\n")
    edit("features.py", FILES["features.py"].replace("days(7)", "days(DAYS)").replace(
        "\n\nclass", "\nfrom prices import DAYS\n\nclass"))  # fmt: skip
    first = load_project(edit("slots.py", "+\n"))
    assert not {"prices", "events", "features", "slots"} & (set(sys.modules) - modules)
    assert path == sys.path
    other = tmp_path / "other"
    for name, text in FILES.items():
        (other / name).parent.mkdir(parents=True, exist_ok=True)
        (other / name).write_text(text)
    (other / "prices.py").write_text("DAYS = 9\n")
    (other / "features.py").write_text((first.root / "features.py").read_text())
    assert load_project(other).fingerprint != first.fingerprint


def test_an_empty_project_loads(tmp_path: Path) -> None:
    (tmp_path / "penstock.toml").write_text("")
    project = load_project(tmp_path)
    assert (project.slots, project.audiences, project.campaigns) == ({}, {}, {})


def test_a_project_without_settings_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PenstockError) as failed:
        load_project(tmp_path)
    assert failed.value.code == "E200"


def test_an_error_of_the_author_says_what_python_said(edit: Edit) -> None:
    error = fault(edit("events.py", "+\nundefined_name\n"))
    assert isinstance(error, DefinitionError)
    assert "NameError" in error.what
    assert error.exit_code == 2


def test_a_time_zone_that_no_trait_names_is_refused_with_its_line(folder: Path) -> None:  # noqa: F811
    toml = folder / "penstock.toml"
    text = toml.read_text()
    toml.write_text(text.replace("[email]\n", '[email]\ntimezone_trait = "time_zone"\n'))
    line = toml.read_text().splitlines().index('timezone_trait = "time_zone"') + 1
    with pytest.raises(DefinitionError, match="E167") as caught:
        load_project(folder)
    assert f"penstock.toml:{line}" in caught.value.where
    assert "`timezone`" in caught.value.fix


OWN = """
from penstock.core.decision.candidate import Proposal
from penstock.dsl.slots import candidate_source, source

@candidate_source("mine")
def mine(args, reading):
    "Offer %s."
    return [Proposal(content={"title": "%s"})]
"""


def offered(project: Project) -> list[Any]:
    """Return what the slot `hero` of a project offers a stranger, by its first source."""
    ready = ready_slot(project.slots["hero"])
    return [one.proposal.content for one in candidates_of(ready, View(profile=None), "").candidates]


def test_each_version_of_a_project_goes_by_its_own_source(folder: Path) -> None:  # noqa: F811
    slots = (
        (folder / "slots.py").read_text().replace("candidates=[", 'candidates=[source("mine"), ')
    )
    (folder / "slots.py").write_text(OWN % ("one", "one") + slots)
    first = load_project(folder)
    files = first.files
    (folder / "slots.py").write_text(OWN % ("two", "two") + slots)
    second = load_project(folder)
    kept, scratch = load_version(files, folder, first.settings)
    drop_scratch(scratch)

    one, two = [{"title": "one"}], [{"title": "two"}]
    assert (one, two, one) == (offered(first), offered(second), offered(kept))
    # It is code: what is recorded and planned of a slot is its definition.
    assert plain(first.slots["hero"]) == plain(second.slots["hero"])
    assert "mine" not in kinds()


def test_two_sources_of_one_name_are_refused_also_beside_ours(folder: Path) -> None:  # noqa: F811
    slots = (folder / "slots.py").read_text()
    for own in (OWN + OWN.partition("source\n")[2], OWN.replace('"mine"', '"popular"')):
        (folder / "slots.py").write_text(own.replace("%s", "x") + slots)
        with pytest.raises(DefinitionError, match="E155: two candidate sources"):
            load_project(folder)


def test_a_source_of_an_installed_package_is_known_to_every_load(folder: Path) -> None:  # noqa: F811
    package = folder / "lib" / "site-packages" / "offers_of_others.py"
    package.parent.mkdir(parents=True)
    package.write_text(OWN.replace('"mine"', '"theirs"').replace("%s", "theirs"))
    slots = (
        (folder / "slots.py").read_text().replace("candidates=[", 'candidates=[source("theirs"), ')
    )
    (folder / "slots.py").write_text(
        "import offers_of_others\nfrom penstock.dsl.slots import source\n" + slots
    )
    sys.path.insert(0, str(package.parent))
    try:
        found = [offered(load_project(folder)) for _ in range(2)]
    finally:
        sys.path.remove(str(package.parent))
        del sys.modules["offers_of_others"]
        del sources._registered["theirs"]
    assert [[{"title": "theirs"}]] * 2 == found
