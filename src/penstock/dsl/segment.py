"""Segment's e-commerce (v2), email and consent events, declared and annotated, ready to import.

    from penstock.dsl.segment import ECOMMERCE, order_completed, product_viewed

No property is required, because Segment requires none. Who wants other fields or annotations
declares an event of the same name instead. The currency of an event is read by its amounts and kept
with each. Words that people wrote, addresses with queries, and what they say about others are
dropped.

Source: Segment, "Spec: V2 Ecommerce Events", "Spec: Email Events", "Consent in Segment".
"""

from typing import Final

from penstock.core.catalog.fields import EventType, Privacy
from penstock.dsl.events import (
    FieldSpec,
    boolean,
    decimal,
    event,
    integer,
    money,
    objects,
    private,
    string,
)

_BROWSING: Final = private(category="user.behavior.browsing_history", retention=400)
_PURCHASE: Final = private(category="user.behavior.purchase_history", data_class="confidential")
_SEARCH: Final = private(
    category="user.behavior.search_history", data_class="confidential", retention=400
)
_PAYMENT: Final = private(
    category="user.financial", data_class="restricted", purpose="analytics", protection="drop"
)
_WRITTEN: Final = private(
    category="user.content.private", data_class="restricted", protection="drop"
)
_OTHERS: Final = private(category="user.contact.email", data_class="restricted", protection="drop")
_LINK: Final = private(
    category="user.behavior.browsing_history", data_class="confidential", protection="drop"
)
_EMAIL: Final = private(category="user.behavior", purpose="measurement", retention=800)
_CHOICE: Final = private(category="user.privacy_preferences", data_class="confidential")
_SHOP: Final = private(category="system.operations", data_class="public")


def _product(privacy: Privacy) -> dict[str, FieldSpec]:
    """Return what a product has wherever it is named: in an event, or in a list of products."""
    return {
        "product_id": string(chars_max=200, privacy=privacy, description="The product's id"),
        "sku": string(chars_max=200, privacy=privacy, description="Stock keeping unit"),
        "category": string(chars_max=300, privacy=privacy, description="The product's category"),
        "name": string(privacy=privacy, description="The product's name"),
        "brand": string(chars_max=300, privacy=privacy, description="The product's brand"),
        "variant": string(chars_max=300, privacy=privacy, description="Such as a colour"),
        "price": money(privacy=privacy, description="Price of one"),
        "quantity": integer(privacy=privacy, description="How many"),
        "coupon": string(chars_max=200, privacy=privacy, description="Coupon for this product"),
        "position": integer(privacy=privacy, description="Place in the list, from 1"),
        "url": string(chars_max=2_000, privacy=_SHOP, description="Address of its page"),
        "image_url": string(chars_max=2_000, privacy=_SHOP, description="Address of its picture"),
    }


def _products(privacy: Privacy) -> FieldSpec:
    return objects(_product(privacy), privacy=privacy, description="The products, in order")


def _id(privacy: Privacy, description: str) -> FieldSpec:
    return string(chars_max=200, privacy=privacy, description=description)


def _one_product(name: str, description: str, **more: FieldSpec) -> EventType:
    """Return an event about one product."""
    return event(name, description=description, fields={**_product(_BROWSING), **more})


def _order(name: str, description: str, **more: FieldSpec) -> EventType:
    """Return an event about an order: its amounts and its products."""
    return event(
        name,
        description=description,
        order_id=_id(_PURCHASE, "The order's id"),
        checkout_id=_id(_PURCHASE, "The checkout's id"),
        affiliation=string(chars_max=300, privacy=_PURCHASE, description="The shop it came from"),
        value=money(privacy=_PURCHASE, description="Revenue with discounts and coupons added in"),
        subtotal=money(privacy=_PURCHASE, description="After discounts, before shipping and tax"),
        total=money(privacy=_PURCHASE, description="With discounts, shipping and tax"),
        revenue=money(privacy=_PURCHASE, description="Without shipping and tax"),
        shipping=money(privacy=_PURCHASE, description="Cost of shipping"),
        tax=money(privacy=_PURCHASE, description="Tax"),
        discount=money(privacy=_PURCHASE, description="Discount"),
        coupon=string(chars_max=200, privacy=_PURCHASE, description="Coupon of the order"),
        products=_products(_PURCHASE),
        fields=more,
    )


def _promotion(name: str, description: str) -> EventType:
    return event(
        name,
        description=description,
        promotion_id=_id(_BROWSING, "The promotion's id"),
        creative=string(chars_max=300, privacy=_BROWSING, description="Its creative"),
        position=string(chars_max=300, privacy=_BROWSING, description="Where it stands"),
        fields={"name": string(privacy=_BROWSING, description="Its name")},
    )


