"""What happens in the shop whose files are kept."""

from penstock.dsl.events import decimal, event, integer, items, money, string, traits
from penstock.dsl.segment import (
    email_link_clicked,  # noqa: F401
    order_completed,  # noqa: F401
    product_added,  # noqa: F401
    product_viewed,  # noqa: F401
)

rated = event(
    "Product Rated", product_id=string(required=True), stars=integer(), weight=decimal(scale=2)
)
people = traits(email=string(), first_name=string())
catalogue = items(title=string(), url=string(), price=money(), category=string(), stock=integer())
