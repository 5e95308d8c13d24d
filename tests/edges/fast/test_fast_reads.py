"""Profiles and decisions over the fast server and over uvicorn's own: the same bytes."""

import asyncio
import json
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from penstock.adapters.metrics.memory import MemoryMetrics
from penstock.application import make_http
from penstock.compose import make_links, make_node, open_stores
from penstock.core.errors import EventRejected
from penstock.core.event import SEGMENT, decode_batch
from penstock.edges.fast import FastServer
from penstock.edges.serving.asks import HEADERS_MAX, ReadKeys
from penstock.edges.serving.hot import promptly
from penstock.project import load_project
from penstock.settings import DevelopmentSettings
from penstock.testing.clock import HandClock

ROOT = Path(__file__).parents[3]
KEY = "authorization: Bearer demo-read-key"

pytestmark = pytest.mark.anyio

TARGETS: dict[str, tuple[str, ...]] = {
    "a person": ("/v1/profiles/user_id:u-1", KEY),
    "again": ("/v1/profiles/user_id:u-1", KEY),
    "a stranger": ("/v1/profiles/user_id:nobody", KEY),
    "an encoded colon": ("/v1/profiles/user_id%3Au-1", KEY),
    "an encoded slash": ("/v1/profiles/user_id:a%2Fb", KEY),
    "as of": ("/v1/profiles/user_id:u-1?as_of=2027-01-01T00:00:00Z", KEY),
    "as of the past": ("/v1/profiles/user_id:u-1?as_of=2001-01-01T00:00:00Z", KEY),
    "as of nonsense": ("/v1/profiles/user_id:u-1?as_of=soon", KEY),
    "known then": ("/v1/profiles/user_id:u-1?known_at=0", KEY),
    "an email": ("/v1/profiles/email:ann@example.com", KEY),
    "no colon": ("/v1/profiles/u-1", KEY),
    "no such type": ("/v1/profiles/shoe_size:44", KEY),
    "a type misspelt": ("/v1/profiles/userid:u-1", KEY),
    "a parameter misspelt": ("/v1/profiles/user_id:u-1?asof=soon", KEY),
    "a decision's parameter misspelt": ("/v1/decide/winback?userid=u-1", KEY),
    "an email in the query": ("/v1/decide/winback?email=ann@example.com", KEY),
    "no key": ("/v1/profiles/user_id:u-1",),
    "another key": ("/v1/profiles/user_id:u-1", "authorization: Bearer other"),
    "a decision": ("/v1/decide/winback?user_id=u-1&send=s-1", KEY),
    "the same decision": ("/v1/decide/winback?user_id=u-1&send=s-1", KEY),
    "a preview": ("/v1/decide/winback?user_id=u-1&preview=true", KEY),
    "a preview that is neither": ("/v1/decide/winback?user_id=u-1&preview=on", KEY),
    "an email whose preview is neither": ("/v1/render/winback?user_id=u-1&preview=", KEY),
    "nobody named": ("/v1/decide/winback", KEY),
    "two named": ("/v1/decide/winback?user_id=u-1&anonymous_id=a-1", KEY),
    "a blank": ("/v1/decide/winback?user_id=", KEY),
    "no such campaign": ("/v1/decide/winbak?user_id=u-1", KEY),
    "no key to decide": ("/v1/decide/winback?user_id=u-1",),
    "an email as a whole": ("/v1/render/winback?user_id=u-1&preview=1", KEY),
}  # fmt: skip


BATCHES: dict[str, bytes] = {
    "people": b'{"people":[{"user_id":"u-1"},{"user_id":"nobody"},{"user_id":"u-1"},{"user_id":"a/b"}]}',
    "who is not named well": b'{"people":[{},{"user_id":"u-1"},{"user_id":" "},{"email_token":"x"},'
    b'{"user_id":"u-1","email":"ann@example.com"}]}',
    "fields of theirs that nobody knows": b'{"people":[{"user_id":"u-1","a":[[{}]]}]}',
    "nobody": b'{"people":[]}',
    "too many": b'{"people":[' + b",".join([b"{}"] * 1_001) + b"]}",
    "no body": b"",
    "a blank": b" ",
    "no JSON": b"{",
    "more than JSON": b'{"people":3} x',
    "a list": b"[]",
    "null": b"null",
    "no people": b"{}",
    "people that are none": b'{"people":"abc"}',
    "a person who is none": b'{"people":[null]}',
    "a number for an id": b'{"people":[{"user_id":3}]}',
    "a field misspelt": b'{"peple":[]}',
    "a field that is a value": b'{"people":[],"ann@example.com":1}',
    "no UTF-8": b'{"people":[{"user_id":"u\xff"}]}',
    "no UTF-8 where nobody looks": b'{"people":[{"a":"u\xff"}]}',
    "half a character": b'{"people":[{"user_id":"\\ud800"}]}',
    "deep": b'{"people":[{"a":' + b"[" * 20_000 + b"]" * 20_000 + b"}]}",
}


