"""A person: their leaves found, resolved and merged, and nothing that consent forbids."""

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import pytest
from tests_serving import GRANTED, Shop, identify, view

from penstock.candidates import definitions_of
from penstock.core.consent.suppression import Suppression, SuppressionKey
from penstock.core.errors import EventRejected
from penstock.core.ids import LeafId
from penstock.core.leaf import Leaf
from penstock.flows.load import load_rows
from penstock.flows.person import READS_MAX, find_person, profile_of
from penstock.ports.profiles import LeafRead

Play = Callable[..., Any]
DENIED = {"consent": {"categoryPreferences": {"personalisation": False, "measurement": True}}}
UPDATED = {"type": "track", "event": "Segment Consent Preference Updated"}


class Counting:
    """The engine's read path, with its reads counted, and something done before each if asked."""

    def __init__(self, shop: Shop) -> None:
        self.engine = shop.node.engine
        self.reads: list[int] = []

    async def read(self, leaves: Sequence[LeafId]) -> LeafRead:
        self.reads.append(len(leaves))
        return await self.engine.read(leaves)


def leaf_id(shop: Shop, id_type: str, value: str) -> LeafId:
    return LeafId(shop.node.collector.make_leaf(id_type, value))


async def profile(shop: Shop, id_type: str, value: str, register: bool = True) -> Any:
    definitions = definitions_of(shop.node.project)
    person = await find_person(shop.node.engine, leaf_id(shop, id_type, value), definitions)
    entries = shop.node.stores.suppressions.get(person.resolution.leaves) if register else None
    return profile_of(person, definitions, None, shop.clock.now_ms(), entries)


async def views(shop: Shop, id_type: str, value: str) -> int | None:
    return (await profile(shop, id_type, value)).features.get("views_7d")


# ------------------------------------------------------------------------------------- leaves


def test_every_identifier_of_a_person_gives_the_same_person(play: Play) -> None:
    async def story(shop: Shop) -> Any:
        await shop.send(
            view("p1", None, "a1"), identify("u1", "a1"), view("p2"), view("p3", None, "a1")
        )
        return [
            await profile(shop, *one)
            for one in (("user_id", "u1"), ("anonymous_id", "a1"), ("email", "ann@example.com"))
        ]  # fmt: skip

    found = play(story)
    assert [one.features["views_7d"] for one in found] == [3, 3, 3]
    assert {one.leaves for one in found} == {found[0].leaves}
    assert found[0].identifiers == {
        "anonymous_id": ["a1"], "email": ["ann@example.com"], "user_id": ["u1"],
    }  # fmt: skip
    assert found[0].email == "ann@example.com"


def test_a_person_is_found_in_one_read_and_three_hops(play: Play) -> None:
    async def story(shop: Shop) -> Any:
        for device in range(6):
            await shop.send(identify("u1", f"a{device}", number=device))
        counting = Counting(shop)
        person = await find_person(
            counting, leaf_id(shop, "anonymous_id", "a3"), definitions_of(shop.node.project)
        )
        return counting.reads, len(person.leaves), person.bounded

    reads, leaves, bounded = play(story)
    assert len(reads) <= READS_MAX
    assert (leaves, bounded) == (8, False)


def test_nobody_is_found_where_there_is_nobody(play: Play) -> None:
    async def story(shop: Shop) -> Any:
        counting = Counting(shop)
        definitions = definitions_of(shop.node.project)
        person = await find_person(counting, leaf_id(shop, "user_id", "nobody"), definitions)
        return person.found, counting.reads, profile_of(person, definitions, None, 5).features

    found, reads, features = play(story)
    assert (found, reads) == (False, [1])
    assert features == {}


def test_beyond_the_bound_the_person_is_cut_and_says_so(play: Play) -> None:
    async def story(shop: Shop) -> Any:
        # A chain of aliases that reaches further than the hops.
        for number in range(6):
            await shop.send({"type": "alias", "userId": f"u{number + 1}", "previousId": f"u{number}",
                             "messageId": f"al{number}"})  # fmt: skip
        await shop.send(view("p1", "u0"))
        person = await find_person(
            shop.node.engine, leaf_id(shop, "user_id", "u0"), definitions_of(shop.node.project)
        )
        answer = await shop.read("/v1/decide/spring", user_id="u0")
        return person.bounded, answer["served"], answer["reason"]

    assert play(story) == (True, "stale", "identity_bound")


def test_a_device_of_two_people_gives_its_events_to_neither(play: Play) -> None:
    async def story(shop: Shop) -> Any:
        await shop.send(view("p1", None, "a1"), identify("u1", "a1"), view("p2", "u1"))
        alone = await views(shop, "user_id", "u1")
        await shop.send(identify("u2", "a1", "bob@example.com"), view("p3", "u2"))
        return alone, [
            await views(shop, *one)
            for one in (("user_id", "u1"), ("user_id", "u2"), ("anonymous_id", "a1"))
        ]

    assert play(story) == (2, [1, 1, 1])


