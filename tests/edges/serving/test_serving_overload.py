"""Serving while more is asked than can be decided."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import threading
from typing import Any

from tests_serving import Shop, identify, opened, view

from penstock.adapters.content.html_to_text import html_to_text
from penstock.adapters.decisions.memory import MemoryDecisions
from penstock.compose import make_links
from penstock.edges.serving.asks import ReadKeys, Recipient, who
from penstock.edges.serving.edge import (
    DECIDES_HURRIED_MAX,
    DECIDES_MAX,
    ServingEdge,
    ServingParts,
)


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


def edge_of(shop: Shop, hurried: list[bool]) -> ServingEdge:
    node = shop.node
    return ServingEdge(ServingParts(
        serving=node.editions, make_leaf=node.collector.make_leaf, links=make_links(node, "http://h"),
        read_keys=ReadKeys(["k"]), text_of_html=html_to_text, clock=node.clock, metrics=node.metrics,
        past=node.past, hurried=lambda: hurried[0],
    ))  # fmt: skip


def test_while_events_are_refused_few_are_decided_anew_and_what_was_decided_stands(project) -> None:
    async def story() -> tuple[list[Any], Any, Any]:
        decisions = Gated()
        decisions.gate.set()
        async with opened(
            project, lambda stores: dataclasses.replace(stores, decisions=decisions)
        ) as shop:
            hurried = [False]
            edge = edge_of(shop, hurried)
            await shop.send(identify(), view("p1"))
            ann = Recipient(user_id="u1")
            first = await edge.decide_in_time("spring", ann, "before", preview=False)
            await shop.send(view("p2", number=2))
            hurried[0] = True
            decisions.gate.clear()
            tasks = [
                asyncio.create_task(edge.decide_in_time("spring", ann, f"s{number}", preview=False))
                for number in range(DECIDES_HURRIED_MAX + 5)
            ]
            waiting = set(tasks)
            while len(waiting) > DECIDES_HURRIED_MAX:
                _, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            again = await edge.again("spring", ann, "before")
            decisions.gate.set()
            return [one.answer for one in await asyncio.gather(*tasks)], first, again

    answers, first, again = asyncio.run(story())

    assert all(answer.slots["hero"].items for answer in answers)
    assert ["fallback"] * 5 == [one.served for one in answers if one.reason == "overload"]
    assert again.decision_id == first.answer.decision_id
    assert again.slots == first.answer.slots


def test_while_events_are_refused_a_profile_may_be_as_last_known_and_says_so(play) -> None:
    async def story(shop: Shop) -> list[tuple[str, str, int]]:
        hurried = [False]
        edge = edge_of(shop, hurried)
        whom = who("user_id", "u1", shop.node.collector.make_leaf)
        told: list[tuple[str, str, int]] = []

        async def look() -> None:
            said = json.loads((await edge.profile(whom, None, None)).body)
            told.append((said["served"], said["reason"], said["features"]["views_7d"]))

        await shop.send(view("p1"))
        await look()
        await shop.send(view("p2", number=2))
        hurried[0] = True
        await look()
        hurried[0] = False
        await look()
        return told

    assert play(story) == [("live", "", 1), ("stale", "overload", 1), ("live", "", 2)]
