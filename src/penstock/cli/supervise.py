"""Several processes of one command: started, started again when they fail, and ended together."""

from __future__ import annotations

import os
import signal
import sys
import time
import traceback
from collections.abc import Callable

from penstock.cli.main import err, out
from penstock.core.errors import PenstockError

AGAIN_S = 0.5
AGAIN_S_MAX = 10.0
"""How long it takes until a process that failed is started again: doubled each time."""

LASTED_S = 60.0
"""A process that has lasted so long counts as having started well."""

LOOK_S = 1.0

_SIGNALS = {signal.SIGTERM, signal.SIGINT, signal.SIGCHLD}


class _Place:
    """One of the processes: which it is, and when it is to be started."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.due_s = 0.0
        self.started_s = 0.0
        self.again_s = AGAIN_S


def supervise(count: int, run: Callable[[int, int], None]) -> None:
    """Keep processes until SIGTERM or SIGINT, which all of them get, or until all have ended well.

    A process that ends by a fault is started again; one that ends well is not. They are forked: what
    is loaded by now is shared among them, so nothing may run yet, no thread and no connection.

    Args:
        count: How many.
        run: Does the work of one, given its number from 0 and the id of this process.
    """
    parent = os.getpid()
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    waiting = [_Place(number) for number in range(count)]
    running: dict[int, _Place] = {}
    stopping = False
    while running or (waiting and not stopping):
        now_s = time.monotonic()
        for place in [one for one in waiting if one.due_s <= now_s and not stopping]:
            waiting.remove(place)
            place.started_s = now_s
            running[_start(place.number, parent, run)] = place
        due_s = min((one.due_s for one in waiting), default=now_s + LOOK_S)
        heard = signal.sigtimedwait(_SIGNALS, min(max(due_s - time.monotonic(), 0.0), LOOK_S))
        if heard is not None and heard.si_signo != signal.SIGCHLD:
            stopping = True
            for pid in running:
                os.kill(pid, signal.SIGTERM)
        for pid, code in _ended():
            place = running.pop(pid)
            if code and not stopping:
                waiting.append(_again(place, code))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)


def _start(number: int, parent: int, run: Callable[[int, int], None]) -> int:
    out.file.flush()
    err.file.flush()
    pid = os.fork()
    if pid:
        return pid
    code = 0
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        run(number, parent)
    except PenstockError as error:
        err.print(str(error))
        code = error.exit_code
    except BaseException:  # noqa: BLE001 - it is said, and the process is started again
        traceback.print_exc()
        code = 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        # Nothing of the one that was forked is to be cleaned up here.
        os._exit(code)


def _ended() -> list[tuple[int, int]]:
    """Return the processes that have ended, with their exit codes; minus the signal if one ended them."""
    found: list[tuple[int, int]] = []
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return found
        if not pid:
            return found
        found.append((pid, os.waitstatus_to_exitcode(status)))


def _again(place: _Place, code: int) -> _Place:
    now_s = time.monotonic()
    if now_s - place.started_s > LASTED_S:
        place.again_s = AGAIN_S
    err.print(
        f"process {place.number} ended with {code}; it is started again in {place.again_s:g} s"
    )
    place.due_s = now_s + place.again_s
    place.again_s = min(place.again_s * 2, AGAIN_S_MAX)
    return place
