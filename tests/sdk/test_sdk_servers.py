"""SDKs for servers, unmodified, against a real server: each event once in the log and in the profile."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from sdk_shop import CALLS, JITSU_KEY, SERVER_KEY, Shows, asked
from segment.analytics.client import Client

OLDER = Path(__file__).parents[2] / ".cache" / "sdk-older"
HOUR_MS = 3_600_000

pytestmark = pytest.mark.service


class Report(NamedTuple):
    """What a driver says of its SDK."""

    requests: list[int]
    """The statuses that it saw, if the SDK tells."""
    errors: list[str]


class Sdk(NamedTuple):
    """An SDK, and how it is driven."""

    name: str
    driver: str
    module: str
    older: bool = False
    without: tuple[str, ...] = ()
    """Calls that it does not have."""
    gzip: bool = True
    key: str = SERVER_KEY
    wrong_key: str = "wk-other"


SDKS = {
    one.name: one
    for one in (
        Sdk("segment-analytics-python 2.4", "drive_python.py", "segment"),
        Sdk("segment-analytics-python 2.3", "drive_python.py", "segment", older=True),
        Sdk("rudder-sdk-python", "drive_python.py", "rudderstack", older=True),
        Sdk("@segment/analytics-node", "drive_node.mjs", "segment", gzip=False),
        Sdk("@rudderstack/rudder-sdk-node", "drive_node.mjs", "rudderstack"),
        Sdk(
            "@jitsu/js in Node",
            "drive_node.mjs",
            "jitsu",
            without=("screen", "alias"),
            gzip=False,
            key=JITSU_KEY,
            wrong_key="wk-other:secret",
        ),
    )
}
QUEUEING = [name for name in SDKS if "jitsu" not in name]
"""Those that keep what was not taken in and try again."""

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(request: pytest.FixtureRequest) -> Start:
    """Start the driver of an SDK, in a process of its own."""

    def run(
        sdk: Sdk, url: str, *, key: str = "", rounds: int = 1, flush_at: int = 15, pause_ms: int = 0,
        gzip: bool = False,
    ) -> "subprocess.Popen[str]":  # fmt: skip
        arguments = [
            sdk.driver,
            sdk.module,
            url,
            key or sdk.key,
            str(rounds),
            str(flush_at),
            str(pause_ms),
        ]
        if sdk.driver.endswith(".mjs"):
            command, folder = ["node", *arguments], request.getfixturevalue("node_sdk")
        else:
            command, folder = [sys.executable, *arguments, str(gzip).lower()], Path(__file__).parent
        environment = {**os.environ, "PYTHONPATH": str(OLDER) if sdk.older else ""}
        return subprocess.Popen(
            command, cwd=folder, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )  # fmt: skip

    return run


def ended(process: "subprocess.Popen[str]") -> Report:
    """Wait for a driver and return what it reports."""
    said, errors = process.communicate(timeout=60)
    assert 0 == process.returncode, errors
    return Report(**json.loads(said.splitlines()[-1]))


@pytest.mark.parametrize("name", SDKS)
def test_every_call_is_in_the_log_and_in_the_profile_once(name, serve, start, shows: Shows):
    sdk = SDKS[name]
    with serve() as served:
        report = ended(start(sdk, served.url, rounds=3))
        assert [] == report.errors
        assert asked(3, *sdk.without) == served.taken()
        assert 0 == served.deduplicated()
        track = next(record for record in served.primaries() if record.type == "track")
        assert ("Product Viewed", {"product_id": "sku-1", "price": [1250, "EUR"]}, True) == (
            track.name, track.properties, track.verified,
        )  # fmt: skip
        identify = next(record for record in served.primaries() if record.type == "identify")
        assert "Zoë" == identify.traits["firstName"]
    for kind in asked(1, *sdk.without).types:
        shows(name, kind)


@pytest.mark.parametrize("name", [name for name in SDKS if SDKS[name].gzip])
def test_bodies_that_it_compresses_are_read(name, serve, start, shows: Shows):
    sdk = SDKS[name]
    with serve() as served:
        report = ended(start(sdk, served.url, rounds=3, gzip=True))
        assert [] == report.errors
        assert asked(3) == served.taken()
    shows(name, "gzip")


@pytest.mark.parametrize("name", SDKS)
@pytest.mark.parametrize("ahead_ms", [-2 * HOUR_MS, 2 * HOUR_MS])
def test_a_clock_that_is_off_is_corrected(name, ahead_ms, serve, start, shows: Shows):
    sdk = SDKS[name]
    with serve(ahead_ms=ahead_ms) as served:
        report = ended(start(sdk, served.url))
        assert [] == report.errors
        assert asked(1, *sdk.without) == served.taken()
        for record in served.primaries():
            assert abs(record.received_at_ms - record.occurred_at_ms) < 20_000
    shows(name, "clock off")


@pytest.mark.parametrize("name", QUEUEING)
def test_429_is_waited_out_and_the_events_arrive_once(name, serve, start, shows: Shows):
    with serve(requests_per_s_per_key=1) as served:
        report = ended(start(SDKS[name], served.url, rounds=2, flush_at=6))
        assert [] == report.errors
        assert asked(2) == served.taken()
        assert served.answers(429) >= 1
    shows(name, "429")


@pytest.mark.parametrize("name", QUEUEING)
def test_503_is_retried_and_the_events_arrive_once(name, serve, start, shows: Shows):
    with serve() as served:
        served.log.failures = 1
        report = ended(start(SDKS[name], served.url))
        assert [] == report.errors
        assert asked(1) == served.taken()
        assert 1 == served.answers(503)
    shows(name, "503")


@pytest.mark.slow
@pytest.mark.parametrize("name", QUEUEING)
def test_a_server_killed_in_mid_run_and_started_again_has_each_event_once(
    name, killed_shop, start, shows: Shows
):
    killed_shop.start()
    process = start(SDKS[name], killed_shop.url, rounds=40, flush_at=6, pause_ms=20)
    killed_shop.kill_once_it_has(20)
    killed_shop.start()
    report = ended(process)
    assert [] == [error for error in report.errors if "not delivered" in error]
    assert asked(40) == killed_shop.taken()
    shows(name, "server killed")


@pytest.mark.parametrize("name", SDKS)
def test_a_wrong_key_is_final(name, serve, start, shows: Shows):
    sdk = SDKS[name]
    with serve() as served:
        report = ended(start(sdk, served.url, key=sdk.wrong_key))
        # Jitsu's tells nobody.
        assert [] != report.errors or name not in QUEUEING
        assert asked(0) == served.taken()
        assert served.answers(400) <= len(CALLS), "it tries again what is refused for good"
    shows(name, "wrong key")


def test_events_that_were_kept_before_a_503_are_applied_once(serve):
    with serve() as served:
        served.suppressions.failures = 1
        client = Client(SERVER_KEY, host=served.url, upload_interval=0.05)
        client.track("py-user", "Unsubscribed", {}, message_id="py-unsubscribe")
        client.track("py-user", "Product Viewed", {"product_id": "sku-1"}, message_id="py-view")
        client.flush()
        client.shutdown()
        assert {"py-unsubscribe": 2, "py-view": 2} == served.message_ids()
        assert (2, 2) == (served.applied(), served.deduplicated())
        assert 1 == served.taken().views
        assert (1, 1) == (served.answers(503), served.answers(200))
