"""What is Redis's own in the store: who may be a server, what is lost with one, and that it is found."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest
import redis

from penstock.adapters.log.memory import MemoryLog
from penstock.adapters.redis import COMMANDS, Library, RedisAddress, RedisServer
from penstock.adapters.store.redis import LIBRARY, PURPOSE, RedisStore
from penstock.core.errors import DamagedLeaf, SettingsError, Unavailable
from penstock.core.ids import leaf_id
from penstock.core.record import NO_VERSION, Version, encode_record
from penstock.flows.replay import replay
from penstock.ports.store import LeafWrite, Verdict
from penstock.testing.clock import HandClock
from penstock.testing.conformance.store import EPOCH, a_leaf, a_write, at
from tests.conftest import StartRedis
from tests.runtimes.test_engine_on_redis import STEP, USERS, make_leaf, views
from tools.services.redis import Servers

OURS = f"penstock on >ours ~penstock:* {COMMANDS}"
QUICK = {"timeout_ms": 300, "connect_timeout_ms": 300}


def written(store: RedisStore, n: int, base=NO_VERSION, offset: int = 5) -> None:
    """Write the n-th leaf, and note the offset."""
    verdicts = store.write(EPOCH, [a_write(n, base, at(offset))], partition=0, applied=at(offset))
    assert [Verdict.ACCEPTED] == verdicts


def a_move(store: RedisStore, call: Callable[[], object]) -> None:
    """Require that a call tells of the end of an era, once."""
    era = store.era
    with pytest.raises(Unavailable, match="E450"):
        call()
    assert era < store.era


# ------------------------------------------------------------------------------ at the start


def test_a_server_that_evicts_is_refused(start_redis: StartRedis):
    servers = start_redis(settings={"maxmemory-policy": "allkeys-lru"})
    with pytest.raises(SettingsError, match=r"E291.*allkeys-lru"):
        RedisStore(RedisAddress(servers.url))


@pytest.mark.parametrize("command", ["FCALL", "FCALL_RO", "FUNCTION"])
def test_a_server_without_a_command_that_is_needed_is_refused(
    start_redis: StartRedis, command: str
):
    servers = start_redis(settings={"rename-command": f'{command} ""'})
    with pytest.raises(SettingsError, match=f"E239: the server has no {command} ") as refused:
        RedisStore(RedisAddress(servers.url))
    assert "rename-command" in refused.value.fix


def test_a_replica_is_refused(start_redis: StartRedis):
    servers = start_redis(replicas=1)
    with pytest.raises(SettingsError, match="E297"):
        RedisStore(RedisAddress(servers.urls[1]))


def test_over_tls_as_a_user_who_may_do_what_the_guide_lists(start_redis: StartRedis):
    servers = start_redis(
        secured=True, users=[OURS, "idle on >idle ~penstock:* -@all +info +client"]
    )
    address = RedisAddress(servers.url, "penstock", "ours", str(servers.ca))
    store = RedisStore(address)
    written(store, 1)
    assert at(5) == store.read(EPOCH, [a_leaf(1)])[0].version
    assert ([a_leaf(1)], [EPOCH]) == (store.ids(EPOCH, None, 9), store.epochs())
    store.put_meta("live_epoch", "3")
    store.check()
    store.drop(EPOCH)
    store.close()
    with pytest.raises(SettingsError, match="E293"):
        RedisStore(address._replace(password="theirs"))
    with pytest.raises(SettingsError, match="E294"):
        RedisStore(address._replace(username="idle", password="idle"))
    with pytest.raises(Unavailable, match="E402"):
        RedisStore(address._replace(ca=""))


def test_through_a_unix_socket(start_redis: StartRedis):
    store = RedisStore(RedisAddress(start_redis(unix=True).url))
    written(store, 1)
    assert at(5) == store.applied(EPOCH, 0)
    store.close()


@pytest.mark.parametrize(
    "url",
    ["", "127.0.0.1:6379", "http://127.0.0.1:6379", "redis://", "redis://me:secret@127.0.0.1:6379", "unix://"],
)  # fmt: skip
def test_what_is_no_address_is_refused(url: str):
    with pytest.raises(SettingsError, match="E290") as refused:
        RedisStore(RedisAddress(url))
    assert "secret" not in str(refused.value)


def test_a_file_of_certificates_that_is_not_there_is_named(tmp_path: Path):
    with pytest.raises(SettingsError, match="E290"):
        RedisStore(RedisAddress("rediss://127.0.0.1:1", ca=str(tmp_path / "ca.pem")))


def test_nobody_at_the_address_is_told_at_once(start_redis: StartRedis):
    servers = start_redis()
    servers.stop()
    with pytest.raises(Unavailable, match="E402"):
        RedisStore(RedisAddress(servers.url))


# --------------------------------------------------------------------------------- what is kept


def test_keys_hold_nothing_of_a_person_and_each_names_its_tenant_and_slot(redis_server: Servers):
    store = RedisStore(RedisAddress(redis_server.url), tenant="shop {1}*")
    leaf = leaf_id(b"k" * 32, "shop {1}*", "email", "ann@example.com")
    store.write(EPOCH, [LeafWrite(leaf, NO_VERSION, at(5), (b"x",))], partition=0, applied=at(5))
    store.put_meta("live_epoch", "3")
    with redis_server.client() as client:
        keys = list(client.scan_iter("penstock:{shop%20%7B1%7D%2A*"))
    assert len(keys) >= 5
    for key in keys:
        assert b"ann" not in key
        assert 1 == key.count(b"{") == key.count(b"}")
    store.drop(EPOCH)
    store.close()


def test_tenants_share_a_server_and_nothing_else(redis_server: Servers):
    address = RedisAddress(redis_server.url)
    one, other = RedisStore(address, tenant="t1"), RedisStore(address, tenant="t2")
    written(one, 1)
    assert ([None], [], NO_VERSION) == (
        other.read(EPOCH, [a_leaf(1)]), other.epochs(), other.applied(EPOCH, 0),
    )  # fmt: skip
    one.drop(EPOCH)
    one.close()
    other.close()


def test_a_leaf_that_was_changed_is_found_and_the_others_are_read(redis_server: Servers):
    store = RedisStore(RedisAddress(redis_server.url), tenant="damaged")
    written(store, 1)
    written(store, 2)
    with redis_server.client() as client:
        (key,) = client.scan_iter(b"penstock:{damaged/*}:leaf:*" + a_leaf(1))
        client.setrange(key, 25, b"x")
        with pytest.raises(DamagedLeaf, match="E704"):
            store.read(EPOCH, [a_leaf(1)])
        client.set(key, b"short")
    with pytest.raises(Unavailable, match="DAMAGED"):
        store.write(EPOCH, [a_write(1, at(5), at(6))], partition=0, applied=at(6))
    assert at(5) == store.read(EPOCH, [a_leaf(2)])[0].version
    store.drop(EPOCH)
    store.close()


def expire(client: redis.Redis, key: bytes) -> None:
    """Let a key expire, as somebody's own tool for old keys would."""
    client.pexpireat(key, 1)


