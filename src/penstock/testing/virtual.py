"""An event loop whose time is a number: it waits for nothing, and its threads are dice."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")

START_MS = 1_795_000_000_000


class Stuck(AssertionError):
    """Everybody waits for somebody, and nothing will ever happen."""


class Died(BaseException):
    """The process was killed: raised out of the call of a store that was under way."""


class Threads:
    """What a loop's executor calls go through: each takes a while, and may be the process's last.

    Args:
        dice: Decides.
        slow_ms_max: The longest that a call waits before, and its result after, it has run.
        death: Chance that the process dies at a call: before it, or after it and before its result.
    """

    def __init__(self, dice: random.Random, *, slow_ms_max: int, death: float = 0.0) -> None:
        self.dice = dice
        self.slow_ms_max = slow_ms_max
        self.death = death

    def delay_s(self) -> float:
        """Return how long something takes: mostly nothing, seldom long."""
        draw = self.dice.random()
        return 0.0 if draw < 0.5 else draw**8 * self.slow_ms_max / 1000


class VirtualLoop(asyncio.BaseEventLoop):
    """Runs coroutines in an order that follows from one seed, in no time.

    `time` jumps to the next timer when nothing is ready. What is given to an executor runs on the
    loop itself, later: one after another for an executor of one thread, else in any order.

    Args:
        threads: Decides how long they take, and when the process dies.
        start_s: Where time begins.
    """

    def __init__(self, threads: Threads, start_s: float = 0.0) -> None:
        super().__init__()
        self.threads = threads
        self.died: str = ""
        self._now_s = start_s
        self._selector = _NoSockets(self)
        self._busy_until: dict[int, float] = {}

    def time(self) -> float:
        """Return the virtual time, seconds."""
        return self._now_s

    def pass_time(self, seconds: float) -> None:
        """Let time pass."""
        self._now_s += seconds

    def run_in_executor(
        self, executor: Any, func: Callable[..., T], *args: Any
    ) -> asyncio.Future[T]:
        """Run a call later, on the loop itself; see `Threads`."""
        result: asyncio.Future[T] = self.create_future()
        at_s = self._now_s + self.threads.delay_s()
        if executor is not None:  # ours have one thread each
            at_s = max(at_s, self._busy_until.get(id(executor), 0.0))
            self._busy_until[id(executor)] = at_s
        self.call_at(at_s, self._call, result, func, args)
        return result

    def _call(self, result: asyncio.Future[Any], func: Callable[..., Any], args: Any) -> None:
        dice, death = self.threads.dice, self.threads.death
        if self.died:
            return
        name = _name(func, args)
        if death and dice.random() < death:
            self._die(f"before {name}")
            return
        try:
            value = func(*args)
        except Exception as error:  # noqa: BLE001 - it is the caller's to see
            self.call_later(self.threads.delay_s(), _settle, result, None, error)
            return
        if death and dice.random() < death:
            self._die(f"after {name}")
            return
        self.call_later(self.threads.delay_s(), _settle, result, value, None)

    def _die(self, when: str) -> None:
        self.died = when
        self.stop()

    # -- what a loop without sockets still owes its base class

    def _process_events(self, event_list: list[Any]) -> None:
        assert not event_list, "there are no sockets"

    def _write_to_self(self) -> None:
        """Nobody is on another thread."""


class _NoSockets:
    """A selector that lets time pass instead of waiting."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop

    def select(self, timeout: float | None) -> list[Any]:
        if timeout is None:
            raise Stuck("everybody waits for somebody: nothing is ready and no timer runs")
        if timeout > 0:
            # A little more than asked for: a timer must not be missed by a rounding.
            self._loop.pass_time(timeout + 1e-9)
        return []

    def close(self) -> None:
        """Nothing is open."""


def _settle(result: asyncio.Future[Any], value: Any, error: BaseException | None) -> None:
    if result.done():
        return
    if error is not None:
        result.set_exception(error)
    else:
        result.set_result(value)


class LoopClock:
    """The wall clock and the monotonic clock of a virtual loop; the wall clock may be set back.

    Args:
        loop: Whose time it is.
    """

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop
        self.behind_ms = 0

    def now_ms(self) -> int:
        """Return the wall clock, ms since 1970 UTC."""
        return START_MS + self.monotonic_ms() - self.behind_ms

    def monotonic_ms(self) -> int:
        """Return the ms since the loop's zero."""
        return int(self._loop.time() * 1000)


def _name(func: Any, args: Any) -> str:
    # `asyncio.to_thread` hands over the context's `run` with the call as its argument.
    inner = getattr(func, "func", func)
    if getattr(inner, "__name__", "") == "run" and getattr(func, "args", args):
        inner = getattr(func, "args", args)[0]
    return str(getattr(inner, "__qualname__", "a call"))
