"""The native intake differs in nothing from the one in Python: records, letters, answers and metrics."""

import json
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from intake_world import EVENTS, MARKS, NOW, ODD, READINGS, SOURCES, WORLDS, Pair, Sender, Side

from penstock.adapters.accelerator.native import accelerate_intake
from penstock.core.catalog.schema import Catalog
from penstock.core.errors import Unavailable
from penstock.core.event import SEGMENT
from penstock.core.time import format_instant
from penstock.dsl.events import private, string, traits
from penstock.flows.collect import Intake
from penstock.flows.intake import EVIDENCES_MAX, Reading

pytestmark = pytest.mark.skipif(accelerate_intake() is None, reason="the accelerator is not built")

SEEDS = st.integers(0, 1 << 40)
BATCH, SINGLE = READINGS[0], READINGS[2]
SITE, BACKEND = SOURCES[0], SOURCES[2]


def play(seed: int, oddity: float, *, damage: bool = False) -> None:
    """Send some requests to a pair."""
    sender = Sender(seed, oddity)
    dice = random.Random(seed)
    pair = Pair(dice.randrange(len(WORLDS)))
    for _ in range(3):
        reading = dice.choice(READINGS)
        body = sender.body(reading)
        if damage:
            body = sender.damaged(body)
        pair.take(body, reading, dice.choice(SOURCES), gpc=dice.random() < 0.2)


@given(SEEDS)
@settings(max_examples=250, deadline=None)
def test_ordinary_requests_come_to_the_same_bytes(seed: int) -> None:
    play(seed, 0.0)


@given(SEEDS, st.sampled_from([0.02, 0.1, 0.4]))
@settings(max_examples=350, deadline=None)
def test_odd_values_come_to_the_same_bytes_or_the_same_refusal(seed: int, oddity: float) -> None:
    play(seed, oddity)


@given(SEEDS)
@settings(max_examples=400, deadline=None)
def test_damaged_bodies_come_to_the_same_bytes_or_the_same_refusal(seed: int) -> None:
    play(seed, 0.02, damage=True)


@given(st.binary(max_size=60))
@settings(max_examples=200, deadline=None)
def test_bytes_that_are_no_event_are_refused_alike(raw: bytes) -> None:
    pair = Pair(0)
    for reading in READINGS:
        pair.take(raw, reading, SITE)
    pair.take(b'{"batch":[' + raw + b"]}", BATCH, SITE)


def good(**more: Any) -> dict[str, Any]:
    return {
        "type": "track", "event": "Product Viewed", "messageId": "m-1", "anonymousId": "d-1",
        "timestamp": "2026-11-25T10:00:00.000Z", "properties": {"product_id": "p-1"}, **more,
    }  # fmt: skip


@pytest.mark.parametrize("name", [
    "type", "event", "messageId", "anonymousId", "userId", "groupId", "previousId", "timestamp", "originalTimestamp",
    "sentAt", "properties", "traits", "context", "name", "category", "else",
])  # fmt: skip
def test_every_odd_value_in_every_member_of_an_event_is_taken_alike(name: str) -> None:
    pair = Pair(0)
    for odd in ODD:
        body = json.dumps({"batch": [good(), good(**{name: odd}), good(messageId="m-2")]}).encode()
        pair.take(body, BATCH, SITE)
        pair.take(body, BATCH, BACKEND)


@pytest.mark.parametrize("name", [
    "product_id", "category", "price", "currency", "weight", "stock", "sale", "listed", "tags", "label", "colour",
])  # fmt: skip
def test_every_odd_value_of_every_kind_of_field_is_taken_alike(name: str) -> None:
    pair = Pair(0)
    for odd in ODD:
        properties = {"product_id": "p-1", "price": 1.5, name: odd}
        pair.take(json.dumps(good(properties=properties)).encode(), SINGLE, SITE)
        pair.take(json.dumps(good(properties={**properties, name: [odd]})).encode(), SINGLE, SITE)


