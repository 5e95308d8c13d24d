"""Group commit: many callers, one durable commit at a time; overload, failures and the clock."""

import asyncio
from collections.abc import Sequence
from threading import Event as Gate

import msgspec
import pytest

from penstock.adapters.log.memory import MemoryLog
from penstock.adapters.metrics.memory import MemoryMetrics
from penstock.core.errors import Overloaded, Unavailable
from penstock.core.record import (
    RECORD_FORMAT,
    DeadLetter,
    Evidence,
    Kind,
    LogRecord,
    Record,
    decode_record,
    encode_record,
)
from penstock.ports.log import Appended
from penstock.runtimes import appender as module
from penstock.runtimes.appender import GroupAppender
from penstock.testing.clock import HandClock

NOW = 1_795_000_000_000


def record(number: int) -> Record:
    return Record(
        format=RECORD_FORMAT, kind=Kind.PRIMARY, tenant="t", leaf=bytes(16), id_type="user_id",
        event_id=number, message_id=f"m{number}", type="track", name="Seen", occurred_at_ms=NOW,
        received_at_ms=NOW, source="site", source_rank=0, verified=True, evidence=Evidence("unknown"),
    )  # fmt: skip


class GatedLog(MemoryLog):
    """A log whose commits wait for the test, and may fail."""

    def __init__(self, clock: HandClock) -> None:
        super().__init__(clock)
        self.gate = Gate()
        self.gate.set()
        self.groups: list[int] = []
        self.failure: Exception | None = None

    def append(
        self, partition: int, values: Sequence[bytes], letters: Sequence[DeadLetter] = ()
    ) -> Appended:
        assert self.gate.wait(10), "the test opens the gate"
        if self.failure is not None:
            raise self.failure
        self.groups.append(len(values))
        return super().append(partition, values, letters)


class Rig:
    """An appender with its log, clock and what it told the engine."""

    def __init__(self) -> None:
        self.clock = HandClock(NOW)
        self.log = GatedLog(self.clock)
        self.metrics = MemoryMetrics()
        self.told: list[LogRecord] = []
        self.appender = GroupAppender(
            self.log, self.clock, self.metrics, lambda _, records: self.told.extend(records)
        )


async def started(
    rig: Rig, number: int, count: int = 1, *, urgent: bool = False
) -> asyncio.Task[None]:
    records = [record(number * 100_000 + index) for index in range(count)]
    task = asyncio.create_task(rig.appender.append(records, urgent=urgent))
    await asyncio.sleep(0)
    return task


def test_whatever_arrives_while_a_commit_runs_is_the_next_commit() -> None:
    async def story() -> Rig:
        rig = Rig()
        rig.log.gate.clear()
        tasks = [await started(rig, number) for number in range(5)]
        rig.log.gate.set()
        await asyncio.gather(*tasks)
        await rig.appender.close()
        return rig

    rig = asyncio.run(story())

    assert sum(rig.log.groups) == 5
    assert len(rig.log.groups) <= 3
    assert [entry.offset for entry in rig.told] == [0, 1, 2, 3, 4]
    assert [decode_record(entry.value).message_id for entry in rig.told] == [
        f"m{number * 100_000}" for number in range(5)
    ]


def test_those_of_one_turn_are_one_commit_and_answered_in_the_turn_after_it_is_heard_of() -> None:
    """Each turn of a busy loop is what everybody waits for: there are no more of them than need be."""

    async def story() -> tuple[list[int], int]:
        rig = Rig()
        tasks = [asyncio.create_task(rig.appender.append([record(n)])) for n in range(3)]
        while not rig.told:  # noqa: ASYNC110 - a thread appends, and how many turns come after it is counted
            await asyncio.sleep(0)
        turns = 0
        while not all(task.done() for task in tasks):
            turns += 1
            await asyncio.sleep(0)
        await rig.appender.close()
        return rig.log.groups, turns

    groups, turns = asyncio.run(story())
    assert [3] == groups
    assert turns <= 1


def test_the_engine_hears_of_records_before_their_callers_wake() -> None:
    async def story() -> int:
        rig = Rig()
        await rig.appender.append([record(1)])
        told = len(rig.told)
        await rig.appender.close()
        return told

    assert asyncio.run(story()) == 1


def test_a_full_queue_refuses_with_a_time_to_retry_and_never_what_is_urgent() -> None:
    async def story() -> Rig:
        rig = Rig()
        rig.log.gate.clear()
        tasks = [await started(rig, 1), await started(rig, 2, module.QUEUE_RECORDS_MAX)]
        with pytest.raises(Overloaded) as refused:
            await rig.appender.append([record(3)])
        assert refused.value.retry_after_s >= 1
        tasks.append(await started(rig, 4, urgent=True))
        rig.log.gate.set()
        await asyncio.gather(*tasks)
        await rig.appender.close()
        return rig

    rig = asyncio.run(story())

    assert rig.metrics.value("penstock_requests_shed_total", reason="append_queue") == 1
    assert decode_record(rig.told[-1].value).message_id == "m400000"


