import asyncio
import gzip
import json
import logging
import re
import zlib
from pathlib import Path

import pytest

from penstock.core.record import Kind
from penstock.edges.collector.admission import BURST_MS_MAX, LOOK_FREE_BYTES, RESERVE_FACTOR
from penstock.edges.collector.body import plain_bytes_of
from penstock.edges.collector.edge import ROWS, SETTINGS_TEMPLATE
from penstock.edges.collector.routes import METRICS_PATH
from penstock.edges.collector.rudderstack import PIXEL_ROWS, SOURCE_CONFIG_PATH
from penstock.edges.route import Request
from penstock.ports.appender import NO_WAITS, Waits

BROWSER_KEY, SERVER_KEY, PINNED_KEY = "wk-browser", "wk-server", "wk-pinned"
TYPES = {"identify": "i", "track": "t", "page": "p", "screen": "s", "group": "g", "alias": "a"}
ORIGIN = {"origin": "https://shop.example"}
NEEDS = {
    "track": {"event": "Product Viewed", "properties": {"product_id": "sku-1"}},
    "group": {"groupId": "g-1"},
    "alias": {"previousId": "u-0"},
}


def track(message_id: str = "m-1", name: str = "Product Viewed", **more):
    return {
        "type": "track", "event": name, "userId": "u-1", "messageId": message_id,
        "properties": {"product_id": "sku-1"}, **more,
    }  # fmt: skip


@pytest.mark.parametrize("short", [False, True])
@pytest.mark.parametrize("kind", list(TYPES))
async def test_each_type_has_a_long_and_a_short_path(collecting, kind, short):
    path = f"/v1/{TYPES[kind] if short else kind}"
    event = {"userId": "u-1", "messageId": "m-1", **NEEDS.get(kind, {})}
    async with collecting() as shop:
        response = await shop.send(path, event)
        assert (200, {"success": True, "accepted": 1}) == (response.status_code, response.json())
        assert "application/json" == response.headers["content-type"]
        (record,) = shop.records()
    assert (Kind.PRIMARY, kind, "m-1", "backend", True) == (
        record.kind, record.type, record.message_id, record.source, record.verified,
    )  # fmt: skip


@pytest.mark.parametrize("path", ["/v1/batch", "/v1/b", "/v1/import"])
async def test_a_batch_is_taken_as_one(collecting, path):
    body = {"batch": [track(f"m-{n}") for n in range(100)], "sentAt": "2026-11-23T04:00:00Z"}
    async with collecting() as shop:
        response = await shop.send(path, body)
        assert {"success": True, "accepted": 100} == response.json()
        assert [f"m-{n}" for n in range(100)] == [record.message_id for record in shop.records()]
        assert [100] == shop.metrics.observed("penstock_append_records")


@pytest.mark.parametrize(
    ("compress", "encoding"),
    [(gzip.compress, "gzip"), (zlib.compress, "deflate"), (gzip.compress, ""), (bytes, "gzip")],
)
@pytest.mark.parametrize(
    "content_type", ["application/json", "text/plain", "application/x-www-form-urlencoded", ""]
)
async def test_content_type_is_ignored_and_the_bytes_decide_the_encoding(
    collecting, compress, encoding, content_type
):
    headers = {"content-type": content_type, "content-encoding": encoding}
    body = compress(json.dumps({"batch": [track()]}).encode())
    async with collecting() as shop:
        response = await shop.send(
            "/v1/batch", body, headers={k: v for k, v in headers.items() if v}
        )
        assert (200, 1) == (response.status_code, len(shop.records()))


async def test_a_key_in_query_or_body_where_no_header_carries_it(collecting):
    async with collecting() as shop:
        for number, (query, field) in enumerate(
            [("?writeKey=wk-browser", {}), ("", {"writeKey": "wk-browser"})]
        ):
            event = track(f"m-{number}", anonymousId="a-1") | field
            response = await shop.send(f"/v1/track{query}", event, key="")
            assert 200 == response.status_code
        assert ["site", "site"] == [record.source for record in shop.records()]
        assert [False, False] == [record.verified for record in shop.records()]


