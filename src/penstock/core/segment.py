"""A segment: a stretch of one partition's log as one immutable object, with its index by leaf.

    head      8 bytes: magic and format
    frames    each a compressed list of up to 1,024 records with their stamps, readable alone
    buckets   the index by leaf (`core.leaf_index`)
    footer    where everything is, with a checksum of each part
    tail      12 bytes: the footer's length and checksum, and the magic again

A reader fetches the footer, one bucket and the frames that hold what it looks for. Damage is found by
the checksum of the part that has it, and costs that part alone.
"""

from binascii import crc32
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final, NamedTuple

import msgspec

from penstock.core import leaf_index
from penstock.core.errors import DataCorrupt
from penstock.core.record import LogRecord, format_of, leaf_of

SEGMENT_FORMAT: Final = 1
SEGMENT_RECORDS: Final = leaf_index.SPAN_MAX
SEGMENT_BYTES: Final = 32 * 1024 * 1024
"""A segment is closed when it has so many records, or records of so many bytes."""

FRAME_RECORDS: Final = 1_024
MAGIC: Final = b"PSSG"
HEAD: Final = MAGIC + bytes([SEGMENT_FORMAT, 0, 0, 0])
TAIL_BYTES: Final = 12
FOOTER_GUESS: Final = 16 * 1024
"""Fetched from the end at first: enough for most footers."""

Pack = Callable[[bytes], bytes]
"""Compresses or expands one frame."""

Fetch = Callable[[int, int], bytes]
"""`fetch(start, size)` of the object."""


class Span(NamedTuple):
    """Which records a segment holds: of one partition, `[first, end)`."""

    generation: int
    partition: int
    first: int
    end: int


class Frame(msgspec.Struct, frozen=True, array_like=True):
    """Where a frame is, and what it holds."""

    position: int
    size: int
    crc: int
    count: int
    first_ms: int
    last_ms: int


class Footer(msgspec.Struct, frozen=True, array_like=True):
    """What a segment says of itself. Fields are only added, at the end; version n reads n-1."""

    format: int
    tenant: str
    generation: int
    partition: int
    first: int
    end: int
    frames: tuple[Frame, ...]
    buckets: tuple[tuple[int, int, int], ...]
    """(position, size, crc) of each of the 256."""

    @property
    def span(self) -> Span:
        """Which records it holds."""
        return Span(self.generation, self.partition, self.first, self.end)


class _Body(msgspec.Struct, array_like=True):
    stamps: list[tuple[int, int]]
    """(how many, logged_at_ms), in order."""
    values: list[bytes]


_encode = msgspec.msgpack.Encoder().encode
_decode_body = msgspec.msgpack.Decoder(_Body).decode
_decode_footer = msgspec.msgpack.Decoder(Footer).decode


def next_segment(
    read: Callable[[int, int], Sequence[LogRecord]], first: int, head: int
) -> list[LogRecord] | None:
    """Return the records of the segment that begins at an offset, or None while it is open.

    Where segments end depends on the records alone, so that whoever cuts the same log cuts it
    alike: the archive, its index and a backup share their segments.

    Args:
        read: `read(offset, limit)` of the partition.
        first: Where it begins.
        head: The partition's next offset.
    """
    records: list[LogRecord] = []
    size = 0
    while len(records) < SEGMENT_RECORDS and first + len(records) < head:
        limit = min(5_000, SEGMENT_RECORDS - len(records), head - first - len(records))
        for record in read(first + len(records), limit):
            records.append(record)
            size += len(record.value)
            if size >= SEGMENT_BYTES:
                return records
    return records if len(records) == SEGMENT_RECORDS else None


def buckets_of(records: Iterable[LogRecord]) -> list[bytes]:
    """Return the index by leaf of a segment's records.

    Raises:
        DataCorrupt: A value among them is no record (E701).
    """
    return leaf_index.index_of(leaf_of(record.value) for record in records)


def encode_segment(
    tenant: str, generation: int, partition: int, records: Sequence[LogRecord], *, pack: Pack
) -> bytes:
    """Return a segment's bytes: a pure function of the records and of how `pack` compresses.

    Args:
        tenant: Whose log it is.
        generation: The log's.
        partition: The partition's number.
        records: Consecutive, at least one, at most `SEGMENT_RECORDS`.
        pack: Compresses a frame.
    """
    assert 0 < len(records) <= SEGMENT_RECORDS, "a segment holds records"
    out = bytearray(HEAD)
    frames: list[Frame] = []
    for start in range(0, len(records), FRAME_RECORDS):
        part = records[start : start + FRAME_RECORDS]
        raw = pack(_encode(_Body(_stamps(part), [record.value for record in part])))
        frames.append(
            Frame(len(out), len(raw), crc32(raw), len(part), part[0].logged_at_ms, part[-1].logged_at_ms)
        )  # fmt: skip
        out += raw
    places: list[tuple[int, int, int]] = []
    for bucket in buckets_of(records):
        places.append((len(out), len(bucket), crc32(bucket)))
        out += bucket
    footer = _encode(Footer(
        SEGMENT_FORMAT, tenant, generation, partition, records[0].offset, records[-1].offset + 1,
        tuple(frames), tuple(places),
    ))  # fmt: skip
    out += footer + len(footer).to_bytes(4, "little") + crc32(footer).to_bytes(4, "little") + MAGIC
    return bytes(out)


