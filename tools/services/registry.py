"""A schema registry that speaks the Confluent API: Apicurio Registry, with what it holds in a file."""

from __future__ import annotations

import argparse
import http.client
import shutil
import subprocess
import tarfile
from functools import partial
from pathlib import Path

from tools.services.service import (
    CACHE,
    LOOPBACK,
    Missing,
    Running,
    Server,
    free_ports,
    missing_programs,
    only_one,
)

VERSION = "3.0.9"
"""The last that runs on Java 17."""
ARTIFACT = f"io.apicurio:apicurio-registry-app:{VERSION}:tar.gz:all"
API = "/apis/ccompat/v7"
JVM = ("-Xms64m", "-Xmx384m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")

RESOLVE_S_MAX = 600
ANSWER_S_MAX = 2.0


class Registry:
    """Apicurio Registry, from Maven Central. Its address is the URL of the Confluent API."""

    name = "registry"

    def missing(self) -> str:
        """Return what this machine lacks, and the fix."""
        return missing_programs(
            java="apt-get install default-jre-headless", mvn="apt-get install maven"
        )

    def install(self) -> None:
        """Unpack it into the cache."""
        _program()

    def add_options(self, parser: argparse.ArgumentParser) -> None:
        """Add nothing: there is one way to start it."""

    def start(self, folder: Path) -> Running:
        """Start it and wait until it answers; what is registered stays in the folder."""
        port, management = free_ports(2)
        command = [
            shutil.which("java") or "java", *JVM,
            f"-Dquarkus.http.host={LOOPBACK}", f"-Dquarkus.http.port={port}",
            f"-Dquarkus.management.host={LOOPBACK}", f"-Dquarkus.management.port={management}",
            f"-Dapicurio.datasource.url=jdbc:h2:file:{folder / 'schemas'};WRITE_DELAY=0",
            "-jar", str(_program() / f"apicurio-registry-app-{VERSION}-runner.jar"),
        ]  # fmt: skip
        server = Server(self.name, command, folder, partial(_answers, port))
        server.start()
        return Running(f"http://{LOOPBACK}:{port}{API}", [server], folder)


def _program() -> Path:
    """Return the folder of the program, unpacked if it is not there.

    Raises:
        Missing: Maven could not resolve it; the last lines that it said are in the message.
    """
    folder = CACHE / f"registry-{VERSION}"
    with only_one("registry"):
        if not folder.is_dir():
            _unpack(folder)
    return folder


def _unpack(folder: Path) -> None:
    scratch = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    try:
        for goal in (
            ["dependency:get", f"-Dartifact={ARTIFACT}", "-Dtransitive=false"],
            ["dependency:copy", f"-Dartifact={ARTIFACT}", f"-DoutputDirectory={scratch}"],
        ):
            done = subprocess.run(
                ["mvn", "-q", "-B", *goal], cwd=scratch, stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT, text=True, timeout=RESOLVE_S_MAX, check=False,
            )  # fmt: skip
            if done.returncode:
                raise Missing("mvn could not resolve the registry:\n" + "\n".join(done.stdout.splitlines()[-20:]))  # fmt: skip
        for archive in scratch.glob("*.tar.gz"):
            with tarfile.open(archive) as packed:
                packed.extractall(scratch, filter="data")
            archive.unlink()
        # Whole or not at all: a run that is cut short leaves a folder of another name.
        scratch.rename(folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _answers(port: int) -> bool:
    """Return whether it answers what subjects it has."""
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=ANSWER_S_MAX)
    try:
        connection.request("GET", f"{API}/subjects")
        return connection.getresponse().status == http.client.OK
    except http.client.HTTPException:
        return False
    finally:
        connection.close()


SERVICE = Registry()
