"""Sends the shop's events over HTTP, as its sites and servers would, and measures how fresh answers are."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import httpx

from examples.shop.synthetic import Product, Sent
from penstock.core.time import format_instant

WRITE_KEYS = {"web": "demo-web-key", "backend": "demo-server-key"}
READ = {"Authorization": "Bearer demo-read-key"}
ADMIN = {"Authorization": "Bearer demo-admin-key"}
CONSENT = {"consent": {"categoryPreferences": {"personal": True, "statistics": True}}}

BATCH_EVENTS = 100
CONNECTIONS = 4
FRESH_WITHIN_S = 5.0
"""A view that no answer shows by then is a broken promise."""


class Intake(NamedTuple):
    """What became of the events that were sent."""

    events: int
    refused: int
    batches: int
    elapsed_s: float


class Visitor(NamedTuple):
    """A shopper who is watched: who they are, and what they look at."""

    user: str
    device: str
    email: str
    name: str
    product: Product


class Probe(NamedTuple):
    """One view and how soon an answer showed it."""

    visitor: Visitor
    accepted_ms: float
    """From the request until the 200: the event is durable."""
    served_ms: float
    """From the 200 until the first answer that shows it."""
    asked: int


class Late(AssertionError):
    """A view that did not show in time."""


def batches(events: Sequence[Sent]) -> Iterator[bytes]:
    """Yield the bodies of `/v1/batch` calls, ready to send: events of one source, in their order."""
    waiting: dict[str, list[dict[str, Any]]] = {source: [] for source in WRITE_KEYS}
    for one in events:
        waiting[one.source].append(one.body)
        if len(waiting[one.source]) == BATCH_EVENTS:
            yield _body(one.source, waiting[one.source])
            waiting[one.source] = []
    for source, rest in waiting.items():
        if rest:
            yield _body(source, rest)


def _body(source: str, events: list[dict[str, Any]]) -> bytes:
    return json.dumps({"writeKey": WRITE_KEYS[source], "batch": events}).encode()


async def send_all(
    url: str, events: Sequence[Sent], *, events_per_s: int, progress: Callable[[int], None]
) -> Intake:
    """Send events through the collector, at a pace, over a few connections.

    Args:
        url: The engine's.
        events: In the order in which they are sent.
        events_per_s: The pace; slower if the engine says so.
        progress: Told after each batch how many events were accepted or refused so far.

    Raises:
        httpx.HTTPStatusError: The engine answered neither 200 nor 429.
    """
    bodies = list(batches(events))
    queue = iter(enumerate(bodies))
    start = time.perf_counter()
    done = refused = 0

    async def work(http: httpx.AsyncClient) -> None:
        nonlocal done, refused
        for number, body in queue:
            due = start + number * BATCH_EVENTS / events_per_s
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            answer = await post(http, "/v1/batch", body)
            refused += len(answer.get("rejected", []))
            done += BATCH_EVENTS
            progress(min(done, len(events)))

    async with httpx.AsyncClient(base_url=url, timeout=30) as http, asyncio.TaskGroup() as group:
        for _ in range(CONNECTIONS):
            group.create_task(work(http))
    return Intake(len(events), refused, len(bodies), time.perf_counter() - start)


async def post(http: httpx.AsyncClient, path: str, body: bytes) -> Any:
    """Send a body until it is accepted; an engine that is full says when to come back."""
    while True:
        answer = await http.post(path, content=body, headers={"Content-Type": "application/json"})
        if answer.status_code != httpx.codes.TOO_MANY_REQUESTS:
            answer.raise_for_status()
            return answer.json()
        await asyncio.sleep(int(answer.headers["Retry-After"]))


def sign_in(visitor: Visitor, at_ms: int) -> Sent:
    """Return the event by which the shop's server says who uses a device."""
    return Sent("backend", at_ms, {
        "type": "identify", "messageId": f"{visitor.user}-in", "timestamp": format_instant(at_ms),
        "userId": visitor.user, "anonymousId": visitor.device, "context": CONSENT,
        "traits": {"email": visitor.email, "first_name": visitor.name},
    })  # fmt: skip


async def probe(http: httpx.AsyncClient, campaign: str, visitor: Visitor, at_ms: int) -> Probe:
    """Have a visitor view a product, and ask until an answer shows it.

    The answers are previews: they record nothing. A preview is drawn by lot for the share of people
    that the campaign explores with, like the real one, so each question draws anew.

    Raises:
        Late: No answer showed it in time.
    """
    view = json.dumps({
        "writeKey": WRITE_KEYS["web"], "type": "track", "event": "Product Viewed",
        "messageId": f"{visitor.user}-view", "timestamp": format_instant(at_ms),
        "anonymousId": visitor.device, "userId": visitor.user, "context": CONSENT,
        "properties": {"product_id": visitor.product.product_id, "category": visitor.product.category,
                       "name": visitor.product.title, "price": float(visitor.product.price),
                       "currency": "GBP"},
    }).encode()  # fmt: skip
    start = time.perf_counter()
    await post(http, "/v1/track", view)
    accepted = time.perf_counter()
    asked = 0
    while time.perf_counter() - accepted < FRESH_WITHIN_S:
        asked += 1
        params = {"user_id": visitor.user, "preview": 1, "send": f"probe-{asked}"}
        answer = await http.get(f"/v1/decide/{campaign}", params=params, headers=READ)
        if shown(answer.json(), visitor.product):
            served = time.perf_counter()
            return Probe(visitor, (accepted - start) * 1000, (served - accepted) * 1000, asked)
    raise Late(f"{visitor.product.title} did not show within {FRESH_WITHIN_S:.0f} s")


def shown(answer: dict[str, Any], product: Product) -> bool:
    """Return whether an answer's hero is a product."""
    items = answer["slots"]["hero"]["items"]
    return bool(items) and items[0].get("title") == product.title


def percentile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that at least a share of all values do not exceed."""
    ranked = sorted(values)
    return ranked[min(len(ranked) - 1, int(len(ranked) * share))]
