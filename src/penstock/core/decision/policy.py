"""How a slot chooses among the eligible, and the exact probability with which it chose.

A draw is a hash of the decision id: the same decision draws the same lot for ever. Probabilities are
fractions of integers, because a recorded propensity is divided by later and must not be rounded.
"""

from collections.abc import Sequence
from itertools import pairwise
from math import gcd
from typing import Final, NamedTuple

import msgspec

from penstock.core.ids import lot

MILLION: Final = 1_000_000


class Policy(msgspec.Struct, frozen=True):
    """How to choose: `ranked` takes the best; `epsilon` draws uniformly for a share of decisions."""

    kind: str = "ranked"
    share_ppm: int = 0
    """Share of decisions drawn uniformly, parts per million."""


class Propensity(NamedTuple):
    """A probability as an exact fraction, in lowest terms."""

    numerator: int
    denominator: int

    def share(self) -> float:
        """Return it as a number in (0, 1]."""
        return self.numerator / self.denominator


CERTAIN: Final = Propensity(1, 1)


class Ranked(NamedTuple):
    """An eligible candidate's key and its score; the smaller score ranks higher, equal ones tie."""

    key: str
    score: tuple[int, ...]


class Choice(NamedTuple):
    """The keys chosen, best place first, each with the probability of that key at that place."""

    keys: tuple[str, ...]
    propensities: tuple[Propensity, ...]
    explored: bool


def choose(
    eligible: Sequence[Ranked], *, slot: str, decision_id: str, share_ppm: int, limit: int
) -> Choice:
    """Return the choice of a decision among the eligible.

    Args:
        eligible: Candidates with distinct keys, any order.
        slot: The slot's name: slots of one decision draw apart.
        decision_id: Seeds every draw.
        share_ppm: Share of decisions that take a uniform draw, parts per million.
        limit: How many to choose.

    Laws:
        the propensities at one place sum to 1 over the eligible;
        a key's frequency at a place over many decision ids tends to its propensity.
    """
    ranking = _rank(eligible, slot, decision_id)
    explored = share_ppm > 0 and lot(decision_id, slot, "explore") * MILLION < share_ppm
    order = ranking
    if explored:
        order = sorted(eligible, key=lambda one: (lot(decision_id, slot, "draw", one.key), one.key))
    chosen = order[:limit]
    propensities = tuple(
        propensity(one.score, ranking[place].score, _ties(ranking, place), len(ranking), share_ppm)
        for place, one in enumerate(chosen)
    )
    return Choice(tuple(one.key for one in chosen), propensities, explored)


def _rank(eligible: Sequence[Ranked], slot: str, decision_id: str) -> list[Ranked]:
    """Return the eligible by score; lots are drawn where scores tie, and only there."""
    ranking = sorted(eligible, key=lambda one: (one.score, one.key))
    if all(one.score != after.score for one, after in pairwise(ranking)):
        return ranking
    return sorted(
        ranking, key=lambda one: (one.score, lot(decision_id, slot, "tie", one.key), one.key)
    )


def propensity(
    score: tuple[int, ...], score_there: tuple[int, ...], ties: int, eligible: int, share_ppm: int
) -> Propensity:
    """Return the probability that a candidate takes a place, over all decision ids.

    Args:
        score: The candidate's.
        score_there: The score that the ranking puts at the place.
        ties: How many candidates have that score: a tie is broken by lot, so each has an equal chance.
        eligible: How many candidates are eligible.
        share_ppm: Share of decisions drawn uniformly.
    """
    by_rank = (MILLION - share_ppm) * eligible if score == score_there else 0
    numerator = by_rank + share_ppm * ties
    denominator = MILLION * eligible * ties
    common = gcd(numerator, denominator)
    return Propensity(numerator // common, denominator // common)


def _ties(ranking: Sequence[Ranked], place: int) -> int:
    return sum(1 for one in ranking if one.score == ranking[place].score)


def describe_policy(policy: Policy, uniform_share_ppm: int) -> str:
    """Return a policy as records name it, with the share that is drawn uniformly in effect."""
    share_ppm = max(policy.share_ppm, uniform_share_ppm)
    return f"{policy.kind} uniform={share_ppm}ppm" if share_ppm else policy.kind
