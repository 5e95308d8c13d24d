"""The example shop as a whole, in one process: events in over HTTP, features and emails out."""

import asyncio
import csv
import email
import email.policy
import shutil
from collections.abc import Iterator
from email.message import EmailMessage
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

from examples.shop.synthetic import Sent, Shoppers, read_catalogue
from penstock.application import make_app
from penstock.compose import Node, make_campaigning, make_links, make_node, open_stores
from penstock.core.consent.evidence import permitted
from penstock.core.decision.record import decode_decision
from penstock.core.profile import Profile
from penstock.core.record import Kind, Record, decode_record
from penstock.core.time import DAY_MS, HOUR_MS, format_instant
from penstock.flows.load import load_rows
from penstock.flows.send import Progress
from penstock.flows.serve import Who
from penstock.flows.status import Conservation, conservation
from penstock.ports.decisions import DecisionKey
from penstock.ports.log import Log
from penstock.project import load_project
from penstock.testing.clock import HandClock
from penstock.testing.oracle import Oracle

SHOP = Path(__file__).parent.parent.parent / "examples" / "shop"
NOW = 1_795_000_000_000
KEYS = {"web": "demo-web-key", "backend": "demo-server-key"}
MEMORY = '\n[log]\nkind = "memory"\n[store]\nkind = "memory"\n'
BATCH = 100


class Decided(NamedTuple):
    """What the shop decided for one person: how it was served, and the products of each slot."""

    served: str
    explored: bool
    hero: str
    source: str
    more: list[str]


class Story(NamedTuple):
    """Everything the shop came to, read once for all tests."""

    shoppers: Shoppers
    events: list[Sent]
    refused: int
    before: Conservation
    after: Conservation
    profiles: dict[str, Profile]
    oracle: dict[str, dict[str, Any]]
    first: Progress
    second: Progress
    letters: dict[str, EmailMessage]
    """By address."""
    decided: dict[str, Decided]
    """By address."""
    files: int


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Story:
    folder = tmp_path_factory.mktemp("shop") / "shop"
    shutil.copytree(SHOP, folder, ignore=shutil.ignore_patterns("__pycache__", "data", "outbox"))
    with (folder / "penstock.toml").open("a", encoding="utf-8") as settings:
        settings.write(MEMORY)
    return asyncio.run(play(folder))


async def play(folder: Path) -> Story:
    shoppers = Shoppers(5, NOW, people=70, weeks=4)
    events = shoppers.events()
    clock = HandClock(events[0].arrives_ms - HOUR_MS)
    project = load_project(folder)
    stores = open_stores(project, clock)
    node = make_node(project, stores, clock=clock)
    await node.start()
    transport = httpx.ASGITransport(app=make_app(node))
    async with httpx.AsyncClient(transport=transport, base_url="http://shop") as http:
        await load(node, shoppers)
        refused = await push(node, http, clock, events)
        clock.advance(NOW - clock.now_ms())
        await node.engine.settled()
        before = law(node)
        profiles = {user: await profile(node, user) for user in shoppers.truth.emails}
        oracle = {user: ask_oracle(node, found) for user, found in profiles.items()}
        campaigning = make_campaigning(node, make_links(node, "https://mail.shop.example"))
        campaign, audience = project.campaigns["winback"], project.audiences["browsed"]
        first = await campaigning.send(campaign, audience, "s1")
        await node.pump.pump()
        await node.engine.settled()
        second = await campaigning.send(campaign, audience, "s1")
        decided = {found.email: decision(node, found) for found in profiles.values() if found.email}
        after = law(node)
    await node.close()
    stores.close()
    files = sorted((folder / "outbox").glob("*.eml"))
    letters = {letter["To"]: letter for letter in map(read_letter, files)}
    return Story(shoppers, events, refused, before, after, profiles, oracle, first, second, letters,
                 decided, len(files))  # fmt: skip


async def load(node: Node, shoppers: Shoppers) -> None:
    with (SHOP / "catalogue.csv").open(newline="", encoding="utf-8") as lines:
        rows = list(csv.DictReader(lines))
    crm = node.sources["crm"]
    items = await load_rows(node.collector, "items", rows, source=crm, job="items", first=1)
    people = await load_rows(
        node.collector, "people", shoppers.crm_rows(), source=crm, job="crm", first=1
    )
    assert ([], []) == (items.refused, people.refused)


