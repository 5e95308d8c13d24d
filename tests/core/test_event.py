"""Requests decode to events; what is wrong is refused event by event, with its place and no value."""

import json
from pathlib import Path
from typing import Any

import pytest

from penstock.core.consent.preferences import consent_preferences
from penstock.core.errors import EventRejected
from penstock.core.event import (
    RUDDERSTACK,
    SEGMENT,
    Event,
    Limits,
    decode_batch,
    decode_single,
    external_ids,
    occurred_at_ms,
    person_email,
)
from penstock.core.literal import Literal
from penstock.core.time import parse_instant

BODIES = {
    (sdk, path): body
    for sdk, path, body in (
        line.split("\t")
        for line in (Path(__file__).parent / "sdk_bodies.tsv").read_text().splitlines()
    )
}
"""Bodies of real SDKs, as they sent them to a sink of ours, shortened: (SDK, path) -> body."""

PYTHON_BATCH = BODIES["segment-analytics-python 2.4.0", "/v1/batch"].encode()
RUDDER_PYTHON_BATCH = BODIES["rudder-sdk-python 2.1.9", "/v1/batch"].encode()
RUDDER_NODE_BATCH = BODIES["@rudderstack/rudder-sdk-node 3.0.13", "/v1/batch"].encode()
BROWSER_PAGE = BODIES["@segment/analytics-next 1.84.3", "/v1/p"].encode()
RUDDER_BROWSER_PAGE = BODIES["@rudderstack/analytics-js 3.34.1", "/v1/page"].encode()
JITSU_IDENTIFY = BODIES["@jitsu/js 1.11.0", "/api/s/identify"].encode()


def track(**fields: Any) -> dict[str, Any]:
    return {"type": "track", "event": "E", "userId": "u1", "messageId": "m1"} | fields


def body(*events: Any, **beside: Any) -> bytes:
    return json.dumps({"batch": list(events)} | beside).encode()


def only(raw: bytes, limits: Limits = SEGMENT) -> Event:
    decoded = decode_batch(raw, limits)
    assert [] == decoded.rejected
    return decoded.events[0][1]


def refusal(raw: bytes, limits: Limits = SEGMENT) -> tuple[str, str]:
    """Return the code and the place of the one event that a batch refuses."""
    decoded = decode_batch(raw, limits)
    assert 1 == len(decoded.rejected)
    error = decoded.rejected[0].error
    assert "" != error.fix
    return error.code, error.where


def test_the_batch_of_the_python_sdk() -> None:
    decoded = decode_batch(PYTHON_BATCH, SEGMENT)
    assert [] == decoded.rejected
    events = [event for _, event in decoded.events]
    types = ["identify", "track", "alias", "group", "page", "screen"]
    assert types == [event.type for event in events]
    assert {"email": "a@b.c"} == events[0].traits
    assert events[0].anonymous_id is None
    assert "anon" == events[2].previous_id
    assert "g1" == events[3].group_id
    assert ("n", "c") == (events[4].name, events[4].category)
    assert {"2026-11-23T03:52:40.321368+00:00"} == {event.sent_at for event in events}
    assert b'"identify"' in decoded.raw(0)


def test_rudderstack_sends_traits_in_the_context() -> None:
    event = only(RUDDER_PYTHON_BATCH, RUDDERSTACK)
    assert {"email": "a@b.c"} == event.traits
    assert "a@b.c" == person_email(event)


def test_rudderstack_node_has_only_the_original_timestamp() -> None:
    event = only(RUDDER_NODE_BATCH)
    received = parse_instant("2026-11-23T03:53:27Z")
    assert parse_instant("2026-11-23T03:53:26.575Z") == occurred_at_ms(event, received)


def test_the_page_of_the_browser_sdk() -> None:
    decoded = decode_single(BROWSER_PAGE, "page", SEGMENT)
    event = decoded.events[0][1]
    assert (None, "2ef6c1be-6a70") == (event.user_id, event.anonymous_id)


