"""The fold of a partition: what it asks to be written, and in which order, and what it skips."""

from collections.abc import Callable, Sequence

import msgspec
import pytest

from penstock.adapters.accelerator.native import accelerate
from penstock.adapters.log.memory import MemoryLog
from penstock.adapters.store.memory import MemoryStore
from penstock.core.consent.purpose import ConsentRules
from penstock.core.errors import DataCorrupt, Fenced
from penstock.core.identity.identifier import IdentityRules
from penstock.core.identity.routing import route
from penstock.core.ids import LeafId, event_id, leaf_id
from penstock.core.record import (
    RECORD_FORMAT,
    Evidence,
    Kind,
    LogRecord,
    Record,
    Version,
    decode_record,
    encode_record,
)
from penstock.core.step import Rules, Step
from penstock.dsl.events import event, string
from penstock.dsl.features import Profile, compile_plan, count, days
from penstock.flows.native import new_fold
from penstock.flows.process import Folded, PartitionFold, catch_up, flush_all
from penstock.ports.store import Verdict
from penstock.testing.clock import HandClock

NOW = 1_795_000_000_000
viewed = event("Product Viewed", product_id=string())


class Shopper(Profile):
    views = count(viewed, over=days(7))


PLAN = compile_plan([Shopper])
RULES = Rules(ConsentRules(), {}, accelerate=accelerate())


def make_leaf(id_type: str, value: str) -> LeafId:
    return leaf_id(b"k" * 32, "t", id_type, value)


def view(
    number: int, user: str = "u1", device: str | None = None, name: str = "Product Viewed"
) -> Record:
    message_id = f"m{number}"
    routing = route(
        user_id=user, anonymous_id=device, previous_id=None, group_id=None, external_ids=(), email=None,
        type_name="track", message_id=message_id, occurred_at_ms=NOW + number, verified=True, tenant="t",
        make_leaf=make_leaf, rules=IdentityRules(),
    )  # fmt: skip
    leaf = routing.primary.leaf
    return Record(
        format=RECORD_FORMAT, kind=Kind.PRIMARY, tenant="t", leaf=leaf, id_type=routing.primary.id_type,
        event_id=event_id(leaf, message_id), message_id=message_id, type="track", name=name,
        occurred_at_ms=NOW + number, received_at_ms=NOW, source="site", source_rank=0, verified=True,
        evidence=Evidence("context", granted=("personalisation",)), identifiers=routing.identifiers,
        edges=routing.edges, properties={"product_id": f"p{number}"},
    )  # fmt: skip


class World:
    """A log, a store, and folds over them."""

    make: Callable[..., PartitionFold] = PartitionFold

    def __init__(self) -> None:
        self.clock = HandClock(NOW)
        self.log = MemoryLog(self.clock)
        self.store = MemoryStore()

    def append(self, records: Sequence[Record]) -> None:
        self.log.append(0, [encode_record(record) for record in records])

    def fold(
        self, rules: Rules = RULES, cached_max: int = 1_000, *, empty: bool = False
    ) -> PartitionFold:
        return self.make(step=Step(PLAN, rules), store=self.store, epoch=1, partition=0,
                         generation=1, cached_max=cached_max, empty=empty)  # fmt: skip

    def read(self, offset: int, limit: int) -> list[LogRecord]:
        return self.log.read(0, offset, limit)

    def batches(self, offset: int, limit: int) -> list[Sequence[LogRecord]]:
        return self.log.batches(0, offset, limit)

    def keep(self, folded: Folded) -> None:
        """Links go into the log, as a runtime does."""
        self.append(folded.links)

    def views(self, user: str) -> int:
        (leaf,) = self.fold().fetch([make_leaf("user_id", user)])
        assert leaf is not None
        return PLAN.read(leaf.states, NOW, NOW, {}, frozenset({"personalisation"}))["views"]


