"""The workload's eight features as a Bytewax dataflow, as somebody who knows Python would write it.

    python bytewax_flow.py RECORDS WARM
    python bytewax_flow.py BROKERS WARM TOPIC

RECORDS is a file of encoded records, as a msgpack list; or they come from a topic, through Bytewax's own
input for Kafka. The first WARM of them make the leaves and are not timed. Prints JSON: CPU seconds, wall seconds, events, and the views that all states hold. It runs
in an environment of its own: nothing of Penstock is imported. It decodes the same bytes, drops copies
by the same ids for as long, gates by the same consent, and keeps the same eight features in plain
dictionaries. It does not account for the size of its state, keep consent or edges, or say what was done.
"""

import gc
import json
import sys
import time
from pathlib import Path
from typing import Any

import bytewax.operators as op
import msgspec
from bytewax.dataflow import Dataflow
from bytewax.testing import TestingSink, TestingSource, run_main

TILE_MS = 3_600_000
ID_TILE_MS = 6 * 3_600_000
ID_TILES = 13
DAY_MS = 86_400_000
BATCH = 500


class Evidence(msgspec.Struct, array_like=True, gc=False):
    """Consent, as it stands in a record."""

    source: str
    granted: tuple[str, ...] = ()
    denied: tuple[str, ...] = ()


class Record(msgspec.Struct, array_like=True, gc=False):
    """The fields of a record that the features need, in their order."""

    format: int
    kind: int
    tenant: str
    leaf: bytes
    id_type: str
    event_id: int
    message_id: str
    type: str
    name: str
    occurred_at_ms: int
    received_at_ms: int
    source: str
    source_rank: int
    verified: bool
    evidence: Evidence
    identifiers: Any = ()
    edges: Any = ()
    properties: dict[str, Any] = {}
    traits: dict[str, Any] = {}
    job: str = ""
    bare: bool = False


class Shopper:
    """The state of one leaf."""

    __slots__ = (
        "adds",
        "bought",
        "categories",
        "ids",
        "last_view",
        "orders",
        "recent",
        "spent",
        "views",
    )

    def __init__(self) -> None:
        self.ids: dict[int, int] = {}
        self.views: dict[int, int] = {}
        self.adds: dict[int, int] = {}
        self.recent: dict[str, int] = {}
        self.categories: dict[int, dict[str, int]] = {}
        self.bought: dict[str, int] = {}
        self.orders = 0
        self.spent: dict[str, int] = {}
        self.last_view = 0


def keep_last(kept: dict[str, int], key: str, at_ms: int, most: int) -> None:
    """Keep the keys that were seen last."""
    if key in kept:
        kept[key] = max(kept[key], at_ms)
        return
    kept[key] = at_ms
    if len(kept) > most:
        del kept[min(kept, key=kept.__getitem__)]


def fold(state: Shopper | None, record: Record) -> tuple[Shopper, int]:
    """Fold one event; return the state, and how many views it has in all."""
    if state is None:
        state = Shopper()
    at_ms = record.occurred_at_ms
    id_tile = record.received_at_ms // ID_TILE_MS
    seen = state.ids.get(record.event_id)
    if seen is not None and seen > id_tile - ID_TILES:
        return state, 0
    state.ids[record.event_id] = id_tile
    if record.bare or "personalisation" not in record.evidence.granted:
        return state, 0
    tile = at_ms // TILE_MS
    properties = record.properties
    if record.name == "Product Viewed":
        state.views[tile] = state.views.get(tile, 0) + 1
        product = properties.get("product_id")
        if product is not None:
            keep_last(state.recent, product, at_ms, 10)
        category = properties.get("category")
        if category is not None:
            day = state.categories.setdefault(at_ms // DAY_MS, {})
            day[category] = day.get(category, 0) + 1
        state.last_view = max(state.last_view, at_ms)
    elif record.name == "Product Added":
        state.adds[tile] = state.adds.get(tile, 0) + 1
    elif record.name == "Order Completed":
        state.orders += 1
        total = properties.get("total")
        if total is not None:
            state.spent[total[1]] = state.spent.get(total[1], 0) + total[0]
        for item in properties.get("products") or ():
            product = item.get("product_id")
            if product is not None:
                keep_last(state.bought, product, at_ms, 20)
    return state, sum(state.views.values()) if record.name == "Order Completed" else 0


def main() -> None:
    """Run the dataflow and print what it took."""
    warm = int(sys.argv[2])
    started = [0.0, 0.0]
    place = 0
    decode = msgspec.msgpack.Decoder(Record).decode

    def start() -> None:
        # As the server that it stands beside is set.
        gc.collect()
        gc.freeze()
        gc.set_threshold(100_000, 50, 50)
        started[:] = [time.process_time(), time.perf_counter()]

    def records() -> Any:
        nonlocal place
        for value in msgspec.msgpack.decode(Path(sys.argv[1]).read_bytes(), type=list[bytes]):
            if place == warm:
                start()
            place += 1
            yield value

    def decode_message(message: Any) -> Record:
        nonlocal place
        if place == warm:
            start()
        place += 1
        return decode(message.value)

    out: list[Any] = []
    flow = Dataflow("shop")
    if len(sys.argv) > 3:
        from bytewax.connectors.kafka import KafkaSource  # noqa: PLC0415 - needs a client of Kafka

        source = KafkaSource(sys.argv[1].split(","), [sys.argv[3]], tail=False)
        decoded = op.map("decode", op.input("in", flow, source), decode_message)
    else:
        stream = op.input("in", flow, TestingSource(records(), batch_size=BATCH))
        decoded = op.map("decode", stream, decode)
    keyed = op.key_on("leaf", decoded, lambda record: record.leaf.hex())
    folded = op.stateful_map("fold", keyed, fold)
    op.output("out", op.filter("orders", folded, lambda pair: pair[1] > 0), TestingSink(out))
    run_main(flow)
    print(json.dumps({
        "cpu_s": time.process_time() - started[0], "wall_s": time.perf_counter() - started[1],
        "count": place - warm, "answers": len(out),
    }))  # fmt: skip


if __name__ == "__main__":
    main()
