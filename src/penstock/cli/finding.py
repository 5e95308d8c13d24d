"""What `penstock doctor` finds: one check each, good or bad, with its fix and its exit code."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

from penstock.core.errors import PenstockError, Unavailable

OK, SKIP, FAIL = "ok", "skip", "FAIL"

APART_MS_MAX = 5 * 60_000
"""How far clocks may be apart. Nothing is stamped any more once the log's last stamp is so far ahead."""


class Finding(NamedTuple):
    """One check: `ok`, `skip` or `FAIL`, what was found, and what to do."""

    state: str
    what: str
    fix: str = ""
    exit_code: int = 0
    details: dict[str, Any] = {}  # noqa: RUF012 - never changed
    """For machines, and for people with `--verbose`."""


def fault(name: str, error: PenstockError) -> Finding:
    """Return the finding of an error."""
    place = f" ({error.where})" if error.where else ""
    return Finding(FAIL, f"{name}: {error.code}: {error.what}{place}", error.fix, error.exit_code)


def check(name: str, work: Callable[[], str]) -> Finding:
    """Return the finding of a check that returns what it found, or raises."""
    try:
        return Finding(OK, f"{name}: {work()}")
    except PenstockError as error:
        return fault(name, error)


def since(started: float) -> int:
    """Return the milliseconds since an instant of `time.perf_counter`."""
    return round((time.perf_counter() - started) * 1000)


def require_together(apart_ms: int, whose: str, where: str) -> str:
    """Return what is said of another clock.

    Args:
        apart_ms: By how much it is ahead of this machine's at least; negative if it is behind.
        whose: Such as `the Redis server's clock`.
        where: The setting that names the server.

    Raises:
        Unavailable: They are too far apart (E454).
    """
    told = f"{whose} is {abs(apart_ms) / 1000:.1f} s {'ahead of' if apart_ms > 0 else 'behind'} this machine's"
    if abs(apart_ms) > APART_MS_MAX:
        raise Unavailable(
            "E454", told, where=where, fix="set the clock that is wrong, and let NTP keep both"
        )
    return told if abs(apart_ms) >= 1000 else f"{whose} agrees with this machine's"


def apart_ms(theirs_ms: int, before_ms: int, after_ms: int) -> int:
    """Return by how much another clock is ahead at least, if it was read between two instants of ours."""
    if theirs_ms > after_ms:
        return theirs_ms - after_ms
    return min(theirs_ms - before_ms, 0)