def test_a_claim_is_included_in_the_users_read_and_never_the_reverse(play: Play) -> None:
    async def story(shop: Shop) -> Any:
        await shop.send(identify("u1", None), view("p1", "u1"))
        await shop.send(view("p2", "u1", "stranger"), key="web-key")
        user = await profile(shop, "user_id", "u1")
        stranger = await profile(shop, "anonymous_id", "stranger")
        return (
            user.features["views_7d"],
            stranger.features["views_7d"],
            stranger.identifiers,
            stranger.traits,
        )

    assert play(story) == (2, 1, {"anonymous_id": ["stranger"]}, {})


def test_a_claim_cannot_overwrite_what_a_server_said(play: Play) -> None:
    async def story(shop: Shop) -> Any:
        await shop.send(identify("u1", None))
        shop.clock.advance(seconds=5)
        await shop.send(identify("u1", "stranger", None, first_name="Mallory"), key="web-key")
        return (await profile(shop, "user_id", "u1")).traits["first_name"]

    assert play(story) == "Ann"


# ------------------------------------------------------------------------------------- consent


def test_consent_is_merged_over_the_leaves_and_the_latest_word_counts(play: Play) -> None:
    async def story(shop: Shop) -> Any:
        await shop.send(identify("u1", "a1"), view("p1"))
        shop.clock.advance(seconds=1)
        await shop.send(view("p2", None, "a1") | {"context": DENIED})
        denied = await profile(shop, "user_id", "u1")
        shop.clock.advance(seconds=1)
        await shop.send(view("p3", "u1"))
        return denied, await profile(shop, "user_id", "u1")

    denied, granted = play(story)
    assert (denied.features, denied.traits, denied.consent["personalisation"]) == ({}, {}, "denied")
    assert set(denied.withheld) >= {"email", "first_name"}
    assert "personalisation" not in denied.permitted
    # A mere denial purges nothing: what was permitted when it happened counts again.
    assert granted.features["views_7d"] == 2
    assert granted.consent["personalisation"] == "granted"


def test_a_withdrawal_purges_what_was_before_and_a_new_grant_begins_anew(play: Play) -> None:
    async def story(shop: Shop) -> Any:
        await shop.send(identify("u1", "a1"), view("p1"), view("p2", None, "a1"))
        shop.clock.advance(days=1)
        await shop.send(UPDATED | {"userId": "u1", "messageId": "w", "context": DENIED})
        withdrawn = await profile(shop, "user_id", "u1")
        shop.clock.advance(days=1)
        await shop.send(identify("u1", "a1", None, number=2, first_name="Anna"), view("p3"))
        return withdrawn, await profile(shop, "user_id", "u1")

    withdrawn, again = play(story)
    assert withdrawn.features == {}
    assert again.features == {"viewed": ["p3"], "bought": [], "views_7d": 1}
    # The address was said before the withdrawal, the name after it.
    assert again.traits == {"first_name": "Anna"}


def test_what_is_said_after_a_withdrawal_is_not_outranked_by_what_was_purged(play: Play) -> None:
    async def story(shop: Shop) -> Any:
        collector = shop.node.collector

        await load_rows(collector, "people", [{"email": "ann@example.com", "first_name": "CRM"}],
                        source=shop.node.sources["crm"], job="j", first=1)  # fmt: skip
        await shop.send(identify("u1", None, first_name="Ann"))
        shop.clock.advance(days=1)
        await shop.send(UPDATED | {"userId": "u1", "messageId": "w", "context": DENIED})
        shop.clock.advance(days=1)
        await shop.send(identify("u1", None, None, number=2, first_name="Anna"))
        return (await profile(shop, "user_id", "u1")).traits["first_name"]

    assert play(story) == "Anna"


def test_on_one_identifier_too_a_lower_source_is_heard_after_the_withdrawal(play: Play) -> None:
    async def story(shop: Shop) -> Any:
        collector, crm = shop.node.collector, shop.node.sources["crm"]
        names: list[Any] = []

        async def heard() -> None:
            names.append((await profile(shop, "user_id", "u1")).traits.get("first_name"))
            shop.clock.advance(days=1)

        await load_rows(collector, "people", [{"user_id": "u1", "first_name": "CRM"}], source=crm, job="j", first=1)  # fmt: skip
        await shop.send(identify("u1", None, None, first_name="Ann"))
        await heard()
        await shop.send(UPDATED | {"userId": "u1", "messageId": "w", "context": DENIED})
        shop.clock.advance(days=1)
        await shop.send(view("p1"))
        await heard()
        await shop.send(identify("u1", None, None, number=2, first_name="Anna"))
        await heard()
        await load_rows(collector, "people", [{"user_id": "u1", "first_name": "CRM again"}], source=crm, job="k", first=1)  # fmt: skip
        await shop.node.engine.settled()
        await heard()
        return names

    assert play(story) == ["CRM", None, "Anna", "CRM again"]


