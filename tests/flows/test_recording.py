"""The order in which a recording tells of events: that of their stamps, over all partitions."""

from typing import Never

from hypothesis import given
from hypothesis import strategies as st

from penstock.adapters.log.memory import MemoryLog
from penstock.core.record import RECORD_FORMAT, Evidence, Kind, Record, encode_record
from penstock.flows import history
from penstock.flows.recording import Recording
from penstock.testing.clock import HandClock

PARTITIONS = 3


def event(number: int) -> Record:
    return Record(
        RECORD_FORMAT, Kind.PRIMARY, "default", b"leaf" * 4, "user_id", number, f"m-{number}", "track",
        "Product Viewed", 0, 0, "backend", 0, True, Evidence("unknown"),
    )  # fmt: skip


def nothing() -> Never:
    raise AssertionError("events are told without definitions and registers")


# Of each append: its partition, how many records it holds, and the ms that pass before it.
appends = st.lists(
    st.tuples(st.integers(0, PARTITIONS - 1), st.integers(1, 4), st.integers(0, 2)), max_size=20
)


@given(before=appends, after=appends)
def test_events_come_by_their_stamp_then_partition_then_offset(before, after):
    clock = HandClock(now_ms=1_000)
    log = MemoryLog(clock, partitions=PARTITIONS)
    recording = Recording(log, nothing, nothing)
    numbers = iter(range(1_000))
    expected = []

    def append(partition: int, count: int, passed_ms: int) -> None:
        clock.advance(passed_ms)
        records = [event(next(numbers)) for _ in range(count)]
        landed = log.append(partition, [encode_record(record) for record in records])
        expected.extend(
            (landed.logged_at_ms, partition, landed.first_offset + place, record.event_id)
            for place, record in enumerate(records)
        )

    for one in before:
        append(*one)
    recording.reset()
    expected.clear()
    for one in after:
        append(*one)
    assert [one[-1] for one in sorted(expected)] == [
        told.record.event_id for told in recording.events()
    ]


def test_a_partition_is_read_to_its_end():
    log = MemoryLog(HandClock(now_ms=1_000), partitions=2)
    recording = Recording(log, nothing, nothing)
    count = history.READ_RECORDS + 1
    log.append(1, [encode_record(event(number)) for number in range(count)])
    assert count == len(recording.events())
