"""Many profiles in one request, identifiers with any sign in them, and what is served when nothing can be read."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

import pytest
from tests_serving import READ, Shop, identify, opened, view

from penstock.core.errors import Unavailable
from penstock.core.ids import LeafId
from penstock.edges.serving.asks import RECIPIENTS_MAX
from penstock.ports.profiles import LeafRead, Profiles


async def read_many(shop: Shop, *people: dict[str, str]) -> list[dict[str, Any]]:
    answer = await shop.http.post("/v1/profiles", json={"people": people}, headers=READ)
    assert answer.status_code == 200, answer.text
    return answer.json()["profiles"]


def test_a_batch_is_what_each_read_by_itself_is(play) -> None:
    async def story(shop: Shop) -> tuple[Any, Any]:
        await shop.send(identify(), view("p1"), view("p2", "u2"))
        token = (await shop.read("/v1/profiles/user_id:u1"))["email_token"]
        people = [
            {"user_id": "u2"}, {"user_id": "u1"}, {"anonymous_id": "a1"}, {"email_token": token},
            {"email": "ann@example.com"}, {"user_id": "nobody"}, {"user_id": "u2"},
        ]  # fmt: skip
        alone = [
            (await shop.http.post("/v1/profiles/lookup", json=one, headers=READ)).json()
            for one in people
        ]
        return alone, await read_many(shop, *people)

    alone, together = play(story)
    assert alone == together


def test_who_is_not_named_well_costs_only_themselves(play) -> None:
    async def story(shop: Shop) -> Any:
        await shop.send(identify(), view("p1"))
        return await read_many(
            shop, {"email_token": "forged"}, {"user_id": "u1"}, {}, {"user_id": " "},
            {"user_id": "u1", "email": "ann@example.com"}, {"anonymous_id": "a1"},
        )  # fmt: skip

    found = play(story)
    assert [(one["served"], one["reason"], one["found"]) for one in found] == [
        ("fallback", "E350", False), ("live", "", True), ("fallback", "E392", False),
        ("fallback", "E393", False), ("fallback", "E392", False), ("live", "", True),
    ]  # fmt: skip


def test_a_batch_has_a_limit_and_may_be_empty(play) -> None:
    async def story(shop: Shop) -> Any:
        many = [{"user_id": "u1"}] * (RECIPIENTS_MAX + 1)
        over = await shop.http.post("/v1/profiles", json={"people": many}, headers=READ)
        return over.status_code, over.json()["code"], await read_many(shop)

    assert play(story) == (400, "E398", [])


def test_a_batch_needs_a_read_key(play) -> None:
    async def story(shop: Shop) -> Any:
        answer = await shop.http.post("/v1/profiles", json={"people": []})
        return answer.status_code, answer.json()["code"]

    assert play(story) == (401, "E391")


@pytest.mark.parametrize("user", ["a/b", "/a", "a//b/", "a%2Fb", "a b", "ü:7", "lookup/x", "?&#"])
def test_a_user_id_may_hold_any_sign(play, user: str) -> None:
    async def story(shop: Shop) -> Any:
        await shop.send(identify(user, None, None), view("p1", user))
        return await shop.read(f"/v1/profiles/user_id:{quote(user, safe='')}")

    found = play(story)
    assert (found["found"], found["identifiers"]) == (True, {"user_id": [user]})


class Slow(Profiles):
    """A read path that can be told to fail."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner
        self.broken = False

    async def read(self, leaves: Sequence[LeafId]) -> LeafRead:
        if self.broken:
            raise Unavailable("E402", "the store did not answer", fix="retry")
        return await self.inner.read(leaves)


def test_without_a_store_a_profile_is_what_was_last_known_or_the_fallback(play) -> None:
    async def story(shop: Shop) -> Any:
        await shop.send(identify(), view("p1"))
        slow = Slow(shop.node.engine)
        shop.node.serving.recall._profiles = slow
        known = await shop.read("/v1/profiles/user_id:u1")
        slow.broken = True
        shop.clock.advance(seconds=7)
        return known, await read_many(shop, {"user_id": "u1"}, {"user_id": "u2"})

    known, (last_known, unread) = play(story)
    assert (last_known["served"], last_known["reason"], last_known["age_ms"]) == (
        "stale", "unavailable_E402", 7_000,
    )  # fmt: skip
    assert last_known["features"] == known["features"]
    assert last_known["profile_as_of"] == known["profile_as_of"]
    assert (unread["served"], unread["reason"], unread["features"]) == (
        "fallback", "unavailable_E402", {},
    )  # fmt: skip


def test_what_was_last_known_is_not_served_against_a_withdrawal(play) -> None:
    async def story(shop: Shop) -> Any:
        await shop.send(identify(), view("p1"))
        slow = Slow(shop.node.engine)
        shop.node.serving.recall._profiles = slow
        await shop.read("/v1/profiles/user_id:u1")
        slow.broken = True
        shop.clock.advance(seconds=7)
        consent = {"categoryPreferences": {"personalisation": False, "measurement": False}}
        await shop.send({
            "type": "track", "event": "Segment Consent Preference Updated", "messageId": "c1",
            "userId": "u1", "context": {"consent": consent},
        })  # fmt: skip
        return await shop.read("/v1/profiles/user_id:u1")

    found = play(story)
    assert (found["served"], found["features"], found["traits"]) == ("fallback", {}, {})


class Mute:
    """A register that does not answer."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def get(self, leaves: Sequence[LeafId]) -> Any:
        raise Unavailable("E403", "the register did not answer", fix="retry")


def test_without_the_register_nothing_personal_is_served(project) -> None:
    async def story() -> Any:
        def muted(stores: Any) -> Any:
            return dataclasses.replace(stores, suppressions=Mute(stores.suppressions))

        async with opened(project, muted) as shop:
            await shop.send(identify(), view("p1"))
            return await shop.read("/v1/profiles/user_id:u1")

    found = asyncio.run(story())
    assert (found["served"], found["reason"], found["features"]) == (
        "fallback", "unavailable_E403", {},
    )  # fmt: skip
