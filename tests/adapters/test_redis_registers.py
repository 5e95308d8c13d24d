"""Suppressions and decisions on Redis: what a server lost is never taken for what never was."""

import time
from collections.abc import Callable
from typing import Any

import pytest

from penstock.adapters.clock import SystemClock
from penstock.adapters.decisions.redis import RedisDecisions
from penstock.adapters.log.memory import MemoryLog
from penstock.adapters.redis import RedisAddress
from penstock.adapters.suppressions.redis import RedisSuppressions
from penstock.core.consent.suppression import Suppression, SuppressionKey
from penstock.core.errors import Unavailable
from penstock.core.ids import LeafId
from penstock.core.record import (
    RECORD_FORMAT,
    Evidence,
    Identifier,
    Kind,
    Record,
    encode_record,
)
from penstock.flows.permissions import make_whole
from penstock.ports.decisions import DecisionKey
from tests.conftest import StartRedis
from tools.services.redis import Servers

LEAF = LeafId(b"l" * 16)
KEY = SuppressionKey(LEAF, "email", "*")
DENIED = Suppression(5, True, 7, "unsubscribe")
DECIDED = DecisionKey("shop", b"r" * 16, "spring", "2026-11-25")
CONFIRMED_S = 20.0
PATIENT = {"timeout_ms": 20_000, "connect_timeout_ms": 20_000}


def answered(ask: Callable[[], Any]) -> Any:
    """Ask until nothing is told of an era that has ended."""
    while True:
        try:
            return ask()
        except Unavailable as error:
            if error.code not in ("E450", "E451") and "did not answer" not in error.what:
                raise


def test_a_register_that_was_emptied_answers_nothing_until_it_is_whole(start_redis: StartRedis):
    servers = start_redis()
    register = RedisSuppressions(RedisAddress(servers.url, **PATIENT))
    with pytest.raises(Unavailable, match="E403"):
        register.get([LEAF])
    register.make_whole([[(KEY, DENIED)]])
    assert {KEY: DENIED} == register.get([LEAF])

    with servers.client() as client:
        client.flushall()
    with pytest.raises(Unavailable, match="E450"):
        register.get([LEAF])
    for _ in range(2):
        with pytest.raises(Unavailable, match=r"E403.*made whole"):
            register.get([LEAF])
    other = RedisSuppressions(RedisAddress(servers.url, **PATIENT))
    with pytest.raises(Unavailable, match=r"E403.*made whole"):
        other.get([LEAF])
    register.put([(KEY, DENIED)])  # what is told meanwhile is kept
    register.make_whole([])
    assert {KEY: DENIED} == register.get([LEAF]) == other.get([LEAF])
    register.close()
    other.close()


def test_a_register_whose_server_restarted_is_gone_over_again(start_redis: StartRedis):
    servers = start_redis()
    register = RedisSuppressions(RedisAddress(servers.url, **PATIENT))
    register.make_whole([[(KEY, DENIED)]])
    servers.servers[0].kill()
    servers.servers[0].start()
    assert not answered(register.whole)
    with pytest.raises(Unavailable, match=r"E403.*made whole"):
        register.get([LEAF])
    register.make_whole([])
    assert {KEY: DENIED} == register.get([LEAF])
    register.close()


def test_history_that_has_ended_is_unavailable_and_no_mistake(start_redis: StartRedis):
    """Another thread may find the era to have ended between a call and the question whose history it was."""
    servers = start_redis()
    register = RedisSuppressions(RedisAddress(servers.url))
    with servers.client() as client:
        client.flushall()
    with pytest.raises(Unavailable, match="E450"):
        register.whole()
    with pytest.raises(Unavailable, match="E450"):
        _ = register._server.history
    assert not register.whole()
    register.close()


def test_something_lost_while_it_is_made_whole_leaves_it_not_whole(start_redis: StartRedis):
    servers = start_redis()
    register = RedisSuppressions(RedisAddress(servers.url, **PATIENT))

    def emptied():
        yield [(KEY, DENIED)]
        with servers.client() as client:
            client.flushall()

    with pytest.raises(Unavailable, match="E450"):
        register.make_whole(emptied())
    assert not answered(register.whole)
    register.close()


def test_the_log_makes_it_whole(start_redis: StartRedis):
    def record(number: int, name: str) -> bytes:
        return encode_record(Record(
            format=RECORD_FORMAT, kind=Kind.PRIMARY, tenant="t", leaf=LEAF, id_type="email", event_id=number,
            message_id=f"m{number}", type="track", name=name, occurred_at_ms=number, received_at_ms=number,
            source="site", source_rank=0, verified=True, evidence=Evidence("context"),
            identifiers=(Identifier("email", LEAF, "x"),),
        ))  # fmt: skip

    log = MemoryLog(SystemClock(), partitions=2)
    log.append(0, [record(1, "Product Viewed"), record(2, "Unsubscribed")])
    log.append(1, [record(n, "Product Viewed") for n in range(3, 10)])
    register = RedisSuppressions(RedisAddress(start_redis().url, **PATIENT))
    assert [True, False] == [make_whole(log, register) for _ in range(2)]
    assert {KEY: Suppression(2, True, 2, "unsubscribe")} == register.get([LEAF])
    register.close()


