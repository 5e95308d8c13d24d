"""Laws of the step: bytes under batches, crashes, order and duplication; and bytes that stay."""

import random
from itertools import pairwise
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from step_records import (
    DENIED,
    GRANTED,
    NOW,
    UPDATED,
    Folding,
    folded,
    record,
    without_size,
)

from penstock.core.consent import ledger
from penstock.core.identity.routing import link_records
from penstock.core.record import (
    Evidence,
    Kind,
    Record,
    encode_record,
)
from penstock.core.step import Outcome
from penstock.core.time import DAY_MS, HOUR_MS

WITHDRAWAL = record("w", at_ms=NOW + DAY_MS, name=UPDATED, evidence=Evidence(
    "context", granted=("measurement",), denied=("personalisation",)))  # fmt: skip

# ------------------------------------------------------------------------------------- laws

EVIDENCES = [
    GRANTED, DENIED, Evidence("unknown"), Evidence("unknown", regime="opt_out"),
    Evidence("gpc", denied=("personalisation",)),
    Evidence("context", granted=("personalisation",), denied=("measurement",)),
    Evidence("basis", granted=("personalisation",), origins=(("personalisation", "basis:contract"),)),
]  # fmt: skip


@st.composite
def records(draw: st.DrawFn) -> Record:
    kind = draw(st.sampled_from(["view", "view", "order", "identify", "withdraw", "link"]))
    at_ms = NOW + draw(st.integers(-10, 10)) * HOUR_MS * draw(st.sampled_from([1, 7, 30]))
    message_id = f"{kind}{draw(st.integers(0, 12))}"
    evidence = draw(st.sampled_from(EVIDENCES))
    device = draw(st.sampled_from([None, "a1", "a2"]))
    # Copies are equal: everything but the id is drawn from the id.
    dice = random.Random(message_id)
    if kind == "link":
        claim = record(message_id, device=f"d{dice.randint(1, 3)}", at_ms=at_ms, verified=False)
        return link_records(claim)[0]
    more: dict[str, Any] = {}
    if kind == "order":
        more = {"name": "Order Completed", "total": [dice.randint(1, 999), "GBP"]}
    elif kind == "identify":
        more = {"type_name": "identify", "rank": dice.randint(0, 3),
                "traits": {"name": dice.choice(["Ann", None]), "segment": dice.randint(0, 3)}}  # fmt: skip
    elif kind == "withdraw":
        more = {"name": UPDATED}
    bare = evidence.source == "gpc" or evidence is DENIED
    return record(message_id, at_ms=at_ms, device=device, evidence=evidence,
                  job=draw(st.sampled_from(["", "", "import"])), bare=bare and kind != "withdraw", **more)  # fmt: skip


@st.composite
def logs(draw: st.DrawFn) -> list[tuple[Record, int]]:
    """Records with the log's stamps: they repeat, they jump, they never fall."""
    at_ms = NOW
    log = []
    for one in draw(st.lists(records(), max_size=25)):
        at_ms += draw(st.sampled_from([0, 0, 1, HOUR_MS, 6 * HOUR_MS, 80 * HOUR_MS]))
        log.append((one, at_ms))
    return log


@given(logs(), st.sets(st.integers(0, 24)))
def test_any_crash_points_give_the_same_bytes(
    log: list[tuple[Record, int]], crashes: set[int]
) -> None:
    whole, broken = folded(log), folded(log, frozenset(crashes))
    assert whole.stored() == broken.stored()
    assert [one.leaf for one in whole.links] == [one.leaf for one in broken.links]


@given(logs())
def test_every_primary_is_counted_once_and_the_clock_never_falls(
    log: list[tuple[Record, int]],
) -> None:
    folding = Folding()
    clocks = []
    for one, logged_at_ms in log:
        folding.log(one, logged_at_ms)
        clocks.append(folding.leaf.clock_ms)
    leaf = folding.leaf
    primaries = sum(one.kind == Kind.PRIMARY for one, _ in log)
    assert leaf.applied + leaf.deduplicated + leaf.dropped + leaf.dead == primaries
    assert leaf.links == len(log) - primaries
    assert all(before <= after for before, after in pairwise(clocks))
    assert leaf.clock_ms == max((at_ms for _, at_ms in log), default=0)


@given(logs(), st.sets(st.integers(0, 24)))
def test_the_ledger_is_the_merge_of_what_every_record_says(
    log: list[tuple[Record, int]], asked: set[int]
) -> None:
    folding = Folding()
    expected: dict[str, ledger.ConsentEntry] = {}
    for place, (one, logged_at_ms) in enumerate(log):
        outcome = folding.log(one, logged_at_ms)
        if outcome in {Outcome.APPLIED, Outcome.DROPPED}:
            for purpose, entry, _ in ledger.entries_of(one):
                standing = expected.get(purpose)
                expected[purpose] = entry if standing is None else ledger.merge(standing, entry)
        if place in asked:
            assert folding.leaf.consent == expected
    assert folding.leaf.consent == expected


@given(logs())
def test_a_prefix_and_its_rest_are_the_whole(log: list[tuple[Record, int]]) -> None:
    half = len(log) // 2
    folding = folded(log[:half])
    folding.crash()
    for one, at_ms in log[half:]:
        folding.log(one, at_ms)
    assert folding.stored() == folded(log).stored()


@st.composite
def live_sets(draw: st.DrawFn) -> list[Record]:
    """Events whose tiles are live, one evidence each: what independence of order is promised for."""
    found: dict[str, Record] = {}
    for one in draw(st.lists(records(), max_size=16)):
        found.setdefault(one.message_id, msgspec.structs.replace(one, job=""))
    return list(found.values())


@given(live_sets(), st.randoms(use_true_random=False), st.sets(st.integers(0, 40)))
def test_order_and_duplication_change_nothing_that_is_kept(
    events: list[Record], dice: random.Random, crashes: set[int]
) -> None:
    # A copy of a link is a second link: the head counts it, so only primaries are sent again.
    again = [one for one in events if one.kind == Kind.PRIMARY]
    arrived = events + dice.sample(again, len(again) // 2)
    dice.shuffle(arrived)
    one = folded([(event, NOW) for event in [*events, *again[: len(arrived) - len(events)]]])
    other = folded([(event, NOW) for event in arrived], frozenset(crashes))
    assert without_size(one.stored()) == without_size(other.stored())


def test_bytes_of_a_leaf_change_only_on_purpose(golden: Any) -> None:
    log = [
        record("a", device="a1"), record("a", device="a1"),
        record("o", name="Order Completed", total=[1999, "GBP"]),
        record("i", type_name="identify", traits={"name": "Ann", "segment": "gold"}, rank=3),
        record("b", evidence=DENIED, bare=True, at_ms=NOW + 1), record("j", job="import", at_ms=NOW + 2),
        msgspec.structs.replace(WITHDRAWAL, evidence=Evidence("context", denied=("measurement",))),
    ]  # fmt: skip
    golden("leaf-v1.bin", folded([(one, NOW + DAY_MS) for one in log]).stored())


def test_record_bytes_change_only_on_purpose(golden: Any) -> None:
    golden("record-v1.bin", encode_record(record("a", device="a1", traits={"x": None}, job="j")))
