"""The past by replay: what was served then is served again, and a recorded decision is checked."""

import random
from collections.abc import Callable
from typing import Any

import pytest
from msgspec import structs
from tests_serving import Shop, identify, view

from penstock.core import segment
from penstock.core.decision.record import decode_decision
from penstock.core.time import format_instant
from penstock.flows.history import History, Known, index_closed
from penstock.flows.serve import Who

Play = Callable[..., Any]
ADMIN = {"Authorization": "Bearer admin-key"}
SAME = (
    "found",
    "features",
    "traits",
    "consent",
    "permitted",
    "identifiers",
    "email_token",
    "withheld",
)


async def seeded(shop: Shop, seed: int, steps: int = 40) -> list[tuple[str, int, str, dict]]:
    """Live through a seeded history; return what was served at each point, by offset and instant."""
    dice = random.Random(seed)
    served = []
    for number in range(steps):
        user, device = f"u{dice.randrange(3)}", f"a{dice.randrange(4)}"
        event = dice.choice([
            view(f"p{number}", user, dice.choice([None, device])),
            view(f"p{number}", None, device),
            identify(user, dice.choice([None, device]), dice.choice([None, f"{user}@example.com"]), number),
            {"type": "track", "event": "Order Completed", "userId": user, "messageId": f"o{number}",
             "properties": {"products": [{"product_id": f"p{dice.randrange(number + 1)}"}]}},
            {"type": "alias", "userId": user, "previousId": f"u{dice.randrange(3)}", "messageId": f"al{number}"},
        ])  # fmt: skip
        await shop.send(event, key=dice.choice(["server-key", "server-key", "web-key"]))
        asked = f"user_id:u{dice.randrange(3)}"
        seen = await shop.read(f"/v1/profiles/{asked}")
        at = format_instant(shop.clock.now_ms())
        served.append((asked, shop.node.stores.log.head(0) - 1, at, seen))
        shop.clock.advance(ms=dice.choice([1, 60_000, 3_600_000, 90_000_000]))
    return served


@pytest.mark.parametrize("seed", range(4))
def test_what_was_served_then_is_served_again(play: Play, seed: int) -> None:
    async def story(shop: Shop) -> list:
        different = []
        for asked, offset, at, seen in await seeded(shop, seed):
            for known_at, as_of in ((at, None), (str(offset), seen["as_of"])):
                params = {"known_at": known_at, **({"as_of": as_of} if as_of else {})}
                again = await shop.read(f"/v1/profiles/{asked}", **params)
                assert again["served"] == "past"
                if any(seen[name] != again[name] for name in SAME):
                    different.append((asked, known_at))
        return different

    assert play(story) == []


