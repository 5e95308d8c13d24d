"""Redis, of Debian's package: one server or a primary with replicas, open or with TLS and ACL users."""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import redis

from tools.services.service import (
    LOOPBACK,
    POLL_S,
    Missing,
    Running,
    Server,
    free_ports,
    missing_programs,
    only_one,
)

ADMIN, ADMIN_PASSWORD = "admin", "the-admins-password"
SLOTS = 16_384
NOBODY = 9
"""A port of the loopback where nobody listens."""


@dataclass
class Servers(Running):
    """Servers that answer. `servers` are their processes: the primary first, then its replicas."""

    urls: list[str] = field(default_factory=list)
    """How a client reaches each, in the order of `servers`."""
    ca: Path | None = None
    """The certificate to trust, of secured ones."""

    @property
    def url(self) -> str:
        """How a client reaches the primary that it was started with."""
        return self.urls[0]

    def client(self, number: int = 0, **options: Any) -> redis.Redis:
        """Return a client of one of the servers, its administrator."""
        return _client(self.urls[number], self.ca, **options)

    def promote(self, number: int) -> None:
        """Let a replica take over: it is a primary from now on, of a history of its own."""
        with self.client(number) as replica:
            replica.execute_command("REPLICAOF", "NO", "ONE")

    def take_over(self, number: int) -> None:
        """Let a replica take over at the address of the primary, which is gone: its data move there.

        What a name or an address that follows the primary does for clients, they see here as well: the
        same address, another process, and another history.
        """
        replica, primary = self.servers[number], self.servers[0]
        self.promote(number)
        with self.client(number) as client:
            client.save()
        replica.stop()
        for folder in (primary.folder, replica.folder):
            shutil.rmtree(folder / "appendonlydir", ignore_errors=True)
        shutil.copy(replica.folder / "dump.rdb", primary.folder / "dump.rdb")
        # From a snapshot alone: the append-only file begins anew after it.
        config = primary.folder / "redis.conf"
        config.write_text(config.read_text().replace("appendonly yes", "appendonly no"))
        primary.start()

    def cut_off(self, number: int) -> None:
        """Let a replica follow nobody who is there: what it has it keeps, and it hears nothing new."""
        with self.client(number) as replica:
            replica.execute_command("REPLICAOF", LOOPBACK, NOBODY)


class Redis:
    """Redis 7."""

    name = "redis"

    def missing(self) -> str:
        """Return what this machine lacks, and the fix."""
        if shutil.which("apt-get") and os.geteuid() == 0:
            return ""
        return missing_programs(**{"redis-server": "apt-get install redis-server"})

    def install(self) -> None:
        """Install Debian's package, where that is allowed and it is missing."""
        with only_one(self.name):
            if shutil.which("redis-server"):
                return
            command = (
                "apt-get update -qq && apt-get install -y -qq --no-install-recommends redis-server"
            )
            told = subprocess.run(
                ["sh", "-c", command], capture_output=True, text=True, check=False
            )
            if told.returncode or not shutil.which("redis-server"):
                raise Missing(f"redis-server could not be installed: {told.stderr.strip()[-500:]}")

    def add_options(self, parser: argparse.ArgumentParser) -> None:
        """Add how many replicas, and whether they are secured."""
        parser.add_argument("--replicas", type=int, default=0, help="that follow the primary")
        parser.add_argument("--secured", action="store_true", help="TLS, and no user but `admin`")

    def start(
        self, folder: Path, *, replicas: int = 0, secured: bool = False, unix: bool = False,
        settings: Mapping[str, str] | None = None, users: Sequence[str] = (),
    ) -> Servers:  # fmt: skip
        """Start servers, and wait until they answer and the replicas follow.

        Args:
            folder: Empty; each server has a folder inside.
            replicas: How many follow the primary.
            secured: Whether clients need TLS and a user.
            unix: Whether a socket in the folder takes the place of a port; without replicas.
            settings: More of the servers' own settings.
            users: Lines of the ACL file, besides the administrator's.
        """
        self.install()
        count = 1 + replicas
        *ports, bus = [0, 0] if unix else free_ports(count + 1)
        ca = _make_certificate(folder) if secured else None
        found = Servers(f"{LOOPBACK}:{ports[0]}", [], folder, ca=ca)
        for number, port in enumerate(ports):
            name = f"redis-{number + 1}"
            home = folder / name
            home.mkdir()
            socket = home / "redis.sock"
            lines = {
                **_plain(home, port), **(_secured(folder, port) if secured else {}),
                **({"unixsocket": str(socket)} if unix else {}),
                **({"replicaof": f"{LOOPBACK} {ports[0]}"} if number else {}),
                **({"cluster-port": str(bus)} if bus else {}), **(settings or {}),
            }  # fmt: skip
            config = home / "redis.conf"
            text = "".join(f"{key} {value}\n" for key, value in lines.items())
            config.write_text(
                text + "".join(f"user {user}\n" for user in (*_users(secured), *users))
            )
            url = (
                f"unix://{socket}"
                if unix
                else f"{'rediss' if secured else 'redis'}://{LOOPBACK}:{port}/0"
            )
            found.urls.append(url)
            ready = partial(_answers, url, ca, "slave" if number else "master")
            program = shutil.which("redis-server") or "redis-server"
            found.servers.append(Server(name, [program, str(config)], home, ready))
        try:
            for server in found.servers:
                server.start()
        except BaseException:
            found.stop()
            raise
        return found


