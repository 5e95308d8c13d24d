"""Lets a node do its upkeep again and again in forks, each killed at a later call that changes a file.

    python upkeep_killed_at.py SHOP SEGMENT_RECORDS DAYS

For every number on standard input a fork runs a node, DAYS from now, until it has nothing to keep up, and is
killed (-9) right before its n-th call that opens a file for writing, or makes, links or removes one; if
it is a segment that is opened, in the middle of its bytes. A line on standard output says how each
ended: `killed`, or the exit code.
"""

import asyncio
import os
import resource
import signal
import sys
from pathlib import Path

from penstock.adapters.clock import SystemClock
from penstock.compose import make_node, open_stores
from penstock.core import segment
from penstock.core.time import DAY_MS
from penstock.project import load_project
from penstock.testing.clock import HandClock

CALLS = {"os.mkdir", "os.rename", "os.link", "os.remove", "sqlite3.connect"}
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
SOME_BYTES = 100

shop, records, days = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])


async def keep_up() -> None:
    project = load_project(shop)
    stores = open_stores(project)
    try:
        node = make_node(project, stores, clock=HandClock(SystemClock().now_ms() + days * DAY_MS))
        await node.start()
        while await node.upkeep.once():
            pass
        assert node.metrics.value("penstock_upkeep_failures_total", code="E730") == 0
        await node.close()
    finally:
        stores.close()


def run(kill_at: int) -> None:
    left = kill_at

    def audit(event: str, args: tuple) -> None:
        nonlocal left
        opens = event == "open" and isinstance(args[2], int) and args[2] & WRITES
        if opens or event in CALLS:
            left -= 1
            if left == 0 and opens and ".seg" in str(args[0]):
                # The file grows to so many bytes, and then the process ends in the call that writes on.
                resource.setrlimit(resource.RLIMIT_FSIZE, (SOME_BYTES, SOME_BYTES))
            elif left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    segment.SEGMENT_RECORDS = records
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    sys.addaudithook(audit)
    os.dup2(2, 1)
    asyncio.run(keep_up())
    sys.exit(0)


for line in sys.stdin:
    child = os.fork()
    if child == 0:
        run(int(line))
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    died = status in (-signal.SIGKILL, -signal.SIGXFSZ)
    print(f"killed {-status}" if died else status, flush=True)
