"""The log in the archive: all of it, once, whatever stops it; damage is named; a log put back has its own."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.adapters.archive.folder import FolderArchive
from penstock.adapters.archive.frames import pack, unpack
from penstock.adapters.log.memory import MemoryLog
from penstock.core import segment
from penstock.core.errors import DataCorrupt, Unavailable
from penstock.core.record import Evidence, Kind, LogRecord, Record, encode_record
from penstock.flows.archiving import ArchivedLog
from penstock.testing.clock import HandClock

SIZE = 8


@pytest.fixture(autouse=True)
def _short_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segment, "SEGMENT_RECORDS", SIZE)


def a_record(number: int, text: str = "") -> bytes:
    return encode_record(Record(
        format=1, kind=int(Kind.PRIMARY), tenant="default", leaf=bytes([number % 5]) * 16, id_type="user_id",
        event_id=number, message_id=f"{text}{number}", type="track", name="Viewed", occurred_at_ms=1, received_at_ms=1,
        source="web", source_rank=0, verified=True, evidence=Evidence("unknown"),
    ))  # fmt: skip


def a_log(count: int, *, partitions: int = 1, texts: tuple[str, ...] = ("",)) -> MemoryLog:
    """A log of `count` records a partition and text, one after the other."""
    log = MemoryLog(HandClock(), partitions=partitions)
    for text in texts:
        for partition in range(partitions):
            for number in range(count):
                log.append(partition, [a_record(number + partition, text)])
    return log


def archived(folder: Path, tenant: str = "default") -> ArchivedLog:
    return ArchivedLog(FolderArchive(folder), tenant, pack=pack, unpack=unpack)


def records_in(archive: ArchivedLog, partition: int = 0) -> list[LogRecord]:
    return [
        record
        for kept in archive.segments()
        if kept.span.partition == partition
        for record in archive.open(kept).read(kept.span.first, SIZE)
    ]


def damage(folder: Path, name: str, at: int) -> None:
    path = folder / name
    raw = bytearray(path.read_bytes())
    raw[at] ^= 1
    path.write_bytes(raw)


def test_closed_segments_are_archived_as_they_are(tmp_path):
    log, archive = a_log(3 * SIZE + 2, partitions=2), archived(tmp_path)
    assert 2 * 3 * SIZE == archive.archive_closed(log)
    for partition in range(2):
        assert log.read(partition, 0, 3 * SIZE) == records_in(archive, partition)
        assert 3 * SIZE == archive.covered(log, partition)
    assert 4 == archive.behind(log)
    for kept in archive.segments():
        archive.check(kept)


@pytest.mark.parametrize("tenant", ["default", ".~", "a/b", "..", "ü"])
def test_tenants_share_an_archive_and_see_their_own(tmp_path, tenant):
    log = a_log(SIZE)
    archived(tmp_path, "other").archive_closed(log)
    archive = archived(tmp_path, tenant)
    assert [] == archive.segments()
    assert SIZE == archive.archive_closed(log)
    assert 1 == len(archive.segments())


def test_another_process_goes_on_where_it_was_stopped(tmp_path):
    log = a_log(4 * SIZE, partitions=2)
    steps = 0
    while archived(tmp_path).archive_closed(log, segments_max=1):
        steps += 1
    assert 8 == steps
    assert log.read(1, 0, 4 * SIZE) == records_in(archived(tmp_path), 1)


def test_an_archive_that_does_not_answer_loses_nothing(tmp_path):
    log = a_log(2 * SIZE)
    tmp_path.joinpath("a").write_bytes(b"no folder")
    archive = archived(tmp_path / "a")
    with pytest.raises(Unavailable) as caught:
        archive.archive_closed(log)
    assert "E419" == caught.value.code
    tmp_path.joinpath("a").unlink()
    assert 2 * SIZE == archive.archive_closed(log)


def test_a_log_that_was_put_back_has_segments_of_its_own(tmp_path):
    before, after = a_log(2 * SIZE, texts=("", "x")), a_log(2 * SIZE, texts=("", "y"))
    assert 4 * SIZE == archived(tmp_path).archive_closed(before)
    archive = archived(tmp_path)
    assert 2 * SIZE == archive.covered(after, 0)
    assert 2 * SIZE == archive.archive_closed(after)
    assert [4 * SIZE] * 2 == [archived(tmp_path).covered(log, 0) for log in (before, after)]
    assert 6 == len(archive.segments())


def test_only_what_is_proven_to_be_of_a_log_is_given_back(tmp_path):
    before, after = a_log(2 * SIZE, texts=("", "x")), a_log(2 * SIZE, texts=("", "y"))
    archive = archived(tmp_path)
    archive.archive_closed(before)

    def asked(log: MemoryLog, first: int, at: int) -> list[LogRecord]:
        return archive.before(1, 0, first, log.read(0, at, 1)[0])

    assert before.read(0, 3, 27) == asked(before, 3, 30)
    assert after.read(0, 3, 10) == asked(after, 3, 13)
    assert [] == asked(after, 3, 30)
    archived(tmp_path).archive_closed(after)
    # Two segments of one range below: it is not known whose they are.
    assert after.read(0, 3 * SIZE, 6) == asked(after, 3, 30)
    assert after.read(0, 3, 19 - 3) == asked(after, 3, 19)


def test_a_segment_that_is_gone_is_written_again(tmp_path):
    log, archive = a_log(3 * SIZE), archived(tmp_path)
    archive.archive_closed(log)
    archive.archive.delete(archive.segments()[1].name)
    again = archived(tmp_path)
    assert SIZE == again.covered(log, 0)
    assert 2 * SIZE == again.archive_closed(log)
    assert log.read(0, 0, 3 * SIZE) == records_in(again)


def test_a_damaged_segment_holds_up_no_other_and_is_written_again(tmp_path):
    log, longer = a_log(3 * SIZE), a_log(3 * SIZE, texts=("", "x"))
    archived(tmp_path).archive_closed(log)
    newest = archived(tmp_path).segments()[-1]
    damage(tmp_path, newest.name, newest.size - 1)
    again = archived(tmp_path)
    assert 4 * SIZE == again.archive_closed(longer)
    for kept in again.segments():
        again.check(kept)
    assert longer.read(0, 0, 6 * SIZE) == records_in(again)


@given(place=st.floats(0, 1, exclude_max=True))
def test_any_flipped_bit_is_found(tmp_path_factory, place):
    folder = tmp_path_factory.mktemp("archive")
    archive = archived(folder)
    archive.archive_closed(a_log(2 * SIZE))
    whole, hurt = archive.segments()
    damage(folder, hurt.name, int(place * hurt.size))
    with pytest.raises(DataCorrupt) as caught:
        archive.check(hurt)
    assert ("E730", hurt.name) == (caught.value.code, caught.value.where)
    archive.check(whole)
