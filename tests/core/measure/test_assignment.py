"""Holdouts: stable for ever, as large as asked for, independent of each other."""

from hashlib import blake2b

import pytest

from penstock.core.ids import LeafId
from penstock.core.measure.assignment import GLOBAL, holdout_of, in_holdout

HELD_AT_FIVE_PERCENT = [12, 35, 38, 43, 58, 59, 97, 99, 110, 118, 124, 137, 149, 169, 183, 191, 198]
PEOPLE = [LeafId(blake2b(str(n).encode(), digest_size=16).digest()) for n in range(20_000)]


@pytest.mark.parametrize("share_ppm", [10_000, 50_000, 500_000])
def test_the_share_held_out_converges(share_ppm) -> None:
    share = share_ppm / 1_000_000
    held = sum(in_holdout(leaf, "winback", share_ppm) for leaf in PEOPLE) / len(PEOPLE)
    assert abs(held - share) < 4 * (share * (1 - share) / len(PEOPLE)) ** 0.5


def test_who_is_held_out_never_changes() -> None:
    # Written down once: a change of the hash would mix the groups of every running measurement.
    held = [n for n, leaf in enumerate(PEOPLE[:200]) if in_holdout(leaf, GLOBAL, 50_000)]
    assert HELD_AT_FIVE_PERCENT == held


def test_a_greater_share_only_adds() -> None:
    small = {leaf for leaf in PEOPLE if in_holdout(leaf, "winback", 20_000)}
    large = {leaf for leaf in PEOPLE if in_holdout(leaf, "winback", 80_000)}
    assert small < large


def test_nobody_and_everybody() -> None:
    assert not any(in_holdout(leaf, "x", 0) for leaf in PEOPLE[:1000])
    assert all(in_holdout(leaf, "x", 1_000_000) for leaf in PEOPLE[:1000])


def test_scopes_are_independent() -> None:
    one = {leaf for leaf in PEOPLE if in_holdout(leaf, "one", 100_000)}
    two = {leaf for leaf in PEOPLE if in_holdout(leaf, "two", 100_000)}
    assert 130 <= len(one & two) <= 270  # 1 % of 20,000 is 200


def test_the_global_holdout_goes_before_that_of_a_campaign() -> None:
    both = {"campaign_share_ppm": 1_000_000, "global_share_ppm": 1_000_000}
    assert "global" == holdout_of(PEOPLE[0], "c", **both)
    assert "campaign" == holdout_of(PEOPLE[0], "c", **both | {"global_share_ppm": 0})
    assert "" == holdout_of(PEOPLE[0], "c", campaign_share_ppm=0, global_share_ppm=0)
