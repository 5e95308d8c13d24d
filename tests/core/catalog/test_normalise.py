"""Values as they are sent become typed, bounded, exact and protected values, or a clear refusal."""

import json
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.catalog.json_schema import event_schema
from penstock.core.catalog.normalise import OTHER_NAME, shown_name
from penstock.core.catalog.schema import Catalog, EventType, Normalised
from penstock.core.errors import EventRejected
from penstock.core.event import SEGMENT, Event, decode_single
from penstock.core.literal import Literal
from penstock.core.protect import Protector
from penstock.dsl.events import (
    boolean,
    datetime,
    decimal,
    event,
    group_traits,
    integer,
    items,
    money,
    objects,
    one_of,
    private,
    string,
    strings,
    traits,
)
from penstock.dsl.segment import ALL, order_completed

PROTECTOR = Protector(bytes(range(32)))

KITCHEN = event(
    "Kitchen",
    text=string(chars_max=5),
    count=integer(),
    ratio=decimal(scale=3),
    price=money(),
    fee=money(currency="JPY", currency_field="fee_currency"),
    unit=money(scale=4),
    flag=boolean(),
    at=datetime(),
    size=one_of("S", "M"),
    tags=strings(items_max=2, chars_max=3),
    products=objects(
        {"id": string(required=True), "price": money(), "tags": strings()}, items_max=3
    ),
)
CATALOG = Catalog([KITCHEN], default_currency="GBP")


def kept(properties: dict[str, Any], catalog: Catalog = CATALOG) -> dict[str, Any]:
    found = normalised(properties, catalog)
    assert () == found.undeclared_fields
    return found.properties


def normalised(properties: dict[str, Any], catalog: Catalog = CATALOG) -> Normalised:
    return catalog.normalise(Event(type="track", event="Kitchen", properties=properties), PROTECTOR)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("text", "abc", "abc"),
        ("text", 12345, "12345"),
        ("text", 9007, "9007"),
        ("text", Literal("1.50"), "1.50"),
        ("text", "", ""),
        ("count", 3, 3),
        ("count", -3, -3),
        ("count", Literal("3.0"), 3),
        ("count", Literal("3e2"), 300),
        ("count", "4", 4),
        ("count", 2**53 - 1, 2**53 - 1),
        ("ratio", 2, 2_000),
        ("ratio", Literal("1.5"), 1_500),
        ("ratio", Literal("1.2345"), 1_235),
        ("ratio", Literal("-1.2345"), -1_235),
        ("ratio", "0.001", 1),
        ("ratio", Literal("1e-3"), 1),
        ("price", Literal("19.99"), [1999, "GBP"]),
        ("price", Literal("19.9"), [1990, "GBP"]),
        ("price", Literal("59.97000000000000596"), [5997, "GBP"]),
        ("price", Literal("0.001"), [0, "GBP"]),
        ("price", Literal("0.005"), [1, "GBP"]),
        ("price", Literal("-0.005"), [-1, "GBP"]),
        ("price", 19, [1900, "GBP"]),
        ("price", "19.99", [1999, "GBP"]),
        ("fee", 100, [100, "JPY"]),
        ("fee", Literal("100.0"), [100, "JPY"]),
        ("fee", Literal("99.99999999999999"), [100, "JPY"]),
        ("fee", Literal("1.5e3"), [1500, "JPY"]),
        ("unit", Literal("0.0015"), [15, "GBP"]),
        ("flag", True, True),
        ("flag", False, False),
        ("at", "2026-11-23T04:09:39.128Z", 1_795_406_979_128),
        ("at", "2026-11-23T05:09:39.128+01:00", 1_795_406_979_128),
        ("at", "1970-01-01", 0),
        ("at", "9999-12-31T23:59:59.999Z", 253_402_300_799_999),
        ("size", "S", "S"),
        ("tags", ["abc", "d"], ["abc", "d"]),
        ("tags", [1], ["1"]),
        ("tags", [], []),
        ("products", [{"id": "p"}], [{"id": "p"}]),
        ("products", [], []),
    ],
)
def test_a_value_is_kept_as_its_kind_says(name: str, value: object, expected: object) -> None:
    actual = kept({name: value})
    assert {name: expected} == actual
    assert type(expected) is type(actual[name])


