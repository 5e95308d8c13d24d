"""Records become events: which, with which fields, when, and always with the same message id."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.catalog.catalog import Catalog
from penstock.core.errors import EventRejected, SettingsError
from penstock.core.event import MESSAGE_ID_CHARS_MAX, SEGMENT, decode_single
from penstock.core.foreign import (
    EventMapping,
    Foreign,
    Place,
    compile_mapper,
    find,
    letter_id_of,
    message_id_of,
    place_in,
)
from penstock.core.literal import Literal
from penstock.dsl.events import event, integer, money, string, traits

RECORD = Foreign("shop.orders", "T1", 3, 17, 1_700_000_000_123, b'{"id": "k1"}', b"", (("trace", b"t"),))  # fmt: skip
ORDERED = event("Order Completed", order_id=string(), total=money(), items=integer())
SEEN = event("Product Viewed", product_id=string())
CATALOG = Catalog(
    [ORDERED, SEEN], traits=traits(first_name=string(), points=integer()), default_currency="GBP"
)

PLACES = st.builds(
    Place,
    st.from_regex(r"[a-z_]{1,30}", fullmatch=True),
    st.from_regex(r"[A-Za-z0-9._-]{1,249}", fullmatch=True),
    st.from_regex(r"([A-Za-z0-9_-]{22})?", fullmatch=True),
    st.integers(0, 2**31 - 1),
    st.integers(0, 2**63 - 1),
)


def mapped(value: Any, record: Foreign = RECORD, **mappings: EventMapping) -> Any:
    named = {name.replace("_", " ") if name[0].isupper() else name: one for name, one in mappings.items()}  # fmt: skip
    body = compile_mapper(named, CATALOG, "connect.orders")(record, value)
    return None if body is None else msgspec.json.decode(body)


@given(PLACES)
def test_a_place_is_told_by_its_letters(place: Place) -> None:
    assert place == place_in(letter_id_of(place)) == place_in(letter_id_of(place, again=True))
    assert letter_id_of(place) != letter_id_of(place, again=True)
    assert len(message_id_of(place)) <= MESSAGE_ID_CHARS_MAX


@given(PLACES, PLACES)
def test_two_places_have_two_message_ids(one: Place, other: Place) -> None:
    def named(place: Place) -> Place:
        # A topic that has an id is named by it: of that id there is one topic.
        return place._replace(topic="") if place.topic_id else place

    if one.topic_id and other.topic == one.topic_id:
        return
    assert (named(one) == named(other)) == (message_id_of(one) == message_id_of(other))


@pytest.mark.parametrize("letter_id", ["", "edge-00", "fold-1-2-3", "connect/a/b/c/d/e", "connect/a/b/c/1/2/3", "x/a/b/c/1/2"])  # fmt: skip
def test_other_letters_tell_no_place(letter_id: str) -> None:
    assert place_in(letter_id) is None


def test_a_record_in_full() -> None:
    value = {
        "kind": "placed", "customer": {"id": 7, "mail": "a@example.com", "braze": "b1"}, "id": "o1",
        "sum": {"amount": Literal("19.90")}, "at": 1_700_000_000, "secret": "x", "ok": True,
    }  # fmt: skip
    mapping = EventMapping(
        when={"kind": ["placed", "paid"]}, user_id="customer.id", email="customer.mail",
        external_ids={"esp.braze": "customer.braze", "esp.none": "nowhere"}, timestamp="at", timestamp_unit="s",
        fields={"order_id": "id", "total": "sum.amount"}, constants={"currency": "EUR"},
        consent={"personalisation": "ok"},
    )  # fmt: skip
    assert {
        "type": "track", "event": "Order Completed", "timestamp": "2023-11-14T22:13:20.000Z", "userId": 7,
        "properties": {"currency": "EUR", "order_id": "o1", "total": 19.9},
        "context": {
            "traits": {"email": "a@example.com"},
            "externalIds": [{"type": "esp.braze", "id": "b1", "collection": "users", "encoding": "none"}],
            "consent": {"categoryPreferences": {"personalisation": True}},
        },
    } == mapped(value, Order_Completed=mapping)  # fmt: skip


def test_a_decimal_keeps_its_digits() -> None:
    body = compile_mapper({"Order Completed": EventMapping()}, CATALOG, "connect.orders")(
        RECORD, {"total": Literal("19.90000000000000000001")}
    )
    assert body is not None
    assert b"19.90000000000000000001" in body


def test_declared_fields_are_taken_by_their_own_names_and_nothing_else() -> None:
    found = mapped({"order_id": "o1", "items": 2, "secret": "x"}, Order_Completed=EventMapping())
    assert {"order_id": "o1", "items": 2} == found["properties"]
    assert "userId" not in found
    assert found["timestamp"] == "2023-11-14T22:13:20.123Z"


def test_the_first_mapping_that_fits_counts_and_none_is_left_out() -> None:
    mappings = {
        "Product_Viewed": EventMapping(when={"type": "view"}),
        "Order_Completed": EventMapping(when={"type": "order", "final": True}),
    }
    assert mapped({"type": "view"}, **mappings)["event"] == "Product Viewed"
    assert mapped({"type": "order", "final": True}, **mappings)["event"] == "Order Completed"
    assert mapped({"type": "order", "final": 0}, **mappings) is None
    assert mapped({"type": "refund"}, **mappings) is None
    assert mapped("no object", **mappings) is None


def test_people_are_mapped_by_identify() -> None:
    found = mapped({"id": "u1", "first_name": "Ann"}, identify=EventMapping(user_id="id", fields={"points": "score"}))  # fmt: skip
    assert ("identify", {"first_name": "Ann"}) == (found["type"], found["traits"])
    assert "event" not in found


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("a.b", 1), ("a.b.c", None), ("x.y", 2), ("list.1.n", 4), ("list.7.n", None), ("list.x", None), ("list.-1", None),
        ("$key", '{"id": "k1"}'), ("$key.id", "k1"), ("$key.no", None), ("$headers.trace", "t"), ("$headers.no", None),
        ("$topic", "shop.orders"), ("$timestamp", 1_700_000_000_123), ("$nothing", None), ("nothing", None),
    ],
)  # fmt: skip
def test_paths(path: str, expected: object) -> None:
    value = {"a": {"b": 1}, "x.y": 2, "list": [{"n": 3}, {"n": 4}]}
    assert expected == find(RECORD, value, path)


@pytest.mark.parametrize(
    ("unit", "number"),
    [
        pytest.param("s", 1_700_000_000, id="seconds"),
        pytest.param("s", Literal("1700000000.0"), id="a decimal"),
        pytest.param("s", 1.7e9, id="a float"),
        pytest.param("ms", 1_700_000_000_000, id="milliseconds"),
        pytest.param("us", 1_700_000_000_000_000, id="microseconds"),
        pytest.param("ns", 1_700_000_000_000_000_000, id="nanoseconds"),
    ],
)
def test_instants_count_in_units(unit: str, number: object) -> None:
    mapping = EventMapping(timestamp="at", timestamp_unit=unit)
    assert mapped({"at": number}, Order_Completed=mapping)["timestamp"] == "2023-11-14T22:13:20.000Z"  # fmt: skip


@pytest.mark.parametrize("at", [True, [], {}, 10**30, Literal("1e999999999"), float("inf"), float("nan")])  # fmt: skip
def test_what_is_no_instant_is_refused(at: object) -> None:
    with pytest.raises(EventRejected, match="E334"):
        mapped({"at": at}, Order_Completed=EventMapping(timestamp="at"))


@pytest.mark.parametrize(
    ("name", "mapping", "fix"),
    [
        ("Order Complete", EventMapping(), "did you mean `Order Completed`?"),
        ("Order Completed", EventMapping(fields={"ordr_id": "id"}), "did you mean `order_id`?"),
        ("Order Completed", EventMapping(constants={"x": 1}), "declare it"),
        ("Order Completed", EventMapping(timestamp_unit="min"), "use one of s, ms, us, ns"),
        ("identify", EventMapping(fields={"first": "x"}), "did you mean `first_name`?"),
    ],
)
def test_what_is_not_declared_is_refused_at_once(
    name: str, mapping: EventMapping, fix: str
) -> None:
    with pytest.raises(SettingsError, match="E233") as told:
        compile_mapper({name: mapping}, CATALOG, "connect.orders")
    assert fix in told.value.fix


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.text().map(Literal),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5) | st.sampled_from(["id", "at"]), inner, max_size=4),
    max_leaves=10,
)  # fmt: skip


@given(JSON, st.sampled_from(["id", "at", "at.id", "$key", "$key.id"]))
def test_any_value_gives_an_event_or_a_refusal(value: Any, path: str) -> None:
    mapping = EventMapping(user_id=path, email=path, timestamp=path, message_id=path, fields={"order_id": path},
                           consent={"a": path}, external_ids={"b": path})  # fmt: skip
    try:
        body = compile_mapper({"Order Completed": mapping}, CATALOG, "connect.orders")(RECORD, value)  # fmt: skip
        assert body is not None
        assert body == compile_mapper({"Order Completed": mapping}, CATALOG, "x")(RECORD, value)
        decode_single(body, None, SEGMENT, message_id="m")
    except EventRejected:
        pass
