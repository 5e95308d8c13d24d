"""Serving while more is asked than can be decided."""

from __future__ import annotations

import asyncio
import dataclasses
import threading
from typing import Any

from tests_serving import identify, opened, view

from penstock.adapters.decisions.memory import MemoryDecisions
from penstock.edges.serving.routes import DECIDES_MAX


class Gated(MemoryDecisions):
    """A decision store whose writes wait for the test."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Event()

    def put_if_absent(self, items):
        assert self.gate.wait(10), "the test opens the gate"
        return super().put_if_absent(items)


def test_while_too_many_wait_for_a_decision_the_others_get_content_at_once(project) -> None:
    async def story() -> list[Any]:
        decisions = Gated()
        async with opened(
            project, lambda stores: dataclasses.replace(stores, decisions=decisions)
        ) as shop:
            await shop.send(identify(), view("p1"))
            tasks = [
                asyncio.create_task(shop.read("/v1/decide/spring", user_id="u1", send=f"s{number}"))
                for number in range(DECIDES_MAX + 5)
            ]
            waiting = set(tasks)
            while len(waiting) > DECIDES_MAX:
                _, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            decisions.gate.set()
            return list(await asyncio.gather(*tasks))

    answers = asyncio.run(story())

    assert all(answer["ok"] and answer["slots"]["hero"]["items"] for answer in answers)
    assert ["fallback"] * 5 == [one["served"] for one in answers if one["reason"] == "overload"]
