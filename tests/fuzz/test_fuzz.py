"""Every decoder takes any bytes: coded errors alone, no hang, bounded memory, no value in a message."""

import os
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest

from penstock.core.errors import PenstockError
from tests.fuzz.decoders import TARGETS, check

ROOT = Path(__file__).parent.parent.parent
SECONDS = os.environ.get("FUZZ_SECONDS", "4")


@pytest.mark.parametrize("name", TARGETS)
def test_seeds_and_what_is_cut_from_them_are_decoded_or_refused(name):
    target = TARGETS[name]
    for seed in target.seeds[:4]:
        check(target, seed)
        for place in range(0, len(seed), max(len(seed) // 40, 1)):
            check(target, seed[:place])
            check(target, seed[:place] + b"\xff" + seed[place + 1 :])
            check(target, seed[:place] + seed[place + 1 :])


FOUND = {
    "a footer that is no text": ("segment", "9201a1cd040000000000000050535347"),
    "a token with half of a surrogate pair": (
        "tokens", (b"eyJhbGciOiJIUzI1NiIsImtpZCI6ImsxIn0.\x92.YQ").hex(),
    ),
    "a blob that says it holds a tebibyte": ("log_blob", "28b52ffde00000000000010000010000"),
}  # fmt: skip
"""What was found, in hexadecimal digits; each was another error than one of ours."""


@pytest.mark.parametrize(("name", "data"), FOUND.values(), ids=FOUND)
def test_what_was_found_stays_mended(name, data):
    with pytest.raises(PenstockError) if name != "tokens" else nullcontext():
        TARGETS[name].decode(bytes.fromhex(data))


@pytest.mark.slow
@pytest.mark.parametrize("name", TARGETS)
def test_nothing_is_found_by_fuzzing(name):
    pytest.importorskip("atheris")
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz.run_fuzz", name, "--seconds", SECONDS], cwd=ROOT,
        capture_output=True, text=True, timeout=int(SECONDS) * 3 + 60, check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert 0 == done.returncode, (done.stdout + done.stderr)[-4_000:]
    assert "stat::number_of_executed_units" in done.stderr
