"""Wiring: settings become objects that work together, on disk and over real SMTP; or one clear error."""

import asyncio
import logging
import socket
import sys
from collections.abc import Iterator
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from penstock.compose import (
    KEY_NAMES,
    make_campaigning,
    make_esp,
    make_keys,
    make_links,
    make_node,
    open_stores,
    require_reachable_links,
)
from penstock.core.errors import SettingsError, Unavailable
from penstock.core.record import decode_record
from penstock.flows.load import load_rows
from penstock.project import load_project
from penstock.settings import EspSettings
from penstock.testing.clock import HandClock

sys.path.insert(0, str(Path(__file__).parent / "edges" / "serving"))

from tests_serving import (
    GRANTED,
    NOW,
    READ,
    folder,  # noqa: F401
    identify,
    opened,
    project,  # noqa: F401
    view,
)

CANARY = "canary7f3a"


def on_disk(root: Path, **more: str) -> None:
    """Let the project keep its data on disk; `more` replaces lines of its settings."""
    path = root / "penstock.toml"
    text = path.read_text().replace('kind = "memory"', 'kind = "sqlite"')
    for old, new in more.items():
        text = text.replace(old, new)
    path.write_text(text)


# ------------------------------------------------------------------------------------- stores


def test_everything_on_disk_is_there_after_a_restart(folder: Path) -> None:  # noqa: F811
    on_disk(folder)
    project = load_project(folder)  # noqa: F811

    async def life(events: list[dict[str, Any]]) -> dict[str, Any]:
        async with opened(project) as shop:
            if events:
                await shop.send(*events)
            return await shop.read("/v1/profiles/user_id:u1")

    before = asyncio.run(life([identify(), view("p1"), view("p2", None, "a1")]))
    after = asyncio.run(life([]))
    assert before["features"] == after["features"]
    assert after["features"]["views_7d"] == 2
    assert before["identifiers"] == after["identifiers"]


def test_a_data_folder_has_one_owner(folder: Path) -> None:  # noqa: F811
    on_disk(folder)
    project = load_project(folder)  # noqa: F811
    stores = open_stores(project, HandClock(NOW))
    with pytest.raises(Unavailable) as owned:
        open_stores(project, HandClock(NOW))
    assert owned.value.code == "E407"
    stores.close()
    open_stores(project, HandClock(NOW)).close()


def test_keys_are_made_once_and_never_change(folder: Path) -> None:  # noqa: F811
    on_disk(folder)
    project = load_project(folder)  # noqa: F811
    stores = open_stores(project, HandClock(NOW))
    keys = {name: stores.keys.get(name) for name in KEY_NAMES}
    make_keys(stores.keys)
    assert {name: stores.keys.get(name) for name in KEY_NAMES} == keys
    assert len(set(keys.values())) == len(KEY_NAMES)
    assert {len(key) for key in keys.values()} == {32}
    stores.close()
    again = open_stores(project, HandClock(NOW))
    assert {name: again.keys.get(name) for name in KEY_NAMES} == keys
    again.close()


def test_a_log_whose_keys_are_lost_is_not_opened_with_new_ones(folder: Path) -> None:  # noqa: F811
    on_disk(folder)
    project = load_project(folder)  # noqa: F811
    open_stores(project, HandClock(NOW)).close()
    keys = project.data_dir / "keys.json"
    backup = keys.rename(folder / "backup.json")
    with pytest.raises(SettingsError) as lost:
        open_stores(project, HandClock(NOW))
    assert (lost.value.code, keys.exists()) == ("E208", False)
    backup.rename(keys)
    open_stores(project, HandClock(NOW)).close()


@pytest.mark.parametrize(
    ("log", "store", "code"),
    [
        ("memory", "memory", ""),
        ("sqlite", "memory", ""),
        ("memory", "sqlite", "E207"),
        ("tape", "sqlite", "E206"),
        ("sqlite", "cassandra", "E206"),
    ],
)
def test_adapters_are_chosen_by_name_and_must_fit(
    folder: Path,  # noqa: F811
    log: str,
    store: str,
    code: str,
) -> None:
    path = folder / "penstock.toml"
    text = path.read_text().replace('[log]\nkind = "memory"', f'[log]\nkind = "{log}"')
    path.write_text(text.replace('[store]\nkind = "memory"', f'[store]\nkind = "{store}"'))
    if not code:
        open_stores(load_project(folder), HandClock(NOW)).close()
        return
    with pytest.raises(SettingsError) as refused:
        open_stores(load_project(folder), HandClock(NOW))
    assert refused.value.code == code
    assert refused.value.fix


def test_a_log_on_disk_with_a_store_in_memory_is_folded_anew(folder: Path) -> None:  # noqa: F811
    path = folder / "penstock.toml"
    path.write_text(path.read_text().replace('[log]\nkind = "memory"', '[log]\nkind = "sqlite"'))
    project = load_project(folder)  # noqa: F811

    async def life(*events: dict[str, Any]) -> Any:
        async with opened(project) as shop:
            if events:
                await shop.send(*events)
            return (await shop.read("/v1/profiles/user_id:u1"))["features"]["views_7d"]

    assert asyncio.run(life(view("p1"), view("p2"))) == 2
    assert asyncio.run(life(view("p3"))) == 3


