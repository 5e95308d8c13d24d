"""A thousand kills under load from a real SDK, of one process and of its whole group, at any moment."""

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from fault_shop import Sender, Shop, assert_everything_is_there_once, load

KILLS = int(os.environ.get("PENSTOCK_KILLS", "1000"))
SEED = 1_125
AUDIT_EVERY = 100
LIVES_MS_MAX = 400


class Nursery:
    """Servers that are forked in milliseconds, each a process group of its own."""

    def __init__(self, shop: Shop) -> None:
        self.shop = shop
        program = Path(__file__).with_name("shop_process.py")
        self.errors = (shop.folder / "stderr.txt").open("a")
        self.process = subprocess.Popen(
            [sys.executable, str(program), "--nursery", str(shop.folder), str(shop.port)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors, text=True,
        )  # fmt: skip
        self.pid = 0

    def said(self, event: str) -> dict:
        assert self.process.stdout is not None
        while line := self.process.stdout.readline():
            said = json.loads(line)
            # What a server said before it was killed may still be in the pipe.
            if said["event"] == event and (event == "born" or said["by"] == self.pid):
                return said
        raise AssertionError((self.shop.folder / "stderr.txt").read_text()[-3000:])

    def start(self) -> None:
        """Fork a server."""
        assert self.process.stdin is not None
        self.process.stdin.write("start\n")
        self.process.stdin.flush()
        self.pid = self.said("born")["pid"]

    def kill(self, *, group: bool) -> None:
        """kill -9, and wait until the kernel has let go of its files."""
        try:
            (os.killpg if group else os.kill)(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            said = (self.shop.folder / "stderr.txt").read_text()[-3000:]
            raise AssertionError(f"it had ended by itself: {said}") from None
        self.wait()

    def stop(self) -> None:
        """Ask it to drain and end."""
        os.kill(self.pid, signal.SIGTERM)
        self.said("closed")
        self.wait()

    def wait(self) -> None:
        ended = threading.Event()
        while Path(f"/proc/{self.pid}").exists():
            ended.wait(0.001)

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(10)
        if self.process.stdout is not None:
            self.process.stdout.close()
        self.errors.close()


@pytest.mark.faults
def test_a_thousand_kills_lose_nothing_and_double_nothing(shop: Shop) -> None:
    dice = random.Random(SEED)
    sender = Sender()
    nursery = Nursery(shop)
    early = in_flight = 0
    started_s = time.monotonic()
    try:
        nursery.start()
        nursery.said("ready")
        sender.up.set()
        with load(sender, shop.port):
            pause = threading.Event()
            for kill in range(1, KILLS + 1):
                pause.wait(dice.random() * LIVES_MS_MAX / 1000)
                known = set(sender.acknowledged) if kill % AUDIT_EVERY == 0 else set()
                nursery.kill(group=dice.random() < 0.5)
                if known:
                    report = shop.audit()
                    assert [] == report.problems
                    assert known <= report.message_ids
                    in_flight += report.in_flight
                    print(
                        f"{kill} kills, {len(sender.sent):,} events, {time.monotonic() - started_s:.0f} s"
                    )
                nursery.start()
                if dice.random() < 0.2 and kill < KILLS:
                    early += 1  # the next kill comes while it opens its files, or catches up
                else:
                    nursery.said("ready")
            sender.wait_for(len(sender.acknowledged) + 100)
        nursery.stop()
    finally:
        nursery.close()
    print(f"{KILLS} kills ({early} while starting), {len(sender.sent):,} events sent, {sender.retries:,} retries, "
          f"{in_flight} in flight at the audits, 0 lost, 0 doubled")  # fmt: skip
    assert_everything_is_there_once(shop, sender)
