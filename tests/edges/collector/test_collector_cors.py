from penstock.edges.collector.cors import cors_headers, preflight


def test_the_origin_is_reflected_and_retry_after_can_be_read():
    headers = dict(cors_headers(b"https://shop.example"))
    assert {
        b"access-control-allow-origin": b"https://shop.example",
        b"access-control-allow-credentials": b"true",
        b"access-control-expose-headers": b"retry-after",
        b"vary": b"origin",
    } == headers


def test_without_an_origin_nothing_is_said():
    assert () == cors_headers(b"")


def test_a_preflight_names_every_header_that_an_sdk_sends():
    answer = preflight(b"https://shop.example", b"AnonymousId, SentAt, Authorization")
    headers = dict(answer.headers)
    assert (204, b"") == (answer.status, answer.body)
    assert b"https://shop.example" == headers[b"access-control-allow-origin"]
    assert b"true" == headers[b"access-control-allow-credentials"]
    assert b"GET, POST, OPTIONS" == headers[b"access-control-allow-methods"]
    assert int(headers[b"access-control-max-age"]) >= 7200
    allowed = headers[b"access-control-allow-headers"].decode().split(", ")
    assert {
        "authorization", "content-type", "anonymousid", "sentat", "x-retry-count", "x-write-key",
        "rsa-retry-attempt", "rsa-retry-reason", "rsa-recovered",
    } <= set(allowed)  # fmt: skip
    assert "*" not in allowed


def test_rudderstacks_own_headers_are_allowed_as_asked_and_others_are_not():
    answer = preflight(b"https://shop.example", b"rsa-since-anything, Cookie,RSA-New")
    allowed = dict(answer.headers)[b"access-control-allow-headers"].decode().split(", ")
    assert {"rsa-since-anything", "rsa-new"} <= set(allowed)
    assert "cookie" not in allowed
