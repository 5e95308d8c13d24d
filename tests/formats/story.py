"""What happens in the shop whose files are kept: lived once by each version that wrote them, read for ever.

It calls nothing but the wiring and HTTP, so that a version of long ago can live it too.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx

from penstock.application import make_app
from penstock.compose import Node, make_node, open_stores
from penstock.project import load_project
from penstock.testing.clock import HandClock

BEGAN_MS = 1_795_000_000_000
"""When the story begins."""
ASKED_MS = BEGAN_MS + 3 * 86_400_000
"""When questions are asked, and their answers kept."""
PEOPLE = ("user_id:ann", "user_id:bob", "user_id:cleo", "user_id:dan", "anonymous_id:a9")
CAMPAIGN, SEND = "spring", "monday"
GRANTED = {"consent": {"categoryPreferences": {"personalisation": True, "measurement": True}}}
DENIED = {"consent": {"categoryPreferences": {"personalisation": False, "measurement": False}}}
ITEMS = [
    {"item_id": f"p{n}", "title": f"Product {n}", "url": f"https://shop.example/p{n}", "price": f"{n}.99",
     "category": ("shoes", "bags", "books")[n % 3], "stock": n}
    for n in range(1, 7)
]  # fmt: skip
KEPT = ("found", "features", "traits", "consent", "permitted", "identifiers")
"""What a profile is; the rest of the answer says how fresh it is, and by which definitions."""


class Shop(NamedTuple):
    """The running shop."""

    node: Node
    http: httpx.AsyncClient
    clock: HandClock

    async def send(self, *events: dict[str, Any], key: str = "server-key") -> None:
        """Send events and wait until they are folded."""
        batch = [{"context": GRANTED, **one} for one in events]
        answer = await self.http.post("/v1/batch", json={"batch": batch, "writeKey": key})
        assert answer.status_code == 200, answer.text
        await self.node.engine.settled()

    async def admin(self, path: str, body: dict[str, Any]) -> Any:
        """Return the JSON of an admin request."""
        headers = {"Authorization": "Bearer admin-key"}
        answer = await self.http.post(path, json=body, headers=headers)
        assert answer.status_code == 200, answer.text
        return answer

    async def read(self, path: str, **params: str) -> Any:
        """Return the JSON of a read."""
        answer = await self.http.get(path, params=params, headers={"Authorization": "Bearer read-key"})  # fmt: skip
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def answers(self) -> dict[str, Any]:
        """Return what is served: profiles, a decision, and how much was kept."""
        profiles = {who: await self.read(f"/v1/profiles/{who}") for who in PEOPLE}
        decided = await self.read(f"/v1/decide/{CAMPAIGN}", user_id="ann", send=SEND)
        log, decisions = self.node.stores.log, self.node.stores.decisions
        return {
            "profiles": {who: {name: one[name] for name in KEPT} for who, one in profiles.items()},
            "decision": {"id": decided["decision_id"], "slots": decided["slots"]},
            "sent": sorted(state.state for _, state in decisions.sends(CAMPAIGN, SEND)),
            "log": log.counts(),
            "letters": sorted(letter.reason for letter in log.dead_letters()),
        }


@asynccontextmanager
async def opened(folder: Path, now_ms: int) -> AsyncIterator[Shop]:
    """Open a shop for one story."""
    clock = HandClock(now_ms)
    project = load_project(folder)
    stores = open_stores(project, clock)
    try:
        node = make_node(project, stores, clock=clock)
        await node.start()
        transport = httpx.ASGITransport(app=make_app(node))  # type: ignore[arg-type]
        async with httpx.AsyncClient(transport=transport, base_url="http://shop") as http:
            yield Shop(node, http, clock)
        await node.close()
    finally:
        stores.close()


def track(name: str, number: int, user: str | None, device: str | None = None, **more: Any) -> dict[str, Any]:  # fmt: skip
    """A track call."""
    return {"type": "track", "event": name, "messageId": f"{name}-{number}-{user}-{device}", "userId": user,
            "anonymousId": device, **more}  # fmt: skip


async def live(shop: Shop) -> None:
    """A little of everything that is stored: each aggregate, links, consent, letters, sends."""
    await shop.admin("/v1/admin/load", {"kind": "items", "rows": ITEMS, "source": "crm", "job": "items"})  # fmt: skip
    for user in ("ann", "bob", "cleo"):
        traits = {"email": f"{user}@example.com", "first_name": user.title()}
        await shop.send({"type": "identify", "messageId": f"i-{user}", "userId": user, "anonymousId": f"a-{user}", "traits": traits})  # fmt: skip
    people = [{"user_id": "bob", "first_name": "Robert"}]
    await shop.admin("/v1/admin/load", {"kind": "people", "rows": people, "source": "crm", "job": "people"})  # fmt: skip
    for day in range(3):
        for n in range(1, 7):
            user = ("ann", "bob", "cleo")[n % 3]
            properties = {"product_id": f"p{n}", "category": ITEMS[n - 1]["category"]}
            await shop.send(
                track("Product Viewed", 10 * day + n, user, properties=properties),
                track("Product Viewed", 10 * day + n, None, f"a-{user}", properties=properties),
                track("Product Rated", 10 * day + n, user, properties={"product_id": f"p{n}", "stars": n, "weight": "0.5"}),
            )  # fmt: skip
            shop.clock.advance(seconds=400)
        await shop.send(track("Product Added", day, "ann", properties={"product_id": "p3"}))
        shop.clock.advance(hours=1)
        order = {"order_id": f"o{day}", "total": "19.98", "currency": "GBP", "products": [{"product_id": "p3"}]}  # fmt: skip
        await shop.send(track("Order Completed", day, "ann", properties=order))
        shop.clock.advance(hours=15)
    await shop.send(
        {"type": "track", "event": "Segment Consent Preference Updated", "messageId": "w", "userId": "bob", "context": DENIED},
        track("Product Viewed", 99, "dan", properties={"product_id": "p1"}, context=DENIED),
        track("Product Viewed", 1, None, "a9", properties={"product_id": "p2"}),
        track("Product Viewed", 2, "ann", properties={"product_id": ["no", "text"]}),
    )  # fmt: skip
    await shop.send(track("Product Viewed", 7, "ann", "a9", properties={"product_id": "p5"}), key="web-key")  # fmt: skip
    await shop.read(f"/v1/decide/{CAMPAIGN}", user_id="ann", send=SEND)
    await shop.admin("/v1/admin/sends", {"campaign": CAMPAIGN, "send": SEND})
    shop.clock.advance(seconds=1)
    # What a register keeps beneath the one that stands: a lower rank, heard after the withdrawal.
    await shop.send(
        {
            "type": "identify",
            "messageId": "i-bob-2",
            "userId": "bob",
            "traits": {"first_name": "Bobby"},
        }
    )
    await shop.send({"type": "track", "event": "Unsubscribed", "messageId": "un", "userId": "cleo"})
    shop.clock.advance(ASKED_MS - shop.clock.now_ms())
