"""The admin API from the outside: who may use it, and what each route does."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import httpx
import pytest
from litestar import Litestar
from tests_serving import Shop, identify, opened, view

from penstock.adapters.esp.memory import MemoryEsp
from penstock.application import admin_parts
from penstock.cli.client import _InProcess
from penstock.compose import Node, Stores, make_links
from penstock.core.ids import LeafId
from penstock.edges.admin import routes
from penstock.edges.admin.sends import stop_sends
from penstock.ports.appender import Waits
from penstock.ports.esp import HandOver
from penstock.ports.store import Store
from penstock.project import Project

ADMIN = {"Authorization": "Bearer admin-key"}
ROUTES = [
    ("POST", "/v1/admin/load"),
    ("POST", "/v1/admin/sends"),
    ("POST", "/v1/admin/explain"),
    ("GET", "/v1/admin/dead-letters"),
    ("POST", "/v1/admin/dead-letters/replay"),
    ("GET", "/v1/admin/status"),
    ("POST", "/v1/admin/cut"),
]


async def call(shop: Shop, path: str, body: dict[str, Any], status: int = 200) -> Any:
    answer = await shop.http.post(path, json=body, headers=ADMIN)
    assert answer.status_code == status, answer.text
    return answer.json()


async def status_of(shop: Shop) -> Any:
    return (await shop.http.get("/v1/admin/status", headers=ADMIN)).json()


async def send(shop: Shop, **body: Any) -> list[dict[str, Any]]:
    answer = await shop.http.post(
        "/v1/admin/sends", json={"campaign": "spring", "audience": "viewers", **body}, headers=ADMIN
    )
    assert answer.headers["content-type"].startswith("application/x-ndjson")
    return [json.loads(line) for line in answer.text.splitlines()]


def carried_by(node: Node, esp: MemoryEsp) -> httpx.AsyncClient:
    """Reach a node's admin routes, with another ESP behind them."""
    parts = admin_parts(node, make_links(node, "http://shop"))
    campaigning = parts.campaigning

    def carried(edition):
        found = campaigning(edition)
        found.esp = lambda: esp
        return found

    parts = parts._replace(campaigning=carried)
    app = Litestar(routes.admin_handlers(parts), openapi_config=None, logging_config=None)
    return httpx.AsyncClient(transport=_InProcess(app), base_url="http://shop")


@pytest.mark.parametrize(
    "shown", ["", "Bearer", "Bearer admin-ke", "Bearer read-key", "Basic admin-key", "Bearer é"]
)
@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_whoever_does_not_show_the_key_is_refused_before_the_body_is_read(
    play, method, path, shown
):
    async def story(shop: Shop) -> None:
        # A body that no decoder would survive, were it read.
        answer = await shop.http.request(method, path, content=b"[" * 100_000,
                                         headers={"Authorization": shown.encode()})  # fmt: skip
        assert (answer.status_code, answer.json()["code"]) == (401, "E379")

    play(story)


def test_an_empty_key_in_the_settings_lets_nobody_in(folder):
    from penstock.project import load_project

    text = (folder / "penstock.toml").read_text().replace('admin_key = "admin-key"', "")
    (folder / "penstock.toml").write_text(text)

    async def story() -> None:
        async with opened(load_project(folder)) as shop:
            for shown in ("Bearer ", "Bearer", ""):
                answer = await shop.http.get("/v1/admin/status", headers={"Authorization": shown})
                assert answer.status_code == 401

    asyncio.run(story())


def test_a_request_of_another_shape_is_refused_without_its_values(play):
    async def story(shop: Shop) -> None:
        answer = await call(shop, "/v1/admin/explain", {"campaign": ["ann@example.com"]}, 400)
        assert answer["code"] == "E397"
        assert "ann@example.com" not in json.dumps(answer)

    play(story)


# -- load


def test_rows_of_a_file_wait_while_live_events_do(play) -> None:
    async def story(shop: Shop) -> None:
        waits = [Waits(0, routes.LOAD_WAITS_MS_MAX + 1), Waits(0, 0)]
        parts = admin_parts(shop.node, make_links(shop.node, "http://shop"))
        parts = parts._replace(waits=lambda: waits.pop(0))
        app = Litestar(routes.admin_handlers(parts), openapi_config=None, logging_config=None)
        body = {"kind": "items", "rows": [{"item_id": "p1"}], "source": "crm", "job": "j"}
        async with httpx.AsyncClient(transport=_InProcess(app), base_url="http://shop") as http:
            put_off = await http.post("/v1/admin/load", json=body, headers=ADMIN)
            kept = await http.post("/v1/admin/load", json=body, headers=ADMIN)
        assert (429, "E410", "1") == (
            put_off.status_code, put_off.json()["code"], put_off.headers["retry-after"],
        )  # fmt: skip
        assert (200, 1) == (kept.status_code, kept.json()["kept"])

    play(story)


