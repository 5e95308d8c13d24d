import gzip
import tracemalloc
import zlib

import pytest

from penstock.core.errors import EventRejected
from penstock.edges.body import read_body, require_length
from penstock.edges.collector.body import FREE_BYTES, RATIO_MAX, inflate, plain_bytes_of

PLAIN = b'{"event":"Product Viewed","userId":"u-1"}'
CAP = 1000


def packed(data: bytes, level: int = 6) -> bytes:
    """Return data as gzip, without the time in it: two workers must name one test alike."""
    return gzip.compress(data, level, mtime=0)


def raw_deflate(body: bytes) -> bytes:
    stream = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return stream.compress(body) + stream.flush()


def receiver(*messages):
    queue = list(messages)

    async def receive():
        return queue.pop(0)

    return receive


def chunk(body: bytes, more: bool = False) -> dict:
    return {"type": "http.request", "body": body, "more_body": more}


@pytest.mark.parametrize(
    ("raw", "encoding"),
    [
        (PLAIN, b""),
        (PLAIN, b"identity"),
        (packed(PLAIN), b"gzip"),
        (packed(PLAIN), b"x-gzip"),
        (packed(PLAIN), b"GZIP"),
        (zlib.compress(PLAIN), b"deflate"),
        (raw_deflate(PLAIN), b"deflate"),
        # An SDK compresses and says nothing.
        (packed(PLAIN), b""),
        (zlib.compress(PLAIN, 1), b""),
        (zlib.compress(PLAIN, 9), b""),
        # A proxy has inflated it and left the header.
        (PLAIN, b"gzip"),
        (b" \n" + PLAIN, b"gzip"),
        (PLAIN, b"deflate"),
        # Members one after the other are one body, and zero padding is none.
        (packed(PLAIN[:10]) + packed(PLAIN[10:]), b"gzip"),
        (packed(PLAIN) + b"\x00" * 9, b"gzip"),
    ],
)
def test_the_body_in_plain_by_its_encoding_then_by_its_first_bytes(raw, encoding):
    assert PLAIN == inflate(raw, encoding, CAP).strip()


@pytest.mark.parametrize(
    ("raw", "encoding", "code"),
    [
        (packed(PLAIN)[:-9], b"gzip", "E373"),
        (packed(PLAIN)[:12], b"", "E373"),
        (b"\x1f\x8b" + PLAIN, b"gzip", "E373"),
        (b"\x1f\x8b", b"gzip", "E373"),
        (packed(PLAIN) + b"tail", b"gzip", "E373"),
        (zlib.compress(PLAIN)[:-2], b"deflate", "E373"),
        (b"\x00\x01\x02", b"gzip", "E373"),
        (b"\xff\xff\xff", b"deflate", "E373"),
        (b"", b"gzip", "E373"),
        (PLAIN, b"br", "E374"),
        (packed(packed(PLAIN)), b"gzip, gzip", "E374"),
        (b"{" + b" " * CAP + b"}", b"", "E372"),
        (packed(b" " * (CAP + 1)), b"gzip", "E372"),
        (packed(b" " * CAP) + packed(b" "), b"gzip", "E372"),
    ],
)
def test_what_cannot_be_read_is_refused_with_a_code_and_a_remedy(raw, encoding, code):
    with pytest.raises(EventRejected) as caught:
        inflate(raw, encoding, CAP)
    assert code == caught.value.code
    assert caught.value.fix


def test_a_body_of_exactly_the_cap_is_taken():
    assert CAP == len(inflate(b" " * CAP, b"", CAP))
    assert CAP == len(inflate(packed(b" " * CAP), b"gzip", CAP))


def test_a_zip_bomb_is_refused_in_bounded_memory():
    bomb = packed(b"\x00" * 300_000_000, 9)
    assert len(bomb) < 512_000
    tracemalloc.start()
    try:
        with pytest.raises(EventRejected) as caught:
            inflate(bomb, b"gzip", 512_000)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert "E372" == caught.value.code
    assert peak_bytes < 3_000_000


async def test_chunks_are_joined():
    receive = receiver(chunk(PLAIN[:5], more=True), chunk(PLAIN[5:9], more=True), chunk(PLAIN[9:]))
    assert PLAIN == await read_body(receive, CAP)


async def test_reading_stops_at_the_cap_and_leaves_the_rest_unread():
    unread = chunk(b"never read")
    messages = [chunk(b"x" * 600, more=True), chunk(b"x" * 600, more=True), unread]

    async def receive():
        return messages.pop(0)

    with pytest.raises(EventRejected) as caught:
        await read_body(receive, CAP)
    assert "E372" == caught.value.code
    assert [unread] == messages


async def test_a_client_that_goes_away_is_noticed():
    with pytest.raises(EventRejected) as caught:
        await read_body(receiver(chunk(b"{", more=True), {"type": "http.disconnect"}), CAP)
    assert "E377" == caught.value.code


async def test_a_body_that_never_ends_is_given_up():
    async def receive():
        await never.wait()

    import asyncio

    never = asyncio.Event()
    with pytest.raises(EventRejected) as caught:
        await read_body(receive, CAP, 0.01)
    assert "E377" == caught.value.code


@pytest.mark.parametrize("length", [b"", b"1000", b"junk", b"-1"])
def test_a_length_within_the_cap_passes(length):
    require_length(length, CAP)


def test_a_length_over_the_cap_is_refused_unread():
    with pytest.raises(EventRejected) as caught:
        require_length(b"1001", CAP)
    assert "E372" == caught.value.code
    assert "1000 bytes" in caught.value.what


@pytest.mark.parametrize(
    ("raw", "encoding", "expected"),
    [
        (PLAIN, b"", len(PLAIN)),
        (PLAIN, b"gzip", len(PLAIN)),
        (packed(b" " * 900), b"gzip", 900),
        (packed(b" " * 900), b"", 900),
        (zlib.compress(b" " * 900), b"deflate", CAP),
        (raw_deflate(b" " * 900), b"deflate", CAP),
        # Several members, and padding: the last bytes tell too little, so the most is set aside.
        (packed(b" " * 900) + packed(b" "), b"gzip", CAP),
        (packed(b" " * 900) + bytes(9), b"gzip", CAP),
    ],
)
def test_what_a_body_will_be_is_known_before_it_is_inflated(raw, encoding, expected):
    assert expected == plain_bytes_of(raw, encoding, CAP)


def test_a_bomb_that_says_so_is_refused_unread():
    bomb = packed(bytes(50_000_000))
    with pytest.raises(EventRejected) as refused:
        plain_bytes_of(bomb, b"gzip", 512_000)
    assert "E372" == refused.value.code


@pytest.mark.parametrize("pack", [packed, zlib.compress])
def test_a_body_that_shrank_to_less_than_a_hundredth_is_refused(pack):
    """Whether or not it says how large it is, and though it is not larger than others may be."""
    raw = pack(bytes(3_000_000))
    assert len(raw) * RATIO_MAX < 3_000_000
    lying = raw[:-4] + len(raw).to_bytes(4, "little") if pack is packed else raw
    for body in (raw, lying):
        with pytest.raises(EventRejected) as refused:
            inflate(body, b"", 4_000_000)
        assert refused.value.code == "E372"
    small = pack(bytes(FREE_BYTES))
    assert FREE_BYTES == len(inflate(small, b"", 4_000_000))
