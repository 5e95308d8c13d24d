"""Identifiers have one spelling, and junk joins nobody."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.errors import DefinitionError
from penstock.core.identity.identifier import JUNK, IdentityRules, blocked, is_type, normalise


@pytest.mark.parametrize(
    ("id_type", "value", "expected"),
    [
        ("user_id", " u-42\n", "u-42"),
        ("user_id", "U-42", "U-42"),
        ("user_id", 42, "42"),
        ("user_id", -7, "-7"),
        ("user_id", 1 << 53, None),
        ("user_id", 1.5, None),
        ("user_id", True, None),
        ("user_id", None, None),
        ("user_id", ["u"], None),
        ("user_id", "", None),
        ("user_id", "\u200b \ufeff", None),
        ("user_id", "a\x00b", None),
        ("user_id", "a\nb", None),
        ("user_id", "\ud800", None),
        ("user_id", "Cafe\u0301", "Caf\u00e9"),
        ("user_id", "u" * 512, "u" * 512),
        ("user_id", "u" * 513, None),
        ("user_id", "\u00e9" * 300, None),
        ("email", "Ann@Example.COM ", "ann@example.com"),
        ("email", "ann@example.com.", "ann@example.com"),
        ("email", "\ufeffann@example.com", "ann@example.com"),
        ("email", "STRASSE@example.de", "strasse@example.de"),
        ("email", "STRA\u1e9eE@example.de", "stra\u00dfe@example.de"),
        ("email", "ann", None),
        ("email", "@example.com", None),
        ("email", "ann@", None),
        ("email", "a@b@example.com", None),
        ("email", "Ann <ann@example.com>", None),
        ("email", "ann@example.com,bob@example.com", None),
        ("email", "a" * 250 + "@example.com", None),
        ("phone", "+44 (0) 20-7946.0958", "+4402079460958"),
        ("phone", "0044 20 7946 0958", "+442079460958"),
        ("phone", "020 7946 0958", "02079460958"),
        ("phone", "call me", None),
        ("phone", "+44+20", None),
        ("esp.braze", "5f3c", "5f3c"),
    ],
)
def test_normalise(id_type, value, expected):
    assert expected == normalise(id_type, value)


@given(
    st.sampled_from(["user_id", "email", "phone", "anonymous_id"]),
    st.text(max_size=40) | st.emails() | st.integers(),
)
def test_normalising_twice_changes_nothing(id_type, value):
    once = normalise(id_type, value)
    if once is not None:
        assert once == normalise(id_type, once)
        assert "\x00" not in once


@pytest.mark.parametrize(
    "junk",
    ["null", "NULL", "undefined", "'null'", '"undefined"', "0", "000", "-", "00000000-0000-0000-0000-000000000000",
     "[object Object]", "guest", "Anonymous", "NaN", "-1", "test@example.com", "FFFFFFFF-ffff-ffff-ffff-ffffffffffff"],
)  # fmt: skip
def test_usual_junk_is_blocked(junk):
    assert blocked(junk, IdentityRules())


@pytest.mark.parametrize("value", ["u-42", "1", "ann@example.com", "nullable", "guest-77"])
def test_what_looks_like_a_person_is_not_blocked(value):
    assert not blocked(value, IdentityRules())


def test_a_project_blocks_more_values_and_keeps_the_usual_ones():
    rules = IdentityRules.with_overrides(blocked_values=["Shop@Example.com"])
    assert blocked("shop@example.com", rules)
    assert rules.blocked > JUNK


def test_limits_are_by_type_and_keep_the_priority():
    rules = IdentityRules.with_overrides(limits={"email": 2, "phone": 1})
    assert (2, 1, 5) == tuple(rules.rule(t).limit for t in ("email", "phone", "user_id"))
    assert IdentityRules().rule("email").priority == rules.rule("email").priority
    assert IdentityRules().rule("phone").priority == rules.rule("phone").priority


@pytest.mark.parametrize(
    ("overrides", "code", "where"),
    [
        ({"limits": {"email": 0}}, "E130", "identity.limits.email"),
        ({"limits": {"email": 65}}, "E130", "identity.limits.email"),
        ({"limits": {"group_id": 2}}, "E131", "identity.limits.group_id"),
        ({"limits": {"Not A Type": 2}}, "E131", "identity.limits.Not A Type"),
        ({"shared_anonymous": "both"}, "E132", "identity.shared_anonymous"),
    ],
)
def test_wrong_overrides_say_where(overrides, code, where):
    with pytest.raises(DefinitionError) as caught:
        IdentityRules.with_overrides(**overrides)
    assert (code, where) == (caught.value.code, caught.value.where)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("phone", True), ("esp.braze", True), ("ga_client_id", True), ("", False), ("9x", False),
     ("a b", False), ("A", False), ("a" * 65, False)],
)  # fmt: skip
def test_type_names(name, expected):
    assert expected == is_type(name)