def get(target: str, *headers: str) -> str:
    lines = "".join(f"{header}\r\n" for header in headers)
    return f"GET {target} HTTP/1.1\r\nhost: h\r\n{lines}\r\n"


def post(target: str, body: bytes, *headers: str) -> bytes:
    lines = "".join(f"{header}\r\n" for header in headers)
    head = f"POST {target} HTTP/1.1\r\nhost: h\r\n{lines}content-length: {len(body)}\r\n\r\n"
    return head.encode() + body


def one_click(target: str) -> str:
    form = "content-type: application/x-www-form-urlencoded\r\ncontent-length: 26"
    return f"POST {target} HTTP/1.1\r\nhost: h\r\n{form}\r\n\r\nList-Unsubscribe=One-Click"


async def test_both_servers_give_the_same_answers(listening) -> None:
    project = load_project(ROOT / "examples" / "shop")
    settings = msgspec.structs.replace(
        project.settings, development=DevelopmentSettings(),
        log=msgspec.structs.replace(project.settings.log, kind="memory"),
        store=msgspec.structs.replace(project.settings.store, kind="memory"),
    )  # fmt: skip
    project = replace(project, settings=settings)
    stores = open_stores(project, clock := HandClock(1_795_000_000_000))
    metrics = MemoryMetrics()
    node = make_node(project, stores, clock=clock, metrics=metrics)
    await node.start()
    await node.collector.take(node.sources["backend"], decode_batch(BODY, SEGMENT))
    await node.engine.settled()
    http = make_http(node, "http://h")
    async with AsyncExitStack() as stack:
        fast = await stack.enter_async_context(
            listening(http.app, FastServer(http.hot, metrics=metrics))
        )
        plain = await stack.enter_async_context(listening(http.app))
        for name, (target, *headers) in TARGETS.items():
            mine = await (await fast.open()).ask(get(target, *headers))
            other = await (await plain.open()).ask(get(target, *headers))
            assert (other.status, other.body) == (mine.status, mine.body), name
            assert other.headers["content-type"] == mine.headers["content-type"], name
        for name, body in BATCHES.items():
            for headers in ((KEY,), ()):
                asked = post("/v1/profiles", body, *headers)
                mine = await (await fast.open()).ask(asked)
                other = await (await plain.open()).ask(asked)
                assert (other.status, other.body) == (mine.status, mine.body), name
                assert other.headers["content-type"] == mine.headers["content-type"], name
        leaf = node.collector.make_leaf("email", "ann@example.com")
        links = make_links(node, "")
        token, topic = links.unsubscribe(leaf, "*"), links.unsubscribe(leaf, "offers")
        for name, path in {
            "all": token, "again": token, "a topic": topic, "no token of ours": token + "x",
            "an encoded token": token.replace("unsubscribe/", "unsubscribe/%41"), "no token": "/v1/unsubscribe/",
            "an encoded slash": "/v1/unsubscribe/a%2Fb",
        }.items():  # fmt: skip
            mine = await (await fast.open()).ask(one_click(path))
            other = await (await plain.open()).ask(one_click(path))
            assert (other.status, other.body) == (mine.status, mine.body), name
            for header in ("content-type", "cache-control"):
                assert other.headers.get(header) == mine.headers.get(header), name
            page = await (await fast.open()).ask(get(path))
            assert page.status in (200, 400, 404), "the page is another's, on the same path"
    counted = metrics.exposition().decode()
    assert 'route="/v1/unsubscribe/{token}",status="200"' in counted
    assert 'route="/v1/profiles/{identifier}"' in counted
    assert "u-1" not in counted
    await node.close()
    stores.close()


BODY = json.dumps({"batch": [
    {"type": "track", "event": "Product Viewed", "messageId": f"m-{user}", "userId": user,
     "properties": {"product_id": "p-402", "category": "kitchen"},
     "context": {"consent": {"categoryPreferences": {"personal": True}}}}
    for user in ("u-1", "a/b")
]}).encode()  # fmt: skip


async def test_what_does_not_wait_is_answered_at_once_and_what_waits_is_begun_anew() -> None:
    begun = []

    async def at_once() -> str:
        begun.append("at once")
        return "now"

    async def later() -> str:
        begun.append("later")
        await asyncio.sleep(0)
        return "then"

    assert "now" == promptly(at_once)
    assert ["at once"] == begun
    assert "then" == await promptly(later)
    assert ["at once", "later", "later"] == begun


async def test_a_key_that_was_shown_makes_no_other_good() -> None:
    keys = ReadKeys(["one", "two"])
    for blanks in range(HEADERS_MAX + 2):
        keys.require({b"authorization": b"Bearer " + b" " * blanks + b"one"})
    keys.require({b"authorization": b"bearer two"})
    for shown in (b"Bearer three", b"Basic one", b"one", b""):
        for _ in range(2):
            with pytest.raises(EventRejected, match="E391"):
                keys.require({b"authorization": shown})