@pytest.mark.parametrize(
    ("key", "field", "code"),
    [
        ("", {}, "E370"),
        ("", {"writeKey": "KEYID:***"}, "E370"),
        ("", {"writeKey": "wk-other"}, "E371"),
        ("wk-other", {"writeKey": "wk-server"}, "E371"),
    ],
)
async def test_without_a_known_key_the_answer_is_final_for_every_sdk(collecting, key, field, code):
    async with collecting() as shop:
        response = await shop.send("/v1/batch", {"batch": [track()], **field}, key=key)
        body = response.json()
        assert (400, code, False) == (response.status_code, body["code"], body["success"])
        assert body["message"]
        assert body["fix"]
        assert [] == shop.records()


async def test_a_browser_key_is_bound_to_its_origins(collecting):
    event = track(anonymousId="a-1")
    async with collecting() as shop:
        for headers, status in [
            (ORIGIN, 200),
            ({"origin": "https://evil.example"}, 400),
            ({}, 400),
        ]:
            response = await shop.send("/v1/t", event, key=PINNED_KEY, headers=headers)
            assert status == response.status_code
            # The page must be able to read a refusal, or its SDK takes it for a network failure.
            assert headers.get("origin") == response.headers.get("access-control-allow-origin")
        in_body = {**event, "writeKey": PINNED_KEY}
        response = await shop.send(
            "/v1/t", in_body, key="", headers={"origin": "https://evil.example"}
        )
        assert "E375" == response.json()["code"]


async def test_preflights_are_answered_without_a_key(collecting):
    async with collecting() as shop:
        for row in ROWS:
            response = await shop.client.options(row.path, headers=ORIGIN)
            assert 204 == response.status_code
            assert "https://shop.example" == response.headers["access-control-allow-origin"]
            assert "authorization" in response.headers["access-control-allow-headers"]
        assert [] == shop.records()


async def test_global_privacy_control_is_passed_on(collecting):
    async with collecting() as shop:
        await shop.send("/v1/track", track(), headers={"sec-gpc": "1"})
        await shop.send("/v1/track", track("m-2"), headers={"sec-gpc": "0"})
        denied, granted = shop.records()
    assert ("gpc", True) == (denied.evidence.source, denied.bare)
    assert ("basis", False) == (granted.evidence.source, granted.bare)


@pytest.mark.parametrize(
    ("query", "field", "job"),
    [
        ("", {}, "import/backend"),
        ("?job=crm-2024", {}, "crm-2024"),
        ("", {"job": "crm-2024"}, "crm-2024"),
        ("?job=a", {"job": "b"}, "a"),
    ],
)
async def test_an_import_carries_a_job_id(collecting, query, field, job):
    async with collecting() as shop:
        await shop.send(f"/v1/import{query}", {"batch": [track()], **field})
        await shop.send(f"/v1/batch{query}", {"batch": [track("m-2")], **field})
        assert [job, ""] == [record.job for record in shop.records()]


@pytest.mark.parametrize("job", ["", "a b", "x" * 65, 7, ["a"], "naïve"])
async def test_a_job_id_is_short_plain_text(collecting, job):
    async with collecting() as shop:
        response = await shop.send("/v1/import", {"batch": [track()], "job": job})
        assert (400, "E376") == (response.status_code, response.json()["code"])
        assert [] == shop.records()