@pytest.mark.parametrize("mark", MARKS, ids=repr)
def test_every_mark_at_every_place_of_an_event_is_taken_alike(mark: bytes) -> None:
    pair = Pair(0)
    body = json.dumps(good(userId="u-1", properties={"product_id": "p", "price": 1.5})).encode()
    for at in range(len(body) + 1):
        pair.take(body[:at] + mark + body[at:], SINGLE, SITE)


MANY = ",".join(f'"k{number}": {number}' for number in range(40))


@pytest.mark.parametrize("said", [
    '"type": "track", "type": "track"', '"messageId": "m-1", "messageId": "m-1"', '"else": 1, "else": 1', '"else": {"a": 1, "b": 2, "a": 1}',
    '"else": [{"a": {"b": 1, "b": 1}}]', '"context": {"a": 1, "a": 2}', '"context": {}, "context": {}',
    '"else": {"": 1, "": 2}', '"else": {"ab": 1, "cab": 2, "ab": 3}', f'"else": {{{MANY}}}', f'"else": {{{MANY}, "k39": 1}}',
    f'"else": {{{MANY}, "k0": 1}}', '"else": {"a": 1, "\\u0061": 1}', '"else": {"a": 1, "\\u0062": 1}', '"\\u0065lse": 1',
    '"\\u0075serId": "u-1"', '"userId": "\\u0061\\ud83d\\ude00"', '"userId": "\\/x\\b"', '"else": "a\\u003ab", "b": 1',
    '"else": -0', '"userId": -0', '"userId": 0', '"userId": 1.0', '"userId": 01', '"userId": 123456789012345678',
    '"userId": 1234567890123456789', '"userId": 99999999999999999999', '"else": 1e999', '"else": 1.7976931348623159e308',
    '"timestamp": "2026-11-25T10:00:00.1Z"', '"timestamp": "2026-11-25T10:00:00.12345Z"',
    '"timestamp": "2026-11-25T10:00:00.9999999Z"', '"timestamp": "2024-02-29"', '"timestamp": "2100-02-29"',
    '"timestamp": "2026-11-25T10:00:00,5Z"', '"timestamp": "2026-11-25x10:00:00"', '"timestamp": "2026-11-25T10:00:00+23:59"',
    '"timestamp": "2026-11-25T10:00:00+24:00"', '"timestamp": "2026-11-25T10:00:00-00:00"', '"timestamp": "2026-11-25T10:00:00z"',
    '"timestamp": "2026-11-25T10:00:00 Z"', '"timestamp": "2026-11-25T10:00:00+0100"', '"timestamp": "1970-01-01T00:00:00+00:01"',
])  # fmt: skip
def test_what_no_encoder_writes_is_taken_alike(said: str) -> None:
    pair = Pair(0)
    event = json.dumps(good()).encode()
    for place in (b"{", b'"properties": {'):
        members = {key: one for key, one in good().items() if f'"{key}"' not in said}
        odd = json.dumps(members).encode().replace(place, place + said.encode() + b", ", 1)
        pair.take(odd, SINGLE, SITE)
        pair.take(
            b'{"batch": [' + event + b"," + odd + b"], " + said.encode() + b"}", BATCH, BACKEND
        )
        pair.take(b'{"batch": [' + event + b"," + odd + b"]}", BATCH, BACKEND)


@pytest.mark.parametrize(
    "number", ["-0", "0", "-0.0", "1E2", "1e-2", "00", "1.", "1.50", "123456789012345678", "1" * 40]
)
def test_numbers_are_texts_in_the_same_digits(number: str) -> None:
    pair = Pair(0)
    for name in ("product_id", "price", "weight", "stock", "label"):
        properties = f'{{"product_id": "p", "{name}": {number}}}'.replace(
            '"product_id": "p", "product_id"', '"product_id"'
        )
        event = json.dumps(good()).replace('{"product_id": "p-1"}', properties)
        pair.take(event.encode(), SINGLE, SITE)


