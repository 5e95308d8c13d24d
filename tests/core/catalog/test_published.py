"""What a registry gets of a declared event is pinned, and is compared as declarations are."""

import io
import json
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import fastavro
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.catalog.avro_schema import avro_schema, field_name, record_name
from penstock.core.catalog.fields import EventType, Field, event_type
from penstock.core.catalog.published import (
    FORMATS,
    Naming,
    breaks_of,
    declared_in,
    publish_all,
    subject_of,
)
from penstock.core.errors import DefinitionError
from penstock.dsl import segment
from penstock.dsl.events import (  # fmt: skip
    boolean,
    datetime,
    decimal,
    event,
    integer,
    money,
    objects,
    one_of,
    string,
    strings,
)

SHIPPED = sorted(
    (one for one in vars(segment).values() if isinstance(one, EventType)), key=lambda one: one.name
)
TEA = event(
    "Tea Drunk", version=2,
    sort=one_of("green", "black", required=True), price=money(currency="EUR", required=True),
    paid=money(), degrees=decimal(scale=1), cups=integer(), hot=boolean(), at=datetime(),
    tags=strings(), sips=objects({"seconds": integer(required=True)}), note=string(chars_max=9),
    kind=one_of("1st", "2nd"),
)  # fmt: skip


def text_of(declared: EventType, format_name: str = "avro") -> str:
    return publish_all([declared], format_name, Naming())[0].text


def rated(**fields: Any) -> EventType:
    return event("Rated", stars=integer(required=True), **fields)


@pytest.mark.parametrize("format_name", FORMATS)
def test_what_is_published_is_pinned(
    format_name: str, golden: Callable[[str, object], None]
) -> None:
    published = publish_all([TEA, segment.order_completed], format_name, Naming("record", "com.example.shop"))  # fmt: skip
    for one in published:
        golden(f"published/{one.subject}.{format_name}.json", json.loads(one.text))


@pytest.mark.parametrize("format_name", FORMATS)
@pytest.mark.parametrize("declared", SHIPPED, ids=lambda one: one.name)
def test_a_published_schema_gives_its_declaration_back(
    declared: EventType, format_name: str
) -> None:
    text = text_of(declared, format_name)
    back = declared_in(text)
    assert back is not None
    assert [] == breaks_of(publish_all([declared], format_name, Naming())[0], [text], "full")
    assert declared.name == back.name
    assert set(back.fields) == {name for name, field in declared.fields.items() if not field.stamp}


@pytest.mark.parametrize("declared", [*SHIPPED, TEA], ids=lambda one: one.name)
def test_avro_takes_every_shipped_event(declared: EventType) -> None:
    fastavro.parse_schema(avro_schema(declared, "com.example"))


def test_values_are_written_and_read_in_avro() -> None:
    schema = fastavro.parse_schema(avro_schema(TEA, "com.example"))
    sent = {
        "sort": "green", "price": Decimal("2.50"), "paid": Decimal("1.2345"), "degrees": Decimal("79.5"),
        "cups": 3, "hot": True, "at": None, "tags": ["a"], "sips": [{"seconds": 4}], "note": None,
        "kind": "1st", "currency": "EUR",
    }  # fmt: skip
    raw = io.BytesIO()
    fastavro.schemaless_writer(raw, schema, sent)
    raw.seek(0)
    assert sent == fastavro.schemaless_reader(raw, schema, None)


def test_what_the_edge_fills_is_not_published() -> None:
    stamped = Field(name="price_then", kind="money", stamp="price", stamp_by="product_id")
    declared = event_type("Seen", 1, (Field(name="product_id", kind="string"), stamped))
    for format_name in FORMATS:
        assert "price_then" not in text_of(declared, format_name)


@pytest.mark.parametrize(
    ("naming", "expected"),
    [
        (Naming(), "TeaDrunk"),
        (Naming("record", "com.example"), "com.example.TeaDrunk"),
        (Naming("topic", "com.example", "shop.{event}"), "shop.tea_drunk-value"),
        (Naming("topic_record", "com.example", "shop"), "shop-com.example.TeaDrunk"),
    ],
)
def test_subjects_are_named_as_the_clients_name_them(naming: Naming, expected: str) -> None:
    assert expected == subject_of(TEA, naming)


def test_two_events_of_one_subject_are_refused() -> None:
    for naming, others in ((Naming("topic", "", "shop"), ("Rated", "Seen")), (Naming(), ("A b", "A-b"))):  # fmt: skip
        with pytest.raises(DefinitionError, match="E198"):
            publish_all([event(name) for name in others], "json-schema", naming)


def test_two_fields_of_one_name_in_avro_are_refused() -> None:
    clash = event_type("Seen", 1, (Field(name="a-b", kind="string"), Field(name="a b", kind="string")))  # fmt: skip
    with pytest.raises(DefinitionError, match="E198"):
        publish_all([clash], "avro", Naming())
    assert 1 == len(publish_all([clash], "json-schema", Naming()))


@given(st.text(min_size=1, max_size=30))
def test_names_are_what_avro_takes(name: str) -> None:
    for made in (record_name(name), field_name(name)):
        assert made.isascii()
        assert made.isidentifier()


@pytest.mark.parametrize(
    ("format_name", "old", "new", "compatibility", "expected"),
    [
        ("avro", rated(), rated(text=string()), "full", []),
        ("avro", rated(), rated(text=string(required=True)), "backward", ["$.properties.text is required"]),
        ("avro", rated(text=string()), rated(), "full", []),
        ("json-schema", rated(text=string()), rated(), "backward", ["$.properties.text is no longer declared"]),
        ("json-schema", rated(text=string()), rated(), "forward", []),
        ("json-schema", rated(), rated(text=string()), "forward", ["$.properties.text is not known"]),
        ("json-schema", rated(), rated(text=string()), "backward", []),
        ("json-schema", rated(), rated(text=string()), "none", []),
        ("json-schema", rated(text=string()), rated(text=string(chars_max=3)), "backward", ["$.properties.text takes 3"]),
        ("json-schema", event("Rated", of=objects({"a": string()})), event("Rated", of=objects({"b": string()})), "backward",
         ["$.properties.of[*].a is no longer declared"]),
    ],
)  # fmt: skip
def test_breaks_are_named_by_field(
    format_name: str, old: EventType, new: EventType, compatibility: str, expected: list[str]
) -> None:
    one = publish_all([new], format_name, Naming())[0]
    breaks = [f"{found.path} {found.what}" for found in breaks_of(one, [text_of(old, format_name)], compatibility)]  # fmt: skip
    assert len(expected) == len(breaks)
    for wanted, found in zip(expected, breaks, strict=True):
        assert found.startswith(wanted)


def test_transitive_looks_at_all_versions() -> None:
    first, second = rated(text=integer()), rated()
    one = publish_all([rated(text=string())], "avro", Naming())[0]
    texts = [text_of(first), text_of(second)]
    assert [] == breaks_of(one, texts, "backward")
    assert ["$.properties.text"] == [found.path for found in breaks_of(one, texts, "backward_transitive")]  # fmt: skip


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '"string"', '{"x-penstock": {}}', '{"x-penstock": {"fields": [{"name": 1}]}}']
)  # fmt: skip
def test_somebody_elses_schema_is_left_to_the_registry(text: str) -> None:
    assert declared_in(text) is None
    assert [] == breaks_of(publish_all([TEA], "avro", Naming())[0], [text], "full")
