"""`[feed]`: what it is refused for when it loads, and which topics and schemas it declares."""

from __future__ import annotations

from typing import Any

import pytest

from penstock.core.errors import SettingsError
from penstock.settings import parse_settings


def parsed(kind: str = "kafka", **values: Any) -> Any:
    return parse_settings({"log": {"kind": kind}, "feed": values}).feed


def test_nothing_is_told_by_default() -> None:
    feed = parse_settings({}).feed
    assert (False, False, False, ()) == (feed.any, feed.decisions, feed.profiles, feed.traits)


@pytest.mark.parametrize(
    ("values", "name"),
    [
        ({"kind": "sqlite", "decisions": True}, "decisions"),
        ({"kind": "memory", "profiles": True}, "profiles"),
        ({"decisions": True, "decisions_retention": "a while"}, "decisions_retention"),
        ({"profiles": True, "purpose": "curiosity"}, "purpose"),
        ({"decisions": True, "format": "avro"}, "format"),
    ],
)
def test_what_can_not_be_told_is_refused_by_its_name(values: dict[str, Any], name: str) -> None:
    with pytest.raises(SettingsError) as caught:
        parsed(**values)
    assert "E229" == caught.value.code
    assert f"`feed.{name}`" in caught.value.what


def test_a_purpose_of_ones_own_opens_the_topic() -> None:
    settings = parse_settings({
        "log": {"kind": "kafka"}, "consent": {"purposes": ["sharing"]}, "feed": {"profiles": True, "purpose": "sharing"},
    })  # fmt: skip
    assert "sharing" == settings.feed.purpose
