"""Leaves of a Redis store that are kept in memory: never older than what the reader knows to be applied."""

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from penstock.adapters.redis import COMMANDS, RedisAddress
from penstock.adapters.store.redis import RedisStore
from penstock.adapters.store.redis.cache import AGE_S, ENTRY_BYTES, VOUCHED_S, CachedLeaves
from penstock.adapters.suppressions.redis import RedisSuppressions
from penstock.core.consent.suppression import Suppression, SuppressionKey
from penstock.core.errors import SettingsError, Unavailable
from penstock.core.record import NO_VERSION
from penstock.ports.store import LeafWrite
from penstock.testing.conformance.store import EPOCH, a_leaf, a_write, at
from tests.conftest import StartRedis
from tools.services.redis import Servers
from tools.services.service import LOOPBACK

MB = 1 << 20
PATIENT = {"timeout_ms": 20_000, "connect_timeout_ms": 20_000}
QUICK = {"timeout_ms": 300, "connect_timeout_ms": 300}
DEADLINE_S = 30
Make = Callable[..., CachedLeaves]


@contextlib.contextmanager
def opened(
    url: str, make: Make = CachedLeaves, *, tenant: str = "default", bytes_max: int = MB, **options: int
) -> Iterator[CachedLeaves]:  # fmt: skip
    """Open a store to read it, and a cache of its leaves; what else a test sets is the address's."""
    store = RedisStore(RedisAddress(url, **{**PATIENT, **options}), tenant=tenant)
    cache = make(store, bytes_max)
    try:
        yield cache
    finally:
        cache.close()
        store.close()


@contextlib.contextmanager
def writer(servers: Servers, tenant: str = "default") -> Iterator[RedisStore]:
    """Open a store as another process has it."""
    store = RedisStore(RedisAddress(servers.url, **PATIENT), tenant=tenant)
    yield store
    store.close()


def write(store: RedisStore, offset: int, base: int | None = None, n: int = 1) -> None:
    """Write the n-th leaf, and note the offset."""
    before = NO_VERSION if base is None else at(base)
    store.write(EPOCH, [a_write(n, before, at(offset))], partition=0, applied=at(offset))


def offset_of(cache: CachedLeaves, n: int = 1) -> int | None:
    """Return up to where the n-th leaf is; None if it is not there."""
    found = cache.read(EPOCH, [a_leaf(n)])[0]
    return None if found is None else found.version.offset


def kept_offset_of(cache: CachedLeaves, n: int = 1) -> int | None:
    """Return up to where the n-th leaf is that is kept; None if none is."""
    found = cache.at_hand(EPOCH, [a_leaf(n)])
    return None if found is None or found[0] is None else found[0].version.offset


