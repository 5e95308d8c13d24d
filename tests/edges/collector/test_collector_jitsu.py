"""Jitsu's paths, for browsers and for servers, as its SDK was recorded and as its letters go."""

import pytest

ORIGIN = {"origin": "https://shop.example"}
TYPES = {"identify": "i", "track": "t", "page": "p", "screen": "s", "group": "g", "alias": "a"}
NEEDS = {
    "track": {"event": "Product Viewed", "properties": {"product_id": "sku-1"}},
    "group": {"groupId": "g-1"},
    "alias": {"previousId": "u-0"},
}


def recorded(kind: str, **more):
    """An event as @jitsu/js 1.11.0 writes it: with a masked key."""
    return {
        "type": kind, "userId": "u-1", "anonymousId": "a-1", "messageId": f"m-{kind}",
        "timestamp": "2026-11-23T04:09:43.507Z", "sentAt": "2026-11-23T04:09:43.507Z",
        "writeKey": "wk-server:***", "context": {"page": {}, "clientIds": {}, "campaign": {}},
        **NEEDS.get(kind, {}), **more,
    }  # fmt: skip


@pytest.mark.parametrize("prefix", ["/api/s", "/api/s/s2s"])
@pytest.mark.parametrize("short", [False, True])
@pytest.mark.parametrize("kind", list(TYPES))
async def test_each_type_has_a_path_for_browsers_and_for_servers(collecting, kind, short, prefix):
    path = f"{prefix}/{TYPES[kind] if short else kind}"
    async with collecting() as shop:
        response = await shop.client.post(
            path, json=recorded(kind), headers={"x-write-key": "wk-server:secret"}
        )
        assert (200, {"success": True, "accepted": 1}) == (response.status_code, response.json())
        assert [(kind, "backend")] == [(one.type, one.source) for one in shop.records()]


@pytest.mark.parametrize("path", ["/api/s/event", "/api/s/e", "/api/s/s2s/event"])
async def test_an_event_may_say_its_type_itself(collecting, path):
    async with collecting() as shop:
        response = await shop.send(path, recorded("track"))
        assert 200 == response.status_code
        assert ["track"] == [one.type for one in shop.records()]
        untyped = await shop.send(path, {"userId": "u-1"})
        assert ["E305"] == [one["code"] for one in untyped.json()["rejected"]]


@pytest.mark.parametrize("path", ["/api/s/batch", "/api/s/s2s/batch"])
async def test_a_batch(collecting, path):
    async with collecting() as shop:
        response = await shop.client.post(
            path, json={"batch": [recorded("track"), recorded("page")]},
            headers={"x-write-key": "wk-server:secret"},
        )  # fmt: skip
        assert 2 == response.json()["accepted"]
        assert ["m-track", "m-page"] == [one.message_id for one in shop.records()]


async def test_the_masked_key_in_the_body_proves_nothing(collecting):
    async with collecting() as shop:
        response = await shop.client.post("/api/s/track", json=recorded("track"))
        assert (400, "E370") == (response.status_code, response.json()["code"])
        assert [] == shop.records()


async def test_a_page_may_send_its_headers(collecting):
    asked = "content-type, x-write-key, x-enable-debug, x-ip-policy"
    async with collecting() as shop:
        response = await shop.client.options(
            "/api/s/page", headers={**ORIGIN, "access-control-request-headers": asked}
        )
        allowed = response.headers["access-control-allow-headers"].split(", ")
        assert (204, True) == (response.status_code, set(asked.split(", ")) <= set(allowed))
