"""Ids and the partitioner, pinned by vectors: another implementation must give the same bytes."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.ids import (
    LEAF_ID_BYTES,
    as_hex,
    derived_message_id,
    event_id,
    leaf_id,
    lot,
    partition_of,
)

KEY = bytes(range(32))
VALUES = ["u-42", "", "ann@example.com", "Ünïcödé", "日本語", "a\x00b", "x" * 512]
TYPES = ["user_id", "anonymous_id", "email", "item_id", "esp.braze"]


def test_leaf_ids_are_pinned(golden) -> None:
    vectors = [
        {"tenant": tenant, "id_type": id_type, "value": value,
         "leaf": leaf_id(KEY, tenant, id_type, value).hex()}
        for tenant in ("default", "t2") for id_type in TYPES for value in VALUES
    ]  # fmt: skip
    assert len({vector["leaf"] for vector in vectors}) == len(vectors)
    golden("leaf-ids.json", {"key": KEY.hex(), "vectors": vectors})


def test_the_partitioner_is_pinned(golden) -> None:
    leaves = [leaf_id(KEY, "default", "user_id", f"u-{number}") for number in range(40)]
    leaves += [bytes(16), b"\xff" * 16, b"\x00" * 7 + b"\x01" + b"\xff" * 8]
    vectors = [
        {"leaf": leaf.hex(), "partitions": partitions, "partition": partition_of(leaf, partitions)}
        for leaf in leaves for partitions in (1, 2, 3, 12, 64, 1000)
    ]  # fmt: skip
    golden("partitioner.json", vectors)


def test_event_ids_are_pinned(golden) -> None:
    leaf = leaf_id(KEY, "default", "user_id", "u-42")
    vectors = {
        message: f"{event_id(leaf, message):016x}" for message in ("m", "", "日本", "x" * 300)
    }
    golden("event-ids.json", {"leaf": leaf.hex(), "vectors": vectors})


@given(st.binary(min_size=16, max_size=16), st.integers(1, 5_000))
def test_a_partition_is_the_first_eight_bytes_modulo(leaf: bytes, partitions: int) -> None:
    found = partition_of(leaf, partitions)
    assert 0 <= found < partitions
    assert found == partition_of(leaf[:8] + bytes(8), partitions)
    assert found == int(leaf[:8].hex(), 16) % partitions


def test_partitions_are_even() -> None:
    counts = Counter(partition_of(leaf_id(KEY, "t", "user_id", str(n)), 8) for n in range(8_000))
    assert max(counts.values()) < 1_150
    assert min(counts.values()) > 850


@given(st.text(), st.text(), st.text())
def test_a_leaf_id_depends_on_key_tenant_type_and_value(a: str, b: str, c: str) -> None:
    one = leaf_id(KEY, "t", "user_id", a.encode("utf-8", "ignore").decode())
    assert len(one) == LEAF_ID_BYTES
    assert one != leaf_id(bytes(32), "t", "user_id", a.encode("utf-8", "ignore").decode())
    assert one != leaf_id(KEY, "t2", "user_id", a.encode("utf-8", "ignore").decode())
    assert one != leaf_id(KEY, "t", "email", a.encode("utf-8", "ignore").decode())


def test_the_same_message_on_two_leaves_is_two_events() -> None:
    one, two = leaf_id(KEY, "t", "user_id", "u"), leaf_id(KEY, "t", "anonymous_id", "u")
    assert event_id(one, "m") != event_id(two, "m")
    assert 0 <= event_id(one, "m") < 1 << 64
    assert event_id(one, derived_message_id("m", "link.0")) != event_id(one, "m")


@given(st.lists(st.text() | st.binary(), max_size=4))
def test_a_lot_is_the_same_for_ever_and_below_one(parts: list) -> None:
    parts = [p.encode("utf-8", "ignore").decode() if isinstance(p, str) else p for p in parts]
    assert lot(*parts) == lot(*parts)
    assert 0 <= lot(*parts) < 1


def test_lots_keep_the_bounds_of_their_parts() -> None:
    assert lot("ab", "c") != lot("a", "bc")
    assert lot("a") != lot("a", "")
    drawn = [lot("campaign", str(number)) for number in range(4_000)]
    assert 0.48 < sum(drawn) / len(drawn) < 0.52


@pytest.mark.parametrize("leaf", [bytes(16), b"\xab" * 16])
def test_a_leaf_is_shown_by_half(leaf: bytes) -> None:
    assert as_hex(leaf) == leaf[:8].hex()
