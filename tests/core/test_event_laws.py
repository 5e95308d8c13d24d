"""Laws of decoding: it never crashes, loses nothing, and says no word of what was sent."""

import json
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.core.catalog.fields import EventType, Field
from penstock.core.catalog.schema import Catalog
from penstock.core.errors import EventRejected
from penstock.core.event import (
    SEGMENT,
    Decoded,
    Rejected,
    decode_batch,
    decode_single,
    occurred_at_ms,
)
from penstock.core.protect import Protector
from penstock.dsl.segment import ALL

CAPTURES = [
    body.encode()
    for _, path, body in (
        line.split("\t")
        for line in (Path(__file__).parent / "sdk_bodies.tsv").read_text().splitlines()
    )
    if path in ("/v1/batch", "/v1/b")
]
PROTECTOR = Protector(bytes(range(32)))
CATALOG = Catalog(ALL, undeclared="reject")
NORMALISE = CATALOG.compile(PROTECTOR)

canaries = st.text(alphabet="qzxjQZXJ@.", min_size=10, max_size=30)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=8,
)
"""Values that JSON can hold, and some that it can't: NaN, half surrogates, huge numbers."""


def said(error: EventRejected) -> str:
    """Return all that an error says, its chain of causes included."""
    told = "".join(traceback.format_exception(error))
    return "\n".join((told, repr(error.args), error.what, error.fix, error.where, error.code))


def shaped(canary: str, shape: int, field: Field) -> Any:
    """Return a value with a canary in it: as it is, in a list, as a key, inside what is declared."""
    inside = {part.name: canary for part in field.fields} or {"a": canary}
    values: list[Any] = [
        canary,
        [canary],
        {canary: canary},
        [inside],
        [{canary: 1.5}],
        [[canary]] * 300,
    ]
    return values[shape % len(values)]


@given(st.sampled_from(ALL), canaries, st.integers(0, 5), st.data())
@settings(max_examples=300)
def test_no_error_says_a_value_of_an_event(
    declared: EventType, canary: str, shape: int, data: st.DataObject
) -> None:
    names = sorted(declared.fields)
    hit = data.draw(st.sampled_from(names)) if names else ""
    properties: dict[str, Any] = {hit: shaped(canary, shape, declared.fields[hit])} if hit else {}
    properties[canary] = canary
    properties["currency"] = data.draw(st.sampled_from(["GBP", canary, 7]))
    event = {"type": "track", "event": declared.name, "userId": canary, "properties": properties}
    errors: list[EventRejected] = []
    for _, decoded in decode_batch(json.dumps({"batch": [event]}).encode(), SEGMENT).events:
        try:
            NORMALISE(decoded)
        except EventRejected as error:
            errors.append(error)
    assert not [error for error in errors if canary in said(error)]


ENVELOPE = (
    "type", "event", "name", "category", "messageId", "userId", "anonymousId", "groupId", "previousId",
    "properties", "traits", "context", "timestamp", "originalTimestamp", "sentAt", "integrations",
)  # fmt: skip


@given(st.sampled_from(ENVELOPE), canaries, st.integers(0, 7))
@settings(max_examples=200)
def test_no_error_says_a_value_of_the_envelope(name: str, canary: str, shape: int) -> None:
    values: list[Any] = [
        canary, canary * 60, [canary], {canary: canary}, canary + "\x00", canary + "\ud800", 1e400, "<number>"
    ]  # fmt: skip
    event: dict[str, Any] = {"type": "track", "event": "E", "messageId": canary, "userId": canary}
    event |= {name: values[shape], "properties": {canary: canary}}
    text = json.dumps({"batch": [event, {"messageId": canary}], "writeKey": canary})
    text = text.replace('"<number>"', "7" * 5_000)
    double = text.replace('"properties"', f'"{canary}": 1, "{canary}": 2, "properties"')
    for raw in (text, double, text[:-10], text.replace("}", "", 1), text + canary):
        errors = [one.error for one in decoded_or_refused(raw.encode()).rejected]
        assert not [error for error in errors if canary in said(error)]


def decoded_or_refused(raw: bytes) -> Decoded:
    """Decode a batch; a body that is refused as a whole has its error among the rejected."""
    try:
        decoded = decode_batch(raw, SEGMENT)
        for _, event in decoded.events:
            assert event.message_id
            occurred_at_ms(event, 1_795_406_400_000)
    except EventRejected as error:
        return Decoded([], [Rejected(-1, None, error, raw)], [raw])
    return decoded


@given(st.binary(max_size=200))
def test_no_bytes_crash_it(raw: bytes) -> None:
    decoded_or_refused(raw)
    decoded_or_refused(b'{"batch":[' + raw + b"]}")
    decoded_or_refused(b'{"batch":[{"type":"track","event":"E","properties":{"a":' + raw + b"}}]}")
    with suppress(EventRejected):
        decode_single(raw, "track", SEGMENT)


@given(st.sampled_from(CAPTURES), st.data())
@settings(max_examples=200)
def test_no_mutation_of_a_real_request_crashes_it(capture: bytes, data: st.DataObject) -> None:
    raw = bytearray(capture)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(raw) - 1))
        piece = data.draw(
            st.binary(max_size=3)
            | st.sampled_from(
                [b'"', b"{", b"}", b"[", b"]", b",", b":", b"\\", b"\\ud800", b"\\u0000", b"null"]
            )
        )
        raw[at : at + data.draw(st.integers(0, 5))] = piece
    decoded_or_refused(bytes(raw))


@given(st.sampled_from(CAPTURES), st.data())
def test_a_cut_request_is_refused_as_a_whole(capture: bytes, data: st.DataObject) -> None:
    cut = capture[: data.draw(st.integers(0, len(capture) - 1))]
    assert [-1] == [one.index for one in decoded_or_refused(cut).rejected]


@given(st.lists(json_values, max_size=5))
def test_every_event_of_a_batch_is_either_taken_or_refused(values: list[Any]) -> None:
    items = [
        {"type": "track", "event": "E", "userId": "u", "properties": {"value": value}}
        for value in values
    ]
    raw = json.dumps({"batch": items}).encode()
    decoded = decoded_or_refused(raw)
    if [-1] == [one.index for one in decoded.rejected]:
        # Only a body that is no JSON at all, such as one with NaN, is refused as a whole.
        assert "NaN" in raw.decode() or "Infinity" in raw.decode()
        return
    seen = sorted([index for index, _ in decoded.events] + [one.index for one in decoded.rejected])
    assert list(range(len(items))) == seen
    assert [json.loads(body) for body in decoded.bodies] == [
        json.loads(json.dumps(i)) for i in items
    ]


@given(st.sampled_from(CAPTURES))
def test_decoding_is_a_function_of_the_bytes(capture: bytes) -> None:
    assert decode_batch(capture, SEGMENT) == decode_batch(capture, SEGMENT)


@given(st.lists(st.sampled_from(["x", "y", "z"]), min_size=1, max_size=6), st.booleans())
def test_a_key_that_is_twice_is_found_and_only_then(names: list[str], spaced: bool) -> None:
    colon = ' : "\\":" ' if spaced else ':"a:b"'
    inside = ",".join(f'"{name}"{colon}' for name in names)
    raw = f'{{"batch":[{{"type":"track","event":"E","properties":{{"p":{{{inside}}}}}}}]}}'
    rejected = decode_batch(raw.encode(), SEGMENT).rejected
    expected = ["E309"] if len(set(names)) < len(names) else []
    assert expected == [one.error.code for one in rejected]
