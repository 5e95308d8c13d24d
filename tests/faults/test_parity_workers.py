"""One recorded log, through an embedded process and through Kafka, workers and Redis: the same bytes.

The example shop, unchanged but for `penstock.toml`. Every leaf is compared as bytes, and every profile as
it is served; with workers that end, are killed and replaced meanwhile, with commits set back, and after
Redis was emptied. Shuffled and doubled intake is compared as leaves projected at one instant.
"""

import random
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from itertools import count
from pathlib import Path

import pytest
from fault_shop import step_of
from parity_shop import ParityShop, after, projected

from examples.shop.synthetic import Sent, Shoppers
from penstock.adapters.clock import SystemClock
from penstock.core.time import format_instant
from tests.conftest import StartRedis
from tools.services.kafka import Cluster
from tools.services.redis import Servers

sys.path.append(str(Path(__file__).parent.parent / "retail"))
import retail_shop
from retail_shop import read_orders

pytestmark = [pytest.mark.service, pytest.mark.timeout(900)]

SHOP = Path(__file__).parent.parent.parent / "examples" / "shop"
WRITE_KEYS = {"web": "demo-web-key", "backend": "demo-server-key"}
BATCH = 100
RETAIL_KEY, RETAIL_BATCH = "till-key", 100

MakeShop = Callable[..., ParityShop]


@pytest.fixture
def make_shop(kafka: Cluster, tmp_path: Path) -> Iterator[MakeShop]:
    made: list[ParityShop] = []
    numbers = count(1)

    def make(source: Path, redis_url: str) -> ParityShop:
        number = next(numbers)
        folder = tmp_path / f"shop-{number}"
        folder.mkdir()
        redis = f'url = "{redis_url}", timeout_ms = 5000, registers = true'
        made.append(ParityShop(source, folder, kafka.address, f"{tmp_path.name}-{number}.", redis))
        return made[-1]

    yield make
    for shop in made:
        shop.end()


def send(shop: ParityShop, events: Sequence[Sent]) -> None:
    """Send events in their order, as many of one source at once as follow on each other."""
    batch: list[Sent] = []
    for one in events:
        if batch and (one.source != batch[0].source or len(batch) == BATCH):
            shop.send(WRITE_KEYS[batch[0].source], [each.body for each in batch])
            batch = []
        batch.append(one)
    if batch:
        shop.send(WRITE_KEYS[batch[0].source], [each.body for each in batch])