async def test_a_bad_event_never_rejects_the_others_of_its_batch(collecting):
    nobody = {"type": "track", "event": "Product Viewed", "messageId": "m-2"}
    untyped = track("m-3") | {"type": "purchase"}
    undeclared = track("m-4") | {"properties": {"product_id": "sku-1", "quantity": "many"}}
    async with collecting() as shop:
        response = await shop.send(
            "/v1/batch", {"batch": [track("m-1"), nobody, untyped, undeclared, track("m-5")]}
        )
        body = response.json()
        assert (200, True, 2) == (response.status_code, body["success"], body["accepted"])
        assert {1: "m-2", 2: "m-3", 3: "m-4"} == {
            r["index"]: r["messageId"] for r in body["rejected"]
        }
        assert all(r["code"] and r["what"] and r["path"] for r in body["rejected"])
        assert ["m-1", "m-5"] == [record.message_id for record in shop.records()]
        letters = shop.letters()
        assert {"m-2", "m-3", "m-4"} == {letter.message_id for letter in letters}
        assert {r["code"] for r in body["rejected"]} == {letter.reason for letter in letters}
        assert 5 == shop.metrics.value("penstock_events_accepted_total")
        again = await shop.send("/v1/batch", {"batch": [nobody, untyped]})
        assert 0 == again.json()["accepted"]
        assert 3 == len(shop.letters())


async def test_not_durable_is_503_and_a_retry_keeps_it(collecting):
    async with collecting() as shop:
        shop.log.failures = 1
        refused = await shop.send("/v1/track", track())
        assert (503, "E401", "1") == (
            refused.status_code, refused.json()["code"], refused.headers["retry-after"],
        )  # fmt: skip
        assert [] == shop.records()
        assert 200 == (await shop.send("/v1/track", track())).status_code
        assert ["m-1"] == [record.message_id for record in shop.records()]


async def test_a_suppression_that_is_not_written_is_no_200(collecting):
    async with collecting() as shop:
        shop.suppressions.close()
        response = await shop.send("/v1/track", track(name="Unsubscribed", properties={}))
        assert (503, "E403") == (response.status_code, response.json()["code"])


async def test_over_the_limit_is_429_but_consent_and_unsubscribe_are_kept(collecting):
    async with collecting(requests_max=1) as shop:
        shop.log.gate.clear()
        held = asyncio.create_task(shop.send("/v1/track", track("held")))
        await asyncio.to_thread(shop.log.entered.wait, 20)
        refused = await shop.send("/v1/track", track("refused"), headers=ORIGIN)
        assert (429, "E430") == (refused.status_code, refused.json()["code"])
        assert refused.headers["retry-after"] in {"1", "2", "3"}
        assert "retry-after" == refused.headers["access-control-expose-headers"]
        unsubscribe = track("unsubscribe", "Unsubscribed", properties={})
        body = gzip.compress(json.dumps({"batch": [track("beside"), unsubscribe]}).encode())
        urgent = asyncio.create_task(shop.send("/v1/batch", body))
        consent = {"consent": {"categoryPreferences": {"personalisation": False}}}
        event = track(
            "consent", "Segment Consent Preference Updated", properties={}, context=consent
        )
        withdrawn = asyncio.create_task(shop.send("/v1/t", event))
        again = await shop.send("/v1/track", track("refused"))
        assert 429 == again.status_code
        shop.log.gate.set()
        answers = await asyncio.gather(held, urgent, withdrawn)
        assert [200] * 3 == [answer.status_code for answer in answers]
        expected = {"held", "beside", "unsubscribe", "consent"}
        assert expected == {record.message_id for record in shop.records()}
        assert 2 == shop.metrics.value("penstock_requests_shed_total", reason="in_flight")
        # Every place was given back.
        assert 200 == (await shop.send("/v1/track", track("after"))).status_code


async def test_a_key_over_its_rate_is_429_until_its_bucket_refills(collecting):
    async with collecting(requests_per_s_per_key=2) as shop:
        statuses = [(await shop.send("/v1/track", track(f"m-{n}"))).status_code for n in range(3)]
        assert [200, 200, 429] == statuses
        refused = await shop.send("/v1/batch", {"batch": [track()], "writeKey": SERVER_KEY}, key="")
        assert (429, "E431", "1") == (
            refused.status_code, refused.json()["code"], refused.headers["retry-after"],
        )  # fmt: skip
        other = track("other", anonymousId="a-1")
        assert 200 == (await shop.send("/v1/track", other, key=BROWSER_KEY)).status_code
        kept = await shop.send("/v1/track", track("gone", "Unsubscribed", properties={}))
        assert 200 == kept.status_code
        in_body = {
            "batch": [track("gone-2", "Unsubscribed", properties={})],
            "writeKey": SERVER_KEY,
        }
        assert 200 == (await shop.send("/v1/batch", in_body, key="")).status_code
        shop.clock.advance(500)
        assert 200 == (await shop.send("/v1/track", track("m-3"))).status_code
        assert 2 == shop.metrics.value("penstock_requests_shed_total", reason="quota")


