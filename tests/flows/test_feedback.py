"""What mail clients do: kept before it is answered, counted once, and the click goes to what was shown."""

from collections.abc import Callable
from typing import Any

import pytest
from tests_serving import Shop, identify, view

from penstock.compose import make_links
from penstock.core.decision.record import decode_decision
from penstock.core.errors import EventRejected
from penstock.core.record import Record, decode_record
from penstock.flows.evidence import LINES_MAX, events_behind
from penstock.flows.feedback import FETCH_BUCKET_MS, Feedback, Fetch, fetcher_of, require_url
from penstock.flows.serve import Outcome, Who
from penstock.flows.track import CLICKED, DECIDED, OPENED, decision_record, unsubscribe_record

Play = Callable[..., Any]
URL = "https://shop.example/p1?ref=mail"
BROWSER = Fetch("Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36")


def feedback_of(shop: Shop) -> Feedback:
    node = shop.node
    return Feedback(
        decisions=node.stores.decisions, appender=node.engine.appender,
        suppressions=node.stores.suppressions, token_key=make_links(node, "").token_key,
        tenant="default", clock=node.clock, metrics=node.metrics,
    )  # fmt: skip


async def decided(shop: Shop) -> Outcome:
    await shop.send(identify(), view("p1"))
    who = Who(shop.node.collector.make_leaf("email", "ann@example.com"), "email")
    outcome = await shop.node.serving.decide("spring", who, "s1")
    await shop.node.pump.pump()
    await shop.node.engine.settled()
    return outcome


def token(link: str) -> str:
    return link.partition("?")[0].rpartition("/")[2].removesuffix(".gif")


def records(shop: Shop, name: str) -> list[Record]:
    found = [decode_record(one.value) for one in shop.node.stores.log.read(0, 0, 1_000)]
    return [one for one in found if one.name == name]


@pytest.mark.parametrize(
    ("agent", "method", "fetcher"),
    [
        (BROWSER.user_agent, "GET", "human_likely"),
        ("Mozilla/5.0 (Windows; U) Firefox/11.0 (via ggpht.com GoogleImageProxy)", "GET", "proxy"),
        ("Mozilla/5.0", "GET", "prefetch"),
        ("Barracuda-Scanner", "GET", "scanner"),
        ("python-requests/2.31", "GET", "scanner"),
        (BROWSER.user_agent, "HEAD", "scanner"),
        ("", "GET", "unknown"),
    ],
)
def test_who_fetched_is_judged(agent: str, method: str, fetcher: str) -> None:
    assert fetcher_of(Fetch(agent, method)) == fetcher


def test_a_click_is_kept_and_goes_where_the_link_was_signed_for(play: Play) -> None:
    async def story(shop: Shop) -> Any:
        outcome = await decided(shop)
        link = make_links(shop.node, "").click(outcome.answer.decision_id, URL, "hero")
        target = await feedback_of(shop).click(token(link), URL, BROWSER)
        with pytest.raises(EventRejected):
            await feedback_of(shop).click(token(link), "https://evil.example", BROWSER)
        return target, records(shop, CLICKED), outcome

    target, clicks, outcome = play(story)
    assert target == URL
    assert [one.properties for one in clicks] == [{
        "campaign_id": "spring", "campaign_version": 1, "send": "s1",
        "email_id": outcome.answer.decision_id, "link_url": URL, "slot": "hero",
        "fetcher": "human_likely",
    }]  # fmt: skip
    assert clicks[0].leaf == outcome.decision.recipient


def test_fetches_of_the_same_link_within_the_span_count_once(play: Play) -> None:
    async def story(shop: Shop) -> Any:
        outcome = await decided(shop)
        links, feedback = make_links(shop.node, ""), feedback_of(shop)
        one, two = (
            "https://shop.example/" + "x" * 600 + "1",
            "https://shop.example/" + "x" * 600 + "2",
        )

        async def click(url: str) -> None:
            await feedback.click(token(links.click(outcome.answer.decision_id, url)), url, BROWSER)

        for url in (one, one, two):
            await click(url)
        shop.clock.advance(FETCH_BUCKET_MS)
        await click(one)
        for _ in range(3):
            await feedback.open(token(links.pixel(outcome.answer.decision_id)), BROWSER)
        await shop.node.engine.settled()
        return [
            len({record.message_id for record in records(shop, name)}) for name in (CLICKED, OPENED)
        ], max(len(record.message_id) for record in records(shop, CLICKED))

    counts, longest = play(story)
    # Two targets that differ only at their end, and one of them again later, are three clicks.
    assert counts == [3, 1]
    assert longest <= 512


