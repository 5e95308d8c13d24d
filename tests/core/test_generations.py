"""Partitions of several generations, numbered through, and places in them as one number."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.generations import Generations, copied_below, seal_record
from penstock.core.ids import partition_of
from penstock.core.record import (
    NO_VERSION,
    Kind,
    Version,
    decode_record,
    kind_of,
    position_of,
    version_at,
)

COUNTS = st.lists(st.integers(1, 9), min_size=1, max_size=4).map(tuple)
LEAVES = st.binary(min_size=16, max_size=16)


@given(COUNTS, LEAVES)
def test_each_generation_holds_a_leaf_in_the_partition_of_its_own_count(
    counts: tuple[int, ...], leaf: bytes
) -> None:
    known = Generations(counts)
    places = known.places(leaf)

    assert [*range(1, len(counts) + 1)] == [known.generation(one) for one in places]
    assert [partition_of(leaf, one) for one in counts] == [known.number(one) for one in places]
    assert places == [known.partition(leaf, one) for one in range(1, len(counts) + 1)]
    assert places[-1] == known.partition(leaf)


@given(COUNTS, st.integers(1, 9))
def test_a_number_means_the_same_partition_when_there_are_more(
    counts: tuple[int, ...], more: int
) -> None:
    before, after = Generations(counts), Generations((*counts, more))

    assert sum(counts) == before.partitions == after.partitions - more
    for partition in range(before.partitions):
        assert before.generation(partition) == after.generation(partition)
        assert before.number(partition) == after.number(partition)
        assert after.ended(partition)
    assert not any(after.ended(one) for one in after.of(after.newest))


def test_generations_are_equal_if_their_partitions_are() -> None:
    assert Generations((3, 4)) == Generations((3, 4))
    assert Generations((3, 4)) != Generations((3, 5))
    assert len({Generations((3,)), Generations((3,))}) == 1


@pytest.mark.parametrize("copied", [0, 7])
def test_a_seal_says_what_is_copied(copied: int) -> None:
    value = seal_record(copied)

    assert Kind.SEAL == kind_of(value)
    assert copied == copied_below(decode_record(value))


@given(st.integers(1, 2_000), st.integers(0, 2**39))
def test_a_position_stands_for_a_version_and_keeps_the_order(generation: int, offset: int) -> None:
    version = Version(generation, offset)

    assert version == version_at(position_of(version))
    assert position_of(version) < position_of(Version(generation + 1, 0))
    assert offset == position_of(Version(1, offset))
    assert NO_VERSION == version_at(position_of(NO_VERSION))