async def push(node: Node, http: httpx.AsyncClient, clock: HandClock, events: list[Sent]) -> int:
    """Send the events at the pace at which they arrive; returns how many were refused."""
    refused = 0
    for source, batch in batches(events):
        clock.advance(max(0, batch[-1].arrives_ms - clock.now_ms()))
        body = {"writeKey": KEYS[source], "sentAt": format_instant(clock.now_ms()),
                "batch": [one.body for one in batch]}  # fmt: skip
        answer = await http.post("/v1/batch", json=body)
        assert answer.status_code == 200, answer.text
        refused += len(answer.json().get("rejected", []))
        # Nothing may be under way when the clock leaps: it would have waited for days.
        await node.engine.settled()
    return refused


def batches(events: list[Sent]) -> Iterator[tuple[str, list[Sent]]]:
    """Split into batches of one source that arrive within six hours."""
    batch: list[Sent] = []
    for one in events:
        if batch and (one.source != batch[0].source or len(batch) == BATCH
                      or one.arrives_ms - batch[0].arrives_ms > 6 * HOUR_MS):  # fmt: skip
            yield batch[0].source, batch
            batch = []
        batch.append(one)
    yield batch[0].source, batch


async def profile(node: Node, user: str) -> Profile:
    found, _ = await node.serving.profile(Who(node.collector.make_leaf("user_id", user), "user_id"))
    return found


def law(node: Node) -> Conservation:
    return conservation(node.stores.log, node.stores.store, node.epoch.number, node.project.plan)


def ask_oracle(node: Node, profile: Profile) -> dict[str, Any]:
    """Return a person's features, computed naively from the records of their leaves."""
    rules = node.project.consent_rules()
    oracle = Oracle(node.project.plan.features)
    purged: dict[str, int] = {}
    for record in records(node.stores.log):
        if record.leaf not in profile.leaves:
            continue
        oracle.push(record, permitted(record.evidence, rules))
        if record.name == "Segment Consent Preference Updated":
            for purpose in record.evidence.denied:
                purged[purpose] = max(record.occurred_at_ms, purged.get(purpose, 0))
    values, truncated = oracle.read(profile.as_of_ms, purged, profile.permitted)
    assert () == truncated
    return values


def records(log: Log) -> list[Record]:
    found = [decode_record(entry.value) for entry in log.read(0, 0, 1_000_000)]
    return [record for record in found if record.kind == Kind.PRIMARY]


def decision(node: Node, profile: Profile) -> Decided | None:
    """Return the decision that stands for a person, if one was made."""
    assert profile.email_leaf is not None
    key = DecisionKey("default", profile.email_leaf, "winback", "s1")
    raw = node.stores.decisions.get([key])[0]
    if raw is None:
        return None
    stands = decode_decision(raw)
    slots = {slot.name: slot for slot in stands.slots}
    hero = slots["hero"].items[0]
    return Decided(stands.served, slots["hero"].explored, hero.item_id, hero.source,
                   [one.item_id for one in slots["more"].items])  # fmt: skip


def read_letter(path: Path) -> EmailMessage:
    return email.message_from_bytes(path.read_bytes(), policy=email.policy.default)


def html_of(letter: EmailMessage) -> str:
    part = letter.get_body(("html",))
    assert part is not None
    return part.get_content()


def test_every_event_is_accounted_for(story):
    truth = story.shoppers.truth
    kept = len(truth.distinct) + truth.duplicates
    rows = len(read_catalogue()) + len(story.shoppers.crm_rows())
    assert truth.malformed == story.refused
    assert kept + rows + truth.malformed == story.before.accepted
    assert truth.duplicates == story.before.deduplicated
    assert truth.malformed == story.before.dead_lettered
    assert 0 == story.before.in_flight
    assert story.before.holds


def test_what_is_sent_is_in_the_log_too(story):
    assert story.after.holds
    decided = sum(one is not None for one in story.decided.values())
    assert (
        decided + story.first.outcomes["accepted"] == story.after.accepted - story.before.accepted
    )


def test_every_feature_of_every_shopper_is_what_a_naive_reading_of_the_log_gives(story):
    assert {user: found.features for user, found in story.profiles.items()} == story.oracle


def test_views_are_what_the_shoppers_did_and_permitted(story):
    truth = story.shoppers.truth
    expected = {
        user: newest(truth.viewed(user)) for user in truth.emails if user not in truth.denied
    }
    served = {user: found.features.get("viewed") for user, found in story.profiles.items()
              if user not in truth.denied}  # fmt: skip
    assert expected == served
    assert any(expected.values())