def test_a_link_of_no_decision_redirects_and_leaves_nothing(play: Play) -> None:
    async def story(shop: Shop) -> Any:
        link = make_links(shop.node, "").click("f" * 32, URL)
        return await feedback_of(shop).click(token(link), URL, BROWSER), shop.node.stores.log.head(
            0
        )

    assert play(story) == (URL, 0)


def test_an_unsubscribe_is_in_the_log_and_in_the_register_and_repeating_changes_nothing(
    play: Play,
) -> None:
    async def story(shop: Shop) -> Any:
        outcome = await decided(shop)
        recipient = outcome.decision.recipient
        feedback = feedback_of(shop)
        link = make_links(shop.node, "").unsubscribe(recipient, "offers")
        read = feedback.read_unsubscribe(token(link))
        untouched = shop.node.stores.suppressions.get([recipient])
        for _ in range(2):
            await feedback.unsubscribe(token(link))
        await shop.node.engine.settled()
        register = shop.node.stores.suppressions.get([recipient])
        leaf = shop.node.engine.find(recipient)
        return read.topic, untouched, [(key.name, one.denied) for key, one in register.items()], (
            len(records(shop, "Unsubscribed")), leaf.deduplicated)  # fmt: skip

    topic, untouched, register, counts = play(story)
    assert (topic, untouched) == ("offers", {})
    assert register == [("offers", True)]
    assert counts == (2, 1)


@pytest.mark.parametrize("bad", ["", "x", "🙂", "a.b.c", "A" * 2_000])
def test_a_token_that_is_none_of_ours_changes_nothing(play: Play, bad: str) -> None:
    async def story(shop: Shop) -> Any:
        feedback = feedback_of(shop)
        for ask in (
            feedback.unsubscribe(bad),
            feedback.open(bad, BROWSER),
            feedback.click(bad, URL, BROWSER),
        ):
            with pytest.raises(EventRejected) as refused:
                await ask
            assert bad not in str(refused.value) or len(bad) < 2
        return shop.node.stores.log.head(0)

    assert play(story) == 0


def test_a_click_without_a_target_is_refused() -> None:
    assert require_url(URL) == URL
    with pytest.raises(EventRejected) as refused:
        require_url("")
    assert refused.value.code == "E354"


# ------------------------------------------------------------------------------------- track


def test_a_decision_is_one_event_whose_id_is_the_decisions(play: Play) -> None:
    async def story(shop: Shop) -> Any:
        outcome = await decided(shop)
        await shop.node.pump.pump()
        return outcome, records(shop, DECIDED)

    outcome, found = play(story)
    (one,) = found
    assert one == decision_record(outcome.decision)
    assert (one.message_id, one.leaf) == (outcome.decision.decision_id, outcome.decision.recipient)
    assert one.properties["served"] == "live"
    assert one.evidence.granted == outcome.decision.permitted
    # No address: the leaf's id says who.
    assert [identifier.value for identifier in one.identifiers] == [None]


def test_an_unsubscribe_needs_no_permission_and_names_nobody() -> None:
    one = unsubscribe_record(bytes(16), "*", tenant="t", at_ms=5, message_id="m")
    assert (one.evidence.granted, one.evidence.denied) == ((), ())
    assert (one.properties, one.identifiers[0].value) == ({"topic": "*"}, None)


# ------------------------------------------------------------------------------------- evidence


def test_the_events_behind_a_decision_are_the_newest_that_its_features_fold(play: Play) -> None:
    async def story(shop: Shop) -> Any:
        for number in range(LINES_MAX + 3):
            shop.clock.advance(seconds=1)
            await shop.send(view(f"p{number}"), view(f"p{number}"), view("other", "u2"))
        await shop.send({"type": "page", "userId": "u1", "messageId": "page"})
        outcome = await decided(shop)
        later = await shop.send(view("later"))
        assert later["success"]
        leaf = [shop.node.collector.make_leaf("user_id", "u1")]
        decision = decode_decision(shop.node.stores.decisions.find(outcome.answer.decision_id)[1])
        return events_behind(shop.node.history, leaf, decision, shop.node.project.plan.features)

    found = play(story)
    assert set(found) == {"viewed", "bought"}
    assert found["bought"] == []
    assert len(found["viewed"]) == LINES_MAX
    # The view in `decided` is a copy of an earlier one: it is shown once, where it was first.
    assert " Product Viewed p12 (offset " in found["viewed"][0]
    assert " Product Viewed p11 (offset " in found["viewed"][1]
    assert not any("later" in line or "other" in line for line in found["viewed"])
