import gzip
import json

import pytest

HEAD = '{"type":"track","event":"Product Viewed","userId":"u-1","messageId":"bad",'


def track(message_id: str, **more) -> str:
    event = {
        "type": "track", "event": "Product Viewed", "userId": "u-1", "messageId": message_id,
        "properties": {"product_id": "sku-1"},
    }  # fmt: skip
    return json.dumps(event | more, separators=(",", ":"))


def properties(text: str) -> str:
    return f'{HEAD}"properties":{{"product_id":"sku-1",{text}}}}}'


BAD_EVENTS = {
    "a name that is a number": (track("bad", event=7), "E306", "$.event"),
    "a type we do not know": (track("bad", type="purchase"), "E305", "$.type"),
    "properties that are a list": (track("bad", properties=[1]), "E306", "$.properties"),
    "an id that is an object": (track("bad", userId={"a": 1}), "E306", "$.userId"),
    "a number for an event": ("7", "E301", "$"),
    "nobody": (track("bad", userId=None), "E340", "$.userId"),
    "a declared field of another type": (
        properties('"quantity":"many"'),
        "E322",
        "$.properties.quantity",
    ),
    "deep nesting": (properties('"label":' + "[" * 40 + "]" * 40), "E304", "$"),
    "very deep nesting": (properties('"label":' + "[" * 3_000 + "]" * 3_000), "E304", "$"),
    "a NUL in a text": (track("bad", userId="u\x001"), "E307", "$.userId"),
    "a NUL byte": (track("bad").replace("u-1", "u\x001"), "E300", "byte "),
    "a lone surrogate": (track("bad").replace("u-1", "\\udfff"), "E308", "$.userId"),
    "a number beyond 2**53": (
        properties(f'"quantity":{2**53 + 1}'),
        "E323",
        "$.properties.quantity",
    ),
    "an amount beyond 2**53": (properties('"price":1e30'), "E323", "$.properties.price"),
    "the year 9999": (track("bad", timestamp="9999-12-31T23:59:59Z"), "E311", "$.timestamp"),
    "no instant": (track("bad", timestamp="yesterday"), "E311", "$.timestamp"),
    "an event over 32 KiB": (properties(f'"label":"{"x" * 33_000}"'), "E302", "$"),
    "a key twice": (properties('"label":"a","label":"b"'), "E309", "$.properties."),
    "a message id that is too long": (track("m" * 101), "E310", "$.messageId"),
}

UNREADABLE = {"E300", "E301", "E304", "E307", "E308", "E309"}
"""Nothing is kept of what can't be read without doubt."""

KEPT = {
    "properties that are a list": track("bad", properties=[]),
    "an id that is an object": track("bad", userId={}),
    "a name that is a number": track("bad", event=7, properties={}),
    "a type we do not know": track("bad", type="purchase", properties={}),
}
"""What is kept of those of which no declaration describes all."""


@pytest.mark.parametrize("name", list(BAD_EVENTS))
async def test_a_bad_event_is_named_and_kept_and_its_neighbours_are_taken(collecting, name):
    event, code, path = BAD_EVENTS[name]
    batch = '{"batch":[' + ",".join((track("good-1"), event, track("good-2"))) + "]}"
    async with collecting() as shop:
        response = await shop.send("/v1/batch", batch.encode())
        body = response.json()
        assert (200, 2) == (response.status_code, body["accepted"]), body
        (rejected,) = body["rejected"]
        assert (1, code) == (rejected["index"], rejected["code"])
        assert rejected["path"].startswith(path)
        assert rejected["what"]
        assert ["good-1", "good-2"] == [record.message_id for record in shop.records()]
        (letter,) = shop.letters()
        kept = b"" if code in UNREADABLE else KEPT.get(name, event).encode()
        assert (code, "backend", kept) == (letter.reason, letter.source, letter.body)
        assert 1 == shop.metrics.value("penstock_events_dead_lettered_total", reason=code)


BAD_BODIES = {
    "nothing": (b"", "E300"),
    "no JSON": (b"user=7&event=x", "E300"),
    "JSON cut short": (b'{"batch":[' + track("m-1").encode(), "E300"),
    "NaN": (b'{"batch":NaN}', "E300"),
    "a list": (b"[" + track("m-1").encode() + b"]", "E301"),
    "a batch that is an object": (b'{"batch":{}}', "E301"),
    "no batch": (b"{}", "E301"),
    "UTF-16": ('{"batch":[]}'.encode("utf-16"), "E300"),
    "a NUL byte": (b"\x00", "E300"),
    "nesting without end": (b'{"batch":' + b"[" * 200_000, "E304"),
    "a body over 4 MiB": (b'{"batch":["' + b"x" * 4 * 1024 * 1024 + b'"]}', "E372"),
    "a zip bomb": (gzip.compress(b"[" * 100_000_000, 9, mtime=0), "E372"),
    "a damaged archive": (gzip.compress(b'{"batch":[]}', mtime=0)[:-8] + b"\xff" * 8, "E373"),
    "half an archive": (gzip.compress(track("m-1").encode())[:-20], "E373"),
}


@pytest.mark.parametrize("name", list(BAD_BODIES))
async def test_a_body_without_anything_to_keep_is_400_with_place_and_remedy(collecting, name):
    raw, code = BAD_BODIES[name]
    async with collecting() as shop:
        response = await shop.send("/v1/batch", raw)
        body = response.json()
        assert (400, code, False) == (response.status_code, body["code"], body["success"]), body
        assert body["message"]
        assert body["fix"]
        assert body["path"]
        assert [] == shop.records()
        assert 200 == (await shop.send("/v1/batch", b'{"batch":[]}')).status_code


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (b"{", "E300"),
        (b"7", "E301"),
        (track("m-1", properties={"label": "x" * 33_000}).encode(), "E372"),
        (gzip.compress(track("m-1", properties={"label": "x" * 33_000}).encode()), "E372"),
    ],
)
async def test_a_single_request_without_an_event_is_400(collecting, raw, code):
    async with collecting() as shop:
        response = await shop.send("/v1/track", raw)
        assert (400, code) == (response.status_code, response.json()["code"])


async def test_a_single_bad_event_is_200_with_its_reason_and_is_kept(collecting):
    async with collecting() as shop:
        response = await shop.send("/v1/track", track("bad", timestamp="yesterday").encode())
        body = response.json()
        assert (200, 0, "E311") == (
            response.status_code,
            body["accepted"],
            body["rejected"][0]["code"],
        )
        assert ["bad"] == [letter.message_id for letter in shop.letters()]


async def test_events_beyond_the_cap_of_a_batch_are_kept_as_dead_letters(collecting):
    events = ",".join(
        f'{{"type":"page","userId":"u-{n}","messageId":"m-{n}"}}' for n in range(2_503)
    )
    async with collecting() as shop:
        response = await shop.send("/v1/batch", f'{{"batch":[{events}]}}'.encode())
        body = response.json()
        assert (200, 2_500) == (response.status_code, body["accepted"])
        assert ["m-2500", "m-2501", "m-2502"] == [r["messageId"] for r in body["rejected"]]
        assert 2_500 == len(shop.records())
        assert 3 == len(shop.letters())