class Gate:
    """A way to a server on which the connection that tracks can be held up, in either direction."""

    def __init__(self, servers: Servers) -> None:
        self._servers = servers
        self.number = 0
        """To which of the servers it leads."""
        self._listener = socket.create_server((LOOPBACK, 0))
        self.url = f"redis://{LOOPBACK}:{self._listener.getsockname()[1]}/0"
        self.altered = (b"", b"")
        """What is put in place of what, in every request."""
        self.split_before = b""
        """Where a request is cut in two, the second half of which is held up; once."""
        self.halved, self.told = threading.Event(), threading.Event()
        self.goes_on, self.answers = threading.Event(), threading.Event()
        self.goes_on.set()
        self.answers.set()
        self._tracks: set[socket.socket] = set()
        self._start(self._accept)

    def _start(self, work: Callable[..., None], *arguments: object) -> None:
        threading.Thread(target=work, args=arguments, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                port = int(self._servers.urls[self.number].rpartition(":")[2].partition("/")[0])
                far = socket.create_connection((LOOPBACK, port))
                self._start(self._up, near, far)
                self._start(self._down, near, far)

    def _up(self, near: socket.socket, far: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := near.recv(MB):
                data = data.replace(*self.altered) if self.altered[0] else data
                if b"TRACKING" in data:
                    self._tracks.add(near)
                if self.split_before and near in self._tracks and self.split_before in data:
                    first, mark, data = data.partition(self.split_before)
                    self.split_before, data = b"", mark + data
                    far.sendall(first)
                    self.halved.set()
                    self.goes_on.wait(DEADLINE_S)
                far.sendall(data)
        far.close()

    def _down(self, near: socket.socket, far: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := far.recv(MB):
                if near in self._tracks:
                    self.answers.wait(DEADLINE_S)
                near.sendall(data)
                if b"invalidate" in data:
                    self.told.set()
        near.close()

    def close(self) -> None:
        self.goes_on.set()
        self.answers.set()
        self._listener.close()


# -------------------------------------------------------------------------------- what is kept


def test_a_leaf_is_kept_until_it_changes(redis_server: Servers):
    with writer(redis_server, "kept") as other, opened(redis_server.url, tenant="kept") as cache:
        write(other, 5)
        assert None is cache.at_hand(EPOCH, [a_leaf(1)])
        assert 5 == offset_of(cache)
        assert (5, 5) == (kept_offset_of(cache), offset_of(cache))
        assert (2, 1) == (cache.hits, cache.misses)
        write(other, 6, 5)
        assert at(6) == cache.applied(EPOCH, 0)
        assert None is kept_offset_of(cache)
        assert (6, 6) == (offset_of(cache), kept_offset_of(cache))
        other.drop(EPOCH)
        cache.applied(EPOCH, 0)
        assert None is offset_of(cache)


def test_that_a_leaf_is_not_there_is_kept_as_well(redis_server: Servers):
    with writer(redis_server, "none") as other, opened(redis_server.url, tenant="none") as cache:
        assert [None] == cache.read(EPOCH, [a_leaf(1)]) == cache.at_hand(EPOCH, [a_leaf(1)])
        write(other, 5)
        cache.applied(EPOCH, 0)
        assert None is cache.at_hand(EPOCH, [a_leaf(1)])
        assert 5 == offset_of(cache)
        other.drop(EPOCH)


def test_leaves_are_read_in_the_order_asked_kept_or_not(redis_server: Servers):
    with writer(redis_server, "order") as other, opened(redis_server.url, tenant="order") as cache:
        for n in range(1, 4):
            write(other, n, n=n)
        cache.read(EPOCH, [a_leaf(2), a_leaf(9)])
        asked = [a_leaf(n) for n in (3, 9, 2, 3, 1)]
        assert other.read(EPOCH, asked) == cache.read(EPOCH, asked) == cache.at_hand(EPOCH, asked)
        assert [None] == cache.read(EPOCH + 1, [a_leaf(1)])
        other.drop(EPOCH)


def test_many_leaves_are_kept_in_a_cluster_of_slots(redis_cluster: Servers):
    with writer(redis_cluster, "slots") as other, opened(
        redis_cluster.url, tenant="slots", bytes_max=8 * MB
    ) as cache:  # fmt: skip
        many = [a_leaf(n) for n in range(1_200)]
        writes = [a_write(n, NO_VERSION, at(n)) for n in range(1_200)]
        other.write(EPOCH, writes, partition=0, applied=at(1_200))
        assert other.read(EPOCH, many) == cache.read(EPOCH, many) == cache.at_hand(EPOCH, many)
        write(other, 1_300, 7, n=7)
        cache.applied(EPOCH, 0)
        assert (None, 8) == (kept_offset_of(cache, 7), kept_offset_of(cache, 8))
        other.drop(EPOCH)


def test_no_more_is_kept_than_was_asked_for_and_what_was_used_last_stays(redis_server: Servers):
    with writer(redis_server, "bound") as other, opened(
        redis_server.url, tenant="bound", bytes_max=3 * (10_000 + ENTRY_BYTES) + 1_000
    ) as cache:  # fmt: skip
        for n in range(1, 5):
            one = LeafWrite(a_leaf(n), NO_VERSION, at(n), (b"x" * 10_000,))
            other.write(EPOCH, [one], partition=0, applied=at(n))
        cache.read(EPOCH, [a_leaf(n) for n in (1, 2, 3)])
        assert 1 == kept_offset_of(cache, 1)
        assert 4 == offset_of(cache, 4)
        assert [1, None, 3, 4] == [kept_offset_of(cache, n) for n in (1, 2, 3, 4)]
        assert 3 * 10_000 < cache.size_bytes <= 3 * (10_000 + ENTRY_BYTES) + 1_000
        other.drop(EPOCH)
        cache.applied(EPOCH, 0)
        assert None is kept_offset_of(cache)
        assert 0 == cache.size_bytes


def test_registers_are_asked_each_time(redis_server: Servers):
    """What consent was withdrawn is not for a cache, however it is set."""
    address = RedisAddress(redis_server.url, **PATIENT)
    with opened(redis_server.url, tenant="registers") as cache:
        ours, theirs = (RedisSuppressions(address, tenant="registers") for _ in range(2))
        ours.make_whole([])
        cache.read(EPOCH, [a_leaf(1)])
        for at_ms in range(1, 4):
            key = SuppressionKey(a_leaf(1), "purpose", "personalisation")
            entry = Suppression(at_ms, True, at_ms, "withdrawal")
            theirs.put([(key, entry)])
            assert {key: entry} == ours.get([a_leaf(1)])
        ours.close()
        theirs.close()


# ------------------------------------------------------------------------ never older than promised


def over_a_lost_connection(start_redis: StartRedis, make: Make) -> None:
    servers = start_redis()
    with opened(servers.url, make) as cache:
        with writer(servers) as other:
            write(other, 5)
        assert (5, 5) == (offset_of(cache), kept_offset_of(cache))
        with servers.client() as client:
            client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        with writer(servers) as other:
            write(other, 6, 5)
        assert 6 == offset_of(cache)


def while_it_is_read(start_redis: StartRedis, make: Make) -> None:
    servers = start_redis()
    gate = Gate(servers)
    with contextlib.closing(gate), opened(gate.url, make) as cache, writer(servers) as other:
        write(other, 5)
        gate.goes_on.clear()
        # The leaf is asked for, and the rest of the question is on its way while it changes.
        gate.split_before = b"*2\r\n$3\r\nGET\r\n"
        found: list[int | None] = []
        reader = threading.Thread(target=lambda: found.append(offset_of(cache)))
        reader.start()
        assert gate.halved.wait(DEADLINE_S)
        while "cmdstat_mget" not in _commands(servers):
            pass
        write(other, 6, 5)
        assert gate.told.wait(DEADLINE_S)
        gate.goes_on.set()
        reader.join(DEADLINE_S)
        assert [5] == found
        assert at(6) == cache.applied(EPOCH, 0)
        assert 6 == offset_of(cache)


def _commands(servers: Servers) -> set[str]:
    with servers.client() as client:
        return set(client.info("commandstats"))


def ahead_of_what_was_heard(start_redis: StartRedis, make: Make) -> None:
    servers = start_redis()
    gate = Gate(servers)
    with contextlib.closing(gate), opened(gate.url, make, **QUICK) as cache, writer(servers) as other:  # fmt: skip
        write(other, 5)
        assert (5, 5) == (offset_of(cache), kept_offset_of(cache))
        gate.answers.clear()
        write(other, 6, 5)
        # That leaves changed is under way, on a slow way. Until it is here nobody may say how far they are.
        with contextlib.suppress(Unavailable):
            assert at(5) == cache.applied(EPOCH, 0) or kept_offset_of(cache) in {None, 6}
        gate.answers.set()


def over_a_failover(start_redis: StartRedis, make: Make) -> None:
    servers = start_redis(replicas=1)
    gate = Gate(servers)
    with contextlib.closing(gate), opened(gate.url, make) as cache, writer(servers) as other:
        write(other, 5)
        with servers.client() as client:
            assert 1 == client.wait(1, 5_000)
        servers.cut_off(1)
        write(other, 6, 5)
        assert (6, 6) == (offset_of(cache), kept_offset_of(cache))
        servers.servers[0].kill()
        servers.promote(1)
        gate.number = 1
        told = ""
        while told != "E450":
            try:
                assert at(5) == cache.applied(EPOCH, 0)
            except Unavailable as error:
                told = error.code
        assert at(5) == cache.applied(EPOCH, 0)
        assert 5 == offset_of(cache)
        servers.servers[1].kill()


SCENES = [over_a_lost_connection, while_it_is_read, ahead_of_what_was_heard, over_a_failover]


@pytest.mark.parametrize("scene", SCENES)
def test_nothing_is_older_than_what_is_known_to_be_applied(start_redis: StartRedis, scene):
    scene(start_redis, CachedLeaves)


class KeptOverALostConnection(CachedLeaves):
    def _clear(self):
        """Keeps what is there."""


class KeptWhatChangedMeanwhile(CachedLeaves):
    def _changed(self, keys):
        super()._changed(keys)
        self._heard.clear()


class AppliedFromElsewhere(CachedLeaves):
    def applied(self, epoch, partition):
        return self._store.applied(epoch, partition)


@pytest.mark.parametrize(
    ("planted", "scene"),
    [
        (KeptOverALostConnection, over_a_lost_connection),
        (KeptOverALostConnection, over_a_failover),
        (KeptWhatChangedMeanwhile, while_it_is_read),
        (AppliedFromElsewhere, ahead_of_what_was_heard),
    ],
)
def test_a_planted_bug_is_found(start_redis: StartRedis, planted, scene):
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        scene(start_redis, planted)


def test_of_an_emptied_server_nothing_is_kept(start_redis: StartRedis):
    servers = start_redis()
    with opened(servers.url) as cache, writer(servers) as other, servers.client() as client:
        write(other, 5)
        assert 5 == offset_of(cache)
        client.flushall()
        with pytest.raises(Unavailable, match="E450"):
            cache.applied(EPOCH, 0)
        assert None is cache.at_hand(EPOCH, [a_leaf(1)])
        assert (NO_VERSION, None) == (cache.applied(EPOCH, 0), offset_of(cache))


def test_an_era_that_ends_elsewhere_in_the_process_ends_what_is_kept(start_redis: StartRedis):
    servers = start_redis()
    store = RedisStore(RedisAddress(servers.url, **PATIENT))
    cache = CachedLeaves(store, MB)
    with writer(servers) as other, servers.client() as client:
        write(other, 5)
        assert (5, 5) == (offset_of(cache), kept_offset_of(cache))
        # Another marker in the same server: as one that was emptied and filled by others.
        client.set(store.server.marker_key, "another")
        with pytest.raises(Unavailable, match="E450"):
            store.read(EPOCH, [a_leaf(1)])
        assert None is cache.at_hand(EPOCH, [a_leaf(1)])
        assert 5 == offset_of(cache)
    cache.close()
    store.close()


def test_what_the_server_did_not_stand_by_lately_is_not_used(start_redis: StartRedis):
    servers = start_redis()
    now_s = [1_000.0]

    def make(store: RedisStore, bytes_max: int) -> CachedLeaves:
        return CachedLeaves(store, bytes_max, monotonic_s=lambda: now_s[0])

    with opened(servers.url, make) as cache, writer(servers) as other:
        write(other, 5)
        assert (5, 5) == (offset_of(cache), kept_offset_of(cache))
        now_s[0] += VOUCHED_S + 0.1
        assert None is cache.at_hand(EPOCH, [a_leaf(1)])
        assert (5, 5) == (offset_of(cache), kept_offset_of(cache))
        assert (3, 1) == (cache.hits, cache.misses)
        now_s[0] += AGE_S
        assert at(5) == cache.applied(EPOCH, 0)
        assert None is cache.at_hand(EPOCH, [a_leaf(1)])
        assert (5, 2) == (offset_of(cache), cache.misses)


def test_a_server_that_hangs_vouches_for_nothing(start_redis: StartRedis):
    servers = start_redis()
    with opened(servers.url, **QUICK) as cache, writer(servers) as other:
        write(other, 5)
        assert (5, 5) == (offset_of(cache), kept_offset_of(cache))
        servers.servers[0].pause()
        with pytest.raises(Unavailable, match="E402"):
            cache.applied(EPOCH, 0)
        assert None is cache.at_hand(EPOCH, [a_leaf(1)])
        with pytest.raises(Unavailable, match="E402"):
            offset_of(cache)
        servers.servers[0].resume()


# ------------------------------------------------------------------------------------ at the start


def test_over_tls_as_a_user_who_may_do_what_the_guide_lists(start_redis: StartRedis):
    servers = start_redis(secured=True, users=[
        f"penstock on >ours ~penstock:* {COMMANDS}", f"bare on >bare ~penstock:* {COMMANDS} -client|tracking",
    ])  # fmt: skip
    address = RedisAddress(servers.url, "penstock", "ours", str(servers.ca), **PATIENT)
    store, other = RedisStore(address), RedisStore(address)
    cache = CachedLeaves(store, MB)
    write(other, 5)
    assert (5, 5) == (offset_of(cache), kept_offset_of(cache))
    write(other, 6, 5)
    cache.applied(EPOCH, 0)
    assert 6 == offset_of(cache)
    bare = RedisStore(address._replace(username="bare", password="bare"))
    with pytest.raises(SettingsError, match="E294"):
        CachedLeaves(bare, MB)
    for one in (cache, store, other, bare):
        one.close()


def test_a_server_that_does_not_say_what_changes_is_refused(redis_server: Servers):
    gate = Gate(redis_server)
    # As other products answer, and proxies: they know nothing of it.
    gate.altered = (b"TRACKING", b"TRAILING")
    store = RedisStore(RedisAddress(gate.url, **PATIENT))
    with pytest.raises(SettingsError, match="E239") as refused:
        CachedLeaves(store, MB)
    assert "cache_mb" in refused.value.fix
    store.close()
    gate.close()
