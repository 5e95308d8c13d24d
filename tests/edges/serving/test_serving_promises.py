"""Promises that are easy to break: who an unsubscribe is for, how old an answer is, whom a denial reaches."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import Any

from tests_serving import READ, Shop, identify, opened, view

from penstock.core import tokens
from penstock.core.record import decode_record
from penstock.flows.load import load_rows
from penstock.flows.serve import STANDING_MAX

DENIED = {"consent": {"categoryPreferences": {"personalisation": False, "measurement": False,
                                              "analytics": False, "advertising": False}}}  # fmt: skip


async def unsubscribe_path(shop: Shop, **who: str) -> str:
    html = (await shop.http.get("/v1/render/spring", params=who, headers=READ)).text
    return html.partition("https://mail.shop.example/v1/unsubscribe/")[2].partition('"')[0]


def test_an_email_of_a_fallback_unsubscribes_who_it_is_for(play) -> None:
    async def story(shop: Shop) -> tuple[bool, bool]:
        await shop.send(identify(), view("p1"))
        await shop.read("/v1/decide/spring", user_id="u1")
        shop.clock.advance(seconds=9)
        await shop.http.post("/v1/track", json={
            "type": "track", "event": "Segment Consent Preference Updated", "messageId": "c1",
            "userId": "u1", "context": DENIED, "writeKey": "server-key",
        })  # fmt: skip
        await shop.node.engine.settled()
        token = await unsubscribe_path(shop, user_id="u1")
        key = shop.node.stores.keys.get("token")
        await shop.http.post(f"/v1/unsubscribe/{token}")
        recipient = tokens.verify_unsubscribe(key, token).recipient
        make_leaf = shop.node.collector.make_leaf
        theirs = {make_leaf("user_id", "u1"), make_leaf("email", "ann@example.com")}
        entries = shop.node.stores.suppressions.get([recipient])
        denied = any(entry.denied and one.plane == "email" for one, entry in entries.items())
        return recipient in theirs, denied

    assert play(story) == (True, True)


def test_an_email_for_nobody_links_to_no_unsubscribe(play) -> None:
    async def story(shop: Shop) -> str:
        return await unsubscribe_path(shop)

    assert play(story) == ""


def test_an_unsubscribe_does_not_make_a_user_id_an_address(play) -> None:
    async def story(shop: Shop) -> Any:
        token = await unsubscribe_path(shop, user_id="u-new")
        assert (await shop.http.post(f"/v1/unsubscribe/{token}")).status_code == 200
        await shop.node.engine.settled()
        await shop.send(identify("u-new", None, None), view("p1", "u-new"))
        return await shop.read("/v1/profiles/user_id:u-new")

    profile = play(story)
    assert profile["identifiers"] == {"user_id": ["u-new"]}
    assert profile["email_token"] == ""


def test_a_decision_about_a_claimed_address_does_not_verify_it(play) -> None:
    async def story(shop: Shop) -> Any:
        await shop.send(identify("u1", "a1", "victim@example.com"), key="web-key")
        await shop.http.post(
            "/v1/decide/spring",
            headers=READ,
            json={"recipients": [{"email": "victim@example.com"}]},
        )
        await shop.node.pump.pump()
        await shop.node.engine.settled()
        answer = await shop.http.post(
            "/v1/profiles/lookup", json={"email": "victim@example.com"}, headers=READ
        )
        return answer.json()

    assert play(story)["email_token"] == ""


def test_a_repeated_answer_says_how_old_it_is(play) -> None:
    async def story(shop: Shop) -> tuple[Any, Any]:
        await shop.send(identify(), view("p1"))
        first = await shop.read("/v1/decide/spring", user_id="u1", send="s")
        shop.clock.advance(hours=5)
        await shop.send(view("p2", number=2))
        return first, await shop.read("/v1/decide/spring", user_id="u1", send="s")

    first, again = play(story)
    assert again["slots"] == first["slots"]
    assert again["age_ms"] == 5 * 3_600_000
    assert again["profile_as_of"] == first["profile_as_of"]


def test_what_is_asked_again_is_the_same_from_memory_and_from_the_store(play) -> None:
    async def story(shop: Shop) -> list[Any]:
        await shop.send(identify(), view("p1"))
        asked = {"user_id": "u1", "send": "s"}
        answers = [await shop.read("/v1/decide/spring", **asked) for _ in range(3)]
        standing = shop.node.serving._standing
        assert len(standing) == 1
        standing.clear()
        # An encoded query, and another spelling of the same person, are the same question.
        answers += [await shop.read("/v1/decide/spring", **asked) for _ in range(2)]
        answers.append(
            (await shop.http.get("/v1/decide/spring?user%5Fid=u1&send=%73", headers=READ)).json()
        )
        assert shop.node.metrics.value("penstock_decisions_total", outcome="made") == 1
        assert shop.node.metrics.value("penstock_decisions_total", outcome="repeated") == 5
        assert shop.node.metrics.value("penstock_served_total", served="live", reason="") == 6
        return answers

    first, *others = play(story)
    assert others == [first] * 5


def test_a_withdrawal_empties_an_answer_that_is_asked_again(play) -> None:
    async def story(shop: Shop) -> tuple[Any, Any]:
        shoe = {"id": "p1", "title": "Red shoe", "url": "https://shop.example/p1"}
        await load_rows(
            shop.node.collector, "items", [shoe], source=shop.node.sources["crm"], job="j", first=1
        )
        await shop.send(identify(), view("p1"))
        for _ in range(2):
            first = await shop.read("/v1/decide/spring", user_id="u1", send="s")
        shop.clock.advance(seconds=9)
        await shop.http.post("/v1/track", json={
            "type": "track", "event": "Segment Consent Preference Updated", "messageId": "c1",
            "userId": "u1", "context": DENIED, "writeKey": "server-key",
        })  # fmt: skip
        return first, await shop.read("/v1/decide/spring", user_id="u1", send="s")

    first, after = play(story)
    assert (first["served"], after["served"], after["reason"]) == ("live", "fallback", "consent")
    assert after["slots"]["hero"]["items"] != first["slots"]["hero"]["items"]


def test_only_so_many_answers_are_kept(play) -> None:
    async def story(shop: Shop) -> int:
        serving = shop.node.serving
        await shop.send(view("p1"))
        await shop.read("/v1/decide/spring", user_id="u1", send="s")
        (kept,) = serving._standing.items()
        for number in range(STANDING_MAX - 1):
            serving._standing[kept[0]._replace(send=f"{number}")] = kept[1]
        await shop.read("/v1/decide/spring", user_id="u1", send="another")
        assert kept[0] not in serving._standing
        return len(serving._standing)

    assert play(story) == STANDING_MAX


def test_a_denial_under_a_public_key_reaches_the_person_it_names(play) -> None:
    async def story(shop: Shop) -> Any:
        await shop.send(identify(), view("p1"))
        shop.clock.advance(seconds=9)
        await shop.http.post("/v1/track", json={
            "type": "track", "event": "Segment Consent Preference Updated", "messageId": "c1",
            "userId": "u1", "anonymousId": "a-not-seen-before", "context": DENIED, "writeKey": "web-key",
        })  # fmt: skip
        await shop.node.engine.settled()
        return await shop.read("/v1/profiles/user_id:u1")

    profile = play(story)
    assert (profile["features"], profile["permitted"]) == ({}, [])


def test_an_open_after_a_withdrawal_is_kept_without_permission(play) -> None:
    async def story(shop: Shop) -> list[tuple[str, ...]]:
        await shop.send(identify(), view("p1"))
        html = (
            await shop.http.get("/v1/render/spring", params={"user_id": "u1"}, headers=READ)
        ).text
        pixel = html.partition("https://mail.shop.example")[2].partition('"')[0]
        assert pixel.startswith("/o/")
        shop.clock.advance(hours=1)
        await shop.http.post("/v1/track", json={
            "type": "track", "event": "Segment Consent Preference Updated", "messageId": "c1",
            "userId": "u1", "context": DENIED | {"traits": {"email": "ann@example.com"}},
            "writeKey": "server-key",
        })  # fmt: skip
        shop.clock.advance(hours=1)
        await shop.http.get(pixel)
        kept = [decode_record(entry.value) for entry in shop.node.stores.log.read(0, 0, 1_000)]
        return [one.evidence.granted for one in kept if one.name == "Email Opened"]

    assert play(story) == [()]


def test_one_bad_recipient_does_not_cost_the_others_their_content(play) -> None:
    async def story(shop: Shop) -> Any:
        answer = await shop.http.post("/v1/decide/spring", headers=READ, json={
            "recipients": [{"emial": "typo@example.com"}, {"user_id": "u1"}],
        })  # fmt: skip
        return answer.status_code, [one["served"] for one in answer.json()["answers"]]

    assert play(story) == (200, ["fallback", "live"])


class Broken:
    """A decision store with a bug."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def find(self, decision_id: str) -> Any:
        raise ValueError("canary@example.com")


def test_a_bug_is_no_stack_trace_and_no_broken_link(project) -> None:

    async def story() -> list[Any]:
        async with opened(
            project, lambda s: dataclasses.replace(s, decisions=Broken(s.decisions))
        ) as shop:
            key = shop.node.stores.keys.get("token")
            click = tokens.sign_click(key, "0" * 32, "https://shop.example/p1")
            pixel = tokens.sign_open(key, "0" * 32)
            return [
                await shop.http.get(f"/c/{click}", params={"u": "https://shop.example/p1"}),
                await shop.http.get(f"/o/{pixel}.gif"),
            ]

    click, pixel = asyncio.run(story())
    assert (click.status_code, click.headers["location"]) == (302, "https://shop.example/p1")
    assert (pixel.status_code, pixel.headers["content-type"]) == (200, "image/gif")
