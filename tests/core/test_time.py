"""Instants: ISO 8601 in, integer milliseconds, ISO 8601 out."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.time import INSTANT_MS_MAX, format_instant, parse_instant


@pytest.mark.parametrize(
    ("text", "at_ms"),
    [
        ("1970-01-01T00:00:00Z", 0), ("1970-01-01", 0), ("1970-01-01T00:00:00.001Z", 1),
        ("1970-01-01T01:00:00+01:00", 0), ("1969-12-31T23:59:59.999Z", -1),
        ("2026-11-25T10:00:00", 1795600800000), ("2026-11-25T10:00:00.123456Z", 1795600800123),
        ("20261125T100000Z", 1795600800000), ("9999-12-31T23:59:59.999Z", INSTANT_MS_MAX),
    ],
)  # fmt: skip
def test_iso_8601_is_read(text: str, at_ms: int) -> None:
    assert parse_instant(text) == at_ms


@pytest.mark.parametrize(
    "text", ["", "soon", "2026-13-01", "2026-02-30T00:00:00Z", "10000-01-01", "25:00"]
)
def test_what_is_no_instant_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parse_instant(text)


@given(st.integers(-62_135_596_800_000, INSTANT_MS_MAX))
def test_what_is_printed_reads_back(at_ms: int) -> None:
    text = format_instant(at_ms)
    assert parse_instant(text) == at_ms
    assert text.endswith("Z")
    assert len(text) == len("2026-11-25T10:00:00.000Z")


@given(st.integers(-60_000_000_000_000, INSTANT_MS_MAX))
def test_a_text_without_a_zone_is_utc(at_ms: int) -> None:
    assert parse_instant(format_instant(at_ms).removesuffix("Z")) == at_ms
