"""The guide to Kafka as a reader runs it: its own commands, in its order, with a real broker and workers."""

import json
import os
import re
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tools.services.kafka import Cluster

PAGE = Path(__file__).parent.parent.parent / "docs" / "guides" / "from-laptop-to-kafka.md"
BLOCK = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)
BIN = Path(sys.executable).parent
DEADLINE_S = 120.0


class Shell:
    """Runs blocks in a folder, with ports of its own in the place of those that the page names."""

    def __init__(self, folder: Path, instead: dict[str, str]) -> None:
        self.folder = folder
        self.instead = instead
        self.environ = os.environ | {
            "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
            "PYTHONUNBUFFERED": "1",
        }

    def of(self, block: str) -> str:
        for told, meant in self.instead.items():
            block = block.replace(told, meant)
        return block

    def run(self, block: str) -> str:
        done = subprocess.run(
            ["sh", "-euc", self.of(block)], cwd=self.folder, env=self.environ, capture_output=True,
            text=True, timeout=DEADLINE_S, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{block}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    @contextmanager
    def running(self, command: str, port: int, says: str) -> Iterator[None]:
        """Run a command that goes on until it is stopped; wait for a line that it says."""
        process = subprocess.Popen(
            [BIN / "penstock", *command.split()[1:], "--port", str(port)], cwd=self.folder,
            env=self.environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        assert process.stdout is not None
        with process.stdout:
            try:
                said = ""
                while says not in said:
                    line = process.stdout.readline()
                    assert line, said
                    said += line
                yield
            finally:
                process.terminate()
                said = process.stdout.read()
                ended = process.wait(timeout=DEADLINE_S)
            assert 0 == ended, said

    def until(self, block: str, done: Callable[[str], Any]) -> None:
        until = time.monotonic() + DEADLINE_S
        while not done(said := self.run(block)):
            assert time.monotonic() < until, said


@pytest.mark.slow
@pytest.mark.service
@pytest.mark.timeout(600)
def test_the_guide_works_as_it_is_written(
    tmp_path: Path, kafka: Cluster, free_ports: Callable[[int], list[int]], program: Callable[..., str]
) -> None:  # fmt: skip
    program("curl")
    blocks = iter(BLOCK.findall(PAGE.read_text(encoding="utf-8")))
    assert "python -m tools.services start kafka\n" == next(blocks)
    up, first, _ = free_ports(3)
    shell = Shell(tmp_path, {"127.0.0.1:9092": kafka.address, ":8080": f":{up}", ":8081": f":{first}"})  # fmt: skip
    shell.run(next(blocks))
    shell.folder = tmp_path / "shop"
    toml = shell.folder / "penstock.toml"
    toml.write_text(
        toml.read_text()
        .replace("127.0.0.1:9092", kafka.address)
        .replace('"shop."', f'"{tmp_path.name}."')
    )
    shell.run(next(blocks))
    shell.run(next(blocks))
    settings = tomllib.loads((shell.folder / "penstock.toml").read_text())
    shell.environ |= {
        "SERVER_KEY": settings["sources"]["backend"]["write_key"],
        "READ_KEY": settings["server"]["read_keys"][0],
    }
    started, working = next(blocks), next(blocks)
    assert ("penstock up\n", "penstock worker --processes 2\n") == (started, working)
    with ExitStack() as running:
        running.enter_context(shell.running(started, up, "Penstock is up at "))
        running.enter_context(shell.running(working, first, "Penstock worker folds "))
        assert json.loads(shell.run(next(blocks)))["success"] is True
        shell.until(next(blocks), lambda said: json.loads(said).get("features", {}).get("viewed") == ["sku-1"])  # fmt: skip
        shell.until(next(blocks), lambda said: "penstock_partitions_owned 6.0" in said)
    assert [] == list(blocks)