def of_a_gone_leaf_nothing_is_made_anew(
    servers: Servers, tenant: str, take_away: Callable[[redis.Redis, bytes], object],
    make: Callable[..., RedisStore] = RedisStore,
) -> None:  # fmt: skip
    """Require that a leaf that was there is missed by whoever writes it, from any base."""
    store = make(RedisAddress(servers.url), tenant=tenant)
    written(store, 1)
    written(store, 2, offset=6)
    with servers.client() as client:
        take_away(client, store.key_of(EPOCH, a_leaf(1)))
    for base in (NO_VERSION, at(5)):
        with pytest.raises(DamagedLeaf, match="E712") as gone:
            store.write(EPOCH, [a_write(2, at(6), at(7)), a_write(1, base, at(8))], partition=0, applied=at(8))  # fmt: skip
        assert a_leaf(1) == gone.value.leaf
        assert (at(6), [None]) == (store.applied(EPOCH, 0), store.read(EPOCH, [a_leaf(1)]))
    # The others of the call are as they were written, and a leaf that is listed can be removed.
    assert at(7) == store.read(EPOCH, [a_leaf(2)])[0].version
    store.drop(EPOCH)
    written(store, 1)
    store.drop(EPOCH)
    store.close()


@pytest.mark.parametrize("take_away", [redis.Redis.delete, expire])
def test_a_leaf_that_is_gone_is_never_taken_for_one_that_was_never_there(
    redis_server: Servers, take_away: Callable[[redis.Redis, bytes], object]
):
    of_a_gone_leaf_nothing_is_made_anew(redis_server, f"gone-{take_away.__name__}", take_away)


