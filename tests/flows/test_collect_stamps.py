"""What the edge does to an event before it is a record: stamps, protections, permission events."""

import asyncio
import json

import pytest

from penstock.adapters.metrics.memory import MemoryMetrics
from penstock.adapters.suppressions.memory import MemorySuppressions
from penstock.core.catalog.catalog import Catalog
from penstock.core.catalog.fields import Privacy
from penstock.core.consent.purpose import ConsentRules
from penstock.core.event import SEGMENT, decode_batch
from penstock.core.identity.identifier import IdentityRules
from penstock.core.leaf import Leaf
from penstock.core.protect import Protector
from penstock.core.record import Record
from penstock.dsl.events import event, stamped, string, traits
from penstock.edges.collector.door import answer
from penstock.flows.collect import Collector, Discarded, source_of
from penstock.testing.clock import HandClock

GRANTED = {"consent": {"categoryPreferences": {"personalisation": True}}}
DENIED = {"consent": {"categoryPreferences": {"personalisation": False}}}

viewed = event(
    "Product Viewed",
    product_id=string(required=True),
    category=stamped(string(), item="category", by="product_id"),
)
people = traits(email=string(privacy=Privacy(protection="pseudonym")), name=string())


class Kept:
    """An appender that keeps what it is given."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.letters: list = []

    async def append(self, records, letters=(), *, urgent=False) -> None:
        self.records.extend(records)
        self.letters.extend(letters)


def collector(kept: Kept, items: dict[str, Leaf], metrics: MemoryMetrics, **catalog) -> Collector:
    by_leaf: dict[bytes, Leaf] = {}
    made = Collector(
        catalog=Catalog([viewed], dict(people), **catalog), protector=Protector(b"p" * 32),
        identity=IdentityRules(), consent=ConsentRules(), identifier_key=b"k" * 32, tenant="t",
        appender=kept, suppressions=MemorySuppressions(), clock=HandClock(1_795_000_000_000),
        metrics=metrics, find_item=by_leaf.get,
    )  # fmt: skip
    by_leaf.update({made.make_leaf("item_id", name): leaf for name, leaf in items.items()})
    return made


def take(made: Collector, *events: dict, kind: str = "server"):
    body = json.dumps({"batch": list(events)}).encode()
    return asyncio.run(made.take(source_of("site", kind, 0, {}), decode_batch(body, SEGMENT)))


def view(product: str, number: int = 1, context: dict = GRANTED, **more) -> dict:
    return {"type": "track", "event": "Product Viewed", "messageId": f"m{number}", "userId": "u1",
            "properties": {"product_id": product, **more}, "context": context}  # fmt: skip


def test_an_event_is_stamped_with_the_item_as_it_is() -> None:
    kept, metrics = Kept(), MemoryMetrics()
    item = Leaf(b"i" * 16, [])
    item.traits = {"category": (0, 123, 1, "shoes")}

    take(collector(kept, {"p1": item}, metrics), view("p1", category="what the page says"))

    assert kept.records[0].properties == {
        "product_id": "p1", "category": "shoes", "category.version": 123
    }  # fmt: skip


def test_a_missing_item_stamps_null_and_is_counted() -> None:
    kept, metrics = Kept(), MemoryMetrics()

    take(collector(kept, {}, metrics), view("p9"))

    assert kept.records[0].properties["category"] is None
    assert metrics.value("penstock_item_cache_miss_total") == 1


def test_an_identifier_is_as_protected_as_its_trait() -> None:
    kept = Kept()

    take(collector(kept, {}, MemoryMetrics()), {
        "type": "identify", "messageId": "m1", "userId": "u1", "context": GRANTED,
        "traits": {"email": "ann@example.com", "name": "Ann"},
    })  # fmt: skip

    assert "ann@example.com" not in repr(kept.records)
    assert [one.id_type for one in kept.records[0].identifiers] == ["user_id", "email"]


def test_an_unsubscribe_is_kept_though_it_is_undeclared_and_everything_is_denied() -> None:
    kept = Kept()
    made = collector(kept, {}, MemoryMetrics(), undeclared="reject")

    intake = take(made, {
        "type": "track", "event": "Unsubscribed", "messageId": "m1", "userId": "u1", "context": DENIED,
        "properties": {"topic": "news", "mood": "sad"},
    })  # fmt: skip

    assert (intake.accepted, intake.refused) == (1, [])
    assert kept.records[0].properties == {"topic": "news"}
    leaf = made.make_leaf("user_id", "u1")
    assert [
        (key.plane, key.name, entry.denied) for key, entry in made.suppressions.get([leaf]).items()
    ] == [("email", "news", True)]


def test_a_denied_event_leaves_only_its_evidence() -> None:
    kept = Kept()

    take(collector(kept, {}, MemoryMetrics()), view("p1", context=DENIED))

    record = kept.records[0]
    assert (record.bare, record.properties, record.traits, record.identifiers, record.edges) == (
        True, {}, {}, (), ()
    )  # fmt: skip
    assert record.evidence.denied == ("personalisation",)


def test_what_says_nothing_about_consent_is_discarded_and_counted() -> None:
    kept, metrics = Kept(), MemoryMetrics()

    intake = take(collector(kept, {}, metrics), view("p1", context={}))

    assert (intake.accepted, intake.discarded) == (1, [Discarded(0, "consent_unknown")])
    assert (kept.records, kept.letters) == ([], [])
    assert answer(intake) == {
        "success": True, "accepted": 1, "discarded": 1, "discarded_by_reason": {"consent_unknown": 1}
    }  # fmt: skip
    assert metrics.value("penstock_events_discarded_total", reason="consent_unknown") == 1


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ({"personalization": True}, "consent_category_unknown"),
        ({"personalization": True, "personalisation": None}, "consent_category_unknown"),
        ({"personalization": None}, "consent_unknown"),
        ({}, "consent_unknown"),
    ],
)
def test_words_of_consent_that_mean_nothing_are_told_from_silence(
    said: dict[str, bool | None], reason: str
) -> None:
    kept, metrics = Kept(), MemoryMetrics()
    context = {"consent": {"categoryPreferences": said}}

    intake = take(collector(kept, {}, metrics), view("p1", context=context))

    assert (intake.accepted, intake.discarded) == (1, [Discarded(0, reason)])
    assert metrics.value("penstock_events_discarded_total", reason=reason) == 1


def test_one_bad_event_becomes_a_dead_letter_and_the_others_are_kept() -> None:
    kept = Kept()

    intake = take(collector(kept, {}, MemoryMetrics()), view("p1", 1), view("", 2), view("p3", 3), {
        "type": "track", "event": "Product Viewed", "messageId": "m4", "userId": "u1", "context": GRANTED,
        "properties": {"product_id": ["secret"]},
    })  # fmt: skip

    assert [refusal.index for refusal in intake.refused] == [3]
    assert intake.refused[0].path == "$.properties.product_id"
    assert "secret" not in intake.refused[0].what
    assert [letter.message_id for letter in kept.letters] == ["m4"]
    assert len(kept.records) == 3
