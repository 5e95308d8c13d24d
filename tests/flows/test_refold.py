"""A sample of leaves refolded from the log: equal where nothing is wrong, and what is wrong is named."""

from collections.abc import Callable

import pytest
from test_replay import history, step_of
from tests_serving import Shop

from penstock.core.errors import DataCorrupt
from penstock.core.ids import LeafId
from penstock.core.record import NO_VERSION, Version
from penstock.flows.history import History, Known, index_closed
from penstock.flows.refold import refold, reread, sample
from penstock.ports.store import LeafWrite, StoredLeaf

Play = Callable[..., object]
SEED = 3


def lived(play: Play, check: Callable[[Shop], object]) -> object:
    """Let a little of everything happen, then look at what is stored."""

    async def story(shop: Shop) -> object:
        await history(shop)
        await shop.node.engine.settled()
        return check(shop)

    return play(story)


def all_leaves(shop: Shop) -> dict[LeafId, StoredLeaf]:
    return sample(shop.node.stores.store, shop.node.epoch.number, 1_000, SEED)


def refolded(shop: Shop, leaves: dict[LeafId, StoredLeaf]) -> None:
    log, store = shop.node.stores.log, shop.node.stores.store
    refold(reread(log, leaves), log, store, step_of(shop), shop.node.epoch.number, leaves)


def fault(shop: Shop, leaf: LeafId, stored: StoredLeaf) -> str:
    with pytest.raises(DataCorrupt) as caught:
        refolded(shop, {**all_leaves(shop), leaf: stored})
    assert "E752" == caught.value.code
    assert leaf.hex() in caught.value.what
    return caught.value.what


def test_what_was_lived_through_refolds_to_the_same_bytes(play: Play) -> None:
    def check(shop: Shop) -> int:
        leaves = all_leaves(shop)
        refolded(shop, leaves)
        return len(leaves)

    assert lived(play, check) >= 6


def test_records_found_by_the_index_do_as_well_as_all_of_them(play: Play) -> None:
    def check(shop: Shop) -> bool:
        stores, leaves = shop.node.stores, all_leaves(shop)
        index_closed(stores.log, stores.index)
        found = History(stores.log, stores.index).entries(leaves, Known())
        refold(found, stores.log, stores.store, step_of(shop), shop.node.epoch.number, leaves)
        return sorted(found) == sorted(reread(stores.log, leaves))

    assert lived(play, check)


def test_other_bytes_are_found(play: Play) -> None:
    def check(shop: Shop) -> None:
        (one, stored), (_, other) = [*all_leaves(shop).items()][:2]
        assert "other bytes" in fault(shop, one, StoredLeaf(stored.version, other.parts))
        assert "other bytes" in fault(shop, one, StoredLeaf(stored.version, (stored.parts[0][:-1],)))  # fmt: skip

    lived(play, check)


def test_a_leaf_that_lacks_a_record_which_was_applied_is_found(play: Play) -> None:
    def check(shop: Shop) -> None:
        leaf, stored = max(all_leaves(shop).items(), key=lambda one: one[1].version)
        before = Version(stored.version.generation, stored.version.offset - 1)
        said = fault(shop, leaf, StoredLeaf(before, stored.parts))
        assert f"folds to offset {stored.version.offset}" in said

    lived(play, check)


def test_a_leaf_that_is_ahead_of_its_log_is_found(play: Play) -> None:
    def check(shop: Shop) -> None:
        leaf, stored = next(iter(all_leaves(shop).items()))
        beyond = Version(stored.version.generation, shop.node.stores.log.head(0) + 5)
        assert f"is stored at offset {beyond.offset}" in fault(shop, leaf, StoredLeaf(beyond, stored.parts))  # fmt: skip

    lived(play, check)


def test_a_leaf_of_which_the_log_knows_nothing_is_found(play: Play) -> None:
    def check(shop: Shop) -> None:
        stored = next(iter(all_leaves(shop).values()))
        assert "folds to nothing" in fault(shop, LeafId(b"nobody's leaf 16"), stored)

    lived(play, check)


def test_a_leaf_that_was_written_ahead_of_what_is_applied_is_folded_up_to_its_own_version(
    play: Play,
) -> None:
    """Leaves are written one by one, and the applied offset is that of the slowest."""

    def check(shop: Shop) -> None:
        stores, epoch = shop.node.stores, shop.node.epoch.number + 7
        leaves = all_leaves(shop)
        for leaf, stored in leaves.items():
            write = LeafWrite(leaf, NO_VERSION, stored.version, stored.parts)
            stores.store.write(epoch, [write], partition=0, applied=Version(1, 0))
        again = sample(stores.store, epoch, 1_000, SEED)
        assert again == leaves
        refold(reread(stores.log, again), stores.log, stores.store, step_of(shop), epoch, again)

    lived(play, check)


def test_a_seed_chooses_the_leaves_and_another_seed_others(play: Play) -> None:
    def check(shop: Shop) -> None:
        store, epoch = shop.node.stores.store, 50
        ids = [LeafId(bytes([n * 256 // 100]) * 16) for n in range(100)]
        writes = [LeafWrite(leaf, NO_VERSION, Version(1, 1), (b"x",)) for leaf in ids]
        store.write(epoch, writes, partition=0, applied=Version(1, 1))
        samples = [frozenset(sample(store, epoch, 10, seed)) for seed in range(60)]
        assert samples == [frozenset(sample(store, epoch, 10, seed)) for seed in range(60)]
        assert {10} == {len(one) for one in samples}
        assert len(set(samples)) > 30
        # Also those that begin near the end of the ids and go on from their beginning.
        assert any({ids[0], ids[-1]} <= one for one in samples)
        assert 100 == len(sample(store, epoch, 1_000, 1))
        assert {} == sample(store, epoch, 0, 1)

    lived(play, check)
