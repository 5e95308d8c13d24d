"""Every command but `up`, run in this process on a fresh project."""

from __future__ import annotations

import json
import re
import sqlite3
import stat
import subprocess
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from penstock.cli.main import MODULES, main

ITEMS = """item_id,title,url,price,category,stock
p1,Red shoe,https://shop.example/p1,19.99,shoes,3
p2,"Blue hat, small",https://shop.example/p2,abc,hats,1
p3,a
p4,Green bag,https://shop.example/p4,5,bags,
"""

EVENTS = [
    {"type": "identify", "messageId": "i1", "userId": "u1", "traits": {"email": "ann@example.com", "first_name": "Ann"}},
    {"type": "track", "event": "Product Viewed", "messageId": "v1", "userId": "u1", "properties": {"product_id": "p1"}},
    {"type": "track", "event": "Product Viewed", "messageId": "v2", "userId": "u2", "properties": {"product_id": ["secret-value"]}},
]  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    result = run("init", str(tmp_path / "shop"))
    assert result.exit_code == 0, result.output
    return tmp_path / "shop"


def run(*args: str) -> Result:
    return CliRunner().invoke(main, [str(arg) for arg in args])


def result_of(*args: str) -> Any:
    result = run(*args, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


@pytest.fixture
def loaded(folder: Path) -> Path:
    (folder / "items.csv").write_text(ITEMS)
    granted = {"consent": {"categoryPreferences": {"personalisation": True}}}
    lines = [json.dumps({**event, "context": granted}) for event in EVENTS]
    (folder / "events.jsonl").write_text("\n".join([*lines, "{not json", "[1]"]) + "\n")
    run("load", folder / "items.csv", "--as", "items", "--project", folder)
    run(
        "load",
        folder / "events.jsonl",
        "--as",
        "events",
        "--source",
        "backend",
        "--job",
        "j1",
        "--project",
        folder,
    )
    return folder


def test_help_is_what_it_was(golden: Callable[[str, object], None]) -> None:
    pages = [run("--help").output, *(run(name, "--help").output for name in MODULES)]
    pages += [run("dead-letters", name, "--help").output for name in ("list", "replay")]
    golden("cli-help.txt", "\n".join(pages))


def test_a_command_or_reason_that_is_misspelt_is_told_what_was_meant(folder: Path) -> None:
    for args, meant in ((["inti"], "init"), (["dead-letters", "lst"], "list")):
        result = run(*args)
        assert (2, True) == (result.exit_code, f"Did you mean '{meant}'?" in result.output)
    reason = run("dead-letters", "list", "--reason", "E32", "--project", folder)
    assert (1, True) == (reason.exit_code, "E369" in reason.output)
    assert "did you mean `E3" in reason.output
    assert 0 == run("dead-letters", "list", "--reason", "E322", "--project", folder).exit_code


def test_init_writes_secrets_that_only_the_owner_reads(folder: Path) -> None:
    text = (folder / "penstock.toml").read_text()

    assert stat.S_IMODE((folder / "penstock.toml").stat().st_mode) == 0o600
    assert "<<" not in text
    keys = re.findall(r'(?:_key|read_keys) = \[?"([^"]+)"', text)
    assert len(keys) == len(set(keys)) == 4


def test_what_is_committed_of_a_new_project_holds_no_key_and_nobody(folder: Path) -> None:
    keys = re.findall(r'"([\w-]{24})"', (folder / "penstock.toml").read_text())
    for name in ("people.rejected.csv", "people.rejected.jsonl", "people.parquet"):
        (folder / name).write_text("ann@example.com\n")
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
    subprocess.run(["git", "add", "-A"], cwd=folder, check=True)
    listed = subprocess.run(["git", "ls-files"], cwd=folder, check=True, capture_output=True, text=True)  # fmt: skip

    staged = listed.stdout.split()
    assert len(keys) == 4
    assert {"features.py", "events.py", ".gitignore", "campaigns/welcome.toml"} <= set(staged)
    texts = [(folder / name).read_text() for name in staged]
    assert [one for one in (*keys, "ann@example.com") if any(one in text for text in texts)] == []


def test_init_overwrites_nothing(folder: Path) -> None:
    result = run("init", folder)

    assert result.exit_code == 3
    assert "E213" in result.output


def test_the_template_passes_its_own_cases(folder: Path) -> None:
    assert result_of("test", "--project", folder)["failed"] == 0


def test_a_case_that_fails_is_shown_with_its_line(folder: Path) -> None:
    (folder / "tests" / "test_more.py").write_text("def test_it(driver):\n    assert 1 == 2\n")

    result = run("test", "--project", folder)

    assert result.exit_code == 1
    assert "tests/test_more.py:2: AssertionError: assert 1 == 2" in result.output


def test_load_keeps_what_is_good_and_sets_the_rest_aside(folder: Path) -> None:
    (folder / "items.csv").write_text(ITEMS)

    result = result_of("load", folder / "items.csv", "--as", "items", "--project", folder)

    assert (result["kept"], result["rejected"]) == (2, 2)
    assert [(one["line"], one["code"]) for one in result["reasons"]] == [(3, "E322"), (4, "E211")]
    aside = (folder / "items.rejected.csv").read_text()
    assert aside.splitlines() == [ITEMS.splitlines()[0], ITEMS.splitlines()[2], "p3,a"]


def test_what_is_set_aside_is_its_owners_alone(folder: Path) -> None:
    (folder / "items.csv").write_text(ITEMS)
    aside = folder / "items.rejected.csv"
    aside.write_text("from before\n")
    aside.chmod(0o644)

    result_of("load", folder / "items.csv", "--as", "items", "--project", folder)
    again = stat.S_IMODE(aside.stat().st_mode)
    aside.unlink()
    result_of("load", folder / "items.csv", "--as", "items", "--project", folder)

    assert [again, stat.S_IMODE(aside.stat().st_mode)] == [0o600, 0o600]
    assert "from before" not in aside.read_text()


def test_load_says_which_columns_nothing_declares(folder: Path) -> None:
    (folder / "items.csv").write_text("item_id,title,color,size\np1,Red,red,\np2,Blue,blue,L\n")
    (folder / "people.csv").write_text("email,first_name,nickname\nann@example.com,Ann,An\n")

    items = run("load", folder / "items.csv", "--as", "items", "--project", folder)
    people = result_of("load", folder / "people.csv", "--as", "people", "--project", folder)

    assert items.exit_code == 0
    assert "2 items loaded" in items.stdout
    assert "`color` is declared nowhere: its value was dropped in 2 rows" in items.stderr
    assert "`size` is declared nowhere" in items.stderr
    assert "declare them in events.py" in items.stderr
    assert (people["kept"], people["undeclared"]) == (1, {"nickname": 1})


def test_load_says_which_column_was_meant_and_which_emails_are_none(folder: Path) -> None:
    (folder / "items.csv").write_text("item_id,titel,url\np1,Red,https://shop.example/p1\n")
    (folder / "people.csv").write_text(
        "user_id,email,first_nam\nu1,ann@example.com,Ann\nu2,bob at example.com,Bob\nu3,,Cy\n,none,Di\n"
    )

    items = run("load", folder / "items.csv", "--as", "items", "--project", folder)
    people = run("load", folder / "people.csv", "--as", "people", "--project", folder)
    told = result_of("load", folder / "people.csv", "--as", "people", "--project", folder)

    assert (
        "`titel` is declared nowhere: its value was dropped in 1 rows; did you mean `title`?"
        in items.stderr
    )
    assert "did you mean `first_name`?" in people.stderr
    assert "1 values of `email` are no address" in people.stderr
    assert "bob at" not in people.output
    assert (told["meant"], told["no_addresses"], told["kept"]) == ({"first_nam": "first_name"}, 1, 3)  # fmt: skip


@pytest.mark.parametrize(("separator", "named"), [(";", ";"), ("\t", "tab"), ("|", "|")])
def test_load_says_that_a_file_is_not_separated_by_commas(
    folder: Path, separator: str, named: str
) -> None:
    file = folder / "items.csv"
    file.write_text("\n".join([separator.join(("item_id", "title", "url")), separator.join("abc")]))

    done = run("load", file, "--as", "items", "--project", folder)

    assert "E214" in done.stderr
    assert f"is the separator `{named}`?" in " ".join(done.stderr.split())
    assert done.exit_code != 0


def test_load_says_how_many_events_were_dropped_and_why(folder: Path) -> None:
    granted = {"consent": {"categoryPreferences": {"personalisation": True}}}
    events = [
        {"type": "track", "event": "Product Viewed", "messageId": "1", "userId": "u1", "context": granted,
         "properties": {"product_id": "p1", "colour": "red"}},
        {"type": "track", "event": "Product Veiwed", "messageId": "2", "userId": "u1", "context": granted},
        {"type": "track", "event": "Product Viewed", "messageId": "3", "userId": "u1"},
    ]  # fmt: skip
    (folder / "e.jsonl").write_text("\n".join(json.dumps(one) for one in events) + "\n")
    args = (
        "load",
        folder / "e.jsonl",
        "--as",
        "events",
        "--source",
        "backend",
        "--project",
        folder,
    )

    said, told = run(*args), result_of(*args)

    assert (told["kept"], told["rejected"]) == (1, 0)
    assert told["dropped"] == {"consent_unknown": 1, "undeclared_event": 1}
    assert told["undeclared"] == {"colour": 1}
    assert "1 events loaded" in said.stdout
    assert "1 dropped, and nothing of them kept: undeclared_event" in said.stderr
    assert "1 dropped, and nothing of them kept: consent_unknown" in said.stderr


def test_load_of_a_job_again_changes_nothing(loaded: Path) -> None:
    again = result_of("load", loaded / "events.jsonl", "--as", "events", "--source", "backend", "--job", "j1",
                      "--project", loaded)  # fmt: skip
    run("load", loaded / "items.csv", "--as", "items", "--project", loaded)
    why = result_of("explain", "user_id:u1", "--campaign", "welcome", "--project", loaded)

    assert again["kept"] == 2
    assert why["recorded"] is False
    assert any("Product Viewed p1" in line for line in why["lines"])


@pytest.mark.parametrize("person", ["user_id:u9", "anonymus_id:a1", "cy@example.com"])
def test_explain_of_somebody_who_is_not_known_says_so(loaded: Path, person: str) -> None:
    unknown = run("explain", person, "--campaign", "welcome", "--project", loaded)
    known = run("explain", "ann@example.com", "--campaign", "welcome", "--project", loaded)

    assert (unknown.exit_code, known.exit_code) == (0, 0)
    assert unknown.stdout.startswith("Nothing is known of this person")
    assert person not in unknown.output
    assert "Nothing is known" not in known.stdout


def test_cut_undoes_what_joined_two_and_says_so(loaded: Path) -> None:
    done = run("cut", "user_id:u1", "ann@example.com", "--project", loaded)
    again = run("cut", "ann@example.com", "u1", "--project", loaded)
    refused = run("cut", "u1", "ann@exmaple.com", "--project", loaded)

    assert 0 == done.exit_code, done.output
    assert done.output.startswith("Cut: user_id and email, joined since ")
    assert "by `identify` (verified)" in done.output
    assert "nothing has joined them since" in again.output
    assert (1, True) == (refused.exit_code, "E344" in refused.output)
    assert "exmaple" not in refused.output


@pytest.mark.parametrize("name", ["items.xlsx", "items"])
def test_load_of_an_unknown_kind_of_file_says_which_are_known(folder: Path, name: str) -> None:
    (folder / name).write_text("x")

    result = run("load", folder / name, "--as", "items", "--project", folder)

    assert result.exit_code == 3
    assert "E212" in result.output
    assert ".csv" in result.output


def test_send_mails_each_person_once(loaded: Path) -> None:
    dry = result_of("send", "welcome", "--dry-run", "--project", loaded)
    first = result_of("send", "welcome", "--send", "s1", "--project", loaded)
    second = result_of("send", "welcome", "--send", "s1", "--project", loaded)
    emails = list((loaded / "outbox").glob("*.eml"))

    assert (dry["outcomes"], len(dry["sample"])) == ({"member": 1}, 1)
    assert (first["outcomes"], second["outcomes"]) == ({"accepted": 1}, {"already": 1})
    assert len(emails) == 1
    assert b"List-Unsubscribe-Post: List-Unsubscribe=One-Click" in emails[0].read_bytes()
    assert "ann@example.com" not in json.dumps([dry, first, second])


def test_a_send_with_links_that_lead_nowhere_is_refused(loaded: Path) -> None:
    settings = loaded / "penstock.toml"
    smtp = 'kind = "smtp"\nhost = "192.0.2.25"'  # nobody's address, by RFC 5737
    text = settings.read_text().replace('kind = "directory"', smtp).replace('path = "outbox"', "")
    settings.write_text(text)

    sent = run("send", "welcome", "--send", "s1", "--project", loaded)
    doctor = run("doctor", "--project", loaded)

    assert (sent.exit_code, doctor.exit_code) == (3, 3)
    for told in (sent.output, " ".join(doctor.output.split())):
        assert "E253" in told
        assert "`server.public_url` is not set" in told
        assert "https://mail.shop.example" in told


def test_a_send_that_the_esp_does_not_take_says_so_and_fails(loaded: Path) -> None:
    settings = loaded / "penstock.toml"
    text = settings.read_text()
    # Given an ESP that is not there
    smtp = 'kind = "smtp"\nport = 1'
    settings.write_text(text.replace('kind = "directory"', smtp).replace('path = "outbox"', ""))
    away = run("send", "welcome", "--send", "s1", "--project", loaded)
    settings.write_text(text)
    again = run("send", "welcome", "--send", "s1", "--project", loaded)

    assert (away.exit_code, again.exit_code) == (1, 0)
    told = re.sub(r" +", " ", away.output)
    assert " 0 sent\n" in told
    assert " 1 refused: E406\n" in told
    assert "Nothing went out." in told
    assert " 1 sent\n" in re.sub(r" +", " ", again.output)


@pytest.mark.parametrize(
    "sender", ["", "news at shop.example", "Shop <news@shop.example>", "ä@b.c"]
)
def test_a_sender_that_is_no_address_is_an_error_with_its_line(loaded: Path, sender: str) -> None:
    settings = loaded / "penstock.toml"
    text = settings.read_text()
    settings.write_text(text.replace("news@shop.example", sender))

    result = run("send", "welcome", "--project", loaded)

    line = text.splitlines().index('sender = "news@shop.example"') + 1
    assert result.exit_code == 3
    assert "E260" in result.output
    assert f"penstock.toml:{line})" in result.output
    assert not (loaded / "outbox").exists()


def test_a_campaign_from_nowhere_is_an_error_with_its_line(loaded: Path) -> None:
    campaign = loaded / "campaigns" / "welcome.toml"
    campaign.write_text(campaign.read_text() + 'from = "news"\n')

    result = run("send", "welcome", "--project", loaded)

    assert result.exit_code == 2
    assert "E159" in result.output
    assert f"campaigns/welcome.toml:{len(campaign.read_text().splitlines())})" in result.output
    assert not (loaded / "outbox").exists()


def test_send_of_what_does_not_exist_says_so(folder: Path) -> None:
    campaign = run("send", "nothing", "--project", folder)
    audience = run("send", "welcome", "--audience", "nobody", "--project", folder)

    assert ("E399" in campaign.output, "E367" in audience.output) == (True, True)
    assert campaign.exit_code != 0
    assert audience.exit_code != 0


def test_dead_letters_are_listed_and_replayed_by_new_definitions(loaded: Path) -> None:
    # Events of a file are set aside there, so one is sent through the collector's own door here.
    listed = result_of("dead-letters", "list", "--project", loaded)
    replayed = result_of("dead-letters", "replay", "--project", loaded)

    assert (listed["pending"], replayed["accepted"]) == (0, 0)
    aside = json.loads(run("load", loaded / "events.jsonl", "--as", "events", "--source", "backend",
                           "--project", loaded, "--json").stdout)  # fmt: skip
    assert {one["code"] for one in aside["reasons"]} == {"E211", "E322"}
    assert "secret-value" not in json.dumps(aside)


def test_replay_gives_the_same_bytes(loaded: Path) -> None:
    result = result_of("replay", "--project", loaded)

    assert result["leaves_different"] == 0
    assert result["leaves_equal"] >= 4
    assert result["definitions_changed"] is False


def findings(text: str) -> str:
    """What doctor printed, without what differs from machine to machine."""
    text = re.sub(r"python [\d.]+, penstock [\d.]+\w*", "python X, penstock X", text)
    text = re.sub(r"fold and intake: (by|in) .*", "fold and intake: by one of the two", text)
    return re.sub(r"in \d+ ms", "in N ms", text)


def test_doctor_says_what_is_right(loaded: Path, golden: Callable[[str, object], None]) -> None:
    done = run("doctor", "--project", loaded)

    assert done.exit_code == 0
    golden("doctor.txt", findings(done.stdout))


def test_doctor_says_what_is_wrong_and_ends_with_the_worst(
    folder: Path, golden: Callable[[str, object], None]
) -> None:
    pages = []
    settings = folder / "penstock.toml"
    text = settings.read_text()
    # Given an ESP that is not there, and a key that is not set
    smtp = text.replace('kind = "directory"', 'kind = "smtp"\nport = 1').replace(
        'path = "outbox"', ""
    )
    settings.write_text(re.sub(r"admin_key = .*", "", smtp))
    pages.append(run("doctor", "--project", folder))
    settings.write_text(text)
    # Given a template that does not parse
    hero = folder / "content" / "hero.liquid"
    hero.write_text("<p>\n{% if item.title %}\n</p>")
    pages.append(run("doctor", "--project", folder))
    # Given slots that do not load, and settings that do not either
    (folder / "slots.py").write_text("from penstock.dsl.slots import slot\nhero = slot(\n")
    pages.append(run("doctor", "--project", folder))
    settings.write_text(text.replace("read_keys", "read_key"))
    pages.append(run("doctor", "--project", folder))

    assert [page.exit_code for page in pages] == [69, 2, 2, 3]
    told = "\n".join(findings(page.stdout) for page in pages)
    golden("doctor-faults.txt", told.replace(str(folder), "SHOP"))


def test_doctor_shows_where_settings_come_from_and_no_secret(folder: Path) -> None:
    text = run("doctor", "--verbose", "--project", folder).stdout
    told = json.loads(run("doctor", "--json", "--project", folder).stdout)

    details = next(one["details"] for one in told if one["what"].startswith("settings"))
    assert "server.host = '127.0.0.1' (default)" in text
    assert details["project.currency"] == "'USD' (penstock.toml)"
    settings = (folder / "penstock.toml").read_text()
    secrets = re.findall(r'(?:_key|read_keys) = \[?"([^"]+)"', settings)
    assert len(secrets) == 4
    assert [one for one in secrets if one in text or one in json.dumps(told)] == []


def test_doctor_finds_leaves_that_are_gone_and_replay_brings_them_back(loaded: Path) -> None:
    with closing(sqlite3.connect(loaded / "data" / "store.db")) as store:
        assert store.execute("DELETE FROM leaves").rowcount > 0
        store.commit()

    gone = run("doctor", "--project", loaded)
    refused = run("replay", "--project", loaded)
    still = run("doctor", "--project", loaded)
    accepted = result_of("replay", "--accept", "--project", loaded)
    good = run("doctor", "--project", loaded)

    assert (gone.exit_code, refused.exit_code, still.exit_code, good.exit_code) == (70, 70, 70, 0)
    assert "E711: 4 events that the store says it applied are in no leaf" in gone.stdout
    assert "penstock replay --accept" in gone.stdout
    assert "E710: 4 leaves differ" in refused.stderr
    assert (accepted["definitions_changed"], accepted["switched"]) == (False, True)


def test_a_leaf_that_does_not_decode_is_found_and_rebuilt(loaded: Path) -> None:
    with closing(sqlite3.connect(loaded / "data" / "store.db")) as store:
        changed = store.execute(
            "UPDATE leaves SET parts = substr(parts, 1, length(parts) - 4)"
        ).rowcount
        store.commit()

    damaged = run("doctor", "--project", loaded)
    accepted = result_of("replay", "--accept", "--project", loaded)
    good = run("doctor", "--project", loaded)

    assert changed == 4
    assert (damaged.exit_code, "E704" in damaged.stdout) == (70, True)
    assert (accepted["switched"], good.exit_code) == (True, 0)


def test_the_fix_of_damaged_leaves_mends_them(loaded: Path) -> None:
    with closing(sqlite3.connect(loaded / "data" / "store.db")) as store:
        store.execute("UPDATE leaves SET crc = crc + 1")
        store.commit()

    found = run("doctor", "--project", loaded)
    fix = re.findall(r"`penstock (.+?)`", found.stdout)
    mended = run(*fix[-1].split(), "--project", loaded)
    good = run("doctor", "--project", loaded)

    assert (found.exit_code, mended.exit_code, good.exit_code) == (70, 0, 0)
    assert "E704" in found.stdout
    assert fix[-1] == "replay --accept"


def test_the_fix_of_a_store_that_does_not_open_mends_it(loaded: Path) -> None:
    path = loaded / "data" / "store.db"
    path.write_bytes(b"this is no database" + path.read_bytes()[19:])

    found = run("doctor", "--project", loaded)
    path.rename(loaded / "store.db.damaged")  # as it says
    sent = result_of("send", "welcome", "--project", loaded)
    good = run("doctor", "--project", loaded)

    assert (found.exit_code, good.exit_code) == (70, 0)
    assert "E707: the store is damaged" in found.stdout
    assert "fix: move the file away" in found.stdout
    assert sent["seen"] == 1
    # Four events, a decision and an email sent.
    assert "conserved: 6 accepted" in good.stdout


def test_a_data_folder_that_can_not_be_made_is_an_error_with_its_fix(folder: Path) -> None:
    (folder / "data").write_text("a file")

    for command in (["up", folder, "--port", "0"], ["doctor", "--project", folder]):
        result = run(*command)
        assert result.exit_code == 3
        assert "E218: the data folder can't be made" in result.output
        assert "fix: set `data_dir`" in result.output


def test_only_the_owner_looks_into_the_data_folder(loaded: Path) -> None:
    assert stat.S_IMODE((loaded / "data").stat().st_mode) == 0o700


def test_a_slot_that_names_a_missing_feature_is_an_error_with_its_line(folder: Path) -> None:
    text = (folder / "slots.py").read_text().replace('viewed="viewed"', 'viewed="viewd"')
    (folder / "slots.py").write_text(text)

    result = run("test", "--project", folder)

    assert result.exit_code == 2
    assert "E150" in result.output
    assert "viewed" in result.output  # did you mean


def test_an_unknown_setting_names_the_nearest(folder: Path) -> None:
    text = (folder / "penstock.toml").read_text().replace("read_keys", "read_key")
    (folder / "penstock.toml").write_text(text)

    result = run("doctor", "--project", folder)

    assert result.exit_code == 3
    assert "E202" in result.output
    assert "server.read_keys" in result.output


def test_a_liquid_error_names_the_file_and_line(folder: Path) -> None:
    (folder / "content" / "hero.liquid").write_text("<p>\n{% if item.title %}\n</p>")

    result = run("doctor", "--project", folder)

    assert result.exit_code == 2
    assert "E141" in result.output
    assert "hero.liquid" in result.output
