"""The wire format: what is framed comes back, and what is not is refused without a word of it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.errors import EventRejected
from penstock.core.wire import INDEXES_MAX, frame, join_indexes, split_indexes, unframe

INDEXES = st.lists(st.integers(0, 2**31 - 1), min_size=1, max_size=INDEXES_MAX).map(tuple)


@given(st.integers(0, 2**32 - 1), st.binary())
def test_what_is_framed_comes_back(schema_id: int, payload: bytes) -> None:
    assert (schema_id, payload) == unframe(frame(schema_id, payload))


@given(INDEXES, st.binary())
def test_indexes_come_back(indexes: tuple[int, ...], message: bytes) -> None:
    assert (indexes, message) == split_indexes(join_indexes(indexes, message))


def test_bytes_as_confluents_serializers_write_them() -> None:
    """Source: Confluent's documentation of the wire format; 0 is short for [0], and [1, 0] is 4, 2, 0."""
    assert (7, b"x") == unframe(b"\x00\x00\x00\x00\x07x")
    assert ((0,), b"m") == split_indexes(b"\x00m")
    assert ((0,), b"m") == split_indexes(b"\x02\x00m")
    assert ((1, 0), b"m") == split_indexes(b"\x04\x02\x00m")


@pytest.mark.parametrize("value", [b"", b"\x00\x00\x00\x01", b"{}", b'{"a": 1}', b"\x01\x00\x00\x00\x07x"])  # fmt: skip
def test_what_is_not_framed_is_refused(value: bytes) -> None:
    with pytest.raises(EventRejected, match="E330"):
        unframe(value)


@pytest.mark.parametrize(
    "payload", [b"", b"\x01", b"\x02", b"\x02\x01", b"\x04\x00", b"\xff" * 9, b"\x82\x01" + b"\x00" * 80]
)  # fmt: skip
def test_indexes_that_lead_nowhere_are_refused(payload: bytes) -> None:
    with pytest.raises(EventRejected, match="E330"):
        split_indexes(payload)