def test_an_esp_of_no_known_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as refused:
        make_esp(EspSettings(kind="pigeon"), tmp_path)
    assert refused.value.code == "E206"


@pytest.mark.parametrize("key", ["", " ", "wrong", "web-key", "server-key"])
def test_an_empty_or_a_write_key_reads_nothing(project: Any, key: str) -> None:  # noqa: F811
    async def story() -> int:
        async with opened(project) as shop:
            answer = await shop.http.get(
                "/v1/profiles/user_id:u1", headers={"Authorization": f"Bearer {key}"}
            )
            return answer.status_code

    assert asyncio.run(story()) == 401


def test_links_start_with_the_public_url(project: Any) -> None:  # noqa: F811
    stores = open_stores(project, HandClock(NOW))
    node = make_node(project, stores, clock=HandClock(NOW))
    assert make_links(node, "http://127.0.0.1:1/").public_url == "https://mail.shop.example"
    stores.close()


SMTP_ELSEWHERE = '[esp]\nkind = "smtp"\nhost = "{}"\nport = 1\ntls = "none"\n'


@pytest.mark.parametrize(
    ("relay", "public_url", "refused"),
    [
        ("192.0.2.25", "", "is not set"),
        ("smtp.esp.example", "", "is not set"),
        ("smtp.esp.example", "http://0.0.0.0:8080", "names this machine"),
        ("smtp.esp.example", "http://localhost:8080/", "names this machine"),
        ("smtp.esp.example", "https://[::1]/", "names this machine"),
        ("smtp.esp.example", "https://mail.shop.example", ""),
        ("127.0.0.1", "", ""),
        ("localhost", "http://0.0.0.0:8080", ""),
        ("::1", "", ""),
    ],
)
def test_links_that_only_this_machine_can_follow_go_to_no_relay_elsewhere(
    folder: Path,  # noqa: F811
    relay: str,
    public_url: str,
    refused: str,
) -> None:
    path = folder / "penstock.toml"
    text = path.read_text().replace("https://mail.shop.example", public_url)
    path.write_text(text + SMTP_ELSEWHERE.format(relay))
    project = load_project(folder)  # noqa: F811
    if not refused:
        require_reachable_links(project.settings)
        return

    async def story() -> None:
        async with opened(project) as shop:
            await shop.send(identify(), view("p1"))
            campaigning = make_campaigning(shop.node, make_links(shop.node, "http://0.0.0.0:8080"))
            await campaigning.send(project.campaigns["spring"], project.audiences["viewers"], "s1")

    with pytest.raises(SettingsError) as error:
        asyncio.run(story())
    assert (error.value.code, refused in error.value.what) == ("E253", True)
    assert "server.public_url" in error.value.where


# ------------------------------------------------------------------------------------- real SMTP


class Inbox:
    """A real SMTP server's handler."""

    def __init__(self) -> None:
        self.taken: list[tuple[str, list[str], bytes]] = []

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802
        self.taken.append((envelope.mail_from, envelope.rcpt_tos, envelope.original_content))
        return "250 taken"


@pytest.fixture
def inbox() -> Iterator[tuple[Inbox, int]]:
    handler = Inbox()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    controller = Controller(handler, hostname="127.0.0.1", port=port)
    controller.start()
    yield handler, port
    controller.stop()


