"""Which records of a stretch of the log belong to a leaf: 256 buckets of sorted keys and offsets."""

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from struct import pack, unpack
from typing import Final

from penstock.core.errors import DataCorrupt

BUCKETS: Final = 256
"""A leaf's first byte chooses its bucket: ids are hashes, so buckets are alike in size."""

SPAN_MAX: Final = 1 << 16
"""Records that one index may span: an offset in it is two bytes."""

_COUNT_BYTES: Final = 4


def index_of(leaves: Iterable[bytes]) -> list[bytes]:
    """Return the buckets of an index, each empty or an encoding of its own.

    A key is the leaf's first 8 bytes. Two leaves that share them share an entry: whoever looks one
    up reads records of the other too, and sees that they are not its own.

    Args:
        leaves: The leaf of each record, in the log's order; at most `SPAN_MAX`.
    """
    places: dict[bytes, list[int]] = {}
    for place, leaf in enumerate(leaves):
        key = leaf[:8]
        held = places.get(key)
        if held is None:
            places[key] = [place]
        else:
            held.append(place)
    buckets: list[list[bytes]] = [[] for _ in range(BUCKETS)]
    for key in sorted(places):
        buckets[key[0]].append(key)
    return [_bucket(keys, places) if keys else b"" for keys in buckets]


def bucket_of(leaf: bytes) -> int:
    """Return which bucket a leaf is in."""
    return leaf[0]


def find(bucket: bytes, leaf: bytes) -> Sequence[int]:
    """Return the places of a leaf's records, counted from the first record of the span, ascending.

    Raises:
        DataCorrupt: The bytes are not a bucket (E732).
    """
    if not bucket:
        return ()
    count = int.from_bytes(bucket[:_COUNT_BYTES], "little")
    keys_end = _COUNT_BYTES + 8 * count
    ends_end = keys_end + 4 * count
    if count == 0 or len(bucket) < ends_end:
        raise _damaged()
    keys = unpack(f"<{count}Q", bucket[_COUNT_BYTES:keys_end])
    wanted = int.from_bytes(leaf[:8], "big")
    place = bisect_left(keys, wanted)
    if place == count or keys[place] != wanted:
        return ()
    ends = unpack(f"<{count}I", bucket[keys_end:ends_end])
    start, end = ends[place - 1] if place else 0, ends[place]
    raw = bucket[ends_end + 2 * start : ends_end + 2 * end]
    if start >= end or len(raw) != 2 * (end - start):
        raise _damaged()
    return unpack(f"<{end - start}H", raw)


def _bucket(keys: Sequence[bytes], places: dict[bytes, list[int]]) -> bytes:
    offsets: list[int] = []
    ends: list[int] = []
    for key in keys:
        offsets += places[key]
        ends.append(len(offsets))
    numbers = [int.from_bytes(key, "big") for key in keys]
    count = len(keys)
    return pack(f"<I{count}Q", count, *numbers) + pack(f"<{count}I{len(offsets)}H", *ends, *offsets)


def _damaged() -> DataCorrupt:
    return DataCorrupt("E732", "an index of the log by leaf does not decode",
                       fix="remove `index.db` from the data folder; it is made again")  # fmt: skip
