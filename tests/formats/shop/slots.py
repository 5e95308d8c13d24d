"""What the campaign shows."""

from penstock.dsl.slots import slot, viewed_not_bought

hero = slot(
    "hero",
    candidates=[viewed_not_bought(viewed="viewed", bought="bought")],
    fallback={"title": "New in", "url": "https://shop.example/new"},
)
