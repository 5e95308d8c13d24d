"""RudderStack's paths: shared with Segment's, beacons, pixels, and what its SDKs load first."""

import base64
import gzip
import json

import pytest

from penstock.core.errors import EventRejected
from penstock.edges.collector.rudderstack import PIXEL, pixel_body, pixel_headers

BROWSER_KEY, SERVER_KEY, PINNED_KEY = "wk-browser", "wk-server", "wk-pinned"
ORIGIN = {"origin": "https://shop.example"}
TYPES = ("identify", "track", "page", "screen", "group", "alias")
NEEDS = {
    "track": {"event": "Product Viewed", "properties": {"product_id": "sku-1"}},
    "group": {"groupId": "g-1"},
    "alias": {"previousId": "u-0"},
}


def basic(text: str) -> dict[str, str]:
    return {"authorization": "Basic " + base64.b64encode(text.encode()).decode()}


def track(message_id: str, **more):
    return {
        "type": "track", "event": "Product Viewed", "anonymousId": "a-1", "messageId": message_id,
        "properties": {"product_id": "sku-1"}, "channel": "web", **more,
    }  # fmt: skip


async def test_a_beacon_names_its_key_in_the_query_and_calls_its_json_text(collecting):
    body = json.dumps({"batch": [track("m-1"), track("m-2")], "sentAt": "2026-11-23T04:00:00Z"})
    async with collecting() as shop:
        response = await shop.client.post(
            "/beacon/v1/batch?writeKey=wk-browser",
            content=body.encode(),
            headers={**ORIGIN, "content-type": "text/plain;charset=UTF-8"},
        )
        assert (200, 2) == (response.status_code, response.json()["accepted"])
        assert "https://shop.example" == response.headers["access-control-allow-origin"]
        assert ["m-1", "m-2"] == [record.message_id for record in shop.records()]


@pytest.mark.parametrize("kind", TYPES)
async def test_each_type_has_a_beacon(collecting, kind):
    event = {"userId": "u-1", "messageId": "m-1", **NEEDS.get(kind, {})}
    async with collecting() as shop:
        response = await shop.send(f"/beacon/v1/{kind}", event)
        assert 200 == response.status_code
        assert [kind] == [record.type for record in shop.records()]


@pytest.mark.parametrize("path", ["/v1/batch", "/v1/import", "/beacon/v1/batch"])
async def test_a_batch_of_nearly_4_mib_is_taken(collecting, path):
    filler = "".join(map(str, range(8_000)))[:30_000]
    batch = [track(f"m-{n}", context={"page": {"title": filler}}) for n in range(130)]
    body = json.dumps({"batch": batch}).encode()
    assert 3_800_000 < len(body) < 4 * 1024 * 1024
    async with collecting() as shop:
        response = await shop.send(path, gzip.compress(body, 1), key=BROWSER_KEY)
        assert (200, 130) == (response.status_code, response.json()["accepted"])
        assert 130 == len(shop.records())
        # An event is still at most 32 KiB, wherever it stands.
        big = track("big", context={"page": {"title": filler + filler}})
        response = await shop.send(path, {"batch": [big]}, key=BROWSER_KEY)
        assert ["E302"] == [one["code"] for one in response.json()["rejected"]]


async def test_the_node_sdk_calls_its_gzip_a_form(collecting):
    body = gzip.compress(json.dumps({"batch": [track("m-1")]}).encode())
    headers = {
        "content-type": "application/x-www-form-urlencoded", "content-encoding": "gzip",
        **basic("wk-server:"),
    }  # fmt: skip
    async with collecting() as shop:
        response = await shop.client.post("/v1/batch", content=body, headers=headers)
        assert 200 == response.status_code
        assert ["m-1"] == [record.message_id for record in shop.records()]


@pytest.mark.parametrize("shown", ["wk-server", "wk-server:", "wk-server:anything"])
async def test_each_form_of_basic_authentication(collecting, shown):
    async with collecting() as shop:
        response = await shop.client.post("/v1/track", json=track("m-1"), headers=basic(shown))
        assert (200, ["backend"]) == (response.status_code, [r.source for r in shop.records()])


async def test_external_ids_and_consent_as_rudderstack_writes_them(collecting):
    external = {"externalId": [{"type": "crm_id", "id": "c-7"}]}
    denied = {"consentManagement": {"deniedConsentIds": ["personalisation"]}}
    async with collecting() as shop:
        await shop.send("/v1/track", track("m-1", context=external))
        await shop.send("/v1/track", track("m-2", context=denied))
        known, bare = shop.records()
    assert "crm_id" in {one.id_type for one in known.identifiers}
    assert (False, True) == (known.bare, bare.bare)


async def test_headers_of_the_browser_sdk_are_allowed_and_ignored(collecting):
    headers = {
        **ORIGIN, **basic("wk-browser:"), "anonymousid": "NjYyNA==", "sentat": "2026-11-23T04:04:35.202Z",
        "rsa-retry-attempt": "1", "rsa-recovered": "true",
    }  # fmt: skip
    async with collecting() as shop:
        asked = await shop.client.options(
            "/v1/track",
            headers={**ORIGIN, "access-control-request-headers": "AnonymousId, RSA-Retry-Attempt"},
        )
        assert 204 == asked.status_code
        assert "anonymousid" in asked.headers["access-control-allow-headers"]
        response = await shop.client.post("/v1/track", json=track("m-1"), headers=headers)
        assert 200 == response.status_code


