"""segment-analytics-python, unmodified, against a real server: each event once in log and profile."""

from collections import Counter

import pytest
from segment.analytics.client import Client

KEY = "wk-server"
ROUND = ("identify", "track", "page", "screen", "group", "alias")


def drive(served, *, gzip: bool = False, rounds: int = 1, upload_size: int = 100) -> Counter[str]:
    """Make one call of each kind a round; return the message ids sent."""
    failures: list[object] = []
    client = Client(
        KEY, host=served.url, gzip=gzip, upload_size=upload_size, upload_interval=0.05,
        on_error=lambda error, batch: failures.append(error),
    )  # fmt: skip
    sent: Counter[str] = Counter()
    for number in range(rounds):
        user = f"py-user-{number}"
        ids = {kind: f"py-{kind}-{number}" for kind in ROUND}
        client.identify(
            user,
            {"email": f"py-{number}@example.com", "firstName": "Zoë"},
            message_id=ids["identify"],
        )
        client.track(
            user,
            "Product Viewed",
            {"product_id": "sku-1", "price": 12.5, "currency": "EUR"},
            message_id=ids["track"],
        )
        client.page(user, "shop", "Home", {"path": "/"}, message_id=ids["page"])
        client.screen(user, "app", "Basket", message_id=ids["screen"])
        client.group(user, "g-1", {"plan": "pro"}, message_id=ids["group"])
        client.alias(f"py-before-{number}", user, message_id=ids["alias"])
        sent.update(ids.values())
    client.flush()
    client.shutdown()
    assert [] == failures
    return sent


@pytest.mark.parametrize("gzip", [False, True])
def test_every_call_is_in_the_log_and_in_the_profile_once(serve, gzip):
    with serve() as served:
        sent = drive(served, gzip=gzip, rounds=3)
        assert sent == served.message_ids()
        assert Counter(ROUND * 3) == Counter(record.type for record in served.primaries())
        assert 18 == served.applied()
        assert [1, 1, 1] == served.views()
        track = next(record for record in served.primaries() if record.type == "track")
        assert ("Product Viewed", {"product_id": "sku-1", "price": [1250, "EUR"]}, True) == (
            track.name, track.properties, track.verified,
        )  # fmt: skip
        identify = next(record for record in served.primaries() if record.type == "identify")
        assert {"email": "py-0@example.com", "firstName": "Zoë"} == identify.traits


def test_429_is_waited_out_and_the_events_arrive_once(serve):
    with serve(requests_per_s_per_key=1) as served:
        sent = drive(served, rounds=2, upload_size=6)
        assert sent == served.message_ids()
        assert 12 == served.applied()
        assert served.answers(429) >= 1
        assert 2 == served.answers(200)


def test_503_is_retried_and_the_events_arrive_once(serve):
    with serve() as served:
        served.log.failures = 1
        sent = drive(served)
        assert sent == served.message_ids()
        assert 6 == served.applied()
        assert (1, 1) == (served.answers(503), served.answers(200))


def test_events_that_were_kept_before_a_503_are_applied_once(serve):
    with serve() as served:
        served.suppressions.failures = 1
        client = Client(KEY, host=served.url, upload_interval=0.05)
        client.track("py-user", "Unsubscribed", {}, message_id="py-unsubscribe")
        client.track("py-user", "Product Viewed", {"product_id": "sku-1"}, message_id="py-view")
        client.flush()
        client.shutdown()
        assert {"py-unsubscribe": 2, "py-view": 2} == served.message_ids()
        assert (2, 2) == (served.applied(), served.deduplicated())
        assert [1] == served.views()
        assert (1, 1) == (served.answers(503), served.answers(200))


def test_a_wrong_key_is_final(serve):
    failures = []
    with serve() as served:
        client = Client(
            "wk-other", host=served.url, upload_interval=0.05,
            on_error=lambda error, batch: failures.append((error.status, error.code)),
        )  # fmt: skip
        client.track("py-user", "Product Viewed", {"product_id": "sku-1"})
        client.flush()
        client.shutdown()
        assert [(400, "E371")] == failures
        assert 1 == served.answers(400)