def test_limits_are_the_same() -> None:
    pair = Pair(0)
    for chars in (99, 100, 101, 200, 201, 511, 512, 513):
        for name in ("messageId", "anonymousId", "userId", "event", "previousId"):
            for letter in ("x", "ü"):
                pair.take(json.dumps(good(**{name: letter * chars})).encode(), SINGLE, BACKEND)
    for size in (SEGMENT.event_bytes_max - 1, SEGMENT.event_bytes_max, SEGMENT.event_bytes_max + 1):
        body = json.dumps(good(else_=""), separators=(",", ":"))
        padded = body.replace('"else_":""', f'"else_":"{"x" * (size - len(body))}"').encode()
        assert size == len(padded)
        pair.take(padded, SINGLE, SITE)
        pair.take(b'{"batch":[' + padded + b", " + padded + b"]}", BATCH, SITE)
    few = Reading(True, None, SEGMENT._replace(batch_events_max=3))
    for count in (0, 1, 3, 4, 12, 13):
        pair.take(json.dumps({"batch": [good()] * count}).encode(), few, SITE)


@pytest.mark.parametrize("depth", [1, 10, 22, 23, 24, 25, 31, 32, 33, 500])
def test_depth_is_the_same(depth: int) -> None:
    pair = Pair(0)
    inner = b'{"a":' * depth + b"1" + b"}" * depth
    event = json.dumps(good()).encode().replace(b'"p-1"', b'"p-1", "deep": ' + inner)
    pair.take(event, SINGLE, SITE)
    pair.take(b'{"batch":[' + event + b"," + json.dumps(good()).encode() + b"]}", BATCH, SITE)


def test_clocks_are_corrected_alike() -> None:
    pair = Pair(0)
    for sent_ms in (0, 29_999, 30_000, 30_001, -29_999, -30_000, -30_001, 10**9, NOW, NOW + 1):
        for claimed_ms in (0, 1, 299_999, -300_000, -300_001, -400_000, NOW - 1, NOW):
            sent, claimed = format_instant(NOW - sent_ms), format_instant(NOW - claimed_ms)
            times = {"sentAt": sent, "timestamp": claimed}
            pair.take(json.dumps(good(**times)).encode(), SINGLE, SITE)
            whole = {"batch": [good(timestamp=times["timestamp"])], "sentAt": times["sentAt"]}
            pair.take(json.dumps(whole).encode(), BATCH, SITE)


def test_edges_are_stated_in_the_same_order() -> None:
    pair = Pair(0)
    said = {"userId": "u-1", "anonymousId": "d-1", "groupId": "g-1", "previousId": "u-0"}
    for kind in ("identify", "track", "page", "screen", "group", "alias"):
        for left_out in (None, *said):
            for value in ("guest", "", "same", "  same "):
                ids = said | ({left_out: value} if left_out else dict.fromkeys(said, "same"))
                for email in ("jo@shop.example", "same", None):
                    event = good(
                        type=kind,
                        traits={"email": email},
                        context={"traits": {"email": "c@d.example"}},
                        **ids,
                    )
                    for source in (SITE, BACKEND):
                        pair.take(json.dumps(event).encode(), SINGLE, source)


def test_the_first_instant_and_what_is_missing_are_taken_alike() -> None:
    pair = Pair(0)
    for event in (
        good(timestamp="1970-01-01T00:00:00.000Z", userId="u-1"),
        good(properties={}), good(properties={"product_id": None}), good(event="Order Completed", properties={"products": [{}]}),
        good(event="Order Completed"), good(type="page"), good(type="page", properties=None, name="n", category=""),
    ):  # fmt: skip
        without = {key: value for key, value in event.items() if key != "properties"}
        for one in (event, without):
            pair.take(json.dumps(one).encode(), SINGLE, SITE)


def test_a_path_says_the_type_of_its_event() -> None:
    pair = Pair(0)
    for kind in ("identify", "track", "page", "screen", "group", "alias", "other"):
        for said in ("track", "page", "nonsense", None, 5):
            body = json.dumps(good(type=said, userId="u-1", groupId="g", previousId="p")).encode()
            pair.take(body, Reading(False, kind, SEGMENT), BACKEND)


def test_new_definitions_are_taken_by() -> None:
    pair = Pair(0)
    body = json.dumps(good(userId="u-1")).encode()
    for world in (1, 2, 0):
        pair.take(body, SINGLE, SITE)
        for side in (pair.python, pair.native):
            side.collector.adopt(*WORLDS[world])
    pair.take(body, SINGLE, SITE)


