"""Two identifiers that were joined wrongly are cut apart, and everybody is again who they were."""

from __future__ import annotations

from typing import Any

import pytest
from tests_serving import READ, Shop, identify, view

from penstock.core.time import format_instant
from penstock.flows.replay import compare, replay

ADMIN = {"Authorization": "Bearer admin-key"}

U1, A1, A2 = ("user_id", "u1"), ("anonymous_id", "a1"), ("anonymous_id", "a2")
EMAIL = ("email", "ann@example.com")


def between(one: tuple[str, str], other: tuple[str, str]) -> dict[str, Any]:
    return {
        name: {"id_type": id_type, "value": value}
        for name, (id_type, value) in (("one", one), ("other", other))
    }


async def cut(shop: Shop, one: tuple[str, str], other: tuple[str, str], status: int = 200) -> Any:
    answer = await shop.http.post("/v1/admin/cut", json=between(one, other), headers=ADMIN)
    assert answer.status_code == status, answer.text
    await shop.node.engine.settled()
    return answer.json()


async def viewed(shop: Shop, who: tuple[str, str], **params: str) -> Any:
    profile = await shop.read(f"/v1/profiles/{':'.join(who)}", **params)
    return sorted(profile["features"].get("viewed", []))


async def joined_wrongly(shop: Shop) -> None:
    """Let somebody sign in on a device that is not theirs."""
    await shop.send(view("p1", user="u1"), view("p2", user=None, device="a1"))
    await shop.send(identify("u1", device="a1"))


def test_a_cut_gives_each_what_it_had_and_says_what_it_undid(play) -> None:
    async def story(shop: Shop) -> None:
        await joined_wrongly(shop)
        assert await viewed(shop, U1) == await viewed(shop, A1) == ["p1", "p2"]

        report = await cut(shop, U1, A1)

        assert report == {
            "undone": [{"a_type": "user_id", "b_type": "anonymous_id", "rule": "identify", "verified": True,
                        "since": format_instant(shop.clock.now_ms())}]
        }  # fmt: skip
        assert (["p1"], ["p2"]) == (await viewed(shop, U1), await viewed(shop, A1))
        # What else joins the person stands.
        profile = (
            await shop.http.post("/v1/profiles/lookup", json={"email": EMAIL[1]}, headers=READ)
        ).json()
        assert ["p1"] == profile["features"]["viewed"]

    play(story)


def test_the_order_of_the_two_says_nothing_and_a_second_cut_changes_nothing(play) -> None:
    async def story(shop: Shop) -> None:
        await joined_wrongly(shop)

        first = await cut(shop, A1, U1)
        head = shop.node.stores.log.head(0)
        again = await cut(shop, U1, A1)

        assert (1, []) == (len(first["undone"]), again["undone"])
        assert head == shop.node.stores.log.head(0)

    play(story)


def test_a_replay_of_the_log_gives_the_same_leaves(play) -> None:
    async def story(shop: Shop) -> None:
        await joined_wrongly(shop)
        await cut(shop, U1, A1)
        engine, stores = shop.node.engine, shop.node.stores

        replay(stores.log, stores.store, engine.step, engine.epoch + 1)

        found = compare(stores.store, engine.epoch, engine.epoch + 1)
        assert (found.same, found.equal >= 3) == (True, True)

    play(story)


def test_what_said_so_before_joins_nobody_however_late_it_comes(play) -> None:
    async def story(shop: Shop) -> None:
        await joined_wrongly(shop)
        said_at = format_instant(shop.clock.now_ms())
        shop.clock.advance(3_600_000)
        await cut(shop, U1, A1)
        shop.clock.advance(3_600_000)

        # The same call once more, and another of that hour that an SDK had kept.
        now = format_instant(shop.clock.now_ms())
        await shop.send(
            {**identify("u1", device="a1"), "timestamp": said_at, "sentAt": now},
            {**identify("u1", device="a1", number=2), "timestamp": said_at, "sentAt": now},
            {**view("p3", user="u1", device="a1"), "timestamp": said_at, "sentAt": now},
        )

        assert (["p1", "p3"], ["p2"]) == (await viewed(shop, U1), await viewed(shop, A1))

    play(story)


