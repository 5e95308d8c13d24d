"""Runs the `penstock` command as it is, or with one planted bug, on a clock that can be set.

    python faulted_process.py PLANT FOLDER COMMAND ...

PLANT is the name of a bug in `planted_bugs.py`, or `none`. Where the folder holds a file `clock-ms`, the
wall clock is off by as many ms as it says: an operator sets it while the process runs.
"""

import faulthandler
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from planted_bugs import plant

from penstock.adapters.clock import SystemClock
from penstock.cli.main import main

right_ms = SystemClock.now_ms


def set_wrong(clock_file: Path) -> None:
    """Let every clock of this process be off by what a file says."""

    def now_ms(clock: SystemClock) -> int:
        try:
            return right_ms(clock) + int(clock_file.read_text())
        except (OSError, ValueError):
            return right_ms(clock)

    SystemClock.now_ms = now_ms


if __name__ == "__main__":
    faulthandler.enable()  # a process that does not end is aborted, and says where it stood
    set_wrong(Path(sys.argv[2]) / "clock-ms")
    plant(sys.argv[1])
    sys.argv = ["penstock", *sys.argv[3:]]
    main()