def taken_natively(side: Side, body: bytes, reading: Reading) -> bool:
    """Say how a body of `SITE` is taken, which shows in nothing that comes out."""
    fast = side.collector._native
    assert fast is not None
    return (
        fast.take(body, reading, (SITE.name, SITE.rank, False, False), NOW, gpc=False) is not None
    )


@pytest.mark.parametrize("shape", [
    '{"events": [%a], "batch": [%b]}', '{"batch": [%b], "events": [%a]}', '{"events": [%a]}', '{"Batch": [%a]}', '{"batches": [%a], "batch": []}',
    '{"": [%a], "batch": [%b]}', '{"batch ": [%a], "batch": [%b]}', '{"x": {"batch": [%a]}, "batch": [%b]}', '{"x": {"batch": [%a]}}',
    '{"batch": {"batch": [%a]}}', '{"batch": [[%a]]}', '{"batch": [{"batch": [%a]}, %b]}', "[%a]", '{"batch": "[%b]"}', '{"batch": null}',
    '{"\\u0062atch": [%a], "batch": [%b]}', '{"\\u0062atch": [%a]}', '{"batch": [%a], "batch": [%b]}',
])  # fmt: skip
def test_a_batch_is_read_from_its_own_key_alone(shape: str) -> None:
    pair = Pair(0)
    event, other = json.dumps(good()), json.dumps(good(messageId="m-2", anonymousId="d-2"))
    body = shape.replace("%a", event).replace("%b", other).encode()
    for reading in READINGS:
        pair.take(body, reading, SITE)


def test_months_of_all_years_are_cut_alike() -> None:
    pair = Pair(0)
    days = [f"{month:02}-{day:02}" for month in (1, 2, 3, 6, 12) for day in (1, 2, 15, 28)]
    days += ["01-31", "11-30", "12-30", "12-31"]
    for year in (1, 2, 4, 100, 399, 400, 1486, 1582, 1752, 1900, 1960, 1965, 1968, 1969, 1970, 1972, 2000, 2038, 9998, 9999):  # fmt: skip
        months = [f"{year:04}-{day}{clock}" for day in days for clock in ("", "T23:59:59.999Z", "T00:00:00+14:00")]  # fmt: skip
        events = [
            good(event="Guarded", messageId=month, properties={"month": month}) for month in months
        ]
        pair.take(json.dumps({"batch": events}).encode(), BATCH, SITE)


def test_many_members_beside_a_batch_are_left_to_python() -> None:
    pair = Pair(0)
    for count in (31, 32, 33, 5_000):
        beside = {f"k{number}": number for number in range(count)}
        for body in ({**beside, "batch": [good()]}, {"batch": [good()], **beside}):
            raw = json.dumps(body).encode()
            pair.take(raw, BATCH, SITE)
            # A comparison of each with all before it takes minutes of what is sent in a second.
            assert taken_natively(pair.native, raw, BATCH) == (count < 32)


def test_amounts_among_many_members_find_their_currency_alike() -> None:
    pair = Pair(0)
    for count in (250, 260, 2_000):
        many = {f"k{number}": 1 for number in range(count)}
        products = [{"product_id": "p", "price": 1.5}, {"product_id": "p", "price": 1.5, **many}]
        for first, last in (({"currency": "GBP"}, {}), ({}, {"currency": "JPY"}), ({}, {})):
            properties = {**first, "total": 2, "products": products[:1], **many, **last}
            pair.take(json.dumps(good(event="Order Completed", properties=properties)).encode(), SINGLE, SITE)  # fmt: skip
            properties = {**first, "total": 2, "products": products, **last}
            pair.take(json.dumps(good(event="Order Completed", properties=properties)).encode(), SINGLE, SITE)  # fmt: skip


def test_what_says_much_of_consent_is_judged_alike_and_not_remembered() -> None:
    pair = Pair(0)
    for count, chars in ((1, 999), (1, 1_000), (1, 1_001), (64, 3), (65, 3), (200, 100)):
        said = {f"{number:03}".ljust(chars, "x"): number != 1 for number in range(count)}
        event = good(context={"consent": {"categoryPreferences": said}})
        body = json.dumps(event).encode()
        pair.take(body, SINGLE, SITE)
        short = count <= 64 and count * max(chars, 3) <= 1_000
        assert taken_natively(pair.native, body, SINGLE) == short


