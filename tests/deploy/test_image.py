"""The image: linted, made of what is there, with the versions that the tests run with, and those are enough."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from penstock.cli.main import main
from tests.conftest import ROOT, missing
from tests.deploy.conftest import Run

DOCKERFILE = ROOT / "deploy" / "Dockerfile"
UV = ROOT / ".boot" / "bin" / "uv"


def instructions() -> Iterator[tuple[str, str]]:
    """Yield the instructions of the Dockerfile: name and arguments, lines joined."""
    text = re.sub(r"^#.*\n", "", DOCKERFILE.read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    for line in text.splitlines():
        name, _, rest = line.strip().partition(" ")
        if name:
            yield name, rest.strip()


def pins(lock: Path) -> dict[str, str]:
    """Return the version of each package of a lock, and refuse one without a hash."""
    text = lock.read_text()
    assert "://" not in text
    found = dict(re.findall(r"^([a-z0-9][a-z0-9._-]*)==([^\s;]+)", text, re.MULTILINE))
    assert len(found) <= text.count("--hash=sha256:")
    return found


def test_it_is_linted(lint: Run) -> None:
    done = lint("hadolint", "--no-color", DOCKERFILE)
    assert 0 == done.returncode, done.stdout + done.stderr


def test_a_dockerfile_that_is_wrong_is_found(lint: Run, tmp_path: Path) -> None:
    """A checker that finds nothing proves nothing."""
    file = tmp_path / "Dockerfile"
    file.write_text("FROM python\nRUN cd /tmp && pip install penstock\n")
    assert 0 != lint("hadolint", "--no-color", file).returncode


def test_what_it_copies_is_there_and_reaches_the_builder() -> None:
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    through = {line.removeprefix("!") for line in ignored if line.startswith("!")}
    copied = [
        source for name, rest in instructions() if name == "COPY" and not rest.startswith("--from=")
        for source in rest.split()[:-1]
    ]  # fmt: skip
    assert copied
    assert set(copied) == through
    assert [] == [one for one in copied if not (ROOT / one).exists()]


def test_it_runs_a_command_that_there_is_as_nobody_in_particular() -> None:
    told = dict(instructions())
    assert '["penstock"]' == told["ENTRYPOINT"]
    command, *rest = re.findall(r'"([^"]+)"', told["CMD"])
    with main.make_context("penstock", [], resilient_parsing=True) as context:
        found = main.get_command(context, command)
        assert found is not None
        found.make_context(command, rest, parent=context)
    user = told["USER"]
    assert re.fullmatch(r"[1-9]\d{4}:[1-9]\d{4}", user)
    values = (ROOT / "deploy/helm/penstock/templates/_helpers.tpl").read_text()
    assert f"runAsUser: {user.partition(':')[0]}" in values


def test_its_versions_are_those_that_the_tests_run_with() -> None:
    tested = pins(ROOT / "requirements.lock")
    for lock in ("requirements.lock", "build.lock"):
        ours = pins(ROOT / "deploy" / lock)
        assert {} == {name: version for name, version in ours.items() if tested.get(name) != version}  # fmt: skip


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_what_it_installs_is_all_that_it_needs(tmp_path: Path) -> None:
    """The same locks and steps, into an environment of its own that has nothing else."""
    if not UV.exists():
        missing("uv is not there", fix="make env")

    def run(*command: object) -> str:
        done = subprocess.run(
            list(map(str, command)), capture_output=True, text=True, timeout=500, check=False, cwd=ROOT
        )  # fmt: skip
        assert 0 == done.returncode, done.stdout + done.stderr
        return done.stdout

    home, dist = tmp_path / "penstock", tmp_path / "dist"
    run(UV, "venv", "--quiet", "--python", sys.executable, home)
    run(
        UV,
        "pip",
        "sync",
        "--quiet",
        "--python",
        home,
        "--require-hashes",
        "deploy/requirements.lock",
    )
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", dist)
    (wheel,) = dist.glob("*.whl")
    run(UV, "pip", "install", "--quiet", "--python", home, "--no-deps", "--no-index", wheel)
    penstock, shop = home / "bin" / "penstock", tmp_path / "shop"
    run(penstock, "init", shop)
    assert "3 passed" in run(penstock, "test", "--project", shop)
    # Each adapter loads: Kafka, Redis, the registry's formats and S3.
    parts = [
        "log.kafka.consuming",
        "topics.kafka",
        "store.redis",
        "decoder.avro",
        "decoder.protobuf",
        "archive.s3",
    ]
    run(
        home / "bin" / "python", "-c", "".join(f"import penstock.adapters.{one}\n" for one in parts)
    )
    assert CliRunner().invoke(main, ["--version"]).output == run(penstock, "--version")