@pytest.mark.parametrize(
    ("name", "value", "code", "where"),
    [
        ("text", "abcdef", "E324", "$.properties.text"),
        ("text", True, "E322", "$.properties.text"),
        ("text", ["a"], "E322", "$.properties.text"),
        ("text", {"a": 1}, "E322", "$.properties.text"),
        ("count", True, "E322", "$.properties.count"),
        ("count", Literal("1.5"), "E322", "$.properties.count"),
        ("count", Literal("1.0000000000000000001"), "E322", "$.properties.count"),
        ("count", "three", "E322", "$.properties.count"),
        ("count", [3], "E322", "$.properties.count"),
        ("count", 2**53, "E323", "$.properties.count"),
        ("count", -(2**53), "E323", "$.properties.count"),
        ("ratio", 2**53 - 1, "E323", "$.properties.ratio"),
        ("ratio", Literal("1e99"), "E323", "$.properties.ratio"),
        ("ratio", "1,5", "E322", "$.properties.ratio"),
        ("price", "€19", "E322", "$.properties.price"),
        ("price", "", "E322", "$.properties.price"),
        ("price", True, "E322", "$.properties.price"),
        ("price", {"amount": 1}, "E322", "$.properties.price"),
        ("price", "١٩.٩٩", "E322", "$.properties.price"),
        ("price", 10**15, "E323", "$.properties.price"),
        ("fee", Literal("99.5"), "E322", "$.properties.fee"),
        ("fee", "19.99", "E322", "$.properties.fee"),
        ("fee", Literal("0.00001"), "E322", "$.properties.fee"),
        ("flag", 1, "E322", "$.properties.flag"),
        ("flag", "true", "E322", "$.properties.flag"),
        ("at", 1_795_406_979, "E326", "$.properties.at"),
        ("at", "yesterday", "E326", "$.properties.at"),
        ("at", "9999-12-31T23:59:59-08:00", "E326", "$.properties.at"),
        ("at", "0001-01-01T00:00:00+08:00", "E326", "$.properties.at"),
        ("at", "2026-02-30", "E326", "$.properties.at"),
        ("size", "XL", "E325", "$.properties.size"),
        ("size", 5, "E325", "$.properties.size"),
        ("size", ["S"], "E325", "$.properties.size"),
        ("tags", "a", "E322", "$.properties.tags"),
        ("tags", ["a", "b", "c"], "E328", "$.properties.tags"),
        ("tags", ["a", None], "E322", "$.properties.tags[1]"),
        ("tags", ["a", "long"], "E324", "$.properties.tags[1]"),
        ("products", {"id": "p"}, "E322", "$.properties.products"),
        ("products", ["p"], "E322", "$.properties.products[0]"),
        ("products", [{"id": "p"}, {}], "E321", "$.properties.products[1].id"),
        ("products", [{"id": "p", "price": "x"}], "E322", "$.properties.products[0].price"),
        ("products", [{"id": "p"}, {"id": "q", "tags": ["a", []]}], "E322",
         "$.properties.products[1].tags[1]"),
        ("products", [{"id": "p", "price": 1, "currency": "pounds"}], "E327",
         "$.properties.products[0].currency"),
        ("products", [{"id": "p"}] * 4, "E328", "$.properties.products"),
    ],
)  # fmt: skip
def test_what_is_no_such_value_is_refused_with_its_path(
    name: str, value: object, code: str, where: str
) -> None:
    with pytest.raises(EventRejected) as caught:
        kept({name: value})
    assert (code, where) == (caught.value.code, caught.value.where)
    assert "" != caught.value.fix


@pytest.mark.parametrize("currency", ["EUR", "eur", "Eur"])
def test_the_currency_of_the_event_wins(currency: str) -> None:
    assert {"price": [150, "EUR"]} == kept({"price": Literal("1.50"), "currency": currency})


def test_each_currency_has_its_exponent() -> None:
    assert {"price": [2, "JPY"]} == kept({"price": Literal("2.00"), "currency": "JPY"})
    assert {"price": [1235, "KWD"]} == kept({"price": Literal("1.2345"), "currency": "KWD"})
    assert {"price": [1500, "KWD"]} == kept({"price": Literal("1.50"), "currency": "KWD"})
    assert {"unit": [15_000, "JPY"]} == kept({"unit": Literal("1.50"), "currency": "JPY"})


