"""@segment/analytics-node, unmodified, against a real server: each event once in log and profile."""

import json
import subprocess
from collections import Counter

import pytest

ROUND = ("identify", "track", "page", "screen", "group", "alias")

pytestmark = pytest.mark.service


def drive(node_sdk, program, served, *, key="wk-server", rounds=1, flush_at=15) -> dict:
    """Run the driver; return what it reports: its calls, the statuses it saw, its errors."""
    command = [
        program("node"),
        "drive_segment_node.mjs",
        served.url,
        key,
        str(rounds),
        str(flush_at),
    ]
    done = subprocess.run(
        command, cwd=node_sdk, capture_output=True, text=True, timeout=50, check=False
    )
    assert 0 == done.returncode, done.stderr
    return json.loads(done.stdout)


def sent(report: dict) -> Counter[str]:
    assert not any(call["failed"] for call in report["calls"]), report
    return Counter(call["messageId"] for call in report["calls"])


def test_every_call_is_in_the_log_and_in_the_profile_once(serve, node_sdk, program):
    with serve() as served:
        report = drive(node_sdk, program, served, rounds=3)
        assert sent(report) == served.message_ids()
        assert Counter(ROUND * 3) == Counter(record.type for record in served.primaries())
        assert 18 == served.applied()
        assert [1, 1, 1] == served.views()
        assert {200} == set(report["requests"])
        track = next(record for record in served.primaries() if record.type == "track")
        assert {"product_id": "sku-1", "price": [1250, "EUR"]} == track.properties


def test_429_is_waited_out_and_the_events_arrive_once(serve, node_sdk, program):
    with serve(requests_per_s_per_key=1) as served:
        report = drive(node_sdk, program, served, rounds=2, flush_at=6)
        assert sent(report) == served.message_ids()
        assert 12 == served.applied()
        assert 429 in report["requests"]


def test_503_is_retried_and_the_events_arrive_once(serve, node_sdk, program):
    with serve() as served:
        served.log.failures = 1
        report = drive(node_sdk, program, served)
        assert sent(report) == served.message_ids()
        assert 6 == served.applied()
        assert [503, 200] == report["requests"]


def test_a_wrong_key_is_final(serve, node_sdk, program):
    with serve() as served:
        report = drive(node_sdk, program, served, key="wk-other")
        assert [400] == report["requests"]
        assert all(call["failed"] for call in report["calls"])
        assert Counter() == served.message_ids()
