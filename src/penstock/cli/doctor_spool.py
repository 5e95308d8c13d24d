"""What `penstock doctor` finds of the spool: what waits on this machine until the brokers take it."""

from __future__ import annotations

from collections.abc import Iterator

from penstock.cli.finding import FAIL, OK, Finding, fault
from penstock.core.errors import DataCorrupt, PenstockError, Unavailable
from penstock.core.time import format_instant
from penstock.logs import open_spool
from penstock.project import Project


def spool(project: Project) -> Iterator[Finding]:
    """Yield what waits and what does not read back; nothing of a project without a spool."""
    try:
        opened = open_spool(project, read_only=True)
    except PenstockError as error:
        yield fault("spool", error)
        return
    if opened is None:
        return
    counts = opened.counts()
    opened.close()
    if counts.damaged:
        yield Finding(FAIL, f"spool: {counts.damaged} of its batches do not read back", "keep `spool.db`: what is left of them is in it",
                      DataCorrupt.exit_code)  # fmt: skip
    waiting = counts.batches - counts.damaged
    if waiting:
        yield Finding(FAIL, f"spool: {waiting} batches wait for the brokers, with {counts.records} records, since "
                      f"{format_instant(counts.oldest_ms)}", "bring back the brokers, and let `penstock up` run, which appends them",
                      Unavailable.exit_code)  # fmt: skip
    elif not counts.damaged:
        yield Finding(OK, "spool: nothing waits for the brokers")