def give_all_slots(client: redis.Redis) -> None:
    """Make a server that was started with `cluster-enabled` a cluster of one, and wait until it is."""
    client.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, SLOTS - 1)
    while b"cluster_state:ok" not in bytes(client.execute_command("CLUSTER", "INFO")):
        time.sleep(POLL_S)


def _plain(home: Path, port: int) -> dict[str, str]:
    """Return the settings of a server that keeps what it acknowledged for a second at most in memory."""
    return {
        "bind": LOOPBACK,
        "port": str(port),
        "dir": str(home),
        "appendonly": "yes",
        "save": '""',
        # A replica follows at once, where it waits 5 s for more of them by default.
        "repl-diskless-sync-delay": "0",
        # A primary does not wait for replicas that hear nothing when it is told to end.
        "shutdown-timeout": "0",
        "maxmemory-policy": "noeviction",
    }


def _secured(folder: Path, port: int) -> dict[str, str]:
    return {
        "port": "0",
        "tls-port": str(port),
        "tls-cert-file": str(folder / "server.pem"),
        "tls-key-file": str(folder / "server.key"),
        "tls-ca-cert-file": str(folder / "server.pem"),
        "tls-auth-clients": "no",
        "tls-replication": "yes",
        "masteruser": ADMIN,
        "masterauth": ADMIN_PASSWORD,
    }


def _users(secured: bool) -> tuple[str, ...]:
    return ("default off", f"{ADMIN} on >{ADMIN_PASSWORD} ~* &* +@all") if secured else ()


def _client(url: str, ca: Path | None, **options: Any) -> redis.Redis:
    secured = (
        {}
        if ca is None
        else {"username": ADMIN, "password": ADMIN_PASSWORD, "ssl_ca_certs": str(ca)}
    )
    return redis.Redis.from_url(url, **{"socket_timeout": 5, **secured, **options})


def _answers(url: str, ca: Path | None, role: str) -> bool:
    """Return whether a server answers, and follows if it is a replica."""
    try:
        with _client(url, ca) as client:
            told: dict[str, Any] = client.info("replication")  # pyright: ignore[reportAssignmentType]
    except redis.RedisError:
        return False
    return told["role"] == role and told.get("master_link_status", "up") == "up"


def _make_certificate(folder: Path) -> Path:
    """Make a key for the servers, and return the certificate that clients trust."""
    certificate = folder / "server.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
         "-days", "3650", "-subj", "/CN=localhost", "-addext", f"subjectAltName=IP:{LOOPBACK},DNS:localhost",
         "-keyout", str(folder / "server.key"), "-out", str(certificate)],
        check=True, capture_output=True,
    )  # fmt: skip
    return certificate


SERVICE = Redis()
