"""Decision records: golden bytes, refusal of what is newer or damaged, ids."""

import msgspec
import pytest

from penstock.core.decision.candidate import SourceNote
from penstock.core.decision.policy import Propensity
from penstock.core.decision.record import (
    DECISION_FORMAT,
    Chosen,
    Decision,
    Fate,
    SlotDecision,
    decision_id_of,
    decode_decision,
    encode_decision,
)
from penstock.core.errors import DataCorrupt

DECISION = Decision(
    format=2,
    decision_id="0805d83340aa7ba07c4250aa5ffb48d3",
    tenant="shop",
    recipient=bytes(range(16)),
    campaign="welcome",
    campaign_version=3,
    send="2026-11-25",
    slot="",
    decided_at_ms=1_795_000_000_000,
    profile_as_of_ms=1_794_999_999_000,
    known_at=41,
    definitions="d1",
    served="live",
    reason="",
    permitted=("personalisation",),
    definitions_number=4,
    slots=(
        SlotDecision(
            name="hero",
            items=(
                Chosen(
                    key="item:a",
                    item_id="a",
                    item_version=7,
                    fields={
                        "url": "https://shop.example/a",
                        "title": "A",
                        "price": [1999, "GBP"],
                    },
                    block="",
                    source="recently_viewed",
                    propensity=Propensity(19, 20),
                ),
            ),
            fallback_used=False,
            fallback_reason="",
            policy="epsilon uniform=100000ppm",
            policy_version="57cf25bbfdff8cf8",
            explored=False,
            eligible=2,
            beyond=0,
            sources=(SourceNote("recently_viewed", "asked", 2), SourceNote("fixed", "asked", 1)),
            fates=(
                Fate("item:a", "recently_viewed", "chosen", (0, 0, 0)),
                Fate("item:b", "recently_viewed", "already_bought"),
                Fate("item:c", "fixed", "ranked_below", (1, 0, 2)),
            ),
            features={"views": 4, "seen": ["a", "b"], "mine": ["b"], "spend": None, "mean": 0.5},
            traits={"plan": "pro"},
        ),
    ),
)

GOLDEN_1 = bytes.fromhex(
    "dc001101d9203038303564383333343061613762613037633432353061613566666234386433a473686f70c4"
    "10000102030405060708090a0b0c0d0e0fa777656c636f6d6503aa323032362d31312d3235a0cf000001a1ee"
    "565e00cf000001a1ee565a1829a26431a46c697665a091af706572736f6e616c69736174696f6e919da46865"
    "726f9197a66974656d3a61a1610783a5707269636592cd07cfa3474250a57469746c65a141a375726cb66874"
    "7470733a2f2f73686f702e6578616d706c652f61a0af726563656e746c795f766965776564921314c2a0b965"
    "7073696c6f6e20756e69666f726d3d31303030303070706db035376366323562626664666638636638c20200"
    "9293af726563656e746c795f766965776564a561736b65640293a56669786564a561736b6564019394a66974"
    "656d3a61af726563656e746c795f766965776564a663686f73656e9300000094a66974656d3a62af72656365"
    "6e746c795f766965776564ae616c72656164795f626f756768749094a66974656d3a63a56669786564ac7261"
    "6e6b65645f62656c6f779301000285a46d65616ecb3fe0000000000000a46d696e6591a162a47365656e92a1"
    "61a162a57370656e64c0a576696577730481a4706c616ea370726fa0"
)

GOLDEN_2 = bytes.fromhex(f"dc001202{GOLDEN_1.hex()[8:]}04")
"""The same with one field more at its end: the number of the definitions."""


@pytest.fixture
def decision() -> Decision:
    return DECISION


def test_the_bytes_of_a_decision_are_those_of_format_2(decision) -> None:
    # These bytes are stored for years. If this fails, the format changed: raise DECISION_FORMAT,
    # read the old one too, and keep both bytes here.
    assert GOLDEN_2.hex() == encode_decision(decision).hex()
    assert decision == decode_decision(GOLDEN_2)


def test_a_decision_of_format_1_is_read(decision) -> None:
    old = msgspec.structs.replace(decision, format=1, definitions_number=0)
    assert old == decode_decision(GOLDEN_1)


def test_a_newer_format_is_refused_whatever_its_fields(decision) -> None:
    fields = msgspec.msgpack.decode(encode_decision(decision))
    for newer in (
        [DECISION_FORMAT + 1, *fields[1:], "one more"],
        [DECISION_FORMAT + 1, {"x": 1}],
    ):
        with pytest.raises(DataCorrupt, match=r"E721.*newer than 2"):
            decode_decision(msgspec.msgpack.encode(newer))


@pytest.mark.parametrize(
    "raw", [b"", b"\xc1", b"\x91\xa1x", b"\x92\x01\x02", b"\xdd\xff\xff\xff\xff"]
)
def test_what_is_no_decision_is_refused(raw) -> None:
    with pytest.raises(DataCorrupt, match="E720"):
        decode_decision(raw)


def test_a_refusal_quotes_nothing_of_the_record(decision) -> None:
    fields = msgspec.msgpack.decode(encode_decision(decision))
    fields[3] = "canary@example.com"  # a text in the place of the recipient's bytes
    with pytest.raises(DataCorrupt) as error:
        decode_decision(msgspec.msgpack.encode(fields))
    assert "canary" not in str(error.value)
    assert error.value.__cause__ is None


def test_one_more_field_at_the_end_is_read_past(decision) -> None:
    fields = msgspec.msgpack.decode(encode_decision(decision))
    assert decision == decode_decision(msgspec.msgpack.encode([*fields, "added later"]))


def test_the_id_of_a_decision_is_that_of_its_key() -> None:
    assert "0805d83340aa7ba07c4250aa5ffb48d3" == decision_id_of(
        "shop", bytes(16), "winback", "2026-11-25"
    )
    ids = {
        decision_id_of("shop", bytes(16), "winback", "1"),
        decision_id_of("shop", bytes(16), "winback", "1", "hero"),
        decision_id_of("shop", bytes(16), "winback", "2"),
        decision_id_of("shop", bytes(16), "winbac", "k1"),
        decision_id_of("other", bytes(16), "winback", "1"),
        decision_id_of("shop", b"\x01" * 16, "winback", "1"),
    }
    assert 6 == len(ids)
