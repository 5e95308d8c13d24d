"""Fuzz one decoder, guided by coverage: `python -m tests.fuzz.run_fuzz TARGET [--seconds 60] [FILE]`.

With a file it decodes that alone: how a finding is looked at again. New inputs go to a folder that
is gone afterwards; a finding is written to `.cache/fuzz`, and ends as a seed of `test_fuzz.py`.
"""

import argparse
import resource
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["penstock"], enable_loader_override=False):
    from tests.fuzz.decoders import TARGETS, check

INPUT_BYTES_MAX = 8_192
INPUT_S_MAX = 5
MEMORY_BYTES_MAX = 1 << 30
"""Beyond what the process has when it starts: an allocation that is larger fails, and is a finding."""


def main() -> None:
    """Fuzz until the time is up, or a finding."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("file", nargs="?", type=Path)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    target = TARGETS[asked.target]
    if asked.file:
        check(target, asked.file.read_bytes())
        return
    has = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (has + MEMORY_BYTES_MAX, has + MEMORY_BYTES_MAX))
    findings = Path(".cache/fuzz")
    findings.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="corpus-") as corpus:
        for number, seed in enumerate(target.seeds):
            Path(corpus, f"seed-{number}").write_bytes(seed)
        options = [
            sys.argv[0], corpus, f"-max_total_time={asked.seconds}", f"-timeout={INPUT_S_MAX}",
            f"-max_len={INPUT_BYTES_MAX}", f"-seed={asked.seed}", "-rss_limit_mb=1024",
            f"-artifact_prefix={findings}/{asked.target}-", "-print_final_stats=1",
        ]  # fmt: skip
        atheris.Setup(options, lambda data: check(target, data))
        atheris.Fuzz()


if __name__ == "__main__":
    main()
