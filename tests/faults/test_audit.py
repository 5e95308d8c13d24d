"""The auditor: silent about sound data, at any moment, and loud about each kind of fault."""

from dataclasses import dataclass

import msgspec
import pytest

from penstock.adapters.log.memory import MemoryLog
from penstock.adapters.store.memory import MemoryStore
from penstock.core.errors import Fenced
from penstock.core.feature.plan import Plan
from penstock.core.record import DeadLetter, Kind, Version, decode_record, encode_record
from penstock.dsl.events import event, string
from penstock.dsl.features import Profile, compile_plan, count, days, last_k
from penstock.flows.process import PartitionFold, flush_all
from penstock.ports.store import LeafWrite
from penstock.testing.audit import AuditReport, audit
from penstock.testing.simulation import Broken, Bug, Simulation

SEEDS = 60
SEEDS_TO_FIND = 300

viewed = event("Product Viewed", product_id=string(), category=string())


class Shopper(Profile):
    views_7d = count(viewed, over=days(7))
    recent = last_k(viewed.product_id, k=3, over=days(30))


@pytest.fixture(scope="module")
def plan() -> Plan:
    return compile_plan([Shopper])


def report_of(simulation: Simulation) -> AuditReport:
    return audit(simulation.log, simulation.store.inner, simulation.step, 1)


class Audited(Simulation):
    """A history whose promises are judged by the auditor alone, in its middle and at its end."""

    middle: AuditReport | None = None

    def settle(self) -> None:
        if self.bug is Bug.NONE:
            self.middle = report_of(self)
        super().settle()

    def check(self) -> None:
        """Leave it to the auditor."""


def play(seed: int, plan: Plan, bug: Bug = Bug.NONE) -> Audited:
    simulation = Audited(seed, plan, MemoryLog, MemoryStore, bug)
    simulation.run()
    return simulation


def test_it_is_silent_in_the_middle_and_at_the_end_of_every_history(plan: Plan) -> None:
    in_flight = deduplicated = 0
    for seed in range(SEEDS):
        simulation = play(seed, plan)
        middle, end = simulation.middle, report_of(simulation)
        assert middle is not None
        assert [] == middle.problems + end.problems
        assert 0 == end.in_flight
        assert {record.message_id for record in simulation.sent} >= end.message_ids
        in_flight += middle.in_flight
        deduplicated += end.deduplicated
    assert in_flight > SEEDS
    assert deduplicated > SEEDS


@pytest.mark.parametrize(
    ("bug", "symptom"),
    [
        (Bug.COMMIT_BEFORE_WRITE, "no leaf covers"),
        (Bug.LINK_LOST, "links are missing"),
        (Bug.REFUSE_OLDER_ONLY, "other bytes than a replay"),
        (Bug.SKIP_BY_APPLIED_ONLY, "count a record twice"),
    ],
    ids=lambda part: part.name if isinstance(part, Bug) else "",
)
def test_it_finds_a_planted_bug_of_the_protocol(bug: Bug, symptom: str, plan: Plan) -> None:
    for seed in range(SEEDS_TO_FIND):
        try:
            problems = report_of(play(seed, plan, bug)).problems
        except (Broken, Fenced):
            continue
        if any(symptom in problem for problem in problems):
            return
    pytest.fail(f"{bug.value}: not found in {SEEDS_TO_FIND} seeds")


@dataclass
class Sound:
    """A small sound history, to be spoiled."""

    simulation: Simulation

    @property
    def store(self) -> MemoryStore:
        return self.simulation.store.inner

    def problems(self) -> list[str]:
        return report_of(self.simulation).problems

    def write(self, leaf: bytes, base: Version, new: Version, part: bytes) -> None:
        self.store.write(1, [LeafWrite(leaf, base, new, (part,))], partition=0, applied=new)


@pytest.fixture
def sound(plan: Plan) -> Sound:
    made = Sound(play(3, plan))
    assert [] == made.problems()
    return made


def test_it_finds_a_leaf_with_other_bytes(sound: Sound) -> None:
    leaf, held = sound.store.scan(1, None, 1)[0]
    other = next(h for name, h in sound.store.scan(1, leaf, 10) if h.parts != held.parts)
    sound.store._leaves[1][leaf] = held._replace(parts=other.parts)
    assert any("other bytes" in problem for problem in sound.problems())


def test_it_finds_a_leaf_that_is_ahead_of_the_log(sound: Sound) -> None:
    leaf, held = sound.store.scan(1, None, 1)[0]
    sound.write(leaf, held.version, Version(1, sound.simulation.log.head(0)), held.parts[0])
    assert any("ahead of the log" in problem for problem in sound.problems())


def test_it_finds_a_leaf_that_is_gone(sound: Sound) -> None:
    leaf, _ = sound.store.scan(1, None, 1)[0]
    del sound.store._leaves[1][leaf]
    assert any("no leaf covers" in problem for problem in sound.problems())


def test_it_finds_an_edge_that_one_side_does_not_hold(sound: Sound) -> None:
    log = sound.simulation.log
    kept = [entry.value for entry in log.read(0, 0, 1 << 20)]
    links = [decode_record(value) for value in kept if decode_record(value).kind == Kind.LINK]
    assert links
    # A log and a store as if one leaf had never been told: its links are another's.
    spoiled = [value for value in kept if decode_record(value).leaf != links[0].leaf
               or decode_record(value).kind != Kind.LINK]  # fmt: skip
    sound.simulation.log = MemoryLog(sound.simulation.clock)
    sound.simulation.log.append(0, spoiled)
    sound.store.drop(1)
    refold(sound)
    problems = sound.problems()
    assert any("only one side" in problem or "not logged" in problem for problem in problems)


def refold(sound: Sound) -> None:
    step = sound.simulation.step
    fold = PartitionFold(step=step, store=sound.store, epoch=1, partition=0, generation=1)
    fold.feed(sound.simulation.log.read(0, 0, 1 << 20))
    flush_all(fold)


def test_a_copy_long_after_is_an_event_of_its_own_unless_a_job_brings_it(plan: Plan) -> None:
    sound = Sound(play(3, plan))
    simulation = sound.simulation
    record = simulation.sent[0]
    imported = msgspec.structs.replace(record, message_id="j", event_id=77, job="import")
    before = report_of(simulation)
    for _ in range(2):
        simulation.clock.advance(days=10)
        simulation.log.append(0, [encode_record(record), encode_record(imported)])
    simulation.workers[simulation.turn].restart()
    simulation.position = simulation.workers[simulation.turn].next_offset
    simulation.settle()
    after = report_of(simulation)
    assert [] == after.problems
    assert before.applied + 3 == after.applied
    assert before.deduplicated + 1 == after.deduplicated


def test_what_the_edge_refused_is_accepted_and_dead(sound: Sound) -> None:
    before = report_of(sound.simulation)
    letter = DeadLetter(
        letter_id="edge-1", source="site", received_at_ms=1, reason="E321", path="$", what="",
        message_id="m", body=b"{}",
    )  # fmt: skip
    sound.simulation.log.append(0, [], [letter])
    after = report_of(sound.simulation)
    assert [] == after.problems
    assert (before.accepted + 1, before.dead + 1) == (after.accepted, after.dead)
