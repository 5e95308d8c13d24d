"""The places in an email that are decided for each person, at the last moment."""

from events import product_viewed

from penstock.dsl.slots import (
    epsilon,
    feature,
    fixed,
    popular,
    rule,
    slot,
    top_of_favourite_category,
    viewed_not_bought,
)

CATEGORIES = ("shoes", "jackets", "bags", "kitchen", "lighting", "books", "outdoor", "kids")
BEST = {category: [f"p-{shelf}{place:02d}" for place in range(1, 7)]
        for shelf, category in enumerate(CATEGORIES, 1)}  # fmt: skip
"""What sells best in each category; stock and dates are looked up when somebody is decided for."""

BESTSELLERS = [best[place] for place in (1, 3) for best in BEST.values()]

NEW = {"title": "New this week", "url": "https://shop.example/new",
       "image_url": "https://shop.example/img/new.png"}  # fmt: skip

hero = slot(
    "hero",
    candidates=[
        rule(
            when=feature("adds_7d") > 0,
            then=viewed_not_bought(viewed="added", bought="bought"),
            label="left in the cart",
        ),
        viewed_not_bought(viewed="viewed", bought="bought", label="viewed, not bought"),
        top_of_favourite_category("favourite_categories", items=BEST, label="favourite category"),
    ],
    bought="bought",
    fallback=[fixed(*BESTSELLERS, label="bestsellers"), NEW],
)

more = slot(
    "more",
    candidates=[
        top_of_favourite_category(
            "favourite_categories", items=BEST, categories=2, label="favourite categories"
        ),
        popular(product_viewed.product_id, people=25, label="popular today"),
        fixed(*BESTSELLERS, label="bestsellers"),
    ],
    limit=4,
    policy=epsilon(0.05),
    bought="bought",
    fallback=[fixed(*BESTSELLERS, label="bestsellers"), NEW],
)
