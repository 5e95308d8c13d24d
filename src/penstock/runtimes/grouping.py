"""Many async callers, one synchronous batch call at a time on a thread: group commit for small stores."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

from penstock.core.errors import Overloaded, PenstockError, Unavailable

Item = TypeVar("Item")
Result = TypeVar("Result")

WAITING_MAX = 10_000


class Grouper(Generic[Item, Result]):
    """Gathers items while a call runs and hands them to the next one.

    Args:
        call: Takes a batch and returns a result an item, in order. Runs on one thread.
        name: The thread's name.
        batch_max: Items a call.
        waiting_max: Items that may wait; beyond it none are taken.
    """

    def __init__(
        self,
        call: Callable[[Sequence[Item]], Sequence[Result]],
        *,
        name: str,
        batch_max: int = 1_000,
        waiting_max: int = WAITING_MAX,
    ) -> None:
        self._call = call
        self._batch_max = batch_max
        self._waiting_max = waiting_max
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._waiting: list[tuple[Item, asyncio.Future[Result]]] = []
        self._task: asyncio.Task[None] | None = None

    async def submit(self, items: Sequence[Item]) -> list[Result]:
        """Return the results of items, in order.

        Raises:
            Overloaded: Too many items wait (E412).
            PenstockError: What the call raised.
        """
        if len(self._waiting) > self._waiting_max:
            raise Overloaded(
                "E412", "more decisions wait than can be kept", fix="retry a moment later"
            )
        loop = asyncio.get_running_loop()
        waiters = [loop.create_future() for _ in items]
        self._waiting.extend(zip(items, waiters, strict=True))
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run())
        if len(waiters) == 1:
            return [await waiters[0]]
        return list(await asyncio.gather(*waiters))

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting:
            batch, self._waiting = (
                self._waiting[: self._batch_max],
                self._waiting[self._batch_max :],
            )
            try:
                results = await loop.run_in_executor(
                    self._thread, self._call, [i for i, _ in batch]
                )
                assert len(results) == len(batch), "a call returns a result an item"
            except Exception as error:  # noqa: BLE001 - every waiter must be answered
                failure = error if isinstance(error, PenstockError) else Unavailable(
                    "E413", f"a store failed: {type(error).__name__}", fix="retry; see `penstock doctor`"
                )  # fmt: skip
                for _, waiter in batch:
                    if not waiter.done():
                        waiter.set_exception(failure)
                continue
            for (_, waiter), result in zip(batch, results, strict=True):
                if not waiter.done():
                    waiter.set_result(result)

    async def close(self) -> None:
        """Finish what waits and end the thread."""
        if self._task is not None:
            await asyncio.gather(self._task, return_exceptions=True)
        self._thread.shutdown(wait=True)
