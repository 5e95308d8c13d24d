"""Files as they come: what can't be read is set aside as it stands, and the rest is loaded."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from penstock.cli.client import in_process
from penstock.cli.main import main
from penstock.cli.readers import read_csv, read_json_lines
from penstock.compose import open_stores
from penstock.project import load_project

HEAD = b"item_id,title,url\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("load") / "shop"
    assert run("init", path).exit_code == 0
    return path


def run(*args: Any) -> Result:
    return CliRunner().invoke(main, [str(arg) for arg in args])


def load(folder: Path, name: str, raw: bytes, kind: str = "items", *more: str) -> tuple[Any, bytes]:
    """Load a file; return the result and what was set aside."""
    file = folder / name
    file.write_bytes(raw)
    aside = file.with_name(f"{file.stem}.rejected{file.suffix}")
    aside.unlink(missing_ok=True)
    done = run("load", file, "--as", kind, "--project", folder, "--json", *more)
    assert done.exception is None or isinstance(done.exception, SystemExit), done.output
    return json.loads(done.stdout), aside.read_bytes() if aside.exists() else b""


def lines_of(result: Any) -> list[tuple[int, str]]:
    return [(one["line"], one["code"]) for one in result["reasons"]]


def test_a_quote_that_nothing_closes_costs_its_own_line_alone(folder: Path) -> None:
    result, aside = load(folder, "a.csv", HEAD + b'p1,Red,u\np2,"broken,u\np3,Blue,u\np4,Green,u\n')

    assert (result["kept"], lines_of(result)) == (3, [(3, "E211")])
    assert aside == HEAD + b'p2,"broken,u\n'


def test_text_of_many_lines_that_is_closed_wrongly_is_not_taken_for_rows(folder: Path) -> None:
    text = b'p2,"one\nx,y,z\ntwo"no,u\n'

    result, aside = load(folder, "b.csv", HEAD + b"p1,Red,u\n" + text + b"p3,Blue,u\n")

    assert (result["kept"], lines_of(result)) == (2, [(3, "E211")])
    assert "up to line 5" in result["reasons"][0]["what"]
    assert aside == HEAD + text


def test_a_cell_of_many_lines_with_quotes_is_one_row(folder: Path) -> None:
    result, aside = load(folder, "c.csv", HEAD + b'p1,"a ""q"",\nb",u\r\n\r\np2,x,u')

    assert (result["kept"], result["rejected"], aside) == (2, 0, b"")


def test_bytes_that_are_no_text_are_set_aside_as_they_are(folder: Path) -> None:
    csv, aside = load(folder, "d.csv", HEAD + b"p1,caf\xe9,u\np2,ok,u\n")
    jsonl, beside = load(
        folder, "d.jsonl", b'{"item_id":"p1","title":"caf\xe9"}\n{"item_id":"p2"}\n'
    )

    assert (csv["kept"], aside) == (1, HEAD + b"p1,caf\xe9,u\n")
    assert (jsonl["kept"], beside) == (1, b'{"item_id":"p1","title":"caf\xe9"}\n')


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (b'{"item_id":"p1","price":NaN}', "no JSON"),
        (b'{"item_id":"p1","price":-Infinity}', "no JSON"),
        (b'{"item_id":"p1","title":"\\ud800"}', "surrogate"),
        (b'{"item_id":"p1","title":' + b"[" * 5_000 + b"]" * 5_000 + b"}", "no JSON"),
        (b'{"item_id":"p1","stock":' + b"9" * 5_000 + b"}", "no JSON"),
        (b'{"item_id":"p1",', "no JSON"),
        (b'{"item_id":"p1","title":"a\x00b"}', "no JSON"),
        (b'["p1"]', "no JSON object"),
        (b'{"item_id":"p1","title":"' + b"x" * (1 << 20) + b'"}', "longer"),
    ],
    ids=["nan", "infinity", "surrogate", "deep", "digits", "cut", "nul", "list", "long"],
)
def test_a_bad_line_is_set_aside_and_the_next_is_loaded(folder: Path, raw: bytes, why: str) -> None:
    result, aside = load(folder, "e.jsonl", raw + b'\n{"item_id":"p2"}')

    assert (result["kept"], lines_of(result)) == (1, [(1, "E211")])
    assert why in result["reasons"][0]["what"]
    assert aside == raw + b"\n"


def test_rows_that_are_large_together_are_loaded_all_the_same(folder: Path) -> None:
    event = {
        "type": "identify",
        "userId": "u1",
        "traits": {"first_name": "Ann"},
        "context": {"page": "x" * 30_000},
    }
    raw = b"".join(json.dumps({**event, "messageId": f"m{n}"}).encode() + b"\n" for n in range(450))

    result, _ = load(folder, "f.jsonl", raw, "events", "--source", "crm")

    assert (result["kept"], result["rejected"]) == (450, 0)


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (b"", "does not begin"),
        (b"\np1,Red,u\n", "does not begin"),
        (b"item_id,title,title\np1,a,b\n", "column 3"),
        (b"item_id,,url\np1,a,b\n", "column 2"),
        (b'item_id,"title\np1,a,b\n', "does not begin"),
        (b"item_id,t\xeftre\np1,a\n", "not UTF-8"),
    ],
    ids=["empty", "blank", "twice", "nameless", "quote", "bytes"],
)
def test_a_header_that_can_not_be_used_is_an_error_with_its_fix(
    folder: Path, raw: bytes, why: str
) -> None:
    (folder / "g.csv").write_bytes(raw)

    done = run("load", folder / "g.csv", "--as", "items", "--project", folder)

    assert done.exit_code == 3
    assert "E214" in done.stderr
    assert why in done.stderr
    assert "fix:" in done.stderr


def test_a_file_of_which_nothing_is_kept_fails(folder: Path) -> None:
    (folder / "h.csv").write_bytes(b"name,title\np1,a\n")

    done = run("load", folder / "h.csv", "--as", "items", "--project", folder)

    assert done.exit_code == 1
    assert "E363" in done.stderr


def test_what_was_set_aside_is_loaded_once_mended(folder: Path) -> None:
    load(folder, "i.csv", HEAD + b'p1,Red,u\np2,"broken,u\n')
    aside = folder / "i.rejected.csv"
    mended = aside.read_bytes().replace(b'"', b"")

    result, _ = load(folder, "i.rejected.csv", mended)

    assert (result["kept"], result["rejected"]) == (1, 0)


def test_a_row_keeps_its_number_when_one_before_it_is_mended(folder: Path) -> None:
    # Under one job a row is known by its number: were rows counted without the bad ones, Bea's second
    # row would now have the number that her first had, and would be taken for it.
    head = b"user_id,email,first_name,updated_at\n"
    first = b"u1,ann@example.com,Ann,2026-01-01T00:00:00Z\n"
    bea = b"u2,bea@example.com,Be,2026-01-01T00:00:00Z\n"
    mended = b"u2,bea@example.com,Bea,2026-01-02T00:00:00Z\n"

    bad, _ = load(
        folder, "j.csv", head + first + mended[:20] + b"\n" + bea, "people", "--job", "crm-1"
    )
    good, _ = load(folder, "j.csv", head + first + mended + bea, "people", "--job", "crm-1")

    assert (bad["kept"], good["kept"]) == (2, 3)
    assert asyncio.run(traits_of(folder, "u2"))["first_name"] == "Bea"


async def traits_of(folder: Path, user: str) -> dict[str, Any]:
    project = load_project(folder)
    stores = open_stores(project)
    key = project.settings.server.read_keys[0]
    async with in_process(project, stores) as (_, http):
        answer = await http.get(
            f"/v1/profiles/user_id:{user}", headers={"Authorization": f"Bearer {key}"}
        )
    stores.close()
    return answer.json()["traits"]


# -- laws of the readers


@given(
    st.lists(
        st.sampled_from(['"', '""', ",", "\n", "\r\n", "a", "b,c", '"x"', "é", "\udce9"]),
        max_size=30,
    )
)
def test_no_text_of_a_csv_file_is_lost(
    tmp_path_factory: pytest.TempPathFactory, parts: list[str]
) -> None:
    file = tmp_path_factory.getbasetemp() / "law.csv"
    body = "".join(parts)
    file.write_bytes(("one,two\n" + body).encode("utf-8", "surrogateescape"))

    rows = list(read_csv(file))

    # Blank lines alone are no rows.
    assert "".join(row.text for row in rows).replace("\r", "").replace("\n", "") == (
        body.replace("\r", "").replace("\n", "")
    )
    assert [row.line for row in rows] == sorted(row.line for row in rows)
    assert all(row.fault or (row.values is not None and len(row.values) == 2) for row in rows)


@given(st.lists(st.dictionaries(st.text(max_size=5), st.text(max_size=10), max_size=3), max_size=8))
def test_what_json_writes_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, objects: list[dict]
) -> None:
    file = tmp_path_factory.getbasetemp() / "law.jsonl"
    file.write_text(
        "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in objects), encoding="utf-8"
    )

    assert [row.values for row in read_json_lines(file)] == objects
