"""`plan`, `apply`, `rollback`, `versions` and `schemas` on a fresh project, in this process."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from penstock.cli.main import main

GRANTED = {"consent": {"categoryPreferences": {"personalisation": True}}}


def run(*args: object) -> Result:
    return CliRunner().invoke(main, [str(arg) for arg in args])


def result_of(*args: object) -> Any:
    result = run(*args, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "shop"
    assert run("init", folder).exit_code == 0
    toml = folder / "penstock.toml"
    toml.write_text(toml.read_text() + '\n[definitions]\napply = "command"\n')
    return folder


@pytest.fixture
def loaded(folder: Path) -> Path:
    """A project that serves, with some events in its log."""
    events = [
        {"type": "track", "event": "Product Viewed", "messageId": f"v{number}", "userId": f"u{number % 7}",
         "anonymousId": f"a{number % 5}", "properties": {"product_id": f"p{number % 3}"}, "context": GRANTED}
        for number in range(60)
    ]  # fmt: skip
    events.append({"type": "identify", "messageId": "i1", "userId": "u1", "context": GRANTED,
                   "traits": {"email": "ann@example.com", "first_name": "Ann"}})  # fmt: skip
    (folder / "events.jsonl").write_text("\n".join(json.dumps(event) for event in events) + "\n")
    kept = result_of("load", folder / "events.jsonl", "--as", "events", "--source", "backend",
                     "--project", folder)  # fmt: skip
    assert kept["kept"] == 61
    return folder


def edit(folder: Path, name: str, old: str, new: str) -> None:
    path = folder / name
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_a_plan_shows_what_differs_to_people(
    loaded: Path, golden: Callable[[str, object], None]
) -> None:
    edit(
        loaded,
        "features.py",
        "over=days(7)",
        "over=days(14), where=product_viewed.category == 'shoes'",
    )
    edit(loaded, "features.py", "    spent = sum_(order_completed.total, over=lifetime())\n",
         "    views_30d = count(product_viewed, over=days(30), by=product_viewed.category)\n")  # fmt: skip
    edit(loaded, "slots.py", "New this week", "Fresh in")
    hero = loaded / "content" / "hero.liquid"
    hero.write_text(hero.read_text() + "<!-- new -->\n")

    result = run("plan", "--project", loaded)

    assert result.exit_code == 2, result.output
    # What was measured differs by machine, and how many links there are by how batches fell.
    lines = [
        re.sub(r"from \d+ records", "from N records", line)
        for line in result.output.splitlines()
        if "measured here" not in line and "MiB" not in line
    ]
    golden("plan.txt", "\n".join(lines) + "\n")


def test_a_plan_is_for_machines_too_and_tells_by_its_exit_code(loaded: Path) -> None:
    same = run("plan", "--project", loaded, "--json")
    edit(loaded, "features.py", "over=days(7)", "over=days(14)")
    other = run("plan", "--project", loaded, "--json")

    assert (same.exit_code, json.loads(same.stdout)["differs"]) == (0, False)
    assert other.exit_code == 2
    plan = json.loads(other.stdout)
    assert plan["active"] == 1
    assert plan["changes"] == [{"how": "changed", "what": "feature", "name": "views_7d",
                                "details": ["over: 7 days → 14 days"], "where": "features.py:9"}]  # fmt: skip
    assert plan["unchanged_features"] == 3
    assert plan["backfill"]["records"] >= 61
    assert plan["backfill"]["per_s"] > 0
    assert plan["backfill"]["size_bytes"] > 0


def test_a_plan_names_all_that_is_broken_and_can_not_be_applied(loaded: Path) -> None:
    edit(loaded, "features.py", "    views_7d = count(product_viewed, over=days(7))\n", "")
    edit(loaded, "features.py", "    bought =", "    bought_all =")

    planned = run("plan", "--project", loaded, "--json")
    applied = run("apply", "--project", loaded)

    assert planned.exit_code == 1
    broken = json.loads(planned.stdout)["broken"]
    assert [(one["code"], one["where"]) for one in broken] == [
        ("E150", "slots.py:5"),
        ("E150", "audiences.py:6"),
    ]
    assert (applied.exit_code, "E150" in applied.output) == (2, True)
    # What serves is not stopped by a mistake in the files, and can be looked at and sent.
    assert result_of("versions", "--project", loaded)["active"] == 1
    assert result_of("send", "welcome", "--send", "s1", "--project", loaded)["seen"] == 1


def test_a_feature_whose_value_is_of_another_kind_is_pointed_out(loaded: Path) -> None:
    edit(
        loaded,
        "features.py",
        "views_7d = count(product_viewed,",
        "views_7d = last_k(product_viewed.product_id, k=3,",
    )

    plan = json.loads(run("plan", "--project", loaded, "--json").stdout)

    assert [one["owner"] for one in plan["doubts"]] == ["audience `browsed`"]
    assert "which was count and is last_k of string" in plan["doubts"][0]["what"]


EMAIL, HERO = "content/email.mjml.liquid", "content/hero.liquid"
HOLES = [
    (EMAIL, "slots.hero.html", "slots.heros.html", "E197", "slots.heros", "slots.hero"),
    (EMAIL, "traits.first_name", "traits.frist_name", "E197", "traits.frist_name", "traits.first_name"),
    (HERO, "{{ item.title }}", "{{ item.titel }}", "E197", "item.titel", "item.title"),
    (HERO, "{% if item.price %}", "{% if item.pirce %}", "E197", "item.pirce", "item.price"),
    (EMAIL, "{{ unsubscribe_url }}", "https://shop.example", "E197", "unsubscribe", "unsubscribe_url"),
    (EMAIL, "{{ unsubscribe_url }}", "{{ unsubscribe_ulr }}", "E197", "unsubscribe_ulr", "unsubscribe_url"),
    (EMAIL, "<mj-text>Hello", "<mj-txt>Hello", "E144", "mj-txt", "mj-text"),
    (EMAIL, "<mj-text>Hello", '<mj-text aling="left">Hello', "E144", "aling", "align"),
    ("campaigns/welcome.toml", "slots.hero.items[0].title", "slots.hero.items[0].titel", "E197",
     "slots.hero.items[0].titel", "slots.hero.items[0].title"),
    ("campaigns/welcome.toml", "{{ slots.hero.items[0].title }}", "{{ slots.hero", "E141", "", "close"),
]  # fmt: skip


def line_of(folder: Path, name: str, text: str) -> int:
    lines = (folder / name).read_text().splitlines()
    return next(number for number, line in enumerate(lines, 1) if text in line)


@pytest.mark.parametrize(("file", "old", "new", "code", "named", "meant"), HOLES)
def test_a_name_that_would_be_an_empty_hole_is_found_with_its_line(
    folder: Path, file: str, old: str, new: str, code: str, named: str, meant: str
) -> None:
    edit(folder, file, old, new)
    # Without data, and when it is to serve for the first time.
    planned = run("plan", "--project", folder)
    (folder / "items.csv").write_text("item_id,title\np1,Kettle\n")
    loading = run(
        "load", folder / "items.csv", "--as", "items", "--source", "crm", "--project", folder
    )

    found = new if new in (folder / file).read_text() else named
    line = line_of(folder, file, found)
    assert planned.exit_code == 1
    assert loading.exit_code == 2
    if "unsubscribe" not in named or named.endswith("ulr"):
        assert f"({file}:{line})" in planned.output
    for told in (planned.output, loading.output):
        assert f"{code}: " in told
        assert named in told
        assert meant in told


def test_an_email_without_a_link_to_unsubscribe_is_told_where_it_belongs(folder: Path) -> None:
    edit(folder, EMAIL, "{{ unsubscribe_url }}", "https://shop.example")
    told = run("plan", "--project", folder).output
    assert f"({EMAIL}:{line_of(folder, EMAIL, '</mj-body>')})" in told


def test_every_hole_is_told_at_once_and_none_is_applied(loaded: Path) -> None:
    for file, old, new, *_ in HOLES[:3]:
        edit(loaded, file, old, new)

    faults = json.loads(run("plan", "--project", loaded, "--json").stdout)["broken"]
    applied = run("apply", "--project", loaded)

    assert [(one["code"], one["fix"]) for one in faults] == [
        ("E197", "did you mean `slots.hero`?"),
        ("E197", "did you mean `traits.first_name`?"),
        ("E197", "did you mean `item.title`?"),
    ]
    assert (applied.exit_code, "E197" in applied.output) == (2, True)
    # What serves goes on.
    assert result_of("send", "welcome", "--send", "s1", "--project", loaded)["seen"] == 1


def test_a_template_that_shows_what_nothing_defines_is_broken(loaded: Path) -> None:
    edit(loaded, "content/email.mjml.liquid", "{{ slots.hero.html }}", "{{ slots.heros.html }}")

    result = run("plan", "--project", loaded)

    assert (result.exit_code, "E197" in result.output, "slots.heros" in result.output) == (
        1,
        True,
        True,
    )


BROKEN = [
    ("slots.py", "hero = slot(", "hero = slot((", "E181", "slots.py"),
    ("content/hero.liquid", "{{ item.title }}", "{{ item.titel }}", "E197", "content/hero.liquid:1"),
    ("campaigns/welcome.toml", 'topic = "offers"', "topic = ", "E180", "campaigns/welcome.toml"),
]  # fmt: skip


@pytest.mark.parametrize(("file", "old", "new", "code", "where"), BROKEN)
def test_files_in_mid_edit_are_told_apart_from_what_serves(
    loaded: Path, file: str, old: str, new: str, code: str, where: str
) -> None:
    toml = loaded / "penstock.toml"
    toml.write_text(toml.read_text().replace('apply = "command"', 'apply = "up"'))
    edit(loaded, file, old, new)

    refused = run("send", "welcome", "--send", "s1", "--project", loaded)
    explained = run("explain", "user_id:u1", "--campaign", "welcome", "--json", "--project", loaded)
    sent = run("send", "welcome", "--send", "s1", "--applied", "--json", "--project", loaded)

    assert refused.exit_code == 2
    for said in (refused.stderr, explained.stderr):
        assert code in said
        assert where in said
        assert "definitions 1, which serve" in said
    assert "--applied" in refused.stderr
    assert (explained.exit_code, json.loads(explained.stdout)["known"]) == (0, True)
    assert (sent.exit_code, json.loads(sent.stdout)["outcomes"]) == (0, {"accepted": 1})
    # Nothing was applied on the way.
    assert result_of("versions", "--project", loaded)["active"] == 1


def test_sent_by_what_is_applied_it_leaves_good_changes_alone_too(loaded: Path) -> None:
    toml = loaded / "penstock.toml"
    toml.write_text(toml.read_text().replace('apply = "command"', 'apply = "up"'))
    edit(loaded, "slots.py", "New this week", "Fresh in")

    result_of("send", "welcome", "--send", "s1", "--applied", "--project", loaded)
    before = result_of("versions", "--project", loaded)["active"]
    result_of("send", "welcome", "--send", "s2", "--project", loaded)

    assert (before, result_of("versions", "--project", loaded)["active"]) == (1, 2)


def test_privacy_effects_are_told(loaded: Path) -> None:
    edit(loaded, "events.py", "first_name=string()",
         'first_name=string(privacy=private(purpose="measurement")), phone=string(privacy=private(category='
         '"user.contact.phone_number", data_class="confidential", retention=30))')  # fmt: skip
    edit(loaded, "events.py", "import ", "import private, ")

    effects = json.loads(run("plan", "--project", loaded, "--json").stdout)["effects"]

    told = {(one["path"], one["what"]) for one in effects}
    assert ("traits.first_name", "purpose: personalisation → measurement") in told
    phone = "is kept from now on: user.contact.phone_number, confidential, for personalisation, plain, 30 days"
    assert ("traits.phone", phone) in told


def test_looser_and_tighter_settings_of_consent_are_told(loaded: Path) -> None:
    toml = (loaded / "penstock.toml").read_text()
    looser = toml.replace('regime = "opt_in"', 'regime = "opt_out"\ngpc_denies = []')
    looser = looser.replace(
        "basis = { personalisation", 'basis = { analytics = "contract", personalisation'
    )
    assert looser.count("gpc_denies") == looser.count('analytics = "contract"') == 1
    (loaded / "penstock.toml").write_text(looser)

    planned = run("plan", "--project", loaded)
    effects = json.loads(run("plan", "--project", loaded, "--json").stdout)["effects"]

    assert planned.exit_code == 2
    assert "! consent.regime loosened: opt_in → opt_out" in planned.output
    assert {one["path"] for one in effects if one["wider"]} >= {
        "consent.regime", "consent.gpc_denies", "sources.crm.basis.analytics"
    }  # fmt: skip
    result_of("apply", "--project", loaded)
    (loaded / "penstock.toml").write_text(toml)
    assert "  consent.regime tightened: opt_out → opt_in" in run("plan", "--project", loaded).output


def test_a_feature_that_outlives_what_it_reads_is_refused(loaded: Path) -> None:
    edit(
        loaded,
        "features.py",
        "k=10, distinct=True, over=days(30)",
        "k=10, distinct=True, over=days(500)",
    )

    planned, applied = run("plan", "--project", loaded), run("apply", "--project", loaded)

    assert (planned.exit_code, applied.exit_code) == (1, 2)
    for result in (planned, applied):
        assert "E121" in result.output
        assert "features.py:8" in result.output


def test_applied_it_serves_and_rolled_back_it_does_not(loaded: Path) -> None:
    edit(loaded, "features.py", "over=days(7)", "over=days(14)")
    before = (loaded / "features.py").read_text()

    applied = result_of("apply", "--project", loaded)
    again = result_of("apply", "--project", loaded)
    differs = run("plan", "--project", loaded).exit_code
    kept = result_of("versions", "--project", loaded)
    back = result_of("rollback", "--project", loaded)
    forth = result_of("apply", "--project", loaded)

    assert (applied["number"], applied["state"], applied["folded"]) == (
        2,
        "active",
        applied["total"],
    )
    # Three of four features are defined as before: their states have the same bytes.
    assert applied["agreed_leaves"] >= 12
    assert applied["agreed_states"] == 3 * applied["agreed_leaves"]
    assert (again["number"], differs) == (2, 0)
    assert [(one["number"], one["state"]) for one in kept["versions"]] == [
        (1, "retiring"),
        (2, "active"),
    ]
    assert all(one["leaves"] >= 12 and one["bytes"] > 0 for one in kept["versions"])
    assert back["active"] == 1
    assert forth["number"] == 2  # its leaves were kept: nothing is built
    assert (loaded / "features.py").read_text() == before


def test_a_change_of_content_is_a_version_without_leaves_of_its_own(loaded: Path) -> None:
    edit(loaded, "slots.py", "New this week", "Fresh in")

    planned = run("plan", "--project", loaded)
    result_of("apply", "--project", loaded)
    kept = result_of("versions", "--project", loaded)["versions"]

    assert "the leaves stay as they are" in planned.output
    assert [(one["number"], one["epoch"]) for one in kept] == [(1, 1), (2, 1)]


def test_there_may_be_nothing_to_roll_back_to_or_to_give_up(loaded: Path) -> None:
    back, left = (
        run("rollback", "--project", loaded),
        run("apply", "--give-up", "--project", loaded),
    )

    assert (back.exit_code, "E191" in back.output) == (2, True)
    assert (left.exit_code, "E194" in left.output) == (2, True)


def test_events_that_break_their_senders_are_refused_unless_somebody_insists(loaded: Path) -> None:
    edit(loaded, "events.py", "from penstock.dsl.segment import ", "from penstock.dsl.events import event\n"
         "from penstock.dsl.segment import ")  # fmt: skip
    events = loaded / "events.py"
    events.write_text(events.read_text() + '\nrated = event("Rated", stars=integer())\n')
    if "integer" not in events.read_text().split("rated =")[0]:
        edit(loaded, "events.py", "import event\n", "import event, integer\n")
    result_of("apply", "--project", loaded)
    edit(loaded, "events.py", "stars=integer()", "stars=string()")

    planned = run("plan", "--project", loaded)
    checked = run("schemas", "check", "--project", loaded)
    refused = run("apply", "--project", loaded)
    insisted = run("apply", "--allow-breaks", "--project", loaded)

    assert (planned.exit_code, checked.exit_code) == (1, 1)
    assert "was integer, is string" in planned.output
    assert "was integer, is string" in checked.output
    assert (refused.exit_code, "E195" in refused.output) == (2, True)
    assert insisted.exit_code == 0, insisted.output


def test_other_rules_of_consent_are_no_difference_in_what_both_define_alike(loaded: Path) -> None:
    opt_in, opt_out = 'regime = "opt_in"', 'regime = "opt_out"\npurposes = ["ads"]'
    edit(loaded, "penstock.toml", opt_in, opt_out)
    more = result_of("apply", "--project", loaded)
    edit(loaded, "penstock.toml", opt_out, opt_in)
    again = result_of("apply", "--project", loaded)

    # What silence meant is stamped into each record, so a later rule does not judge it anew.
    assert 0 < more["agreed_leaves"] == again["agreed_leaves"]


def test_schemas_are_exported_for_each_declared_event(folder: Path, tmp_path: Path) -> None:
    result = result_of("schemas", "export", tmp_path / "schemas", "--project", folder)

    assert "product-viewed.json" in result["written"]
    schema = json.loads((tmp_path / "schemas" / "product-viewed.json").read_text())
    assert (schema["title"], schema["type"]) == ("Product Viewed", "object")
    assert "traits.json" in result["written"]


def test_schemas_are_checked_against_another_folder(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    assert run("init", other).exit_code == 0

    assert run("schemas", "check", "--against", other, "--project", folder).exit_code == 0
    events = other / "events.py"
    events.write_text(
        events.read_text() + '\nfrom penstock.dsl.events import event\n\nrated = event("Rated")\n'
    )
    result = run("schemas", "check", "--against", other, "--project", folder)

    assert result.exit_code == 1, result.output
    assert "event `Rated` is no longer declared" in result.output


def test_the_source_of_the_fold_is_shown(folder: Path) -> None:
    result = run("plan", "--source", "--project", folder)

    assert result.exit_code == 0
    assert "def fold_0(states, record, mask):" in result.stdout
    compile(result.stdout, "fold", "exec")


# ----------------------------------------------------------------------- campaigns and their pins


def test_a_published_campaign_goes_on_with_what_it_was_published_with(loaded: Path) -> None:
    first = result_of("send", "welcome", "--send", "s1", "--project", loaded)
    edit(loaded, "slots.py", "New this week", "Fresh in")
    edit(loaded, "features.py", "over=days(7)", "over=days(14)")
    result_of("apply", "--project", loaded)
    kept = result_of("versions", "--project", loaded)["versions"]
    planned = run("plan", "--project", loaded)
    second = result_of("send", "welcome", "--send", "s2", "--project", loaded)
    why = result_of(
        "explain", "ann@example.com", "--campaign", "welcome", "--send", "s2", "--project", loaded
    )

    assert first["outcomes"] == second["outcomes"]
    assert [one["campaigns"] for one in kept] == [["welcome@1"], []]
    assert planned.exit_code == 0
    assert why["explanation"]["slots"][0]["features"] == why["explanation"]["slots"][0]["features"]


def test_when_its_definitions_are_gone_a_send_says_what_to_do(loaded: Path) -> None:
    edit(loaded, "penstock.toml", 'apply = "command"', 'apply = "command"\nkeep_hours = 0')
    result_of("send", "welcome", "--send", "s1", "--project", loaded)
    edit(loaded, "features.py", "over=days(7)", "over=days(14)")
    result_of("apply", "--project", loaded)

    refused = run("send", "welcome", "--send", "s2", "--project", loaded)
    again = run("send", "welcome", "--send", "s2", "--republish", "--project", loaded)

    assert refused.exit_code == 2
    assert "E193" in refused.output
    assert "definitions 1, which are not kept" in refused.output
    assert "--republish" in refused.output
    assert again.exit_code == 0, again.output
    assert result_of("send", "welcome", "--send", "s3", "--project", loaded)["seen"] == 1


def test_a_campaign_with_its_version_raised_is_published_with_what_serves(loaded: Path) -> None:
    result_of("send", "welcome", "--send", "s1", "--project", loaded)
    toml = loaded / "campaigns" / "welcome.toml"
    text = toml.read_text()
    toml.write_text(
        text.replace("version = 1", "version = 2")
        if "version = 1" in text
        else f"version = 2\n{text}"
    )
    edit(loaded, "features.py", "over=days(7)", "over=days(14)")
    result_of("apply", "--project", loaded)
    result_of("send", "welcome", "--send", "s2", "--project", loaded)

    kept = result_of("versions", "--project", loaded)["versions"]
    assert [one["campaigns"] for one in kept] == [["welcome@1"], ["welcome@2"]]


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("features.py", "def ("),
        ("features.py", "raise ValueError('no')"),
        ("features.py", "import absent_module"),
        ("slots.py", "other = slot('hero', candidates=[], fallback={})"),
        ("campaigns/welcome.toml", "slots = "),
    ],
)
@pytest.mark.parametrize("args", [(), ("--json",), ("--source",)])
def test_a_plan_of_files_that_do_not_load_ends_as_one_that_can_not_be_applied(
    folder: Path, name: str, line: str, args: tuple[str, ...]
) -> None:
    path = folder / name
    assert path.exists()
    path.write_text(f"{path.read_text()}\n{line}\n")

    planned = run("plan", "--project", folder, *args)

    assert planned.exit_code == 1, planned.output
    assert "fix" in planned.output


@pytest.mark.parametrize("setting", ["esp.kind", "log.kind", "store.kind"])
def test_a_plan_refuses_an_adapter_that_does_not_exist(folder: Path, setting: str) -> None:
    table, _, key = setting.partition(".")
    toml = folder / "penstock.toml"
    kept = re.sub(rf"(?m)^\[{table}\]\n([^\[]*)", "", toml.read_text())
    toml.write_text(f'{kept}\n[{table}]\n{key} = "foldr"\n')

    planned = run("plan", "--project", folder)

    assert planned.exit_code == 3
    assert f"E206: setting `{setting}`" in planned.output
