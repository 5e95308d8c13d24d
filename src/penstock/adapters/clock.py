"""The system clock: the only place that reads the time of the machine."""

import time


class SystemClock:
    """The machine's wall clock and its monotonic clock, in milliseconds."""

    def now_ms(self) -> int:
        """Return the wall clock, ms since 1970 UTC."""
        return time.time_ns() // 1_000_000

    def monotonic_ms(self) -> int:
        """Return a clock that never goes back."""
        return time.monotonic_ns() // 1_000_000


def thread_us() -> int:
    """Return the CPU time that the calling thread has used, in µs."""
    return time.thread_time_ns() // 1_000
