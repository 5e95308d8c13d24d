import base64

import pytest

from penstock.core.errors import EventRejected
from penstock.edges.collector.keys import KeyRing, require_origin, write_key

BROWSER = write_key("wk-browser", "site", "browser", origins=["https://shop.example"])
SERVER = write_key("wk-server", "crm", "server", 5, basis={"personalisation": "contract"})
JITSU = write_key("kid:secret", "app", "server")
RING = KeyRing([BROWSER, SERVER, JITSU, write_key("", "undeclared key", "browser")])


def basic(text: str) -> dict[bytes, bytes]:
    return {b"authorization": b"Basic " + base64.b64encode(text.encode())}


@pytest.mark.parametrize(
    ("headers", "query"),
    [
        ({b"authorization": b"Bearer wk-server"}, b""),
        ({b"authorization": b"bearer wk-server"}, b""),
        (basic("wk-server:"), b""),
        (basic("wk-server"), b""),
        (basic("wk-server:any password"), b""),
        (
            {b"authorization": basic("wk-server:")[b"authorization"].replace(b"Basic", b"basic")},
            b"",
        ),
        ({b"x-write-key": b"wk-server"}, b""),
        ({}, b"writeKey=wk-server"),
        ({}, b"v=1&writekey=wk-server"),
        # The first in order decides.
        ({**basic("wk-server:"), b"x-write-key": b"wk-browser"}, b"writeKey=wk-browser"),
        ({b"x-write-key": b"wk-server"}, b"writeKey=wk-browser"),
        # Segment's OAuth token is no write key; the key stands elsewhere.
        ({b"authorization": b"Bearer eyJ.oauth.token", b"x-write-key": b"wk-server"}, b""),
    ],
)
def test_a_key_is_found_wherever_an_sdk_puts_it(headers, query):
    assert SERVER == RING.of_request(headers, query)


@pytest.mark.parametrize(
    "headers",
    [{b"x-write-key": b"kid:secret"}, basic("kid:secret"), basic("kid:secret:")],
)
def test_a_key_may_hold_a_colon(headers):
    assert JITSU == RING.of_request(headers, b"")


@pytest.mark.parametrize(
    ("headers", "query"),
    [
        ({}, b""),
        ({}, b"v=3&writeKey="),
        ({}, b"writekeyring=wk-server"),
        ({b"authorization": b"Bearer eyJ.oauth.token"}, b""),
        ({b"authorization": b"Digest username=wk-server"}, b""),
    ],
)
def test_without_a_key_the_body_is_asked(headers, query):
    assert RING.of_request(headers, query) is None


@pytest.mark.parametrize(
    ("headers", "query"),
    [
        (basic("wk-other:"), b""),
        (basic(""), b""),
        ({b"authorization": b"Basic !!not base64"}, b""),
        ({b"authorization": b"Basic /w=="}, b""),
        ({b"x-write-key": b"wk-other"}, b""),
        ({b"x-write-key": b""}, b""),
        ({}, b"writeKey=wk-other"),
        ({b"x-write-key": b"kid:other"}, b""),
    ],
)
def test_a_key_of_no_source_is_refused_at_once(headers, query):
    with pytest.raises(EventRejected) as caught:
        RING.of_request(headers, query)
    assert "E371" == caught.value.code
    assert "wk-" not in str(caught.value)


def test_a_key_in_the_body():
    assert BROWSER == RING.of_body("wk-browser")


@pytest.mark.parametrize("shown", [None, "", 7, ["wk-browser"], "kid:***", "***"])
def test_a_masked_or_missing_key_proves_nothing(shown):
    with pytest.raises(EventRejected) as caught:
        RING.of_body(shown)
    assert "E370" == caught.value.code


def test_a_browser_key_is_public_and_a_server_key_is_trusted():
    assert BROWSER.browser
    assert not BROWSER.source.verified
    assert not SERVER.browser
    assert SERVER.source.verified
    assert ("crm", 5, {"personalisation": "contract"}) == (
        SERVER.source.name,
        SERVER.source.rank,
        SERVER.source.basis,
    )


@pytest.mark.parametrize(
    "origin", [b"", b"https://shop.example.evil", b"http://shop.example", b"null"]
)
def test_a_browser_key_is_refused_outside_its_origins(origin):
    with pytest.raises(EventRejected) as caught:
        require_origin(BROWSER, origin)
    assert "E375" == caught.value.code
    assert "sources.site.origins" in caught.value.fix


def test_a_key_is_taken_from_its_origins_or_from_any_where_none_is_named():
    require_origin(BROWSER, b"https://shop.example")
    require_origin(SERVER, b"https://anywhere.example")
    require_origin(
        write_key("k", "site", "browser", origins=["https://a.example/"]), b"https://a.example"
    )