def test_the_index_and_the_tail_together_find_what_reading_everything_finds(
    play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(segment, "SEGMENT_RECORDS", 16)

    async def story(shop: Shop) -> Any:
        await seeded(shop, 7, steps=60)
        log, index = shop.node.stores.log, shop.node.stores.index
        leaf = shop.node.collector.make_leaf("user_id", "u1")
        whole = [one for one in log.read(0, 0, 10_000) if segment.leaf_of(one.value) == leaf]
        assert index.covered(0) == 0
        indexed = index_closed(log, index)
        reads = []

        class Counted:
            partitions, generations = 1, log.generations

            def first(self, partition: int) -> int:
                return log.first(partition)

            def head(self, partition: int) -> int:
                return log.head(partition)

            def read(self, partition: int, offset: int, limit: int) -> list:
                found = log.read(partition, offset, limit)
                reads.extend(found)
                return found

        found = [
            entry.record
            for entry in History(Counted(), index).entries([leaf], Known())  # type: ignore[arg-type]
        ]
        return indexed, log.head(0), whole == found, len(reads), len(whole)

    indexed, head, same, reads, own = play(story)
    assert same
    assert indexed == head // 16 * 16
    assert own < reads <= own + 16 < head


def test_a_bound_cuts_the_records_of_index_and_tail_alike(play: Play) -> None:
    async def story(shop: Shop) -> Any:
        await seeded(shop, 3)
        leaf = shop.node.collector.make_leaf("user_id", "u0")
        every = shop.node.history.entries([leaf], Known())
        middle = every[len(every) // 2].record
        offsets = [one.record.offset for one in every]
        assert shop.node.history.entries([leaf], Known(offset=-1)) == []
        by_offset = shop.node.history.entries([leaf], Known(offset=middle.offset))
        by_time = shop.node.history.entries([leaf], Known(at_ms=middle.logged_at_ms - 1))
        return offsets, [one.record.offset for one in by_offset], len(by_time), middle.offset

    offsets, cut, earlier, middle = play(story)
    assert cut == [one for one in offsets if one <= middle]
    assert earlier < len(cut)


def test_the_future_is_refused(play: Play) -> None:
    async def story(shop: Shop) -> list:
        await shop.send(view("p1"))
        codes = []
        for known_at in ("2999-01-01T00:00:00Z", "99", "yesterday", "-1"):
            answer = await shop.http.get(
                "/v1/profiles/user_id:u1", params={"known_at": known_at},
                headers={"Authorization": "Bearer read-key"},
            )  # fmt: skip
            codes.append((answer.status_code, answer.json()["code"]))
        return codes

    assert play(story) == [(400, "E388"), (400, "E388"), (400, "E396"), (400, "E396")]


def test_what_was_withdrawn_since_is_not_shown(play: Play) -> None:
    async def story(shop: Shop) -> Any:
        await shop.send(view("p1"))
        who = Who(shop.node.collector.make_leaf("user_id", "u1"), "user_id")
        await shop.node.serving.decide("spring", who)
        before, at = shop.node.stores.log.head(0) - 1, format_instant(shop.clock.now_ms())
        seen = await shop.read("/v1/profiles/user_id:u1")
        shop.clock.advance(days=1)
        withdrawn = {"consent": {"categoryPreferences": {"personalisation": False}}}
        await shop.send(
            {"type": "track", "event": "Segment Consent Preference Updated", "userId": "u1",
             "messageId": "w", "context": withdrawn},
        )  # fmt: skip
        again = await shop.read("/v1/profiles/user_id:u1", known_at=str(before))
        decided = await explain(shop, at=at)
        return (
            seen["features"]["views_7d"],
            again["features"],
            again["permitted"],
            decided["checked"],
        )

    views, features, permitted, checked = play(story)
    assert views == 1
    assert features == {}
    assert permitted == ["measurement"]
    assert (checked["state"], checked["uncompared"]) == ("withheld", ["bought", "viewed"])


# --------------------------------------------------------------------- decisions, explained


async def explain(shop: Shop, **asked: str) -> dict:
    body = {"campaign": "spring", "user_id": "u1", **asked}
    answer = await shop.http.post("/v1/admin/explain", json=body, headers=ADMIN)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_a_past_decision_is_explained_and_agrees_with_a_replay(play: Play) -> None:
    async def story(shop: Shop) -> Any:
        await shop.send(identify(), view("p1", "u1", "a1"))
        undecided = format_instant(shop.clock.now_ms())
        shop.clock.advance(hours=1)
        who = Who(shop.node.collector.make_leaf("user_id", "u1"), "user_id")
        await shop.node.serving.decide("spring", who)
        decided = format_instant(shop.clock.now_ms())
        shop.clock.advance(hours=1)
        await shop.send(view("p2"), view("p3"))
        shop.clock.advance(days=3)
        return [await explain(shop, at=at) for at in (undecided, decided, "")]

    before, then, now = play(story)
    assert (before["recorded"], before["checked"]) == (False, {})
    assert before["explanation"]["slots"][0]["features"]["viewed"] == ["p1"]
    assert then["recorded"]
    assert then["checked"]["state"] == "agrees"
    assert "the recorded values agree" in then["lines"][-1]
    assert then["explanation"]["slots"][0]["features"]["viewed"] == ["p1"]
    assert "Product Viewed p1" in then["explanation"]["evidence"]["viewed"][0]
    assert not now["recorded"]
    assert sorted(now["explanation"]["slots"][0]["features"]["viewed"]) == ["p1", "p2", "p3"]


def test_a_record_that_differs_from_its_replay_is_said_to(play: Play) -> None:
    async def story(shop: Shop) -> Any:
        await shop.send(identify(), view("p1"))
        who = Who(shop.node.collector.make_leaf("user_id", "u1"), "user_id")
        outcome = await shop.node.serving.decide("spring", who)
        _, raw = shop.node.stores.decisions.find(outcome.answer.decision_id)
        decision = decode_decision(raw)
        (slot,) = decision.slots
        forged = structs.replace(slot, features={**slot.features, "viewed": ["p9"]})
        check = shop.node.past().check
        return (
            await check(decision, who),
            await check(structs.replace(decision, slots=(forged,)), who),
            await check(structs.replace(decision, definitions="other"), who),
            await check(structs.replace(decision, served="holdout"), who),
        )

    true, forged, other, held = play(story)
    assert (true.state, true.differing) == ("agrees", {})
    assert (forged.state, forged.differing) == ("differs", {"hero": ["viewed"]})
    assert "DIFFER in viewed" in forged.line
    assert (other.state, held.state) == ("other_definitions", "nothing_read")


def test_many_decisions_of_a_seeded_run_agree_with_their_replay(play: Play) -> None:
    async def story(shop: Shop) -> list[str]:
        dice = random.Random(5)
        made = []
        for number in range(30):
            user = f"u{dice.randrange(3)}"
            await shop.send(
                dice.choice([view(f"p{number}", user, "a1"), identify(user, "a1", number=number)])
            )
            who = Who(shop.node.collector.make_leaf("user_id", user), "user_id")
            outcome = await shop.node.serving.decide("spring", who, f"s{number}")
            made.append((outcome.answer.decision_id, who))
            shop.clock.advance(hours=dice.randrange(1, 30))
        states = []
        for decision_id, who in made:
            found = shop.node.stores.decisions.find(decision_id)
            states.append((await shop.node.past().check(decode_decision(found[1]), who)).state)
        return states

    assert play(story) == ["agrees"] * 30