def newest(views) -> list[str]:
    found = [view.product_id for view in reversed(views) if view.at_ms >= NOW - 30 * DAY_MS]
    return list(dict.fromkeys(found))[:12]


def test_orders_are_counted_whatever_junk_id_came_along(story):
    truth = story.shoppers.truth
    expected = {user: len(truth.ordered(user)) for user in truth.emails
                if user not in truth.denied | set(truth.returned)}  # fmt: skip
    served = {user: story.profiles[user].features["orders"] for user in expected}
    assert expected == served
    assert sum(expected.values()) > 10


def test_nothing_personal_is_served_of_who_denies(story):
    for user in story.shoppers.truth.denied:
        found = story.profiles[user]
        assert "denied" == found.consent["personalisation"]
        assert {} == found.traits
        assert {"clicks_90d"} == set(found.features), "measurement is permitted, the rest is not"


def test_the_crm_has_the_last_word_on_a_name_and_a_form_the_first(story):
    truth = story.shoppers.truth
    by_crm = {row["user_id"]: row["first_name"] for row in story.shoppers.crm_rows()}
    for person in story.shoppers.people:
        if person.user not in truth.denied | set(truth.returned):
            expected = by_crm.get(person.user, person.name.lower())
            assert expected == story.profiles[person.user].traits["first_name"]


def test_the_mail_goes_to_exactly_those_who_browsed_permit_and_want_it(story):
    truth = story.shoppers.truth
    expected = {
        truth.emails[user] for user in truth.emails
        if user not in truth.denied | truth.unsubscribed
        and story.profiles[user].features["views_7d"] > 0
    }  # fmt: skip
    assert expected == set(story.letters)
    assert len(expected) == story.first.outcomes["accepted"] == story.files


def test_a_send_that_is_repeated_mails_nobody_again(story):
    assert story.first.outcomes["accepted"] == story.second.outcomes["already"]
    assert "accepted" not in story.second.outcomes


def test_the_hero_is_what_was_left_in_the_cart_or_viewed_last(story):
    truth = story.shoppers.truth
    sources = set()
    for user, address in truth.emails.items():
        decided = story.decided[address]
        if decided is None or decided.served == "holdout" or decided.explored:
            continue
        features = story.profiles[user].features
        wanted = [one for one in features["added"] if features["adds_7d"]] + features["viewed"]
        expected = next(
            (one for one in wanted if one not in features["bought"] and showable(one)), None
        )
        if expected is not None:
            assert expected == decided.hero
        sources.add(decided.source)
    assert {"left in the cart", "viewed, not bought"} <= sources


def showable(product_id: str) -> bool:
    return product_id in SHOWABLE


def _showable() -> set[str]:
    with (SHOP / "catalogue.csv").open(newline="", encoding="utf-8") as lines:
        return {
            row["item_id"] for row in csv.DictReader(lines)
            if row["stock"] != "0" and row["available"] == "true"
            and not row["starts_at"] and not row["ends_at"]
        }  # fmt: skip


SHOWABLE = _showable()


def test_a_holdout_gets_the_bestsellers(story):
    held = [one for one in story.decided.values() if one is not None and one.served == "holdout"]
    assert {"bestsellers"} >= {one.source for one in held}


def test_each_email_shows_what_was_decided_and_can_be_left(story):
    titles = {product.product_id: product.title for product in read_catalogue()}
    for address, letter in story.letters.items():
        decided = story.decided[address]
        html = html_of(letter)
        assert escaped(titles[decided.hero]) in html
        assert f"{titles[decided.hero]}, still in stock" == letter["Subject"]
        shown = [one for one in decided.more if one != decided.hero][:3]
        assert all(escaped(titles[one]) in html for one in shown)
        assert letter["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
        assert letter["List-Unsubscribe"].strip("<>").split("?")[0] in html
        assert len(html.encode()) < 80_000
        text = letter.get_body(("plain",))
        assert text is not None
        assert titles[decided.hero] in text.get_content()


def escaped(text: str) -> str:
    return text.replace("'", "&#39;")


def test_no_email_says_what_was_shared_on_a_family_tablet(story):
    truth = story.shoppers.truth
    tablets = {view.product_id for view in truth.views if view.device in truth.shared}
    assert tablets, "somebody used one"
    for user in truth.emails:
        own = {view.product_id for view in truth.viewed(user)}
        served = story.profiles[user].features.get("viewed", [])
        assert set(served) <= own
