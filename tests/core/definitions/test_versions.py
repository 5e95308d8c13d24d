"""The table of versions: which one serves is always told, and nothing that is needed is dropped."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.definitions.versions import (
    KEPT_MAX,
    TABLE_FORMAT,
    Table,
    begin,
    built,
    decode_table,
    encode_table,
    expire,
    first,
    give_up,
    pin,
    pinned,
    publish_again,
    rebuilt,
    roll_back,
    switch,
)
from penstock.core.errors import DataCorrupt, DefinitionError

HOUR = 3_600_000


def serving(digest: str = "d1", fingerprint: str = "f1") -> Table:
    return first(Table(), digest=digest, fingerprint=fingerprint, epoch=1, now_ms=0)


def applied(table: Table, digest: str, fingerprint: str, now_ms: int = 1, **options) -> Table:
    table, version = begin(table, digest=digest, fingerprint=fingerprint, now_ms=now_ms)
    table = built(table, version.number)
    return switch(table, version.number, now_ms=now_ms, keep_ms=HOUR, **options)


def states(table: Table) -> dict[int, str]:
    return {one.number: one.state for one in table.versions}


def test_a_version_is_built_beside_the_one_that_serves() -> None:
    table, version = begin(serving(), digest="d2", fingerprint="f2", now_ms=1, taken=[1, 4])

    assert (version.number, version.state, version.epoch) == (2, "building", 5)
    assert states(table) == {1: "active", 2: "building"}
    assert table.epochs() == {1, 5}


def test_one_whose_leaves_are_the_same_needs_none_of_its_own() -> None:
    table, version = begin(serving(), digest="d2", fingerprint="f1", now_ms=1)

    assert (version.state, version.epoch) == ("ready", 1)
    table = switch(table, 2, now_ms=1, keep_ms=HOUR)
    assert (states(table), table.epochs()) == ({1: "retiring", 2: "active"}, {1})


def test_what_a_crash_left_half_built_is_taken_up_again_and_other_files_give_it_up() -> None:
    table, version = begin(serving(), digest="d2", fingerprint="f2", now_ms=1)

    assert begin(table, digest="d2", fingerprint="f2", now_ms=9) == (table, version)
    table, other = begin(table, digest="d3", fingerprint="f3", now_ms=9)
    assert (other.number, states(table)) == (3, {1: "active", 2: "dropped", 3: "building"})
    assert other.epoch > version.epoch  # what is left of the other is never taken for this


def test_the_one_before_is_kept_for_its_time_and_no_longer() -> None:
    table = applied(serving(), "d2", "f2", now_ms=10)

    assert states(expire(table, 10 + HOUR - 1)) == {1: "retiring", 2: "active"}
    assert states(expire(table, 10 + HOUR)) == {1: "dropped", 2: "active"}
    assert expire(table, 10 + HOUR).epochs() == {2}


def test_with_no_time_to_be_kept_it_is_dropped_at_once() -> None:
    table, version = begin(serving(), digest="d2", fingerprint="f2", now_ms=1)
    table = switch(built(table, version.number), 2, now_ms=1, keep_ms=0)

    assert states(table) == {1: "dropped", 2: "active"}


def test_rolled_back_it_serves_again_and_what_it_was_rolled_back_from_is_declined() -> None:
    table = applied(pin(serving(), "welcome", 1), "d2", "f2", now_ms=10)
    table = pin(table, "spring", 1)
    table = roll_back(table, now_ms=20, keep_ms=HOUR, covered=[41], generation=1)

    assert states(table) == {1: "active", 2: "retiring"}
    assert (table.declined, table.covered, table.generation) == ("d2", (41,), 1)
    # What was published with it is published anew; what was not stays as it was.
    assert table.pins == {"welcome@1": 1}


def test_what_was_rolled_back_comes_back_by_its_leaves_that_are_kept() -> None:
    table = roll_back(applied(serving(), "d2", "f2"), now_ms=2, keep_ms=HOUR)
    table, version = begin(table, digest="d2", fingerprint="f2", now_ms=3)

    assert (version.number, version.state) == (2, "retiring")
    table = switch(table, 2, now_ms=3, keep_ms=HOUR)
    assert (states(table), table.declined) == ({1: "retiring", 2: "active"}, "")


def test_there_may_be_nothing_to_roll_back_to() -> None:
    with pytest.raises(DefinitionError, match="E191"):
        roll_back(serving(), now_ms=1, keep_ms=HOUR)
    gone = expire(applied(serving(), "d2", "f2"), 2 * HOUR)
    with pytest.raises(DefinitionError, match="E190"):
        roll_back(gone, now_ms=1, keep_ms=HOUR, number=1)
    with pytest.raises(DefinitionError, match="E191"):
        roll_back(gone, now_ms=1, keep_ms=HOUR, number=2)


def test_a_campaign_stays_with_what_it_was_published_with_until_it_is_published_again() -> None:
    table = pin(serving(), "welcome", 1)
    table = applied(table, "d2", "f2")
    again = publish_again(table, "welcome", 1)

    assert pinned(pin(table, "welcome", 1), "welcome", 1) == table.version(1)
    assert pinned(table, "welcome", 2) is None
    assert pinned(again, "welcome", 1) == again.version(2)
    assert applied(table, "d3", "f3", republish=True).pins == {}
    gone = expire(table, 2 * HOUR)
    found = pinned(gone, "welcome", 1)
    assert found is not None
    assert found.state == "dropped"  # it is told, so that a send can say what to do


def test_leaves_made_anew_are_those_of_every_version_that_shared_them() -> None:
    table, _ = begin(serving(), digest="d2", fingerprint="f1", now_ms=1)
    table = rebuilt(table, 1, 9, "f1b")

    assert {(one.epoch, one.fingerprint) for one in table.versions} == {(9, "f1b")}


def test_given_up_it_is_gone() -> None:
    table, _ = begin(serving(), digest="d2", fingerprint="f2", now_ms=1)

    assert states(give_up(table)) == {1: "active", 2: "dropped"}
    assert give_up(serving()) == serving()


@st.composite
def histories(draw: st.DrawFn) -> list[tuple[str, int]]:
    acts = st.sampled_from(["begin", "built", "switch", "back", "expire", "give up", "pin"])
    return draw(st.lists(st.tuples(acts, st.integers(1, 6)), max_size=40))


@given(histories())
def test_one_version_always_serves_and_its_leaves_are_always_needed(history) -> None:
    """Whatever happens, in any order: one serves, few are kept, and the table reads back."""
    table = serving()
    for now_ms, (act, number) in enumerate(history):
        candidate = table.candidate
        match act:
            case "begin":
                table, _ = begin(
                    table, digest=f"d{number}", fingerprint=f"f{number % 4}", now_ms=now_ms
                )
            case "built" if candidate is not None:
                table = built(table, candidate.number)
            case "switch" if candidate is not None and candidate.state == "ready":
                table = switch(table, candidate.number, now_ms=now_ms, keep_ms=HOUR * (number % 2))
            case "back" if table.retiring:
                table = roll_back(table, now_ms=now_ms, keep_ms=HOUR)
            case "expire":
                table = expire(table, now_ms + HOUR * (number // 5))
            case "give up":
                table = give_up(table)
            case "pin":
                table = pin(table, f"c{number}", 1)
        active = [one for one in table.versions if one.state == "active"]
        assert len(active) == 1
        assert active[0].epoch in table.epochs()
        assert len({one.epoch for one in table.retiring} - {active[0].epoch}) <= KEPT_MAX
        building = [one.epoch for one in table.versions if one.state == "building"]
        assert building.count(active[0].epoch) == 0
        assert len({one.fingerprint for one in table.versions if one.state != "dropped"}) == len(
            table.epochs()
        )
        assert decode_table(encode_table(table)) == table


def test_a_table_that_does_not_read_back_is_told() -> None:
    newer = msgspec.json.encode({"format": TABLE_FORMAT + 1, "anything": 1})
    with pytest.raises(DataCorrupt, match="E741"):
        decode_table(newer)
    for raw in (b"", b"{}", b"[1]", b'{"format": 1, "versions": 3}', b"\xff\xfe"):
        with pytest.raises(DataCorrupt, match="E740"):
            decode_table(raw)


def test_the_stored_table_is_format_1() -> None:
    # Kept for years. If this fails, the format changed: raise TABLE_FORMAT and read this one too.
    table = pin(roll_back(applied(serving(), "d2", "f2", now_ms=10), now_ms=20, keep_ms=HOUR,
                          covered=[7], generation=1), "welcome", 1)  # fmt: skip
    assert decode_table(GOLDEN_1) == table
    assert msgspec.json.decode(encode_table(table)) == msgspec.json.decode(GOLDEN_1)


GOLDEN_1 = b"""{"covered":[7],"declined":"d2","format":1,"generation":1,"pins":{"welcome@1":1},"versions":[
{"created_at_ms":0,"digest":"d1","epoch":1,"fingerprint":"f1","keep_until_ms":0,"number":1,"state":"active",
"switched_at_ms":20},{"created_at_ms":10,"digest":"d2","epoch":2,"fingerprint":"f2","keep_until_ms":3600020,
"number":2,"state":"retiring","switched_at_ms":20}]}"""
