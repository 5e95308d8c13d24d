"""The shop's own cases: `penstock test --project examples/shop` runs them, each with a fresh driver."""

from typing import Any

from penstock.testing.driver import Driver

SKILLET = {
    "item_id": "p-401", "title": "Cast iron skillet 26 cm", "url": "https://shop.example/p/p-401",
    "category": "kitchen", "price": "48.00", "stock": "7",
}  # fmt: skip
WOK = SKILLET | {
    "item_id": "p-402",
    "title": "Carbon steel wok",
    "url": "https://shop.example/p/p-402",
}


def track(name: str, user: str = "u-1", **properties: Any) -> dict[str, Any]:
    return {"type": "track", "event": name, "userId": user, "properties": properties}


def identify(user: str = "u-1", email: str = "grace@example.com") -> dict[str, Any]:
    return {"type": "identify", "userId": user, "traits": {"email": email, "first_name": "Grace"}}


def hero(driver: Driver, user: str = "u-1") -> dict[str, Any]:
    return driver.decide("winback", user_id=user).slots["hero"].items[0]


def test_the_next_email_shows_what_was_viewed(driver: Driver) -> None:
    driver.load_items(SKILLET, WOK)
    driver.push(identify(), track("Product Viewed", product_id="p-401"))
    rendered = driver.render("winback", user_id="u-1")
    assert "Cast iron skillet 26 cm" in rendered.html
    assert "£48.00" in rendered.html
    assert rendered.subject == "Cast iron skillet 26 cm, still in stock"
    assert rendered.size.verdict == "ok"


def test_what_is_in_the_cart_goes_before_what_was_viewed(driver: Driver) -> None:
    driver.load_items(SKILLET, WOK)
    driver.push(track("Product Added", product_id="p-402"))
    driver.clock.advance(hours=1)
    driver.push(track("Product Viewed", product_id="p-401"))
    assert hero(driver)["title"] == "Carbon steel wok"


def test_what_was_bought_is_not_shown_again(driver: Driver) -> None:
    driver.load_items(SKILLET, WOK)
    driver.push(track("Product Viewed", product_id="p-402"))
    driver.clock.advance(seconds=5)
    driver.push(track("Product Viewed", product_id="p-401"))
    driver.push(track("Order Completed", total=48.00, products=[{"product_id": "p-401"}]))
    assert hero(driver)["title"] == "Carbon steel wok"
    assert driver.features(user_id="u-1")["spent"] == {"GBP": 4800}


def test_what_is_sold_out_is_not_shown(driver: Driver) -> None:
    driver.load_items(SKILLET | {"stock": "0"}, WOK)
    driver.push(track("Product Viewed", product_id="p-402"))
    driver.clock.advance(seconds=5)
    driver.push(track("Product Viewed", product_id="p-401"))
    assert hero(driver)["title"] == "Carbon steel wok"


def test_interest_of_a_week_ago_is_no_interest(driver: Driver) -> None:
    driver.push(track("Product Viewed", product_id="p-401"))
    assert driver.features(user_id="u-1")["views_7d"] == 1
    driver.clock.advance(days=8)
    assert driver.features(user_id="u-1")["views_7d"] == 0


def test_a_device_belongs_to_who_signed_in_on_it(driver: Driver) -> None:
    view = {
        "type": "track",
        "event": "Product Viewed",
        "anonymousId": "phone",
        "properties": {"product_id": "p-401"},
    }
    driver.push(view, source="web")
    assert driver.features(user_id="u-1").get("viewed", []) == []
    driver.push(identify() | {"anonymousId": "phone"})
    assert driver.features(user_id="u-1")["viewed"] == ["p-401"]


def test_who_withdraws_is_a_stranger_again(driver: Driver) -> None:
    driver.load_items(SKILLET)
    driver.push(identify(), track("Product Viewed", product_id="p-401"))
    driver.clock.advance(seconds=5)
    denied = {"consent": {"categoryPreferences": {"personal": False}}}
    driver.push(track("Segment Consent Preference Updated") | {"context": denied})
    assert "viewed" not in driver.features(user_id="u-1")
    assert driver.profile(user_id="u-1").traits == {}


def test_a_holdout_sees_what_a_stranger_sees(driver: Driver) -> None:
    # Who is held out follows from a hash of the address: under the driver's key, Ada is.
    driver.load_items(SKILLET, WOK)
    driver.push(identify(email="ada@example.com"), track("Product Viewed", product_id="p-401"))
    answer = driver.decide("winback", user_id="u-1")
    assert answer.served == "holdout"
    assert (
        answer.slots["hero"].items
        == driver.decide("winback", user_id="u-nobody").slots["hero"].items
    )


def test_a_stranger_gets_content_too(driver: Driver) -> None:
    assert driver.decide("winback", user_id="u-nobody").slots["hero"].items
