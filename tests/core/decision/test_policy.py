"""Policies: propensities are exact, sum to one, and are what happens over many decisions."""

from collections import Counter
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.core.decision.policy import (
    CERTAIN,
    MILLION,
    Policy,
    Propensity,
    Ranked,
    choose,
    describe_policy,
    propensity,
)

scores = st.lists(st.integers(0, 3), min_size=1, max_size=12)


def ranked(numbers: list[int]) -> list[Ranked]:
    return [Ranked(f"item:{place}", (number,)) for place, number in enumerate(numbers)]


@settings(max_examples=100, deadline=None)
@given(scores, st.integers(0, MILLION), st.data())
def test_propensities_at_a_place_sum_to_one_over_the_eligible(numbers, share_ppm, data) -> None:
    place = data.draw(st.integers(0, len(numbers) - 1))
    there = sorted(numbers)[place]
    total = sum(
        Fraction(*propensity((n,), (there,), numbers.count(there), len(numbers), share_ppm))
        for n in numbers
    )
    assert 1 == total


@settings(max_examples=100, deadline=None)
@given(scores, st.integers(0, MILLION), st.integers(1, 12), st.randoms(use_true_random=False))
def test_a_choice_depends_on_the_set_of_the_eligible_only(numbers, share_ppm, limit, dice) -> None:
    eligible = ranked(numbers)
    shuffled = list(eligible)
    dice.shuffle(shuffled)
    arguments = {"slot": "hero", "decision_id": "d", "share_ppm": share_ppm, "limit": limit}
    choice = choose(eligible, **arguments)
    assert choice == choose(shuffled, **arguments)
    assert min(limit, len(numbers)) == len(set(choice.keys)) == len(choice.propensities)
    assert all(0 < one.numerator <= one.denominator for one in choice.propensities)


def test_the_best_is_certain_where_nothing_is_drawn() -> None:
    choice = choose(ranked([2, 0, 1]), slot="s", decision_id="d", share_ppm=0, limit=2)
    assert (("item:1", "item:2"), (CERTAIN, CERTAIN), False) == choice


def test_nobody_eligible_is_nothing_chosen() -> None:
    assert ((), (), False) == choose([], slot="s", decision_id="d", share_ppm=0, limit=2)


def test_a_propensity_is_an_exact_fraction() -> None:
    assert Propensity(29, 30) == propensity((0,), (0,), 1, 3, 50_000)
    assert Propensity(1, 60) == propensity((1,), (0,), 1, 3, 50_000)
    assert Propensity(1, 2) == propensity((0,), (0,), 2, 2, 0)
    assert 0.5 == Propensity(1, 2).share()


@pytest.mark.parametrize("share_ppm", [0, 200_000, MILLION])
def test_frequencies_over_many_decisions_match_the_propensities(share_ppm) -> None:
    eligible = ranked([0, 1, 1, 2])
    runs = 6_000
    seen: Counter[tuple[int, str]] = Counter()
    said: dict[tuple[int, str], Propensity] = {}
    explored = 0
    for number in range(runs):
        choice = choose(
            eligible, slot="hero", decision_id=f"d{number}", share_ppm=share_ppm, limit=2
        )
        explored += choice.explored
        for place, (key, chance) in enumerate(zip(choice.keys, choice.propensities, strict=True)):
            seen[place, key] += 1
            assert chance == said.setdefault((place, key), chance)
    assert abs(explored / runs - share_ppm / MILLION) < 0.02
    for where, chance in said.items():
        # Five standard deviations: the ids are fixed, so this passes or fails for ever.
        bound = 5 * (chance.share() * (1 - chance.share()) / runs) ** 0.5
        assert abs(seen[where] / runs - chance.share()) <= bound + 1e-12, where


def test_slots_of_one_decision_draw_apart() -> None:
    eligible = ranked([0] * 8)
    same = sum(
        choose(eligible, slot="a", decision_id=f"d{n}", share_ppm=MILLION, limit=1).keys
        == choose(eligible, slot="b", decision_id=f"d{n}", share_ppm=MILLION, limit=1).keys
        for n in range(400)
    )
    assert 20 <= same <= 85  # 1 in 8 of 400 is 50


def test_a_policy_names_the_share_in_effect() -> None:
    assert "ranked" == describe_policy(Policy(), 0)
    assert "ranked uniform=50000ppm" == describe_policy(Policy(), 50_000)
    assert "epsilon uniform=100000ppm" == describe_policy(Policy("epsilon", 100_000), 50_000)
