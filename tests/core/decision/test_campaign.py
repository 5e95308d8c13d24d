"""Campaigns: parsed from the data of their files, refused with place and remedy."""

import pytest

from penstock.core.decision.campaign import Campaign, Goal, parse_campaign
from penstock.core.decision.predicate import Names
from penstock.core.errors import DefinitionError
from penstock.dsl.slots import fixed, slot

SLOTS = {
    name: slot(name, candidates=[fixed("a")], fallback={"title": "x"}) for name in ("hero", "grid")
}
NAMES = Names(
    topics=frozenset({"news"}),
    templates=frozenset({"winback"}),
    audiences=frozenset({"lapsed"}),
    events=frozenset({"Order Completed"}),
)


def parsed(data):
    return parse_campaign(
        data, name="winback", slots=SLOTS, names=NAMES, where="campaigns/winback.toml"
    )


def test_a_whole_file() -> None:
    campaign = parsed(
        {
            "version": 2,
            "slots": ["grid", "hero"],
            "holdout_share": 0.1,
            "uniform_share": 0,
            "goal": {"event": "Order Completed", "days": 14},
            "template": "winback",
            "subject": "Back for {{ hero.title }}?",
            "preheader": "…",
            "topic": "news",
            "audience": "lapsed",
            "from": '"The Shop" <shop@shop.example>',
            "reply_to": "help@shop.example",
            "utm": {"campaign": "winback"},
        }
    )
    expected = Campaign(
        name="winback",
        version=2,
        slots=(SLOTS["grid"], SLOTS["hero"]),
        holdout_share_ppm=100_000,
        uniform_share_ppm=0,
        goal=Goal("Order Completed", 14),
        template="winback",
        subject="Back for {{ hero.title }}?",
        preheader="…",
        topic="news",
        audience="lapsed",
        from_name="The Shop",
        from_address="shop@shop.example",
        reply_to="help@shop.example",
        utm={"campaign": "winback"},
        where="campaigns/winback.toml",
    )
    assert expected == campaign


def test_a_holdout_and_a_uniform_share_are_on_unless_turned_off() -> None:
    campaign = parsed({"slots": ["hero"], "goal": "Order Completed", "from": "s@shop.example"})
    assert (50_000, 50_000) == (campaign.holdout_share_ppm, campaign.uniform_share_ppm)
    assert (Goal("Order Completed", 7), 1) == (campaign.goal, campaign.version)
    assert ("", "s@shop.example") == (campaign.from_name, campaign.from_address)


@pytest.mark.parametrize(
    ("data", "code", "says"),
    [
        ({"slot": ["hero"]}, "E158", "`slots`"),
        ({"slots": ["hero"], "goal": {"evnt": "x"}}, "E158", "`event`"),
        ({"zzz": 1}, "E158", "known are"),
        ({}, "E159", "`slots`"),
        ({"slots": "hero"}, "E159", "`slots`"),
        ({"slots": []}, "E159", "`slots`"),
        ({"slots": ["hero", "hero"]}, "E159", "different"),
        ({"slots": ["hero"], "version": 0}, "E159", "`version`"),
        ({"slots": ["hero"], "version": True}, "E159", "`version`"),
        ({"slots": ["hero"], "subject": 3}, "E159", "`subject`"),
        ({"slots": ["hero"], "utm": {"a": 1}}, "E159", "`utm`"),
        ({"slots": ["hero"], "goal": 4}, "E159", "`goal`"),
        ({"slots": ["hero"], "goal": {}}, "E159", "`goal.event`"),
        ({"slots": ["hero"], "from": "nobody"}, "E159", "`from`"),
        ({"slots": ["hero"], "from": "Shop <a@b.c"}, "E159", "`from`"),
        ({"slots": ["hero"], "from": "Sh\nop <a@b.c>"}, "E159", "`from`"),
        ({"slots": ["heros"]}, "E160", "did you mean `hero`?"),
        ({"slots": ["hero"], "holdout_share": 5}, "E161", "holdout_share"),
        ({"slots": ["hero"], "uniform_share": "5 %"}, "E161", "uniform_share"),
        ({"slots": ["hero"], "topic": "new"}, "E162", "did you mean `news`?"),
        ({"slots": ["hero"], "template": "winbak"}, "E163", "did you mean `winback`?"),
        ({"slots": ["hero"], "audience": "lapse"}, "E164", "did you mean `lapsed`?"),
        ({"slots": ["hero"], "goal": "Order Complete"}, "E165", "did you mean `Order Completed`?"),
    ],
)
def test_what_is_wrong_is_named_with_a_remedy(data, code, says) -> None:
    with pytest.raises(DefinitionError) as error:
        parsed(data)
    assert code == error.value.code
    assert says in str(error.value)
    assert "campaigns/winback.toml" == error.value.where