def confirmed(write: Callable[[], None]) -> None:
    """Write until the replica confirms it: on a busy machine that may take longer than it is waited for."""
    until = time.monotonic() + CONFIRMED_S
    while True:
        try:
            return write()
        except Unavailable as error:
            if error.code != "E451" or time.monotonic() > until:
                raise


def test_what_is_put_is_confirmed_by_the_replicas_that_are_asked_for(start_redis: StartRedis):
    servers = start_redis(replicas=1)
    register = RedisSuppressions(RedisAddress(servers.url, wait_replicas=1, timeout_ms=600))
    confirmed(lambda: register.put([(KEY, DENIED)]))
    servers.servers[1].pause()
    with pytest.raises(Unavailable, match="E451"):
        register.put([(KEY, DENIED)])
    servers.servers[1].resume()
    register.close()


def test_a_decision_that_too_few_replicas_have_is_shown_to_nobody(start_redis: StartRedis):
    """It was put, and may be lost with the primary: who asks again would show what nobody will know of."""
    servers = start_redis(replicas=1)
    address = RedisAddress(servers.url, wait_replicas=1, timeout_ms=600)
    decisions, others = RedisDecisions(address), RedisDecisions(address)
    confirmed(decisions.found)
    servers.servers[1].pause()
    for ask in (
        lambda: decisions.put_if_absent([(DECIDED, b"one")]),
        lambda: decisions.get([DECIDED]),
        lambda: others.get([DECIDED]),
        lambda: others.put_if_absent([(DECIDED, b"another")]),
    ):
        with pytest.raises(Unavailable, match="E451"):
            ask()
    servers.servers[1].resume()
    with servers.client() as client:
        client.wait(1, 10_000)
    assert [b"one"] == answered(lambda: others.get([DECIDED]))
    decisions.close()
    others.close()


def test_an_emptied_decision_store_answers_nothing_until_somebody_says_that_it_begins(
    start_redis: StartRedis,
):
    servers = start_redis()
    decisions = RedisDecisions(RedisAddress(servers.url, **PATIENT))
    assert not decisions.founded()
    with pytest.raises(Unavailable, match="E404"):
        decisions.put_if_absent([(DECIDED, b"one")])
    decisions.found()
    decisions.start_send(DECIDED, "<1@shop>", 5)
    with servers.client() as client:
        client.flushall()
    with pytest.raises(Unavailable, match="E450"):
        decisions.start_send(DECIDED, "<2@shop>", 6)
    for ask in (
        lambda: decisions.start_send(DECIDED, "<2@shop>", 6),
        lambda: decisions.get([DECIDED]),
        lambda: decisions.outbox(10),
    ):
        with pytest.raises(Unavailable, match="E404"):
            ask()
    decisions.found()
    assert [] == decisions.outbox(10)
    decisions.close()


def test_decisions_outlast_a_server_that_syncs_always(start_redis: StartRedis):
    servers = start_redis(settings={"appendfsync": "always"})
    decisions = RedisDecisions(RedisAddress(servers.url, **PATIENT))
    decisions.found()
    decisions.put_if_absent([(DECIDED, b"one")])
    decisions.start_send(DECIDED, "<1@shop>", 5)
    servers.servers[0].kill()
    servers.servers[0].start()
    assert [b"one"] == answered(lambda: decisions.get([DECIDED]))
    standing = decisions.start_send(DECIDED, "<2@shop>", 6)
    assert standing is not None
    assert "started" == standing.state
    decisions.close()


def test_reservations_live_no_longer_than_they_can_be_asked_for(redis_server: Servers):
    decisions = RedisDecisions(RedisAddress(redis_server.url, **PATIENT), tenant="lapsing")
    decisions.found()
    decisions.reserve(b"r" * 16, "weekly", limit=1, token="a", until_ms=3_600_000, now_ms=0)
    with redis_server.client() as client:
        keys = [*client.scan_iter("penstock:{lapsing}:cap:*"), *client.scan_iter("penstock:{lapsing}:token:*")]  # fmt: skip
        spans = [client.pttl(key) for key in keys]
        assert 2 == len(spans)
        assert all(0 < span <= 7 * 86_400_000 + 3_600_000 for span in spans)
        decisions.confirm("a", 100 * 3_600_000)
        assert min(client.pttl(key) for key in keys) > max(spans)
    decisions.close()
