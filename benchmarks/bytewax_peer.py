"""Bytewax, in an environment of its own that is made when it is first asked for."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import msgspec

from benchmarks.measure import Sample
from penstock.core.record import LogRecord

HERE = Path(__file__).parent
ROOT = HERE.parent
ENVIRONMENT = ROOT / ".cache" / "peers" / "bytewax"
LOCK = HERE / "peers" / "bytewax.lock"
INSTALLED = ENVIRONMENT / "installed.lock"


class PeerMissing(Exception):
    """It cannot be run here; the text says why."""


class BytewaxPeer:
    """Runs the dataflow of `peers/bytewax_flow.py` over a stream.

    Args:
        work: A folder for the records.
        first: What makes the leaves; not timed.
        stream: What is timed.

    Raises:
        PeerMissing: It cannot be installed.
    """

    def __init__(self, work: Path, first: Sequence[LogRecord], stream: Sequence[LogRecord]) -> None:
        _install()
        self._warm = len(first)
        self._records = work / "records.msgpack"
        values = [record.value for record in (*first, *stream)]
        self._records.write_bytes(msgspec.msgpack.encode(values))

    def run(self) -> Sample:
        """Return a sample: the CPU time of its own process, from the first timed event on."""
        return _run(str(self._records), str(self._warm))


class BytewaxOnKafka:
    """Runs the same dataflow over a topic, through Bytewax's own input for Kafka.

    Args:
        brokers: Where the topic is, `host:port` each, with commas between.
        topic: Its name; it has one partition, so that what is timed comes last.
        warm: How many of its records make the leaves; not timed.

    Raises:
        PeerMissing: It cannot be installed.
    """

    def __init__(self, brokers: str, topic: str, warm: int) -> None:
        _install()
        self._arguments = (brokers, str(warm), topic)

    def run(self) -> Sample:
        """Return a sample: the CPU time of its own process, from the first timed event on."""
        return _run(*self._arguments)


def _run(*arguments: str) -> Sample:
    done = subprocess.run(
        [ENVIRONMENT / "bin" / "python", HERE / "peers" / "bytewax_flow.py", *arguments],
        capture_output=True, text=True, check=True, timeout=300,
    )  # fmt: skip
    found = json.loads(done.stdout)
    return Sample(found["count"], found["cpu_s"], found["wall_s"])


def _install() -> None:
    if INSTALLED.exists() and INSTALLED.read_bytes() == LOCK.read_bytes():
        return
    uv = ROOT / ".boot" / "bin" / "uv"
    if not uv.exists():
        raise PeerMissing("it needs an environment of its own, which `make env` could not prepare")
    python = ENVIRONMENT / "bin" / "python"
    for command in (
        [uv, "venv", "--quiet", "--clear", "--python", "3.11", ENVIRONMENT],
        [uv, "pip", "install", "--quiet", "--require-hashes", "--python", python, "-r", LOCK],
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
        if done.returncode:
            raise PeerMissing("it could not be installed for Python 3.11")
    shutil.copyfile(LOCK, INSTALLED)