async def test_sdk_metrics_are_discarded(collecting):
    async with collecting() as shop:
        response = await shop.client.post("/v1/m", json={"series": []}, headers=ORIGIN)
        assert (200, {"success": True}) == (response.status_code, response.json())
        assert "https://shop.example" == response.headers["access-control-allow-origin"]
        assert [] == shop.records()


async def test_the_browser_sdk_gets_its_settings(collecting):
    async with collecting() as shop:
        response = await shop.client.get("/v1/projects/wk-browser/settings", headers=ORIGIN)
        assert 200 == response.status_code
        assert {
            "integrations": {
                "Segment.io": {
                    "apiKey": "wk-browser",
                    "apiHost": "events.example/v1",
                    "protocol": "http",
                }
            },
            "plan": {"track": {"__default": {"enabled": True, "integrations": {}}}},
            "metrics": {"sampleRate": 0},
        } == response.json()
        assert "https://shop.example" == response.headers["access-control-allow-origin"]


@pytest.mark.parametrize(
    ("raw", "code", "where"),
    [
        (b'{"writeKey":"wk-server","event":"Product Viewed",}', "E300", "byte 4"),
        (b'{"writeKey":"wk-server","batch":[{"event":"x"}', "E300", "the end"),
        (b'{"writeKey":"\xff"}', "E314", "byte "),
        (b'{"writeKey":"wk-server","event":"\\ud800"}', "E308", "$.event"),
        (b'{"writeKey":"wk-server","event":' + b"[" * 5_000, "E304", "$"),
        (b"user=7", "E300", "byte 0"),
        (b"", "E370", "$.writeKey"),
        (b" \n", "E370", "$.writeKey"),
        (b"[1]", "E370", "$.writeKey"),
        (b'"text"', "E370", "$.writeKey"),
        (b'{"event":"Product Viewed"}', "E370", "$.writeKey"),
    ],
)
@pytest.mark.parametrize("path", ["/v1/track", "/v1/batch", "/v1/import"])
async def test_a_broken_body_is_told_as_broken_and_not_as_one_without_a_key(
    collecting, path, raw, code, where
):
    async with collecting() as shop:
        answer = await shop.send(path, raw, key="")
        body = answer.json()
        assert (400, code) == (answer.status_code, body["code"])
        assert where in body["path"]
        assert body["fix"]


def preferring(said: object, name: str = "Product Viewed", **more: object) -> dict:
    preferences = {"personalisation": said, "measurement": said}
    return {"event": name, "userId": "u-1", "messageId": "m-1",
            "context": {"consent": {"categoryPreferences": preferences}}, **more}  # fmt: skip


@pytest.mark.parametrize("said", ["yes", 1, []])
async def test_consent_that_cannot_be_read_is_told_and_not_silently_a_denial(collecting, said):
    async with collecting() as shop:
        answer = await shop.send("/v1/track", preferring(said))
        unsubscribed = await shop.send(
            "/v1/track", preferring(said, "Unsubscribed", properties={"topic": "t"})
        )
        changed = await shop.send(
            "/v1/track", preferring(said, "Segment Consent Preference Updated")
        )
        (rejected,) = answer.json()["rejected"]
        assert ("E306", "$.context.consent.categoryPreferences.<key 1>") == (
            rejected["code"],
            rejected["path"],
        )
        assert "true or false" in rejected["what"]
        assert [1, 1] == [unsubscribed.json()["accepted"], changed.json()["accepted"]]
        for record in shop.records():
            assert {"personalisation", "measurement"} <= set(record.evidence.denied)


