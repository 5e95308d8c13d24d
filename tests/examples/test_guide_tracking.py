"""The guide on testing one's tracking, as a CI job runs it: its settings, its test, its commands."""

import os
import re
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "guides" / "test-your-project.md"
BIN = Path(sys.executable).parent


def block(language: str) -> str:
    """Return the guide's one block in a language."""
    (text,) = re.findall(
        rf"^```{language}\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )
    return text


def job(folder: Path, port: int, test: str) -> tuple[int, str]:
    """Run the guide's job in a folder; return its exit code and what it said."""
    settings = folder / "shop" / "penstock.toml"
    keys = tomllib.loads(settings.read_text())["sources"]
    environ = os.environ | {
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        "SERVER_KEY": keys["backend"]["write_key"],
    }
    (folder / "tracking").mkdir(exist_ok=True)
    (folder / "tracking" / "test_tracking.py").write_text(test.replace("8080", str(port)))
    process = subprocess.Popen(
        ["sh", "-euc", block("sh").replace("8080", str(port))], cwd=folder, env=environ, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
    )  # fmt: skip
    try:
        said, _ = process.communicate(timeout=45)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    return process.returncode, said


@pytest.mark.slow
def test_the_job_of_the_guide_passes_and_fails_when_the_tracking_is_wrong(
    tmp_path, free_port, program
):
    program("curl")
    subprocess.run(
        [BIN / "penstock", "init", "shop"], cwd=tmp_path, check=True, capture_output=True
    )
    settings = tmp_path / "shop" / "penstock.toml"
    text = settings.read_text()
    assert "[development]\n" in text
    _, _, added = block("toml").partition("[development]\n")
    settings.write_text(text.replace("[development]\n", f"[development]\n{added}"))

    code, said = job(tmp_path, free_port, block("py"))
    assert (0, True) == (code, "1 passed" in said), said

    wrong = block("py").replace(", context=CONSENT", "").replace("count=1", "count=1, timeout_s=2")
    code, said = job(tmp_path, free_port, wrong)
    assert (1, True) == (code, "consent_unknown" in said), said
