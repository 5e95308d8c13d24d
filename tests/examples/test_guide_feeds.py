"""The guide on topics that other systems read, followed at a real broker: its settings, and its reader."""

import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from penstock.settings import load_settings
from tests.cli.test_up import Up, view
from tests.cli.test_up_kafka import project_on
from tools.services.kafka import Cluster

PAGE = (Path(__file__).parents[2] / "docs" / "guides" / "feeds.md").read_text()
READS_MAX = 50

pytestmark = [pytest.mark.service, pytest.mark.timeout(180)]


def block(kind: str) -> str:
    found = re.search(rf"^```{kind}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    assert found is not None
    return found[1]


def test_what_the_guide_sets_is_told_and_its_reader_has_it(tmp_path: Path, kafka: Cluster) -> None:
    folder = project_on(kafka, tmp_path / "shop", block("toml"))
    assert load_settings(folder / "penstock.toml").feed.any
    reader = tmp_path / "reader.py"
    reader.write_text(block("py"))
    up = Up(folder)
    try:
        up.send(view(1), view(2))
        read = {}
        for _ in range(READS_MAX):
            ran = subprocess.run(
                [sys.executable, str(reader), kafka.address, f"{tmp_path.name}.profiles"],
                capture_output=True, check=True, timeout=60,
            )  # fmt: skip
            read = json.loads(ran.stdout)
            if read:
                break
        ((leaf, profile),) = read.items()
        assert leaf == profile["person"]
        assert up.profile("u1")["features"] == profile["features"]
        shown = json.loads(PAGE.split("```json\n")[2].split("\n```")[0])
        assert {*shown} == {*profile}
    finally:
        assert 0 == up.end(signal.SIGTERM)
