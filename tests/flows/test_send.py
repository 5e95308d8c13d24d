"""Sending: each person once, nothing against a person's word, and a kill never sends twice."""

import asyncio
from collections.abc import Callable
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from tests_serving import Shop, identify, opened, view

from penstock.adapters.content.html_to_text import html_to_text
from penstock.adapters.esp.memory import MemoryEsp
from penstock.compose import check_emails, make_links
from penstock.core.decision.audience import Audience
from penstock.core.decision.record import decode_decision
from penstock.core.errors import DefinitionError, SettingsError, Unavailable
from penstock.core.record import decode_record
from penstock.flows.compose_email import message_id_of
from penstock.flows.load import load_rows
from penstock.flows.send import Campaigning, Progress, Sender, sum_up
from penstock.flows.serve import Who
from penstock.ports.decisions import DecisionKey
from penstock.ports.esp import HandOver
from penstock.project import Project, load_project

PEOPLE = [("u1", "ann@example.com"), ("u2", "bob@example.com"), ("u3", "cem@example.com")]
Play = Callable[..., Any]


class Mailing(NamedTuple):
    """A shop with people, and everything that an ESP was given."""

    shop: Shop
    esp: MemoryEsp
    campaigning: Campaigning

    async def send(
        self, send: str = "s1", audience: str = "viewers", **more: Any
    ) -> dict[str, int]:
        project = self.shop.node.project
        done = await self.campaigning.send(
            project.campaigns["spring"], project.audiences[audience], send, **more
        )
        await self.shop.node.pump.pump()
        await self.shop.node.engine.settled()
        return done.outcomes

    def recipients(self) -> list[str]:
        return sorted(one.recipient for one in self.esp.delivered)

    def states(self, send: str = "s1") -> list[str]:
        sends = self.shop.node.stores.decisions.sends("spring", send)
        return sorted(state.state for _, state in sends)

    def key(self, address: str, send: str = "s1") -> DecisionKey:
        leaf = self.shop.node.collector.make_leaf("email", address)
        return DecisionKey("default", leaf, "spring", send)

    async def events(self, name: str) -> list[Any]:
        log = self.shop.node.stores.log
        records = [decode_record(one.value) for one in log.read(0, 0, 10_000)]
        return [one for one in records if one.name == name]


def mailing(shop: Shop, esp: Any = None, seeds: tuple[str, ...] = (), **more: Any) -> Mailing:
    esp = MemoryEsp() if esp is None else esp
    node = shop.node
    campaigning = Campaigning(
        serving=node.serving, store=node.stores.store, epoch=node.epoch.number,
        appender=node.engine.appender, esp=lambda: esp, links=make_links(node, "http://shop"),
        sender=Sender("Shop <news@shop.example>", "shop.example", "reply@shop.example", seeds),
        text_of_html=html_to_text, make_leaf=node.collector.make_leaf, **more,
    )  # fmt: skip
    return Mailing(shop, esp, campaigning)


async def populate(shop: Shop) -> None:
    kettle = {"product_id": "p1", "title": "Kettle", "url": "https://shop.example/p1"}
    await load_rows(shop.node.collector, "items", [kettle], source=shop.node.sources["crm"], job="j",
                    first=1)  # fmt: skip
    for number, (user, email) in enumerate(PEOPLE):
        await shop.send(identify(user, f"a{number}", email), view("p1", user))


def told(body: Callable[[Mailing], Any], esp: Callable[[], Any] = MemoryEsp, **more: Any) -> Play:
    """Return a story over a shop with people and an ESP."""

    async def story(shop: Shop) -> Any:
        await populate(shop)
        return await body(mailing(shop, esp(), **more))

    return story


class Watched(MemoryEsp):
    """An ESP that looks, tells, or fails while an email is handed over."""

    def __init__(self, during: Callable[[str], HandOver | None]) -> None:
        super().__init__()
        self.during = during

    def send(self, message: EmailMessage, *, sender: str, recipient: str) -> HandOver:
        outcome = self.during(recipient)
        if outcome is not None and outcome.state != "accepted":
            return outcome
        return super().send(message, sender=sender, recipient=recipient)


