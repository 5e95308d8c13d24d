"""What every service is, and one process of it: started, waited for, killed, and started again."""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

ROOT = Path(__file__).parent.parent.parent
CACHE = ROOT / ".cache" / "services"
RUN = CACHE / "run"

LOOPBACK = "127.0.0.1"
PORTS = range(20_000, 32_000)
"""Below the ports that outgoing connections get: a server that was killed finds its port free again."""

READY_S_MAX = 60.0
STOP_S_MAX = 20.0
POLL_S = 0.05
LOG_LINES_TOLD = 20

_LEASH = ["setpriv", "--pdeathsig", "KILL", "--"] if shutil.which("setpriv") else []
"""What ends a server with the thread that started it, where there is such a program: nothing is left
behind by tests that were killed themselves."""


class Missing(Exception):
    """The machine lacks what a service needs, or its packages could not be had."""


class NotStarted(Exception):
    """A server ended, or did not answer in time; the last lines of what it said are in the message."""


class Server:
    """One process of a service, in a folder of its own.

    Args:
        name: Of the process, such as `kafka-1`; its output goes to a file of that name in the folder.
        command: How it is started, every time.
        folder: Its working directory; exists.
        ready: Returns whether it answers. Asked until it does; may raise `OSError` while it does not.
        env: What its environment has besides ours.
    """

    def __init__(
        self, name: str, command: Sequence[str], folder: Path, ready: Callable[[], bool],
        env: Mapping[str, str] | None = None,
    ) -> None:  # fmt: skip
        self.name = name
        self.folder = folder
        self._command = [*_LEASH, *command]
        self._ready = ready
        self._env = {**os.environ, **(env or {})}  # noqa: TID251 - a program wants its surroundings
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The id of the process; 0 if there is none."""
        return self._process.pid if self._process is not None and self.alive() else 0

    @property
    def log(self) -> Path:
        """What it said, of all its starts."""
        return self.folder / f"{self.name}.log"

    def alive(self) -> bool:
        """Return whether the process is there."""
        return self._process is not None and self._process.poll() is None

    def launch(self) -> None:
        """Start the process, and do not wait for it."""
        assert not self.alive(), "it is started once at a time"
        with self.log.open("ab") as log:
            # A session of its own: Ctrl-C stops the tests, and they stop the servers.
            self._process = subprocess.Popen(
                self._command, cwd=self.folder, env=self._env, stdin=subprocess.DEVNULL, stdout=log,
                stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        (self.folder / f"{self.name}.pid").write_text(f"{self._process.pid}\n")

    def wait(self, seconds: float = READY_S_MAX) -> None:
        """Wait until it answers.

        Raises:
            NotStarted: It ended, or did not answer in that time; it is killed then.
        """
        until = time.monotonic() + seconds
        while True:
            if not self.alive():
                raise NotStarted(f"{self.name} ended before it answered:\n{self.tail()}")
            with contextlib.suppress(OSError):
                if self._ready():
                    return
            if time.monotonic() > until:
                self.kill()
                raise NotStarted(f"{self.name} did not answer within {seconds:g} s:\n{self.tail()}")
            time.sleep(POLL_S)

    def start(self, seconds: float = READY_S_MAX) -> None:
        """Start the process and wait until it answers."""
        self.launch()
        self.wait(seconds)

    def ask_to_end(self) -> None:
        """SIGTERM, also to one that was paused; do not wait."""
        if self._process is not None and self.alive():
            self.resume()
            self._process.terminate()

    def stop(self) -> None:
        """Ask the process to end, and wait; kill it if it does not. Twice does nothing."""
        if self._process is None:
            return
        self.ask_to_end()
        try:
            self._process.wait(STOP_S_MAX)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """Kill -9, and wait until the process is gone."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def pause(self) -> None:
        """SIGSTOP: the process is there and does nothing."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT: it goes on, as if no time had passed."""
        os.kill(self.pid, signal.SIGCONT)

    def tail(self) -> str:
        """Return the last lines of what it said."""
        lines = self.log.read_text(errors="replace").splitlines()
        return "\n".join(lines[-LOG_LINES_TOLD:])


@dataclass
class Running:
    """A service that answers."""

    address: str
    """Where clients reach it: `host:port`, or several with commas between."""
    servers: list[Server]
    folder: Path
    """What it holds."""

    @property
    def pid(self) -> int:
        """The id of its first process."""
        return self.servers[0].pid

    def stop(self) -> None:
        """Stop every process; what it holds stays. Twice does nothing."""
        for server in self.servers:
            server.stop()

    def remove(self) -> None:
        """Stop every process, and remove what it holds."""
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)


class Service(Protocol):
    """How one real server is had. A module of this package holds one, named after the product."""

    name: str

    def missing(self) -> str:
        """Return what this machine lacks to install and run it, and the fix; empty if nothing."""
        ...

    def install(self) -> None:
        """Have its program in `.cache/services`; does nothing if it is there.

        Raises:
            Missing: It could not be had.
        """
        ...

    def add_options(self, parser: argparse.ArgumentParser) -> None:
        """Add what `start` takes to its command line; the names are those of its arguments."""
        ...

    def start(self, folder: Path, **options: Any) -> Running:
        """Start it in an empty folder and wait until it answers.

        Raises:
            Missing: It could not be installed.
            NotStarted: It ended, or did not answer in time.
        """
        ...


def new_folder(name: str) -> Path:
    """Return a new folder for what a service holds."""
    RUN.mkdir(parents=True, exist_ok=True)
    return Path(tempfile.mkdtemp(prefix=f"{name}-", dir=RUN))


def free_ports(count: int) -> list[int]:
    """Return ports of the loopback that nobody listens on, all different."""
    with contextlib.ExitStack() as held:
        found: list[int] = []
        while len(found) < count:
            port = random.choice(PORTS)  # noqa: S311 - no secret
            probe = held.enter_context(socket.socket())
            with contextlib.suppress(OSError):
                probe.bind((LOOPBACK, port))
                found.append(port)
    return found


def missing_programs(**fixes: str) -> str:
    """Return which programs are not installed, and how to get them; empty if all are there.

    Args:
        fixes: By program, what is told that installs it.
    """
    lacks = [name for name in fixes if shutil.which(name) is None]
    if not lacks:
        return ""
    return f"no {', '.join(lacks)} on this machine; fix: {fixes[lacks[0]]}"


@contextlib.contextmanager
def only_one(name: str) -> Iterator[None]:
    """Let one process at a time install a service."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