def _checkout(name: str, description: str, **more: FieldSpec) -> EventType:
    return event(
        name,
        description=description,
        checkout_id=_id(_PURCHASE, "The checkout's id"),
        step=integer(privacy=_PURCHASE, description="Number of the step"),
        shipping_method=string(chars_max=100, privacy=_PURCHASE, description="How it is shipped"),
        payment_method=string(chars_max=100, privacy=_PAYMENT, description="How it is paid"),
        fields=more,
    )


def _coupon(name: str, description: str, **more: FieldSpec) -> EventType:
    return event(
        name,
        description=description,
        order_id=_id(_PURCHASE, "The order's id"),
        cart_id=_id(_PURCHASE, "The cart's id"),
        coupon_id=_id(_PURCHASE, "The coupon's id"),
        fields=more,
    )


def _wish(name: str, description: str, **more: FieldSpec) -> EventType:
    return _one_product(
        name,
        description,
        wishlist_id=_id(_BROWSING, "The wish list's id"),
        wishlist_name=string(privacy=_WRITTEN, description="Its name, written by the person"),
        **more,
    )


def _email(name: str, description: str, **more: FieldSpec) -> EventType:
    """Return an event of an email's life, as Segment has it and as our own sends write it."""
    return event(
        name,
        description=description,
        email_id=_id(_EMAIL, "The email's id; of ours, the decision's"),
        email_subject=string(privacy=_EMAIL, description="Its subject"),
        campaign_id=_id(_EMAIL, "The campaign's id"),
        campaign_name=string(privacy=_EMAIL, description="The campaign's name"),
        campaign_version=_id(_EMAIL, "The campaign's version"),
        send=_id(_EMAIL, "Which send of the campaign"),
        fields=more,
    )


products_searched = event(
    "Products Searched",
    description="A person searched for products.",
    query=string(privacy=_SEARCH, description="What was searched for"),
)
product_list_viewed = event(
    "Product List Viewed",
    description="A person viewed a list or a category of products.",
    list_id=_id(_BROWSING, "The list's id"),
    category=string(chars_max=300, privacy=_BROWSING, description="The list's category"),
    products=_products(_BROWSING),
)
_choice = {
    "type": string(chars_max=200, privacy=_BROWSING, description="What is chosen by"),
    "value": string(chars_max=300, privacy=_BROWSING, description="What is chosen"),
}
product_list_filtered = event(
    "Product List Filtered",
    description="A person filtered a list or a category of products.",
    list_id=_id(_BROWSING, "The list's id"),
    category=string(chars_max=300, privacy=_BROWSING, description="The list's category"),
    filters=objects(_choice, privacy=_BROWSING, description="The filters"),
    sorts=objects(_choice, privacy=_BROWSING, description="The order"),
    products=_products(_BROWSING),
)
promotion_viewed = _promotion("Promotion Viewed", "A person viewed a promotion.")
promotion_clicked = _promotion("Promotion Clicked", "A person clicked on a promotion.")
product_clicked = _one_product("Product Clicked", "A person clicked on a product.")
product_viewed = _one_product(
    "Product Viewed",
    "A person viewed a product's page.",
    value=money(privacy=_BROWSING, description="Price times quantity"),
)
product_added = _one_product(
    "Product Added",
    "A person put a product into the cart.",
    cart_id=_id(_BROWSING, "The cart's id"),
    value=money(privacy=_BROWSING, description="Price times quantity"),
)
product_removed = _one_product(
    "Product Removed",
    "A person took a product out of the cart.",
    cart_id=_id(_BROWSING, "The cart's id"),
)
cart_viewed = event(
    "Cart Viewed",
    description="A person viewed the cart.",
    cart_id=_id(_BROWSING, "The cart's id"),
    products=_products(_BROWSING),
)
checkout_started = _order("Checkout Started", "A person began to check out.")
checkout_step_viewed = _checkout("Checkout Step Viewed", "A person viewed a step of the checkout.")
checkout_step_completed = _checkout(
    "Checkout Step Completed", "A person completed a step of the checkout."
)
payment_info_entered = _checkout(
    "Payment Info Entered",
    "A person entered how to pay.",
    order_id=_id(_PURCHASE, "The order's id"),
)
order_updated = _order("Order Updated", "An order was changed.")
order_completed = _order("Order Completed", "A person completed an order.")
order_refunded = _order("Order Refunded", "An order was refunded, as a whole or in part.")
order_cancelled = _order("Order Cancelled", "An order was cancelled.")
coupon_entered = _coupon("Coupon Entered", "A person entered a coupon.")
coupon_applied = _coupon(
    "Coupon Applied",
    "A coupon was applied.",
    coupon_name=string(chars_max=300, privacy=_PURCHASE, description="The coupon's name"),
    discount=money(privacy=_PURCHASE, description="What it takes off"),
)
coupon_denied = _coupon(
    "Coupon Denied",
    "A coupon was denied.",
    reason=string(chars_max=300, privacy=_PURCHASE, description="Why"),
)
coupon_removed = _coupon(
    "Coupon Removed",
    "A coupon was taken off.",
    coupon_name=string(chars_max=300, privacy=_PURCHASE, description="The coupon's name"),
    discount=money(privacy=_PURCHASE, description="What it took off"),
)
product_added_to_wishlist = _wish(
    "Product Added to Wishlist", "A person put a product on the wish list."
)
product_removed_from_wishlist = _wish(
    "Product Removed from Wishlist", "A person took a product off the wish list."
)
wishlist_product_added_to_cart = _wish(
    "Wishlist Product Added to Cart",
    "A person put a product of the wish list into the cart.",
    cart_id=_id(_BROWSING, "The cart's id"),
)
_share = {
    "share_via": string(chars_max=100, privacy=_BROWSING, description="By what means"),
    "share_message": string(privacy=_WRITTEN, description="What the person wrote"),
    "recipient": string(privacy=_OTHERS, description="Whom it was sent to"),
}
product_shared = _one_product("Product Shared", "A person shared a product.", **_share)
cart_shared = event(
    "Cart Shared",
    description="A person shared the cart.",
    cart_id=_id(_BROWSING, "The cart's id"),
    products=_products(_BROWSING),
    fields=_share,
)
product_reviewed = event(
    "Product Reviewed",
    description="A person reviewed a product.",
    product_id=_id(_BROWSING, "The product's id"),
    review_id=_id(_BROWSING, "The review's id"),
    review_body=string(chars_max=20_000, privacy=_WRITTEN, description="What the person wrote"),
    rating=decimal(scale=1, privacy=_BROWSING, description="The rating"),
)

