"""The same bytes to the fast server and to uvicorn's own: the same answers, and the same log."""

import asyncio
import base64
import gzip
import json
from contextlib import AsyncExitStack

import pytest

from penstock.edges.fast import FastServer
from tests.edges.collector.conftest import BROWSER_KEY, PINNED_KEY, SERVER_KEY, _collecting, track

pytestmark = pytest.mark.anyio

HEADERS = (
    "content-type", "retry-after", "access-control-allow-origin", "access-control-expose-headers",
    "access-control-allow-headers", "vary", "cache-control", "allow",
)  # fmt: skip
"""Headers that matter to a client. `connection` and `content-length` are the server's own."""


def basic(key: str) -> str:
    return "authorization: Basic " + base64.b64encode(f"{key}:".encode()).decode()


AUTH = basic(SERVER_KEY)
ORIGIN = "origin: https://shop.example"


def post(path: str, body: object, *headers: str) -> bytes:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = "".join(f"{header}\r\n" for header in headers)
    return (
        f"POST {path} HTTP/1.1\r\nhost: h\r\n{lines}content-length: {len(raw)}\r\n\r\n".encode()
        + raw
    )


def chunked(path: str, *parts: bytes) -> bytes:
    head = f"POST {path} HTTP/1.1\r\nhost: h\r\n{AUTH}\r\ntransfer-encoding: chunked\r\n\r\n"
    return head.encode() + b"".join(b"%x\r\n%s\r\n" % (len(p), p) for p in parts) + b"0\r\n\r\n"


def get(target: str, *headers: str, method: str = "GET") -> bytes:
    lines = "".join(f"{header}\r\n" for header in headers)
    return f"{method} {target} HTTP/1.1\r\nhost: h\r\n{lines}\r\n".encode("latin-1")


EVENT = json.dumps(track("in-chunks")).encode()
BAD = track("bad", properties={"product_id": "p", "quantity": "many"})
REQUESTS: dict[str, bytes] = {
    "one event": post("/v1/track", track("m-1"), AUTH),
    "again": post("/v1/track", track("m-1"), AUTH),
    "a short path": post("/v1/t", track("m-2"), AUTH),
    "every kind": post("/v1/identify", {"userId": "u-1", "messageId": "m-3", "traits": {"a": 1}}, AUTH),
    "a page": post("/v1/page", {"anonymousId": "a-1", "messageId": "m-4", "name": "home"}, AUTH),
    "an alias": post("/v1/alias", {"userId": "u-2", "previousId": "a-9", "messageId": "m-5"}, AUTH),
    "a group without a group": post("/v1/group", {"userId": "u-1", "messageId": "m-6"}, AUTH),
    "no message id": post("/v1/track", track(""), AUTH),
    "a batch": post("/v1/batch", {"batch": [track("b-1"), BAD, track("b-2"), 7]}, AUTH),
    "an empty batch": post("/v1/batch", {"batch": []}, AUTH),
    "an import": post("/v1/import?job=j1", {"batch": [track("i-1")]}, AUTH),
    "an import with a bad job": post("/v1/import?job=%20", {"batch": [track("i-2")]}, AUTH),
    "gzip": post("/v1/batch", gzip.compress(json.dumps({"batch": [track("z")]}).encode(), mtime=0), AUTH,
                 "content-encoding: gzip"),
    "gzip that is none": post("/v1/batch", b"\x1f\x8bnothing", AUTH, "content-encoding: gzip"),
    "a bomb": post("/v1/batch", gzip.compress(b" " * 5_000_000, mtime=0), AUTH),
    "another encoding": post("/v1/batch", {"batch": []}, AUTH, "content-encoding: br"),
    "a key in the body": post("/v1/batch", {"batch": [track("k-1")], "writeKey": SERVER_KEY}),
    "a key in the query": post(f"/v1/track?writeKey={SERVER_KEY}", track("k-2")),
    "a key in a header": post("/v1/track", track("k-3"), f"x-write-key: {SERVER_KEY}"),
    "a Bearer key": post("/v1/track", track("k-4"), f"authorization: Bearer {SERVER_KEY}"),
    "no key": post("/v1/track", track("k-5")),
    "no source's key": post("/v1/track", track("k-6"), basic("other"), ORIGIN),
    "two keys": post("/v1/track", track("k-7"), basic("other"), AUTH),
    "a page's origin": post("/v1/track", track("o-1", anonymousId="a-1"), basic(BROWSER_KEY), ORIGIN),
    "a pinned key": post("/v1/track", track("o-2", anonymousId="a-1"), basic(PINNED_KEY), ORIGIN),
    "a pinned key elsewhere": post("/v1/track", track("o-3"), basic(PINNED_KEY), "origin: https://evil.example"),
    "global privacy control": post("/v1/track", track("g-1"), AUTH, "sec-gpc: 1"),
    "consent denied": post("/v1/track", track("c-1", context={"consent": {"categoryPreferences": {
        "personalisation": False}}}), AUTH),
    "an unsubscribe": post("/v1/track", track("u-1", "Unsubscribed", properties={"topic": "news"}), AUTH),
    "an undeclared event": post("/v1/track", track("d-1", "Never Declared"), AUTH),
    "no JSON": post("/v1/track", b"{", AUTH, ORIGIN),
    "no UTF-8": post("/v1/track", b'{"event":"\xff"}', AUTH),
    "a list": post("/v1/track", b"[]", AUTH),
    "an empty body": post("/v1/track", b"", AUTH),
    "a NUL": post("/v1/track", track("n", userId="u\x001"), AUTH),
    "a key twice": post("/v1/track", b'{"userId":"u","userId":"u","event":"Product Viewed"}', AUTH),
    "bad beyond hope": post("/v1/track", track("e", timestamp="yesterday"), AUTH),
    "an event that is too large": post("/v1/track", track("l", properties={"label": "x" * 40_000}), AUTH, ORIGIN),
    "a batch that is too large": post("/v1/batch", b'{"batch":["' + b"x" * 600_000 + b'"]}', AUTH),
    "chunks": chunked("/v1/track", EVENT[:7], EVENT[7:]),
    "a chunk that is too large": chunked("/v1/track", b"x" * 20_000, b"x" * 20_000),
    "text/plain": post("/v1/track", track("p-1"), AUTH, "content-type: text/plain"),
    "an encoded path": post("/v1/tr%61ck", track("q-1"), AUTH),
    "a slash at the end": post("/v1/track/", track("q-2"), AUTH),
    "two slashes": post("//v1/track", track("q-3"), AUTH),
    "a whole URL": post("http://h/v1/track", track("q-4"), AUTH),
    "a fragment": post("/v1/track#x", track("q-5"), AUTH),
    "another method": get("/v1/track", AUTH),
    "PUT": post("/v1/track", track("q-6"), AUTH).replace(b"POST", b"PUT", 1),
    "a method we never heard of": get("/v1/track", method="PURGE"),
    "HEAD": get("/v1/track", method="HEAD"),
    "a preflight": get("/v1/batch", ORIGIN, "access-control-request-headers: authorization", method="OPTIONS"),
    "an SDK's settings": get(f"/v1/projects/{BROWSER_KEY}/settings", ORIGIN),
    "a secret key's settings": get(f"/v1/projects/{SERVER_KEY}/settings"),
    "an SDK's metrics": post("/v1/m", {"series": []}, ORIGIN),
    "no such path": get("/v1/nothing"),
    "a path that is a person's": get("/v1/bob@example.com"),
}  # fmt: skip