def test_senders_cannot_fill_the_memory_of_what_is_said_of_consent() -> None:
    side = Side(0, native=True)
    ordinary = json.dumps(good()).encode()
    for start in range(0, EVIDENCES_MAX, 1_000):
        said = [{"consent": {"categoryPreferences": {f"c{start + number}": True}}} for number in range(1_000)]  # fmt: skip
        events = [good(messageId=f"m-{number}", context=one) for number, one in enumerate(said)]
        side.take(json.dumps({"batch": events}).encode(), READINGS[1], SITE, gpc=False)
    side.take(ordinary, SINGLE, SITE, gpc=False)
    assert taken_natively(side, ordinary, SINGLE)


def test_what_the_log_does_not_take_is_counted_alike() -> None:
    pair = Pair(0)
    events = [
        good(userId="guest", properties={"product_id": "p", "more": 1}), good(properties={}), good(event="Not Declared"), 5,
        good(context={"consent": {"categoryPreferences": {"all": False}}}), good(event="Unsubscribed"),
    ]  # fmt: skip
    body = json.dumps({"batch": events}).encode()
    fault = Unavailable("E401", "the log failed", fix="retry")
    for fails in (None, fault, fault, None):
        for side in (pair.python, pair.native):
            side.appended.fault = fails
        for source in (SITE, BACKEND):
            pair.take(body, BATCH, source)
    assert pair.native.appended.records


def test_space_around_an_event_of_the_greatest_size_counts_alike() -> None:
    pair = Pair(0)
    for size in (SEGMENT.event_bytes_max - 1, SEGMENT.event_bytes_max, SEGMENT.event_bytes_max + 1):
        body = json.dumps(good(else_=""), separators=(",", ":"))
        event = body.replace('"else_":""', f'"else_":"{"x" * (size - len(body))}"')
        for shape in (
            "[ %s ]",
            "[%s ]",
            "[\t\r\n%s]",
            "[%s\n,%s  ]",
            "[ %s , 5]",
            '[ %s , "\\ud800" ]',
        ):
            pair.take(f'{{"batch":{shape.replace("%s", event)}}}'.encode(), BATCH, SITE)


@pytest.mark.parametrize("protection", ["drop", "truncate", "pseudonym", "plain"])
def test_identifiers_are_as_protected_as_the_trait_of_their_name(protection: str) -> None:
    pair = Pair(0)
    names = ("email", "user_id", "anonymous_id", "group_id", "claimed_user_id")
    guarded = traits({name: string(privacy=private(protection=protection)) for name in names})
    _, identity, consent = WORLDS[0]
    for side in (pair.python, pair.native):
        side.collector.adopt(Catalog(EVENTS, guarded), identity, consent)
    said = {"userId": "u-1", "groupId": "1.2.3.4", "traits": {"email": "jo@shop.example"}}
    for kind in ("identify", "track", "group"):
        body = json.dumps(good(type=kind, **said)).encode()
        for source in (SITE, BACKEND):
            pair.take(body, SINGLE, source)
        assert taken_natively(pair.native, body, SINGLE)


def test_events_that_are_accepted_are_mostly_not_left_to_python() -> None:
    side, sender = Side(0, native=True), Sender(7)
    left = accepted = 0
    for _ in range(1_000):
        body = sender.body(SINGLE)
        answers = [side.take(body, SINGLE, BACKEND, gpc=False) for _ in range(2)]
        if isinstance(answers[1], Intake) and answers[1].accepted:
            fast = side.collector._native  # how an event was taken shows in nothing else
            assert fast is not None
            taken = fast.take(body, SINGLE, ("backend", 5, True, False), NOW, gpc=False)
            accepted += 1
            left += taken is None
    # Half of what the sender makes has in it, on purpose, something that is left.
    assert 600 < accepted
    assert left < 0.55 * accepted
