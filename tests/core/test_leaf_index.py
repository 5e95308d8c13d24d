"""The index by leaf: it finds what reading everything finds, and says when its bytes are no index."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.errors import DataCorrupt
from penstock.core.leaf_index import BUCKETS, bucket_of, find, index_of

LEAVES = st.sampled_from([bytes([n % 3]) * 8 + bytes([n]) * 8 for n in range(9)])


@given(st.lists(LEAVES, max_size=60), LEAVES)
def test_it_finds_every_record_of_a_leaf_and_of_those_that_share_its_key(leaves, asked):
    buckets = index_of(leaves)
    expected = [place for place, leaf in enumerate(leaves) if leaf[:8] == asked[:8]]
    assert expected == list(find(buckets[bucket_of(asked)], asked))
    assert BUCKETS == len(buckets)


def test_the_greatest_place_fits():
    leaves = [b"a" * 16] * 65_535 + [b"b" * 16]
    buckets = index_of(leaves)
    assert [65_535] == list(find(buckets[bucket_of(b"b")], b"b" * 16))
    assert 65_535 == len(find(buckets[bucket_of(b"a")], b"a" * 16))


@pytest.mark.parametrize("cut", [1, 3, 4, 11, 13])
def test_a_cut_bucket_is_said_to_be_damaged(cut):
    bucket = index_of([b"a" * 16])[ord("a")]
    assert 4 + 8 + 4 + 2 == len(bucket)
    with pytest.raises(DataCorrupt) as caught:
        find(bucket[:cut], b"a" * 16)
    assert "E732" == caught.value.code
