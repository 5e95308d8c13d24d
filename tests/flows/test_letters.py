"""Dead letters go in again: by today's definitions, with their own ids and consent, counted once."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests_serving import GRANTED, Shop, opened, view

from penstock.core.errors import Unavailable
from penstock.core.record import DeadLetter, decode_record
from penstock.flows.letters import Replayed, replay_letters
from penstock.flows.process import QUARANTINE_CODE
from penstock.project import Project, load_project

Play = Callable[..., Any]
BAD = {"type": "track", "event": "Order Completed", "userId": "u1", "properties": {"total": "lots"}}


def mended(shop: Shop, folder: Path) -> None:
    """Give the collector definitions by which the total of an order is a text."""
    path = folder / "events.py"
    path.write_text(
        'from penstock.dsl.events import event, string\n'
        'order_completed = event("Order Completed", total=string())\n'
        'product_viewed = event("Product Viewed", product_id=string())\n'
    )  # fmt: skip
    (folder / "features.py").write_text(
        "from events import order_completed, product_viewed\n"
        "from penstock.dsl.features import Profile, count, days, last_k\n\n\n"
        "class Shopper(Profile):\n    viewed = last_k(product_viewed.product_id, k=10)\n"
        "    bought = last_k(order_completed.total, k=10)\n"
        "    views_7d = count(product_viewed, over=days(7))\n"
    )
    catalog = load_project(folder).catalog
    collector = shop.node.collector
    collector.catalog = catalog
    collector.normalise = catalog.compile(collector.protector)


async def post(shop: Shop, path: str, body: dict[str, Any], **headers: str) -> dict[str, Any]:
    answer = await shop.http.post(path, json={"writeKey": "server-key", **body}, headers=headers)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def again(shop: Shop) -> Replayed:
    node = shop.node
    log = node.stores.log
    done = await replay_letters(
        node.collector, log, list(log.dead_letters()), node.sources, find_leaf=node.engine.find
    )
    await node.engine.settled()
    return done


def primaries(shop: Shop) -> list[Any]:
    records = [decode_record(one.value) for one in shop.node.stores.log.read(0, 0, 1_000)]
    return [one for one in records if one.kind == 1]


def test_a_letter_goes_in_by_corrected_definitions_with_its_own_id(
    play: Play, folder: Path
) -> None:
    async def story(shop: Shop) -> Any:
        await post(
            shop, "/v1/batch", {"batch": [BAD | {"messageId": "order-1", "context": GRANTED}]}
        )
        received = shop.clock.now_ms()
        refused = await again(shop)
        shop.clock.advance(days=2)
        mended(shop, folder)
        accepted = await again(shop)
        (one,) = primaries(shop)
        return refused, accepted, one, received, list(shop.node.stores.log.dead_letters())

    refused, accepted, one, received, left = play(story)
    assert refused == Replayed(0, {"E322": 1}, 0)
    assert accepted == Replayed(1, {}, 0)
    assert (one.message_id, one.properties["total"], one.received_at_ms) == (
        "order-1",
        "lots",
        received,
    )
    assert one.occurred_at_ms == received
    assert left == []


def test_a_letter_replayed_twice_counts_once_however_late(play: Play, folder: Path) -> None:
    async def story(shop: Shop) -> Any:
        await post(
            shop, "/v1/batch", {"batch": [BAD | {"messageId": "order-1", "context": GRANTED}]}
        )
        letters = list(shop.node.stores.log.dead_letters())
        mended(shop, folder)
        node = shop.node
        for _ in range(2):
            done = await replay_letters(
                node.collector, node.stores.log, letters, node.sources, find_leaf=node.engine.find
            )
            assert done.accepted == 1
            shop.clock.advance(days=30)
            await shop.send(
                {"type": "page", "userId": "u1", "messageId": f"p{shop.clock.now_ms()}"}
            )
        leaf = node.engine.find(node.collector.make_leaf("user_id", "u1"))
        return leaf.deduplicated

    assert play(story) == 1


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (
            "/v1/track",
            {key: value for key, value in BAD.items() if key != "type"} | {"context": GRANTED},
        ),
        ("/v1/batch", {"context": GRANTED, "sentAt": "2026-11-18T12:00:00Z", "batch": [BAD]}),
        ("/v1/batch", {"context": GRANTED, "batch": [BAD | {"context": {"locale": "en"}}]}),
        ("/v1/batch", {"batch": [BAD | {"context": GRANTED, "x": 1.50}]}),
    ],
    ids=["type in the path", "beside the batch", "context in both", "in the event"],
)
def test_a_letter_holds_all_that_was_said_beside_its_event(
    play: Play, folder: Path, path: str, body: dict[str, Any]
) -> None:
    async def story(shop: Shop) -> Any:
        answer = await post(shop, path, body)
        (letter,) = shop.node.stores.log.dead_letters()
        mended(shop, folder)
        done = await again(shop)
        (one,) = primaries(shop)
        return answer, letter, done, one

    answer, letter, done, one = play(story)
    assert answer["rejected"][0]["code"] == letter.reason == "E322"
    assert done == Replayed(1, {}, 0)
    assert one.evidence.granted == ("measurement", "personalisation")
    # An event without an id keeps the one that it was given at first.
    assert one.message_id == letter.message_id != ""


@pytest.mark.parametrize("where", ["header", "batch", "event", "unreadable"])
def test_what_consent_keeps_out_is_no_dead_letter_either(play: Play, where: str) -> None:
    denied = {"consent": {"categoryPreferences": {"personalisation": False, "measurement": False,
                                                  "analytics": False, "advertising": False}}}  # fmt: skip
    said = {"header": GRANTED, "event": denied, "unreadable": {"consent": "yes"}}

    async def story(shop: Shop) -> Any:
        headers = {"Sec-GPC": "1"} if where == "header" else {}
        answer = await post(
            shop, "/v1/batch",
            {"batch": [BAD | {"context": said.get(where, {})}], "context": denied if where == "batch" else {}},
            **headers,
        )  # fmt: skip
        count = shop.node.metrics.value(
            "penstock_events_discarded_total", reason="refused_without_consent"
        )
        return answer["rejected"][0]["code"], list(shop.node.stores.log.dead_letters()), count

    code, letters, count = play(story)
    assert code in {"E322", "E306"}  # its sender is told all the same
    assert (letters, count) == ([], 1)


def test_a_letter_leaves_behind_what_the_edge_would(play: Play) -> None:
    async def story(shop: Shop) -> Any:
        context = GRANTED | {"ip": "203.0.113.9", "userAgent": "canary"}
        await post(shop, "/v1/batch", {"batch": [BAD | {"context": context}]})
        (letter,) = shop.node.stores.log.dead_letters()
        return letter.body

    body = play(story)
    assert b"203.0.113.9" not in body
    assert b"canary" not in body
    assert b"categoryPreferences" in body


def test_a_quarantined_letter_is_left_and_a_source_that_is_gone_is_said(play: Play) -> None:
    async def story(shop: Shop) -> Any:
        log = shop.node.stores.log
        log.append(0, [], [
            DeadLetter(letter_id=name, source=source, received_at_ms=1, reason=reason, path="$",
                       what="w", message_id="m", body=body)
            for name, source, reason, body in (
                ("1", "backend", QUARANTINE_CODE, b"\x00"), ("fold-0-0-0", "backend", QUARANTINE_CODE, b"\x00"), ("2", "gone", "E322", b"{}"),
                ("3", "backend", "E300", b"{nonsense"), ("4", "backend", "E305", b'{"type":"x"}'),
            )
        ])  # fmt: skip
        return await again(shop), [one.letter_id for one in log.dead_letters()]

    done, left = play(story)
    assert done == Replayed(0, {"E364": 1, "E300": 1, "E305": 1}, 2)
    assert left == ["1", "fold-0-0-0", "2", "3", "4"]


def test_letters_of_a_quarantined_identifier_are_settled_when_the_applied_limit_lets_them_count(
    folder: Path,
) -> None:
    settings = folder / "penstock.toml"
    wide = settings.read_text()
    settings.write_text(wide.replace("[store]", "[store]\nleaf_bytes_max = 4096"))

    async def story() -> Any:
        async with opened(load_project(folder)) as shop:
            node, log = shop.node, shop.node.stores.log
            for number in range(6):
                await shop.send(
                    *(
                        view(f"p{n}", "u1", number=n)
                        for n in range(number * 100, number * 100 + 100)
                    )
                )
            aside = [one.message_id for one in log.dead_letters(reason=QUARANTINE_CODE)]
            head, first = log.head(0), await again(shop)
            settings.write_text(wide)
            node.versions.begin(node.load(load_project(folder)))
            ended = await node.versions.ended()
            assert ended is not None
            assert ended.error is None
            second, third = await again(shop), await again(shop)
            views = (await shop.read("/v1/profiles/user_id:u1"))["features"]["views_7d"]
            return aside, first, second, third, views, log.head(0) - head, log.counts()

    aside, first, second, third, views, appended, counts = asyncio.run(story())
    assert 0 < len(aside) < 600
    assert first == Replayed(0, {}, len(aside))
    assert second == Replayed(0, {}, 0, counted=len(aside))
    assert third == Replayed(0, {}, 0)
    # Every event counts once: the log's own record, and no second one.
    assert (views, appended) == (600, 0)
    assert counts["replayed"] == len(aside)


def test_a_log_that_fails_leaves_the_letter_pending(project: Project, folder: Path) -> None:
    async def story() -> Any:
        async with opened(project) as shop:
            await post(shop, "/v1/batch", {"batch": [BAD | {"context": GRANTED}]})
            mended(shop, folder)
            shop.clock.set_back(3_600_000)  # not ready: nothing may be stamped
            with pytest.raises(Unavailable):
                await again(shop)
            shop.clock.set_back(-3_600_000)
            pending = len(list(shop.node.stores.log.dead_letters()))
            return pending, (await again(shop)).accepted

    assert asyncio.run(story()) == (1, 1)


def test_what_a_letter_says_of_the_event_is_kept_as_it_was_written(play: Play) -> None:
    async def story(shop: Shop) -> Any:
        raw = (
            b'{"type":"track","event":"Order Completed","userId":"u1","properties":{"total":"lots",'
            b'"tax": 1.50, "shipping": 12345678901234567890123}, "messageId":"m"}'
        )
        await shop.http.post(
            "/v1/batch",
            content=b'{"writeKey":"server-key","context":'
            + msgspec.json.encode(GRANTED)
            + b',"batch":['
            + raw
            + b"]}",
        )
        (letter,) = shop.node.stores.log.dead_letters()
        return letter.body

    body = play(story)
    assert b'"tax":1.50,"shipping":12345678901234567890123' in body
