"""The preview's routes: this machine only, pictures only, and refused where it could be reached from outside."""

import urllib.error
import urllib.request
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from penstock.application import make_app
from penstock.cli.develop import load_items
from penstock.compose import make_node, open_stores
from penstock.core.errors import SettingsError
from penstock.project import Project, load_project
from penstock.settings import DevelopmentSettings, ServerSettings
from penstock.testing.driver import Driver

ROOT = Path(__file__).parents[3]


def ask(url: str, **headers: str) -> tuple[int, bytes, str]:
    request = urllib.request.Request(
        url, headers={k.replace("_", "-"): v for k, v in headers.items()}
    )
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.read(), answer.headers.get_content_type()
    except urllib.error.HTTPError as error:
        return error.code, error.read(), error.headers.get_content_type()


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "shop.attacker.example"},
        {"Host": "127.0.0.1.attacker.example:8080"},
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},
    ],
)
@pytest.mark.parametrize(
    "path", ["/preview", "/preview/api/shop", "/preview/api/email?anonymous_id=a"]
)
def test_other_sites_and_other_names_are_refused(
    shop_url: str, path: str, headers: dict[str, str]
) -> None:
    status, body, _ = ask(shop_url + path, **headers)
    assert (403, "E389") == (status, msgspec.json.decode(body)["code"])


def test_a_picture_is_served_to_the_frame_of_the_email_whose_origin_is_its_own(
    shop_url: str,
) -> None:
    status, body, kind = ask(f"{shop_url}/preview/images/0/p-101.png", Sec_Fetch_Site="cross-site")
    assert (200, "image/svg+xml") == (status, kind)
    assert body.startswith(b"<svg")


@pytest.mark.parametrize("path", [
    "/preview/images/0/p-999.png", "/preview/images/1/p-101.png", "/preview/images/-1/p-101.png",
    "/preview/images/0/..%2Fpenstock.toml", "/preview/images/0/*.png", "/preview/routes.py",
    "/preview/..%2Froutes.py",
])  # fmt: skip
def test_nothing_but_the_pictures_and_the_page_is_served(shop_url: str, path: str) -> None:
    assert 404 == ask(shop_url + path)[0]


def test_an_unknown_campaign_is_said(shop_url: str) -> None:
    status, body, _ = ask(f"{shop_url}/preview/api/email?campaign=winbak&anonymous_id=a")
    assert (400, "E399") == (status, msgspec.json.decode(body)["code"])


def test_a_preview_records_no_decision(shop_url: str) -> None:
    for _ in range(2):
        assert 200 == ask(f"{shop_url}/preview/api/email?campaign=winback&anonymous_id=a-1")[0]
    metrics = ask(f"{shop_url}/metrics")[1].decode()
    assert 'penstock_decisions_total{outcome="made"}' not in metrics


def shop(**settings: object) -> Project:
    project = load_project(ROOT / "examples" / "shop")
    log = msgspec.structs.replace(project.settings.log, kind="memory")
    store = msgspec.structs.replace(project.settings.store, kind="memory")
    changed = msgspec.structs.replace(project.settings, log=log, store=store, **settings)
    return replace(project, settings=changed)


@pytest.mark.parametrize(
    ("host", "development", "where"),
    [
        ("0.0.0.0", DevelopmentSettings(preview=True), "development.preview"),
        ("127.0.0.1", DevelopmentSettings(preview=True, images={"https://a.example/": "absent"}), "https://a.example/"),
    ],
)  # fmt: skip
def test_a_preview_that_strangers_could_open_does_not_start(host, development, where) -> None:
    project = shop(development=development, server=ServerSettings(host=host))
    stores = open_stores(project)
    with pytest.raises(SettingsError) as refused:
        make_app(make_node(project, stores))
    assert ("E219", where) == (refused.value.code, refused.value.where)
    stores.close()


def test_without_the_setting_there_is_no_such_route() -> None:
    project = shop(development=DevelopmentSettings())
    stores = open_stores(project)
    paths = {route.path for route in make_app(make_node(project, stores)).routes}
    assert not [path for path in paths if path.startswith("/preview")]
    stores.close()


def test_the_shelf_is_loaded_once_however_often_it_starts(tmp_path: Path) -> None:
    with Driver(shop()) as driver:
        assert 120 == driver._run(load_items(driver.node))
        heads = driver.stores.log.head(0)
        driver._run(load_items(driver.node))
        records = driver.stores.log.read(0, heads, 500)
        assert 120 == len(records), "copies are in the log"
        assert 120 == driver.node.engine._lanes[0].fold.tally.deduplicated, "and count once"


def test_a_file_of_items_that_is_missing_is_named() -> None:
    with Driver(shop(development=DevelopmentSettings(items="shelf.csv"))) as driver:
        with pytest.raises(SettingsError) as refused:
            driver._run(load_items(driver.node))
        assert "E219" == refused.value.code
