"""The spool behind the appender: what the log does not acknowledge waits on disk, and gets there in its order."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from msgspec import structs

from penstock.adapters.log.memory import MemoryLog
from penstock.adapters.metrics.memory import MemoryMetrics
from penstock.adapters.spool.sqlite import SqliteSpool
from penstock.core.errors import Unavailable
from penstock.core.ids import LeafId, partition_of
from penstock.core.record import DeadLetter, LogRecord, Record, decode_record, encode_record
from penstock.ports.log import Appended
from penstock.runtimes.appender import FOLD_WAITING_MAX, GroupAppender
from penstock.testing.clock import HandClock
from penstock.testing.conformance.spool import a_letter
from tests.runtimes.test_appender import NOW, record

ROOM = 1_000_000


class Brokers(MemoryLog):
    """A log that others append to as well, whose brokers come and go."""

    shared = True

    def __init__(self, clock: HandClock, partitions: int = 1) -> None:
        super().__init__(clock, partitions=partitions)
        self.fault = ""
        self.keeps = False
        """Whether what is not acknowledged is kept all the same."""
        self.asked = 0

    def append(
        self, partition: int, values: Sequence[bytes], letters: Sequence[DeadLetter] = ()
    ) -> Appended:
        self.asked += 1
        if self.fault and not self.keeps:
            raise Unavailable(self.fault, "the log did not answer", fix="retry")
        landed = super().append(partition, values, letters)
        if self.fault:
            raise Unavailable(self.fault, "the log did not answer", fix="retry")
        return landed

    def ids(self) -> list[str]:
        return [decode_record(one.value).message_id for one in self.read(0, 0, 1_000)]


class Rig:
    def __init__(self, folder: Path, log: Brokers | None = None, room: int = ROOM) -> None:
        self.clock = HandClock(NOW)
        self.log = log or Brokers(self.clock)
        self.metrics = MemoryMetrics()
        self.told: list[LogRecord] = []
        self.spool = SqliteSpool(folder / "spool.db", room)
        self.appender = GroupAppender(
            self.log, self.clock, self.metrics, lambda _, records: self.told.extend(records)
        )
        self.appender.spool_into(self.spool)

    async def until(self, seen: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not seen():  # noqa: ASYNC110 - threads append
                await asyncio.sleep(0.01)

    async def close(self) -> None:
        await self.appender.close()
        self.spool.close()


def test_what_is_not_acknowledged_waits_and_gets_there_in_its_order(tmp_path: Path) -> None:
    async def story() -> Rig:
        rig = Rig(tmp_path)
        await rig.appender.append([record(0)])
        rig.log.fault = "E401"
        for number in range(1, 6):
            await rig.appender.append([record(number)], [a_letter(number)], urgent=number == 3)
        assert ["m0"] == rig.log.ids()
        assert 5 == rig.spool.counts().records
        assert "" == rig.appender.refuses()
        rig.log.fault = ""
        await rig.appender.append([record(6)])  # behind the others, or after them
        await rig.until(lambda: not rig.spool.counts().batches and rig.log.head(0) == 7)
        await rig.appender.append([record(7)])
        await rig.close()
        return rig

    rig = asyncio.run(story())
    assert [f"m{number}" for number in range(8)] == rig.log.ids()
    assert [one.offset for one in rig.told] == [*range(8)]
    assert [a_letter(number) for number in range(1, 6)] == list(rig.log.dead_letters())
    spooled = rig.metrics.value("penstock_spooled_records_total")
    assert 5 <= spooled == rig.metrics.value("penstock_spool_drained_records_total")
    assert 0 == rig.metrics.value("penstock_spool_records")


def test_what_was_kept_after_all_is_there_twice_under_one_id(tmp_path: Path) -> None:
    async def story() -> Rig:
        rig = Rig(tmp_path)
        rig.log.fault, rig.log.keeps = "E401", True
        await rig.appender.append([record(1)])
        rig.log.fault = ""
        await rig.until(lambda: not rig.spool.counts().batches)
        await rig.close()
        return rig

    assert {"m1"} == {*asyncio.run(story()).log.ids()}


def test_it_goes_on_after_a_restart_before_anything_else(tmp_path: Path) -> None:
    async def before() -> Brokers:
        rig = Rig(tmp_path)
        rig.log.fault = "E438"
        await rig.appender.append([record(1)])
        await rig.appender.append([record(2)])
        await rig.close()
        rig.log.fault = ""
        return rig.log

    async def after(log: Brokers) -> None:
        rig = Rig(tmp_path, log)
        await rig.appender.append([record(3)])
        rig.appender.resume()
        await rig.until(lambda: not rig.spool.counts().batches)
        await rig.close()

    log = asyncio.run(before())
    assert [] == log.ids()
    asyncio.run(after(log))
    assert ["m1", "m2", "m3"] == log.ids()


def test_a_full_spool_refuses_and_says_so_until_there_is_room(tmp_path: Path) -> None:
    async def story() -> None:
        rig = Rig(tmp_path, room=1_000)
        rig.log.fault = "E401"
        many = [record(number) for number in range(5)]
        await rig.appender.append(many[:1])
        with pytest.raises(Unavailable) as raised:
            await rig.appender.append(many * 10)
        assert raised.value.code == "E460"
        assert "the log did not take the last batch" in rig.appender.refuses()
        rig.log.fault = ""
        await rig.until(lambda: rig.log.head(0) == 1)
        await rig.appender.append([record(99)])
        assert "" == rig.appender.refuses()
        await rig.close()

    asyncio.run(story())


def test_what_the_fold_owes_waits_for_no_disk_of_one_machine(tmp_path: Path) -> None:
    async def story() -> Rig:
        rig = Rig(tmp_path)
        rig.log.fault = "E401"
        with pytest.raises(Unavailable):
            await rig.appender.append_owed([record(1)])
        await rig.appender.append([record(2)])
        asked = rig.log.asked
        with pytest.raises(Unavailable) as raised:
            await rig.appender.append_owed([record(3)])
        assert "E401" == raised.value.code
        assert rig.log.asked <= asked + 1, "only what waits asks the log"
        rig.log.fault = ""
        await rig.until(lambda: not rig.spool.counts().batches)
        await rig.appender.append_owed([record(4)])
        await rig.close()
        return rig

    assert ["m2", "m4"] == asyncio.run(story()).log.ids()


@pytest.mark.parametrize("fault", ["E436", "E437"])
def test_what_brokers_refuse_is_refused(tmp_path: Path, fault: str) -> None:
    async def story() -> None:
        rig = Rig(tmp_path)
        rig.log.fault = fault
        with pytest.raises(Unavailable) as raised:
            await rig.appender.append([record(1)])
        assert fault == raised.value.code
        assert 0 == rig.spool.counts().batches
        await rig.close()

    asyncio.run(story())


def test_a_batch_that_does_not_read_back_holds_up_nobody(tmp_path: Path) -> None:
    async def before() -> Brokers:
        rig = Rig(tmp_path)
        rig.log.fault = "E401"
        for number in (1, 2, 3):
            await rig.appender.append([record(number)])
        await rig.close()
        rig.log.fault = ""
        return rig.log

    async def after(log: Brokers) -> Rig:
        rig = Rig(tmp_path, log)
        rig.appender.resume()
        await rig.until(lambda: rig.log.head(0) == 2)
        await rig.until(lambda: rig.metrics.value("penstock_spool_damaged_batches") == 1)
        await rig.appender.append([record(4)])
        await rig.close()
        return rig

    log = asyncio.run(before())
    path = tmp_path / "spool.db"
    path.write_bytes(path.read_bytes().replace(b"m2", b"m9"))
    asyncio.run(after(log))
    assert ["m1", "m3", "m4"] == log.ids()


def test_a_log_of_other_partitions_has_each_record_where_it_belongs(tmp_path: Path) -> None:
    async def before() -> None:
        rig = Rig(tmp_path)
        rig.log.fault = "E401"
        await rig.appender.append([of(number) for number in range(20)], [a_letter(1)])
        await rig.close()

    async def after() -> Brokers:
        rig = Rig(tmp_path, Brokers(HandClock(NOW), partitions=4))
        rig.appender.resume()
        await rig.until(lambda: not rig.spool.counts().batches)
        await rig.close()
        return rig.log

    asyncio.run(before())
    log = asyncio.run(after())
    found = {
        decode_record(one.value).message_id: partition
        for partition in range(4) for one in log.read(partition, 0, 100)
    }  # fmt: skip
    assert {f"m{number}": partition_of(LeafId(of(number).leaf), 4) for number in range(20)} == found
    assert [a_letter(1)] == list(log.dead_letters())


def of(number: int) -> Record:
    return structs.replace(record(number), leaf=bytes([number]) * 16)


def test_what_waits_on_disk_does_not_fill_memory_instead(tmp_path: Path) -> None:
    async def story() -> None:
        rig = Rig(tmp_path)
        waiting, asked = FOLD_WAITING_MAX + 1, 0

        def fold_waiting() -> int:
            nonlocal asked
            asked += 1
            return waiting

        rig.spool.put(0, [encode_record(record(1))], [], NOW)
        rig.appender = GroupAppender(
            rig.log,
            rig.clock,
            rig.metrics,
            lambda _, records: rig.told.extend(records),
            fold_waiting,
        )
        rig.appender.spool_into(rig.spool)
        rig.appender.resume()
        await rig.until(lambda: asked > 3)
        assert 0 == rig.log.head(0)
        waiting = 0
        await rig.until(lambda: rig.log.head(0) == 1)
        await rig.close()

    asyncio.run(story())
