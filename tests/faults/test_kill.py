"""kill -9, ten times under load from a real SDK: nothing acknowledged is lost, nothing counts twice.

What the senders know is compared, as sets, with what lies on disk, after every kill and at the end.
The same auditor must find the bugs that `shop_process.py` plants.
"""

import http.client
import json
import random

import pytest
from fault_shop import KEY, Sender, Shop, assert_everything_is_there_once, load, post, raw_event

from penstock.testing.audit import AuditReport

KILLS = 10
SEED = 20_261_125
ACKS_MAX = 1_500
"""A kill comes at most so many acknowledged events after the server was ready."""
WHILE_STARTING = (4, 7)
"""These kills come before the process is ready, while it catches up."""
RESTART_S_MAX = 5.0
"""What the issue promises; asked with room to spare, for the machine is shared."""


@pytest.mark.timeout(180)
def test_ten_kills_lose_nothing_and_double_nothing(shop: Shop) -> None:
    dice = random.Random(SEED)
    sender = Sender()
    reports: list[AuditReport] = []
    shop.up()
    sender.up.set()
    with load(sender, shop.port):
        for kill in range(KILLS):
            if kill not in WHILE_STARTING:
                sender.wait_for(len(sender.acknowledged) + dice.randint(1, ACKS_MAX))
            sender.up.clear()
            known = set(sender.acknowledged)
            shop.kill()
            reports.append(report := shop.audit())
            assert [] == report.problems
            assert known <= report.message_ids
            if kill + 1 in WHILE_STARTING:
                shop.start()  # its files are open, and it catches up
            else:
                if kill + 1 < KILLS:
                    shop.up()
                else:
                    shop.start()  # which says how much it had to catch up with
                    shop.wait_until_ready()
                sender.up.set()
        sender.wait_for(len(sender.acknowledged) + 100)
    shop.stop()
    show(sender, shop, reports)
    assert_everything_is_there_once(shop, sender)
    assert max(shop.ready_ms) < 2 * RESTART_S_MAX * 1000
    assert sender.retries > KILLS  # a load that no kill disturbed would prove little
    assert sum(report.in_flight for report in reports) > 0


def show(sender: Sender, shop: Shop, reports: list[AuditReport]) -> None:
    behind, caught_up_ms = shop.caught_up[-1]
    print(
        f"\n{len(sender.sent)} events, {KILLS} kills, {sender.retries} raw retries; "
        f"in flight at the kills {[report.in_flight for report in reports]}; "
        f"`penstock up` ready and caught up in {min(shop.ready_ms):.0f} to {max(shop.ready_ms):.0f} ms, "
        f"imports included; {behind} records caught up with in {caught_up_ms:.0f} ms"
    )


@pytest.mark.parametrize("plant", ["", "acknowledge-before-append", "commit-before-write"])
def test_a_planted_bug_is_found_and_none_where_there_is_none(shop: Shop, plant: str) -> None:
    sender = Sender()
    dice = random.Random(SEED)
    shop.start(plant)
    shop.wait_until_ready()
    connection = http.client.HTTPConnection("127.0.0.1", shop.port, timeout=10)
    for batch in range(60):
        names = [f"raw-{batch}-{place}" for place in range(5)]
        # Without links: one that is appended last would take the held events to the disk.
        events = [raw_event(sender, dice, name, linked_share=0) for name in names]
        assert post(connection, json.dumps({"writeKey": KEY, "batch": events}))
        sender.acknowledge(names)
    connection.close()
    shop.kill()
    report = shop.audit()
    missing = bool(sender.acknowledged - report.message_ids)
    uncovered = any("no leaf covers" in problem for problem in report.problems)
    assert (plant == "acknowledge-before-append") == missing
    assert (plant == "commit-before-write") == uncovered
    if not plant:
        assert [] == report.problems
