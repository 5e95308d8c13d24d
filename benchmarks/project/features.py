"""The eight features that every benchmark folds; `benchmarks/duckdb_pass.py` says them in SQL."""

from events import order_completed, product_added, product_viewed

from penstock.dsl.features import (
    Profile,
    count,
    days,
    each,
    last_k,
    lifetime,
    recency,
    sum_,
    top_k,
)


class Shopper(Profile):
    """One shopper."""

    views_7d = count(product_viewed, over=days(7))
    adds_7d = count(product_added, over=days(7))
    recent = last_k(product_viewed.product_id, k=10, distinct=True, over=days(30))
    categories = top_k(product_viewed.category, k=3, over=days(30))
    bought = last_k(
        each(order_completed, "products").product_id, k=20, distinct=True, over=lifetime()
    )
    orders = count(order_completed, over=lifetime())
    spent = sum_(order_completed.total, over=lifetime())
    since_view = recency(product_viewed, over=days(30))
