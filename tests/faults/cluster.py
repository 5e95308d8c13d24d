"""What the harness breaks: three brokers behind proxies, Redis with a replica behind an address that follows the
primary, and small disks."""

import os
import shutil
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import redis
from confluent_kafka.admin import AdminClient
from proxies import Network, Proxy

from tools.services.kafka import SERVICE as KAFKA
from tools.services.kafka import Cluster
from tools.services.redis import SERVICE as REDIS
from tools.services.redis import Servers
from tools.services.service import LOOPBACK, Server, new_folder

BROKERS = 3
QUICK = {
    # So that a test of half a minute sees a worker that hangs lose its partitions.
    "group.min.session.timeout.ms": "1000",
    "log.segment.bytes": "16777216",
}
DISK_MIB = 48
ANSWER_S_MAX = 120.0


def until(done: Callable[[], bool], what: str, seconds: float = 0) -> float:
    """Ask again and again; return how long it took."""
    began_s = time.monotonic()
    while not done():
        assert time.monotonic() - began_s < (seconds or ANSWER_S_MAX), (
            f"it never came to be: {what}"
        )
        time.sleep(0.05)
    return time.monotonic() - began_s


class Brokers:
    """Three brokers, each reached by everybody, the others included, through a proxy of its own."""

    def __init__(self, network: Network) -> None:
        self.proxies = [network.proxy() for _ in range(BROKERS)]
        self.cluster: Cluster = KAFKA.start(
            new_folder("kafka"),
            brokers=BROKERS,
            settings=QUICK,
            told=[one.port for one in self.proxies],
        )
        for proxy, address in zip(self.proxies, self.cluster.address.split(","), strict=True):
            proxy.lead_to(int(address.rpartition(":")[2]))
        self.addresses = [one.address for one in self.proxies]
        self._admin = AdminClient({"bootstrap.servers": ",".join(self.addresses), "log_level": 0})
        self._disk: Path | None = None

    def server(self, number: int) -> Server:
        return self.cluster.servers[number]

    def leader(self, topic: str, partition: int) -> int:
        """Return which broker leads a partition, as soon as one does."""
        found = -1

        def led() -> bool:
            nonlocal found
            with suppress(Exception):
                told = self._admin.list_topics(topic, timeout=2).topics[topic]
                found = told.partitions[partition].leader - 1
            return found >= 0

        until(led, f"partition {partition} has a leader")
        return found

    def whole(self) -> bool:
        """Return whether every copy of every partition is in sync."""
        try:
            told = self._admin.list_topics(timeout=2)
        except Exception:  # noqa: BLE001 - it is asked again
            return False
        return all(
            len(one.isrs) == len(one.replicas) and one.leader > 0
            for topic in told.topics.values()
            for one in topic.partitions.values()
        )

    def start(self, number: int) -> None:
        """Start a broker that is dead; it answers on its own port before others let it in."""
        self.server(number).launch()
        port = self.proxies[number].target
        itself = AdminClient({"bootstrap.servers": f"{LOOPBACK}:{port}", "log_level": 0})

        def answers() -> bool:
            with suppress(Exception):
                return bool(itself.list_topics(timeout=1).brokers)
            return False

        until(answers, f"broker {number + 1} answers")

    def watch(self) -> None:
        """Start again what has ended by itself, as a broker does whose disk is full."""
        for number, server in enumerate(self.cluster.servers):
            if not server.alive():
                self.start(number)

    # -- a disk that fills

    def give_small_disk(self, number: int) -> Path:
        """Move what a broker keeps onto a file system of its own; it is stopped meanwhile."""
        data = self.server(number).folder / "data"
        self.server(number).kill()
        kept = data.with_name("kept")
        data.rename(kept)
        data.mkdir()
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}m", "tmpfs", str(data)], check=True
        )
        self._disk = data
        subprocess.run(["cp", "-a", "--sparse=always", f"{kept}/.", str(data)], check=True)
        shutil.rmtree(kept)
        self.start(number)
        return data

    def close(self) -> None:
        self.cluster.stop()
        if self._disk is not None:
            subprocess.run(["umount", "-l", str(self._disk)], check=True)
        self.cluster.remove()


def can_mount() -> str:
    """Return why no file system can be mounted here; empty if one can."""
    if os.geteuid() != 0:
        return "only root mounts a file system"
    return "" if shutil.which("mount") else "there is no program `mount`"


def fill(folder: Path) -> Path:
    """Fill a file system to the last page; return what to remove."""
    ballast = folder / "ballast"
    with suppress(OSError), ballast.open("wb", buffering=0) as file:
        while True:
            file.write(b"\x00" * 65_536)
    with suppress(OSError), ballast.open("ab", buffering=0) as file:
        while True:
            file.write(b"\x00" * 512)
    return ballast


class Primary:
    """Redis with a replica, behind an address that leads to whichever of the two is the primary."""

    def __init__(self, network: Network) -> None:
        self.servers: Servers = REDIS.start(
            new_folder("redis"),
            replicas=1,
            settings={"appendfsync": "everysec", "repl-timeout": "60"},
        )
        self.proxy: Proxy = network.proxy(self.port_of(0))
        self.number = 0
        """Which of the two is the primary."""

    @property
    def url(self) -> str:
        return f"redis://{self.proxy.address}/0"

    @property
    def server(self) -> Server:
        return self.servers.servers[self.number]

    @property
    def other(self) -> int:
        return 1 - self.number

    def port_of(self, number: int) -> int:
        return int(self.servers.urls[number].rpartition(":")[2].partition("/")[0])

    def start(self, number: int) -> None:
        """Start a server that is dead, whatever role it had."""
        self.servers.servers[number].launch()

        def answers() -> bool:
            with suppress(redis.RedisError), self.servers.client(number) as client:
                return bool(client.ping())
            return False

        until(answers, f"redis-{number + 1} answers")

    def cut_off_replica(self) -> None:
        """From here on the replica hears nothing, and the primary goes on saying yes."""
        self.servers.cut_off(self.other)

    def fail_over(self) -> None:
        """Kill the primary, and let the replica take over at the address."""
        self.server.kill()
        self.servers.promote(self.other)
        self.number = self.other
        self._keep_role(self.number)
        self.proxy.lead_to(self.port_of(self.number))

    def switch_over(self) -> None:
        """Let the replica take over at the address, and only then kill the primary: nobody finds it away."""
        old = self.server
        self.servers.promote(self.other)
        self.number = self.other
        self._keep_role(self.number)
        self.proxy.lead_to(self.port_of(self.number))
        old.kill()

    def follow(self) -> None:
        """Let the one that is not the primary follow it, and wait until it does."""
        if not self.servers.servers[self.other].alive():
            self.start(self.other)
        with self.servers.client(self.other) as client:
            client.execute_command("REPLICAOF", LOOPBACK, self.port_of(self.number))
        self._keep_role(self.other)

        def follows() -> bool:
            with suppress(redis.RedisError), self.servers.client(self.other) as client:
                return client.info("replication").get("master_link_status") == "up"  # type: ignore[union-attr]
            return False

        until(follows, "the replica follows")

    def _keep_role(self, number: int) -> None:
        # In its file too: killed and started again it is what it was.
        with self.servers.client(number) as client:
            client.config_rewrite()

    def close(self) -> None:
        self.servers.remove()
