"""A dead letter holds no more than an accepted event would, and goes in again all the same."""

import asyncio
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests_serving import GRANTED, opened

from penstock.core.catalog.catalog import Catalog
from penstock.core.protect import truncated_text
from penstock.core.record import decode_record
from penstock.dsl.events import (
    datetime,
    event,
    integer,
    money,
    objects,
    private,
    string,
    strings,
    traits,
)  # fmt: skip
from penstock.flows.letters import Replayed, replay_letters
from penstock.flows.minimise import NOTHING, minimised, truncated_again
from penstock.project import load_project

CANARY = "canary7f3a"
HIDDEN = ("truncate", "pseudonym", "drop")

EVENTS = """
from penstock.dsl.events import (
    datetime, event, integer, items, money, objects, private, string, strings, traits,
)
from penstock.dsl.segment import product_viewed


def hidden(how):
    return string(privacy=private(protection=how))


placed = event(
    "Order Placed",
    number={number},
    total=money(),
    truncate=hidden("truncate"), pseudonym=hidden("pseudonym"), drop=hidden("drop"),
    tags=strings(privacy=private(protection="truncate")),
    born=datetime(privacy=private(protection="truncate")),
    lines=objects({"sku": string(), "truncate": hidden("truncate"), "pseudonym": hidden("pseudonym"),
                   "drop": hidden("drop")}),
)
catalogue = items(title=string(), url=string(), price=money(), category=string(), stock=integer())
people = traits(
    first_name=string(), timezone=string(), plan=integer(), email=hidden("{email}"), card=hidden("pseudonym"),
    truncate=hidden("truncate"), pseudonym=hidden("pseudonym"), drop=hidden("drop"),
)
"""

# Wherever a sender can put something: undeclared, protected, and nested where a plain value is declared.
PLANTED = {
    "writeKey": "server-key",
    "integrations": {"All": CANARY},
    CANARY: CANARY,
    "name": f"name {CANARY}",
    "properties": {
        "number": "not a number",
        "undeclared": CANARY, CANARY: 1, "nested": {"deep": [CANARY]},
        "truncate": f"abc {CANARY}", "pseudonym": CANARY, "drop": CANARY,
        "tags": [f"tag {CANARY}", {"x": CANARY}],
        "born": f"25/11/2026 {CANARY}",
        "currency": CANARY,
        "lines": [
            {"sku": "s-1", "undeclared": CANARY, "truncate": f"{CANARY}@shop.example",
             "pseudonym": CANARY, "drop": CANARY},
            {"sku": {"x": CANARY}}, CANARY, [CANARY],
        ],
    },
    "traits": {"undeclared": CANARY, "email": f"{CANARY}@mail.example"},
    "context": GRANTED | {
        "ip": "203.0.113.9", "userAgent": CANARY, "identityToken": CANARY,
        "traits": {"undeclared": CANARY, "email": f"{CANARY}@mail.example"},
        "externalIds": [
            {"id": CANARY, "type": "card", "collection": "users", "encoding": "none"},
            {"id": "x-1", "type": "esp", "collection": "users", "encoding": "none", "x": CANARY},
        ],
    },
}  # fmt: skip
TRAITS = {
    "plan": "not a number", "undeclared": CANARY, "truncate": f"abc {CANARY}", "pseudonym": CANARY,
    "drop": CANARY, "email": f"{CANARY}@mail.example", "card": CANARY,
}  # fmt: skip


def declared(folder: Path, *, number: str = "integer()", email: str = "truncate") -> Any:
    text = EVENTS.replace("{number}", number).replace("{email}", email)
    (folder / "events.py").write_text(text)
    (folder / "features.py").write_text(
        "from events import placed, product_viewed\n"
        "from penstock.dsl.features import Profile, count, days, last_k\n\n\n"
        "class Shopper(Profile):\n    viewed = last_k(product_viewed.product_id, k=10, over=days(30))\n"
        "    bought = last_k(placed.truncate, k=10, over=days(30))\n"
        "    views_7d = count(product_viewed, over=days(7))\n"
    )
    for name in ("content/email.liquid", "campaigns/spring.toml"):
        path = folder / name
        path.write_text(path.read_text().replace("traits.first_name", "traits.email"))
    (folder / "content" / "hero.liquid").write_text("{{ item.title }}")
    return load_project(folder)


