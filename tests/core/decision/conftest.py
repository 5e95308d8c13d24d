"""People, items and decisions for the tests of decisions."""

from collections.abc import Callable
from typing import Any

import pytest

from penstock.core.decision.campaign import Campaign
from penstock.core.decision.decide import decide
from penstock.core.decision.item import Item
from penstock.core.decision.record import Decision
from penstock.core.decision.slot import Slot
from penstock.core.ids import LeafId
from penstock.core.profile import Profile

RECIPIENT = LeafId(bytes(range(16)))


def a_profile(
    features: dict[str, Any] | None = None,
    *,
    traits: dict[str, Any] | None = None,
    permitted: tuple[str, ...] = ("personalisation",),
    withheld: tuple[str, ...] = (),
) -> Profile:
    return Profile(
        leaves=(RECIPIENT,),
        identifiers={},
        features={name: v for name, v in (features or {}).items() if name not in withheld},
        traits={name: v for name, v in (traits or {}).items() if name not in withheld},
        consent={},
        permitted=frozenset(permitted),
        email=None,
        email_leaf=None,
        clock_ms=900,
        as_of_ms=1_000,
        definitions="d1",
        withheld=withheld,
    )


def an_item(item_id: str, **fields: Any) -> Item:
    given = {"title": item_id.upper(), "url": f"https://shop.example/{item_id}", **fields}
    return Item(item_id, {name: v for name, v in given.items() if v is not None}, 7)


def a_decision(slot: Slot, profile: Profile | None, items: list[Item], **more: Any) -> Decision:
    arguments: dict[str, Any] = {
        "tenant": "shop",
        "recipient": RECIPIENT,
        "send": "2026-11-25",
        "decision_id": "d-1",
        "as_of_ms": 2_000,
        "offset_known_at": 41,
        **more,
    }
    uniform_share_ppm = arguments.pop("uniform_share_ppm", 0)
    campaign = Campaign(
        name="welcome", version=3, slots=(slot,), uniform_share_ppm=uniform_share_ppm
    )
    return decide(campaign, profile, {item.id: item for item in items}, **arguments)


@pytest.fixture(scope="session")
def person() -> Callable[..., Profile]:
    return a_profile


@pytest.fixture(scope="session")
def an() -> Callable[..., Item]:
    return an_item


@pytest.fixture(scope="session")
def decided() -> Callable[..., Decision]:
    return a_decision
