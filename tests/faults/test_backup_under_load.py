"""Backups taken while a shop takes events from a real SDK: each is a state to go on from, over HTTP too."""

import http.client
import json
import random
import re
import resource
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from fault_shop import KEY, Sender, Shop, load, post, raw_event

from penstock.core.backup import MANIFEST_FILE, Manifest, decode_manifest

pytestmark = pytest.mark.slow

BACKUPS = 3
SETTLED = 25
"""People who were there before the load, and do nothing during it."""


def penstock(*args: object, **how: Any) -> subprocess.CompletedProcess[str]:
    program = "from penstock.cli.main import main; main()"
    return subprocess.run(
        [sys.executable, "-c", program, *map(str, args)],
        capture_output=True, text=True, check=False, timeout=60, **how,
    )  # fmt: skip


def event(user: str, number: int) -> dict[str, Any]:
    return {
        "type": "track", "event": "Product Viewed", "messageId": f"{user}-{number}", "userId": user,
        "properties": {"product_id": f"p{number}", "price": "19.99", "n": number},
    }  # fmt: skip


def send(shop: Shop, events: list[dict[str, Any]]) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", shop.port, timeout=10)
    assert post(connection, json.dumps({"writeKey": KEY, "batch": events}))
    connection.close()


def profile(shop: Shop, user: str, query: str = "") -> bytes:
    connection = http.client.HTTPConnection("127.0.0.1", shop.port, timeout=10)
    connection.request("GET", f"/v1/profiles/user_id:{user}{query}", headers={"Authorization": "Bearer rk"})  # fmt: skip
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    assert 200 == answer.status
    return re.sub(rb'"age_ms":\d+', b'"age_ms":0', body)  # it is that of the question


def backed_up(shop: Shop, place: Path) -> Manifest:
    done = penstock("backup", place, "--project", shop.folder, "--json")
    assert 0 == done.returncode, done.stderr
    return decode_manifest((place / MANIFEST_FILE).read_bytes(), "")


@pytest.mark.timeout(180)
def test_each_is_a_state_to_go_on_from(
    shop: Shop, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("backups")
    shop.up()
    settled = [event(f"settled-{user}", number) for user in range(SETTLED) for number in range(4)]
    send(shop, settled)
    sender = Sender()
    sender.up.set()
    known: list[set[str]] = []
    manifests: list[Manifest] = []
    with load(sender, shop.port):
        for number in range(BACKUPS):
            sender.wait_for(len(sender.acknowledged) + 150)
            known.append(set(sender.acknowledged))
            manifests.append(backed_up(shop, folder / f"b{number}"))
        sender.wait_for(len(sender.acknowledged) + 150)

    heads = [manifest.heads[0] for manifest in manifests]
    assert heads == sorted(set(heads))
    print(f"\nlog heads {heads}, leaves applied to {[one.applied[0] for one in manifests]}")
    restored: list[Shop] = []
    for number, manifest in enumerate(manifests):
        place = folder / f"r{number}"
        done = penstock("restore", folder / f"b{number}", "--project", place)
        assert 0 == done.returncode, done.stderr
        restored.append(Shop(place))
        report = restored[-1].audit()
        assert [] == report.problems
        # All that was acknowledged before it began is in it, and nothing that nobody sent.
        assert known[number] <= report.message_ids
        assert report.message_ids <= set(sender.sent) | {one["messageId"] for one in settled}
        assert manifest.heads[0] > manifest.applied[0]

    again = restored[-1]
    again.up()
    try:
        assert_the_same_is_served(shop, again, manifests[-1])
        # It takes what was sent before as known, and what is new.
        send(again, settled)
        send(again, [event(f"settled-{user}", 9) for user in range(SETTLED)])
        views = [
            json.loads(profile(again, f"settled-{user}"))["features"]["views"]
            for user in range(SETTLED)
        ]
        assert [5] * SETTLED == views
        again.stop()
    finally:
        if again.process is not None:
            again.kill()
    assert [] == again.audit().problems
    shop.stop()
    assert [] == shop.audit().problems


def assert_the_same_is_served(shop: Shop, again: Shop, manifest: Manifest) -> None:
    """Ask both what was known at the backup's end of the log: the answers have the same bytes."""
    asked = f"?known_at={manifest.heads[0] - 1}&as_of={manifest.made_at}"
    users = [*(f"settled-{user}" for user in range(SETTLED)), *(f"u{user}" for user in range(60))]
    first = [profile(shop, user, asked) for user in users]
    assert first == [profile(again, user, asked) for user in users]
    assert SETTLED < sum(b'"found":true' in body for body in first)
    # And what the restored one serves is what both say was known.
    for user, body in zip(users, first, strict=True):
        said, now = json.loads(body), json.loads(profile(again, user))
        assert said["features"] == now["features"]
        assert said["traits"] == now["traits"]
        assert "live" == now["served"]


@pytest.mark.parametrize("room", [0, 20_000])
def test_a_disk_that_is_full_leaves_no_backup_and_the_shop_alone(shop: Shop, room: int) -> None:
    """A limit on the size of files stands in for the disk: a write beyond it fails as if there were no room."""
    shop.up()
    sender = Sender()
    events = [raw_event(sender, random.Random(1), f"e{number}") for number in range(3_000)]
    for start in range(0, len(events), 500):
        send(shop, events[start : start + 500])

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))

    place = shop.folder / "b"
    done = penstock("backup", place, "--project", shop.folder, preexec_fn=limit)
    assert 69 == done.returncode, done.stderr
    assert "E441" in done.stderr
    assert "Traceback" not in done.stderr
    assert [] == [path.name for path in shop.folder.iterdir() if path.name.startswith((".b", "b"))]

    assert 0 == penstock("backup", place, "--project", shop.folder).returncode
    new = shop.folder / "new"
    done = penstock("restore", place, "--project", new, preexec_fn=limit)
    assert "Traceback" not in done.stderr
    assert 69 == done.returncode, done.stderr
    assert "E441" in done.stderr
    assert not (new / "penstock.toml").exists()
    assert 0 == penstock("restore", place, "--project", new).returncode
    shop.stop()
    assert [] == shop.audit().problems
    shutil.rmtree(new)
