"""Where a process spends its CPU time: stacks sampled by a timer that counts CPU time, not the clock.

A profiler that is told of every call makes small functions look dear. This one looks at the main
thread once in a few milliseconds of CPU time, and leaves it alone in between; what other threads
used is known from their own clocks. A sample counts for the innermost module of `penstock` on the
stack: what a C library does is the caller's.
"""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

EVERY_S = 0.002
DEPTH_MAX = 60
ROOT = f"{os.sep}penstock{os.sep}"
LOOP = "the event loop"
"""uvloop, the kernel's sockets, and uvicorn: no module of ours is below them but the one that starts them."""
SHOWN = 9
"""Parts that are named; the rest is summed up."""
FILE = "BENCH_SAMPLES"
"""The environment variable that names the file which a sampled server writes."""


class Sampler:
    """Samples the main thread of this process while it is on."""

    def __init__(self) -> None:
        self.spent: Counter[str] = Counter()
        """Part -> seconds of CPU time."""
        self._threads: dict[int, float] = {}
        self._main_s = 0.0

    def start(self) -> None:
        """Begin."""
        self.spent.clear()
        self._threads = _thread_seconds()
        self._main_s = time.thread_time()
        signal.signal(signal.SIGPROF, self._sample)
        signal.setitimer(signal.ITIMER_PROF, EVERY_S, EVERY_S)

    def stop(self) -> dict[str, float]:
        """End, and return what was spent on what, in seconds of CPU time."""
        signal.setitimer(signal.ITIMER_PROF, 0)
        for ident, seconds in _thread_seconds().items():
            name = _names().get(ident, "another")
            self.spent[f"thread {name}"] += seconds - self._threads.get(ident, 0.0)
        return dict(self.spent)

    def _sample(self, _number: int, frame: FrameType | None) -> None:
        # The timer counts all threads; only what the main thread used since is its own.
        now_s = time.thread_time()
        self.spent[_part_of(frame)] += now_s - self._main_s
        self._main_s = now_s


def _names() -> dict[int, str]:
    return {
        thread.ident: thread.name.rpartition("_")[0] or thread.name
        for thread in threading.enumerate() if thread.ident is not None
    }  # fmt: skip


def _thread_seconds() -> dict[int, float]:
    return {
        thread.ident: time.clock_gettime(time.pthread_getcpuclockid(thread.ident))
        for thread in threading.enumerate()
        if thread.ident is not None and thread is not threading.main_thread()
    }


def _part_of(frame: FrameType | None) -> str:
    depth = 0
    while frame is not None and depth < DEPTH_MAX:
        head, found, inside = frame.f_code.co_filename.rpartition(ROOT)
        if found and head.endswith("src"):
            part = inside.removesuffix(".py").removesuffix("/__init__")
            return LOOP if part.startswith("cli/") else part
        frame = frame.f_back
        depth += 1
    return LOOP


def sampled(work: Callable[[], Any]) -> dict[str, float]:
    """Return what some work in this process spends on what, as shares of one, the largest first."""
    sampler = Sampler()
    sampler.start()
    try:
        work()
    finally:
        spent = sampler.stop()
    return shares(spent)


def shares(spent: dict[str, float]) -> dict[str, float]:
    """Return seconds as shares of their sum, the largest first; small ones are summed up as `the rest`; none of nothing."""
    whole = sum(spent.values())
    if whole <= 0:
        return {}
    ranked = sorted(spent.items(), key=lambda pair: -pair[1])
    found = {name: seconds / whole for name, seconds in ranked[:SHOWN]}
    rest = 1.0 - sum(found.values())
    return {**found, "the rest": rest} if rest > 0.005 else found


def on_signals() -> None:
    """Let this process be sampled: SIGUSR1 begins, SIGUSR2 ends and writes the file that `FILE` names.

    Until then nothing is done, and nothing is slower.
    """
    sampler = Sampler()
    path = os.environ.get(FILE)
    if path is None:
        return

    def end(_number: int, _frame: FrameType | None) -> None:
        text = json.dumps(shares(sampler.stop()))
        unfinished = Path(f"{path}.part")
        unfinished.write_text(text, encoding="utf-8")
        unfinished.rename(path)

    signal.signal(signal.SIGUSR1, lambda _number, _frame: sampler.start())
    signal.signal(signal.SIGUSR2, end)
