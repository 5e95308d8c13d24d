"""What the shop knows of a shopper: each attribute is a feature, kept fresh with every event."""

from events import (
    email_link_clicked,
    order_completed,
    product_added,
    product_viewed,
    products_searched,
)

from penstock.dsl.features import (
    Profile,
    count,
    days,
    decay,
    each,
    hours,
    last,
    last_k,
    lifetime,
    mean,
    ratio,
    recency,
    sessions,
    sum_,
    top_k,
)

lines = each(order_completed, "products")


class Shopper(Profile):
    """One person, whatever devices they use."""

    viewed = last_k(product_viewed.product_id, k=12, distinct=True, over=days(30))
    views_7d = count(product_viewed, over=days(7))
    views_24h = count(product_viewed, over=hours(24))
    favourite_categories = top_k(product_viewed.category, k=3, over=days(30))
    interests = decay(product_viewed, by=product_viewed.category, half_life=days(12))
    visits_30d = sessions(product_viewed, over=days(30))
    searched = last(products_searched.query, over=days(30))

    added = last_k(product_added.product_id, k=12, distinct=True, over=days(7))
    adds_7d = count(product_added, over=days(7))
    adds_per_view = ratio(adds_7d, views_7d)

    bought = last_k(lines.product_id, k=50, distinct=True, over=lifetime())
    orders = count(order_completed, over=lifetime())
    spent = sum_(order_completed.total, over=lifetime())
    mean_order = mean(order_completed.total, over=lifetime())
    since_order = recency(order_completed, over=lifetime())

    clicks_90d = count(email_link_clicked, over=days(90), purpose="measurement")