def test_what_is_urgent_waits_for_room_and_its_caller_with_it() -> None:
    """So memory has an end, and nobody is refused: what a caller holds is as much as connections are open."""

    async def story() -> tuple[Rig, list[str], int]:
        rig = Rig()
        waiting = [module.URGENT_FACTOR * module.FOLD_WAITING_MAX + 1]
        rig.appender = appender = GroupAppender(
            rig.log, rig.clock, rig.metrics, lambda _, records: rig.told.extend(records),
            lambda: waiting[0],
        )  # fmt: skip
        many = 2 * module.WOKEN_MAX
        tasks = [await started(rig, number, urgent=True) for number in range(many)]
        queued = appender.backlog()
        await appender.append_owed([record(7)])
        appender.make_room()
        owed = [decode_record(entry.value).message_id for entry in rig.told]
        waiting[0] -= 1
        while not all(task.done() for task in tasks):
            appender.make_room()
            await asyncio.sleep(0)
        await asyncio.gather(*tasks)
        waiting[0] += 1
        late = await started(rig, many, urgent=True)
        await appender.close()
        with pytest.raises(Unavailable, match="E401"):
            await late
        return rig, owed, queued

    rig, owed, queued = asyncio.run(story())

    assert (["m7"], 0) == (owed, queued)
    kept = [decode_record(entry.value).message_id for entry in rig.told]
    assert kept == ["m7", *(f"m{number * 100_000}" for number in range(2 * module.WOKEN_MAX))]


def test_a_queue_whose_head_waits_too_long_takes_no_more() -> None:
    async def story() -> None:
        rig = Rig()
        rig.log.gate.clear()
        tasks = [await started(rig, 1), await started(rig, 2)]
        rig.clock.advance(ms=module.SOJOURN_MS_MAX + 1)
        with pytest.raises(Overloaded):
            await rig.appender.append([record(3)])
        rig.log.gate.set()
        await asyncio.gather(*tasks)
        await rig.appender.close()

    asyncio.run(story())


@pytest.mark.parametrize("failure", [
    Unavailable("E401", "the disk is full", fix="make room"), OSError("anything")
])  # fmt: skip
def test_a_failed_commit_answers_every_caller_and_the_next_one_is_tried(failure: Exception) -> None:
    async def story() -> Rig:
        rig = Rig()
        rig.log.failure = failure
        for _ in range(2):
            with pytest.raises(Unavailable):
                await rig.appender.append([record(1)])
        failing = [rig.appender.failing()]
        rig.log.failure = None
        await rig.appender.append([record(2)])
        assert [*failing, rig.appender.failing()] == [True, False]
        await rig.appender.close()
        return rig

    rig = asyncio.run(story())

    assert [decode_record(entry.value).message_id for entry in rig.told] == ["m2"]


def test_a_caller_that_goes_away_does_not_take_the_group_with_it() -> None:
    async def story() -> Rig:
        rig = Rig()
        rig.log.gate.clear()
        first = await started(rig, 1)
        gone, stays = await started(rig, 2), await started(rig, 3)
        gone.cancel()
        rig.log.gate.set()
        await asyncio.gather(first, stays)
        await rig.appender.close()
        return rig

    rig = asyncio.run(story())

    assert len(rig.told) == 3


@pytest.mark.parametrize("back_ms", [module.LEAD_MS_MAX + 1, -module.LEAD_MS_MAX - 1])
def test_a_wall_clock_that_jumped_takes_nothing(back_ms: int) -> None:
    async def story() -> None:
        rig = Rig()
        await rig.appender.append([record(1)])
        rig.clock.set_back(back_ms)
        with pytest.raises(Unavailable) as refused:
            await rig.appender.append([record(2)])
        assert refused.value.code == "E411"
        await rig.appender.close()

    asyncio.run(story())


def test_a_fold_that_lags_too_far_takes_no_more_but_what_is_never_shed() -> None:
    async def story() -> Rig:
        rig = Rig()
        waiting = [module.FOLD_WAITING_MAX + 1]
        appender = GroupAppender(
            rig.log,
            rig.clock,
            rig.metrics,
            lambda _, records: rig.told.extend(records),
            lambda: waiting[0],
        )
        with pytest.raises(Overloaded):
            await appender.append([record(1)])
        await appender.append([record(2)], urgent=True)
        waiting[0] = 0
        await appender.append([record(3)])
        await appender.close()
        await rig.appender.close()
        return rig

    rig = asyncio.run(story())

    assert [decode_record(entry.value).message_id for entry in rig.told] == ["m2", "m3"]
    assert rig.metrics.value("penstock_requests_shed_total", reason="fold_lag") == 1


@pytest.mark.parametrize("partitions", [1, 3])
def test_a_record_may_be_its_bytes_already(partitions: int) -> None:
    async def story() -> MemoryLog:
        clock = HandClock(NOW)
        log = MemoryLog(clock, partitions=partitions)
        appender = GroupAppender(log, clock, MemoryMetrics(), lambda _, records: None)
        await appender.append([record(0), encode_record(record(1)), encode_record(elsewhere)])
        await appender.close()
        return log

    elsewhere = msgspec.structs.replace(record(2), leaf=bytes(7) + b"\x02" + bytes(8))
    log = asyncio.run(story())
    read = [
        [decode_record(entry.value).event_id for entry in log.read(partition, 0, 10)]
        for partition in range(partitions)
    ]
    assert ([[0, 1, 2]] if partitions == 1 else [[0, 1], [], [2]]) == read
