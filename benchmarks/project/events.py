"""The events of the workload; three of a view's fields are protected before the log."""

from penstock.dsl.events import event, integer, items, money, objects, private, string

SECRET = private(category="user.behavior.browsing_history", protection="drop")
AREA = private(category="user.location", protection="truncate")
DEVICE = private(category="user.device", protection="pseudonym")

product_viewed = event(
    "Product Viewed",
    product_id=string(required=True),
    category=string(),
    price=money(),
    url=string(privacy=SECRET),
    postcode=string(privacy=AREA),
    device=string(privacy=DEVICE),
)
product_added = event(
    "Product Added", product_id=string(), category=string(), price=money(), quantity=integer()
)
order_completed = event(
    "Order Completed",
    order_id=string(),
    total=money(),
    products=objects({"product_id": string(), "price": money(), "quantity": integer()}),
)
page = event("page", fields={"name": string(), "path": string()})

catalogue = items(title=string(), url=string(), category=string(), price=money())
