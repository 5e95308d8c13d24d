"""Now, as a port: the wall clock in milliseconds UTC and the monotonic clock."""

from typing import Protocol


class Clock(Protocol):
    """Tells the time. Everything that needs "now" takes one of these as an argument."""

    def now_ms(self) -> int:
        """Return the wall clock, ms since 1970 UTC. It may be set back by an operator."""
        ...

    def monotonic_ms(self) -> int:
        """Return a clock that never goes back; its zero means nothing."""
        ...