class TakesAGoneLeafForANewOne(RedisStore):
    """The store of a library that looks at no list."""

    def __init__(self, address: RedisAddress, *, tenant: str) -> None:
        super().__init__(address, tenant=tenant)
        self._server.close()
        name = "penstock_planted_gone"
        source = LIBRARY.source.replace(
            "if redis.call('ZSCORE', keys[2], args[2]) then return 4 end", ""
        )
        planted = Library(name, source.replace(LIBRARY.name, name))
        self._server = RedisServer(address, tenant=tenant, purpose=PURPOSE, library=planted)


def test_a_store_that_takes_a_gone_leaf_for_a_new_one_is_found(redis_server: Servers):
    with pytest.raises(pytest.fail.Exception, match="DID NOT RAISE"):
        of_a_gone_leaf_nothing_is_made_anew(
            redis_server, "planted", redis.Redis.delete, TakesAGoneLeafForANewOne
        )


def test_a_fold_rests_at_a_gone_leaf_where_the_log_has_more_of_it(redis_server: Servers):
    """An all-time count is what the log says, or there is no answer: never what came since."""
    log = MemoryLog(HandClock(1_795_000_000_000), partitions=1)
    log.append(0, [encode_record(record) for record in views(range(8))])
    store = RedisStore(RedisAddress(redis_server.url), tenant="rests")
    replay(log, store, STEP, EPOCH)
    with redis_server.client() as client:
        expire(client, store.key_of(EPOCH, make_leaf(0)))
    log.append(0, [encode_record(record) for record in views(range(USERS, USERS + 8))])
    with pytest.raises(DamagedLeaf, match="E712"):
        replay(log, store, STEP, EPOCH)
    assert 7 == store.applied(EPOCH, 0).offset
    # From the log, under another number: what `penstock replay --accept` does.
    replay(log, store, STEP, EPOCH + 1)
    assert 15 == store.applied(EPOCH + 1, 0).offset
    for epoch in (EPOCH, EPOCH + 1):
        store.drop(epoch)
    store.close()


def test_functions_of_an_earlier_build_are_replaced(redis_server: Servers):
    with redis_server.client() as client:
        client.function_load(LIBRARY.source.replace("@DIGEST@", "of another build"), replace=True)
    store = RedisStore(RedisAddress(redis_server.url), tenant="replaced")
    with redis_server.client() as client:
        assert LIBRARY.digest.encode() == client.fcall(f"{LIBRARY.name}_digest", 0)
    store.close()


# ------------------------------------------------------------------------------------ it is away


def test_a_server_that_is_away_is_told_within_the_deadline_and_comes_back(start_redis: StartRedis):
    servers = start_redis()
    store = RedisStore(RedisAddress(servers.url, **QUICK))
    written(store, 1)
    servers.servers[0].kill()
    with pytest.raises(Unavailable, match="E402"):
        store.read(EPOCH, [a_leaf(1)])
    servers.servers[0].start()
    a_move(store, lambda: wait_for(store))
    assert at(5) == store.applied(EPOCH, 0)
    assert at(5) == store.read(EPOCH, [a_leaf(1)])[0].version
    written(store, 1, at(5), 6)
    store.close()


def wait_for(store: RedisStore) -> None:
    """Ask until there is an answer other than that the server is away."""
    until = time.monotonic() + 20
    while time.monotonic() < until:
        try:
            store.check()
        except Unavailable as error:
            if error.code != "E402":
                raise
        else:
            return
    raise AssertionError("it never came back")


