"""Jars from Maven Central, resolved once into `.cache/services`."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tools.services.service import CACHE, Missing, only_one

RESOLVE_S_MAX = 600

_POM = """<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>penstock</groupId>
  <artifactId>{name}</artifactId>
  <version>1</version>
  <packaging>pom</packaging>
  <dependencies>
{dependencies}
  </dependencies>
</project>
"""
_DEPENDENCY = """    <dependency>
      <groupId>{}</groupId><artifactId>{}</artifactId><version>{}</version>
    </dependency>"""


def jars(name: str, coordinates: Sequence[str]) -> Path:
    """Return the folder that holds some jars and all they need, resolved if it is not there.

    Args:
        name: Of the folder, with no version in it.
        coordinates: Such as `org.apache.kafka:kafka_2.13:4.4.0`.

    Raises:
        Missing: Maven could not resolve them; the last lines that it said are in the message.
    """
    pinned = hashlib.sha256("\n".join(coordinates).encode()).hexdigest()[:12]
    folder = CACHE / f"{name}-{pinned}"
    with only_one(name):
        if not folder.is_dir():
            _resolve(name, coordinates, folder)
    return folder


def _resolve(name: str, coordinates: Sequence[str], folder: Path) -> None:
    scratch = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=CACHE))
    try:
        pom = scratch / "pom.xml"
        dependencies = [_DEPENDENCY.format(*one.split(":")) for one in coordinates]
        pom.write_text(_POM.format(name=name, dependencies="\n".join(dependencies)))
        done = subprocess.run(
            ["mvn", "-q", "-B", "-f", str(pom), "dependency:copy-dependencies",
             f"-DoutputDirectory={scratch / 'libs'}", "-DincludeScope=runtime"],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=RESOLVE_S_MAX, check=False,
        )  # fmt: skip
        if done.returncode:
            raise Missing(f"mvn could not resolve {name}:\n" + "\n".join(done.stdout.splitlines()[-20:]))  # fmt: skip
        # Whole or not at all: a run that is cut short leaves a folder of another name.
        (scratch / "libs").rename(folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