@pytest.mark.parametrize("path", ["/sourceConfig", "/sourceConfig/"])
async def test_the_source_config_of_a_browser_key(collecting, path):
    async with collecting() as shop:
        response = await shop.client.get(
            f"{path}?p=npm&v=3.34.1&build=modern&writeKey=wk-browser",
            headers={**ORIGIN, **basic("wk-browser:")},
        )
        assert 200 == response.status_code
        source = response.json()["source"]
        assert ("site", True, []) == (source["id"], source["enabled"], source["destinations"])
        assert {"enabled": False} == source["config"]["statsCollection"]["errors"]
        assert "https://shop.example" == response.headers["access-control-allow-origin"]
        by_query = await shop.client.get("/sourceConfig?writeKey=wk-browser")
        assert response.json() == by_query.json()
        asked = await shop.client.options(path, headers=ORIGIN)
        assert 204 == asked.status_code


@pytest.mark.parametrize(
    ("headers", "code"),
    [({}, "E378"), (basic("wk-other:"), "E371"), (basic("wk-server:"), "E378")],
)
async def test_no_source_config_without_a_browser_key(collecting, headers, code):
    async with collecting() as shop:
        response = await shop.client.get("/sourceConfig", headers=headers)
        assert (400, code) == (response.status_code, response.json()["code"])


async def test_a_pixel_is_an_event_and_a_transparent_image(collecting):
    query = (
        "writeKey=wk-browser&anonymousId=%22a-1%22&event=Product%20Viewed"
        "&properties.product_id=sku-1&context.campaign.source=spring"
    )
    async with collecting() as shop:
        first, again = [await shop.client.get(f"/pixel/v1/track?{query}") for _ in range(2)]
        assert (200, PIXEL, "image/gif", "no-store") == (
            first.status_code, first.content, first.headers["content-type"],
            first.headers["cache-control"],
        )  # fmt: skip
        one, other = shop.records()
        assert ("track", "Product Viewed", "site", {"product_id": "sku-1", "price": None}) == (
            one.type, one.name, one.source, {"price": None, **one.properties},
        )  # fmt: skip
        assert {"a-1"} == {one.value for one in one.identifiers if one.id_type == "anonymous_id"}
        # Two loads of one page are two events, though their queries are the same.
        assert one.message_id != other.message_id
        assert 200 == again.status_code


@pytest.mark.parametrize(
    ("said", "kept"),
    [("true", [("measurement", True)]), ("false", [("measurement", False)]), ("maybe", [])],
)
async def test_a_pixels_consent_is_what_it_says(collecting, said: str, kept: list) -> None:
    query = f"writeKey=wk-browser&anonymousId=a-1&context.consent.categoryPreferences.measurement={said}"
    async with collecting() as shop:
        await shop.client.get(f"/pixel/v1/page?{query}")
        told = [(one.evidence.granted, one.evidence.denied) for one in shop.records()]
    assert kept == [("measurement", "measurement" in granted) for granted, denied in told
                    if "measurement" in (*granted, *denied)]  # fmt: skip


async def test_a_pixel_that_brings_its_message_id_counts_once(collecting):
    query = "writeKey=wk-browser&anonymousId=a-1&name=Home&messageId=m-1"
    async with collecting() as shop:
        await shop.client.get(f"/pixel/v1/page?{query}")
        assert [("page", "m-1")] == [(one.type, one.message_id) for one in shop.records()]


@pytest.mark.parametrize(
    "query",
    [
        "", "writeKey=wk-other", "writeKey=wk-browser&" + "&".join(f"a{n}=1" for n in range(201)),
        "writeKey=wk-browser&" + ".".join("abcdefghi") + "=1", "writeKey=wk-browser&a=1&a.b=2",
    ],
)  # fmt: skip
async def test_a_pixel_that_cannot_be_kept_is_an_image_with_a_true_status(collecting, query):
    async with collecting() as shop:
        response = await shop.client.get(f"/pixel/v1/track?{query}")
        assert (400, PIXEL) == (response.status_code, response.content)
        assert [] == shop.records()
        assert 1 == shop.metrics.value(
            "penstock_requests_total", route="/pixel/v1/track", status="400"
        )


async def test_a_pixel_that_is_not_durable_says_so(collecting):
    async with collecting() as shop:
        shop.log.failures = 1
        response = await shop.client.get("/pixel/v1/page?writeKey=wk-browser&anonymousId=a-1")
        assert (503, PIXEL) == (response.status_code, response.content)


async def test_a_pixels_origin_is_that_of_its_page(collecting):
    async with collecting() as shop:
        for referer, status in [
            ("https://shop.example/basket?x=1", 200), ("https://evil.example/", 400), ("", 400),
            ("no address", 400),
        ]:  # fmt: skip
            response = await shop.client.get(
                "/pixel/v1/page?writeKey=wk-pinned&anonymousId=a-1",
                headers={"referer": referer} if referer else {},
            )
            assert status == response.status_code, referer


def test_an_origin_that_is_sent_is_not_replaced():
    headers = {b"origin": b"https://shop.example", b"referer": b"https://other.example/"}
    assert headers == pixel_headers(headers)
    assert {b"referer": b"http://["} == pixel_headers({b"referer": b"http://["})


def test_of_two_equal_names_in_a_query_the_first_counts():
    event = json.loads(pixel_body(b"userId=u-1&userId=u-2&properties.a=1", "m"))
    assert {"userId": "u-1", "properties": {"a": "1"}, "messageId": "m"} == event


@pytest.mark.parametrize("query", [b"a.b=1&a=2", b"a=1&a.b=2"])
def test_a_name_is_a_value_or_an_object(query):
    with pytest.raises(EventRejected) as caught:
        pixel_body(query, "m")
    assert "E382" == caught.value.code
