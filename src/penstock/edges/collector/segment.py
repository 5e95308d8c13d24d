"""Segment's table: its paths, long and short, and the settings its browser SDK loads."""

from __future__ import annotations

from typing import Any

from penstock.core.event import RUDDERSTACK, SEGMENT
from penstock.edges.collector.door import Row, batch_row, single_row

LETTERS = {"identify": "i", "track": "t", "page": "p", "screen": "s", "group": "g", "alias": "a"}
"""The short form of each type in a path."""

SEGMENT_ROWS: tuple[Row, ...] = (
    *(single_row(f"/v1/{kind}", kind) for kind in LETTERS),
    *(single_row(f"/v1/{letter}", kind) for kind, letter in LETTERS.items()),
    # RudderStack's SDKs use these two paths as well, with batches of up to 4 MiB.
    batch_row("/v1/batch", "Take a batch of events", RUDDERSTACK),
    batch_row("/v1/import", "Take a batch of past events, as a job", RUDDERSTACK, imports=True),
    batch_row("/v1/b", "Take a batch of events from a browser", SEGMENT),
)
"""Segment's rows of the collector's table."""


def settings_body(key: str, base_url: str) -> dict[str, Any]:
    """Return the settings that Segment's browser SDK must load before it starts.

    Exactly one integration: a second would make it load scripts we do not serve.

    Args:
        key: The write key.
        base_url: How browsers reach this server.
    """
    scheme, _, rest = base_url.rstrip("/").rpartition("://")
    return {
        "integrations": {
            "Segment.io": {
                "apiKey": key,
                "apiHost": f"{rest}/v1",
                "protocol": scheme or "https",
            }
        },
        "plan": {"track": {"__default": {"enabled": True, "integrations": {}}}},
        "metrics": {"sampleRate": 0},
    }
