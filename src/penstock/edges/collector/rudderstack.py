"""RudderStack's table: beacons, pixels, and the configuration its SDKs load before they start.

What its SDKs share with Segment's (`/v1/identify`, …, `/v1/batch`, `/v1/import`) stands in Segment's
table.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl, urlsplit

import msgspec

from penstock.core.errors import EventRejected
from penstock.core.event import RUDDERSTACK
from penstock.edges.collector.door import Headers, Row, batch_row, single_row
from penstock.edges.collector.keys import WriteKey
from penstock.edges.collector.segment import LETTERS

SOURCE_CONFIG_PATH = "/sourceConfig"

RUDDERSTACK_ROWS: tuple[Row, ...] = (
    batch_row("/beacon/v1/batch", "Take a batch that a page sends as it is left", RUDDERSTACK),
    *(single_row(f"/beacon/v1/{kind}", kind) for kind in LETTERS),
)
"""RudderStack's rows of the collector's table, beside those it shares with Segment."""

PIXEL_ROWS: tuple[Row, ...] = tuple(single_row(f"/pixel/v1/{kind}", kind) for kind in LETTERS)
"""Paths that take one event as the query of an image, and answer with that image."""

PIXEL = (
    b"GIF89a\x01\x00\x01\x00\x80\x00\x00\x00\x00\x00\xff\xff\xff!\xf9\x04\x01\x00\x00\x00\x00,"
    b"\x00\x00\x00\x00\x01\x00\x01\x00\x00\x02\x02D\x01\x00;"
)
"""A transparent GIF of one by one pixels, 43 bytes."""

QUERY_FIELDS_MAX = 200
PATH_DEPTH_MAX = 8


def source_config(key: WriteKey) -> dict[str, Any]:
    """Return what RudderStack's SDKs must load before they start.

    No destination: they would load scripts that we do not serve. No statistics: they would be sent
    to RudderStack.

    Args:
        key: The key of a source of kind `browser`.
    """
    return {
        "source": {
            "id": key.source.name,
            "name": key.source.name,
            "writeKey": key.key,
            "enabled": True,
            "config": {
                "statsCollection": {"errors": {"enabled": False}, "metrics": {"enabled": False}}
            },
            "destinations": [],
            "connections": [],
        },
    }


def pixel_body(query: bytes, message_id: str) -> bytes:
    """Return the JSON of the event that a pixel's query spells.

    A dotted name is a path: `properties.price=5` is the property `price`. All values are texts; of
    the preferences of `context.consent` the texts `true` and `false` are what they say. An
    image is loaded once for each time it is to count, and two loads look the same: an event without
    `messageId` gets the one given here, not one derived from its bytes.

    Args:
        query: The raw query of the request.
        message_id: The message id of an event that brings none.

    Raises:
        EventRejected: It has too many fields or too deep a name (E381), or one name for a value and
            for an object (E382).
    """
    event: dict[str, Any] = {}
    try:
        pairs = parse_qsl(query.decode("latin-1"), max_num_fields=QUERY_FIELDS_MAX)
    except ValueError:
        raise _too_many() from None
    for name, value in pairs:
        if name.lower() != "writekey":
            _put(event, name.split("."), value)
    # Some tools put the id into quotes, since they fill templates with JSON.
    anonymous_id = event.get("anonymousId")
    if isinstance(anonymous_id, str):
        event["anonymousId"] = anonymous_id.strip('"')
    event.setdefault("messageId", message_id)
    return msgspec.json.encode(event)


def pixel_headers(headers: Headers) -> Headers:
    """Return a pixel's headers with an `Origin`: images are asked for without one.

    Where there is none the page's address is asked, so that a key that is bound to origins works in
    pixels, too.
    """
    if b"origin" in headers:
        return headers
    try:
        page = urlsplit(headers.get(b"referer", b"").decode("latin-1"))
    except ValueError:
        return headers
    if not page.scheme or not page.netloc:
        return headers
    return {**headers, b"origin": f"{page.scheme}://{page.netloc}".encode("latin-1")}


def _put(event: dict[str, Any], path: list[str], value: str) -> None:
    """Set a value at a path of an event, unless one is there: of two equal names the first counts."""
    if len(path) > PATH_DEPTH_MAX:
        raise _too_many()
    place = event
    for name in path[:-1]:
        inner = place.setdefault(name, {})
        if not isinstance(inner, dict):
            raise _two_kinds()
        place = inner
    if isinstance(place.setdefault(path[-1], value), dict):
        raise _two_kinds()


def _too_many() -> EventRejected:
    return EventRejected("E381", f"a pixel's query has more than {QUERY_FIELDS_MAX} fields, or a name of "
                         f"more than {PATH_DEPTH_MAX} parts", where="query",
                         fix="send fewer, or send the event as JSON")  # fmt: skip


def _two_kinds() -> EventRejected:
    return EventRejected("E382", "a pixel's query uses one name for a value and for an object",
                         where="query", fix="send `properties.price=5`, not also `properties=…`")  # fmt: skip