def test_a_campaign_goes_out_over_smtp_and_its_one_click_comes_back(
    folder: Path,  # noqa: F811
    inbox: tuple[Inbox, int],
) -> None:
    handler, port = inbox
    path = folder / "penstock.toml"
    path.write_text(
        path.read_text()
        + f'[esp]\nkind = "smtp"\nhost = "127.0.0.1"\nport = {port}\ntls = "none"\n'
        "connections = 2\n"
    )
    project = load_project(folder)  # noqa: F811

    async def story() -> Any:
        async with opened(project) as shop:
            node = shop.node
            kettle = {
                "product_id": "p1",
                "title": "Kettle & Co",
                "url": "https://shop.example/p1",
                "price": "19.99",
            }
            await load_rows(
                node.collector, "items", [kettle], source=node.sources["crm"], job="j", first=1
            )
            await shop.send(identify(first_name="Ännchen"), view("p1"))
            await shop.send(identify("u2", "a2", "bob@example.com"), view("p1", "u2"))
            campaigning = make_campaigning(node, make_links(node, ""))
            send = (project.campaigns["spring"], project.audiences["viewers"], "s1")
            outcomes = [(await campaigning.send(*send)).outcomes for _ in range(2)]
            ann = next(raw for _, to, raw in handler.taken if to == ["ann@example.com"])
            message = message_from_bytes(ann, policy=default)
            link = message["List-Unsubscribe"].strip("<>").removeprefix("https://mail.shop.example")
            answer = await shop.http.post(
                link, content="List-Unsubscribe=One-Click",
                headers={"Content-Type": "application/x-www-form-urlencoded"},
            )  # fmt: skip
            await node.pump.pump()
            await node.engine.settled()
            again = (await campaigning.send(*send[:2], "s2")).outcomes
            names = [decode_record(one.value).name for one in node.stores.log.read(0, 0, 1_000)]
            joined = node.stores.decisions.find(message["Message-ID"].strip("<>").partition("@")[0])
            return outcomes, message, answer.status_code, again, names, joined

    outcomes, message, status, again, names, joined = asyncio.run(story())
    assert outcomes == [{"accepted": 2}, {"already": 2}]
    assert sorted(to for _, to, _ in handler.taken) == [
        ["ann@example.com"], ["bob@example.com"], ["bob@example.com"],
    ]  # fmt: skip
    assert {sender for sender, _, _ in handler.taken} == {"news@shop.example"}
    assert message["Subject"] == "For you, Ännchen"
    assert message["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
    text, html = (part(message, kind) for kind in ("plain", "html"))
    assert "Kettle & Co" in text
    assert "Kettle &amp; Co" in html
    assert "https://mail.shop.example/c/" in html
    assert "utm_campaign" in html.replace("%3D", "=").replace("%26", "&")
    assert "https://mail.shop.example/o/" in html
    assert status == 200
    assert again == {"accepted": 1, "skipped:unsubscribed": 1}
    assert names.count("Email Sent") == 2 + 1
    assert names.count("Decision Made") >= 2
    # The Message-ID leads back to the decision: this is how an ESP's feedback is joined.
    assert joined is not None


def part(message: EmailMessage, kind: str) -> str:
    body = message.get_body((kind,))
    assert body is not None
    return body.get_content()


# ------------------------------------------------------------------------------------- canary

texts = st.text(max_size=4).map(lambda text: f"{CANARY}{text}")
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | texts,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(texts, inner, max_size=2),
    max_leaves=4,
)
FIELDS = (
    "userId", "anonymousId", "previousId", "groupId", "name", "category", "messageId", "timestamp",
    "originalTimestamp", "sentAt", "event", "type", "properties", "traits", "context",
)  # fmt: skip
declared = st.dictionaries(
    st.sampled_from(["product_id", "products", "email", "first_name", "price", "total"]),
    values,
    max_size=4,
)
events = st.fixed_dictionaries(
    {
        "type": st.sampled_from(["track", "identify", "group", "alias", "page"]),
        "event": st.sampled_from(["Product Viewed", "Order Completed", "Unsubscribed"]),
        "userId": texts,
    },
    optional={name: values for name in FIELDS if name not in {"type", "event", "userId"}}
    | {"properties": declared, "traits": declared, "context": st.just(GRANTED)},
)


class Lines(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))


@settings(max_examples=15, suppress_health_check=list(HealthCheck))
@given(batch=st.lists(events, min_size=1, max_size=6))
def test_nothing_that_a_person_sent_is_in_an_error_a_metric_a_log_line_or_a_letters_reason(
    project: Any,  # noqa: F811
    batch: list[dict[str, Any]],
) -> None:
    async def story() -> list[str]:
        async with opened(project) as shop:
            shown: list[str] = []
            for key in ("server-key", "web-key"):
                answer = await shop.http.post("/v1/batch", json={"batch": batch, "writeKey": key})
                assert answer.status_code == 200
                shown += [str([{k: v for k, v in one.items() if k != "messageId"}
                               for one in answer.json().get("rejected", [])])]  # fmt: skip
            await shop.node.engine.settled()
            for path in (f"/v1/profiles/user_id:{CANARY}", f"/v1/profiles/nope:{CANARY}",
                         f"/v1/decide/{CANARY}?user_id={CANARY}", f"/v1/decide/spring?email_token={CANARY}",
                         f"/v1/unsubscribe/{CANARY}", f"/c/{CANARY}?u=x", f"/o/{CANARY}.gif"):  # fmt: skip
                answer = await shop.http.get(path, headers=READ)
                if answer.status_code >= 400:
                    shown.append(answer.text)
            shown += [
                f"{one.reason} {one.path} {one.what}" for one in shop.node.stores.log.dead_letters()
            ]
            shown.append((await shop.http.get("/metrics")).text)
            return shown

    lines = Lines()
    root = logging.getLogger()
    level = root.level
    root.addHandler(lines)
    logging.getLogger("penstock").setLevel(logging.DEBUG)
    try:
        shown = asyncio.run(story())
    finally:
        root.removeHandler(lines)
        root.setLevel(level)
    ours = [line for line in lines.lines if "HTTP Request" not in line]  # the test's own client
    assert CANARY not in "\n".join([*shown, *ours])