def test_rows_are_kept_and_refusals_name_their_place(play):
    rows = [
        {"item_id": "p1", "title": "Shoe", "price": "19.99"},
        {"title": "no id"},
        {"item_id": "p2", "price": "x"},
    ]

    async def story(shop: Shop) -> None:
        done = await call(
            shop, "/v1/admin/load", {"kind": "items", "rows": rows, "source": "crm", "job": "j"}
        )
        assert done["kept"] == 1
        assert [(one["index"], one["code"]) for one in done["refused"]] == [
            (1, "E363"),
            (2, "E322"),
        ]

    play(story)


def test_rows_loaded_twice_as_one_job_count_once(play):
    rows = [{"type": "track", "event": "Product Viewed", "userId": "u1", "messageId": "m1",
             "properties": {"product_id": "p1"}, "context": {"consent": {"categoryPreferences": {"personalisation": True}}}}]  # fmt: skip

    async def story(shop: Shop) -> None:
        for _ in range(2):
            await call(
                shop,
                "/v1/admin/load",
                {"kind": "events", "rows": rows, "source": "backend", "job": "j"},
            )
        profile = await shop.read("/v1/profiles/user_id:u1")
        assert profile["features"]["views_7d"] == 1

    play(story)


def test_what_does_not_exist_is_named_with_what_is_near(play):
    async def story(shop: Shop) -> None:
        loaded = {"kind": "items", "rows": [], "source": "cmr", "job": "j"}
        source = await call(shop, "/v1/admin/load", loaded, 400)
        campaign = await call(
            shop, "/v1/admin/explain", {"campaign": "sprng", "user_id": "u1"}, 400
        )
        sends = [
            (await send(shop, **body))[-1]["error"]
            for body in ({"campaign": "x"}, {"audience": "viewer"})
        ]
        assert (source["code"], campaign["code"]) == ("E365", "E399")
        assert ("`crm`" in source["fix"], "`spring`" in campaign["fix"]) == (True, True)
        assert [one["code"] for one in sends] == ["E399", "E367"]
        assert "`viewers`" in sends[1]["fix"]

    play(story)


# -- explain


def test_explain_says_whether_the_decision_stands_and_what_is_behind_it(play):
    async def story(shop: Shop) -> None:
        await shop.send(identify(), view("p1"))
        ask = {"campaign": "spring", "email": "ann@example.com", "send": "s1"}
        before = await call(shop, "/v1/admin/explain", ask)
        decided = await shop.read("/v1/decide/spring", user_id="u1", send="s1")
        after = await call(shop, "/v1/admin/explain", ask)
        assert (before["recorded"], after["recorded"]) == (False, True)
        assert after["explanation"]["decision_id"] == decided["decision_id"]
        assert any("Product Viewed p1" in line for line in after["lines"])
        assert "ann@example.com" not in json.dumps(after)

    play(story)


def test_explain_shows_one_slot_if_asked(play):
    async def story(shop: Shop) -> None:
        body = {"campaign": "spring", "user_id": "u1"}
        one = await call(shop, "/v1/admin/explain", {**body, "slot": "hero"})
        none = await call(shop, "/v1/admin/explain", {**body, "slot": "nothing"})
        assert [slot["slot"] for slot in one["explanation"]["slots"]] == ["hero"]
        assert none["explanation"]["slots"] == []

    play(story)


# -- sends


def test_a_send_reports_its_progress_and_its_end(play, folder):
    people = [f"u{number}" for number in range(2 * routes.REPORT_EVERY + 1)]

    async def story(shop: Shop) -> None:
        for user in people:
            await shop.send(identify(user, None, f"{user}@example.com"), view("p1", user))
        lines = await send(shop, send="s1")
        assert [line["done"] for line in lines] == [False, False, True]
        assert [line["outcomes"]["accepted"] for line in lines] == [20, 40, 41]
        assert (lines[-1]["seen"], lines[-1]["in_doubt"]) == (41, [])
        assert (await send(shop, send="s1"))[-1]["outcomes"] == {"already": 41}
        assert len(list((folder / "outbox").glob("*.eml"))) == 41

    play(story)