def test_a_later_word_of_a_server_joins_again_and_a_claim_does_not(play) -> None:
    async def story(shop: Shop) -> None:
        await joined_wrongly(shop)
        await cut(shop, U1, A1)
        shop.clock.advance(60_000)

        await shop.send(identify("u1", device="a1", number=2), key="web-key")
        assert ["p1"] == await viewed(shop, U1)

        await shop.send(identify("u1", device="a1", number=3))
        assert await viewed(shop, U1) == await viewed(shop, A1) == ["p1", "p2"]

    play(story)


def test_a_claim_under_a_public_key_is_cut_too(play) -> None:
    async def story(shop: Shop) -> None:
        await shop.send(view("p1", user="u1"), identify("u1", device=None))
        await shop.send(
            view("p2", user=None, device="a2"), identify("u1", device="a2", number=2), key="web-key"
        )
        assert ["p1", "p2"] == await viewed(shop, U1)

        report = await cut(shop, A2, U1)

        # Of the user, and of the address by which the device would have come back.
        assert [False, False] == [one["verified"] for one in report["undone"]]
        assert (["p1"], ["p2"]) == (await viewed(shop, U1), await viewed(shop, A2))

    play(story)


def test_two_users_who_hang_together_by_a_third_are_cut_from_that(play) -> None:
    async def story(shop: Shop) -> None:
        for number, (user, previous) in enumerate((("u1", "u2"), ("u3", "u2"))):
            await shop.send(
                {
                    "type": "alias",
                    "messageId": f"alias-{number}",
                    "userId": user,
                    "previousId": previous,
                }
            )
        await shop.send(view("p1", user="u1"), view("p3", user="u3"))
        assert ["p1", "p3"] == await viewed(shop, U1)

        refused = await cut(shop, U1, ("user_id", "u3"), 400)
        assert ("E344", True) == (refused["code"], "through another user id" in refused["fix"])
        await cut(shop, U1, ("user_id", "u2"))

        assert (["p1"], ["p3"]) == (await viewed(shop, U1), await viewed(shop, ("user_id", "u2")))

    play(story)


def test_the_past_is_as_it_was_known(play) -> None:
    async def story(shop: Shop) -> None:
        await joined_wrongly(shop)
        known_at = str(shop.node.stores.log.head(0) - 1)
        await cut(shop, U1, A1)

        assert ["p1", "p2"] == await viewed(shop, U1, known_at=known_at)

    play(story)


@pytest.mark.parametrize(
    ("one", "other", "code", "fix"),
    [
        (U1, ("user_id", " u1 "), "E345", "name the two"),
        (U1, ("anonymous_id", "nobody"), "E344", "they are not one person"),
        (("nobody", "x"), U1, "E344", "they are not one person"),
        (("item_id", "p1"), U1, "E393", ""),
        (("email", "no address"), U1, "E393", ""),
        (("email_token", "x"), U1, "E350", ""),
    ],
)
def test_what_cannot_be_cut_is_refused_with_what_to_do_instead(play, one, other, code, fix) -> None:
    async def story(shop: Shop) -> None:
        await joined_wrongly(shop)
        head = shop.node.stores.log.head(0)

        answer = await cut(shop, one, other, 400)

        assert (code, True) == (answer["code"], fix in answer["fix"])
        assert not [
            text
            for _, value in (one, other)
            if (text := value.strip()) in str(answer) and len(text) > 2
        ]
        assert head == shop.node.stores.log.head(0)

    play(story)


def test_the_law_of_primaries_does_not_count_a_cut(play) -> None:
    async def story(shop: Shop) -> None:
        await joined_wrongly(shop)
        before = (await shop.http.get("/v1/admin/status", headers=ADMIN)).json()
        await cut(shop, U1, A1)
        after = (await shop.http.get("/v1/admin/status", headers=ADMIN)).json()

        assert (True, before["accepted"]) == (after["conserved"], after["accepted"])

    play(story)
