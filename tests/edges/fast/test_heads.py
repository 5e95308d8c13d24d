"""What is recognised without the parser: the very request that the parser would find, and nothing else."""

from typing import Any

import httptools
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.edges.heads import HEADS_MAX, Heads
from penstock.edges.limits import Limits
from tests.edges.fast.test_turnstile import HEADERS

REST = b" HTTP/1.1\r\nhost: h\r\nauthorization: Bearer k\r\n\r\n"


class Parsed:
    """One request as the parser reads it."""

    def __init__(self, data: bytes) -> None:
        self.url, self.headers, self.ends, self.whole = b"", {}, 0, True
        parser: Any = httptools.HttpRequestParser(self)
        try:
            parser.feed_data(data)
        except httptools.HttpParserError:
            self.whole = False
        self.keeps_alive = self.ends > 0 and parser.should_keep_alive()

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers[name.lower()] = value

    def on_message_complete(self) -> None:
        self.ends += 1


def learned(*requests: bytes, bytes_max: int = 16_384) -> Heads:
    heads = Heads(Limits(head_bytes=bytes_max))
    for request in requests:
        parsed = Parsed(request)
        if not parsed.whole:
            continue
        heads.learn(request, parsed.url, parsed.headers)
    return heads


def test_a_request_like_the_one_before_but_for_its_target_is_recognised():
    heads = learned(b"GET /v1/profiles/a" + REST)
    found = heads.find(b"GET /v1/profiles/user_id:b%2F?as_of=2027-01-01T00:00:00Z" + REST)
    assert found is not None
    assert (found.key, found.query) == (
        b"GET /v1/profiles/user_id:b%2F", b"as_of=2027-01-01T00:00:00Z",
    )  # fmt: skip
    assert found.headers == {b"host": b"h", b"authorization": b"Bearer k"}


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"POST /a" + REST, b"HEAD /a" + REST, b"GET a" + REST, b"GET http://h/a" + REST, b"GET *" + REST,
        b"GET /a b" + REST, b"GET /a#b" + REST, b"GET /\xc3\xa9" + REST, b"GET /a\r\nx: y" + REST, b"GET  /a" + REST,
        b"get /a" + REST, b"GET /a\x00" + REST, b"GET /a HTTP/1.0\r\nhost: h\r\nauthorization: Bearer k\r\n\r\n",
        b"GET /a" + REST + b"G", b"GET /a" + REST + b"GET /a" + REST, (b"GET /a" + REST)[:-1], b"", REST,
        b"GET /a HTTP/1.1\r\nhost: h\r\nauthorization: Bearer other\r\n\r\n", b"GET /a HTTP/1.1" + REST,
    ],
)  # fmt: skip
def test_anything_else_is_parsed(request_bytes):
    assert learned(b"GET /a" + REST).find(request_bytes) is None


@pytest.mark.parametrize(
    "header",
    [
        b"connection: close", b"Connection: keep-alive, TE", b"Content-Length: 0", b"transfer-encoding: chunked",
        b"upgrade: websocket", b"expect: 100-continue",
    ],
)  # fmt: skip
def test_a_head_that_says_how_it_ends_is_parsed_each_time(header):
    request = b"GET /a HTTP/1.1\r\nhost: h\r\n" + header + b"\r\n\r\n"
    assert learned(request).find(request) is None
    alive = request.replace(header, b"Connection: Keep-Alive")
    assert learned(alive).find(alive) is not None


def test_what_is_remembered_is_bounded():
    requests = [b"GET /a HTTP/1.1\r\nhost: h%d\r\n\r\n" % number for number in range(HEADS_MAX + 1)]
    heads = learned(*requests)
    assert heads.find(requests[0]) is None
    assert heads.find(requests[-1]) is not None
    short = learned(b"GET /a" + REST, bytes_max=100)
    assert short.find(b"GET /" + b"a" * 100 + REST) is None


@st.composite
def gets(draw) -> tuple[bytes, bytes]:
    """Two GET requests, or what looks like them, of which the second may be the first but for its target."""
    lines = [f"{name}{colon}{value}" for name, colon, value in draw(HEADERS)]
    end = draw(st.sampled_from(["\r\n", "\r\n", "\r\n", "\n"]))
    version = draw(st.sampled_from(["HTTP/1.1", "HTTP/1.1", "HTTP/1.0"]))
    rest = f" {version}{end}{''.join(line + end for line in lines)}{end}".encode()
    alphabet = st.sampled_from([*b"ab/?&=%20.:#+-~ \t\r\n\x00\x7f\xe9<>\"'[]{}|\\^`@"])
    first, second = [
        b"/" + bytes(draw(st.lists(alphabet, max_size=12))) for _ in range(2)
    ]  # fmt: skip
    method = draw(st.sampled_from([b"GET ", b"GET ", b"GET ", b"POST "]))
    return b"GET " + first + rest, method + second + rest + draw(
        st.sampled_from([b"", b"", b"GET /"])
    )


@given(gets())
def test_law_what_is_recognised_is_what_the_parser_finds(pair):
    first, second = pair
    found = learned(first).find(second)
    if found is None:
        return
    parsed = Parsed(second)
    path, _, query = parsed.url.partition(b"?")
    assert (parsed.whole, parsed.ends, parsed.keeps_alive) == (True, 1, True)
    assert (found.key, found.query, found.headers) == (b"GET " + path, query, parsed.headers)


@given(st.binary(max_size=20), st.sampled_from([REST, REST[1:], b"\r\n\r\n"]))
def test_law_a_plain_target_is_what_the_parser_says_it_is(target, rest):
    data = b"GET /" + target + rest
    found = learned(b"GET /a" + REST).find(data)
    if found is not None:
        path, _, query = Parsed(data).url.partition(b"?")
        assert (found.key, found.query) == (b"GET " + path, query)