@pytest.mark.parametrize("currency", ["pounds", "G1P", "", 7, ["GBP"], {"a": 1}, "ßßß", "£££"])
def test_what_is_no_currency_is_refused(currency: object) -> None:
    with pytest.raises(EventRejected) as caught:
        kept({"price": 1, "currency": currency})
    assert ("E327", "$.properties.currency") == (caught.value.code, caught.value.where)


def test_without_a_default_an_amount_needs_its_currency() -> None:
    with pytest.raises(EventRejected) as caught:
        kept({"price": 1}, Catalog([KITCHEN]))
    assert "E327" == caught.value.code
    assert {"fee": [1, "JPY"]} == kept({"fee": 1}, Catalog([KITCHEN]))


def test_products_have_the_currency_of_their_order_unless_they_say_otherwise() -> None:
    products = [{"id": "a", "price": 1}, {"id": "b", "price": 1, "currency": "JPY"}]
    assert [
        {"id": "a", "price": [100, "EUR"]},
        {"id": "b", "price": [1, "JPY"]},
    ] == kept({"products": products, "currency": "EUR"})["products"]


def test_a_null_is_as_good_as_absent() -> None:
    assert {} == kept({"text": None, "price": None, "products": None})


def test_undeclared_fields_are_dropped_and_counted() -> None:
    found = normalised(
        {
            "text": "a",
            "colour": "red",
            "bob@example.com": 1,
            "products": [{"id": "p", "size": 1}] * 2,
        }
    )
    assert {"text": "a", "products": [{"id": "p"}] * 2} == found.properties
    assert ("colour", OTHER_NAME, "products.size", "products.size") == found.undeclared_fields


@pytest.mark.parametrize("name", ["", "a b", "a@b", "0123456789", "a" * 41, "naïve"])
def test_a_name_that_may_be_a_value_is_not_shown(name: str) -> None:
    assert OTHER_NAME == shown_name(name)


def test_a_required_field_is_required() -> None:
    catalog = Catalog([event("Kitchen", text=string(required=True))])
    for properties in ({}, {"text": None}):
        with pytest.raises(EventRejected) as caught:
            kept(properties, catalog)
        assert ("E321", "$.properties.text") == (caught.value.code, caught.value.where)


def test_protections_are_applied() -> None:
    catalog = Catalog(
        [
            event(
                "Kitchen",
                email=string(
                    privacy=private(category="user.contact.email", protection="pseudonym")
                ),
                number=integer(privacy=private(protection="pseudonym")),
                ip=string(
                    privacy=private(category="user.device.ip_address", protection="truncate")
                ),
                born=datetime(privacy=private(protection="truncate")),
                note=string(privacy=private(protection="drop")),
                tags=strings(privacy=private(protection="pseudonym")),
                products=objects({"id": string(privacy=private(protection="truncate"))}),
            )
        ]
    )
    sent = {
        "email": "bob@example.com", "number": 17, "ip": "203.0.113.77", "born": "1980-05-17",
        "note": "hello", "tags": ["a"], "products": [{"id": "abcdef"}],
    }  # fmt: skip
    assert {
        "email": PROTECTOR.pseudonym("bob@example.com"),
        "number": PROTECTOR.pseudonym("17"),
        "ip": "203.0.113.0",
        "born": 325_987_200_000,
        "tags": [PROTECTOR.pseudonym("a")],
        "products": [{"id": "abc"}],
    } == kept(sent, catalog)


def test_the_protector_that_is_asked_for_is_used() -> None:
    catalog = Catalog([event("Kitchen", a=string(privacy=private(protection="pseudonym")))])
    sent = Event(type="track", event="Kitchen", properties={"a": "x"})
    other = Protector(bytes(32))
    for protector in (PROTECTOR, other, PROTECTOR):
        found = catalog.normalise(sent, protector)
        assert {"a": protector.pseudonym("x")} == found.properties


