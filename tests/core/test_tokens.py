"""Tokens: short, kept apart by purpose, and refused when a single bit differs."""

import base64
import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core import tokens
from penstock.core.errors import EventRejected
from penstock.core.ids import LeafId

KEY = bytes(range(32))
OTHER_KEY = bytes(range(1, 33))
LEAF = LeafId(bytes.fromhex("00112233445566778899aabbccddeeff"))
DECISION = "0f1e2d3c4b5a69788796a5b4c3d2e1f0"
URL = "https://shop.example/p/7?a=1&utm_source=penstock#top"

leaves = st.binary(min_size=16, max_size=16)
names = (
    st.text(max_size=19)
    .filter(lambda text: len(text.encode("utf-8", "replace")) <= 19)
    .filter(lambda text: all(not 0xD800 <= ord(char) <= 0xDFFF for char in text))
)


def code_of(call) -> str:
    with pytest.raises(EventRejected) as caught:
        call()
    return caught.value.code


def test_tokens_fit_in_64_characters_when_names_are_short():
    made = (
        tokens.email_token(KEY, LEAF),
        tokens.sign_unsubscribe(KEY, LEAF, "weekly-offers-uk"),
        tokens.sign_click(KEY, DECISION, URL, "recently-viewed"),
        tokens.sign_open(KEY, DECISION),
    )
    assert [39, 60, 59, 39] == [len(token) for token in made]
    assert all(set(token) <= set(base64.urlsafe_b64encode(bytes(range(256))).decode()) | set(
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_") for token in made)  # fmt: skip


def test_the_bytes_of_a_token_are_pinned_because_mails_outlive_versions(golden):
    golden(
        "tokens-v1.json",
        {
            "email": tokens.email_token(KEY, LEAF),
            "unsubscribe": tokens.sign_unsubscribe(KEY, LEAF, "weekly"),
            "unsubscribe_all": tokens.sign_unsubscribe(KEY, LEAF),
            "click": tokens.sign_click(KEY, DECISION, URL, "hero"),
            "open": tokens.sign_open(KEY, DECISION),
        },
    )


def test_an_email_token_is_what_the_documentation_says():
    subkey = hmac.digest(KEY, b"penstock email token", "sha256")
    mac = hmac.digest(subkey, b"\x01" + LEAF + b"\x00\x00", "sha256")[:12]
    expected = base64.urlsafe_b64encode(b"\x01" + LEAF + mac).rstrip(b"=").decode()
    assert expected == tokens.email_token(KEY, LEAF)


@given(leaf=leaves, name=names)
def test_what_is_signed_is_what_verifies(leaf, name):
    assert leaf == tokens.verify_email(KEY, tokens.email_token(KEY, leaf))
    assert (leaf, name) == tokens.verify_unsubscribe(KEY, tokens.sign_unsubscribe(KEY, leaf, name))
    click = tokens.sign_click(KEY, leaf.hex(), URL, name)
    assert (leaf.hex(), name) == tokens.verify_click(KEY, click, URL)
    assert 64 >= len(click)
    assert leaf.hex() == tokens.verify_open(KEY, tokens.sign_open(KEY, leaf.hex()))


def test_a_token_of_one_kind_is_never_another():
    # Unsubscribe and click tokens have the same shape as email and open tokens with an empty name.
    made = {
        "email": tokens.email_token(KEY, LEAF),
        "unsubscribe": tokens.sign_unsubscribe(KEY, LEAF, ""),
        "click": tokens.sign_click(KEY, LEAF.hex(), URL, ""),
        "open": tokens.sign_open(KEY, LEAF.hex()),
    }
    readers = {
        "email": lambda token: tokens.verify_email(KEY, token),
        "unsubscribe": lambda token: tokens.verify_unsubscribe(KEY, token),
        "click": lambda token: tokens.verify_click(KEY, token, URL),
        "open": lambda token: tokens.verify_open(KEY, token),
    }
    for kind, token in made.items():
        for reader, verify in readers.items():
            if reader == kind:
                verify(token)
            else:
                assert "E351" == code_of(lambda verify=verify, token=token: verify(token))


def test_a_click_opens_no_other_page():
    token = tokens.sign_click(KEY, DECISION, URL, "hero")
    for other in ("https://evil.example/", URL + "x", URL.replace("https", "http"), URL.upper()):
        assert "E351" == code_of(lambda other=other: tokens.verify_click(KEY, token, other))


@pytest.mark.parametrize(
    "url",
    [
        "javascript:alert(1)",
        "//evil.example",
        "ftp://a",
        "https://a/\r\nSet-Cookie: x",
        "https://a b",
        "",
        "data:text/html,x",
        " https://shop.example",
    ],
)
def test_a_target_that_is_no_web_address_is_refused(url):
    token = tokens.sign_click(KEY, DECISION, URL, "hero")
    assert "E353" == code_of(lambda: tokens.verify_click(KEY, token, url))
    with pytest.raises(AssertionError):
        tokens.sign_click(KEY, DECISION, url, "hero")


def test_a_slot_cannot_borrow_from_the_target():
    # Without lengths in the signed message, moving bytes between slot and target would verify.
    token = tokens.sign_click(KEY, DECISION, "https://a/b", "hero")
    raw = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
    moved = base64.urlsafe_b64encode(raw + b"h").rstrip(b"=").decode()
    assert "E351" == code_of(lambda: tokens.verify_click(KEY, moved, "https://a/b"))


@given(position=st.integers(0, 38), flip=st.integers(1, 63))
def test_a_changed_character_is_found(position, flip):
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    token = tokens.email_token(KEY, LEAF)
    changed = alphabet[alphabet.index(token[position]) ^ flip]
    altered = token[:position] + changed + token[position + 1 :]
    assert code_of(lambda: tokens.verify_email(KEY, altered)) in {"E350", "E351", "E352"}


@given(text=st.text(max_size=80))
def test_no_text_crashes_the_reader(text):
    assert code_of(lambda: tokens.verify_email(KEY, text)) in {"E350", "E351", "E352"}


@pytest.mark.parametrize(
    "text",
    ["", "A", "AQ", "A" * 39 + "=", " " * 39, "é" * 39, "A" * 100_000, "\x00" * 39, "\ud800" * 39],
)
def test_bad_spellings_are_cut_short_or_altered(text):
    assert "E350" == code_of(lambda: tokens.verify_email(KEY, text))


def test_another_spelling_of_the_same_bytes_is_refused():
    token = tokens.email_token(KEY, LEAF)
    for other in (token + "=", token + "\n", "\n" + token, token[:-1] + chr(ord(token[-1]) + 1)):
        assert "E350" == code_of(lambda other=other: tokens.verify_email(KEY, other))


def test_another_key_and_a_newer_format_are_told_apart():
    token = tokens.email_token(KEY, LEAF)
    assert "E351" == code_of(lambda: tokens.verify_email(OTHER_KEY, token))
    newer = base64.urlsafe_b64encode(b"\x02" + bytes(28)).rstrip(b"=").decode()
    assert "E352" == code_of(lambda: tokens.verify_email(KEY, newer))


def test_messages_quote_nothing_of_the_token():
    with pytest.raises(EventRejected) as caught:
        tokens.verify_click(KEY, "canary-token", "https://canary.example/")
    assert "canary" not in str(caught.value)