def test_the_register_gates_the_read_before_the_fold_has_come_to_the_withdrawal(play: Play) -> None:
    async def story(shop: Shop) -> Any:
        await shop.send(identify("u1", "a1"), view("p1"))
        shop.clock.advance(seconds=1)
        await shop.send(UPDATED | {"anonymousId": "a1", "messageId": "w", "context": DENIED})
        # As before the fold: the ledger of the leaves knows nothing of it.
        for leaf in await leaves(shop):
            leaf.purged = {}
            consent = leaf.own_consent()
            if "personalisation" in consent:
                entry = consent["personalisation"]
                consent["personalisation"] = msgspec.structs.replace(
                    entry, denied=False, at_ms=entry.at_ms - 1_000 if entry.denied else entry.at_ms
                )
        gated = await profile(shop, "user_id", "u1")
        open_ = await profile(shop, "user_id", "u1", register=False)
        return gated.features, open_.features["views_7d"]

    assert play(story) == ({}, 1)


def test_a_withdrawal_that_is_folded_late_hides_what_was_before_it_though_it_was_granted_since(
    play: Play,
) -> None:
    async def story(shop: Shop) -> Any:
        await shop.send(identify("u1", None), view("p1"))
        shop.clock.advance(days=1)
        withdrawn = Suppression(shop.clock.now_ms(), True, 1, "withdrawal")
        shop.clock.advance(days=1)
        await shop.send({**view("p2"), "context": GRANTED})
        before = await profile(shop, "user_id", "u1")
        # It is answered, and the fold has not come to it.
        shop.node.stores.suppressions.put([
            (SuppressionKey(leaf_id(shop, id_type, value), "purpose", "personalisation"), withdrawn)
            for id_type, value in (("user_id", "u1"), ("email", "ann@example.com"))
        ])  # fmt: skip
        after = await profile(shop, "user_id", "u1")
        shop.node.stores.suppressions.put([
            (SuppressionKey(leaf_id(shop, "email", "ann@example.com"), "purpose", "personalisation"),
             Suppression(shop.clock.now_ms() - 1, True, 2, "withdrawal"))
        ])  # fmt: skip
        return before, after, await profile(shop, "user_id", "u1")

    before, after, claimed = play(story)
    assert before.features == {"viewed": ["p2", "p1"], "bought": [], "views_7d": 2}
    assert after.features == {"viewed": ["p2"], "bought": [], "views_7d": 1}
    assert after.consent["personalisation"] == "granted"
    assert claimed.features == after.features, "what was said of an address hides nothing for good"


async def leaves(shop: Shop) -> list[Leaf]:
    read = await shop.node.engine.read(
        [leaf_id(shop, "user_id", "u1"), leaf_id(shop, "anonymous_id", "a1")]
    )
    return [leaf for leaf in read.leaves if leaf is not None]


def test_a_stranger_may_deny_for_somebody_and_not_grant(play: Play) -> None:
    async def story(shop: Shop) -> Any:
        await shop.send(identify("u1", None, None), view("p1", "u1"))
        shop.clock.advance(seconds=1)
        await shop.send(view("p2", "u1") | {"context": DENIED, "messageId": "d"})
        shop.clock.advance(seconds=1)
        await shop.send(view("p3", "u1", "stranger"), key="web-key")
        granted_by_claim = await profile(shop, "user_id", "u1")
        return granted_by_claim.consent["personalisation"], granted_by_claim.features

    assert play(story) == ("denied", {})


# ------------------------------------------------------------------------------------- as of


@pytest.mark.parametrize("offset_ms", [-1, 0, 1, 8 * 86_400_000])
def test_as_of_is_never_before_what_is_known(play: Play, offset_ms: int) -> None:
    async def story(shop: Shop) -> Any:
        await shop.send(view("p1"))
        definitions = definitions_of(shop.node.project)
        person = await find_person(shop.node.engine, leaf_id(shop, "user_id", "u1"), definitions)
        clock_ms = max(leaf.clock_ms for leaf in person.leaves)
        try:
            found = profile_of(person, definitions, clock_ms + offset_ms, 0)
        except EventRejected as error:
            return error.code
        return found.as_of_ms - clock_ms, found.features["views_7d"]

    expected: Any = "E390" if offset_ms < 0 else (offset_ms, 1 if offset_ms < 86_400_000 else 0)
    assert play(story) == expected


def test_now_is_never_before_the_leaf_though_the_clock_was_set_back(play: Play) -> None:
    async def story(shop: Shop) -> Any:
        await shop.send(view("p1"))
        shop.clock.set_back(60_000)
        found = await profile(shop, "user_id", "u1")
        return found.as_of_ms == found.clock_ms, found.features["views_7d"]

    assert play(story) == (True, 1)
