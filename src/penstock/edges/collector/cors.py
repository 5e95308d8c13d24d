"""What browsers need to hear before they send events from another origin."""

from __future__ import annotations

from penstock.edges.asgi import Answer

MAX_AGE_S = 7200
"""Chromium's own cap: a preflight is asked once in two hours."""

ALLOWED_HEADERS = (
    "authorization", "content-type", "content-encoding", "anonymousid", "sentat", "x-retry-count",
    "x-write-key", "rsa-retry-attempt", "rsa-since-last-attempt", "rsa-since-first-attempt",
    "rsa-retry-reason", "rsa-recovered", "x-enable-debug", "x-ip-policy",
)  # fmt: skip
"""Named one by one: a wildcard does not cover `Authorization`."""

_PREFLIGHT = (
    (b"access-control-allow-methods", b"GET, POST, OPTIONS"),
    (b"access-control-max-age", b"%d" % MAX_AGE_S),
)
_NAMES = frozenset(ALLOWED_HEADERS)
_ASKED_MAX = 40


def cors_headers(origin: bytes) -> tuple[tuple[bytes, bytes], ...]:
    """Return the headers that let a page of this origin read an answer, refusals included.

    Without them a browser shows its SDK a network failure where there was a clear 400, and the SDK
    retries what can never succeed. `Retry-After` is unreadable unless it is exposed.
    """
    if not origin:
        return ()
    return (
        (b"access-control-allow-origin", origin),
        (b"access-control-allow-credentials", b"true"),
        (b"access-control-expose-headers", b"retry-after"),
        (b"vary", b"origin"),
    )


def preflight(origin: bytes, asked: bytes) -> Answer:
    """Return the answer to a preflight: no authentication, any origin.

    Which origins a key may be used from is judged when the key is shown.

    Args:
        origin: The page's origin.
        asked: The header names it wants to send; RudderStack's vary by version.
    """
    names: list[str] = list(ALLOWED_HEADERS)
    for name in asked.decode("latin-1").lower().split(",")[:_ASKED_MAX]:
        stripped = name.strip()
        if stripped.startswith("rsa-") and stripped not in _NAMES:
            names.append(stripped)
    allowed = (b"access-control-allow-headers", ", ".join(names).encode("latin-1"))
    return Answer(204, b"", (*cors_headers(origin), allowed, *_PREFLIGHT))
