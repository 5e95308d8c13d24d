"""Protections keep exactly what they say, and nothing that gives the rest back."""

import hmac
from base64 import urlsafe_b64decode
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.errors import DefinitionError
from penstock.core.protect import Protector, truncated_instant, truncated_text
from penstock.core.time import parse_instant

KEY = bytes(range(32))
PROTECTOR = Protector(KEY)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("203.0.113.77", "203.0.113.0"),
        (" 203.0.113.77 ", "203.0.113.0"),
        ("2001:db8:aaaa:bbbb:cccc::1", "2001:db8:aaaa::"),
        ("fe80::1%eth0", "fe80::"),
        ("::ffff:203.0.113.77", "203.0.113.0"),
        ("Bob@Mail.Example.com", "mail.example.com"),
        ("a@b@example.com", "a@b"),
        ("bob@localhost", "bob"),
        ("1.2.3.400", "1.2"),
        ("12:34 in the morning", "12:"),
        ("SW1A 1AA", "SW1"),
        ("ab", "ab"),
        ("", ""),
    ],
)
def test_truncate_keeps_the_coarse_part(value: str, expected: str) -> None:
    assert expected == truncated_text(value)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("2026-11-23T04:09:39.171Z", "2026-11-01T00:00:00Z"),
        ("2026-11-01T00:00:00Z", "2026-11-01T00:00:00Z"),
        ("1969-12-31T23:59:59.999Z", "1969-12-01T00:00:00Z"),
        ("9999-12-31T23:59:59.999Z", "9999-12-01T00:00:00Z"),
    ],
)
def test_truncate_keeps_the_month_of_an_instant(value: str, expected: str) -> None:
    assert parse_instant(expected) == truncated_instant(parse_instant(value))
    assert parse_instant(expected) == PROTECTOR.apply(
        "truncate", parse_instant(value), "$", kind="datetime"
    )


def test_a_pseudonym_is_the_keyed_hash_cut_to_16_bytes() -> None:
    expected = hmac.new(KEY, b"bob@example.com", sha256).digest()[:16]
    actual = PROTECTOR.pseudonym("bob@example.com")
    assert 22 == len(actual)
    assert expected == urlsafe_b64decode(actual + "==")
    assert "77NtdMLcXmmQL8aR_zfBTQ" == actual
    assert PROTECTOR.pseudonym("17") == PROTECTOR.pseudonym(17)
    assert PROTECTOR.pseudonym("a") != Protector(bytes(32)).pseudonym("a")


@given(st.text(min_size=8))
def test_no_pseudonym_contains_its_value(value: str) -> None:
    assert value not in PROTECTOR.pseudonym(value)


@given(st.text(max_size=60))
def test_truncate_never_fails_and_never_grows(value: str) -> None:
    assert len(truncated_text(value)) <= max(3, len(value.lower()))


def test_the_other_protections() -> None:
    assert "v" == PROTECTOR.apply("plain", "v", "$.properties.a")
    assert PROTECTOR.apply("drop", "v", "$.properties.a") is None
    assert ["abc", "def"] == PROTECTOR.apply(
        "truncate", ["abcd", "defg"], "$.properties.a", kind="strings"
    )
    assert [PROTECTOR.pseudonym("a")] == PROTECTOR.apply(
        "pseudonym", ["a"], "$.properties.a", kind="strings"
    )


@pytest.mark.parametrize(("protection", "code"), [("encrypt", "E104"), ("rot13", "E105")])
def test_what_does_not_exist_is_refused_by_name(protection: str, code: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        PROTECTOR.apply(protection, "bob@example.com", "$.properties.a")
    assert code == caught.value.code
    assert "$.properties.a" == caught.value.where
    assert "bob" not in str(caught.value)