def test_an_empty_user_id_is_none() -> None:
    event = decode_single(RUDDER_BROWSER_PAGE, "page", SEGMENT).events[0][1]
    assert event.user_id is None
    assert "6624eeb6" == event.anonymous_id


def test_the_path_decides_the_type() -> None:
    decoded = decode_single(b'{"event":"E","userId":"u"}', "track", SEGMENT)
    assert "track" == decoded.events[0][1].type
    assert "identify" == decode_single(JITSU_IDENTIFY, None, SEGMENT).events[0][1].type


def test_numeric_ids_become_texts_and_nulls_go() -> None:
    event = only(body(track(userId=42, messageId=7, properties=None, context=None, traits=None)))
    assert ("42", "7") == (event.user_id, event.message_id)
    assert ({}, {}, {}) == (event.properties, event.context, event.traits)


def test_decimals_keep_their_digits() -> None:
    raw = b'{"type":"track","event":"E","messageId":"m","properties":{"a":19.90,"b":1e2,"c":3,"d":[0.10]}}'
    found = decode_single(raw, None, SEGMENT).events[0][1].properties
    assert {"a": "19.90", "b": "1e2", "c": 3, "d": ["0.10"]} == found
    assert (Literal, Literal, int, Literal) == (
        type(found["a"]),
        type(found["b"]),
        type(found["c"]),
        type(found["d"][0]),
    )


def test_what_stands_beside_the_batch_is_for_all_and_the_event_wins() -> None:
    raw = body(
        track(context={"locale": "de"}),
        track(),
        context={"locale": "en", "timezone": "UTC"},
        sentAt="2026-11-23T04:09:43Z",
    )
    first, second = (event for _, event in decode_batch(raw, SEGMENT).events)
    assert {"locale": "de", "timezone": "UTC"} == first.context
    assert {"locale": "en", "timezone": "UTC"} == second.context


def test_one_bad_event_rejects_no_other() -> None:
    raw = body(track(messageId="a"), track(event=None, messageId="b"), 17, track(messageId="c"))
    decoded = decode_batch(raw, SEGMENT)
    assert [0, 3] == [index for index, _ in decoded.events]
    assert [(1, "b", "E312"), (2, None, "E301")] == [
        (one.index, one.message_id, one.error.code) for one in decoded.rejected
    ]
    assert b"17" == decoded.rejected[1].raw