def test_a_server_that_hangs_is_told_within_the_deadline(start_redis: StartRedis):
    servers = start_redis()
    store = RedisStore(RedisAddress(servers.url, **QUICK))
    servers.servers[0].pause()
    with pytest.raises(Unavailable, match=r"E402.*the time was up"):
        store.read(EPOCH, [a_leaf(1)])
    servers.servers[0].resume()
    wait_for(store)
    written(store, 1)
    store.close()


def test_a_full_server_says_so_and_takes_more_when_there_is_room(start_redis: StartRedis):
    servers = start_redis()
    store = RedisStore(RedisAddress(servers.url))
    with servers.client() as client:
        client.config_set("maxmemory", "1mb")
        with pytest.raises(Unavailable, match=r"E402.*memory is full"):
            written(store, 1)
        client.config_set("maxmemory", "0")
    written(store, 1)
    store.close()


def test_a_policy_that_comes_to_evict_while_it_runs_is_found(start_redis: StartRedis):
    servers = start_redis()
    store = RedisStore(RedisAddress(servers.url))
    with servers.client() as client:
        client.config_set("maxmemory-policy", "volatile-ttl")
        with pytest.raises(Unavailable, match="E452"):
            store.check()
        with pytest.raises(Unavailable, match="E452"):
            store.read(EPOCH, [a_leaf(1)])
        client.config_set("maxmemory-policy", "noeviction")
    store.check()
    written(store, 1)
    store.close()


# -------------------------------------------------------------------------------- what was lost


@pytest.mark.parametrize(
    "ask",
    [
        lambda store: store.read(EPOCH, [a_leaf(1)]),
        lambda store: store.applied(EPOCH, 0),
        lambda store: store.write(EPOCH, [], partition=0, applied=at(9)),
        lambda store: store.check(),
    ],
    ids=["read", "applied", "write", "check"],
)
def test_an_emptied_server_is_never_taken_for_an_empty_one(start_redis: StartRedis, ask):
    servers = start_redis()
    store = RedisStore(RedisAddress(servers.url))
    written(store, 1)
    with servers.client() as client:
        client.flushall()
    a_move(store, lambda: ask(store))
    # Nobody has said since what it holds, so nobody may say that it is complete.
    with pytest.raises(Unavailable, match="E450"):
        store.write(EPOCH, [a_write(2, NO_VERSION, at(6))], partition=0, applied=at(9))
    assert NO_VERSION == store.applied(EPOCH, 0)
    assert [None] == store.read(EPOCH, [a_leaf(1)])
    written(store, 1)
    store.close()


def test_what_is_known_by_name_is_put_back_into_an_emptied_server(start_redis: StartRedis):
    servers = start_redis()
    store = RedisStore(RedisAddress(servers.url))
    store.put_meta("live_epoch", "3")
    with servers.client() as client:
        client.flushall()
    a_move(store, store.check)
    assert "3" == store.get_meta("live_epoch")
    store.close()


def test_of_two_processes_each_finds_out_that_the_server_was_emptied(start_redis: StartRedis):
    servers = start_redis()
    one, other = (RedisStore(RedisAddress(servers.url)) for _ in range(2))
    written(one, 1)
    with servers.client() as client:
        client.flushall()
    a_move(one, one.check)
    assert NO_VERSION == one.applied(EPOCH, 0)
    written(one, 2)
    a_move(other, lambda: other.read(EPOCH, [a_leaf(1)]))
    one.close()
    other.close()


def test_an_emptied_server_that_kept_its_data_nowhere_comes_back_with_the_functions(
    start_redis: StartRedis,
):
    servers = start_redis(settings={"appendonly": "no"})
    store = RedisStore(RedisAddress(servers.url, **QUICK))
    written(store, 1)
    servers.servers[0].kill()
    servers.servers[0].start()
    a_move(store, lambda: wait_for(store))
    assert NO_VERSION == store.applied(EPOCH, 0)
    written(store, 1)
    store.close()


