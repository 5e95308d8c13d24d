"""Segments of the log: what is written is read, alone or in part, and a flipped bit costs its frame."""

import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.errors import DataCorrupt
from penstock.core.record import Evidence, Kind, LogRecord, Record, encode_record, leaf_of
from penstock.core.segment import (
    FRAME_RECORDS,
    SEGMENT_BYTES,
    SEGMENT_RECORDS,
    Segment,
    buckets_of,
    encode_segment,
    next_segment,
)

NOW_MS = 1_795_000_000_000


def a_record(leaf: int, text: str = "", tenant: str = "default") -> bytes:
    return encode_record(Record(
        format=1, kind=int(Kind.PRIMARY), tenant=tenant, leaf=bytes([leaf]) * 16, id_type="user_id", event_id=leaf,
        message_id=text, type="track", name="Viewed", occurred_at_ms=NOW_MS, received_at_ms=NOW_MS, source="web",
        source_rank=0, verified=True, evidence=Evidence("unknown"),
    ))  # fmt: skip


def records_of(leaves, first=0):
    return [
        LogRecord(first + n, NOW_MS + n // 3, a_record(leaf, str(n)))
        for n, leaf in enumerate(leaves)
    ]


def opened(raw: bytes) -> Segment:
    return Segment("a", len(raw), lambda start, size: raw[start : start + size], zlib.decompress)


def written(records) -> bytes:
    return encode_segment("default", 1, 2, records, pack=zlib.compress)


@pytest.mark.parametrize("tenant", ["", "default", "t" * 31, "t" * 32, "t" * 200])
def test_the_leaf_of_a_record_is_found_without_decoding_it(tenant):
    assert bytes([7]) * 16 == leaf_of(a_record(7, tenant=tenant))


@pytest.mark.parametrize("value", [b"", b"\xdc", b"\xdc\x00\x15\x01\x01\xa7defau", b"first"])
def test_what_is_no_record_has_no_leaf(value):
    with pytest.raises(DataCorrupt) as caught:
        leaf_of(value)
    assert "E701" == caught.value.code


@given(
    st.lists(st.integers(0, 5), min_size=1, max_size=40),
    st.integers(0, 10**12),
    st.integers(0, 50),
    st.integers(0, 50),
)
def test_what_is_written_is_read(leaves, first, skip, limit):
    records = records_of(leaves, first)
    segment = opened(written(records))
    assert records[skip : skip + limit] == segment.read(first + skip, limit)
    for leaf in range(6):
        assert [one.offset for one in records if leaf_of(one.value)[0] == leaf] == segment.find(
            bytes([leaf]) * 16
        )
    assert (1, 2, first, first + len(leaves)) == segment.footer.span
    segment.check()


def test_only_the_frames_asked_for_are_fetched():
    records = records_of([n % 250 for n in range(3 * FRAME_RECORDS)])
    raw = written(records)
    fetched = []

    def fetch(start, size):
        fetched.append(size)
        return raw[start : start + size]

    segment = Segment("a", len(raw), fetch, zlib.decompress)
    assert records[FRAME_RECORDS + 5 : FRAME_RECORDS + 7] == segment.read(FRAME_RECORDS + 5, 2)
    assert segment.footer.frames[1].size == fetched[-1]
    assert len(raw) > 2 * sum(fetched) - fetched[0]


def test_a_segment_is_closed_by_records_or_by_bytes():
    def log(values):
        return lambda offset, limit: [
            LogRecord(n, 0, values[n]) for n in range(offset, min(offset + limit, len(values)))
        ]

    small = [b"x"] * (SEGMENT_RECORDS + 9)
    assert SEGMENT_RECORDS == len(next_segment(log(small), 0, len(small)))
    assert next_segment(log(small), 10, len(small)) is None
    assert next_segment(log(small), 0, SEGMENT_RECORDS - 1) is None
    large = [bytes(SEGMENT_BYTES // 4)] * 6
    assert 4 == len(next_segment(log(large), 0, 6))
    assert next_segment(log(large), 4, 6) is None


def test_a_flipped_bit_is_found_and_costs_the_part_that_has_it():
    records = records_of([1] * FRAME_RECORDS + [2] * FRAME_RECORDS)
    raw = written(records)
    frames = opened(raw).footer.frames
    harmless, codes = 0, set()
    for place in range(0, len(raw), 61):
        flipped = bytearray(raw)
        flipped[place] ^= 1 << (place % 8)
        try:
            segment = opened(bytes(flipped))
            segment.check()
        except DataCorrupt as error:
            codes.add(error.code)
        else:
            harmless += 1
        if frames[0].position <= place < frames[1].position:
            with pytest.raises(DataCorrupt):
                segment.read(0, 1)
            assert records[FRAME_RECORDS:] == segment.read(FRAME_RECORDS, FRAME_RECORDS)
    # The head, which no reader needs, and nothing else.
    assert (1, {"E730"}) == (harmless, codes)


def test_a_newer_format_is_refused():
    raw = bytearray(written(records_of([1])))
    length = int.from_bytes(raw[-12:-8], "little")
    start = len(raw) - 12 - length
    raw[start + 1] = 99
    raw[-8:-4] = zlib.crc32(raw[start : start + length]).to_bytes(4, "little")
    with pytest.raises(DataCorrupt) as caught:
        opened(bytes(raw))
    assert "E706" == caught.value.code


def test_the_format_is_what_it_was(golden):
    records = records_of([3, 1, 3], first=65_536)
    golden("segment-v1.bin", encode_segment("default", 1, 0, records, pack=lambda raw: raw))
    assert 256 == len(buckets_of(records))
