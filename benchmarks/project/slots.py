"""One slot, so that content can be asked for."""

from penstock.dsl.slots import fixed, recently_viewed, slot

hero = slot(
    "hero",
    candidates=[recently_viewed("recent")],
    fallback=[
        fixed("p-0001", label="bestseller"),
        {"title": "New this week", "url": "https://shop.example/new"},
    ],
)
