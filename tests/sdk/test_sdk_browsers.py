"""SDKs for browsers, unmodified, in Chromium, on a page of another origin: each event once in the profile."""

from collections import Counter
from collections.abc import Callable, Iterator
from typing import NamedTuple
from urllib.parse import urlencode

import pytest
from playwright.sync_api import Browser, BrowserContext, Page
from sdk_shop import WEB_JITSU_KEY, WEB_KEY, Shows, asked

HOUR_MS = 3_600_000

pytestmark = [pytest.mark.service, pytest.mark.usefixtures("node_sdk")]


class Sdk(NamedTuple):
    """An SDK, and what it has."""

    name: str
    page: str
    """How `page.html` calls it."""
    without: tuple[str, ...] = ()
    key: str = WEB_KEY


SDKS = {
    one.name: one
    for one in (
        Sdk("@segment/analytics-next", "segment"),
        Sdk("@segment/analytics-next, batching", "segment-batching"),
        Sdk("@rudderstack/analytics-js", "rudderstack", without=("screen",)),
        Sdk("@jitsu/js", "jitsu", without=("screen", "alias"), key=WEB_JITSU_KEY),
    )
}
QUEUEING = [name for name in SDKS if "jitsu" not in name]
"""Those that keep what was not taken in and try again."""

Visit = Callable[..., Page]


@pytest.fixture
def context(chromium: Browser) -> Iterator[BrowserContext]:
    context = chromium.new_context()
    yield context
    context.close()


@pytest.fixture
def visit(context: BrowserContext, site: str) -> Visit:
    """Open the page, and wait until its SDK is loaded."""

    def open_page(sdk: Sdk, url: str, page_of: str = "") -> Page:
        page = context.new_page()
        asking = urlencode({"sdk": page_of or sdk.page, "url": url, "key": sdk.key})
        page.goto(f"{site}/page.html?{asking}")
        assert page.evaluate("window.ready")
        return page

    return open_page


def call(page: Page, kind: str, user: str = "web-1") -> None:
    page.evaluate("([kind, user]) => { window.calls[kind](user) }", [kind, user])


def arrived(page: Page, served, wanted: int) -> None:
    """Wait until so many events are in the log, copies not counted."""
    for _ in range(1_000):
        if len(served.message_ids()) >= wanted:
            return
        page.wait_for_timeout(20)
    raise AssertionError(f"{len(served.message_ids())} of {wanted} events arrived")


@pytest.mark.parametrize("name", SDKS)
def test_every_call_is_in_the_log_and_in_the_profile_once(name, serve, visit: Visit, shows: Shows):
    sdk = SDKS[name]
    wanted = asked(1, *sdk.without)
    with serve() as served:
        page = visit(sdk, served.url)
        for kind in wanted.types:
            call(page, kind)
        arrived(page, served, wanted.applied)
        assert wanted == served.taken()
        assert 0 == served.deduplicated()
        track = next(record for record in served.primaries() if record.type == "track")
        assert {"product_id": "sku-1", "price": [1250, "EUR"]} == track.properties
        assert not track.verified
    for kind in wanted.types:
        shows(name, kind)


@pytest.mark.parametrize("name", SDKS)
def test_a_clock_that_is_off_is_corrected(name, serve, visit: Visit, shows: Shows):
    sdk = SDKS[name]
    with serve(ahead_ms=2 * HOUR_MS) as served:
        page = visit(sdk, served.url)
        call(page, "track")
        arrived(page, served, 1)
        (record,) = served.primaries()
        assert abs(record.received_at_ms - record.occurred_at_ms) < 20_000
    shows(name, "clock off")


@pytest.mark.parametrize("name", QUEUEING)
def test_429_and_503_are_waited_out_and_the_events_arrive_once(
    name, serve, visit: Visit, shows: Shows
):
    sdk = SDKS[name]
    with serve(requests_per_s_per_key=1) as served:
        page = visit(sdk, served.url)
        served.log.failures = 1
        # At least two requests within one second.
        calls = 8 if sdk.page == "segment-batching" else 2
        for _ in range(calls):
            call(page, "track")
        arrived(page, served, calls)
        assert (Counter(track=calls), calls, calls) == served.taken()
        assert 1 == served.answers(503)
        assert served.answers(429) >= 1
    shows(name, "503")
    shows(name, "429")


@pytest.mark.parametrize("name", QUEUEING)
def test_what_happens_offline_arrives_once_when_it_is_online_again(
    name, serve, context: BrowserContext, visit: Visit, shows: Shows
):
    sdk = SDKS[name]
    with serve() as served:
        page = visit(sdk, served.url)
        context.set_offline(True)
        for _ in range(3):
            call(page, "track")
        page.wait_for_timeout(200)
        assert {} == served.message_ids()
        context.set_offline(False)
        arrived(page, served, 3)
        assert (Counter(track=3), 3, 3) == served.taken()
    shows(name, "offline")


@pytest.mark.slow
@pytest.mark.parametrize("name", QUEUEING)
def test_a_server_killed_in_mid_run_and_started_again_has_each_event_once(
    name, killed_shop, visit: Visit, shows: Shows
):
    sdk = SDKS[name]
    killed_shop.start()
    page = visit(sdk, killed_shop.url)
    call(page, "identify")
    for _ in range(8):
        call(page, "track")
    killed_shop.kill_once_it_has(4)
    for _ in range(8):
        call(page, "track")
    killed_shop.start()
    call(page, "track")
    for _ in range(1_500):
        if killed_shop.views("web-1") >= 17:
            break
        page.wait_for_timeout(20)
    assert (Counter(identify=1, track=17), 18, 17) == killed_shop.taken()
    shows(name, "server killed")


def test_what_waits_when_the_page_is_left_is_sent_by_beacon(serve, visit: Visit, shows: Shows):
    sdk = SDKS["@rudderstack/analytics-js"]
    with serve() as served:
        page = visit(sdk, served.url, "rudderstack-beacon")
        for _ in range(3):
            call(page, "track")
        assert {} == served.message_ids()
        page.goto("about:blank")
        arrived(page, served, 3)
        assert (Counter(track=3), 3, 3) == served.taken()
        assert 1 == served.answers(200, "/beacon/v1/batch")
    shows(sdk.name, "page left")
