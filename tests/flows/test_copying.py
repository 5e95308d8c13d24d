"""Records of other producers are in the log once, or dead letters with their place, and hold up nobody."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests_serving import GRANTED, NOW, Shop, opened

from penstock.adapters.registry.memory import MemoryRegistry
from penstock.core.errors import Unavailable
from penstock.core.foreign import EventMapping, Foreign, Place, compile_mapper, place_in
from penstock.core.record import DeadLetter, decode_record
from penstock.core.wire import frame
from penstock.flows.copying import Copied, Copier, PlainReader
from penstock.flows.decoding import RETRY_MS_MIN, Schemas, compile_json, schema_at, schema_place
from penstock.ports.registry import Schema
from penstock.project import Project

VIEWS = {
    "Product Viewed": EventMapping(user_id="user", timestamp="at", fields={"product_id": "sku"})
}


def record(
    offset: int, value: object, *, partition: int = 0, schema_id: int | None = None
) -> Foreign:
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    raw = raw if schema_id is None else frame(schema_id, raw)
    return Foreign("shop.views", "T1", partition, offset, NOW, None, None if value is None else raw)


def view(offset: int, **more: Any) -> dict[str, Any]:
    return {"user": f"u{offset % 3}", "sku": f"p{offset}", "at": NOW, **more}


def copier(
    shop: Shop, reader: Any = None, *, source: str = "crm", job: str = "",
    mappings: Mapping[str, EventMapping] = VIEWS,
) -> Copier:  # fmt: skip
    node = shop.node
    mapper = compile_mapper(mappings, node.collector.catalog, "connect.views")
    return Copier("views", node.sources[source], reader=reader or PlainReader(), mapper=mapper,
                  collector=node.collector, metrics=node.metrics, job=job)  # fmt: skip


def events(shop: Shop) -> list[Any]:
    log = shop.node.stores.log
    return [decode_record(one.value) for one in log.read(0, 0, 10_000)]


def letters(shop: Shop) -> list[DeadLetter]:
    return list(shop.node.stores.log.dead_letters())


class Away(MemoryRegistry):
    """A registry that can be away; it counts how often it is asked."""

    def __init__(self) -> None:
        super().__init__()
        self.away = False
        self.asked = 0

    def schema(self, schema_id: int) -> Schema | None:
        self.asked += 1
        if self.away:
            raise Unavailable("E490", "it is away", fix="wait")
        return super().schema(schema_id)


def schemas(shop: Shop, registry: Away, park_after_ms: int = 5_000) -> Schemas:
    async def sleep(seconds: float) -> None:
        shop.clock.advance(round(seconds * 1_000))

    return Schemas(registry, "JSON", compile_json, park_after_ms=park_after_ms, clock=shop.clock,
                   metrics=shop.node.metrics, sleep=sleep)  # fmt: skip


@pytest.mark.anyio
async def test_a_record_is_an_event_with_the_message_id_of_its_place(project: Project) -> None:
    async with opened(project) as shop:
        assert Copied(accepted=1) == await copier(shop).copy([record(17, view(17), partition=3)])
        (event,) = events(shop)
        assert ("views:T1:3:17", "Product Viewed", "crm", NOW) == (
            event.message_id, event.name, event.source, event.occurred_at_ms,
        )  # fmt: skip
        assert event.properties["product_id"] == "p17"


@pytest.mark.anyio
async def test_records_read_again_are_counted_once(project: Project) -> None:
    async with opened(project) as shop:
        records = [record(number, view(number)) for number in range(9)]
        for batch in (records[:5], records[2:7], records):
            await copier(shop).copy(batch)
        await shop.node.engine.settled()
        profile = await shop.read("/v1/profiles/user_id:u1")
        assert 3 == profile["features"]["views_7d"]
        assert [] == letters(shop)


@pytest.mark.anyio
async def test_a_job_remembers_for_good(project: Project) -> None:
    async with opened(project) as shop:
        mapping = {"Product Viewed": EventMapping(user_id="user")}
        records = [record(number, {"user": "u1", "product_id": "p"}) for number in range(3)]
        for days in (0, 4):
            shop.clock.advance(days=days)
            await copier(shop, mappings=mapping, job="copied-again").copy(records)
        await shop.node.engine.settled()
        assert 3 == (await shop.read("/v1/profiles/user_id:u1"))["features"]["views_7d"]


@pytest.mark.anyio
async def test_an_event_that_brings_a_message_id_keeps_it(project: Project) -> None:
    async with opened(project) as shop:
        mapping = {"Product Viewed": EventMapping(user_id="user", message_id="id")}
        await copier(shop, mappings=mapping).copy(
            [record(1, view(1, id="mine")), record(2, view(2))]
        )
        assert ["mine", "views:T1:0:2"] == [one.message_id for one in events(shop)]


@pytest.mark.anyio
async def test_poison_is_a_dead_letter_with_its_place_and_holds_up_nobody(project: Project) -> None:
    async with opened(project) as shop:
        poison = [
            record(0, b"\xff\xfe"), record(1, b"[1,"), record(2, "text"), record(3, view(3, at=[])),
            record(4, view(4, user="x" * 600)), record(5, {"sku": "p"}), record(6, view(6, sku={"a": 1})),
            record(7, view(7)), record(8, view(8, sku="x" * 40_000)),
        ]  # fmt: skip
        assert Copied(accepted=1, refused=8) == await copier(shop).copy(poison)
        assert ["p7"] == [one.properties["product_id"] for one in events(shop)]
        found = {place_in(one.letter_id): one.reason for one in letters(shop)}
        assert {
            Place("views", "shop.views", "T1", 0, offset): reason
            for offset, reason in ((0, "E331"), (1, "E331"), (2, "E340"), (3, "E334"), (4, "E310"), (5, "E340"),
                                   (6, "E322"), (8, "E302"))
        } == found  # fmt: skip
        # Read again, they are the same letters.
        await copier(shop).copy(poison)
        assert 8 == len(letters(shop))


@pytest.mark.anyio
async def test_of_who_did_not_consent_a_letter_keeps_its_place_and_nothing_else(
    project: Project,
) -> None:
    async with opened(project) as shop:
        await copier(shop, source="backend").copy(
            [record(1, view(1, at=7)), record(2, view(2, at="never"))]
        )
        (letter,) = letters(shop)
        assert ("E311", b"") == (letter.reason, letter.body)
        assert [] == events(shop)


@pytest.mark.anyio
async def test_tombstones_and_what_no_mapping_wants_are_left_out(project: Project) -> None:
    async with opened(project) as shop:
        mapping = {"Product Viewed": EventMapping(when={"kind": "view"}, user_id="user")}
        records = [record(1, None), record(2, view(2, kind="other")), record(3, view(3, kind="view"))]  # fmt: skip
        assert Copied(accepted=1, left_out=2) == await copier(shop, mappings=mapping).copy(records)
        assert [] == letters(shop)


@pytest.mark.anyio
async def test_events_of_the_segment_spec_are_taken_as_they_are(project: Project) -> None:
    async with opened(project) as shop:
        node = shop.node
        plain = Copier("site", node.sources["backend"], reader=None, mapper=None, collector=node.collector,
                       metrics=node.metrics)  # fmt: skip
        sent = {"type": "track", "event": "Product Viewed", "userId": "u1", "context": GRANTED,
                "properties": {"product_id": "p1"}}  # fmt: skip
        records = [record(1, sent), record(2, {**sent, "messageId": "mine"}), record(3, b"no")]
        assert Copied(accepted=2, refused=1) == await plain.copy(records)
        assert ["site:T1:0:1", "mine"] == [one.message_id for one in events(shop)]
        assert ["E300"] == [one.reason for one in letters(shop)]


# ---------------------------------------------------------------------------------- the registry


@pytest.mark.anyio
async def test_a_schema_is_asked_for_once(project: Project) -> None:
    async with opened(project) as shop:
        registry = Away()
        schema_id = registry.register("views-value", Schema("JSON", "{}"))
        copying = copier(shop, schemas(shop, registry))
        for number in range(5):
            await copying.copy([record(number, view(number), schema_id=schema_id)])
        registry.away = True
        assert Copied(accepted=1) == await copying.copy([record(9, view(9), schema_id=schema_id)])
        assert 1 == registry.asked


@pytest.mark.anyio
async def test_a_schema_that_comes_within_the_deadline_is_waited_for(project: Project) -> None:
    async with opened(project) as shop:
        registry = Away()

        async def register(_: float) -> None:
            shop.clock.advance(100)
            if registry.asked == 3:
                registry.register("views-value", Schema("JSON", "{}"))

        reader = Schemas(registry, "JSON", compile_json, park_after_ms=5_000, clock=shop.clock,
                         metrics=shop.node.metrics, sleep=register)  # fmt: skip
        assert Copied(accepted=1) == await copier(shop, reader).copy(
            [record(1, view(1), schema_id=1)]
        )


@pytest.mark.anyio
async def test_records_are_parked_and_come_back_with_their_message_ids(project: Project) -> None:
    async with opened(project) as shop:
        registry = Away()
        registry.register("views-value", Schema("JSON", "{}"))
        registry.away = True
        records = {number: record(number, view(number), schema_id=1) for number in range(6)}
        plain = record(9, view(9), schema_id=1)
        copying = copier(shop, schemas(shop, registry))
        log = shop.node.stores.log
        began = shop.clock.monotonic_ms()

        assert Copied(parked=3) == await copying.copy([records[0], records[1], records[2]])
        waited = shop.clock.monotonic_ms() - began
        assert Copied(parked=3) == await copying.copy([records[3], records[4], records[5]])
        assert (
            waited == shop.clock.monotonic_ms() - began == 5_000
        )  # who is away is waited for once

        def read(places: Sequence[Place]) -> list[Foreign | None]:
            return [None if one.offset == 5 else records[one.offset] for one in places]

        assert 0 == await copying.take_back(log, read)
        registry.away = False
        shop.clock.advance(RETRY_MS_MIN)
        assert Copied(accepted=1) == await copying.copy([plain])
        assert 6 == await copying.take_back(log, read)
        assert 0 == await copying.take_back(log, read)
        ids = [one.message_id for one in events(shop)]
        assert ["views:T1:0:9", *(f"views:T1:0:{number}" for number in range(5))] == ids
        (gone,) = letters(shop)
        assert ("E335", Place("views", "shop.views", "T1", 0, 5)) == (gone.reason, place_in(gone.letter_id))  # fmt: skip
        # Redelivered after all, they are the same events.
        await copying.copy(list(records.values())[:5])
        await shop.node.engine.settled()
        assert 2 == (await shop.read("/v1/profiles/user_id:u1"))["features"]["views_7d"]


@pytest.mark.anyio
async def test_who_makes_up_ids_makes_nobody_wait(project: Project) -> None:
    async with opened(project) as shop:
        registry = Away()
        known = registry.register("views-value", Schema("JSON", "{}"))
        copying = copier(shop, schemas(shop, registry))
        began = shop.clock.monotonic_ms()
        for number in range(100):
            made_up = record(2 * number, view(1), schema_id=1_000 + number)
            told = await copying.copy(
                [made_up, record(2 * number + 1, view(number), schema_id=known)]
            )
            assert Copied(accepted=1, parked=1) == told
        assert shop.clock.monotonic_ms() - began <= 16 * 5_000
        assert 100 == len(letters(shop))


@pytest.mark.anyio
async def test_a_schema_of_another_kind_is_refused_and_not_parked(project: Project) -> None:
    async with opened(project) as shop:
        registry = Away()
        registry.register("views-value", Schema("AVRO", '"string"'))
        assert Copied(refused=2) == await copier(shop, schemas(shop, registry)).copy(
            [record(1, view(1), schema_id=1), record(2, view(2))]
        )
        assert {"E332", "E330"} == {one.reason for one in letters(shop)}


@given(st.integers(0, 2**32 - 1))
def test_a_parked_record_says_its_schema(schema_id: int) -> None:
    assert schema_id == schema_at(schema_place(schema_id))
    assert schema_at("$.a") is schema_at("schema x") is None
