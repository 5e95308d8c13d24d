"""What every decision store does: one decision a key, an outbox that forgets nothing, exact caps."""

# ruff: noqa: SIM300 - asserts read `expected == actual`

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest

from penstock.core.decision.record import decision_id_of
from penstock.core.errors import Unavailable
from penstock.ports.decisions import Decided, DecisionKey, Decisions, SendState

HOUR_MS = 3_600_000
WHO = b"r" * 16


def a_key(
    n: int = 0, *, campaign: str = "spring", send: str = "2026-11-25", slot: str = ""
) -> DecisionKey:
    """Return the key of the n-th recipient."""
    return DecisionKey("shop", n.to_bytes(16, "big"), campaign, send, slot)


class DecisionsConformance:
    """Subclass it as `Test…` and say how to make the store."""

    def make(self, folder: Path) -> Decisions:
        """Return a decision store in a folder: a new one, or the one that is there."""
        raise NotImplementedError

    @pytest.fixture
    def decisions(self, tmp_path: Path) -> Iterator[Decisions]:
        decisions = self.make(tmp_path)
        yield decisions
        decisions.close()

    # ---------------------------------------------------------------------------------- decisions

    def test_an_empty_store_has_nothing(self, decisions: Decisions):
        assert decisions.put_if_absent([]) == []
        assert decisions.get([a_key()]) == [None]
        assert decisions.find(decision_id_of(*a_key())) is None
        assert decisions.outbox(10) == []
        assert decisions.sends("spring", "2026-11-25") == []

    def test_the_first_record_stands(self, decisions: Decisions):
        assert [Decided(b"one", created=True)] == decisions.put_if_absent([(a_key(), b"one")])
        assert [Decided(b"one", created=False)] == decisions.put_if_absent([(a_key(), b"two")])
        assert [b"one"] == decisions.get([a_key()])

    def test_some_of_a_batch_may_stand_already(self, decisions: Decisions):
        decisions.put_if_absent([(a_key(2), b"standing")])
        items = [(a_key(n), b"new %d" % n) for n in range(4)] + [(a_key(3), b"again")]
        expected = [
            Decided(b"new 0", created=True),
            Decided(b"new 1", created=True),
            Decided(b"standing", created=False),
            Decided(b"new 3", created=True),
            Decided(b"new 3", created=False),
        ]
        assert expected == decisions.put_if_absent(items)
        expected_records = [b"new 3", None, b"new 0", b"standing", b"new 1"]
        assert expected_records == decisions.get([a_key(n) for n in (3, 9, 0, 2, 1)])

    def test_every_element_of_the_key_counts(self, decisions: Decisions):
        keys = [
            a_key(),
            a_key(1),
            a_key(campaign="autumn"),
            a_key(send="2026-11-26"),
            a_key(slot="hero"),
            a_key()._replace(tenant="other"),
            a_key()._replace(campaign="spring2026-11-25", send=""),
        ]
        items = [(key, b"%d" % i) for i, key in enumerate(keys)]
        assert all(decided.created for decided in decisions.put_if_absent(items))
        assert [record for _, record in items] == decisions.get(keys)

    def test_a_decision_is_found_by_its_id(self, decisions: Decisions):
        key = a_key(5, slot="hero")
        decisions.put_if_absent([(a_key(4), b"other"), (key, b"record\x00\xff")])
        assert (key, b"record\x00\xff") == decisions.find(decision_id_of(*key))
        assert decisions.find("0" * 32) is None
        assert decisions.find("not an id") is None

    def test_many_decisions_at_once(self, decisions: Decisions):
        items = [(a_key(n), b"%d" % n) for n in range(700)]
        assert [Decided(record, created=True) for _, record in items] == decisions.put_if_absent(
            items
        )
        assert [record for _, record in items] == decisions.get([key for key, _ in items])

    def test_of_threads_that_race_one_wins_and_all_get_its_record(self, decisions: Decisions):
        start = Barrier(6)

        def decide(worker: int) -> list[Decided]:
            start.wait()
            return [
                decisions.put_if_absent([(a_key(n), b"worker %d" % worker)])[0] for n in range(20)
            ]

        with ThreadPoolExecutor(6) as pool:
            rounds = list(pool.map(decide, range(6)))
        for n, of_key in enumerate(zip(*rounds, strict=True)):
            assert 1 == [decided.created for decided in of_key].count(True), f"key {n}"
            winner = next(decided.record for decided in of_key if decided.created)
            assert {winner} == {decided.record for decided in of_key}
            assert [winner] == decisions.get([a_key(n)])
        assert 20 == len(decisions.outbox(1_000))

    # ------------------------------------------------------------------------------------- outbox

    def test_the_outbox_has_what_was_created_oldest_first(self, decisions: Decisions):
        decisions.put_if_absent([(a_key(2), b"two"), (a_key(1), b"one")])
        decisions.put_if_absent([(a_key(1), b"again"), (a_key(3), b"three")])
        outbox = decisions.outbox(10)
        assert [b"two", b"one", b"three"] == [record for _, record in outbox]
        assert [b"two", b"one"] == [record for _, record in decisions.outbox(2)]
        sequences = [sequence for sequence, _ in outbox]
        assert sorted(set(sequences)) == sequences

    def test_what_is_done_leaves_the_outbox_and_the_decision_stands(self, decisions: Decisions):
        decisions.put_if_absent([(a_key(n), b"%d" % n) for n in range(3)])
        sequences = [sequence for sequence, _ in decisions.outbox(10)]
        decisions.outbox_done([sequences[0], sequences[2], 999_999])
        assert [(sequences[1], b"1")] == decisions.outbox(10)
        assert [b"0", b"1", b"2"] == decisions.get([a_key(n) for n in range(3)])

    def test_a_sequence_is_never_used_twice(self, decisions: Decisions):
        decisions.put_if_absent([(a_key(1), b"one")])
        ((first, _),) = decisions.outbox(10)
        decisions.outbox_done([first])
        decisions.put_if_absent([(a_key(2), b"two")])
        decisions.outbox_done([first])
        assert [b"two"] == [record for _, record in decisions.outbox(10)]

    # ------------------------------------------------------------------------------- reservations

    def reserve(self, decisions: Decisions, token: str, *, now_ms: int = 0, limit: int = 2,
                cap: str = "weekly", who: bytes = WHO) -> bool:  # fmt: skip
        """Reserve for an hour."""
        return decisions.reserve(
            who, cap, limit=limit, token=token, until_ms=now_ms + HOUR_MS, now_ms=now_ms
        )

    def test_reservations_stop_at_the_limit(self, decisions: Decisions):
        assert [True, True, False] == [self.reserve(decisions, token) for token in ("a", "b", "c")]
        room = [
            decisions.has_room(WHO, "weekly", limit=2, token=one, now_ms=0) for one in ("a", "c")
        ]
        assert [True, False] == room
        assert not self.reserve(decisions, "z", limit=0, cap="never")

    def test_the_same_token_counts_once(self, decisions: Decisions):
        assert [True, True, True] == [self.reserve(decisions, token) for token in ("a", "a", "b")]
        assert self.reserve(decisions, "a")
        assert not self.reserve(decisions, "c")

    def test_recipients_and_caps_are_counted_apart(self, decisions: Decisions):
        for token in ("a", "b"):
            assert self.reserve(decisions, token)
            assert self.reserve(decisions, token, cap="daily")
            assert self.reserve(decisions, token, who=b"s" * 16)
        assert not self.reserve(decisions, "c")

    def test_a_reservation_lapses_at_its_end(self, decisions: Decisions):
        self.reserve(decisions, "a")
        self.reserve(decisions, "b")
        assert not self.reserve(decisions, "c", now_ms=HOUR_MS - 1)
        assert self.reserve(decisions, "c", now_ms=HOUR_MS)
        assert self.reserve(decisions, "a", now_ms=HOUR_MS)
        assert not self.reserve(decisions, "d", now_ms=HOUR_MS)

    def test_a_confirmed_one_lasts(self, decisions: Decisions):
        self.reserve(decisions, "a", limit=1)
        decisions.confirm("a", 100 * HOUR_MS)
        decisions.confirm("unknown", 100 * HOUR_MS)
        assert not self.reserve(decisions, "b", limit=1, now_ms=99 * HOUR_MS)
        assert self.reserve(decisions, "b", limit=1, now_ms=100 * HOUR_MS)

    def test_one_confirmed_after_it_lapsed_counts_again(self, decisions: Decisions):
        self.reserve(decisions, "a", limit=1)
        decisions.confirm("a", 100 * HOUR_MS)
        assert not self.reserve(decisions, "b", limit=1, now_ms=50 * HOUR_MS)

    def test_a_released_one_is_free_again(self, decisions: Decisions):
        self.reserve(decisions, "a", limit=1)
        decisions.release("a")
        decisions.release("a")
        assert self.reserve(decisions, "b", limit=1)

    def test_threads_at_the_limit_get_exactly_the_limit(self, decisions: Decisions):
        start = Barrier(6)

        def reserve(worker: int) -> int:
            start.wait()
            return sum(self.reserve(decisions, f"{worker}-{n}", limit=17) for n in range(10))

        with ThreadPoolExecutor(6) as pool:
            assert 17 == sum(pool.map(reserve, range(6)))

    # -------------------------------------------------------------------------------------- sends

    def test_a_send_is_started_once(self, decisions: Decisions):
        assert decisions.start_send(a_key(), "<1@shop>", 5) is None
        refused = SendState("refused", 5, "E406")
        other = a_key()._replace(campaign="again")
        decisions.finish_send(other, refused)
        assert decisions.start_send(other, "<1@shop>", 6, again_from=refused) is None
        # Of two who saw the same state and want to repeat the hand-over, one may.
        assert SendState("started", 6, "<1@shop>") == decisions.start_send(
            other, "<1@shop>", 7, again_from=refused
        )
        assert SendState("started", 5, "<1@shop>") == decisions.start_send(a_key(), "<2@shop>", 9)

    def test_a_finished_send_is_not_started_again(self, decisions: Decisions):
        decisions.start_send(a_key(), "<1@shop>", 5)
        accepted = SendState("accepted", 6, "<1@shop>")
        decisions.finish_send(a_key(), accepted)
        assert accepted == decisions.start_send(a_key(), "<1@shop>", 9)

    def test_one_that_was_never_started_may_be_skipped(self, decisions: Decisions):
        skipped = SendState("skipped", 6, "suppressed")
        decisions.finish_send(a_key(), skipped)
        assert [(a_key(), skipped)] == decisions.sends("spring", "2026-11-25")

    def test_sends_are_listed_by_recipient_and_state(self, decisions: Decisions):
        for n in (3, 1, 2):
            decisions.start_send(a_key(n), f"<{n}@shop>", n)
        decisions.start_send(a_key(1, campaign="autumn"), "<other@shop>", 1)
        decisions.start_send(a_key(1, send="2026-11-26"), "<other@shop>", 1)
        decisions.finish_send(a_key(2), SendState("refused", 9, "550"))
        states = {n: SendState("started", n, f"<{n}@shop>") for n in (1, 3)}
        states[2] = SendState("refused", 9, "550")
        everything = [(a_key(n), states[n]) for n in (1, 2, 3)]
        assert everything == decisions.sends("spring", "2026-11-25")
        in_doubt = [everything[0], everything[2]]
        assert in_doubt == decisions.sends("spring", "2026-11-25", state="started")
        assert [] == decisions.sends("spring", "2026-11-25", state="accepted")

    def test_threads_that_start_one_send_one_may_hand_over(self, decisions: Decisions):
        start = Barrier(6)

        def begin(worker: int) -> int:
            start.wait()
            return sum(decisions.start_send(a_key(n), str(worker), 1) is None for n in range(20))

        with ThreadPoolExecutor(6) as pool:
            assert 20 == sum(pool.map(begin, range(6)))

    def test_a_closed_store_says_so(self, decisions: Decisions):
        decisions.close()
        decisions.close()
        with pytest.raises(Unavailable, match="E404"):
            decisions.put_if_absent([(a_key(), b"one")])
        with pytest.raises(Unavailable, match="E404"):
            decisions.get([a_key()])


