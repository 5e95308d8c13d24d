"""The outbox pump: each decision reaches the log at least once, and counts once."""

import asyncio
from collections.abc import Sequence

import pytest

from penstock.adapters.decisions.memory import MemoryDecisions
from penstock.adapters.metrics.memory import MemoryMetrics
from penstock.core.errors import Unavailable
from penstock.core.ids import LeafId, event_id
from penstock.core.record import RECORD_FORMAT, DeadLetter, Evidence, Kind, Record
from penstock.ports.decisions import DecisionKey
from penstock.ports.metrics import MetricName
from penstock.runtimes.outbox import PUMP_RECORDS, OutboxPump

LEAF = LeafId(bytes(16))


def to_record(raw: bytes) -> Record:
    name = raw.decode()
    return Record(
        format=RECORD_FORMAT, kind=Kind.PRIMARY, tenant="t", leaf=LEAF, id_type="email",
        event_id=event_id(LEAF, name), message_id=name, type="track", name="Decision Made",
        occurred_at_ms=1, received_at_ms=1, source="penstock", source_rank=0, verified=True,
        evidence=Evidence("basis"),
    )  # fmt: skip


class Appended:
    """An appender that keeps message ids, and fails as often as it is told."""

    def __init__(self, failures: int = 0) -> None:
        self.message_ids: list[str] = []
        self.urgent: list[bool] = []
        self.failures = failures

    async def append(
        self, records: Sequence[Record], letters: Sequence[DeadLetter] = (), *, urgent: bool = False
    ) -> None:
        self.urgent.append(urgent)
        if self.failures:
            self.failures -= 1
            raise Unavailable("E401", "the log is away", fix="retry")
        self.message_ids += [record.message_id for record in records]


def decided(count: int) -> MemoryDecisions:
    decisions = MemoryDecisions()
    decisions.put_if_absent([
        (DecisionKey("t", bytes(16), "spring", f"s{n}"), f"d{n}".encode()) for n in range(count)
    ])  # fmt: skip
    return decisions


@pytest.mark.parametrize("count", [0, 1, PUMP_RECORDS, PUMP_RECORDS * 2 + 3])
def test_every_decision_is_moved_in_order(count: int) -> None:
    async def story() -> None:
        decisions, appended, metrics = decided(count), Appended(), MemoryMetrics()
        pump = OutboxPump(decisions, appended, to_record, metrics)
        assert await pump.pump() == count
        assert appended.message_ids == [f"d{n}" for n in range(count)]
        assert all(appended.urgent)
        assert decisions.outbox(10) == []
        assert metrics.value("penstock_events_accepted_total") == count
        assert await pump.pump() == 0

    asyncio.run(story())


def test_a_log_that_is_away_keeps_the_outbox_and_the_next_round_moves_it() -> None:
    async def story() -> None:
        decisions, appended = decided(3), Appended(failures=1)
        pump = OutboxPump(decisions, appended, to_record, MemoryMetrics())
        with pytest.raises(Unavailable):
            await pump.pump()
        assert len(decisions.outbox(10)) == 3
        assert await pump.pump() == 3
        assert appended.message_ids == ["d0", "d1", "d2"]

    asyncio.run(story())


def test_those_who_pump_at_once_move_each_decision_once() -> None:
    async def story() -> None:
        decisions, appended = decided(PUMP_RECORDS + 3), Appended()
        pump = OutboxPump(decisions, appended, to_record, MemoryMetrics())
        moved = await asyncio.gather(*(pump.pump() for _ in range(4)))
        assert [PUMP_RECORDS + 3, 0, 0, 0] == moved
        assert appended.message_ids == [f"d{n}" for n in range(PUMP_RECORDS + 3)]

    asyncio.run(story())


class Killed(Exception):
    """Stands for the end of the process."""


def test_a_kill_between_append_and_note_appends_the_same_ids_again() -> None:
    class Forgetful(MemoryDecisions):
        killed = False

        def outbox_done(self, sequences: Sequence[int]) -> None:
            if not self.killed:
                self.killed = True
                raise Killed
            super().outbox_done(sequences)

    async def story() -> None:
        decisions, appended = Forgetful(), Appended()
        decisions.put_if_absent([(DecisionKey("t", bytes(16), "spring", "s"), b"d0")])
        pump = OutboxPump(decisions, appended, to_record, MemoryMetrics())
        with pytest.raises(Killed):
            await pump.pump()
        assert await pump.pump() == 1
        # The same id twice: the fold counts it once.
        assert appended.message_ids == ["d0", "d0"]
        assert decisions.outbox(10) == []

    asyncio.run(story())


def test_the_pump_outlives_every_failure_and_says_what_waits() -> None:
    async def story() -> list[float]:
        done = asyncio.Event()
        seen: list[float] = []

        class Watching(MemoryMetrics):
            def gauge(self, name: MetricName, value: float, **labels: str) -> None:
                seen.append(value)
                if not value:
                    done.set()

        fails = [True]

        def sometimes(raw: bytes) -> Record:
            if fails:
                fails.pop()
                raise ValueError("a surprise")
            return to_record(raw)

        appended = Appended(failures=2)
        pump = OutboxPump(decided(2), appended, sometimes, Watching(), every_ms=1)
        task = asyncio.create_task(pump.run())
        async with asyncio.timeout(10):
            await done.wait()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert appended.message_ids == ["d0", "d1"]
        return seen

    assert asyncio.run(story()) == [2, 2, 2, 0]
