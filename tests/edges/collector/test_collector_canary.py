"""Laws: what a person sent is in no answer, log line or metric, whatever shape the request has."""

import asyncio
import gzip
import json
import logging

from hypothesis import given
from hypothesis import strategies as st

CANARY = "canary7f3a"

texts = st.text(max_size=6).map(lambda text: f"{CANARY}{text}")
keys = st.sampled_from(
    ["label", "email", "product_id", "price", "quantity", "id", CANARY, f"{CANARY}.x"]
)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3),
    max_leaves=8,
)
FIELDS = [
    "event", "userId", "anonymousId", "previousId", "groupId", "name", "category", "properties",
    "traits", "context", "timestamp", "originalTimestamp", "sentAt", "integrations", "writeKey", CANARY,
]  # fmt: skip
TYPES = ["identify", "track", "page", "screen", "group", "alias", CANARY]
consents = st.fixed_dictionaries(
    {"consent": st.fixed_dictionaries({"categoryPreferences": values})}
)
events = st.fixed_dictionaries(
    {"type": st.sampled_from(TYPES)},
    optional=dict.fromkeys(FIELDS, values)
    | {
        "event": st.sampled_from(["Product Viewed", "Unsubscribed"]) | values,
        "context": consents | st.fixed_dictionaries({"externalIds": values}) | values,
    },
)
paths = st.sampled_from(["/v1/track", "/v1/identify", "/v1/g", "/v1/a"])


class Lines(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))


def damage(raw: bytes, how: int) -> bytes:
    """Return the bytes cut, zipped, zipped and cut, or as they are."""
    if how == 1:
        return raw[: len(raw) // 2]
    if how == 2:
        return gzip.compress(raw, mtime=0)
    if how == 3:
        return gzip.compress(raw, mtime=0)[:-5]
    return raw


def seen(collecting, requests) -> str:
    """Send requests; return all that anybody but the log's reader gets to see."""

    async def ask() -> str:
        shown = []
        async with collecting() as shop:
            for path, body, more in requests:
                response = await shop.send(path, body, **more)
                assert response.status_code in {200, 400}
                shown += [response.text, str(response.headers)]
            shown.append(shop.metrics.exposition().decode())
            shown += [f"{letter.what} {letter.path} {letter.reason}" for letter in shop.letters()]
        return "\n".join(shown)

    lines = Lines()
    root = logging.getLogger("penstock")
    root.addHandler(lines)
    root.setLevel(logging.DEBUG)
    try:
        return asyncio.run(ask()) + "\n".join(lines.lines)
    finally:
        root.removeHandler(lines)
        root.setLevel(logging.NOTSET)


@given(st.lists(events, min_size=1, max_size=4), paths, st.integers(0, 3))
def test_law_no_value_of_an_event_is_ever_shown(collecting, batch, path, how):
    single = damage(json.dumps(batch[0]).encode(), how)
    whole = damage(json.dumps({"batch": batch, "context": {"x": CANARY}}).encode(), how)
    requests = [(path, single, {}), ("/v1/batch", whole, {}), ("/v1/import", whole, {})]
    assert CANARY not in seen(collecting, requests)


@given(st.sampled_from(["authorization", "x-write-key", "content-encoding", "x-anything"]), paths)
def test_law_no_header_or_query_is_ever_shown(collecting, header, path):
    event = json.dumps({"userId": CANARY}).encode()
    requests = [
        (path, event, {"headers": {header: f"Basic {CANARY}"}, "key": ""}),
        (f"{path}?writeKey={CANARY}", event, {"key": ""}),
        (f"/v1/import?job={CANARY}%20", b'{"batch":[]}', {}),
    ]
    assert CANARY not in seen(collecting, requests)
