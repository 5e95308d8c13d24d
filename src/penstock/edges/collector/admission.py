"""Who may come in: requests in flight, a token bucket per write key, and what is never refused."""

from __future__ import annotations

import re

from penstock.core.consent.suppression import PERMISSION_EVENTS
from penstock.core.errors import Overloaded
from penstock.ports.clock import Clock

RESERVE_FACTOR = 8
"""Consent, unsubscribe and complaint are taken in up to this many times the requests in flight."""

_NEVER_SHED = re.compile(
    rb'"event"\s*:\s*"(?:'
    + b"|".join(re.escape(name.encode()) for name in sorted(PERMISSION_EVENTS))
    + rb')"'
)


def never_shed(body: bytes) -> bool:
    """Return whether a body holds an event that is kept whatever the load.

    A scan of bytes, a hundred times cheaper than parsing. An event named so in a nested object, or
    spelt with escapes, may be told wrongly: the first is let in for nothing, the second is asked to
    come again, as any other event is.
    """
    return _NEVER_SHED.search(body) is not None


class Admission:
    """Counts requests in flight and tokens of each key. Lives on one event loop.

    Consent, unsubscribe and complaint have places of their own, eight times as many: memory has an
    end even for them.

    Args:
        clock: Its monotonic side refills the buckets.
        requests_max: Requests in flight, beyond which new ones are refused.
        per_key_per_s: Requests a second of each write key; 0 is no limit. A key may save up one
            second's worth.
    """

    def __init__(self, clock: Clock, *, requests_max: int, per_key_per_s: int = 0) -> None:
        self._clock = clock
        self.requests_max = requests_max
        self.per_key_per_s = per_key_per_s
        self.in_flight = 0
        self._buckets: dict[str, tuple[int, int]] = {}
        self._refused = 0

    def full(self) -> bool:
        """Return whether every ordinary place is taken."""
        return self.in_flight >= self.requests_max

    def full_for_all(self) -> bool:
        """Return whether even the places of what is never shed are taken."""
        return self.in_flight >= self.requests_max * RESERVE_FACTOR

    def overloaded(self) -> Overloaded:
        """Return the refusal of a request over the limit; the hint varies so that clients spread."""
        self._refused += 1
        return Overloaded("E430", "more requests are in flight than this collector takes",
                          fix="retry after the time in Retry-After",
                          retry_after_s=1 + self._refused % 3)  # fmt: skip

    def spend(self, key: str) -> int:
        """Take a token of a key's bucket; return 0, or in how many whole seconds there is one.

        Whole numbers only: a bucket holds thousandths of a request, and refills by its rate in each
        millisecond.
        """
        rate = self.per_key_per_s
        if rate <= 0:
            return 0
        now = self._clock.monotonic_ms()
        held, since = self._buckets.get(key, (rate * 1000, now))
        held = min(rate * 1000, held + (now - since) * rate)
        if held >= 1000:
            self._buckets[key] = (held - 1000, now)
            return 0
        self._buckets[key] = (held, now)
        return -(-(1000 - held) // (rate * 1000)) or 1


def over_quota(seconds: int) -> Overloaded:
    """Return the refusal of a request over its key's rate."""
    return Overloaded("E431", "this write key sends more requests a second than it may",
                      fix="send batches, or raise `server.requests_per_s_per_key`",
                      retry_after_s=seconds)  # fmt: skip
