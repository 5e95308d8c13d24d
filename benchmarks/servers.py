"""Servers as processes of their own: Penstock as `penstock up` runs it, its collector alone, FastAPI, nginx."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks import sampling, workload
from benchmarks.measure import cpu_seconds

START = "from penstock.cli.main import main; main()"  # what the `penstock` script does
SAMPLED = f"from benchmarks import sampling; sampling.on_signals(); {START}"
"""The same, and it can be asked where its time goes; until it is, nothing is different."""
START_S = 30.0
SETTLE_S = 0.3
FLUSH_S = 1.2
"""Longer than the time after which the engine writes leaves."""
NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
TASKSET = shutil.which("taskset")

NGINX_CONF = """
daemon off; master_process off; pid {folder}/nginx.pid; error_log {folder}/error.log crit;
events {{ worker_connections 1024; }}
http {{
    access_log off; keepalive_requests 1000000000; keepalive_timeout 75s; default_type application/json;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/f;
    uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location /v1/profiles/ {{ return 200 '{profile}'; }}
        location /v1/decide/ {{ return 200 '{decision}'; }}
        location / {{ return 200 '{{"success":true}}'; }}
    }}
}}
"""


class Server:
    """A child process that listens; it is ended by its own id, and nothing else is.

    Args:
        command: What to start.
        folder: Its working folder; what it says goes to a file there.
        find_port: Returns the port once it is known; None until then.
        core: The core to pin it to; None for any.
        wait: Until it listens.
    """

    def __init__(
        self, command: list[str], folder: Path, find_port: Callable[[], int | None],
        core: int | None = None, *, wait: bool = True,
    ) -> None:  # fmt: skip
        self.settle_s = SETTLE_S
        self._said = (folder / "server.out").open("ab")
        self._samples = folder / "samples.json"
        self.process = subprocess.Popen(
            [*pinned(core), *command], cwd=Path(__file__).parent.parent, stdout=self._said,
            stderr=subprocess.STDOUT, env=environment(folder) | {sampling.FILE: str(self._samples)},
        )  # fmt: skip
        self.port = 0
        try:
            if wait:
                self.port = self._wait(find_port)
        except BaseException:
            self.stop()
            raise

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    def _wait(self, find_port: Callable[[], int | None]) -> int:
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                break
            port = find_port()
            if port is not None:
                try:
                    socket.create_connection(("127.0.0.1", port), 1).close()
                except OSError:
                    pass
                else:
                    return port
            time.sleep(0.02)
        raise RuntimeError(f"a server did not start; see {self._said.name}")

    def cpu_s(self) -> float:
        """Return the CPU time it has used."""
        return cpu_seconds(self.process.pid)

    def sampled(self, work: Callable[[], object]) -> dict[str, float]:
        """Return what the server spends on what while some work is done: part -> share of its CPU time."""
        self._samples.unlink(missing_ok=True)
        self.process.send_signal(signal.SIGUSR1)
        work()
        self.process.send_signal(signal.SIGUSR2)
        deadline = time.monotonic() + START_S
        while not self._samples.exists():
            assert time.monotonic() < deadline, "a sampled server writes its samples"
            time.sleep(0.02)
        return json.loads(self._samples.read_text(encoding="utf-8"))

    def quiet(self, settle_s: float = 0.0, limit_s: float = 10.0) -> None:
        """Wait until it has had nothing to do for as long as it settles: by then leaves are written."""
        deadline = time.monotonic() + limit_s
        while time.monotonic() < deadline:
            before = self.cpu_s()
            time.sleep(settle_s or self.settle_s)
            if self.cpu_s() - before <= 0.03:
                return

    def request(
        self, method: str, path: str, body: bytes = b"", authorization: str = ""
    ) -> tuple[int, bytes]:
        """Return status and body of one request."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        headers = {"Authorization": authorization} if authorization else {}
        if body:
            headers["Content-Type"] = "application/json"
        try:
            connection.request(method, path, body or None, headers)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def kill(self) -> None:
        """End it at once, as a power cut would: SIGKILL, to this process alone."""
        self.process.kill()
        self.process.wait()
        self._said.close()

    def stop(self) -> None:
        """End it: SIGTERM, and after ten seconds SIGKILL, to this process alone."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self._said.close()


def pinned(core: int | None) -> list[str]:
    """Return what to put before a command to pin it to a core; nothing for any core."""
    return [TASKSET, "-c", str(core)] if TASKSET and core is not None else []


def environment(folder: Path) -> dict[str, str]:
    """Return the environment of a server: as where it was started before, since Python keeps what it compiled."""
    return {
        **os.environ,
        "PYTHONDONTWRITEBYTECODE": "",
        "PYTHONPYCACHEPREFIX": str(folder / "bytecode"),
    }


def free_port() -> int:
    """Return a port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def new_project(folder: Path) -> Path:
    """Return a copy of the benchmarks' project, without data."""
    project = folder / "project"
    shutil.copytree(workload.PROJECT, project, ignore=shutil.ignore_patterns("data", "__pycache__"))
    return project


def said_file(project: Path) -> Path:
    """Return the file in which a running server says where it listens."""
    return project / "data" / "up.json"


def told_port(project: Path) -> int | None:
    """Return where a project's server listens; None as long as it does not say."""
    try:
        said = json.loads(said_file(project).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return int(said["url"].rpartition(":")[2])


def penstock(folder: Path, core: int | None) -> Server:
    """Start the benchmarks' project as users do: `penstock up`."""
    project = new_project(folder)
    command = [sys.executable, "-c", SAMPLED, "up", str(project), "--port", "0"]
    server = Server(command, folder, lambda: told_port(project), core)
    server.settle_s = FLUSH_S
    return server


def collector(folder: Path, core: int | None) -> Server:
    """Start the collector alone: nobody folds what it takes in."""
    return collector_of(new_project(folder), core)


def collector_of(project: Path, core: int | None) -> Server:
    """Start the collector alone of a project."""
    port = free_port()
    command = [sys.executable, "-m", "benchmarks.collecting", str(project), str(port)]
    return Server(command, project.parent, lambda: port, core)


def fastapi(folder: Path, core: int | None) -> Server:
    """Start the same endpoints as FastAPI's documentation would write them."""
    port = free_port()
    command = [
        sys.executable,
        "-m",
        "benchmarks.peers.fastapi_app",
        str(port),
        str(folder / "peer.db"),
    ]
    return Server(command, folder, lambda: port, core)


def nginx(folder: Path, core: int | None, profile: bytes, decision: bytes) -> Server | None:
    """Start nginx answering constants; None if it is not installed."""
    if NGINX is None:
        return None
    port = free_port()
    conf = folder / "nginx.conf"
    conf.write_text(
        NGINX_CONF.format(
            folder=folder, port=port, profile=_quoted(profile), decision=_quoted(decision)
        ),
        encoding="utf-8",
    )
    return Server([NGINX, "-p", str(folder), "-c", str(conf)], folder, lambda: port, core)


def _quoted(answer: bytes) -> str:
    """Return an answer as nginx's configuration can hold it; of its length a few bytes may lack."""
    return answer.decode().replace("'", "").replace("$", "").replace("\\", "")
