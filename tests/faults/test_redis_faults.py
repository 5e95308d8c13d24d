"""A shop whose leaves are on Redis, under load, while Redis and the shop are killed, paused and emptied.

What the senders know is compared with what lies in the log and in Redis, and every leaf there with the
one that an embedded store has of the same log, as bytes.
"""

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from fault_shop import Sender, Shop, assert_everything_is_there_once, load, step_of

from penstock.adapters.store.memory import MemoryStore
from penstock.flows.replay import replay
from penstock.ports.store import Store
from tests.conftest import missing, new_folder
from tools.services.redis import SERVICE, Servers

SEED = 20_261_130
ACKS_MAX = 1_200
ROUNDS = ("kill redis", "kill shop", "empty redis", "pause redis", "kill both")


@pytest.fixture
def servers() -> Iterator[Servers]:
    if lacks := SERVICE.missing():
        missing(lacks)
    started = SERVICE.start(new_folder("redis"), settings={"appendfsync": "everysec"})
    yield started
    started.remove()


class RedisShop(Shop):
    """The shop of the fault tests, with its leaves on Redis."""

    def __init__(self, folder: Path, url: str) -> None:
        super().__init__(folder)
        toml = folder / "penstock.toml"
        settings = f'kind = "redis"\nredis = {{ url = "{url}", timeout_ms = 500 }}\n'
        toml.write_text(toml.read_text().replace("[store]\n", f"[store]\n{settings}"))


@pytest.fixture
def redis_shop(tmp_path: Path, servers: Servers) -> Iterator[RedisShop]:
    started = RedisShop(tmp_path, servers.url)
    yield started
    if started.process is not None:
        started.process.kill()
        started.reap()


@pytest.mark.timeout(240)
def test_whatever_is_killed_or_emptied_every_leaf_is_that_of_an_embedded_store(
    redis_shop: RedisShop, servers: Servers
) -> None:
    dice = random.Random(SEED)
    sender = Sender()
    redis = servers.servers[0]
    redis_shop.up()
    sender.up.set()
    with load(sender, redis_shop.port):
        for what in ROUNDS:
            sender.wait_for(len(sender.acknowledged) + dice.randint(300, ACKS_MAX))
            known = len(sender.acknowledged)
            match what:
                case "empty redis":
                    with servers.client() as client:
                        client.flushall()
                case "pause redis":
                    redis.pause()
                    # The log takes events whatever Redis does.
                    sender.wait_for(known + 200)
                    redis.resume()
                case "kill redis":
                    redis.kill()
                    sender.wait_for(known + 200)
                    redis.start()
                case _:
                    sender.up.clear()
                    redis_shop.kill()
                    if what == "kill both":
                        redis.kill()
                        redis.start()
                    redis_shop.up()
                    sender.up.set()
        sender.wait_for(len(sender.acknowledged) + 200)
    redis_shop.stop()
    assert_everything_is_there_once(redis_shop, sender)
    with redis_shop.files() as (project, log, store, epoch):
        embedded = MemoryStore()
        replay(log, embedded, step_of(project), 1)
        assert bodies(embedded, 1) == bodies(store, epoch)


def bodies(store: Store, epoch: int) -> dict[bytes, tuple[bytes, ...]]:
    """Return the bytes of every leaf, by its id."""
    return {leaf: stored.parts for leaf, stored in store.scan(epoch, None, 1_000_000)}
