"""Where leaves are kept, as the settings say: whose they are, and what is refused at the start."""

import shutil
from pathlib import Path

import pytest

from penstock.adapters.clock import SystemClock
from penstock.adapters.suppressions.redis import RedisSuppressions
from penstock.compose import open_stores
from penstock.core.errors import SettingsError
from penstock.core.ids import LeafId
from penstock.core.record import NO_VERSION, Version
from penstock.ports.store import LeafWrite
from penstock.project import Project, load_project
from penstock.stores import ask_redis, cache_leaves
from tools.services.redis import Servers

LEAF = LeafId(b"l" * 16)


def a_project(
    folder: Path, servers: Servers, tenant: str, more: str = "", log: str = ""
) -> Project:
    folder.mkdir(exist_ok=True)
    (folder / "penstock.toml").write_text(
        f'[project]\ntenant = "{tenant}"\n[log]\n{log}\n[store]\nkind = "redis"\n'
        f'[store.redis]\nurl = "{servers.url}"\ntimeout_ms = 20000\n{more}\n'
    )
    return load_project(folder)


def test_leaves_are_of_one_project(tmp_path: Path, redis_server: Servers):
    first = a_project(tmp_path / "one", redis_server, "owned")
    for _ in range(2):
        open_stores(first).close()
    with pytest.raises(SettingsError, match="E298"):
        open_stores(a_project(tmp_path / "two", redis_server, "owned"))
    open_stores(a_project(tmp_path / "two", redis_server, "another")).close()


def test_leaves_that_are_ahead_of_the_log_are_made_again_from_it(
    tmp_path: Path, redis_server: Servers
):
    project = a_project(tmp_path / "shop", redis_server, "ahead")
    stores = open_stores(project)
    stores.log.append(0, [b"x", b"y"])
    write = LeafWrite(LEAF, NO_VERSION, Version(1, 1), (b"body",))
    stores.store.write(1, [write], partition=0, applied=Version(1, 1))
    stores.close()
    stores = open_stores(project)
    assert Version(1, 1) == stores.store.applied(1, 0)
    stores.close()
    # As after a restore: the keys are there, and the log is one of before.
    for file in project.data_dir.glob("log.db*"):
        file.unlink()
    stores = open_stores(project)
    assert (NO_VERSION, [None]) == (stores.store.applied(1, 0), stores.store.read(1, [LEAF]))
    stores.close()


def test_the_only_copy_of_history_is_not_kept_in_redis(tmp_path: Path, redis_server: Servers):
    log = 'keep = "90d"\nforget = true'
    with pytest.raises(SettingsError, match="E296"):
        open_stores(a_project(tmp_path / "shop", redis_server, "forgets", log=log))


def test_suppressions_and_decisions_go_with_them_if_asked(tmp_path: Path, redis_server: Servers):
    folder = tmp_path / "shop"
    stores = open_stores(a_project(folder, redis_server, "registers", "registers = true"))
    assert isinstance(stores.suppressions, RedisSuppressions)
    assert [] == stores.decisions.outbox(10)
    stores.log.append(0, [b"x"])
    stores.close()
    assert not list((folder / "data").glob("decisions.db"))
    with redis_server.client() as client:
        client.delete("penstock:{registers}:founded")
    with pytest.raises(SettingsError, match="E299"):
        open_stores(load_project(folder))
    shutil.rmtree(folder)


def test_a_server_says_what_it_is(tmp_path: Path, redis_server: Servers):
    asked = ask_redis(a_project(tmp_path / "shop", redis_server, "asked"), SystemClock())
    assert "noeviction" == asked.facts.policy
    assert 0 < asked.facts.memory_bytes < asked.facts.memory_bytes_max
    assert asked.before_ms - 1_000 < asked.facts.time_ms < asked.after_ms + 1_000


def test_leaves_are_kept_in_memory_where_the_settings_say_so(tmp_path: Path, redis_server: Servers):
    for cache_mb, kept in ((0, False), (1, True)):
        project = a_project(tmp_path / f"{cache_mb}", redis_server, f"kept{cache_mb}", f"cache_mb = {cache_mb}")  # fmt: skip
        stores = open_stores(project)
        cache = cache_leaves(project.settings, stores.store)
        assert kept == (cache is not None)
        if cache is not None:
            assert [None] == cache.read(1, [LEAF]) == cache.at_hand(1, [LEAF])
            cache.close()
        stores.close()
