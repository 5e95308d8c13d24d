"""What happens in the shop: Segment's own e-commerce and email events, and what people and items are."""

from penstock.dsl.events import boolean, datetime, integer, items, money, private, string, traits
from penstock.dsl.segment import (  # noqa: F401 - an event is declared by being here
    consent_preference_updated,
    email_bounced,
    email_link_clicked,
    email_marked_as_spam,
    email_opened,
    email_sent,
    order_completed,
    product_added,
    product_viewed,
    products_searched,
    subscribed,
    unsubscribed,
)

CONTACT = private(category="user.contact", data_class="confidential")

people = traits(
    email=string(privacy=CONTACT),
    first_name=string(privacy=CONTACT),
    city=string(privacy=CONTACT),
    loyalty=string(),
)

catalogue = items(
    title=string(),
    url=string(),
    image_url=string(),
    category=string(),
    price=money(),
    stock=integer(),
    rank=integer(description="Place among the bestsellers of its category, 1 is best"),
    starts_at=datetime(),
    ends_at=datetime(),
    available=boolean(),
)
