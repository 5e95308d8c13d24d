"""Runs a command again and again in forks, each killed at a later call that changes a folder.

    python killed_at.py COMMAND ARGUMENT…

For every number on standard input a fork runs the command and is killed (-9) right before its n-th
call that opens a file for writing, or makes, renames or removes one. A line on standard output says
how each ended: `killed`, or the exit code.
"""

import os
import signal
import sys

from penstock.cli import backup, restore  # noqa: F401 - imported once, before the forks
from penstock.cli.main import main

CALLS = {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "shutil.rmtree", "sqlite3.connect"}
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT


def run(kill_at: int) -> None:
    left = kill_at

    def audit(event: str, args: tuple) -> None:
        nonlocal left
        if event in CALLS or (event == "open" and isinstance(args[2], int) and args[2] & WRITES):
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(audit)
    os.dup2(2, 1)
    sys.exit(main(sys.argv[1:]))


for line in sys.stdin:
    child = os.fork()
    if child == 0:
        run(int(line))
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    print("killed" if status == -signal.SIGKILL else status, flush=True)