def _stamps(records: Sequence[LogRecord]) -> list[tuple[int, int]]:
    stamps: list[tuple[int, int]] = []
    for record in records:
        if stamps and stamps[-1][1] == record.logged_at_ms:
            stamps[-1] = (stamps[-1][0] + 1, record.logged_at_ms)
        else:
            stamps.append((1, record.logged_at_ms))
    return stamps


class Segment:
    """A segment opened for reading, by whatever fetches its bytes.

    Args:
        name: Its name, for messages.
        size: Its length in bytes.
        fetch: Reads a range of it.
        unpack: Expands a frame.

    Raises:
        DataCorrupt: Its footer does not read back (E730), or a newer version wrote it (E706).
    """

    def __init__(self, name: str, size: int, fetch: Fetch, unpack: Pack) -> None:
        self.name = name
        self._fetch = fetch
        self._unpack = unpack
        self._last: tuple[int, list[LogRecord]] | None = None
        self.footer = self._read_footer(size)

    def read(self, offset: int, limit: int) -> list[LogRecord]:
        """Return up to `limit` records from `offset` on; only frames that hold them are fetched."""
        records: list[LogRecord] = []
        for number, (first, frame) in enumerate(self._frames()):
            if first + frame.count <= offset:
                continue
            if first >= offset + limit:
                break
            whole = self.frame(number)
            records += whole[max(offset - first, 0) : offset + limit - first]
        return records

    def frame(self, number: int) -> list[LogRecord]:
        """Return the records of one frame.

        Raises:
            DataCorrupt: It does not match its checksum or does not decode (E730).
        """
        if self._last is not None and self._last[0] == number:
            return self._last[1]
        frame = self.footer.frames[number]
        first = self.footer.first + sum(one.count for one in self.footer.frames[:number])
        raw = self._fetch(frame.position, frame.size)
        if crc32(raw) != frame.crc:
            raise self._corrupt(f"the frame of offsets {first} to {first + frame.count - 1}")
        try:
            body = _decode_body(self._unpack(raw))
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise self._corrupt(f"the frame at offset {first}") from error
        counts = [count for count, _ in body.stamps]
        if min(counts, default=0) < 0 or sum(counts) != len(body.values):
            raise self._corrupt(f"the frame at offset {first}")  # before so many are made
        stamps = [at_ms for count, at_ms in body.stamps for _ in range(count)]
        if len(stamps) != frame.count:
            raise self._corrupt(f"the frame at offset {first}")
        records = [
            LogRecord(first + place, at_ms, value)
            for place, (at_ms, value) in enumerate(zip(stamps, body.values, strict=True))
        ]
        self._last = (number, records)
        return records

    def find(self, leaf: bytes) -> list[int]:
        """Return the offsets of a leaf's records, ascending; some may be another leaf's."""
        found = leaf_index.find(self.bucket(leaf_index.bucket_of(leaf)), leaf)
        return [self.footer.first + place for place in found]

    def bucket(self, number: int) -> bytes:
        """Return one bucket of the index.

        Raises:
            DataCorrupt: It does not match its checksum (E730).
        """
        position, size, crc = self.footer.buckets[number]
        raw = self._fetch(position, size) if size else b""
        if crc32(raw) != crc:
            raise self._corrupt(f"bucket {number} of its index")
        return raw

    def check(self) -> None:
        """Read everything back.

        Raises:
            DataCorrupt: A part of it does not read back (E730).
        """
        for number in range(len(self.footer.frames)):
            self.frame(number)
        for number in range(leaf_index.BUCKETS):
            self.bucket(number)

    def _frames(self) -> Iterator[tuple[int, Frame]]:
        first = self.footer.first
        for frame in self.footer.frames:
            yield first, frame
            first += frame.count

    def _read_footer(self, size: int) -> Footer:
        start = max(size - FOOTER_GUESS, 0)
        raw = self._fetch(start, size - start)
        if len(raw) < TAIL_BYTES or raw[-4:] != MAGIC:
            raise self._corrupt("its end")
        length = int.from_bytes(raw[-12:-8], "little")
        if length + TAIL_BYTES > size:
            raise self._corrupt("its end")
        if length + TAIL_BYTES > len(raw):
            raw = self._fetch(size - length - TAIL_BYTES, length + TAIL_BYTES)
        footer = raw[-TAIL_BYTES - length : -TAIL_BYTES]
        if crc32(footer) != int.from_bytes(raw[-8:-4], "little"):
            raise self._corrupt("its footer")
        try:
            decoded = _decode_footer(footer)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            if format_of(footer) > SEGMENT_FORMAT:
                raise self._newer(format_of(footer)) from error
            raise self._corrupt("its footer") from error
        if decoded.format > SEGMENT_FORMAT:
            raise self._newer(decoded.format)
        return decoded

    def _newer(self, number: int) -> DataCorrupt:
        return DataCorrupt("E706", f"a segment has format {number}; this version reads up to {SEGMENT_FORMAT}",
                           fix="upgrade Penstock", where=self.name)  # fmt: skip

    def _corrupt(self, part: str) -> DataCorrupt:
        return DataCorrupt("E730", f"a segment of the archive is damaged: {part} does not read back",
                           fix="put a copy of it in its place; `penstock doctor` lists what reads back",
                           where=self.name)  # fmt: skip