ECOMMERCE: Final[tuple[EventType, ...]] = (
    products_searched, product_list_viewed, product_list_filtered, promotion_viewed, promotion_clicked,
    product_clicked, product_viewed, product_added, product_removed, cart_viewed, checkout_started,
    checkout_step_viewed, checkout_step_completed, payment_info_entered, order_updated, order_completed,
    order_refunded, order_cancelled, coupon_entered, coupon_applied, coupon_denied, coupon_removed,
    product_added_to_wishlist, product_removed_from_wishlist, wishlist_product_added_to_cart,
    product_shared, cart_shared, product_reviewed,
)  # fmt: skip
"""All events of Segment's e-commerce spec, version 2."""

_reach = {
    "list_id": _id(_CHOICE, "The ESP's list"),
    "topic": _id(_CHOICE, "What is no longer, or again, wanted; all topics if absent"),
    "channel": _id(_CHOICE, "`email` if absent"),
}
_click = {
    "link_url": string(chars_max=2_000, privacy=_LINK, description="Where the link leads"),
    "link_id": _id(_EMAIL, "The link's id"),
    "slot": _id(_EMAIL, "The slot it stands in"),
    "item_id": _id(_EMAIL, "The item it leads to"),
    "machine": boolean(privacy=_EMAIL, description="A scanner or a privacy proxy did it"),
}
email_sent = _email("Email Sent", "An email was handed over to be sent.")
email_delivered = _email("Email Delivered", "The receiving server took an email.")
email_opened = _email(
    "Email Opened",
    "An email was opened.",
    machine=boolean(privacy=_EMAIL, description="A scanner or a privacy proxy did it"),
)
email_link_clicked = _email("Email Link Clicked", "A link in an email was followed.", **_click)
email_bounced = _email(
    "Email Bounced",
    "An email could not be delivered.",
    bounce_type=_id(_EMAIL, "Such as `hard` or `soft`"),
    bounceType=_id(_EMAIL, "The same, as some ESPs write it"),
    type=_id(_EMAIL, "The same, as some ESPs write it"),
    severity=_id(_EMAIL, "The same, as some ESPs write it"),
    classification=_id(_EMAIL, "The same, as some ESPs write it"),
)
email_marked_as_spam = _email("Email Marked as Spam", "An email was reported as spam.")
unsubscribed = _email("Unsubscribed", "A person wants no more of these emails.", **_reach)
subscribed = _email("Subscribed", "A person wants these emails again.", **_reach)

EMAIL: Final[tuple[EventType, ...]] = (
    email_sent, email_delivered, email_opened, email_link_clicked, email_bounced,
    email_marked_as_spam, unsubscribed, subscribed,
)  # fmt: skip
"""Segment's email events, and two of ours: `Email Sent` and `Subscribed`."""

consent_preference_updated = event(
    "Segment Consent Preference Updated",
    description="A person changed what data may be used for; `context.consent` says how.",
)

CONSENT: Final[tuple[EventType, ...]] = (consent_preference_updated,)
"""Segment's consent event; its choices stand in the context, not in properties."""

ALL: Final[tuple[EventType, ...]] = (*ECOMMERCE, *EMAIL, *CONSENT)
"""Every event type shipped."""
