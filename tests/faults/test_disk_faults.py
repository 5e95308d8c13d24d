"""Disks that fail, fill, tear and crawl, and a clock that is set back: what was acknowledged stays.

strace makes the system calls of the real process fail; a full disk is a small file system of its own.
"""

import os
import random
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest
from fault_shop import Sender, Shop, assert_everything_is_there_once, raw_loads

ACKED = 400
SYNC = "fsync,fdatasync"

pytestmark = [pytest.mark.slow, pytest.mark.service]


@pytest.fixture
def strace(program: Callable[..., str]) -> str:
    return program("strace", fix="apt-get install strace")


def injected(strace: str, calls: str, what: str) -> list[str]:
    """Return the command that a process is put under, so that its calls fail as told."""
    return [
        strace,
        "-D",
        "-f",
        "-qq",
        "-o",
        "/dev/null",
        "-e",
        f"trace={calls}",
        "-e",
        f"inject={calls}:{what}",
    ]


def run_under(shop: Shop, under: list[str], *, faults: int = 0) -> Sender:
    """Load a shop whose process runs under something, until enough is acknowledged and retried."""
    shop.start()  # makes the files
    shop.wait_until_ready()
    shop.stop()
    sender = Sender()
    shop.under = under
    shop.start()
    shop.wait_until_ready()
    shop.under = []
    sender.up.set()
    with raw_loads(sender, shop.port):
        sender.wait_for(ACKED)
        while sender.retries < faults:
            sender.wait_for(len(sender.acknowledged) + 1)
    shop.stop()
    return sender


# A flush of every leaf there is takes some 500 writes: if each of them met a fault, none would end.
@pytest.mark.parametrize(
    ("calls", "what"),
    [
        (SYNC, "error=EIO:when=20+17"),
        (SYNC, "error=ENOSPC:when=31+23"),
        ("pwrite64", "error=ENOSPC:when=150+797"),
        ("pwrite64", "error=EIO:when=211+1031"),
    ],
)
def test_calls_that_fail_now_and_then_cost_a_503_and_nothing_else(
    shop, strace, calls, what
) -> None:
    sender = run_under(shop, injected(strace, calls, what), faults=5)
    assert_everything_is_there_once(shop, sender)


def test_a_slow_disk_only_costs_time(shop: Shop, strace: str) -> None:
    sender = run_under(shop, injected(strace, SYNC, "delay_enter=30000"))
    assert 0 == sender.retries
    assert_everything_is_there_once(shop, sender)


@pytest.mark.parametrize("calls", [SYNC, "pwrite64"])
@pytest.mark.parametrize("seed", range(4))
def test_killed_in_the_call_itself(shop: Shop, strace: str, calls: str, seed: int) -> None:
    shop.start()  # makes the files
    shop.wait_until_ready()
    shop.stop()
    at = random.Random(seed).randrange(5, 60 if calls == SYNC else 400)
    sender = Sender()
    shop.under = injected(strace, calls, f"signal=KILL:when={at}")
    with raw_loads(sender, shop.port):
        with suppress(AssertionError):  # it may die before it is ready
            shop.start()
            shop.wait_until_ready()
        sender.up.set()
        shop.under = []
        assert shop.process is not None
        shop.process.wait(30)
        shop.reap()
        known = set(sender.acknowledged)
        report = shop.audit()
        assert [] == report.problems
        assert known <= report.message_ids
        shop.up()
        sender.wait_for(len(sender.acknowledged) + 50)
    shop.stop()
    assert_everything_is_there_once(shop, sender)


@pytest.mark.parametrize("torn", ["log.db-wal", "store.db-wal"])
@pytest.mark.parametrize("tail", [b"\x00" * 4_096, b"torn page " * 300, b"\xff" * 24])
def test_a_torn_last_page_is_as_if_it_had_never_been(shop: Shop, torn: str, tail: bytes) -> None:
    sender = Sender()
    shop.start()
    shop.wait_until_ready()
    sender.up.set()
    with raw_loads(sender, shop.port):
        sender.wait_for(ACKED)
        sender.up.clear()
        shop.kill()
        with (shop.folder / "data" / torn).open("ab") as file:
            file.write(tail)
        shop.up()
        sender.up.set()
        sender.wait_for(len(sender.acknowledged) + 50)
    shop.stop()
    assert_everything_is_there_once(shop, sender)


def test_a_file_that_may_not_grow_is_written_short_and_then_refused(shop: Shop, program) -> None:
    # RLIMIT_FSIZE cuts the write that crosses it short, and refuses the next.
    limited = [program("prlimit", fix="apt-get install util-linux"), f"--fsize={700_000}"]
    sender = Sender()
    shop.under = limited
    shop.start()
    shop.under = []
    shop.wait_until_ready()
    sender.up.set()
    with raw_loads(sender, shop.port):
        until(lambda: not is_ready(shop))
        sender.up.clear()
        shop.kill()
        known = set(sender.acknowledged)
        report = shop.audit()
        assert [] == report.problems
        assert known <= report.message_ids
        shop.up()
        sender.up.set()
        sender.wait_for(len(sender.acknowledged) + 50)
    shop.stop()
    assert_everything_is_there_once(shop, sender)


@pytest.fixture
def small_disk(tmp_path: Path, program) -> Iterator[Path]:
    mount = program("mount")
    if os.geteuid() != 0:
        pytest.skip("only root mounts a file system")
    folder = tmp_path / "small"
    folder.mkdir()
    subprocess.run([mount, "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(folder)], check=True)
    yield folder
    subprocess.run([shutil.which("umount") or "umount", "-l", str(folder)], check=True)


def test_a_full_disk_is_503_and_room_is_all_that_it_needs(small_disk: Path) -> None:
    shop = Shop(small_disk)
    sender = Sender()
    shop.start()
    shop.wait_until_ready()
    sender.up.set()
    try:
        with raw_loads(sender, shop.port):
            until(lambda: not is_ready(shop))
            full_at = len(sender.acknowledged)
            assert full_at > 0
            subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
            sender.wait_for(full_at + 200)
            until(lambda: is_ready(shop))
        shop.stop()
        assert_everything_is_there_once(shop, sender)
    finally:
        if shop.process is not None:
            shop.kill()


def test_a_clock_that_is_set_back_takes_nothing_in_until_it_is_right(shop: Shop) -> None:
    sender = Sender()
    shop.start()
    shop.wait_until_ready()
    sender.up.set()
    clock = shop.folder / "clock-ms"
    with raw_loads(sender, shop.port):
        sender.wait_for(100)
        clock.write_text(str(-2 * 3_600_000))
        until(lambda: not is_ready(shop))
        clock.write_text("0")
        until(lambda: is_ready(shop))
        sender.wait_for(len(sender.acknowledged) + 100)
    shop.stop()
    assert_everything_is_there_once(shop, sender)
    with shop.files() as (_, log, _, _):
        stamps = [entry.logged_at_ms for entry in log.read(0, 0, 1 << 30)]
        assert sorted(stamps) == stamps


def is_ready(shop: Shop) -> bool:
    try:
        with urlopen(f"http://127.0.0.1:{shop.port}/ready", timeout=10) as answer:
            return answer.status == 200
    except HTTPError as error:
        error.close()
        return False


def until(holds: Callable[[], bool], tries: int = 4_000) -> None:
    """Ask again and again; what is asked takes a while by itself."""
    for _ in range(tries):
        with suppress(OSError):
            if holds():
                return
    raise AssertionError("it never came to that")
