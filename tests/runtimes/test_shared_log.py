"""The embedded engine on a log that others append to: it folds all of it, once, whoever appended."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from penstock.adapters.log.memory import MemoryLog
from penstock.core.errors import SettingsError, Unavailable
from penstock.core.generations import seal_record
from penstock.core.record import encode_record
from penstock.ports.log import Appended
from tests.runtimes.test_embedded import World, features, view


class SharedLog(MemoryLog):
    """A log in memory that others append to, that may keep what it does not acknowledge, or not answer."""

    shared = True

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self.theirs: list[bytes] = []
        """What others append just before each record of the next batch."""
        self.unacknowledged = False
        self.silent = 0

    def append(self, partition, values, letters=()):
        theirs, self.theirs = self.theirs, []
        placed = []
        for index, value in enumerate(values):
            if index < len(theirs):
                super().append(partition, [theirs[index]])
            placed.append(super().append(partition, [value]))
        if self.unacknowledged:
            self.unacknowledged = False
            raise Unavailable("E401", "the log did not answer", fix="retry")
        if not placed:
            return super().append(partition, values, letters)
        super().append(partition, [], letters)
        return Appended(*placed[0][:2], tuple(one[:2] for one in placed))

    def read(self, partition, offset, limit):
        if self.silent and offset < self.head(partition):
            self.silent -= 1
            raise Unavailable("E401", "the log did not answer", fix="retry")
        return super().read(partition, offset, limit)


class SharedWorld(World):
    """The same, on such a log."""

    def __init__(self) -> None:
        super().__init__()
        self.log: SharedLog = SharedLog(self.clock, partitions=1)


async def views(engine: Any) -> dict[str, int]:
    return {user: (await features(engine, "user_id", user))["views"] for user in ("u1", "u2")}


def test_records_of_others_between_ours_are_folded_in_the_logs_order() -> None:
    async def story() -> dict[str, int]:
        world = SharedWorld()
        engine = await world.start()
        await engine.appender.append([view(1)])
        world.log.theirs = [encode_record(view(n, "u2")) for n in (10, 11)]
        await engine.appender.append([view(2), view(3)])
        await engine.settled()
        found = await views(engine)
        await engine.close()
        assert world.same_as_replay()
        return found

    assert {"u1": 3, "u2": 2} == asyncio.run(story())


def test_what_others_append_alone_is_folded_too() -> None:
    async def story() -> dict[str, int]:
        world = SharedWorld()
        engine = await world.start()
        await engine.appender.append([view(1)])
        world.log.append(0, [encode_record(view(n, "u2")) for n in (10, 11, 12)])
        await engine.settled()
        found = await views(engine)
        await engine.close()
        assert world.same_as_replay()
        return found

    assert {"u1": 1, "u2": 3} == asyncio.run(story())


def test_what_was_kept_without_being_acknowledged_counts_once_when_it_is_sent_again() -> None:
    async def story() -> dict[str, int]:
        world = SharedWorld()
        engine = await world.start()
        await engine.appender.append([view(10, "u2")])
        world.log.unacknowledged = True
        with pytest.raises(Unavailable):
            await engine.appender.append([view(1), view(2)])
        await engine.appender.append([view(1), view(2)])
        await engine.settled()
        found = await views(engine)
        await engine.close()
        assert world.same_as_replay()
        return found

    assert {"u1": 2, "u2": 1} == asyncio.run(story())


def test_a_log_that_does_not_answer_is_asked_again_and_the_engine_goes_on() -> None:
    async def story() -> tuple[dict[str, int], bool]:
        world = SharedWorld()
        engine = await world.start()
        await engine.appender.append([view(10, "u2")])
        world.log.silent = 3
        world.log.theirs = [encode_record(view(11, "u2"))]
        await engine.appender.append([view(1)])
        await engine.settled()
        found = await views(engine)
        ready, _ = engine.ready()
        await engine.close()
        assert world.same_as_replay()
        return found, ready

    assert ({"u1": 1, "u2": 2}, True) == asyncio.run(story())


def test_what_is_behind_a_seal_stops_the_fold_and_does_not_count_as_applied() -> None:
    async def story() -> tuple[bool, str]:
        world = SharedWorld()
        engine = await world.start()
        await engine.appender.append([view(1)])
        await engine.settled()
        world.log.append(0, [seal_record(), encode_record(view(2))])
        while engine.ready()[0]:  # noqa: ASYNC110 - it tells nobody
            await asyncio.sleep(0)
        ready = engine.ready()
        await engine.close()
        assert world.store.applied(1, 0).offset <= 1, "workers go on from the seal"
        return ready

    assert (False, "the fold stopped: SettingsError") == asyncio.run(story())


def test_an_engine_does_not_start_behind_a_seal() -> None:
    async def story() -> None:
        world = SharedWorld()
        world.log.append(0, [encode_record(view(1)), seal_record(), encode_record(view(2))])
        with pytest.raises(SettingsError) as raised:
            await world.start()
        assert "E207" == raised.value.code
        assert world.store.applied(1, 0).offset <= 1

    asyncio.run(story())