@pytest.mark.parametrize(
    ("rule", "expected"),
    [("keep", Normalised({}, {}, ("a", OTHER_NAME))), ("drop", Normalised({}, {}, dropped=True))],
)
def test_an_undeclared_event_follows_the_rule(rule: str, expected: Normalised) -> None:
    sent = Event(type="track", event="Unheard Of", properties={"a": 1, "b c": 2})
    assert expected == Catalog([], undeclared=rule).normalise(sent, PROTECTOR)


def test_an_undeclared_event_is_rejected_without_its_name() -> None:
    sent = Event(type="track", event="Bob's event")
    with pytest.raises(EventRejected) as caught:
        Catalog([], undeclared="reject").normalise(sent, PROTECTOR)
    assert ("E320", "$.event") == (caught.value.code, caught.value.where)
    assert "Bob" not in str(caught.value)


def test_pages_need_no_declaration_and_their_addresses_are_dropped() -> None:
    sent = Event(
        type="page",
        name="Home",
        category="Start",
        properties={"path": "/p", "url": "https://x/?email=b", "search": "?e", "referrer": "r"},
    )
    found = Catalog([], undeclared="reject").normalise(sent, PROTECTOR)
    assert Normalised({"name": "Home", "category": "Start", "path": "/p"}, {}) == found


def test_a_project_may_declare_its_pages() -> None:
    catalog = Catalog([event("page", url=string())])
    found = catalog.normalise(Event(type="page", properties={"url": "/p", "path": 1}), PROTECTOR)
    assert Normalised({"url": "/p"}, {}, ("path",)) == found


PEOPLE = traits(
    plan=string(),
    born=datetime(privacy=private(protection="truncate")),
    secret=string(privacy=private(protection="drop")),
)


def test_traits_are_kept_for_identify_and_a_null_is_a_value() -> None:
    catalog = Catalog([], PEOPLE)
    sent = {"plan": None, "born": "1980-05-17", "secret": "s", "shoe": 44}
    found = catalog.normalise(Event(type="identify", traits=sent), PROTECTOR)
    assert Normalised({}, {"plan": None, "born": 325_987_200_000}, ("shoe",)) == found


def test_traits_of_a_group_are_its_own() -> None:
    catalog = Catalog([], PEOPLE, group_traits=group_traits(seats=integer()))
    sent = Event(type="group", traits={"seats": 5, "plan": "p"})
    assert Normalised({}, {"seats": 5}, ("plan",)) == catalog.normalise(sent, PROTECTOR)


def test_undeclared_traits_may_be_kept_if_they_are_scalars() -> None:
    catalog = Catalog([], PEOPLE, traits_undeclared="keep")
    sent = {
        "a": "x", "b": 5, "c": True, "d": Literal("1.50"), "e": None,
        "f": [1], "g": {"a": 1}, "h": 2**53, "i": "x" * 1_001,
    }  # fmt: skip
    found = catalog.normalise(Event(type="identify", traits=sent), PROTECTOR)
    assert {"a": "x", "b": 5, "c": True, "d": "1.50", "e": None} == found.traits
    assert str is type(found.traits["d"])
    assert ("f", "g", "h", "i") == found.undeclared_fields


def test_a_trait_of_the_wrong_kind_is_refused() -> None:
    with pytest.raises(EventRejected) as caught:
        Catalog([], PEOPLE).normalise(Event(type="identify", traits={"plan": ["gold"]}), PROTECTOR)
    assert ("E322", "$.traits.plan") == (caught.value.code, caught.value.where)


def test_traits_beside_other_events_are_not_kept() -> None:
    catalog = Catalog([KITCHEN], PEOPLE)
    for sent in (Event(type="track", event="Kitchen", traits={"plan": "p"}),
                 Event(type="alias", previous_id="a", traits={"plan": "p"})):  # fmt: skip
        assert Normalised({}, {}) == catalog.normalise(sent, PROTECTOR)


def test_items_are_typed_like_traits() -> None:
    catalog = Catalog([], items=items(title=string(), price=money()), default_currency="EUR")
    normalise = catalog.compile_items(PROTECTOR)
    found = normalise({"title": None, "price": "19.99", "currency": "GBP", "x": 1})
    assert Normalised({}, {"title": None, "price": [1999, "GBP"]}, ("x",)) == found