async def test_consent_as_a_text_is_what_it_says(collecting):
    async with collecting() as shop:
        for said in ("true", "false"):
            await shop.send("/v1/track", preferring(said, "Segment Consent Preference Updated"))
        granted, denied = shop.records()
        assert {"personalisation", "measurement"} <= set(granted.evidence.granted)
        assert {"personalisation", "measurement"} <= set(denied.evidence.denied)


async def test_the_public_url_of_the_settings_is_the_configured_one(collecting):
    async with collecting(public_url="https://events.shop.example/") as shop:
        response = await shop.client.get("/v1/projects/wk-browser/settings")
        sink = response.json()["integrations"]["Segment.io"]
        assert ("events.shop.example/v1", "https") == (sink["apiHost"], sink["protocol"])


@pytest.mark.parametrize("key", ["wk-other", SERVER_KEY])
async def test_a_secret_or_unknown_key_gets_no_settings(collecting, key):
    async with collecting() as shop:
        response = await shop.client.get(f"/v1/projects/{key}/settings")
        assert (404, "E378") == (response.status_code, response.json()["code"])
        assert key not in response.text


async def test_requests_are_counted_and_logged_by_template_only(collecting, caplog):
    caplog.set_level(logging.INFO, "penstock.access")
    async with collecting() as shop:
        await shop.send("/v1/track?writeKey=wk-browser", track())
        await shop.send("/v1/track", b"{")
        await shop.client.get("/v1/projects/wk-browser/settings")
        count = shop.metrics.value
        assert 1 == count("penstock_requests_total", route="/v1/track", status="200")
        assert 1 == count("penstock_requests_total", route="/v1/track", status="400")
        template = "/v1/projects/{write_key}/settings"
        assert 1 == count("penstock_requests_total", route=template, status="200")
    lines = [record.getMessage() for record in caplog.records]
    assert [
        "POST /v1/track 200 0ms",
        "POST /v1/track 400 0ms",
        "GET /v1/projects/{write_key}/settings 200 0ms",
    ] == lines


async def test_a_bug_is_answered_503_and_logged_by_place_only(collecting, caplog):
    class Broken:
        async def take_body(self, *args, **kwargs):
            raise ValueError("bob@example.com")

    async with collecting(lambda collector: Broken()) as shop:
        response = await shop.send("/v1/track", track())
        assert (503, "E432") == (response.status_code, response.json()["code"])
        assert "bob@" not in response.text
    assert "bob@" not in caplog.text
    assert "ValueError at " in caplog.text
    assert __file__ in caplog.text


async def test_every_route_is_documented(collecting):
    async with collecting() as shop:
        schema = shop.app.openapi_schema.to_schema()
    assert {row.path for row in ROWS} < set(schema["paths"])
    for row in ROWS:
        operation = schema["paths"][row.path]["post"]
        assert {"200", "400", "408", "429", "503"} == set(operation["responses"])
        fields = operation["requestBody"]["content"]["application/json"]["schema"]["properties"]
        assert ("batch" in fields) == row.batch
    assert not any("options" in item for item in schema["paths"].values())
    assert "Answer" not in schema["components"]["schemas"]