class DurableDecisionsConformance(DecisionsConformance):
    """For stores that outlive their process."""

    def test_everything_is_there_after_opening_again(self, tmp_path: Path):
        decisions = self.make(tmp_path)
        decisions.put_if_absent([(a_key(1), b"one"), (a_key(2), b"two")])
        (first, _), (second, _) = decisions.outbox(10)
        decisions.outbox_done([first])
        self.reserve(decisions, "a", limit=1)
        decisions.start_send(a_key(1), "<1@shop>", 5)
        decisions.close()

        decisions = self.make(tmp_path)
        assert [Decided(b"one", created=False)] == decisions.put_if_absent([(a_key(1), b"late")])
        assert (a_key(2), b"two") == decisions.find(decision_id_of(*a_key(2)))
        assert [(second, b"two")] == decisions.outbox(10)
        assert not self.reserve(decisions, "b", limit=1)
        started = SendState("started", 5, "<1@shop>")
        assert [(a_key(1), started)] == decisions.sends("spring", "2026-11-25")
        decisions.close()

    def test_of_two_processes_one_wins(self, tmp_path: Path):
        one, other = self.make(tmp_path), self.make(tmp_path)
        assert one.put_if_absent([(a_key(1), b"one")])[0].created
        assert [Decided(b"one", created=False)] == other.put_if_absent([(a_key(1), b"other")])
        assert self.reserve(one, "a", limit=1)
        assert not self.reserve(other, "b", limit=1)
        one.close()
        other.close()