@given(
    st.decimals(min_value=-(10**9), max_value=10**9, places=4),
    st.sampled_from(["GBP", "JPY", "KWD"]),
)
def test_money_is_exact(amount: Decimal, currency: str) -> None:
    places = {"GBP": "0.01", "JPY": "1", "KWD": "0.001"}[currency]
    if currency == "JPY" and amount % 1:
        with pytest.raises(EventRejected, match="E322"):
            kept({"price": f"{amount:f}", "currency": currency})
        return
    minor = int(amount.quantize(Decimal(places), ROUND_HALF_UP) / Decimal(places))
    assert {"price": [minor, currency]} == kept({"price": f"{amount:f}", "currency": currency})
    assert {"price": [minor, currency]} == kept(
        {"price": Literal(f"{amount:f}"), "currency": currency}
    )


def sent_by_schema(schema: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Return values that a JSON Schema of ours allows, in all its shapes."""
    kinds = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    if schema.get("format") == "date-time":
        return st.datetimes().map(lambda moment: moment.isoformat() + "Z")
    made: dict[str, st.SearchStrategy[Any]] = {
        "null": st.none(),
        "boolean": st.booleans(),
        "integer": st.integers(schema.get("minimum"), schema.get("maximum")),
        "number": st.floats(schema.get("minimum"), schema.get("maximum")).map(
            lambda n: round(n, 6)
        ),
        "string": st.sampled_from(["GBP", "eur"])
        if "A-Z" in schema.get("pattern", "")
        else st.text(
            st.characters(exclude_categories=["Cs"], exclude_characters="\x00"),
            max_size=min(20, schema.get("maxLength", 20)),
        ),
    }
    if "array" in kinds:
        made["array"] = st.lists(sent_by_schema(schema["items"]), max_size=3)
    if "object" in kinds:
        made["object"] = st.fixed_dictionaries(
            {name: sent_by_schema(part) for name, part in schema["properties"].items()
             if name in schema.get("required", [])},
            optional={name: sent_by_schema(part) for name, part in schema["properties"].items()
                      if name not in schema.get("required", [])},
        )  # fmt: skip
    return st.one_of(*(made[kind] for kind in kinds))


@given(st.sampled_from([KITCHEN, *ALL]), st.data())
def test_what_the_json_schema_allows_is_accepted(declared: EventType, data: st.DataObject) -> None:
    properties = data.draw(sent_by_schema(event_schema(declared)))
    if properties.get("fee") is not None and not properties.get("fee_currency"):
        # What a schema cannot say: how many decimals an amount has depends on another field.
        properties["fee"] = round(properties["fee"])
    raw = json.dumps({"event": declared.name, "messageId": "m", "properties": properties}).encode()
    sent = decode_single(raw, "track", SEGMENT).events[0][1]
    found = Catalog([declared], default_currency="GBP").normalise(sent, PROTECTOR)
    assert () == found.undeclared_fields


def test_an_order_as_segment_shows_it() -> None:
    raw = b"""{"event":"Order Completed","messageId":"m","userId":"u","properties":{
      "checkout_id":"fksdjfsdjfisjf9sdfjsd9f","order_id":"50314b8e9bcf000000000000",
      "affiliation":"Google Store","total":27.50,"subtotal":22.5,"revenue":25.00,"shipping":3,"tax":2,
      "discount":2.5,"coupon":"hasbros","currency":"USD","products":[
        {"product_id":"507f1f77bcf86cd799439011","sku":"45790-32","name":"Monopoly: 3rd Edition",
         "price":19,"quantity":1,"category":"Games","url":"https://www.example.com/product/path",
         "image_url":"https:///www.example.com/product/path.jpg"},
        {"product_id":505,"sku":"46493-32","name":"Uno Card Game","price":3.005,"quantity":2}]}}"""
    sent = decode_single(raw, "track", SEGMENT).events[0][1]
    found = Catalog([order_completed]).normalise(sent, PROTECTOR)
    assert () == found.undeclared_fields
    assert ([2750, "USD"], [2500, "USD"]) == (
        found.properties["total"],
        found.properties["revenue"],
    )
    assert "currency" not in found.properties
    first, second = found.properties["products"]
    assert ([1900, "USD"], [301, "USD"]) == (first["price"], second["price"])
    assert "505" == second["product_id"]