async def test_under_pressure_nothing_is_inflated_beyond_a_share_and_one_event_always_is(
    collecting,
):
    """A compressed batch may hold a consent; to look is worth a bounded share of the time."""
    behind = [Waits(0, BURST_MS_MAX + 1)]
    gone = track("gone", "Unsubscribed", properties={})
    filler = [track(f"m-{n}", context={"page": {"title": str(n) * 500}}) for n in range(100)]
    batch = gzip.compress(json.dumps({"batch": [*filler, gone]}).encode())
    assert plain_bytes_of(batch, b"gzip", 4_000_000) > LOOK_FREE_BYTES
    async with collecting(waits=lambda: behind[0]) as shop:
        assert 429 == (await shop.send("/v1/track", track())).status_code
        assert 200 == (await shop.send("/v1/batch", batch)).status_code
        again = await shop.send("/v1/batch", batch)
        assert (429, "E430") == (again.status_code, again.json()["code"])
        assert int(again.headers["retry-after"]) >= 1
        one = gzip.compress(json.dumps(gone | {"messageId": "gone-2"}).encode())
        assert 200 == (await shop.send("/v1/track", one)).status_code
        shop.clock.advance(seconds=1)
        assert 200 == (await shop.send("/v1/batch", batch)).status_code
        assert 2 == shop.metrics.value("penstock_requests_shed_total", reason="slow_fold")
        behind[0] = NO_WAITS
        shop.clock.advance(1)
        assert 200 == (await shop.send("/v1/track", track("after"))).status_code


async def test_consent_is_let_in_with_any_number_in_flight_and_the_rest_comes_again(collecting):
    async with collecting(requests_max=2) as shop:
        shop.log.gate.clear()
        row = next(row for row in ROWS if row.path == "/v1/track")
        door = shop.edge.door

        def asked(name: str, number: int) -> Request:
            return Request(
                {b"x-write-key": b"wk-server"},
                body=json.dumps(track(f"{name}{number}", name)).encode(),
            )

        taking = [
            asyncio.ensure_future(door.take(row, asked("Product Viewed", n))) for n in range(2)
        ]
        for number in range(2 * RESERVE_FACTOR + 5):
            assert door.turns_away(row, asked("Product Viewed", number))
            assert not door.turns_away(row, asked("Unsubscribed", number))
            taking.append(asyncio.ensure_future(door.take(row, asked("Unsubscribed", number))))
        shop.log.gate.set()
        assert {200} == {answer.status for answer in await asyncio.gather(*taking)}
        assert 0 == door.admission.in_flight


async def test_a_pixel_under_pressure_is_refused_unless_it_carries_consent(collecting):
    async with collecting(waits=lambda: Waits(0, BURST_MS_MAX + 1)) as shop:
        for name, status in (("Product Viewed", 429), ("Unsubscribed", 200)):
            query = {"writeKey": BROWSER_KEY, "anonymousId": "a-1", "event": name}
            answer = await shop.client.get("/pixel/v1/track", params=query)
            assert (status, "image/gif") == (answer.status_code, answer.headers["content-type"])


async def test_what_is_refused_for_others_is_refused_before_its_key_is_looked_up(collecting):
    async with collecting(waits=lambda: Waits(0, BURST_MS_MAX + 1)) as shop:
        assert 429 == (await shop.send("/v1/track", track(), key="wk-nobody")).status_code
        assert (
            400
            == (
                await shop.send("/v1/track", track(name="Unsubscribed"), key="wk-nobody")
            ).status_code
        )


def test_the_guide_to_production_lets_strangers_to_the_collector_alone():
    guide = (Path(__file__).parents[3] / "docs/guides/production.md").read_text()
    (block,) = re.findall(r"```text\n(links in emails.*?)```", guide, re.DOTALL)
    told = set(re.findall(r"(?<=\s)/\S+", block))
    ours = {row.path for row in (*ROWS, *PIXEL_ROWS)}
    ours |= {METRICS_PATH, SOURCE_CONFIG_PATH, SETTINGS_TEMPLATE}
    mail = {"/c/*", "/o/*", "/v1/unsubscribe/*"}

    through = re.compile("|".join(re.escape(one).replace(r"\*", "[^/]+") for one in told))

    assert mail <= told
    assert {one for one in ours if not through.fullmatch(one)} == set()
    assert {one for one in told - mail if "*" not in one} <= ours
    kept = ("/v1/profiles", "/v1/profiles/u1", "/v1/decide/x", "/v1/render/x", "/v1/admin/load", "/metrics")  # fmt: skip
    assert [one for one in kept if through.fullmatch(one)] == []