def test_a_writer_that_did_not_see_the_end_of_the_era_notes_nothing(start_redis: StartRedis):
    """The function itself compares the marker, whatever its caller believes."""
    servers = start_redis()
    server = RedisServer(RedisAddress(servers.url), tenant="t", purpose=PURPOSE, library=LIBRARY)
    noting = server.call("note", [server.key("applied", "3"), server.marker_key], 0, b"v" * 16, server.marker)  # fmt: skip
    with servers.client() as client:
        client.flushall()
        client.function_load(LIBRARY.code, replace=True)
    with pytest.raises(Unavailable):
        server.run([noting])
    with servers.client() as client:
        assert not client.exists(server.key("applied", "3"))
    server.close()


def test_a_failover_that_lost_acknowledged_writes_is_found(start_redis: StartRedis):
    servers = start_redis(replicas=1)
    address = RedisAddress(servers.url, **QUICK)
    store = RedisStore(address)
    written(store, 1)
    written(store, 2, offset=6)
    with servers.client() as client:
        client.wait(1, 5_000)
    # From here on the replica hears nothing, and the primary goes on saying yes.
    servers.cut_off(1)
    written(store, 1, at(5), 7)
    assert at(7) == store.applied(EPOCH, 0)
    servers.servers[0].kill()
    servers.promote(1)

    # What clients are told by DNS, an address that moves, or a proxy.
    forwarded = RedisStore(address._replace(url=servers.urls[1]))
    assert at(6) == forwarded.applied(EPOCH, 0)
    assert [at(5), at(6)] == [one.version for one in forwarded.read(EPOCH, [a_leaf(1), a_leaf(2)])]
    # The cached leaf is ahead of the store: its base is refused, and no offset is noted.
    stale = forwarded.write(EPOCH, [a_write(1, at(7), at(8))], partition=0, applied=at(8))
    assert ([Verdict.REFUSED], at(6)) == (stale, forwarded.applied(EPOCH, 0))
    store.close()
    forwarded.close()


def test_a_primary_that_was_demoted_under_a_connection_takes_no_writes(start_redis: StartRedis):
    servers = start_redis(replicas=1)
    store = RedisStore(RedisAddress(servers.url))
    written(store, 1)
    servers.promote(1)
    with servers.client() as client, servers.client(1) as other:
        port = servers.urls[1].rpartition(":")[2].partition("/")[0]
        client.execute_command("REPLICAOF", "127.0.0.1", port)
        with pytest.raises(Unavailable):
            written(store, 1, at(5), 6)
        other.ping()
        with pytest.raises(Unavailable):
            store.check()
    store.close()


# ------------------------------------------------------------------------------ what is confirmed


def confirmed_in_time(store: RedisStore) -> Version:
    """Return the checkpoint as soon as the replica has it: it may just have come or woken."""
    until = time.monotonic() + 20
    while True:
        try:
            return store.confirmed(EPOCH, 0)
        except Unavailable:
            assert time.monotonic() < until, "the replica never had it"


def test_a_checkpoint_is_confirmed_once_the_replicas_have_it(start_redis: StartRedis):
    servers = start_redis(replicas=1)
    store = RedisStore(RedisAddress(servers.url, wait_replicas=1, **QUICK))
    written(store, 1)
    assert at(5) == confirmed_in_time(store)
    servers.servers[1].pause()
    written(store, 1, at(5), 6)
    assert at(6) == store.applied(EPOCH, 0)
    with pytest.raises(Unavailable, match=r"E451.*0 of 1"):
        store.confirmed(EPOCH, 0)
    servers.servers[1].resume()
    with servers.client() as client:
        client.wait(1, 5_000)
    assert at(6) == confirmed_in_time(store)
    store.close()


def test_without_replicas_asked_for_the_applied_offset_is_the_checkpoint(redis_server: Servers):
    store = RedisStore(RedisAddress(redis_server.url), tenant="unconfirmed")
    assert NO_VERSION == store.confirmed(EPOCH, 0)
    written(store, 1)
    assert at(5) == store.confirmed(EPOCH, 0)
    store.drop(EPOCH)
    store.close()
