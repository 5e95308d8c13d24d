"""The places in an email that are decided for each person, at the last moment."""

from penstock.dsl.slots import (
    epsilon,
    feature,
    fixed,
    recently_viewed,
    rule,
    slot,
    top_of_favourite_category,
    viewed_not_bought,
)

BESTSELLERS = ["p-101", "p-204", "p-302", "p-407", "p-505", "p-606", "p-703", "p-808"]

hero = slot(
    "hero",
    candidates=[
        rule(when=feature("adds_7d") > 0, then=viewed_not_bought(viewed="added", bought="bought"),
             label="left in the cart"),
        viewed_not_bought(viewed="viewed", bought="bought", label="viewed, not bought"),
        top_of_favourite_category("favourite_categories", items=BESTSELLERS, label="favourite category"),
    ],
    bought="bought",
    fallback=[
        fixed(*BESTSELLERS, label="bestsellers"),
        {"title": "New this week", "url": "https://shop.example/new",
         "image_url": "https://shop.example/img/new.png"},
    ],
)  # fmt: skip

more = slot(
    "more",
    candidates=[
        recently_viewed("viewed", label="viewed lately"),
        top_of_favourite_category("favourite_categories", items=BESTSELLERS, categories=3,
                                  label="favourite categories"),
        fixed(*BESTSELLERS, label="bestsellers"),
    ],
    limit=3,
    policy=epsilon(0.05),
    bought="bought",
    fallback=[
        fixed(*BESTSELLERS, label="bestsellers"),
        {"title": "All our bestsellers", "url": "https://shop.example/bestsellers",
         "image_url": "https://shop.example/img/bestsellers.png"},
    ],
)  # fmt: skip