@pytest.fixture(autouse=True, params=[PartitionFold, new_fold], ids=["python", "native"])
def make(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every promise is one of both folds."""
    if request.param is new_fold and accelerate() is None:
        pytest.skip("the accelerator is not built")
    monkeypatch.setattr(World, "make", staticmethod(request.param))


def test_a_batch_becomes_leaves_and_the_applied_offset() -> None:
    world = World()
    world.append([view(1), view(2), view(1), view(3, "u2")])
    fold = world.fold()
    assert catch_up(fold, world.batches, keep=world.keep) == 4
    flush_all(fold)
    assert (world.views("u1"), world.views("u2")) == (2, 1)
    assert world.store.applied(1, 0) == Version(1, 3)
    tally = fold.tally
    assert (tally.applied, tally.deduplicated, tally.dropped, tally.dead) == (3, 1, 0, 0)
    assert fold.take(10) is None


def test_the_applied_offset_stops_before_the_oldest_change_that_is_not_written() -> None:
    world = World()
    world.append([view(1, "u1"), view(2, "u2"), view(3, "u1"), view(4, "u3")])
    fold = world.fold()
    fold.feed(world.read(0, 10))
    flush = fold.take(1)
    assert flush is not None
    assert [write.leaf for write in flush.writes] == [make_leaf("user_id", "u1")]
    assert flush.writes[0].new == Version(1, 2)
    assert flush.applied == Version(1, 0)  # u2's record 1 is in no leaf yet
    fold.written(flush, fold.write(flush))
    assert world.fold().next_offset == 1


def test_after_a_stop_between_two_writes_nothing_counts_twice() -> None:
    world = World()
    world.append([view(1, "u1"), view(2, "u2"), view(3, "u1"), view(4, "u2")])
    fold = world.fold()
    fold.feed(world.read(0, 10))
    flush = fold.take(1)
    assert flush is not None
    fold.write(flush)
    again = world.fold()
    catch_up(again, world.batches, keep=world.keep)
    flush_all(again)
    assert (world.views("u1"), world.views("u2")) == (2, 2)
    assert again.tally.skipped == 1


def test_records_that_change_no_leaf_move_the_applied_offset() -> None:
    world = World()
    world.append([view(1)])
    fold = world.fold()
    catch_up(fold, world.batches, keep=world.keep)
    flush_all(fold)
    # A second worker that has written u1 already: for this one the record is old.
    fold.next_offset = fold.noted = 0
    fold.feed(world.read(0, 1))
    assert (fold.tally.skipped, fold.dirty, fold.owes()) == (1, {}, True)
    flush = fold.take(10)
    assert flush == ([], Version(1, 0), [])
    fold.written(flush, fold.write(flush))
    assert fold.owes() is False


def test_a_gap_is_refused_and_forgets_what_was_cached() -> None:
    world = World()
    world.append([view(number) for number in range(6)])
    fold = world.fold()
    fold.feed(world.read(0, 2))
    with pytest.raises(Fenced) as refused:
        fold.feed(world.read(4, 2))
    assert refused.value.code == "E602"
    assert (fold.cache, dict(fold.dirty), fold.next_offset) == ({}, {}, 0)


def test_a_batch_from_before_is_folded_by_what_the_store_holds() -> None:
    world = World()
    world.append([view(number) for number in range(4)])
    fold = world.fold()
    catch_up(fold, world.batches, keep=world.keep)
    flush_all(fold)
    fold.feed(world.read(1, 2))
    flush_all(fold)
    assert fold.tally.skipped == 2
    assert world.views("u1") == 4
    assert world.store.applied(1, 0) == Version(1, 3)


def test_a_refused_write_fences_the_worker() -> None:
    world = World()
    world.append([view(1)])
    slow, fast = world.fold(), world.fold()
    slow.feed(world.read(0, 1))
    flush = slow.take(10)
    assert flush is not None
    catch_up(fast, world.batches, keep=world.keep)
    flush_all(fast)
    world.append([view(2)])
    catch_up(fast, world.batches, keep=world.keep)
    flush_all(fast)
    # It is not known to be wrong: the store is past it.
    assert slow.write(flush) == [Verdict.ALREADY]
    slow.written(flush, [Verdict.ALREADY])
    slow.feed(world.read(1, 1))
    world.append([view(3)])
    stale = slow.take(10)
    assert stale is not None
    stale = stale._replace(writes=[stale.writes[0]._replace(base=Version(1, 0), new=Version(1, 9))])
    with pytest.raises(Fenced) as refused:
        slow.written(stale, slow.write(stale))
    assert refused.value.code == "E601"


@pytest.mark.parametrize("empty", [False, True])
@pytest.mark.parametrize("cached_max", [1, 2, 5])
def test_a_small_cache_changes_nothing(cached_max: int, *, empty: bool) -> None:
    world = World()
    # u0 is the oldest in the cache, clean after each flush, and wanted again by each batch.
    records = [view(number, "u0" if number % 4 == 0 else f"u{number}") for number in range(200)]
    fold = world.fold(cached_max=cached_max, empty=empty)
    for start in range(0, 200, 10):
        world.append(records[start : start + 10])
        catch_up(fold, world.batches, keep=world.keep)
        flush_all(fold)
    assert world.views("u0") == 50
    assert all(world.views(f"u{number}") == 1 for number in range(200) if number % 4)


def test_a_dirty_leaf_outlives_the_cache() -> None:
    world = World()
    world.append([view(number, f"u{number}") for number in range(300)])
    fold = world.fold(cached_max=10)
    fold.feed(world.read(0, 300))
    assert len(fold.cache) == 300
    flush_all(fold)
    assert all(world.views(f"u{number}") == 1 for number in range(300))


def test_links_come_out_once_and_a_restart_repeats_only_what_was_not_written() -> None:
    world = World()
    world.append([view(1, "u1", "a1"), view(2, "u1", "a1"), view(3, "u2", "a2")])
    fold = world.fold()
    first = fold.feed(world.read(0, 10)).links
    assert [link.leaf for link in first] == [
        make_leaf("anonymous_id", name) for name in ("a1", "a2")
    ]
    flush = fold.take(1)
    assert flush is not None
    fold.written(flush, fold.write(flush))
    again = world.fold()
    assert [link.leaf for link in again.feed(world.read(again.next_offset, 10)).links] == [
        make_leaf("anonymous_id", "a2")
    ]


def test_events_of_a_quarantined_identifier_become_letters_and_its_unsubscribe_still_counts() -> (
    None
):
    world = World()
    small = RULES._replace(leaf_bytes_max=1_000)
    world.append([view(number) for number in range(200)])
    world.append([view(900, name="Unsubscribed"), view(901, name="Unsubscribed")])
    fold = world.fold(small)
    folded = fold.feed(world.read(0, 300))
    letters = folded.letters
    assert fold.tally.dead == len(letters) > 0
    assert {letter.reason for letter in letters} == {"E360"}
    assert len({letter.letter_id for letter in letters}) == len(letters)
    assert decode_record(letters[-1].body).message_id == letters[-1].message_id == "m901"
    assert [entry.denied for _, entry in folded.suppressions] == [True, True]
    # The same again after a crash: the same letters, which the log keeps once.
    again = world.fold(small).feed(world.read(0, 300))
    assert [letter.letter_id for letter in again.letters] == [one.letter_id for one in letters]


def test_a_copy_of_an_unsubscribe_asks_for_nothing() -> None:
    world = World()
    world.append([view(1, name="Unsubscribed"), view(1, name="Unsubscribed")])
    assert len(world.fold().feed(world.read(0, 2)).suppressions) == 1


def test_a_record_that_does_not_decode_stops_the_fold() -> None:
    world = World()
    world.log.append(0, [encode_record(view(1)), b"\xff\xff"])
    with pytest.raises(DataCorrupt) as corrupt:
        world.fold().feed(world.read(0, 2))
    assert corrupt.value.code == "E701"


def test_a_record_of_a_newer_format_asks_for_an_upgrade() -> None:
    world = World()
    world.append([msgspec.structs.replace(view(1), format=RECORD_FORMAT + 1)])
    with pytest.raises(DataCorrupt) as newer:
        world.fold().feed(world.read(0, 1))
    assert newer.value.code == "E702"


def test_leaves_of_other_definitions_are_not_read_as_these() -> None:
    world = World()
    world.append([view(1)])
    fold = world.fold()
    catch_up(fold, world.batches, keep=world.keep)
    flush_all(fold)

    class Other(Profile):
        views = count(viewed, over=days(8))

    other = World.make(step=Step(compile_plan([Other]), RULES), store=world.store, epoch=1,
                       partition=0, generation=1)  # fmt: skip
    with pytest.raises(DataCorrupt) as corrupt:
        other.fetch([make_leaf("user_id", "u1")])
    assert corrupt.value.code == "E705"