def letters_of(project: Any, *events: dict[str, Any]) -> list[bytes]:
    async def story() -> list[bytes]:
        async with opened(project) as shop:
            answer = await shop.http.post(
                "/v1/batch", json={"writeKey": "server-key", "batch": list(events)}
            )
            assert len(answer.json()["rejected"]) == len(events), answer.text
            return [one.body for one in shop.node.stores.log.dead_letters()]

    return asyncio.run(story())


@pytest.mark.parametrize(
    "sent",
    [
        {"type": "track", "event": "Order Placed", "userId": "u1"},
        {"type": "track", "event": "Order Placed", "anonymousId": "a1"},
        {"type": "track", "event": "Order Placed", "userId": "u1", "timestamp": "yesterday"},
        {"type": "track", "event": "Order Placed"},
        {"type": "nonsense", "event": "Order Placed", "userId": "u1"},
        {"type": "identify", "userId": "u1", "traits": TRAITS},
        {"type": "track", "event": "Unsubscribed", "userId": "u1", "timestamp": "yesterday"},
        {"type": "page", "userId": "u1", "timestamp": "yesterday"},
    ],
    ids=[
        "user",
        "anonymous",
        "no instant",
        "external",
        "no type",
        "identify",
        "unsubscribe",
        "page",
    ],
)
def test_no_canary_is_in_a_letter(folder: Path, sent: dict[str, Any]) -> None:
    hidden = json.loads(json.dumps(PLANTED))
    if sent["type"] == "page":
        hidden.pop("name")  # declared, and plain
    (body,) = letters_of(declared(folder), hidden | sent)
    kept = body.decode()
    assert CANARY not in kept
    assert "server-key" not in kept
    assert "203.0.113.9" not in kept
    assert "categoryPreferences" in kept
    assert '"x-1"' in kept  # an identifier whose type nobody protects is needed to go in again


@pytest.mark.parametrize("protection", HIDDEN)
def test_an_address_is_kept_as_protected_as_its_trait(folder: Path, protection: str) -> None:
    sent = {
        "type": "identify",
        "userId": "u1",
        "traits": {"plan": "x", "email": "canary@mail.example"},
    }
    external = {
        "context": GRANTED | {"externalIds": [{"id": "canary@mail.example", "type": "email"}]}
    }
    project = declared(folder, email=protection)
    (body,) = letters_of(project, sent | external)
    assert b"canary" not in body
    assert (b"mail.example" in body) == (protection == "truncate")


def test_what_cannot_be_read_without_doubt_leaves_nothing(folder: Path) -> None:
    catalog = declared(folder).catalog
    for body in (
        b"", b"7", b'"canary"', b'{"userId":"canary"', b'{"userId":"a","userId":"canary"}',
        b'{"userId":"canary\\u0000"}', b'{"properties":' + b"[" * 40 + b"]" * 40 + b"}",
    ):  # fmt: skip
        assert minimised(body, catalog) == NOTHING


