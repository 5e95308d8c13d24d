"""The test endpoints over HTTP: what was accepted and refused since the reset, and whom it makes."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from penstock.application import make_app
from penstock.compose import Node, make_node, open_stores
from penstock.core.errors import SettingsError
from penstock.flows import recording
from penstock.flows.serve import Who
from penstock.ports.clock import Clock
from penstock.project import Project, load_project
from penstock.settings import DevelopmentSettings, ServerSettings
from penstock.testing.clock import HandClock

ROOT = Path(__file__).parents[3]
GRANTED = {"consent": {"categoryPreferences": {"personal": True}}}
DENIED = {"consent": {"categoryPreferences": {"personal": False, "statistics": False}}}


def shop(**settings: object) -> Project:
    project = load_project(ROOT / "examples" / "shop")
    log = msgspec.structs.replace(project.settings.log, kind="memory", partitions=3)
    store = msgspec.structs.replace(project.settings.store, kind="memory")
    changed = {"log": log, "store": store, "development": DevelopmentSettings(test_api=True)}
    return replace(
        project, settings=msgspec.structs.replace(project.settings, **{**changed, **settings})
    )


class Shop:
    """The shop, and how a test of its tracking asks it."""

    def __init__(self, node: Node, http: httpx.AsyncClient) -> None:
        self.node = node
        self.http = http

    async def send(self, *events: dict[str, Any], key: str = "demo-server-key") -> None:
        body = {"batch": [{"context": GRANTED, **one} for one in events], "writeKey": key}
        await self.http.post("/v1/batch", json=body)

    async def ask(self, path: str, **params: Any) -> dict[str, Any]:
        answer = await self.http.get(f"/_test/{path}", params=params)
        assert 200 == answer.status_code, answer.text
        return answer.json()

    async def reset(self) -> None:
        assert {"ok": True} == (await self.http.post("/_test/reset")).json()


@asynccontextmanager
async def opened(clock: Clock | None = None) -> AsyncIterator[Shop]:
    project = shop()
    stores = open_stores(project, clock)
    node = make_node(project, stores)
    await node.start()
    transport = httpx.ASGITransport(app=make_app(node))
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8080") as http:
        yield Shop(node, http)
    await node.close()
    stores.close()


def play(story: Callable[[Shop], Awaitable[Any]], clock: Clock | None = None) -> Any:
    async def main() -> Any:
        async with opened(clock) as shop:
            return await story(shop)

    return asyncio.run(main())


def view(product: str = "p-401", number: int = 1, **more: Any) -> dict[str, Any]:
    return {
        "type": "track", "event": "Product Viewed", "messageId": f"v-{number}", "userId": "u-1",
        "properties": {"product_id": product, "price": 12.5, "mood": "undeclared"}, **more,
    }  # fmt: skip


def test_an_accepted_event_is_shown_as_it_was_kept_and_its_copies_are_counted() -> None:
    async def story(shop: Shop) -> Any:
        await shop.send(view(), view())
        await shop.send(view(anonymousId="a-1"), key="demo-web-key")
        return await shop.ask("accepted")

    found = play(story)
    assert 2 == found["count"]
    first, second = sorted(found["events"], key=lambda event: event["source"])
    assert ("track", "Product Viewed", "v-1", "backend", 2) == (
        first["type"], first["event"], first["message_id"], first["source"], first["copies"]
    )  # fmt: skip
    assert "mood" not in first["properties"]
    assert ("p-401", [1250, "GBP"]) == (
        first["properties"]["product_id"],
        first["properties"]["price"],
    )
    assert {"user_id": ["u-1"]} == first["identifiers"]
    assert "personalisation" in first["consent"]["granted"]
    assert ("web", 1, ["a-1"]) == (
        second["source"],
        second["copies"],
        second["identifiers"]["anonymous_id"],
    )


def test_events_come_in_the_order_of_the_log_whatever_leaf_they_are_of() -> None:
    clock = HandClock(1_790_000_000_000)

    async def story(shop: Shop) -> Any:
        for number in range(12):
            await shop.send(view(number=number, userId=f"u-{number}"))
            clock.advance(ms=1)
        await shop.send(view(number=3, userId="u-3"))
        return await shop.ask("accepted")

    found = play(story, clock)["events"]
    assert [f"v-{number}" for number in range(12)] == [event["message_id"] for event in found]


def test_what_consent_denies_is_shown_bare() -> None:
    async def story(shop: Shop) -> Any:
        await shop.send(view(context=DENIED))
        return await shop.ask("accepted")

    (event,) = play(story)["events"]
    assert (True, {}, {}) == (event["bare"], event["properties"], event["identifiers"])


def test_a_refused_event_says_why_and_holds_no_value() -> None:
    async def story(shop: Shop) -> Any:
        await shop.send(
            view(), {**view(number=2), "properties": {"product_id": ["ann@example.com"]}}
        )
        return await shop.ask("rejected")

    found = play(story)
    (event,) = found["events"]
    assert ("Product Viewed", "v-2", "backend", "$.properties.product_id") == (
        event["event"], event["message_id"], event["source"], event["path"]
    )  # fmt: skip
    assert event["code"].startswith("E3")
    assert event["fix"]
    assert "ann@" not in json.dumps(found)
    assert (1, [], []) == (found["count"], found["discarded"], found["requests"])


def test_what_was_accepted_and_not_kept_says_what_to_do() -> None:
    async def story(shop: Shop) -> Any:
        await shop.send(view(context={}), {**view(number=2), "event": "Trolley Kicked"})
        return await shop.ask("rejected")

    said = {one["message_id"]: one for one in play(story)["discarded"]}
    assert {"v-1": "consent_unknown", "v-2": "undeclared_event"} == {
        name: one["reason"] for name, one in said.items()
    }
    assert "`basis`" in said["v-1"]["what"]
    assert ("Trolley Kicked", "backend") == (said["v-2"]["event"], said["v-2"]["source"])


def test_a_request_that_was_refused_is_shown_by_its_route() -> None:
    async def story(shop: Shop) -> Any:
        await shop.send(view(), key="wrong")
        await shop.http.post("/v1/track", content=b"{" * 40_000)
        await shop.http.get("/v1/projects/wrong/settings")
        await shop.http.get("/sourceConfig", params={"writeKey": "demo-server-key"})
        await shop.http.get("/pixel/v1/track", params={"writeKey": "wrong"})
        return await shop.ask("rejected")

    found = play(story)
    assert [
        ("/v1/batch", "E371"), ("/v1/track", "E372"), ("/v1/projects/{write_key}/settings", "E378"),
        ("/sourceConfig", "E378"), ("/pixel/v1/track", "E371"),
    ] == [(one["route"], one["code"]) for one in found["requests"]]  # fmt: skip
    assert 5 == found["count"]
    assert 0 == len(found["events"])


def test_people_are_made_of_what_came_in_since_the_reset_and_of_nothing_else() -> None:
    async def story(shop: Shop) -> Any:
        known = {"type": "identify", "userId": "u-1", "anonymousId": "a-1", "messageId": "i-1"}
        await shop.send(known, view(), view("p-402", 2))
        before = await shop.ask("profiles")
        await shop.reset()
        empty = await shop.ask("profiles", user_id="u-1")
        # The edge between the two stood before the reset, so the engine appends no link for it again.
        await shop.send({**known, "messageId": "i-2"})
        await shop.send(view("p-403", 3, userId=None, anonymousId="a-1"))
        by_user = await shop.ask("profiles", user_id="u-1")
        by_device = await shop.ask("profiles", anonymous_id="a-1")
        everybody = await shop.ask("profiles")
        user = Who(shop.node.collector.make_leaf("user_id", "u-1"), "user_id")
        await shop.node.engine.settled()
        served = await shop.node.serving.profile(user)
        return before, empty, by_user, by_device, everybody, served[0].features

    before, empty, by_user, by_device, everybody, served = play(story)
    assert (1, 2) == (before["count"], before["profiles"][0]["features"]["views_7d"])
    assert (0, False, 0) == (
        empty["count"], empty["profiles"][0]["found"], empty["profiles"][0]["applied"]
    )  # fmt: skip
    assert everybody == by_user == by_device
    (person,) = by_user["profiles"]
    assert {"user_id": ["u-1"], "anonymous_id": ["a-1"]} == person["identifiers"]
    assert (1, 2) == (person["features"]["views_7d"], person["applied"])
    assert 3 == served["views_7d"]


def test_a_withdrawal_before_the_reset_withholds_nothing_after_it() -> None:
    async def story(shop: Shop) -> Any:
        changed = {
            "type": "track", "event": "Segment Consent Preference Updated", "userId": "u-1",
            "messageId": "c-1", "context": DENIED,
        }  # fmt: skip
        await shop.send(view(), changed)
        before = await shop.ask("profiles")
        await shop.reset()
        await shop.send(view(number=2))
        return before, await shop.ask("profiles")

    before, after = play(story)
    assert [] == before["profiles"][0]["permitted"]
    assert 1 == after["profiles"][0]["features"]["views_7d"]


def test_whoever_waits_hears_as_soon_as_there_is_enough_and_at_the_end_what_there_is() -> None:
    async def story(shop: Shop) -> Any:
        accepted = asyncio.create_task(shop.ask("accepted", count=2, timeout_s=30))
        rejected = asyncio.create_task(shop.ask("rejected", count=1, timeout_s=30))
        await shop.send(view())
        await shop.send(view(number=2))
        await shop.send(view(), key="wrong")
        return await accepted, await rejected, await shop.ask("accepted", count=9, timeout_s=0.05)

    accepted, rejected, late = play(story)
    assert (2, 1, 2) == (accepted["count"], rejected["count"], late["count"])


def test_items_and_what_penstock_says_itself_are_no_accepted_events() -> None:
    async def story(shop: Shop) -> Any:
        row = {"item_id": "p-1", "title": "Wok", "url": "https://shop.example/p/1"}
        body = {"kind": "items", "rows": [row], "source": "crm", "job": "j"}
        admin = {"Authorization": "Bearer demo-admin-key"}
        await shop.http.post("/v1/admin/load", json=body, headers=admin)
        await shop.send(view())
        read = {"Authorization": "Bearer demo-read-key"}
        decided = await shop.http.get("/v1/decide/winback", params={"user_id": "u-1"}, headers=read)
        await shop.node.pump.pump()
        return decided.json()["decision_id"], await shop.ask("accepted")

    decision, found = play(story)
    assert decision
    assert ["v-1"] == [one["message_id"] for one in found["events"]]


def test_reset_forgets_what_was_refused() -> None:
    async def story(shop: Shop) -> Any:
        await shop.send(view(context={}))
        await shop.reset()
        return await shop.ask("rejected"), await shop.ask("accepted")

    rejected, accepted = play(story)
    assert {"count": 0, "events": [], "discarded": [], "requests": []} == rejected
    assert {"count": 0, "events": []} == accepted


@pytest.mark.parametrize("headers", [
    {"Host": "shop.attacker.example"}, {"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"},
])  # fmt: skip
def test_other_sites_and_other_names_are_refused(headers: dict[str, str]) -> None:
    async def story(shop: Shop) -> Any:
        asked = [await shop.http.get(f"/_test/{path}", headers=headers)
                 for path in ("accepted", "rejected", "profiles")]  # fmt: skip
        asked.append(await shop.http.post("/_test/reset", headers=headers))
        return {(one.status_code, one.json()["code"]) for one in asked}

    assert {(403, "E389")} == play(story)


def test_a_question_that_names_nobody_is_refused() -> None:
    async def story(shop: Shop) -> Any:
        asked = await shop.http.get("/_test/profiles", params={"user_id": "", "anonymous_id": "a"})
        return asked.status_code, asked.json()["code"]

    assert (400, "E392") == play(story)


def test_there_is_an_end_to_what_is_told() -> None:
    async def story(shop: Shop) -> Any:
        batch = [view(number=number) for number in range(recording.RECORDS_MAX // 5 + 1)]
        for start in range(5):
            await shop.send(*({**one, "messageId": f"{start}-{one['messageId']}"} for one in batch))
        answer = await shop.http.get("/_test/accepted")
        return answer.status_code, answer.json()["code"]

    assert (400, "E387") == play(story)


def test_where_strangers_could_ask_it_does_not_start() -> None:
    project = shop(server=ServerSettings(host="0.0.0.0"))
    stores = open_stores(project)
    with pytest.raises(SettingsError) as refused:
        make_app(make_node(project, stores))
    assert ("E219", "development.test_api") == (refused.value.code, refused.value.where)
    stores.close()


def test_without_the_setting_there_is_no_such_route() -> None:
    project = shop(development=DevelopmentSettings())
    stores = open_stores(project)
    paths = {route.path for route in make_app(make_node(project, stores)).routes}
    assert not [path for path in paths if path.startswith("/_test")]
    stores.close()
