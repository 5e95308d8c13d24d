"""One feature of every aggregate, so that every kind of stored state is among the files."""

from events import order_completed, product_added, product_viewed, rated

from penstock.dsl.features import (
    Profile,
    count,
    days,
    decay,
    distinct,
    each,
    exists,
    first,
    hours,
    instants,
    last,
    last_at,
    last_k,
    last_session,
    lifetime,
    max_,
    mean,
    min_,
    quantile,
    ratio,
    sequence,
    session_length,
    sessions,
    sum_,
    top_k,
    tumbling,
    variance,
)

lines = each(order_completed, "products")


class Shopper(Profile):
    viewed = last_k(product_viewed.product_id, k=10, distinct=True, over=days(30))
    views_7d = count(product_viewed, over=days(7))
    views_today = count(product_viewed, over=tumbling("day"))
    favourites = top_k(product_viewed.category, k=3, over=days(30))
    interests = decay(product_viewed, by=product_viewed.category, half_life=days(12))
    kinds = distinct(product_viewed.product_id, over=days(30))
    visits = sessions(product_viewed, over=days(30))
    visit_length = session_length(product_viewed, over=days(30))
    last_visit = last_session(product_viewed, over=days(30))
    seen_at = instants(product_viewed, over=days(2))
    added = last_k(product_added.product_id, k=5, over=days(7))
    bought = last_k(lines.product_id, k=50, distinct=True, over=lifetime())
    bought_after_adding = sequence(product_added, order_completed, within=hours(24), over=days(30))
    orders = count(order_completed, over=lifetime())
    has_bought = exists(order_completed, over=lifetime())
    spent = sum_(order_completed.total, over=lifetime())
    mean_order = mean(order_completed.total, over=lifetime())
    ordered_at = last_at(order_completed, over=lifetime())
    views_per_order = ratio(views_7d, orders)
    first_stars = first(rated.stars, over=lifetime())
    last_stars = last(rated.stars, over=lifetime())
    worst = min_(rated.stars, over=lifetime())
    best = max_(rated.stars, over=lifetime())
    spread = variance(rated.stars, over=lifetime())
    middle = quantile(rated.stars, over=days(90))
    measured = count(rated, over=days(7), purpose="measurement")