@pytest.mark.parametrize(
    ("event", "code", "where"),
    [
        ('{"type":"track","messageId":"m"}', "E312", "$.event"),
        ('{"type":"track","event":"","messageId":"m"}', "E312", "$.event"),
        ('{"messageId":"m"}', "E305", "$.type"),
        ('{"type":"merge","messageId":"m"}', "E305", "$.type"),
        ('{"type":"track","event":"E","userId":{"a":1}}', "E306", "$.userId"),
        ('{"type":"track","event":"E","userId":1.5}', "E306", "$.userId"),
        ('{"type":"track","event":"E","userId":true}', "E306", "$.userId"),
        ('{"type":"track","event":5}', "E306", "$.event"),
        ('{"type":"track","event":"E","properties":[1]}', "E306", "$.properties"),
        ('{"type":"track","event":"E","timestamp":1795406979}', "E306", "$.timestamp"),
        ('{"type":"track","event":"a\\u0000b"}', "E307", "$.event"),
        ('{"type":"track","event":"E","properties":{"x":["\\u0000"]}}', "E307", "$.properties.<key 1>[0]"),
        ('{"type":"track","event":"E","properties":{"\\u0000":1}}', "E307", "$.properties.<key 1>"),
        ('{"type":"track","event":"\\ud83d"}', "E308", "$.event"),
        ('{"type":"track","event":"E","properties":{"x":"a\\udc00"}}', "E308", "$.properties.<key 1>"),
        ('{"type":"track","event":"E","userId":"a","userId":"b"}', "E309", "$.userId"),
        ('{"type":"track","event":"E","properties":{"x":1,"x":2}}', "E309", "$.properties.<key 2>"),
        ('{"type":"track","event":"E","properties":{"x" :1,"x": 2}}', "E309", "$.properties.<key 2>"),
        (
            '{"type":"track","event":"E","properties":{"a":"\\u003a","x":1,"x":2}}',
            "E309",
            "$.properties.<key 3>",
        ),
        ('{"type":"track","event":"E","timestamp":"yesterday"}', "E311", "$.timestamp"),
        ('{"type":"track","event":"E","timestamp":"9999-12-31T23:59:59Z"}', "E311", "$.timestamp"),
        ('{"type":"track","event":"E","timestamp":"9999-12-31T23:59:59-08:00"}', "E311", "$.timestamp"),
        ('{"type":"track","event":"E","timestamp":"0001-01-01T00:00:00Z"}', "E311", "$.timestamp"),
        ('{"type":"track","event":"E","originalTimestamp":"x"}', "E311", "$.originalTimestamp"),
        ('{"type":"track","event":"E","properties":{"n":' + "9" * 5000 + "}}", "E323", "$.properties[...]"),
        ('{"type":"track","event":"E","userId":"' + "u" * 513 + '"}', "E310", "$.userId"),
        ('{"type":"track","event":"E","messageId":"' + "m" * 101 + '"}', "E310", "$.messageId"),
        ('{"type":"track","event":"' + "e" * 201 + '"}', "E310", "$.event"),
        ('{"type":"track","event":NaN}', "E300", "byte 24"),
        ('{"type":"track","event":tru}', "E300", "byte 28"),
        ('"text"', "E301", "$"),
        ("[1]", "E301", "$"),
        ("null", "E301", "$"),
        ('{"type":"track","event":"E","p":' + "[" * 40 + "]" * 40 + "}", "E304", "$"),
        ('{"type":"track","event":"E","p":' + "[" * 2000 + "]" * 2000 + "}", "E304", "$"),
        ('{"type":"track","event":"E","p":"' + "x" * 33_000 + '"}', "E302", "$"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_refused_with_its_place_and_the_rest_goes_on(
    event: str, code: str, where: str
) -> None:
    raw = f'{{"batch":[{event},{{"type":"track","event":"E","messageId":"ok"}}],"writeKey":"K"}}'
    decoded = decode_batch(raw.encode(), SEGMENT)
    assert [1] == [index for index, _ in decoded.events]
    assert [(0, code, where)] == [
        (one.index, one.error.code, one.error.where) for one in decoded.rejected
    ]
    assert event.encode() == decoded.rejected[0].raw


@pytest.mark.parametrize("odd", [
    b'"event":"\xff"', b'"event":"E","else":"\xff"', b'"event":"E","else":"\xff\\u003a"', b'"event":"\\u003a","\xff":1',
])  # fmt: skip
def test_bytes_that_are_no_utf8_reject_their_event_only(odd: bytes) -> None:
    raw = b'{"batch":[{"type":"track",%s},{"type":"track","event":"E","messageId":"ok"}]}' % odd
    decoded = decode_batch(raw, SEGMENT)
    assert [1] == [index for index, _ in decoded.events]
    assert ["E314"] == [one.error.code for one in decoded.rejected]


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (b"", "E300"),
        (b"{", "E300"),
        (b'{"batch":[{"type":"track"}', "E300"),
        (b'{"batch":[{"type":"track"]}', "E300"),
        (b'{"batch":[{"a":"\\ud800"}]} x', "E300"),
        (b'{"batch":[{"a":"\\ud800}]}', "E300"),
        (b'{"batch":["\\ud800"],"batch":[]}', "E309"),
        (b'{"context":"\\ud800","batch":[]}', "E308"),
        (b'{"x":"\\ud800"}', "E308"),
        (b"\xff", "E300"),
        (b"[]", "E301"),
        (b"{}", "E301"),
        (b"7", "E301"),
        (b'{"batch":null}', "E301"),
        (b'{"batch":{"type":"track"}}', "E301"),
        (b"[" * 100_000, "E301"),
        (b'{"batch":[' + b"[" * 100_000, "E304"),
        (b" " * (500 * 1024 + 1), "E302"),
    ],
)
def test_a_body_that_is_no_batch_is_refused_as_a_whole(raw: bytes, code: str) -> None:
    with pytest.raises(EventRejected) as caught:
        decode_batch(raw, SEGMENT)
    assert code == caught.value.code


@pytest.mark.parametrize(
    ("raw", "code"),
    [(b"", "E300"), (b"[]", "E301"), (b"\xff", "E300"), (b'{"a":"\xff"}', "E314"), (b" " * 32_769, "E302")],
)  # fmt: skip
def test_a_body_that_is_no_event_is_refused_as_a_whole(raw: bytes, code: str) -> None:
    with pytest.raises(EventRejected) as caught:
        decode_single(raw, "track", SEGMENT)
    assert code == caught.value.code


def test_a_single_event_that_is_wrong_is_kept_for_the_dead_letter() -> None:
    raw = b'{"messageId":"m","userId":"u","properties":{"a":1}}'
    decoded = decode_single(raw, "track", SEGMENT)
    assert [] == decoded.events
    assert [(0, "m", "E312", raw)] == [
        (one.index, one.message_id, one.error.code, one.raw) for one in decoded.rejected
    ]


def test_events_beyond_the_number_allowed_are_refused_one_by_one() -> None:
    decoded = decode_batch(body(track(), track(), track()), SEGMENT._replace(batch_events_max=2))
    assert [0, 1] == [index for index, _ in decoded.events]
    assert [(2, "E303")] == [(one.index, one.error.code) for one in decoded.rejected]


def test_a_batch_of_far_too_many_events_is_refused_as_a_whole() -> None:
    with pytest.raises(EventRejected) as caught:
        decode_batch(b'{"batch":[' + b"1," * 10_000 + b"1]}", SEGMENT)
    assert "E303" == caught.value.code


def test_a_rudderstack_batch_may_have_four_mebibytes() -> None:
    raw = body(*[track(properties={"a": "x" * 30_000})] * 100)
    with pytest.raises(EventRejected):
        decode_batch(raw, SEGMENT)
    assert 100 == len(decode_batch(raw, RUDDERSTACK).events)


def test_brackets_in_texts_are_not_depth() -> None:
    event = only(body(track(properties={"a": "[[[[[[[[[[{{{{{{{{{{[[[[[[[[[[{{{{{{{{{{"})))
    assert 40 == len(event.properties["a"])


def test_a_long_list_is_not_depth() -> None:
    products = [{"product_id": f"p{number}"} for number in range(100)]
    assert products == only(body(track(properties={"products": products}))).properties["products"]


def test_colons_and_escapes_in_texts_are_no_keys() -> None:
    texts = {"a": 'b":"c', "d": "x: y", "e": '"', "f": "\\u003a", "g": ":::"}
    assert texts == only(body(track(properties=texts))).properties
    escaped = (
        b'{"batch":[{"type":"track","event":"E","messageId":"m","properties":{"a":"\\u003a"}}]}'
    )
    assert {"a": ":"} == only(escaped).properties


def test_without_the_check_the_last_of_two_equal_keys_counts() -> None:
    raw = b'{"batch":[{"type":"track","event":"E","messageId":"m","userId":"a","userId":"b"}]}'
    assert "b" == only(raw, SEGMENT._replace(unique_keys=False)).user_id


def test_a_message_id_that_is_missing_is_derived_from_the_request() -> None:
    one = body(
        {"type": "track", "event": "E", "userId": "u"},
        {"type": "track", "event": "E", "userId": "u"},
    )
    other = body({"type": "track", "event": "F", "userId": "u"})

    def ids(raw: bytes, source: str = "s") -> list[str]:
        return [event.message_id for _, event in decode_batch(raw, SEGMENT, source=source).events]

    assert ids(one) == ids(one)
    assert 2 == len(set(ids(one)))
    assert not set(ids(one)) & set(ids(other))
    assert not set(ids(one)) & set(ids(one, "t"))
    assert all(len(derived) <= 100 for derived in ids(one))
    single = b'{"event":"E","messageId":""}'
    first = decode_single(single, "track", SEGMENT).events[0][1].message_id
    assert first == decode_single(single, "track", SEGMENT).events[0][1].message_id


RECEIVED = parse_instant("2026-11-23T12:00:00Z")


@pytest.mark.parametrize(
    ("timestamp", "sent_at", "expected"),
    [
        # A right clock: the claim stands, whatever the delay up to 30 s.
        ("2026-11-23T11:59:00Z", "2026-11-23T11:59:59Z", "2026-11-23T11:59:00Z"),
        ("2026-11-23T11:59:00Z", "2026-11-23T11:59:30Z", "2026-11-23T11:59:00Z"),
        ("2026-11-23T11:59:00Z", "2026-11-23T12:00:30Z", "2026-11-23T11:59:00Z"),
        # A clock 31 s or more off: the difference is taken off.
        ("2026-11-23T11:59:00Z", "2026-11-23T11:59:29Z", "2026-11-23T11:59:31Z"),
        ("2027-01-01T00:00:00Z", "2027-01-01T00:00:10Z", "2026-11-23T11:59:50Z"),
        ("2020-01-01T00:00:00Z", "2020-01-01T01:00:00Z", "2026-11-23T11:00:00Z"),
        # Without `sentAt` nothing is corrected, but the future is clamped.
        ("2026-11-23T11:00:00Z", None, "2026-11-23T11:00:00Z"),
        ("2026-11-23T11:00:00Z", "junk", "2026-11-23T11:00:00Z"),
        ("2030-01-01T00:00:00Z", None, "2026-11-23T12:05:00Z"),
        ("2026-11-23T12:00:10Z", "2026-11-23T12:00:00Z", "2026-11-23T12:00:10Z"),
        # A correction that would lead before 1970 ends there.
        ("1970-01-01T00:00:01Z", "2098-01-01T00:00:00Z", "1970-01-01T00:00:00Z"),
        (None, "2020-01-01T00:00:00Z", "2026-11-23T12:00:00Z"),
        ("", "", "2026-11-23T12:00:00Z"),
    ],
)
def test_the_clock_of_the_sender_is_corrected(
    timestamp: str | None, sent_at: str | None, expected: str
) -> None:
    event = Event(type="track", event="E", timestamp=timestamp, sent_at=sent_at)
    assert parse_instant(expected) == occurred_at_ms(event, RECEIVED)


def test_the_timestamp_goes_before_the_original_one() -> None:
    event = Event(timestamp="2026-11-23T11:00:00Z", original_timestamp="2026-11-23T10:00:00Z")
    assert parse_instant("2026-11-23T11:00:00Z") == occurred_at_ms(event, RECEIVED)


def test_external_ids_are_pairs_of_type_and_id() -> None:
    listed = [
        {"id": "+44", "type": "phone", "collection": "users", "encoding": "none"},
        {"id": 7, "type": "esp.braze"},
        {"id": "a", "type": "account", "collection": "accounts"},
        {"id": "b", "type": "email", "encoding": "sha256"},
    ]
    event = Event(context={"externalIds": listed})
    assert (("phone", "+44"), ("esp.braze", 7)) == external_ids(event)
    assert (("t", "x"),) == external_ids(Event(context={"externalId": [{"id": "x", "type": "t"}]}))
    assert () == external_ids(Event(context={"externalIds": None}))
    assert () == external_ids(Event())


@pytest.mark.parametrize(
    ("listed", "where"),
    [
        ({"id": "a"}, "$.context.externalIds"),
        (["a"], "$.context.externalIds[0]"),
        ([{"id": "a", "type": 5}], "$.context.externalIds[0].type"),
        ([{"id": "a"}], "$.context.externalIds[0].type"),
    ],
)
def test_external_ids_of_another_shape_are_refused(listed: object, where: str) -> None:
    with pytest.raises(EventRejected) as caught:
        external_ids(Event(context={"externalIds": listed}))
    assert ("E306", where) == (caught.value.code, caught.value.where)


def test_a_group_has_an_email_of_its_own() -> None:
    person = {"traits": {"email": "p@b.c"}}
    event = Event(type="group", traits={"email": "g@b.c"}, context=person)
    assert "p@b.c" == person_email(event)
    raw = b'{"groupId":"g","messageId":"m","context":{"traits":{"email":"p@b.c"}}}'
    assert {} == decode_single(raw, "group", SEGMENT).events[0][1].traits
    assert person_email(Event()) is None


def test_consent_preferences() -> None:
    given = {"consent": {"categoryPreferences": {"ads": False}}}
    assert {"ads": False} == consent_preferences(Event(context=given))
    assert consent_preferences(Event(context={"consent": {}})) is None
    assert consent_preferences(Event()) is None
    for context in ({"consent": "no"}, {"consent": {"categoryPreferences": "no"}}):
        with pytest.raises(EventRejected) as caught:
            consent_preferences(Event(context=context))
        assert "E306" == caught.value.code


def test_a_preference_as_a_text_is_what_it_says() -> None:
    given = {"consent": {"categoryPreferences": {"a": "true", "b": "false", "c": None, "d": True}}}
    said = {"a": True, "b": False, "c": None, "d": True}
    assert said == consent_preferences(Event(context=given))


@pytest.mark.parametrize("value", ["yes", "True", "", 1, 0, 1.0, [], {"x": 1}])
def test_a_preference_that_cannot_be_read_is_refused_or_denies(value) -> None:
    event = Event(context={"consent": {"categoryPreferences": {"a": True, "canary": value}}})
    with pytest.raises(EventRejected) as caught:
        consent_preferences(event)
    assert "E306" == caught.value.code
    assert "$.context.consent.categoryPreferences.<key 2>" == caught.value.where
    assert {"a": True, "canary": False} == consent_preferences(event, deny_unreadable=True)


@pytest.mark.parametrize(
    ("context", "said"),
    [
        ({"consentManagement": {}}, None),
        ({"consentManagement": {"allowedConsentIds": [], "deniedConsentIds": None}}, None),
        ({"consentManagement": {"allowedConsentIds": ["a"], "provider": "custom"}}, {"a": True}),
        (
            {
                "consentManagement": {
                    "allowedConsentIds": ["a", "b"],
                    "deniedConsentIds": ["b", "c"],
                }
            },
            {"a": True, "b": False, "c": False},
        ),
        (
            {
                "consent": {"categoryPreferences": {"a": False, "b": True, "d": True}},
                "consentManagement": {"allowedConsentIds": ["a"], "deniedConsentIds": ["b"]},
            },
            {"a": False, "b": False, "d": True},
        ),
    ],
)
def test_consent_as_rudderstack_lists_it(context, said) -> None:
    assert said == consent_preferences(Event(context=context))


@pytest.mark.parametrize(
    "listed", ["no", ["a"], {"deniedConsentIds": "a"}, {"deniedConsentIds": [1]}]
)
def test_a_consent_list_that_cannot_be_read_is_not_no_consent(listed) -> None:
    with pytest.raises(EventRejected) as caught:
        consent_preferences(Event(context={"consentManagement": listed}))
    assert "E306" == caught.value.code
