"""Group commit for small stores: order kept, every waiter answered, whatever fails."""

import asyncio
import threading
from collections.abc import Sequence

import pytest

from penstock.core.errors import Conflict, Overloaded, PenstockError, Unavailable
from penstock.runtimes.grouping import WAITING_MAX, Grouper


def double(items: Sequence[int]) -> list[int]:
    return [item * 2 for item in items]


def test_results_come_back_in_order_to_whoever_asked() -> None:
    async def story() -> list[list[int]]:
        grouper: Grouper[int, int] = Grouper(double, name="g")
        found = await asyncio.gather(*(grouper.submit([n, n + 100]) for n in range(50)))
        assert await grouper.submit([]) == []
        await grouper.close()
        return found

    assert asyncio.run(story()) == [[2 * n, 2 * n + 200] for n in range(50)]


def test_what_arrives_during_a_call_goes_into_the_next_one() -> None:
    batches: list[int] = []
    release = threading.Event()

    async def story() -> None:
        loop, started = asyncio.get_running_loop(), asyncio.Event()

        def call(items: Sequence[int]) -> list[int]:
            batches.append(len(items))
            if len(batches) == 1:
                loop.call_soon_threadsafe(started.set)
                release.wait(10)
            return list(items)

        grouper: Grouper[int, int] = Grouper(call, name="g", batch_max=8)
        first = asyncio.create_task(grouper.submit([0]))
        await started.wait()
        rest = [asyncio.create_task(grouper.submit([n])) for n in range(1, 21)]
        await asyncio.sleep(0)
        release.set()
        await asyncio.gather(first, *rest)
        await grouper.close()

    asyncio.run(story())
    assert batches == [1, 8, 8, 4]


@pytest.mark.parametrize(
    ("raised", "kind", "code"),
    [
        (Unavailable("E404", "the store is away", fix="retry"), Unavailable, "E404"),
        (Conflict("E405", "first", fix="retry"), Conflict, "E405"),
        (ValueError("a surprise with ann@example.com"), Unavailable, "E413"),
    ],
)
def test_a_failure_reaches_every_waiter_and_the_next_call_works(
    raised: Exception, kind: type[PenstockError], code: str
) -> None:
    failing = [raised]

    def call(items: Sequence[int]) -> list[int]:
        if failing:
            raise failing.pop()
        return double(items)

    async def story() -> None:
        grouper: Grouper[int, int] = Grouper(call, name="g")
        found = await asyncio.gather(
            grouper.submit([1]), grouper.submit([2, 3]), return_exceptions=True
        )
        assert [type(one) for one in found] == [kind, kind]
        assert {one.code for one in found} == {code}
        assert "ann@example.com" not in str(found[0])
        assert await grouper.submit([4]) == [8]
        await grouper.close()

    asyncio.run(story())


@pytest.mark.parametrize("count", [0, 1, 3])
def test_a_call_that_answers_too_few_or_too_many_answers_nobody_wrongly(count: int) -> None:
    async def story() -> str:
        grouper: Grouper[int, int] = Grouper(lambda _: [7] * count, name="g")
        async with asyncio.timeout(5):
            with pytest.raises(Unavailable) as failed:
                await grouper.submit([1, 2])
        await grouper.close()
        return failed.value.code

    assert asyncio.run(story()) == "E413"


def test_a_caller_that_goes_away_takes_nobody_with_it() -> None:
    release = threading.Event()

    def call(items: Sequence[int]) -> list[int]:
        release.wait(10)
        return double(items)

    async def story() -> list[int]:
        grouper: Grouper[int, int] = Grouper(call, name="g")
        gone, stays = (asyncio.create_task(grouper.submit([n])) for n in (1, 2))
        await asyncio.sleep(0)
        gone.cancel()
        await asyncio.sleep(0)
        release.set()
        found = await stays
        assert gone.cancelled()
        await grouper.close()
        return found

    assert asyncio.run(story()) == [4]


def test_more_than_can_wait_is_refused_with_a_time_to_retry() -> None:
    release = threading.Event()

    def call(items: Sequence[int]) -> list[int]:
        release.wait(10)
        return double(items)

    async def story() -> tuple[str, int]:
        grouper: Grouper[int, int] = Grouper(call, name="g")
        first = asyncio.create_task(grouper.submit([1]))
        await asyncio.sleep(0)
        many = asyncio.create_task(grouper.submit([2] * (WAITING_MAX + 2)))
        await asyncio.sleep(0)
        with pytest.raises(Overloaded) as refused:
            await grouper.submit([3])
        release.set()
        await asyncio.gather(first, many)
        await grouper.close()
        return refused.value.code, refused.value.retry_after_s

    assert asyncio.run(story()) == ("E412", 1)


def test_closing_finishes_what_waits_and_refuses_the_rest() -> None:
    async def story() -> list[int]:
        grouper: Grouper[int, int] = Grouper(double, name="g")
        waiting = asyncio.create_task(grouper.submit([1, 2]))
        await asyncio.sleep(0)
        await grouper.close()
        with pytest.raises(Unavailable):
            await grouper.submit([3])
        return await waiting

    assert asyncio.run(story()) == [2, 4]