def test_a_dry_run_counts_and_samples_and_sends_nothing(play, folder):
    async def story(shop: Shop) -> None:
        await shop.send(identify("u1", None, "u1@example.com"), view("p1", "u1"))
        await shop.send(identify("u2", None, "u2@example.com"))
        (line,) = await send(shop, dry_run=True)
        assert line["outcomes"] == {"member": 1, "skipped:when_false": 1}
        token = line["sample"][0]
        asked = await shop.http.get("/v1/decide/spring", params={"email_token": token, "preview": 1},
                                    headers={"Authorization": "Bearer read-key"})  # fmt: skip
        assert asked.json()["ok"] is True
        assert not (folder / "outbox").exists()

    play(story)


def test_emails_in_doubt_are_listed_by_token_and_handed_over_again_only_if_asked(project: Project):
    answers = iter([HandOver("in_doubt", ""), HandOver("accepted", "250")])
    esp = MemoryEsp(lambda _: next(answers))

    async def story() -> None:
        async with opened(project) as shop, carried_by(shop.node, esp) as http:
            await shop.send(identify("u1", None, "u1@example.com"), view("p1", "u1"))
            other = shop._replace(http=http)
            doubt = (await send(other, send="s1"))[-1]
            again = (await send(other, send="s1"))[-1]
            looked_up = await shop.http.post("/v1/profiles/lookup", json={"email_token": doubt["in_doubt"][0]},
                                             headers={"Authorization": "Bearer read-key"})  # fmt: skip
            retried = (await send(other, send="s1", retry_in_doubt=True))[-1]
            assert (doubt["outcomes"], again["outcomes"]) == ({"in_doubt": 1}, {"in_doubt": 1})
            assert again["in_doubt"] == doubt["in_doubt"]
            assert looked_up.json()["features"]["views_7d"] == 1
            assert (retried["outcomes"], retried["in_doubt"]) == ({"accepted": 1}, [])
            assert "u1@example.com" not in json.dumps([doubt, again, retried])

    asyncio.run(story())


