"""A small project on memory adapters, and its whole HTTP application on the test's own loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import httpx
import pytest

from penstock.application import make_app
from penstock.compose import Node, Stores, make_node, open_stores
from penstock.project import Project, load_project
from penstock.testing.clock import HandClock

NOW = 1_795_000_000_000
READ = {"Authorization": "Bearer read-key"}
GRANTED = {"consent": {"categoryPreferences": {"personalisation": True, "measurement": True}}}

FILES = {
    "penstock.toml": """
[project]
currency = "GBP"
[server]
read_keys = ["read-key"]
admin_key = "admin-key"
public_url = "https://mail.shop.example"
[log]
kind = "memory"
[store]
kind = "memory"
[email]
sender = "news@shop.example"
sender_name = "Shop"
topics = ["offers"]
[sources.web]
kind = "browser"
write_key = "web-key"
[sources.backend]
kind = "server"
write_key = "server-key"
[sources.crm]
kind = "server"
rank = 10
basis = { personalisation = "contract" }
""",
    "events.py": """
from penstock.dsl.events import integer, items, money, string, traits
from penstock.dsl.segment import email_link_clicked, email_opened, order_completed, product_viewed

people = traits(email=string(), first_name=string(), timezone=string())
catalogue = items(title=string(), url=string(), price=money(), category=string(), stock=integer())
""",
    "features.py": """
from events import order_completed, product_viewed
from penstock.dsl.features import Profile, count, days, each, last_k


class Shopper(Profile):
    viewed = last_k(product_viewed.product_id, k=10, distinct=True, over=days(30))
    bought = last_k(each(order_completed, "products").product_id, k=50, distinct=True)
    views_7d = count(product_viewed, over=days(7))
""",
    "audiences.py": """
from penstock.dsl.audiences import audience
from penstock.dsl.slots import feature

viewers = audience("viewers", when=feature("views_7d") > 0, topic="offers")
""",
    "slots.py": """
from penstock.dsl.slots import slot, viewed_not_bought

hero = slot(
    "hero",
    candidates=[viewed_not_bought(viewed="viewed", bought="bought")],
    fallback={"title": "New in", "url": "https://shop.example/new"},
)
""",
    "content/hero.liquid": '<a href="{{ item.url }}">{{ item.title }}</a>{% if item.price %} {{ item.price | money }}{% endif %}',
    "content/email.liquid": """<html><body><p>Hi {{ traits.first_name }}</p>{{ slots.hero.html }}
<a href="{{ unsubscribe_url }}">Unsubscribe</a></body></html>""",
    "campaigns/spring.toml": """
slots = ["hero"]
template = "email"
subject = "For you, {{ traits.first_name }}"
topic = "offers"
holdout_share = 0.0
uniform_share = 0.0
""",
    "campaigns/held.toml": """
slots = ["hero"]
template = "email"
subject = "x"
holdout_share = 1.0
""",
}  # fmt: skip

Result = TypeVar("Result")


class Shop(NamedTuple):
    """The running project as a test sees it."""

    node: Node
    http: httpx.AsyncClient
    clock: HandClock

    async def send(self, *events: dict[str, Any], key: str = "server-key") -> dict[str, Any]:
        """Send events through the collector and wait until they are folded."""
        batch = [{"context": GRANTED, **one} for one in events]
        answer = await self.http.post("/v1/batch", json={"batch": batch, "writeKey": key})
        assert answer.status_code == 200, answer.text
        await self.node.engine.settled()
        return answer.json()

    async def read(self, path: str, **params: Any) -> Any:
        """Return the JSON of a GET with the read key."""
        answer = await self.http.get(path, params=params, headers=READ)
        assert answer.status_code == 200, answer.text
        return answer.json()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A project's folder."""
    for name, text in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    return tmp_path


@pytest.fixture
def project(folder: Path) -> Project:
    """The project, loaded."""
    return load_project(folder)


@asynccontextmanager
async def opened(
    project: Project, change: Callable[[Stores], Stores] = lambda s: s
) -> AsyncIterator[Shop]:
    """Open the project for one story."""
    clock = HandClock(NOW)
    stores = change(open_stores(project, clock))
    node = make_node(project, stores, clock=clock)
    await node.start()
    transport = httpx.ASGITransport(app=make_app(node))  # type: ignore[arg-type]
    async with httpx.AsyncClient(transport=transport, base_url="http://shop") as http:
        yield Shop(node, http, clock)
    await node.close()
    stores.close()


@pytest.fixture
def play(project: Project) -> Callable[[Callable[[Shop], Awaitable[Result]]], Result]:
    """Run a story on a fresh shop."""

    def run(story: Callable[[Shop], Awaitable[Result]]) -> Result:
        async def main() -> Result:
            async with opened(project) as shop:
                return await story(shop)

        return asyncio.run(main())

    return run


def identify(user: str = "u1", device: str | None = "a1", email: str | None = "ann@example.com", number: int = 1,
             **traits: Any) -> dict[str, Any]:  # fmt: skip
    """An identify call."""
    return {"type": "identify", "messageId": f"i-{user}-{number}", "userId": user, "anonymousId": device,
            "traits": {**({"email": email} if email else {}), "first_name": "Ann", **traits}}  # fmt: skip


def view(
    product: str, user: str | None = "u1", device: str | None = None, number: int = 1
) -> dict[str, Any]:
    """A product view."""
    return {"type": "track", "event": "Product Viewed", "messageId": f"v-{product}-{user}-{device}-{number}",
            "userId": user, "anonymousId": device, "properties": {"product_id": product}}  # fmt: skip