# ------------------------------------------------------------------------------------- once


def test_each_person_gets_one_email_however_often_it_is_sent(play: Play) -> None:
    async def body(m: Mailing) -> Any:
        return (
            await m.send(),
            await m.send(),
            m.recipients(),
            m.states(),
            await m.events("Email Sent"),
        )

    first, second, recipients, states, events = play(told(body))
    assert first == {"accepted": 3}
    assert second == {"already": 3}
    assert recipients == [email for _, email in PEOPLE]
    assert states == ["accepted"] * 3
    assert len(events) == 3


def test_another_send_of_the_campaign_is_another_email(play: Play) -> None:
    async def body(m: Mailing) -> Any:
        await m.send("s1")
        await m.send("s2")
        return len(m.recipients())

    assert play(told(body)) == 6


def test_a_person_with_two_addresses_gets_one_at_the_newer(play: Play) -> None:
    async def body(m: Mailing) -> Any:
        m.shop.clock.advance(seconds=5)
        await m.shop.send(identify("u1", "a0", "ann@new.example", number=2))
        await m.send()
        return m.recipients()

    assert play(told(body)) == ["ann@new.example", "bob@example.com", "cem@example.com"]


def test_an_address_that_only_a_public_key_claims_gets_nothing(play: Play) -> None:
    async def body(m: Mailing) -> Any:
        await m.shop.send(identify("u9", "a9", "stranger@example.com"), view("p1", "u9", "a9"),
                          key="web-key")  # fmt: skip
        await m.send()
        return m.recipients()

    assert play(told(body)) == [email for _, email in PEOPLE]


def test_progress_is_told_after_every_email(play: Play) -> None:
    seen: list[Progress] = []

    async def body(m: Mailing) -> Any:
        return await m.send(progress=seen.append)

    play(told(body))
    assert [sum(one.outcomes.values()) for one in seen] == [1, 2, 3]


# ------------------------------------------------------------------------------------- the email