class Held(MemoryEsp):
    """An ESP that says when it is given an email, and answers when it is told to."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(self._hold)
        self.loop = loop
        self.given, self.release = asyncio.Event(), asyncio.Event()

    def _hold(self, _: str) -> HandOver:
        self.loop.call_soon_threadsafe(self.given.set)
        asyncio.run_coroutine_threadsafe(self.release.wait(), self.loop).result()
        return HandOver("accepted", "250")


def test_a_send_that_runs_is_not_started_again(project: Project):
    async def story() -> None:
        esp = Held(asyncio.get_running_loop())
        async with opened(project) as shop, carried_by(shop.node, esp) as http:
            await shop.send(identify("u1", None, "u1@example.com"), view("p1", "u1"))
            other = shop._replace(http=http)
            first = asyncio.create_task(send(other, send="s1"))
            await esp.given.wait()
            second = (await send(other, send="s1", retry_in_doubt=True))[-1]
            esp.release.set()
            assert second["error"]["code"] == "E415"
            assert (await first)[-1]["outcomes"] == {"accepted": 1}
            assert len(esp.delivered) == 1

    asyncio.run(story())


def test_a_send_that_nobody_listens_to_stops_and_goes_on_when_asked_again(project: Project):
    async def story() -> None:
        esp = Held(asyncio.get_running_loop())
        async with opened(project) as shop, carried_by(shop.node, esp) as http:
            for number in range(30):
                await shop.send(
                    identify(f"u{number}", None, f"u{number}@example.com"), view("p1", f"u{number}")
                )
            body = {"campaign": "spring", "audience": "viewers", "send": "s1"}
            other = shop._replace(http=http)
            waiting = asyncio.create_task(http.post("/v1/admin/sends", json=body, headers=ADMIN))
            await esp.given.wait()
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
            esp.release.set()
            final = (await send(other, send="s1"))[-1]
            while final.get("error"):  # the first one is still being stopped
                await asyncio.sleep(0)
                final = (await send(other, send="s1"))[-1]
            # What was on its way when it stopped was finished: everybody got one, and none is in doubt.
            recipients = [one.recipient for one in esp.delivered]
            assert final["in_doubt"] == []
            assert final["outcomes"].get("accepted", 0) + final["outcomes"]["already"] == 30
            assert sorted(recipients) == sorted(f"u{number}@example.com" for number in range(30))

    asyncio.run(story())


def test_an_engine_that_stops_tells_who_listens_and_the_send_goes_on_later(project: Project):
    async def story() -> None:
        esp = Held(asyncio.get_running_loop())
        async with opened(project) as shop, carried_by(shop.node, esp) as http:
            await shop.send(identify("u1", None, "u1@example.com"), view("p1", "u1"))
            other = shop._replace(http=http)
            first = asyncio.create_task(send(other, send="s1"))
            await esp.given.wait()
            stop_sends()
            esp.release.set()
            told = (await first)[-1]
            again = (await send(other, send="s1"))[-1]
            assert (told["done"], told["error"]["code"]) == (True, "E416")
            # The email that was on its way is finished first: nothing is in doubt.
            assert (again["outcomes"], again["in_doubt"]) == ({"already": 1}, [])
            assert len(esp.delivered) == 1

    asyncio.run(story())


# -- dead letters, status


def test_letters_are_listed_without_their_event_and_go_in_again(play):
    bad = {"type": "track", "event": "Product Viewed", "messageId": "m1", "userId": "u1",
           "properties": {"product_id": ["ann@example.com"]}}  # fmt: skip

    async def story(shop: Shop) -> None:
        await shop.send(bad)
        listed = (await shop.http.get("/v1/admin/dead-letters", headers=ADMIN)).json()
        others = (
            await shop.http.get("/v1/admin/dead-letters", params={"reason": "E300"}, headers=ADMIN)
        ).json()
        replayed = await call(shop, "/v1/admin/dead-letters/replay", {})
        assert (listed["pending"], others["pending"]) == (1, 0)
        (letter,) = listed["letters"]
        assert (letter["reason"], letter["message_id"], letter["source"]) == (
            "E322",
            "m1",
            "backend",
        )
        assert "product_id" in letter["path"]
        assert "ann@example.com" not in json.dumps(listed)
        assert replayed == {"accepted": 0, "refused": {"E322": 1}, "quarantined": 0, "counted": 0}

    play(story)


def test_letters_of_many_pages_are_all_tried_once(play):
    count = routes.LETTERS_AT_ONCE + 100

    async def story(shop: Shop) -> None:
        for start in range(0, count, 100):
            await shop.send(*({"type": "track", "event": "Product Viewed", "messageId": f"m{n}", "userId": "u1",
                               "properties": {"product_id": [n]}} for n in range(start, start + 100)))  # fmt: skip
        replayed = await call(shop, "/v1/admin/dead-letters/replay", {"reason": "E322"})
        assert replayed["refused"] == {"E322": count}

    play(story)


def test_status_holds_the_conservation_law(play):
    async def story(shop: Shop) -> None:
        await shop.send(identify(), view("p1"), view("p1"))
        await shop.send({"type": "track", "event": "Product Viewed", "messageId": "bad", "userId": "u1",
                         "properties": {"product_id": [1]}})  # fmt: skip
        status = await status_of(shop)
        assert (status["ready"], status["conserved"], status["lag"], status["in_flight"]) == (
            True,
            True,
            0,
            0,
        )
        assert (
            status["accepted"],
            status["applied"],
            status["deduplicated"],
            status["dead_lettered"],
        ) == (4, 2, 1, 1)
        assert status["age_ms"] >= 0

    play(story)


def test_requests_are_counted_by_route(play):
    async def story(shop: Shop) -> None:
        await status_of(shop)
        text = (await shop.http.get("/metrics")).text
        assert 'penstock_requests_total{route="/v1/admin/status",status="200"} 1.0' in text

    play(story)


class Scanned:
    """A store that says when a scan has come to its end, on the thread that scans."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.ended: Callable[[], object] = lambda: None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.store, name)

    def scan(self, epoch: int, after: LeafId | None, limit: int) -> Any:
        page = self.store.scan(epoch, after, limit)
        if not page:
            ended, self.ended = self.ended, lambda: None
            ended()
        return page


def test_the_law_holds_while_leaves_are_written_during_the_audit(project: Project):
    scanned: list[Scanned] = []

    def watched(stores: Stores) -> Stores:
        scanned.append(Scanned(stores.store))
        return replace(stores, store=scanned[0])  # type: ignore[arg-type]

    async def story() -> None:
        async with opened(project, watched) as shop:
            await shop.send(view("p1", "u1"))
            loop = asyncio.get_running_loop()
            more = view("p2", "u1"), view("p3", "u2")
            scanned[0].ended = lambda: asyncio.run_coroutine_threadsafe(
                shop.send(*more), loop
            ).result(10)
            during, after = await status_of(shop), await status_of(shop)
        assert (during["accepted"], during["applied"], during["in_flight"]) == (3, 1, 2)
        assert (after["accepted"], after["applied"], after["in_flight"]) == (3, 3, 0)
        assert (during["conserved"], after["conserved"]) == (True, True)

    asyncio.run(story())
