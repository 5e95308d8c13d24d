"""The durable path in a process of its own, fed through a pipe: its memory is its own.

    python -m benchmarks.apart FOLDER CACHED_MAX

It reads messages from its input: four bytes of length, then msgpack. A list of records with their
stamps is taken in; an empty one asks for a line of JSON that says what it took since the last.
"""

from __future__ import annotations

import gc
import json
import struct
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from types import FunctionType, ModuleType
from typing import IO, NamedTuple

import msgspec

from benchmarks import workload
from benchmarks.durable import DurablePath
from benchmarks.measure import Sample, like_the_server, resident_mb
from benchmarks.sampling import shares
from benchmarks.workload import Stream
from penstock.core.leaf import Leaf
from penstock.flows.native import NativeFold

SAMPLED = 1_000
"""Leaves whose objects are counted."""


class Mark(NamedTuple):
    """What a process took since the mark before, and what it holds."""

    count: int
    cpu_s: float
    wall_s: float
    resident_mb: float
    leaves: int
    """Held decoded."""
    leaves_mb: float
    """What they take, as Python counts the bytes of objects."""
    parts: dict[str, float]
    """Part of a leaf -> its share of that."""

    @property
    def sample(self) -> Sample:
        """As one round of a measurement."""
        return Sample(self.count, self.cpu_s, self.wall_s)


class Apart:
    """A child process with a durable path.

    Args:
        folder: Where its log and store are.
        cached_max: Decoded leaves that it holds.
    """

    def __init__(self, folder: Path, cached_max: int) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.apart", str(folder), str(cached_max)],
            cwd=Path(__file__).parent.parent, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip

    def take(self, stream: Stream) -> None:
        """Have it take a stream in."""
        self._send(msgspec.msgpack.encode((stream.values, stream.stamps)))

    def mark(self) -> Mark:
        """Wait until all is taken in, and return what it took."""
        self._send(b"")
        out = self.process.stdout
        assert out is not None, "it is a pipe"
        return Mark(*json.loads(out.readline()))

    def _send(self, message: bytes) -> None:
        pipe = self.process.stdin
        assert pipe is not None, "it is a pipe"
        pipe.write(struct.pack("<I", len(message)) + message)
        pipe.flush()

    def close(self) -> None:
        """End it: its input ends."""
        self.process.communicate()


def held(leaves: list[Leaf]) -> dict[str, float]:
    """Return what a leaf takes on average: part -> bytes, of objects that no two leaves share."""
    met = Counter(id(one) for leaf in leaves for one in _below(leaf))
    parts: Counter[str] = Counter()
    for leaf in leaves:
        parts["the leaf itself"] += sys.getsizeof(leaf)
        for name in Leaf.__slots__:
            parts[name] += sum(
                sys.getsizeof(one) for one in _below(getattr(leaf, name)) if met[id(one)] == 1
            )
    return {name: size / max(len(leaves), 1) for name, size in parts.items() if size}


def _below(root: object) -> list[object]:
    """Return an object and all that it alone reaches, each once."""
    found: dict[int, object] = {}
    waiting = [root]
    while waiting:
        one = waiting.pop()
        if id(one) in found or isinstance(one, (type, ModuleType, FunctionType)):
            continue
        found[id(one)] = one
        waiting.extend(gc.get_referents(one))
    return list(found.values())


def run(folder: Path, cached_max: int, asked: IO[bytes]) -> None:
    """Take in what is asked until the input ends."""
    path = DurablePath(folder, workload.new_step(workload.project()), cached_max)
    decode = msgspec.msgpack.Decoder(tuple[list[bytes], list[int]]).decode
    like_the_server()
    count, cpu_s, wall_s = 0, 0.0, 0.0
    while head := asked.read(4):
        message = asked.read(struct.unpack("<I", head)[0])
        if not message:
            gc.collect()
            resident, cache = resident_mb(), path.fold.cache
            # Natively held leaves are no objects: to look at them would make some.
            native = isinstance(path.fold, NativeFold)
            sizes = {} if native else held(list(cache.values())[:: max(len(cache) // SAMPLED, 1)])
            mark = Mark(
                count, cpu_s, wall_s, resident, len(cache), sum(sizes.values()) * len(cache) / 1e6,
                shares(sizes) if sizes else {},
            )  # fmt: skip
            print(json.dumps(mark), flush=True)
            count, cpu_s, wall_s = 0, 0.0, 0.0
            continue
        stream = Stream([], *decode(message))
        cpu, wall = time.process_time(), time.perf_counter()
        path.take(stream)
        cpu_s += time.process_time() - cpu
        wall_s += time.perf_counter() - wall
        count += len(stream.values)
    path.close()


if __name__ == "__main__":
    run(Path(sys.argv[1]), int(sys.argv[2]), sys.stdin.buffer)
