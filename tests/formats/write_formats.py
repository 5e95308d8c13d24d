"""Writes the files of a version, as this code stores them, into a new folder: see README.md.

python tests/formats/write_formats.py v3
"""

import asyncio
import importlib
import json
import re
import shutil
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import zstandard
from click.testing import CliRunner
from story import ASKED_MS, BEGAN_MS, Shop, live, opened

from penstock.adapters.leaf_index.sqlite import SqliteLeafIndex
from penstock.adapters.spool.sqlite import SqliteSpool
from penstock.cli.main import main
from penstock.core.record import DeadLetter, LogRecord
from penstock.core.segment import buckets_of, encode_segment

HERE = Path(__file__).parent
SOURCE = HERE.parent.parent / "src" / "penstock"


def formats_now() -> dict[str, int]:
    """Return every stored format of this code: constants `…_FORMAT`, and what is in a SQLite file."""
    found: dict[str, int] = {}
    for path in sorted(SOURCE.rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        found.update(
            {name: int(number) for name, number in re.findall(r"^([A-Z]+_FORMAT|ALGEBRA_VERSION)(?:: Final)? = (\d+)$", text, re.MULTILINE)}
        )  # fmt: skip
        if re.search(r"^KIND: Final = FileKind\($", text, re.MULTILINE):
            name = path.relative_to(SOURCE.parent).with_suffix("").as_posix().replace("/", ".")
            kind = importlib.import_module(name).KIND
            found[kind.what] = kind.format
    return found


async def live_once(folder: Path, target: Path) -> dict[str, Any]:
    """Live the story, and return what is served at its end."""
    async with opened(folder, BEGAN_MS) as shop:
        await live(shop)
    # Asked of a process that finds everything on the disk, as whoever reads the files will be.
    async with opened(folder, ASKED_MS) as shop:
        await shop.node.pump.pump()
        await shop.node.engine.settled()
        answers = await shop.answers()
        write_segments(shop, target)
        return answers


def write_segments(shop: Shop, target: Path) -> None:
    """Write each partition as a segment of the archive, and the index of both by leaf."""
    log = shop.node.stores.log
    index = SqliteLeafIndex(target / "index.db")
    for partition in range(log.partitions):
        records: list[LogRecord] = log.read(partition, 0, 10_000)
        pack = zstandard.ZstdCompressor(level=3).compress
        raw = encode_segment("default", log.generation, partition, records, pack=pack)
        (target / f"segment-{partition}.bin").write_bytes(raw)
        index.put(partition, 0, len(records), buckets_of(records))
    index.close()


LETTER = DeadLetter(
    letter_id="letter-1", source="web", received_at_ms=BEGAN_MS, reason="E310", path="$.event", what="it is none",
    message_id="m1", body=b"{}",
)  # fmt: skip
SPOOLED: list[tuple[int, list[bytes], list[DeadLetter]]] = [
    (0, [b"one", b"two"], []),
    (1, [b"three"], [LETTER]),
]
"""Batches that wait in the spool: partition, values, letters. The spool does not look into them."""


def write_spool(path: Path) -> None:
    """Write a spool in which batches wait."""
    spool = SqliteSpool(path, 1024 * 1024)
    for partition, values, letters in SPOOLED:
        spool.put(partition, values, letters, BEGAN_MS)
    spool.close()


def write(target: Path) -> None:
    """Write a backup, segments, an index, a spool, the answers and the formats into a new folder."""
    target.mkdir()
    write_spool(target / "spool.db")
    with TemporaryDirectory() as scratch:
        folder = Path(scratch) / "shop"
        shutil.copytree(HERE / "shop", folder)
        answers = asyncio.run(live_once(folder, target))
        done = CliRunner().invoke(main, ["backup", str(target / "backup"), "--project", str(folder), "--seed", "1"])  # fmt: skip
        assert done.exit_code == 0, done.output
    for name, said in (("answers.json", answers), ("formats.json", formats_now())):
        text = json.dumps(said, indent=1, sort_keys=True, ensure_ascii=False)
        (target / name).write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    write(HERE / sys.argv[1])