async def test_both_servers_give_the_same_answers_and_keep_the_same_log(listening):
    async with AsyncExitStack() as stack:
        ours = await stack.enter_async_context(_collecting())
        theirs = await stack.enter_async_context(_collecting())
        fast = FastServer(ours.edge.routes, metrics=ours.metrics)
        served = [
            await stack.enter_async_context(listening(ours.app, fast)),
            await stack.enter_async_context(listening(theirs.app)),
        ]
        for name, raw in REQUESTS.items():
            answers = []
            for server in served:
                # A connection each: whether it is kept after a refusal is the server's own affair.
                wire = await server.open()
                wire.send(raw)
                answers.append(await wire.answer(raw.split(b" ", 1)[0].decode()))
            mine, other = answers
            assert (other.status, other.body) == (mine.status, mine.body), name
            assert _kept(other) == _kept(mine), name
        assert theirs.records() == ours.records()
        assert theirs.letters() == ours.letters()
        assert len(ours.records()) > 20
        assert theirs.suppressions._entries == ours.suppressions._entries
        assert _requests(theirs) == _requests(ours)


def _kept(answer) -> dict[str, str]:
    return {name: answer.headers[name] for name in HEADERS if name in answer.headers}


def _requests(shop) -> list[str]:
    lines = shop.metrics.exposition().decode().splitlines()
    return [
        line
        for line in lines
        if not line.startswith(("#", "penstock_append", "penstock_connections"))
    ]


async def test_many_connections_at_once_keep_what_each_of_them_was_told(listening):
    async with _collecting() as shop:
        fast = FastServer(shop.edge.routes, metrics=shop.metrics)
        async with listening(shop.app, fast) as server:

            async def send(number: int) -> int:
                wire = await server.open()
                for part in range(5):
                    answer = await wire.ask(post("/v1/track", track(f"m-{number}-{part}"), AUTH))
                    assert 200 == answer.status
                return 5

            assert 250 == sum(await asyncio.gather(*map(send, range(50))))
        ids = [record.message_id for record in shop.records()]
        assert 250 == len(ids) == len(set(ids))