def parts(events: Sequence[Sent], number: int) -> list[Sequence[Sent]]:
    """Return events in so many parts, of about the same length."""
    size = -(-len(events) // number)
    return [events[start : start + size] for start in range(0, len(events), size)]


def up(shop: ParityShop, workers: int = 2) -> None:
    """Start `penstock up` and workers, and let the catalogue be folded: events are stamped with it."""
    shop.up()
    for _ in range(workers):
        shop.work_elsewhere()
    shop.until_shared(*shop.workers)
    shop.until_folded()


def stop_workers(shop: ParityShop) -> None:
    for worker in shop.workers:
        if worker.process.poll() is None:
            assert worker.stop() == 0, worker.errors.read_text()


def test_the_example_shop_has_the_same_bytes_embedded_and_on_kafka_workers_and_redis(
    make_shop: MakeShop, start_redis: StartRedis, kafka: Cluster, tmp_path: Path
) -> None:
    servers = start_redis()
    shop = make_shop(SHOP, servers.url)
    shoppers = Shoppers(3, SystemClock().now_ms(), people=12)
    first, second, third = parts(shoppers.events(), 3)
    up(shop, workers=1)
    send(shop, first)
    stop_workers(shop)
    shop.set_commits_back(kafka)
    send(shop, second)
    again = [shop.work_elsewhere(), shop.work_elsewhere()]
    with servers.client() as client:
        client.flushall()
    send(shop, third)
    shop.until_shared(*again)
    compare(shop, sorted(shoppers.truth.emails), tmp_path)


def compare(shop: ParityShop, users: Sequence[str], folder: Path) -> str:
    """Compare what workers have folded with what one process does; return the instant of the profiles."""
    shop.until_folded()
    with shop.opened() as (_, log, _, _):
        as_of = after(log)
    worked = shop.folded(users, as_of)
    embedded = shop.embedded(folder / "embedded", users, as_of)
    assert len(worked.bodies) > len(users)
    assert embedded.bodies == worked.bodies
    assert embedded.profiles == worked.profiles
    assert all(profile["features"] for profile in worked.profiles.values())
    return as_of


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_kills_rebalances_redelivery_and_a_replay_into_an_empty_redis_change_no_byte(
    seed: int, make_shop: MakeShop, start_redis: StartRedis, kafka: Cluster, tmp_path: Path
) -> None:
    servers, dice = start_redis(), random.Random(seed)
    shop = make_shop(SHOP, servers.url)
    shoppers = Shoppers(seed, SystemClock().now_ms(), people=60)
    up(shop)
    working = [*shop.workers]
    for part in parts(shoppers.events(), 6):
        send(shop, part[: len(part) // 2])
        victim = working.pop(dice.randrange(len(working)))
        # One that is killed has folded what it has not written or not committed: it comes again.
        victim.kill() if dice.random() < 0.6 else victim.stop()
        working.append(shop.work_elsewhere())
        send(shop, part[len(part) // 2 :])
        shop.until_shared(*working)
    stop_workers(shop)
    shop.set_commits_back(kafka)
    working = [shop.work_elsewhere(), shop.work_elsewhere()]
    shop.until_shared(*working)
    users = sorted(shoppers.truth.emails)
    as_of = compare(shop, users, tmp_path)
    before = shop.folded(users, as_of)
    with servers.client() as client:
        client.flushall()
    shop.until_folded()
    assert before == shop.folded(users, as_of), "all of it was folded again"


@pytest.mark.slow
def test_shuffled_and_doubled_intake_gives_the_same_leaves_projected_at_one_instant(
    make_shop: MakeShop, start_redis: StartRedis
) -> None:
    servers, dice = start_redis(), random.Random(4)
    shoppers = Shoppers(4, SystemClock().now_ms(), people=40)
    events = shoppers.events()
    shops = [make_shop(SHOP, servers.url), make_shop(SHOP, another_database(servers))]
    for number, shop in enumerate(shops):
        if number:
            shutil.copytree(shops[0].folder / "data", shop.folder / "data",
                            ignore=lambda _, names: [name for name in names if name != "keys.json"])  # fmt: skip
            events = [*events, *dice.sample(events, len(events) // 2)]
            dice.shuffle(events)
        up(shop)
        send(shop, events)
        shop.until_folded()
        stop_workers(shop)
    with shops[0].opened() as one, shops[1].opened() as other:
        at_ms = max(
            log.last_logged_at_ms(number)
            for _, log, _, _ in (one, other)
            for number in range(log.partitions)
        )
        leaves = [
            projected(store, epoch, step_of(project), at_ms)
            for project, _, store, epoch in (one, other)
        ]
    assert len(leaves[0]) > len(shoppers.truth.emails)
    assert leaves[0] == leaves[1]


def another_database(servers: Servers) -> str:
    """Return the address of another database of a server."""
    return servers.url.removesuffix("/0") + "/1"


@pytest.mark.slow
@pytest.mark.timeout(1_800)
def test_all_of_online_retail_has_the_same_bytes_with_workers_killed_meanwhile(
    online_retail: Path,
    make_shop: MakeShop,
    start_redis: StartRedis,
    kafka: Cluster,
    tmp_path: Path,
) -> None:
    servers, dice = start_redis(), random.Random(5)
    shop = make_shop(retail_project(tmp_path / "retail"), servers.url)
    # As if the last order were of now: windows are full then, and not empty.
    orders = read_orders(online_retail)
    later_ms = SystemClock().now_ms() - orders[-1].at_ms
    bodies = [
        {**one.body, "timestamp": format_instant(one.at_ms + later_ms)} for one in orders
    ]  # fmt: skip
    up(shop)
    working = [*shop.workers]
    for number, start in enumerate(range(0, len(bodies), RETAIL_BATCH)):
        shop.send(RETAIL_KEY, bodies[start : start + RETAIL_BATCH])
        if number % 100 == 50:
            working.pop(dice.randrange(len(working))).kill()
            working.append(shop.work_elsewhere())
    # Commits are set back of a group without members: who was killed last has been given up by then.
    shop.until_shared(*working)
    stop_workers(shop)
    shop.set_commits_back(kafka)
    shop.work_elsewhere()
    shop.work_elsewhere()
    people = sorted({one.person for one in orders if one.id_type == "user_id"})
    compare(shop, dice.sample(people, 300), tmp_path)


def retail_project(folder: Path) -> Path:
    """Make a project of the definitions that Online Retail is compared with DuckDB by."""
    folder.mkdir()
    beside = Path(retail_shop.__file__).parent
    (folder / "events.py").write_text(
        f"import sys\n\nsys.path.append({str(beside)!r})\nfrom retail_shop import order\n"
    )
    (folder / "features.py").write_text("from retail_shop import Shopper\n")
    (folder / "penstock.toml").write_text(f"""
[project]
timezone = "{retail_shop.TIME_ZONE}"
[server]
read_keys = ["demo-read-key"]
[sources.till]
kind = "server"
write_key = "{RETAIL_KEY}"
basis = {{ personalisation = "contract" }}
""")
    return folder
