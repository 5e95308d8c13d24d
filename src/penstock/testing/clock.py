"""A clock that a test turns by hand."""


class HandClock:
    """Stands still until it is turned. Its wall clock can be set back, its monotonic one cannot.

    Args:
        now_ms: Where the wall clock starts, ms since 1970 UTC.
    """

    def __init__(self, now_ms: int = 0) -> None:
        self._now_ms = now_ms
        self._monotonic_ms = 0

    def now_ms(self) -> int:
        """Return the wall clock, ms since 1970 UTC."""
        return self._now_ms

    def monotonic_ms(self) -> int:
        """Return the ms that have passed since the clock was made."""
        return self._monotonic_ms

    def advance(self, ms: int = 0, *, seconds: int = 0, hours: int = 0, days: int = 0) -> None:
        """Let time pass, on both clocks.

        Raises:
            ValueError: The sum is negative: time does not run back; see `set_back`.
        """
        passed_ms = ms + 1_000 * (seconds + 3_600 * hours + 86_400 * days)
        if passed_ms < 0:
            raise ValueError("time does not run back; use set_back for the wall clock")
        self._now_ms += passed_ms
        self._monotonic_ms += passed_ms

    def set_back(self, ms: int) -> None:
        """Set the wall clock back, as an operator or NTP may; the monotonic clock stays."""
        self._now_ms -= ms