def test_the_email_carries_what_mail_clients_and_feedback_need(play: Play) -> None:
    async def body(m: Mailing) -> Any:
        await m.send()
        ann = next(one for one in m.esp.delivered if one.recipient == "ann@example.com")
        decision = m.shop.node.stores.decisions.get([m.key("ann@example.com")])[0]
        return ann, decode_decision(decision).decision_id, m.states()

    ann, decision_id, _ = play(told(body))
    message = message_from_bytes(ann.raw, policy=default)
    assert ann.sender == "news@shop.example"
    assert message["From"] == "Shop <news@shop.example>"
    assert message["Reply-To"] == "reply@shop.example"
    assert message["Subject"] == "For you, Ann"
    assert message["Message-ID"] == ann.message_id == message_id_of(decision_id, "shop.example")
    assert message["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
    assert message["List-Unsubscribe"].startswith("<https://mail.shop.example/v1/unsubscribe/")
    assert message.get_content_type() == "multipart/alternative"
    assert [part.get_content_type() for part in message.iter_parts()] == ["text/plain", "text/html"]
    assert "ann@example.com" not in message["List-Unsubscribe"]


def test_the_link_in_the_email_unsubscribes_and_the_next_send_skips(play: Play) -> None:
    async def body(m: Mailing) -> Any:
        await m.send()
        ann = next(one for one in m.esp.delivered if one.recipient == "ann@example.com")
        link = message_from_bytes(ann.raw, policy=default)["List-Unsubscribe"].strip("<>")
        answer = await m.shop.http.post(link.removeprefix("https://mail.shop.example"))
        assert answer.status_code == 200
        return await m.send("s2")

    assert play(told(body)) == {"accepted": 2, "skipped:unsubscribed": 1}


# --------------------------------------------------------------------------- at that instant

UNSUBSCRIBE: dict[str, Any] = {"type": "track", "event": "Unsubscribed", "messageId": "un"}
WITHDRAW: dict[str, Any] = {
    "type": "track", "event": "Segment Consent Preference Updated", "messageId": "w",
    "context": {"consent": {"categoryPreferences": {"personalisation": False}}},
}  # fmt: skip


@pytest.mark.parametrize(
    ("events", "reason"),
    [
        ([UNSUBSCRIBE | {"userId": "u1"}], "unsubscribed"),
        ([UNSUBSCRIBE | {"userId": "u1", "properties": {"topic": "offers"}}], "unsubscribed"),
        ([UNSUBSCRIBE | {"anonymousId": "a0"}], "unsubscribed"),
        ([UNSUBSCRIBE | {"traits": {"email": "ann@example.com"}, "userId": "crm-7",
                         "context": {"traits": {"email": "ann@example.com"}}}], "unsubscribed"),
        ([WITHDRAW | {"userId": "u1"}], "consent"),
        ([WITHDRAW | {"anonymousId": "a0"}], "consent"),
    ],
    ids=["user", "topic", "device", "address", "withdrawal", "withdrawal on a device"],
)  # fmt: skip
def test_a_persons_word_counts_on_whichever_identifier_it_was_given(
    play: Play, events: list[dict[str, Any]], reason: str
) -> None:
    async def body(m: Mailing) -> Any:
        await m.shop.send(*events)
        outcomes = await m.send()
        assert "ann@example.com" not in m.recipients()
        return outcomes

    assert play(told(body)) == {"accepted": 2, f"skipped:{reason}": 1}


def test_another_topic_does_not_stop_this_one_and_a_return_counts(play: Play) -> None:
    async def body(m: Mailing) -> Any:
        await m.shop.send(UNSUBSCRIBE | {"userId": "u1", "properties": {"topic": "news"}},
                          UNSUBSCRIBE | {"userId": "u2", "messageId": "un2"})  # fmt: skip
        m.shop.clock.advance(seconds=5)
        await m.shop.send(
            {"type": "track", "event": "Subscribed", "userId": "u2", "messageId": "s"}
        )
        return await m.send()

    assert play(told(body)) == {"accepted": 3}


def test_what_is_withdrawn_between_the_scan_and_the_hand_over_is_honoured(play: Play) -> None:
    async def body(m: Mailing) -> Any:
        project = m.shop.node.project
        audience, campaign = project.audiences["viewers"], project.campaigns["spring"]
        members = [one async for one, _ in m.campaigning.members(audience, campaign)]
        await m.shop.send(UNSUBSCRIBE | {"userId": "u1"}, WITHDRAW | {"userId": "u2"})
        esp = m.esp
        return sorted([
            await m.campaigning._send_one(esp, campaign, audience, one, "s1", retry_in_doubt=False)
            for one in members
        ])  # fmt: skip

    assert play(told(body)) == ["accepted", "skipped:consent", "skipped:unsubscribe"]


def test_a_withdrawal_after_the_decision_keeps_its_content_in(play: Play) -> None:
    async def body(m: Mailing) -> Any:
        who = Who(m.key("ann@example.com").recipient, "email")
        decided = await m.shop.node.serving.decide("spring", who, "s1")
        await m.shop.send(WITHDRAW | {"userId": "u1"})
        again = await m.shop.node.serving.decide("spring", who, "s1")
        # An audience that asks for no consent: the decided content is all that is at stake.
        everybody = Audience(name="everybody", purpose="")
        done = await m.campaigning.send(m.shop.node.project.campaigns["spring"], everybody, "s1")
        return decided.answer.served, again.answer, done.outcomes, m.recipients()

    served, again, outcomes, recipients = play(told(body))
    assert (served, again.served, again.reason) == ("live", "fallback", "consent")
    assert outcomes.get("accepted") == 2
    assert "ann@example.com" not in recipients


def test_a_complaint_or_a_hard_bounce_stops_everything(play: Play) -> None:
    async def body(m: Mailing) -> Any:
        await m.shop.send(
            {"type": "track", "event": "Email Marked as Spam", "userId": "u1", "messageId": "c"},
            {"type": "track", "event": "Email Bounced", "userId": "u2", "messageId": "b",
             "properties": {"bounce_type": "hard"}},
            {"type": "track", "event": "Email Bounced", "userId": "u3", "messageId": "b3",
             "properties": {"bounce_type": "soft"}},
        )  # fmt: skip
        await m.send()
        return m.recipients()

    assert play(told(body)) == ["cem@example.com"]


# --------------------------------------------------------------------------- kills and troubles


def test_the_start_is_on_record_before_the_hand_over(play: Play) -> None:
    seen: list[str] = []

    async def story(shop: Shop) -> Any:
        await populate(shop)

        def look(recipient: str) -> None:
            seen.extend(
                state.state for key, state in shop.node.stores.decisions.sends("spring", "s1")
                if key == m.key(recipient)
            )  # fmt: skip

        m = mailing(shop, Watched(look))
        return await m.send()

    assert play(story) == {"accepted": 3}
    assert seen == ["started"] * 3


def test_a_kill_after_the_start_is_in_doubt_listed_and_not_sent_again_by_itself(play: Play) -> None:
    async def body(m: Mailing) -> Any:
        await m.send()
        decisions = m.shop.node.stores.decisions
        # As a kill between the start and the outcome leaves it.
        decisions.start_send(m.key("ann@example.com", "s2"), "<x@shop.example>", 1)
        outcomes = await m.send("s2")
        listed = [key.recipient for key, _ in decisions.sends("spring", "s2", state="started")]
        first = len(m.recipients())
        again = await m.send("s2", retry_in_doubt=True)
        return (
            outcomes,
            listed == [m.key("ann@example.com").recipient],
            first,
            again,
            m.states("s2"),
        )

    outcomes, listed, count, again, states = play(told(body))
    assert outcomes == {"in_doubt": 1, "accepted": 2}
    assert listed
    assert count == 5
    assert again == {"accepted": 1, "already": 2}
    assert states == ["accepted"] * 3


@pytest.mark.parametrize(
    ("answers", "outcomes", "later"),
    [
        ([HandOver("refused", "550")], {"refused:550": 1, "accepted": 2},
         {"refused:550": 1, "already": 2}),
        ([HandOver("refused", "451")], {"refused:451": 1, "accepted": 2},
         {"accepted": 1, "already": 2}),
        ([HandOver("in_doubt", "no answer")], {"in_doubt": 1, "accepted": 2},
         {"in_doubt": 1, "already": 2}),
        ([Unavailable("E406", "the ESP is away", fix="retry")], {"refused:E406": 1, "accepted": 2},
         {"accepted": 1, "already": 2}),
        ([ValueError("a surprise")], {"in_doubt": 1, "accepted": 2}, {"in_doubt": 1, "already": 2}),
    ],
    ids=["refused for good", "refused for now", "no answer", "away", "surprise"],
)  # fmt: skip
def test_what_an_esp_does_is_remembered(
    play: Play, answers: list[Any], outcomes: dict[str, int], later: dict[str, int]
) -> None:
    waiting = list(answers)

    def during(_: str) -> HandOver | None:
        if not waiting:
            return None
        answer = waiting.pop()
        if isinstance(answer, BaseException):
            raise answer
        return answer

    async def body(m: Mailing) -> Any:
        return await m.send(), await m.send()

    assert play(told(body, lambda: Watched(during))) == (outcomes, later)


def test_a_sender_that_no_email_can_come_from_is_told_before_the_first(play: Play) -> None:
    async def body(m: Mailing) -> Any:
        m.campaigning.sender = Sender("news at shop.example", "")
        with pytest.raises(DefinitionError) as refused:
            await m.send()
        return refused.value.code, refused.value.where, m.states(), m.recipients()

    assert play(told(body)) == ("E142", "campaigns/spring.toml", [], [])


@pytest.mark.parametrize(
    ("outcomes", "nothing", "faults"),
    [
        ({"accepted": 2, "skipped:unsubscribed": 1}, False, 0),
        ({"already": 2, "refused:550": 1}, False, 0),
        ({"refused:E406": 2}, True, 2),
        ({"accepted": 1, "refused:535": 1, "skipped:E142": 3, "skipped:timeout": 1}, False, 5),
        ({"deferred:quiet_hours": 4}, True, 0),
        ({}, True, 0),
    ],
)
def test_what_a_send_came_to_is_summed_up(
    outcomes: dict[str, int], nothing: bool, faults: int
) -> None:
    total = sum_up(outcomes)

    assert (total.nothing_went_out, total.own_faults) == (nothing, faults)
    kept = [number for reasons in total.kept_back.values() for number in reasons.values()]
    assert total.sent + total.already + total.in_doubt + sum(kept) == sum(outcomes.values())


def test_an_esp_that_does_not_exist_is_one_clear_error(play: Play) -> None:
    async def story(shop: Shop) -> Any:
        await populate(shop)
        m = mailing(shop)

        def missing() -> Any:
            raise SettingsError("E206", "there is no such ESP", fix="name another")

        m.campaigning.esp = missing
        with pytest.raises(SettingsError) as failed:
            await m.send()
        return failed.value.code, m.states()

    assert play(story) == ("E206", [])


def test_an_email_that_mail_clients_would_clip_is_not_sent(folder: Path) -> None:
    (folder / "content" / "email.liquid").write_text(
        "<html><body>{{ slots.hero.html }}" + "<p>lorem ipsum</p>" * 9_000
        + "{{ unsubscribe_url }}</body></html>"
    )  # fmt: skip

    async def story() -> Any:
        async with opened(load_project(folder)) as shop:
            await populate(shop)
            m = mailing(shop)
            seeded = mailing(shop, seeds=("qa@shop.example",))
            with pytest.raises(DefinitionError) as refused:
                check_emails(shop.node)
            return (
                await m.send(),
                await seeded.send("s2"),
                m.recipients(),
                m.states(),
                refused.value.code,
            )

    assert asyncio.run(story()) == (
        {"skipped:E183": 3}, {"skipped:E183": 3, "seed_failed": 1}, [], [], "E183"
    )  # fmt: skip


def test_a_look_at_the_emails_counts_as_no_answer(play: Play) -> None:
    async def story(shop: Shop) -> float:
        check_emails(shop.node)
        return shop.node.metrics.value("penstock_served_total", served="fallback", reason="check")

    assert play(story) == 0


def test_a_campaign_without_a_template_is_refused(project: Project, folder: Path) -> None:
    path = folder / "campaigns" / "spring.toml"
    path.write_text(path.read_text().replace('template = "email"\n', ""))

    async def story() -> str:
        async with opened(load_project(folder)) as shop:
            with pytest.raises(DefinitionError) as refused:
                await mailing(shop).send()
            return refused.value.code

    assert asyncio.run(story()) == "E182"


# ------------------------------------------------------------------------------------- seeds


def test_seeds_get_a_copy_and_leave_no_trace(play: Play) -> None:
    async def body(m: Mailing) -> Any:
        stores = m.shop.node.stores
        before = stores.log.head(0)
        nobody = Audience(name="nobody", purpose="advertising")
        done = await m.campaigning.send(m.shop.node.project.campaigns["spring"], nobody, "s1")
        await m.shop.node.pump.pump()
        copy = message_from_bytes(m.esp.delivered[0].raw, policy=default)
        html = copy.get_body(("html",)).get_content()
        return (
            m.recipients(),
            done.outcomes,
            stores.log.head(0) - before,
            m.states(),
            "/c/" in html,
            "/o/" in html,
        )

    found = play(told(body, seeds=("QA@shop.example", "boss@shop.example")))
    recipients, outcomes, appended, states, *tracked = found
    assert recipients == ["QA@shop.example", "boss@shop.example"]
    assert outcomes == {"skipped:consent": 3}
    assert (appended, states, tracked) == (0, [], [False, False])


def test_the_conservation_law_counts_what_sending_appends(play: Play) -> None:
    async def body(m: Mailing) -> Any:
        await m.send()
        await m.shop.http.get("/metrics")
        value = m.shop.node.metrics.value
        m.shop.node.engine.publish()
        return (
            value("penstock_events_accepted_total"),
            value("penstock_events_applied_total") + value("penstock_events_deduplicated_total")
            + value("penstock_events_policy_dropped_total"),
        )  # fmt: skip

    accepted, accounted = play(told(body))
    assert accepted == accounted == 1 + 6 + 3 + 3