def test_a_letter_goes_in_as_the_event_itself_would_have(folder: Path) -> None:
    sent = {
        "type": "track", "event": "Order Placed", "userId": "u1", "context": GRANTED,
        "properties": {
            "number": "A-7", "total": 19.90, "currency": "GBP", "truncate": "ann@mail.example",
            "tags": ["198.51.100.7", "ab  and more"], "born": "2001-02-03T04:05:06Z",
            "lines": [{"sku": "s-1", "truncate": "SW1A 1AA"}],
        },
    }  # fmt: skip

    async def story() -> Any:
        async with opened(declared(folder)) as shop:
            await shop.http.post(
                "/v1/batch", json={"writeKey": "server-key", "batch": [sent | {"messageId": "m"}]}
            )
            mended = declared(folder, number="string()").catalog
            node = shop.node
            node.collector.adopt(mended, node.collector.identity, node.collector.consent)
            await shop.send(sent)
            log = node.stores.log
            done = await replay_letters(
                node.collector,
                log,
                list(log.dead_letters()),
                node.sources,
                find_leaf=node.engine.find,
            )
            return done, [decode_record(one.value) for one in log.read(0, 0, 9)]

    done, (direct, again) = asyncio.run(story())
    assert done == Replayed(1, {}, 0)
    assert again.properties == direct.properties
    assert direct.properties["truncate"] == "mail.example"


def test_an_event_nobody_declared_keeps_only_that_it_happened(folder: Path) -> None:
    toml = folder / "penstock.toml"
    toml.write_text(toml.read_text().replace("[project]", '[project]\nundeclared = "reject"'))
    sent = {"type": "track", "event": "Never Declared", "userId": "u1", "properties": {"x": CANARY}}
    (body,) = letters_of(declared(folder), sent | {"context": GRANTED, "messageId": "m"})
    assert json.loads(body) == sent | {"properties": {}, "context": GRANTED, "messageId": "m"}


def test_consent_that_permits_nothing_leaves_only_the_word_about_permission(folder: Path) -> None:
    denied = {
        "consent": {
            "categoryPreferences": dict.fromkeys(GRANTED["consent"]["categoryPreferences"], False)
        }
    }
    sent = {
        "type": "track", "event": "Unsubscribed", "userId": "u1", "timestamp": "yesterday",
        "context": denied, "properties": {"topic": "offers", "channel": "email", "mood": CANARY},
    }  # fmt: skip
    (body,) = letters_of(declared(folder), sent)
    assert json.loads(body)["properties"] == {"topic": "offers", "channel": "email"}


@given(
    st.text(max_size=12)
    | st.text("ab@.:1…x ", max_size=9)
    | st.ip_addresses().map(str)
    | st.emails()
)
def test_law_what_is_kept_truncates_to_the_same_once_more(text: str) -> None:
    kept = truncated_again(text)
    assert truncated_text(kept) == truncated_text(text)
    assert truncated_again(kept) == kept
    assert len(kept) <= len(truncated_text(text)) + 2


CATALOG = Catalog(
    [
        event(
            "E", n=integer(), total=money(), tags=strings(), at=datetime(),
            short=string(privacy=private(protection="truncate")),
            born=datetime(privacy=private(protection="truncate")),
            lines=objects({"sku": string(), "price": money()}),
        )
    ],
    traits(email=string(), plan=integer()),
)  # fmt: skip
NAMES = st.sampled_from(
    ["n", "total", "currency", "tags", "at", "short", "born", "lines", "sku", "price", "email", "plan",
     "consent", "categoryPreferences", "consentManagement", "allowedConsentIds", "externalIds", "externalId",
     "traits", "id", "type", "other"]
)  # fmt: skip
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4),
)
BODIES = st.fixed_dictionaries(
    {"type": st.sampled_from(["track", "identify", "group", "page"]), "event": st.just("E")},
    optional={name: st.dictionaries(NAMES, VALUES, max_size=5) | VALUES
              for name in ("properties", "traits", "context", "userId", "name", "messageId", "writeKey")},
)  # fmt: skip


@given(BODIES, st.booleans())
def test_law_minimising_is_done_once(body: dict[str, Any], bare: bool) -> None:
    raw = json.dumps(body).encode()
    kept = minimised(raw, CATALOG, bare=bare)
    assert minimised(kept, CATALOG, bare=bare) == kept
    assert set(msgspec.json.decode(kept or b"{}")) <= set(body)
